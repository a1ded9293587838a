"""Databases of the commands for operators, by SQLAlchemy: how they are opened and read."""

import re
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple
from uuid import RFC_4122, UUID

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
    from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError
    from sqlalchemy.types import TypeEngine
except ImportError as error:
    raise ImportError(
        'a store in a database needs SQLAlchemy 2: pip install "lucia-auth[sqlalchemy]"'
    ) from error

from lucia._redis.statistics import exactly
from lucia._rules.sessions import system_clock
from lucia._sqlalchemy.tables import AuthTables, check_sessions
from lucia._sync.stores.sqlalchemy import SQLAlchemyAdapter
from lucia.cli.logins import Logins, Statistics
from lucia.cli.shared import CommandError, ProgressBar, UserIdKind, describe

__all__ = ["StoredTables", "open_database", "open_engine"]

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

_UUID_TEXT: Final = re.compile(r"[0-9a-f]{32}")

_UUIDS_AS_TEXT: Final[TypeEngine[Any]] = Uuid(native_uuid=False)

_SAMPLED_IDS: Final = 1_000
"""How many users' ids are read to see whether they are UUIDs."""


class _UserColumn(NamedTuple):
    """Where the users' ids are."""

    table: str
    column: str
    schema: str | None


class StoredTables:
    """The tables of sessions and of users, as the database describes them.

    The foreign key of the sessions says where the users are, and the type of the column ``user_id``
    how their ids are read. Nothing else of the user table is used.

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
        self.user: Final = _user_column(inspector, session_table, user_table)
        """Where the users' ids are; None if nothing says so."""
        expected = check_sessions(self.with_user_id(String())).columns
        missing = [name for name in expected if name not in columns]
        if missing:
            raise CommandError(
                f"the table {session_table!r} has no column {', '.join(missing)}, so it is not the "
                "sessions' table of this library: name that with --session-table"
            )
        self.user_id: Final = columns["user_id"]
        """The type of the column of user ids."""

    def with_user_id(self, user_id: TypeEngine[Any]) -> AuthTables:
        """Return the tables, with user ids of this type."""
        metadata = MetaData()
        # Where nothing refers to users, any name will do: their table is not used.
        name, column, schema = self.user or ("auth_user", "id", None)
        users = Table(name, metadata, Column(column, user_id, primary_key=True), schema=schema)
        return AuthTables(metadata, user=users, sessions=True, session_table=self._session_table)

    def with_users(self, kind: UserIdKind | None) -> AuthTables:
        """Return the tables, to read and write the sessions of all users.

        Args:
            kind: what the users' ids are; None to decide by the column's type, and by the ids if
                that fits text as well as UUIDs.

        Raises:
            CommandError: it is unknown where the users are, or the column holds other ids.
        """
        if self.user is None:
            raise CommandError(
                f"the table {self._session_table!r} has no foreign key to the users: name their "
                "table with --user-table"
            )
        stored = _checked_id_type(self.user_id)
        fits = isinstance(stored, String) and stored.length == _UUID_DIGITS
        if kind is None and fits and isinstance(stored, CHAR):
            kind = UserIdKind.UUID if self._has_uuids(self.user) else UserIdKind.TEXT
        if kind is UserIdKind.UUID and fits:
            return self.with_user_id(_UUIDS_AS_TEXT)
        found = (
            UserIdKind.INT
            if isinstance(stored, Integer)
            else UserIdKind.TEXT
            if isinstance(stored, String)
            else UserIdKind.UUID
        )
        if kind not in (None, found):
            raise CommandError(
                f"--user-id says {kind}, but in the table {self._session_table!r} the users' ids "
                f"are of the type {stored}"
            )
        return self.with_user_id(stored)

    def _has_uuids(self, user: _UserColumn) -> bool:
        """Return whether all ids that are looked at are UUIDs, without hyphens."""
        ids = Table(user.table, MetaData(), Column(user.column, String), schema=user.schema)
        with self._engine.connect() as connection:
            return _are_uuids(connection.scalars(select(*ids.c).limit(_SAMPLED_IDS)))


class DatabaseStore:
    """Sessions in a database, in the tables of :class:`~lucia.adapters.sqlalchemy.AuthTables`.

    Args:
        engine: connects to the database.
        tables: its tables.
    """

    def __init__(self, engine: Engine, tables: StoredTables) -> None:
        self._engine = engine
        self._tables = tables

    def logins_of(self, user_id: str) -> Logins:
        tables = self._tables.with_user_id(_id_type(self._tables.user_id, user_id))
        adapter = SQLAlchemyAdapter(self._engine, tables)
        return Logins(user_id, adapter, None if self._tables.user is None else adapter)

    def statistics(self, sample: int | None, show: ProgressBar) -> Statistics:
        if sample is not None:
            raise CommandError("--sample is for Redis: a database counts by one statement")
        show(0, None, "sessions")
        sessions = check_sessions(self._tables.with_user_id(String()))
        live = sessions.c.successor.is_(None) & (sessions.c.idle_expires >= system_clock())
        statement = select(func.count(), func.count(distinct(sessions.c.user_id))).where(live)
        with self._engine.connect() as connection:
            count, users = connection.execute(statement).one()
        return Statistics(exactly(count), exactly(users), count, exact=True)

    def hint(self) -> str:
        return ""


def _id_type(stored: TypeEngine[Any], user_id: str) -> TypeEngine[Any]:
    """Return the type with which to compare a column of user ids with this id."""
    # A text that is too long for the column, and has hyphens, can only stand for a UUID there.
    if isinstance(stored, CHAR) and stored.length == _UUID_DIGITS and "-" in user_id:
        return _UUIDS_AS_TEXT
    return _checked_id_type(stored)


def _checked_id_type(stored: TypeEngine[Any]) -> TypeEngine[Any]:
    """Return the type of a column of user ids.

    Raises:
        CommandError: the column holds something else than text, integers or UUIDs.
    """
    if not isinstance(stored, String | Integer | Uuid):
        raise CommandError(
            f"the users' ids are of the type {stored}: expected text, integers or UUIDs"
        )
    return stored


def _are_uuids(texts: Iterable[str]) -> bool:
    """Return whether these are UUIDs without hyphens. Random hex digits are one in four times."""
    return all(_UUID_TEXT.fullmatch(text) and UUID(text).variant == RFC_4122 for text in texts)


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
) -> _UserColumn | None:
    """Return where the users' ids are; None if nothing says so."""
    if user_table is not None:
        _columns(inspector, user_table)
        key_columns = inspector.get_pk_constraint(user_table)["constrained_columns"]
        if len(key_columns) != 1:
            raise CommandError(
                f"the primary key of {user_table!r} is not one column, so these are not the users"
            )
        return _UserColumn(user_table, key_columns[0], None)
    keys = [
        _UserColumn(key["referred_table"], key["referred_columns"][0], key["referred_schema"])
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
    with open_engine(text) as engine:
        yield DatabaseStore(engine, StoredTables(engine, session_table, user_table))


@contextmanager
def open_engine(text: str) -> Generator[Engine, None, None]:
    """Yield what connects to the database at a URL.

    Raises:
        CommandError: the URL is invalid, or its driver is missing; or the database fails in the
            block.
    """
    engine = _engine(_url(text))
    try:
        yield engine
    except SQLAlchemyError as error:
        raise CommandError(describe(error)) from None
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
