"""Do something once at a time for all who need it, in both flavours."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any

__all__ = ["AsyncSingleFlight", "SingleFlight"]


class AsyncSingleFlight:
    """Runs a call in a task of its own, so that it goes on when the request that needed it is cancelled.

    Args:
        call: what to do. It takes the seconds that it has, and raises nothing.
        seconds: how long it may take.
    """

    def __init__(self, call: Callable[[float], Coroutine[Any, Any, None]], seconds: float) -> None:
        self._call = call
        self._seconds = seconds
        self._task: asyncio.Task[None] | None = None

    async def run(self, seconds: float, *, join: bool = True) -> None:
        """Start the call unless it is running.

        Args:
            seconds: how long to wait until it is done, at most.
            join: whether to wait.
        """
        if self._task is None or self._task.done():
            loop = asyncio.get_running_loop()
            self._task = loop.create_task(self._call(self._seconds), context=Context())
        if join:
            await asyncio.wait([self._task], timeout=seconds)

    async def aclose(self) -> None:
        """Give up a call that is running."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])


class SingleFlight:
    """Runs a call in the thread of one that needs it, while others wait or go on.

    Args:
        call: what to do. It takes the seconds that it has.
    """

    def __init__(self, call: Callable[[float], None], seconds: float) -> None:
        self._call = call
        self._lock = threading.Lock()
        self._done: threading.Event | None = None

    def run(self, seconds: float, *, join: bool = True) -> None:
        """Make the call unless it is being made.

        Args:
            seconds: how long it may take, or how long to wait until it is done.
            join: whether to wait if another thread makes it.
        """
        with self._lock:
            running, own = self._done, threading.Event()
            self._done = running or own
        if running is None:
            try:
                self._call(seconds)
            finally:
                self._done = None
                own.set()
        elif join:
            running.wait(seconds)

    def close(self) -> None:
        """Nothing to give up: a thread that makes the call has its own deadline."""
