"""Deleting what has expired from a database."""

from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any, Final

import pytest
from sqlalchemy import MetaData

from lucia import FailureRule
from lucia._testing.racing_calls import AsyncRacingCalls
from lucia.adapters.sqlalchemy import (
    AsyncSQLAlchemyAdapter,
    AsyncSQLAlchemyUserAdapter,
    AuthTables,
    DeletedRows,
)
from lucia.models import KeyRow, SessionRow
from tests.support.clocks import NOW, Time
from tests.support.databases import AsyncDatabase, on_sqlite, sent_statements

MINUTE: Final = 60_000
HOUR: Final = 60 * MINUTE
DAY: Final = 24 * HOUR

METADATA = MetaData()
TABLES = AuthTables(METADATA, sessions=True)


@pytest.fixture
async def adapter(database: AsyncDatabase, time: Time) -> AsyncSQLAlchemyAdapter:
    """Return an adapter with the user u1."""
    made = AsyncSQLAlchemyAdapter(database.engine, TABLES, clock=time)
    await made.set_user("u1", {}, None)
    return made


def session(name: str, idle_expires: int) -> SessionRow:
    """Return a session that expires then."""
    return SessionRow(
        id=name, user_id="u1", active_expires=idle_expires - 1, idle_expires=idle_expires
    )


def key(name: str, expires: int | None, **changes: Any) -> KeyRow:
    """Return a key that expires then."""
    row = KeyRow(
        id=f"code:{name}", user_id="u1", hashed_password=None, primary_key=False, expires=expires
    )
    return replace(row, **changes)


async def stored(adapter: AsyncSQLAlchemyAdapter) -> set[str]:
    """Return the ids of the user's sessions and keys."""
    sessions = await adapter.get_sessions_by_user_id("u1")
    keys = await adapter.get_keys_by_user_id("u1")
    return {*(row.id for row in sessions), *(row.id for row in keys)}


def rule(forget: int) -> FailureRule:
    """Return a rule for failures that are forgotten after this time."""
    return FailureRule(5, 1_000, 1_000, forget, forget)


async def fill(adapter: AsyncSQLAlchemyAdapter, count: int, expires: int) -> None:
    """Store sessions and keys that expire then."""
    for number in range(count):
        await adapter.set_session(session(f"expired {number}", expires))
        await adapter.set_key(key(f"expired {number}", expires))


async def test_what_is_deleted(adapter: AsyncSQLAlchemyAdapter, time: Time) -> None:
    """What expired more than a day ago is deleted, and counted: sessions, keys, failures.

    The rest stays: what is valid or expired lately, and keys that never expire.
    """
    await adapter.set_session(session("dead", NOW - DAY - 1))
    await adapter.set_session(session("late", NOW - DAY))
    await adapter.set_session(session("live", NOW + HOUR))
    await adapter.set_key(key("dead", NOW - DAY - 1))
    await adapter.set_key(key("late", NOW - DAY))
    await adapter.set_key(key("persistent", None))
    await adapter.set_key(key("primary", NOW - 2 * DAY, primary_key=True))
    assert await adapter.delete_expired() == DeletedRows(sessions=1, keys=1, throttled=0)
    assert await stored(adapter) == {
        "late",
        "live",
        "code:late",
        "code:persistent",
        "code:primary",
    }
    assert await adapter.delete_expired() == DeletedRows()


async def test_used_sessions_and_failures(adapter: AsyncSQLAlchemyAdapter, time: Time) -> None:
    """A used session is deleted a minute after its renewal, a count when it is forgotten."""
    await adapter.set_session(session("used", NOW + DAY))
    await adapter.renew_session("used", session("new", NOW + DAY), grace=10_000)
    rules = {
        "0" * 32: rule(forget=HOUR),
        "1" * 32: rule(forget=2 * HOUR),
    }
    await adapter.throttle_store().attempt(rules)
    at_once = partial(adapter.delete_expired, expired_for=timedelta(0))
    time.now = NOW + MINUTE
    assert await at_once() == DeletedRows()
    time.now += 1
    assert await at_once() == DeletedRows(sessions=1)
    assert await stored(adapter) == {"new"}
    time.now = NOW + HOUR + 1
    assert await at_once() == DeletedRows(throttled=1)
    assert (await adapter.throttle_store().attempt(rules)).failures == {"0" * 32: 1, "1" * 32: 2}


async def test_batches(database: AsyncDatabase, adapter: AsyncSQLAlchemyAdapter) -> None:
    """Everything is deleted, a batch in each transaction, those that expired first at first."""
    await fill(adapter, 7, NOW - 2 * DAY)
    with sent_statements(database.engine) as sent:
        assert await adapter.delete_expired(batch=3) == DeletedRows(sessions=7, keys=7)
    deletes = [each.text for each in sent if each.text.startswith("DELETE")]
    assert len(deletes) == 6
    assert await stored(adapter) == set()


@on_sqlite
async def test_large_batch(database: AsyncDatabase, adapter: AsyncSQLAlchemyAdapter) -> None:
    """A batch of more ids than one statement names is deleted by several."""
    async with database.engine.begin() as connection:
        await connection.execute(
            METADATA.tables["auth_session"].insert(),
            [
                {
                    "id": f"s{number}",
                    "user_id": "u1",
                    "active_expires": 1,
                    "idle_expires": 2,
                    "attributes": {},
                }
                for number in range(1_100)
            ],
        )
    assert await adapter.delete_expired(batch=1_000) == DeletedRows(sessions=1_100)


async def test_at_once(adapter: AsyncSQLAlchemyAdapter) -> None:
    """Several processes may clean up at once: each row is deleted and counted once."""
    await fill(adapter, 12, NOW - 2 * DAY)
    outcomes: list[Any] = await AsyncRacingCalls.gather_results(
        *[partial(adapter.delete_expired, batch=4)] * 4
    )
    assert [each for each in outcomes if not isinstance(each, DeletedRows)] == []
    assert sum(each.sessions for each in outcomes) == 12
    assert sum(each.keys for each in outcomes) == 12
    assert await stored(adapter) == set()


@on_sqlite
async def test_row_that_is_extended_meanwhile(
    database: AsyncDatabase, adapter: AsyncSQLAlchemyAdapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row that has not expired any more when it is to be deleted stays."""
    await adapter.set_session(session("dead", NOW - 2 * DAY))
    write: Any = adapter._write

    async def extend_first(*arguments: Any) -> Any:
        async with database.engine.begin() as connection:
            table = METADATA.tables["auth_session"]
            await connection.execute(table.update().values(idle_expires=NOW + HOUR))
        return await write(*arguments)

    monkeypatch.setattr(adapter, "_write", extend_first)
    assert await adapter.delete_expired() == DeletedRows()
    monkeypatch.undo()
    assert await stored(adapter) == {"dead"}


async def test_users_alone(time: Time) -> None:
    """An adapter of users alone deletes expired keys."""
    metadata = MetaData()
    tables = AuthTables(metadata)
    async with AsyncDatabase(metadata) as engine:
        adapter = AsyncSQLAlchemyUserAdapter(engine, tables, clock=time)
        await adapter.set_user("u1", {}, None)
        await adapter.set_key(key("dead", NOW - 2 * DAY))
        assert await adapter.delete_expired() == DeletedRows(keys=1)


@on_sqlite
async def test_in_the_callers_transaction(
    database: AsyncDatabase, adapter: AsyncSQLAlchemyAdapter, time: Time
) -> None:
    """With the caller's session, the rows are deleted when the caller commits."""
    await fill(adapter, 2, NOW - 2 * DAY)
    async with database.session(database.engine) as mine:
        inside = AsyncSQLAlchemyAdapter(mine, TABLES, clock=time)
        assert await inside.delete_expired() == DeletedRows(sessions=2, keys=2)
        await mine.rollback()
    assert len(await stored(adapter)) == 4


@on_sqlite
async def test_wrong_arguments(adapter: AsyncSQLAlchemyAdapter) -> None:
    """Arguments of another type, and numbers that make no sense, are refused."""
    wrong: list[tuple[dict[str, Any], type[Exception], str]] = [
        ({"batch": 0}, ValueError, "batch must be at least 1, got 0"),
        ({"batch": True}, TypeError, "batch must be an int, not bool"),
        ({"batch": "9"}, TypeError, "batch must be an int, not str"),
        ({"expired_for": 60}, TypeError, "expired_for must be a datetime.timedelta, not int"),
        ({"expired_for": timedelta(-1)}, ValueError, "expired_for must not be negative"),
    ]
    for arguments, error, message in wrong:
        with pytest.raises(error, match=message):
            await adapter.delete_expired(**arguments)
