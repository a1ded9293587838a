"""The command ``scripts/bench``: measure, print the tables, and write JSON, tables and plots.

Sections are measured and stored one by one. The report has every section whose results are in the
output folder.
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
    """Measure unless ``--report`` is given, then report the stored results."""
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
    """Measure the sections one by one, and store the results after each."""
    size = QUICK if arguments.quick else FULL
    check_open_files(max(size.callers))
    facts = about(datetime.datetime.now(datetime.UTC).strftime("%d %B %Y"))
    if arguments.quick:
        facts["quick"] = "these figures only show that everything runs"
    for section in sections:
        begin = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="lucia-bench-") as folder:
            rows = list(section.measure(Plan(size, arguments.rounds or size.rounds, Path(folder))))
        results.write(out, section, facts, rows)
        print(f"{section.name}: {time.monotonic() - begin:.0f} s", file=sys.stderr)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/bench",
        description="Benchmark this library and others side by side.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="check in a minute or two that everything runs; the figures mean nothing",
    )
    names = [section.name for section in SECTIONS]
    parser.add_argument(
        "--only",
        action="append",
        choices=names,
        metavar="SECTION",
        help="measure this section only: one of %(choices)s; may be repeated",
    )
    parser.add_argument("--rounds", type=_count, help="how many times to measure everything")
    parser.add_argument(
        "--out",
        type=Path,
        help=f"the folder for JSON, results.md and plots ({OUT}; with --quick {OUT_QUICK})",
    )
    parser.add_argument(
        "--report", action="store_true", help="measure nothing; report the stored results"
    )
    parser.add_argument(
        "--write-docs",
        action="store_true",
        help="also write tables and plots into docs/",
    )
    arguments = parser.parse_args()
    if arguments.quick and arguments.write_docs:
        parser.error("--write-docs can't be used with --quick, whose figures mean nothing")
    return arguments


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number")
    return int(text)


if __name__ == "__main__":
    main()
