"""The worlds that the explorer visits: tasks, their progress, and the server's keys.

All of it can be hashed, and much is shared.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from lucia._redis.cluster import PROVISIONAL_MS
from lucia._redis.commands import Batch, Call, Eval, Operation, Transaction
from lucia._redis.keys import Layout
from lucia._redis.records import SessionRecord, decode_marker
from lucia.models import SessionRow
from tests.model.server import NOW, Database, Entry, State

LAYOUT = Layout("session", "userSession")
USER = "u"

Part = Call | Eval | Transaction
"""A command, script or transaction, which the server executes atomically."""

Frozen = Any
"""A reply or a result that can be hashed, with tuples in place of lists."""

LOST = "lost"
"""In place of a reply: the caller gets an error."""

WAITING = "waiting"
"""In place of a reply: it has not arrived yet."""

Kind = Literal[
    "create", "capped", "js_login", "duplicate", "renew", "follow", "delete", "revoke", "list"
]


@dataclass(frozen=True)
class Task:
    """One operation and its meaning.

    Args:
        kind: ``capped`` is a create that revokes the oldest logins beyond the limit; ``original``
            is a create by Lucia JS; ``duplicate`` is a create with the id of another session;
            ``follow`` is a read of an id that may have been used.
        start: makes the operation.
        makes: the id of the session that it creates.
        uses: the id that it renews, follows, revokes or keeps. It begins only after this id was
            handed out.
        limit: how many logins a capped create leaves, the same for all of them.
    """

    kind: Kind
    start: Callable[[], Operation[Any]]
    makes: str = ""
    uses: str = ""
    limit: int = 0


@dataclass(frozen=True)
class Scenario:
    """Concurrent tasks over a database, and the number of faults of each kind.

    Args:
        tasks: each runs once. One that is not scheduled again stands for one that crashed or was
            cancelled.
        database: the keys at the beginning.
        released: the ids that were handed out before.
        crashes: how many tasks that keep a marker from expiring may crash before it expires.
        resends: how many commands are executed, lose their reply, and are sent again at once.
        zombies: how many commands are sent again while the first one is in flight, which executes
            late or never. Only commands of tasks that create no session: creates are not sent again
            (I6), since one that executes after a sign-out everywhere would revive a session.
        failures: how many commands raise an error for their caller, and execute late or never.
        expiries: whether markers and incomplete sessions may expire.
        legacy_writers: whether the adapter knows of other writers, so that an index has no TTL and
            dead ids stay in it.
        at_every_moment: whether the limit of a capped create also holds while it runs.
        zombie_creates: whether tasks that create a session may be zombies too, against I6.
    """

    tasks: tuple[Task, ...]
    database: State = ()
    released: frozenset[str] = frozenset()
    crashes: int = 1
    resends: int = 0
    zombies: int = 0
    failures: int = 0
    expiries: bool = True
    zombie_creates: bool = False
    legacy_writers: bool = False
    at_every_moment: bool = False


class Outcome(NamedTuple):
    """How an operation completed: with a result, or with the name of an error's class."""

    status: Literal["done", "failed"]
    result: Frozen


@dataclass(eq=False, slots=True)
class Point:
    """The state of an operation after some replies: its next commands, or its outcome.

    Equal replies lead to the same object.
    """

    start: Callable[[], Operation[Any]]
    replies: tuple[Frozen, ...] = ()
    parts: tuple[Part, ...] = ()
    is_batch: bool = False
    outcome: Outcome | None = None
    _next: dict[Frozen, "Point"] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._replay()
        while self.is_batch and not self.parts:
            self.replies += ((),)
            self._replay()

    def after(self, reply: Frozen) -> "Point":
        """Return the state after one more reply."""
        point = self._next.get(reply)
        if point is None:
            point = self._next[reply] = Point(self.start, (*self.replies, reply))
        return point

    def _replay(self) -> None:
        operation = self.start()
        self.parts, self.is_batch = (), False
        try:
            command = next(operation)
            for reply in self.replies:
                command = (
                    operation.throw(TimeoutError())
                    if reply == LOST
                    else operation.send(_thaw(reply))
                )
        except StopIteration as end:
            self.outcome = Outcome("done", _result(end.value))
        except Exception as error:
            self.outcome = Outcome("failed", type(error).__name__)
        else:
            self.is_batch = isinstance(command, Batch)
            self.parts = command.commands if isinstance(command, Batch) else (_as_part(command),)


def _as_part(command: Any) -> Part:
    if not isinstance(command, Call | Eval | Transaction):
        raise TypeError(
            f"the model's replies are never crossed, and an operation sent {type(command).__name__}"
        )
    return command


def freeze(reply: Any) -> Frozen:
    """Return a reply in a form that can be hashed."""
    return tuple(map(freeze, reply)) if isinstance(reply, list) else reply


def _thaw(reply: Frozen) -> Any:
    return [_thaw(each) for each in reply] if isinstance(reply, tuple) else reply


def _result(value: Any) -> Frozen:
    """Return a result in a form that can be hashed: sessions by their ids, lists as sets."""
    if isinstance(value, SessionRow | SessionRecord):
        return value.id
    return frozenset(map(_result, value)) if isinstance(value, list) else value


@dataclass(eq=False, slots=True)
class Snapshot:
    """A server's keys, and the facts that the invariants need. Equal keys share one object.

    Args:
        live: the ids of the sessions that validate, and when each expires.
        index: the ids in the user's index.
        successors: the successors that the markers of used ids name.
        markers: the keys of markers and tombstones, with their used ids.
    """

    state: State
    live: dict[str, int] = field(default_factory=dict)
    index: frozenset[str] = frozenset()
    successors: dict[str, str] = field(default_factory=dict)
    markers: dict[bytes, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for key, entry in self.state:
            self._read(key.decode(), entry)

    def _read(self, key: str, entry: Entry) -> None:
        used_id = key.rpartition(":")[2].rstrip("}")
        if key == LAYOUT.index_key(USER):
            self.index = frozenset(each.decode() for each in entry.value if isinstance(each, bytes))
        elif key == LAYOUT.session_key(used_id):
            self.live[used_id] = entry.expires or 0
        elif key == LAYOUT.marker_key(used_id):
            self.markers[key.encode()] = used_id
            marker = decode_marker(entry.value if isinstance(entry.value, bytes) else None, used_id)
            if marker is not None:
                self.successors[used_id] = marker.successor

    def chain(self, id_: str) -> list[str]:
        """Return an id, and those that its markers lead to."""
        chain = [id_]
        while (following := self.successors.get(chain[-1])) is not None:
            chain.append(following)
        return chain

    def provisional(self) -> list[str]:
        """Return the sessions that are not complete yet."""
        return [id_ for id_, expires in self.live.items() if expires <= NOW + PROVISIONAL_MS]


class Executed(NamedTuple):
    """A command's reply, the keys after it, and the markers whose expiry it set."""

    reply: Frozen
    after: Snapshot
    timed: set[bytes]


class Snapshots:
    """A cache of all snapshots, and of the effect of each command on them."""

    def __init__(self) -> None:
        self._known: dict[State, Snapshot] = {}
        self._executed: dict[tuple[Snapshot, Part], Executed] = {}

    def of(self, state: State) -> Snapshot:
        """Return the one object for these keys."""
        snapshot = self._known.get(state)
        if snapshot is None:
            snapshot = self._known[state] = Snapshot(state)
        return snapshot

    def execute(self, snapshot: Snapshot, part: Part) -> "Executed":
        """Return the effect of a command."""
        found = self._executed.get((snapshot, part))
        if found is None:
            database = Database(snapshot.state)
            reply, after = freeze(database.run(part)), self.of(database.state())
            found = self._executed[snapshot, part] = Executed(
                reply, after, database.timed & after.markers.keys()
            )
        return found

    def without(self, snapshot: Snapshot, key: bytes) -> Snapshot:
        """Return the keys after this one has expired."""
        return self.of(tuple(each for each in snapshot.state if each[0] != key))


class Before(NamedTuple):
    """Facts from the beginning of an operation.

    The ids that were handed out, the revoked ones, and the dead ones in the index.
    """

    released: frozenset[str] = frozenset()
    revoked: frozenset[str] = frozenset()
    dead: frozenset[str] = frozenset()


class Process(NamedTuple):
    """A running task: its state, replies to its batch, and facts from its beginning.

    Once it is over, only its result is kept.
    """

    point: Point | None
    batch: tuple[Frozen, ...] = ()
    status: Literal["new", "running", "done", "failed", "crashed"] = "new"
    before: Before = Before()
    result: Frozen = None


class Blocker(NamedTuple):
    """The processes that keep a marker from expiring.

    No operation takes half of a marker's life.

    Args:
        writing: the processes that were running when the marker was written.
        after: the processes that began while one of those was running.
    """

    key: bytes
    writing: frozenset[int]
    after: frozenset[int] = frozenset()


class World(NamedTuple):
    """The server and the processes: a node of the graph.

    Args:
        late: commands in flight whose caller has given up, with the caller's number.
        revoked: the ids that were revoked by operations that have returned.
        forgotten: the used ids whose markers have expired, and, in the form of :func:`unmade`, the
            ids whose sessions expired before they were complete.
        gone: the logins that at some time had no live session, though one was handed out.
        blockers: for each marker that was written recently, the processes that keep it from
            expiring.
        fault: the invariant that the last event broke.
    """

    snapshot: Snapshot
    processes: tuple[Process, ...]
    late: tuple[tuple[int, Part], ...]
    released: frozenset[str]
    revoked: frozenset[str]
    forgotten: frozenset[str]
    blockers: frozenset[Blocker]
    gone: frozenset[str]
    crashes: int
    resends: int
    zombies: int
    failures: int
    fault: str | None = None


def login_of(id_: str) -> str:
    """Return the login of a session.

    The scenarios name the sessions of login ``o`` ``o``, ``o1``, ``o2`` and so on.
    """
    return id_[0]


def unmade(id_: str) -> str:
    """Return the form in which ``forgotten`` records that a session expired incomplete."""
    return f"{id_}, incomplete"
