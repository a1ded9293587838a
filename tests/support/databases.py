"""Test databases, in SQLite or on a server.

The sync and the async class have parallel names, so that generated tests find theirs.
"""

from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest
from sqlalchemy import (
    Connection,
    Engine,
    MetaData,
    StaticPool,
    create_engine,
    event,
)
from sqlalchemy.ext.asyncio import (
    AsyncConnection,
    AsyncEngine,
    AsyncSession,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.orm import Session, sessionmaker

from tests.support.sql_servers import SqlServer

__all__ = ["AsyncDatabase", "Database", "SentStatement", "on_sqlite", "sent_statements"]


class SentStatement(NamedTuple):
    """A statement and its values, as they were given to the driver."""

    text: str
    values: Any


on_sqlite: Final = pytest.mark.parametrize("database", ["sqlite"], indirect=True)
"""Run a test that has a ``database`` on SQLite only."""


def _options(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {"poolclass": StaticPool, "connect_args": {"check_same_thread": False}}
    return {"connect_args": {"timeout": 30}}


def _begin_explicitly(engine: Engine) -> None:
    """Make SQLite's driver begin a transaction before reads and savepoints too.

    SQLAlchemy's documentation recommends this.
    """

    @event.listens_for(engine, "connect")
    def leave_transactions_to_us(connection: Any, record: object) -> None:
        connection.isolation_level = None

    @event.listens_for(engine, "begin")
    def begin(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN")


class AsyncDatabase:
    """A database with the metadata's tables. Entering the context returns its engine.

    The tables are empty. They are on ``server`` if given, otherwise in SQLite, in a file or in
    memory.
    """

    def __init__(
        self,
        metadata: MetaData,
        path: Path | None = None,
        *,
        server: SqlServer | None = None,
        explicit_begin: bool = False,
    ) -> None:
        self._to_create = metadata if server is None else MetaData()
        self._stack = ExitStack()
        if server is None:
            self.engine = create_async_engine(
                f"sqlite+aiosqlite:///{path or ':memory:'}", **_options(path)
            )
        else:
            self.engine = create_async_engine(
                server.async_url(self._stack.enter_context(server.database_with(metadata)))
            )
        if explicit_begin:
            _begin_explicitly(self.engine.sync_engine)

    async def __aenter__(self) -> AsyncEngine:
        async with self.engine.begin() as connection:
            await connection.run_sync(self._to_create.create_all)
        return self.engine

    async def __aexit__(self, *_: object) -> None:
        await self.engine.dispose()
        self._stack.close()

    @staticmethod
    def sources(engine: AsyncEngine) -> tuple[AsyncEngine, async_sessionmaker[AsyncSession]]:
        """Return the arguments with which an adapter opens its own transactions."""
        return engine, async_sessionmaker(engine)

    @staticmethod
    def sessionmaker_of(connection: AsyncConnection) -> async_sessionmaker[AsyncSession]:
        """Return a sessionmaker whose sessions join the connection's transaction."""
        return async_sessionmaker(connection)

    @staticmethod
    def session(engine: AsyncEngine) -> AsyncSession:
        """Return a session of SQLAlchemy."""
        return AsyncSession(engine)

    @staticmethod
    def wrong_sources() -> Sequence[Any]:
        """Return arguments that an async adapter refuses."""
        return create_engine("sqlite://"), sessionmaker(), Session(), "sqlite+aiosqlite://"


class Database:
    """The sync counterpart of :class:`AsyncDatabase`."""

    def __init__(
        self,
        metadata: MetaData,
        path: Path | None = None,
        *,
        server: SqlServer | None = None,
        explicit_begin: bool = False,
    ) -> None:
        self._to_create = metadata if server is None else MetaData()
        self._stack = ExitStack()
        if server is None:
            self.engine = create_engine(f"sqlite:///{path or ':memory:'}", **_options(path))
        else:
            self.engine = create_engine(
                server.url(self._stack.enter_context(server.database_with(metadata)))
            )
        if explicit_begin:
            _begin_explicitly(self.engine)

    def __enter__(self) -> Engine:
        self._to_create.create_all(self.engine)
        return self.engine

    def __exit__(self, *_: object) -> None:
        self.engine.dispose()
        self._stack.close()

    @staticmethod
    def sources(engine: Engine) -> tuple[Engine, sessionmaker[Session]]:
        return engine, sessionmaker(engine)

    @staticmethod
    def sessionmaker_of(connection: Connection) -> sessionmaker[Session]:
        return sessionmaker(connection)

    @staticmethod
    def session(engine: Engine) -> Session:
        return Session(engine)

    @staticmethod
    def wrong_sources() -> Sequence[Any]:
        return (
            create_async_engine("sqlite+aiosqlite://"),
            async_sessionmaker(),
            AsyncSession(),
            "sqlite://",
        )


@contextmanager
def sent_statements(engine: AsyncEngine | Engine) -> Generator[list[SentStatement]]:
    """Yield a list that gets each statement which the engine sends to its database."""
    sent: list[SentStatement] = []

    def note(_connection: object, _cursor: object, statement: str, values: Any, *_: object) -> None:
        sent.append(SentStatement(statement, values))

    target = engine.sync_engine if isinstance(engine, AsyncEngine) else engine
    event.listen(target, "before_cursor_execute", note)
    try:
        yield sent
    finally:
        event.remove(target, "before_cursor_execute", note)
