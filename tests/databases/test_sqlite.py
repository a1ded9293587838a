"""SQLite in WAL mode, written to by several processes, threads and transactions at once."""

import asyncio
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from subprocess import PIPE, STDOUT, Popen
from traceback import clear_frames
from typing import Any

import pytest
from sqlalchemy import Engine, StaticPool, event, func, make_url, select
from sqlalchemy.exc import IntegrityError, OperationalError
from sqlalchemy.orm import Session

from lucia.adapters.sqlalchemy import AsyncSQLAlchemyAdapter, SQLAlchemyAdapter
from tests.support.sqlite_writers import SIGN_UPS
from tests.support.suite_databases import TABLES, AsyncSuiteDatabase, SuiteDatabase, tables

PROCESSES = 4


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    """Yield an engine with the documented settings for an empty file."""
    with (
        tables(make_url(f"sqlite:///{tmp_path}/app.db")) as url,
        SuiteDatabase(url) as made,
    ):
        yield made


def count(engine: Engine, table: Any) -> int:
    """Return how many rows a table has."""
    with engine.connect() as connection:
        return int(connection.execute(select(func.count()).select_from(table)).scalar_one())


@pytest.mark.slow
def test_several_processes(engine: Engine) -> None:
    """Processes with threads and with tasks write to one file, and none finds it locked."""
    url = engine.url.render_as_string()
    writers = [
        Popen(
            [sys.executable, "-m", "tests.support.sqlite_writers", flavour, url, f"p{number}"],
            stdout=PIPE,
            stderr=STDOUT,
            text=True,
        )
        for number, flavour in enumerate(["sync", "async"] * (PROCESSES // 2))
    ]
    assert [writer.communicate()[0] for writer in writers] == [""] * PROCESSES
    assert [writer.returncode for writer in writers] == [0] * PROCESSES
    assert count(engine, TABLES.user) == PROCESSES * SIGN_UPS
    assert count(engine, TABLES.key) == PROCESSES * SIGN_UPS


async def test_an_error_keeps_no_cursor(engine: Engine) -> None:
    """When an error is freed, the event loop does not wait for its connection's next statement.

    SQLAlchemy 2.0 leaves the cursor of a refused statement to the garbage collector, and freeing it
    takes the lock that the connection's thread has while it works.
    """
    entered, go_on = threading.Event(), threading.Event()

    def wait() -> bool:
        entered.set()
        return go_on.wait(10)

    url = engine.url.set(drivername="sqlite+aiosqlite")
    async with AsyncSuiteDatabase(url, poolclass=StaticPool) as one_connection:
        adapter = AsyncSQLAlchemyAdapter(one_connection, TABLES)
        await adapter.set_user("anna", {}, None)
        with pytest.raises(IntegrityError) as refused:
            await adapter.set_user("anna", {}, None)
        async with one_connection.connect() as connection:
            raw: Any = await connection.get_raw_connection()
            await raw.driver_connection.create_function("wait", 0, wait)
            statement = asyncio.create_task(connection.execute(select(func.wait())))
            await asyncio.to_thread(entered.wait)
            clear_frames(refused.value.__traceback__)
            go_on.set()
            assert (await statement).scalar_one()


def begin_with(engine: Engine, statement: str) -> None:
    """Begin each transaction with this statement, as SQLAlchemy's documentation shows."""

    @event.listens_for(engine, "connect")
    def leave_transactions_to_us(connection: Any, _: object) -> None:
        connection.isolation_level = None

    @event.listens_for(engine, "begin")
    def begin(connection: Any) -> None:
        connection.exec_driver_sql(statement)


def test_write_after_a_read_is_refused(engine: Engine) -> None:
    """With BEGIN, a caller's transaction can't write if another one has since it read.

    So the adapters' own transactions begin with a write.
    """
    engine.dispose()
    begin_with(engine, "BEGIN")
    with Session(engine) as mine:
        adapter = SQLAlchemyAdapter(mine, TABLES)
        assert adapter.get_user("u1") is None
        SQLAlchemyAdapter(engine, TABLES).set_user("u2", {}, None)
        with pytest.raises(OperationalError, match="database is locked"):
            adapter.set_user("u1", {}, None)


def test_begin_immediate_allows_a_write_after_a_read(engine: Engine) -> None:
    """With BEGIN IMMEDIATE, others wait until a caller's transaction has read and written."""
    engine.dispose()
    begin_with(engine, "BEGIN IMMEDIATE")
    with Session(engine) as mine, ThreadPoolExecutor() as threads:
        adapter = SQLAlchemyAdapter(mine, TABLES)
        assert adapter.get_user("u1") is None
        other = threads.submit(SQLAlchemyAdapter(engine, TABLES).set_user, "u2", {}, None)
        adapter.set_user("u1", {}, None)
        mine.commit()
        other.result()
    assert count(engine, TABLES.user) == 2
