"""starsessions, with its ``RedisStore`` and its serializer.

Its middleware also writes the session and a Set-Cookie in each request. That is not measured.
"""

import secrets
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

from redis.asyncio import Redis
from starsessions import JsonSerializer
from starsessions.stores.redis import RedisStore

from bench.peer import HOUR, RECORD, AsyncPeer, expect
from bench.peers import CONNECTIONS, KEEPALIVE


@asynccontextmanager
async def open_peer(url: str) -> AsyncGenerator[AsyncPeer]:
    """Open a store over a client as the documentation shows, with the default serializer."""
    client: Any = Redis.from_url(url, max_connections=CONNECTIONS, socket_keepalive=KEEPALIVE)
    async with client:
        store = RedisStore(connection=client)
        serializer = JsonSerializer()

        async def create(user_id: str) -> str:
            session_id = secrets.token_hex(16)
            data = serializer.serialize(RECORD | {"user_id": user_id})
            return await store.write(session_id=session_id, data=data, lifetime=HOUR, ttl=HOUR)

        async def validate(session_id: str) -> dict[str, Any]:
            return dict(
                serializer.deserialize(await store.read(session_id=session_id, lifetime=HOUR))
            )

        yield AsyncPeer(
            create=create,
            validate=validate,
            user_id=user_id_of,
            check=check_session,
            revoke=store.remove,
        )


def user_id_of(session: dict[str, Any]) -> str | None:
    """Return the data that the application stored in the session."""
    return session.get("user_id")


def check_session(session: dict[str, Any], _session_id: str, user_id: str) -> None:
    """Raise AssertionError unless the session has all that the application wrote."""
    expect("session", session, RECORD | {"user_id": user_id})
