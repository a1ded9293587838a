"""The report: a table of goals, a table for each section, and the same as JSON."""

import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any, Final

from bench.rows import Ratio, Row, find, ratio
from bench.section import Goal, Section

__all__ = ["markdown", "read_rows", "write_docs", "write_json"]

BEGIN: Final = "<!-- what scripts/bench --write-docs wrote -->"
END: Final = "<!-- until here -->"

NOTHING: Final = "·"
"""What stands in a cell that was not measured."""


def markdown(about: Mapping[str, str], sections: Sequence[Section], rows: Sequence[Row]) -> str:
    """All tables, in Markdown.

    Args:
        about: what ran where: the machine, the versions.
        sections: those to show; one without rows is left out.
        rows: of these sections.
    """
    measured = {section.name: [row for row in rows if row.section == section.name] for section in sections}
    parts = [
        _facts(about),
        _goals([goal for section in sections for goal in section.goals], rows),
        *(_section(section, measured[section.name]) for section in sections if measured[section.name]),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def write_json(path: Path, about: Mapping[str, str], rows: Iterable[Row]) -> None:
    """Write everything that was measured, each round of it."""
    path.write_text(json.dumps({"about": dict(about), "rows": [row.as_json() for row in rows]}, indent=1) + "\n")


def read_rows(path: Path) -> tuple[dict[str, str], list[Row]]:
    """What :func:`write_json` wrote."""
    read: dict[str, Any] = json.loads(path.read_text())
    return read["about"], [Row.from_json(row) for row in read["rows"]]


def write_docs(docs: Path, text: str, plots: Iterable[Path]) -> None:
    """Put the tables and the plots into the documentation, in the place of those that are there.

    Raises:
        ValueError: the page has no such place.
    """
    page = docs / "benchmarks.md"
    before, _, rest = page.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not end:
        raise ValueError(f"{page} has no lines {BEGIN!r} and {END!r}")
    folder = docs / "benchmarks"
    folder.mkdir(exist_ok=True)
    pictures = [Path(shutil.copy(plot, folder)) for plot in plots]
    shown = "\n\n".join(f"![{picture.stem}](benchmarks/{picture.name})" for picture in pictures)
    page.write_text(f"{before}{BEGIN}\n\n{text}\n{shown}\n\n{END}{after}")


def _facts(about: Mapping[str, str]) -> str:
    return _table(["", ""], [[name, value] for name, value in about.items()])


def _goals(goals: Sequence[Goal], rows: Sequence[Row]) -> str:
    lines = [line for goal in goals if (line := _goal(goal, rows))]
    return "### Goals\n\n" + _table(["", "goal", "measured", "lowest to highest round", ""], lines) if lines else ""


def _goal(goal: Goal, rows: Sequence[Row]) -> list[str] | None:
    """A line; None if what it speaks of was not measured."""
    row, base = find(rows, goal.row), goal.base and find(rows, goal.base)
    if row is None or (goal.base and base is None):
        return None
    measured = ratio(row, base) if base else Ratio(row.median, min(row.values), max(row.values))
    unit = "" if base else f" {row.unit}"
    bound = f"{'≥' if goal.better == 'higher' else '≤'} {goal.bound:g}{unit}"
    spread = f"{_number(measured.low)} to {_number(measured.high)}"
    return [goal.text, bound, _number(measured.median) + unit, spread, "reached" if goal.is_met(measured) else "**missed**"]


def _section(section: Section, rows: Sequence[Row]) -> str:
    """One line for what differs in anything but the column; medians of all rounds."""
    columns = list(dict.fromkeys(row.setting[section.columns] for row in rows))
    names = [name for name in dict.fromkeys(chain.from_iterable(row.setting for row in rows)) if name != section.columns]
    lines: dict[tuple[str, ...], dict[str | int, str]] = {}
    for row in rows:
        line = (*(str(row.setting.get(name, "")) for name in names), row.subject, row.unit)
        lines.setdefault(line, {})[row.setting[section.columns]] = _cell(row, section, rows)
    head = [*names, "", "unit", *(f"{section.columns} {column:,}" if isinstance(column, int) else column for column in columns)]
    body = [[*line, *(cells.get(column, NOTHING) for column in columns)] for line, cells in lines.items()]
    return f"### {section.title}\n\n{section.about}\n\n{_table(head, body)}"


def _cell(row: Row, section: Section, rows: Sequence[Row]) -> str:
    """The median, and how many times the section's base that is."""
    base = section.base and find(rows, replace(section.base, setting={**row.setting, **section.base.setting}))
    compared = f" ({_number(ratio(row, base).median)})" if base else ""
    return _number(row.median) + compared


def _number(value: float) -> str:
    """Three digits of it."""
    return f"{round(value, 3 - len(str(int(abs(value))))):,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(line)} |" for line in [head, ["---"] * len(head), *lines])
