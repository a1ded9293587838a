"""The measured loop: concurrent callers, each of which waits for a result before its next call.

The loop checks each result as an application does, by the user of the session, counts the wrong
ones, and keeps none. `bench/peers/node/lucia.mjs` has the same loop for Node: change both together.
"""

import asyncio
import gc
import threading
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, NamedTuple, TypeVar

__all__ = ["Driven", "drive", "drive_threads", "gather_results", "nothing", "user_ids"]

A = TypeVar("A")
T = TypeVar("T")

SESSIONS_EACH = 4


class Driven(NamedTuple):
    """The duration in seconds, the number of calls, and the number of wrong results."""

    seconds: float
    calls: int
    wrong: int


async def drive(
    call: Callable[[A], Awaitable[Any]],
    look: Callable[[Any], object],
    work: Iterable[tuple[A, object]],
    callers: int,
) -> Driven:
    """Call once per item of `work`, `callers` at a time, and count the wrong results.

    Args:
        call: the measured function.
        look: extracts the value to check from a result, such as the user's id.
        work: pairs of an argument and the value that `look` must return.
        callers: the number of concurrent calls.
    """
    waiting = iter(work)

    async def calls() -> tuple[int, int]:
        done = wrong = 0
        for argument, wanted in waiting:
            if look(await call(argument)) != wanted:
                wrong += 1
            done += 1
        return done, wrong

    gc.collect()
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(calls()) for _ in range(callers)]
        begin = time.perf_counter()  # no task has run yet
    return _sum_up(time.perf_counter() - begin, [task.result() for task in tasks])


def drive_threads(
    call: Callable[[A], Any],
    look: Callable[[Any], object],
    work: Iterable[tuple[A, object]],
    callers: int,
) -> Driven:
    """Run :func:`drive` for sync code, with a thread per caller. A single caller uses no thread."""
    waiting = iter(work)
    counts: list[tuple[int, int]] = []

    def calls() -> None:
        done = wrong = 0
        for argument, wanted in waiting:
            if look(call(argument)) != wanted:
                wrong += 1
            done += 1
        counts.append((done, wrong))

    gc.collect()
    begin = time.perf_counter()
    if callers == 1:
        calls()
    else:
        threads = [threading.Thread(target=calls) for _ in range(callers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return _sum_up(time.perf_counter() - begin, counts)


def nothing(_: object) -> None:
    """Return None: the `look` of calls that return nothing to check."""


async def gather_results(
    call: Callable[[A], Awaitable[T]], arguments: Sequence[A], callers: int
) -> list[T]:
    """Call once per argument, `callers` at a time, and return the results in the same order."""
    waiting = iter(enumerate(arguments))
    answers: dict[int, T] = {}

    async def calls() -> None:
        for number, argument in waiting:
            answers[number] = await call(argument)

    async with asyncio.TaskGroup() as group:
        for _ in range(callers):
            group.create_task(calls())
    return [answers[number] for number in range(len(arguments))]


def _sum_up(seconds: float, counts: Sequence[tuple[int, int]]) -> Driven:
    return Driven(seconds, sum(done for done, _ in counts), sum(wrong for _, wrong in counts))


def user_ids(count: int) -> list[str]:
    """Return a user id for each of `count` sessions; every user has four sessions.

    The ids are UUIDs because fastapi-users requires them.
    """
    users = -(-count // SESSIONS_EACH)
    return [f"{number % users:032x}" for number in range(count)]
