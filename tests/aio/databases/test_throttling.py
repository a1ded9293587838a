"""Failed logins counted in a database."""

import re
from collections.abc import Mapping, Sequence
from datetime import timedelta
from functools import partial
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import MetaData, select, text
from sqlalchemy.exc import DBAPIError, IntegrityError

from lucia import (
    AsyncAuth,
    AsyncThrottleStore,
    AsyncThrottlingSessionAdapter,
    Attempt,
    FailureLimit,
    FailureRule,
    InvalidCredentials,
    InvalidKeyId,
    PrimaryKey,
    Throttle,
    TooManyAttempts,
    User,
)
from lucia._memory.throttling import FailureLog
from lucia._rules.database_errors import MAX_ATTEMPTS
from lucia._rules.throttling import failure_name
from lucia._testing.racing_calls import AsyncRacingCalls
from lucia.adapters.sqlalchemy import AsyncSQLAlchemyAdapter, AsyncSQLAlchemyUserAdapter, AuthTables
from tests.support.clocks import NOW, Time
from tests.support.databases import AsyncDatabase, on_sqlite, sent_statements
from tests.support.passwords import ROOMY, CountingHash

PASSWORD = "correct horse battery staple"
ALICE: Final = ("username", "alice")
CODE: Final = ("code", "alice")
HOME: Final = "203.0.113.9"
SECOND: Final = 1_000
HOUR: Final = 3_600 * SECOND
RULE: Final = FailureRule(2, 10 * SECOND, 600 * SECOND, HOUR, HOUR)
A, B, C = (failure_name("key", text) for text in "abc")
LONG: Final = Throttle(by_key=FailureLimit(free=5, first_wait=timedelta(minutes=10)))
KEY, OLD = (bytes([number]) * 32 for number in (1, 2))

METADATA = MetaData()
TABLES = AuthTables(METADATA, sessions=True)


@pytest.fixture
def adapter(database: AsyncDatabase, time: Time) -> AsyncSQLAlchemyAdapter:
    """Return an adapter that opens its own transactions."""
    return AsyncSQLAlchemyAdapter(database.engine, TABLES, clock=time)


@pytest.fixture
def failures(adapter: AsyncSQLAlchemyAdapter) -> AsyncThrottleStore:
    """Return the adapter's store of failures."""
    return adapter.throttle_store()


@pytest.fixture
def hasher() -> CountingHash:
    """Return the hasher that ``Auth`` gets as ``hash=``."""
    return CountingHash()


@pytest.fixture
async def auth(
    adapter: AsyncSQLAlchemyAdapter, time: Time, hasher: CountingHash
) -> AsyncAuth[User]:
    """Return an ``Auth`` with failures in the database, and a user with a primary key."""
    made = AsyncAuth(
        users=adapter,
        sessions=adapter,
        env="DEV",
        clock=time,
        hash=hasher,
        password_pool=ROOMY,
        throttle=LONG,
    )
    await made.create_user(primary_key=PrimaryKey(*ALICE, PASSWORD))
    return made


async def rows(database: AsyncDatabase) -> dict[str, tuple[list[str], int]]:
    """Return the entries of each name, and when they expire."""
    table = METADATA.tables["auth_throttle"]
    async with database.engine.begin() as connection:
        found = (await connection.execute(select(table))).all()
    return {row.name: (row.failures.split(), row.expires) for row in found}


async def write(database: AsyncDatabase, failures: str, expires: int = NOW + HOUR) -> None:
    """Store a row for the name a outside of any adapter."""
    table = METADATA.tables["auth_throttle"]
    async with database.engine.begin() as connection:
        await connection.execute(table.insert().values(name=A, failures=failures, expires=expires))


# The rows


async def test_a_failure_is_an_entry(
    database: AsyncDatabase, failures: AsyncThrottleStore, time: Time
) -> None:
    """A failure is an entry in the row of each name, which expires with its last failure.

    An attempt that has to wait changes nothing. Entries that are taken back are removed, and the
    row with the last one.
    """
    first = await failures.attempt({A: RULE, B: RULE})
    time.now += 1
    second = await failures.attempt({A: RULE, B: RULE})
    assert (first.wait, second.wait) == (0, 0)
    assert [first.failures, second.failures] == [{A: 1, B: 1}, {A: 2, B: 2}]
    before = await rows(database)
    assert before == {
        name: ([first.entries[name], second.entries[name]], NOW + 1 + HOUR) for name in (A, B)
    }
    assert re.fullmatch(rf"{NOW}-[0-9a-f]{{12}}", first.entries[A])
    refused = await failures.attempt({A: RULE, C: RULE})
    assert refused == Attempt(10 * SECOND, {A: 3, C: 1}, {})
    assert await rows(database) == before
    await failures.take_back(first.entries)
    assert await rows(database) == {
        name: ([second.entries[name]], NOW + 1 + HOUR) for name in (A, B)
    }
    await failures.take_back(first.entries)
    await failures.take_back({A: second.entries[A], C: second.entries[A]})
    assert (await rows(database)).keys() == {B}


@on_sqlite
async def test_a_refused_attempt_writes_nothing(
    database: AsyncDatabase, failures: AsyncThrottleStore
) -> None:
    """An attempt that has to wait is one SELECT, without a lock."""
    for _ in range(2):
        await failures.attempt({A: RULE})
    with sent_statements(database.engine) as sent:
        assert (await failures.attempt({A: RULE, B: RULE})).wait
    assert [each.text.split()[0] for each in sent] == ["SELECT"]


@on_sqlite
async def test_entries_that_are_not_ours(
    database: AsyncDatabase, failures: AsyncThrottleStore
) -> None:
    """Text that is no entry, and impossible times, are ignored and removed."""
    await write(database, f"nonsense - 1-abc {'9' * 16}-abc {'9' * 400}x é-{NOW}")
    attempt = await failures.attempt({A: RULE})
    assert attempt == Attempt(0, {A: 1}, {A: attempt.entries[A]})
    assert (await rows(database))[A] == ([attempt.entries[A]], NOW + HOUR)


@on_sqlite
async def test_expired_row(database: AsyncDatabase, failures: AsyncThrottleStore) -> None:
    """A row that has expired counts nothing, and is used again."""
    await write(database, f"{NOW}-a {NOW}-b {NOW}-c", expires=NOW)
    attempt = await failures.attempt({A: RULE})
    assert attempt.failures == {A: 1}
    assert (await rows(database))[A] == ([attempt.entries[A]], NOW + HOUR)


@on_sqlite
async def test_rows_are_bounded(
    database: AsyncDatabase, failures: AsyncThrottleStore, time: Time
) -> None:
    """A row keeps only as many failures as the rule needs."""
    quick = FailureRule(3, 1, 4, HOUR, HOUR)
    for _ in range(3 * quick.kept):
        time.now += 5
        assert not (await failures.attempt({A: quick})).wait
    kept, _ = (await rows(database))[A]
    assert len(kept) == quick.kept
    assert kept[-1].startswith(f"{time.now}-")


# Comparison with memory

LARGE: Final = 1_000_000
large_rules = st.builds(
    lambda free, factor, rest: FailureRule(
        free, LARGE, LARGE * factor, LARGE * (factor + rest), LARGE * (factor + rest)
    ),
    st.integers(1, 4),
    st.integers(1, 9),
    st.integers(0, 30),
)
actions = st.lists(
    st.one_of(
        st.tuples(st.just("attempt"), st.sets(st.sampled_from([A, B]), min_size=1)),
        st.tuples(st.just("wait"), st.integers(-2, 12)),
        st.tuples(st.just("take back"), st.integers(0, 5)),
    ),
    max_size=25,
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rules=st.fixed_dictionaries({A: large_rules, B: large_rules}), taken=actions)
async def test_matches_memory(
    rules: Mapping[str, FailureRule], taken: Sequence[tuple[str, Any]]
) -> None:
    """Any sequence of attempts, successes and pauses has the same results as in memory."""
    time = Time()
    log, made = FailureLog(time), list[tuple[Attempt, Attempt]]()
    async with AsyncDatabase(METADATA) as engine:
        failures = AsyncSQLAlchemyAdapter(engine, TABLES, clock=time).throttle_store()
        for what, argument in taken:
            match what:
                case "attempt":
                    chosen = {each: rules[each] for each in sorted(argument)}
                    real, expected = await failures.attempt(chosen), log.attempt(chosen)
                    assert real[:2] == expected[:2]
                    assert real.entries.keys() == expected.entries.keys()
                    made.append((real, expected))
                case "wait":
                    time.now += argument * LARGE
                case _ if made:
                    real, expected = made[argument % len(made)]
                    await failures.take_back(real.entries)
                    log.take_back(expected.entries)
                case _:
                    pass


# Concurrent attempts


async def at_once(failures: AsyncThrottleStore, count: int, *names: str) -> list[Attempt]:
    """Return the verdicts on concurrent attempts."""
    outcomes: list[Any] = await AsyncRacingCalls.gather_results(
        *[partial(failures.attempt, dict.fromkeys(names, RULE))] * count
    )
    assert [each for each in outcomes if not isinstance(each, Attempt)] == []
    return outcomes


async def test_attempts_at_once(database: AsyncDatabase, failures: AsyncThrottleStore) -> None:
    """Of concurrent attempts under new names, as many pass as are free, with different counts."""
    passed = [each for each in await at_once(failures, 16, A, B) if not each.wait]
    assert sorted(each.failures[A] for each in passed) == [1, 2]
    assert {name: len(entries) for name, (entries, _) in (await rows(database)).items()} == {
        A: 2,
        B: 2,
    }


async def test_names_in_any_order(failures: AsyncThrottleStore) -> None:
    """Attempts that share some of their names, in any order, are no deadlock that is raised."""
    orders = [(A, B), (B, A), (B, C), (C, B), (C, A), (A, C)]
    outcomes: list[Any] = await AsyncRacingCalls.gather_results(
        *(partial(failures.attempt, dict.fromkeys(names, RULE)) for names in orders * 2)
    )
    assert [each for each in outcomes if not isinstance(each, Attempt)] == []
    passed = [each for each in outcomes if not each.wait]
    for name in (A, B, C):
        assert sum(name in each.failures for each in passed) <= 2


async def test_successes_at_once(database: AsyncDatabase, failures: AsyncThrottleStore) -> None:
    """Concurrent attempts that are taken back at once leave no row, and never miscount."""

    rule = RULE._replace(free=100)

    async def succeed() -> None:
        attempt = await failures.attempt({A: rule, B: rule})
        assert not attempt.wait
        await failures.take_back(attempt.entries)

    outcomes: list[Any] = await AsyncRacingCalls.gather_results(*[succeed] * 12)
    assert outcomes == [None] * 12
    assert await rows(database) == {}


@on_sqlite
async def test_first_failures_that_meet(
    database: AsyncDatabase, failures: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If another process stores the first failure under a name meanwhile, the attempt is repeated.

    After ten attempts the database's error is raised.
    """
    judge = failures._attempt
    calls: list[int] = []

    async def meet_another(names: Any, word: str) -> Attempt:
        """Judge as if no name was stored yet."""
        calls.append(1)
        if len(calls) <= meetings:
            raise IntegrityError("INSERT", None, Exception())
        found: Attempt = await judge(names, word)
        return found

    monkeypatch.setattr(failures, "_attempt", meet_another)
    meetings = MAX_ATTEMPTS - 1
    assert (await failures.attempt({A: RULE})).failures == {A: 1}
    assert len(calls) == MAX_ATTEMPTS
    calls.clear()
    meetings = MAX_ATTEMPTS
    with pytest.raises(IntegrityError):
        await failures.attempt({A: RULE})
    assert len(calls) == MAX_ATTEMPTS


# With Auth


async def test_guesses_at_once(auth: AsyncAuth[User], hasher: CountingHash) -> None:
    """Of twenty concurrent guesses, five are verified, and the right password has to wait too."""
    hasher.verified.clear()
    outcomes = await AsyncRacingCalls.gather_results(
        *[partial(auth.use_key, *ALICE, "wrong", address=HOME)] * 20
    )
    refused = [each for each in outcomes if isinstance(each, TooManyAttempts)]
    assert (len(hasher.verified), len(refused)) == (5, 15)
    with pytest.raises(TooManyAttempts):
        await auth.use_key(*ALICE, PASSWORD)


async def test_guesses_at_a_single_use_key(
    auth: AsyncAuth[User], adapter: AsyncSQLAlchemyAdapter, hasher: CountingHash
) -> None:
    """Of twenty concurrent guesses at a code five are verified, and consume it."""
    user = await auth.use_key(*ALICE, PASSWORD)
    await auth.create_single_use_key(
        user.user_id,
        provider_id=CODE[0],
        provider_user_id=CODE[1],
        password="123456",
        expires_in=timedelta(hours=1),
    )
    row = await adapter.get_key("code:alice")
    assert row is not None
    await AsyncRacingCalls.gather_results(*[partial(auth.use_key, *CODE, "wrong")] * 20)
    assert hasher.verified.count(str(row.hashed_password)) == 5
    with pytest.raises(InvalidKeyId):
        await auth.get_key(*CODE)


@on_sqlite
async def test_a_success_and_names(database: AsyncDatabase, auth: AsyncAuth[User]) -> None:
    """A success removes its own attempt alone; no row shows a key's name or an address."""
    for _ in range(2):
        with pytest.raises(InvalidCredentials):
            await auth.use_key(*ALICE, "wrong", address=HOME)
    await auth.create_session_with_key(*ALICE, PASSWORD, address=HOME)
    found = await rows(database)
    assert [len(entries) for entries, _ in found.values()] == [2, 2]
    assert not [text for text in (HOME, "alice") if text in str(found)]


@on_sqlite
async def test_names_with_a_secret(database: AsyncDatabase, time: Time) -> None:
    """With ``id_keys``, names of failures are keyed hashes; processes share the current key."""
    once = RULE._replace(free=1)
    attempts: list[Attempt] = []
    for keys in ([], [KEY], [KEY, OLD], [OLD, KEY]):
        sessions = AsyncSQLAlchemyAdapter(database.engine, TABLES, id_keys=keys, clock=time)
        attempts.append(await sessions.throttle_store().attempt({A: once}))
    assert [each.wait for each in attempts] == [0, 0, 10 * SECOND, 0]
    assert [each.entries.keys() for each in attempts] == [{A}, {A}, set(), {A}]
    names = set(await rows(database))
    assert len(names) == 3
    assert A in names
    last = AsyncSQLAlchemyAdapter(database.engine, TABLES, id_keys=[OLD], clock=time)
    await last.throttle_store().take_back(attempts[3].entries)
    assert len(await rows(database)) == 2


@on_sqlite
async def test_who_has_a_store(database: AsyncDatabase) -> None:
    """The adapter of sessions has a store of failures; that of users alone has none."""
    both = AsyncSQLAlchemyAdapter(database.engine, TABLES)
    assert isinstance(both, AsyncThrottlingSessionAdapter)
    assert isinstance(both.throttle_store(), AsyncThrottleStore)
    users: object = AsyncSQLAlchemyUserAdapter(database.engine, TABLES)
    assert not isinstance(users, AsyncThrottlingSessionAdapter)


@on_sqlite
async def test_store_that_can_not_count(
    database: AsyncDatabase, auth: AsyncAuth[User], hasher: CountingHash
) -> None:
    """If the database can't count, its error is raised without values, and nobody gets in."""
    hasher.verified.clear()
    async with database.engine.begin() as connection:
        await connection.execute(text("DROP TABLE auth_throttle"))
    with pytest.raises(DBAPIError) as caught:
        await auth.use_key(*ALICE, PASSWORD)
    assert caught.value.params is None
    assert hasher.verified == []


# In the caller's transaction


async def test_rollback_forgets_no_failure(
    database: AsyncDatabase, failures: AsyncThrottleStore, time: Time
) -> None:
    """With the caller's session, a failure outlasts the rollback of the caller's transaction.

    On SQLite it does not: only one transaction can write there.
    """
    async with database.session(database.engine) as mine:
        inside = AsyncSQLAlchemyAdapter(mine, TABLES, clock=time)
        await inside.set_user("u1", {}, None)
        await inside.throttle_store().attempt({A: RULE})
        await mine.rollback()
    is_sqlite = database.engine.dialect.name == "sqlite"
    assert (await failures.attempt({A: RULE})).failures == {A: 1 if is_sqlite else 2}


@on_sqlite
async def test_commit_on_sqlite(
    database: AsyncDatabase, failures: AsyncThrottleStore, time: Time
) -> None:
    """On SQLite a failure in the caller's transaction counts once that is committed."""
    async with database.session(database.engine) as mine:
        inside = AsyncSQLAlchemyAdapter(mine, TABLES, clock=time).throttle_store()
        await inside.attempt({A: RULE})
        await mine.commit()
    assert (await failures.attempt({A: RULE})).failures == {A: 2}


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
async def test_connection_of_the_caller(
    database: AsyncDatabase, failures: AsyncThrottleStore, time: Time
) -> None:
    """Where the caller's session is bound to a connection, failures are in its transaction."""
    async with database.engine.connect() as connection:
        outer = await connection.begin()
        async with database.sessionmaker_of(connection)() as mine:
            inside = AsyncSQLAlchemyAdapter(mine, TABLES, clock=time).throttle_store()
            await inside.attempt({A: RULE})
            await mine.commit()
        await outer.rollback()
    assert (await failures.attempt({A: RULE})).failures == {A: 1}
