"""Comparisons with texts that are exact by any collation of a database."""

from collections.abc import Sequence
from typing import Any, Self, cast

from sqlalchemy import (
    BinaryExpression,
    Boolean,
    ColumnElement,
    LargeBinary,
    String,
    bindparam,
    literal,
)
from sqlalchemy import cast as sql_cast
from sqlalchemy.dialects import mysql
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

from lucia._sqlalchemy.user_ids import unwrapped

__all__ = ["equals", "is_one_of"]


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
