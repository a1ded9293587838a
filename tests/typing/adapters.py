"""Adapters: which ones ``Auth`` and ``AsyncAuth`` take, the library's and somebody's own."""

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
    """Five methods that wait, by somebody who inherits from nothing and names the parameters as they like."""

    async def get_session(self, session_id: str) -> SessionRow | None:
        """One."""
        return None

    async def get_sessions_by_user_id(self, user: str) -> list[SessionRow]:
        """Two."""
        return []

    async def set_session(self, row: SessionRow) -> None:
        """Three."""

    async def delete_session(self, *ids: str) -> None:
        """Four."""

    async def delete_sessions_by_user_id(self, user: str) -> None:
        """Five."""


class MyAdapter:
    """The same without waiting."""

    def get_session(self, session_id: str) -> SessionRow | None:
        """One."""
        return None

    def get_sessions_by_user_id(self, user: str) -> Sequence[SessionRow]:
        """Two."""
        return ()

    def set_session(self, row: SessionRow) -> None:
        """Three."""

    def delete_session(self, *ids: str) -> None:
        """Four."""

    def delete_sessions_by_user_id(self, user: str) -> None:
        """Five."""


class FourMethods:
    """One method is missing."""

    async def get_session(self, session_id: str) -> SessionRow | None:
        """One."""
        return None

    async def get_sessions_by_user_id(self, user: str) -> list[SessionRow]:
        """Two."""
        return []

    async def set_session(self, row: SessionRow) -> None:
        """Three."""

    async def delete_session(self, *ids: str) -> None:
        """Four."""


# somebody's own adapter is one
async_own: AsyncSessionAdapter = MyAsyncAdapter()
own: SessionAdapter = MyAdapter()
assert_type(AsyncAuth(sessions=MyAsyncAdapter(), env="DEV"), AsyncAuth[User])
assert_type(Auth(sessions=MyAdapter(), env="DEV"), Auth[User])

# with a method less it is not
four: AsyncSessionAdapter = FourMethods()  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]

# five methods make no renewing one
renewing: AsyncRenewingSessionAdapter = MyAsyncAdapter()  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]

# an adapter of the other flavour is refused
AsyncAuth(sessions=MyAdapter(), env="DEV")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
Auth(sessions=MyAsyncAdapter(), env="DEV")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
AsyncAuth(sessions=MemoryAdapter(), env="DEV")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
Auth(sessions=AsyncMemoryAdapter(), env="DEV")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
AsyncAuth(sessions=AsyncMemoryAdapter(), users=MemoryAdapter(), env="DEV")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
Auth(sessions=MemoryAdapter(), users=AsyncMemoryAdapter(), env="DEV")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]

# a session adapter has no users
AsyncAuth(sessions=MyAsyncAdapter(), users=MyAsyncAdapter(), env="DEV")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]


def protocols(
    engine: Engine,
    async_engine: AsyncEngine,
    client: redis.Redis,
    async_client: redis.asyncio.Redis,
) -> None:
    """What the library's own adapters are."""
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
    """Clients of both packages and both flavours are taken, whatever they decode; Sentinel's ``master_for`` gives the same classes."""
    RedisSessionAdapter(client)
    RedisSessionAdapter(other)
    RedisSessionAdapter(client, namespaces={"session": "s"})
    AsyncRedisSessionAdapter(async_client)
    AsyncRedisSessionAdapter(async_other)
    AsyncRedisSessionAdapter(async_client, namespaces={"session": "s", "user_session": "u"})

    # what one flavour alone has
    AsyncRedisSessionAdapter(async_client, coalesce=False, near_cache=timedelta(seconds=1))
    AsyncRedisSessionAdapter(async_client, near_cache=None)
    AsyncRedisSessionAdapter(async_client, near_cache=1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    RedisSessionAdapter(client, near_cache=timedelta(seconds=1))  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]

    # what is no client is refused
    AsyncRedisSessionAdapter("redis://")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    RedisSessionAdapter("redis://")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def other_flavour(
    client: redis.Redis,
    other: valkey.Valkey,
    async_client: redis.asyncio.Redis,
    async_other: valkey.asyncio.Valkey,
) -> None:
    """A client of the other flavour is a TypeError when the adapter is made. Type checkers see it in one case of four.

    The clients leave what ``execute_command`` returns untyped, which passes for anything: pyright infers it for ``redis.Redis`` alone.
    """
    AsyncRedisSessionAdapter(client)  # pyright: ignore[reportArgumentType]
    AsyncRedisSessionAdapter(other)
    RedisSessionAdapter(async_client)
    RedisSessionAdapter(async_other)
