"""The demo's users, in SQLite: the application's own table beside the library's table of keys."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from sqlalchemy import String, func
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from lucia import UserRow
from lucia.adapters.sqlalchemy import AsyncSQLAlchemyUserAdapter, AuthTables


class Base(DeclarativeBase):
    """The application's models."""


class MemberRow(Base):
    """The application's user table. The library sets ``id``; other columns are attributes."""

    __tablename__ = "member"
    id: Mapped[str] = mapped_column(String(255), primary_key=True)
    username: Mapped[str] = mapped_column(String(32), unique=True)
    display_name: Mapped[str] = mapped_column(String(80))
    created: Mapped[datetime] = mapped_column(server_default=func.current_timestamp())


TABLES = AuthTables(Base.metadata, user=MemberRow)


@dataclass(frozen=True, slots=True)
class Member:
    """A user as the application's routes get it; ``created`` is in UTC."""

    user_id: str
    username: str
    display_name: str
    created: datetime

    @classmethod
    def from_row(cls, row: UserRow) -> Self:
        """Convert a row. Given to ``AsyncAuth``, this makes it an ``AsyncAuth[Member]``."""
        columns = row.attributes
        return cls(
            row.id,
            columns["username"],
            columns["display_name"],
            columns["created"].replace(tzinfo=UTC),
        )


class Accounts:
    """The users' database: one file."""

    def __init__(self, file: Path) -> None:
        self._engine: AsyncEngine = create_async_engine(f"sqlite+aiosqlite:///{file}")
        self.adapter = AsyncSQLAlchemyUserAdapter(self._engine, TABLES)
        self.close: Callable[[], Awaitable[None]] = self._engine.dispose

    async def create_tables(self) -> None:
        """Create the missing tables."""
        async with self._engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
