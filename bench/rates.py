"""Measure rates: how many calls a second each subject does.

Each round measures everything once. For each operation, the subjects take turns.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from bench.rows import Row
from bench.section import Plan
from bench.stock import stock
from bench.subjects import Running
from bench.warm import warm_up

__all__ = ["OF_THE_SAME", "Rates"]

MOST: Final = 1_000_000
MOST_CREATED: Final = 30_000
"""Calls of the largest measurement; fewer if the library has to create a session for each call."""

WARM: Final = 256
"""The number of concurrent calls in the warm-up; fewer if no measurement has as many."""

OF_THE_SAME: Final = "again"
"""The operation that reads the same sessions again and again; all others need new sessions."""

STOCKED: Final = "first"
"""The operation whose sessions can be copies; see :mod:`bench.stock`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """A set of measurements.

    Args:
        section: the rows' section.
        subjects: the subjects to measure.
        callers: the numbers of concurrent calls.
        column: the name of that setting in the report.
        flush: empties the servers, so that they hold the same amount of data in each measurement.
        port: the port of the server, if sessions may be stored there as copies.
    """

    plan: Plan
    section: str
    subjects: Sequence[Running]
    callers: Sequence[int]
    column: str
    flush: Callable[[], object]
    port: int | None = None

    def measure(self, operation: str, name: str) -> Iterator[Row]:
        """Measure one operation; yield a row for each number of callers and each subject.

        Args:
            operation: the subjects' name of the operation. Subjects without it are left out.
            name: its name in the report.
        """
        subjects = [subject for subject in self.subjects if operation in subject.operations]
        keys = [(callers, subject) for callers in self.callers for subject in subjects]
        self.flush()
        if operation == OF_THE_SAME:
            for subject in subjects:
                subject.ask("prepare", operation, self.plan.size.pool)
        for subject in subjects:
            self._warm_up(subject, operation)
        counts = [self._count(subject, operation, callers) for callers, subject in keys]
        values: list[list[float]] = [[] for _ in keys]
        for number in range(self.plan.rounds):
            _say(f"{self.section}, {name}: round {number + 1} of {self.plan.rounds}")
            tries: list[list[float]] = [[] for _ in keys]
            for _ in range(self.plan.size.tries):
                for index, (callers, subject) in enumerate(keys):
                    tries[index].append(self._rate(subject, operation, callers, counts[index]))
            # Whatever else the machine does can only slow a measurement down.
            for index, rates in enumerate(tries):
                values[index].append(max(rates))
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

    def _warm_up(self, subject: Running, operation: str) -> None:
        """Warm up until the rate stops rising. The number of sessions limits a window's length."""
        size, callers = self.plan.size, min(WARM, max(self.callers))
        count = max(size.least, 2 * callers)
        rate = self._rate(subject, operation, callers, count)

        def window() -> float:
            nonlocal rate
            most = self._most(subject, operation)
            rate = self._rate(
                subject, operation, callers, max(count, min(most, int(rate * size.window)))
            )
            return rate

        warm_up(window, size.windows)

    def _count(self, subject: Running, operation: str, callers: int) -> int:
        """Return how many calls take about as long as planned."""
        size, most = self.plan.size, self._most(subject, operation)
        count = least = max(size.least, 2 * callers)
        for part in size.probes:
            rate = self._rate(subject, operation, callers, count)
            count = max(least, min(most, int(rate * part * size.seconds)))
        return count

    def _most(self, subject: Running, operation: str) -> int:
        return (
            MOST
            if operation == OF_THE_SAME or self._is_stocked(subject, operation)
            else MOST_CREATED
        )

    def _is_stocked(self, subject: Running, operation: str) -> bool:
        return operation == STOCKED and self.port is not None and subject.can_be_stocked

    def _rate(self, subject: Running, operation: str, callers: int, count: int) -> float:
        if operation != OF_THE_SAME:
            self.flush()
            self._prepare(subject, operation, count)
        return subject.rate(operation, callers, count)

    def _prepare(self, subject: Running, operation: str, count: int) -> None:
        if self.port and self._is_stocked(subject, operation):
            if made := stock(subject, self.port, count):
                subject.ask("take", operation, *made, 0, count)
                return
            subject.can_be_stocked = False
        subject.ask("prepare", operation, count)


def _say(what: str) -> None:
    print(what, file=sys.stderr, flush=True)
