"""Locks: among the tasks of one event loop, and among threads."""

import asyncio
import threading
from types import TracebackType

__all__ = ["AsyncLock", "AsyncSelfLocking", "Lock", "SelfLocking"]


class AsyncLock:
    """A lock among the tasks of one event loop.

    It can be created anywhere and used in one loop after another, but not in two at a time.
    """

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lock = asyncio.Lock()

    async def __aenter__(self) -> None:
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._enter_loop(loop)
        await self._lock.acquire()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None:
        self._lock.release()

    def _enter_loop(self, loop: asyncio.AbstractEventLoop) -> None:
        """Replace the lock: an asyncio lock stays with the loop in which a task first waited."""
        if self._loop is not None:
            if self._lock.locked() and not self._loop.is_closed():
                raise RuntimeError("this lock is held in another event loop")
            self._lock = asyncio.Lock()
        self._loop = loop


class Lock:
    """A lock among threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None:
        self._lock.release()


class AsyncSelfLocking:
    """Base of an object whose methods exclude one another, within one event loop.

    An ``AuthRequest`` is created for every HTTP request, and few of them ever have two tasks that
    ask at once. So there is no lock object until a second task waits: while hundreds of requests
    are in flight, each object that they keep alive costs the garbage collector time.
    """

    __slots__ = ("_is_held", "_waiters")

    def __init__(self) -> None:
        self._is_held = False
        self._waiters: asyncio.Lock | None = None

    async def _acquire(self) -> None:
        if self._waiters is None:
            if not self._is_held:
                self._is_held = True
                return
            # Take the new lock for the task that holds this object; nobody else knows it yet.
            # Acquiring a free lock does not suspend, so that task can't release in between.
            waiters = asyncio.Lock()
            await waiters.acquire()
            self._waiters = waiters
        await self._waiters.acquire()

    def _release(self) -> None:
        if self._waiters is None:
            self._is_held = False
        else:
            self._waiters.release()


class SelfLocking:
    """Base of an object whose methods exclude one another, among threads."""

    __slots__ = ("_lock",)

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def _acquire(self) -> None:
        self._lock.acquire()

    def _release(self) -> None:
        self._lock.release()
