"""Calls that do not depend on each other, in either colour."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeVar

from lucia._connections.settings import AsyncSettings, Settings

__all__ = ["MAX_TOGETHER", "AsyncTogether", "Together"]

T = TypeVar("T")

MAX_TOGETHER: Final = 128
"""How many calls are made at once: so many tasks take an event loop about a millisecond."""


class AsyncTogether:
    """Makes calls at once where they are sent together, and one after another where each would need a connection.

    Args:
        settings: whether what is asked at once is sent together.
        own: whether connections are ours: an application's client may have too few of them, and refuse what is too much.
    """

    def __init__(self, settings: AsyncSettings, *, own: bool) -> None:
        self._together = settings.coalesce and own

    async def outcomes(self, calls: Sequence[Callable[[], Awaitable[T]]], at_once: int = MAX_TOGETHER) -> list[T | BaseException]:
        """What each returned or raised, in order; nothing is begun after one has failed, but those that were begun end."""
        found: list[T | BaseException] = []
        size = at_once if self._together else 1
        for start in range(0, len(calls), size):
            found += await _outcomes(calls[start : start + size])
            if any(isinstance(outcome, BaseException) for outcome in found[start:]):
                break
        return found


async def _outcomes(calls: Sequence[Callable[[], Awaitable[T]]]) -> list[T | BaseException]:
    if len(calls) > 1:
        return await asyncio.gather(*(call() for call in calls), return_exceptions=True)
    try:
        return [await calls[0]()]
    except Exception as error:
        return [error]


class Together:
    """Makes calls one after another: a thread can wait for one only."""

    def __init__(self, settings: Settings, *, own: bool) -> None: ...

    def outcomes(self, calls: Sequence[Callable[[], T]], _at_once: int = 1) -> list[T | BaseException]:
        """What each returned or raised, in order, up to the first that failed."""
        found: list[T | BaseException] = []
        for call in calls:
            try:
                found.append(call())
            except Exception as error:
                return [*found, error]
        return found
