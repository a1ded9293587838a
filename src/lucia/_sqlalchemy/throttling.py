"""Failed logins in a database: a row for each name, with the times of its failures.

A name stands for a key or an address. A failure is the time of an attempt and a random word,
``1764324000000-8f3a61c20b7d``; the failures of a name are separated by spaces.

An attempt is judged twice: by a plain read, which refuses one that has to wait without locking
anything, and again once the rows of all its names are locked, in the order of the names. It is
counted under all of them, or under none. A name without a row has nothing to lock: of several first
failures under it, one INSERT succeeds, and the others begin again.
"""

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Final, Generic, NamedTuple, TypeVar

from sqlalchemy import delete, insert, select, update

from lucia._rules.sessions import Clock
from lucia._rules.throttling import Attempt, FailureRule
from lucia._sqlalchemy.at_rest import StoredIds
from lucia._sqlalchemy.statements import Steps, change_nothing
from lucia._sqlalchemy.tables import AuthTables, check_throttle

T = TypeVar("T")

_ENTRY: Final = re.compile(r"([0-9]{1,16})-[0-9a-f]+")


class Names(Generic[T]):
    """Names of failures, each with a value, by what they are stored under."""

    def __init__(self, ids: StoredIds, values: Mapping[str, T]) -> None:
        self.of = {ids.throttle_name(name): name for name in values}
        self.values = {stored: values[name] for stored, name in self.of.items()}


class _Failures(NamedTuple):
    """The failures under a name: their times by their entries, and when they expire."""

    entries: dict[str, int]
    expires: int

    def times(self, now: int) -> Collection[int]:
        return self.entries.values() if self.expires > now else ()


_NONE: Final = _Failures({}, 0)


def judge_attempt(
    tables: AuthTables, names: Names[FailureRule], clock: Clock
) -> Steps[tuple[Attempt, Collection[str]]]:
    """Judge an attempt without counting it.

    Returns:
        The verdict, and which of the names are stored.
    """
    found = yield from _read(tables, names.values)
    return _judge(names, found, clock()), found.keys()


def count_attempt(
    tables: AuthTables,
    names: Names[FailureRule],
    known: Collection[str],
    word: str,
    clock: Clock,
) -> Steps[Attempt]:
    """Count an attempt under each name, or under none if it has to wait.

    Args:
        tables: has the failures.
        names: with their rules.
        known: which of the names are stored.
        word: a random word.
        clock: returns the time; it is read when the rows are locked, not before.
    """
    throttle = check_throttle(tables)
    # Only rows that are there are locked: looking for others, MySQL and MariaDB would lock the gap
    # in which they are to be inserted, and all first failures would be deadlocks.
    found = (yield from _read_locked(tables, known)) if known else {}
    now = clock()
    attempt = _judge(names, found, now)
    if attempt.wait:
        return attempt
    entry = f"{now}-{word}"
    for name in sorted(names.values):
        rule, failures = names.values[name], found.get(name)
        values = {
            "failures": " ".join(_newest(rule, failures or _NONE, entry, now)),
            "expires": now + rule.life,
        }
        if failures is None:
            yield insert(throttle).values(name=name, **values)
        else:
            yield update(throttle).where(throttle.c.name == name).values(values)
    return attempt._replace(entries=dict.fromkeys(attempt.failures, entry))


def take_back(tables: AuthTables, names: Names[str]) -> Steps[None]:
    """Remove the entry of each name, and the row of a name that has no other."""
    throttle = check_throttle(tables)
    found = yield from _read_locked(tables, names.values)
    for name, (entries, _) in found.items():
        if entries.pop(names.values[name], None) is None:
            continue
        own = throttle.c.name == name
        if entries:
            yield update(throttle).where(own).values(failures=" ".join(entries))
        else:
            yield delete(throttle).where(own)


def _read_locked(tables: AuthTables, names: Iterable[str]) -> Steps[dict[str, _Failures]]:
    yield change_nothing(check_throttle(tables))
    return (yield from _read(tables, names, locked=True))


def _read(
    tables: AuthTables, names: Iterable[str], *, locked: bool = False
) -> Steps[dict[str, _Failures]]:
    """Return the failures under these names, in the order of the names; all are locked at once."""
    throttle = check_throttle(tables)
    statement = (
        select(throttle.c.name, throttle.c.failures, throttle.c.expires)
        .where(throttle.c.name.in_(sorted(names)))
        .order_by(throttle.c.name)
    )
    rows = (yield statement.with_for_update() if locked else statement).rows
    return {row.name: _Failures(_entries(row.failures), row.expires) for row in rows}


def _entries(failures: str) -> dict[str, int]:
    """Return the times of failures by their entries; what is no entry is left out."""
    return {found[0]: int(found[1]) for found in _ENTRY.finditer(failures)}


def _judge(names: Names[FailureRule], found: Mapping[str, _Failures], now: int) -> Attempt:
    judged = {
        names.of[name]: rule.judge(found.get(name, _NONE).times(now), now)
        for name, rule in names.values.items()
    }
    return Attempt(
        max((wait for wait, _ in judged.values()), default=0),
        {name: count + 1 for name, (_, count) in judged.items()},
        {},
    )


def _newest(rule: FailureRule, failures: _Failures, entry: str, now: int) -> Iterable[str]:
    """Return the entries to keep: those that count, not more than needed, and the new one."""
    counted = failures.entries if failures.expires > now else {}
    kept = sorted(
        (each for each, at in counted.items() if rule.counts(at, now)), key=counted.__getitem__
    )
    return [*kept[max(0, len(kept) + 1 - rule.kept) :], entry]
