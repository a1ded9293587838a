"""The database that the caller of ``scripts/test --database URL`` names.

The URL is in the environment variable LUCIA_TEST_DATABASE, so that no command line of a test
process shows its password.
"""

import os
import sys
from collections.abc import Mapping
from typing import Final

from sqlalchemy import URL, MetaData, create_engine, inspect, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

__all__ = ["VARIABLE", "GivenDatabase", "UnusableDatabase", "given_database"]

VARIABLE: Final = "LUCIA_TEST_DATABASE"

_EXAMPLE: Final = "postgresql+asyncpg://user:password@host/database"

_SYNC_DRIVERS: Final[Mapping[str, str]] = {
    "aiomysql": "pymysql",
    "aioodbc": "pyodbc",
    "aiosqlite": "pysqlite",
    "asyncmy": "pymysql",
    "asyncpg": "psycopg",
}
"""The sync driver to use where the URL has an async one. Drivers that are not here can do both."""

_ASYNC_DRIVERS: Final[Mapping[str, str]] = {
    "cx_oracle": "oracledb",
    "mariadbconnector": "aiomysql",
    "mysqlconnector": "aiomysql",
    "mysqldb": "aiomysql",
    "pg8000": "asyncpg",
    "psycopg2": "asyncpg",
    "pymssql": "aioodbc",
    "pymysql": "aiomysql",
    "pyodbc": "aioodbc",
    "pysqlite": "aiosqlite",
}
"""The async driver to use where the URL has a sync one."""

_PACKAGES: Final[Mapping[str, str]] = {
    "mariadbconnector": "mariadb",
    "mysqlconnector": "mysql-connector-python",
    "mysqldb": "mysqlclient",
    "psycopg": "psycopg[binary]",
    "psycopg2": "psycopg2-binary",
}
"""The packages that are not named as their drivers are."""


class UnusableDatabase(Exception):
    """The tests can't use the database of this URL; the message says why."""


class GivenDatabase:
    """A database of the caller's, with a URL for each flavour.

    Args:
        url: a URL of SQLAlchemy, with a sync or an async driver.

    Raises:
        UnusableDatabase: it is no such URL, names no database, or a driver is missing.
    """

    def __init__(self, url: str) -> None:
        try:
            parsed = make_url(url)
        except (ArgumentError, ValueError):
            raise UnusableDatabase(f"this is no URL of SQLAlchemy; one is {_EXAMPLE}") from None
        driver = _driver(parsed)
        self.sync_url = _with_driver(parsed, _SYNC_DRIVERS.get(driver, driver))
        self.async_url = _with_driver(parsed, _ASYNC_DRIVERS.get(driver, driver))
        # Oracle's may be in the query, as service_name.
        if not parsed.query and parsed.database in (None, "", ":memory:"):
            raise UnusableDatabase(f"the URL names no database; one that does is {_EXAMPLE}")

    def check(self, metadata: MetaData) -> None:
        """Raise `UnusableDatabase` if it can't be reached, or has tables of the same names."""
        engine = create_engine(self.sync_url)
        try:
            with engine.connect() as connection:
                taken = sorted(metadata.tables.keys() & set(inspect(connection).get_table_names()))
        except (SQLAlchemyError, OSError, TypeError) as error:  # the last for an unknown option
            cause = getattr(error, "orig", None) or error
            raise UnusableDatabase(f"can't use {self.sync_url}: {cause}") from None
        finally:
            engine.dispose()
        if taken:
            raise UnusableDatabase(
                f"{self.sync_url} has tables of the names that the tests use: {', '.join(taken)}. "
                "Name another database, or drop them if an earlier run was killed."
            )


def given_database() -> GivenDatabase | None:
    """Return the database of SQLAlchemy's that the caller named, or None."""
    url = os.environ.get(VARIABLE)
    return None if url is None or url.startswith("mongodb") else GivenDatabase(url)


def _driver(url: URL) -> str:
    try:
        url.get_dialect()  # loads the dialect, but not its driver
        return url.get_driver_name()
    except NoSuchModuleError:
        raise UnusableDatabase(
            f"SQLAlchemy knows no {url.drivername!r}: a URL begins with a database and a driver, "
            f"such as {_EXAMPLE}"
        ) from None


def _with_driver(url: URL, driver: str) -> URL:
    """Return the URL with another driver, which is installed."""
    changed = url.set(drivername=f"{url.get_backend_name()}+{driver}")
    try:
        changed.get_dialect().import_dbapi()
    except ModuleNotFoundError:
        raise UnusableDatabase(
            f"the driver of {changed.drivername} is missing: "
            f"{sys.executable} -m pip install '{_PACKAGES.get(driver, driver)}'"
        ) from None
    return changed
