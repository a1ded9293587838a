"""Keys: their names, their removal, and single-use keys."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest

from lucia import (
    AsyncAuth,
    DuplicateKeyId,
    ExpiredKey,
    InvalidInput,
    InvalidKeyId,
    InvalidPassword,
    InvalidUserId,
    PersistentKey,
    PrimaryKey,
    SingleUseKey,
    User,
)
from lucia._testing.racing_calls import AsyncRacingCalls
from tests.aio.support.watched_store import AsyncWatchedStore, StoreDownError
from tests.support.clocks import NOW, Time

PASSWORD = "correct horse battery staple"
HOUR = timedelta(hours=1)
IMPOSSIBLE = {
    "": "a name must not be empty",
    "\ud800": "a name holds a lone surrogate, which no store can keep",
    "\0": "a name holds a NUL character, which some databases can't keep",
    "x" * 247: "a name must not be longer than 246 characters",
}
"""Names that no key of the provider ``username`` can have, and the messages for the user."""


@pytest.fixture
async def user_id(auth: AsyncAuth[User]) -> str:
    """Return the id of a user with a primary key."""
    user = await auth.create_user(primary_key=PrimaryKey("username", "alice", PASSWORD))
    return user.user_id


def reset_key(
    auth: AsyncAuth[User], user_id: str, password: str | None = None
) -> Callable[[], Any]:
    """Return a call that creates a single-use key for an hour."""
    return partial(
        auth.create_single_use_key,
        user_id,
        provider_id="reset",
        provider_user_id="token",
        password=password,
        expires_in=HOUR,
    )


def single_use(user_id: str, *, expired: bool, password_defined: bool = False) -> SingleUseKey:
    """Return the key as the application gets it."""
    return SingleUseKey(
        provider_id="reset",
        provider_user_id="token",
        user_id=user_id,
        password_defined=password_defined,
        expires_at=datetime.fromtimestamp(NOW // 1000, UTC) + HOUR,
        expired=expired,
    )


@pytest.mark.parametrize("password", [PASSWORD, None])
async def test_create_key(auth: AsyncAuth[User], user_id: str, password: str | None) -> None:
    """A second key of a user is persistent and not primary, and logs in its user."""
    key = await auth.create_key(
        user_id, provider_id="email", provider_user_id="a@example.com", password=password
    )
    assert key == PersistentKey(
        provider_id="email",
        provider_user_id="a@example.com",
        user_id=user_id,
        password_defined=password is not None,
        primary=False,
    )
    assert await auth.use_key("email", "a@example.com", password) == key
    assert await auth.get_key("email", "a@example.com") == key


async def test_a_key_can_be_used_again_and_again(auth: AsyncAuth[User], user_id: str) -> None:
    for _ in range(3):
        assert (await auth.use_key("username", "alice", PASSWORD)).user_id == user_id


async def test_a_key_needs_a_user_and_a_name_of_its_own(
    auth: AsyncAuth[User], user_id: str
) -> None:
    """A key of an unknown user is InvalidUserId; a taken name is DuplicateKeyId, and stays.

    Both hold for either kind of key.
    """
    makers: list[Callable[..., Any]] = [
        auth.create_key,
        partial(auth.create_single_use_key, expires_in=HOUR),
    ]
    for make in makers:
        with pytest.raises(InvalidUserId):
            await make("nobody", provider_id="email", provider_user_id="a", password=None)
        with pytest.raises(DuplicateKeyId):
            await make(
                user_id, provider_id="username", provider_user_id="alice", password="another"
            )
    assert (await auth.use_key("username", "alice", PASSWORD)).user_id == user_id


@pytest.mark.parametrize(
    "name", ["a:b", ":", "a:", "::a", "https://example.com/~a", "漢字 🦊", " a ", "x" * 249]
)
async def test_key_ids_are_split_at_the_first_colon(
    auth: AsyncAuth[User], store: AsyncWatchedStore, user_id: str, name: str
) -> None:
    """Colons and any other text in ``provider_user_id`` are returned unchanged."""
    await auth.create_key(user_id, provider_id="other", provider_user_id=name, password=None)
    key = await auth.use_key("other", name, None)
    assert (key.provider_id, key.provider_user_id) == ("other", name)
    assert await store.get_key(f"other:{name}") is not None


async def test_a_provider_id_holds_no_colon(auth: AsyncAuth[User], user_id: str) -> None:
    """A colon in ``provider_id`` is refused by every method: two keys could get the same id."""
    calls: list[Callable[[], Any]] = [
        partial(auth.create_user, primary_key=PrimaryKey("a:b", "c", None)),
        partial(auth.create_key, user_id, provider_id="a:b", provider_user_id="c", password=None),
        partial(
            auth.create_single_use_key,
            user_id,
            provider_id="a:b",
            provider_user_id="c",
            password=None,
            expires_in=HOUR,
        ),
        partial(auth.use_key, "a:b", "c", None),
        partial(auth.create_session_with_key, "a:b", "c", None),
        partial(auth.get_key, "a:b", "c"),
        partial(auth.update_key_password, "a:b", "c", None),
        partial(auth.delete_key, "a:b", "c"),
    ]
    for call in calls:
        with pytest.raises(ValueError, match="provider_id may hold no colon"):
            await call()


@pytest.mark.parametrize("name", IMPOSSIBLE)
async def test_a_key_is_not_made_under_an_impossible_name(
    auth: AsyncAuth[User], store: AsyncWatchedStore, user_id: str, name: str
) -> None:
    """An empty, overlong or unencodable name is InvalidInput, and nothing is stored.

    The message is meant for the person who typed the name.
    """
    with pytest.raises(InvalidInput, match=rf"\A{IMPOSSIBLE[name]}\Z"):
        await auth.create_key(user_id, provider_id="username", provider_user_id=name, password=None)
    with pytest.raises(InvalidInput, match=rf"\A{IMPOSSIBLE[name]}\Z"):
        await auth.create_user(primary_key=PrimaryKey("username", name, None))
    assert store.calls.count("set_user") == 1
    assert "set_key" not in store.calls


@pytest.mark.parametrize("name", IMPOSSIBLE)
async def test_an_impossible_name_is_an_unknown_one(
    auth: AsyncAuth[User], store: AsyncWatchedStore, name: str
) -> None:
    """A name that no key can have is InvalidKeyId, and is not looked up.

    It may come from a login form, so it is no programming error.
    """
    calls: list[Callable[[], Any]] = [
        partial(auth.use_key, "username", name, PASSWORD),
        partial(auth.use_key, "username", name, None),
        partial(auth.create_session_with_key, "username", name, PASSWORD),
        partial(auth.get_key, "username", name),
        partial(auth.update_key_password, "username", name, PASSWORD),
    ]
    for call in calls:
        with pytest.raises(InvalidKeyId):
            await call()
    await auth.delete_key("username", name)
    assert store.calls == []


@pytest.mark.parametrize("wrong", [None, 7, b"alice"])
async def test_names_are_text(auth: AsyncAuth[User], wrong: Any) -> None:
    """A name that is not a string is a TypeError."""
    for provider_id, provider_user_id in ((wrong, "alice"), ("username", wrong)):
        with pytest.raises(TypeError, match="must be a str"):
            await auth.use_key(provider_id, provider_user_id, PASSWORD)


async def test_get_key_checks_nothing(auth: AsyncAuth[User], time: Time, user_id: str) -> None:
    """``get_key`` needs no password, and returns an expired key too.

    An unknown key is InvalidKeyId.
    """
    await reset_key(auth, user_id)()
    assert await auth.get_key("reset", "token") == single_use(user_id, expired=False)
    time.advance(HOUR)
    assert await auth.get_key("reset", "token") == single_use(user_id, expired=False)
    time.now += 1
    assert await auth.get_key("reset", "token") == single_use(user_id, expired=True)
    with pytest.raises(InvalidKeyId):
        await auth.get_key("reset", "Token")


async def test_get_all_user_keys(auth: AsyncAuth[User], user_id: str) -> None:
    """A user's keys of both kinds are returned; an unknown user is InvalidUserId."""
    made = await reset_key(auth, user_id)()
    other = await auth.create_user(primary_key=PrimaryKey("username", "bob", None))
    primary = PersistentKey(
        provider_id="username",
        provider_user_id="alice",
        user_id=user_id,
        password_defined=True,
        primary=True,
    )
    found = await auth.get_all_user_keys(user_id)
    assert len(found) == 2
    assert made in found
    assert primary in found
    assert [key.provider_user_id for key in await auth.get_all_user_keys(other.user_id)] == ["bob"]
    with pytest.raises(InvalidUserId):
        await auth.get_all_user_keys("nobody")


async def test_delete_key(auth: AsyncAuth[User], user_id: str) -> None:
    """``delete_key`` returns whether it removed a key; a primary key stays.

    An unknown key is no error.
    """
    await auth.create_key(user_id, provider_id="email", provider_user_id="a", password=None)
    for names, removed in (
        (("email", "a"), True),
        (("email", "a"), False),
        (("username", "alice"), False),
        (("no", "key"), False),
        (("email", "\ud800"), False),
    ):
        assert await auth.delete_key(*names) is removed
    assert [key.provider_id for key in await auth.get_all_user_keys(user_id)] == ["username"]


# --- Single-use keys


@pytest.mark.parametrize("password", [None, "123456"])
async def test_a_single_use_key_is_consumed_by_its_first_use(
    auth: AsyncAuth[User], user_id: str, password: str | None
) -> None:
    """A single-use key works once, and is unknown afterwards."""
    made = await reset_key(auth, user_id, password)()
    assert made == single_use(user_id, expired=False, password_defined=password is not None)
    assert await auth.use_key("reset", "token", password) == made
    with pytest.raises(InvalidKeyId):
        await auth.use_key("reset", "token", password)
    with pytest.raises(InvalidKeyId):
        await auth.get_key("reset", "token")


async def test_single_use_key_works_in_its_last_millisecond(
    auth: AsyncAuth[User], time: Time, user_id: str
) -> None:
    """A key is valid up to and including the millisecond at which it expires."""
    await reset_key(auth, user_id)()
    time.advance(HOUR)
    assert await auth.use_key("reset", "token", None) == single_use(user_id, expired=False)


@pytest.mark.parametrize("password", [None, "123456"])
async def test_an_expired_single_use_key_is_consumed_too(
    auth: AsyncAuth[User], time: Time, user_id: str, password: str | None
) -> None:
    """An expired key is ExpiredKey at its first use, and unknown afterwards."""
    await reset_key(auth, user_id, password)()
    time.advance(HOUR)
    time.now += 1
    for error in (ExpiredKey, InvalidKeyId):
        with pytest.raises(error):
            await auth.use_key("reset", "token", password)


async def test_a_wrong_password_consumes_no_key(
    auth: AsyncAuth[User], time: Time, user_id: str
) -> None:
    """A wrong password leaves the key, even an expired one: the password is checked first."""
    await reset_key(auth, user_id, "123456")()
    for wrong in ("654321", None, "", "\ud800"):
        with pytest.raises(InvalidPassword):
            await auth.use_key("reset", "token", wrong)
    time.advance(2 * HOUR)
    with pytest.raises(InvalidPassword):
        await auth.use_key("reset", "token", "654321")
    assert (await auth.get_key("reset", "token")).user_id == user_id


@pytest.mark.parametrize("password", [None, "123456"])
async def test_a_single_use_key_is_consumed_once_under_concurrency(
    auth: AsyncAuth[User], user_id: str, password: str | None
) -> None:
    """Of several concurrent uses exactly one succeeds; the others are InvalidKeyId."""
    made = await reset_key(auth, user_id, password)()
    outcomes = await AsyncRacingCalls.gather_results(
        *[partial(auth.use_key, "reset", "token", password)] * 5
    )
    assert outcomes.count(made) == 1
    assert sum(isinstance(outcome, InvalidKeyId) for outcome in outcomes) == 4


async def test_who_comes_second_to_a_single_use_key_finds_none(
    auth: AsyncAuth[User], store: AsyncWatchedStore, user_id: str
) -> None:
    """If another use consumes the key after it was read, the use is InvalidKeyId."""
    await reset_key(auth, user_id)()
    store.after["get_key"] = partial(auth.use_key, "reset", "token", None)
    with pytest.raises(InvalidKeyId):
        await auth.use_key("reset", "token", None)


async def test_login_with_invalid_metadata_consumes_no_key(
    auth: AsyncAuth[User], user_id: str
) -> None:
    """A login that is refused for its metadata does not consume the key."""
    await reset_key(auth, user_id)()
    with pytest.raises(InvalidInput):
        await auth.create_session_with_key("reset", "token", None, metadata={"a": "x" * 8_192})
    assert (await auth.create_session_with_key("reset", "token", None)).user_id == user_id


async def test_a_login_consumes_a_single_use_key(auth: AsyncAuth[User], user_id: str) -> None:
    await reset_key(auth, user_id)()
    assert (await auth.create_session_with_key("reset", "token", None)).user_id == user_id
    with pytest.raises(InvalidKeyId):
        await auth.create_session_with_key("reset", "token", None)


async def test_a_store_that_fails_consumes_nothing(
    auth: AsyncAuth[User], store: AsyncWatchedStore, user_id: str
) -> None:
    """If the key can't be removed, the store's error is raised, and the key works later."""
    await reset_key(auth, user_id)()
    store.failing = {"delete_non_primary_key": StoreDownError("down")}
    with pytest.raises(StoreDownError):
        await auth.use_key("reset", "token", None)
    store.failing = {}
    assert (await auth.use_key("reset", "token", None)).user_id == user_id


@pytest.mark.parametrize("bare", [3600, 60.0, "1h", True, None])
async def test_a_bare_number_is_no_time_for_a_key(
    auth: AsyncAuth[User], user_id: str, bare: Any
) -> None:
    """``expires_in`` must be a ``timedelta``; anything else is refused, and no key is created."""
    with pytest.raises(TypeError, match=r"expires_in must be a datetime\.timedelta"):
        await auth.create_single_use_key(
            user_id, provider_id="reset", provider_user_id="token", password=None, expires_in=bare
        )
    assert len(await auth.get_all_user_keys(user_id)) == 1


async def test_a_key_does_not_expire_in_the_past_or_beyond_time(
    auth: AsyncAuth[User], user_id: str
) -> None:
    """A negative lifetime, and one beyond the year 9999, are refused."""
    for expires_in in (timedelta(milliseconds=-1), timedelta.max):
        with pytest.raises(ValueError, match="expires"):
            await auth.create_single_use_key(
                user_id,
                provider_id="reset",
                provider_user_id="token",
                password=None,
                expires_in=expires_in,
            )
    assert len(await auth.get_all_user_keys(user_id)) == 1
