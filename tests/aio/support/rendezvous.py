"""Force an order of concurrent calls that is rare by chance."""

import time
from collections.abc import Callable
from typing import Any

from lucia._async.stores.redis.driver import AsyncRedisDriver
from lucia._compat.pause import AsyncPause
from lucia._redis.commands import Batch, Command
from lucia._redis.transport.retries import is_read
from lucia._testing.checks import CONCURRENT_CALLS
from lucia.adapters.memory import AsyncMemoryAdapter
from lucia.errors import RevocationNotReplicated, StoreUnavailable

__all__ = [
    "AsyncRendezvous",
    "AsyncRendezvousAdapter",
    "AsyncRendezvousDriver",
    "AsyncSlowBatchDriver",
    "retry_until_answered",
    "until",
]


async def until(holds: Callable[[], object], seconds: float = 60) -> None:
    """Wait until a condition holds, while other callers run.

    Raises:
        TimeoutError: it did not hold in time.
    """
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            raise TimeoutError(holds)
        await AsyncPause.seconds(0.001)


async def retry_until_answered(call: Callable[[], Any], seconds: float = 60) -> Any:
    """Repeat a call that may miss its deadline on a busy machine, and return its result."""
    end = time.monotonic() + seconds
    while True:
        try:
            return await call()
        except (StoreUnavailable, RevocationNotReplicated):
            if time.monotonic() > end:
                raise


class AsyncRendezvous:
    """A barrier that holds callers until a number of them have arrived; later ones pass."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._there: list[None] = []

    async def wait(self) -> None:
        """Wait for the other callers."""
        self._there.append(None)
        await until(lambda: len(self._there) >= self._count)


class AsyncRendezvousAdapter(AsyncMemoryAdapter):
    """A store with a barrier for as many concurrent callers as a suite makes."""

    def __init__(self) -> None:
        super().__init__()
        self.meeting = AsyncRendezvous(CONCURRENT_CALLS)


class AsyncRendezvousDriver(AsyncRedisDriver):
    """A driver that holds the first write of each operation until all operations have got there.

    Each has then done its reads.
    """

    def __init__(self, client: Any, count: int) -> None:
        super().__init__(client)
        self._meeting = AsyncRendezvous(count)

    async def _send(self, command: Command, *arguments: Any, **options: Any) -> Any:
        if not (isinstance(command, Batch) or is_read(command)):
            await self._meeting.wait()
        return await super()._send(command, *arguments, **options)


class AsyncSlowBatchDriver(AsyncRedisDriver):
    """A driver that waits before each batch, as on a slow network.

    Other operations run between the reads and the writes of an operation.
    """

    async def _send(self, command: Command, *arguments: Any, **options: Any) -> Any:
        if isinstance(command, Batch):
            await AsyncPause.seconds(0.002)
        return await super()._send(command, *arguments, **options)
