"""The sources that the SQLAlchemy adapters accept, and the protocols that they have."""

from sqlalchemy import Engine, MetaData
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, sessionmaker

from lucia._async.protocols import (
    AsyncRenewingSessionAdapter,
    AsyncSessionUserAdapter,
    AsyncUserAdapter,
)
from lucia._sync.protocols import RenewingSessionAdapter, SessionUserAdapter, UserAdapter
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
    wrong: Engine,
) -> None:
    users: AsyncUserAdapter = AsyncSQLAlchemyUserAdapter(engine, tables)
    sessions: AsyncRenewingSessionAdapter = AsyncSQLAlchemyAdapter(maker, tables)
    both: AsyncSessionUserAdapter = AsyncSQLAlchemyAdapter(session, tables)
    AsyncSQLAlchemyUserAdapter(wrong, tables)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    del users, sessions, both


def synchronous(
    engine: Engine, maker: sessionmaker[OwnSession], session: OwnSession, wrong: AsyncEngine
) -> None:
    users: UserAdapter = SQLAlchemyUserAdapter(engine, tables)
    sessions: RenewingSessionAdapter = SQLAlchemyAdapter(maker, tables)
    both: SessionUserAdapter = SQLAlchemyAdapter(session, tables)
    SQLAlchemyUserAdapter(wrong, tables)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    del users, sessions, both
