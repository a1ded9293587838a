"""The adapters that ``Auth`` and ``AsyncAuth`` accept: the library's and an application's own."""

from collections.abc import Sequence
from datetime import timedelta
from typing import assert_type

import redis
import redis.asyncio
import valkey
import valkey.asyncio
from sqlalchemy import Engine, MetaData
from sqlalchemy.ext.asyncio import AsyncEngine

from lucia import (
    AsyncAuth,
    AsyncRenewingSessionAdapter,
    AsyncSessionAdapter,
    AsyncSessionUserAdapter,
    AsyncUserAdapter,
    Auth,
    RenewingSessionAdapter,
    SessionAdapter,
    SessionRow,
    SessionUserAdapter,
    User,
    UserAdapter,
)
from lucia.adapters.memory import AsyncMemoryAdapter, MemoryAdapter
from lucia.adapters.redis import AsyncRedisSessionAdapter, RedisSessionAdapter
from lucia.adapters.sqlalchemy import (
    AsyncSQLAlchemyAdapter,
    AsyncSQLAlchemyUserAdapter,
    AuthTables,
    SQLAlchemyAdapter,
    SQLAlchemyUserAdapter,
)


class MyAsyncAdapter:
    """An async adapter with five methods, no base class, and its own parameter names."""

    async def get_session(self, session_id: str) -> SessionRow | None:
        return None

    async def get_sessions_by_user_id(self, user: str) -> list[SessionRow]:
        return []

    async def set_session(self, row: SessionRow) -> None:
        """Store a session."""

    async def delete_session(self, *ids: str) -> None:
        """Remove sessions."""

    async def delete_sessions_by_user_id(self, user: str) -> None:
        """Remove a user's sessions."""


class MyAdapter:
    """A sync adapter with five methods."""

    def get_session(self, session_id: str) -> SessionRow | None:
        return None

    def get_sessions_by_user_id(self, user: str) -> Sequence[SessionRow]:
        return ()

    def set_session(self, row: SessionRow) -> None:
        """Store a session."""

    def delete_session(self, *ids: str) -> None:
        """Remove sessions."""

    def delete_sessions_by_user_id(self, user: str) -> None:
        """Remove a user's sessions."""


class FourMethods:
    """An adapter without one of the methods."""

    async def get_session(self, session_id: str) -> SessionRow | None:
        return None

    async def get_sessions_by_user_id(self, user: str) -> list[SessionRow]:
        return []

    async def set_session(self, row: SessionRow) -> None:
        """Store a session."""

    async def delete_session(self, *ids: str) -> None:
        """Remove sessions."""


# An application's own adapter is accepted.
async_own: AsyncSessionAdapter = MyAsyncAdapter()
own: SessionAdapter = MyAdapter()
assert_type(AsyncAuth(sessions=MyAsyncAdapter(), env="DEV"), AsyncAuth[User])
assert_type(Auth(sessions=MyAdapter(), env="DEV"), Auth[User])

# Without one of the methods it is not.
four: AsyncSessionAdapter = FourMethods()  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]

# An adapter with five methods is not a renewing one.
renewing: AsyncRenewingSessionAdapter = MyAsyncAdapter()  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]

# An adapter of the other flavour is refused.
AsyncAuth(sessions=MyAdapter(), env="DEV")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
Auth(sessions=MyAsyncAdapter(), env="DEV")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
AsyncAuth(sessions=MemoryAdapter(), env="DEV")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
Auth(sessions=AsyncMemoryAdapter(), env="DEV")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
AsyncAuth(sessions=AsyncMemoryAdapter(), users=MemoryAdapter(), env="DEV")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
Auth(sessions=MemoryAdapter(), users=AsyncMemoryAdapter(), env="DEV")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]

# A session adapter is no user adapter.
AsyncAuth(sessions=MyAsyncAdapter(), users=MyAsyncAdapter(), env="DEV")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]


def protocols(
    engine: Engine,
    async_engine: AsyncEngine,
    client: redis.Redis,
    async_client: redis.asyncio.Redis,
) -> None:
    """Check the protocols of the library's own adapters."""
    tables = AuthTables(MetaData(), sessions=True)
    async_renewing: list[AsyncRenewingSessionAdapter] = [
        AsyncMemoryAdapter(),
        AsyncRedisSessionAdapter(async_client),
        AsyncSQLAlchemyAdapter(async_engine, tables),
    ]
    renewing: list[RenewingSessionAdapter] = [
        MemoryAdapter(),
        RedisSessionAdapter(client),
        SQLAlchemyAdapter(engine, tables),
    ]
    async_users: list[AsyncUserAdapter] = [
        AsyncMemoryAdapter(),
        AsyncSQLAlchemyUserAdapter(async_engine, tables),
        AsyncSQLAlchemyAdapter(async_engine, tables),
    ]
    users: list[UserAdapter] = [
        MemoryAdapter(),
        SQLAlchemyUserAdapter(engine, tables),
        SQLAlchemyAdapter(engine, tables),
    ]
    async_both: list[AsyncSessionUserAdapter] = [
        AsyncMemoryAdapter(),
        AsyncSQLAlchemyAdapter(async_engine, tables),
    ]
    both: list[SessionUserAdapter] = [MemoryAdapter(), SQLAlchemyAdapter(engine, tables)]
    assert all((async_renewing, renewing, async_users, users, async_both, both))


def clients(
    client: redis.Redis,
    other: valkey.Valkey,
    async_client: redis.asyncio.Redis,
    async_other: valkey.asyncio.Valkey,
) -> None:
    """Check that clients of both packages and flavours are accepted, also from ``master_for``."""
    RedisSessionAdapter(client)
    RedisSessionAdapter(other)
    RedisSessionAdapter(client, namespaces={"session": "s"})
    AsyncRedisSessionAdapter(async_client)
    AsyncRedisSessionAdapter(async_other)
    AsyncRedisSessionAdapter(async_client, namespaces={"session": "s", "user_session": "u"})

    # Settings that only the async flavour has
    AsyncRedisSessionAdapter(async_client, coalesce=False, near_cache=timedelta(seconds=1))
    AsyncRedisSessionAdapter(async_client, near_cache=None)
    AsyncRedisSessionAdapter(async_client, near_cache=1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    RedisSessionAdapter(client, near_cache=timedelta(seconds=1))  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]

    # Anything else than a client is refused.
    AsyncRedisSessionAdapter("redis://")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    RedisSessionAdapter("redis://")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def other_flavour(
    client: redis.Redis,
    other: valkey.Valkey,
    async_client: redis.asyncio.Redis,
    async_other: valkey.asyncio.Valkey,
) -> None:
    """Check which clients of the other flavour the type checkers refuse: one in four cases.

    All are a TypeError when the adapter is created. The clients leave the result of
    ``execute_command`` untyped; only for ``redis.Redis``, pyright infers it.
    """
    AsyncRedisSessionAdapter(client)  # pyright: ignore[reportArgumentType]
    AsyncRedisSessionAdapter(other)
    RedisSessionAdapter(async_client)
    RedisSessionAdapter(async_other)
