"""Work that is finished even if the task that waits for it is cancelled."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

__all__ = ["AsyncUncancelled", "Uncancelled"]

_RUNNING: Final[set["asyncio.Future[Any]"]] = set()
"""The event loop alone would not keep these from being garbage-collected."""


class AsyncUncancelled:
    """Runs a call in a task of its own."""

    @staticmethod
    async def run(call: Callable[[], Awaitable[None]]) -> None:
        """Wait for a call; a cancellation ends the wait, and the call goes on.

        Its error is then raised to nobody.
        """
        task = asyncio.ensure_future(call())
        _RUNNING.add(task)
        task.add_done_callback(_finished)
        await asyncio.shield(task)


def _finished(task: "asyncio.Future[Any]") -> None:
    _RUNNING.discard(task)
    if not task.cancelled():
        task.exception()  # else asyncio logs an error that nobody has asked for


class Uncancelled:
    """Calls: a thread is not cancelled."""

    @staticmethod
    def run(call: Callable[[], None]) -> None:
        """Make a call."""
        call()
