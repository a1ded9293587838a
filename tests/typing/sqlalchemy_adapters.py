"""The sources that the SQLAlchemy adapters accept, and the protocols that they have."""

from typing import assert_type

from sqlalchemy import Connection, Engine, MetaData
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, async_sessionmaker
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, sessionmaker

from lucia._async.protocols import (
    AsyncIdAssigningUserAdapter,
    AsyncRenewingSessionAdapter,
    AsyncSessionUserAdapter,
    AsyncTransactionalAdapter,
    AsyncUserAdapter,
)
from lucia._sync.protocols import (
    IdAssigningUserAdapter,
    RenewingSessionAdapter,
    SessionUserAdapter,
    TransactionalAdapter,
    UserAdapter,
)
from lucia.adapters.sqlalchemy import (
    AsyncSQLAlchemyAdapter,
    AsyncSQLAlchemyUserAdapter,
    AuthTables,
    SQLAlchemyAdapter,
    SQLAlchemyUserAdapter,
)


class Base(DeclarativeBase):
    pass


class Member(Base):
    __tablename__ = "member"
    id: Mapped[str] = mapped_column(primary_key=True)


class OwnSession(Session):
    pass


tables = AuthTables(Base.metadata, user=Member, sessions=True)
AuthTables(MetaData(), user="member")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def asynchronous(
    engine: AsyncEngine,
    maker: async_sessionmaker[AsyncSession],
    session: AsyncSession,
    connection: AsyncConnection,
    wrong: Engine,
) -> None:
    users: AsyncUserAdapter = AsyncSQLAlchemyUserAdapter(engine, tables)
    sessions: AsyncRenewingSessionAdapter = AsyncSQLAlchemyAdapter(maker, tables)
    both: AsyncSessionUserAdapter = AsyncSQLAlchemyAdapter(session, tables)
    AsyncSQLAlchemyUserAdapter(wrong, tables)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    assigning: AsyncIdAssigningUserAdapter = AsyncSQLAlchemyUserAdapter(connection, tables)
    adapter = AsyncSQLAlchemyAdapter(engine, tables)
    transactional: AsyncTransactionalAdapter = adapter
    assert_type(adapter.in_transaction(session), AsyncSQLAlchemyAdapter)
    assert_type(adapter.in_transaction(connection), AsyncSQLAlchemyAdapter)
    adapter.in_transaction(engine)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    del users, sessions, both, assigning, transactional


def synchronous(
    engine: Engine,
    maker: sessionmaker[OwnSession],
    session: OwnSession,
    connection: Connection,
    wrong: AsyncEngine,
) -> None:
    users: UserAdapter = SQLAlchemyUserAdapter(engine, tables)
    sessions: RenewingSessionAdapter = SQLAlchemyAdapter(maker, tables)
    both: SessionUserAdapter = SQLAlchemyAdapter(session, tables)
    SQLAlchemyUserAdapter(wrong, tables)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    assigning: IdAssigningUserAdapter = SQLAlchemyUserAdapter(connection, tables)
    adapter = SQLAlchemyAdapter(engine, tables)
    transactional: TransactionalAdapter = adapter
    assert_type(adapter.in_transaction(session), SQLAlchemyAdapter)
    assert_type(adapter.in_transaction(connection), SQLAlchemyAdapter)
    adapter.in_transaction(engine)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    del users, sessions, both, assigning, transactional
