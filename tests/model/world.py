"""What the explorer walks over: tasks, where each of them is, and the server's keys.

All of it hashable, much of it shared.
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
"""What the server executes whole."""

Frozen = Any
"""A reply, or a result, with tuples for lists, so that it can be hashed."""

LOST = "lost"
"""In the place of a reply: the command failed for the caller."""

WAITING = "waiting"
"""In the place of a reply that did not come yet."""

Kind = Literal[
    "create", "capped", "original", "duplicate", "renew", "follow", "delete", "revoke", "list"
]


@dataclass(frozen=True)
class Task:
    """One operation, and what it means.

    Args:
        kind: ``capped`` is a create that revokes the oldest logins beyond the scenario's limit;
            ``original`` is one by the JavaScript adapter; ``duplicate`` is one whose id is another
            session's; ``follow`` is a request with an id that may have been used.
        start: makes the operation.
        makes: the id of the session that it makes.
        uses: the id that it renews, follows, revokes or keeps: it can't begin before somebody was
            given this id.
        limit: how many logins a capped create leaves, the same for all of them.
    """

    kind: Kind
    start: Callable[[], Operation[Any]]
    makes: str = ""
    uses: str = ""
    limit: int = 0


@dataclass(frozen=True)
class Scenario:
    """Tasks that run side by side over a database, and how often the world may go wrong.

    Args:
        tasks: each runs once; one that nobody schedules again is one that crashed or was cancelled.
        database: the keys in the beginning.
        released: the ids that somebody was given before.
        crashes: how many tasks may be gone for good before a marker expires that they would keep
            from it.
        resends: how many commands are executed, lose their reply, and are sent again at once.
        zombies: how many commands are sent again though the first one is still on its way, and
            executes late or never. Only commands of tasks that make no session: a create that
            executes after a sign-out everywhere brings a session back (``I6``: creates are not sent
            again).
        failures: how many commands are an error for their caller, and execute late or never.
        expiries: whether sessions that are not complete yet and markers may expire.
        legacy_writers: whether the adapter was told that others write, so that an index has no
            expiry, and dead ids stay in it.
        at_every_moment: whether a capped create's limit is kept also while it goes on.
        zombie_creates: whether, against ``I6``, those that make a session may be zombies too.
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
    """How an operation completed: with a result, or the name of an error's class."""

    status: Literal["done", "failed"]
    result: Frozen


@dataclass(eq=False, slots=True)
class Point:
    """Where an operation is after some replies: the commands it waits for, or its outcome.

    Equal replies share one object.
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
        """Where the operation is after one more reply."""
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
    """A reply that can be hashed."""
    return tuple(map(freeze, reply)) if isinstance(reply, list) else reply


def _thaw(reply: Frozen) -> Any:
    return [_thaw(each) for each in reply] if isinstance(reply, tuple) else reply


def _result(value: Any) -> Frozen:
    """Sessions by their ids.

    A list of them, or what an operation without a result gives, hashed likewise.
    """
    if isinstance(value, SessionRow | SessionRecord):
        return value.id
    return frozenset(map(_result, value)) if isinstance(value, list) else value


@dataclass(eq=False, slots=True)
class Snapshot:
    """A server's keys, and what the laws ask about them. Equal keys share one object.

    Args:
        live: the ids of the sessions that validate, and when each expires.
        index: the ids in the user's index.
        successors: what the markers of used ids name.
        markers: the keys of markers, tombstones included, with their used ids.
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
        """An id and what its markers lead to."""
        chain = [id_]
        while (following := self.successors.get(chain[-1])) is not None:
            chain.append(following)
        return chain

    def provisional(self) -> list[str]:
        """The sessions that are not complete yet."""
        return [id_ for id_, expires in self.live.items() if expires <= NOW + PROVISIONAL_MS]


class Executed(NamedTuple):
    """A command's reply, the keys after it, and the markers that got a new life."""

    reply: Frozen
    after: Snapshot
    timed: set[bytes]


class Snapshots:
    """All keys that were met, each kind of them once, and where each command led from them."""

    def __init__(self) -> None:
        self._known: dict[State, Snapshot] = {}
        self._executed: dict[tuple[Snapshot, Part], Executed] = {}

    def of(self, state: State) -> Snapshot:
        """The one object for these keys."""
        snapshot = self._known.get(state)
        if snapshot is None:
            snapshot = self._known[state] = Snapshot(state)
        return snapshot

    def execute(self, snapshot: Snapshot, part: Part) -> "Executed":
        """What a command does."""
        found = self._executed.get((snapshot, part))
        if found is None:
            database = Database(snapshot.state)
            reply, after = freeze(database.run(part)), self.of(database.state())
            found = self._executed[snapshot, part] = Executed(
                reply, after, database.timed & after.markers.keys()
            )
        return found

    def without(self, snapshot: Snapshot, key: bytes) -> Snapshot:
        """The keys after this one has expired."""
        return self.of(tuple(each for each in snapshot.state if each[0] != key))


class Before(NamedTuple):
    """What was so when an operation began.

    The ids that somebody was given, those that were revoked, and the dead ones in the index.
    """

    released: frozenset[str] = frozenset()
    revoked: frozenset[str] = frozenset()
    dead: frozenset[str] = frozenset()


class Process(NamedTuple):
    """A task in progress: where it is, the replies to a batch so far, and what was before.

    Once it is over, its result alone.
    """

    point: Point | None
    batch: tuple[Frozen, ...] = ()
    status: Literal["new", "running", "done", "failed", "crashed"] = "new"
    before: Before = Before()
    result: Frozen = None


class Blocker(NamedTuple):
    """Who keeps a marker from expiring, since no operation takes half of its life.

    Args:
        writing: who was in progress when it was written.
        after: who began while one of those was still in progress.
    """

    key: bytes
    writing: frozenset[int]
    after: frozenset[int] = frozenset()


class World(NamedTuple):
    """The server and the processes: a node of the graph.

    Args:
        late: commands on their way whose caller has given up, with its number.
        revoked: the ids that were revoked by an operation that has returned.
        forgotten: the used ids whose markers have expired, and, by :func:`unmade`, ids whose
            sessions expired before they were complete.
        gone: the logins of whose sessions none validated at some time, though one was handed out.
        blockers: for each marker whose writing is not long ago, who keeps it from expiring.
        fault: a law that the last event broke.
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
    """Which login a session is of.

    The scenarios name the sessions of login ``o`` ``o``, ``o1``, ``o2`` and so on.
    """
    return id_[0]


def unmade(id_: str) -> str:
    """How ``forgotten`` notes that a session expired before it was whole."""
    return f"{id_}, not whole"
