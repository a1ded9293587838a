"""User ids of the application's own type, through all of ``Auth``."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from lucia import (
    AsyncAuth,
    DuplicateKeyId,
    InvalidKeyId,
    InvalidSessionId,
    InvalidUserId,
    PrimaryKey,
    UserIdType,
    UserRow,
)
from lucia.adapters.memory import AsyncMemoryAdapter
from tests.support.passwords import CHEAP
from tests.support.requests import Exchange

PASSWORD = "correct horse battery staple"


@dataclass(frozen=True)
class Number:
    """A type of ids of an application's own."""

    value: int


NUMBERS = UserIdType(
    Number, from_text=lambda text: Number(int(text)), to_text=lambda number: str(number.value)
)


@dataclass(frozen=True)
class Member:
    """An application's user."""

    id: Any
    email: str

    @classmethod
    def from_row(cls, row: UserRow[Any]) -> "Member":
        """Create a member from a stored user."""
        return cls(row.id, row.attributes["email"])


class AsyncFixedIdsAdapter(AsyncMemoryAdapter):
    """A store that can't assign ids."""

    add_user: Any = None


def make_auth(store: AsyncMemoryAdapter, user_id: Any) -> AsyncAuth[Member, Any]:
    """Return an ``Auth`` whose users have ids of this type."""
    return AsyncAuth(
        sessions=store,
        users=store,
        env="DEV",
        hash=CHEAP,
        user_id=user_id,
        transform_database_user=Member.from_row,
    )


@pytest.mark.parametrize(("user_id", "kind"), [(int, int), (UUID, UUID), (NUMBERS, Number)])
async def test_every_result_has_the_own_type(user_id: Any, kind: type[Any]) -> None:
    """Each method takes ids of the application's type and returns them; the store has text."""
    store = AsyncMemoryAdapter()
    auth = make_auth(store, user_id)
    key = PrimaryKey("email", "alice@example.com", PASSWORD)
    member = await auth.create_user(primary_key=key, attributes={"email": "alice@example.com"})
    assert type(member.id) is kind
    assert await auth.get_user(member.id) == member
    changed = await auth.update_user_attributes(member.id, {"email": "al@example.com"})
    assert changed == replace(member, email="al@example.com")

    session = await auth.create_session(member.id)
    assert session.user_id == member.id
    assert (await auth.get_session(session.session_id)).user_id == member.id
    assert (await auth.validate_session(session.session_id)).user_id == member.id
    both = await auth.validate_session_user(session.session_id)
    assert (both.session.user_id, both.user) == (member.id, changed)
    assert await auth.get_user_of(session) == changed
    renewed = await auth.renew_session(session.session_id)
    assert renewed.user_id == member.id
    (device,) = await auth.get_all_user_sessions(member.id)
    assert device.user_id == member.id
    assert await auth.get_user_session(member.id, device.handle) == device
    assert await auth.invalidate_user_session(member.id, device.handle)
    with pytest.raises(InvalidSessionId):
        await auth.get_session(renewed.session_id)

    await auth.create_key(member.id, provider_id="name", provider_user_id="alice", password=None)
    token = await auth.create_single_use_key(
        member.id,
        provider_id="token",
        provider_user_id="t",
        password=None,
        expires_in=timedelta(minutes=5),
    )
    assert token.user_id == member.id
    assert {each.user_id for each in await auth.get_all_user_keys(member.id)} == {member.id}
    assert (await auth.get_key("name", "alice")).user_id == member.id
    assert (await auth.use_key("token", "t", None)).user_id == member.id
    signed_in = await auth.create_session_with_key("email", "alice@example.com", PASSWORD)
    assert signed_in.user_id == member.id
    kept = await auth.update_key_password(
        "email", "alice@example.com", "a longer password", keep_session=signed_in.session_id
    )
    assert kept is not None
    assert kept.user_id == member.id
    request = auth.handle_request(Exchange().context)
    assert (await request.sign_in(member.id)).user_id == member.id
    assert await auth.invalidate_all_user_sessions(member.id)
    await auth.delete_dead_user_sessions(member.id)
    assert await auth.get_all_user_sessions(member.id) == []

    text = str(member.id.value if kind is Number else member.id)
    stored = await store.get_user(text)
    assert stored is not None
    assert isinstance(stored.id, str)
    await auth.delete_user(member.id)
    assert await store.get_user(text) is None
    with pytest.raises(InvalidUserId):
        await auth.get_user(member.id)


@pytest.mark.parametrize(
    "call",
    [
        lambda auth: auth.get_user("7"),
        lambda auth: auth.create_session("7"),
        lambda auth: auth.delete_user("7"),
        lambda auth: auth.update_user_attributes("7", {}),
        lambda auth: auth.get_all_user_keys("7"),
        lambda auth: auth.get_all_user_sessions("7"),
        lambda auth: auth.get_user_session("7", "h"),
        lambda auth: auth.invalidate_all_user_sessions("7"),
        lambda auth: auth.invalidate_user_session("7", "h"),
        lambda auth: auth.delete_dead_user_sessions("7"),
        lambda auth: auth.create_key("7", provider_id="a", provider_user_id="b", password=None),
    ],
)
async def test_text_is_no_int(call: Callable[[Any], Any]) -> None:
    """An id of another type than the application's is refused, not compared as text."""
    auth = make_auth(AsyncMemoryAdapter(), int)
    with pytest.raises(TypeError, match="user_id must be an int, not str"):
        await call(auth)


async def test_session_of_another_type_of_ids(caplog: pytest.LogCaptureFixture) -> None:
    """A session that was stored for ids of another type is no session, and a warning is logged."""
    store = AsyncMemoryAdapter()
    session = await AsyncAuth(sessions=store, env="DEV").create_session("alice")
    auth = AsyncAuth(sessions=store, env="DEV", user_id=int)
    for call in (auth.get_session, auth.validate_session, auth.renew_session):
        with pytest.raises(InvalidSessionId):
            await call(session.session_id)
    assert "the user's id in it is of another type" in caplog.text
    assert session.session_id not in caplog.text


async def test_database_assigns_ids() -> None:
    """With ids that the database assigns, user and key are stored together or not at all."""
    store = AsyncMemoryAdapter()
    auth = make_auth(store, int)
    key = PrimaryKey("email", "alice", None)
    alice = await auth.create_user(primary_key=key, attributes={"email": "a"})
    bob = await auth.create_user(primary_key=None, attributes={"email": "b"})
    assert (alice.id, bob.id) == (1, 2)
    with pytest.raises(DuplicateKeyId):
        await auth.create_user(primary_key=key, attributes={"email": "c"})
    assert (await auth.get_key("email", "alice")).user_id == alice.id
    await store.set_user("4", {"email": "d"}, None)
    assert (await auth.create_user(primary_key=None, attributes={"email": "e"})).id == 5


async def test_assigned_ids_need_an_adapter_that_assigns_them() -> None:
    """Ids that nobody creates are refused when the ``Auth`` is created."""
    store = AsyncFixedIdsAdapter()
    with pytest.raises(ValueError, match="FixedIdsAdapter can't let the database assign it"):
        AsyncAuth(sessions=store, users=store, env="DEV", user_id=int)
    with pytest.raises(ValueError, match="generate_custom_user_id is missing"):
        AsyncAuth(sessions=store, users=store, env="DEV", generate_custom_user_id=None)
    numbers = iter(range(7, 100))
    auth = AsyncAuth(
        sessions=store,
        users=store,
        env="DEV",
        user_id=int,
        generate_custom_user_id=lambda: next(numbers),
    )
    assert (await auth.create_user(primary_key=None)).user_id == 7


class AsyncTypedAdapter(AsyncMemoryAdapter):
    """A store that tells the type of its ids."""

    def __init__(self, user_id_type: UserIdType[Any]) -> None:
        super().__init__()
        self.user_id_type = user_id_type


STORED: dict[str, UserIdType[Any]] = {
    "text": UserIdType(str, str),
    "text of its own": UserIdType(str, str, generate=lambda: "65f0c0ffee"),
    "int": UserIdType(int, int),
    "UUID": UserIdType(UUID, UUID),
    "Number": NUMBERS,
}


@pytest.mark.parametrize(
    ("stored", "user_id", "advice"),
    [
        ("int", str, "user ids of the type int, and Auth's user_id is str: give Auth user_id=int,"),
        ("int", UUID, "or the adapter ids of the type UUID"),
        ("UUID", str, "give Auth user_id=UUID"),
        ("UUID", int, "give Auth user_id=UUID"),
        ("Number", str, "give Auth a UserIdType of Number"),
        ("Number", UUID, "give Auth a UserIdType of Number"),
        ("text of its own", int, "give Auth user_id=str"),
    ],
)
def test_ids_that_the_adapter_does_not_have(stored: str, user_id: Any, advice: str) -> None:
    """An adapter that can't have the ids of ``Auth`` is refused before anything is stored."""
    with pytest.raises(TypeError, match=f"TypedAdapter has .*{advice}"):
        make_auth(AsyncTypedAdapter(STORED[stored]), user_id)


@pytest.mark.parametrize(
    ("stored", "settings"),
    [
        ("text", {}),
        ("text", {"user_id": int}),
        ("text", {"user_id": UUID}),
        ("text of its own", {}),
        ("text of its own", {"user_id": UUID}),
        ("text of its own", {"user_id": int, "generate_custom_user_id": lambda: 7}),
        ("int", {"user_id": int}),
        ("int", {"generate_custom_user_id": None}),
        ("int", {"generate_custom_user_id": lambda: "7"}),
        ("int", {"user_id": NUMBERS}),
        ("UUID", {"user_id": UUID}),
        ("Number", {"user_id": int}),
    ],
)
async def test_ids_of_another_type_that_fit(stored: str, settings: dict[str, Any]) -> None:
    """Types whose texts are ids of the other one work together, and users are found."""
    store = AsyncTypedAdapter(STORED[stored])
    auth: Any = AsyncAuth(sessions=store, users=store, env="DEV", **settings)
    user = await auth.create_user(primary_key=None)
    assert await auth.get_user(user.user_id) == user


async def test_generated_id_of_another_type() -> None:
    """A function that creates ids of another type is a TypeError, before anything is stored."""
    store = AsyncMemoryAdapter()
    create: Any = uuid4
    auth = AsyncAuth(
        sessions=store, users=store, env="DEV", user_id=int, generate_custom_user_id=create
    )
    with pytest.raises(TypeError, match="user_id must be an int, not UUID"):
        await auth.create_user(primary_key=PrimaryKey("a", "b", None))
    with pytest.raises(InvalidKeyId):
        await auth.get_key("a", "b")
