"""A worker for the time until a process refuses a session that another one revoked.

``python -m bench.lag_worker LIBRARY LOOP URL SETTINGS``. Times are of the system's monotonic clock,
which all processes share.
"""

import asyncio
import time
from collections.abc import Sequence
from itertools import cycle, islice
from typing import Any, Final

from bench.drive import user_ids
from bench.peer import AsyncPeer
from bench.worker import Worker, work

WARM_UP_READS: Final = 10
"""How often a session is read before it counts as watched."""


class LagWorker(Worker):
    """The methods that the runner calls: one process revokes sessions, another watches them."""

    def __init__(self, peer: AsyncPeer) -> None:
        super().__init__(peer)
        self._peer = peer
        self._load: list[asyncio.Task[None]] = []
        self._watching: asyncio.Task[None] | None = None
        self._seen = 0.0

    async def create(self) -> str:
        """Create a session."""
        return await self._peer.create(user_ids(1)[0])

    async def revoke(self, session_id: str) -> float:
        """Revoke a session, and return the time when the call returned."""
        assert self._peer.revoke
        await self._peer.revoke(session_id)
        return time.monotonic()

    async def load(self, callers: int, sessions: Sequence[str]) -> None:
        """Start concurrent callers that validate these sessions, once per turn of the loop each."""
        self._load = [
            asyncio.create_task(self._validate(islice(cycle(sessions), number, None)))
            for number in range(callers)
        ]

    async def watch(self, session_id: str) -> None:
        """Start validating a session again and again until it is refused or can't be read."""
        for _ in range(WARM_UP_READS):
            await self._peer.validate(session_id)
        self._watching = asyncio.create_task(self._watch(session_id))

    async def last_seen(self) -> float:
        """Return the start time of the last validation that accepted the session."""
        assert self._watching
        await self._watching
        return self._seen

    async def _watch(self, session_id: str) -> None:
        while True:
            begin = time.monotonic()
            try:
                found = await self._peer.validate(session_id)
            except Exception:  # refused, or the store did not reply
                return
            if self._peer.user_id(found) is None:
                return
            self._seen = begin
            await asyncio.sleep(0)

    async def _validate(self, session_ids: Any) -> None:
        for session_id in session_ids:
            await self._peer.validate(session_id)
            await asyncio.sleep(0)


if __name__ == "__main__":
    work("open_peer", LagWorker)
