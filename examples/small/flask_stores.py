import os

import redis
from sqlalchemy import MetaData, create_engine

from lucia import Auth, User
from lucia.adapters.redis import RedisSessionAdapter
from lucia.adapters.sqlalchemy import AuthTables, SQLAlchemyUserAdapter

metadata = MetaData()
tables = AuthTables(metadata)


def make_auth() -> Auth[User]:
    engine = create_engine("sqlite:///small.db")
    metadata.create_all(engine)  # a larger application uses Alembic
    client = redis.Redis.from_url(os.environ.get("REDIS_URL", "redis://localhost:6379"))
    keys = [bytes.fromhex(os.environ["SESSION_KEY"])]
    return Auth(
        users=SQLAlchemyUserAdapter(engine, tables),
        sessions=RedisSessionAdapter(client, id_keys=keys),
        env="DEV",
    )
