"""Rows of results, and their comparison."""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple, Self

__all__ = ["Compared", "Row", "Want", "difference", "find", "ratio"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One thing that was measured, once in each round, or more often.

    Args:
        section: the name of the section that measured it.
        subject: whose code ran, such as ``lucia-auth`` or ``starsessions``.
        setting: under which conditions, such as ``{"operation": "create", "loop": "uvloop", "concurrency": 256}``.
        unit: of the values, such as ``1/s``, ``ms`` or ``MiB``.
        values: one a round, in the order of the rounds, so that rows of one section compare round by round; for a histogram as many
            as there are.
    """

    section: str
    subject: str
    setting: Mapping[str, str | int]
    unit: str
    values: tuple[float, ...]

    @property
    def median(self) -> float:
        """Of all rounds."""
        return statistics.median(self.values)

    def as_json(self) -> dict[str, Any]:
        """For ``json.dump``; :meth:`from_json` reads it."""
        return asdict(self) | {"setting": dict(self.setting)}

    @classmethod
    def from_json(cls, read: Mapping[str, Any]) -> Self:
        """Return the row that :meth:`as_json` wrote."""
        members = dict(read)
        values = tuple(members.pop("values"))
        return cls(values=values, **members)


@dataclass(frozen=True, slots=True)
class Want:
    """Names one row: its section, its subject, and as much of its setting as tells it from the others."""

    section: str
    subject: str
    setting: Mapping[str, str | int]


class Compared(NamedTuple):
    """How two measurements compare: the median, the lowest and the highest of all rounds."""

    median: float
    low: float
    high: float


def find(rows: Iterable[Row], want: Want) -> Row | None:
    """The row that is wanted; None if it was not measured.

    Raises:
        LookupError: several rows would do.
    """
    found = [row for row in rows if _is_wanted(row, want)]
    if len(found) > 1:
        raise LookupError(f"{len(found)} rows for {want}")
    return found[0] if found else None


def ratio(over: Row, under: Row) -> Compared:
    """Divide one measurement by another within each round, when the machine was in the same mood."""
    return _compared(
        [above / below for above, below in zip(over.values, under.values, strict=True)]
    )


def difference(more: Row, less: Row) -> Compared:
    """Subtract one measurement from another, within each round as well."""
    return _compared([above - below for above, below in zip(more.values, less.values, strict=True)])


def _compared(rounds: Sequence[float]) -> Compared:
    return Compared(statistics.median(rounds), min(rounds), max(rounds))


def _is_wanted(row: Row, want: Want) -> bool:
    return (row.section, row.subject) == (
        want.section,
        want.subject,
    ) and want.setting.items() <= row.setting.items()
