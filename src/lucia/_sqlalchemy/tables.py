"""The tables of the SQLAlchemy adapters, and the objects that are made of their rows.

Also what both flavours need besides: which errors to retry, and errors without secrets.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple, Self, cast
from uuid import UUID, uuid4

from sqlalchemy import (
    JSON,
    BigInteger,
    BinaryExpression,
    Boolean,
    Column,
    ColumnElement,
    Connection,
    CursorResult,
    Engine,
    ForeignKey,
    FromClause,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Result,
    Row,
    String,
    Table,
    Text,
    Uuid,
    bindparam,
    literal,
)
from sqlalchemy import cast as sql_cast
from sqlalchemy.dialects import mssql, mysql
from sqlalchemy.exc import DBAPIError, StatementError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession
from sqlalchemy.ext.asyncio import async_sessionmaker as AsyncSessionMaker
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import Session
from sqlalchemy.orm import sessionmaker as SessionMaker
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.sql.schema import SchemaItem

from lucia._logs import row_ignored
from lucia._rules.database_errors import hide_values, is_rollback
from lucia._rules.user_ids import UserIdType
from lucia._sqlalchemy.columns import (
    KeyColumns,
    SessionColumns,
    SessionTable,
    check_metadata,
    columns_of,
    fills_itself,
    named_table,
)
from lucia._sqlalchemy.user_ids import UserIdText, column_as_text, ids_of, unwrapped
from lucia.models import MAX_ID_LENGTH, KeyRow, SessionRow, UserRow

__all__ = [
    "AsyncConnection",
    "AsyncEngine",
    "AsyncSession",
    "AsyncSessionMaker",
    "AuthTables",
    "Connection",
    "Engine",
    "Session",
    "SessionMaker",
    "StatementResult",
    "check_assigned_ids",
    "check_sessions",
    "check_source",
    "check_throttle",
    "equals",
    "hide_parameters",
    "is_one_of",
    "key_row",
    "owns_transactions",
    "result_of",
    "session_rows",
    "user_row",
    "was_rolled_back",
]


class AuthTables:
    """The tables for users, keys and (on request) sessions, in the application's metadata.

    Each of them may be a table of the application's instead, under any name, but for the last.

    ================= ==============================================================================
    table             columns
    ================= ==============================================================================
    ``auth_user``     ``id`` and ``user_columns``
    ``auth_key``      ``id``, ``user_id`` (references the user), ``hashed_password`` (nullable),
                      ``primary_key``, ``expires`` (nullable, milliseconds since the epoch)
    ``auth_session``  ``id``, ``user_id`` (references the user), ``active_expires`` and
                      ``idle_expires`` (milliseconds since the epoch), ``attributes`` (JSON),
                      ``successor`` (nullable)
    ``auth_throttle`` ``name``, ``failures``, ``expires`` (milliseconds since the epoch): failed
                      logins by key and by address; made where there are sessions
    ================= ==============================================================================

    A row of ``auth_session`` with a ``successor`` is a used session: ``successor`` is the id that
    it was renewed to, ``active_expires`` the end of the grace (0 without one), ``idle_expires`` the
    time from which on the row may be deleted. ``attributes`` are then empty. With ``id_keys``,
    ``id`` and ``successor`` are hashes, and ``attributes`` of a used session has a member
    ``sealed``: the successor's id, encrypted for those who have the used id.

    ``name`` is a hash of what it stands for, ``failures`` has the time and a random word of each
    failure, separated by spaces.

    Once this object is made, ``metadata.create_all()`` creates the tables and Alembic finds them.
    They are in the schema of the user table.

    Args:
        metadata: the application's, such as ``Base.metadata``.
        user: the application's own user table, a mapped class or a ``Table`` of ``metadata``. Its
            primary key, one column, is the user's id. Every other column is an attribute, named as
            in the class or by its key in the table.
        user_id: what that primary key holds, if its type does not say so, or says neither ``str``,
            ``int`` nor ``UUID``: a :class:`~lucia.UserIdType`. Without ``user``, what the id of
            ``auth_user`` holds: ``str``, ``int`` (the database counts) or ``UUID`` (random).
        user_columns: the attribute columns of the ``auth_user`` that is made without ``user``.
        key, session: the application's own tables for keys and sessions, like ``user``. They have
            the columns above by attributes of these names, and ``id`` is unique.
        sessions: whether to make ``auth_session``, unless ``session`` is given; not needed if
            sessions are in Redis.
        user_table, key_table, session_table, throttle_table: the names of the tables that are made.

    Raises:
        TypeError: a table is neither a mapped class nor a ``Table``, or it is unknown how the
            user's id is written as text.
        ValueError: a table can't be used, and why: such as a user table without a primary key of
            one column, or a key table without a column for ``expires``.
    """

    def __init__(
        self,
        metadata: MetaData,
        *,
        user: Table | type[Any] | None = None,
        user_id: type[Any] | UserIdType[Any] | None = None,
        user_columns: Iterable[Column[Any]] = (),
        key: Table | type[Any] | None = None,
        session: Table | type[Any] | None = None,
        sessions: bool = False,
        user_table: str = "auth_user",
        key_table: str = "auth_key",
        session_table: str = "auth_session",
        throttle_table: str = "auth_throttle",
    ) -> None:
        columns = tuple(user_columns)
        if user is not None and columns:
            raise ValueError(
                "give either user= or user_columns=: an application's own user table has its own "
                "columns"
            )
        found = _user_columns(
            _make_user_table(metadata, user_table, columns, user_id) if user is None else user,
            metadata,
        )
        self.user: Final = found.table
        self.user_id: Final = found.id
        self.attributes: Final = found.attributes
        self.user_ids: Final = UserIdText(found.id.type, ids_of(found.id, user_id))
        self.user_id_text: Final = column_as_text(found.id, self.user_ids)
        """The user's id as an expression that takes and returns its text."""
        if key is None:
            key = _make_key_table(metadata, key_table, found.id)
        if session is None and sessions:
            session = _make_session_table(metadata, session_table, found.id)
        self.keys: Final = named_table(key, KeyColumns, "key", metadata, self.user_ids)
        self.sessions: Final = (
            None
            if session is None
            else named_table(session, SessionColumns, "session", metadata, self.user_ids)
        )
        self.key: Final = self.keys.table
        self.session: Final = None if self.sessions is None else self.sessions.table
        self.throttle: Final = (
            None
            if self.sessions is None
            else _make_throttle_table(metadata, throttle_table, found.table)
        )

    def attribute_values(self, attributes: Mapping[str, Any]) -> dict[Column[Any], Any]:
        """Return the attributes' values by their columns.

        Raises:
            ValueError: an attribute has no column, or is the user's id.
        """
        if unknown := sorted(attributes.keys() - self.attributes.keys()):
            known = ", ".join(sorted(self.attributes)) or "none"
            raise ValueError(
                f"user table {self.user.name!r} has no attribute {', '.join(unknown)}; "
                f"its attributes are: {known}"
            )
        return {self.attributes[name]: value for name, value in attributes.items()}


def check_source(adapter: object, source: object, *kinds: type[object]) -> None:
    """Raise `TypeError` unless an adapter can get its transactions from this source."""
    if not isinstance(source, kinds):
        expected = ", ".join(kind.__name__ for kind in kinds)
        raise TypeError(
            f"{type(adapter).__name__} takes one of {expected}, not "
            f"{type(source).__module__}.{type(source).__qualname__}"
        )


def check_assigned_ids(tables: AuthTables) -> Table:
    """Return the user table.

    Raises:
        ValueError: neither the database nor a default of the column assigns an id there.
    """
    if not fills_itself(tables.user_id):
        raise ValueError(
            f"user table {tables.user.name!r} assigns no ids: give its primary key a default, such "
            "as default=uuid4, or an integer type"
        )
    return tables.user


def check_sessions(tables: AuthTables) -> SessionTable:
    """Return the table of sessions.

    Raises:
        ValueError: the tables were made without it.
    """
    if tables.sessions is None:
        raise ValueError(
            "these tables hold no sessions: make them with AuthTables(..., sessions=True)"
        )
    return tables.sessions


def check_throttle(tables: AuthTables) -> Table:
    """Return the table of failed logins.

    Raises:
        ValueError: the tables were made without it.
    """
    if tables.throttle is None:
        raise ValueError(
            "these tables count no failed logins: make them with AuthTables(..., sessions=True)"
        )
    return tables.throttle


class _UserColumns(NamedTuple):
    """A user table, its id, and its other columns by the names of the attributes they hold."""

    table: Table
    id: Column[Any]
    attributes: Mapping[str, Column[Any]]


def _user_columns(user: Table | type[Any], metadata: MetaData) -> _UserColumns:
    table, columns = columns_of(user, "user")
    primary_key = list(table.primary_key.columns)
    if len(primary_key) != 1:
        raise ValueError(
            f"user table {table.name!r} needs a primary key of one column, the user's id; it has "
            f"{len(primary_key)}"
        )
    check_metadata(table, "user", metadata)
    attributes = {name: column for name, column in columns.items() if column is not primary_key[0]}
    if "id" in attributes:
        raise ValueError(
            f"user table {table.name!r} has an attribute 'id' that is not its primary key"
        )
    return _UserColumns(table, primary_key[0], attributes)


def _exact_text() -> String:
    """Return a text type whose collation distinguishes every byte and pads nothing.

    PostgreSQL, SQLite and Oracle compare like this by default. MySQL, MariaDB and SQL Server ignore
    case, accents or trailing spaces by default. (SQL Server pads in every collation.) These are
    plain types of SQLAlchemy, so that Alembic's migrations need no import of this library.
    """
    size = MAX_ID_LENGTH
    return (
        String(size)
        .with_variant(
            mysql.VARCHAR(size, charset="utf8mb4", collation="utf8mb4_nopad_bin"), "mariadb"
        )
        .with_variant(mysql.VARCHAR(size, charset="utf8mb4", collation="utf8mb4_0900_bin"), "mysql")
        .with_variant(mssql.NVARCHAR(size, collation="Latin1_General_100_BIN2"), "mssql")
    )


def _make_user_table(
    metadata: MetaData,
    name: str,
    columns: Sequence[Column[Any]],
    user_id: type[Any] | UserIdType[Any] | None,
) -> Table:
    return Table(
        name,
        metadata,
        _made_user_id(user_id),
        *columns,
        PrimaryKeyConstraint("id", name=f"pk_{name}"),
        sqlite_autoincrement=user_id is int,  # else the number of a removed user is used again
    )


def _made_user_id(held: object) -> Column[Any]:
    if held in (None, str):
        return Column("id", _exact_text())
    if held is int:
        # SQLite counts in a column of the type INTEGER alone, which has 64 bits there.
        return Column("id", BigInteger().with_variant(Integer(), "sqlite"), autoincrement=True)
    if held is UUID:
        return Column("id", Uuid(), default=uuid4)
    raise TypeError(
        "without a user table, user_id must be str, int or UUID: for other ids give the table that "
        "holds them, as user="
    )


def _make_key_table(metadata: MetaData, name: str, user_id: Column[Any]) -> Table:
    columns = (
        Column("hashed_password", _exact_text()),
        Column("primary_key", Boolean, nullable=False),
        Column("expires", BigInteger),
        Index(f"ix_{name}_expires", "expires"),
    )
    return Table(name, metadata, *_owned_by(user_id, name), *columns, **_options(user_id.table))


def _make_session_table(metadata: MetaData, name: str, user_id: Column[Any]) -> Table:
    return Table(
        name,
        metadata,
        *_owned_by(user_id, name),
        Column("active_expires", BigInteger, nullable=False),
        Column("idle_expires", BigInteger, nullable=False),
        Column("attributes", JSON, nullable=False),
        Column("successor", _exact_text()),
        Index(f"ix_{name}_idle_expires", "idle_expires"),
        **_options(user_id.table),
    )


def _make_throttle_table(metadata: MetaData, name: str, users: Table) -> Table:
    return Table(
        name,
        metadata,
        Column("name", _exact_text()),
        Column("failures", Text, nullable=False),
        Column("expires", BigInteger, nullable=False),
        PrimaryKeyConstraint("name", name=f"pk_{name}"),
        Index(f"ix_{name}_expires", "expires"),
        **_options(users),
    )


def _owned_by(user_id: Column[Any], table: str) -> tuple[SchemaItem, ...]:
    """Return the columns ``id`` and ``user_id``, their constraints and their index."""
    return (
        Column("id", _exact_text()),
        # Of the type of the column it references, collation included: MySQL and MariaDB refuse a
        # foreign key between different ones.
        Column(
            "user_id",
            user_id.type,
            ForeignKey(user_id, name=f"fk_{table}_user_id", ondelete="CASCADE"),
            nullable=False,
        ),
        PrimaryKeyConstraint("id", name=f"pk_{table}"),
        Index(f"ix_{table}_user_id", "user_id"),
    )


def _options(users: FromClause) -> dict[str, Any]:
    """Return the options that give a table the user table's schema, character set and collation."""
    table = cast(Table, users)
    return {"schema": table.schema} | {
        name: value
        for name, value in table.dialect_kwargs.items()
        if name.endswith(("_charset", "_collate"))
    }


def equals(column: ColumnElement[Any], text: str) -> ColumnElement[bool]:
    """Return the condition that a column holds exactly this text, by any collation."""
    return _Exactly(column == text, _utf8(column) == _utf8(literal(text, column.type)))


def is_one_of(column: ColumnElement[Any], texts: Sequence[str]) -> ColumnElement[bool]:
    """Return the condition that a column holds exactly one of these texts, by any collation."""
    if len(texts) == 1:
        return equals(column, texts[0])
    values = bindparam(None, list(texts), type_=column.type, expanding=True, unique=True)
    return _Exactly(column.in_(texts), _utf8(column).in_(values))


def _utf8(column: ColumnElement[Any]) -> ColumnElement[bytes]:
    # First to one character set: the column's may differ from the connection's, and then the same
    # text has other bytes.
    return sql_cast(sql_cast(column, mysql.CHAR(charset="utf8mb4")), LargeBinary)


class _Exactly(FunctionElement[bool]):
    """A comparison by a column's collation, which can use an index, and the same one of bytes.

    MySQL and MariaDB need both: an application's own user table, and tables that were made by an
    earlier version of this library, have the database's default collation, by which ``é`` equals
    ``E``. Other databases get the first alone.
    """

    inherit_cache = True
    type = Boolean()

    def self_group(self, against: object = None) -> Self:
        return self  # Otherwise SQLAlchemy appends "= 1" for databases without booleans.


@compiles(_Exactly)
def _compare(element: _Exactly, compiler: SQLCompiler, **options: Any) -> str:
    return compiler.process(next(iter(element.clauses)), **options)


@compiles(_Exactly, "mysql", "mariadb")
def _compare_bytes_too(element: _Exactly, compiler: SQLCompiler, **options: Any) -> str:
    comparison, _ = element.clauses
    compared = cast(BinaryExpression[Any], comparison).left.type.dialect_impl(compiler.dialect)
    if not isinstance(unwrapped(compared), String):  # numbers and UUIDs have no collation
        return _compare(element, compiler, **options)
    return f"({' AND '.join(compiler.process(clause, **options) for clause in element.clauses)})"


class StatementResult(NamedTuple):
    """The result of a statement.

    Attributes:
        rows: the rows that it returned.
        changed: how many rows it changed.
        primary_key: that of the one row that it inserted, if the database or the driver says it.
    """

    rows: Sequence[Row[Any]]
    changed: int
    primary_key: Sequence[Any] = ()


def result_of(result: Result[Any]) -> StatementResult:
    """Return what operations need of a database's result."""
    cursor = cast(CursorResult[Any], result)
    primary_key = cursor.inserted_primary_key if cursor.is_insert else None
    rows = cursor.all() if cursor.returns_rows else ()
    return StatementResult(rows, cursor.rowcount, primary_key or ())


def user_row(tables: AuthTables, row: Sequence[Any]) -> UserRow:
    """Return the user in a row of the id and the attributes."""
    return UserRow(id=row[0], attributes=dict(zip(tables.attributes, row[1:], strict=True)))


def key_row(row: Sequence[Any]) -> KeyRow:
    """Return the key in a row of ``auth_key``."""
    key_id, user_id, hashed_password, primary_key, expires = row
    return KeyRow(
        id=key_id,
        user_id=user_id,
        hashed_password=hashed_password,
        primary_key=primary_key,
        expires=expires,
    )


def session_rows(rows: Iterable[Sequence[Any]]) -> list[SessionRow]:
    """Return the sessions in rows of ``auth_session``.

    A row that is no valid session, which others have written, is logged and left out.
    """
    sessions = (_session_row(row) for row in rows)
    return [session for session in sessions if session is not None]


def _session_row(row: Sequence[Any]) -> SessionRow | None:
    session_id, user_id, active_expires, idle_expires, attributes, _ = row
    if isinstance(attributes, Mapping):
        try:
            return SessionRow(
                id=session_id,
                user_id=user_id,
                active_expires=active_expires,
                idle_expires=idle_expires,
                attributes=cast(Mapping[str, Any], attributes),
            )
        except (TypeError, ValueError):
            pass
    row_ignored()
    return None


def was_rolled_back(error: DBAPIError) -> bool:
    """Return whether the database rolled the transaction back because of another one."""
    return is_rollback(error.orig)


def owns_transactions(
    source: AsyncEngine | AsyncSessionMaker[Any] | Engine | SessionMaker[Any],
    tables: AuthTables,
) -> bool:
    """Return whether the source begins new transactions."""
    if isinstance(source, AsyncEngine | Engine):
        return True
    # A sessionmaker that is bound to one connection does not: its sessions may join a transaction
    # of the caller's, and all of that is lost when the database rolls it back.
    return isinstance(source().get_bind(clause=tables.key), Engine)


def hide_parameters(error: StatementError) -> None:
    """Remove the statement's values (ids, hashes, attributes) from this error and its causes."""
    parameters = error.params
    error.hide_parameters = True
    error.params = None
    hide_values(error, parameters)
