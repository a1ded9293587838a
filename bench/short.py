"""The report in short, for who looks at the project for the first time."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from bench.report import NOTHING, number, table
from bench.rows import Row, Want, find
from bench.who import LOOPS, in_short

__all__ = ["in_short_form"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One of the table: the rows of a section with an operation, so many at once."""

    head: str
    section: str
    operation: str
    concurrency: int

    def want(self, subject: str, loop: str) -> Want:
        """The row of a subject."""
        return Want(
            self.section,
            subject,
            {"operation": self.operation, "loop": loop, "concurrency": self.concurrency},
        )


COLUMNS: Final = (
    Column(
        head="validate, one at once", section="validate", operation="validate again", concurrency=1
    ),
    Column(head="256 at once", section="validate", operation="validate again", concurrency=256),
    Column(
        head="never read before, 256 at once",
        section="validate",
        operation="validate first",
        concurrency=256,
    ),
    Column(head="create, 256 at once", section="writes", operation="create", concurrency=256),
)
FACTS: Final = ("date", "machine", "Python", "Node", "server", "packages")


def in_short_form(facts: Mapping[str, str], rows: Sequence[Row]) -> str:
    """Sessions a second of each library, in Markdown; empty if none of it was measured."""
    lines = [
        [subject, *(_cell(column, subject, rows) for column in COLUMNS)] for subject in in_short()
    ]
    lines = [line for line in lines if {*line[1:]} != {NOTHING}]
    if not lines:
        return ""
    where = ". ".join(
        f"{name[0].upper()}{name[1:]}: {facts[name]}" for name in FACTS if name in facts
    )
    return "\n".join(
        [
            f"Sessions a second, {' / '.join(LOOPS)}, load and server on the same machine; medians of one run:",
            "",
            table(["", *(column.head for column in COLUMNS)], lines),
            "",
            f"{where}.",
        ]
    )


def _cell(column: Column, subject: str, rows: Sequence[Row]) -> str:
    """Medians, on whatever runs it."""
    found = [row for loop in (*LOOPS, "Node") if (row := find(rows, column.want(subject, loop)))]
    return " / ".join(number(row.median) for row in found) or NOTHING
