"""The operations for clusters and for servers without scripts, one command at a time.

Steps, crashes, races, and what is left behind.
"""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

from lucia._redis.cluster import (
    INDEX_SLACK_MS,
    MAX_COMMANDS_PER_BATCH,
    PROVISIONAL_MS,
    ClusterStore,
    PlainSteps,
    ScriptedSteps,
    SlotSteps,
)
from lucia._redis.commands import (
    Batch,
    Call,
    Command,
    Eval,
    Operation,
    Reply,
    ScriptsRefusedError,
    Transaction,
)
from lucia._redis.index import LIST
from lucia._redis.operations import MAX_HOPS, get_successor
from lucia._redis.records import Marker, encode_marker, encode_row
from lucia._redis.revocations import TOMBSTONE
from lucia._redis.scripts import ALREADY_EXPIRED, DELETE, REPLACE_WITH_MARKER
from lucia._redis.single_server import SingleServerStore
from lucia._rules.sessions import system_clock
from lucia.errors import ConcurrentlyRevoked, DuplicateSessionId
from lucia.models import SessionRow
from tests.support.redis_inspectors import DEFAULT, ClusterInspector, Inspector
from tests.support.sessions import HOUR, row
from tests.support.stepped_operations import Stepper, explore, replay

SCRIPTS = LIST.scripts
MINUTE = 60_000
LOST = redis.ConnectionError("the reply was lost")

STEPS: dict[str, Callable[[], SlotSteps]] = {"scripted": ScriptedSteps, "plain": PlainSteps}


class Harness:
    """Operations on one server or cluster, to be run at once or in steps."""

    def __init__(self, inspector: Inspector, steps: SlotSteps) -> None:
        self.inspector = inspector
        self.store = ClusterStore(DEFAULT, steps)
        self.is_plain = isinstance(steps, PlainSteps)

    def steps(self, operation: Operation[Any]) -> Stepper[Any]:
        """Prepare an operation to be run in steps."""
        return Stepper(self.inspector.client, operation)

    def create(
        self, session: SessionRow, random_below: Callable[[int], int] = lambda _: 0
    ) -> Stepper[None]:
        return self.steps(self.store.create(session, random_below))

    def renew(
        self, used_id: str, successor_id: str, grace: int = MINUTE, **attributes: Any
    ) -> Stepper[SessionRow | None]:
        return self.steps(self.store.renew(used_id, row(successor_id, **attributes), grace))

    def successor(self, used_id: str) -> Stepper[SessionRow | None]:
        return self.steps(get_successor(DEFAULT, used_id))

    def read_all(self, user_id: str = "u1") -> Stepper[list[SessionRow]]:
        return self.steps(self.store.get_by_user(user_id, system_clock()))

    def delete(self, *session_ids: str) -> Stepper[None]:
        return self.steps(self.store.delete(session_ids))

    def delete_all(self, keep: str | None = None, user_id: str = "u1") -> Stepper[bool]:
        return self.steps(self.store.delete_by_user(user_id, keep))

    def begin_with(self, *session_ids: str) -> None:
        """Empty the server and store these sessions."""
        self.inspector.on_each("FLUSHALL")
        for session_id in session_ids:
            self.create(row(session_id)).finish()

    def live(self) -> set[str]:
        """Check all keys against the rules of the layout, and return the ids of all sessions."""
        self.inspector.check()
        return self.inspector.live()

    def until(self, stepper: Stepper[Any], command: str) -> Stepper[Any]:
        """Run an operation until its next command is this script or server command."""
        while command not in names(stepper.commands[-1]):
            stepper.step()
        return stepper


def names(command: Command) -> set[str]:
    """Return the names of the scripts and server commands in a command."""
    if isinstance(command, Batch | Transaction):
        return {name for each in command.commands for name in names(each)}
    if isinstance(command, Eval):
        return {command.script.name}
    return {command.name} if isinstance(command, Call) else set()


@pytest.fixture(params=["scripted, cluster", "plain, cluster", "plain, redis", "plain, valkey"])
def harness(request: pytest.FixtureRequest) -> Iterator[Harness]:
    """Yield operations with and without scripts, in an empty cluster and on servers."""
    steps, place = str(request.param).split(", ")
    if place == "cluster":
        with ClusterInspector(request.getfixturevalue("cluster")) as found:
            yield Harness(found, STEPS[steps]())
    else:
        with Inspector(request.getfixturevalue(f"{place}_server")) as found:
            yield Harness(found, STEPS[steps]())


on_one_server = pytest.mark.parametrize(
    "harness", ["scripted, redis", "plain, redis"], indirect=True
)
with_scripts = pytest.mark.parametrize("harness", ["scripted, redis"], indirect=True)
without_scripts = pytest.mark.parametrize(
    "harness", ["plain, redis", "plain, cluster"], indirect=True
)


# Commands


SESSION = row("new")
RECORD = encode_row(SESSION)
KEY, INDEX, MARKER = "session:new", "userSession:u1", "session:renewed:{session:new}"
C1 = Call("SET", (KEY, RECORD, "NX", "PX", PROVISIONAL_MS))
C3 = Call("PEXPIREAT", (KEY, SESSION.idle_expires))
PUSHED = Eval(SCRIPTS.push, (INDEX,), ("new", SESSION.idle_expires, INDEX_SLACK_MS))
LAST = SESSION.idle_expires + INDEX_SLACK_MS
PLAIN_PUSH = (
    Call("TIME", ()),
    Call("LRANGE", (INDEX, 0, 0)),
    Call("PTTL", (INDEX,)),
    Transaction(
        (
            Call("LPUSH", (INDEX, "new")),
            Call("PEXPIREAT", (INDEX, LAST, "NX")),
            Call("PEXPIREAT", (INDEX, LAST, "GT")),
        )
    ),
)
PLAIN_PUSHED: tuple[Reply, ...] = ([b"1", b"0"], [], -2, [1, True, False])


def test_steps_of_a_login() -> None:
    """A login writes a provisional session, the index entry, and then the session's expiry."""
    assert (PROVISIONAL_MS, INDEX_SLACK_MS) == (10_000, 60_000)
    assert replay(
        ClusterStore(DEFAULT, ScriptedSteps()).create(SESSION, lambda _: 0), True, 1, 1
    ) == (
        [C1, PUSHED, C3],
        None,
    )
    commands, _ = replay(
        ClusterStore(DEFAULT, PlainSteps()).create(SESSION, lambda _: 0), True, *PLAIN_PUSHED, 1
    )
    assert commands == [C1, *PLAIN_PUSH, C3]


def test_steps_of_a_renewal() -> None:
    """A renewal completes its successor, then replaces the used session by a marker.

    That takes one script, or one write-once key.
    """
    used, marker_key = "session:old", "session:renewed:{session:old}"
    marker = encode_marker(Marker("old", "new", 5))
    commands, found = replay(
        ClusterStore(DEFAULT, ScriptedSteps()).renew("old", SESSION, 5), True, 1, 1, 1
    )
    assert (commands, found) == (
        [C1, PUSHED, C3, Eval(REPLACE_WITH_MARKER, (used, marker_key), (marker, MINUTE))],
        SESSION,
    )
    commands, found = replay(
        ClusterStore(DEFAULT, PlainSteps()).renew("old", SESSION, 5),
        True,
        *PLAIN_PUSHED,
        1,
        [b"x"],
        [True, 1],
    )
    swap = [
        Call("MGET", (used,)),
        Transaction((Call("SET", (marker_key, marker, "NX", "PX", MINUTE)), Call("DEL", (used,)))),
    ]
    assert (commands, found) == ([C1, *PLAIN_PUSH, C3, *swap], SESSION)


def test_steps_of_a_renewal_that_lost() -> None:
    """A renewal that finds another's marker deletes its own successor and follows the marker."""
    used, marker_key = "session:old", "session:renewed:{session:old}"
    theirs = encode_marker(Marker("old", "first", MINUTE))
    first = row("first")
    undo = [
        Call("DEL", (KEY,)),
        Eval(SCRIPTS.drop, (INDEX,), (b"new",)),
        Call("MGET", ("session:first",)),
    ]
    commands, found = replay(
        ClusterStore(DEFAULT, ScriptedSteps()).renew("old", SESSION, 5),
        True,
        1,
        1,
        [theirs, MINUTE],
        1,
        1,
        [encode_row(first)],
    )
    assert (commands[4:], found) == (undo, first)
    write = Call("SET", (marker_key, encode_marker(Marker("old", "new", 5)), "NX", "PX", MINUTE))
    swap = [Call("MGET", (used,)), Transaction((write, Call("DEL", (used,))))]
    late = [Call("MGET", (marker_key,)), Call("PTTL", (marker_key,))]
    plain_undo = [undo[0], Batch((Call("LREM", (INDEX, 0, b"new")),)), undo[2]]
    replies = (
        True,
        *PLAIN_PUSHED,
        1,
        [b"x"],
        [None, 0],
        [theirs],
        MINUTE,
        1,
        [1],
        [encode_row(first)],
    )
    commands, found = replay(ClusterStore(DEFAULT, PlainSteps()).renew("old", SESSION, 5), *replies)
    assert (commands[6:], found) == ([*swap, *late, *plain_undo], first)


def test_steps_of_a_revocation() -> None:
    """A session is deleted and its marker read, then its id is removed from the index.

    With scripts the former is one step. Without, a tombstone is set where there is no marker.
    """
    key, marker = KEY.encode(), MARKER.encode()
    commands, _ = replay(
        ClusterStore(DEFAULT, ScriptedSteps()).delete(["new"]), [[[RECORD, None]]], 1
    )
    assert commands == [
        Batch((Eval(DELETE, (key, marker), ()),)),
        Eval(SCRIPTS.drop, (INDEX,), (b"new",)),
    ]
    commands, _ = replay(
        ClusterStore(DEFAULT, PlainSteps()).delete(["new"]),
        [[RECORD]],
        [1],
        [True],
        [[TOMBSTONE]],
        [1],
    )
    assert commands == [
        Batch((Call("MGET", (key,)),)),
        Batch((Call("DEL", (key,)),)),
        Batch((Call("SET", (marker, TOMBSTONE, "NX", "PX", MINUTE)),)),
        Batch((Call("MGET", (marker,)),)),
        Batch((Call("LREM", (INDEX, 0, b"new")),)),
    ]


def test_steps_of_sign_out_everywhere() -> None:
    """A sign-out everywhere removes the ids that it read from the index.

    It never deletes the index.
    """
    commands, kept = replay(
        ClusterStore(DEFAULT, ScriptedSteps()).delete_by_user("u1"),
        [b"new"],
        [[[RECORD, None]]],
        1,
        1,
    )
    drop = Eval(SCRIPTS.drop, (INDEX,), (b"new",))
    assert commands == [
        Call("LRANGE", (INDEX, 0, -1)),
        Batch((Eval(DELETE, (KEY.encode(), MARKER.encode()), ()),)),
        drop,
        drop,
    ]
    assert kept is False


def test_the_oldest_go_out_of_the_index_first() -> None:
    """Ids are removed from an index oldest first.

    Each is at the end of the list then, so the server need not search it.
    """
    ids = [b"newest", b"newer", b"oldest"]
    held = [[[encode_row(row(id_.decode())), None]] for id_ in ids]
    commands, _ = replay(
        ClusterStore(DEFAULT, ScriptedSteps()).delete_by_user("u1"), ids, held, 1, 1
    )
    assert commands[2] == Eval(SCRIPTS.drop, (INDEX,), (b"oldest", b"newer", b"newest"))
    assert "\n  index_remove_oldest(KEYS[1], ARGV[i])\n" in SCRIPTS.drop.text


def test_steps_of_a_list() -> None:
    """A list reads the index, the sessions, and the markers of missing ones.

    Dead ids are removed from the index.
    """
    found = ClusterStore(DEFAULT, ScriptedSteps()).get_by_user("u1", 0)
    commands, rows = replay(found, [b"gone", b"new"], [[None], [RECORD]], [[None]], 1)
    read = Batch((Call("MGET", (b"session:gone",)), Call("MGET", (b"session:new",))))
    markers = Batch((Call("MGET", (b"session:renewed:{session:gone}",)),))
    assert (commands, rows) == (
        [Call("LRANGE", (INDEX, 0, -1)), read, markers, Eval(SCRIPTS.drop, (INDEX,), (b"gone",))],
        [SESSION],
    )


# Crashes


def test_crash_in_a_login(harness: Harness) -> None:
    """A login that crashes at any step leaves a session for at most ten seconds.

    Nobody was given its id, and every key has a TTL.
    """
    login = run(harness.create(row("whole")))
    assert len(login.commands) == (6 if harness.is_plain else 3)
    for done in range(1, len(login.commands)):
        harness.begin_with()
        harness.create(session := row("new", life=2 * HOUR)).step(done)
        harness.inspector.check_remains()
        expires = harness.inspector.census()[KEY].expires
        assert expires <= system_clock() + PROVISIONAL_MS < session.idle_expires
    harness.begin_with()
    harness.create(row("new")).finish()
    assert harness.live() == {"new"}


def test_crash_in_a_renewal(harness: Harness) -> None:
    """A renewal that crashes at any step logs nobody out.

    The used session or its successor is live and can be revoked.
    """
    for done in range(len(run(harness.renew("unknown", "x")).commands)):
        harness.begin_with("used")
        renewal = harness.renew("used", "new")
        while not renewal.done and len(renewal.commands) <= done:
            renewal.step()
        harness.inspector.check_remains()
        assert harness.inspector.live() & {"used", "new"}
        again = harness.renew("used", "again").finish()
        assert again is not None
        harness.inspector.check_remains()
        harness.delete("used").finish()
        harness.delete_all().finish()
        assert {
            id_
            for id_ in harness.inspector.live()
            if harness.inspector.client.pttl(f"session:{id_}") > PROVISIONAL_MS
        } == set()


def run(operation: Stepper[Any]) -> Stepper[Any]:
    """Run an operation to its end, and return it."""
    operation.finish()
    return operation


@pytest.mark.parametrize("which", ["delete", "delete_all", "keep"])
def test_crash_in_a_revocation(harness: Harness, which: str) -> None:
    """Repeating a revocation that crashed at any step revokes exactly the right sessions."""

    def begin() -> Stepper[Any]:
        if which == "delete":
            return harness.delete("used")
        return harness.delete_all("kept" if which == "keep" else None)

    for done in range(12):
        harness.begin_with("used", "kept")
        harness.renew("used", "new").finish()
        ending = begin()
        while not ending.done and len(ending.commands) <= done:
            ending.step()
        harness.inspector.check()
        begin().finish()
        assert harness.live() == (set() if which == "delete_all" else {"kept"})
        assert harness.renew("new", "late").finish() is None


# Errors


@pytest.mark.parametrize("executed", [False, True], ids=["not executed", "reply lost"])
def test_error_at_the_index(harness: Harness, executed: bool) -> None:
    """If writing to the index fails or is ambiguous, the session is deleted.

    The error is raised.
    """
    harness.begin_with()
    login = harness.until(harness.create(row("new")), "LPUSH" if harness.is_plain else "push")
    (login.lose_reply if executed else login.fail)(LOST)
    assert login.commands[-1] == Call("DEL", (KEY,))
    with pytest.raises(redis.ConnectionError) as raised:
        login.step()
    assert raised.value is LOST
    assert harness.live() == set()
    assert harness.read_all().finish() == []
    assert harness.inspector.keys() == set()


def test_two_errors_at_the_index(harness: Harness) -> None:
    """If deleting that session fails too, the first error is raised.

    The session expires within ten seconds.
    """
    harness.begin_with()
    login = harness.until(
        harness.create(row("new", life=2 * HOUR)), "LPUSH" if harness.is_plain else "push"
    ).fail(LOST)
    with pytest.raises(redis.ConnectionError) as raised:
        login.fail(redis.TimeoutError("nor this"))
    assert raised.value is LOST
    harness.inspector.check_remains()
    assert 0 < harness.inspector.client.pttl(KEY) <= PROVISIONAL_MS


@with_scripts
def test_scripts_refused_at_the_index(harness: Harness) -> None:
    """If scripts are refused at the index, the login leaves nothing and can be repeated."""
    login = harness.create(row("new")).step()
    with pytest.raises(ScriptsRefusedError):
        login.fail(ScriptsRefusedError()).step()
    assert harness.inspector.keys() == set()


@pytest.mark.parametrize("life", [-HOUR, 0])
def test_already_expired(harness: Harness, life: int) -> None:
    """A session that has expired by the server's clock is refused and leaves nothing.

    This holds for logins and renewals.
    """
    harness.begin_with("used")
    before = harness.inspector.census()
    end = system_clock() + life
    dead = SessionRow(id="new", user_id="u1", active_expires=0, idle_expires=end)
    for refused in (harness.create(dead), harness.steps(harness.store.renew("used", dead, MINUTE))):
        with pytest.raises(ValueError, match="server's clock"):
            refused.finish()
        assert refused.commands[-1] == Call("DEL", (KEY,))
        assert harness.inspector.census() == before


def test_already_expired_is_not_an_index_length() -> None:
    """The reply for an expired session can't be the length of an index."""
    assert ALREADY_EXPIRED < 0


@pytest.mark.parametrize("way", ["delete_all", "delete", "time"])
def test_login_revoked_before_completion(harness: Harness, way: str) -> None:
    """A login that is revoked or expires before it is complete raises an error.

    Its index entry is removed.
    """
    harness.begin_with()
    session = row("new")
    login = harness.create(session).step()
    while login.commands[-1] != Call("PEXPIREAT", (KEY, session.idle_expires)):
        login.step()
    assert harness.inspector.index() == ["new"]
    if way == "delete_all":
        harness.delete_all().finish()
    elif way == "delete":
        harness.delete("new").finish()
    else:
        harness.inspector.client.delete(KEY)
    with pytest.raises(ConcurrentlyRevoked):
        login.finish()
    assert (harness.live(), harness.inspector.index()) == (set(), [])


def test_renewal_revoked_before_completion(harness: Harness) -> None:
    """A renewal whose successor is revoked before it is complete raises an error.

    The used session is revoked by the same sign-out.
    """
    harness.begin_with("used")
    renewal = harness.until(
        harness.renew("used", "new"), "LPUSH" if harness.is_plain else "push"
    ).step()
    harness.delete_all().finish()
    with pytest.raises(ConcurrentlyRevoked):
        renewal.finish()
    assert (harness.live(), harness.inspector.index()) == (set(), [])


# The same id twice


def test_same_id_twice(harness: Harness) -> None:
    """Another session with a taken id is refused and changes nothing.

    The same session again is no error and is listed once.
    """
    harness.begin_with("other")
    session = row("same", first=1)
    harness.create(session).finish()
    before = harness.inspector.census()
    for another in (row("same"), row("same", "u2"), row("same", life=2 * HOUR, first=1)):
        with pytest.raises(DuplicateSessionId):
            harness.create(another).finish()
    with pytest.raises(DuplicateSessionId):
        harness.renew("other", "same").finish()
    assert harness.inspector.census() == before
    harness.create(session).finish()
    assert [each.id for each in harness.read_all().finish()] == ["same", "other"]
    harness.delete("same").finish()
    assert harness.inspector.index() == ["other"]
    assert harness.live() == {"other"}


@pytest.mark.parametrize("done", range(7))
def test_login_that_is_sent_again(harness: Harness, done: int) -> None:
    """A login repeated after it stopped at any step is complete, with its own expiry."""
    harness.begin_with()
    session = row("new")
    first = harness.create(session)
    while not first.done and len(first.commands) <= done:
        first.step()
    harness.create(session).finish()
    assert harness.inspector.client.pexpiretime(KEY) == session.idle_expires
    assert [each.id for each in harness.read_all().finish()] == ["new"]
    harness.inspector.check_remains()


def test_renewal_that_is_sent_again(harness: Harness) -> None:
    """A renewal repeated after a lost reply returns the same successor."""
    harness.begin_with("used")
    successor = row("new")
    for _ in range(3):
        assert harness.steps(harness.store.renew("used", successor, 0)).finish() == successor
    assert harness.inspector.live() == {"new"}
    assert [each.id for each in harness.read_all().finish()] == ["new"]


# Races


@pytest.mark.parametrize("which", ["delete", "delete_all"])
@with_scripts
def test_revocation_during_renewal(harness: Harness, which: str) -> None:
    """If a session is revoked while it is renewed, it and its successor are revoked.

    This holds in every order of the steps.
    """

    def begin() -> list[Stepper[Any]]:
        harness.begin_with("used")
        renewal = Told(harness.inspector.client, harness.store.renew("used", row("new"), MINUTE))
        return [renewal, harness.delete("used") if which == "delete" else harness.delete_all()]

    def check() -> None:
        assert harness.live() == set()
        assert harness.renew("used", "late").finish() is None

    assert explore(begin, check) >= 10


class Told(Stepper[Any]):
    """An operation that may raise `ConcurrentlyRevoked`."""

    def step(self, count: int = 1) -> "Told":
        try:
            super().step(count)
        except ConcurrentlyRevoked:
            assert self.done
        return self


@pytest.mark.parametrize("grace", [0, MINUTE])
@with_scripts
def test_two_renewals(harness: Harness, grace: int) -> None:
    """Of two concurrent renewals exactly one makes a successor.

    Within the grace period both get it. Without one, the other gets nothing.
    """
    pair: list[Stepper[SessionRow | None]] = []

    def begin() -> list[Stepper[Any]]:
        harness.begin_with("used")
        pair[:] = harness.renew("used", "new1", grace), harness.renew("used", "new2", grace)
        return list(pair)

    def check() -> None:
        (winner,) = harness.live()
        expected = {winner} if grace else {winner, None}
        assert {None if each.result is None else each.result.id for each in pair} == expected
        assert harness.inspector.index().count(winner) == 1

    assert explore(begin, check) >= 50


@without_scripts
@pytest.mark.parametrize("expired", [False, True], ids=["at once", "after a minute"])
@pytest.mark.parametrize("command", ["MGET", "SET"])
def test_revocation_during_plain_renewal(harness: Harness, command: str, expired: bool) -> None:
    """Without scripts, a renewal that read the session before its revocation returns None.

    This holds even if the tombstone has expired.
    """
    harness.begin_with("used")
    renewal = harness.until(
        harness.until(harness.renew("used", "new"), "PEXPIREAT").step(), "PEXPIREAT"
    ).step()
    renewal = harness.until(renewal, command)
    harness.delete("used").finish()
    if expired:
        harness.inspector.client.delete(DEFAULT.marker_key("used"))
    assert renewal.finish() is None
    assert harness.live() == set()
    assert harness.successor("used").finish() is None


@without_scripts
def test_slower_plain_renewal_follows_marker(harness: Harness) -> None:
    """Without scripts, the slower of two renewals follows the marker of the other."""
    harness.begin_with("used")
    late = harness.until(harness.until(harness.renew("used", "second"), "SET").step(), "SET")
    assert isinstance(late.commands[-1], Transaction)
    first = harness.renew("used", "first").finish()
    assert late.finish() == first
    assert harness.live() == {"first"}


def test_kept_session_may_be_renewed_meanwhile(harness: Harness) -> None:
    """A successor with the kept session's handle is kept too, before its renewal is complete."""
    harness.begin_with("other")
    harness.create(row("kept", handle="h")).finish()
    renewal = harness.until(
        harness.renew("kept", "new", handle="h"), "swap" if not harness.is_plain else "MGET"
    )
    assert harness.delete_all("kept").finish() is True
    assert harness.live() == {"kept", "new"}
    found = renewal.finish()
    assert found is not None
    assert harness.live() == {"new"}
    assert harness.delete_all("kept").finish() is True
    assert harness.live() == {"new"}


# Chains


def test_revocation_follows_chains(harness: Harness) -> None:
    """Revoking a used id revokes the end of its chain, however long.

    Looking up a successor follows a limited number of renewals.
    """
    harness.begin_with("s0", "other")
    for number in range(20):
        assert harness.renew(f"s{number}", f"s{number + 1}").finish() is not None
    for number in range(20):
        found = harness.successor(f"s{number}").finish()
        assert (found and found.id) == (None if 20 - number > MAX_HOPS else "s20")
    assert harness.delete_all("s0").finish() is True
    assert harness.live() == {"s20"}
    harness.delete("s0", "s3", "s0").finish()
    assert harness.live() == set()
    assert {id_ for id_ in harness.inspector.index() if not id_.startswith("s")} == set()


def test_chain_in_a_circle(harness: Harness) -> None:
    """Markers that form a circle lead nowhere, and a revocation that follows them terminates."""
    harness.begin_with("live")
    for used, successor in (("a", "b"), ("b", "a")):
        harness.inspector.client.set(
            DEFAULT.marker_key(used), encode_marker(Marker(used, successor, MINUTE)), px=MINUTE
        )
    assert harness.renew("a", "new").finish() is None
    assert harness.delete_all("a").finish() is False
    harness.delete("a", "b").finish()
    assert harness.live() == set()


def test_keep(harness: Harness) -> None:
    """If the session to keep is not a live one of this user, all are revoked.

    Sessions of other users stay.
    """
    harness.begin_with("one", "two")
    harness.create(row("foreign", "u2")).finish()
    assert harness.delete_all("foreign").finish() is False
    assert harness.live() == {"foreign"}
    harness.create(row("three")).finish()
    assert harness.delete_all("unknown").finish() is False
    assert harness.live() == {"foreign"}
    assert harness.delete_all().finish() is False


# Many sessions


@pytest.mark.parametrize("keep", [False, True], ids=["all", "but one"])
@pytest.mark.parametrize(
    "count", [MAX_COMMANDS_PER_BATCH, MAX_COMMANDS_PER_BATCH + 1, 2 * MAX_COMMANDS_PER_BATCH + 1]
)
@on_one_server
def test_revocation_in_batches(harness: Harness, count: int, keep: bool) -> None:
    """Sessions are revoked, and removed from the index, in batches of 500."""
    ids = harness.inspector.fill("u1", count)
    sign_out = harness.delete_all(ids[7] if keep else None)
    assert sign_out.finish() is keep
    sizes = [
        len(command.commands)
        for command in sign_out.commands
        if isinstance(command, Batch) and names(command) & {"SET", "delete"}
    ]
    ended = count - keep
    assert sizes == [MAX_COMMANDS_PER_BATCH] * (ended // MAX_COMMANDS_PER_BATCH) + [
        ended % MAX_COMMANDS_PER_BATCH
    ] * (ended % MAX_COMMANDS_PER_BATCH > 0)
    assert harness.live() == ({ids[7]} if keep else set())
    assert harness.inspector.index() == ([ids[7]] if keep else [])


@on_one_server
def test_thousands_of_dead_entries(harness: Harness) -> None:
    """Listing removes thousands of dead ids from the index, and keeps the order of live ones."""
    harness.begin_with()
    harness.inspector.client.rpush(INDEX, *(f"dead{number}" for number in range(1_200)))
    harness.inspector.client.expire(INDEX, 1_000)
    harness.create(row("one")).finish()
    harness.create(row("two")).finish()
    assert [each.id for each in harness.read_all().finish()] == ["two", "one"]
    assert harness.inspector.index() == ["two", "one"]


@on_one_server
def test_every_eighth_login_prunes(harness: Harness) -> None:
    """From the sixteenth entry on, every eighth login checks eight entries for dead ids."""
    harness.begin_with()
    bounds: list[int] = []

    def random_below(bound: int) -> int:
        bounds.append(bound)
        return bound - 1

    for number in range(24):
        harness.create(row(f"s{number}"), random_below).finish()
    assert bounds == [9, 17]
    harness.inspector.client.delete("session:s0", "session:s3", "session:s20")
    for number in range(24, 32):
        harness.create(row(f"s{number}"), random_below).finish()
    assert {f"s{number}" for number in range(32)} - set(harness.inspector.index()) == {"s0", "s3"}
    assert harness.live() >= {"s31"}


# TTL of the index


def test_times_of_the_index(harness: Harness) -> None:
    """The index expires a minute after its last session, and a shorter one does not change that."""
    harness.begin_with()
    latest = 0
    for number, life in enumerate((HOUR, 3 * HOUR, 2 * HOUR, HOUR // 2)):
        session = row(f"s{number}", life=life)
        latest = max(latest, session.idle_expires)
        harness.create(session).finish()
        harness.inspector.check()
        assert harness.inspector.census()[INDEX].expires == latest + INDEX_SLACK_MS


def test_index_of_lucia_js_gets_no_ttl(harness: Harness) -> None:
    """An index that Lucia JS wrote without a TTL gets none.

    The expiry of its other sessions is not known.
    """
    harness.begin_with()
    harness.inspector.client.rpush(INDEX, "old")
    harness.create(row("new")).finish()
    assert harness.inspector.census()[INDEX] == ("list", [b"new", b"old"], -1)


@without_scripts
def test_emptied_index_of_lucia_js_gets_ttl(harness: Harness) -> None:
    """If such an index is emptied before the new id is pushed, the new index gets a TTL."""
    harness.begin_with()
    harness.inspector.client.rpush(INDEX, "old")
    session = row("new")
    login = harness.until(harness.create(session), "LPUSH")
    harness.inspector.client.delete(INDEX)
    login.finish()
    assert harness.inspector.census()[INDEX].expires == session.idle_expires + INDEX_SLACK_MS
    harness.inspector.check()


# Foreign values


def put_hash(client: Any, key: str) -> None:
    client.hset(key, "field", "value")


def put_list(client: Any, key: str) -> None:
    client.rpush(key, "element")


def put_set(client: Any, key: str) -> None:
    client.sadd(key, "member")


def put_string(client: Any, key: str) -> None:
    client.set(key, "garbage")


Put = Callable[[Any, str], None]


@pytest.mark.parametrize("put", [put_hash, put_list, put_set])
def test_session_key_of_another_type(harness: Harness, put: Put) -> None:
    """A value of another type under a session's key is no session.

    It can't be renewed or overwritten. Revoking the id deletes it.
    """
    harness.begin_with("live")
    put(harness.inspector.client, "session:x")
    assert harness.renew("x", "new").finish() is None
    with pytest.raises(DuplicateSessionId):
        harness.create(row("x")).finish()
    assert harness.delete_all("x").finish() is False
    assert harness.inspector.live() == {"x"}
    harness.delete("x").finish()
    assert harness.live() == set()


@pytest.mark.parametrize("put", [put_hash, put_string, put_set])
@pytest.mark.parametrize("which", ["create", "renew", "list", "delete_all", "keep"])
def test_index_of_another_type(harness: Harness, put: Put, which: str) -> None:
    """An index of another type is an error, and its value and TTL stay."""
    harness.begin_with("one")
    harness.inspector.client.delete(INDEX)
    put(harness.inspector.client, INDEX)
    before = harness.inspector.census()
    operations: dict[str, Callable[[], Stepper[Any]]] = {
        "create": lambda: harness.create(row("new")),
        "renew": lambda: harness.renew("one", "new"),
        "list": harness.read_all,
        "delete_all": harness.delete_all,
        "keep": lambda: harness.delete_all("one"),
    }
    with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        operations[which]().finish()
    assert harness.inspector.census() == before


def test_revocation_despite_unwritable_index(harness: Harness) -> None:
    """If the index can't be written, sessions and their successors are revoked before the error."""
    harness.begin_with("a", "used")
    harness.renew("used", "new").finish()
    harness.inspector.client.set(INDEX, "garbage")
    with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        harness.delete("a", "used").finish()
    assert harness.inspector.live() == set()


@pytest.mark.parametrize("put", [put_hash, put_string, put_list])
def test_marker_of_another_type(harness: Harness, put: Put) -> None:
    """A foreign value under a marker's key leads nowhere and hinders no revocation.

    A renewal is done or refused, and never done twice.
    """
    harness.begin_with("used", "ended")
    for used_id in ("used", "ended"):
        put(harness.inspector.client, DEFAULT.marker_key(used_id))
    found = harness.renew("used", "new").finish()
    assert (found and found.id) == (None if harness.is_plain else "new")
    assert harness.renew("used", "newer").finish() == found
    assert harness.inspector.live() == ({"ended"} if harness.is_plain else {"ended", "new"})
    harness.delete("ended", "new").finish()
    assert harness.inspector.live() == set()


def test_tombstone_has_no_successor(harness: Harness) -> None:
    """A tombstone, left by a revocation without scripts, leads nowhere.

    This holds even if scripts are used later.
    """
    harness.begin_with("other")
    harness.inspector.client.set(DEFAULT.marker_key("ended"), TOMBSTONE, px=MINUTE)
    assert json.loads(TOMBSTONE) == {"ended": True}
    assert harness.successor("ended").finish() is None
    assert harness.renew("ended", "new").finish() is None
    harness.delete("ended").finish()
    assert harness.live() == {"other"}


def test_bytes_in_an_index(harness: Harness) -> None:
    """Index entries that are not UTF-8 are never listed.

    They are removed if their session is gone, and revoked with the others.
    """
    harness.begin_with("one")
    client = harness.inspector.client
    client.rpush(INDEX, b"\xff\xfe", b"a\xff", b"one\x00")
    client.set(b"session:a\xff", encode_row(row("a\ufffd")), ex=60)
    assert [each.id for each in harness.read_all().finish()] == ["one"]
    assert client.lrange(INDEX, 0, -1) == [b"one", b"a\xff"]
    harness.delete_all().finish()
    assert not client.exists(INDEX)
    assert not client.exists(b"session:a\xff")


# Ids


@pytest.mark.parametrize("evil", ["renewed:{session:used}", "a}b", "{}", "}{", "{}a}", "a{}b{c"])
def test_refused_ids(harness: Harness, evil: str) -> None:
    """An id like a marker's, or with its marker in another slot, is refused before any command."""
    harness.begin_with("used")
    before = harness.inspector.census()
    for refused in (lambda: harness.create(row(evil)), lambda: harness.renew("used", evil)):
        with pytest.raises(ValueError, match="a session id may not"):
            refused()
    assert harness.renew(evil, "new").finish() is None
    harness.delete(evil).finish()
    assert harness.inspector.census() == before


@pytest.mark.parametrize("id_", ["{a}b{}", "a{b}", "{", "a{", "{a}{b}"])
def test_ids_with_braces(harness: Harness, id_: str) -> None:
    """An id with braces works if its marker is in the same slot."""
    harness.begin_with("other")
    harness.create(row(id_)).finish()
    found = harness.renew(id_, f"new {id_}").finish()
    assert found is not None
    assert harness.successor(id_).finish() == found
    harness.delete(id_).finish()
    assert harness.live() == {"other"}


@pytest.mark.parametrize("which", ["delete", "delete_all"])
@on_one_server
def test_ids_of_another_protocol(harness: Harness, which: str) -> None:
    """An id stored with scripts, but refused without them, can be revoked without them."""
    harness.begin_with("one")
    harness.steps(SingleServerStore(DEFAULT).create(row("a}b"), lambda _: 0)).finish()
    assert [each.id for each in harness.read_all().finish()] == ["a}b", "one"]
    (harness.delete("a}b", "one") if which == "delete" else harness.delete_all()).finish()
    assert harness.live() == set()
    assert harness.inspector.index() == []
