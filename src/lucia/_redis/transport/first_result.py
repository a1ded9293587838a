"""Ask several servers the same question and take the first answer, sync and async.

Usually one is asked, and it answers. If it does not within its share of the time, others are asked
concurrently, so that addresses which drop packets cost one share together and not one share each.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import Future, as_completed
from contextlib import suppress
from functools import partial
from typing import Final, TypeVar

from lucia._redis.transport.threads import in_thread

__all__ = ["AsyncFirstResult", "FirstResult"]

T = TypeVar("T")

AT_ONCE: Final = 16
"""How many are asked concurrently."""

SHARE: Final = 1 / 3
"""The part of the remaining time that a group has if there is another group after it."""


def _groups(count: int, end: float) -> Iterator[tuple[slice, float]]:
    """Yield which calls to make together, and how many seconds they have."""
    # The first one is alone: asking concurrently costs a connection for each, and is seldom needed.
    start, size = 0, 1
    while start < count and (left := end - time.monotonic()) > 0:
        following = start + size
        yield slice(start, following), left if following >= count else left * SHARE
        start, size = following, AT_ONCE


class AsyncFirstResult:
    """Makes calls until one of them returns something."""

    @staticmethod
    async def of(
        calls: Sequence[Callable[[float], Awaitable[T]]], seconds: float
    ) -> tuple[T | None, list[Exception]]:
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


async def _first_task(
    calls: Sequence[Awaitable[T]], seconds: float, errors: list[Exception]
) -> T | None:
    end = time.monotonic() + seconds
    tasks = [asyncio.ensure_future(call) for call in calls]
    pending = set(tasks)
    try:
        while pending and (left := end - time.monotonic()) > 0:
            done, pending = await asyncio.wait(
                pending, timeout=left, return_when=asyncio.FIRST_COMPLETED
            )
            for task in done:
                try:
                    return task.result()
                except Exception as error:
                    errors.append(error)
        return None
    finally:
        for task in tasks:
            task.cancel()
        # Calls that are cancelled still close their connections. And gather() takes the errors of
        # those that have failed meanwhile: asyncio would log them as never retrieved.
        await asyncio.gather(*tasks, return_exceptions=True)


class FirstResult:
    """Makes calls until one of them returns something.

    Each runs in a thread of its own, since it may hang until its time is over and longer: in a name
    server, at each of several addresses, in a handshake.
    """

    @staticmethod
    def of(
        calls: Sequence[Callable[[float], T]], seconds: float
    ) -> tuple[T | None, list[Exception]]:
        """Return the first answer, and the errors that came before it; None if all failed.

        Args:
            calls: each takes the seconds that it has. A call that is late is left to its thread.
            seconds: for all of them.
        """
        errors: list[Exception] = []
        for group, limit in _groups(len(calls), time.monotonic() + seconds):
            answer = _first_thread(calls[group], limit, errors)
            if answer is not None:
                return answer, errors
        return None, errors


def _first_thread(
    calls: Sequence[Callable[[float], T]], seconds: float, errors: list[Exception]
) -> T | None:
    outcomes: list[Future[T]] = [Future() for _ in calls]
    for call, outcome in zip(calls, outcomes, strict=True):
        in_thread("lucia-ask", partial(call, seconds), outcome)
    with suppress(TimeoutError):  # raised by the iterator, not by a call
        for outcome in as_completed(outcomes, max(seconds, 0)):
            try:
                return outcome.result()
            except Exception as error:
                errors.append(error)
    return None
