"""``SessionRecord``, a decoded record, is a stored session like ``SessionRow``."""

import pytest

from lucia._redis.records import SessionRecord, parse_record
from lucia.models import SessionRow

RECORD = b'{"id":"secret","user_id":"u","active_expires":1,"idle_expires":2}'
FULL = RECORD[:-1] + b',"created_at":0,"handle":"h","noted":{"a":1}}'
ROW = SessionRow(id="secret", user_id="u", active_expires=1, idle_expires=2)
FULL_ROW = SessionRow(
    id="secret",
    user_id="u",
    active_expires=1,
    idle_expires=2,
    attributes={"created_at": 0, "handle": "h", "noted": {"a": 1}},
)


@pytest.mark.parametrize(("record", "row"), [(RECORD, ROW), (FULL, FULL_ROW)])
def test_same_members_as_a_row(record: bytes, row: SessionRow) -> None:
    """A record equals the row with the same members, has its hash, and converts to it."""
    found = parse_record(record)
    assert isinstance(found, SessionRecord)
    assert found == row
    assert row == found
    assert found == parse_record(record)
    assert hash(found) == hash(row)
    assert found.to_row() == row


def test_other_members() -> None:
    """A record differs from one with other members, and from values that are no session."""
    assert parse_record(RECORD) != FULL_ROW
    assert parse_record(RECORD) != parse_record(FULL)
    assert parse_record(RECORD) != "secret"


def test_repr() -> None:
    """The repr does not show the session id."""
    assert repr(parse_record(FULL)) == (
        "SessionRecord(user_id='u', active_expires=1, idle_expires=2, "
        "attributes={'created_at': 0, 'handle': 'h', 'noted': {'a': 1}})"
    )


def test_attributes_are_the_callers_own() -> None:
    """Changing the attributes that one caller got does not change another's."""
    found = parse_record(FULL)
    attributes = found.attributes
    attributes["noted"]["a"] = attributes["handle"] = 2
    assert found == FULL_ROW
