"""Secrets in the logs of SQLAlchemy and a driver, as docs/users-and-keys.md describes."""

import logging
from typing import NamedTuple

import pytest
from sqlalchemy import MetaData
from sqlalchemy.ext.asyncio import create_async_engine

from lucia import AsyncAuth, PrimaryKey
from lucia.adapters.sqlalchemy import AsyncSQLAlchemyAdapter, AuthTables
from tests.support.passwords import CHEAP

PASSWORD = "correct horse battery staple"


class Levels(NamedTuple):
    """Log levels of an application, and whether they show secrets."""

    driver: int
    sqlalchemy: int
    hides_parameters: bool
    shows_secrets: bool


CASES = {
    "a driver at DEBUG": Levels(logging.DEBUG, logging.WARNING, True, True),
    "a driver at INFO": Levels(logging.INFO, logging.WARNING, True, False),
    "SQLAlchemy at INFO": Levels(logging.INFO, logging.INFO, False, True),
    "SQLAlchemy at INFO, without parameters": Levels(logging.INFO, logging.INFO, True, False),
    "SQLAlchemy at DEBUG, without parameters": Levels(logging.INFO, logging.DEBUG, True, True),
}


@pytest.mark.parametrize("levels", CASES.values(), ids=CASES)
async def test_what_logs_show(levels: Levels, caplog: pytest.LogCaptureFixture) -> None:
    """With the documented settings the logs show no password hash and no session id."""
    caplog.set_level(levels.driver, "aiosqlite")
    caplog.set_level(levels.sqlalchemy, "sqlalchemy.engine")
    caplog.set_level(logging.DEBUG)  # the last call also sets the level of caplog's handler
    metadata = MetaData()
    tables = AuthTables(metadata, sessions=True)
    engine = create_async_engine("sqlite+aiosqlite://", hide_parameters=levels.hides_parameters)
    async with engine.begin() as connection:
        await connection.run_sync(metadata.create_all)
    adapter = AsyncSQLAlchemyAdapter(engine, tables)
    auth = AsyncAuth(users=adapter, sessions=adapter, env="DEV", hash=CHEAP)
    await auth.create_user(primary_key=PrimaryKey("username", "alice", PASSWORD))
    session = await auth.create_session_with_key("username", "alice", PASSWORD)
    await auth.validate_session(session.session_id)
    await auth.aclose()
    await engine.dispose()
    assert ("$scrypt$" in caplog.text) is levels.shows_secrets
    assert (session.session_id in caplog.text) is levels.shows_secrets
    assert PASSWORD not in caplog.text
