"""``scripts/test --database``: a run in the caller's database, and refusals."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import URL, create_engine, inspect, make_url

from tests.support.given_database import GivenDatabase, UnusableDatabase
from tests.support.sql_servers import SqlServer
from tests.support.suite_databases import METADATA, tables

pytestmark = pytest.mark.no_cover

ROOT = Path(__file__).parents[2]


@pytest.fixture
def empty(sql_server: SqlServer) -> Iterator[URL]:
    """Yield the URL of an empty database on each server, with an async driver."""
    with sql_server.database() as name:
        yield make_url(sql_server.async_url(name))


def table_names(url: URL) -> list[str]:
    """Return the names of the tables in a database."""
    engine = create_engine(url)
    try:
        return inspect(engine).get_table_names()
    finally:
        engine.dispose()


def run(url: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run ``scripts/test --database`` with arguments of pytest."""
    command = ["scripts/test", "--database", url, "-p", "no:cacheprovider", "-q", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_run(empty: URL) -> None:
    """Suites and races run in both flavours, and nothing is left in the database."""
    url = empty.render_as_string(hide_password=False)
    done = run(url, "-k", "test_set_user_with_key or (test_race and sign_up)")
    # In each flavour one test of the suite, one race and its control.
    assert "6 passed" in done.stdout, done.stdout
    assert table_names(GivenDatabase(url).sync_url) == []


def test_refusal_is_shown() -> None:
    """A database that can't be used ends the run with the reason, and without a traceback."""
    done = run("postgresql+asyncpg://postgres:hunter2@127.0.0.1:1/app")
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "ERROR: --database: can't use postgresql+psycopg://postgres:***@" in done.stderr
    assert "hunter2" not in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_tables_that_exist(empty: URL) -> None:
    """A database that has tables of the suites' names is refused, and they are not touched."""
    given = GivenDatabase(empty.render_as_string(hide_password=False))
    given.check(METADATA)
    with tables(given.sync_url):
        with pytest.raises(UnusableDatabase, match="lucia_test_key, lucia_test_session"):
            given.check(METADATA)
        assert set(table_names(given.sync_url)) == set(METADATA.tables)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("app.db", "this is no URL of SQLAlchemy; one is postgresql"),
        ("http://host/app", "SQLAlchemy knows no 'http'"),
        ("postgresql+asyncpgg://host/app", "SQLAlchemy knows no 'postgresql.asyncpgg'"),
        ("postgresql+asyncpg://host", "the URL names no database"),
        ("sqlite://", "the URL names no database"),
        ("mssql+pyodbc://host/app", "driver of mssql.pyodbc is missing: .* -m pip install 'pyod"),
        ("mssql+aioodbc://host/app", "driver of mssql.pyodbc is missing"),
        ("mariadb+mariadbconnector://host/app", "pip install 'mariadb'"),
        ("mariadb+aiomysql://host/app?nonsense=1", "can't use mariadb.pymysql"),
    ],
)
def test_wrong_urls(url: str, reason: str) -> None:
    """A URL that can't be used is refused with what is wrong and what to do."""
    with pytest.raises(UnusableDatabase, match=reason):
        GivenDatabase(url).check(METADATA)


@pytest.mark.parametrize(
    ("url", "sync", "asynchronous"),
    [
        ("sqlite:///app.db", "sqlite+pysqlite", "sqlite+aiosqlite"),
        ("sqlite+aiosqlite:///app.db", "sqlite+pysqlite", "sqlite+aiosqlite"),
        ("postgresql+asyncpg://host/app", "postgresql+psycopg", "postgresql+asyncpg"),
        ("postgresql+psycopg://host/app", "postgresql+psycopg", "postgresql+psycopg"),
        ("mysql+asyncmy://host/app", "mysql+pymysql", "mysql+asyncmy"),
        ("mariadb+pymysql://host/app", "mariadb+pymysql", "mariadb+aiomysql"),
    ],
)
def test_drivers_of_both_flavours(url: str, sync: str, asynchronous: str) -> None:
    """The URL's own driver is used where it can be, and else one of the other flavour."""
    given = GivenDatabase(url)
    assert (given.sync_url.drivername, given.async_url.drivername) == (sync, asynchronous)
