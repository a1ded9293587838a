"""Users, keys and sessions in a database, by SQLAlchemy 2.

The operations are in :mod:`lucia._sqlalchemy.statements`; here they are run.
"""

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from typing import Any, Final, Self, TypeVar

from sqlalchemy.exc import DBAPIError, IntegrityError, StatementError

from lucia._compat.pause import AsyncPause
from lucia._logs import revoked
from lucia._rules.database_errors import MAX_ATTEMPTS, retry_pause
from lucia._rules.sessions import Clock, system_clock
from lucia._sqlalchemy import statements as steps
from lucia._sqlalchemy.statements import Steps
from lucia._sqlalchemy.tables import (
    AsyncConnection,
    AsyncEngine,
    AsyncSession,
    AsyncSessionMaker,
    AuthTables,
    check_sessions,
    check_source,
    hide_parameters,
    owns_transactions,
    result_of,
    was_rolled_back,
)
from lucia.errors import LuciaError
from lucia.models import UNSET, KeyRow, SessionRow, Unset, UserRow

T = TypeVar("T")

OperationFactory = Callable[[], Steps[T]]
"""Returns a new generator of an operation for each attempt, since a generator runs once."""

AsyncTransaction = AsyncSession | AsyncConnection
"""The caller's own transaction."""

AsyncSource = AsyncEngine | AsyncSessionMaker[Any] | AsyncTransaction
"""Where an adapter gets its transactions from."""

_ANY_USER: Final = "any user"


class AsyncSQLAlchemyUserAdapter:
    """Users and keys in a database.

    With an engine or a sessionmaker each call is a short transaction of its own, so that no
    connection is held between calls. It is repeated, ten times at most, if the database rolls it
    back because of another one, such as by a deadlock.

    With the caller's own session everything happens in the caller's transaction: pending objects
    are flushed first, nothing is committed, and a refused write is rolled back to a SAVEPOINT, so
    that the transaction stays usable. After a deadlock MySQL and MariaDB have rolled back all of
    it: call ``rollback()``, since a ``commit()`` would succeed and store nothing from before.
    Objects that the session has loaded before keep their values: refresh them where that matters.

    For the tables see :class:`~lucia.adapters.sqlalchemy.AuthTables`. If the application has a user
    table of its own, that is used in place of ``auth_user``.

    ========================== =====================================================================
    method                     statements
    ========================== =====================================================================
    ``get_user``               ``SELECT id, … FROM auth_user WHERE id = :id``
    ``set_user``               ``INSERT INTO auth_user (id, …) VALUES (:id, …)``; with a key
                               ``INSERT INTO auth_key (…) VALUES (…)``; then see ``get_user``
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
    ========================== =====================================================================

    On MySQL and MariaDB each comparison with an id or a hash also compares the bytes, since a
    column's collation may ignore case, accents and trailing spaces.

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
        source: an engine, a sessionmaker, or the caller's own session. It is never closed here.
        tables: the tables, made in the application's metadata.

    Raises:
        TypeError: the source is none of these.
    """

    def __init__(self, source: AsyncSource, tables: AuthTables) -> None:
        check_source(self, source, AsyncEngine, AsyncSessionMaker, AsyncSession, AsyncConnection)
        self._source = source
        self._tables = tables

    def in_transaction(self, transaction: AsyncTransaction, /) -> Self:
        """Return an adapter that does everything in the caller's transaction.

        That is a session of SQLAlchemy, or a connection. The adapter is otherwise like this one.

        Raises:
            TypeError: it is neither.
        """
        check_source(self, transaction, AsyncSession, AsyncConnection)
        inside = copy(self)
        inside._source = transaction
        return inside

    def open_transaction(self) -> object | None:
        """Return the caller's transaction while it is open; None without one."""
        source = self._source
        return source.get_transaction() if isinstance(source, AsyncTransaction) else None

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

    async def _read(self, operation: OperationFactory[T]) -> T:
        await self._flush()
        return await self._transact(operation, atomic=False)

    async def _write(
        self,
        operation: OperationFactory[T],
        refused: OperationFactory[LuciaError | None] | None = None,
    ) -> T:
        """Run an operation completely or not at all.

        Args:
            operation: writes.
            refused: finds out which of our errors a violated constraint stands for; it runs after
                the rollback.
        """
        await self._flush()
        try:
            return await self._transact(operation, atomic=True)
        except IntegrityError as error:
            failure = error
        # Not in the handler: there the database's error, which may quote ids, would become the
        # context of ours.
        reason = None if refused is None else await self._read(refused)
        raise reason or failure

    async def _flush(self) -> None:
        """Flush the caller's session, so that an error in what is pending there is the caller's."""
        if isinstance(self._source, AsyncSession):
            await self._source.flush()

    async def _transact(self, operation: OperationFactory[T], *, atomic: bool) -> T:
        try:
            if not isinstance(self._source, AsyncSession | AsyncConnection):
                return await self._run_in_transactions(self._source, operation)
            run = self._run_in_savepoint if atomic else _run
            return await run(self._source, operation())
        except StatementError as error:
            hide_parameters(error)
            raise

    async def _run_in_transactions(
        self,
        source: AsyncEngine | AsyncSessionMaker[Any],
        operation: OperationFactory[T],
    ) -> T:
        """Run the operation in a transaction; in another one if the database rolled that back."""
        attempt = 1
        while True:
            try:
                # A new operation each time, which reads everything again.
                async with source.begin() as transaction:
                    return await _run(transaction, operation())
            except DBAPIError as error:
                if attempt == MAX_ATTEMPTS or not was_rolled_back(error):
                    raise
                if not owns_transactions(source, self._tables):
                    raise
            await AsyncPause.seconds(retry_pause(attempt))
            attempt += 1

    async def _run_in_savepoint(self, transaction: AsyncTransaction, operation: Steps[T]) -> T:
        """Run the operation so that a failure undoes it alone."""
        bind = (
            transaction.get_bind(clause=self._tables.key)
            if isinstance(transaction, AsyncSession)
            else transaction
        )
        for statement in steps.before_savepoint(self._tables, bind.dialect.name):
            await transaction.execute(statement)
        failure: DBAPIError | None = None
        try:
            async with transaction.begin_nested():
                try:
                    return await _run(transaction, operation)
                except DBAPIError as error:
                    failure = error
                    raise
        except DBAPIError as error:
            # After a deadlock MySQL and MariaDB have no savepoint to go back to. The first error is
            # the one to raise: by the deadlock's the caller knows that all may be repeated.
            failure = failure or error
        raise failure


class AsyncSQLAlchemyAdapter(AsyncSQLAlchemyUserAdapter):
    """Users, keys and sessions in one database; a session and its user come in one query.

    See :class:`~lucia.adapters.sqlalchemy.SQLAlchemyUserAdapter` for transactions and errors.
    Expired sessions stay until the application deletes them. Used ones (``successor`` is set) are
    no sessions any more, and are deleted at the user's next renewals.

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
                                   :end_of_grace, idle_expires = :in_60_s WHERE id = :id AND
                                   successor IS NULL AND idle_expires >= :now``; if a row is
                                   changed, see ``set_session``, then ``SELECT id`` of the user's
                                   used rows and ``DELETE … WHERE id IN (…)``; if not, see
                                   ``get_successor``, each ``SELECT`` with ``FOR UPDATE``
    ``get_successor``              ``SELECT … FROM auth_session WHERE id = :id`` along the chain
    ``delete_other_sessions``      ``UPDATE auth_session SET idle_expires = idle_expires WHERE id =
                                   :keep AND …`` locks the one to keep; ``DELETE … WHERE user_id =
                                   :user_id AND id != :keep AND successor IS NULL`` until ``SELECT …
                                   FOR UPDATE`` finds no other
    ============================== =================================================================

    Args:
        source, tables: see the user adapter; the tables are made with ``sessions=True``.
        clock: returns the time in milliseconds since the epoch.

    Raises:
        ValueError: the tables were made without ``sessions=True``.
    """

    keeps_attributes: bool = True
    expires_records: bool = False

    def __init__(
        self, source: AsyncSource, tables: AuthTables, *, clock: Clock = system_clock
    ) -> None:
        super().__init__(source, tables)
        check_sessions(tables)
        self._clock = clock

    async def get_session(self, session_id: str, /) -> SessionRow | None:
        return await self._read(lambda: steps.get_session(self._tables, session_id))

    async def get_sessions_by_user_id(self, user_id: str, /) -> Sequence[SessionRow]:
        return await self._read(lambda: steps.get_sessions_by_user_id(self._tables, user_id))

    async def get_session_and_user_by_session_id(
        self, session_id: str, /
    ) -> tuple[SessionRow, UserRow] | None:
        return await self._read(lambda: steps.get_session_and_user(self._tables, session_id))

    async def set_session(self, session: SessionRow, /) -> None:
        await self._write(
            lambda: steps.set_session(self._tables, session),
            lambda: steps.why_refused(self._tables, session_id=session.id, user_id=session.user_id),
        )

    async def set_session_capped(self, session: SessionRow, /, *, limit: int) -> SessionRow:
        count = await self._write(
            lambda: steps.set_session_capped(self._tables, session, limit, self._clock()),
            lambda: steps.why_refused(self._tables, session_id=session.id, user_id=session.user_id),
        )
        revoked(count)
        return session

    async def delete_session(self, /, *session_ids: str) -> None:
        count = await self._write(
            lambda: steps.delete_sessions(self._tables, session_ids, self._clock()),
        )
        revoked(count)

    async def delete_sessions_by_user_id(self, user_id: str, /) -> None:
        revoked(await self._write(lambda: steps.delete_sessions_by_user_id(self._tables, user_id)))

    async def renew_session(
        self, session_id: str, successor: SessionRow, /, *, grace: int
    ) -> SessionRow | None:
        return await self._write(
            lambda: steps.renew_session(self._tables, session_id, successor, grace, self._clock()),
            lambda: steps.why_refused(self._tables, session_id=successor.id),
        )

    async def get_successor(self, session_id: str, /) -> SessionRow | None:
        return await self._read(
            lambda: steps.get_successor(self._tables, session_id, self._clock()),
        )

    async def delete_other_sessions(self, user_id: str, keep: str, /) -> bool:
        is_kept, count = await self._write(
            lambda: steps.delete_other_sessions(self._tables, user_id, keep, self._clock()),
        )
        revoked(count)
        return is_kept


async def _run(transaction: AsyncTransaction, operation: Steps[T]) -> T:
    """Execute the statements that the operation yields, until it returns."""
    try:
        statement = next(operation)
        while True:
            statement = operation.send(result_of(await transaction.execute(statement)))
    except StopIteration as end:
        result: T = end.value
        return result
