"""Rows refuse what no store can keep, and no repr shows a secret."""

import copy
import pickle
from collections.abc import Callable
from dataclasses import FrozenInstanceError, asdict, fields, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from lucia import (
    Device,
    KeyRow,
    PersistentKey,
    PrimaryKey,
    Session,
    SessionRow,
    SingleUseKey,
    User,
    UserRow,
)
from lucia.models import MAX_EPOCH_MS, MAX_ID_LENGTH, MAX_USER_ID_BYTES
from tests.support.sessions import SESSION_MEMBERS, changed
from tests.support.sessions import session as make_session

SESSION = SessionRow(id="the-session-id", user_id="u", active_expires=1, idle_expires=2)
KEY = KeyRow(
    id="p:the-token", user_id="u", hashed_password="the-hash", primary_key=False, expires=3
)
USER = UserRow(id="u", attributes={"email": "a@example.com"})
TIME = datetime(2026, 1, 1, tzinfo=UTC)

NOT_TEXT: list[Any] = [None, 7, b"bytes", True, ["u"]]
NO_TEXT = ["", "\ud800", "a\udfffb", "\0", "a\0b"]


@pytest.mark.parametrize("row", [SESSION, KEY, USER])
@pytest.mark.parametrize("name", ["id", "user_id"])
def test_ids_are_text(row: Any, name: str) -> None:
    """A stored id that is not a str is a TypeError; an empty or invalid one is a ValueError."""
    if not hasattr(row, name):
        assert row is USER
        return
    # A user's row has the id in the application's own type, where the application sees it.
    for value in () if row is USER else NOT_TEXT:
        with pytest.raises(TypeError, match=r"id must be a str"):
            replace(row, **{name: value})
    for value in NO_TEXT:
        with pytest.raises(
            ValueError, match=r"id (is empty|holds a lone surrogate|holds a NUL character)"
        ):
            replace(row, **{name: value})


@pytest.mark.parametrize(("row", "name"), [(SESSION, "session id"), (KEY, "key id")])
def test_the_longest_id(row: Any, name: str) -> None:
    """Session and key ids have at most 255 characters, and the error does not quote the id."""
    assert replace(row, id="漢" * MAX_ID_LENGTH).id == "漢" * MAX_ID_LENGTH
    with pytest.raises(ValueError, match=f"{name} has 256 characters") as caught:
        replace(row, id="x" * (MAX_ID_LENGTH + 1))
    assert "xx" not in str(caught.value)


@pytest.mark.parametrize(
    ("make", "name"),
    [(lambda i: replace(SESSION, user_id=i), "user_id"), (lambda i: replace(USER, id=i), "id")],
)
def test_the_longest_user_id(make: Callable[[str], Any], name: str) -> None:
    """User ids have at most 12,288 bytes of UTF-8."""
    longest = "漢" * (MAX_USER_ID_BYTES // 3)
    assert getattr(make(longest), name) == longest
    with pytest.raises(ValueError, match="user_id has 12289 bytes"):
        make(longest + "x")


@pytest.mark.parametrize(
    ("row", "name"), [(SESSION, "active_expires"), (SESSION, "idle_expires"), (KEY, "expires")]
)
def test_times_are_whole_milliseconds_of_this_era(row: Any, name: str) -> None:
    """Times are ints from 0 to the end of the year 9999, and nothing else."""
    for value in (0, MAX_EPOCH_MS):
        assert getattr(replace(row, **{name: value}), name) == value
    for wrong in (1.0, True, "1", float("inf"), float("nan"), [1]):
        with pytest.raises(TypeError, match=f"{name} must be an int"):
            replace(row, **{name: wrong})
    for beyond in (-1, MAX_EPOCH_MS + 1, 10**400):
        with pytest.raises(ValueError, match=f"{name} is out of range") as caught:
            replace(row, **{name: beyond})
        assert len(str(caught.value)) < 200


def test_a_key_may_have_no_expiry() -> None:
    """A key may have no expiry; a session always has both ends."""
    assert replace(KEY, expires=None).expires is None
    without: Any = None
    with pytest.raises(TypeError, match="idle_expires"):
        replace(SESSION, idle_expires=without)


@pytest.mark.parametrize("name", ["id", "user_id", "active_expires", "idle_expires"])
def test_session_attributes_do_not_clash(name: str) -> None:
    """An attribute can't have the name of a column: the record could not hold both."""
    with pytest.raises(ValueError, match=f"attributes may not be named {name}"):
        replace(SESSION, attributes={"fine": 1, name: 2})


def test_user_attributes_do_not_clash() -> None:
    """A user's attribute can't be named ``id``; every other name is free."""
    with pytest.raises(ValueError, match="attributes may not be named id"):
        UserRow(id="u", attributes={"id": "x"})
    assert UserRow(id="u", attributes={"user_id": 1, "active_expires": 2}).attributes == {
        "user_id": 1,
        "active_expires": 2,
    }


@pytest.mark.parametrize("row", [SESSION, KEY, USER])
def test_rows_are_frozen_and_hashable(row: Any) -> None:
    """A row is read-only, equals a row with the same members, and is hashable."""
    with pytest.raises(FrozenInstanceError):
        row.id = "other"
    assert row == replace(row)
    assert row != replace(row, id="other")
    assert {row, replace(row)} == {row}


SIGNED_IN = make_session(
    session_id="the-session-id",
    user_id="u",
    active_period_expires_at=TIME,
    idle_period_expires_at=TIME + timedelta(days=1),
    state="active",
    fresh=True,
    handle="the-handle",
    created_at=TIME,
    metadata={"agent": {"names": ["first"]}},
)
OTHER_MEMBERS: dict[str, Any] = {
    "session_id": "another-id",
    "user_id": "v",
    "active_period_expires_at": TIME + timedelta(milliseconds=1),
    "idle_period_expires_at": TIME,
    "state": "idle",
    "fresh": False,
    "handle": "another-handle",
    "created_at": TIME - timedelta(days=1),
    "metadata": {"agent": {"names": ["first", "second"]}},
}


def test_a_session_shows_its_members_in_order() -> None:
    """The repr and the fields of a session are its members except the id, in order."""
    assert tuple(each.name for each in fields(SIGNED_IN)) == SESSION_MEMBERS
    members = {name: getattr(SIGNED_IN, name) for name in SESSION_MEMBERS}
    assert asdict(SIGNED_IN) == members
    shown = ", ".join(f"{name}={value!r}" for name, value in members.items())
    assert repr(SIGNED_IN) == f"Session({shown})"


@pytest.mark.parametrize("name", OTHER_MEMBERS)
def test_sessions_differ_in_any_member(name: str) -> None:
    """Sessions are equal exactly if all members are, including the id."""
    assert changed(SIGNED_IN) == SIGNED_IN
    assert hash(changed(SIGNED_IN)) == hash(SIGNED_IN)
    other = changed(SIGNED_IN, **{name: OTHER_MEMBERS[name]})
    assert other != SIGNED_IN
    assert len({SIGNED_IN, changed(SIGNED_IN), other}) == 2
    assert SIGNED_IN != "the-session-id"
    assert SIGNED_IN != SESSION


@pytest.mark.parametrize("name", OTHER_MEMBERS)
def test_a_session_is_read_only(name: str) -> None:
    """Setting or deleting any attribute of a session is an AttributeError."""
    session: Any = changed(SIGNED_IN)
    with pytest.raises(AttributeError):
        setattr(session, name, OTHER_MEMBERS[name])
    with pytest.raises(AttributeError):
        delattr(session, name)
    with pytest.raises(AttributeError):
        session.unknown = 1
    with pytest.raises(AttributeError):
        session.unknown  # noqa: B018 -- the test is about reading it
    assert session == SIGNED_IN


def pickled(value: Any) -> Any:
    return pickle.loads(pickle.dumps(value))  # noqa: S301 -- pickled here


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, pickled])
def test_a_copy_of_a_session(again: Callable[[Any], Any]) -> None:
    """Copies and pickles of a session equal it, and share no metadata with it."""
    row = replace(
        SESSION, attributes={"handle": "h", "noted": {"agent": ["first"]}, "own": [1, {"a": 2}]}
    )
    session = Session(row, "idle", True, 1)
    made = again(session)
    assert type(made) is Session
    assert made == session
    assert hash(made) == hash(session)
    assert repr(made) == repr(session)
    assert made.session_id == SESSION.id
    row.attributes["noted"]["agent"].append("second")
    assert session.metadata == {"agent": ["first", "second"]}
    assert made.metadata == {"agent": ["first"]}


def test_metadata_is_the_callers_own() -> None:
    """Changing the returned metadata, or what it contains, does not change the session."""
    session = changed(SIGNED_IN)
    mine, other = session.metadata, session.metadata
    mine["agent"]["names"].append("second")
    mine["more"] = 1
    assert other == session.metadata == SIGNED_IN.metadata == {"agent": {"names": ["first"]}}
    del other["agent"]
    assert session.metadata == SIGNED_IN.metadata
    assert session == SIGNED_IN


@pytest.mark.parametrize("noted", [None, [], "text", 1])
def test_metadata_of_another_type_is_none(noted: Any) -> None:
    """Metadata that is not an object, as another program may write it, is empty."""
    row = replace(SESSION, attributes={"noted": noted})
    assert Session(row, "active", False, 1).metadata == {}


def test_no_repr_shows_a_secret() -> None:
    """No repr has a session id, a password, a hash, or the name of a single-use key."""
    single_use = SingleUseKey(
        provider_id="p",
        provider_user_id="the-token",
        user_id="u",
        password_defined=True,
        expires_at=TIME,
        expired=False,
    )
    shown = repr(
        [SESSION, KEY, USER, SIGNED_IN, single_use, PrimaryKey("p", "alice", "the-password")]
    )
    assert not [
        secret
        for secret in ("the-session-id", "the-token", "the-hash", "the-password", "a@example.com")
        if secret in shown
    ]
    assert "the-handle" in shown
    assert "alice" in shown


def test_models_are_compared_by_value_and_hashable() -> None:
    """The other models are compared by value and hashable, with any metadata."""
    device = Device(
        handle="h",
        user_id="u",
        created_at=TIME,
        active_period_expires_at=TIME,
        idle_period_expires_at=TIME,
        state="idle",
        metadata={"list": []},
    )
    key = PersistentKey(
        provider_id="p", provider_user_id="u", user_id="u", password_defined=False, primary=True
    )
    for model in (device, key, User("u")):
        assert len({model, replace(model)}) == 1
