"""The cache of users: what it spares, and what it must never hide."""

from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any

import pytest

from lucia import (
    AsyncAuth,
    InvalidSessionId,
    PrimaryKey,
    Session,
    SessionUser,
    User,
    UserCache,
    UserRow,
)
from lucia.adapters.memory import AsyncMemoryAdapter
from tests.aio.support.watched_store import AsyncWatchedStore, StoreDownError
from tests.support.clocks import Time
from tests.support.passwords import CHEAP
from tests.support.requests import Exchange

MAX_AGE = timedelta(seconds=10)
PASSWORD = "correct horse battery staple"


class Named(User):
    """A user with an attribute."""

    name: str

    def __init__(self, row: UserRow) -> None:
        super().__init__(row.id)
        object.__setattr__(self, "name", row.attributes["name"])


@pytest.fixture
def cache(time: Time) -> UserCache:
    """A cache by the tests' clock."""
    return UserCache(max_age=MAX_AGE, clock=lambda: time() / 1000)


@pytest.fixture
def auth(store: AsyncWatchedStore, time: Time, cache: UserCache) -> AsyncAuth[Named]:
    """Users in the watched store, sessions in another one."""
    return make(store, time, cache)


def make(store: AsyncWatchedStore, time: Time, cache: UserCache | None) -> AsyncAuth[Named]:
    """An ``Auth`` with its sessions in a store of their own."""
    return AsyncAuth(
        users=store,
        sessions=AsyncMemoryAdapter(clock=time),
        env="DEV",
        hash=CHEAP,
        clock=time,
        user_cache=cache,
        transform_database_user=Named,
    )


async def log_in(auth: AsyncAuth[Named], store: AsyncWatchedStore) -> Session:
    """A new user's session; no call of the store is written down yet."""
    user = await auth.create_user(
        primary_key=PrimaryKey("username", "alice", PASSWORD), attributes={"name": "Alice"}
    )
    session = await auth.create_session(user.user_id)
    store.calls.clear()
    return session


async def name_of(auth: AsyncAuth[Named], session: Session) -> str:
    """What a request sees of its user."""
    return (await auth.validate_session_user(session.session_id)).user.name


async def test_without_a_cache_each_request_asks(store: AsyncWatchedStore, time: Time) -> None:
    """It is off by default."""
    auth = make(store, time, None)
    session = await log_in(auth, store)
    for _ in range(2):
        assert await name_of(auth, session) == "Alice"
    assert store.calls == ["get_user"] * 2


async def test_with_a_cache_the_first_request_asks(
    auth: AsyncAuth[Named], store: AsyncWatchedStore
) -> None:
    """Whichever way a request asks; what the application gets is made anew for each."""
    session = await log_in(auth, store)
    first = await auth.validate_session_user(session.session_id)
    second = await auth.get_session_user(session.session_id)
    assert second == first
    assert second.user is not first.user
    for kind in ("user", "session"):
        request = auth.handle_request(Exchange(session.session_id).context)
        if kind == "session":
            await request.validate()
        assert await request.validate_user() == first
    assert await auth.get_user_of(session) == first.user
    assert store.calls == ["get_user"]


async def test_what_others_change_is_seen_after_the_age(
    auth: AsyncAuth[Named], store: AsyncWatchedStore, time: Time
) -> None:
    """Counted from before the user was read, and not from the last use."""
    session = await log_in(auth, store)
    store.before["get_user"] = partial(passing, time, timedelta(seconds=4))
    assert await name_of(auth, session) == "Alice"
    await store.update_user_attributes(session.user_id, {"name": "Bob"})
    time.advance(timedelta(milliseconds=5_999))
    assert await name_of(auth, session) == "Alice"
    time.advance(timedelta(milliseconds=1))
    assert await name_of(auth, session) == "Bob"


async def passing(time: Time, duration: timedelta) -> None:
    """Let time pass."""
    time.advance(duration)


async def test_what_auth_changes_is_seen_at_once(
    auth: AsyncAuth[Named], store: AsyncWatchedStore
) -> None:
    """By the request after the change."""
    session = await log_in(auth, store)
    assert await name_of(auth, session) == "Alice"
    await auth.update_user_attributes(session.user_id, {"name": "Bob"})
    assert await name_of(auth, session) == "Bob"


async def test_a_change_that_overtakes_a_read_is_seen_at_once(
    auth: AsyncAuth[Named], store: AsyncWatchedStore
) -> None:
    """What was read before the change and comes back after it is not kept."""
    session = await log_in(auth, store)
    store.after["get_user"] = partial(auth.update_user_attributes, session.user_id, {"name": "Bob"})
    assert await name_of(auth, session) == "Alice"
    assert await name_of(auth, session) == "Bob"


async def test_a_change_that_fails_is_looked_at(
    auth: AsyncAuth[Named], store: AsyncWatchedStore
) -> None:
    """The store may have made it all the same."""
    session = await log_in(auth, store)
    changes: list[Callable[[], Any]] = [
        partial(auth.update_user_attributes, session.user_id, {"name": "Bob"}),
        partial(auth.delete_user, session.user_id),
    ]
    for method, change in zip(("update_user_attributes", "delete_user"), changes, strict=True):
        session = await auth.create_session(session.user_id)
        await name_of(auth, session)
        store.failing[method] = StoreDownError()
        with pytest.raises(StoreDownError):
            await change()
        del store.failing[method]
        store.calls.clear()
        await name_of(auth, await auth.create_session(session.user_id))
        assert store.calls == ["get_user"]


async def test_a_deleted_user_is_gone_at_once(
    auth: AsyncAuth[Named], store: AsyncWatchedStore
) -> None:
    """Also for a session that was made behind the library's back."""
    session = await log_in(auth, store)
    await name_of(auth, session)
    await auth.delete_user(session.user_id)
    for each in (session, await auth.create_session(session.user_id)):
        with pytest.raises(InvalidSessionId):
            await name_of(auth, each)


async def test_who_is_logged_out_is_out_at_once(
    auth: AsyncAuth[Named], store: AsyncWatchedStore
) -> None:
    """Sessions are read each time, whoever is in the cache."""
    session = await log_in(auth, store)
    await name_of(auth, session)
    await auth.invalidate_all_user_sessions(session.user_id)
    with pytest.raises(InvalidSessionId):
        await name_of(auth, session)


async def test_a_user_who_is_not_there_is_not_remembered(
    auth: AsyncAuth[Named], store: AsyncWatchedStore
) -> None:
    """Such as one whom another program is about to store."""
    session = await auth.create_session("carol")
    with pytest.raises(InvalidSessionId):
        await name_of(auth, session)
    await store.set_user("carol", {"name": "Carol"}, None)
    assert await name_of(auth, session) == "Carol"


async def test_nothing_else_asks_the_cache(
    auth: AsyncAuth[Named], store: AsyncWatchedStore
) -> None:
    """Neither what is asked for by a user's id nor anything about keys and passwords."""
    session = await log_in(auth, store)
    await name_of(auth, session)
    store.calls.clear()
    await auth.get_user(session.user_id)
    await auth.get_all_user_keys(session.user_id)
    await auth.get_all_user_sessions(session.user_id)
    assert store.calls.count("get_user") == 3
    await auth.create_single_use_key(
        session.user_id,
        provider_id="code",
        provider_user_id="1",
        password=None,
        expires_in=timedelta(minutes=5),
    )
    await auth.create_session_with_key("code", "1", None)
    assert store.calls.count("get_user") == 4


async def test_one_query_for_both_needs_no_cache(
    store: AsyncWatchedStore, time: Time, cache: UserCache
) -> None:
    """Where one store has sessions and users, a request sees the user as it is."""
    auth = AsyncAuth(users=store, sessions=store, env="DEV", clock=time, user_cache=cache)
    user = await auth.create_user(primary_key=None)
    session = await auth.create_session(user.user_id)
    store.calls.clear()
    for _ in range(2):
        assert await auth.validate_session_user(session.session_id) == SessionUser(
            await auth.get_session(session.session_id), user
        )
    assert store.calls.count("get_session_and_user_by_session_id") == 2
    assert cache.find(user.user_id) is None


async def test_two_auths_may_share_one(
    auth: AsyncAuth[Named], store: AsyncWatchedStore, time: Time, cache: UserCache
) -> None:
    """What one of them changes, the other one sees at once; and what the application says that it has changed."""
    other = make(store, time, cache)
    session = await log_in(auth, store)
    await name_of(auth, session)
    await other.update_user_attributes(session.user_id, {"name": "Bob"})
    assert await name_of(auth, session) == "Bob"
    await store.update_user_attributes(session.user_id, {"name": "Carol"})
    cache.drop(session.user_id)
    assert await name_of(auth, session) == "Carol"
    await store.update_user_attributes(session.user_id, {"name": "Dave"})
    cache.clear()
    assert await name_of(auth, session) == "Dave"
