"""A SQL store as the source or the destination of a copy.

The trace of a written session is its own row: it is stored with a successor that no session has, as
a used session that leads nowhere. So it can't be used, but a sign-out everywhere deletes it. Once
it is in the state file, the successor is removed, and the row is a session.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final, TypeVar

from sqlalchemy import (
    ColumnElement,
    Executable,
    Row,
    Select,
    delete,
    func,
    select,
    true,
    update,
)
from sqlalchemy.exc import DataError, IntegrityError

from lucia._copy.stores import PAGE_SIZE, Inserted, Page, Skipped, UsedSession, Written
from lucia._rules.sessions import MARKER_MS, Clock, system_clock
from lucia._sqlalchemy import statements as steps
from lucia._sqlalchemy.at_rest import sealed_in, used_attributes
from lucia._sqlalchemy.comparison import equals, is_one_of
from lucia._sqlalchemy.rows import session_rows
from lucia._sqlalchemy.sources import Engine
from lucia._sqlalchemy.statements import Steps
from lucia._sqlalchemy.tables import AuthTables, check_sessions
from lucia._sync.stores.sqlalchemy import SQLAlchemyAdapter
from lucia.models import SessionRow

T = TypeVar("T")

STAGED: Final = "lucia copy"
"""The successor of a row that is not confirmed. No session has this id: it has a space."""


class SqlStore(SQLAlchemyAdapter):
    """A store in a database.

    Args:
        engine: of the database.
        tables: its tables.
        clock: returns the time in milliseconds since the epoch.
    """

    def __init__(self, engine: Engine, tables: AuthTables, *, clock: Clock = system_clock) -> None:
        super().__init__(engine, tables, clock=clock)
        self._sessions = check_sessions(tables)

    # As the source.

    def total(self) -> int | None:
        """Return the number of rows."""
        return self._read(self._count_rows)

    def _count_rows(self) -> Steps[int]:
        rows = (yield select(func.count()).select_from(self._sessions.table)).rows
        return int(rows[0][0])

    def pages(self, *, only_used: bool) -> Iterator[Page]:
        """Walk over the rows in the order of their ids."""
        which = self._sessions.c.successor.is_not(None) if only_used else true()
        for rows in self._pages_of(which):
            yield self._page(rows)

    def _pages_of(self, which: ColumnElement[bool]) -> Iterator[Sequence[Row[Any]]]:
        column = self._sessions.c.id
        after: ColumnElement[bool] = true()
        while True:
            statement = select(*self._sessions.selected()).where(which, after)
            statement = statement.order_by(column).limit(PAGE_SIZE)
            rows = self._read(partial(_rows, statement))
            if rows:
                yield rows
            if len(rows) < PAGE_SIZE:
                return
            after = column > rows[-1].id

    def _page(self, rows: Sequence[Row[Any]]) -> Page:
        page, now = Page(len(rows)), self._clock()
        for row in rows:
            if row.successor is None:
                found = session_rows([row])
                if not found:
                    page.skipped.append(Skipped.UNDECODABLE)
                elif found[0].idle_expires <= now:
                    page.skipped.append(Skipped.EXPIRED)
                else:
                    page.sessions += found
            elif row.successor != STAGED and row.idle_expires > now:
                self._add_used(row, page, now)
        return page

    def _add_used(self, row: Row[Any], page: Page, now: int) -> None:
        """Add a used session, and the live one that it leads to; none if its grace is over."""
        end = self._read(lambda: self._end_of_chain(row, now))
        if end is not None:
            page.sessions.append(end)
            renewed = row.idle_expires - MARKER_MS
            grace = min(max(row.active_expires - renewed, 0), MARKER_MS)
            left = min(row.idle_expires - now, MARKER_MS)
            page.used.append(
                UsedSession(row.id, row.successor, grace, sealed_in(row), left, end.id, end.user_id)
            )

    def _end_of_chain(self, row: Row[Any], now: int) -> Steps[SessionRow | None]:
        """Follow stored ids: what is sealed can be opened only by those who have the used id."""
        for _ in range(steps.LONGEST_CHAIN):
            if row.successor is None or row.active_expires <= now:
                break
            statement = select(*self._sessions.selected()).where(
                equals(self._sessions.c.id, row.successor)
            )
            rows = (yield statement).rows
            if not rows:
                return None
            row = rows[0]
        found = session_rows([row]) if row.successor is None else []
        return found[0] if found and found[0].idle_expires >= now else None

    def sessions_of(self, user_id: str) -> list[SessionRow]:
        """Return a user's live sessions."""
        now = self._clock()
        return [row for row in self.get_sessions_by_user_id(user_id) if row.idle_expires > now]

    # As the destination.

    def is_empty(self) -> bool:
        """Return whether there is no live session."""
        live = (self._sessions.c.successor.is_(None), self._sessions.c.idle_expires > self._clock())
        return not self._read(
            lambda: _rows(select(*self._sessions.selected()).where(*live).limit(1))
        )

    def fingerprint(self, row: SessionRow) -> str:
        """Return the SHA-256 of the row, whatever the order in which a database keeps JSON."""
        values = [row.id, row.user_id, row.active_expires, row.idle_expires, dict(row.attributes)]
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()

    def insert(self, rows: Sequence[SessionRow]) -> list[Inserted | Skipped]:
        """Store rows that are no sessions before they are confirmed."""
        return self._insert_or_split(rows, self._write)

    def preview(self, rows: Sequence[SessionRow]) -> list[Inserted | Skipped]:
        """Insert rows, and roll that back."""
        return self._insert_or_split(rows, self._undo)

    def _insert_or_split(
        self,
        rows: Sequence[SessionRow],
        run: Callable[[Callable[[], Steps[list[Inserted | Skipped]]]], list[Inserted | Skipped]],
    ) -> list[Inserted | Skipped]:
        try:
            return run(lambda: self._insert(rows))
        except (DataError, IntegrityError):
            if len(rows) == 1:
                return [Skipped.REFUSED]
        # One of them is refused, and took the others with it.
        return [result for row in rows for result in self._insert_or_split([row], run)]

    def _undo(
        self, operation: Callable[[], Steps[list[Inserted | Skipped]]]
    ) -> list[Inserted | Skipped]:
        """Run an operation in a transaction, and roll that back."""
        results: list[Inserted | Skipped] = []

        def undone() -> Steps[None]:
            results[:] = yield from operation()
            raise _Undone

        with suppress(_Undone):
            self._write(undone)
        return results

    def _insert(self, rows: Sequence[SessionRow]) -> Steps[list[Inserted | Skipped]]:
        yield steps.change_nothing(self._sessions.table)
        ids = [row.id for row in rows]
        found = {
            row.id: row
            for row in (
                yield select(*self._sessions.selected()).where(is_one_of(self._sessions.c.id, ids))
            ).rows
        }
        results: list[Inserted | Skipped] = []
        for row in rows:
            if row.id in found:
                results.append(self._compare(row, found[row.id]))
            elif (yield steps.insert_session(self._tables, row, STAGED)).changed:
                results.append(Inserted.WRITTEN)
            else:
                results.append(Skipped.USER_MISSING)
        return results

    def _compare(self, row: SessionRow, found: Row[Any]) -> Inserted | Skipped:
        """Return how a session compares with the row that has its id."""
        if found.successor == STAGED:
            return Inserted.WRITTEN
        is_same = found.successor is None and session_rows([found]) == [row]
        return Inserted.SAME if is_same else Skipped.TAKEN

    def confirm(self, session_ids: Sequence[str]) -> None:
        """Make sessions of rows."""
        values = self._sessions.bound({"successor": None})
        statement = update(self._sessions.table).where(*self._staged(session_ids)).values(values)
        self._write(lambda: _execute(statement))

    def unconfirmed(self) -> Iterator[Mapping[str, Written | None]]:
        """Return the rows that are no sessions yet."""
        for rows in self._pages_of(self._sessions.c.successor == STAGED):
            # Rows that are no valid sessions are logged and left out, and stay what they are.
            yield {row.id: Written(row, self.fingerprint(row)) for row in session_rows(rows)}

    def discard(self, session_ids: Sequence[str]) -> None:
        """Delete rows that are no sessions yet."""
        statement = delete(self._sessions.table).where(*self._staged(session_ids))
        self._write(lambda: _execute(statement))

    def _staged(self, session_ids: Sequence[str]) -> Sequence[ColumnElement[bool]]:
        return (is_one_of(self._sessions.c.id, session_ids), self._sessions.c.successor == STAGED)

    def update(self, row: SessionRow, fingerprint: str) -> bool:
        """Replace the values of a row that is as it was copied."""
        return self._write(lambda: self._update(row, fingerprint))

    def _update(self, row: SessionRow, fingerprint: str) -> Steps[bool]:
        current = yield from self._locked(row.id)
        if current is None or self._print_of(current) not in (fingerprint, self.fingerprint(row)):
            return False
        values = {
            "active_expires": row.active_expires,
            "idle_expires": row.idle_expires,
            "attributes": dict(row.attributes),
        }
        yield self._change(row.id, values)
        return True

    def replace(self, used: UsedSession, fingerprint: str | None) -> bool:
        """Make a row a used one, or store a used one where none is."""
        return self._write(lambda: self._replace(used, fingerprint))

    def _replace(self, used: UsedSession, fingerprint: str | None) -> Steps[bool]:
        current = yield from self._locked(used.id)
        ends = self._clock() + used.left
        end_of_grace = ends - MARKER_MS + used.grace if used.grace else 0
        attributes = used_attributes(used.sealed)
        if current is not None:
            is_staged = current.successor == STAGED
            if not is_staged and (fingerprint is None or self._print_of(current) != fingerprint):
                return False
            values = {
                "successor": used.successor,
                "active_expires": end_of_grace,
                "idle_expires": ends,
                "attributes": attributes,
            }
            yield self._change(used.id, values)
            return True
        if fingerprint is not None:
            return False
        row = SessionRow(
            id=used.id,
            user_id=used.user_id,
            active_expires=end_of_grace,
            idle_expires=ends,
            attributes=attributes,
        )
        return bool((yield steps.insert_session(self._tables, row, used.successor)).changed)

    def _change(self, session_id: str, values: Mapping[str, Any]) -> Executable:
        return (
            update(self._sessions.table)
            .where(equals(self._sessions.c.id, session_id))
            .values(self._sessions.bound(values))
        )

    def remove(self, row: SessionRow, fingerprint: str) -> bool:
        """Delete a row that is as it was copied."""
        return self._write(lambda: self._remove(row.id, fingerprint))

    def _remove(self, session_id: str, fingerprint: str) -> Steps[bool]:
        current = yield from self._locked(session_id)
        if current is None or self._print_of(current) != fingerprint:
            return False
        yield delete(self._sessions.table).where(equals(self._sessions.c.id, session_id))
        return True

    def revoke(self, session_ids: Sequence[str]) -> None:
        """Revoke sessions, and what they were renewed to."""
        self.delete_session(*session_ids)

    def _locked(self, session_id: str) -> Steps[Row[Any] | None]:
        """Lock the row with this id until the transaction ends, and return it."""
        yield steps.change_nothing(self._sessions.table)
        statement = select(*self._sessions.selected()).where(
            equals(self._sessions.c.id, session_id)
        )
        rows = (yield statement.with_for_update()).rows
        return rows[0] if rows else None

    def _print_of(self, row: Row[Any]) -> str | None:
        """Return the fingerprint of a row that is a session; None if it is none."""
        found = session_rows([row]) if row.successor is None else []
        return self.fingerprint(found[0]) if found else None


class _Undone(Exception):
    """Rolls a transaction back."""


def _rows(statement: Select[Any]) -> Steps[Sequence[Row[Any]]]:
    return (yield statement).rows


def _execute(statement: Any) -> Steps[None]:
    yield statement
