"""Copies between every pair of stores: what is live, dead and used in the one is in the other."""

import json
from pathlib import Path
from typing import Any, Final

import pytest

from lucia import Auth, InvalidSessionId, Session
from lucia._rules.sessions import system_clock
from tests.moving.places import USERS, Place, Places, copy

PAIRS: Final = (
    ("redis", "redis"),
    ("redis", "valkey v2"),
    ("redis v2", "redis"),
    ("redis", "redis hashed"),
    ("redis hashed", "redis hashed"),
    ("valkey", "cluster"),
    ("cluster", "redis hashed"),
    ("cluster", "cluster v2"),
    ("old", "old v2"),
    ("sqlite", "redis"),
    ("sqlite", "redis hashed"),
    ("postgresql", "cluster"),
    ("redis", "sqlite"),
    ("cluster", "postgresql"),
    ("redis v2", "mariadb"),
    ("mariadb", "sqlite"),
    ("mariadb", "sqlite hashed"),
    ("sqlite hashed", "redis hashed"),
    ("redis hashed", "postgresql hashed"),
)


def is_live(application: Auth[Any], session: Session) -> bool:
    """Return whether a session is valid, by its id."""
    try:
        found = application.validate_session(session.session_id)
    except InvalidSessionId:
        return False
    return found.session_id == session.session_id


def leads_to(application: Auth[Any], used: Session) -> str | None:
    """Return the id of the session that a used id leads to within its grace."""
    try:
        return application.validate_session(used.session_id).session_id
    except InvalidSessionId:
        return None


def check_store(place: Place) -> None:
    """Check that every session of a Redis store is in its index, and that every key expires."""
    if not place.is_redis:
        return
    layout = place.layout
    with place.client() as client:
        for key in client.scan_iter(f"{layout.session}:*"):
            assert client.pttl(key) > 0, key
            name = key.decode().removeprefix(layout.session_key(""))
            assert not name.startswith("renewed:copied:"), "a receipt was left"
            if layout.is_storable(name):
                record = json.loads(client.get(key))
                index = layout.index_key(record["user_id"])
                ids = (
                    client.lrange(index, 0, -1)
                    if layout.index.type == "list"
                    else [*client.smembers(index)]
                )
                assert ids.count(name.encode()) == 1, f"{key} is not in its index exactly once"
                assert client.pttl(index) >= client.pttl(key) - 2
                assert abs(system_clock() + client.pttl(key) - record["idle_expires"]) < 1_000


@pytest.mark.parametrize(("one", "other"), PAIRS)
def test_copy(places: Places, one: str, other: str) -> None:
    """Two runs, the second after the switch, copy what is live, and only that."""
    source, destination = places.make(one, 0), places.make(other, 1)
    with source.application() as old, destination.application() as new:
        kept, renewed, revoked, later = (old.create_session(user) for user in USERS[:4])
        with_metadata = old.create_session(USERS[0], metadata={"user_agent": "a phone"})
        successor = old.renew_session(renewed.session_id)
        old.invalidate_session(revoked.session_id)

        outcome = copy(source, destination, "--json")
        assert outcome.code == 0, outcome
        assert outcome.report == {"complete": True, "copied": 4, "used": 1}
        for session in (kept, with_metadata, successor, later):
            found = new.validate_session(session.session_id)
            assert found == old.validate_session(session.session_id)
        assert leads_to(new, renewed) == successor.session_id
        assert not is_live(new, revoked)
        check_store(destination)

        late = old.create_session(USERS[4])
        next_one = old.renew_session(successor.session_id)
        at_last = old.renew_session(later.session_id)
        old.invalidate_session(kept.session_id)
        outcome = copy(source, destination, "--json")
        assert outcome.code == 0, outcome
        assert outcome.report == {
            "complete": True,
            "copied": 3,
            "unchanged": 1,
            "used": 2,
            "revoked": 1,
        }
        for session in (late, next_one, at_last, with_metadata):
            assert is_live(new, session)
        assert leads_to(new, successor) == leads_to(new, renewed) == next_one.session_id
        assert leads_to(new, later) == at_last.session_id
        assert not is_live(new, kept)
        check_store(destination)
        assert len(new.get_all_user_sessions(USERS[0])) == 1

        # A third run finds nothing to do.
        outcome = copy(source, destination, "--json")
        assert outcome.report == {"complete": True, "unchanged": 4}
        # The copies can be revoked like any session.
        new.invalidate_all_user_sessions(USERS[0])
        assert not is_live(new, with_metadata)


def test_state_file_has_no_ids(places: Places) -> None:
    """No session id is in the state file, which only its owner may read."""
    source, destination = places.make("redis", 0), places.make("redis", 1)
    with source.application() as old:
        sessions = [old.create_session(user) for user in USERS]
        used = sessions[0]
        sessions[0] = old.renew_session(used.session_id)
        assert copy(source, destination).code == 0
        written = Path("lucia-copy.sqlite").read_bytes()
        assert len(written) > 1_000
        assert not [each for each in (*sessions, used) if each.session_id.encode() in written]
        assert Path("lucia-copy.sqlite").stat().st_mode & 0o777 == 0o600
