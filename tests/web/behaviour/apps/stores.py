"""The auth of the applications: users in SQLite, sessions in Redis, as the environment says."""

import os
from datetime import timedelta
from typing import Any, Final

from redis import Redis
from redis.asyncio import Redis as AsyncRedis
from sqlalchemy import MetaData, create_engine
from sqlalchemy.ext.asyncio import create_async_engine

from lucia import AsyncAuth, Auth, PasswordPool, ScryptHash, User
from lucia._compat import password_pool
from lucia.adapters.redis import AsyncRedisSessionAdapter, RedisSessionAdapter
from lucia.adapters.sqlalchemy import (
    AsyncSQLAlchemyUserAdapter,
    AuthTables,
    SQLAlchemyUserAdapter,
)

REDIS: Final = os.environ["BEHAVIOUR_REDIS"]
DATABASE: Final = os.environ["BEHAVIOUR_DATABASE"]
ORIGINS: Final = ["https://trusted.example"]
TABLES: Final = AuthTables(MetaData())
HASH: Final = ScryptHash(ln=int(os.environ.get("BEHAVIOUR_LN", "4")), r=8, p=1)
POOL: Final = None if "BEHAVIOUR_FLOOD" in os.environ else PasswordPool(queue=50)
"""Room for all passwords that a case sends at once; during a flood, the default."""

DEADLINE: Final = timedelta(seconds=0.5)
"""How long a request waits for a Redis that does not reply."""


def sync_auth() -> Auth[User]:
    """Return the auth of a sync application."""
    if "BEHAVIOUR_BLOCKING" in os.environ:
        # As if the library did not know of greenlets.
        name = "in_native_thread"
        setattr(password_pool, name, lambda call: call())
    client: Any = Redis.from_url(REDIS, protocol=2)
    return Auth(
        users=SQLAlchemyUserAdapter(create_engine(f"sqlite:///{DATABASE}"), TABLES),
        sessions=RedisSessionAdapter(client, deadline=DEADLINE),
        env="DEV",
        hash=HASH,
        throttle=None,  # all cases log in from one address
        password_pool=POOL,
        origin=ORIGINS,
    )


def async_auth() -> AsyncAuth[User]:
    """Return the auth of an async application."""
    engine = create_async_engine(f"sqlite+aiosqlite:///{DATABASE}")
    client: Any = AsyncRedis.from_url(REDIS, protocol=2)
    return AsyncAuth(
        users=AsyncSQLAlchemyUserAdapter(engine, TABLES),
        sessions=AsyncRedisSessionAdapter(client, deadline=DEADLINE),
        env="DEV",
        hash=HASH,
        throttle=None,  # all cases log in from one address
        origin=ORIGINS,
    )


def shown(session: Any) -> dict[str, Any]:
    """Return what ``/who`` shows of a session."""
    return {"user_id": None if session is None else session.user_id, "pid": os.getpid()}


def numbers() -> list[bytes]:
    """Return the parts of the stream."""
    return [b"%d\n" % number for number in range(1_000)]


OWN_HEADERS: Final = {"Vary": "Accept-Language", "Cache-Control": "public, max-age=60"}
