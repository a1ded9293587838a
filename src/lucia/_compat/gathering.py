"""Independent calls: made concurrently in async code, one after another in sync code."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeVar

__all__ = ["MAX_CONCURRENT_CALLS", "AsyncGatherer", "Gatherer"]

T = TypeVar("T")

MAX_CONCURRENT_CALLS: Final = 128
"""How many calls run at once: so many tasks occupy an event loop for about a millisecond."""


class AsyncGatherer:
    """Runs independent calls.

    Args:
        concurrently: whether they run as tasks at the same time; else one after another, since each
            would need a connection, and the application's client may have too few of them.
    """

    def __init__(self, *, concurrently: bool) -> None:
        self._concurrently = concurrently

    async def gather_results(
        self, calls: Sequence[Callable[[], Awaitable[T]]], at_once: int = MAX_CONCURRENT_CALLS
    ) -> list[T | BaseException]:
        """Return what each call returned or raised, in order, up to the first failed block.

        After a failure no further call is started; those that were started are awaited.
        """
        found: list[T | BaseException] = []
        size = at_once if self._concurrently else 1
        for start in range(0, len(calls), size):
            found += await _outcomes(calls[start : start + size])
            if any(isinstance(outcome, BaseException) for outcome in found[start:]):
                break
        return found


async def _outcomes(calls: Sequence[Callable[[], Awaitable[T]]]) -> list[T | BaseException]:
    if len(calls) > 1:
        # With return_exceptions, or the others would go on unawaited after the first error.
        return await asyncio.gather(*(call() for call in calls), return_exceptions=True)
    try:
        return [await calls[0]()]
    except Exception as error:
        return [error]


class Gatherer:
    """Runs calls one after another: a thread can wait for only one."""

    def __init__(self, *, concurrently: bool) -> None: ...

    def gather_results(
        self, calls: Sequence[Callable[[], T]], _at_once: int = 1
    ) -> list[T | BaseException]:
        """Return what each call returned or raised, in order, up to the first that failed."""
        found: list[T | BaseException] = []
        for call in calls:
            try:
                found.append(call())
            except Exception as error:
                return [*found, error]
        return found
