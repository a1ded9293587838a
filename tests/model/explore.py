"""An exhaustive explorer of interleavings, with crashes, lost replies, late commands and expiries.

An operation is a pure generator, so its state follows from the replies that it was sent, and the
code that ships is the code that is explored. Each invariant is checked in every world. So a task
that is not scheduled any more stands for one that crashed or was cancelled at that step. A crash is
an event of its own only for tasks that would keep a marker from expiring: a marker lives at least
twice as long as any operation.
"""

from collections.abc import Iterator
from typing import NamedTuple

from lucia._redis.commands import Eval, Transaction
from tests.model.invariants import (
    before_of,
    end_fault,
    faults_of,
    gone_logins,
    released_by,
    revoked_by,
)
from tests.model.world import (
    LAYOUT,
    LOST,
    WAITING,
    Blocker,
    Frozen,
    Part,
    Point,
    Process,
    Scenario,
    Snapshot,
    Snapshots,
    World,
    unmade,
)


class Violation(AssertionError):
    """An invariant that does not hold at the end of a trace."""


class Event(NamedTuple):
    """A transition from one world to the next."""

    what: str
    number: int | None = None
    part: Part | None = None
    reply: Frozen = None


class Explorer:
    """A breadth-first search over a scenario's worlds that checks each world's invariants."""

    def __init__(self, scenario: Scenario, *, invariant: str | None = None) -> None:
        self._scenario = scenario
        self._prefix = "" if invariant is None else f"{invariant}:"
        self._snapshots = Snapshots()
        self._judged: set[object] = set()
        self._known_gone: dict[tuple[Snapshot, frozenset[str]], frozenset[str]] = {}

    def run(self) -> int:
        """Visit every world, and return how many there are.

        Raises:
            Violation: an invariant does not hold. The error has a shortest trace that leads there.
        """
        first = self._first()
        parents: dict[World, World | None] = {first: None}
        level = [first]
        while level:
            following: list[World] = []
            for world in level:
                for _, each in self._events(world):
                    if each not in parents:
                        parents[each] = world
                        self._judge(each, parents)
                        following.append(each)
            level = following
        return len(parents)

    def _first(self) -> World:
        scenario = self._scenario
        return World(
            snapshot=self._snapshots.of(scenario.database),
            processes=tuple(Process(Point(task.start)) for task in scenario.tasks),
            late=(),
            released=scenario.released,
            revoked=frozenset(),
            forgotten=frozenset(),
            blockers=frozenset(),
            gone=frozenset(),
            crashes=scenario.crashes,
            resends=scenario.resends,
            zombies=scenario.zombies,
            failures=scenario.failures,
        )

    def _judge(self, world: World, parents: dict[World, World | None]) -> None:
        outcomes = tuple((process.status, process.result) for process in world.processes)
        judged = (
            world.snapshot,
            world.released,
            world.revoked,
            world.forgotten,
            world.gone,
            outcomes,
            world.fault,
        )
        if judged in self._judged:
            return
        self._judged.add(judged)
        for fault in faults_of(self._scenario, world):
            if fault.startswith(self._prefix):
                raise Violation("\n".join([fault, *self._trace(world, parents)]))

    def _trace(self, world: World, parents: dict[World, World | None]) -> list[str]:
        lines: list[str] = []
        while (parent := parents[world]) is not None:
            lines.append(
                next(self._describe(event) for event, each in self._events(parent) if each == world)
            )
            world = parent
        return lines[::-1]

    def _describe(self, event: Event) -> str:
        who = (
            ""
            if event.number is None
            else f"{event.number}:{self._scenario.tasks[event.number].kind} "
        )
        return (
            f"{who}{'' if event.part is None else _name(event.part)} {event.what} {event.reply!r}"
        )

    def _events(self, world: World) -> Iterator[tuple[Event, World]]:
        for event, after in self._moves(world):
            gone = self._gone(after.snapshot, after.released)
            yield event, after if gone <= world.gone else after._replace(gone=world.gone | gone)

    def _gone(self, snapshot: Snapshot, released: frozenset[str]) -> frozenset[str]:
        found = self._known_gone.get((snapshot, released))
        if found is None:
            found = self._known_gone[snapshot, released] = gone_logins(snapshot, released)
        return found

    def _moves(self, world: World) -> Iterator[tuple[Event, World]]:
        for number, process in enumerate(world.processes):
            if process.status == "running" or (
                process.status == "new" and self._may_begin(number, world)
            ):
                yield from self._steps(world, number)
        for place, (number, part) in enumerate(world.late):
            left = world.late[:place] + world.late[place + 1 :]
            reply, after = self._execute(world, part)
            yield Event("late", number, part, reply), _unblocked(after._replace(late=left))
        if self._scenario.expiries:
            yield from self._expiries(world)
            yield from self._crashes(world)

    def _may_begin(self, number: int, world: World) -> bool:
        uses = self._scenario.tasks[number].uses
        return not uses or uses in world.released

    def _steps(self, world: World, number: int) -> Iterator[tuple[Event, World]]:
        world = self._begun(world, number)
        process = world.processes[number]
        assert process.point is not None
        for index, part in enumerate(process.point.parts):
            if not process.batch or process.batch[index] is WAITING:
                yield from self._step(world, number, index, part)

    def _begun(self, world: World, number: int) -> World:
        process = world.processes[number]
        if process.status == "running":
            return world
        before = before_of(self._scenario.tasks[number], world)
        blockers = frozenset(
            each._replace(after=each.after | {number}) if each.writing else each
            for each in world.blockers
        )
        world = world._replace(blockers=blockers)
        return _with(world, number, process._replace(status="running", before=before))

    def _step(
        self, world: World, number: int, index: int, part: Part
    ) -> Iterator[tuple[Event, World]]:
        """Yield the outcomes of one command: a reply, or each fault that is allowed."""
        reply, after = self._execute(world, part)
        answered = self._answered(after, number, index, reply)
        yield Event("->", number, part, reply), answered
        if world.resends:
            yield (
                Event("reply lost, to be sent again", number, part, reply),
                after._replace(resends=world.resends - 1),
            )
        if world.zombies and (
            self._scenario.zombie_creates or not self._scenario.tasks[number].makes
        ):
            zombie = (*answered.late, (number, part))
            yield (
                Event("sent twice, once late ->", number, part, reply),
                answered._replace(zombies=world.zombies - 1, late=zombie),
            )
        if world.failures:
            failed = world._replace(
                failures=world.failures - 1, late=(*world.late, *self._unanswered(world, number))
            )
            yield (
                Event("late, the caller gets an error", number, part),
                self._answered(failed, number, index, LOST),
            )

    def _unanswered(self, world: World, number: int) -> list[tuple[int, Part]]:
        """Return a process's commands in flight."""
        process = world.processes[number]
        assert process.point is not None
        parts = process.point.parts
        return [
            (number, part)
            for index, part in enumerate(parts)
            if not process.batch or process.batch[index] is WAITING
        ]

    def _execute(self, world: World, part: Part) -> tuple[Frozen, World]:
        reply, after, timed = self._snapshots.execute(world.snapshot, part)
        if timed:
            busy = frozenset(_busy(world))
            blockers = {each for each in world.blockers if each.key not in timed} | {
                Blocker(key, busy) for key in timed
            }
            world = world._replace(blockers=frozenset(blockers))
        return reply, world._replace(snapshot=after)

    def _answered(self, world: World, number: int, index: int, reply: Frozen) -> World:
        process = world.processes[number]
        point = process.point
        assert point is not None
        if point.is_batch and reply is not LOST:
            batch = list(process.batch or (WAITING,) * len(point.parts))
            batch[index] = reply
            if WAITING in batch:
                return _with(world, number, process._replace(batch=tuple(batch)))
            reply = tuple(batch)
        return self._arrived(world, number, point.after(reply))

    def _arrived(self, world: World, number: int, point: Point) -> World:
        process = world.processes[number]
        if point.outcome is None:
            return _with(world, number, process._replace(point=point, batch=()))
        over = Process(None, status=point.outcome.status, result=point.outcome.result)
        world = _unblocked(_with(world, number, over))
        if over.status == "failed":
            return world
        task = self._scenario.tasks[number]
        return world._replace(
            released=world.released | released_by(task, over.result),
            revoked=world.revoked | revoked_by(task, process.before, over.result),
            fault=end_fault(self._scenario, task, world, process, over.result),
        )

    def _expiries(self, world: World) -> Iterator[tuple[Event, World]]:
        for id_ in world.snapshot.provisional():
            key = LAYOUT.session_key(id_).encode()
            yield (
                Event(f"{id_} was not completed, and expires"),
                self._without(world, key, unmade(id_)),
            )
        blocked = {each.key for each in world.blockers}
        for key, used_id in world.snapshot.markers.items():
            if key not in blocked:
                yield Event(f"the marker of {used_id} expires"), self._without(world, key, used_id)

    def _without(self, world: World, key: bytes, forgotten: str) -> World:
        return world._replace(
            snapshot=self._snapshots.without(world.snapshot, key),
            forgotten=world.forgotten | {forgotten},
        )

    def _crashes(self, world: World) -> Iterator[tuple[Event, World]]:
        """Yield crashes and lost late commands, after which more markers may expire."""
        for number in {number for each in world.blockers for number in each.writing | each.after}:
            if world.crashes and world.processes[number].status == "running":
                crashed = _with(world, number, Process(None, status="crashed"))
                yield (
                    Event("crashes", number),
                    _unblocked(crashed._replace(crashes=world.crashes - 1)),
                )
        for place, (number, part) in enumerate(world.late if world.blockers else ()):
            yield (
                Event("is lost", number, part),
                _unblocked(world._replace(late=world.late[:place] + world.late[place + 1 :])),
            )


def _with(world: World, number: int, process: Process) -> World:
    processes = (*world.processes[:number], process, *world.processes[number + 1 :])
    return world._replace(processes=processes)


def _busy(world: World) -> set[int]:
    """Return the processes that are running or have late commands in flight."""
    running = {
        number for number, process in enumerate(world.processes) if process.status == "running"
    }
    return running | {number for number, _ in world.late}


def _unblocked(world: World) -> World:
    """Remove the blockers that are over, so that equal worlds compare equal."""
    if not world.blockers:
        return world
    busy = _busy(world)
    left = (
        each._replace(writing=each.writing & busy, after=each.after & busy)
        for each in world.blockers
    )
    return world._replace(blockers=frozenset(each for each in left if each.writing or each.after))


def _name(part: Part) -> str:
    if isinstance(part, Eval):
        return f"{part.script.name} {part.keys!r}"
    if isinstance(part, Transaction):
        return "; ".join(map(_name, part.commands))
    return f"{part.name} {part.arguments[0] if part.arguments else ''!r}"
