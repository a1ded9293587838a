"""The operations for a single server, run against real servers one command at a time.

Races are tested by running two or three operations in every order of their steps.
"""

from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lucia._redis import operations as common
from lucia._redis import single_server as atomic
from lucia._redis.commands import Batch, Call, DropConnections, Eval, Operation, Reply
from lucia._redis.index import LIST
from lucia._redis.operations import MAX_HOPS, get_session, get_successor
from lucia._redis.records import Marker, encode_marker, encode_row, peek
from lucia._redis.scripts import DELETE
from lucia._redis.single_server import MAX_SESSIONS_PER_COMMAND, REVOKE_TRIES, SingleServerStore
from lucia._rules.sessions import system_clock
from lucia.errors import DuplicateSessionId
from lucia.models import SessionRow
from tests.support.redis_inspectors import DEFAULT, Inspector
from tests.support.sessions import HOUR, row
from tests.support.stepped_operations import Stepper, explore, replay
from tools.servers import Server

SCRIPTS = LIST.scripts
MINUTE = 60_000


@pytest.fixture
def inspector(server: Server) -> Iterator[Inspector]:
    """Yield an inspector of an empty server of each kind."""
    with Inspector(server) as found:
        yield found


class Harness:
    """Operations on one server, to be run at once or in steps."""

    def __init__(self, inspector: Inspector) -> None:
        self.inspector = inspector

    def steps(self, operation: Operation[Any]) -> Stepper[Any]:
        """Prepare an operation to be run in steps."""
        return Stepper(self.inspector.client, operation)

    def create(
        self, session: SessionRow, random_below: Callable[[int], int] = lambda _: 0
    ) -> Stepper[None]:
        return self.steps(SingleServerStore(DEFAULT).create(session, random_below))

    def get(self, session_id: str) -> Stepper[SessionRow | None]:
        return self.steps(get_session(DEFAULT, session_id))

    def read_all(self, user_id: str = "u1") -> Stepper[list[SessionRow]]:
        return self.steps(SingleServerStore(DEFAULT).get_by_user(user_id, system_clock()))

    def renew(
        self, used_id: str, successor_id: str, grace: int = MINUTE
    ) -> Stepper[SessionRow | None]:
        return self.steps(SingleServerStore(DEFAULT).renew(used_id, row(successor_id), grace))

    def successor(self, used_id: str) -> Stepper[SessionRow | None]:
        return self.steps(get_successor(DEFAULT, used_id))

    def delete(self, *session_ids: str) -> Stepper[None]:
        return self.steps(SingleServerStore(DEFAULT).delete(session_ids))

    def delete_all(self, keep: str | None = None, user_id: str = "u1") -> Stepper[bool]:
        return self.steps(SingleServerStore(DEFAULT).delete_by_user(user_id, keep))

    def begin_with(self, *session_ids: str) -> None:
        """Empty the server and store these sessions."""
        self.inspector.client.flushall()
        for session_id in session_ids:
            self.create(row(session_id)).finish()

    def live(self) -> set[str]:
        """Check all keys against the rules of the layout, and return the ids of all sessions."""
        self.inspector.check()
        return self.inspector.live()


@pytest.fixture
def harness(inspector: Inspector) -> Harness:
    """Return operations on an empty server of each kind."""
    return Harness(inspector)


# Commands


def test_commands_of_each_operation() -> None:
    """Each operation sends the documented commands, and each script declares all its keys."""
    session = row("new")
    record = encode_row(session)
    keys = ("session:new", "userSession:u1")
    assert replay(get_session(DEFAULT, "a"), [None]) == ([Call("MGET", ("session:a",))], None)
    assert replay(SingleServerStore(DEFAULT).create(session, lambda _: 0), 1) == (
        [Eval(SCRIPTS.create, keys, ("new", record, session.idle_expires))],
        None,
    )
    marker = encode_marker(Marker("old", "new", 5))
    renew = Eval(
        SCRIPTS.renew,
        ("session:old", *keys, "session:renewed:{session:old}"),
        ("old", "new", record, session.idle_expires, marker, MINUTE),
    )
    assert replay(SingleServerStore(DEFAULT).renew("old", session, 5), 1) == ([renew], session)
    delete = Eval(DELETE, ("session:new", "session:renewed:{session:new}"), ())
    removed = Batch((Call("LREM", ("userSession:u1", 0, "new")),))
    assert replay(SingleServerStore(DEFAULT).delete(["new"]), [[record, None]], [1]) == (
        [delete, removed],
        None,
    )
    everything = Call("LRANGE", ("userSession:u1", 0, -1))
    revoke = Eval(
        SCRIPTS.revoke, ("userSession:u1", b"session:a", b"session:b"), (1, b"", b"a", b"b")
    )
    assert replay(SingleServerStore(DEFAULT).delete_by_user("u1"), [b"b", b"a"], 1) == (
        [everything, revoke],
        False,
    )
    prune = Eval(SCRIPTS.prune, ("userSession:u1", b"session:gone"), (b"gone",))
    records = Call("MGET", (b"session:gone", b"session:new"))
    listed = replay(
        SingleServerStore(DEFAULT).get_by_user("u1", 0),
        [b"gone", b"new"],
        [None, record],
        [None],
        1,
    )
    assert listed == (
        [everything, records, Call("MGET", (b"session:renewed:{session:gone}",)), prune],
        [session],
    )


# Renewal


@pytest.mark.parametrize("revoke", ["delete", "delete_all"])
def test_revocation_during_renewal(harness: Harness, revoke: str) -> None:
    """If a session is revoked while it is renewed, it and its successor are revoked.

    This holds in every order of the steps.
    """

    def begin() -> list[Stepper[Any]]:
        harness.begin_with("used", "other")
        end = harness.delete("used") if revoke == "delete" else harness.delete_all()
        return [harness.renew("used", "new"), end]

    def check() -> None:
        assert harness.live() == ({"other"} if revoke == "delete" else set())
        assert harness.renew("used", "late").finish() is None
        assert harness.renew("new", "late").finish() is None
        assert harness.live() <= {"other"}

    assert explore(begin, check) >= 3


@pytest.mark.parametrize("grace", [0, MINUTE])
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

    assert explore(begin, check) >= 2


def test_revocation_of_a_growing_chain(harness: Harness) -> None:
    """Revoking a used id revokes the end of its chain, even if the chain grows meanwhile."""

    def begin() -> list[Stepper[Any]]:
        harness.begin_with("s0")
        return [harness.renew("s0", "s1"), harness.renew("s1", "s2"), harness.delete("s0")]

    def check() -> None:
        assert harness.live() == set()

    assert explore(begin, check) >= 10


def test_used_id_while_successor_is_revoked(harness: Harness) -> None:
    """A used id whose successor is being revoked leads to it or to nothing.

    Afterwards it leads to nothing.
    """
    seen: list[Any] = []
    follower: list[Stepper[Any]] = []

    def begin() -> list[Stepper[Any]]:
        harness.begin_with("used")
        harness.renew("used", "new").finish()
        follower[:] = [harness.successor("used")]
        return [follower[0], harness.delete("used")]

    def check() -> None:
        seen.append(follower[0].result and follower[0].result.id)
        assert harness.live() == set()
        assert harness.successor("used").finish() is None

    explore(begin, check)
    assert set(seen) == {"new", None}


def test_resent_create_or_renewal_has_same_result(harness: Harness) -> None:
    """A create or a renewal that is sent again after a lost reply has the same result."""
    harness.begin_with("used")
    session = row("new")
    for _ in range(2):
        assert (
            harness.steps(SingleServerStore(DEFAULT).renew("used", session, 0)).finish() == session
        )
    again = row("again")
    for _ in range(3):
        harness.create(again).finish()
    assert harness.inspector.index() == ["again", "new"]
    assert harness.live() == {"new", "again"}


def test_longest_chain(harness: Harness) -> None:
    """A used id leads to its successor over at most 16 renewals.

    Revoking it revokes the last session over any number of renewals.
    """
    harness.begin_with("s0")
    for number in range(40):
        assert harness.renew(f"s{number}", f"s{number + 1}").finish() is not None
    for number in range(40):
        expected = None if 40 - number > MAX_HOPS else "s40"
        found = harness.successor(f"s{number}").finish()
        assert (found and found.id) == expected
    harness.delete("s0").finish()
    assert harness.live() == set()


def test_chain_in_a_circle(harness: Harness) -> None:
    """Markers that form a circle lead nowhere, and a revocation that follows them terminates."""
    for used, successor in (("a", "b"), ("b", "a")):
        harness.inspector.client.set(
            DEFAULT.marker_key(used), encode_marker(Marker(used, successor, MINUTE)), px=MINUTE
        )
    assert harness.successor("a").finish() is None
    assert harness.renew("a", "new").finish() is None
    harness.delete("a", "b", "a").finish()
    assert harness.live() == set()


def test_marker_expiring_between_mget_and_pttl(harness: Harness) -> None:
    """A marker that expires between its MGET and its PTTL leads nowhere."""
    harness.begin_with("used")
    harness.renew("used", "new").finish()
    follower = harness.successor("used").step()
    assert follower.commands[-1] == Call("PTTL", (DEFAULT.marker_key("used"),))
    harness.inspector.client.delete(DEFAULT.marker_key("used"))
    assert follower.finish() is None


# Creation


def test_create_during_sign_out_everywhere(harness: Harness) -> None:
    """A session created while all are revoked is alive and indexed, or neither.

    Sessions that existed before are revoked.
    """
    seen: set[frozenset[str]] = set()

    def begin() -> list[Stepper[Any]]:
        harness.begin_with("old1", "old2")
        return [harness.create(row("new")), harness.delete_all()]

    def check() -> None:
        seen.add(frozenset(harness.live()))

    explore(begin, check)
    assert seen == {frozenset(), frozenset({"new"})}


def test_create_against_pruning(harness: Harness) -> None:
    """Listing a user's sessions never prunes a session that is being created."""

    def begin() -> list[Stepper[Any]]:
        harness.begin_with("old", "gone")
        harness.inspector.client.delete(DEFAULT.session_key("gone"))
        return [harness.create(row("new")), harness.read_all(), harness.read_all()]

    def check() -> None:
        assert harness.live() == {"old", "new"}
        assert sorted(harness.inspector.index()) == ["new", "old"]

    assert explore(begin, check) >= 10


def test_prune_script_rechecks_sessions(harness: Harness) -> None:
    """The prune script removes an id only if its session is gone when the script runs."""
    harness.begin_with("one")
    harness.inspector.client.rename(DEFAULT.session_key("one"), "aside")
    reader = harness.read_all().step(3)
    assert isinstance(reader.commands[-1], Eval)
    harness.inspector.client.rename("aside", DEFAULT.session_key("one"))
    assert reader.finish() == []
    assert harness.inspector.index() == ["one"]


def test_create_against_create(harness: Harness) -> None:
    """Creating a session with a taken id is refused and changes nothing."""
    harness.create(row("same", "u1", life=2 * HOUR, first=1)).finish()
    before = harness.inspector.census()
    for other in (row("same", "u1"), row("same", "u2"), row("same", "u1", life=3 * HOUR, first=1)):
        with pytest.raises(DuplicateSessionId):
            harness.create(other).finish()
    assert harness.inspector.census() == before


def test_every_eighth_login_prunes(harness: Harness) -> None:
    """From the sixteenth entry on, every eighth login checks eight entries for dead ids.

    All other logins send one command.
    """
    bounds: list[int] = []

    def random_below(bound: int) -> int:
        bounds.append(bound)
        return bound - 1

    commands: list[int] = []
    for number in range(40):
        login = harness.create(row(f"s{number}"), random_below)
        login.finish()
        commands.append(len(login.commands))
    assert [number for number, sent in enumerate(commands, 1) if sent > 1] == [16, 24, 32, 40]
    assert set(commands) == {1, 3}
    assert bounds == [9, 17, 25, 33]
    harness.inspector.client.delete(
        *(DEFAULT.session_key(f"s{number}") for number in (0, 1, 3, 20))
    )
    for number in range(40, 48):
        harness.create(row(f"s{number}"), random_below).finish()
    assert {f"s{number}" for number in range(48)} - set(harness.inspector.index()) == {
        "s0",
        "s1",
        "s3",
    }


# Revoking all sessions of a user


def test_kept_session_may_be_renewed_meanwhile(harness: Harness) -> None:
    """The session to keep, or its successor if it is renewed meanwhile, is kept.

    All others are revoked, in every order of the steps.
    """
    operations: list[Stepper[Any]] = []

    def begin() -> list[Stepper[Any]]:
        harness.begin_with("kept", "one", "two")
        operations[:] = harness.renew("kept", "new"), harness.delete_all(keep="kept")
        return operations

    def check() -> None:
        assert harness.live() == {"new"}
        assert [operations[0].result is not None, operations[1].result] == [True, True]

    assert explore(begin, check) >= 4


def test_other_session_renewed_meanwhile_is_revoked(harness: Harness) -> None:
    """A session that is renewed while all but one are revoked is revoked with its successor."""

    def begin() -> list[Stepper[Any]]:
        harness.begin_with("one", "kept", "two")
        return [harness.renew("one", "new"), harness.delete_all(keep="kept")]

    def check() -> None:
        assert harness.live() == {"kept"}

    assert explore(begin, check) >= 4


def test_keep_of_a_session_revoked_meanwhile(harness: Harness) -> None:
    """If the session to keep is revoked meanwhile, every session is revoked."""

    def begin() -> list[Stepper[Any]]:
        harness.begin_with("one", "kept", "two")
        return [harness.delete("kept"), harness.delete_all(keep="kept")]

    def check() -> None:
        assert harness.live() == set()

    assert explore(begin, check) >= 5


def test_two_sign_outs(harness: Harness) -> None:
    """Two concurrent sign-outs that keep different sessions leave at most one of them.

    Without ``keep`` they leave none.
    """

    def begin() -> list[Stepper[Any]]:
        harness.begin_with("a", "b", "c")
        return [harness.delete_all(keep="a"), harness.delete_all(keep="b")]

    def check() -> None:
        assert len(harness.live()) <= 1
        harness.delete_all().finish()
        assert harness.live() == set()

    explore(begin, check)


@pytest.mark.parametrize("renewed", ["s0", "s3", "s4", "kept"])
def test_revoking_in_blocks_follows_renewal(
    harness: Harness, renewed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Revoking in blocks also revokes what a session is renewed to meanwhile.

    The successor of the kept session is kept.
    """
    monkeypatch.setattr(atomic, "MAX_SESSIONS_PER_COMMAND", 2)
    operations: list[Stepper[Any]] = []

    def begin() -> list[Stepper[Any]]:
        harness.begin_with("s0", "s1", "kept", "s3", "s4")
        operations[:] = harness.renew(renewed, "new"), harness.delete_all(keep="kept")
        return operations

    def check() -> None:
        assert harness.live() == ({"new"} if renewed == "kept" else {"kept"})
        assert operations[1].result is True

    assert explore(begin, check) >= 9


def test_blocks_against_a_chain(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    """Revoking in blocks revokes a chain that grows twice meanwhile."""
    monkeypatch.setattr(atomic, "MAX_SESSIONS_PER_COMMAND", 2)

    def begin() -> list[Stepper[Any]]:
        harness.begin_with("s0", "s1", "s2")
        return [harness.renew("s0", "new1"), harness.renew("new1", "new2"), harness.delete_all()]

    def check() -> None:
        assert harness.live() == set()

    assert explore(begin, check) >= 50


def test_blocks_against_renewals_of_the_kept(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kept session that is renewed twice during the blocks is kept as its last successor."""
    monkeypatch.setattr(atomic, "MAX_SESSIONS_PER_COMMAND", 2)
    operations: list[Stepper[Any]] = []

    def begin() -> list[Stepper[Any]]:
        harness.begin_with("kept", "s1", "s2")
        operations[:] = (
            harness.renew("kept", "new1"),
            harness.renew("new1", "new2"),
            harness.delete_all(keep="kept"),
        )
        return operations

    def check() -> None:
        first = operations[0].result is not None and operations[1].result is not None
        assert harness.live() == ({"new2"} if first else {"new1"})
        assert operations[2].result is True

    assert explore(begin, check) >= 50


def test_blocks_against_logins(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    """A login while sessions are revoked in blocks is kept or revoked as a whole.

    The sessions that existed before are revoked.
    """
    monkeypatch.setattr(atomic, "MAX_SESSIONS_PER_COMMAND", 2)

    def begin() -> list[Stepper[Any]]:
        harness.begin_with("s0", "s1", "s2", "s3", "s4")
        return [harness.create(row("new")), harness.delete_all()]

    def check() -> None:
        assert harness.live() <= {"new"}

    assert explore(begin, check) >= 5


def test_index_that_changes_at_every_try(harness: Harness) -> None:
    """If a login changes the index at each of three tries, sessions are revoked in blocks.

    Only the sessions that existed when the blocks began are revoked.
    """
    harness.begin_with("s0", "s1")
    sign_out = harness.delete_all()
    for number in range(REVOKE_TRIES):
        sign_out.step()
        harness.create(row(f"login{number}")).finish()
        sign_out.step()
    assert sign_out.step().commands[-1] == Eval(
        SCRIPTS.revoke,
        (
            "userSession:u1",
            *(f"session:{id_}".encode() for id_ in ("s0", "s1", "login0", "login1", "login2")),
        ),
        (0, b"", b"s0", b"s1", b"login0", b"login1", b"login2"),
    )
    harness.create(row("late")).finish()
    assert harness.renew("s1", "renewed").finish() is not None
    assert sign_out.finish() is False
    assert harness.live() == {"late"}


def test_kept_session_that_changes_at_every_try(harness: Harness) -> None:
    """A kept session that is renewed at every try is still kept when revoking goes on in blocks."""
    harness.begin_with("s0", "kept0")
    sign_out = harness.delete_all(keep="kept0")
    for number in range(REVOKE_TRIES + 1):
        while not isinstance(sign_out.commands[-1], Eval):
            sign_out.step()
        assert harness.renew(f"kept{number}", f"kept{number + 1}").finish() is not None
        sign_out.step()
    assert sign_out.finish() is True
    assert harness.live() == {f"kept{REVOKE_TRIES + 1}"}


def test_index_that_empties_before_the_blocks(harness: Harness) -> None:
    """If everything was revoked by others before the blocks begin, nothing is kept."""
    harness.begin_with("s0")
    sign_out = harness.delete_all(keep="gone")
    for number in range(REVOKE_TRIES):
        while not isinstance(sign_out.commands[-1], Eval):
            sign_out.step()
        harness.create(row(f"login{number}")).finish()
        sign_out.step()
    harness.delete_all().finish()
    assert sign_out.finish() is False
    assert harness.live() == set()


@pytest.mark.parametrize("count", [MAX_SESSIONS_PER_COMMAND, MAX_SESSIONS_PER_COMMAND + 1])
def test_one_atomic_step(harness: Harness, count: int) -> None:
    """A thousand sessions are revoked in one script that declares their keys.

    One more, and they are revoked in blocks, oldest first.
    """
    ids = harness.inspector.fill("u1", count)
    sign_out = harness.delete_all()
    sign_out.finish()
    scripts = [command for command in sign_out.commands if isinstance(command, Eval)]
    whole = [cast("int", command.arguments[0]) for command in scripts]
    assert whole == ([1] if count == MAX_SESSIONS_PER_COMMAND else [0, 0])
    assert scripts[0].keys[1] == DEFAULT.session_key(ids[-1]).encode()
    assert harness.live() == set()


# Mismatched replies


RECORD = encode_row(row("a"))
OTHERS = encode_row(row("b", "u2"))


@pytest.mark.parametrize(
    "wrong", [[OTHERS], b"OK", 1, None, [], [None, None], [RECORD, RECORD], [1], RECORD]
)
def test_mismatched_reply_is_read_again(wrong: Reply) -> None:
    """After a reply to another command, connections are dropped and the record is read again."""
    commands, session = replay(get_session(DEFAULT, "a"), wrong, None, [RECORD])
    read = Call("MGET", ("session:a",))
    assert commands == [read, DropConnections(), read]
    assert session is not None
    assert session.id == "a"


def test_two_mismatched_replies_return_no_session() -> None:
    """A second mismatched reply means that there is no session."""
    commands, session = replay(get_session(DEFAULT, "a"), [OTHERS], None, [OTHERS])
    assert len(commands) == 3
    assert session is None


def test_control_missing_id_check_returns_other_session(monkeypatch: pytest.MonkeyPatch) -> None:
    """Control: without the comparison of ids, another user's session is returned."""
    monkeypatch.setattr(common, "decode_row", lambda record, _: peek(record, "b"))
    commands, session = replay(get_session(DEFAULT, "a"), [OTHERS])
    assert len(commands) == 1
    assert session is not None
    assert (session.id, session.user_id) == ("b", "u2")


def test_mismatched_marker_has_no_successor() -> None:
    """A marker of another used id is read again, and then leads nowhere.

    It never leads to another user's session.
    """
    marker = encode_marker(Marker("b", "b2", MINUTE))
    assert replay(get_successor(DEFAULT, "a"), [marker], None, [marker])[1] is None
    assert (
        replay(
            SingleServerStore(DEFAULT).renew("a", row("a2"), MINUTE),
            [marker, MINUTE],
            None,
            [marker, MINUTE],
        )[1]
        is None
    )
    successor = row("a2")
    commands, session = replay(
        SingleServerStore(DEFAULT).renew("a", successor, MINUTE), [marker, MINUTE], None, 1
    )
    assert commands[0] == commands[2]
    assert session == successor


@pytest.mark.parametrize(
    "wrong", [None, b"OK", [], [1], [None], [None, None], [[], 1], [1, 1], [RECORD, 1, 1]]
)
def test_mismatched_reply_to_a_renewal(wrong: Reply) -> None:
    """After a reply to another command, connections are dropped and the renewal is sent again.

    If the first one was executed, the second finds its own successor in the marker.
    """
    successor, store = row("a2"), SingleServerStore(DEFAULT)
    marker = encode_marker(Marker("a", "a2", MINUTE))
    for reply in (1, [marker, MINUTE]):
        commands, session = replay(store.renew("a", successor, MINUTE), wrong, None, reply)
        assert commands == [commands[0], DropConnections(), commands[0]]
        assert session == successor


def test_mismatched_records_are_not_listed() -> None:
    """A user's list holds no record of another id."""
    assert (
        replay(SingleServerStore(DEFAULT).get_by_user("u1", 0), [b"a", b"c"], [OTHERS, OTHERS])[1]
        == []
    )


def test_revocation_ignores_marker_of_another_id(harness: Harness) -> None:
    """A marker of another id under a session's marker key is not followed when revoking."""
    harness.begin_with("mine", "others")
    harness.inspector.client.set(
        DEFAULT.marker_key("mine"), encode_marker(Marker("x", "others", MINUTE)), px=MINUTE
    )
    harness.delete("mine").finish()
    assert harness.inspector.live() == {"others"}


# Ids that look like a marker's key


def test_ids_like_a_marker(harness: Harness) -> None:
    """An id whose key would be a marker's can't be stored, read, renewed or revoked.

    The marker stays as it is.
    """
    harness.begin_with("used")
    harness.renew("used", "new").finish()
    before = harness.inspector.census()
    evil = "renewed:{session:used}"
    for refused in (lambda: harness.create(row(evil)), lambda: harness.renew("new", evil)):
        with pytest.raises(ValueError, match="may not begin with 'renewed:'"):
            refused()
    assert harness.get(evil).finish() is None
    assert harness.renew(evil, "newer").finish() is None
    assert harness.successor(evil).finish() is None
    harness.delete(evil).finish()
    assert harness.inspector.census() == before


# Foreign values


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(value=st.binary(max_size=300), marker=st.binary(max_size=100))
def test_any_bytes_under_our_keys(harness: Harness, value: bytes, marker: bytes) -> None:
    """Any bytes under a session's or a marker's key are no session and lead nowhere.

    They raise nothing, and can be revoked.
    """
    harness.begin_with("x", "live")
    harness.inspector.client.set("session:x", value)
    harness.inspector.client.set(DEFAULT.marker_key("used"), marker)
    assert harness.get("x").finish() is None
    assert [each.id for each in harness.read_all().finish()] == ["live"]
    assert harness.successor("used").finish() is None
    assert harness.renew("used", "new").finish() is None
    harness.delete("x", "used").finish()
    assert harness.inspector.live() == {"live"}


def test_bytes_in_an_index(harness: Harness) -> None:
    """Index entries that are not UTF-8 are never listed.

    They are pruned if their session is gone, and revoked with the others.
    """
    harness.begin_with("one")
    client, index = harness.inspector.client, DEFAULT.index_key("u1")
    client.rpush(index, b"\xff\xfe", b"a\xff", b"one\x00")
    client.set(b"session:a\xff", encode_row(row("a\ufffd")), ex=60)
    assert [each.id for each in harness.read_all().finish()] == ["one"]
    assert client.lrange(index, 0, -1) == [b"one", b"a\xff"]
    harness.delete_all().finish()
    assert not client.exists(index, b"session:a\xff")


def test_bytes_in_a_block(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    """Index entries that are not UTF-8 are revoked in blocks too."""
    monkeypatch.setattr(atomic, "MAX_SESSIONS_PER_COMMAND", 1)
    harness.begin_with("one")
    harness.inspector.client.rpush(DEFAULT.index_key("u1"), b"\xff", b"\xfe\x00")
    harness.delete_all().finish()
    assert harness.inspector.keys() == set()
