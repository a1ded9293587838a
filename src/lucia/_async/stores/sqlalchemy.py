"""Users, keys and sessions in a database, by SQLAlchemy 2.

The operations are in :mod:`lucia._sqlalchemy.statements`; here they are run.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any, Final

from lucia._async.stores.sql_throttling import AsyncSQLAlchemyThrottleStore
from lucia._async.stores.sql_transactions import AsyncSource, AsyncTransactions
from lucia._logs import revoked
from lucia._rules.id_hashes import RawIds
from lucia._rules.sessions import Clock, system_clock
from lucia._rules.user_ids import UserIdType
from lucia._sqlalchemy import statements as steps
from lucia._sqlalchemy.at_rest import ids_to_delete, stored_ids
from lucia._sqlalchemy.cleanup import (
    CleanupOptions,
    DeletedRows,
    ExpiringRows,
    delete_rows,
    expiring_tables,
    find_expired,
)
from lucia._sqlalchemy.tables import AuthTables, check_sessions
from lucia.models import UNSET, KeyRow, SessionRow, Unset, UserRow

_ANY_USER: Final = "any user"


class AsyncSQLAlchemyUserAdapter(AsyncTransactions):
    """Users and keys in a database.

    With an engine or a sessionmaker each call is a short transaction of its own, so that no
    connection is held between calls. It is repeated, ten times at most, if the database rolls it
    back because of another one, such as by a deadlock.

    With the caller's own session or connection, also that of :meth:`in_transaction`, everything
    happens in the caller's transaction: pending objects are flushed first, nothing is committed,
    and a refused write is rolled back to a SAVEPOINT, so that the transaction stays usable. After a
    deadlock MySQL and MariaDB have rolled back all of it: call ``rollback()``, since a ``commit()``
    would succeed and store nothing from before. Objects that the session has loaded before keep
    their values: refresh them where that matters.

    For the tables see :class:`~lucia.adapters.sqlalchemy.AuthTables`. If the application has a user
    table of its own, that is used in place of ``auth_user``.

    ========================== =====================================================================
    method                     statements
    ========================== =====================================================================
    ``get_user``               ``SELECT id, … FROM auth_user WHERE id = :id``
    ``set_user``               ``INSERT INTO auth_user (id, …) VALUES (:id, …)``; with a key
                               ``INSERT INTO auth_key (…) VALUES (…)``; then see ``get_user``
    ``add_user``               the same without ``id``, which the database or a default assigns
    ``delete_user``            ``DELETE FROM auth_key WHERE user_id = :id``; with ``auth_session``
                               the same for that; ``DELETE FROM auth_user WHERE id = :id``
    ``update_user_attributes`` ``UPDATE auth_user SET … WHERE id = :id``; then see ``get_user``
    ``get_key``                ``SELECT … FROM auth_key WHERE id = :id``
    ``get_keys_by_user_id``    ``SELECT … FROM auth_key WHERE user_id = :user_id``
    ``set_key``                ``INSERT INTO auth_key (…) SELECT … FROM auth_user WHERE id =
                               :user_id``; if no row is inserted, the user is unknown
    ``update_key_password``    ``UPDATE auth_key SET hashed_password = :new WHERE id = :id`` and,
                               with ``expected``, ``AND hashed_password = :expected`` or ``IS
                               NULL``; then see ``get_key``
    ``delete_non_primary_key`` ``DELETE FROM auth_key WHERE id IN (…) AND NOT primary_key``
    ``delete_keys_by_user_id`` ``DELETE FROM auth_key WHERE user_id = :user_id``
    ``delete_expired``         for each table ``SELECT id … WHERE expires < :before ORDER BY expires
                               LIMIT :batch``, and in another transaction ``DELETE … WHERE id IN (…)
                               AND expires < :before``; again until fewer are found
    ========================== =====================================================================

    On MySQL and MariaDB each comparison with a text, such as an id or a hash, also compares the
    bytes, since a column's collation may ignore case, accents and trailing spaces.

    User ids are text here, whatever the primary key holds. Text that it can't hold is the id of no
    user: it is sent as NULL.

    When the database refuses an INSERT, one or two SELECTs find out whether an id is taken (with
    ``FOR UPDATE``), or whether the user is missing. Every other error of the database is raised
    unchanged, but without the statement's values in its ``params`` and its text. SQLAlchemy's own
    log (``echo=True``) shows them, unless the engine is made with ``hide_parameters=True``; at the
    level DEBUG it also shows the rows that were read, which no option hides. So do drivers that log
    each statement at the level DEBUG.

    SQLite lets one connection write at a time: ``connect_args={"timeout": 30}`` makes the others
    wait longer than the driver's 5 s, and ``PRAGMA journal_mode=WAL`` lets them read meanwhile. A
    database in memory has one connection, which concurrent calls must not share.

    Args:
        source: an engine, a sessionmaker, or the caller's own session or connection. It is never
            closed here.
        tables: the tables, made in the application's metadata.
        clock: returns the time in milliseconds since the epoch.

    Raises:
        TypeError: the source is none of these.
    """

    def __init__(
        self, source: AsyncSource, tables: AuthTables, *, clock: Clock = system_clock
    ) -> None:
        super().__init__(source, tables)
        self._clock = clock

    @property
    def user_id_type(self) -> UserIdType[Any]:
        """The type of the ids in the user table; new ones are the database's affair."""
        return replace(self._tables.user_ids.ids, generate=None)

    async def get_user(self, user_id: str, /) -> UserRow | None:
        return await self._read(lambda: steps.get_user(self._tables, user_id))

    async def set_user(
        self, user_id: str, attributes: Mapping[str, Any], key: KeyRow | None, /
    ) -> UserRow:
        return await self._write(
            lambda: steps.set_user(self._tables, user_id, attributes, key),
            lambda: steps.why_refused(self._tables, key_id=None if key is None else key.id),
        )

    async def add_user(
        self, attributes: Mapping[str, Any], make_key: Callable[[str], KeyRow] | None, /
    ) -> UserRow:
        return await self._write(
            lambda: steps.add_user(self._tables, attributes, make_key),
            # By the id that the key of any user would have: if the user was refused, none was made.
            lambda: steps.why_refused(
                self._tables, key_id=None if make_key is None else make_key(_ANY_USER).id
            ),
        )

    async def delete_user(self, user_id: str, /) -> None:
        count = await self._write(lambda: steps.delete_user(self._tables, user_id))
        if count is not None:
            revoked(count)

    async def update_user_attributes(
        self, user_id: str, attributes: Mapping[str, Any], /
    ) -> UserRow | None:
        return await self._write(
            lambda: steps.update_user_attributes(self._tables, user_id, attributes),
        )

    async def get_key(self, key_id: str, /) -> KeyRow | None:
        return await self._read(lambda: steps.get_key(self._tables, key_id))

    async def get_keys_by_user_id(self, user_id: str, /) -> Sequence[KeyRow]:
        return await self._read(lambda: steps.get_keys_by_user_id(self._tables, user_id))

    async def set_key(self, key: KeyRow, /) -> None:
        await self._write(
            lambda: steps.set_key(self._tables, key),
            lambda: steps.why_refused(self._tables, key_id=key.id, user_id=key.user_id),
        )

    async def update_key_password(
        self, key_id: str, hashed_password: str | None, /, *, expected: str | Unset | None = UNSET
    ) -> KeyRow | None:
        return await self._write(
            lambda: steps.update_key_password(self._tables, key_id, hashed_password, expected),
        )

    async def delete_non_primary_key(self, /, *key_ids: str) -> int:
        return await self._write(lambda: steps.delete_non_primary_key(self._tables, key_ids))

    async def delete_keys_by_user_id(self, user_id: str, /) -> None:
        await self._write(lambda: steps.delete_keys_by_user_id(self._tables, user_id))

    async def delete_expired(
        self, *, expired_for: timedelta = timedelta(days=1), batch: int = 1_000
    ) -> DeletedRows:
        """Delete single-use keys, sessions and counts of failed logins that have expired.

        It is safe while the application runs, and in several processes at once. Each batch is
        found by an index, and deleted in a transaction of its own.

        Args:
            expired_for: how long ago they must have expired, by this machine's clock. Until it is
                deleted, using an expired key raises ``ExpiredKey``, and later ``InvalidKeyId``.
            batch: how many rows a transaction deletes, at least 1.

        Returns:
            How many rows were deleted.

        Raises:
            TypeError: ``expired_for`` is not a ``timedelta``, or ``batch`` is not an ``int``.
            ValueError: one of them is negative, or ``batch`` is 0.
        """
        expired = CleanupOptions(self._clock, expired_for, batch)
        return DeletedRows(
            **{
                kind: await self._delete_expired(rows, expired)
                for kind, rows in expiring_tables(self._tables).items()
            }
        )

    async def _delete_expired(self, rows: ExpiringRows, expired: CleanupOptions) -> int:
        count = 0
        while True:
            # Found in a transaction of its own: SQLite refuses one that reads, waits and then
            # writes.
            found = await self._read(lambda: find_expired(rows, expired))
            count += await self._write(partial(delete_rows, rows, found, expired))
            if len(found) < expired.batch:
                return count


class AsyncSQLAlchemyAdapter(AsyncSQLAlchemyUserAdapter):
    """Users, keys and sessions in one database; a session and its user come in one query.

    See :class:`~lucia.adapters.sqlalchemy.SQLAlchemyUserAdapter` for transactions and errors.
    Expired sessions stay until ``delete_expired`` is called. Used ones (``successor`` is set) are
    no sessions any more, and are deleted at the user's next renewals too. Failed logins are counted
    in ``auth_throttle``.

    ============================== =================================================================
    method                         statements
    ============================== =================================================================
    ``get_session``                ``SELECT … FROM auth_session WHERE id = :id AND successor IS
                                   NULL``
    ``get_sessions_by_user_id``    the same ``WHERE user_id = :user_id``
    ``get_session_and_user_by…``   the same ``WHERE id = :id`` with ``JOIN auth_user ON
                                   auth_session.user_id = auth_user.id``
    ``set_session``                ``INSERT INTO auth_session (…) SELECT … FROM auth_user WHERE id =
                                   :user_id``
    ``set_session_capped``         a ``DELETE`` that changes nothing; ``SELECT id FROM auth_user
                                   WHERE id = :user_id FOR NO KEY UPDATE`` (or ``FOR UPDATE``; for
                                   SQL Server SQLAlchemy makes neither); then see ``set_session``,
                                   ``get_sessions_by_user_id`` and, for the oldest logins,
                                   ``delete_session``
    ``delete_session``             ``DELETE FROM auth_session WHERE id IN (…) AND successor IS
                                   NULL``; for used ids ``SELECT … FOR UPDATE`` and ``DELETE``, then
                                   the same for what they were renewed to in the last 60 s
    ``delete_sessions_by_user_id`` ``DELETE FROM auth_session WHERE user_id = :user_id`` until it
                                   finds nothing
    ``renew_session``              ``UPDATE auth_session SET successor = :new, active_expires =
                                   :end_of_grace, idle_expires = :in_60_s, attributes = :sealed
                                   WHERE id = :id AND user_id = :user_id AND successor IS NULL AND
                                   idle_expires >= :now``; if a row is
                                   changed, see ``set_session``, then ``SELECT id`` of the user's
                                   used rows and ``DELETE … WHERE id IN (…)``; if not, see
                                   ``get_successor``, each ``SELECT`` with ``FOR UPDATE``
    ``get_successor``              ``SELECT … FROM auth_session WHERE id = :id`` along the chain
    ``delete_other_sessions``      ``UPDATE auth_session SET idle_expires = idle_expires WHERE id =
                                   :keep AND …`` locks the one to keep; ``DELETE … WHERE user_id =
                                   :user_id AND id != :keep AND successor IS NULL`` until ``SELECT …
                                   FOR UPDATE`` finds no other
    ============================== =================================================================

    With ``id_keys`` each ``:id`` is the hash of an id. Where an id may have several stored forms,
    by several keys or as it is, ``id = :id`` is ``id IN (…)``; of the UPDATEs there is one for each
    of them, until one changes a row.

    Args:
        source, tables: see the user adapter; the tables are made with ``sessions=True``.
        id_keys: with these, hashes of ids under the first key are stored, 64 hex digits; those
            under the other keys are read too. ``get_sessions_by_user_id`` then returns hashes,
            which ``delete_session`` accepts. The names of failed logins are hashed with the first
            one.
        raw_ids: with ``id_keys``, whether sessions that are stored under their ids as they are can
            still be used: ``read`` yes, ``refuse`` no; ``write`` also stores new ones so.
        clock: returns the time in milliseconds since the epoch.

    Raises:
        TypeError: ``id_keys`` is not a sequence of ``bytes``.
        ValueError: the tables were made without ``sessions=True``, or a key has fewer than 32
            bytes.
        ImportError: there are ``id_keys``, and cryptography is not installed.
    """

    keeps_attributes: bool = True
    expires_records: bool = False

    def __init__(
        self,
        source: AsyncSource,
        tables: AuthTables,
        *,
        id_keys: Sequence[bytes] = (),
        raw_ids: RawIds = "read",
        clock: Clock = system_clock,
    ) -> None:
        super().__init__(source, tables, clock=clock)
        check_sessions(tables)
        self._ids = stored_ids(id_keys, raw_ids)

    async def get_session(self, session_id: str, /) -> SessionRow | None:
        return await self._read(lambda: steps.get_session(self._tables, self._ids, session_id))

    async def get_sessions_by_user_id(self, user_id: str, /) -> Sequence[SessionRow]:
        return await self._read(lambda: steps.get_sessions_by_user_id(self._tables, user_id))

    async def get_session_and_user_by_session_id(
        self, session_id: str, /
    ) -> tuple[SessionRow, UserRow] | None:
        return await self._read(
            lambda: steps.get_session_and_user(self._tables, self._ids, session_id)
        )

    async def set_session(self, session: SessionRow, /) -> None:
        row = self._ids.to_stored(session)
        await self._write(
            lambda: steps.set_session(self._tables, row),
            lambda: steps.why_refused(self._tables, session_id=row.id, user_id=row.user_id),
        )

    async def set_session_capped(self, session: SessionRow, /, *, limit: int) -> SessionRow:
        row = self._ids.to_stored(session)
        count = await self._write(
            lambda: steps.set_session_capped(self._tables, row, limit, self._clock()),
            lambda: steps.why_refused(self._tables, session_id=row.id, user_id=row.user_id),
        )
        revoked(count)
        return session

    async def delete_session(self, /, *session_ids: str) -> None:
        stored = ids_to_delete(self._ids, session_ids)
        count = await self._write(
            lambda: steps.delete_sessions(self._tables, stored, self._clock()),
        )
        revoked(count)

    async def delete_sessions_by_user_id(self, user_id: str, /) -> None:
        revoked(await self._write(lambda: steps.delete_sessions_by_user_id(self._tables, user_id)))

    async def renew_session(
        self, session_id: str, successor: SessionRow, /, *, grace: int
    ) -> SessionRow | None:
        return await self._write(
            lambda: steps.renew_session(
                self._tables, self._ids, session_id, successor, grace, self._clock()
            ),
            lambda: steps.why_refused(self._tables, session_id=self._ids.stored(successor.id)),
        )

    async def get_successor(self, session_id: str, /) -> SessionRow | None:
        return await self._read(
            lambda: steps.get_successor(self._tables, self._ids, session_id, self._clock()),
        )

    async def delete_other_sessions(self, user_id: str, keep: str, /) -> bool:
        kept = self._ids.candidates(keep)
        is_kept, count = await self._write(
            lambda: steps.delete_other_sessions(self._tables, user_id, kept, self._clock()),
        )
        revoked(count)
        return is_kept

    def throttle_store(self) -> AsyncSQLAlchemyThrottleStore:
        """Return where ``Auth`` counts failed logins: in the same database."""
        return AsyncSQLAlchemyThrottleStore(self._source, self._tables, self._ids, self._clock)
