"""redis-py, with GET, SET and DEL of a record of the same size.

This is the lower bound for the cost of a session in Redis without coalescing.
"""

import json
import secrets
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

from redis.asyncio import Redis, RedisCluster

from bench.peer import HOUR, RECORD, AsyncPeer, expect
from bench.peers import CONNECTIONS, KEEPALIVE

MARK: Final = "?" * len(str(RECORD["user_id"]))
AT: Final = json.dumps(RECORD | {"user_id": MARK}).index(MARK)
USER_ID: Final = slice(AT, AT + len(MARK))
"""The position of the user's id in each record."""


@asynccontextmanager
async def open_peer(url: str, *, cluster: bool = False) -> AsyncGenerator[AsyncPeer]:
    """Open a client of one server or of a cluster."""
    make: Any = RedisCluster if cluster else Redis
    client = make.from_url(url, max_connections=CONNECTIONS, socket_keepalive=KEEPALIVE)
    async with client:

        def get(session_id: str) -> Awaitable[bytes | None]:
            answer: Awaitable[bytes | None] = client.get(f"bare:{session_id}")
            return answer

        def delete(session_id: str) -> Awaitable[object]:
            answer: Awaitable[object] = client.delete(f"bare:{session_id}")
            return answer

        yield AsyncPeer(
            create=creating(client),
            validate=get,
            user_id=user_id_of,
            known_as=str.encode,
            check=check_record,
            revoke=delete,
        )


def creating(client: Any) -> Callable[[str], Awaitable[str]]:
    """Return a function that stores a record of a user and returns its id."""

    async def create(user_id: str) -> str:
        session_id = secrets.token_hex(20)
        await client.set(
            f"bare:{session_id}",
            json.dumps(RECORD | {"id": session_id, "user_id": user_id}),
            ex=HOUR,
        )
        return session_id

    return create


def user_id_of(record: bytes | None) -> bytes | None:
    """Return the user of a record by its position, without decoding the JSON."""
    return record and record[USER_ID]


def check_record(record: bytes, session_id: str, user_id: str) -> None:
    """Raise AssertionError unless all members of the record are right."""
    expect("record", json.loads(record), RECORD | {"id": session_id, "user_id": user_id})
