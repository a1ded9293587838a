"""The SQLAlchemy adapters when a database rolls back a transaction because of another one."""

import logging
from collections.abc import AsyncIterator, Generator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from sqlalchemy import Connection, MetaData, event, text
from sqlalchemy.exc import DBAPIError

from lucia._async.stores import sql_transactions as adapters
from lucia._logs import revocation
from lucia._rules.database_errors import MAX_ATTEMPTS
from lucia._sqlalchemy.sources import was_rolled_back
from lucia._testing.racing_calls import AsyncRacingCalls
from lucia.adapters.sqlalchemy import AsyncSQLAlchemyAdapter, AuthTables
from lucia.errors import DuplicateKeyId, DuplicateSessionId
from lucia.models import KeyRow, SessionRow
from tests.support.clocks import NOW, Time
from tests.support.databases import AsyncDatabase
from tests.support.deadlocks import Rivals
from tests.support.sql_servers import SqlServer

METADATA = MetaData()
TABLES = AuthTables(METADATA, sessions=True)

HOUR = 3_600_000


@pytest.fixture
async def database(sql_server: SqlServer) -> AsyncIterator[AsyncDatabase]:
    """Yield an empty database on each kind of server."""
    made = AsyncDatabase(METADATA, server=sql_server)
    async with made:
        yield made


@pytest.fixture
async def adapter(database: AsyncDatabase, time: Time) -> AsyncSQLAlchemyAdapter:
    """Return an adapter that opens its own transactions, with two sessions of the user u1."""
    made = AsyncSQLAlchemyAdapter(database.engine, TABLES, clock=time)
    await made.set_user("u1", {}, None)
    await made.set_session(session("used"))
    await made.set_session(session("other"))
    return made


@pytest.fixture
def rivals(sql_server: SqlServer, database: AsyncDatabase) -> Generator[Rivals]:
    """Yield transactions that conflict with those of the adapter."""
    made = Rivals(sql_server, database.engine)
    yield made
    made.close()


def session(session_id: str) -> SessionRow:
    """Return a live session of the user u1."""
    ends = {"active_expires": NOW + HOUR, "idle_expires": NOW + 2 * HOUR}
    return SessionRow(id=session_id, user_id="u1", attributes={}, **ends)


def lock_before(rivals: Rivals, statement: str, times: int) -> AbstractContextManager[list[Any]]:
    """Lock the user and then a session, in the reverse order of the adapter."""
    return rivals.lock(
        statement,
        "SELECT id FROM auth_user WHERE id = 'u1' FOR UPDATE",
        "SELECT id FROM auth_session WHERE id = 'used' FOR UPDATE",
        times,
    )


async def ids(adapter: AsyncSQLAlchemyAdapter) -> list[str]:
    """Return the ids of the user's live sessions."""
    return sorted(row.id for row in await adapter.get_sessions_by_user_id("u1"))


@pytest.mark.parametrize("place", [0, 1], ids=["engine", "sessionmaker"])
async def test_own_transaction_is_repeated(
    database: AsyncDatabase,
    adapter: AsyncSQLAlchemyAdapter,
    rivals: Rivals,
    time: Time,
    place: int,
) -> None:
    """After a deadlock the adapter retries its own transaction, which takes effect once."""
    source: Any = database.sources(database.engine)[place]
    repeating = AsyncSQLAlchemyAdapter(source, TABLES, clock=time)
    with lock_before(rivals, "INSERT INTO auth_session", times=2) as met:
        renewed = await repeating.renew_session("used", session("new"), grace=0)
    assert len(met) == 2
    assert renewed == session("new")
    assert await ids(adapter) == ["new", "other"]


async def test_deadlock_without_another_attempt(
    monkeypatch: pytest.MonkeyPatch,
    adapter: AsyncSQLAlchemyAdapter,
    rivals: Rivals,
) -> None:
    """The deadlock is real: an adapter with a single attempt raises the database's error."""
    monkeypatch.setattr(adapters, "MAX_ATTEMPTS", 1)
    lock = lock_before(rivals, "INSERT INTO auth_session", times=1)
    with lock as met, pytest.raises(DBAPIError) as caught:
        await adapter.renew_session("used", session("new"), grace=0)
    assert len(met) == 1
    assert was_rolled_back(caught.value)
    assert await ids(adapter) == ["other", "used"]


async def test_attempts_are_bounded(adapter: AsyncSQLAlchemyAdapter, rivals: Rivals) -> None:
    """If every attempt ends in a deadlock, the last error is raised, and nothing is stored."""
    lock = lock_before(rivals, "INSERT INTO auth_session", times=2 * MAX_ATTEMPTS)
    with lock as met, pytest.raises(DBAPIError) as caught:
        await adapter.renew_session("used", session("new"), grace=0)
    assert len(met) == MAX_ATTEMPTS
    assert was_rolled_back(caught.value)
    assert caught.value.params is None
    assert await ids(adapter) == ["other", "used"]


async def test_callers_transaction_is_not_repeated(
    database: AsyncDatabase,
    adapter: AsyncSQLAlchemyAdapter,
    rivals: Rivals,
    time: Time,
) -> None:
    """In the caller's session the error is raised at once: the caller has to retry all of it."""
    async with database.session(database.engine) as mine:
        inside = AsyncSQLAlchemyAdapter(mine, TABLES, clock=time)
        await inside.delete_session("other")
        lock = lock_before(rivals, "INSERT INTO auth_session", times=2)
        with lock as met, pytest.raises(DBAPIError) as caught:
            await inside.renew_session("used", session("new"), grace=0)
        assert len(met) == 1
        assert was_rolled_back(caught.value)
        await mine.rollback()
    assert await ids(adapter) == ["other", "used"]


async def test_callers_connection_is_not_repeated(
    database: AsyncDatabase,
    adapter: AsyncSQLAlchemyAdapter,
    rivals: Rivals,
    time: Time,
) -> None:
    """A sessionmaker on the caller's connection joins its transaction: no retry either."""
    async with database.engine.connect() as mine:
        await mine.execute(text("DELETE FROM auth_session WHERE id = 'other'"))
        source = database.sessionmaker_of(mine)
        inside = AsyncSQLAlchemyAdapter(source, TABLES, clock=time)
        lock = lock_before(rivals, "INSERT INTO auth_session", times=2)
        with lock as met, pytest.raises(DBAPIError) as caught:
            await inside.renew_session("used", session("new"), grace=0)
        assert len(met) == 1
        assert was_rolled_back(caught.value)
    assert await ids(adapter) == ["other", "used"]


async def test_revoked_sessions_are_counted_once(
    caplog: pytest.LogCaptureFixture,
    adapter: AsyncSQLAlchemyAdapter,
    rivals: Rivals,
) -> None:
    """The log line has the number of revoked sessions, without those that were rolled back."""
    lock = lock_before(rivals, "DELETE FROM auth_user", times=2)
    with caplog.at_level(logging.INFO, "lucia"), revocation("u1"), lock as met:
        await adapter.delete_user("u1")
    assert len(met) == 2
    assert [record.__dict__["count"] for record in caplog.records] == [2]
    assert await adapter.get_user("u1") is None


@pytest.mark.parametrize("attempts", [1, MAX_ATTEMPTS])
async def test_changed_row_is_read_again(
    monkeypatch: pytest.MonkeyPatch,
    database: AsyncDatabase,
    adapter: AsyncSQLAlchemyAdapter,
    rivals: Rivals,
    time: Time,
    attempts: int,
) -> None:
    """If a row has changed since it was read, and the write is refused, it is read again."""
    set_snapshot_isolation(database, "ON")
    monkeypatch.setattr(adapters, "MAX_ATTEMPTS", attempts)
    await adapter.renew_session("used", session("new"), grace=0)
    time.advance(timedelta(minutes=2))  # so the next renewal sweeps "used"
    engine = database.engine.execution_options(isolation_level="REPEATABLE READ")
    repeating = AsyncSQLAlchemyAdapter(engine, TABLES, clock=time)
    change = "UPDATE auth_session SET idle_expires = idle_expires + 1 WHERE id = 'used'"
    refused = pytest.raises(DBAPIError) if attempts == 1 else nullcontext()
    with rivals.change("DELETE FROM auth_session", change, place=0) as made, refused:
        assert await repeating.renew_session("new", session("newer"), grace=0)
    assert made == [change]
    assert await ids(adapter) == (["new", "other"] if attempts == 1 else ["newer", "other"])


@pytest.fixture
async def late_renewal(adapter: AsyncSQLAlchemyAdapter) -> Sequence[str]:
    """Return statements that renew "new", the successor of "used", to "newer"."""
    await adapter.renew_session("used", session("new"), grace=0)
    columns = "user_id, active_expires, idle_expires, attributes"
    insert = f"INSERT INTO auth_session (id, {columns})"
    return (
        "UPDATE auth_session SET successor = 'newer' WHERE id = 'new'",
        f"{insert} SELECT 'newer', {columns} FROM auth_session WHERE id = 'new'",
    )


@pytest.fixture
def snapshots_differ(database: AsyncDatabase) -> None:
    """Let reads see older rows than writes do, as MySQL does, and MariaDB before 11.6.2."""

    set_snapshot_isolation(database, "OFF")


def set_snapshot_isolation(database: AsyncDatabase, value: str) -> None:
    """Set whether MariaDB refuses to write to rows that have changed since they were read."""

    def set_option(connection: Connection) -> None:
        connection.exec_driver_sql(f"SET SESSION innodb_snapshot_isolation = {value}")

    engine: Any = database.engine
    if engine.dialect.name == "mariadb":
        event.listen(getattr(engine, "sync_engine", engine), "begin", set_option)


@pytest.mark.usefixtures("snapshots_differ")
async def test_revocation_sees_a_renewal_meanwhile(
    adapter: AsyncSQLAlchemyAdapter,
    rivals: Rivals,
    late_renewal: Sequence[str],
) -> None:
    """Revoking a used session revokes its newest successor, even one that was created meanwhile."""
    # The second DELETE is of "used", and the third one of "new".
    with rivals.change("DELETE FROM auth_session", *late_renewal, place=1) as made:
        await adapter.delete_session("used")
    assert made
    assert await ids(adapter) == ["other"]


@pytest.mark.usefixtures("snapshots_differ")
async def test_keeping_sees_a_renewal_meanwhile(
    adapter: AsyncSQLAlchemyAdapter,
    rivals: Rivals,
    late_renewal: Sequence[str],
) -> None:
    """A session is kept under its newest id, even if it was renewed meanwhile."""
    # The first UPDATE is of "used", and the second one of "new".
    with rivals.change("UPDATE auth_session", *late_renewal, place=1) as made:
        assert await adapter.delete_other_sessions("u1", "used")
    assert made
    assert await ids(adapter) == ["newer"]


@pytest.fixture
async def late(
    snapshots_differ: None,
    database: AsyncDatabase,
    adapter: AsyncSQLAlchemyAdapter,
    time: Time,
) -> AsyncIterator[AsyncSQLAlchemyAdapter]:
    """Yield an adapter over a caller's session that has read before other transactions commit.

    Where the database works on snapshots, later reads without a lock are out of date.
    """
    async with database.session(database.engine) as mine:
        made = AsyncSQLAlchemyAdapter(mine, TABLES, clock=time)
        assert await made.get_session("used") == session("used")
        assert await made.get_key("email:u1") is None
        yield made
        await mine.rollback()


async def test_keeping_after_another_sign_out(
    late: AsyncSQLAlchemyAdapter,
    adapter: AsyncSQLAlchemyAdapter,
    database: AsyncDatabase,
) -> None:
    """Revoking the others works if another transaction has revoked one of them meanwhile."""
    await adapter.delete_session("other")
    with at_most(database, statements=20):
        assert await late.delete_other_sessions("u1", "used")


async def test_renewal_after_another_renewal(
    late: AsyncSQLAlchemyAdapter,
    adapter: AsyncSQLAlchemyAdapter,
) -> None:
    """A renewal within the grace returns the successor that another transaction stored."""
    await adapter.renew_session("used", session("new"), grace=HOUR)
    assert await late.renew_session("used", session("newer"), grace=HOUR) == session("new")


async def test_key_that_another_user_has_taken(
    late: AsyncSQLAlchemyAdapter,
    adapter: AsyncSQLAlchemyAdapter,
) -> None:
    """A key that another transaction stored meanwhile is DuplicateKeyId, and no database error."""
    await adapter.set_key(key("u1"))
    with pytest.raises(DuplicateKeyId):
        await late.set_user("u2", {}, key("u2"))


async def test_session_id_that_is_taken(
    late: AsyncSQLAlchemyAdapter,
    adapter: AsyncSQLAlchemyAdapter,
) -> None:
    """A session id that another transaction stored meanwhile is DuplicateSessionId."""
    await adapter.set_session(session("new"))
    with pytest.raises(DuplicateSessionId):
        await late.set_session(session("new"))


def key(user_id: str) -> KeyRow:
    """Return a key with the same id for each user."""
    return KeyRow(
        id="email:u1", user_id=user_id, hashed_password=None, primary_key=True, expires=None
    )


@contextmanager
def at_most(database: AsyncDatabase, statements: int) -> Generator[None]:
    """Raise an error once more statements than this are executed."""
    left = statements

    def count(*_: object) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise AssertionError(f"more than {statements} statements")

    engine: Any = database.engine
    engine = getattr(engine, "sync_engine", engine)
    event.listen(engine, "before_cursor_execute", count)
    try:
        yield
    finally:
        event.remove(engine, "before_cursor_execute", count)


async def sign_out_amid_calls(adapter: AsyncSQLAlchemyAdapter, rounds: int) -> None:
    """Revoke all sessions while ten are renewed and ten are created."""
    for round_ in range(rounds):
        # "new" sorts before "used": the revocation may have passed this part of the index already.
        before = [f"{round_} used {number}" for number in range(10)]
        logins = {f"{round_} login {number}" for number in range(10)}
        for id_ in before:
            await adapter.set_session(session(id_))
        renew = partial(adapter.renew_session, grace=0)
        calls: list[Any] = [partial(adapter.set_session, session(id_)) for id_ in logins]
        calls += [partial(renew, id_, session(id_.replace("used", "new"))) for id_ in before]
        calls.insert(7 * round_ % 20, partial(adapter.delete_sessions_by_user_id, "u1"))
        await AsyncRacingCalls.gather_results(*calls)
        assert set(await ids(adapter)) <= logins
        await adapter.delete_sessions_by_user_id("u1")


async def test_sign_out_during_renewals_and_logins(adapter: AsyncSQLAlchemyAdapter) -> None:
    """No call fails, and no session from before is left, nor a successor of one."""
    await sign_out_amid_calls(adapter, rounds=3)


@pytest.mark.slow
async def test_many_sign_outs_during_renewals_and_logins(adapter: AsyncSQLAlchemyAdapter) -> None:
    """In many rounds, no call fails, and no session from before is left."""
    await sign_out_amid_calls(adapter, rounds=20)
