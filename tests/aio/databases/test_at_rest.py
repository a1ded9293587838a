"""Hashed session ids in a database: stored data, migration, key rotation, and a stolen dump."""

import re
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import Any, Final

import pytest
from sqlalchemy import Column, MetaData, Text, text

from lucia import AsyncAuth, InvalidSessionId, SessionExpiry, User
from lucia._rules.id_hashes import HashedIds
from lucia._rules.sessions import new_session_id
from lucia._testing.racing_calls import AsyncRacingCalls
from lucia.adapters.sqlalchemy import AsyncSQLAlchemyAdapter, AuthTables
from lucia.errors import DuplicateSessionId
from lucia.models import SessionRow, handle_of
from lucia.testing import AsyncRenewingSessionAdapterSuite, AsyncSessionUserAdapterSuite
from tests.support.clocks import NOW, Time
from tests.support.databases import AsyncDatabase, on_sqlite, sent_statements

MINUTE: Final = 60_000
HOUR: Final = 60 * MINUTE
KEY, OLD, FOREIGN = (bytes([number]) * 32 for number in (1, 2, 3))
RING: Final = HashedIds([KEY])

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


class TestSessions(AsyncHashedSuite):
    """The adapter with hashed ids as a renewing session adapter."""

    @pytest.fixture
    def adapter(self, database: AsyncDatabase) -> AsyncSQLAlchemyAdapter:
        return AsyncSQLAlchemyAdapter(database.engine, TABLES, id_keys=[KEY, OLD])


class TestSessionUsers(AsyncSessionUserAdapterSuite):
    """The adapter with hashed ids as one that returns a session together with its user."""

    @pytest.fixture
    def adapter(self, database: AsyncDatabase) -> AsyncSQLAlchemyAdapter:
        return AsyncSQLAlchemyAdapter(database.engine, TABLES, id_keys=[KEY, OLD])


@pytest.fixture
async def raw(database: AsyncDatabase, time: Time) -> AsyncSQLAlchemyAdapter:
    """Return an adapter without keys, with the users u1 and u2."""
    made = AsyncSQLAlchemyAdapter(database.engine, TABLES, clock=time)
    for user_id in ("u1", "u2"):
        await made.set_user(user_id, {}, None)
    return made


@pytest.fixture
def hashed(
    database: AsyncDatabase, raw: AsyncSQLAlchemyAdapter, time: Time
) -> AsyncSQLAlchemyAdapter:
    """Return an adapter with a key for hashes, on the same data."""
    return AsyncSQLAlchemyAdapter(database.engine, TABLES, id_keys=[KEY], clock=time)


def row(session_id: str, user_id: str = "u1", **attributes: Any) -> SessionRow:
    """Return a live session."""
    return SessionRow(
        id=session_id,
        user_id=user_id,
        active_expires=NOW + HOUR,
        idle_expires=NOW + 2 * HOUR,
        attributes=attributes,
    )


async def add(adapter: AsyncSQLAlchemyAdapter, user_id: str = "u1") -> str:
    """Store a session, and return its id."""
    session_id = new_session_id()
    await adapter.set_session(row(session_id, user_id))
    return session_id


async def renew(adapter: AsyncSQLAlchemyAdapter, used_id: str, grace: int = MINUTE) -> str | None:
    """Renew a session of the user u1, and return the id of its successor."""
    found = await adapter.renew_session(used_id, row(new_session_id()), grace=grace)
    return None if found is None else found.id


async def leads_to(adapter: AsyncSQLAlchemyAdapter, session_id: str | None) -> str | None:
    """Return the id of the session that a request with this id gets."""
    found = (
        None
        if session_id is None
        else await adapter.get_session(session_id) or await adapter.get_successor(session_id)
    )
    return None if found is None else found.id


async def dump(database: AsyncDatabase) -> str:
    """Return all rows of the session table as text."""
    async with database.engine.begin() as connection:
        rows = (await connection.execute(text("SELECT * FROM auth_session"))).all()
    return "\n".join(str(tuple(each)) for each in rows)


async def stored(database: AsyncDatabase) -> set[str]:
    """Return the stored ids of live sessions."""
    async with database.engine.begin() as connection:
        query = text("SELECT id FROM auth_session WHERE successor IS NULL")
        return set((await connection.execute(query)).scalars())


def to_auth(adapter: AsyncSQLAlchemyAdapter, **settings: Any) -> AsyncAuth[User]:
    """Return an ``Auth`` over this adapter."""
    return AsyncAuth(users=adapter, sessions=adapter, env="DEV", **settings)


# Stored data


async def test_no_id_in_the_database(
    hashed: AsyncSQLAlchemyAdapter, database: AsyncDatabase
) -> None:
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
    assert not [id_ for id_ in ids if id_ in await dump(database)]
    assert {*listed} == await stored(database)
    assert len([id_ for id_ in listed if re.fullmatch("[0-9a-f]{64}", id_)]) == 4
    assert await hashed.delete_other_sessions("u1", chain[0]) is True
    assert not [id_ for id_ in ids if id_ in await dump(database)]
    assert await leads_to(hashed, chain[0]) == chain[-1]
    await hashed.delete_session(chain[0], used[2], "unknown" * 6)
    assert await stored(database) == set()


async def test_form_of_rows(hashed: AsyncSQLAlchemyAdapter, database: AsyncDatabase) -> None:
    """Rows are as without hashes, with a hash in place of each id.

    A used row also has the sealed id of the successor, and nothing else in its attributes.
    """
    used = new_session_id()
    await hashed.set_session(row(used, handle="h", noted={"agent": "x"}))
    new = await renew(hashed, used) or ""
    async with database.engine.begin() as connection:
        rows = (await connection.execute(TABLES.session.select())).all()  # type: ignore[union-attr]  # pyright: ignore[reportOptionalMemberAccess]
    by_id = {each.id: each for each in rows}
    assert by_id.keys() == {RING.stored(used), RING.stored(new)}
    assert by_id[RING.stored(used)].successor == RING.stored(new)
    assert by_id[RING.stored(used)].attributes.keys() == {"sealed"}
    assert by_id[RING.stored(new)].attributes == {"handle": handle_of(row(new))}


@on_sqlite
async def test_no_id_in_statements(database: AsyncDatabase, raw: AsyncSQLAlchemyAdapter) -> None:
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
async def test_one_statement(database: AsyncDatabase, raw: AsyncSQLAlchemyAdapter) -> None:
    """A read is one statement that names all stored ids that the id may have."""
    ring = HashedIds([KEY, OLD])
    adapter = AsyncSQLAlchemyAdapter(database.engine, TABLES, id_keys=[KEY, OLD])
    session_id = await add(adapter)
    with sent_statements(database.engine) as sent:
        await adapter.get_session(session_id)
        await adapter.get_session_and_user_by_session_id(session_id)
    assert [list(each.values) for each in sent] == [ring.candidates(session_id)] * 2


async def test_rows_of_a_list_can_be_revoked(hashed: AsyncSQLAlchemyAdapter) -> None:
    """A row of a list revokes its session and the successor, but does not log in."""
    ids = [await add(hashed) for _ in range(2)]
    listed = [each.id for each in await hashed.get_sessions_by_user_id("u1")]
    assert {*listed} == {RING.stored(id_) for id_ in ids}
    assert [await leads_to(hashed, id_) for id_ in listed] == [None, None]
    assert await renew(hashed, listed[0]) is None
    new = await renew(hashed, ids[0])
    await hashed.delete_session(*listed)
    assert [await leads_to(hashed, id_) for id_ in (*ids, new)] == [None] * 3


@on_sqlite
async def test_id_that_looks_like_a_hash(
    hashed: AsyncSQLAlchemyAdapter, raw: AsyncSQLAlchemyAdapter
) -> None:
    """An id of 64 hex digits is an id like any other, and is never found as a hash.

    Revoking it revokes both the raw and the hashed session.
    """
    await raw.set_session(row("a" * 64, "u1"))
    assert await leads_to(hashed, "a" * 64) is None
    await hashed.set_session(row("a" * 64, "u2"))
    found = await hashed.get_session("a" * 64)
    assert found is not None
    assert found.user_id == "u2"
    await hashed.delete_session("a" * 64)
    assert await leads_to(hashed, "a" * 64) is None
    assert await raw.get_session("a" * 64) is None


@on_sqlite
async def test_attributes_come_back(hashed: AsyncSQLAlchemyAdapter) -> None:
    """A row is returned as it was stored, with or without a handle."""
    attributes: list[dict[str, Any]] = [{}, {"handle": "h"}, {"handle": None}, {"sealed": "x"}]
    for number, each in enumerate(attributes):
        session = row(f"s{number}", **each)
        await hashed.set_session(session)
        assert await hashed.get_session(f"s{number}") == session


@on_sqlite
async def test_taken_id(hashed: AsyncSQLAlchemyAdapter) -> None:
    """A taken id raises ``DuplicateSessionId``, for a login, within a cap, and for a renewal."""
    taken, used = await add(hashed), await add(hashed)
    for call in (
        partial(hashed.set_session, row(taken)),
        partial(hashed.set_session_capped, row(taken), limit=5),
        partial(hashed.renew_session, used, row(taken), grace=0),
    ):
        with pytest.raises(DuplicateSessionId):
            await call()
    assert [await leads_to(hashed, id_) for id_ in (taken, used)] == [taken, used]


# Enabling hashes, and rotating keys


async def test_turning_on(
    hashed: AsyncSQLAlchemyAdapter, raw: AsyncSQLAlchemyAdapter, database: AsyncDatabase
) -> None:
    """Enabling hashes logs nobody out, even within a grace.

    Sessions with raw ids are read, renewed, kept and revoked as before.
    """
    used, kept, ended, idle = [await add(raw) for _ in range(4)]
    new = await renew(raw, used)
    assert [await leads_to(hashed, id_) for id_ in (used, kept)] == [new, kept]
    newer = await renew(hashed, new or "")
    assert newer is not None
    assert await renew(hashed, used) == newer
    assert [await leads_to(hashed, id_) for id_ in (used, new, newer)] == [newer] * 3
    assert RING.stored(newer) in await stored(database)
    await hashed.delete_session(ended)
    assert await leads_to(raw, ended) is None
    outcomes: list[Any] = await AsyncRacingCalls.gather_results(
        *(partial(renew, hashed, idle) for _ in range(8))
    )
    assert len(set(outcomes)) == 1
    assert await leads_to(hashed, idle) == outcomes[0]
    await hashed.delete_session(idle)
    assert await leads_to(hashed, outcomes[0]) is None
    assert await hashed.delete_other_sessions("u1", kept) is True
    assert await stored(database) == {kept}
    await hashed.delete_sessions_by_user_id("u1")
    assert await stored(database) == set()


async def test_chain_of_raw_and_hashed_ids_is_revoked(
    hashed: AsyncSQLAlchemyAdapter, raw: AsyncSQLAlchemyAdapter
) -> None:
    """Revoking a used id revokes its successors, both raw and hashed, even without the key."""
    for adapter in (hashed, raw):
        used = await add(raw)
        new = await renew(hashed, await renew(raw, used) or "")
        assert await leads_to(hashed, new) == new
        await adapter.delete_session(used)
        assert await leads_to(hashed, new) is None


async def test_process_without_keys(
    hashed: AsyncSQLAlchemyAdapter, raw: AsyncSQLAlchemyAdapter
) -> None:
    """A process without the key finds and revokes no hashed session by its id.

    It never takes a hash for an id, and can still revoke all sessions of a user.
    """
    used, other = await add(raw), await add(hashed)
    new = await renew(hashed, used)
    assert [await leads_to(raw, id_) for id_ in (used, new, other)] == [None] * 3
    assert await renew(raw, used) is None
    await raw.delete_session(other)
    assert [await leads_to(hashed, id_) for id_ in (used, new, other)] == [new, new, other]
    assert len(await raw.get_sessions_by_user_id("u1")) == 2
    await raw.delete_sessions_by_user_id("u1")
    assert [await leads_to(hashed, id_) for id_ in (used, new, other)] == [None] * 3


@on_sqlite
async def test_rotation(database: AsyncDatabase, raw: AsyncSQLAlchemyAdapter, time: Time) -> None:
    """A new key is first added last, then moved to the front: nobody is logged out."""
    rings = ([OLD], [OLD, KEY], [KEY, OLD])
    processes = [
        AsyncSQLAlchemyAdapter(database.engine, TABLES, id_keys=ring, raw_ids="refuse", clock=time)
        for ring in rings
    ]
    for before, after in pairwise(processes):
        one, used = await add(before), await add(before)
        new = await renew(before, used)
        newer = await renew(after, new or "")
        assert newer is not None
        for process in (before, after):  # both run during a deployment
            assert [await leads_to(process, id_) for id_ in (one, used, new, newer)] == [
                one,
                newer,
                newer,
                newer,
            ]
        assert await after.delete_other_sessions("u1", used) is True
        assert [await leads_to(before, id_) for id_ in (one, newer)] == [None, newer]
        await before.delete_session(used)
        assert await leads_to(after, newer) is None


@on_sqlite
async def test_key_that_is_dropped(
    database: AsyncDatabase, raw: AsyncSQLAlchemyAdapter, time: Time
) -> None:
    """Ids hashed with a removed key are unknown, but revoking all sessions still revokes theirs."""
    old, current = (
        AsyncSQLAlchemyAdapter(database.engine, TABLES, id_keys=ring, clock=time)
        for ring in ([OLD], [KEY])
    )
    used, other = await add(old), await add(old)
    new = await renew(old, used)
    assert [await leads_to(current, id_) for id_ in (used, new, other)] == [None] * 3
    assert await renew(current, other) is None
    assert await current.delete_other_sessions("u1", other) is False
    assert [await leads_to(old, id_) for id_ in (used, new, other)] == [None] * 3


@on_sqlite
async def test_moving_in_three_steps(
    database: AsyncDatabase, raw: AsyncSQLAlchemyAdapter, time: Time
) -> None:
    """``write``, ``read`` and ``refuse`` follow each other; each works beside the one before.

    In the end, no raw id is accepted.
    """
    modes: Any = ("write", "read", "refuse")
    writing, reading, refusing = (
        AsyncSQLAlchemyAdapter(database.engine, TABLES, id_keys=[KEY], raw_ids=mode, clock=time)
        for mode in modes
    )
    first = await add(writing)
    assert [await leads_to(each, first) for each in (raw, writing, reading)] == [first] * 3
    second = await renew(reading, first)
    assert [await leads_to(each, first) for each in (writing, reading)] == [second] * 2
    third = await renew(writing, second or "")  # an older process renews a session of a newer one
    assert third in await stored(database)
    assert [
        await leads_to(each, id_) for each in (writing, reading) for id_ in (first, second)
    ] == [third] * 4
    assert await leads_to(refusing, third) is None
    assert await renew(refusing, third or "") is None
    await refusing.delete_session(third or "")
    assert await leads_to(reading, third) == third
    await reading.delete_session(first)
    assert await leads_to(writing, third) is None


@on_sqlite
async def test_settings(database: AsyncDatabase) -> None:
    """Wrong settings are refused when the adapter is created, with advice."""
    refused: list[tuple[Any, Any, type[Exception], str]] = [
        ([], "refuse", ValueError, "raw_ids='refuse' needs id_keys"),
        ([], "never", ValueError, "raw_ids must be 'write', 'read' or 'refuse'"),
        ([KEY], "never", ValueError, "raw_ids must be 'write', 'read' or 'refuse'"),
        ([b"short"], "read", ValueError, "make one with secrets.token_bytes"),
        (KEY, "read", TypeError, "a list of keys, the current one first, not bytes"),
    ]
    for keys, raw_ids, error, message in refused:
        with pytest.raises(error, match=message):
            AsyncSQLAlchemyAdapter(database.engine, TABLES, id_keys=keys, raw_ids=raw_ids)
    made = AsyncSQLAlchemyAdapter(database.engine, TABLES, id_keys=[KEY])
    assert KEY.hex() not in repr(vars(made))
    assert repr(KEY) not in repr(vars(made))


# A stolen dump


async def tokens_in(database: AsyncDatabase) -> set[str]:
    """Return everything that a thief could try as an id."""
    shown = await dump(database)
    tokens = {
        *re.split(r'[\s{}\[\]":,()\']+', shown),
        *re.findall(r"[0-9A-Za-z]{40}", shown),
        *re.findall(r"\w+", shown),
    }
    return (
        tokens
        | {token[start : start + 40] for token in tokens for start in range(0, len(token), 8)}
    ) - {""}


@on_sqlite
async def test_stolen_dump(
    database: AsyncDatabase, hashed: AsyncSQLAlchemyAdapter, raw: AsyncSQLAlchemyAdapter, time: Time
) -> None:
    """Nothing stored in the database logs anybody in, with or without the key, or in a grace."""
    auth, without_key = to_auth(hashed, clock=time), to_auth(raw, clock=time)
    used = await auth.create_session("u1", metadata={"agent": "x"})
    session = await auth.renew_session((await auth.renew_session(used.session_id)).session_id)
    assert '"sealed"' in await dump(database)
    tokens = await tokens_in(database)
    assert len([token for token in tokens if re.fullmatch("[0-9a-f]{64}", token)]) >= 3
    for token in tokens:
        assert await leads_to(hashed, token) is None
        assert await renew(hashed, token) is None
        assert await hashed.delete_other_sessions("nobody", token) is False
        for each in (auth, without_key):
            with pytest.raises(InvalidSessionId):
                await each.validate_session(token)
    assert (await auth.validate_session(used.session_id)).session_id == session.session_id
    assert (await auth.validate_session(session.session_id)).user_id == "u1"


@on_sqlite
async def test_control_dump_without_id_keys_contains_ids(
    database: AsyncDatabase, raw: AsyncSQLAlchemyAdapter, time: Time
) -> None:
    """Control: without keys, the same search finds the session's id and the used id."""
    auth = to_auth(raw, clock=time)
    used = await auth.create_session("u1")
    session = await auth.renew_session(used.session_id)
    assert {used.session_id, session.session_id} == {
        token for token in await tokens_in(database) if await leads_to(raw, token)
    }


async def change(database: AsyncDatabase, used_id: str, **values: Any) -> None:
    """Change columns of a used session's row."""
    sessions = METADATA.tables["auth_session"]
    async with database.engine.begin() as connection:
        await connection.execute(
            sessions.update().where(sessions.c.id == RING.stored(used_id)).values(values)
        )


@on_sqlite
async def test_tampered_rows(
    database: AsyncDatabase, hashed: AsyncSQLAlchemyAdapter, caplog: pytest.LogCaptureFixture
) -> None:
    """A used row with a forged or foreign seal, or another successor, has no successor.

    That is logged without ids. Revoking still follows the row.
    """
    victim, mine = await add(hashed), await add(hashed)
    new, mine_new = await renew(hashed, victim) or "", await renew(hashed, mine) or ""
    sealed = re.findall(r'"sealed": "([^"]+)"', await dump(database))
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


@on_sqlite
async def test_grace(hashed: AsyncSQLAlchemyAdapter, time: Time) -> None:
    """A used id has its successor only within the grace; revoking still follows it."""
    used, other = await add(hashed), await add(hashed)
    new, unseen = await renew(hashed, used, 10_000), await renew(hashed, other, 0)
    assert [await leads_to(hashed, id_) for id_ in (used, other)] == [new, None]
    time.now += 10_000
    assert await leads_to(hashed, used) is None
    assert await renew(hashed, used) is None
    await hashed.delete_session(used, other)
    assert [await leads_to(hashed, id_) for id_ in (new, unseen)] == [None, None]


@on_sqlite
async def test_auth_over_hashed_ids(
    database: AsyncDatabase, hashed: AsyncSQLAlchemyAdapter, time: Time
) -> None:
    """``Auth`` works the same: idle sessions are renewed, used ids accepted, devices revoked."""
    auth = to_auth(hashed, clock=time, session_expires_in=SessionExpiry())
    session = await auth.create_session("u1", metadata={"agent": "x"})
    time.advance(SessionExpiry().active * 1.5)
    renewed = await auth.validate_session(session.session_id)
    assert renewed.fresh
    assert (await auth.validate_session(session.session_id)).session_id == renewed.session_id
    assert (await auth.get_session(renewed.session_id)).metadata == {"agent": "x"}
    other = await auth.create_session("u1")
    assert {device.handle for device in await auth.get_all_user_sessions("u1")} == {
        other.handle,
        session.handle,
    }
    assert await auth.invalidate_user_session("u1", other.handle) is True
    assert await auth.invalidate_all_user_sessions("u1", keep=session.session_id) is True
    assert await stored(database) == {RING.stored(renewed.session_id)}
    await auth.invalidate_session(session.session_id)
    assert await stored(database) == set()
