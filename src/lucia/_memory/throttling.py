"""Failed logins in the memory of this process."""

import threading
from collections.abc import Mapping
from typing import Final, NamedTuple

from lucia._rules.sessions import Clock
from lucia._rules.throttling import Attempt, FailureRule

MAX_NAMES: Final = 100_000
"""How many names are stored; beyond that, the one whose last failure is the oldest is evicted."""

FORGOTTEN_AT_ONCE: Final = 8
"""How many names each call checks for expiry."""


class _Failures(NamedTuple):
    entries: dict[str, int]
    expires: int


class FailureLog:
    """Counts failures under names.

    Calls are safe from any thread, and short enough for an event loop.

    Args:
        clock: returns the time in milliseconds since the epoch.
        most_names: how many names are stored.
    """

    def __init__(self, clock: Clock, most_names: int = MAX_NAMES) -> None:
        self._clock = clock
        self._most_names = most_names
        self._lock = threading.Lock()
        self._names: dict[str, _Failures] = {}
        self._last = 0

    def __len__(self) -> int:
        return len(self._names)

    def attempt(self, rules: Mapping[str, FailureRule]) -> Attempt:
        """Count an attempt as a failure under each name, or under none if it has to wait."""
        with self._lock:
            now = self._clock()
            judged = {
                name: rule.judge(self._entries(name, now).values(), now)
                for name, rule in rules.items()
            }
            failures = {name: count + 1 for name, (_, count) in judged.items()}
            wait = max((wait for wait, _ in judged.values()), default=0)
            return Attempt(
                wait,
                failures,
                {} if wait else {name: self._add(name, rule, now) for name, rule in rules.items()},
            )

    def take_back(self, entries: Mapping[str, str]) -> None:
        """Undo the counting of an attempt."""
        with self._lock:
            for name, entry in entries.items():
                failures = self._names.get(name)
                if (
                    failures is not None
                    and failures.entries.pop(entry, None) is not None
                    and not failures.entries
                ):
                    del self._names[name]

    def _entries(self, name: str, now: int) -> dict[str, int]:
        failures = self._names.get(name)
        return {} if failures is None or failures.expires <= now else failures.entries

    def _add(self, name: str, rule: FailureRule, now: int) -> str:
        """Count a failure as the newest; names stay in the order of their last failures."""
        self._last += 1
        entry = str(self._last)
        counted = {id_: at for id_, at in self._entries(name, now).items() if rule.counts(at, now)}
        newest = dict([*counted.items(), (entry, now)][-rule.kept :])
        self._names.pop(name, None)
        self._make_room(now)
        self._names[name] = _Failures(newest, now + rule.life)
        return entry

    def _make_room(self, now: int) -> None:
        oldest = [name for name, _ in zip(self._names, range(FORGOTTEN_AT_ONCE), strict=False)]
        for name in oldest:
            if self._names[name].expires <= now or len(self._names) >= self._most_names:
                del self._names[name]
