"""The results of statements, and the rows that adapters return for them."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, cast

from sqlalchemy import CursorResult, Result, Row

from lucia._logs import row_ignored
from lucia._sqlalchemy.tables import AuthTables
from lucia.models import KeyRow, SessionRow, UserRow

__all__ = ["StatementResult", "key_row", "result_of", "session_rows", "user_row"]


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
