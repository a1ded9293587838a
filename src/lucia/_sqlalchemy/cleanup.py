"""Delete rows that have expired, in batches that are found by an index."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Table, and_, delete, not_, select, true

from lucia._rules.sessions import Clock, milliseconds
from lucia._sqlalchemy.comparison import is_one_of
from lucia._sqlalchemy.statements import Steps, blocks
from lucia._sqlalchemy.tables import AuthTables


class DeletedRows(NamedTuple):
    """How many expired rows were deleted.

    Args:
        sessions: sessions that had expired, and used ones.
        keys: single-use keys.
        throttled: counts of failed logins, by key or address.
    """

    sessions: int = 0
    keys: int = 0
    throttled: int = 0


class CleanupOptions:
    """The options of a clean-up.

    Args:
        clock: returns the time in milliseconds since the epoch.
        expired_for: how long ago a row must have expired.
        batch: how many rows are deleted at once.

    Raises:
        TypeError, ValueError: see ``delete_expired`` of the adapters.
    """

    def __init__(self, clock: Clock, expired_for: object, batch: object) -> None:
        if not isinstance(batch, int) or isinstance(batch, bool):
            raise TypeError(f"batch must be an int, not {type(batch).__name__}")
        if batch < 1:
            raise ValueError(f"batch must be at least 1, got {batch}")
        self.batch = batch
        self.before = clock() - milliseconds("expired_for", expired_for)


class ExpiringRows(NamedTuple):
    """A table whose rows expire, its primary key, the time, and which rows are meant."""

    table: Table
    id: ColumnElement[Any]
    expires: ColumnElement[Any]
    which: ColumnElement[bool]


def expiring_tables(tables: AuthTables) -> Mapping[str, ExpiringRows]:
    """Return the tables whose rows expire, by the members of :class:`DeletedRows`."""
    keys, sessions, throttle = tables.keys, tables.sessions, tables.throttle
    kinds = {"keys": ExpiringRows(keys.table, keys.c.id, keys.c.expires, not_(keys.c.primary_key))}
    if sessions is not None:
        kinds["sessions"] = ExpiringRows(
            sessions.table, sessions.c.id, sessions.c.idle_expires, true()
        )
    if throttle is not None:
        kinds["throttled"] = ExpiringRows(throttle, throttle.c.name, throttle.c.expires, true())
    return kinds


def find_expired(rows: ExpiringRows, expired: CleanupOptions) -> Steps[Sequence[str]]:
    """Return the ids of a batch of expired rows, those that expired first."""
    found = yield (
        select(rows.id)
        .where(rows.expires < expired.before, rows.which)
        .order_by(rows.expires)
        .limit(expired.batch)
    )
    return [row[0] for row in found.rows]


def delete_rows(rows: ExpiringRows, ids: Sequence[str], expired: CleanupOptions) -> Steps[int]:
    """Delete these rows if they still are expired; return how many were."""
    count = 0
    for block in blocks(ids):
        still = and_(is_one_of(rows.id, block), rows.expires < expired.before, rows.which)
        count += (yield delete(rows.table).where(still)).changed
    return count
