"""The cache of users: the reads that it saves, and the changes that it must not hide."""

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
    """Return a cache with the test's clock."""
    return UserCache(max_age=MAX_AGE, clock=lambda: time() / 1000)


@pytest.fixture
def auth(store: AsyncWatchedStore, time: Time, cache: UserCache) -> AsyncAuth[Named]:
    """Return an ``Auth`` with users in the watched store, and sessions in another one."""
    return make(store, time, cache)


def make(store: AsyncWatchedStore, time: Time, cache: UserCache | None) -> AsyncAuth[Named]:
    """Return an ``Auth`` with sessions in a separate store."""
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
    """Create a user, and return a session; the list of calls is empty."""
    user = await auth.create_user(
        primary_key=PrimaryKey("username", "alice", PASSWORD), attributes={"name": "Alice"}
    )
    session = await auth.create_session(user.user_id)
    store.calls.clear()
    return session


async def name_of(auth: AsyncAuth[Named], session: Session) -> str:
    """Return the name of the user that a request sees."""
    return (await auth.validate_session_user(session.session_id)).user.name


async def test_each_request_reads_the_user_without_a_cache(
    store: AsyncWatchedStore, time: Time
) -> None:
    """Without a cache, which is the default, each request reads the user."""
    auth = make(store, time, None)
    session = await log_in(auth, store)
    for _ in range(2):
        assert await name_of(auth, session) == "Alice"
    assert store.calls == ["get_user"] * 2


async def test_first_request_reads_the_user_with_a_cache(
    auth: AsyncAuth[Named], store: AsyncWatchedStore
) -> None:
    """With a cache, only the first request reads the user.

    Each request gets a new object.
    """
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
    """The age counts from before the user was read, not from the last use."""
    session = await log_in(auth, store)
    store.before["get_user"] = partial(passing, time, timedelta(seconds=4))
    assert await name_of(auth, session) == "Alice"
    await store.update_user_attributes(session.user_id, {"name": "Bob"})
    time.advance(timedelta(milliseconds=5_999))
    assert await name_of(auth, session) == "Alice"
    time.advance(timedelta(milliseconds=1))
    assert await name_of(auth, session) == "Bob"


async def passing(time: Time, duration: timedelta) -> None:
    """Advance the clock."""
    time.advance(duration)


async def test_what_auth_changes_is_seen_at_once(
    auth: AsyncAuth[Named], store: AsyncWatchedStore
) -> None:
    """A change by ``Auth`` is seen by the next request."""
    session = await log_in(auth, store)
    assert await name_of(auth, session) == "Alice"
    await auth.update_user_attributes(session.user_id, {"name": "Bob"})
    assert await name_of(auth, session) == "Bob"


async def test_a_change_that_overtakes_a_read_is_seen_at_once(
    auth: AsyncAuth[Named], store: AsyncWatchedStore
) -> None:
    """A user that was read before a concurrent change is not cached."""
    session = await log_in(auth, store)
    store.after["get_user"] = partial(auth.update_user_attributes, session.user_id, {"name": "Bob"})
    assert await name_of(auth, session) == "Alice"
    assert await name_of(auth, session) == "Bob"


async def test_a_change_that_fails_is_looked_at(
    auth: AsyncAuth[Named], store: AsyncWatchedStore
) -> None:
    """After a change that failed, the user is read again: the store may have made the change."""
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
    """A deleted user is invalid at once, even with a session created by other means."""
    session = await log_in(auth, store)
    await name_of(auth, session)
    await auth.delete_user(session.user_id)
    for each in (session, await auth.create_session(session.user_id)):
        with pytest.raises(InvalidSessionId):
            await name_of(auth, each)


async def test_revoked_session_is_invalid_at_once(
    auth: AsyncAuth[Named], store: AsyncWatchedStore
) -> None:
    """A revoked session is invalid at once: sessions are not cached."""
    session = await log_in(auth, store)
    await name_of(auth, session)
    await auth.invalidate_all_user_sessions(session.user_id)
    with pytest.raises(InvalidSessionId):
        await name_of(auth, session)


async def test_a_user_who_is_not_there_is_not_remembered(
    auth: AsyncAuth[Named], store: AsyncWatchedStore
) -> None:
    """An unknown user is not cached: another program may be about to store it."""
    session = await auth.create_session("carol")
    with pytest.raises(InvalidSessionId):
        await name_of(auth, session)
    await store.set_user("carol", {"name": "Carol"}, None)
    assert await name_of(auth, session) == "Carol"


async def test_nothing_else_asks_the_cache(
    auth: AsyncAuth[Named], store: AsyncWatchedStore
) -> None:
    """Calls by user id, and calls about keys and passwords, do not use the cache."""
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
    """If one store has sessions and users, the cache is not used."""
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
    """Two ``Auth`` may share a cache and see each other's changes; ``drop`` and ``clear`` work."""
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
