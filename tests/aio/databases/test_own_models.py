"""An application's own models for users, keys and sessions."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Column, Connection, MetaData, String, Table, event
from sqlalchemy.schema import CreateSchema

from lucia.adapters.sqlalchemy import AsyncSQLAlchemyAdapter, AuthTables
from lucia.errors import DuplicateKeyId, DuplicateSessionId, InvalidUserId
from lucia.models import KeyRow, SessionRow, UserRow
from tests.support.clocks import NOW
from tests.support.databases import AsyncDatabase
from tests.support.own_models import STYLES
from tests.support.sql_servers import SqlServer


@pytest.fixture(
    params=[(style, "sqlite") for style in STYLES]
    + [("declarative", "mariadb"), ("declarative", "postgresql")],
    ids=" on ".join,
)
async def adapter(
    request: pytest.FixtureRequest, tmp_path: Path
) -> AsyncIterator[AsyncSQLAlchemyAdapter]:
    """Yield an adapter over models of each style; those with own sessions on each database."""
    style, kind = request.param
    server = None if kind == "sqlite" else request.getfixturevalue(kind)
    tables = STYLES[style]
    async with AsyncDatabase(tables.user.metadata, tmp_path / "app.db", server=server) as engine:
        yield AsyncSQLAlchemyAdapter(engine, tables, clock=lambda: NOW)


def key(user_id: str, key_id: str = "email:anna", **changes: Any) -> KeyRow:
    """Return a primary key."""
    members: dict[str, Any] = {
        "hashed_password": "hash-1",
        "primary_key": True,
        "expires": None,
        **changes,
    }
    return KeyRow(id=key_id, user_id=user_id, **members)


def session(user_id: str, session_id: str) -> SessionRow:
    """Return a live session."""
    return SessionRow(
        id=session_id,
        user_id=user_id,
        active_expires=NOW + 1,
        idle_expires=NOW + 2,
        attributes={"handle": session_id},
    )


async def test_users(adapter: AsyncSQLAlchemyAdapter) -> None:
    """Users and keys are stored in the application's own columns, and found there again."""
    anna = await adapter.add_user({"email": "anna@example.com"}, key)
    assert anna == UserRow(id=anna.id, attributes={"email": "anna@example.com", "visits": 1})
    with pytest.raises(DuplicateKeyId):
        await adapter.add_user({"email": "bert@example.com"}, key)
    bert = await adapter.set_user("1000", {"email": "bert@example.com", "visits": 7}, None)
    assert await adapter.update_user_attributes("1000", {"visits": 8}) == UserRow(
        id="1000", attributes={"email": "bert@example.com", "visits": 8}
    )
    single = key(bert.id, "reset:1", primary_key=False, hashed_password=None, expires=NOW)
    await adapter.set_key(single)
    for taken in (single, key(anna.id, "reset:1")):
        with pytest.raises(DuplicateKeyId):
            await adapter.set_key(taken)
    with pytest.raises(InvalidUserId):
        await adapter.set_key(key("2000", "email:nobody"))
    assert await adapter.get_key("reset:1") == single
    assert await adapter.update_key_password("email:anna", "hash-2", expected="other") is None
    changed = key(anna.id, hashed_password="hash-2")
    assert await adapter.update_key_password("email:anna", "hash-2", expected="hash-1") == changed
    assert await adapter.get_keys_by_user_id(anna.id) == [changed]
    assert await adapter.delete_non_primary_key("reset:1", "email:anna") == 1
    await adapter.delete_user(anna.id)
    assert await adapter.get_key("email:anna") is None
    assert await adapter.get_user(anna.id) is None


async def test_sessions(adapter: AsyncSQLAlchemyAdapter) -> None:
    """Sessions are stored, renewed and revoked, whatever the columns are called."""
    anna = await adapter.add_user({"email": "anna@example.com"}, None)
    one, two, three, four = (session(anna.id, name) for name in ("one", "two", "three", "four"))
    await adapter.set_session(one)
    with pytest.raises(DuplicateSessionId):
        await adapter.set_session(one)
    assert await adapter.get_session_and_user_by_session_id("one") == (one, anna)
    assert await adapter.renew_session("one", two, grace=1_000) == two
    assert await adapter.get_successor("one") == two
    await adapter.set_session_capped(three, limit=2)
    assert await adapter.get_sessions_by_user_id(anna.id) == [two, three]
    assert await adapter.delete_other_sessions(anna.id, "one")
    assert await adapter.get_sessions_by_user_id(anna.id) == [two]
    await adapter.renew_session("two", four, grace=0)
    await adapter.delete_session("two")
    assert await adapter.get_session("four") is None
    await adapter.delete_sessions_by_user_id(anna.id)


def create_schema(_: object, connection: Connection, **options: Any) -> None:
    """Create the schema before its tables."""
    connection.execute(CreateSchema("auth"))


async def test_schema(postgresql: SqlServer) -> None:
    """The tables that are made are in the schema of the user table."""
    metadata = MetaData()
    people = Table("people", metadata, Column("id", String(40), primary_key=True), schema="auth")
    tables = AuthTables(metadata, user=people, sessions=True)
    made = ["auth_key", "auth_session", "auth_throttle", "people"]
    assert sorted(metadata.tables) == [f"auth.{name}" for name in made]
    event.listen(metadata, "before_create", create_schema)
    async with AsyncDatabase(metadata, server=postgresql) as engine:
        adapter = AsyncSQLAlchemyAdapter(engine, tables, clock=lambda: NOW)
        anna = await adapter.set_user("anna", {}, key("anna"))
        await adapter.set_session(session("anna", "one"))
        assert await adapter.get_session_and_user_by_session_id("one") == (
            session("anna", "one"),
            anna,
        )
