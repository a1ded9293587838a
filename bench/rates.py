"""Measures how many calls a second subjects do: in each round everything once, the subjects one after another at each thing."""

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from bench.rows import Row
from bench.section import Plan
from bench.subjects import Running

__all__ = ["OF_THE_SAME", "Rates"]

MOST: Final = 200_000
MOST_NEW: Final = 15_000
"""Calls of the largest one; less where each call needs a session of its own, which takes longer to make than to measure."""

OF_THE_SAME: Final = "again"
"""The operation that reads the same sessions again and again; every other one has new ones each time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """A set of measurements.

    Args:
        section: the rows' section.
        subjects: who is measured.
        callers: how many calls are made at once.
        column: what the report calls that.
        flush: empties the servers, so that they are of one size whenever sessions are made.
    """

    plan: Plan
    section: str
    subjects: Sequence[Running]
    callers: Sequence[int]
    column: str
    flush: Callable[[], object]

    def measure(self, operation: str, name: str) -> Iterator[Row]:
        """The rows of one operation: one for each number of callers and each subject that has it.

        Args:
            operation: as the subjects call it.
            name: as the report calls it.
        """
        subjects = [subject for subject in self.subjects if operation in subject.operations]
        keys = [(callers, subject) for callers in self.callers for subject in subjects]
        self.flush()
        if operation == OF_THE_SAME:
            for subject in subjects:
                subject.ask("prepare", operation, self.plan.size.pool)
        counts = [self._count(subject, operation, callers) for callers, subject in keys]
        values: list[list[float]] = [[] for _ in keys]
        for number in range(self.plan.rounds):
            _say(f"{self.section}, {name}: round {number + 1} of {self.plan.rounds}")
            for index, (callers, subject) in enumerate(keys):
                values[index].append(self._rate(subject, operation, callers, counts[index]))
        for (callers, subject), each in zip(keys, values, strict=True):
            setting: dict[str, str | int] = {
                "operation": name,
                "loop": subject.subject.loop,
                self.column: callers,
            }
            yield Row(
                section=self.section,
                subject=subject.subject.name,
                setting=setting,
                unit="1/s",
                values=tuple(each),
            )

    def _count(self, subject: Running, operation: str, callers: int) -> int:
        """How many calls take about as long as planned. Finding it out also warms up."""
        size, most = self.plan.size, MOST if operation == OF_THE_SAME else MOST_NEW
        count = least = max(size.least, 2 * callers)
        for part in size.warm_ups:
            rate = self._rate(subject, operation, callers, count)
            count = max(least, min(most, int(rate * part * size.seconds)))
        return count

    def _rate(self, subject: Running, operation: str, callers: int, count: int) -> float:
        if operation != OF_THE_SAME:
            self.flush()
            subject.ask("prepare", operation, count)
        return subject.rate(operation, callers, count)


def _say(what: str) -> None:
    print(what, file=sys.stderr, flush=True)
