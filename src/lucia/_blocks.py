"""Working through many items without holding up the event loop.

``AsyncBlocks`` stands beside ``Blocks``, with the same use, so that generated code finds its own by
name.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Final, Generic, TypeVar

__all__ = ["BLOCK", "AsyncBlocks", "Blocks"]

T = TypeVar("T")

BLOCK: Final = 500
"""How many items are handled in one go: some milliseconds for sessions that are read and decoded."""


class AsyncBlocks(Generic[T]):
    """The items in blocks of at most 500; between two of them the event loop serves others."""

    def __init__(self, items: Sequence[T]) -> None:
        self._items = items

    async def __aiter__(self) -> AsyncIterator[Sequence[T]]:
        for start in range(0, len(self._items), BLOCK):
            if start:
                await asyncio.sleep(0)
            yield self._items[start : start + BLOCK]


class Blocks(Generic[T]):
    """The items in blocks of at most 500; other threads run when they like."""

    def __init__(self, items: Sequence[T]) -> None:
        self._items = items

    def __iter__(self) -> Iterator[Sequence[T]]:
        for start in range(0, len(self._items), BLOCK):
            yield self._items[start : start + BLOCK]
