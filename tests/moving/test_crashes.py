"""Runs that are killed between a write to the destination and its entry in the state file."""

from itertools import count
from typing import Any

import pytest
from sqlalchemy import create_engine, text
from typer.testing import CliRunner

from lucia import Session
from lucia._copy.ledger import Ledger
from lucia._copy.redis import RedisStore
from lucia._copy.sql import STAGED, SqlStore
from lucia._redis.keys import Layout
from lucia.cli import app
from tests.moving.places import USERS, Place, Places, copy
from tests.moving.test_changes import DESTINATIONS, Move, interrupt, moving
from tests.moving.test_pairs import check_store


def crash(move: Move, moment: str, patch: pytest.MonkeyPatch) -> list[Session]:
    """Sign users in, and interrupt a copy of their sessions at a moment."""
    sessions = [move.old.create_session(user) for user in USERS for _ in range(3)]
    store: Any = RedisStore if move.destination.is_redis else SqlStore
    with patch.context() as crashing:
        if moment == "before the entry":
            crashing.setattr(Ledger, "add", interrupt)
        else:
            crashing.setattr(store, "confirm", interrupt)
        outcome = copy(move.source, move.destination)
    assert outcome.code == 2
    assert "run the same command again" in outcome.errors
    return sessions


def crash_and_resume(move: Move, moment: str, patch: pytest.MonkeyPatch) -> tuple[int, int]:
    """Interrupt a copy, revoke in the destination what it has copied, and copy to the end.

    Returns:
        How many of the revoked sessions are live then, and how many of the others.
    """
    sessions = crash(move, moment, patch)
    usable = [session for session in sessions if move.is_live(session)]
    revoked = usable[::2]
    for session in revoked:
        move.new.invalidate_session(session.session_id)
    assert copy(move.source, move.destination, "--merge").code == 0
    others = [session for session in sessions if session not in revoked]
    return sum(map(move.is_live, revoked)), len(others) - sum(map(move.is_live, others))


@pytest.mark.parametrize("kind", DESTINATIONS)
@pytest.mark.parametrize("moment", ["before the entry", "after the entry"])
def test_crash(places: Places, kind: str, moment: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing that was revoked meanwhile is revived, and nothing is lost."""
    with moving(places, kind) as move:
        assert crash_and_resume(move, moment, monkeypatch) == (0, 0)
        check_store(move.destination)


@pytest.mark.parametrize("kind", DESTINATIONS)
@pytest.mark.parametrize("moment", ["before the entry", "after the entry"])
def test_crash_and_changes_in_the_source(
    places: Places, kind: str, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was revoked or renewed in the source meanwhile is so in the destination too."""
    with moving(places, kind) as move:
        sessions = crash(move, moment, monkeypatch)
        revoked, renewed, forgotten, rest = (sessions[start::4] for start in range(4))
        for session in revoked:
            move.old.invalidate_session(session.session_id)
        successors = [move.old.renew_session(session.session_id) for session in renewed]
        successors += [move.old.renew_session(session.session_id) for session in forgotten]
        with move.source.client() as client:  # as if they had been renewed a minute ago
            for session in forgotten:
                client.delete(move.source.layout.marker_key(session.session_id))
        assert copy(move.source, move.destination, "--merge").code == 0
        assert not any(map(move.is_live, [*revoked, *forgotten]))
        assert all(map(move.is_live, [*successors, *rest]))
        for used, successor in zip(renewed, successors, strict=False):
            assert move.new.validate_session(used.session_id).session_id == successor.session_id
        # Nothing of the interrupted run is left.
        for user in USERS:
            ids = {each.session_id for each in [*successors, *rest] if each.user_id == user}
            assert len(move.new.get_all_user_sessions(user)) == len(ids)
        assert traces(move.destination) == []
        check_store(move.destination)


def test_crash_and_renewal_in_the_destination(
    places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A login that the destination has renewed after a crash is revoked if the source's was."""
    with moving(places, "redis") as move:
        sessions = crash(move, "before the entry", monkeypatch)
        there = [session for session in sessions if move.is_live(session)]
        successor = move.new.renew_session(there[0].session_id)
        kept = move.new.renew_session(there[1].session_id)
        move.old.invalidate_session(there[0].session_id)
        assert copy(move.source, move.destination, "--merge").code == 0
        assert not move.is_live(successor)
        assert move.is_live(kept)


def test_crash_of_a_copy_of_all_that_is_revoked(
    places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the source has none of what a killed run has written, that is an error unless asked."""
    with moving(places, "redis") as move:
        sessions = crash(move, "before the entry", monkeypatch)
        with move.source.client() as client:
            client.flushdb()
        assert "check its address" in copy(move.source, move.destination, "--merge").errors
        assert any(map(move.is_live, sessions))
        assert copy(move.source, move.destination, "--merge", "--all-revoked").code == 0
        assert not any(map(move.is_live, sessions))


def traces(place: Place) -> list[Any]:
    """Return what interrupted runs have left in a store."""
    if place.is_redis:
        with place.client() as client:
            return list(client.scan_iter(f"{place.layout.session}:renewed:copied:*"))
    engine = create_engine(place.url)
    with engine.connect() as connection:
        found = connection.scalars(
            text("SELECT id FROM auth_session WHERE successor = :staged"), {"staged": STAGED}
        ).all()
    engine.dispose()
    return list(found)


def test_control_of_receipts(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without receipts, a session that was revoked after a crash is revived."""
    numbers = count()
    with moving(places, "redis") as move:
        monkeypatch.setattr(
            Layout, "receipt_key", lambda *_: f"session:renewed:copied:{next(numbers)}"
        )
        revived, lost = crash_and_resume(move, "before the entry", monkeypatch)
        assert revived > 0
        assert lost == 0


def test_doctor_of_receipts(places: Places) -> None:
    """What a copy leaves behind while it runs is no damage for ``lucia doctor``."""
    place = places.make("redis", 0)
    with place.client() as client:
        client.set(place.layout.receipt_key("a" * 40), b"1", px=60_000)
    result = CliRunner().invoke(app, ["doctor", place.url])
    assert result.exit_code == 0, result.output
    assert "Nothing is wrong." in result.stdout
