"""Logins with a cap on the number of sessions, run on real servers one command at a time.

Commands, races, crashes and damaged indexes.
"""

from collections.abc import Iterator, Sequence
from contextlib import nullcontext, suppress
from typing import Any

import pytest
import redis

from lucia._redis import single_server as atomic
from lucia._redis.cluster import ClusterStore, PlainSteps, ScriptedSteps
from lucia._redis.commands import Call, Eval, Operation
from lucia._redis.index import LIST
from lucia._redis.keys import Layout
from lucia._redis.records import encode_row
from lucia._redis.scripts import CHANGED
from lucia._redis.single_server import SingleServerStore
from lucia._redis.store import Store
from lucia._rules.sessions import system_clock
from lucia.errors import ConcurrentlyRevoked, DuplicateSessionId
from lucia.models import SessionRow, handle_of
from tests.support.redis_inspectors import DEFAULT, ClusterInspector, Inspector
from tests.support.sessions import HOUR, row
from tests.support.stepped_operations import Stepper, explore, replay

MINUTE = 60_000


def login(
    session_id: str, age: int = 0, *, handle: str | None = None, user_id: str = "u1"
) -> SessionRow:
    """Return a session created this many milliseconds ago."""
    return row(session_id, user_id, created_at=system_clock() - age, handle=handle or session_id)


class Harness:
    """Operations on one store, to be run at once or in steps."""

    def __init__(self, inspector: Inspector, store: Store) -> None:
        self.inspector = inspector
        self.store = store

    def steps(self, operation: Operation[Any]) -> Stepper[Any]:
        """Prepare an operation to be run in steps."""
        return Stepper(self.inspector.client, operation)

    def capped(self, session: SessionRow, limit: int = 2) -> Stepper[SessionRow]:
        return self.steps(self.store.create_capped(session, limit, system_clock(), lambda _: 0))

    def create(self, session: SessionRow) -> None:
        self.steps(self.store.create(session, lambda _: 0)).finish()

    def renew(self, used: SessionRow, successor_id: str) -> Stepper[SessionRow | None]:
        successor = row(successor_id, used.user_id, **used.attributes)
        return self.steps(self.store.renew(used.id, successor, MINUTE))

    def delete(self, session_id: str) -> Stepper[None]:
        return self.steps(self.store.delete([session_id]))

    def delete_all(self) -> Stepper[bool]:
        return self.steps(self.store.delete_by_user("u1"))

    def begin_with(self, *sessions: SessionRow) -> None:
        """Empty the server and store these sessions."""
        self.inspector.on_each("FLUSHALL")
        for session in sessions:
            self.create(session)

    def live(self) -> set[str]:
        """Check all keys against the rules of the layout, and return the ids of all sessions."""
        self.inspector.check()
        return self.inspector.live()


STORES: dict[str, Store] = {
    "atomic": SingleServerStore(DEFAULT),
    "scripted": ClusterStore(DEFAULT, ScriptedSteps()),
    "plain": ClusterStore(DEFAULT, PlainSteps()),
    "cluster": ClusterStore(DEFAULT, ScriptedSteps()),
}


@pytest.fixture(params=STORES)
def harness(request: pytest.FixtureRequest) -> Iterator[Harness]:
    """Yield each store on an empty server or cluster."""
    kind = str(request.param)
    if kind == "cluster":
        with ClusterInspector(request.getfixturevalue("cluster")) as inspector:
            yield Harness(inspector, STORES[kind])
    else:
        with Inspector(request.getfixturevalue("redis_server")) as inspector:
            yield Harness(inspector, STORES[kind])


one_step = pytest.mark.parametrize("harness", ["atomic"], indirect=True)
afterwards = pytest.mark.parametrize("harness", ["scripted", "plain", "cluster"], indirect=True)
on_one_server = pytest.mark.parametrize("harness", ["scripted", "plain"], indirect=True)


# Commands


def test_commands_in_one_step() -> None:
    """The index and its sessions are read, then one script creates and revokes.

    The script is given the ids that were seen, the sessions to revoke and the dead ids. If the
    index has changed, all is repeated.
    """
    old, last, new = login("old", 20), login("last", 10), login("new")
    index = Call("LRANGE", ("userSession:u1", 0, -1))
    records = Call("MGET", (b"session:last", b"session:dead", b"session:old"))
    create = Eval(
        LIST.scripts.create_capped,
        ("session:new", "userSession:u1", "session:old", "session:last"),
        ("new", encode_row(new), new.idle_expires, 1, 2, b"old", b"dead", b"last", b"dead", b"old"),
    )
    replies: list[Any] = [[b"last", b"dead", b"old"], [encode_row(last), None, encode_row(old)]]
    commands, stored = replay(
        SingleServerStore(DEFAULT).create_capped(new, 2, system_clock(), lambda _: 0),
        *replies,
        CHANGED,
        *replies,
        2,
    )
    assert commands == [index, records, create] * 2
    assert stored is new


def test_commands_of_a_first_login() -> None:
    """A first login reads an empty index and runs the script."""
    new = login("new")
    create = Eval(
        LIST.scripts.create_capped,
        ("session:new", "userSession:u1"),
        ("new", encode_row(new), new.idle_expires, 0, 0),
    )
    commands, _ = replay(
        SingleServerStore(DEFAULT).create_capped(new, 5, system_clock(), lambda _: 0), [], 1
    )
    assert commands == [Call("LRANGE", ("userSession:u1", 0, -1)), create]


# The cap


def test_oldest_out(harness: Harness) -> None:
    """The oldest logins beyond the limit are revoked; they and dead ids leave the index."""
    harness.begin_with(login("b", 20), login("a", 30), login("c", 10), login("dead", 5))
    harness.inspector.client.delete(harness.inspector.layout.session_key("dead"))
    harness.capped(login("new"), limit=2).finish()
    assert harness.live() == {"c", "new"}
    assert set(harness.inspector.index()) == {"c", "new"}


def test_other_users(harness: Harness) -> None:
    """Sessions of other users stay, even one that is listed in the wrong index."""
    harness.begin_with(login("foreign", 30, user_id="u2"), login("a", 20))
    index = harness.inspector.layout.index_key("u1")
    harness.inspector.client.rpush(index, "foreign")
    harness.capped(login("new"), limit=1).finish()
    assert harness.inspector.live() == {"foreign", "new"}


def test_records_that_outlive_their_sessions(harness: Harness) -> None:
    """An expired session whose record Lucia JS kept for 57 years is not counted."""
    harness.begin_with(login("a", 20))
    now = system_clock()
    over = SessionRow(id="over", user_id="u1", active_expires=now - 2, idle_expires=now - 1)
    harness.inspector.client.set("session:over", encode_row(over), ex=HOUR)
    index = harness.inspector.layout.index_key("u1")
    harness.inspector.client.lpush(index, "over")
    harness.capped(login("new"), limit=2).finish()
    assert harness.inspector.live() - {"over"} == {"a", "new"}


def test_a_clock_that_is_behind(harness: Harness) -> None:
    """A new login is kept even if another machine's clock was ahead of this one."""
    for ahead in (1, 30_000, 10 * MINUTE):
        harness.begin_with(login("a", -ahead), login("b", -ahead))
        stored = harness.capped(login("new"), limit=1).finish()
        assert harness.live() == {"new"}
        moved = stored.attributes["created_at"] - system_clock()
        assert moved <= MINUTE + 1
        record = harness.inspector.client.get(harness.inspector.layout.session_key("new"))
        assert record == encode_row(stored)


def test_refused_login_revokes_nothing(harness: Harness) -> None:
    """Logins that are refused revoke nothing: a taken id, an expired session, an invalid id."""
    harness.begin_with(login("a", 20), login("b", 10), login("taken", 5, user_id="u2"))
    before = harness.inspector.census()
    with pytest.raises(DuplicateSessionId):
        harness.capped(login("taken"), limit=1).finish()
    over = SessionRow(
        id="over", user_id="u1", active_expires=1, idle_expires=2, attributes={"created_at": 1}
    )
    with pytest.raises(ValueError, match="server's clock"):
        harness.capped(over, limit=1).finish()
    with pytest.raises(ValueError, match="renewed:"):
        harness.capped(login("renewed:x"), limit=1).finish()
    assert harness.inspector.census() == before


@one_step
def test_sent_again(harness: Harness) -> None:
    """A login sent again after a lost reply is stored once, and revokes nothing more."""
    harness.begin_with(login("a", 20), login("b", 10))
    new = login("new")
    for _ in range(2):
        operation = harness.capped(new)
        while not operation.done:
            operation._execute(operation.commands[-1])
            operation.step()
        assert harness.live() == {"b", "new"}
    assert sorted(harness.inspector.index()) == ["b", "new"]


# In one step


class Watched(Stepper[Any]):
    """An operation that checks after each step that there are at most two sessions."""

    def step(self, count: int = 1) -> "Watched":
        for _ in range(count):
            super().step()
            assert len(self._client.keys("session:*")) <= 2 + len(
                self._client.keys("session:renewed:*")
            )
        return self


def watched(harness: Harness, operation: Operation[Any]) -> Stepper[Any]:
    """Prepare an operation that checks the limit after each step."""
    return Watched(harness.inspector.client, operation)


def capped(harness: Harness, session: SessionRow, limit: int = 2) -> Stepper[Any]:
    """Prepare a capped login that checks the limit after each step."""
    return watched(
        harness, harness.store.create_capped(session, limit, system_clock(), lambda _: 0)
    )


@one_step
def test_crash_of_capped_login_on_one_server(harness: Harness) -> None:
    """A login that crashes after any command is stored with the oldest revoked, or not at all."""
    outcomes = []
    for steps in range(4):
        harness.begin_with(login("a", 20), login("b", 10))
        harness.capped(login("new")).step(steps)
        outcomes.append(harness.live())
    assert outcomes == [{"a", "b"}, {"a", "b"}, {"a", "b"}, {"b", "new"}]


@one_step
def test_two_capped_logins_on_one_server(harness: Harness) -> None:
    """Two concurrent capped logins both stay, and the limit is never exceeded."""

    def begin() -> Sequence[Stepper[Any]]:
        harness.begin_with(login("a", 20), login("b", 10))
        return [capped(harness, login("new", 1)), capped(harness, login("newer"))]

    assert explore(begin, lambda: check(harness, {"new", "newer"})) > 10


def check(harness: Harness, *expected: set[str]) -> None:
    """Assert that one of these sets of sessions is live."""
    assert harness.live() in expected


@one_step
def test_a_login_against_a_renewal(harness: Harness) -> None:
    """A capped login revokes the oldest login even if that is renewed meanwhile.

    The renewal returns nothing, or its successor is revoked. A renewal of another login succeeds.
    """

    def begin() -> Sequence[Stepper[Any]]:
        harness.begin_with(old := login("old", 20), login("kept", 10))
        successor = row("old2", "u1", **old.attributes)
        return [
            capped(harness, login("new")),
            watched(harness, harness.store.renew("old", successor, MINUTE)),
        ]

    assert explore(begin, lambda: check(harness, {"kept", "new"})) > 3

    def begin_with_another() -> Sequence[Stepper[Any]]:
        harness.begin_with(login("old", 20), kept := login("kept", 10))
        successor = row("kept2", "u1", **kept.attributes)
        return [
            capped(harness, login("new")),
            watched(harness, harness.store.renew("kept", successor, MINUTE)),
        ]

    assert explore(begin_with_another, lambda: check(harness, {"kept2", "new"})) > 3


@one_step
def test_capped_login_during_revocation(harness: Harness) -> None:
    """A session that is revoked before the script runs makes room.

    The script finds it gone and revokes no other session.
    """
    harness.begin_with(login("a", 20), login("b", 10))
    operation = harness.capped(login("new")).step(2)
    harness.delete("b").step()  # its record is gone, but it is still in the index
    assert operation.finish() is not None
    assert harness.live() == {"a", "new"}


@one_step
def test_a_login_against_a_sign_out(harness: Harness) -> None:
    """A login that overlaps a sign-out everywhere is ordered before or after it, as a whole."""

    def begin() -> Sequence[Stepper[Any]]:
        harness.begin_with(login("a", 20), login("b", 10))
        return [capped(harness, login("new")), harness.delete_all()]

    assert explore(begin, lambda: check(harness, set(), {"new"})) > 3


@one_step
def test_overtaken_at_every_try(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    """A login whose index changes at every try is stored, and then revokes the surplus."""
    monkeypatch.setattr(atomic, "CAP_TRIES", 3)
    harness.begin_with(login("a", 20), login("b", 10))
    operation = harness.capped(login("new", -20))
    for number in range(3):
        operation.step(2)
        harness.create(login(f"other{number}", -number))
        operation.step()
    operation.finish()
    assert harness.live() == {"other2", "new"}


@one_step
@pytest.mark.parametrize("count", [1_000, 1_001, 2_100])
def test_thousands_of_sessions(harness: Harness, count: int) -> None:
    """A surplus too large for one script is revoked in blocks before the login."""
    harness.begin_with()
    harness.inspector.fill("u1", count)
    operation = harness.capped(login("new", -MINUTE), limit=3)
    operation.finish()
    scripts = [command.script.name for command in operation.commands if isinstance(command, Eval)]
    assert scripts == ["revoke"] * (-(-(count - 2) // 1_000) if count > 1_000 else 0) + [
        "create_capped"
    ]
    longest = max(len(command.keys) for command in operation.commands if isinstance(command, Eval))
    assert longest <= 1_002
    assert len(harness.live()) == 3
    assert "new" in harness.inspector.live()


@one_step
def test_blocks_against_a_renewal(harness: Harness) -> None:
    """If a session is renewed before its block is revoked, its successor is revoked."""
    harness.begin_with()
    harness.inspector.fill("u1", 1_001)
    old = login("old", HOUR)
    harness.create(old)
    operation = harness.capped(login("new", -MINUTE), limit=3)
    while not isinstance(operation.commands[-1], Eval):
        operation.step()
    harness.renew(old, "renewed").finish()
    operation.finish()
    assert "renewed" not in harness.live()
    assert len(harness.inspector.live()) == 3


@one_step
def test_thousands_of_dead_entries(harness: Harness) -> None:
    """Dead ids are removed from an index that is too long for one script."""
    harness.begin_with()
    harness.inspector.fill("u1", 1_500)
    harness.inspector.client.delete(*(f"session:u1-{number}" for number in range(1_490)))
    harness.capped(login("new"), limit=50).finish()
    assert len(harness.live()) == len(harness.inspector.index()) == 11


@one_step
def test_long_index_of_foreign_sessions_terminates(harness: Harness) -> None:
    """A long index full of another user's sessions causes no endless loop.

    The login is stored, and then the surplus is revoked.
    """
    harness.begin_with()
    harness.inspector.fill("u2", 1_001)
    harness.inspector.client.rename("userSession:u2", "userSession:u1")
    for number in range(3):
        harness.create(login(f"a{number}", 20 - number))
    operation = harness.capped(login("new"), limit=2)
    operation.finish()
    assert {id_ for id_ in harness.inspector.live() if not id_.startswith("u2")} == {"a2", "new"}


@one_step
def test_revoking_many_ids_in_blocks(harness: Harness) -> None:
    """Sessions revoked by their ids also go in blocks of 1,000."""
    harness.begin_with()
    ids = harness.inspector.fill("u1", 1_001)
    operation = harness.steps(harness.store.delete(ids))
    operation.finish()
    assert [len(command.keys) for command in operation.commands if isinstance(command, Eval)] == [
        2_000,
        2,
    ]
    assert harness.live() == set()


@one_step
def test_bytes_in_an_index(harness: Harness) -> None:
    """An id that is not UTF-8 and an invalid record are ignored."""
    harness.begin_with(login("a", 20), login("b", 10))
    client = harness.inspector.client
    client.set("session:garbage", "garbage", ex=60)
    client.lpush("userSession:u1", b"\xff", b"garbage")
    harness.capped(login("new")).finish()
    assert harness.inspector.live() == {"b", "new", "garbage"}
    assert harness.inspector.index() == ["new", "garbage", "b"]


# Surplus revoked after the login


@afterwards
def test_two_capped_logins_in_cluster(harness: Harness) -> None:
    """Once two concurrent logins have returned, the newest sessions within the limit are left."""
    for first in range(1, 30):
        harness.begin_with(login("a", 20), login("b", 10))
        one, other = harness.capped(login("new", 1)), harness.capped(login("newer"))
        for _ in range(first):
            if not one.done:
                one.step()
        other.finish()
        one.finish()
        assert harness.live() == {"new", "newer"}


@afterwards
def test_login_revoked_by_newer_logins_raises_nothing(harness: Harness) -> None:
    """A login that newer ones revoke before it is complete raises no error.

    The result is as if the newer ones came a moment later.
    """
    harness.begin_with(login("a", 20))
    operation = harness.capped(late := login("late", 1), limit=1)
    while not is_made_whole_next(operation):
        operation.step()
    harness.capped(login("new"), limit=1).finish()
    stored = operation.finish()
    assert stored is not None
    assert (stored.id, handle_of(stored)) == (late.id, "late")
    assert harness.live() == {"new"}
    assert harness.inspector.index() == ["new"]


@afterwards
def test_login_revoked_by_a_newer_login_that_is_revoked_raises_nothing(harness: Harness) -> None:
    """No error is raised either if the newer login is revoked by a third one."""
    for steps in range(8):
        harness.begin_with()
        operation = harness.capped(login("late", 2), limit=1)
        while not is_made_whole_next(operation):
            operation.step()
        harness.capped(login("new", 1), limit=1).finish()
        for _ in range(steps):
            if not operation.done:
                operation.step()
        harness.capped(login("newer"), limit=1).finish()
        assert operation.finish() is not None
        assert harness.live() == {"newer"}


def is_made_whole_next(operation: Stepper[Any]) -> bool:
    """Return whether the next command sets the session's final expiry."""
    command = operation.commands[-1]
    return isinstance(command, Call) and command.name == "PEXPIREAT"


@afterwards
def test_login_revoked_by_sign_out_raises_concurrently_revoked(harness: Harness) -> None:
    """A login revoked by a sign-out before it is complete raises `ConcurrentlyRevoked`."""
    harness.begin_with(login("a", 20))
    operation = harness.capped(login("late"), limit=1)
    while not is_made_whole_next(operation):
        operation.step()
    harness.delete_all().finish()
    with pytest.raises(ConcurrentlyRevoked):
        operation.finish()
    assert harness.live() == set()


@afterwards
def test_crash_of_capped_login_in_cluster(harness: Harness) -> None:
    """A login that crashes leaves no key without a TTL; the next one revokes the surplus."""
    steps = 0
    while True:
        harness.begin_with(login("a", 20), login("b", 10))
        operation = harness.capped(login("crashed", 1))
        for _ in range(steps):
            if not operation.done:
                operation.step()
        harness.inspector.check_remains()
        if operation.done:
            break
        harness.capped(login("new")).finish()
        indexed = set(harness.inspector.index()) & harness.inspector.live()
        assert "new" in indexed
        assert len(indexed) == 2
        steps += 1
    assert steps > 5


@afterwards
def test_a_login_against_a_renewal_afterwards(harness: Harness) -> None:
    """The oldest login is revoked with its successor, at whatever step its renewal is.

    A renewal of another login succeeds.
    """
    for name, expected in (("old", {"kept", "new"}), ("kept", {"kept2", "new"})):
        for steps in range(8):
            sessions = {"old": login("old", 20), "kept": login("kept", 10)}
            harness.begin_with(*sessions.values())
            renewal = harness.renew(sessions[name], f"{name}2")
            for _ in range(steps):
                if not renewal.done:
                    renewal.step()
            harness.capped(login("new")).finish()
            with suppress(ConcurrentlyRevoked) if name == "old" else nullcontext():
                renewal.finish()
            assert harness.live() == expected


@on_one_server
def test_error_of_the_server(harness: Harness) -> None:
    """An error while the surplus is revoked is raised.

    The login is stored, and the next one revokes the surplus.
    """
    harness.begin_with(login("a", 20), login("b", 10))
    operation = harness.capped(login("one", 1))
    while "new" not in harness.inspector.live() and not is_made_whole_next(operation):
        operation.step()
    operation.step()
    with pytest.raises(redis.ConnectionError):
        operation.fail(redis.ConnectionError("gone"))
    harness.capped(login("two")).finish()
    assert harness.live() == {"one", "two"}


# With writers that add ids to the index first


@one_step
@pytest.mark.parametrize("count", [3, 1_100])
def test_cap_with_legacy_writers(harness: Harness, count: int) -> None:
    """Ids without a session stay in the index, since a legacy writer may be creating them.

    The surplus is revoked, even with thousands of such ids.
    """
    harness.store = SingleServerStore(Layout.from_namespaces(None, legacy_writers=True))
    harness.begin_with(login("a", 20), login("b", 10))
    harness.inspector.client.rpush(
        "userSession:u1", *(f"coming{number}" for number in range(count))
    )
    operation = harness.capped(login("new"))
    operation.finish()
    assert len(operation.commands) < 50  # it does not retry a hundred times
    assert harness.inspector.live() == {"b", "new"}
    assert harness.inspector.index() == [
        "new",
        "b",
        *(f"coming{number}" for number in range(count)),
    ]
