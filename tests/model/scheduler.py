"""An exhaustive scheduler of calls of the real adapter over the real driver, with cancellations.

The calls run as tasks on a real event loop, each with an adapter and a client of its own, as in
separate processes. Each command is an await that the scheduler ends. A path is the list of its
choices. It runs from the beginning, since a coroutine can't be copied, and is continued depth
first, but not beyond a world that was seen before. Each invariant is checked in every world, so a
call that is not scheduled any more stands for one whose process crashed at that await. A call that
is cancelled runs on as far as it likes, and the command it had sent executes later or never.
"""

import asyncio
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

from lucia._redis.records import SessionRecord
from lucia._rules.sessions import MARKER_MS
from lucia.adapters.redis import AsyncRedisSessionAdapter
from lucia.errors import LuciaError
from lucia.models import SessionRow
from tests.model.explore import Violation
from tests.model.gates import Gate, MakeClient, ModelServer
from tests.model.invariants import (
    before_of,
    end_fault,
    faults_of,
    gone_logins,
    released_by,
    revoked_by,
)
from tests.model.scenarios import row
from tests.model.server import NOW
from tests.model.world import USER, Before, Frozen, Part, Process, Scenario, Snapshots, Task, World

MakeAdapter = Callable[[Any], AsyncRedisSessionAdapter]

PATIENCE = 200
"""The most turns of the event loop that a call may take between two commands."""


class Choice(NamedTuple):
    """A step of the scheduler.

    A call's command is executed and answered, the call is cancelled, or a late command is executed.
    """

    what: Literal["->", "cancelled", "late"]
    number: int


class Running:
    """One call in progress."""

    def __init__(self, task: Task, adapter: MakeAdapter, client: MakeClient) -> None:
        self.task = task
        self.gate = Gate()
        self.before: Before | None = None
        self.over: Process | None = None
        self.call = asyncio.ensure_future(_call(adapter(client(self.gate)), task))

    def process(self) -> Process:
        """Return the call as the invariants see it."""
        return self.over or Process(
            None, status="new" if self.before is None else "running", before=self.before or Before()
        )

    def key(self) -> object:
        """Return the facts that decide how the call goes on."""
        return tuple(self.gate.replies), self.process()


async def _call(adapter: AsyncRedisSessionAdapter, task: Task) -> Any:
    """Call the adapter's method for a task of the model."""
    if task.kind in ("create", "duplicate"):
        return await adapter.set_session(
            row(task.makes, **({"noted": "other"} if task.kind == "duplicate" else {}))
        )
    if task.kind == "capped":  # with the model's clock
        return await adapter._run(
            lambda store: store.create_capped(row(task.makes), task.limit, NOW, lambda _: 0)
        )
    if task.kind == "renew":
        return await adapter.renew_session(task.uses, row(task.makes), grace=MARKER_MS)
    if task.kind == "delete":
        return await adapter.delete_session(task.uses)
    if task.kind == "revoke":
        return await (
            adapter.delete_other_sessions(USER, task.uses)
            if task.uses
            else adapter.delete_sessions_by_user_id(USER)
        )
    if task.kind == "list":
        return await adapter.get_sessions_by_user_id(USER)
    return await adapter.get_session(task.uses) or await adapter.get_successor(task.uses)


class Scheduler:
    """A search over all schedules of a scenario's tasks.

    Args:
        client: makes the client of each call.
        adapter: makes the adapter of each call.
        cancellations: how many calls are cancelled at most.
        invariant: checks only this invariant.
    """

    def __init__(
        self,
        scenario: Scenario,
        client: MakeClient,
        *,
        adapter: MakeAdapter = AsyncRedisSessionAdapter,
        cancellations: int = 1,
        invariant: str | None = None,
    ) -> None:
        self._scenario = scenario
        self._client = client
        self._adapter = adapter
        self._cancellations = cancellations
        self._prefix = "" if invariant is None else f"{invariant}:"
        self.snapshots = Snapshots()
        self._known: set[object] = set()
        self._planned: list[tuple[Choice, ...]] = [()]

    def run(self) -> int:
        """Visit every world, and return how many there are.

        Raises:
            Violation: an invariant does not hold. The error has a path that leads there.
        """
        with asyncio.Runner() as runner:
            while self._planned:
                runner.run(self._follow(self._planned.pop()))
        return len(self._known)

    async def _follow(self, path: tuple[Choice, ...]) -> None:
        """Replay a path, and then take the first choice each time while the worlds are new."""
        schedule = _Schedule(
            self._scenario, self._client, self._adapter, self._cancellations, self.snapshots
        )
        await schedule.settle()
        try:
            for choice in path:
                await schedule.take(choice)
            while self._is_new(schedule, path):
                choices = schedule.choices()
                if not choices:
                    break
                self._planned += [(*path, other) for other in choices[1:]]
                path = (*path, choices[0])
                await schedule.take(choices[0])
        finally:
            await schedule.end()

    def _is_new(self, schedule: "_Schedule", path: tuple[Choice, ...]) -> bool:
        if (key := schedule.key()) in self._known:
            return False
        self._known.add(key)
        for fault in faults_of(self._scenario, schedule.world()):
            if fault.startswith(self._prefix):
                raise Violation("\n".join([fault, *(self._describe(choice) for choice in path)]))
        return True

    def _describe(self, choice: Choice) -> str:
        return (
            choice.what
            if choice.what == "late"
            else f"{choice.number}:{self._scenario.tasks[choice.number].kind} {choice.what}"
        )


class _Schedule:
    """The calls and the server of one path."""

    def __init__(
        self,
        scenario: Scenario,
        client: MakeClient,
        adapter: MakeAdapter,
        cancellations: int,
        snapshots: Snapshots,
    ) -> None:
        self._scenario = scenario
        self._snapshots = snapshots
        self._server = ModelServer(scenario.database)
        self._late: list[tuple[int, Part]] = []
        self._cancellations = cancellations
        self._released = scenario.released
        self._revoked = frozenset[str]()
        self._gone = frozenset[str]()
        self._fault: str | None = None
        self._running = [Running(task, adapter, client) for task in scenario.tasks]

    def choices(self) -> list[Choice]:
        """Return the possible next steps."""
        waiting = [
            number
            for number, each in enumerate(self._running)
            if each.gate.waiting is not None and self._may_go_on(each)
        ]
        return [
            *(Choice("->", number) for number in waiting),
            *(Choice("cancelled", number) for number in waiting if self._cancellations),
            *(Choice("late", place) for place in range(len(self._late))),
        ]

    async def take(self, choice: Choice) -> None:
        """Take a step, and let each call run until its next command or its end."""
        if choice.what == "late":
            self._server.execute(self._late.pop(choice.number)[1])
        else:
            self._go_on(choice)
        await self.settle()

    def _go_on(self, choice: Choice) -> None:
        running = self._running[choice.number]
        if running.before is None:
            running.before = before_of(running.task, self.world())
        if choice.what == "->":
            running.gate.open(self._server)
            return
        self._cancellations -= 1
        request = running.gate.forget()
        if request.part is not None:
            self._late.append((choice.number, request.part))
        running.call.cancel()

    async def settle(self) -> None:
        """Run the loop until every call waits for the scheduler or is over."""
        for _ in range(PATIENCE):
            await asyncio.sleep(0)
            if all(each.call.done() or each.gate.waiting is not None for each in self._running):
                break
        else:
            raise AssertionError("a call waits for something other than a command")
        for running in self._running:
            if running.call.done() and running.over is None:
                self._finish(running)
        self._gone |= gone_logins(self._snapshots.of(self._server.state), self._released)

    def _finish(self, running: Running) -> None:
        before, world = running.before or Before(), self.world()
        running.over = _outcome(running.call)
        if running.over.status == "done":
            process = Process(None, status="running", before=before)
            self._released |= released_by(running.task, running.over.result)
            self._revoked |= revoked_by(running.task, before, running.over.result)
            self._fault = end_fault(
                self._scenario, running.task, world, process, running.over.result
            )

    def _may_go_on(self, running: Running) -> bool:
        return not running.task.uses or running.task.uses in self._released

    def world(self) -> World:
        """Return the world that the invariants check."""
        return World(
            snapshot=self._snapshots.of(self._server.state),
            processes=tuple(each.process() for each in self._running),
            late=tuple(self._late),
            released=self._released,
            revoked=self._revoked,
            forgotten=frozenset(),
            blockers=frozenset(),
            gone=self._gone,
            crashes=0,
            resends=self._scenario.resends,
            zombies=0,
            failures=self._cancellations,
            fault=self._fault,
        )

    def key(self) -> object:
        """Return the facts that decide how the calls go on."""
        return self.world(), tuple(each.key() for each in self._running)

    async def end(self) -> None:
        """Cancel all calls."""
        for each in self._running:
            each.call.cancel()
        await asyncio.gather(*(each.call for each in self._running), return_exceptions=True)


def _outcome(call: "asyncio.Future[Any]") -> Process:
    if call.cancelled():
        return Process(None, status="failed", result="CancelledError")
    error = call.exception()
    return (
        Process(None, status="done", result=_result(call.result()))
        if error is None
        else _failed(error)
    )


def _failed(error: BaseException) -> Process:
    if not isinstance(error, LuciaError):
        raise error
    return Process(None, status="failed", result=type(error).__name__)


def _result(value: Any) -> Frozen:
    if isinstance(value, SessionRow | SessionRecord):
        return value.id
    return frozenset(map(_result, value)) if isinstance(value, list) else value
