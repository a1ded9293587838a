"""The SQLAlchemy adapters on SQLite and MariaDB, beyond the conformance suites."""

import logging
import traceback
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Column, Integer, MetaData, String, Table, Text, event, func, select, text
from sqlalchemy.exc import IntegrityError, OperationalError, StatementError
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from lucia._testing.racing_calls import AsyncRacingCalls
from lucia.adapters.sqlalchemy import AsyncSQLAlchemyAdapter, AsyncSQLAlchemyUserAdapter, AuthTables
from lucia.errors import DuplicateKeyId, DuplicateSessionId, InvalidUserId
from lucia.models import KeyRow, SessionRow, UserRow
from tests.support.databases import AsyncDatabase

NOW = 1_800_000_000_000
HASH = "$scrypt$ln=15,r=8,p=3$a-salt-that-nobody-may-see$a-hash-that-nobody-may-see"


class Base(DeclarativeBase):
    """The base class of an application's models."""


class Member(Base):
    """An application's own users, in columns with other names than the attributes."""

    __tablename__ = "member"
    member_id: Mapped[str] = mapped_column("pk", String(255), primary_key=True)
    email: Mapped[str] = mapped_column("email_address", String(255), unique=True)
    visits: Mapped[int] = mapped_column(default=1)
    nickname: Mapped[str | None] = mapped_column(String(255))


TABLES = AuthTables(Base.metadata, user=Member, sessions=True)


on_sqlite = pytest.mark.parametrize("database", ["driver's BEGIN", "explicit BEGIN"], indirect=True)
"""Run a test that has SQL in SQLite's dialect on SQLite only."""


class Time:
    """A clock that stands still until a test moves it."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> int:
        return self.now


@pytest.fixture(params=["driver's BEGIN", "explicit BEGIN", "mariadb"])
async def database(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[AsyncDatabase]:
    """Yield a database with the application's own user table, once for each kind.

    SQLite comes with the driver's own BEGIN, and with the explicit one that SQLAlchemy's
    documentation recommends. In MariaDB, the collation of the user table's id ignores case and
    accents.
    """
    server = request.getfixturevalue("mariadb") if request.param == "mariadb" else None
    explicit_begin = request.param == "explicit BEGIN"
    made = AsyncDatabase(
        Base.metadata, tmp_path / "app.db", server=server, explicit_begin=explicit_begin
    )
    async with made:
        yield made


@pytest.fixture
def adapter(database: AsyncDatabase, time: Time) -> AsyncSQLAlchemyAdapter:
    """Return an adapter that opens its own transactions."""
    return AsyncSQLAlchemyAdapter(database.engine, TABLES, clock=time)


def key(name: str = "alice", user_id: str = "u1", **changes: Any) -> KeyRow:
    """Return a user's primary key."""
    row = KeyRow(
        id=f"email:{name}@example.com",
        user_id=user_id,
        hashed_password=HASH,
        primary_key=True,
        expires=None,
    )
    return replace(row, **changes)


def session(session_id: str, user_id: str = "u1", **changes: Any) -> SessionRow:
    """Return a live session."""
    row = SessionRow(
        id=session_id,
        user_id=user_id,
        active_expires=NOW + 1_000,
        idle_expires=NOW + 1_000_000,
        attributes={"handle": "h"},
    )
    return replace(row, **changes)


async def add_alice(adapter: AsyncSQLAlchemyUserAdapter) -> UserRow:
    """Store the user u1 with a primary key."""
    return await adapter.set_user("u1", {"email": "alice@example.com"}, key())


async def scalars(database: AsyncDatabase, statement: str) -> Sequence[Any]:
    """Return the first column of a SELECT, executed outside of any adapter."""
    async with database.engine.begin() as connection:
        return (await connection.execute(text(statement))).scalars().all()


async def run(database: AsyncDatabase, *statements: str) -> None:
    """Execute statements outside of any adapter."""
    async with database.engine.begin() as connection:
        for statement in statements:
            await connection.execute(text(statement))


def everything_shown(error: BaseException) -> str:
    """Return all text that a log of the error would contain."""
    return "".join(traceback.format_exception(error)) + str(error) + repr(error)


# Sources


async def test_engine_and_sessionmaker(database: AsyncDatabase) -> None:
    """With an engine or a sessionmaker, each call runs in its own transaction and is committed."""
    sources: Sequence[Any] = database.sources(database.engine)
    for number, source in enumerate(sources):
        adapter = AsyncSQLAlchemyUserAdapter(source, TABLES)
        stored = await adapter.set_user(f"u{number}", {"email": f"{number}@example.com"}, None)
        assert stored == await AsyncSQLAlchemyUserAdapter(database.engine, TABLES).get_user(
            f"u{number}"
        )


async def test_wrong_source() -> None:
    """A source of the other flavour, or none at all, is refused when the adapter is created."""
    for source in AsyncDatabase.wrong_sources():
        with pytest.raises(
            TypeError, match=f"UserAdapter takes one of .*, not .*{type(source).__name__}"
        ):
            AsyncSQLAlchemyUserAdapter(source, TABLES)


async def test_sessions_need_their_table(database: AsyncDatabase) -> None:
    """Tables without sessions are refused by the adapter that stores sessions."""
    with pytest.raises(ValueError, match="sessions=True"):
        AsyncSQLAlchemyAdapter(database.engine, AuthTables(MetaData()))


async def test_rollback_of_the_callers_transaction(
    database: AsyncDatabase, adapter: AsyncSQLAlchemyAdapter
) -> None:
    """With the caller's session nothing is committed: a rollback undoes the adapter's work."""
    async with database.session(database.engine) as mine:
        inside = AsyncSQLAlchemyAdapter(mine, TABLES)
        await add_alice(inside)
        await inside.set_session(session("s1"))
        await inside.renew_session("s1", session("s2"), grace=0)
        assert await inside.get_session_and_user_by_session_id("s2") is not None
        await mine.rollback()
    assert await adapter.get_user("u1") is None
    assert await adapter.get_key(key().id) is None
    assert await adapter.get_sessions_by_user_id("u1") == []


async def test_commit_of_the_callers_transaction(
    database: AsyncDatabase, adapter: AsyncSQLAlchemyAdapter
) -> None:
    """The caller's pending objects are flushed before a read, and committed by the caller."""
    async with database.session(database.engine) as mine:
        mine.add(Member(member_id="u1", email="alice@example.com"))
        inside = AsyncSQLAlchemyAdapter(mine, TABLES)
        await inside.set_key(key())
        mine.add(Member(member_id="u2", email="bob@example.com"))
        assert await inside.get_user("u2") is not None
        await mine.commit()
    assert await adapter.get_key(key().id) == key()


async def test_duplicate_in_the_callers_transaction(
    database: AsyncDatabase, adapter: AsyncSQLAlchemyAdapter
) -> None:
    """A refused write is undone alone, and the caller's transaction goes on."""
    await add_alice(adapter)
    async with database.session(database.engine) as mine:
        inside = AsyncSQLAlchemyAdapter(mine, TABLES)
        await inside.set_user("u2", {"email": "bob@example.com"}, key("bob", "u2"))
        with pytest.raises(DuplicateKeyId):
            await inside.set_user("u3", {"email": "carol@example.com"}, key("alice", "u3"))
        with pytest.raises(DuplicateKeyId):
            await inside.set_key(key("alice", "u2"))
        with pytest.raises(InvalidUserId):
            await inside.set_key(key("nobody", "u4"))
        with pytest.raises(IntegrityError):
            await inside.set_user("u5", {"email": "bob@example.com"}, None)
        await inside.set_session(session("s1", "u2"))
        await mine.commit()
    assert await scalars(database, "SELECT pk FROM member ORDER BY pk") == ["u1", "u2"]
    assert await scalars(database, "SELECT id FROM auth_session") == ["s1"]


async def test_error_in_what_the_caller_added(
    database: AsyncDatabase, adapter: AsyncSQLAlchemyAdapter
) -> None:
    """A constraint violated by the caller's own pending objects is the caller's IntegrityError."""
    await add_alice(adapter)
    async with database.session(database.engine) as mine:
        mine.add(Member(member_id="u2", email="alice@example.com"))
        with pytest.raises(IntegrityError):
            await AsyncSQLAlchemyUserAdapter(mine, TABLES).set_key(key())


# Users and keys


async def test_attributes_are_named_as_in_the_class(adapter: AsyncSQLAlchemyAdapter) -> None:
    """Attributes have the names of the mapped class, with defaults; plain rows are returned."""
    stored = await adapter.set_user("u1", {"email": "alice@example.com"}, None)
    assert type(stored) is UserRow
    assert stored == UserRow(
        id="u1", attributes={"email": "alice@example.com", "visits": 1, "nickname": None}
    )
    changed = await adapter.update_user_attributes("u1", {"visits": 2, "nickname": "Al"})
    assert changed == UserRow(
        id="u1", attributes={"email": "alice@example.com", "visits": 2, "nickname": "Al"}
    )
    assert await adapter.update_user_attributes("u1", {}) == changed


@pytest.mark.parametrize("name", ["email_address", "password", "member_id", "pk", "id"])
async def test_unknown_attribute(adapter: AsyncSQLAlchemyAdapter, name: str) -> None:
    """An unknown attribute, or the id as one, is a ValueError, and nothing is stored.

    Its message names the existing attributes.
    """
    stored = await add_alice(adapter)
    with pytest.raises(ValueError, match=f"{name}; its attributes are: email, nickname, visits"):
        await adapter.set_user("u2", {"email": "bob@example.com", name: "x"}, None)
    with pytest.raises(ValueError, match=f"{name}; its attributes are"):
        await adapter.update_user_attributes("u1", {"visits": 9, name: "x"})
    assert await adapter.get_user("u2") is None
    assert await adapter.get_user("u1") == stored


@on_sqlite
async def test_missing_attribute(adapter: AsyncSQLAlchemyAdapter) -> None:
    """Without a value for a required column, the database's own error is raised."""
    with pytest.raises(IntegrityError):
        await adapter.set_user("u1", {}, key())
    assert await adapter.get_key(key().id) is None


async def test_duplicate_attribute(adapter: AsyncSQLAlchemyAdapter) -> None:
    """A violated constraint on the application's columns is the database's own error.

    Neither the user nor the key is stored.
    """
    await add_alice(adapter)
    with pytest.raises(IntegrityError) as caught:
        await adapter.set_user("u2", {"email": "alice@example.com"}, key("bob", "u2"))
    assert "email_address" in str(caught.value)
    assert await adapter.get_key(key("bob").id) is None
    await adapter.set_user("u2", {"email": "bob@example.com"}, None)
    with pytest.raises(IntegrityError):
        await adapter.update_user_attributes("u2", {"email": "alice@example.com"})


async def test_second_sign_up(adapter: AsyncSQLAlchemyAdapter) -> None:
    """A taken key is DuplicateKeyId, even if an application's constraint is violated first.

    This happens if the same person signs up twice with the same e-mail address.
    """
    await add_alice(adapter)
    with pytest.raises(DuplicateKeyId):
        await adapter.set_user("u2", {"email": "alice@example.com"}, key("alice", "u2"))
    assert await adapter.get_user("u2") is None


@pytest.mark.parametrize("foreign_keys", ["ON", "OFF"])
async def test_missing_user(tmp_path: Path, foreign_keys: str) -> None:
    """A key or a session of an unknown user is InvalidUserId, with or without foreign keys."""
    database = AsyncDatabase(Base.metadata, tmp_path / "app.db")
    event.listen(
        database.engine.pool,
        "connect",
        lambda connection, _: connection.execute(f"PRAGMA foreign_keys={foreign_keys}"),
    )
    async with database as engine:
        adapter = AsyncSQLAlchemyAdapter(engine, TABLES)
        with pytest.raises(InvalidUserId):
            await adapter.set_key(key())
        with pytest.raises(InvalidUserId):
            await adapter.set_session(session("s1"))
        assert (
            await scalars(database, "SELECT id FROM auth_key UNION SELECT id FROM auth_session")
            == []
        )


@pytest.mark.parametrize("foreign_keys", ["ON", "OFF"])
async def test_delete_user(tmp_path: Path, foreign_keys: str) -> None:
    """Deleting a user also deletes their keys and sessions, with or without foreign keys.

    So a key or a session created at the same time does not prevent the deletion.
    """
    database = AsyncDatabase(Base.metadata, tmp_path / "app.db")
    event.listen(
        database.engine.pool,
        "connect",
        lambda connection, _: connection.execute(f"PRAGMA foreign_keys={foreign_keys}"),
    )
    async with database as engine:
        adapter = AsyncSQLAlchemyAdapter(engine, TABLES)
        await add_alice(adapter)
        await adapter.set_session(session("s1"))
        await adapter.delete_user("u1")
        assert (
            await scalars(
                database,
                "SELECT pk FROM member UNION SELECT id FROM auth_key"
                " UNION SELECT id FROM auth_session",
            )
            == []
        )


@on_sqlite
async def test_other_constraint(database: AsyncDatabase, adapter: AsyncSQLAlchemyAdapter) -> None:
    """A constraint error of another kind is raised unchanged."""
    await add_alice(adapter)
    await run(
        database,
        "CREATE TRIGGER full BEFORE INSERT ON auth_key"
        " BEGIN SELECT RAISE(ABORT, 'no more keys'); END",
    )
    with pytest.raises(IntegrityError, match="no more keys"):
        await adapter.set_key(key("alice2"))


async def test_single_use_key_is_consumed_once(adapter: AsyncSQLAlchemyAdapter) -> None:
    """Of several concurrent uses of a key, exactly one counts."""
    await add_alice(adapter)
    for number in range(5):
        single_use = key(f"reset{number}", primary_key=False, expires=NOW)
        await adapter.set_key(single_use)
        counts: list[Any] = await AsyncRacingCalls.gather_results(
            *[partial(adapter.delete_non_primary_key, single_use.id)] * 6
        )
        assert sorted(counts) == [0, 0, 0, 0, 0, 1]


async def test_many_keys(adapter: AsyncSQLAlchemyAdapter) -> None:
    """More ids than fit into one statement are deleted and counted once; primary keys stay."""
    await add_alice(adapter)
    names = [f"k{number}" for number in range(3)]
    for name in names:
        await adapter.set_key(key(name, primary_key=False))
    wanted = [key(name).id for name in names]
    unknown = [f"email:unknown{number}" for number in range(1_500)]
    assert await adapter.delete_non_primary_key(wanted[0], *unknown, *wanted, key().id) == 3
    assert await adapter.get_keys_by_user_id("u1") == [key()]
    await adapter.delete_keys_by_user_id("u1")
    assert await adapter.get_keys_by_user_id("u1") == []


async def test_password_is_set_by_comparison(adapter: AsyncSQLAlchemyAdapter) -> None:
    """With ``expected``, the hash changes only if it equals that; None means no password."""
    await add_alice(adapter)
    assert await adapter.update_key_password(key().id, "new", expected="another") is None
    assert await adapter.update_key_password(key().id, "new", expected=None) is None
    assert await adapter.get_key(key().id) == key()
    assert await adapter.update_key_password(key().id, None, expected=HASH) == key(
        hashed_password=None
    )
    assert await adapter.update_key_password(key().id, "new", expected=None) == key(
        hashed_password="new"
    )
    assert await adapter.update_key_password(key().id, HASH) == key()
    assert await adapter.update_key_password("email:unknown", HASH) is None


@on_sqlite
@pytest.mark.parametrize(
    "user_id", ["x" * 10_240, "{a}:{b}", "ÄÖ 漢字 \U0001f600", "'; DROP TABLE member; --", "%s :id"]
)
async def test_any_user_id(adapter: AsyncSQLAlchemyAdapter, user_id: str) -> None:
    """A user id may be any text."""
    await adapter.set_user(user_id, {"email": "alice@example.com"}, key(user_id=user_id))
    await adapter.set_session(session("s1", user_id))
    found = await adapter.get_session_and_user_by_session_id("s1")
    assert found is not None
    assert (found[0], found[1].id) == (session("s1", user_id), user_id)
    assert [row.user_id for row in await adapter.get_keys_by_user_id(user_id)] == [user_id]


# Sessions


async def test_session_and_user_in_one_query(
    database: AsyncDatabase, adapter: AsyncSQLAlchemyAdapter
) -> None:
    """A session and its user are read by one statement."""
    user = await add_alice(adapter)
    await adapter.set_session(session("s1"))
    statements: list[str] = []
    event.listen(
        getattr(database.engine, "sync_engine", database.engine),
        "before_cursor_execute",
        lambda *given: statements.append(given[2]),
    )
    assert await adapter.get_session_and_user_by_session_id("s1") == (session("s1"), user)
    assert len([statement for statement in statements if statement != "BEGIN"]) == 1
    assert await adapter.get_session_and_user_by_session_id("s2") is None


async def test_attributes_of_sessions(adapter: AsyncSQLAlchemyAdapter) -> None:
    """A session's attributes are stored as JSON and returned."""
    await add_alice(adapter)
    row = session(
        "s1", attributes={"noted": {"agent": "Ünïcode", "list": [1, None, True]}, "created_at": NOW}
    )
    await adapter.set_session(row)
    assert await adapter.get_session("s1") == row


async def test_duplicate_session(adapter: AsyncSQLAlchemyAdapter) -> None:
    """A taken id is DuplicateSessionId, for a login and for a renewal, and changes nothing."""
    await add_alice(adapter)
    await adapter.set_session(session("s1"))
    await adapter.set_session(session("s2"))
    with pytest.raises(DuplicateSessionId):
        await adapter.set_session(session("s1"))
    with pytest.raises(DuplicateSessionId):
        await adapter.renew_session("s1", session("s2"), grace=60_000)
    assert await adapter.get_sessions_by_user_id("u1") == [session("s1"), session("s2")]


async def test_parallel_renewals(database: AsyncDatabase, adapter: AsyncSQLAlchemyAdapter) -> None:
    """Concurrent renewals of a session store one successor, which all get within the grace."""
    await add_alice(adapter)
    await adapter.set_session(session("s0"))
    calls = [
        partial(adapter.renew_session, "s0", session(f"new{number}"), grace=10_000)
        for number in range(8)
    ]
    results: list[Any] = await AsyncRacingCalls.gather_results(*calls)
    assert len({result.id for result in results}) == 1
    assert await adapter.get_sessions_by_user_id("u1") == [results[0]]
    assert await adapter.get_session("s0") is None


async def test_parallel_renewals_without_grace(adapter: AsyncSQLAlchemyAdapter) -> None:
    """With a grace of 0, one renewal gets the successor and the others get None."""
    await add_alice(adapter)
    await adapter.set_session(session("s0"))
    calls = [
        partial(adapter.renew_session, "s0", session(f"new{number}"), grace=0)
        for number in range(5)
    ]
    results = [
        result for result in await AsyncRacingCalls.gather_results(*calls) if result is not None
    ]
    assert results == await adapter.get_sessions_by_user_id("u1")
    assert len(results) == 1


async def test_renewal_during_revocation(adapter: AsyncSQLAlchemyAdapter) -> None:
    """A session that is revoked during its renewal is revoked together with its successor."""
    await add_alice(adapter)
    for number in range(12):
        used, new = f"used{number}", session(f"new{number}")
        await adapter.set_session(session(used))
        end = (
            partial(adapter.delete_session, used)
            if number % 2
            else partial(adapter.delete_sessions_by_user_id, "u1")
        )
        calls = [partial(adapter.renew_session, used, new, grace=0), end]
        await AsyncRacingCalls.gather_results(*(calls if number % 3 else reversed(calls)))
        assert await adapter.get_sessions_by_user_id("u1") == []


async def test_renewal_of_the_kept_session(adapter: AsyncSQLAlchemyAdapter) -> None:
    """If a session is renewed while it is kept, its successor is the only session left."""
    await add_alice(adapter)
    for number in range(8):
        used, new = f"used{number}", session(f"new{number}")
        await adapter.set_session(session(used))
        await adapter.set_session(session(f"other{number}"))
        calls = [
            partial(adapter.renew_session, used, new, grace=0),
            partial(adapter.delete_other_sessions, "u1", used),
            partial(adapter.renew_session, f"other{number}", session(f"newer{number}"), grace=0),
        ]
        results = await AsyncRacingCalls.gather_results(*(calls if number % 2 else reversed(calls)))
        assert [kept for kept in results if isinstance(kept, bool)] == [True]
        assert await adapter.get_sessions_by_user_id("u1") == [new]
        await adapter.delete_session(new.id)


async def test_no_grace_for_a_clock_that_is_behind(
    adapter: AsyncSQLAlchemyAdapter, time: Time
) -> None:
    """After a renewal without grace, a used id has no successor even by a clock that is behind."""
    await add_alice(adapter)
    await adapter.set_session(session("s0"))
    await adapter.renew_session("s0", session("s1"), grace=0)
    time.now -= 1_000
    assert await adapter.get_successor("s0") is None


async def test_grace(adapter: AsyncSQLAlchemyAdapter, time: Time) -> None:
    """A used id has a successor while each renewal is within its grace, by the adapter's clock."""
    await add_alice(adapter)
    await adapter.set_session(session("s0"))
    assert await adapter.get_successor("s0") is None
    await adapter.renew_session("s0", session("s1"), grace=10_000)
    time.now += 4_000
    await adapter.renew_session("s1", session("s2"), grace=2_000)
    assert await adapter.get_successor("s0") == session("s2")
    assert await adapter.renew_session("s0", session("s3"), grace=10_000) == session("s2")
    time.now += 2_000
    assert await adapter.get_successor("s0") is None
    assert await adapter.get_successor("s1") is None


async def test_dead_ends(adapter: AsyncSQLAlchemyAdapter, time: Time) -> None:
    """An expired session and another user's are not renewed, and are no successors."""
    await add_alice(adapter)
    await adapter.set_user("u2", {"email": "bob@example.com"}, None)
    await adapter.set_session(session("s0"))
    assert await adapter.renew_session("s0", session("s1", "u2"), grace=10_000) is None
    assert (
        await adapter.renew_session("s0", session("s1", idle_expires=NOW + 5), grace=10_000)
        is not None
    )
    assert await adapter.renew_session("s0", session("s2", "u2"), grace=10_000) is None
    time.now = NOW + 6
    assert await adapter.get_successor("s0") is None
    assert await adapter.renew_session("s1", session("s2"), grace=10_000) is None
    assert [row.id for row in await adapter.get_sessions_by_user_id("u1")] == ["s1"]


async def test_renewal_of_a_deleted_users_session(
    database: AsyncDatabase, adapter: AsyncSQLAlchemyAdapter
) -> None:
    """A session whose user row was deleted by other means is not renewed."""
    await add_alice(adapter)
    await adapter.set_session(session("s0"))
    await run(database, "DELETE FROM member")
    assert await adapter.renew_session("s0", session("s1"), grace=0) is None
    assert await adapter.get_sessions_by_user_id("u1") == []


async def test_endless_chain(database: AsyncDatabase, adapter: AsyncSQLAlchemyAdapter) -> None:
    """Rows that form a circle of successors keep no session, and do not hang.

    Only another program can write such rows.
    """
    await add_alice(adapter)
    await adapter.set_session(session("s0"))
    await run(database, "UPDATE auth_session SET successor = id, active_expires = idle_expires")
    assert await adapter.get_successor("s0") is None
    assert not await adapter.delete_other_sessions("u1", "s0")
    assert await scalars(database, "SELECT id FROM auth_session") == []


async def test_deleting_a_used_id(adapter: AsyncSQLAlchemyAdapter, time: Time) -> None:
    """For 60 seconds, whatever the grace, revoking a used id revokes its successor."""
    await add_alice(adapter)
    await adapter.set_session(session("a0"))
    await adapter.set_session(session("b0"))
    await adapter.renew_session("a0", session("a1"), grace=0)
    await adapter.renew_session("b0", session("b1"), grace=60_000)
    await adapter.renew_session("a1", session("a2"), grace=0)
    time.now += 60_000
    await adapter.delete_session("a0", "unknown", "a0")
    assert await adapter.get_sessions_by_user_id("u1") == [session("b1")]
    time.now += 1
    await adapter.delete_session("b0")
    assert await adapter.get_sessions_by_user_id("u1") == [session("b1")]


async def test_chain_of_deletions_is_bounded(
    database: AsyncDatabase, adapter: AsyncSQLAlchemyAdapter
) -> None:
    """Revoking a used id follows at most a hundred renewals."""
    await add_alice(adapter)
    await adapter.set_session(session("s0"))
    for number in range(102):
        await adapter.renew_session(f"s{number}", session(f"s{number + 1}"), grace=60_000)
    await adapter.delete_session("s0")
    assert await scalars(database, "SELECT id FROM auth_session ORDER BY id") == [
        "s100",
        "s101",
        "s102",
    ]


async def test_keep(adapter: AsyncSQLAlchemyAdapter, time: Time) -> None:
    """For 60 seconds, whatever the grace, keeping a used id keeps its successor.

    The used id still has that successor within its grace.
    """
    await add_alice(adapter)
    for name in ("a0", "b0", "c0"):
        await adapter.set_session(session(name))
    await adapter.renew_session("a0", session("a1"), grace=0)
    await adapter.renew_session("a1", session("a2"), grace=60_000)
    await adapter.renew_session("b0", session("b1"), grace=60_000)
    assert await adapter.delete_other_sessions("u1", "a0")
    assert await adapter.get_sessions_by_user_id("u1") == [session("a2")]
    assert await adapter.get_successor("a1") == session("a2")
    assert await adapter.get_successor("b0") is None
    time.now += 60_001
    assert not await adapter.delete_other_sessions("u1", "a0")
    assert await adapter.get_sessions_by_user_id("u1") == []


async def test_keep_of_an_unknown_session(adapter: AsyncSQLAlchemyAdapter) -> None:
    """If the session to keep is another user's, it stays, and all of this user's are removed."""
    await add_alice(adapter)
    await adapter.set_user("u2", {"email": "bob@example.com"}, None)
    await adapter.set_session(session("s1"))
    await adapter.set_session(session("s2", "u2"))
    assert not await adapter.delete_other_sessions("u1", "s2")
    assert await adapter.get_sessions_by_user_id("u1") == []
    assert await adapter.get_session("s2") == session("s2", "u2")


async def test_used_rows_do_not_pile_up(
    database: AsyncDatabase, adapter: AsyncSQLAlchemyAdapter, time: Time
) -> None:
    """A renewal deletes the user's used rows after 60 seconds, and no session."""
    await add_alice(adapter)
    await adapter.set_session(session("other", idle_expires=NOW + 1))
    await adapter.set_session(session("s0"))
    for number in range(6):
        await adapter.renew_session(f"s{number}", session(f"s{number + 1}"), grace=60_000)
        time.now += 60_001
    assert await scalars(database, "SELECT id FROM auth_session ORDER BY id") == [
        "other",
        "s5",
        "s6",
    ]


@on_sqlite
@pytest.mark.parametrize(
    "spoil",
    [
        "UPDATE auth_session SET attributes = '[]' WHERE id = 'spoilt-session'",
        "UPDATE auth_session SET attributes = '{\"id\": 1}' WHERE id = 'spoilt-session'",
        "UPDATE auth_session SET idle_expires = -1 WHERE id = 'spoilt-session'",
        "UPDATE auth_session SET active_expires = 'soon' WHERE id = 'spoilt-session'",
    ],
)
async def test_rows_that_are_no_sessions(
    database: AsyncDatabase,
    adapter: AsyncSQLAlchemyAdapter,
    caplog: pytest.LogCaptureFixture,
    spoil: str,
) -> None:
    """An unreadable row is no session, hides no other, and is logged without its content."""
    await add_alice(adapter)
    await adapter.set_session(session("spoilt-session"))
    await adapter.set_session(session("good"))
    await run(database, spoil)
    with caplog.at_level(logging.WARNING, "lucia"):
        assert await adapter.get_session("spoilt-session") is None
    assert await adapter.get_session_and_user_by_session_id("spoilt-session") is None
    assert await adapter.get_sessions_by_user_id("u1") == [session("good")]
    assert [record.levelname for record in caplog.records][:1] == ["WARNING"]
    assert "spoilt-session" not in caplog.text


# Errors


@on_sqlite
async def test_no_secrets_in_errors(
    database: AsyncDatabase, adapter: AsyncSQLAlchemyAdapter
) -> None:
    """The database's error is raised without ids, hashes or attributes in text and traceback."""
    await add_alice(adapter)
    await run(
        database,
        "CREATE TRIGGER quote BEFORE UPDATE ON auth_key BEGIN SELECT RAISE(ABORT, 'stop'); END",
    )
    await run(database, "DROP TABLE auth_session")
    calls: dict[type[StatementError], Any] = {
        OperationalError: partial(adapter.get_session, "the-id-of-a-session"),
        IntegrityError: partial(adapter.update_key_password, key().id, HASH, expected=HASH),
        StatementError: partial(
            adapter.update_user_attributes, "u1", {"visits": {"the-value-of": "an attribute"}}
        ),
    }
    for kind, call in calls.items():
        with pytest.raises(kind) as caught:
            await call()
        shown = everything_shown(caught.value)
        assert not [
            secret
            for secret in ("the-id-of-a-session", key().id, HASH, "the-value-of")
            if secret in shown
        ]
        assert caught.value.params is None


@pytest.mark.parametrize("kind", ["sqlite", "mariadb", "postgresql"])
async def test_no_values_in_errors(
    request: pytest.FixtureRequest, tmp_path: Path, kind: str
) -> None:
    """An error has its statement without values, and no text of it or its cause quotes one."""
    server = None if kind == "sqlite" else request.getfixturevalue(kind)
    async with AsyncDatabase(Base.metadata, tmp_path / "app.db", server=server) as engine:
        adapter = AsyncSQLAlchemyAdapter(engine, TABLES)
        address = (await add_alice(adapter)).attributes["email"]
        with pytest.raises(IntegrityError) as caught:
            await adapter.set_user("u2", {"email": address}, key("bob", "u2"))
    assert "INSERT INTO member" in (caught.value.statement or "")
    assert caught.value.params is None
    assert address not in everything_shown(caught.value)
    assert address not in everything_shown(caught.value.orig or caught.value)


async def test_library_errors_have_no_context(adapter: AsyncSQLAlchemyAdapter) -> None:
    """The library's errors have no context: the database's error may quote ids."""
    await add_alice(adapter)
    with pytest.raises(DuplicateKeyId) as caught:
        await adapter.set_key(key())
    assert caught.value.__context__ is None
    assert caught.value.__cause__ is None


# Tables of the library and of the application


async def test_library_user_table_in_memory() -> None:
    """The library's own user table has the given columns, also in a database in memory.

    One connection serves all calls there.
    """
    metadata = MetaData()
    tables = AuthTables(
        metadata,
        user_columns=[Column("email", Text, unique=True), Column("age", Integer, default=18)],
    )
    async with AsyncDatabase(metadata) as engine:
        adapter = AsyncSQLAlchemyUserAdapter(engine, tables)
        await adapter.set_user("u1", {"email": "alice@example.com"}, key())
        assert await adapter.get_user("u1") == UserRow(
            id="u1", attributes={"email": "alice@example.com", "age": 18}
        )
        assert await adapter.get_key(key().id) == key()
        await adapter.delete_user("u1")
        assert await adapter.get_user("u1") is None


async def test_application_table() -> None:
    """A plain table's columns go by their keys, and the names of the other tables can be chosen."""
    metadata = MetaData()
    people = Table(
        "people",
        metadata,
        Column("no", String(40), primary_key=True),
        Column("e-mail", Text, key="email"),
    )
    tables = AuthTables(
        metadata, user=people, sessions=True, key_table="people_key", session_table="people_session"
    )
    async with AsyncDatabase(metadata) as engine:
        adapter = AsyncSQLAlchemyAdapter(engine, tables)
        stored = await adapter.set_user("u1", {"email": "alice@example.com"}, key())
        await adapter.set_session(session("s1"))
        assert stored == UserRow(id="u1", attributes={"email": "alice@example.com"})
        async with engine.begin() as connection:
            count = (
                await connection.execute(
                    select(func.count()).select_from(metadata.tables["people_session"])
                )
            ).scalar_one()
            email = (await connection.execute(text('SELECT "e-mail" FROM people'))).scalar_one()
    assert (count, email) == (1, "alice@example.com")
