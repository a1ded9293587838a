"""What a test needs and luck need not bring about: an order of events, and an answer in time."""

import time
from collections.abc import Callable
from typing import Any

from lucia._async.stores.redis.driver import AsyncRedisDriver
from lucia._compat.pause import AsyncPause
from lucia._redis.commands import Batch, Command
from lucia._redis.transport.retries import is_read
from lucia._testing.checks import AT_ONCE
from lucia.adapters.memory import AsyncMemoryAdapter
from lucia.errors import RevocationNotReplicated, StoreUnavailable

__all__ = [
    "AsyncHesitantDriver",
    "AsyncMeeting",
    "AsyncMeetingAdapter",
    "AsyncMeetingDriver",
    "patiently",
    "until",
]


async def until(holds: Callable[[], object], seconds: float = 60) -> None:
    """Let the others go on until it holds.

    Raises:
        TimeoutError: it does not come to hold.
    """
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            raise TimeoutError(holds)
        await AsyncPause.seconds(0.001)


async def patiently(call: Callable[[], Any], seconds: float = 60) -> Any:
    """What the call gives once it is answered within its deadline, which a busy machine may miss."""
    end = time.monotonic() + seconds
    while True:
        try:
            return await call()
        except (StoreUnavailable, RevocationNotReplicated):
            if time.monotonic() > end:
                raise


class AsyncMeeting:
    """Holds everybody who comes until so many are there; from then on, nobody."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._there: list[None] = []

    async def wait(self) -> None:
        """Come, and wait for the others."""
        self._there.append(None)
        await until(lambda: len(self._there) >= self._count)


class AsyncMeetingAdapter(AsyncMemoryAdapter):
    """A store whose callers can meet, as many as a law sends at once."""

    def __init__(self) -> None:
        super().__init__()
        self.meeting = AsyncMeeting(AT_ONCE)


class AsyncMeetingDriver(AsyncRedisDriver):
    """Runs no operation's first write before so many operations have come to theirs: by then each has seen what it looks at beforehand."""

    def __init__(self, client: Any, count: int) -> None:
        super().__init__(client)
        self._meeting = AsyncMeeting(count)

    async def _send(self, command: Command, *arguments: Any, **options: Any) -> Any:
        if not (isinstance(command, Batch) or is_read(command)):
            await self._meeting.wait()
        return await super()._send(command, *arguments, **options)


class AsyncHesitantDriver(AsyncRedisDriver):
    """Waits before each batch, as on a long way to the server: so others come between what was seen before and what follows from it."""

    async def _send(self, command: Command, *arguments: Any, **options: Any) -> Any:
        if isinstance(command, Batch):
            await AsyncPause.seconds(0.002)
        return await super()._send(command, *arguments, **options)
