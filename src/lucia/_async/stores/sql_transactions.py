"""Run the operations of the SQLAlchemy adapters, each completely or not at all."""

from collections.abc import Callable
from copy import copy
from typing import Any, Self, TypeVar

from sqlalchemy.exc import DBAPIError, IntegrityError, StatementError

from lucia._compat.pause import AsyncPause
from lucia._rules.database_errors import MAX_ATTEMPTS, retry_pause
from lucia._sqlalchemy import statements as steps
from lucia._sqlalchemy.rows import result_of
from lucia._sqlalchemy.sources import (
    AsyncConnection,
    AsyncEngine,
    AsyncSession,
    AsyncSessionMaker,
    check_source,
    free_cursor,
    hide_parameters,
    owns_transactions,
    was_rolled_back,
)
from lucia._sqlalchemy.statements import Steps
from lucia._sqlalchemy.tables import AuthTables
from lucia.errors import LuciaError

T = TypeVar("T")

OperationFactory = Callable[[], Steps[T]]
"""Returns a new generator of an operation for each attempt, since a generator runs once."""

AsyncTransaction = AsyncSession | AsyncConnection
"""The caller's own transaction."""

AsyncSource = AsyncEngine | AsyncSessionMaker[Any] | AsyncTransaction
"""Where an adapter gets its transactions from."""


class AsyncTransactions:
    """Runs operations in the transactions of a source.

    Args:
        source: an engine, a sessionmaker, or the caller's own session or connection.
        tables: the tables.

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
            if not isinstance(self._source, AsyncTransaction):
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


async def _run(transaction: AsyncTransaction, operation: Steps[T]) -> T:
    """Execute the statements that the operation yields, until it returns."""
    try:
        statement = next(operation)
        while True:
            statement = operation.send(result_of(await transaction.execute(statement)))
    except StopIteration as end:
        result: T = end.value
        return result
    except DBAPIError as error:
        free_cursor(error)
        raise
