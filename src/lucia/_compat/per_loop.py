"""Whose a value is: an event loop's, or a process's, that makes it on first use and never shares it.

``AsyncPerLoop`` stands beside ``Owned``, with the same methods (``aclose`` is ``close``), so that generated code finds its own by name.
"""

import asyncio
import weakref
from collections.abc import AsyncGenerator, Callable
from typing import Any, Generic, Protocol, TypeVar

from lucia._compat.concurrency import PerProcess

__all__ = ["AsyncPerLoop", "PerLoop"]


class _AsyncClosable(Protocol):
    async def aclose(self) -> None: ...


class _Closable(Protocol):
    def close(self) -> None: ...


AsyncClosableT = TypeVar("AsyncClosableT", bound=_AsyncClosable)
ClosableT = TypeVar("ClosableT", bound=_Closable)


class AsyncPerLoop(Generic[AsyncClosableT]):
    """One value for each running event loop, made on first use, and closed before its loop ends, whether or not anybody closes it.

    What a loop closes by itself when it ends are asynchronous generators (``loop.shutdown_asyncgens``, which ``asyncio.run`` and every
    framework calls): so one waits in each loop to close the value. The value is closed too when this object is gone.
    """

    def __init__(self, make: Callable[[], AsyncClosableT]) -> None:
        self._make = make
        self._by_loop: dict[
            asyncio.AbstractEventLoop,
            tuple[AsyncClosableT, AsyncGenerator[None], weakref.finalize[..., Any]],
        ] = {}

    async def get(self) -> AsyncClosableT:
        """The running loop's value."""
        entry = self._by_loop.get(asyncio.get_running_loop())
        return await self._first() if entry is None else entry[0]

    def here(self) -> AsyncClosableT | None:
        """The running loop's value, if there is one by now."""
        entry = self._by_loop.get(asyncio.get_running_loop())
        return None if entry is None else entry[0]

    async def aclose(self) -> None:
        """Close the running loop's value. Later calls make another."""
        entry = self._by_loop.pop(asyncio.get_running_loop(), None)
        if entry is not None:
            _, closing, finalizer = entry
            finalizer.detach()
            await closing.aclose()

    async def _first(self) -> AsyncClosableT:
        for loop in [loop for loop in self._by_loop if loop.is_closed()]:
            _, _, finalizer = self._by_loop.pop(loop)
            finalizer.detach()
        loop = asyncio.get_running_loop()
        value = self._make()
        closing = _closing(value)
        finalizer = weakref.finalize(self, _close_later, loop, closing)
        finalizer.atexit = False
        self._by_loop[loop] = value, closing, finalizer
        await anext(closing)
        return value


async def _closing(value: _AsyncClosable) -> AsyncGenerator[None]:
    try:
        yield
    finally:
        await value.aclose()
        await asyncio.sleep(0)  # in which the loop ends the transports


def _close_later(loop: asyncio.AbstractEventLoop, closing: AsyncGenerator[None]) -> None:
    """Close from outside of the loop, maybe in another thread."""
    if not loop.is_closed():
        loop.call_soon_threadsafe(loop.create_task, closing.aclose())


class PerLoop(Generic[ClosableT]):
    """One value for each process, made on first use: nothing is shared after a fork."""

    def __init__(self, make: Callable[[], ClosableT]) -> None:
        self._values = PerProcess(make)

    def get(self) -> ClosableT:
        """This process's value."""
        return self._values.get()

    def here(self) -> ClosableT | None:
        """This process's value."""
        return self._values.get()

    def close(self) -> None:
        """Close this process's value. Later calls open it anew."""
        self._values.get().close()
