"""What has changed between two runs, in the source, in the destination or in both."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Final

import pytest
from sqlalchemy import create_engine, text

from lucia import Auth, InvalidSessionId, Session, SessionRow
from lucia._copy.copier import Copier
from lucia._copy.ledger import Ledger
from lucia._copy.redis import RedisStore
from lucia._copy.sql import SqlStore
from lucia._rules.sessions import system_clock
from tests.moving.places import USERS, Place, Places, copy
from tests.support.sessions import HOUR, row

DESTINATIONS: Final = ("redis", "redis hashed", "cluster", "sqlite")

USER: Final = USERS[0]


@dataclass
class Move:
    """A source and a destination, with an application on each."""

    source: Place
    destination: Place
    old: Auth[Any]
    new: Auth[Any]

    def copy(self, *others: object) -> dict[str, Any]:
        """Copy, and return the report."""
        outcome = copy(self.source, self.destination, "--json", *others)
        assert outcome.code == 0, outcome
        return outcome.report

    def login(self) -> Session:
        """Sign in on the source, and copy the session."""
        session = self.old.create_session(USER)
        # So that the source is never empty.
        self.old.create_session(USERS[1])
        self.copy()
        return session

    def is_live(self, session: Session) -> bool:
        """Return whether a session, or what it was renewed to, is valid in the destination."""
        return is_live(self.new, session)


def is_live(application: Auth[Any], session: Session) -> bool:
    """Return whether an id is accepted."""
    try:
        application.validate_session(session.session_id)
    except InvalidSessionId:
        return False
    return True


@pytest.fixture(params=DESTINATIONS)
def move(request: pytest.FixtureRequest, places: Places) -> Iterator[Move]:
    """Return a move from Redis to each kind of store."""
    with moving(places, request.param) as found:
        yield found


@contextmanager
def moving(places: Places, kind: str) -> Iterator[Move]:
    """Yield a move from Redis to a store of this kind."""
    source, destination = places.make("redis", 0), places.make(kind, 1)
    with source.application() as old, destination.application() as new:
        yield Move(source, destination, old, new)


def test_revoked_in_the_destination(move: Move) -> None:
    """A session that the destination has revoked stays revoked at every later run."""
    session = move.login()
    move.new.invalidate_session(session.session_id)
    for _ in range(2):
        assert move.copy() == {"complete": True, "unchanged": 2}
        assert not move.is_live(session)
    assert is_live(move.old, session)


def test_control_of_insertions(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy that does not know what it has copied revives what the destination has revoked."""
    with moving(places, "redis") as move:
        session = move.login()
        move.new.invalidate_session(session.session_id)
        monkeypatch.setattr(Ledger, "find", lambda *_: {})
        monkeypatch.setattr(Ledger, "has_login", lambda *_: False)
        assert copy(move.source, move.destination, "--all-revoked").code == 0
        assert move.is_live(session)


def test_renewed_in_the_destination(move: Move) -> None:
    """A session that the destination has renewed is not copied again, and its successor stays."""
    session = move.login()
    successor = move.new.renew_session(session.session_id)
    assert move.copy() == {"complete": True, "unchanged": 2}
    assert move.new.validate_session(session.session_id).session_id == successor.session_id
    assert move.is_live(successor)


def test_revoked_in_the_source_and_renewed_in_the_destination(move: Move) -> None:
    """A login that was revoked in the source is revoked, although the destination renewed it."""
    session = move.login()
    move.old.invalidate_session(session.session_id)
    successor = move.new.renew_session(session.session_id)
    assert move.copy() == {"complete": True, "unchanged": 1, "revoked": 1}
    assert not move.is_live(session)
    assert not move.is_live(successor)


def test_renewed_in_the_source_and_revoked_in_the_destination(move: Move) -> None:
    """A login that the destination has revoked stays revoked, although the source renewed it."""
    session = move.login()
    move.new.invalidate_session(session.session_id)
    successor = move.old.renew_session(session.session_id)
    expected = {"complete": True, "unchanged": 1, "skipped": {"revoked_in_destination": 1}}
    assert move.copy() == expected
    assert not move.is_live(successor)
    again = move.old.renew_session(successor.session_id)
    assert move.copy() == expected
    assert not move.is_live(again)
    move.old.invalidate_session(again.session_id)
    assert move.copy() == {"complete": True, "unchanged": 1}


def test_control_of_logins(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy that looks at ids alone revives a revoked login that the source has renewed."""
    with moving(places, "redis") as move:
        session = move.login()
        move.new.invalidate_session(session.session_id)
        successor = move.old.renew_session(session.session_id)
        monkeypatch.setattr(Copier, "_revoked_there", lambda *_: set())
        move.copy()
        assert move.is_live(successor)


def test_renewed_on_both_sides(move: Move) -> None:
    """A login that both sides have renewed is alive under both ids: nobody is signed out."""
    session = move.login()
    there = move.new.renew_session(session.session_id)
    here = move.old.renew_session(session.session_id)
    assert move.copy()["copied"] == 1
    assert move.is_live(there)
    assert move.is_live(here)
    # It is one login all the same, and is revoked as one.
    assert move.new.invalidate_user_session(USER, here.handle)
    assert not move.is_live(there)
    assert not move.is_live(here)


def test_renewed_long_ago(move: Move) -> None:
    """A session that was renewed in the source more than a minute ago is removed."""
    session = move.login()
    successor = move.old.renew_session(session.session_id)
    forget_markers(move.source)
    assert move.copy() == {"complete": True, "copied": 1, "unchanged": 1, "removed": 1}
    assert not move.is_live(session)
    assert move.is_live(successor)
    assert len(move.new.get_all_user_sessions(USER)) == 1


def test_renewed_in_the_destination_long_ago(move: Move) -> None:
    """A used id that the destination has forgotten does not lead to the source's successor."""
    session = move.login()
    there = move.new.renew_session(session.session_id)
    forget_markers(move.destination)
    here = move.old.renew_session(session.session_id)
    assert "used" not in move.copy()
    assert not move.is_live(session)
    assert move.is_live(there)
    assert move.is_live(here)


def forget_markers(place: Place) -> None:
    """Let a minute pass, in which what remembers used ids expires."""
    if not place.is_redis:
        engine = create_engine(place.url)
        with engine.begin() as connection:
            connection.execute(text("DELETE FROM auth_session WHERE successor IS NOT NULL"))
        engine.dispose()
        return
    with place.client() as client:
        for key in list(client.scan_iter(f"{place.layout.session}:renewed:*")):
            client.delete(key)


@pytest.mark.parametrize("kind", DESTINATIONS)
def test_renewed_in_the_destination_at_the_last_moment(
    places: Places, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A session that was renewed in the source is left alone if the destination renews it too.

    Here that happens after the copy has read it, and before it would remove it.
    """
    with moving(places, kind) as move:
        session = move.login()
        here = move.old.renew_session(session.session_id)
        forget_markers(move.source)
        there = renewing_before_removal(move, session, monkeypatch)
        assert "removed" not in move.copy()
        assert move.is_live(here)
        assert move.is_live(there[0])


def test_control_of_removals(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    """A removal that does not compare the record signs out whom the destination has renewed."""
    with moving(places, "redis") as move:
        session = move.login()
        move.old.renew_session(session.session_id)
        forget_markers(move.source)

        def revoke(store: RedisStore, row: SessionRow, _: str) -> bool:
            store.revoke([row.id])
            return True

        monkeypatch.setattr(RedisStore, "remove", revoke)
        there = renewing_before_removal(move, session, monkeypatch)
        move.copy()
        assert not move.is_live(there[0])


def renewing_before_removal(
    move: Move, session: Session, monkeypatch: pytest.MonkeyPatch
) -> list[Session]:
    """Let the destination renew a session just before the copy removes it.

    Returns:
        A list that gets the successor.
    """
    store = RedisStore if move.destination.is_redis else SqlStore
    remove = store.remove
    successors: list[Session] = []

    def late(self: Any, row: SessionRow, fingerprint: str) -> bool:
        successors.append(move.new.renew_session(session.session_id))
        return remove(self, row, fingerprint)

    monkeypatch.setattr(store, "remove", late)
    return successors


def test_used_id_of_a_session_that_changed_in_the_destination(move: Move) -> None:
    """What the destination has renewed does not lead to the source's successor."""
    session = move.login()
    there = move.new.renew_session(
        session.session_id,
    )
    move.old.renew_session(session.session_id)
    assert "used" not in move.copy()
    assert move.new.validate_session(session.session_id).session_id == there.session_id


def write(place: Place, session: SessionRow) -> None:
    """Store a session, or other values of it, as Lucia JS 2 extends one."""
    with place.adapter() as adapter, place.client() as client:
        client.delete(place.layout.session_key(session.id))
        client.delete(place.layout.index_key(session.user_id))
        adapter.set_session(session)


def test_changed_in_the_source(move: Move) -> None:
    """A session whose values have changed in the source gets them in the destination too."""
    before = row("a" * 40, USER)
    write(move.source, before)
    move.old.create_session(USERS[1])
    move.copy()
    after = replace(before, idle_expires=before.idle_expires + HOUR, attributes={"more": [1]})
    write(move.source, after)
    assert move.copy() == {"complete": True, "unchanged": 1, "updated": 1}
    with move.destination.adapter() as adapter:
        assert adapter.get_session(after.id) == after
        assert [each.idle_expires for each in adapter.get_sessions_by_user_id(USER)] == [
            after.idle_expires
        ]
    assert move.copy() == {"complete": True, "unchanged": 2}


def test_changed_in_both(move: Move) -> None:
    """A session whose values the destination has changed too keeps those."""
    before = row("a" * 40, USER)
    write(move.source, before)
    move.copy()
    there = replace(before, idle_expires=before.idle_expires + 2 * HOUR)
    with move.destination.adapter() as adapter:
        adapter.delete_session(before.id)
        adapter.set_session(there)
    write(move.source, replace(before, idle_expires=before.idle_expires + HOUR))
    for _ in range(2):
        report = move.copy()
        assert report == {"complete": True, "skipped": {"changed_in_destination": 1}}
    with move.destination.adapter() as adapter:
        assert adapter.get_session(before.id) == there
        adapter.delete_session(before.id)
    assert move.copy() == {"complete": True, "skipped": {"changed_in_destination": 1}}


def test_update_after_a_crash(move: Move, monkeypatch: pytest.MonkeyPatch) -> None:
    """An update whose entry in the state file was lost is repeated."""
    before = row("a" * 40, USER)
    write(move.source, before)
    move.copy()
    write(move.source, replace(before, idle_expires=before.idle_expires + HOUR))
    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "add", interrupt)
        assert copy(move.source, move.destination).code == 2
    assert move.copy() == {"complete": True, "updated": 1}


def interrupt(*_: object) -> None:
    """Interrupt the command."""
    raise KeyboardInterrupt


def test_expired(move: Move) -> None:
    """What expires in the source is no revocation, and what the destination has of it stays."""
    session = row("a" * 40, USER, life=5_000, handle="the handle")
    write(move.source, session)
    move.old.create_session(USERS[1])
    move.copy()
    with move.destination.adapter() as adapter:
        successor = row("b" * 40, USER, handle="the handle")
        assert adapter.renew_session(session.id, successor, grace=0) == successor
        while system_clock() <= session.idle_expires:
            pass
        assert move.copy() == {"complete": True, "unchanged": 1}
        assert adapter.get_session(successor.id) == successor


@pytest.mark.parametrize("moment", ["mark_leaving", "forget"])
def test_killed_while_a_session_is_removed(
    move: Move, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that was killed around a removal is no reason to refuse the login's successor."""
    session = move.login()
    move.old.renew_session(session.session_id)
    forget_markers(move.source)
    # The walk misses the successor, as if it were made behind it.
    with monkeypatch.context() as patch:
        patch.setattr(RedisStore, "pages", without(session.handle, RedisStore.pages))
        patch.setattr(RedisStore, "sessions_of", hidden_from_source(move, RedisStore.sessions_of))
        patch.setattr(Ledger, moment, interrupt)
        assert copy(move.source, move.destination).code == 2
    assert move.copy()["copied"] == 1
    (device,) = move.new.get_all_user_sessions(USER)
    assert device.handle == session.handle


def without(handle: str, pages: Callable[..., Any]) -> Callable[..., Any]:
    """Return a walk that misses the sessions of a login."""

    def some(self: Any, **options: Any) -> Iterator[Any]:
        for page in pages(self, **options):
            page.sessions = [each for each in page.sessions if each.attributes["handle"] != handle]
            yield page

    return some


def hidden_from_source(move: Move, sessions_of: Callable[..., Any]) -> Callable[..., Any]:
    """Return a look-up that finds nothing in the source."""

    def found(self: RedisStore, user_id: str) -> Sequence[SessionRow]:
        return [] if self._layout == move.source.layout else sessions_of(self, user_id)

    return found


def test_missed_by_the_walk(move: Move, monkeypatch: pytest.MonkeyPatch) -> None:
    """A session that the walk has missed is looked up in the source before it is revoked."""
    session = move.login()
    new = move.old.create_session(USER)
    with monkeypatch.context() as patch:
        patch.setattr(RedisStore, "pages", without(session.handle, RedisStore.pages))
        report = move.copy()
    assert report == {"complete": True, "copied": 1, "unchanged": 2}
    assert move.is_live(session)
    assert move.is_live(new)
