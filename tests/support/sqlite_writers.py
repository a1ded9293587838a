"""A process that writes to a SQLite file, with the settings that the documentation recommends.

``python -m tests.support.sqlite_writers FLAVOUR URL NAME`` makes 50 sign-ups from ten threads or
tasks, each followed by a log-in and a renewal. An error ends it with its traceback and status 1.
"""

import asyncio
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from sqlalchemy import make_url

from lucia import AsyncAuth, Auth, PrimaryKey
from lucia.adapters.sqlalchemy import AsyncSQLAlchemyAdapter, SQLAlchemyAdapter
from tests.support.passwords import CHEAP, ROOMY
from tests.support.suite_databases import TABLES, AsyncSuiteDatabase, SuiteDatabase

__all__ = ["SIGN_UPS"]

SIGN_UPS = 50
AT_ONCE = 10

SETTINGS: Any = {"env": "DEV", "hash": CHEAP, "password_pool": ROOMY}


def write(url: str, name: str) -> None:
    """Make the sign-ups from threads."""
    engine = SuiteDatabase(make_url(url)).engine
    adapter = SQLAlchemyAdapter(engine, TABLES)
    auth = Auth(sessions=adapter, users=adapter, **SETTINGS)

    def sign_up(number: int) -> None:
        key = PrimaryKey("email", f"{name}-{number}", "correct horse")
        user = auth.create_user(primary_key=key)
        auth.renew_session(auth.create_session(user.user_id).session_id)

    with ThreadPoolExecutor(AT_ONCE) as threads:
        list(threads.map(sign_up, range(SIGN_UPS)))
    engine.dispose()


async def write_async(url: str, name: str) -> None:
    """Make the sign-ups from tasks."""
    engine = AsyncSuiteDatabase(make_url(url).set(drivername="sqlite+aiosqlite")).engine
    adapter = AsyncSQLAlchemyAdapter(engine, TABLES)
    auth = AsyncAuth(sessions=adapter, users=adapter, **SETTINGS)
    turns = asyncio.Semaphore(AT_ONCE)

    async def sign_up(number: int) -> None:
        async with turns:
            key = PrimaryKey("email", f"{name}-{number}", "correct horse")
            user = await auth.create_user(primary_key=key)
            await auth.renew_session((await auth.create_session(user.user_id)).session_id)

    await asyncio.gather(*map(sign_up, range(SIGN_UPS)))
    await engine.dispose()


if __name__ == "__main__":
    flavour, url, name = sys.argv[1:]
    if flavour == "async":
        asyncio.run(write_async(url, name))
    else:
        write(url, name)
