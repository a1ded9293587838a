"""Which revocations a process remembers, and when they are replayed; without a server."""

from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
import redis
from redis.crc import key_slot

from lucia._redis.cluster import ClusterStore, PlainSteps, ScriptedSteps
from lucia._redis.commands import Argument, Command, Eval, Operation, ReplicationBarrier, Reply
from lucia._redis.records import Marker, encode_marker, encode_row
from lucia._redis.replay import (
    KEPT_IDS,
    KEPT_SECONDS,
    MAX_REPLAYED_AT_ONCE,
    ConnectionMonitor,
    Revocations,
    _forget,
    history_in,
    is_replica,
)
from lucia._redis.revocations import Acknowledgement, RevocationTracking
from lucia._redis.single_server import SingleServerStore
from lucia._redis.store import ServerStore
from lucia._redis.transport.slots import key_per_primary
from lucia._redis.transport.topology import Address
from lucia.errors import RevocationNotReplicated, StoreUnavailable
from tests.support.redis_inspectors import DEFAULT
from tests.support.sessions import row

NOBODY = Acknowledgement(0, timedelta(seconds=1))
LOST = ConnectionError("lost")


class Clock:
    """A clock in seconds that a test moves."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def revocations(clock: Clock) -> Revocations:
    return Revocations(clock)


def finish(revocations: Revocations) -> None:
    """Complete the replay."""
    while revocations.due:
        revocations.done(revocations.block(), revocations.newest_demand)


# Remembered ids


def test_newest_first(revocations: Revocations) -> None:
    """Each revoked id is remembered once, the newest first."""
    revocations.revoked(["a", "b"], 0)
    revocations.revoked(["c", "a"], 0)
    assert revocations.all() == ["a", "c", "b"]


def test_used_ids(revocations: Revocations) -> None:
    """The used ids that led to a revoked session are remembered with it.

    A renewal alone causes no replay.
    """
    revocations.renewed("a", "b")
    revocations.renewed("b", "c")
    revocations.renewed("x", "y")
    assert revocations.all() == []
    revocations.revoked(["c"], 0)
    assert revocations.all() == ["c", "b", "a"]


def test_remembered_ids_are_forgotten_after_ten_minutes(
    revocations: Revocations, clock: Clock
) -> None:
    """An id is forgotten when another is revoked more than ten minutes later.

    Time alone does not make it forgotten, so that an outage may last longer.
    """
    revocations.revoked(["old"], 0)
    revocations.renewed("older", "old")
    clock.now += KEPT_SECONDS
    revocations.revoked(["new"], 0)
    clock.now += 10 * KEPT_SECONDS
    assert revocations.all() == ["new", "old", "older"]
    revocations.revoked(["newer"], 0)
    revocations.renewed("p", "q")
    assert revocations.all() == ["newer"]
    revocations.revoked(["old"], 0)
    assert "older" not in revocations.all()


class Moment(float):
    """A time; when it is compared, another thread runs first, once."""

    meanwhile: Callable[[], object] | None = None

    def __lt__(self, other: float) -> bool:
        """Compare the times, after the other thread has run."""
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile is not None:
            with ThreadPoolExecutor(1) as threads:
                threads.submit(meanwhile).result()
        return float(self) < other


@pytest.mark.parametrize("renews", [False, True])
def test_threads_that_forget_the_same_id(*, renews: bool) -> None:
    """Two threads may forget one old id at once: each remembers what it revoked or renewed."""
    now = Moment(1_000)
    revocations = Revocations(lambda: now)

    def remember(session_id: str) -> None:
        if renews:
            revocations.renewed(session_id, "successor")
        else:
            revocations.revoked([session_id], 0)

    remember("old")
    first, now = now, Moment(1_001 + KEPT_SECONDS)
    first.meanwhile = partial(remember, "by the other thread")
    remember("by this thread")
    if renews:
        revocations.revoked(["successor"], 0)
    found = set(revocations.all()) - {"successor"}
    assert found == {"by the other thread", "by this thread"}


def test_the_only_id_is_forgotten_by_another_thread() -> None:
    """A thread that finds an old id gone has nothing more to forget."""
    first = Moment(1_000)
    entries = deque([(first, "old")])
    now = first + KEPT_SECONDS + 1
    first.meanwhile = partial(_forget, entries, now)
    _forget(entries, now)
    assert not entries


def test_remembered_ids_are_bounded(revocations: Revocations) -> None:
    """Only the newest ten thousand ids are remembered."""
    revocations.revoked(map(str, range(KEPT_IDS + 5)), 0)
    assert len(revocations.all()) == KEPT_IDS
    assert "5" in revocations.all()
    assert "4" not in revocations.all()


# When a replay is due


def met_another(revocations: Revocations, place: object, history: bytes | None) -> bool:
    """Meet a server as a new connection does, and return whether its history is another one."""
    changed = revocations.is_changed(place, history)
    revocations.met(place, history)
    return changed


def test_changed_history_makes_replay_due(revocations: Revocations) -> None:
    """When a place is met with another history, a replay is due until it is completed."""
    assert met_another(revocations, "p", b"one") is False
    revocations.revoked(["a"], revocations.newest_demand)
    assert met_another(revocations, "p", b"one") is False
    assert not revocations.due
    assert met_another(revocations, "p", b"two") is True
    assert revocations.due
    finish(revocations)
    assert not revocations.due
    assert met_another(revocations, "p", b"two") is False
    assert met_another(revocations, "p", b"one") is True
    assert revocations.due


def test_a_change_during_the_last_block(revocations: Revocations) -> None:
    """A replay is still due if another server was met while its last block was sent."""
    revocations.met("p", b"one")
    revocations.revoked(["a"], revocations.newest_demand)
    revocations.met("p", b"two")
    demand, block = revocations.newest_demand, revocations.block()
    revocations.met("p", b"three")
    revocations.done(block, demand)
    assert revocations.due
    finish(revocations)
    assert not revocations.due


def test_no_replay_without_revocations(revocations: Revocations) -> None:
    """A change of history without revocations causes no replay."""
    revocations.met("p", b"one")
    assert met_another(revocations, "p", b"two") is True
    assert not revocations.due


def test_no_replay_if_nothing_was_revoked(revocations: Revocations) -> None:
    """An operation that revoked nothing causes no replay, even if the history changed meanwhile."""
    revocations.met("place", b"one")
    demand = revocations.newest_demand
    revocations.met("place", b"two")
    revocations.revoked([], demand)
    assert not revocations.due
    revocations.revoked(["id"], demand - 1)
    assert revocations.due


def test_node_that_joins_makes_replay_due(revocations: Revocations) -> None:
    """The first nodes of a cluster are no change of history. A node that joins later is one."""
    revocations.met("n1", b"one")
    revocations.expect(["n1", "n2"])
    revocations.revoked(["a"], revocations.newest_demand)
    revocations.expect(["n1", "n3"])
    assert met_another(revocations, "n2", b"two") is False
    assert met_another(revocations, "n1", b"other") is True
    finish(revocations)
    assert met_another(revocations, "n3", b"three") is True
    assert revocations.due


def test_unknown_history_changes_on_reconnect(revocations: Revocations) -> None:
    """Without a known history, only a connection that follows a lost one is a change."""
    assert met_another(revocations, "p", None) is False
    revocations.revoked(["a"], revocations.newest_demand)
    assert met_another(revocations, "p", None) is False
    revocations.lost("p")
    assert met_another(revocations, "p", None) is True
    assert revocations.due
    finish(revocations)
    assert met_another(revocations, "p", None) is False


def test_lost_connection_counts_at_its_own_place(revocations: Revocations) -> None:
    """Without a known history, a connection that was lost at one place is a change only there.

    Other places are no other servers, and checking them does not hide the change.
    """
    lost, other = ConnectionMonitor(revocations, "p"), ConnectionMonitor(revocations, "q")
    for monitor in (lost, other):
        monitor.connected(None)
    revocations.revoked(["a"], revocations.newest_demand)
    lost.lost()
    assert not other.is_changed(None)
    other.connected(None)
    assert not revocations.due
    assert lost.is_changed(None)
    lost.connected(None)
    assert revocations.due


def test_change_meanwhile(revocations: Revocations) -> None:
    """An id revoked while the primary changes may be revoked on the former one: a replay is due."""
    revocations.met("p", b"one")
    demand = revocations.newest_demand
    revocations.revoked(["before"], demand)
    revocations.met("p", b"two")
    finish(revocations)
    revocations.revoked(["a"], demand)
    assert revocations.due
    demand = revocations.newest_demand
    block = revocations.block()
    revocations.met("p", b"three")
    revocations.done(block, demand)
    assert revocations.due
    assert revocations.block() == block


def test_late_block_does_not_complete_earlier_replay(revocations: Revocations) -> None:
    """A block that was taken after another change does not complete the earlier demand."""
    revocations.met("p", b"one")
    revocations.revoked(["a"], revocations.newest_demand)
    revocations.met("p", b"two")
    demand = revocations.newest_demand
    revocations.met("p", b"three")
    revocations.done(revocations.block(), demand)
    assert revocations.block() == ["a"]
    finish(revocations)
    assert not revocations.due


def test_connections_that_must_not_be_used(revocations: Revocations) -> None:
    """A server that is loading, busy or a replica is not used.

    A replica in a cluster is, since it redirects to its primary.
    """
    monitor = ConnectionMonitor(revocations)
    replica = b"# Replication\r\nrole:slave\r\nmaster_replid:a1\r\n"
    for reply in (redis.BusyLoadingError("loading"), redis.ResponseError("BUSY a script"), replica):
        with pytest.raises((redis.RedisError, ConnectionError)):
            monitor.check(reply)
    ConnectionMonitor(revocations, ("n", 1)).check(replica)
    monitor.check(redis.ResponseError("NOPERM no INFO"))


def test_connection_to_a_former_server(revocations: Revocations) -> None:
    """A connection is not used once another one has met a newer history."""
    monitor = ConnectionMonitor(revocations)
    one, two = (b"role:master\r\nmaster_replid:%b\r\n" % name for name in (b"one", b"two"))
    before = monitor.connected(one)
    assert before.demand == revocations.newest_demand
    assert monitor.is_changed(two)
    assert monitor.connected(two).demand == revocations.newest_demand
    assert before.demand != revocations.newest_demand
    with pytest.raises(ConnectionError, match="replaced"):
        monitor.is_changed(one, before)
    assert not monitor.is_changed(two, before)


def test_history_in_a_reply() -> None:
    """The history is read from the reply to INFO. Other replies have none."""
    assert (
        history_in(
            b"# Replication\r\nrole:master\r\nmaster_replid:0123abcd\r\nmaster_replid2:00\r\n"
        )
        == b"0123abcd"
    )
    for reply in (PermissionError("no"), b"# Replication\r\nrole:master\r\n", None, 1):
        assert history_in(reply) is None


def test_role_in_a_reply() -> None:
    """A replica is known by its role. Without a role, a server counts as a primary."""
    assert is_replica(b"# Replication\r\nrole:slave\r\nmaster_host:h\r\n")
    for reply in (b"# Replication\r\nrole:master\r\n", PermissionError("no"), None):
        assert not is_replica(reply)


def test_blocks(revocations: Revocations) -> None:
    """A replay goes in blocks, newest first, and is due until the last of them is done."""
    revocations.met("p", b"one")
    revocations.revoked(map(str, range(2 * MAX_REPLAYED_AT_ONCE + 1)), revocations.newest_demand)
    revocations.met("p", b"two")
    sizes: list[int] = []
    while revocations.due:
        block = revocations.block()
        sizes.append(len(block))
        revocations.done(block, revocations.newest_demand)
        revocations.done(block, revocations.newest_demand)  # by another event loop
    assert sizes == [MAX_REPLAYED_AT_ONCE, MAX_REPLAYED_AT_ONCE, 1]
    revocations.revoked(["newest"], revocations.newest_demand - 1)
    assert revocations.due
    assert revocations.block()[0] == "newest"


def test_done_without_due_replay_does_nothing(revocations: Revocations) -> None:
    """Completing a block when no replay is due changes nothing."""
    revocations.done(["a"], revocations.newest_demand)
    assert not revocations.due


# Ids revoked by an operation


def run(operation: Generator[Command, Reply, Any], *replies: Reply) -> list[Command]:
    """Run an operation with these replies and return its commands.

    Replies that are exceptions are thrown into it.
    """
    commands: list[Command] = []
    waiting: list[Reply] = [None, *replies]
    with suppress(StopIteration):
        while waiting:
            reply = waiting.pop(0)
            commands.append(
                operation.throw(reply) if isinstance(reply, Exception) else operation.send(reply)
            )
    assert not waiting
    assert len(commands) == len(replies)
    return commands


MakeStore = Callable[[RevocationTracking], ServerStore]


def revoking(
    make: MakeStore, revocations: Revocations, acknowledgement: Acknowledgement = NOBODY
) -> ServerStore:
    return make(RevocationTracking(DEFAULT, revocations, acknowledgement))


def one_server(tracking: RevocationTracking) -> SingleServerStore:
    return SingleServerStore(DEFAULT, tracking)


def scripted(tracking: RevocationTracking) -> ClusterStore:
    return ClusterStore(DEFAULT, ScriptedSteps(), tracking)


def without_scripts(tracking: RevocationTracking) -> ClusterStore:
    return ClusterStore(DEFAULT, PlainSteps(), tracking)


def record(session_id: str) -> bytes:
    return encode_row(row(session_id))


def marker(used_id: str, successor_id: str) -> bytes:
    return encode_marker(Marker(used_id, successor_id, 0))


def test_revoked_id_is_remembered(revocations: Revocations) -> None:
    """The given id, its session and the session's successor are remembered, in each store."""
    run(
        revoking(one_server, revocations).delete(["used"]),
        [[None, marker("used", "new")]],
        [[record("new"), None]],
        [1],
    )
    assert set(revocations.all()) == {"used", "new"}
    revocations = Revocations()
    run(
        revoking(scripted, revocations).delete(["used"]),
        [[[None, marker("used", "new")]]],
        [[[record("new"), None]]],
        1,
    )
    assert set(revocations.all()) == {"used", "new"}
    revocations = Revocations()
    plain = [[marker("used", "new")]], [[record("new")]], [1], [b"OK"], [[None]], [1]
    run(revoking(without_scripts, revocations).delete(["used"]), [[None]], [0], [None], *plain)
    assert set(revocations.all()) == {"used", "new"}


def test_revoked_id_in_another_slot_is_remembered(revocations: Revocations) -> None:
    """A session whose marker would be in another slot is remembered too."""
    run(revoking(scripted, revocations).delete(["a}b"]), [], [record("a}b")], 1, [1])
    assert revocations.all() == ["a}b"]


def test_unknown_ids(revocations: Revocations) -> None:
    """Unknown ids are not remembered: there could be any number of them."""
    run(revoking(one_server, revocations).delete(["unknown"]), [[None, None]])
    assert revocations.all() == []


def test_failed_revocation_is_remembered(revocations: Revocations) -> None:
    """A revocation that failed or was cancelled is remembered if it may have been executed."""
    for error in (LOST, StoreUnavailable()):
        with pytest.raises(type(error)):
            run(revoking(one_server, revocations).delete(["alive"]), error)
    with pytest.raises(StoreUnavailable):
        run(revoking(one_server, revocations).delete(["a"]), StoreUnavailable(ambiguous=True))
    assert revocations.all() == ["a"]
    operation = revoking(one_server, revocations).delete(["b"])
    next(operation)
    operation.close()
    assert revocations.all() == ["b", "a"]


@pytest.mark.parametrize("make", [scripted, without_scripts])
def test_failed_half_way(make: MakeStore, revocations: Revocations) -> None:
    """Ids revoked before an operation fails are remembered, so that a replay repeats them."""
    by_script: list[Reply] = [[[[record("a"), marker("a", "b")]]]]
    by_commands: list[Reply] = [[[record("a")]], [1], [b"OK"], [[marker("a", "b")]]]
    replies = by_script if make is scripted else by_commands
    with pytest.raises(ConnectionError):
        run(revoking(make, revocations).delete(["a"]), *replies, LOST)
    assert revocations.all() == ["a"]


def test_failed_half_way_on_one_server(revocations: Revocations) -> None:
    """On one server, too, ids revoked before an operation fails are remembered."""
    with pytest.raises(ConnectionError):
        run(
            revoking(one_server, revocations).delete(["a"]),
            [[record("a"), marker("a", "b")]],
            LOST,
        )
    assert revocations.all() == ["a"]


def test_another_server_while_a_command_is_in_flight(revocations: Revocations) -> None:
    """A command that the former primary may have executed makes a replay due.

    One sent later does not.
    """
    revocations.met("p", b"one")
    operation = revoking(one_server, revocations).delete_by_user("u1")
    next(operation)
    revocations.met("p", b"two")
    assert not revocations.due
    operation.send([b"a"])
    with suppress(StopIteration):
        operation.send(1)
    assert revocations.all() == ["a"]
    assert not revocations.due
    operation = revoking(one_server, revocations).delete_by_user("u1")
    next(operation)
    operation.send([b"b"])
    revocations.met("p", b"three")
    with suppress(StopIteration):
        operation.send(1)
    assert revocations.due
    assert revocations.block() == ["b", "a"]


def test_revoked_sessions_of_user_are_remembered(revocations: Revocations) -> None:
    """The user's revoked sessions are remembered.

    The kept session, and those of a try that changed nothing, are not.
    """
    run(revoking(one_server, revocations).delete_by_user("u1"), [b"a"], 0, [b"b", b"a"], 1)
    assert set(revocations.all()) == {"a", "b"}
    revocations = Revocations()
    run(
        revoking(one_server, revocations).delete_by_user("u1", "kept"),
        [record("kept")],
        [b"kept", b"c"],
        1,
    )
    assert revocations.all() == ["c"]


def test_kept_and_its_used_id(revocations: Revocations) -> None:
    """The used id of a kept session, still indexed in a cluster, is not remembered.

    Otherwise a replay would revoke the kept session too.
    """
    replies = (
        [b"kept", b"used"],
        [record("kept")],
        [[record("kept")], [None]],
        [[[None, marker("used", "kept")]]],
        1,
    )
    run(revoking(scripted, revocations).delete_by_user("u1", "kept"), *replies)
    assert revocations.all() == []


def test_renewal(revocations: Revocations) -> None:
    """A renewal by this process is remembered, in case its successor is revoked.

    One that another process won is not.
    """
    store = revoking(one_server, revocations)
    run(store.renew("used", row("new"), 0), 1)
    run(store.renew("used", row("newer"), 60_000), [marker("used", "new"), 60_000])
    revocations.revoked(["new", "newer"], 0)
    assert set(revocations.all()) == {"used", "new", "newer"}


def test_revoked_again(revocations: Revocations) -> None:
    """A replay follows chains, in each store, and does not read indexes.

    So a damaged index can't stop it.
    """
    first, second = run(
        revoking(one_server, revocations).delete_records(["a"]),
        [[record("a"), marker("a", "b")]],
        [[record("b"), None]],
    )
    assert isinstance(first, Eval)
    assert isinstance(second, Eval)
    assert (
        len(run(revoking(scripted, revocations).delete_records(["a"]), [[[record("a"), None]]]))
        == 1
    )
    assert run(revoking(scripted, revocations).delete_records([])) == []
    with pytest.raises(ConnectionError):
        run(revoking(one_server, revocations).delete_records(["a"]), LOST)
    assert revocations.all() == []


def test_other_operations(revocations: Revocations) -> None:
    """Logins, lists and reads are passed through unchanged."""
    store = revoking(one_server, revocations)
    assert len(run(store.create(row("a"), lambda _: 0), 1)) == 1
    assert len(run(store.create_capped(row("a"), 1, 0, lambda _: 0), [], 1)) == 2
    assert len(run(store.get_by_user("u1", 0), [])) == 1
    assert len(run(store.get("a"), [None])) == 1
    assert len(run(store.get_successor("a"), [None])) == 1


# Confirmation by replicas


@pytest.mark.parametrize(
    ("end", "replies"),
    [
        (lambda store: store.delete(["a"]), [[[None, None]]]),
        (lambda store: store.delete_by_user("u1"), [[]]),
    ],
    ids=["id", "user"],
)
def test_confirmed(
    end: Callable[[ServerStore], Operation[Any]],
    replies: list[Reply],
    revocations: Revocations,
) -> None:
    """Each revocation waits for replicas, even if it revoked nothing: it may be a retry."""
    store = revoking(one_server, revocations, Acknowledgement(2, timedelta(milliseconds=70)))
    *_, last = run(end(store), *replies, 2)
    assert isinstance(last, ReplicationBarrier)
    assert (last.replicas, last.milliseconds) == (2, 70)
    with pytest.raises(RevocationNotReplicated, match="1 of 2 replicas") as caught:
        run(end(store), *replies, 1)
    assert (caught.value.wanted, caught.value.acknowledged) == (2, 1)


def test_another_server_confirms(revocations: Revocations) -> None:
    """If the server changes during the operation, its replicas confirm nothing."""
    revocations.met("a", b"1")
    operation = revoking(one_server, revocations, Acknowledgement(1, timedelta(seconds=1))).delete(
        ["a"]
    )
    next(operation)
    assert isinstance(operation.send([[b"record", None]]), ReplicationBarrier)
    revocations.met("a", b"2")
    with pytest.raises(RevocationNotReplicated, match="0 of 1 replicas"):
        operation.send(1)


def test_a_key_at_each_primary() -> None:
    """Replicas are asked by one key at each primary, or by one key if all share a hash tag."""
    nodes: list[Address] = [("n", number) for number in range(3)]
    slots = {slot: nodes[min(slot // 8_000, 2)] for slot in range(16_384)}

    def slot_of(key: Argument) -> int:
        return key_slot(str(key).encode())

    found = key_per_primary("session:renewed:", slots, slot_of)
    assert found.keys() == set(nodes)
    assert {node: slots[slot_of(key)] for node, key in found.items()} == {
        node: node for node in nodes
    }
    assert all(key.startswith("session:renewed:{") for key in found.values())
    (key,) = key_per_primary("{tag}session:renewed:", slots, slot_of).values()
    assert key == "{tag}session:renewed:{0}"


@pytest.mark.parametrize(
    ("replicas", "timeout", "error"),
    [
        (-1, timedelta(seconds=1), "revoke_ack is -1"),
        (True, timedelta(seconds=1), "number of replicas, not bool"),
        ("1", timedelta(seconds=1), "number of replicas, not str"),
        (1, timedelta(0), "revoke_ack_timeout is shorter"),
        (1, 1.0, "must be a datetime.timedelta, not float"),
    ],
    ids=["negative", "bool", "text", "no time", "seconds"],
)
def test_settings(replicas: Any, timeout: Any, error: str) -> None:
    """Invalid numbers of replicas and timeouts are refused, and the error says what is expected."""
    with pytest.raises((TypeError, ValueError), match=error):
        Acknowledgement(replicas, timeout)


def test_time_within_the_deadline() -> None:
    """The timeout for replicas must be shorter than the deadline, unless none is asked."""
    second = timedelta(seconds=1)
    Acknowledgement(1, second).check_within(2 * second)
    Acknowledgement(0, second).check_within(second)
    with pytest.raises(ValueError, match="must be shorter than the deadline"):
        Acknowledgement(1, second).check_within(second)
