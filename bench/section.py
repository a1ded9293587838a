"""Sections of the benchmark: how each measures, its table, and its goals."""

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
        rounds: how often everything is measured, in alternation.
        seconds: about how long each measurement of a rate takes.
        window: about how long each of the windows takes that warm a subject up, in seconds.
        windows: how many of them there are at most; see :func:`bench.warm.warm_up`.
        probes: what part of ``seconds`` each of the measurements takes that come then and find out
            how many calls that is.
        least: how many calls the smallest measurement has; there are at least two for each caller.
        pool: how many sessions are read again and again.
        callers: how many calls are made at once.
        of_one_user: how many sessions of a user end at once.
        listed: how many sessions of a user are listed.
        stored: how many sessions there are.
        never_read_at_once: how many sessions are read there, each once, in one measurement.
        validations: after how many of them, of the same sessions, the memory is looked at.
        never_read: the same for sessions that are each read once.
        logins: how many passwords are checked at once.
        revocations: how many sessions end one after another, to see how soon that is known elsewhere.
        cuts: how often the link is cut for that.
    """

    rounds: int
    seconds: float
    window: float
    windows: int
    probes: tuple[float, ...]
    least: int
    pool: int
    callers: tuple[int, ...]
    of_one_user: tuple[int, ...]
    listed: tuple[int, ...]
    stored: tuple[int, ...]
    never_read_at_once: int
    validations: tuple[int, ...]
    never_read: tuple[int, ...]
    logins: int
    revocations: int
    cuts: int


FULL: Final = Size(
    rounds=5,
    seconds=0.25,
    window=1,
    windows=10,
    probes=(0.25, 1),
    least=200,
    pool=4_000,
    callers=(1, 16, 64, 256, 1_024),
    of_one_user=(1, 100, 10_000),
    listed=(1_000, 10_000, 100_000),
    stored=(1_000, 10_000, 100_000, 1_000_000),
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
    window=0.02,
    windows=1,
    probes=(1,),
    least=50,
    pool=200,
    callers=(1, 64),
    of_one_user=(1, 100),
    listed=(100, 1_000),
    stored=(1_000, 2_000),
    never_read_at_once=2_000,
    validations=(1_000, 2_000),
    never_read=(1_000, 2_000),
    logins=2,
    revocations=10,
    cuts=1,
)
"""Shows in a minute or two that everything works."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The size of a measurement, and its folder.

    Args:
        size: how much to measure.
        rounds: how often.
        folder: a new one for what servers and programs write; it is deleted at the end.
    """

    size: Size
    rounds: int
    folder: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """A goal: a bound for one row, or for one row compared with another.

    Args:
        text: in words, without the bound.
        row: what is measured.
        base: what it is compared with; None for the row's own value.
        by: whether that is the ratio of the two, or what the row has more.
        bound: together with ``better``: a ``higher`` value is at least the bound, a ``lower`` one at most.
        every_round: whether the worst round counts, in place of the median.
    """

    text: str
    row: Want
    base: Want | None = None
    by: Literal["ratio", "difference"] = "ratio"
    better: Literal["higher", "lower"] = "higher"
    bound: float
    every_round: bool = False

    def is_met(self, measured: Compared) -> bool:
        """Whether that is within the bound."""
        if self.better == "higher":
            return (measured.low if self.every_round else measured.median) >= self.bound
        return (measured.high if self.every_round else measured.median) <= self.bound


@dataclass(frozen=True, slots=True, kw_only=True)
class Plot:
    """A line for each subject on each loop, over the section's columns.

    Args:
        name: of its file.
        title: in the picture.
        y: what goes up.
        setting: which rows, as far as the section has others.
    """

    name: str
    title: str
    y: str
    setting: Mapping[str, str | int] = field(default_factory=dict[str, str | int])


@dataclass(frozen=True, slots=True, kw_only=True)
class Histogram:
    """How often which values were measured: a line for each of the section's rows that are meant.

    Args:
        name: of its file.
        title: in the picture.
        x: what the values are.
        setting: which rows, as far as the section has others.
        by: the setting that tells these rows from each other.
        least: all values up to this are shown as one.
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
        name: what ``--only`` takes.
        title: a heading.
        about: what is measured, in a sentence or two of Markdown.
        columns: the setting that goes across the table, such as ``concurrency``; all others go down.
        left_out: the setting of rows that are for plots alone.
        base: whom all others are compared with in brackets, at the same operation and in the same column.
        measure: starts what it needs, measures in alternation, and yields the rows at the end.
        goals: what should be reached, in the order of the report.
        plots: of its rows.
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
