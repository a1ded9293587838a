"""Store results as JSON, one file per section, so that sections can be measured one by one."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.rows import Row
from bench.section import Section

__all__ = ["read", "write"]


def write(folder: Path, section: Section, facts: Mapping[str, str], rows: Iterable[Row]) -> None:
    """Store a section's rows, with every round, and replace its earlier rows.

    Args:
        folder: the folder of the results.
        section: the section of the rows.
        facts: the machine and the versions.
        rows: all rows of this section.
    """
    kept = {"facts": dict(facts), "rows": [row.as_json() for row in rows]}
    _path(folder, section).write_text(json.dumps(kept, indent=1) + "\n")


def read(folder: Path, sections: Sequence[Section]) -> tuple[dict[str, str], list[Row]]:
    """Read the results that :func:`write` stored. Facts that differ are joined."""
    facts: dict[str, list[str]] = {}
    rows: list[Row] = []
    for section in sections:
        if _path(folder, section).exists():
            kept: dict[str, Any] = json.loads(_path(folder, section).read_text())
            rows += [Row.from_json(row) for row in kept["rows"]]
            for name, fact in kept["facts"].items():
                facts.setdefault(name, []).append(fact)
    return {name: "; ".join(dict.fromkeys(told)) for name, told in facts.items()}, rows


def _path(folder: Path, section: Section) -> Path:
    return folder / f"{section.name}.json"
