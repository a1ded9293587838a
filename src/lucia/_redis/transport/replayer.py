"""Complete a replay of revocations, async and sync, while callers with commands to send wait.

A replay runs in a task or thread of its own, so that it goes on when a caller's deadline is over.
A failed replay fails the callers that wait for it, and the next caller tries again: until it is
complete, no answer of the server can be trusted.
"""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from contextvars import Context
from functools import partial

from lucia._logs import revocations_not_replayed
from lucia._redis.replay import MAX_REPLAYED_AT_ONCE, Revocations
from lucia._redis.transport.retries import NoReply
from lucia._redis.transport.threads import in_thread
from lucia.errors import StoreUnavailable

__all__ = ["AsyncReplayer", "Replayer"]

_AsyncRun = Callable[[Sequence[str], float], Awaitable[None]]
"""Revokes a block of ids again within so many seconds, though a replay is due."""

_Run = Callable[[Sequence[str], float], None]
"""As :data:`_AsyncRun`, for threads."""


def _failure(error: Exception) -> NoReply:
    """Return the error for one waiting caller.

    It is the same where the server refused the replay, which is no reply to the caller's command.
    """
    unavailable = StoreUnavailable("recent revocations could not be repeated on this server yet")
    unavailable.__cause__ = error
    return NoReply(unavailable, sent=False)


class _Steps:
    """The steps of a replay: a block of ids each, smaller ones after a step that failed.

    Over a slow link a large block may take longer than a step may, every time.
    """

    def __init__(self, revocations: Revocations) -> None:
        self.revocations = revocations
        self._size = MAX_REPLAYED_AT_ONCE
        self._demand, self._block = 0, list[str]()

    def begin(self) -> Sequence[str]:
        """Return the ids that the next step revokes again."""
        # The demand before the block: if another comes in between, done() starts over instead of
        # settling a demand whose ids this block lacks (T3).
        self._demand, self._block = (
            self.revocations.newest_demand,
            self.revocations.block(self._size),
        )
        return self._block

    def succeeded(self) -> None:
        self.revocations.done(self._block, self._demand)
        self._size = min(2 * self._size, MAX_REPLAYED_AT_ONCE)

    def failed(self, error: Exception) -> None:
        revocations_not_replayed(error)
        self._size = max(self._size // 2, 1)


class AsyncReplayer:
    """Completes replays in one event loop.

    It refers to what runs them only while one is running, or whoever owns this object could not be
    garbage-collected before the event loop ends: see :class:`~lucia._compat.per_loop.AsyncPerLoop`.

    Args:
        revocations: what to revoke again.
        seconds: how long one step of the replay may take.
    """

    def __init__(self, revocations: Revocations, seconds: float) -> None:
        self._steps = _Steps(revocations)
        self._seconds = seconds
        self._task: asyncio.Task[Exception | None] | None = None

    async def complete(self, run: _AsyncRun, seconds: float) -> None:
        """Wait until the replay is complete.

        Args:
            run: revokes a block of ids again, if no replay is running yet.
            seconds: how long to wait.

        Raises:
            NoReply: it failed, or the time was over.
        """
        task = self._task
        if task is None or task.done():
            loop = asyncio.get_running_loop()
            # Not by create_task: an eager task factory would run it at once, before it is known.
            task = self._task = asyncio.Task(self._replay(run), loop=loop, context=Context())
        # By asyncio.wait, which never cancels the task: a caller that is late or cancelled leaves
        # the replay running for the others.
        done, _ = await asyncio.wait([task], timeout=max(seconds, 0))
        if not done or task.cancelled():
            raise NoReply(None, sent=False)
        if error := task.result():
            raise _failure(error)

    async def aclose(self) -> None:
        """Stop a replay that is running; it stays due."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _replay(self, run: _AsyncRun) -> Exception | None:
        """Revoke block by block; return the error that stopped it."""
        # Returned, not raised: asyncio logs an exception that nobody is left to take.
        try:
            while self._steps.revocations.due:
                try:
                    await run(self._steps.begin(), self._seconds)
                except Exception as error:
                    self._steps.failed(error)
                    return error
                self._steps.succeeded()
            return None
        finally:
            # The error's traceback refers to what ran the replay. Callers have the task.
            self._task = None


class Replayer:
    """Completes replays in one process, each in a thread of its own.

    Args:
        revocations: what to revoke again.
        seconds: how long one step of the replay may take.
    """

    def __init__(self, revocations: Revocations, seconds: float) -> None:
        self._steps = _Steps(revocations)
        self._seconds = seconds
        self._lock = threading.Lock()
        self._outcome: Future[Exception | None] | None = None

    def complete(self, run: _Run, seconds: float) -> None:
        """Wait until the replay is complete.

        Args:
            run: revokes a block of ids again, if no replay is running yet.
            seconds: how long to wait.

        Raises:
            NoReply: it failed, or the time was over.
        """
        with self._lock:
            outcome = self._outcome
            if outcome is None or outcome.done():
                outcome = self._outcome = Future()
                in_thread("lucia-replay", partial(self._replay, run), outcome)
        try:
            error = outcome.result(max(seconds, 0))
        except FutureTimeout:
            raise NoReply(None, sent=False) from None
        except RuntimeError as no_thread:  # a replay returns its errors: no thread could be started
            error = no_thread
        if error:
            raise _failure(error)

    def close(self) -> None:
        """Do nothing: the thread ends with the replay, and does not keep the process alive."""

    def _replay(self, run: _Run) -> Exception | None:
        """Revoke block by block; return the error that stopped it."""
        while self._steps.revocations.due:
            try:
                run(self._steps.begin(), self._seconds)
            except Exception as error:
                self._steps.failed(error)
                return error
            self._steps.succeeded()
        return None
