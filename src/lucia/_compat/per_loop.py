"""Values created once per event loop in async code, or once per process in sync code.

They are created on first use and never shared with another loop or, after a fork, process.
"""

import asyncio
import os
import weakref
from collections.abc import AsyncGenerator, Callable
from typing import Any, Generic, Protocol, TypeVar

__all__ = ["AsyncPerLoop", "PerLoop", "PerProcess"]

T = TypeVar("T")


class PerProcess(Generic[T]):
    """A value for each process, created on first use.

    After a fork the child has none of its parent's threads, and a lock that one of them held would
    never be released. So no lock guards this either: if threads race, one value wins and the others
    are never used.
    """

    def __init__(self, make: Callable[[], T], getpid: Callable[[], int] = os.getpid) -> None:
        self._make = make
        self._getpid = getpid
        self._values: dict[int, T] = {}

    def get(self) -> T:
        """Return the value of this process."""
        pid = self._getpid()
        value = self._values.get(pid)
        return self._first(pid) if value is None else value

    def _first(self, pid: int) -> T:
        value = self._values.setdefault(pid, self._make())
        for other in self._values.keys() - {pid}:
            self._values.pop(other, None)
        return value


class _AsyncClosable(Protocol):
    async def aclose(self) -> None: ...


class _Closable(Protocol):
    def close(self) -> None: ...


AsyncClosableT = TypeVar("AsyncClosableT", bound=_AsyncClosable)
ClosableT = TypeVar("ClosableT", bound=_Closable)


class AsyncPerLoop(Generic[AsyncClosableT]):
    """A value for each event loop, created on first use and closed before its loop ends.

    It is closed even if nobody calls ``aclose``. The only things that a loop closes by itself are
    asynchronous generators, by ``loop.shutdown_asyncgens``, which ``asyncio.run`` and every
    framework call. So in each loop a suspended generator closes the value in its ``finally``. The
    value is closed too when this object is garbage-collected.
    """

    def __init__(self, make: Callable[[], AsyncClosableT]) -> None:
        self._make = make
        self._by_loop: dict[
            asyncio.AbstractEventLoop,
            tuple[AsyncClosableT, AsyncGenerator[None], weakref.finalize[..., Any]],
        ] = {}

    async def get(self) -> AsyncClosableT:
        """Return the running loop's value."""
        entry = self._by_loop.get(asyncio.get_running_loop())
        return await self._first() if entry is None else entry[0]

    def peek(self) -> AsyncClosableT | None:
        """Return the running loop's value if it was created, else None."""
        entry = self._by_loop.get(asyncio.get_running_loop())
        return None if entry is None else entry[0]

    async def aclose(self) -> None:
        """Close the running loop's value. Later calls create another."""
        entry = self._by_loop.pop(asyncio.get_running_loop(), None)
        if entry is not None:
            _, closing, finalizer = entry
            finalizer.detach()
            await closing.aclose()

    async def _first(self) -> AsyncClosableT:
        # No WeakKeyDictionary: the values refer to their loops, and would keep them. Loops of other
        # threads may be doing the same: hence the copy, and an entry may be gone.
        for loop in [loop for loop in list(self._by_loop) if loop.is_closed()]:
            entry = self._by_loop.pop(loop, None)
            if entry is not None:
                entry[2].detach()
        loop = asyncio.get_running_loop()
        value = self._make()
        closing = _closing(value)
        finalizer = weakref.finalize(self, _close_later, loop, closing)
        # At exit the loop has stopped, and a call that it never runs would only cause a warning.
        finalizer.atexit = False
        self._by_loop[loop] = value, closing, finalizer
        # A loop learns of a generator at its first step, and only then closes it at the end.
        await anext(closing)
        return value


async def _closing(value: _AsyncClosable) -> AsyncGenerator[None]:
    try:
        yield
    finally:
        await value.aclose()
        await asyncio.sleep(0)  # let the loop close the transports


def _close_later(loop: asyncio.AbstractEventLoop, closing: AsyncGenerator[None]) -> None:
    """Close from outside the loop, maybe from another thread, since finalizers run anywhere."""
    if not loop.is_closed():
        loop.call_soon_threadsafe(loop.create_task, closing.aclose())


class PerLoop(Generic[ClosableT]):
    """A value for each process, created on first use."""

    def __init__(self, make: Callable[[], ClosableT]) -> None:
        self._values = PerProcess(make)

    def get(self) -> ClosableT:
        """Return the value of this process."""
        return self._values.get()

    def peek(self) -> ClosableT | None:
        """Return the value of this process, as :meth:`get`: creating it waits for nothing."""
        return self._values.get()

    def close(self) -> None:
        """Close the value of this process. Later calls open it again."""
        self._values.get().close()
