"""Sync redis-py, with GET and SET of a record of the same size."""

import json
import secrets
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from redis import Redis

from bench.peer import HOUR, RECORD, Peer
from bench.peers import CONNECTIONS, KEEPALIVE
from bench.peers.redis_py import user_id_of


@contextmanager
def open_peer(url: str) -> Generator[Peer]:
    """Open a client with its default pool."""
    client: Any
    with Redis.from_url(url, max_connections=CONNECTIONS, socket_keepalive=KEEPALIVE) as client:

        def create(user_id: str) -> str:
            session_id = secrets.token_hex(20)
            client.set(
                f"bare:{session_id}",
                json.dumps(RECORD | {"id": session_id, "user_id": user_id}),
                ex=HOUR,
            )
            return session_id

        def get(session_id: str) -> bytes | None:
            record: bytes | None = client.get(f"bare:{session_id}")
            return record

        yield Peer(create=create, validate=get, user_id=user_id_of, known_as=str.encode)
