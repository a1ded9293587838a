"""A password change or a removed key revokes the user's single-use keys of some purposes."""

from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from functools import partial
from typing import Any

import pytest

from lucia import (
    AsyncAuth,
    ExpiredKey,
    InvalidCredentials,
    InvalidKeyId,
    InvalidPassword,
    InvalidSessionId,
    PrimaryKey,
    ScryptHash,
    Session,
    SessionsNotRevoked,
    User,
)
from lucia._testing.racing_calls import AsyncRacingCalls
from lucia.models import KeyRow
from tests.aio.support.watched_store import AsyncWatchedStore, StoreDownError, make_auth
from tests.support.clocks import Time

PASSWORD = "correct horse battery staple"
NEW = "a new password"


async def add_user(auth: AsyncAuth[User], name: str = "alice") -> str:
    """Store a user with a primary key and with an email key that can be removed."""
    user = await auth.create_user(primary_key=PrimaryKey("username", name, PASSWORD))
    await auth.create_key(
        user.user_id, provider_id="email", provider_user_id=f"{name}@example.com", password=None
    )
    return user.user_id


def token(
    auth: AsyncAuth[User], user_id: str, name: str = "token", *, purpose: str = "password_reset"
) -> Callable[[], Any]:
    """Return a call that creates a single-use key for an hour."""
    return partial(
        auth.create_single_use_key,
        user_id,
        provider_id=purpose,
        provider_user_id=name,
        password=None,
        expires_in=timedelta(hours=1),
    )


def changes(auth: AsyncAuth[User]) -> list[Callable[[], Any]]:
    """Return calls that change the credentials of alice."""
    return [
        partial(auth.update_key_password, "username", "alice", NEW),
        partial(auth.update_key_password, "username", "alice", NEW, invalidate_sessions=False),
        partial(auth.update_key_password, "username", "alice", None),
        partial(auth.delete_key, "email", "alice@example.com"),
    ]


@pytest.fixture(params=range(4), ids=["new password", "sessions stay", "no password", "removal"])
def change(request: pytest.FixtureRequest, auth: AsyncAuth[User]) -> Callable[[], Any]:
    """Return each of the calls that change the credentials of alice."""
    ways = changes(auth)
    return ways[int(request.param)]


async def test_the_users_own_keys_of_these_purposes(
    auth: AsyncAuth[User], change: Callable[[], Any]
) -> None:
    """Only single-use keys of this user are revoked, and only those of a named purpose."""
    alice, bob = await add_user(auth), await add_user(auth, "bob")
    await auth.create_key(
        alice, provider_id="password_reset", provider_user_id="no token", password=None
    )
    await token(auth, alice)()
    await token(auth, alice, purpose="email_verification")()
    await token(auth, alice, purpose="invitation")()
    await token(auth, bob, "another token")()
    await change()
    left = {
        f"{key.provider_id}:{key.provider_user_id}" for key in await auth.get_all_user_keys(alice)
    }
    assert left - {"email:alice@example.com"} == {
        "username:alice",
        "password_reset:no token",
        "invitation:token",
    }
    for purpose in ("password_reset", "email_verification"):
        with pytest.raises(InvalidKeyId):
            await auth.use_key(purpose, "token", None)
    assert (await auth.use_key("password_reset", "another token", None)).user_id == bob


async def test_what_changes_no_credentials(
    auth: AsyncAuth[User], time: Time, store: AsyncWatchedStore
) -> None:
    """A call that changes no credentials revokes no single-use key.

    Such are the removal of an unknown, primary or single-use key, and a rehash.
    """
    alice = await add_user(auth)
    await token(auth, alice)()
    await token(auth, alice, "other")()
    await auth.delete_key("username", "alice")
    await auth.delete_key("email", "nobody@example.com")
    await auth.delete_key("password_reset", "other")
    await auth.update_key_password("password_reset", "token", None)
    rehashing = make_auth(store, time, hash=ScryptHash(ln=5, r=1, p=1))
    await rehashing.use_key("username", "alice", PASSWORD)
    assert "update_key_password" in store.calls
    assert (await auth.use_key("password_reset", "token", None)).user_id == alice


@pytest.mark.parametrize(
    ("purposes", "revoked"),
    [((), False), (["reset"], False), (frozenset({"password_reset"}), True)],
)
async def test_named_purposes(
    store: AsyncWatchedStore, time: Time, purposes: Any, *, revoked: bool
) -> None:
    """``single_use_purposes`` replaces the default purposes; an empty one revokes nothing."""
    auth = make_auth(store, time, single_use_purposes=purposes)
    alice = await add_user(auth)
    await token(auth, alice)()
    await auth.update_key_password("username", "alice", NEW)
    assert (
        bool(
            [
                key
                for key in await auth.get_all_user_keys(alice)
                if key.provider_id == "password_reset"
            ]
        )
        is not revoked
    )


def test_wrong_purposes(store: AsyncWatchedStore, time: Time) -> None:
    """A single string, and a purpose with a colon, are refused when ``Auth`` is created."""
    with pytest.raises(TypeError, match=r"such as \('password_reset',\)"):
        make_auth(store, time, single_use_purposes="password_reset")
    with pytest.raises(ValueError, match="no colon"):
        make_auth(store, time, single_use_purposes=["password:reset"])


@pytest.mark.parametrize("moment", ["update_key_password", "delete_non_primary_key"])
async def test_a_token_made_meanwhile(
    auth: AsyncAuth[User], store: AsyncWatchedStore, moment: str
) -> None:
    """A token that is created while the credentials are changed is revoked too.

    It may be created between the first revocation and the change, or right after the change.
    """
    alice = await add_user(auth)
    change = changes(auth)[0 if moment == "update_key_password" else 3]
    store.before[moment] = token(auth, alice, "before")
    store.after[moment] = token(auth, alice, "after")
    await change()
    assert store.calls.count("set_key") == 3
    for name in ("before", "after"):
        with pytest.raises(InvalidKeyId):
            await auth.use_key("password_reset", name, None)


async def test_a_token_made_meanwhile_without_the_second_look(
    auth: AsyncAuth[User], store: AsyncWatchedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Control: if tokens are only revoked before the change, a concurrent one still works."""
    alice = await add_user(auth)
    revoke, looks = auth._revoke_single_use_keys, list[KeyRow]()

    async def once(changed: KeyRow) -> None:
        looks.append(changed)
        if len(looks) == 1:
            await revoke(changed)

    monkeypatch.setattr(auth, "_revoke_single_use_keys", once)
    store.before["update_key_password"] = token(auth, alice)
    await auth.update_key_password("username", "alice", NEW)
    assert (await auth.use_key("password_reset", "token", None)).user_id == alice


async def test_a_change_that_fails(auth: AsyncAuth[User], store: AsyncWatchedStore) -> None:
    """If the store fails during a change, tokens are revoked, and the credentials are unchanged."""
    alice = await add_user(auth)
    await token(auth, alice)()
    store.failing["update_key_password"] = StoreDownError("down")
    with pytest.raises(StoreDownError):
        await auth.update_key_password("username", "alice", NEW)
    with pytest.raises(InvalidKeyId):
        await auth.use_key("password_reset", "token", None)
    assert (await auth.use_key("username", "alice", PASSWORD)).user_id == alice


async def test_tokens_that_can_not_be_looked_at(
    auth: AsyncAuth[User], store: AsyncWatchedStore
) -> None:
    """If the store fails before the change, nothing is changed; after it, a retry finishes."""
    alice = await add_user(auth)
    store.failing["get_keys_by_user_id"] = StoreDownError("down")
    with pytest.raises(StoreDownError):
        await auth.update_key_password("username", "alice", NEW)
    assert "update_key_password" not in store.calls
    del store.failing["get_keys_by_user_id"]

    async def fail() -> None:
        store.failing["get_keys_by_user_id"] = StoreDownError("down")

    store.before["update_key_password"] = token(auth, alice)
    store.after["update_key_password"] = fail
    session = await auth.create_session(alice)
    with pytest.raises(SessionsNotRevoked):
        await auth.update_key_password("username", "alice", NEW)
    store.failing.clear()
    await auth.update_key_password("username", "alice", NEW)
    assert await store.get_session(session.session_id) is None
    with pytest.raises(InvalidKeyId):
        await auth.use_key("password_reset", "token", None)


async def test_a_key_that_goes_meanwhile(auth: AsyncAuth[User], store: AsyncWatchedStore) -> None:
    """A key that is removed between its read and the change is InvalidKeyId."""
    alice = await add_user(auth)
    store.before["update_key_password"] = partial(store.delete_keys_by_user_id, alice)
    with pytest.raises(InvalidKeyId):
        await auth.update_key_password("username", "alice", NEW)


async def test_a_token_used_at_the_same_time(
    auth: AsyncAuth[User], store: AsyncWatchedStore
) -> None:
    """If a login with a token and a change run concurrently, nobody is logged in afterwards."""
    alice = await add_user(auth)
    for number in range(20):
        await token(auth, alice, f"token-{number}")()
        log_in = partial(auth.create_session_with_key, "password_reset", f"token-{number}", None)
        change = partial(auth.update_key_password, "username", "alice", f"password {number}")
        outcomes = await AsyncRacingCalls.gather_results(
            *((log_in, change) if number % 2 else (change, log_in))
        )
        assert {type(outcome) for outcome in outcomes} <= {
            Session,
            InvalidKeyId,
            InvalidPassword,
            type(None),
        }
        assert await store.get_sessions_by_user_id(alice) == []
        with pytest.raises(InvalidCredentials):
            await log_in()
    with pytest.raises(InvalidPassword):
        await auth.use_key("username", "alice", PASSWORD)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("moment", ["get_key", "set_session", "delete_non_primary_key"])
async def test_a_log_in_by_a_token_that_a_change_overtakes(
    auth: AsyncAuth[User], store: AsyncWatchedStore, when: str, moment: str
) -> None:
    """A change at any moment of a login with a token leaves no live session."""
    alice = await add_user(auth)
    await token(auth, alice)()
    hooks: dict[str, Callable[[], Any]] = getattr(store, when)
    hooks[moment] = partial(auth.update_key_password, "username", "alice", NEW)
    with suppress(InvalidCredentials):
        session = await auth.create_session_with_key("password_reset", "token", None)
        with pytest.raises(InvalidSessionId):
            await auth.get_session(session.session_id)
    assert await store.get_sessions_by_user_id(alice) == []
    assert (await auth.use_key("username", "alice", NEW)).user_id == alice


async def test_log_ins_by_one_token_at_the_same_time(
    auth: AsyncAuth[User], store: AsyncWatchedStore
) -> None:
    """Of several concurrent logins with one token, one gets a session, and no other is left."""
    alice = await add_user(auth)
    for number in range(10):
        await token(auth, alice, f"token-{number}")()
        login = partial(auth.create_session_with_key, "password_reset", f"token-{number}", None)
        outcomes = await AsyncRacingCalls.gather_results(*[login] * 6)
        (session,) = [outcome for outcome in outcomes if isinstance(outcome, Session)]
        assert {type(outcome) for outcome in outcomes} == {Session, InvalidKeyId}
        assert [row.id for row in await store.get_sessions_by_user_id(alice)] == [
            session.session_id
        ]
        await auth.invalidate_session(session.session_id)


async def test_a_log_in_by_an_expired_token(
    auth: AsyncAuth[User], store: AsyncWatchedStore, time: Time
) -> None:
    """An expired token is consumed without a session, even if it expires during the login."""
    alice = await add_user(auth)
    for moment in ("get_key", "set_session"):
        await token(auth, alice)()
        store.before[moment] = partial(advance, time)
        with pytest.raises(ExpiredKey):
            await auth.create_session_with_key("password_reset", "token", None)
        assert await store.get_sessions_by_user_id(alice) == []
        with pytest.raises(InvalidKeyId):
            await auth.use_key("password_reset", "token", None)
        assert ("set_session" in store.calls) is (moment == "set_session")


async def advance(time: Time) -> None:
    """Advance the clock by two hours."""
    time.advance(timedelta(hours=2))
