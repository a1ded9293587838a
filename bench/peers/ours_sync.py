"""lucia-auth, with ``Auth`` over ``RedisSessionAdapter``."""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from redis import Redis

from bench.peer import Peer
from bench.peers import CONNECTIONS, KEEPALIVE
from bench.peers.ours import LIFE, user_id_of
from lucia import Auth, InvalidSessionId
from lucia.adapters.redis import RedisSessionAdapter


@contextmanager
def open_peer(url: str, **settings: Any) -> Generator[Peer]:
    """Open the library with settings of the adapter."""
    with (
        Redis.from_url(url, max_connections=CONNECTIONS, socket_keepalive=KEEPALIVE) as client,
        RedisSessionAdapter(client, **settings) as sessions,
    ):
        auth = Auth(sessions=sessions, env="DEV", session_expires_in=LIFE)

        def create(user_id: str) -> str:
            return auth.create_session(user_id).session_id

        yield Peer(
            create=create,
            validate=auth.validate_session,
            user_id=user_id_of,
            refusal=InvalidSessionId,
        )
