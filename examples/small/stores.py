import os

import redis.asyncio
from sqlalchemy import MetaData, create_engine
from sqlalchemy.ext.asyncio import create_async_engine

from lucia import AsyncAuth, User
from lucia.adapters.redis import AsyncRedisSessionAdapter
from lucia.adapters.sqlalchemy import AsyncSQLAlchemyUserAdapter, AuthTables

metadata = MetaData()
tables = AuthTables(metadata)
metadata.create_all(create_engine("sqlite:///small.db"))  # a larger application uses Alembic


def make_auth() -> AsyncAuth[User]:
    engine = create_async_engine("sqlite+aiosqlite:///small.db")
    client = redis.asyncio.Redis.from_url(os.environ.get("REDIS_URL", "redis://localhost:6379"))
    keys = [bytes.fromhex(os.environ["SESSION_KEY"])]
    return AsyncAuth(
        users=AsyncSQLAlchemyUserAdapter(engine, tables),
        sessions=AsyncRedisSessionAdapter(client, id_keys=keys),
        env="DEV",
    )
