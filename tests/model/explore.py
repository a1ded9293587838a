"""Every interleaving of some operations of the store, with crashes, lost replies, late commands and expiries; and what must always hold."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from lucia.models import SessionRow
from lucia.redis.commands import Batch, Call, Command, DropConnections, Eval, Operation, Transaction
from lucia.redis.layout import Layout, decode_marker
from tests.model.server import Database, State

LAYOUT = Layout("session", "userSession")
USER = "u"

Frozen = Any
"""A reply with tuples for lists, so that it can be hashed."""

LOST = "lost"
"""In the place of a reply: the command failed for the caller."""


@dataclass(frozen=True)
class Task:
    """One operation, and what it means: which session it makes, uses or ends."""

    kind: Literal["create", "renew", "delete", "revoke", "list"]
    start: Callable[[], Operation[Any]]
    makes: str = ""
    uses: str = ""


@dataclass(frozen=True)
class Scenario:
    """Tasks that run side by side over a database, and how often the world may go wrong."""

    tasks: tuple[Task, ...]
    database: State = ()
    released: frozenset[str] = frozenset()
    crashes: int = 1
    resends: int = 0
    failures: int = 0
    expiries: bool = True


class Process(NamedTuple):
    """A task under way: its replies so far, those of the batch it waits for, and what was released when it began."""

    replies: tuple[Frozen, ...] = ()
    batch: tuple[Frozen, ...] = ()
    status: Literal["new", "running", "done", "failed", "crashed"] = "new"
    before: frozenset[str] = frozenset()
    result: Frozen = None


class World(NamedTuple):
    """The server and the processes: a node of the graph."""

    database: State
    processes: tuple[Process, ...]
    late: tuple[Call | Eval | Transaction, ...]
    released: frozenset[str]
    ended: frozenset[str]
    forgotten: frozenset[str]
    crashes: int
    resends: int
    failures: int


class Violation(AssertionError):
    """A law does not hold at the end of this trace."""


@dataclass
class Explorer:
    """Walks the graph of a scenario's worlds and checks each of them."""

    scenario: Scenario
    layout: Layout = LAYOUT
    worlds: int = 0
    _steps: dict[tuple[int, tuple[Frozen, ...]], tuple[str, Any]] = field(default_factory=dict)

    def run(self) -> int:
        """Visit every world; returns how many there are.

        Raises:
            Violation: with the trace that led to it.
        """
        scenario = self.scenario
        first = World(
            scenario.database,
            tuple(Process() for _ in scenario.tasks),
            (),
            scenario.released,
            frozenset(),
            frozenset(),
            scenario.crashes,
            scenario.resends,
            scenario.failures,
        )
        seen = {first}
        stack: list[tuple[World, Iterator[tuple[str, World]]]] = [(first, self._events(first))]
        trace: list[str] = []
        while stack:
            event = next(stack[-1][1], None)
            if event is None:
                stack.pop()
                if trace:
                    trace.pop()
                continue
            name, world = event
            if world in seen:
                continue
            seen.add(world)
            trace.append(name)
            if (fault := self._fault(world)) is not None:
                raise Violation(f"{fault}\n" + "\n".join(trace))
            stack.append((world, self._events(world)))
        self.worlds = len(seen)
        return self.worlds

    def _next(self, task: int, replies: tuple[Frozen, ...]) -> tuple[str, Any]:
        """What a task does after these replies: a command, its result or its error."""
        found = self._steps.get((task, replies))
        if found is None:
            found = self._steps[task, replies] = _replay(self.scenario.tasks[task].start(), replies)
        return found

    def _events(self, world: World) -> Iterator[tuple[str, World]]:
        for number, process in enumerate(world.processes):
            if process.status in ("new", "running"):
                yield from self._process_events(world, number, process)
        for number, command in enumerate(world.late):
            database = Database(world.database)
            database.run(command)
            left = world.late[:number] + world.late[number + 1 :]
            yield f"late {_name(command)}", world._replace(database=database.state(), late=left)
        if self.scenario.expiries:
            yield from self._expiries(world)

    def _process_events(self, world: World, number: int, process: Process) -> Iterator[tuple[str, World]]:
        if process.status == "new":
            process = process._replace(status="running", before=world.released)
        kind, command = self._next(number, process.replies)
        assert kind == "command", kind
        for index, part in self._parts(process, command):
            database = Database(world.database)
            reply = _freeze(database.run(part))
            after = world._replace(database=database.state())
            name = f"{number}:{self.scenario.tasks[number].kind} {_name(part)} -> {reply!r}"
            yield name, self._answered(after, number, process, command, index, reply)
            if world.resends:
                yield (
                    f"{name}, reply lost, to be sent again",
                    after._replace(resends=world.resends - 1, processes=_with(world, number, process)),
                )
            if world.failures:
                late = (*world.late, part)
                failed = world._replace(failures=world.failures - 1, late=late)
                yield f"{name}: late, the caller gets an error", self._answered(failed, number, process, command, index, LOST)
        if world.crashes:
            crashed = _with(world, number, process._replace(status="crashed"))
            yield f"{number}:{self.scenario.tasks[number].kind} crashes", world._replace(processes=crashed, crashes=world.crashes - 1)

    def _parts(self, process: Process, command: Command) -> Iterator[tuple[int, Call | Eval | Transaction]]:
        """The commands that the process may send now: any of a batch that was not sent yet."""
        if not isinstance(command, Batch):
            assert not isinstance(command, DropConnections)
            yield 0, command
            return
        for index, part in enumerate(command.commands):
            if not process.batch or process.batch[index] is _WAITING:
                yield index, part

    def _answered(self, world: World, number: int, process: Process, command: Command, index: int, reply: Frozen) -> World:
        if isinstance(command, Batch) and reply != LOST:
            batch = list(process.batch or (_WAITING,) * len(command.commands))
            batch[index] = reply
            if _WAITING in batch:
                return world._replace(processes=_with(world, number, process._replace(batch=tuple(batch))))
            reply = ("list", *batch)
        process = process._replace(replies=(*process.replies, reply), batch=())
        return self._settled(world, number, process)

    def _settled(self, world: World, number: int, process: Process) -> World:
        kind, value = self._next(number, process.replies)
        while kind == "command" and isinstance(value, Batch) and not value.commands:
            process = process._replace(replies=(*process.replies, ("list",)))
            kind, value = self._next(number, process.replies)
        if kind == "command":
            return world._replace(processes=_with(world, number, process))
        if kind == "error":
            return world._replace(processes=_with(world, number, process._replace(status="failed", result=value)))
        result = value.id if isinstance(value, SessionRow) else value if isinstance(value, (bool, str)) else None
        world = world._replace(processes=_with(world, number, process._replace(status="done", result=result)))
        return self._finished(world, self.scenario.tasks[number], process, result)

    def _finished(self, world: World, task: Task, process: Process, result: Frozen) -> World:
        if task.kind == "create":
            return world._replace(released=world.released | {task.makes})
        if task.kind == "renew" and result is not None:
            return world._replace(released=world.released | {result})
        if task.kind == "delete":
            return world._replace(ended=world.ended | {task.uses})
        if task.kind == "revoke":
            spared = self._chain(world, task.uses) if result is True else frozenset()
            return world._replace(ended=world.ended | (process.before - spared - self._ancestors(spared, world.forgotten)))
        return world

    def _expiries(self, world: World) -> Iterator[tuple[str, World]]:
        quiet = all(process.status != "running" for process in world.processes) and not world.late
        for key, entry in world.database:
            provisional = key.startswith(b"session:") and entry.expires is not None and entry.expires - 1_000_000 <= 10_000
            marker = key.startswith(b"session:renewed:")
            if (provisional and not marker) or (marker and quiet):
                database = Database(world.database)
                database.delete(key)
                forgotten = world.forgotten | ({_used_id(key)} if marker else frozenset())
                yield f"{key!r} expires", world._replace(database=database.state(), forgotten=forgotten)

    def _fault(self, world: World) -> str | None:
        keys = dict(world.database)
        index = Database(world.database).lrange(self.layout.index_key(USER).encode(), b"0", b"-1")
        if any(entry.expires is None for entry in keys.values()):
            return "I3: a key without an expiry"
        for id_ in world.released:
            if self._is_live(keys, id_) and id_.encode() not in index:
                return f"I1: {id_} was handed out and validates, and is not in the index"
        for id_ in world.ended:
            for each in self._chain(world, id_):
                if self._is_live(keys, each):
                    return f"I2: {id_} was ended, and {each} validates"
        for id_ in world.released:
            if self._is_live(keys, id_) and self._ancestors(frozenset({id_}), world.forgotten) & world.ended:
                return f"I2: {id_} was handed out in the place of an ended session"
        return self._keep_fault(world, keys) or self._renewal_fault(world, keys)

    def _keep_fault(self, world: World, keys: Mapping[bytes, Any]) -> str | None:
        """What a sign-out everywhere has kept lives on, if nothing else ends sessions."""
        endings = [number for number, task in enumerate(self.scenario.tasks) if task.kind in ("delete", "revoke")]
        for number in endings:
            kept, process = self.scenario.tasks[number].uses, world.processes[number]
            if len(endings) == 1 and kept and process.result is True and kept not in world.forgotten:
                if not any(self._is_live(keys, id_) for id_ in self._chain(world, kept)):
                    return f"{kept} was kept, and neither it nor its successor validates"
        return None

    def _renewal_fault(self, world: World, keys: Mapping[bytes, Any]) -> str | None:
        for used in {task.uses for task in self.scenario.tasks if task.kind == "renew"}:
            made = {task.makes for task in self.scenario.tasks if task.kind == "renew" and task.uses == used}
            if used not in world.forgotten and len([id_ for id_ in made & world.released if self._is_live(keys, id_)]) > 1:
                return f"two successors of {used} were handed out"
            endless = not any(task.kind in ("delete", "revoke") for task in self.scenario.tasks)
            lost = not any(self._is_live(keys, id_) for id_ in self._chain(world, used))
            if endless and lost and used not in world.forgotten:
                return f"I5: {used} and what it was renewed to are gone, though nobody ended them"
        return None

    def _is_live(self, keys: Mapping[bytes, Any], id_: str) -> bool:
        return self.layout.session_key(id_).encode() in keys

    def _chain(self, world: World, id_: str) -> frozenset[str]:
        """An id and what its markers lead to."""
        database, chain = Database(world.database), [id_]
        while (marker := decode_marker(database.mget(self.layout.marker_key(chain[-1]).encode())[0], chain[-1])) is not None:
            chain.append(marker.successor)
        return frozenset(chain)

    def _ancestors(self, ids: frozenset[str], forgotten: frozenset[str]) -> frozenset[str]:
        """What these sessions were made in the place of, by the tasks, as far as it was not forgotten."""
        found: set[str] = set()
        waiting = list(ids)
        while waiting:
            id_ = waiting.pop()
            renewals = [task for task in self.scenario.tasks if task.kind == "renew" and task.makes == id_]
            waiting += (new := [task.uses for task in renewals if task.uses not in found | forgotten])
            found.update(new)
        return frozenset(found)


_WAITING = "waiting"


def _with(world: World, number: int, process: Process) -> tuple[Process, ...]:
    return (*world.processes[:number], process, *world.processes[number + 1 :])


def _replay(operation: Operation[Any], replies: tuple[Frozen, ...]) -> tuple[str, Any]:
    try:
        command = next(operation)
        for reply in replies:
            command = operation.throw(TimeoutError()) if reply == LOST else operation.send(_thaw(reply))
    except StopIteration as end:
        return "done", end.value
    except Exception as error:
        return "error", type(error).__name__
    return "command", command


def _freeze(reply: Any) -> Frozen:
    return ("list", *map(_freeze, reply)) if isinstance(reply, list) else reply


def _thaw(reply: Frozen) -> Any:
    return [_thaw(each) for each in reply[1:]] if isinstance(reply, tuple) else reply


def _name(command: Call | Eval | Transaction) -> str:
    if isinstance(command, Eval):
        return f"{command.script.name} {command.keys!r}"
    if isinstance(command, Transaction):
        return "; ".join(map(_name, command.commands))
    return f"{command.name} {command.arguments[0] if command.arguments else ''!r}"


def _used_id(marker_key: bytes) -> str:
    return marker_key.decode().rpartition(":")[2].rstrip("}")
