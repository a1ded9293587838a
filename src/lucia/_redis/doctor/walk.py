"""The walk of ``lucia doctor`` over all keys of a store: its counts, and the file from which an interrupted walk goes on."""

import json
import os
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar, cast

from lucia._redis.cluster import PlainSteps, ScriptedSteps
from lucia._redis.commands import Nodes, Operation, with_or_without_scripts
from lucia._redis.doctor.doctor import SECOND_LOOK_MS, Doctor
from lucia._redis.doctor.findings import (
    Deferred,
    Examined,
    Finding,
    Kind,
    RepairOptions,
    Role,
    Server,
)
from lucia._redis.records import Layout
from lucia._redis.repair import PlainMends, ScriptedMends, scan

T = TypeVar("T")

VERSION: Final = 1
"""Of the JSON and of the state file."""

EXAMPLES: Final = 20
"""How many findings of a kind are kept to be shown."""

MOST_WAITING: Final = 20_000
"""How many keys wait for a second look at most."""

SAVE_SECONDS: Final = 1.0
"""How often the state file is written."""

ROLES: Final[tuple[Role, ...]] = ("session", "index", "marker", "throttle", "other")


class Driver(Protocol):
    """What runs operations."""

    def run(self, operation: Operation[T]) -> T:
        """Run one to its end."""
        ...


class StateError(Exception):
    """A state file that can't be gone on from."""


@dataclass
class Tally:
    """How many keys were looked at, and what was found; both are counts, without an id."""

    keys: Counter[str] = field(default_factory=Counter[str])
    found: Counter[str] = field(default_factory=Counter[str])
    mended: Counter[str] = field(default_factory=Counter[str])

    def add(self, findings: list[Finding]) -> None:
        """Count findings."""
        self.found.update(str(finding.kind) for finding in findings)
        self.mended.update(str(finding.kind) for finding in findings if finding.mended)

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(self.keys + other.keys, self.found + other.found, self.mended + other.mended)

    def left(self) -> int:
        """How many findings are not mended."""
        return self.found.total() - self.mended.total()

    def as_json(self) -> dict[str, dict[str, int]]:
        """The counts that are not 0."""
        return {"keys": dict(self.keys), "found": dict(self.found), "mended": dict(self.mended)}

    @classmethod
    def from_json(cls, value: Mapping[str, Mapping[str, int]]) -> "Tally":
        """The counts that :meth:`as_json` gave."""
        return cls(
            *(
                Counter({name: int(count) for name, count in value[part].items()})
                for part in ("keys", "found", "mended")
            )
        )


@dataclass
class State:
    """How far a walk is. ``settings`` are those with which it has to go on."""

    settings: dict[str, Any]
    done: dict[str, Tally] = field(default_factory=dict[str, Tally])
    node: str | None = None
    run_id: str | None = None
    cursor: int = 0
    tally: Tally = field(default_factory=Tally)

    def total(self) -> Tally:
        """The counts of all nodes."""
        return sum(self.done.values(), self.tally)

    def as_json(self) -> dict[str, Any]:
        """What a state file holds."""
        return {
            "version": VERSION,
            "settings": self.settings,
            "done": {node: tally.as_json() for node, tally in self.done.items()},
            "node": self.node,
            "run_id": self.run_id,
            "cursor": str(self.cursor),
            "tally": self.tally.as_json(),
        }

    @classmethod
    def read(cls, path: Path, settings: dict[str, Any]) -> "State":
        """The state in a file, or a new one if there is none.

        Raises:
            StateError: it is no state file, or that of a walk with other settings.
        """
        try:
            value = json.loads(path.read_text())
        except FileNotFoundError:
            return cls(settings)
        except ValueError:
            raise StateError(
                f"{path} is no state file of lucia doctor: name another one, or delete it"
            ) from None
        return cls._parse(path, value, settings)

    @classmethod
    def _parse(cls, path: Path, value: Any, settings: dict[str, Any]) -> "State":
        try:
            if value["version"] != VERSION:
                raise StateError(
                    f"{path} was written by another version of lucia doctor: delete it, and begin anew"
                )
            before = value["settings"]
            if changed := sorted(
                name for name in {*settings, *before} if settings.get(name) != before.get(name)
            ):
                raise StateError(
                    f"{path} is of a walk with another {changed[0]}: go on with the same options, or delete it"
                )
            done = {node: Tally.from_json(tally) for node, tally in value["done"].items()}
            return cls(
                settings,
                done,
                value["node"],
                value["run_id"],
                int(value["cursor"]),
                Tally.from_json(value["tally"]),
            )
        except (KeyError, TypeError, ValueError, AttributeError):
            raise StateError(
                f"{path} is no state file of lucia doctor: name another one, or delete it"
            ) from None


def write_state(path: Path, value: dict[str, Any]) -> None:
    """Write a state file, which its owner alone may read, in one step."""
    beside = path.with_name(f"{path.name}.{os.getpid()}.new")
    with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        json.dump(value, file)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)


class Progress(Protocol):
    """What is told while a walk goes on."""

    def __call__(self, looked_at: int, total: int | None, waiting: int) -> None:
        """So many keys were looked at, of about so many; ``waiting`` is how many seconds a second look is still away."""
        ...


@dataclass
class Waiting:
    """What is to be looked at again, and when that was seen, in milliseconds of a clock that only goes forward."""

    pages: list[tuple[int, Deferred]] = field(default_factory=list[tuple[int, Deferred]])
    size: int = 0

    def add(self, seen_at: int, later: Deferred) -> None:
        """Let something wait."""
        if count := len(later.entries) + len(later.rows):
            self.pages.append((seen_at, later))
            self.size += count

    def take(self, now: int) -> Deferred | None:
        """The first page that has waited long enough."""
        if not self.pages or self.pages[0][0] + SECOND_LOOK_MS > now:
            return None
        _, later = self.pages.pop(0)
        self.size -= len(later.entries) + len(later.rows)
        return later

    def wait_ms(self, now: int) -> int:
        """How long the first page has to wait still."""
        return max(self.pages[0][0] + SECOND_LOOK_MS - now, 0)


class Walk:
    """Looks at every key of every node once, page by page, and keeps no more than a page.

    Args:
        driver: runs operations.
        layout: the key names.
        treatment: what may be changed.
        state: how far it is.
        others: look at keys of other names, too.
        path: where the state is written now and then.
        monotonic: seconds that only go forward.
        sleep: waits for so many seconds.
        progress: is told how far it is.
    """

    def __init__(
        self,
        driver: Driver,
        layout: Layout,
        treatment: RepairOptions,
        state: State,
        *,
        others: bool,
        path: Path | None,
        progress: Progress,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.state = state
        self.servers: dict[str, Server] = {}
        self.examples: list[Finding] = []
        self._driver = driver
        self._layout = layout
        self._treatment = treatment
        self._others = others
        self._path = path
        self._progress = progress
        self._monotonic = monotonic
        self._sleep = sleep
        self._saved_at = monotonic()
        self._reached = state.as_json()
        self._doctor = Doctor(layout, ScriptedSteps(), ScriptedMends(), treatment)
        self._waiting = Waiting()
        self._unreadable = False

    def run(self) -> None:
        """Walk from where the state is to the end."""
        nodes = self._driver.run(_nodes())
        for node in nodes:
            self.servers[node] = self._run(partial(Doctor.examine_server, node=node))
        for node in nodes:
            if node not in self.state.done:
                self._walk(node)
        if self._path is not None:
            self._path.unlink(missing_ok=True)

    def save(self, path: Path) -> None:
        """Write how far it is: up to the last page after which nothing waited for a second look."""
        write_state(path, self._reached)

    def total_keys(self) -> int | None:
        """About how many keys all nodes have; None if one does not tell."""
        counts = [server.keys for server in self.servers.values()]
        return None if None in counts else sum(cast("list[int]", counts))

    def has_looked(self) -> bool:
        """Whether there is anything to go on from: a key that was looked at, or a node that is done."""
        return bool(self.state.done or self.state.total().keys)

    def has_sessions(self) -> bool:
        """Whether any key was one of ours."""
        return any(count and role != "other" for role, count in self.state.total().keys.items())

    def _walk(self, node: str) -> None:
        server = self.servers[node]
        state = self.state
        if state.node != node or state.run_id != server.run_id or server.run_id is None:
            state.node, state.run_id, state.cursor, state.tally = node, server.run_id, 0, Tally()
            state.tally.add(_of_server(server))
        cursor: int | None = None
        while cursor != 0:
            cursor = self._page(node, state.cursor if cursor is None else cursor)
        self._look_again(everything=True)
        state.done[node] = state.tally
        state.node, state.run_id, state.cursor, state.tally = None, None, 0, Tally()
        self._reach()

    def _page(self, node: str, cursor: int) -> int:
        """Look at one page of keys, and return the cursor of the next."""
        following, names = self._driver.run(scan(node, cursor))
        examined = self._run(
            lambda doctor: doctor.examine(node, names, others=self._others and not self._unreadable)
        )
        self._count(examined)
        self._waiting.add(self._now_ms(), examined.later)
        self._look_again(everything=self._waiting.size > MOST_WAITING)
        self.state.cursor = following
        self._progress(self.state.total().keys.total(), self.total_keys(), 0)
        if following:
            self._reach()
        return following

    def _reach(self) -> None:
        if self._waiting.pages:
            return
        self._reached = self.state.as_json()
        if self._path is not None and self._monotonic() - self._saved_at >= SAVE_SECONDS:
            self.save(self._path)
            self._saved_at = self._monotonic()

    def _count(self, examined: Examined) -> None:
        self.state.tally.keys.update(examined.keys)
        self._add(examined.findings)
        self._unreadable = self._unreadable or any(
            finding.kind is Kind.OTHERS_UNREADABLE for finding in examined.findings
        )

    def _add(self, findings: list[Finding]) -> None:
        self.state.tally.add(findings)
        for finding in findings:
            is_shown = finding.user_id is not None or finding.key is not None
            if is_shown and sum(each.kind is finding.kind for each in self.examples) < EXAMPLES:
                self.examples.append(finding)

    def _look_again(self, *, everything: bool) -> None:
        while self._waiting.pages:
            later = self._waiting.take(self._now_ms())
            if later is not None:
                self._add(self._run(partial(Doctor.look_again, later=later)))
            elif not everything:
                return
            else:
                wait = self._waiting.wait_ms(self._now_ms())
                self._progress(self.state.total().keys.total(), self.total_keys(), -(-wait // 1000))
                self._sleep(min(wait, 1000) / 1000)

    def _now_ms(self) -> int:
        return int(self._monotonic() * 1000)

    def _run(self, start: Callable[[Doctor], Operation[T]]) -> T:
        return self._driver.run(
            with_or_without_scripts(lambda: start(self._doctor), self._give_up_scripts)
        )

    def _give_up_scripts(self) -> None:
        self._doctor = Doctor(self._layout, PlainSteps(), PlainMends(), self._treatment)


def _nodes() -> Operation[list[str]]:
    return list((yield Nodes()))


def _of_server(server: Server) -> list[Finding]:
    if server.policy is None:
        return [Finding(Kind.EVICTION_UNKNOWN)]
    return [] if server.policy == "noeviction" else [Finding(Kind.EVICTION)]


def report(walk: Walk, *, complete: bool, examples: bool) -> dict[str, Any]:
    """What the JSON holds."""
    total = walk.state.total()
    found = {
        str(kind): {
            "found": total.found[kind],
            "mended": total.mended[kind],
            "left": total.found[kind] - total.mended[kind],
        }
        for kind in Kind
    }
    shown = [
        {
            "kind": str(each.kind),
            "user": each.user_id,
            "handle": each.handle,
            "key": each.key,
            "mended": each.mended,
        }
        for each in walk.examples
    ]
    return {
        "version": VERSION,
        "complete": complete,
        **walk.state.settings,
        "servers": [
            {"name": name, "eviction_policy": server.policy}
            for name, server in walk.servers.items()
        ],
        "keys": {role: total.keys[role] for role in ROLES},
        "findings": found,
        **({"examples": shown} if examples else {}),
    }
