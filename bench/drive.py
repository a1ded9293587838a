"""The loop that is measured: so many callers, each of which awaits its answer before it calls again.

The loop keeps no answer. It looks at each one as an application does, at whose session it is, and
counts those that are wrong. `bench/peers/node/lucia.mjs` has the same loop for Node: whoever
changes one changes the other.
"""

import asyncio
import gc
import threading
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, NamedTuple, TypeVar

__all__ = ["Driven", "answers_of", "drive", "drive_threads", "nothing", "user_ids"]

A = TypeVar("A")
T = TypeVar("T")

SESSIONS_EACH = 4


class Driven(NamedTuple):
    """The seconds that the calls took, how many there were, and how many answers were wrong."""

    seconds: float
    calls: int
    wrong: int


async def drive(
    call: Callable[[A], Awaitable[Any]],
    look: Callable[[Any], object],
    work: Iterable[tuple[A, object]],
    callers: int,
) -> Driven:
    """Call once for each piece of work, `callers` at a time, and count the wrong answers.

    Args:
        call: what is measured.
        look: finds in an answer what is checked, such as the user's id.
        work: arguments, each with what `look` must find in the answer.
        callers: how many calls are made at once.
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
    """Do as :func:`drive` does with threads; a single caller needs none."""
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
    """Look at nothing: for calls whose answer says nothing."""


async def answers_of(
    call: Callable[[A], Awaitable[T]], arguments: Sequence[A], callers: int
) -> list[T]:
    """Call once for each argument, `callers` at a time; return the answers in that order."""
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
    """Return the users of so many sessions: ``count / 4`` of them, in turn.

    The ids are UUIDs, since fastapi-users has them so.
    """
    users = -(-count // SESSIONS_EACH)
    return [f"{number % users:032x}" for number in range(count)]
