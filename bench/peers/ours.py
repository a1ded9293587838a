"""lucia-auth, with ``AsyncAuth`` over ``AsyncRedisSessionAdapter``."""

from collections.abc import AsyncGenerator, Awaitable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from operator import attrgetter
from typing import Any

from redis.asyncio import Redis, RedisCluster

from bench.peer import HOUR, AsyncPeer, DeviceLists, Logins, expect
from bench.peers import CONNECTIONS, KEEPALIVE
from lucia import (
    AsyncAuth,
    InvalidCredentials,
    InvalidSessionId,
    PrimaryKey,
    Session,
    SessionExpiry,
)
from lucia._redis.keys import LayoutName
from lucia.adapters.memory import AsyncMemoryAdapter
from lucia.adapters.redis import AsyncRedisSessionAdapter

LIFE = SessionExpiry(active=timedelta(seconds=HOUR), idle=timedelta(seconds=HOUR))
IDLE_SOON = SessionExpiry(active=timedelta(milliseconds=1), idle=timedelta(seconds=HOUR))
user_id_of = attrgetter("user_id")
TIMES = {"deadline", "near_cache"}
FIREFOX = {"user_agent": "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"}


@asynccontextmanager
async def open_peer(
    url: str, *, cluster: bool = False, **settings: Any
) -> AsyncGenerator[AsyncPeer]:
    """Open the library with settings of the adapter, with times in seconds."""
    make: Any = RedisCluster if cluster else Redis
    client = make.from_url(url, max_connections=CONNECTIONS, socket_keepalive=KEEPALIVE)
    async with client, AsyncRedisSessionAdapter(client, **with_times(settings)) as sessions:
        auth = AsyncAuth(sessions=sessions, env="DEV", session_expires_in=LIFE)
        hasty = AsyncAuth(sessions=sessions, env="DEV", session_expires_in=IDLE_SOON)

        async def create(user_id: str) -> str:
            return (await auth.create_session(user_id)).session_id

        async def create_due(user_id: str) -> str:
            return (await hasty.create_session(user_id)).session_id

        yield AsyncPeer(
            create=create,
            validate=auth.validate_session,
            user_id=user_id_of,
            check=check_session,
            refusal=InvalidSessionId,
            revoke=auth.invalidate_session,
            create_due=create_due,
            renew=auth.validate_session,
            is_renewed=attrgetter("fresh"),
            session_id=attrgetter("session_id"),
            revoke_all=auth.invalidate_all_user_sessions,
        )


@asynccontextmanager
async def open_device_lists(
    url: str, *, cluster: bool = False, layout: LayoutName = "default"
) -> AsyncGenerator[DeviceLists]:
    """Open the device list over one server or a cluster."""
    client: Any = (RedisCluster if cluster else Redis).from_url(
        url, max_connections=CONNECTIONS, socket_keepalive=KEEPALIVE
    )
    async with client, AsyncRedisSessionAdapter(client, layout=layout) as sessions:
        auth = AsyncAuth(sessions=sessions, env="DEV")

        def log_in(user_id: str) -> Awaitable[object]:
            return auth.create_session(user_id, metadata=FIREFOX)

        yield DeviceLists(log_in=log_in, read=auth.get_all_user_sessions)


@asynccontextmanager
async def open_logins(url: str) -> AsyncGenerator[Logins]:
    """Open the library with users in memory."""
    client: Any = Redis.from_url(url, max_connections=CONNECTIONS, socket_keepalive=KEEPALIVE)
    async with client, AsyncRedisSessionAdapter(client) as sessions:
        auth = AsyncAuth(users=AsyncMemoryAdapter(), sessions=sessions, env="DEV")
        async with auth:

            def sign_up(name: str, password: str) -> Awaitable[object]:
                return auth.create_user(primary_key=PrimaryKey("username", name, password))

            def log_in(name: str, password: str) -> Awaitable[object]:
                return auth.create_session_with_key("username", name, password)

            yield Logins(sign_up=sign_up, log_in=log_in, refusal=InvalidCredentials)


def with_times(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the adapter's settings, with seconds converted to timedeltas."""
    return {
        name: timedelta(seconds=value) if name in TIMES else value
        for name, value in settings.items()
    }


def check_session(session: Session, session_id: str, user_id: str) -> None:
    """Raise AssertionError unless all members are those of this active session."""
    now = datetime.now(UTC)
    expect("id", session.session_id, session_id)
    expect("user", session.user_id, user_id)
    expect("state", (session.state, session.fresh), ("active", False))
    expect("active", now < session.active_period_expires_at <= now + LIFE.active, wanted=True)
    expect("idle", session.idle_period_expires_at - session.active_period_expires_at, LIFE.idle)
    expect("has a handle", bool(session.handle), wanted=True)
