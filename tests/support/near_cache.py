"""A tracked connection to a real server, and wrong near-caches as controls."""

import asyncio
import math
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

from lucia._redis.commands import Reply, Words
from lucia._redis.replay import ConnectionMonitor, Revocations
from lucia._redis.transport.near_cache_entries import Entries, Lease, Reading
from lucia._redis.transport.topology import OneServer, topology_of
from lucia._redis.transport.tracking import AsyncTracked

__all__ = ["LEASE", "FillsLate", "HasNoLease", "OnlyDrops", "Tracking", "tracking", "wait_until"]

LEASE: Final = 0.3
"""The lease in seconds.

Connections renew it by the real clock; entries expire by the test's clock.
"""


async def wait_until(holds: Callable[[], object]) -> None:
    """Wait until a condition holds.

    Raises:
        TimeoutError: it did not hold within 15 seconds.
    """
    async with asyncio.timeout(15):
        while not holds():  # noqa: ASYNC110 (the condition depends on a server)
            await asyncio.sleep(0.001)


class FillsLate(Entries):
    """Wrong: caches a record when the caller resumes, instead of when the reply arrives."""

    def __init__(self, clock: Callable[[], float]) -> None:
        super().__init__(clock=clock)
        self._late: list[tuple[Reading, Sequence[bytes | None], float, Lease]] = []

    def fill(
        self, reading: Reading, records: Sequence[bytes | None], sent: float, lease: Lease
    ) -> None:
        """Keep the reply for :meth:`wake`."""
        self._late.append((reading, records, sent, lease))

    def wake(self) -> None:
        """Cache the replies that were kept."""
        for each in self._late:
            super().fill(*each)


class HasNoLease(Entries):
    """Wrong: uses a record for as long as the connection is open."""

    def fill(
        self, reading: Reading, records: Sequence[bytes | None], sent: float, lease: Lease
    ) -> None:
        """Cache the reply under a lease that never expires."""
        for_ever = Lease(math.inf)
        for_ever.extend(sent)
        super().fill(reading, records, sent, for_ever)


class OnlyDrops(Entries):
    """Wrong: evicts what this process changes, but caches concurrent reads of it."""

    def _refuse(self, keys: Sequence[bytes]) -> None:
        self.drop(keys)

    def _allow(self, keys: Sequence[bytes]) -> None:
        pass


class Tracking:
    """A tracked connection and the near-cache that it fills.

    Args:
        client: the client whose connections are copied.
    """

    def __init__(self, client: Any, entries: Entries, **changes: Any) -> None:
        topology = topology_of(client)
        assert isinstance(topology, OneServer)
        self.entries = entries
        self.revocations = Revocations()
        self.plain: list[Sequence[Words]] = []
        self.moved = 0
        self.sent = 0
        options: dict[str, Any] = {"lease": LEASE, "seconds": 30, **changes}
        monitor = ConnectionMonitor(self.revocations)
        self.tracked = AsyncTracked(
            topology.factory, monitor, entries, plain=self._plain, moved=self._move, **options
        )

    async def read(self, *keys: bytes, seconds: float = 30) -> list[bytes | None]:
        """Read the values of these keys."""
        (reply,) = await self.ask(("MGET", *keys), seconds=seconds)
        assert isinstance(reply, list)
        if isinstance(self.entries, FillsLate):
            self.entries.wake()
        return reply

    async def ask(self, *commands: Words, seconds: float = 30) -> list[Reply]:
        """Send read-only commands."""
        return await self.tracked.exchange(commands, seconds, only_reads=True, sending=self._count)

    def held(self, key: bytes) -> bytes | None:
        """Return the record that the near-cache would return for this key now."""
        entry = self.entries.get(key)
        return None if entry is None else entry.record

    def _count(self) -> None:
        self.sent += 1

    async def _plain(
        self,
        commands: Sequence[Words],
        seconds: float,
        *,
        only_reads: bool = False,
        fresh: bool = False,
        sending: Callable[[], None] | None = None,
    ) -> list[Reply]:
        self.plain.append(commands)
        return ["plain"]

    async def _move(self) -> None:
        self.moved += 1


@asynccontextmanager
async def tracking(client: Any, entries: Entries, **changes: Any) -> AsyncIterator[Tracking]:
    """Open a tracked connection, and close it at the end."""
    found = Tracking(client, entries, **changes)
    try:
        yield found
    finally:
        await found.tracked.aclose()
