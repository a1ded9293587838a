"""Working through many items without holding up the event loop.

``AsyncBlocks`` stands beside ``Blocks``, with the same use, so that generated code finds its own by
name.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterable, Iterator
from itertools import islice
from typing import Final, Generic, TypeVar

__all__ = ["BLOCK_SIZE", "AsyncBlocks", "Blocks", "drain"]

T = TypeVar("T")

BLOCK_SIZE: Final = 500
"""How many items are handled in one go: some milliseconds for sessions that are read and decoded."""


class AsyncBlocks(Generic[T]):
    """The items in blocks of at most 500; between two of them the event loop serves others."""

    def __init__(self, items: Iterable[T]) -> None:
        self._items = items

    async def __aiter__(self) -> AsyncIterator[list[T]]:
        for block in Blocks(self._items):
            yield block
            if len(block) == BLOCK_SIZE:  # else it was the last one
                await asyncio.sleep(0)


class Blocks(Generic[T]):
    """The items in blocks of at most 500; other threads run when they like."""

    def __init__(self, items: Iterable[T]) -> None:
        self._items = items

    def __iter__(self) -> Iterator[list[T]]:
        items = iter(self._items)
        while block := list(islice(items, BLOCK_SIZE)):
            yield block


def drain(items: Iterable[T]) -> Iterator[T]:
    """Yield the items and let go of each.

    Freeing very many at once, when the last reference to their list goes, takes as long as a block
    or more; and the garbage collector goes over all that are not freed yet.
    """
    remaining = deque(items)
    del items  # the caller's list
    while remaining:
        yield remaining.popleft()
