"""Users in SQLite and sessions in Redis, for the applications in this folder."""

import os

import redis
import redis.asyncio
from sqlalchemy import MetaData, create_engine
from sqlalchemy.ext.asyncio import create_async_engine

from lucia import AsyncAuth, Auth, User
from lucia.adapters.redis import AsyncRedisSessionAdapter, RedisSessionAdapter
from lucia.adapters.sqlalchemy import AsyncSQLAlchemyUserAdapter, AuthTables, SQLAlchemyUserAdapter

URL = os.environ.get("REDIS_URL", "redis://localhost:6379")
KEYS = [bytes.fromhex(os.environ["SESSION_KEY"])]

metadata = MetaData()
tables = AuthTables(metadata)
engine = create_engine("sqlite:///small.db")
metadata.create_all(engine)  # a larger application uses Alembic


def make_auth() -> Auth[User]:
    """Return the auth of a sync application."""
    users = SQLAlchemyUserAdapter(engine, tables)
    sessions = RedisSessionAdapter(redis.Redis.from_url(URL), id_keys=KEYS)
    return Auth(users=users, sessions=sessions, env="DEV")


def make_async_auth() -> AsyncAuth[User]:
    """Return the auth of an async application."""
    users = AsyncSQLAlchemyUserAdapter(create_async_engine("sqlite+aiosqlite:///small.db"), tables)
    sessions = AsyncRedisSessionAdapter(redis.asyncio.Redis.from_url(URL), id_keys=KEYS)
    return AsyncAuth(users=users, sessions=sessions, env="DEV")
