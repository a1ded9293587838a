"""lucia-auth, with ``AsyncAuth`` over ``AsyncSQLAlchemyAdapter`` and hashed ids."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from operator import attrgetter
from typing import Final

from sqlalchemy import MetaData
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import create_async_engine

from bench.peer import AsyncPeer
from bench.peers.ours import LIFE, check_session
from lucia import AsyncAuth, InvalidSessionId
from lucia.adapters.sqlalchemy import AsyncSQLAlchemyAdapter, AuthTables

__all__ = ["ID_KEY", "TABLES", "open_peer"]

ID_KEY: Final = b"the key of the benchmark".ljust(32)
METADATA: Final = MetaData()
TABLES: Final = AuthTables(METADATA, sessions=True)

CONNECTIONS: Final = 16
"""The connections of a pool; SQLAlchemy's default is 5, and 10 more under load."""


@asynccontextmanager
async def open_peer(url: str) -> AsyncGenerator[AsyncPeer]:
    """Open the library over the database at this URL, whose tables are created."""
    engine = create_async_engine(url, pool_size=CONNECTIONS, max_overflow=0)
    async with engine.begin() as connection:
        await connection.run_sync(METADATA.create_all)
    store = AsyncSQLAlchemyAdapter(engine, TABLES, id_keys=[ID_KEY], raw_ids="refuse")
    auth = AsyncAuth(users=store, sessions=store, env="DEV", session_expires_in=LIFE)

    async def create(user_id: str) -> str:
        with suppress(IntegrityError):  # the user is there
            await store.set_user(user_id, {}, None)
        return (await auth.create_session(user_id)).session_id

    yield AsyncPeer(
        create=create,
        validate=auth.validate_session,
        user_id=attrgetter("user_id"),
        check=check_session,
        refusal=InvalidSessionId,
        revoke=auth.invalidate_session,
    )
    await auth.aclose()
    await engine.dispose()
