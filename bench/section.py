"""What a section of the benchmark is: how it measures, how its table looks, and what it should reach."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bench.rows import Ratio, Row, Want

__all__ = ["Goal", "Plan", "Section"]


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured.

    Args:
        quick: whether to show only that it works, in seconds; sections have smaller sizes then.
        rounds: how often everything is measured, in alternation.
        seconds: about how long each measurement of a rate takes.
        folder: a new one for what servers and programs write; it is deleted at the end.
    """

    quick: bool
    rounds: int
    seconds: float
    folder: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """What should be reached: a bound of one row, or of its ratio to another one.

    Args:
        text: in words, without the bound.
        row: what is measured.
        base: what it is divided by; None for the row's own value.
        bound: together with ``better``: a ``higher`` value is at least the bound, a ``lower`` one at most.
        every_round: whether the worst round counts, in place of the median.
    """

    text: str
    row: Want
    base: Want | None = None
    better: Literal["higher", "lower"] = "higher"
    bound: float
    every_round: bool = False

    def is_met(self, measured: Ratio) -> bool:
        """Whether that is within the bound."""
        if self.better == "higher":
            return (measured.low if self.every_round else measured.median) >= self.bound
        return (measured.high if self.every_round else measured.median) <= self.bound


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """One table of the report.

    Args:
        name: what ``--only`` takes.
        title: a heading.
        about: what is measured, in a sentence or two of Markdown.
        columns: the setting that goes across the table, such as ``concurrency``; all others go down.
        measure: starts what it needs, measures in alternation, and yields the rows at the end.
        goals: what should be reached, in the order of the report.
    """

    name: str
    title: str
    about: str
    columns: str
    measure: Callable[[Plan], Iterator[Row]]
    goals: tuple[Goal, ...] = ()
