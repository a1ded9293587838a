"""The text of user ids of any type."""

from dataclasses import dataclass
from enum import Enum
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lucia import InvalidUserId, UserIdType
from lucia._rules.user_ids import TEXT_IDS, user_id_type

UUID_TEXT = "0189c7e2-7c3c-7a52-8f5e-3c1f1e7a9b10"


@dataclass(frozen=True)
class Ulid:
    """A type of ids of an application's own."""

    value: int

    def __str__(self) -> str:
        return f"{self.value:x}"


ULIDS = UserIdType(Ulid, from_text=lambda text: Ulid(int(text, 16)))


@given(st.integers())
def test_int_round_trip(number: int) -> None:
    """An int becomes its decimal digits, and these become the int."""
    ids = user_id_type(int)
    assert ids.encode(number) == str(number)
    assert ids.decode(str(number)) == number


@given(st.uuids())
def test_uuid_round_trip(value: UUID) -> None:
    """A UUID becomes its usual text, and that becomes the UUID."""
    ids = user_id_type(UUID)
    assert ids.encode(value) == str(value)
    assert ids.decode(str(value)) == value


def test_other_type_round_trip() -> None:
    """An id of the application's own type is written and read by its functions."""
    assert ULIDS.encode(Ulid(255)) == "ff"
    assert ULIDS.decode("ff") == Ulid(255)
    assert user_id_type(ULIDS) is ULIDS


@pytest.mark.parametrize(
    ("ids", "text"),
    [
        (user_id_type(int), "007"),
        (user_id_type(int), "+7"),
        (user_id_type(int), " 7"),
        (user_id_type(int), "1_000"),
        (user_id_type(int), "٧"),
        (user_id_type(int), "seven"),
        (user_id_type(UUID), UUID_TEXT.upper()),
        (user_id_type(UUID), "{" + UUID_TEXT + "}"),
        (user_id_type(UUID), UUID_TEXT.replace("-", "")),
        (user_id_type(UUID), "urn:uuid:" + UUID_TEXT),
        (user_id_type(UUID), "7"),
        (ULIDS, "FF"),
    ],
)
def test_each_id_has_one_text(ids: UserIdType[Any], text: str) -> None:
    """Other spellings of an id, which the type can read too, are refused: texts are compared."""
    with pytest.raises(ValueError, match=r"."):
        ids.decode(text)


@pytest.mark.parametrize(
    ("ids", "value", "message"),
    [
        (TEXT_IDS, 7, "user_id must be a str, not int"),
        (user_id_type(int), "7", "user_id must be an int, not str"),
        (user_id_type(int), True, "user_id must be an int, not bool"),
        (user_id_type(UUID), UUID_TEXT, "user_id must be a UUID, not str"),
        (ULIDS, 255, "user_id must be a Ulid, not int"),
    ],
)
def test_another_type(ids: UserIdType[Any], value: Any, message: str) -> None:
    """An id of another type is a TypeError that says which type is expected."""
    for write in (ids.encode, ids.encode_sought):
        with pytest.raises(TypeError) as caught:
            write(value)
        assert str(caught.value) == message


class Name(str, Enum):  # noqa: UP042  that is what is tested
    """Texts with names, whose ``str()`` is the name."""

    ALICE = "alice"


class Number(int, Enum):
    """Numbers with names."""

    SEVEN = 7


class LoudUUID(UUID):
    """A UUID that writes itself in another way."""

    def __str__(self) -> str:
        return super().__str__().upper()


def test_subclasses() -> None:
    """An id of a subclass is the id with its value, whatever its ``str()`` is."""
    assert TEXT_IDS.encode(Name.ALICE) == "alice"
    assert type(TEXT_IDS.encode(Name.ALICE)) is str
    assert user_id_type(int).encode(Number.SEVEN) == "7"
    assert user_id_type(UUID).encode(LoudUUID(UUID_TEXT)) == UUID_TEXT


def test_impossible_id_is_unknown() -> None:
    """To look up an id that no user can have is InvalidUserId; to store it is a ValueError."""
    assert TEXT_IDS.encode_sought("u") == "u"
    with pytest.raises(InvalidUserId):
        TEXT_IDS.encode_sought("")
    with pytest.raises(ValueError, match="empty"):
        TEXT_IDS.encode("")


@pytest.mark.parametrize("setting", [float, bytes, Ulid, "int", 7, None])
def test_unknown_type(setting: Any) -> None:
    """A type without known texts is refused with the way to describe it."""
    with pytest.raises(TypeError, match=r"must be str, int, UUID or a UserIdType, not .*from_text"):
        user_id_type(setting)
