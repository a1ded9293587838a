"""The description of a section: how it measures, its table, its goals and its plots."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from bench.rows import Compared, Row, Want

__all__ = ["FULL", "QUICK", "Goal", "Histogram", "Plan", "Plot", "Section", "Size"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much is measured.

    Args:
        rounds: the number of rounds. Each round measures everything once, in alternation.
        seconds: the approximate duration of a measurement of a rate.
        tries: how often each rate is measured in a round; the least disturbed measurement counts.
        window: the approximate duration of a warm-up window, in seconds.
        windows: the largest number of warm-up windows; see :func:`bench.warm.warm_up`.
        probes: the durations of the probes after the warm-up, as parts of ``seconds``. They find
            out how many calls a measurement needs.
        least: the smallest number of calls in a measurement; there are at least two per caller.
        pool: the number of sessions that are read again and again.
        callers: the numbers of concurrent calls.
        of_one_user: the numbers of a user's sessions that are revoked with one call.
        listed: the numbers of a user's sessions that are listed.
        stored: the numbers of sessions on the server, in the section ``stored``.
        in_postgresql: the number of sessions in PostgreSQL, in the section ``sql``.
        in_sqlite: the number of those in SQLite, and in Redis beside it.
        never_read_at_once: the number of sessions that one measurement of that section reads once.
        validations: the numbers of validations of the same sessions after which the memory is read.
        never_read: likewise for sessions that are each read once.
        logins: the number of concurrent logins with a password.
        revocations: the number of revocations whose lag in another process is measured.
        cuts: the number of revocations whose lag is measured while the link is cut.
    """

    rounds: int
    seconds: float
    tries: int
    window: float
    windows: int
    probes: tuple[float, ...]
    least: int
    pool: int
    callers: tuple[int, ...]
    of_one_user: tuple[int, ...]
    listed: tuple[int, ...]
    stored: tuple[int, ...]
    in_postgresql: int
    in_sqlite: int
    never_read_at_once: int
    validations: tuple[int, ...]
    never_read: tuple[int, ...]
    logins: int
    revocations: int
    cuts: int


FULL: Final = Size(
    rounds=5,
    seconds=0.25,
    tries=3,
    window=1,
    windows=10,
    probes=(0.25, 1),
    least=200,
    pool=4_000,
    callers=(1, 16, 64, 256, 1_024),
    of_one_user=(1, 100, 10_000),
    listed=(1_000, 10_000, 100_000),
    stored=(1_000, 10_000, 100_000, 1_000_000),
    in_postgresql=10_000_000,
    in_sqlite=1_000_000,
    never_read_at_once=50_000,
    validations=(100_000, 1_000_000, 10_000_000),
    never_read=(1_000, 10_000, 100_000, 1_000_000),
    logins=50,
    revocations=400,
    cuts=10,
)

QUICK: Final = Size(
    rounds=1,
    seconds=0.02,
    tries=1,
    window=0.02,
    windows=1,
    probes=(1,),
    least=50,
    pool=200,
    callers=(64,),
    of_one_user=(1, 100),
    listed=(100, 1_000),
    stored=(1_000, 2_000),
    in_postgresql=2_000,
    in_sqlite=2_000,
    never_read_at_once=2_000,
    validations=(1_000, 2_000),
    never_read=(1_000, 2_000),
    logins=2,
    revocations=10,
    cuts=1,
)
"""Enough to check in a minute or two that everything runs."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The size of a measurement, and its folder.

    Args:
        size: how much to measure.
        rounds: the number of rounds.
        folder: a temporary folder for the files of servers and programs.
    """

    size: Size
    rounds: int
    folder: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """A goal: a bound for one row, or for one row compared with another.

    Args:
        text: the goal in words, without the bound.
        row: the measured row.
        base: the row it is compared with; None for the row's own value.
        by: compare by the ratio of the two, or by the difference.
        better: ``higher`` if the value must be at least the bound, ``lower`` if at most.
        bound: the bound of the value.
        every_round: whether the worst round must meet the bound instead of the median.
    """

    text: str
    row: Want
    base: Want | None = None
    by: Literal["ratio", "difference"] = "ratio"
    better: Literal["higher", "lower"] = "higher"
    bound: float
    every_round: bool = False

    def is_met(self, measured: Compared) -> bool:
        """Return whether the measured value is within the bound."""
        if self.better == "higher":
            return (measured.low if self.every_round else measured.median) >= self.bound
        return (measured.high if self.every_round else measured.median) <= self.bound


@dataclass(frozen=True, slots=True, kw_only=True)
class Plot:
    """A line plot over the section's columns, with a line for each subject on each loop.

    Args:
        name: the name of the file.
        title: the title of the plot.
        y: the label of the y axis.
        setting: the setting that rows must have to be plotted.
    """

    name: str
    title: str
    y: str
    setting: Mapping[str, str | int] = field(default_factory=dict[str, str | int])


@dataclass(frozen=True, slots=True, kw_only=True)
class Histogram:
    """A histogram of the values of each row.

    Args:
        name: the name of the file.
        title: the title of the plot.
        x: the label of the x axis.
        setting: the setting that rows must have to be plotted.
        by: the setting that labels the rows.
        least: smaller values are shown as this one.
    """

    name: str
    title: str
    x: str
    setting: Mapping[str, str | int]
    by: str
    least: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """One table of the report.

    Args:
        name: the section's name for ``--only``.
        title: the heading.
        about: what is measured, in a few sentences of Markdown.
        columns: the setting that has a column per value, such as ``concurrency``. All other
            settings have a line per value.
        left_out: the setting of rows that are only plotted.
        base: the row that others are compared with, at the same setting. The table shows the ratio
            in brackets.
        measure: starts servers and subjects, measures in alternation, and yields the rows.
        goals: the section's goals, in the order of the report.
        plots: the section's plots.
    """

    name: str
    title: str
    about: str
    columns: str
    left_out: Mapping[str, str | int] | None = None
    base: Want | None = None
    measure: Callable[[Plan], Iterator[Row]]
    goals: tuple[Goal, ...] = ()
    plots: tuple[Plot | Histogram, ...] = ()
