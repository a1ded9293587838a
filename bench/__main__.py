"""``scripts/bench``: measures, prints the tables, and writes them with the plots and everything as JSON."""

import argparse
import datetime
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from bench.machine import about
from bench.plots import draw
from bench.report import markdown, read_rows, write_docs, write_json
from bench.rows import Row
from bench.section import FULL, QUICK, Plan, Section
from bench.sections import SECTIONS
from bench.subjects import ROOT

OUT: Final = Path("bench/results")
RESULTS: Final = "results.json"


def main() -> None:
    """Measure, or read what was measured, and report."""
    arguments = _arguments()
    out: Path = arguments.out
    sections = [section for section in SECTIONS if not arguments.only or section.name in arguments.only]
    if not arguments.report:
        out.mkdir(parents=True, exist_ok=True)
        _measure(sections, arguments)
    facts, rows = read_rows(out / RESULTS)
    text = markdown(facts, sections, rows)
    (out / "results.md").write_text(text)
    drawn = draw(sections, rows, out)
    print(text)
    if arguments.write_docs:
        write_docs(ROOT / "docs", text, drawn)


def _measure(sections: Sequence[Section], arguments: argparse.Namespace) -> None:
    """Measure section by section; what was measured is written after each."""
    size = QUICK if arguments.quick else FULL
    facts = about(datetime.datetime.now(datetime.UTC).strftime("%d %B %Y"))
    if arguments.quick:
        facts["quick"] = "these figures show that everything runs, and nothing else"
    rows: list[Row] = []
    for section in sections:
        begin = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="lucia-bench-") as folder:
            rows += section.measure(Plan(size, arguments.rounds or size.rounds, Path(folder)))
        write_json(arguments.out / RESULTS, facts, rows)
        print(f"{section.name}: {time.monotonic() - begin:.0f} s", file=sys.stderr)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/bench", description="Compare this library with others.", allow_abbrev=False)
    parser.add_argument("--quick", action="store_true", help="show in a minute or two that everything works; the figures mean nothing")
    names = [section.name for section in SECTIONS]
    parser.add_argument("--only", action="append", choices=names, metavar="SECTION", help="one of %(choices)s; may be repeated")
    parser.add_argument("--rounds", type=_count, help="how often everything is measured")
    parser.add_argument("--out", type=Path, default=OUT, help="where results.json, results.md and the plots go (%(default)s)")
    parser.add_argument("--report", action="store_true", help="measure nothing; report what is in results.json")
    parser.add_argument("--write-docs", action="store_true", help="put the tables and plots into docs/ as well")
    return parser.parse_args()


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of rounds")
    return int(text)


if __name__ == "__main__":
    main()
