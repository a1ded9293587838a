"""Write the report: a table of goals, and a table for each section."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import Final

from bench.rows import Compared, Row, difference, find, ratio
from bench.section import Goal, Section

__all__ = ["goals", "markdown", "number", "table"]

NOTHING: Final = "·"
"""The text of a cell without a measurement."""


def markdown(about: Mapping[str, str], sections: Sequence[Section], rows: Sequence[Row]) -> str:
    """Return all tables as Markdown.

    Args:
        about: the machine and the versions.
        sections: the sections to show. A section without rows is left out.
        rows: the rows of these sections.
    """
    measured = {
        section.name: [row for row in rows if row.section == section.name] for section in sections
    }
    parts = [
        _facts(about),
        f"### Goals\n\n{reached}" if (reached := goals(sections, rows)) else "",
        *(
            _section(section, measured[section.name])
            for section in sections
            if measured[section.name]
        ),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def goals(sections: Sequence[Section], rows: Sequence[Row]) -> str:
    """Return the table of goals and their results; empty if no goal was measured."""
    lines = [line for section in sections for goal in section.goals if (line := _goal(goal, rows))]
    return table(["", "goal", "value", "lowest to highest round", ""], lines) if lines else ""


def number(value: float) -> str:
    """Format a value with three significant digits."""
    return (
        f"{round(value, 3 - len(str(int(abs(value))))):,.0f}"
        if abs(value) >= 100
        else f"{value:.3g}"
    )


def table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    return "\n".join(f"| {' | '.join(line)} |" for line in [head, ["---"] * len(head), *lines])


def _facts(about: Mapping[str, str]) -> str:
    return table(["", ""], [[name, value] for name, value in about.items()])


def _goal(goal: Goal, rows: Sequence[Row]) -> list[str] | None:
    """Return the goal's line; None if one of its rows was not measured."""
    row, base = find(rows, goal.row), goal.base and find(rows, goal.base)
    if row is None or (goal.base and base is None):
        return None
    if base:
        measured = ratio(row, base) if goal.by == "ratio" else difference(row, base)
    else:
        measured = Compared(row.median, min(row.values), max(row.values))
    unit = "" if base and goal.by == "ratio" else f" {row.unit}"
    bound = f"{'≥' if goal.better == 'higher' else '≤'} {goal.bound:g}{unit}"
    spread = f"{number(measured.low)} to {number(measured.high)}"
    return [
        goal.text,
        bound,
        number(measured.median) + unit,
        spread,
        "met" if goal.is_met(measured) else "**missed**",
    ]


def _section(section: Section, rows: Sequence[Row]) -> str:
    """Return the section's table of medians, with a line per subject and setting."""
    if section.left_out:
        rows = [row for row in rows if not section.left_out.items() <= row.setting.items()]
    columns = list(dict.fromkeys(row.setting[section.columns] for row in rows))
    names = [
        name
        for name in dict.fromkeys(chain.from_iterable(row.setting for row in rows))
        if name != section.columns
    ]
    lines: dict[tuple[str, ...], dict[str | int, str]] = {}
    for row in rows:
        line = (*(str(row.setting.get(name, "")) for name in names), row.subject, row.unit)
        lines.setdefault(line, {})[row.setting[section.columns]] = _cell(row, section, rows)
    head = [
        *names,
        "",
        "unit",
        *(
            f"{section.columns} {column:,}" if isinstance(column, int) else column
            for column in columns
        ),
    ]
    body = [
        [*line, *(cells.get(column, NOTHING) for column in columns)]
        for line, cells in lines.items()
    ]
    rounds = max(len(row.values) for row in rows)
    said = f"{section.about} Median of {rounds} rounds." if rounds > 1 else section.about
    return f"### {section.title}\n\n{said}\n\n{table(head, body)}"


def _cell(row: Row, section: Section, rows: Sequence[Row]) -> str:
    """Return the median, followed by its ratio to the section's base if there is one."""
    base = section.base and find(
        rows, replace(section.base, setting={**row.setting, **section.base.setting})
    )
    compared = f" ({number(ratio(row, base).median)})" if base else ""
    return number(row.median) + compared
