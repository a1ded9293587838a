"""Run a call once at a time for all who need its effect, async and sync."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, wait
from contextvars import Context
from functools import partial
from typing import Any

from lucia._redis.transport.threads import in_thread

__all__ = ["AsyncSingleFlight", "SingleFlight"]


class AsyncSingleFlight:
    """Runs a call in a task of its own, so that cancelling a request does not cancel the call.

    Args:
        call: takes the seconds that it has, and raises nothing.
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
            # Not by create_task: an eager task factory would run it at once, before it is known.
            self._task = asyncio.Task(self._call(self._seconds), loop=loop, context=Context())
        if join:
            # Not wait_for, which would cancel the call for all when this caller's time is over.
            await asyncio.wait([self._task], timeout=seconds)

    async def aclose(self) -> None:
        """Cancel a call that is running."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])


class SingleFlight:
    """Runs a call in a thread of its own, so that it has all its time, whoever needed it first.

    Args:
        call: takes the seconds that it has, and raises nothing.
        seconds: how long it may take.
    """

    def __init__(self, call: Callable[[float], None], seconds: float) -> None:
        self._call = call
        self._seconds = seconds
        self._lock = threading.Lock()
        self._running: Future[None] | None = None

    def run(self, seconds: float, *, join: bool = True) -> None:
        """Start the call unless it is running.

        Args:
            seconds: how long to wait until it is done, at most.
            join: whether to wait.
        """
        with self._lock:
            running = self._running
            if running is None or running.done():
                running = self._running = Future()
                in_thread("lucia-map", partial(self._call, self._seconds), running)
        if join:
            wait([running], seconds)

    def close(self) -> None:
        """Do nothing: the thread has its own deadline, and keeps no process alive."""
