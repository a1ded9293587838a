"""crudauth, with the session manager of its session transport, and CSRF tokens, its default."""

import secrets
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

from crudauth.storage import get_session_storage
from crudauth.transports.session.constants import CSRF_TOKEN_ID_META_KEY
from crudauth.transports.session.manager import SessionManager
from crudauth.transports.session.schemas import CSRFToken, SessionData
from redis.asyncio import Redis
from starlette.requests import Request

from bench.peer import AsyncPeer, expect
from bench.peers import CONNECTIONS, KEEPALIVE

MANY = 1_000_000


@asynccontextmanager
async def open_peer(url: str) -> AsyncGenerator[AsyncPeer]:
    """Open the manager as the transport does, over one client, with hashed ids.

    The cap on sessions of a user is never reached.
    """
    client: Any = Redis.from_url(url, max_connections=CONNECTIONS, socket_keepalive=KEEPALIVE)
    async with client:
        sessions = get_session_storage("redis", prefix="crudauth:session:", client=client)
        tokens = get_session_storage("redis", prefix="crudauth:csrf:", client=client)
        manager = SessionManager(
            sessions, csrf_storage=tokens, key_secret="x" * 32, max_sessions_per_user=MANY
        )
        request = Request(
            {
                "type": "http",
                "method": "POST",
                "path": "/",
                "headers": [],
                "client": ("127.0.0.1", 1),
                "query_string": b"",
            }
        )

        async def create(user_id: str) -> str:
            session_id, _ = await manager.create_session(request, user_id)
            return session_id

        async def create_in_bulk(user_id: str) -> None:
            """Bypass the manager, which reads all sessions of the user before it creates one."""
            key = secrets.token_hex(32)
            token = CSRFToken(token=key, session_id=key, expiry=datetime.now(UTC))
            await tokens.create(token, session_id=key)
            session = SessionData(
                user_id=user_id, session_id=key, metadata={CSRF_TOKEN_ID_META_KEY: key}
            )
            await sessions.create(session, session_id=key)

        yield AsyncPeer(
            create=create,
            validate=manager.validate_session,
            user_id=user_id_of,
            check=check_session,
            revoke=manager.terminate_session,
            revoke_all=manager.revoke_all,
            create_in_bulk=create_in_bulk,
        )


def user_id_of(session: SessionData | None) -> str | None:
    """Return the user of a session."""
    return None if session is None else str(session.user_id)


def check_session(session: SessionData | None, _session_id: str, user_id: str) -> None:
    """Raise AssertionError unless it is the user's session. The id is hashed, and not compared."""
    assert session
    expect("user", session.user_id, user_id)
    expect("address", session.ip_address, "127.0.0.1")
    expect("has a CSRF token", bool(session.metadata[CSRF_TOKEN_ID_META_KEY]), wanted=True)
