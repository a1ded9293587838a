"""``scripts/bench``: measures, prints the tables, and writes them with the plots and everything as JSON.

Sections are measured, and kept, one by one; the report is of all that were ever measured into the same folder.
"""

import argparse
import datetime
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from bench import results
from bench.documents import write_into, write_plots
from bench.machine import about, check_open_files
from bench.plots import draw
from bench.report import markdown
from bench.section import FULL, QUICK, Plan, Section
from bench.sections import SECTIONS
from bench.subjects import ROOT

OUT: Final = Path("bench/results")
OUT_QUICK: Final = OUT / "quick"


def main() -> None:
    """Measure, or read what was measured, and report."""
    arguments = _arguments()
    out: Path = arguments.out or (OUT_QUICK if arguments.quick else OUT)
    out.mkdir(parents=True, exist_ok=True)
    if not arguments.report:
        _measure(
            [
                section
                for section in SECTIONS
                if not arguments.only or section.name in arguments.only
            ],
            out,
            arguments,
        )
    facts, rows = results.read(out, SECTIONS)
    text, drawn = markdown(facts, SECTIONS, rows), draw(SECTIONS, rows, out)
    (out / "results.md").write_text(text)
    print(text)
    if arguments.write_docs:
        page = ROOT / "docs/benchmarks.md"
        write_into(page, f"{text}\n{write_plots(page.with_suffix(''), drawn)}")


def _measure(sections: Sequence[Section], out: Path, arguments: argparse.Namespace) -> None:
    """Measure section by section; what was measured is kept after each."""
    size = QUICK if arguments.quick else FULL
    check_open_files(max(size.callers))
    facts = about(datetime.datetime.now(datetime.UTC).strftime("%d %B %Y"))
    if arguments.quick:
        facts["quick"] = "these figures show that everything runs, and nothing else"
    for section in sections:
        begin = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="lucia-bench-") as folder:
            rows = list(section.measure(Plan(size, arguments.rounds or size.rounds, Path(folder))))
        results.write(out, section, facts, rows)
        print(f"{section.name}: {time.monotonic() - begin:.0f} s", file=sys.stderr)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/bench", description="Compare this library with others.", allow_abbrev=False
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="show in a minute or two that everything works; the figures mean nothing",
    )
    names = [section.name for section in SECTIONS]
    parser.add_argument(
        "--only",
        action="append",
        choices=names,
        metavar="SECTION",
        help="one of %(choices)s; may be repeated",
    )
    parser.add_argument("--rounds", type=_count, help="how often everything is measured")
    parser.add_argument(
        "--out",
        type=Path,
        help=f"where JSON, results.md and the plots go ({OUT}; {OUT_QUICK} if quick)",
    )
    parser.add_argument(
        "--report", action="store_true", help="measure nothing; report what was measured"
    )
    parser.add_argument(
        "--write-docs",
        action="store_true",
        help="put tables and plots into docs/ as well",
    )
    arguments = parser.parse_args()
    if arguments.quick and arguments.write_docs:
        parser.error("--quick measures nothing that the documents should have")
    return arguments


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of rounds")
    return int(text)


if __name__ == "__main__":
    main()
