"""Adapters in the caller's own transaction: a session of SQLAlchemy, or a connection."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Column, Integer, MetaData, Text, text

from lucia.adapters.sqlalchemy import AsyncSQLAlchemyAdapter, AsyncSQLAlchemyUserAdapter, AuthTables
from lucia.errors import DuplicateKeyId, InvalidUserId
from lucia.models import KeyRow, SessionRow
from tests.support.clocks import NOW
from tests.support.databases import AsyncDatabase

METADATA = MetaData()
TABLES = AuthTables(
    METADATA,
    user_id=int,
    user_columns=[Column("name", Text), Column("visits", Integer, default=1)],
    sessions=True,
)


@pytest.fixture(params=["driver's BEGIN", "explicit BEGIN", "mariadb", "postgresql"])
async def database(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[AsyncDatabase]:
    """Yield an empty database of each kind; SQLite with both ways to begin a transaction."""
    is_sqlite = request.param.endswith("BEGIN")
    made = AsyncDatabase(
        METADATA,
        tmp_path / "app.db",
        server=None if is_sqlite else request.getfixturevalue(request.param),
        explicit_begin=request.param == "explicit BEGIN",
    )
    async with made:
        yield made


@pytest.fixture
def adapter(database: AsyncDatabase) -> AsyncSQLAlchemyAdapter:
    """Return an adapter that begins its own transactions, with a clock that stands still."""
    return AsyncSQLAlchemyAdapter(database.engine, TABLES, clock=lambda: NOW)


@pytest.fixture(params=["session", "connection"])
def transaction(request: pytest.FixtureRequest, database: AsyncDatabase) -> Any:
    """Return a transaction of the caller's, which a context begins and ends."""
    is_session = request.param == "session"
    return database.session(database.engine) if is_session else database.engine.connect()


def key(user_id: str, key_id: str = "email:anna") -> KeyRow:
    """Return a primary key."""
    return KeyRow(
        id=key_id, user_id=user_id, hashed_password="hash", primary_key=True, expires=None
    )


def session(user_id: str, session_id: str = "one") -> SessionRow:
    """Return a live session."""
    return SessionRow(id=session_id, user_id=user_id, active_expires=NOW + 1, idle_expires=NOW + 2)


async def names(database: AsyncDatabase) -> list[str]:
    """Return the names of the users that are committed."""
    async with database.engine.begin() as connection:
        result = await connection.execute(text("SELECT name FROM auth_user ORDER BY name"))
        return list(result.scalars())


async def test_rollback(
    database: AsyncDatabase, adapter: AsyncSQLAlchemyAdapter, transaction: Any
) -> None:
    """The caller's rollback undoes all that the adapter did."""
    async with transaction as mine:
        inside = adapter.in_transaction(mine)
        anna = await inside.add_user({"name": "Anna"}, key)
        await inside.set_session(session(anna.id))
        assert await inside.get_session_and_user_by_session_id("one") == (session(anna.id), anna)
        await mine.rollback()
    assert await names(database) == []
    assert await adapter.get_key("email:anna") is None


async def test_commit(
    database: AsyncDatabase, adapter: AsyncSQLAlchemyAdapter, transaction: Any
) -> None:
    """The caller commits what the adapter did and its own rows; refused writes are undone alone."""
    async with transaction as mine:
        inside = adapter.in_transaction(mine)
        anna = await inside.add_user({"name": "Anna"}, key)
        with pytest.raises(DuplicateKeyId):
            await inside.add_user({"name": "Bert"}, key)
        with pytest.raises(InvalidUserId):
            await inside.set_key(key("1000", "email:nobody"))
        await mine.execute(text("INSERT INTO auth_user (name, visits) VALUES ('Carl', 7)"))
        assert await names_within(mine) == ["Anna", "Carl"]
        await mine.commit()
    assert await names(database) == ["Anna", "Carl"]
    assert await adapter.get_keys_by_user_id(anna.id) == [key(anna.id)]


async def names_within(mine: Any) -> list[str]:
    """Return the names of the users that a transaction sees."""
    return list((await mine.execute(text("SELECT name FROM auth_user ORDER BY name"))).scalars())


async def test_the_adapter_is_otherwise_the_same(
    database: AsyncDatabase, adapter: AsyncSQLAlchemyAdapter, transaction: Any
) -> None:
    """Tables and clock are those of the first adapter, which goes on with its own transactions."""
    anna = await adapter.add_user({"name": "Anna"}, None)
    async with transaction as mine:
        inside = adapter.in_transaction(mine)
        assert type(inside) is AsyncSQLAlchemyAdapter
        await inside.set_session(session(anna.id))
        renewed = await inside.renew_session("one", session(anna.id, "two"), grace=1)
        assert renewed == session(anna.id, "two")
        await mine.commit()
    assert await adapter.get_successor("one") == session(anna.id, "two")
    users = AsyncSQLAlchemyUserAdapter(database.engine, TABLES)
    async with database.engine.connect() as connection:
        assert type(users.in_transaction(connection)) is AsyncSQLAlchemyUserAdapter
        assert await users.in_transaction(connection).get_user(anna.id) == anna


async def test_what_is_no_transaction() -> None:
    """An engine, a sessionmaker and a session of the other flavour are refused, by name."""
    metadata = MetaData()
    async with AsyncDatabase(metadata) as engine:
        adapter = AsyncSQLAlchemyUserAdapter(engine, AuthTables(metadata))
        wrong: Any
        for wrong in (*AsyncDatabase.sources(engine), *AsyncDatabase.wrong_sources(), None):
            found = type(wrong).__name__
            with pytest.raises(
                TypeError, match=f"takes one of AsyncSession, AsyncConnection, not .*{found}"
            ):
                adapter.in_transaction(wrong)
