"""Runs that are killed between a write to the destination and its entry in the state file."""

from itertools import count
from typing import Any

import pytest

from lucia._copy.ledger import Ledger
from lucia._copy.redis import RedisStore
from lucia._copy.sql import SqlStore
from lucia._redis.keys import Layout
from tests.moving.places import USERS, Places, copy
from tests.moving.test_changes import DESTINATIONS, Move, interrupt, moving
from tests.moving.test_pairs import check_store


def crash_and_resume(move: Move, moment: str, patch: pytest.MonkeyPatch) -> tuple[int, int]:
    """Interrupt a copy, revoke in the destination what it has copied, and copy to the end.

    Returns:
        How many of the revoked sessions are live then, and how many of the others.
    """
    sessions = [move.old.create_session(user) for user in USERS for _ in range(3)]
    store: Any = RedisStore if move.destination.is_redis else SqlStore
    with patch.context() as crash:
        if moment == "before the entry":
            crash.setattr(Ledger, "add", interrupt)
        else:
            crash.setattr(store, "confirm", interrupt)
        outcome = copy(move.source, move.destination)
    assert outcome.code == 2
    assert "run the same command again" in outcome.errors
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
