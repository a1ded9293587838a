"""Databases with tables for the suites of the SQLAlchemy adapters: a pytest plugin.

There is one for SQLite and one on each server in a test process, and tests empty it rather than
create another one. If the caller of ``scripts/test --database`` names a database, all of these
tests use that instead.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, Final, NamedTuple, Self

import pytest
from sqlalchemy import URL, Column, Engine, MetaData, NullPool, Text, create_engine, event, make_url
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from lucia.adapters.sqlalchemy import AuthTables
from tests.support.given_database import UnusableDatabase, given_database
from tests.support.sql_servers import SqlServer, data_folder

__all__ = [
    "METADATA",
    "TABLES",
    "AsyncSuiteDatabase",
    "Place",
    "SuiteDatabase",
    "given_tables",
    "mariadb_tables",
    "postgresql_tables",
    "sqlite_tables",
    "tables",
]

METADATA: Final = MetaData()
TABLES: Final = AuthTables(
    METADATA,
    user_columns=[Column("name", Text), Column("town", Text)],
    sessions=True,
    user_table="lucia_test_user",
    key_table="lucia_test_key",
    session_table="lucia_test_session",
)


class Place(NamedTuple):
    """Where a test runs: a server by a driver, at an isolation level or the server's default."""

    driver: str
    level: str | None = None

    def __str__(self) -> str:
        return self.driver if self.level is None else f"{self.driver} {self.level}"


_GIVEN: Final = (Place("given"),)
"""The only place if the caller named a database. A test's name must not hold its URL."""


def pytest_configure(config: pytest.Config) -> None:
    """Check the database that the caller named."""
    try:
        given = given_database()
        if given is not None:
            given.check(METADATA)
    except UnusableDatabase as error:
        raise pytest.UsageError(f"--database: {error}") from None
    if given is not None and config.getoption("numprocesses", None):
        raise pytest.UsageError("--database: tests in several processes (-n) would share tables")


@contextmanager
def tables(url: URL) -> Iterator[URL]:
    """Create the tables, yield the URL, and drop them."""
    engine = create_engine(url, poolclass=NullPool)
    METADATA.create_all(engine, checkfirst=False)
    try:
        yield url
    finally:
        METADATA.drop_all(engine)


@pytest.fixture(scope="session")
def given_tables() -> Iterator[URL]:
    """Yield the URL of the caller's database, with tables that are dropped at the end."""
    given = given_database()
    assert given is not None
    with tables(given.sync_url):
        yield given.sync_url


@pytest.fixture(scope="session")
def sqlite_tables() -> Iterator[URL]:
    """Yield the URL of a file, with tables."""
    with data_folder() as folder, tables(make_url(f"sqlite:///{folder}/suite.db")) as url:
        yield url


@pytest.fixture(scope="session")
def mariadb_tables(mariadb: SqlServer) -> Iterator[URL]:
    """Yield the URL of a database on MariaDB, with tables."""
    with mariadb.database() as name, tables(make_url(mariadb.url(name))) as url:
        yield url


@pytest.fixture(scope="session")
def postgresql_tables(postgresql: SqlServer) -> Iterator[URL]:
    """Yield the URL of a database on PostgreSQL, with tables."""
    with postgresql.database() as name, tables(make_url(postgresql.url(name))) as url:
        yield url


def _url(request: pytest.FixtureRequest, place: Place, driver: str | None = None) -> URL:
    """Return the URL of the database on the server of a place."""
    url: URL = request.getfixturevalue(f"{place.driver.partition('+')[0]}_tables")
    return url.set(drivername=driver or place.driver)


def options(url: URL, level: str | None) -> dict[str, Any]:
    """Return the documented settings of an engine."""
    found: dict[str, Any] = {} if level is None else {"isolation_level": level}
    if url.get_backend_name() == "sqlite":
        found["connect_args"] = {"timeout": 30}
    return found


def use_wal(engine: Engine) -> None:
    """Let SQLite's connections read while one of them writes."""

    @event.listens_for(engine, "connect")
    def set_mode(connection: Any, _: object) -> None:
        connection.execute("PRAGMA journal_mode=WAL")


class AsyncSuiteDatabase:
    """An engine for emptied tables. Entering the context returns it.

    Args:
        url: the database.
        level: the isolation level; None for the server's default.
        settings: further arguments of ``create_async_engine``.
    """

    DRIVERS: ClassVar = (
        _GIVEN
        if given_database()
        else (
            Place("sqlite+aiosqlite"),
            Place("mariadb+aiomysql"),
            Place("mariadb+asyncmy"),
            Place("postgresql+asyncpg"),
            Place("postgresql+psycopg"),
        )
    )
    """Each server with each driver."""

    LEVELS: ClassVar = (
        _GIVEN
        if given_database()
        else (
            Place("sqlite+aiosqlite"),
            Place("mariadb+aiomysql"),
            Place("mariadb+asyncmy", "READ COMMITTED"),
            Place("mariadb+aiomysql", "SERIALIZABLE"),
            Place("postgresql+asyncpg"),
            Place("postgresql+psycopg", "REPEATABLE READ"),
            Place("postgresql+asyncpg", "SERIALIZABLE"),
        )
    )
    """Each server at each isolation level that the adapters can be used at."""

    def __init__(self, url: URL, level: str | None = None, **settings: Any) -> None:
        self.engine = create_async_engine(url, **options(url, level), **settings)
        if url.get_backend_name() == "sqlite":
            use_wal(self.engine.sync_engine)

    @classmethod
    def at(cls, request: pytest.FixtureRequest, place: Place, **settings: Any) -> Self:
        """Return the database of a place."""
        return cls(cls.url_of(request, place), place.level, **settings)

    @staticmethod
    def url_of(request: pytest.FixtureRequest, place: Place) -> URL:
        """Return the URL of a place."""
        given = given_database()
        return _url(request, place, given.async_url.drivername if given else None)

    async def __aenter__(self) -> AsyncEngine:
        async with self.engine.begin() as connection:
            for table in reversed(METADATA.sorted_tables):
                await connection.execute(table.delete())
        return self.engine

    async def __aexit__(self, *_: object) -> None:
        await self.engine.dispose()


class SuiteDatabase:
    """The sync counterpart of :class:`AsyncSuiteDatabase`."""

    DRIVERS: ClassVar = (
        _GIVEN
        if given_database()
        else (
            Place("sqlite+pysqlite"),
            Place("mariadb+pymysql"),
            Place("postgresql+psycopg"),
        )
    )

    LEVELS: ClassVar = (
        _GIVEN
        if given_database()
        else (
            *DRIVERS,
            Place("mariadb+pymysql", "READ COMMITTED"),
            Place("mariadb+pymysql", "SERIALIZABLE"),
            Place("postgresql+psycopg", "REPEATABLE READ"),
            Place("postgresql+psycopg", "SERIALIZABLE"),
        )
    )

    def __init__(self, url: URL, level: str | None = None, **settings: Any) -> None:
        self.engine = create_engine(url, **options(url, level), **settings)
        if url.get_backend_name() == "sqlite":
            use_wal(self.engine)

    @classmethod
    def at(cls, request: pytest.FixtureRequest, place: Place, **settings: Any) -> Self:
        return cls(cls.url_of(request, place), place.level, **settings)

    @staticmethod
    def url_of(request: pytest.FixtureRequest, place: Place) -> URL:
        given = given_database()
        return _url(request, place, given.sync_url.drivername if given else None)

    @classmethod
    def beside(cls, request: pytest.FixtureRequest, place: Place) -> Self:
        """Return the database of a place, whatever the flavour of its driver is."""
        return cls(request.getfixturevalue(f"{place.driver.partition('+')[0]}_tables"))

    def __enter__(self) -> Engine:
        with self.engine.begin() as connection:
            for table in reversed(METADATA.sorted_tables):
                connection.execute(table.delete())
        return self.engine

    def __exit__(self, *_: object) -> None:
        self.engine.dispose()
