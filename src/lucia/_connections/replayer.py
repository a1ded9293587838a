"""Completes a replay of revocations, in either flavour; whoever has a command to send waits for it.

A failed replay fails the callers that wait for it, and the next caller tries again: until it is
complete, no answer of the server can be trusted.
"""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from contextvars import Context

from lucia._logs import revocations_not_replayed
from lucia.errors import StoreUnavailable
from lucia.redis.commands import Operation
from lucia.redis.replay import Replay
from lucia.redis.unanswered import Unanswered

__all__ = ["AsyncReplayer", "Replayer"]


def _failure(error: Exception) -> Unanswered:
    """For one caller; also where the server refused, which says nothing of what the caller asked."""
    unavailable = StoreUnavailable("recent revocations could not be repeated on this server yet")
    unavailable.__cause__ = error
    return Unanswered(unavailable, sent=False)


class AsyncReplayer:
    """Completes replays in one event loop, in a task of its own.

    So a replay that takes longer than a caller's deadline goes on when that caller has given up.

    Args:
        replay: what to revoke, and how.
        run: runs an operation within so many seconds, though a replay is due.
        seconds: how long one step of the replay may take.
    """

    def __init__(
        self,
        replay: Replay,
        run: Callable[[Operation[None], float], Awaitable[None]],
        seconds: float,
    ) -> None:
        self._revocations, self._revoke_again = replay
        self._run = run
        self._seconds = seconds
        self._task: asyncio.Task[Exception | None] | None = None

    async def complete(self, seconds: float) -> None:
        """Wait until the replay is complete.

        Raises:
            Unanswered: it failed, or the time was over.
        """
        task = self._task
        if task is None or task.done():
            loop = asyncio.get_running_loop()
            task = self._task = loop.create_task(self._replay(), context=Context())
        done, _ = await asyncio.wait([task], timeout=max(seconds, 0))
        if not done or task.cancelled():
            raise Unanswered(None, sent=False)
        if error := task.result():
            raise _failure(error)

    async def aclose(self) -> None:
        """Stop a replay that is under way; it stays due."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _replay(self) -> Exception | None:
        """Revoke block by block; return the error that stopped it."""
        revocations = self._revocations
        while revocations.due:
            since, block = revocations.changes, revocations.block()
            try:
                await self._run(self._revoke_again(block), self._seconds)
            except Exception as error:
                revocations_not_replayed(error)
                return error
            revocations.done(block, since)
        return None


class Replayer:
    """Completes replays in the threads of those who wait: each does as many steps as it has time for.

    Args:
        replay: what to revoke, and how.
        run: runs an operation within so many seconds, though a replay is due.
        seconds: unused; for the shape of the asynchronous one.
    """

    def __init__(self, replay: Replay, run: Callable[[Operation[None], float], None], seconds: float) -> None:
        self._revocations, self._revoke_again = replay
        self._run = run
        self._lock = threading.Lock()

    def complete(self, seconds: float) -> None:
        """Return when the replay is complete.

        Raises:
            Unanswered: it failed, or the time was over.
        """
        end = time.monotonic() + seconds
        if not self._lock.acquire(timeout=max(seconds, 0)):
            raise Unanswered(None, sent=False)
        try:
            self._replay(end)
        finally:
            self._lock.release()

    def close(self) -> None:
        """Nothing to stop: it runs in the callers' threads."""

    def _replay(self, end: float) -> None:
        revocations = self._revocations
        longest = 0.0
        while revocations.due:
            began = time.monotonic()
            if end - began <= longest:  # cut off in a step, the connection would be lost with it
                raise Unanswered(None, sent=False)
            since, block = revocations.changes, revocations.block()
            try:
                self._run(self._revoke_again(block), end - began)
            except Exception as error:
                revocations_not_replayed(error)
                raise _failure(error) from error
            revocations.done(block, since)
            longest = max(longest, time.monotonic() - began)
