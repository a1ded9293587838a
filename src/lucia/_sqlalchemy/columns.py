"""Tables whose columns go by the library's names, whatever they are called in the database."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Generic, NamedTuple, TypeAlias, TypeVar, cast

from sqlalchemy import (
    BigInteger,
    BindParameter,
    Column,
    ColumnElement,
    Label,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    UniqueConstraint,
    inspect,
    literal,
)
from sqlalchemy.orm import Mapper

from lucia._sqlalchemy.user_ids import UserIdText, column_as_text, unwrapped

__all__ = [
    "KeyColumns",
    "KeyTable",
    "NamedTable",
    "SessionColumns",
    "SessionTable",
    "check_metadata",
    "columns_of",
    "fills_itself",
    "named_table",
]


class KeyColumns(NamedTuple):
    """The columns of a key, as expressions."""

    id: ColumnElement[Any]
    user_id: ColumnElement[Any]
    hashed_password: ColumnElement[Any]
    primary_key: ColumnElement[Any]
    expires: ColumnElement[Any]


class SessionColumns(NamedTuple):
    """The columns of a session, as expressions."""

    id: ColumnElement[Any]
    user_id: ColumnElement[Any]
    active_expires: ColumnElement[Any]
    idle_expires: ColumnElement[Any]
    attributes: ColumnElement[Any]
    successor: ColumnElement[Any]


ColumnsT = TypeVar("ColumnsT", KeyColumns, SessionColumns)

_NULLABLE: Final = frozenset({"hashed_password", "expires", "successor"})
_TIMES: Final = frozenset({"expires", "active_expires", "idle_expires"})


@dataclass(frozen=True)
class NamedTable(Generic[ColumnsT]):
    """A table, ours or the application's.

    Attributes:
        table: for INSERT, UPDATE and DELETE.
        columns: its columns by our names, for the values of an INSERT or UPDATE.
        c: the same as expressions, for everything else; the user's id takes and returns text.
    """

    table: Table
    columns: Mapping[str, Column[Any]]
    c: ColumnsT

    def selected(self) -> list[Label[Any]]:
        """Return the columns to select, each under our name."""
        return [column.label(name) for name, column in zip(self.c._fields, self.c, strict=True)]

    def bound(self, values: Mapping[str, Any]) -> dict[Column[Any], BindParameter[Any]]:
        """Return the values of a new row, which have our names, by their columns."""
        return {
            self.columns[name]: literal(value, getattr(self.c, name).type)
            for name, value in values.items()
        }


def named_table(
    owner: Table | type[Any],
    kind: type[ColumnsT],
    role: str,
    metadata: MetaData,
    user_ids: UserIdText,
) -> NamedTable[ColumnsT]:
    """Return a table of which each column that the library needs is known.

    Args:
        owner: a ``Table``, or a mapped class, whose attributes are called like the columns.
        kind: the columns to look for.
        role: which argument of ``AuthTables`` this is, for errors.
        metadata: the application's.
        user_ids: the type of the user's id.

    Raises:
        TypeError: it is neither.
        ValueError: it can't be used, and why.
    """
    table, found = columns_of(owner, role)
    check_metadata(table, role, metadata)
    if problem := next(_problems(table, found, kind._fields), None):
        raise ValueError(f"{role} table {table.name!r} {problem}")
    columns = {name: found[name] for name in kind._fields}
    expressions: dict[str, ColumnElement[Any]] = {
        **columns,
        "user_id": column_as_text(columns["user_id"], user_ids),
    }
    return NamedTable(table, columns, kind(**expressions))


KeyTable: TypeAlias = NamedTable[KeyColumns]
SessionTable: TypeAlias = NamedTable[SessionColumns]


def columns_of(owner: Table | type[Any], role: str) -> tuple[Table, dict[str, Column[Any]]]:
    """Return a table and its columns, by the attributes of the mapped class or by their keys.

    Raises:
        TypeError: it is neither a mapped class nor a ``Table``.
        ValueError: the class spans several tables.
    """
    if isinstance(owner, Table):
        return owner, dict(owner.columns.items())
    # This does not configure the mappers: other classes that they refer to may not exist yet.
    mapper: Mapper[Any] | None = inspect(cast(object, owner), raiseerr=False)
    if not isinstance(mapper, Mapper):
        raise TypeError(f"{role} must be a mapped class or a Table, not {owner!r}")
    if len(mapper.tables) != 1:
        raise ValueError(
            f"{role} class {mapper.class_.__name__!r} spans several tables: give the Table that "
            "holds the ids"
        )
    table = cast(Table, mapper.tables[0])
    return table, {
        name: column
        for name, column in mapper.columns.items()
        if table.columns.contains_column(column)
    }


def check_metadata(table: Table, role: str, metadata: MetaData) -> None:
    """Raise `ValueError` unless the table belongs to the metadata."""
    if table.metadata is not metadata:
        raise ValueError(
            f"{role} table {table.name!r} belongs to another MetaData than the one given"
        )


def _problems(
    table: Table, found: Mapping[str, Column[Any]], needed: tuple[str, ...]
) -> Iterator[str]:
    """Yield why a table of the application's can't hold our rows."""
    if missing := [name for name in needed if name not in found]:
        yield f"has no {' and no '.join(missing)}: it needs {', '.join(needed)}"
    if not _is_unique(table, found["id"]):
        yield "needs an id that is its primary key or unique: that decides whether an id is taken"
    for name in needed:
        column = found[name]
        if name in _NULLABLE and not column.nullable:
            yield f"needs a {name} that may be NULL"
        if name in _TIMES and not isinstance(unwrapped(column.type), BigInteger):
            yield f"needs a BigInteger as {name}: milliseconds since 1970 don't fit into less"
    for name, column in found.items():
        if name not in needed and not (column.nullable or fills_itself(column)):
            yield f"has a column {name} that is NOT NULL and has no default: nothing would fill it"


def _is_unique(table: Table, column: Column[Any]) -> bool:
    constraints = [
        list(constraint.columns)
        for constraint in table.constraints
        if isinstance(constraint, PrimaryKeyConstraint | UniqueConstraint)
    ]
    indexes = [list(index.columns) for index in table.indexes if index.unique]
    return any(len(columns) == 1 and columns[0] is column for columns in (*constraints, *indexes))


def fills_itself(column: Column[Any]) -> bool:
    """Return whether the database or a default gives a new row its value."""
    return (
        column.default is not None
        or column.server_default is not None
        or column.table.autoincrement_column is column
    )
