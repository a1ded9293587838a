"""A fake exchange with a server: commands wait until the test answers them."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextvars import ContextVar
from typing import Any

from lucia._redis.commands import Reply, Words

__all__ = ["WHO", "HeldExchange", "Sent", "outcome", "ticks"]

WHO: ContextVar[str] = ContextVar("WHO", default="nobody")
"""The name of the caller."""


class Sent:
    """Commands in flight, until the test answers them."""

    def __init__(
        self, commands: Sequence[Words], seconds: float, only_reads: bool, fresh: bool
    ) -> None:
        self.commands = [tuple(each) for each in commands]
        self.seconds = seconds
        self.only_reads = only_reads
        self.fresh = fresh
        self.who = WHO.get()
        self.replies: asyncio.Future[list[Reply]] = asyncio.get_running_loop().create_future()

    def echo(self) -> None:
        """Reply to reads with their keys, and to other commands with their words."""
        self.replies.set_result(
            [list(words[1:]) if words[0] == "MGET" else list(words) for words in self.commands]
        )


class HeldExchange:
    """The commands that were sent, in order."""

    def __init__(self) -> None:
        self.sent: list[Sent] = []
        self.holds_up = False
        """Whether commands wait for a connection, and are not sent."""

    async def exchange(
        self,
        commands: Sequence[Words],
        seconds: float,
        *,
        only_reads: bool = False,
        fresh: bool = False,
        sending: Callable[[], None] | None = None,
    ) -> list[Reply]:
        """Send commands, and wait for the test's replies."""
        if sending is not None and not self.holds_up:
            sending()
        self.sent.append(Sent(commands, seconds, only_reads, fresh))
        return await self.sent[-1].replies

    @property
    def read_exchange(self) -> "Callable[..., Any]":
        """The exchange for commands that change nothing: the same one."""
        return self.exchange


async def ticks(count: int = 3) -> None:
    """Let the event loop run some turns."""
    for _ in range(count):
        await asyncio.sleep(0)


async def outcome(waiting: Awaitable[Any]) -> Any:
    """Return the result or the exception of an awaitable."""
    return (await asyncio.gather(waiting, return_exceptions=True))[0]
