"""The tables of the SQLAlchemy adapters."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple, cast
from uuid import UUID, uuid4

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    FromClause,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
    Uuid,
)
from sqlalchemy.dialects import mssql, mysql
from sqlalchemy.sql.schema import SchemaItem

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
from lucia._sqlalchemy.user_ids import UserIdText, column_as_text, ids_of
from lucia.models import MAX_ID_LENGTH

__all__ = ["AuthTables", "check_assigned_ids", "check_sessions", "check_throttle"]


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
