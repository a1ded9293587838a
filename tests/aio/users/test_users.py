"""Users, and ``Auth`` without users."""

import logging
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any, assert_type

import pytest

from lucia import (
    AsyncAuth,
    DuplicateKeyId,
    InvalidCredentials,
    InvalidSessionId,
    InvalidUserId,
    PrimaryKey,
    Session,
    SessionRow,
    SessionUser,
    User,
    UserRow,
    UsersNotConfigured,
)
from lucia.adapters.memory import AsyncMemoryAdapter
from tests.aio.support.watched_store import AsyncWatchedStore, StoreDownError, make_auth
from tests.support.clocks import Time
from tests.support.passwords import CHEAP
from tests.support.requests import Exchange

PASSWORD = "correct horse battery staple"
ALICE = PrimaryKey("username", "alice", PASSWORD)
IMPOSSIBLE = ["", "\ud800", "\0", "x" * 12_289]


@dataclass(frozen=True)
class Member:
    """An application's user."""

    id: str
    email: str

    @classmethod
    def from_row(cls, row: UserRow) -> "Member":
        """Create a member from a stored user."""
        return cls(row.id, row.attributes["email"])


@pytest.mark.parametrize(
    "key",
    [("username", "alice", PASSWORD), ["username", "alice"], "alice", {"provider_id": "username"}],
)
async def test_a_primary_key_is_a_primary_key(
    auth: AsyncAuth[User], store: AsyncWatchedStore, key: Any
) -> None:
    """A ``primary_key`` of another type is a TypeError, without the password in its message."""
    with pytest.raises(TypeError) as caught:
        await auth.create_user(primary_key=key)
    assert str(caught.value) == (
        f"primary_key must be a PrimaryKey or None, not {type(key).__name__}:"
        " write PrimaryKey(provider_id, provider_user_id, password)"
    )
    assert store.calls == []


async def test_create_user(auth: AsyncAuth[User], store: AsyncWatchedStore) -> None:
    """A user has an id of 15 characters and its attributes; its key is primary and hashed."""
    user = await auth.create_user(primary_key=ALICE, attributes={"email": "a@example.com"})
    assert_type(user, User)
    assert len(user.user_id) == 15
    assert user.user_id.isalnum()
    assert user.user_id.isascii()
    assert await store.get_user(user.user_id) == UserRow(
        id=user.user_id, attributes={"email": "a@example.com"}
    )
    (key,) = await store.get_keys_by_user_id(user.user_id)
    assert (key.id, key.primary_key, key.expires) == ("username:alice", True, None)
    assert key.hashed_password is not None
    assert key.hashed_password.startswith("$scrypt$")
    assert CHEAP.verify(PASSWORD, key.hashed_password)


async def test_a_user_may_have_no_key(auth: AsyncAuth[User]) -> None:
    """A user may be stored without a key."""
    user = await auth.create_user(primary_key=None)
    assert await auth.get_user(user.user_id) == user
    assert await auth.get_all_user_keys(user.user_id) == []


async def test_user_and_key_are_stored_both_or_neither(
    auth: AsyncAuth[User], store: AsyncWatchedStore
) -> None:
    """A taken name stores no user, and leaves the existing key unchanged."""
    first = await auth.create_user(primary_key=ALICE)
    again = make_auth(store, Time(), generate_custom_user_id=lambda: "second")
    with pytest.raises(DuplicateKeyId):
        await again.create_user(primary_key=ALICE)
    assert await store.get_user("second") is None
    assert (await auth.get_key("username", "alice")).user_id == first.user_id


async def test_generate_custom_user_id(store: AsyncWatchedStore, time: Time) -> None:
    """``generate_custom_user_id`` creates the ids of users; an impossible one is an error."""
    auth = make_auth(store, time, generate_custom_user_id=iter(["one", "", 7]).__next__)
    assert await auth.create_user(primary_key=None) == User("one")
    with pytest.raises(ValueError, match="user_id is empty"):
        await auth.create_user(primary_key=None)
    with pytest.raises(TypeError, match="user_id must be a str, not int"):
        await auth.create_user(primary_key=None)


async def test_transform_database_user(store: AsyncWatchedStore, time: Time) -> None:
    """``transform_database_user`` creates the users that all methods return, and their type."""
    auth = AsyncAuth(
        users=store, sessions=store, env="DEV", transform_database_user=Member.from_row, clock=time
    )
    member = await auth.create_user(primary_key=None, attributes={"email": "a@example.com"})
    assert_type(member, Member)
    assert member == Member(member.id, "a@example.com")
    session = await auth.create_session(member.id)
    found = await auth.validate_session_user(session.session_id)
    assert_type(found, SessionUser[Member])
    assert (
        found.user
        == (await auth.get_session_user(session.session_id)).user
        == await auth.get_user(member.id)
        == member
    )
    assert (
        await auth.update_user_attributes(member.id, {"email": "b@example.com"})
    ).email == "b@example.com"
    assert auth.transform_database_user(UserRow(id="u", attributes={"email": "e"})) == Member(
        "u", "e"
    )
    validated = await auth.handle_request(Exchange(session.session_id).context).validate_user()
    assert validated is not None
    assert validated.user.email == "b@example.com"


def test_by_default_a_user_is_an_id(auth: AsyncAuth[User]) -> None:
    """By default, a user has no attributes."""
    assert auth.transform_database_user(UserRow(id="u", attributes={"password_hint": "x"})) == User(
        "u"
    )


async def test_get_user(auth: AsyncAuth[User], store: AsyncWatchedStore) -> None:
    """A user is found only by the exact id; an unknown or impossible id is InvalidUserId."""
    user = await auth.create_user(primary_key=ALICE)
    assert await auth.get_user(user.user_id) == user
    with pytest.raises(InvalidUserId):
        await auth.get_user(user.user_id.swapcase())
    store.calls.clear()
    for impossible in IMPOSSIBLE:
        with pytest.raises(InvalidUserId):
            await auth.get_user(impossible)
        with pytest.raises(InvalidUserId):
            await auth.update_user_attributes(impossible, {})
        with pytest.raises(InvalidUserId):
            await auth.get_all_user_keys(impossible)
        with pytest.raises(InvalidUserId):
            await auth.create_key(impossible, provider_id="p", provider_user_id="u", password=None)
    assert store.calls == []


@pytest.mark.parametrize("wrong", [None, 7, b"id"])
async def test_a_user_id_is_text(auth: AsyncAuth[User], wrong: Any) -> None:
    """A user id that is not a string is a TypeError, even for a lookup."""
    methods: Sequence[Callable[[Any], Any]] = [
        auth.get_user,
        auth.delete_user,
        auth.get_all_user_keys,
        auth.get_all_user_sessions,
        auth.create_session,
        auth.invalidate_all_user_sessions,
    ]
    for method in methods:
        with pytest.raises(TypeError, match="user_id must be a str"):
            await method(wrong)


class Vanishing(AsyncMemoryAdapter):
    """An adapter where another program deletes users before each change."""

    async def update_user_attributes(
        self, user_id: str, attributes: Mapping[str, Any], /
    ) -> UserRow | None:
        await self.delete_user(user_id)
        return await super().update_user_attributes(user_id, attributes)


async def test_a_user_that_is_removed_meanwhile() -> None:
    """A user that is deleted during a change is InvalidUserId."""
    store = Vanishing()
    auth = AsyncAuth(users=store, sessions=store, env="DEV")
    user = await auth.create_user(primary_key=None)
    with pytest.raises(InvalidUserId):
        await auth.update_user_attributes(user.user_id, {"a": 1})


async def test_update_user_attributes(auth: AsyncAuth[User], store: AsyncWatchedStore) -> None:
    """Only the given attributes change; an unknown user is InvalidUserId."""
    user = await auth.create_user(primary_key=None, attributes={"a": 1, "b": 2})
    assert await auth.update_user_attributes(user.user_id, {"b": 3, "c": None}) == user
    assert await store.get_user(user.user_id) == UserRow(
        id=user.user_id, attributes={"a": 1, "b": 3, "c": None}
    )
    with pytest.raises(InvalidUserId):
        await auth.update_user_attributes("nobody", {"a": 1})


@pytest.mark.parametrize("attributes", [{"id": "other"}, {"a": 1, "id": None}])
async def test_an_attribute_named_id_is_refused(
    auth: AsyncAuth[User], attributes: dict[str, Any]
) -> None:
    """An attribute named ``id`` is a ValueError, and changes nothing."""
    user = await auth.create_user(primary_key=None)
    with pytest.raises(ValueError, match="id"):
        await auth.create_user(primary_key=None, attributes=attributes)
    with pytest.raises(ValueError, match="id"):
        await auth.update_user_attributes(user.user_id, attributes)
    assert await auth.get_user(user.user_id) == user


@pytest.mark.parametrize("attributes", [[1], "name", {1}])
async def test_attributes_are_a_dict(
    auth: AsyncAuth[User], store: AsyncWatchedStore, attributes: Any
) -> None:
    """Attributes that are not a dict are a TypeError before any store call."""
    calls: list[Callable[[], Any]] = [
        partial(auth.create_user, primary_key=None, attributes=attributes),
        partial(auth.update_user_attributes, "u", attributes),
    ]
    for call in calls:
        with pytest.raises(
            TypeError, match=rf"\Aattributes must be a dict, not {type(attributes).__name__}\Z"
        ):
            await call()
    assert store.calls == []


# --- Deletion


async def test_delete_user(auth: AsyncAuth[User], store: AsyncWatchedStore) -> None:
    """Deleting a user removes all its keys and sessions; repeating it is no error."""
    user = await auth.create_user(primary_key=ALICE)
    other = await auth.create_user(primary_key=PrimaryKey("username", "bob", None))
    await auth.create_key(
        user.user_id, provider_id="email", provider_user_id="a@example.com", password=None
    )
    session = await auth.create_session(user.user_id)
    theirs = await auth.create_session(other.user_id)
    await auth.delete_user(user.user_id)
    await auth.delete_user(user.user_id)
    with pytest.raises(InvalidUserId):
        await auth.get_user(user.user_id)
    assert await store.get_keys_by_user_id(user.user_id) == []
    with pytest.raises(InvalidSessionId):
        await auth.get_session(session.session_id)
    assert (await auth.get_session_user(theirs.session_id)).user == other
    assert (await auth.get_key("username", "bob")).user_id == other.user_id


@pytest.mark.parametrize(
    "moment", ["delete_keys_by_user_id", "delete_sessions_by_user_id", "delete_user"]
)
async def test_a_login_during_the_deletion_leaves_no_session(
    auth: AsyncAuth[User], store: AsyncWatchedStore, moment: str
) -> None:
    """A session created at any moment of the deletion is removed with the user."""
    user = await auth.create_user(primary_key=ALICE)
    for hooks in (store.before, store.after):
        hooks[moment] = partial(auth.create_session, user.user_id)
    await auth.delete_user(user.user_id)
    assert "set_session" in store.calls
    assert await store.get_sessions_by_user_id(user.user_id) == []


@pytest.mark.parametrize("moment", ["get_key", "set_session"])
@pytest.mark.parametrize("single_use", [False, True])
async def test_a_login_with_a_key_does_not_outlive_its_user(
    auth: AsyncAuth[User], store: AsyncWatchedStore, moment: str, *, single_use: bool
) -> None:
    """A user that is deleted during a login, with any kind of key, has no session afterwards."""
    user = await auth.create_user(primary_key=ALICE)
    name = "alice"
    if single_use:
        name = "once"
        await auth.create_single_use_key(
            user.user_id,
            provider_id="username",
            provider_user_id=name,
            password=PASSWORD,
            expires_in=timedelta(hours=1),
        )
    store.after[moment] = partial(auth.delete_user, user.user_id)
    with pytest.raises(InvalidCredentials):
        await auth.create_session_with_key("username", name, PASSWORD)
    assert await store.get_sessions_by_user_id(user.user_id) == []


# --- Without ``users=``


async def test_without_users_it_is_a_session_library(store: AsyncWatchedStore, time: Time) -> None:
    """Without ``users=``, everything about sessions works, with any text as a user id."""
    auth = make_auth(store, time, users=None)
    assert not auth.has_users
    session = await auth.create_session("theirs", metadata={"a": 1})
    assert await auth.validate_session(session.session_id) == await auth.get_session(
        session.session_id
    )
    assert [device.handle for device in await auth.get_all_user_sessions("theirs")] == [
        session.handle
    ]
    assert await auth.get_all_user_sessions("nobody") == []
    renewed = await auth.renew_session(session.session_id)
    assert await auth.invalidate_user_session("theirs", renewed.handle)
    request = auth.handle_request(Exchange().context)
    await request.sign_in("theirs")
    assert await request.validate() is not None
    await auth.invalidate_all_user_sessions("theirs")
    await auth.delete_dead_user_sessions("theirs")
    assert not {"get_user", "get_key", "get_session_and_user_by_session_id"} & set(store.calls)


async def test_without_users_their_methods_say_so(store: AsyncWatchedStore, time: Time) -> None:
    """Without ``users=``, methods for users, keys and passwords raise UsersNotConfigured."""
    auth = make_auth(store, time, users=None)
    session = await auth.create_session("theirs")
    request = auth.handle_request(Exchange(session.session_id).context)
    calls: list[Callable[[], Any]] = [
        partial(auth.create_user, primary_key=None),
        partial(auth.create_user, primary_key=ALICE),
        partial(auth.get_user, "u"),
        partial(auth.update_user_attributes, "u", {}),
        partial(auth.delete_user, "theirs"),
        partial(auth.create_key, "u", provider_id="p", provider_user_id="u", password=None),
        partial(
            auth.create_single_use_key,
            "u",
            provider_id="p",
            provider_user_id="u",
            password=None,
            expires_in=timedelta(1),
        ),
        partial(auth.use_key, "p", "u", None),
        partial(auth.use_key, "p", "u", PASSWORD),
        partial(auth.create_session_with_key, "p", "u", PASSWORD),
        partial(auth.get_key, "p", "u"),
        partial(auth.get_all_user_keys, "u"),
        partial(auth.update_key_password, "p", "u", PASSWORD),
        partial(auth.delete_key, "p", "u"),
        partial(auth.get_session_user, session.session_id),
        partial(auth.validate_session_user, session.session_id),
        request.validate_user,
        auth.handle_request(Exchange().context).validate_user,
        partial(request.sign_in_with_key, "p", "u", PASSWORD),
    ]
    for call in calls:
        with pytest.raises(UsersNotConfigured, match="users="):
            await call()
    assert (await auth.get_session(session.session_id)).user_id == "theirs"


# --- Secrets


async def test_no_secret_is_shown(
    auth: AsyncAuth[User], store: AsyncWatchedStore, time: Time, caplog: pytest.LogCaptureFixture
) -> None:
    """No repr, text, log line or traceback contains a session id, password, hash or reset token."""
    caplog.set_level(logging.DEBUG)
    shown: list[str] = []
    secrets: set[str] = {PASSWORD, "a wrong guess", "token-of-the-reset", "a new password"}

    def show(*values: object) -> None:
        for value in values:
            shown.extend((repr(value), str(value), f"{value}"))
            if isinstance(value, Session):
                secrets.add(value.session_id)
            if isinstance(value, BaseException):
                shown.extend(traceback.format_exception(value))

    async def fails(call: Callable[[], Any]) -> None:
        try:
            await call()
        except Exception as error:
            show(error)
        else:
            pytest.fail("a call that should raise did not")

    user = await auth.create_user(primary_key=ALICE)
    show(auth, user, ALICE, await auth.get_key("username", "alice"))
    await fails(
        partial(auth.create_user, primary_key=PrimaryKey("username", "alice", "a new password"))
    )
    reset = {"provider_id": "reset", "provider_user_id": "token-of-the-reset"}
    show(
        await auth.create_single_use_key(
            user.user_id, password=None, expires_in=timedelta(1), **reset
        )
    )
    show(
        *await auth.get_all_user_keys(user.user_id), *await store.get_keys_by_user_id(user.user_id)
    )
    await fails(partial(auth.create_key, user.user_id, password=None, **reset))
    await fails(
        partial(
            auth.create_key,
            user.user_id,
            provider_id="x",
            provider_user_id="y",
            password="\ud800" + PASSWORD,
        )
    )
    await fails(
        partial(
            auth.create_key,
            user.user_id,
            provider_id="x",
            provider_user_id="y",
            password=PASSWORD * 50,
        )
    )
    secrets.update(
        row.hashed_password
        for row in await store.get_keys_by_user_id(user.user_id)
        if row.hashed_password
    )
    for name, password in (
        ("alice", "a wrong guess"),
        ("nobody", PASSWORD),
        ("alice", PASSWORD * 50),
        ("alice", ""),
    ):
        await fails(partial(auth.use_key, "username", name, password))

    exchange = Exchange()
    request = auth.handle_request(exchange.context)
    session = await request.sign_in_with_key("username", "alice", PASSWORD, via="web")
    show(
        session,
        request,
        await request.validate(),
        await request.validate_user(),
        exchange.cookies,
        exchange.context,
    )
    show(
        *await store.get_sessions_by_user_id(user.user_id),
        *await auth.get_all_user_sessions(user.user_id),
    )
    foreign = auth.handle_request(
        Exchange(session.session_id, origin="https://evil.example").context
    )
    show(foreign, foreign.origin_failure, await foreign.validate())
    await fails(partial(foreign.sign_in, user.user_id))
    show(
        renewed := await auth.renew_session(session.session_id),
        await auth.get_session_user(session.session_id),
    )
    store.failing = {
        "get_session": StoreDownError("down"),
        "delete_sessions_by_user_id": StoreDownError("down"),
    }
    await fails(partial(auth.validate_session, renewed.session_id))
    await fails(partial(auth.update_key_password, "username", "alice", "a new password"))
    store.failing = {}
    await store.set_session(
        SessionRow(id="s" * 40, user_id=user.user_id, active_expires=1, idle_expires=2)
    )
    secrets.add("s" * 40)
    for session_id in ("s" * 40, session.session_id + "0"):
        await fails(partial(auth.validate_session, session_id))
    show(await auth.use_key("reset", "token-of-the-reset", None))
    await fails(partial(auth.use_key, "reset", "token-of-the-reset", None))
    await request.sign_out()
    await fails(partial(auth.get_session, session.session_id))

    text = "\n".join([*shown, caplog.text])
    assert caplog.records
    assert len(secrets) >= 8
    assert not [secret for secret in secrets if secret in text]
