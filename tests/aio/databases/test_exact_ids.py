"""Ids are compared byte for byte, even if a store or a collation considers them equal."""

from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from datetime import timedelta
from functools import partial
from itertools import islice, product
from typing import Any

import pytest
from sqlalchemy import Column, MetaData, String, Table, Text

from lucia import (
    AsyncAuth,
    DuplicateKeyId,
    InvalidCredentials,
    InvalidKeyId,
    InvalidSessionId,
    InvalidUserId,
    PrimaryKey,
    Throttle,
    User,
)
from lucia._async import users as users_module
from lucia._async.fallback import AsyncFiveMethods
from lucia._testing.checks import OTHER_SPELLINGS, STORED_ID
from lucia.adapters.memory import AsyncMemoryAdapter
from lucia.adapters.sqlalchemy import AsyncSQLAlchemyAdapter, AuthTables
from lucia.models import SessionRow
from lucia.testing import (
    AsyncRenewingSessionAdapterSuite,
    AsyncSessionUserAdapterSuite,
    AsyncUserAdapterSuite,
)
from tests.aio.support.case_insensitive_store import AsyncCaseInsensitiveStore
from tests.aio.support.minimal_adapters import AsyncDictionaryAdapter, decode
from tests.aio.support.watched_store import make_auth
from tests.support.clocks import Time
from tests.support.databases import AsyncDatabase
from tests.support.passwords import CHEAP, CountingHash
from tests.support.sessions import row
from tests.support.sql_servers import SqlServer

PASSWORD = "correct horse battery staple"
VICTIM = "victim@example.com"
SPELLINGS = [
    "Victim@example.com",
    "VICTIM@EXAMPLE.COM",
    "victim@exämple.com",
    "victim@example.com ",
    "vic\u200btim@example.com",
]


def spellings(name: str) -> list[str]:
    """Return the other spellings of a name in upper and lower case."""
    pairs = ((letter.lower(), letter.upper()) if letter.isalpha() else (letter,) for letter in name)
    return ["".join(letters) for letters in product(*pairs) if "".join(letters) != name]


@pytest.fixture
def folding(time: Time) -> AsyncCaseInsensitiveStore:
    """Return a store that considers other spellings of an id equal."""
    return AsyncCaseInsensitiveStore(time)


@pytest.fixture
def folding_auth(folding: AsyncCaseInsensitiveStore, time: Time) -> AsyncAuth[User]:
    """Return an ``Auth`` over that store without throttling."""
    return make_auth(folding, time, throttle=None)


async def add_victim(auth: AsyncAuth[Any]) -> str:
    """Store a user with a primary key and with an email key that can be removed."""
    user = await auth.create_user(primary_key=PrimaryKey("username", "victim", PASSWORD))
    user_id: str = user.user_id
    await auth.create_key(user_id, provider_id="email", provider_user_id=VICTIM, password=PASSWORD)
    return user_id


async def check_keys(auth: AsyncAuth[Any], user_id: str) -> None:
    """Assert that other spellings of the address find no key, and that the key is unchanged."""
    for spelling in SPELLINGS:
        calls: list[Callable[[], Any]] = [
            partial(auth.get_key, "email", spelling),
            partial(auth.use_key, "email", spelling, PASSWORD),
            partial(auth.create_session_with_key, "email", spelling, PASSWORD),
            partial(auth.update_key_password, "email", spelling, "another password"),
        ]
        for call in calls:
            with pytest.raises(InvalidKeyId):
                await call()
        await auth.delete_key("email", spelling)
    assert (await auth.use_key("email", VICTIM, PASSWORD)).user_id == user_id


async def check_users(auth: AsyncAuth[Any], user_id: str) -> None:
    """Assert that other spellings of the user's id find no user, and that the user is unchanged."""
    session = await auth.create_session(user_id)
    for other in (user_id.swapcase(), f"{user_id} "):
        for method in (auth.get_user, auth.get_all_user_keys, auth.get_all_user_sessions):
            with pytest.raises(InvalidUserId):
                await method(other)
        with pytest.raises(InvalidUserId):
            await auth.update_user_attributes(other, {})
        await auth.delete_dead_user_sessions(other)
        await auth.delete_user(other)
    assert (await auth.validate_session_user(session.session_id)).user == await auth.get_user(
        user_id
    )
    assert len(await auth.get_all_user_keys(user_id)) == 2


async def test_other_spellings_of_a_key(folding_auth: AsyncAuth[User]) -> None:
    """Another spelling of a key's name is InvalidKeyId, and changes or removes nothing."""
    await check_keys(folding_auth, await add_victim(folding_auth))


async def test_other_spellings_of_a_key_without_the_comparison(
    folding_auth: AsyncAuth[User], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Control: without the comparison of ids, another spelling opens the account."""
    monkeypatch.setattr(users_module, "exactly", lambda row, _: row)
    user_id = await add_victim(folding_auth)
    assert (await folding_auth.use_key("email", SPELLINGS[2], PASSWORD)).user_id == user_id


async def test_other_spellings_of_a_user(folding_auth: AsyncAuth[User]) -> None:
    """Another spelling of a user's id is InvalidUserId, and deleting it deletes nothing."""
    await check_users(folding_auth, await add_victim(folding_auth))


async def test_other_spellings_of_a_session(
    folding: AsyncCaseInsensitiveStore, folding_auth: AsyncAuth[User], time: Time
) -> None:
    """Another spelling of a session's id is InvalidSessionId."""
    session = await folding_auth.create_session(await add_victim(folding_auth))
    apart = make_auth(folding, time, sessions=AsyncMemoryAdapter(clock=time))
    other = session.session_id.swapcase()
    for auth in (folding_auth, apart):
        for method in (
            auth.validate_session,
            auth.validate_session_user,
            auth.get_session,
            auth.get_session_user,
        ):
            with pytest.raises(InvalidSessionId):
                await method(other)


async def test_a_session_of_another_spelling_is_nobodys(
    folding: AsyncCaseInsensitiveStore, folding_auth: AsyncAuth[User]
) -> None:
    """A session whose user id matches a stored one only in another spelling has no user.

    This holds too if the store returns the session and the user in one call.
    """
    user_id = await add_victim(folding_auth)
    session = await folding_auth.create_session(user_id.swapcase())
    folding._users[user_id.swapcase()] = folding._users[user_id]
    with pytest.raises(InvalidSessionId, match="user is gone"):
        await folding_auth.validate_session_user(session.session_id)


async def test_other_spelling_is_not_verified(
    folding: AsyncCaseInsensitiveStore, time: Time
) -> None:
    """A guess under another spelling is not verified against the key's hash.

    Nor does it count as a failed login of the key.
    """
    hasher = CountingHash()
    auth = make_auth(folding, time, hash=hasher, throttle=Throttle(by_address=None))
    user_id = await add_victim(auth)
    hashes = set(hasher.made)
    for spelling in islice(spellings(VICTIM), 500):
        with pytest.raises(InvalidCredentials):
            await auth.use_key("email", spelling, PASSWORD)
    assert hasher.verified
    assert not hashes & set(hasher.verified)
    assert (await auth.use_key("email", VICTIM, PASSWORD)).user_id == user_id


class AsyncFoldingLists(AsyncDictionaryAdapter):
    """An adapter that ignores case when it lists a user's sessions."""

    async def get_sessions_by_user_id(self, user_id: str, /) -> list[SessionRow]:
        return [
            row
            for row in map(decode, self._records.values())
            if row.user_id.lower() == user_id.lower()
        ]


async def test_keep_revokes_no_other_users_sessions(time: Time) -> None:
    """With five methods, ``keep=`` revokes no session that a list wrongly has of another user."""
    sessions = AsyncFoldingLists()
    auth = AsyncAuth(sessions=sessions, env="DEV", hash=CHEAP, clock=time)
    kept, ended, foreign = [
        await auth.create_session(user_id) for user_id in ("anna", "anna", "ANNA")
    ]
    assert isinstance(auth._sessions, AsyncFiveMethods)
    assert await auth.invalidate_all_user_sessions("anna", keep=kept.session_id)
    time.advance(timedelta(seconds=1))
    assert (await auth.validate_session(foreign.session_id)).user_id == "ANNA"
    with pytest.raises(InvalidSessionId):
        await auth.validate_session(ended.session_id)


# MariaDB with its default collation


def own_user_table(metadata: MetaData) -> AuthTables:
    """Return the application's own user table, whose id has the database's default collation."""
    people = Table(
        "people",
        metadata,
        Column("id", String(255), primary_key=True),
        Column("name", Text),
        Column("town", Text),
    )
    return AuthTables(metadata, user=people, sessions=True)


def other_collation(metadata: MetaData) -> AuthTables:
    """Return the application's own user table, with another collation than the database's."""
    columns = (
        Column("id", String(255), primary_key=True),
        Column("name", Text),
        Column("town", Text),
    )
    people = Table(
        "people",
        metadata,
        *columns,
        mariadb_charset="utf8mb4",
        mariadb_collate="utf8mb4_general_ci",
    )
    return AuthTables(metadata, user=people, sessions=True)


def earlier_version(metadata: MetaData) -> AuthTables:
    """Return the library's tables as an earlier version created them, without a collation."""
    tables = AuthTables(
        metadata, user_columns=[Column("name", Text), Column("town", Text)], sessions=True
    )
    for table in metadata.tables.values():
        for column in table.columns:
            if isinstance(column.type, String) and not isinstance(column.type, Text):
                column.type = String(255)
    return tables


@pytest.fixture(
    params=[own_user_table, other_collation, earlier_version], ids=lambda make: str(make.__name__)
)
async def default_collation(
    request: pytest.FixtureRequest, mariadb: SqlServer
) -> AsyncIterator[AsyncSQLAlchemyAdapter]:
    """Yield an adapter over tables whose collation ignores case, accents and trailing spaces."""
    metadata = MetaData()
    tables = request.param(metadata)
    async with AsyncDatabase(metadata, server=mariadb) as engine:
        yield AsyncSQLAlchemyAdapter(engine, tables)


async def create_user(adapter: Any, user_id: str) -> None:
    """Create the user of a session in a suite."""
    await adapter.set_user(user_id, {}, None)


@pytest.mark.parametrize(
    ("suite", "test_name"),
    [
        (AsyncUserAdapterSuite, "test_other_spellings"),
        (AsyncUserAdapterSuite, "test_update_unexpected_password"),
        (AsyncRenewingSessionAdapterSuite, "test_other_spellings"),
        (AsyncRenewingSessionAdapterSuite, "test_renew_other_spellings"),
        (AsyncSessionUserAdapterSuite, "test_joined_other_spellings"),
    ],
)
async def test_suites_pass_with_default_collation(
    default_collation: AsyncSQLAlchemyAdapter,
    suite: type[Any],
    test_name: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The suites' tests of other spellings pass for the adapter alone, with any collation."""
    suite = suite()
    monkeypatch.setattr(suite, "create_user", create_user, raising=False)
    await getattr(suite, test_name)(default_collation)


async def test_another_spelling_is_not_kept(default_collation: AsyncSQLAlchemyAdapter) -> None:
    """Another spelling of a session's id keeps no session."""
    await create_user(default_collation, "jose")
    for other in OTHER_SPELLINGS:
        await default_collation.set_session(row(STORED_ID, "jose"))
        assert not await default_collation.delete_other_sessions("jose", other)
        assert await default_collation.get_session(STORED_ID) is None


async def test_accounts_with_the_default_collation(
    default_collation: AsyncSQLAlchemyAdapter,
) -> None:
    """No other spelling of a key's name or of a user's id finds the account."""
    auth = AsyncAuth(
        sessions=default_collation, users=default_collation, env="DEV", hash=CHEAP, throttle=None
    )
    user_id = await add_victim(auth)
    await check_keys(auth, user_id)
    await check_users(auth, user_id)


async def test_names_that_collide_are_taken(default_collation: AsyncSQLAlchemyAdapter) -> None:
    """If the database considers a new key's id taken, the key is refused, or stored apart.

    The existing key is never changed.
    """
    auth = AsyncAuth(
        sessions=default_collation, users=default_collation, env="DEV", hash=CHEAP, throttle=None
    )
    user_id = await add_victim(auth)
    other = await auth.create_user(primary_key=PrimaryKey("username", "attacker", PASSWORD))
    for spelling in SPELLINGS:
        with suppress(DuplicateKeyId):
            await auth.create_key(
                other.user_id, provider_id="email", provider_user_id=spelling, password="attack"
            )
            assert (await auth.use_key("email", spelling, "attack")).user_id == other.user_id
    assert (await auth.use_key("email", VICTIM, PASSWORD)).user_id == user_id
