"""Hashed session ids in a database: stored data, migration, key rotation, and a stolen dump."""

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from sqlalchemy import Column, MetaData, Text, select, text

from lucia import AsyncAuth, User
from lucia._rules.id_hashes import HashedIds, RawIds
from lucia._rules.sessions import new_session_id
from lucia._testing.racing_calls import AsyncRacingCalls
from lucia.adapters.sqlalchemy import AsyncSQLAlchemyAdapter, AuthTables
from lucia.errors import DuplicateSessionId
from lucia.models import SessionRow, handle_of
from lucia.testing import AsyncRenewingSessionAdapterSuite, AsyncSessionUserAdapterSuite
from tests.aio.support.hashed_ids import (
    KEY,
    OLD,
    RING,
    AsyncHashedIdTests,
    add,
    leads_to,
    live,
    renew,
)
from tests.support.clocks import Time
from tests.support.databases import AsyncDatabase, on_sqlite, sent_statements

METADATA = MetaData()
TABLES = AuthTables(
    METADATA, user_columns=[Column("name", Text), Column("town", Text)], sessions=True
)


class AsyncHashedSuite(AsyncRenewingSessionAdapterSuite):
    """Sessions stored by the hashes of their ids: a list has the hash and the handle of each."""

    longest_user_id = 255

    async def create_user(self, adapter: Any, user_id: str) -> None:
        await adapter.set_user(user_id, {}, None)

    def as_listed(self, row: SessionRow) -> SessionRow:
        """Return the row as its user's list has it."""
        return replace(
            row,
            id=RING.stored(row.id),
            attributes={"handle": handle_of(row), **row.attributes},
        )


@pytest.mark.no_cover
class TestSessions(AsyncHashedSuite):
    """The adapter with hashed ids as a renewing session adapter."""

    @pytest.fixture
    def adapter(self, database: AsyncDatabase) -> AsyncSQLAlchemyAdapter:
        return AsyncSQLAlchemyAdapter(database.engine, TABLES, id_keys=[KEY, OLD])


@pytest.mark.no_cover
class TestSessionUsers(AsyncSessionUserAdapterSuite):
    """The adapter with hashed ids as one that returns a session together with its user."""

    @pytest.fixture
    def adapter(self, database: AsyncDatabase) -> AsyncSQLAlchemyAdapter:
        return AsyncSQLAlchemyAdapter(database.engine, TABLES, id_keys=[KEY, OLD])


class AsyncDatabaseStore:
    """A database with the users u1 and u2, over which several adapters work."""

    def __init__(self, database: AsyncDatabase, time: Time) -> None:
        self.time = time
        self._engine = database.engine

    def adapter(self, id_keys: Sequence[bytes] = (), raw_ids: RawIds = "read") -> Any:
        """Return an adapter over the database."""
        return AsyncSQLAlchemyAdapter(
            self._engine, TABLES, id_keys=id_keys, raw_ids=raw_ids, clock=self.time
        )

    def auth(self, adapter: Any) -> AsyncAuth[User]:
        """Return an ``Auth`` over an adapter."""
        return AsyncAuth(users=adapter, sessions=adapter, env="DEV", clock=self.time)

    async def stored(self) -> set[str]:
        """Return the stored ids of live sessions."""
        async with self._engine.begin() as connection:
            query = text("SELECT id FROM auth_session WHERE successor IS NULL")
            return set((await connection.execute(query)).scalars())

    async def dump(self) -> str:
        """Return all rows of the session table as text, JSON as JSON."""
        async with self._engine.begin() as connection:
            rows = (await connection.execute(select(METADATA.tables["auth_session"]))).all()
        return "\n".join(json.dumps(list(each)) for each in rows)

    async def age(self, used_id: str, milliseconds: int) -> None:
        """Let time pass."""
        self.time.now += milliseconds


@pytest.fixture
async def store(database: AsyncDatabase, time: Time) -> AsyncDatabaseStore:
    """Return the store, with its users."""
    made = AsyncDatabaseStore(database, time)
    for user_id in ("u1", "u2"):
        await made.adapter().set_user(user_id, {}, None)
    return made


@pytest.fixture
def hashed(store: AsyncDatabaseStore) -> Any:
    """Return an adapter with a key for hashes."""
    return store.adapter([KEY])


@pytest.mark.no_cover
class TestHashedIds(AsyncHashedIdTests):
    """Hashed ids in each database, as in Redis."""


# Stored data


async def test_no_id_in_the_database(hashed: Any, store: AsyncDatabaseStore) -> None:
    """No row ever contains a session id.

    This holds after logins, renewals, chains of renewals, lists and revocations.
    """
    used = [await add(hashed) for _ in range(4)]
    chain = [used[0]]
    for _ in range(3):
        chain.append(await renew(hashed, chain[-1]) or "")
    outcomes = await AsyncRacingCalls.gather_results(
        *(partial(renew, hashed, used[1]) for _ in range(4))
    )
    assert await leads_to(hashed, chain[0]) == chain[-1]
    listed = [each.id for each in await hashed.get_sessions_by_user_id("u1")]
    ids = {*used, *chain, *map(str, outcomes)}
    assert len(ids) == 8
    assert not [id_ for id_ in ids if id_ in await store.dump()]
    assert {*listed} == await store.stored()
    assert len([id_ for id_ in listed if re.fullmatch("[0-9a-f]{64}", id_)]) == 4
    assert await hashed.delete_other_sessions("u1", chain[0]) is True
    assert not [id_ for id_ in ids if id_ in await store.dump()]
    assert await leads_to(hashed, chain[0]) == chain[-1]
    await hashed.delete_session(chain[0], used[2], "unknown" * 6)
    assert await store.stored() == set()


async def test_form_of_rows(hashed: Any, database: AsyncDatabase) -> None:
    """Rows are as without hashes, with a hash in place of each id.

    A used row also has the sealed id of the successor, and nothing else in its attributes.
    """
    used = new_session_id()
    await hashed.set_session(live(used, handle="h", noted={"agent": "x"}))
    new = await renew(hashed, used) or ""
    async with database.engine.begin() as connection:
        rows = (await connection.execute(TABLES.session.select())).all()  # type: ignore[union-attr]  # pyright: ignore[reportOptionalMemberAccess]
    by_id = {each.id: each for each in rows}
    assert by_id.keys() == {RING.stored(used), RING.stored(new)}
    assert by_id[RING.stored(used)].successor == RING.stored(new)
    assert by_id[RING.stored(used)].attributes.keys() == {"sealed"}
    assert by_id[RING.stored(new)].attributes == {"handle": handle_of(live(new))}


@on_sqlite
async def test_no_id_in_statements(database: AsyncDatabase, store: AsyncDatabaseStore) -> None:
    """With ``refuse``, no statement and none of its values has a session id."""
    strict = AsyncSQLAlchemyAdapter(database.engine, TABLES, id_keys=[KEY], raw_ids="refuse")
    with sent_statements(database.engine) as sent:
        used = await add(strict)
        new = await renew(strict, used) or ""
        assert await leads_to(strict, used) == new
        assert await strict.get_session_and_user_by_session_id(new) is not None
        assert await strict.delete_other_sessions("u1", used) is True
        await strict.delete_session(used)
    assert len(sent) > 8
    assert not [each for each in sent if used in str(each) or new in str(each)]


@on_sqlite
async def test_one_statement(database: AsyncDatabase, store: AsyncDatabaseStore) -> None:
    """A read is one statement that names all stored ids that the id may have."""
    ring = HashedIds([KEY, OLD])
    adapter = AsyncSQLAlchemyAdapter(database.engine, TABLES, id_keys=[KEY, OLD])
    session_id = await add(adapter)
    with sent_statements(database.engine) as sent:
        await adapter.get_session(session_id)
        await adapter.get_session_and_user_by_session_id(session_id)
    assert [list(each.values) for each in sent] == [ring.candidates(session_id)] * 2


@on_sqlite
async def test_taken_id(hashed: Any) -> None:
    """A taken id raises ``DuplicateSessionId``, for a login, within a cap, and for a renewal."""
    taken, used = await add(hashed), await add(hashed)
    for call in (
        partial(hashed.set_session, live(taken)),
        partial(hashed.set_session_capped, live(taken), limit=5),
        partial(hashed.renew_session, used, live(taken), grace=0),
    ):
        with pytest.raises(DuplicateSessionId):
            await call()
    assert [await leads_to(hashed, id_) for id_ in (taken, used)] == [taken, used]


# Enabling hashes, and rotating keys


# A stolen dump


async def change(database: AsyncDatabase, used_id: str, **values: Any) -> None:
    """Change columns of a used session's row."""
    sessions = METADATA.tables["auth_session"]
    async with database.engine.begin() as connection:
        await connection.execute(
            sessions.update().where(sessions.c.id == RING.stored(used_id)).values(values)
        )


@on_sqlite
async def test_tampered_rows(
    database: AsyncDatabase,
    store: AsyncDatabaseStore,
    hashed: Any,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A used row with a forged or foreign seal, or another successor, has no successor.

    That is logged without ids. Revoking still follows the row.
    """
    victim, mine = await add(hashed), await add(hashed)
    new, mine_new = await renew(hashed, victim) or "", await renew(hashed, mine) or ""
    sealed = re.findall(r'"sealed": "([^"]+)"', await store.dump())
    assert len(sealed) == 2
    for value in ("garbage", *sealed):
        await change(database, mine, successor=RING.stored(new), attributes={"sealed": value})
        assert await leads_to(hashed, mine) is None
        assert await renew(hashed, mine) is None
    assert {record[2] for record in caplog.record_tuples if record[0] == "lucia"} == {
        "a used session id leads nowhere: none of id_keys opens the id that it was renewed to"
    }
    assert await leads_to(hashed, victim) == new
    unsealed: tuple[Any, ...] = ([], {"sealed": 1}, {})
    for attributes in unsealed:  # a hash is no id, whatever else is lost
        await change(database, victim, attributes=attributes)
        assert await leads_to(hashed, victim) is None
    await hashed.delete_session(victim)
    assert [await leads_to(hashed, id_) for id_ in (victim, new, mine_new)] == [
        None,
        None,
        mine_new,
    ]
