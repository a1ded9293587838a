"""The operations of the SQLAlchemy adapters: generators that yield statements and get the results.

A generator runs within one transaction, at READ COMMITTED or stricter. Wherever two operations can
conflict, one statement decides between them, by the number of rows that it changes. An operation
that writes begins with a write: SQLite then takes its write lock at the start, where it waits for
others. A transaction that has read before would fail instead.
"""

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from typing import Any, Final, TypeVar

from sqlalchemy import (
    ColumnElement,
    Executable,
    Select,
    Table,
    and_,
    delete,
    false,
    insert,
    literal,
    not_,
    select,
    update,
)

from lucia._rules.caps import surplus_sessions
from lucia._rules.sessions import MARKER_MS
from lucia._sqlalchemy.at_rest import StoredIds, sealed_attributes, successor_of
from lucia._sqlalchemy.columns import KeyTable, SessionTable
from lucia._sqlalchemy.comparison import equals, is_one_of
from lucia._sqlalchemy.rows import StatementResult, key_row, session_rows, user_row
from lucia._sqlalchemy.tables import AuthTables, check_assigned_ids, check_sessions
from lucia.errors import DuplicateKeyId, DuplicateSessionId, InvalidUserId, LuciaError
from lucia.models import KeyRow, SessionRow, Unset, UserRow

T = TypeVar("T")

Steps = Generator[Executable, StatementResult, T]

_MAX_IDS_PER_STATEMENT: Final = 500
"""How many ids one statement names."""

LONGEST_CHAIN: Final = 100
"""How many renewals are followed from one used id."""


def before_savepoint(tables: AuthTables, dialect: str) -> Sequence[Executable]:
    """Return the statements to execute before a SAVEPOINT; they change nothing."""
    # SQLite's driver begins a transaction before a write but not before a SAVEPOINT. Releasing that
    # would then commit.
    return [change_nothing(tables.keys.table)] if dialect == "sqlite" else []


def change_nothing(table: Table) -> Executable:
    """Return a write without an effect, for SQLite, which can't lock a row.

    A write locks its database, until the transaction ends. Other databases need it nowhere.
    """
    return delete(table).where(false())


def _select_session_id(tables: AuthTables, session_id: str) -> Executable:
    """Compare by the column's own collation: an id that is equal by it is taken."""
    sessions = check_sessions(tables)
    return _locking_read(select(sessions.c.id).where(sessions.c.id == session_id))


def why_refused(
    tables: AuthTables,
    *,
    key_id: str | None = None,
    session_id: str | None = None,
    user_id: str | None = None,
) -> Steps[LuciaError | None]:
    """Find out why an insert was refused.

    Returns:
        DuplicateKeyId or DuplicateSessionId if that id is taken, InvalidUserId if the user is
        missing, else None.
    """
    # By the rows that are there, since error texts and codes differ between databases. An id is
    # also taken if the column's collation takes it for an existing one, so ids are not compared
    # byte for byte.
    taken_key = select(tables.keys.c.id).where(tables.keys.c.id == key_id)
    if key_id is not None and (yield _locking_read(taken_key)).rows:
        return DuplicateKeyId()
    if session_id is not None and (yield _select_session_id(tables, session_id)).rows:
        return DuplicateSessionId()
    if (
        user_id is not None
        and not (yield select(tables.user_id_text).where(equals(tables.user_id_text, user_id))).rows
    ):
        return InvalidUserId()
    return None


def get_user(tables: AuthTables, user_id: str) -> Steps[UserRow | None]:
    rows = (yield _select_user(tables, user_id)).rows
    return user_row(tables, rows[0]) if rows else None


def set_user(
    tables: AuthTables, user_id: str, attributes: Mapping[str, Any], key: KeyRow | None
) -> Steps[UserRow]:
    if not tables.user_ids.accepts(user_id):
        name = tables.user_ids.ids.python_type.__name__
        held = "other text" if name == "str" else f"{name}: give Auth user_id={name}"
        raise InvalidUserId(
            f"no user can have this id: the primary key of user table {tables.user.name!r} holds "
            f"{held}"
        )
    stored_id = literal(user_id, tables.user_ids)
    yield insert(tables.user).values(
        {tables.user_id: stored_id, **tables.attribute_values(attributes)}
    )
    return (yield from _add_key(tables, user_id, key))


def add_user(
    tables: AuthTables, attributes: Mapping[str, Any], make_key: Callable[[str], KeyRow] | None
) -> Steps[UserRow]:
    """Store a user whose id is made by the database, or by a default of the column."""
    values = tables.attribute_values(attributes)
    inserted = (yield insert(check_assigned_ids(tables)).values(values)).primary_key
    if not inserted or inserted[0] is None:
        raise ValueError(
            f"the database does not say which id it assigned in user table {tables.user.name!r}: "
            "give its primary key a default of Python's, such as default=uuid4"
        )
    user_id = tables.user_ids.text_of(inserted[0])
    return (yield from _add_key(tables, user_id, None if make_key is None else make_key(user_id)))


def _add_key(tables: AuthTables, user_id: str, key: KeyRow | None) -> Steps[UserRow]:
    """Store a new user's key, and return the user as stored."""
    # Read, since columns that were not given have their defaults now. There may be no such user:
    # to MySQL and MariaDB an id of 0 is a request to count.
    user = yield from get_user(tables, user_id)
    if user is None:
        raise InvalidUserId("no user can have this id: the database stored another one")
    if key is not None:
        yield insert(tables.keys.table).values(tables.keys.bound(_key_values(key)))
    return user


def delete_user(tables: AuthTables, user_id: str) -> Steps[int | None]:
    """Delete a user, their keys and their sessions.

    Returns:
        How many sessions were revoked; None without a table of sessions.
    """
    # First what refers to the user: a foreign key may forbid to delete the user before.
    yield from delete_keys_by_user_id(tables, user_id)
    count = None
    if tables.session is not None:
        count = yield from delete_sessions_by_user_id(tables, user_id)
    yield delete(tables.user).where(equals(tables.user_id_text, user_id))
    return count


def update_user_attributes(
    tables: AuthTables, user_id: str, attributes: Mapping[str, Any]
) -> Steps[UserRow | None]:
    if values := tables.attribute_values(attributes):
        yield update(tables.user).where(equals(tables.user_id_text, user_id)).values(values)
    return (yield from get_user(tables, user_id))


def get_key(tables: AuthTables, key_id: str) -> Steps[KeyRow | None]:
    rows = (yield select(*tables.keys.selected()).where(equals(tables.keys.c.id, key_id))).rows
    return key_row(rows[0]) if rows else None


def get_keys_by_user_id(tables: AuthTables, user_id: str) -> Steps[list[KeyRow]]:
    return [
        key_row(row)
        for row in (
            yield select(*tables.keys.selected()).where(equals(tables.keys.c.user_id, user_id))
        ).rows
    ]


def set_key(tables: AuthTables, key: KeyRow) -> Steps[None]:
    if not (yield _insert_for_user(tables, tables.keys, _key_values(key))).changed:
        raise InvalidUserId


def update_key_password(
    tables: AuthTables, key_id: str, hashed_password: str | None, expected: str | Unset | None
) -> Steps[KeyRow | None]:
    keys = tables.keys
    unchanged = () if isinstance(expected, Unset) else (_is_hash(keys.c.hashed_password, expected),)
    done = (
        yield update(keys.table)
        .where(equals(keys.c.id, key_id), *unchanged)
        .values(keys.bound({"hashed_password": hashed_password}))
    )
    return (yield from get_key(tables, key_id)) if done.changed else None


def delete_non_primary_key(tables: AuthTables, key_ids: Sequence[str]) -> Steps[int]:
    count = 0
    for block in blocks(key_ids):
        count += (
            yield delete(tables.keys.table).where(
                is_one_of(tables.keys.c.id, block), not_(tables.keys.c.primary_key)
            )
        ).changed
    return count


def delete_keys_by_user_id(tables: AuthTables, user_id: str) -> Steps[None]:
    yield delete(tables.keys.table).where(equals(tables.keys.c.user_id, user_id))


def get_session(tables: AuthTables, ids: StoredIds, session_id: str) -> Steps[SessionRow | None]:
    sessions = check_sessions(tables)
    found = session_rows(
        (
            yield select(*sessions.selected()).where(
                is_one_of(sessions.c.id, ids.candidates(session_id)), sessions.c.successor.is_(None)
            )
        ).rows
    )
    return ids.from_stored(found[0], session_id) if found else None


def get_sessions_by_user_id(tables: AuthTables, user_id: str) -> Steps[list[SessionRow]]:
    sessions = check_sessions(tables)
    return session_rows(
        (
            yield select(*sessions.selected()).where(
                equals(sessions.c.user_id, user_id), sessions.c.successor.is_(None)
            )
        ).rows
    )


def get_session_and_user(
    tables: AuthTables, ids: StoredIds, session_id: str
) -> Steps[tuple[SessionRow, UserRow] | None]:
    sessions = check_sessions(tables)
    width = len(sessions.c)
    both = select(*sessions.selected(), tables.user_id_text, *tables.attributes.values()).join_from(
        sessions.table, tables.user, sessions.c.user_id == tables.user_id_text
    )
    rows = (
        yield both.where(
            is_one_of(sessions.c.id, ids.candidates(session_id)), sessions.c.successor.is_(None)
        )
    ).rows
    found = [
        (ids.from_stored(session, session_id), user_row(tables, row[width:]))
        for row in rows
        for session in session_rows([row[:width]])
    ]
    return found[0] if found else None


def set_session(tables: AuthTables, session: SessionRow) -> Steps[None]:
    if not (yield insert_session(tables, session)).changed:
        raise InvalidUserId


def set_session_capped(tables: AuthTables, session: SessionRow, limit: int, now: int) -> Steps[int]:
    """Store the session of a new login, and revoke the user's oldest logins beyond the limit.

    At PostgreSQL's REPEATABLE READ and on SQL Server concurrent logins do not see each other: all
    of them may be left until the next one.

    Returns:
        How many sessions were revoked.
    """
    yield change_nothing(check_sessions(tables).table)
    # Each login locks the user's row, without writing to it, until it is committed. So a user's
    # logins run one after the other, and each sees the ones before. But at PostgreSQL's REPEATABLE
    # READ a transaction does not see what was committed since it began, and for SQL Server
    # SQLAlchemy makes no lock clause.
    yield (
        select(tables.user_id_text)
        .where(equals(tables.user_id_text, session.user_id))
        .with_for_update(key_share=True)
    )
    yield from set_session(tables, session)
    rows = yield from get_sessions_by_user_id(tables, session.user_id)
    # A session that a renewal is about to replace is still listed: its successor is revoked too.
    return (yield from delete_sessions(tables, surplus_sessions(rows, session, limit, now), now))


def renew_session(
    tables: AuthTables,
    ids: StoredIds,
    session_id: str,
    successor: SessionRow,
    grace: int,
    now: int,
) -> Steps[SessionRow | None]:
    """Replace a session by its successor, once."""
    sessions = check_sessions(tables)
    stored_successor = ids.to_stored(successor)
    used = {
        "successor": stored_successor.id,
        # Without a grace 0, not now: by a clock that is behind, that would be in the future.
        "active_expires": now + grace if grace else 0,
        "idle_expires": now + MARKER_MS,
    }
    # The UPDATE decides: of several renewals at once, one changes the row. The others wait for its
    # commit, change none, and follow the successor that is in it. Each stored id has an UPDATE of
    # its own, since the row that is changed gets the successor's id sealed for this stored id.
    for stored in ids.candidates(session_id):
        live = and_(
            equals(sessions.c.id, stored),
            equals(sessions.c.user_id, successor.user_id),
            _live(sessions, now),
        )
        attributes = sealed_attributes(ids, session_id, stored, successor.id)
        values = sessions.bound({**used, "attributes": attributes})
        if (yield update(sessions.table).where(live).values(values)).changed:
            break
    else:
        end = yield from _follow_chain(tables, ids, session_id, now, locked=True)
        return end if end is not None and end.user_id == successor.user_id else None
    is_stored = (yield insert_session(tables, stored_successor)).changed
    yield from _delete_expired_used_rows(sessions, successor.user_id, now)
    return successor if is_stored else None


def get_successor(
    tables: AuthTables, ids: StoredIds, session_id: str, now: int
) -> Steps[SessionRow | None]:
    return _follow_chain(tables, ids, session_id, now, locked=False)


def _follow_chain(
    tables: AuthTables,
    ids: StoredIds,
    session_id: str,
    now: int,
    *,
    locked: bool,
) -> Steps[SessionRow | None]:
    """Return the live session at the end of a chain of renewals that are within their graces."""
    stored = ids.candidates(session_id)
    for hop in range(LONGEST_CHAIN):
        statement = _select_session(tables, stored)
        rows = (yield _locking_read(statement) if locked else statement).rows
        if not rows or rows[0].successor is None:
            found = session_rows(rows if hop else ())
            is_live = found and found[0].idle_expires >= now
            return ids.from_stored(found[0], session_id) if is_live else None
        if rows[0].active_expires <= now:
            return None
        successor = successor_of(ids, session_id, rows[0])
        if successor is None:
            return None
        session_id, stored = successor, [rows[0].successor]
    return None


def delete_sessions(tables: AuthTables, session_ids: Sequence[str], now: int) -> Steps[int]:
    """Revoke sessions and what they were renewed to; return how many were revoked."""
    count = 0
    for block in blocks(session_ids):
        count += yield from _delete_chains(check_sessions(tables), block, now)
    return count


def _delete_chains(sessions: SessionTable, ids: Sequence[str], now: int) -> Steps[int]:
    """Delete live sessions; where a renewal was faster, the used row, then its successor."""
    count = 0
    for _ in range(LONGEST_CHAIN):
        live = and_(is_one_of(sessions.c.id, ids), sessions.c.successor.is_(None))
        count += (yield delete(sessions.table).where(live)).changed
        used = (yield _select_used(sessions, is_one_of(sessions.c.id, ids))).rows
        if not used:
            break
        yield delete(sessions.table).where(is_one_of(sessions.c.id, [row.id for row in used]))
        ids = [row.successor for row in used if row.idle_expires >= now]
    return count


def delete_sessions_by_user_id(tables: AuthTables, user_id: str) -> Steps[int]:
    """Delete a user's sessions; return how many were revoked."""
    sessions = check_sessions(tables)
    count = 0
    # Until it finds nothing: the DELETE waits for a renewal in progress, but deletes only rows that
    # were there when it began. The successor, committed meanwhile, needs another one.
    while changed := (
        yield delete(sessions.table).where(equals(sessions.c.user_id, user_id))
    ).changed:
        count += changed
    return count


def delete_other_sessions(
    tables: AuthTables,
    user_id: str,
    keep: Sequence[str],
    now: int,
) -> Steps[tuple[bool, int]]:
    """Delete a user's sessions but for one, or what that was renewed to.

    Args:
        tables: has the sessions.
        user_id: whose sessions.
        keep: the stored ids that the session to keep may have.
        now: the time in milliseconds since the epoch.

    Returns:
        Whether the session was kept, and how many sessions were revoked.
    """
    sessions = check_sessions(tables)
    end = yield from _lock_end_of_chain(sessions, user_id, keep, now)
    if end is None:
        return False, (yield from delete_sessions_by_user_id(tables, user_id))
    # Used rows stay: requests in flight follow those of the kept session, and the others lead to
    # nothing.
    others = and_(
        equals(sessions.c.user_id, user_id), sessions.c.id != end, sessions.c.successor.is_(None)
    )
    count = (yield delete(sessions.table).where(others)).changed
    # A DELETE that changes no row does not prove that it saw the successor of a renewal in
    # progress, since the used row stays. So a SELECT looks for another live session each time.
    while (yield _locking_read(select(sessions.c.id).where(others))).rows:
        count += (yield delete(sessions.table).where(others)).changed
    return True, count


def _lock_end_of_chain(
    sessions: SessionTable, user_id: str, stored: Sequence[str], now: int
) -> Steps[str | None]:
    """Lock the live session that a chain leads to, if it is this user's; return its stored id."""
    own = equals(sessions.c.user_id, user_id)
    for _ in range(LONGEST_CHAIN):
        for id_ in stored:
            # Locked by a write that changes nothing, so that no renewal replaces it before the
            # commit.
            if (
                yield update(sessions.table)
                .where(equals(sessions.c.id, id_), own, _live(sessions, now))
                .values({sessions.columns["idle_expires"]: sessions.c.idle_expires})
            ).changed:
                return id_
        which = and_(is_one_of(sessions.c.id, stored), own, sessions.c.idle_expires >= now)
        used = (yield _select_used(sessions, which)).rows
        if not used:
            return None
        stored = [used[0].successor]
    return None


def _select_used(sessions: SessionTable, which: ColumnElement[bool]) -> Select[Any]:
    """Select used rows; a successor that was committed meanwhile is found too."""
    return _locking_read(
        select(*sessions.selected()).where(which, sessions.c.successor.is_not(None))
    )


def _locking_read(statement: Select[Any]) -> Select[Any]:
    """Read the newest committed rows, not those from when the transaction began to read."""
    # At REPEATABLE READ, MySQL and MariaDB write to the newest rows, but a SELECT reads older ones
    # unless it locks them: it would not find the row that a write has just waited for.
    return statement.with_for_update()


def _is_hash(column: ColumnElement[Any], expected: str | None) -> ColumnElement[bool]:
    return column.is_(None) if expected is None else equals(column, expected)


def _live(sessions: SessionTable, now: int) -> ColumnElement[bool]:
    return and_(sessions.c.successor.is_(None), sessions.c.idle_expires >= now)


def _delete_expired_used_rows(sessions: SessionTable, user_id: str, now: int) -> Steps[None]:
    """Delete the user's used rows that nothing follows any more."""
    own = equals(sessions.c.user_id, user_id)
    expired = and_(own, sessions.c.successor.is_not(None), sessions.c.idle_expires < now)
    # Read first, without a lock: in MySQL and MariaDB a DELETE by the user's id would lock all rows
    # of the user, and any two renewals of one user would be a deadlock.
    found = (yield select(sessions.c.id).where(expired)).rows
    for block in blocks([session_id for (session_id,) in found]):
        yield delete(sessions.table).where(is_one_of(sessions.c.id, block))


def _select_user(tables: AuthTables, user_id: str) -> Select[Any]:
    return select(tables.user_id_text, *tables.attributes.values()).where(
        equals(tables.user_id_text, user_id)
    )


def _select_session(tables: AuthTables, stored: Sequence[str]) -> Select[Any]:
    """Select the row of a session, used or not, by the stored ids that it may have."""
    sessions = check_sessions(tables)
    return select(*sessions.selected()).where(is_one_of(sessions.c.id, stored))


def _key_values(key: KeyRow) -> dict[str, Any]:
    return {
        "id": key.id,
        "user_id": key.user_id,
        "hashed_password": key.hashed_password,
        "primary_key": key.primary_key,
        "expires": key.expires,
    }


def insert_session(
    tables: AuthTables, session: SessionRow, successor: str | None = None
) -> Executable:
    """Return the insert of a session, or with a successor of a used one, if its user exists."""
    values: dict[str, Any] = {
        "id": session.id,
        "user_id": session.user_id,
        "active_expires": session.active_expires,
        "idle_expires": session.idle_expires,
        "attributes": dict(session.attributes),
    }
    if successor is not None:
        values["successor"] = successor
    return _insert_for_user(tables, check_sessions(tables), values)


def _insert_for_user(
    tables: AuthTables, table: KeyTable | SessionTable, values: Mapping[str, Any]
) -> Executable:
    """Insert a row if its user exists, even if foreign keys are not enforced (SQLite's default)."""
    new = table.bound(values)
    row = select(*new.values()).where(equals(tables.user_id_text, values["user_id"]))
    # Without preserve_rowcount, SQLAlchemy keeps the row counts of UPDATE and DELETE alone.
    return (
        insert(table.table)
        .from_select(list(new), row.select_from(tables.user))
        .execution_options(preserve_rowcount=True)
    )


def blocks(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    """Return the ids, each once, in blocks that fit into one statement."""
    unique = list(dict.fromkeys(ids))
    return (
        unique[start : start + _MAX_IDS_PER_STATEMENT]
        for start in range(0, len(unique), _MAX_IDS_PER_STATEMENT)
    )
