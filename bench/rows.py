"""Rows of results, and their comparison."""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple, Self

__all__ = ["Compared", "Row", "Want", "difference", "find", "ratio"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A measurement, with a value for each round.

    Args:
        section: the name of the section.
        subject: the library, such as ``lucia-auth`` or ``starsessions``.
        setting: the conditions, such as ``{"operation": "create", "concurrency": 256}``.
        unit: the unit of the values, such as ``1/s``, ``ms`` or ``MiB``.
        values: a value per round, in order, so that the rows of a section compare round by round.
            The row of a histogram has any number of values.
    """

    section: str
    subject: str
    setting: Mapping[str, str | int]
    unit: str
    values: tuple[float, ...]

    @property
    def median(self) -> float:
        """The median of all rounds."""
        return statistics.median(self.values)

    def as_json(self) -> dict[str, Any]:
        """Return the row for ``json.dump``; :meth:`from_json` reads it."""
        return asdict(self) | {"setting": dict(self.setting)}

    @classmethod
    def from_json(cls, read: Mapping[str, Any]) -> Self:
        """Return the row that :meth:`as_json` wrote."""
        members = dict(read)
        values = tuple(members.pop("values"))
        return cls(values=values, **members)


@dataclass(frozen=True, slots=True)
class Want:
    """A query for one row, by section, subject, and enough of the setting to be unambiguous."""

    section: str
    subject: str
    setting: Mapping[str, str | int]


class Compared(NamedTuple):
    """A comparison of two measurements: the median, the lowest and the highest of all rounds."""

    median: float
    low: float
    high: float


def find(rows: Iterable[Row], want: Want) -> Row | None:
    """Return the row that matches; None if it was not measured.

    Raises:
        LookupError: several rows match.
    """
    found = [row for row in rows if _is_wanted(row, want)]
    if len(found) > 1:
        raise LookupError(f"{len(found)} rows for {want}")
    return found[0] if found else None


def ratio(over: Row, under: Row) -> Compared:
    """Divide one row by another round by round, since the machine's speed changes over time."""
    return _compared(
        [above / below for above, below in zip(over.values, under.values, strict=True)]
    )


def difference(more: Row, less: Row) -> Compared:
    """Subtract one row from another round by round."""
    return _compared([above - below for above, below in zip(more.values, less.values, strict=True)])


def _compared(rounds: Sequence[float]) -> Compared:
    return Compared(statistics.median(rounds), min(rounds), max(rounds))


def _is_wanted(row: Row, want: Want) -> bool:
    return (row.section, row.subject) == (
        want.section,
        want.subject,
    ) and want.setting.items() <= row.setting.items()
