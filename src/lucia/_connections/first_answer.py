"""Ask several servers the same and take the first answer, in both flavours.

Usually one is asked, and it answers. If it does not within its share of the time, others are asked
side by side, so that addresses which drop packets cost one share together and not one share each.
"""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from queue import Empty, SimpleQueue
from typing import Final, TypeVar

__all__ = ["AsyncFirstAnswer", "FirstAnswer"]

T = TypeVar("T")

AT_ONCE: Final = 16
"""How many are asked side by side."""

SHARE: Final = 1 / 3
"""The part of the remaining time that a group has if there is another group after it."""


def _groups(count: int, end: float) -> Iterator[tuple[slice, float]]:
    """Yield which calls to make together, and how many seconds they have.

    The first one is alone: side by side costs a connection for each, and is seldom needed.
    """
    start, size = 0, 1
    while start < count and (left := end - time.monotonic()) > 0:
        following = start + size
        yield slice(start, following), left if following >= count else left * SHARE
        start, size = following, AT_ONCE


class AsyncFirstAnswer:
    """The first of several calls that returns something."""

    @staticmethod
    async def of(calls: Sequence[Callable[[float], Awaitable[T]]], seconds: float) -> tuple[T | None, list[Exception]]:
        """Return the first answer, and the errors that came before it; None if all failed.

        Args:
            calls: each takes the seconds that it has. A call that is late is cancelled.
            seconds: for all of them.
        """
        errors: list[Exception] = []
        for group, limit in _groups(len(calls), time.monotonic() + seconds):
            answer = await _first_task([call(limit) for call in calls[group]], limit, errors)
            if answer is not None:
                return answer, errors
        return None, errors


async def _first_task(calls: Sequence[Awaitable[T]], seconds: float, errors: list[Exception]) -> T | None:
    end = time.monotonic() + seconds
    tasks = [asyncio.ensure_future(call) for call in calls]
    pending = set(tasks)
    try:
        while pending and (left := end - time.monotonic()) > 0:
            done, pending = await asyncio.wait(pending, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                try:
                    return task.result()
                except Exception as error:
                    errors.append(error)
        return None
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class FirstAnswer:
    """The first of several calls that returns something.

    A group of several runs in threads, since any call may hang until its time is over: in a
    name server, in a connect, in a handshake. One call alone runs in the caller's own thread. So a
    healthy cluster costs no thread, and programs that forbid threads work while one server answers.
    """

    @staticmethod
    def of(calls: Sequence[Callable[[float], T]], seconds: float) -> tuple[T | None, list[Exception]]:
        """Return the first answer, and the errors that came before it; None if all failed.

        Args:
            calls: each takes the seconds that it has, and has to keep to them. Nobody waits for one
                that is late, or later than another.
            seconds: for all of them.
        """
        errors: list[Exception] = []
        for group, limit in _groups(len(calls), time.monotonic() + seconds):
            answer = _first_thread(calls[group], limit, errors)
            if answer is not None:
                return answer, errors
        return None, errors


def _first_thread(calls: Sequence[Callable[[float], T]], seconds: float, errors: list[Exception]) -> T | None:
    end = time.monotonic() + seconds
    outcomes: SimpleQueue[T | Exception] = SimpleQueue()

    def run(call: Callable[[float], T]) -> None:
        try:
            outcomes.put(call(seconds))
        except Exception as error:
            outcomes.put(error)

    if len(calls) == 1:
        run(calls[0])
    else:
        for call in calls:
            threading.Thread(target=run, args=(call,), name="lucia-map", daemon=True).start()
    for _ in calls:
        try:
            outcome = outcomes.get(timeout=max(end - time.monotonic(), 0))
        except Empty:
            break
        if not isinstance(outcome, Exception):
            return outcome
        errors.append(outcome)
    return None
