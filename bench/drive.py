"""The loop that is measured: so many callers, each of which waits for its call's answer before it makes the next one."""

import asyncio
import gc
import threading
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import NamedTuple, TypeVar

__all__ = ["Driven", "drive", "drive_threads", "user_ids"]

A = TypeVar("A")
T = TypeVar("T")

SESSIONS_EACH = 4


class Driven(NamedTuple):
    """How long it took, and what the calls gave, in no order."""

    seconds: float
    answers: list[object]


async def drive(
    call: Callable[[A], Awaitable[object]], arguments: Iterable[A], callers: int
) -> Driven:
    """Make a call for each argument, that many of them at once."""
    waiting = iter(arguments)
    answers: list[object] = []

    async def calls() -> None:
        for argument in waiting:
            answers.append(await call(argument))

    _tidy()
    begin = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(callers):
            group.create_task(calls())
    return Driven(time.perf_counter() - begin, answers)


def drive_threads(call: Callable[[A], object], arguments: Iterable[A], callers: int) -> Driven:
    """The same with threads; a single caller needs none."""
    waiting = iter(arguments)
    answers: list[object] = []

    def calls() -> None:
        for argument in waiting:
            answers.append(call(argument))

    _tidy()
    begin = time.perf_counter()
    if callers == 1:
        calls()
    else:
        threads = [threading.Thread(target=calls) for _ in range(callers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return Driven(time.perf_counter() - begin, answers)


def _tidy() -> None:
    """Leave nothing to the garbage collector but what the calls make."""
    gc.unfreeze()
    gc.collect()
    gc.freeze()


def user_ids(count: int) -> list[str]:
    """Whose sessions are made: those of ``count / 4`` users, in turn. The ids are UUIDs, since fastapi-users has them so."""
    users = -(-count // SESSIONS_EACH)
    return [f"{number % users:032x}" for number in range(count)]
