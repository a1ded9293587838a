"""Iterating over many items without holding up the event loop."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterable, Iterator
from itertools import islice
from typing import Final, Generic, TypeVar

__all__ = ["BLOCK_SIZE", "AsyncBlocks", "Blocks", "drain"]

T = TypeVar("T")

BLOCK_SIZE: Final = 500
"""How many items are handled in one go: some milliseconds for sessions to read and decode."""


class AsyncBlocks(Generic[T]):
    """The items in blocks of at most 500; other tasks run between two blocks."""

    def __init__(self, items: Iterable[T]) -> None:
        self._items = items

    async def __aiter__(self) -> AsyncIterator[list[T]]:
        for block in Blocks(self._items):
            yield block
            if len(block) == BLOCK_SIZE:  # a shorter one is the last
                await asyncio.sleep(0)


class Blocks(Generic[T]):
    """The items in blocks of at most 500; other threads run at any time."""

    def __init__(self, items: Iterable[T]) -> None:
        self._items = items

    def __iter__(self) -> Iterator[list[T]]:
        items = iter(self._items)
        while block := list(islice(items, BLOCK_SIZE)):
            yield block


def drain(items: Iterable[T]) -> Iterator[T]:
    """Yield the items, and drop the reference to each.

    Freeing the whole list at once would take as long as handling a block or more, and until then
    the garbage collector would traverse all of its items.
    """
    remaining = deque(items)
    del items  # the caller's list
    while remaining:
        yield remaining.popleft()
