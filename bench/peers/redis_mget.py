"""redis-py, with the GETs of one turn of the event loop in one MGET.

This is the lower bound for the cost of a coalesced read.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

from redis.asyncio import Redis

from bench.peer import AsyncPeer
from bench.peers import KEEPALIVE
from bench.peers.redis_py import check_record, creating, user_id_of


class Gathered:
    """A reader with one MGET in flight. GETs that arrive meanwhile go into the next one."""

    def __init__(self, client: Redis) -> None:
        self._client: Any = client
        self._waiting: list[tuple[str, asyncio.Future[bytes | None]]] = []
        self._task: asyncio.Task[None] | None = None

    def get(self, key: str) -> "asyncio.Future[bytes | None]":
        """Return the value at a key."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[bytes | None] = loop.create_future()
        self._waiting.append((key, future))
        if self._task is None:
            self._task = loop.create_task(self._read())
        return future

    async def _read(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting, []
            values: list[bytes | None] = await self._client.mget([key for key, _ in batch])
            for (_, future), value in zip(batch, values, strict=True):
                future.set_result(value)
        self._task = None


@asynccontextmanager
async def open_peer(url: str) -> AsyncGenerator[AsyncPeer]:
    """Open a reader with a connection of its own."""
    async with (
        Redis.from_url(url, single_connection_client=True, socket_keepalive=KEEPALIVE) as reader,
        Redis.from_url(url, max_connections=100, socket_keepalive=KEEPALIVE) as client,
    ):
        gathered = Gathered(reader)

        def validate(session_id: str) -> "asyncio.Future[bytes | None]":
            return gathered.get(f"bare:{session_id}")

        yield AsyncPeer(
            create=creating(client),
            validate=validate,
            user_id=user_id_of,
            known_as=str.encode,
            check=check_record,
        )
