"""The walk of ``lucia doctor`` over all keys of a store, its counts, and its state file.

The state file holds the node, the cursor of ``SCAN`` and the counts, so that an interrupted walk
can be resumed. It holds no session id: pages with deferred keys are therefore walked again.
"""

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
from lucia._redis.doctor.findings import (
    Deferred,
    Examined,
    Finding,
    Kind,
    RepairOptions,
    Role,
    Server,
)
from lucia._redis.doctor.keys import SECOND_EXAMINATION_MS, KeyExaminer
from lucia._redis.keys import Layout
from lucia._redis.repair import PlainRepairs, ScriptedRepairs, scan

T = TypeVar("T")

VERSION: Final = 2
"""The version of the JSON and of the state file."""

EXAMPLES: Final = 20
"""How many findings of each kind are kept as examples."""

MAX_DEFERRED: Final = 20_000
"""How many keys may wait for the second examination; bounds the memory of a walk."""

SAVE_SECONDS: Final = 1.0
"""How often the state file is written, at most."""

ROLES: Final[tuple[Role, ...]] = ("session", "index", "marker", "throttle", "other")


class Driver(Protocol):
    """Runs operations."""

    def run(self, operation: Operation[T]) -> T:
        """Run an operation, and return its result."""
        ...


class StateError(Exception):
    """A walk can't be resumed from this state file."""


@dataclass
class Tally:
    """Counts of the keys that were examined, and of the findings by kind."""

    keys: Counter[str] = field(default_factory=Counter[str])
    found: Counter[str] = field(default_factory=Counter[str])
    fixed: Counter[str] = field(default_factory=Counter[str])

    def add(self, findings: list[Finding]) -> None:
        """Count findings."""
        self.found.update(str(finding.kind) for finding in findings)
        self.fixed.update(str(finding.kind) for finding in findings if finding.fixed)

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(self.keys + other.keys, self.found + other.found, self.fixed + other.fixed)

    def not_fixed(self) -> int:
        """Return how many findings are not fixed."""
        return self.found.total() - self.fixed.total()

    def as_json(self) -> dict[str, dict[str, int]]:
        """Return the counts that are not 0."""
        return {"keys": dict(self.keys), "found": dict(self.found), "fixed": dict(self.fixed)}

    @classmethod
    def from_json(cls, value: Mapping[str, Mapping[str, int]]) -> "Tally":
        """Return the counts in a result of :meth:`as_json`."""
        return cls(
            *(
                Counter({name: int(count) for name, count in value[part].items()})
                for part in ("keys", "found", "fixed")
            )
        )


@dataclass
class State:
    """The progress of a walk. ``settings`` must be the same when it is resumed."""

    settings: dict[str, Any]
    done: dict[str, Tally] = field(default_factory=dict[str, Tally])
    node: str | None = None
    run_id: str | None = None
    cursor: int = 0
    tally: Tally = field(default_factory=Tally)

    def total(self) -> Tally:
        """Return the counts of all nodes."""
        return sum(self.done.values(), self.tally)

    def as_json(self) -> dict[str, Any]:
        """Return the contents of a state file."""
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
        """Return the state in a file, or a new state if the file does not exist.

        Raises:
            StateError: it is not a state file, or that of a walk with other settings.
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
                    f"{path} was written by another version of lucia doctor: "
                    "delete it and start again"
                )
            before = value["settings"]
            if changed := sorted(
                name for name in {*settings, *before} if settings.get(name) != before.get(name)
            ):
                raise StateError(
                    f"{path} belongs to a walk with another {changed[0]}: "
                    "use the same options, or delete it"
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
    """Replace a state file atomically. Only its owner may read it."""
    beside = path.with_name(f"{path.name}.{os.getpid()}.new")
    with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        json.dump(value, file)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)


class Progress(Protocol):
    """Shows the progress of a walk."""

    def __call__(self, looked_at: int, total: int | None, waiting: int) -> None:
        """Show how many keys of about ``total`` were examined.

        Args:
            looked_at: how many keys were examined.
            total: about how many keys there are; None if a server did not tell.
            waiting: seconds until the second examination, 0 while keys are read.
        """
        ...


@dataclass
class DeferredQueue:
    """Pages that wait for the second examination, with the time of the first in milliseconds."""

    pages: list[tuple[int, Deferred]] = field(default_factory=list[tuple[int, Deferred]])
    size: int = 0

    def add(self, seen_at: int, deferred: Deferred) -> None:
        """Queue what a page left, if it left anything."""
        if count := len(deferred.entries) + len(deferred.rows):
            self.pages.append((seen_at, deferred))
            self.size += count

    def take(self, now: int) -> Deferred | None:
        """Return the oldest page if it has waited long enough, else None."""
        if not self.pages or self.pages[0][0] + SECOND_EXAMINATION_MS > now:
            return None
        _, deferred = self.pages.pop(0)
        self.size -= len(deferred.entries) + len(deferred.rows)
        return deferred

    def wait_ms(self, now: int) -> int:
        """Return how many milliseconds the oldest page still has to wait."""
        return max(self.pages[0][0] + SECOND_EXAMINATION_MS - now, 0)


class Walk:
    """Examines every key of every node once, one page at a time.

    Args:
        driver: runs operations.
        layout: the key names.
        options: what may be changed.
        state: where to start.
        others: whether to examine keys outside of the layout too.
        path: where the state is written; None to write no file.
        monotonic: returns the time in seconds, by a clock that never goes back.
        sleep: waits for a number of seconds.
        progress: shows the progress.
    """

    def __init__(
        self,
        driver: Driver,
        layout: Layout,
        options: RepairOptions,
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
        self._options = options
        self._others = others
        self._path = path
        self._progress = progress
        self._monotonic = monotonic
        self._sleep = sleep
        self._saved_at = monotonic()
        self._resume_point = state.as_json()
        self._examiner = KeyExaminer(layout, ScriptedSteps(), ScriptedRepairs(), options)
        self._waiting = DeferredQueue()
        self._unreadable = False

    def run(self) -> None:
        """Walk from the saved state to the end."""
        nodes = self._driver.run(_nodes())
        for node in nodes:
            self.servers[node] = self._run(partial(KeyExaminer.examine_server, node=node))
        for node in nodes:
            if node not in self.state.done:
                self._walk(node)
        if self._path is not None:
            self._path.unlink(missing_ok=True)

    def save(self, path: Path) -> None:
        """Write the last point from which the walk can be resumed.

        That is the end of the last page after which no key was deferred.
        """
        write_state(path, self._resume_point)

    def total_keys(self) -> int | None:
        """Return about how many keys all nodes have, or None if one did not tell."""
        counts = [server.keys for server in self.servers.values()]
        return None if None in counts else sum(cast("list[int]", counts))

    def has_looked(self) -> bool:
        """Return whether a key was examined or a node is done: else there is nothing to save."""
        return bool(self.state.done or self.state.total().keys)

    def has_sessions(self) -> bool:
        """Return whether any key belongs to the layout."""
        return any(count and role != "other" for role, count in self.state.total().keys.items())

    def _walk(self, node: str) -> None:
        server = self.servers[node]
        state = self.state
        # A cursor of SCAN means nothing to another run of the server.
        if state.node != node or state.run_id != server.run_id or server.run_id is None:
            state.node, state.run_id, state.cursor, state.tally = node, server.run_id, 0, Tally()
            state.tally.add(_of_server(server))
        cursor: int | None = None
        while cursor != 0:
            cursor = self._page(node, state.cursor if cursor is None else cursor)
        self._examine_deferred(everything=True)
        state.done[node] = state.tally
        state.node, state.run_id, state.cursor, state.tally = None, None, 0, Tally()
        self._checkpoint()

    def _page(self, node: str, cursor: int) -> int:
        """Examine one page of keys, and return the cursor of the next."""
        following, names = self._driver.run(scan(node, cursor))
        examined = self._run(
            lambda examiner: examiner.examine(
                node, names, others=self._others and not self._unreadable
            )
        )
        self._count(examined)
        self._waiting.add(self._now_ms(), examined.deferred)
        self._examine_deferred(everything=self._waiting.size > MAX_DEFERRED)
        self.state.cursor = following
        self._progress(self.state.total().keys.total(), self.total_keys(), 0)
        if following:
            self._checkpoint()
        return following

    def _checkpoint(self) -> None:
        # Deferred ids are not written to the file: resuming has to start before their page.
        if self._waiting.pages:
            return
        self._resume_point = self.state.as_json()
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

    def _examine_deferred(self, *, everything: bool) -> None:
        while self._waiting.pages:
            deferred = self._waiting.take(self._now_ms())
            if deferred is not None:
                self._add(self._run(partial(KeyExaminer.examine_deferred, deferred=deferred)))
            elif not everything:
                return
            else:
                wait = self._waiting.wait_ms(self._now_ms())
                self._progress(self.state.total().keys.total(), self.total_keys(), -(-wait // 1000))
                self._sleep(min(wait, 1000) / 1000)

    def _now_ms(self) -> int:
        return int(self._monotonic() * 1000)

    def _run(self, start: Callable[[KeyExaminer], Operation[T]]) -> T:
        return self._driver.run(
            with_or_without_scripts(lambda: start(self._examiner), self._give_up_scripts)
        )

    def _give_up_scripts(self) -> None:
        """Go on with plain commands once the server has refused a script."""
        self._examiner = KeyExaminer(self._layout, PlainSteps(), PlainRepairs(), self._options)


def _nodes() -> Operation[list[str]]:
    return list((yield Nodes()))


def _of_server(server: Server) -> list[Finding]:
    if server.policy is None:
        return [Finding(Kind.EVICTION_UNKNOWN)]
    return [] if server.policy == "noeviction" else [Finding(Kind.EVICTION)]


def report(walk: Walk, *, complete: bool, examples: bool) -> dict[str, Any]:
    """Return the report as it is printed with ``--json``."""
    total = walk.state.total()
    found = {
        str(kind): {
            "found": total.found[kind],
            "fixed": total.fixed[kind],
            "left": total.found[kind] - total.fixed[kind],
        }
        for kind in Kind
    }
    shown = [
        {
            "kind": str(each.kind),
            "user": each.user_id,
            "handle": each.handle,
            "key": each.key,
            "fixed": each.fixed,
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
