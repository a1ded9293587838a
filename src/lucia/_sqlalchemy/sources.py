"""The sources of transactions: engines, sessionmakers, sessions and connections.

SQLAlchemy's classes are exported under names that differ between sync and async by a prefix alone.
Also the errors of transactions: which are retried, and what is hidden in them.
"""

from traceback import clear_frames
from typing import Any, cast

from sqlalchemy import Connection, Engine, Table
from sqlalchemy.exc import DBAPIError, StatementError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession
from sqlalchemy.ext.asyncio import async_sessionmaker as AsyncSessionMaker
from sqlalchemy.orm import Session
from sqlalchemy.orm import sessionmaker as SessionMaker

from lucia._rules.database_errors import hide_values, is_rollback
from lucia._sqlalchemy.tables import AuthTables

__all__ = [
    "AsyncConnection",
    "AsyncEngine",
    "AsyncOwnEngine",
    "AsyncSession",
    "AsyncSessionMaker",
    "Connection",
    "Engine",
    "OwnEngine",
    "Session",
    "SessionMaker",
    "check_source",
    "free_cursor",
    "hide_parameters",
    "owns_transactions",
    "was_rolled_back",
]


def check_source(adapter: object, source: object, *kinds: type[object]) -> None:
    """Raise `TypeError` unless an adapter can get its transactions from this source."""
    if not isinstance(source, kinds):
        expected = ", ".join(kind.__name__ for kind in kinds)
        raise TypeError(
            f"{type(adapter).__name__} takes one of {expected}, not "
            f"{type(source).__module__}.{type(source).__qualname__}"
        )


def was_rolled_back(error: DBAPIError) -> bool:
    """Return whether the database rolled the transaction back because of another one."""
    return is_rollback(error.orig)


def owns_transactions(
    source: AsyncEngine | AsyncSessionMaker[Any] | Engine | SessionMaker[Any],
    tables: AuthTables,
) -> bool:
    """Return whether the source begins new transactions."""
    if isinstance(source, AsyncEngine | Engine):
        return True
    # A sessionmaker that is bound to one connection does not: its sessions may join a transaction
    # of the caller's, and all of that is lost when the database rolls it back.
    return isinstance(source().get_bind(clause=tables.key), Engine)


def hide_parameters(error: StatementError) -> None:
    """Remove the statement's values (ids, hashes, attributes) from this error and its causes."""
    parameters = error.params
    error.hide_parameters = True
    error.params = None
    hide_values(error, parameters)


def free_cursor(error: DBAPIError) -> None:
    """Free the cursor of the statement that failed, while no other one runs on its connection.

    With SQLAlchemy 2.0 and aiosqlite it lives as long as the error, and is freed by the event loop.
    That then waits for what the connection's own thread is doing, such as for a lock of another
    connection, which only the event loop could end.
    """
    clear_frames(cast(BaseException, error.orig).__traceback__)


class AsyncOwnEngine:
    """Finds the engine of an async session."""

    @staticmethod
    def behind(session: AsyncSession, table: Table) -> AsyncEngine | None:
        """Return the engine that the session uses for a table; see :class:`OwnEngine`."""
        engine = OwnEngine.behind(session.sync_session, table)
        return None if engine is None else AsyncEngine(engine)


class OwnEngine:
    """Finds the engine of a session, for what has to outlast a rollback of its transaction."""

    @staticmethod
    def behind(session: Session, table: Table) -> Engine | None:
        """Return the engine that the session uses for a table.

        None if it is bound to a connection, or to SQLite: there only one transaction can write, and
        a second one would wait for the caller's.
        """
        bind = session.get_bind(clause=table)
        return bind if isinstance(bind, Engine) and bind.dialect.name != "sqlite" else None
