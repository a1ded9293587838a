"""The engine behind the caller's own session."""

from sqlalchemy import Engine, Table
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.orm import Session

__all__ = ["AsyncOwnEngine", "OwnEngine"]


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
