"""Complete a replay of revocations, async and sync, while callers with commands to send wait.

A replay runs in a task or thread of its own, so that it goes on when a caller's deadline is over.
A failed replay fails the callers that wait for it, and the next caller tries again: until it is
complete, no answer of the server can be trusted.
"""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from contextvars import Context

from lucia._logs import revocations_not_replayed
from lucia._redis.commands import Operation
from lucia._redis.replay import MAX_REPLAYED_AT_ONCE, Replay
from lucia._redis.transport.retries import NoReply
from lucia._redis.transport.threads import in_thread
from lucia.errors import StoreUnavailable

__all__ = ["AsyncReplayer", "Replayer"]


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

    def __init__(self, replay: Replay) -> None:
        self.revocations, self._revoke_again = replay
        self._size = MAX_REPLAYED_AT_ONCE
        self._since, self._block = 0, list[str]()

    def begin(self) -> Operation[None]:
        """Return the operation of the next step."""
        self._since, self._block = self.revocations.changes, self.revocations.block(self._size)
        return self._revoke_again(self._block)

    def succeeded(self) -> None:
        self.revocations.done(self._block, self._since)
        self._size = min(2 * self._size, MAX_REPLAYED_AT_ONCE)

    def failed(self, error: Exception) -> None:
        revocations_not_replayed(error)
        self._size = max(self._size // 2, 1)


class AsyncReplayer:
    """Completes replays in one event loop.

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
        self._steps = _Steps(replay)
        self._run = run
        self._seconds = seconds
        self._task: asyncio.Task[Exception | None] | None = None

    async def complete(self, seconds: float) -> None:
        """Wait until the replay is complete.

        Raises:
            NoReply: it failed, or the time was over.
        """
        task = self._task
        if task is None or task.done():
            loop = asyncio.get_running_loop()
            # Not by create_task: an eager task factory would run it at once, before it is known.
            task = self._task = asyncio.Task(self._replay(), loop=loop, context=Context())
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

    async def _replay(self) -> Exception | None:
        """Revoke block by block; return the error that stopped it."""
        # Returned, not raised: asyncio logs an exception that nobody is left to take.
        while self._steps.revocations.due:
            try:
                await self._run(self._steps.begin(), self._seconds)
            except Exception as error:
                self._steps.failed(error)
                return error
            self._steps.succeeded()
        return None


class Replayer:
    """Completes replays in one process, each in a thread of its own.

    Args:
        replay: what to revoke, and how.
        run: runs an operation within so many seconds, though a replay is due.
        seconds: how long one step of the replay may take.
    """

    def __init__(
        self, replay: Replay, run: Callable[[Operation[None], float], None], seconds: float
    ) -> None:
        self._steps = _Steps(replay)
        self._run = run
        self._seconds = seconds
        self._lock = threading.Lock()
        self._outcome: Future[Exception | None] | None = None

    def complete(self, seconds: float) -> None:
        """Wait until the replay is complete.

        Raises:
            NoReply: it failed, or the time was over.
        """
        with self._lock:
            outcome = self._outcome
            if outcome is None or outcome.done():
                outcome = self._outcome = Future()
                in_thread("lucia-replay", self._replay, outcome)
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

    def _replay(self) -> Exception | None:
        """Revoke block by block; return the error that stopped it."""
        while self._steps.revocations.due:
            try:
                self._run(self._steps.begin(), self._seconds)
            except Exception as error:
                self._steps.failed(error)
                return error
            self._steps.succeeded()
        return None
