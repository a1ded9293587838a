"""A store of the commands for operators: sessions in a database, by SQLAlchemy."""

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, cast

try:
    from sqlalchemy import (
        CHAR,
        URL,
        Column,
        Engine,
        Inspector,
        Integer,
        MetaData,
        String,
        Table,
        Uuid,
        create_engine,
        distinct,
        func,
        inspect,
        make_url,
        select,
    )
    from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, SQLAlchemyError
    from sqlalchemy.types import TypeEngine
except ImportError as error:
    raise ImportError(
        'a store in a database needs SQLAlchemy 2: pip install "lucia-auth[sqlalchemy]"'
    ) from error

from lucia._redis.statistics import exactly
from lucia._rules.sessions import system_clock
from lucia._sqlalchemy.tables import AuthTables, check_sessions
from lucia._sync.stores.sqlalchemy import SQLAlchemyAdapter
from lucia.cli.shared import CommandError, ProgressBar
from lucia.cli.stores import Logins, Statistics

__all__ = ["open_database"]

_TIMEOUTS: Final[dict[str, tuple[str, int]]] = {
    "psycopg": ("connect_timeout", 10),
    "psycopg2": ("connect_timeout", 10),
    "pymysql": ("connect_timeout", 10),
    "mysqldb": ("connect_timeout", 10),
    "pysqlite": ("timeout", 30),
}
"""By driver: its argument for a timeout, and the seconds; for SQLite, of waiting for a writer."""

_UUID_DIGITS: Final = 32
"""The length of the CHAR column in which SQLAlchemy keeps a UUID where there is no type for it."""


class DatabaseStore:
    """Sessions in a database, in the tables of :class:`~lucia.adapters.sqlalchemy.AuthTables`.

    The type of the column ``user_id`` of the sessions decides how a user's id is read. Nothing else
    of the user table is used.

    Args:
        engine: connects to the database.
        session_table: the name of the table of sessions.
        user_table: the name of the table of users; None for the one that the sessions refer to.

    Raises:
        CommandError: there is no such table, or it is another one.
    """

    def __init__(self, engine: Engine, session_table: str, user_table: str | None) -> None:
        self._engine = engine
        self._session_table = session_table
        inspector = inspect(engine)
        columns = _columns(inspector, session_table)
        # Where nothing refers to users, any name will do: their table is not used.
        self._user = _user_column(inspector, session_table, user_table)
        expected = check_sessions(self._tables(String())).columns
        missing = [name for name in expected if name not in columns]
        if missing:
            raise CommandError(
                f"the table {session_table!r} has no column {', '.join(missing)}, so it is not the "
                "sessions' table of this library: name that with --session-table"
            )
        self._id_type = columns["user_id"]

    def logins_of(self, user_id: str) -> Logins:
        tables = self._tables(_id_type(self._id_type, user_id))
        adapter = SQLAlchemyAdapter(self._engine, tables)
        return Logins(user_id, adapter, None if self._user is None else adapter)

    def statistics(self, sample: int | None, show: ProgressBar) -> Statistics:
        if sample is not None:
            raise CommandError("--sample is for Redis: a database counts by one statement")
        show(0, None, "sessions")
        sessions = check_sessions(self._tables(String()))
        live = sessions.c.successor.is_(None) & (sessions.c.idle_expires >= system_clock())
        statement = select(func.count(), func.count(distinct(sessions.c.user_id))).where(live)
        with self._engine.connect() as connection:
            count, users = connection.execute(statement).one()
        return Statistics(exactly(count), exactly(users), count, exact=True)

    def hint(self) -> str:
        return ""

    def _tables(self, user_id: TypeEngine[Any]) -> AuthTables:
        metadata = MetaData()
        name, column, schema = self._user or ("auth_user", "id", None)
        users = Table(name, metadata, Column(column, user_id, primary_key=True), schema=schema)
        return AuthTables(metadata, user=users, sessions=True, session_table=self._session_table)


def _id_type(stored: TypeEngine[Any], user_id: str) -> TypeEngine[Any]:
    """Return the type with which to compare a column of user ids.

    Raises:
        CommandError: the column holds something else than text, integers or UUIDs.
    """
    if not isinstance(stored, String | Integer | Uuid):
        raise CommandError(
            f"the users' ids are of the type {stored}: expected text, integers or UUIDs"
        )
    # A text that is too long for the column, and has hyphens, can only stand for a UUID there.
    if isinstance(stored, CHAR) and stored.length == _UUID_DIGITS and "-" in user_id:
        return Uuid(native_uuid=False)
    return stored


def _columns(inspector: Inspector, table: str) -> dict[str, TypeEngine[Any]]:
    """Return the types of a table's columns by name."""
    if not inspector.has_table(table):
        raise CommandError(
            f"the database has no table {table!r}: check the database's name in the URL, or name "
            "the sessions' table with --session-table"
        )
    return {column["name"]: column["type"] for column in inspector.get_columns(table)}


def _user_column(
    inspector: Inspector, session_table: str, user_table: str | None
) -> tuple[str, str, str | None] | None:
    """Return the table, the column and the schema of the users' ids; None if none is known."""
    if user_table is not None:
        _columns(inspector, user_table)
        key_columns = inspector.get_pk_constraint(user_table)["constrained_columns"]
        if len(key_columns) != 1:
            raise CommandError(
                f"the primary key of {user_table!r} is not one column, so these are not the users"
            )
        return user_table, key_columns[0], None
    keys = [
        (key["referred_table"], key["referred_columns"][0], key["referred_schema"])
        for key in inspector.get_foreign_keys(session_table)
        if key["constrained_columns"] == ["user_id"]
    ]
    return keys[0] if keys else None


@contextmanager
def open_database(
    text: str, session_table: str, user_table: str | None
) -> Generator[DatabaseStore, None, None]:
    """Yield the store in the database at a URL.

    Raises:
        CommandError: the URL is invalid, its driver is missing, the database can't be reached,
            refuses the user or has no such tables; also if it fails in the block.
    """
    engine = _engine(_url(text))
    try:
        yield DatabaseStore(engine, session_table, user_table)
    except SQLAlchemyError as error:
        raise CommandError(_describe(error)) from None
    finally:
        engine.dispose()


def _url(text: str) -> URL:
    try:
        return make_url(text)
    except (ArgumentError, ValueError):
        # Not the error's own text, which may quote a part of the password.
        raise CommandError(
            "this is no URL of a store: expected redis://user:password@host:port/number, or that "
            "of a database, such as sqlite:///app.db or postgresql+psycopg://user:password@host/name"
        ) from None


def _engine(url: URL) -> Engine:
    try:
        dialect = url.get_dialect()
    except NoSuchModuleError:
        raise CommandError(
            f"unknown kind of store {url.drivername!r}: expected redis, rediss, unix, or a "
            "database of SQLAlchemy, such as sqlite, postgresql+psycopg or mysql+pymysql"
        ) from None
    if dialect.is_async:
        raise CommandError(
            f"{url.drivername!r} is an async driver, and this command needs a sync one, such as "
            "sqlite, postgresql+psycopg or mysql+pymysql"
        )
    file = url.database if dialect.name == "sqlite" else None
    # SQLite would create it.
    if file and file != ":memory:" and not file.startswith("file:") and not Path(file).exists():
        raise CommandError(f"there is no file {file!r}")
    name, seconds = _TIMEOUTS.get(dialect.driver, ("", 0))
    arguments = {name: seconds} if name and name not in url.query else {}
    try:
        return create_engine(url, connect_args=arguments)
    except ModuleNotFoundError as error:
        raise CommandError(
            f"{url.drivername!r} needs {error.name}: pip install it, or name another driver, such "
            "as postgresql+psycopg or mysql+pymysql"
        ) from None


def _describe(error: SQLAlchemyError) -> str:
    """Describe an error as the driver does, in one line."""
    cause = error.orig if isinstance(error, DBAPIError) else None
    shown = cast(BaseException, cause or error)
    return f"{type(shown).__name__}: {' '.join(str(shown).split())}"
