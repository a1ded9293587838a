"""Write docs/evidence.md: which tests show each promise, and each difference from Lucia JS.

    python tools/evidence.py            write the page
    python tools/evidence.py --check    write nothing; print what is wrong and exit with 1

``docs/promises.md`` and ``docs/differences.md`` say what is promised, in rows that begin with an
id such as ``FAIL-3``. ``docs/evidence.toml`` names the tests of each id. An entry for ``FAIL``
covers every row whose id begins with ``FAIL-``.

A test is named by its function alone where that is unique, else by its file too:
``test_redis::test_grace``. So a test may move to another file, but one that is renamed or deleted
is an error, and so is a row without tests.
"""

import argparse
import ast
import difflib
import re
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

__all__ = ["Broken", "main", "page"]

ROOT = Path(__file__).resolve().parent.parent
SOURCE = "docs/evidence.toml"
PAGE = "docs/evidence.md"
DOCUMENTS = ("docs/promises.md", "docs/differences.md")
FOLDERS = ("tests", "src/lucia/_async/suites")
GENERATED = Path("tests/sync")

_ROW = re.compile(r"\| ([A-Z]+-\d+) \|(.*)\|$")

Evidence: TypeAlias = Mapping[str, Mapping[str, Sequence[str]]]
"""Lists of tests by what they cover, by the id of a promise or of a group of promises."""

# Prose in Markdown is not wrapped.
INTRODUCTION = """\
# Evidence

Which tests show each promise of [What we promise](promises.md), and each row of [Differences from Lucia JS](differences.md). This page is generated from `docs/evidence.toml` by `python tools/evidence.py`; a test that is renamed or deleted fails the check until the entry is corrected.

Run a test by its name: `scripts/test tests -k test_grace`. Tests in `tests/aio/` also exist for the sync classes, in `tests/sync/`. The suites in `src/lucia/_async/suites/` run over every adapter and in every place that [the promises](promises.md#where-they-hold) name. A **control** is a test that breaks the promise on purpose and shows that the other tests notice it. How the tests work is on [What we promise](promises.md#how-we-know).
"""  # noqa: E501


class Broken(Exception):
    """The documents, their evidence and the tests do not fit together."""

    def __init__(self, faults: Sequence[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults


@dataclass(frozen=True)
class Section:
    """A heading of a document, and the ids of the rows below it."""

    document: str
    title: str
    rows: Sequence[tuple[str, str]]
    """Ids and what is promised."""

    def names(self) -> set[str]:
        """Return what an entry for rows of this section may be called."""
        ids = {id_ for id_, _ in self.rows}
        return ids | {id_.partition("-")[0] for id_ in ids}

    def link(self) -> str:
        """Return a link from the page to this heading."""
        anchor = re.sub(r"[^\w\- ]", "", self.title.lower()).replace(" ", "-")
        return f"[{self.title}]({Path(self.document).name}#{anchor})"


def main(arguments: Sequence[str] | None = None, root: Path = ROOT) -> int:
    """Write or check the page, and return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing; fail if it differs")
    check: bool = parser.parse_args(arguments).check
    try:
        text = page(root)
    except Broken as error:
        print(error, file=sys.stderr)
        return 1
    target = root / PAGE
    if not check:
        target.write_text(text, encoding="utf-8")
    elif not target.exists() or target.read_text(encoding="utf-8") != text:
        print(f"{PAGE} is out of date: run python tools/evidence.py", file=sys.stderr)
        return 1
    return 0


def page(root: Path = ROOT) -> str:
    """Return the page's text, or raise `Broken` with everything that is wrong."""
    evidence = _read(root / SOURCE)
    sections = [each for name in DOCUMENTS for each in _sections(root, name)]
    tests = _Tests(root)
    faults = [*_uncovered(sections, evidence), *_unknown(sections, evidence)]
    parts = [INTRODUCTION]
    for section in sections:
        rows: list[str] = []
        promises = dict(section.rows)
        for name in (each for each in evidence if each in section.names()):
            for label, references in evidence[name].items():
                covered = promises.get(name, label) if label == "tests" else label
                found: list[str] = []
                for reference in references:
                    try:
                        found.append(f"`{tests.find(reference)}`")
                    except LookupError as error:
                        faults.append(f"{SOURCE}, {name}: {error}")
                rows.append(f"| {name} | {covered} | {', '.join(found)} |\n")
        table = "| promise | covers | tests |\n| --- | --- | --- |\n" + "".join(rows)
        parts.append(f"## {section.title}\n\nSee {section.link()}.\n\n{table}")
    if faults:
        raise Broken(faults)
    return "\n".join(parts)


def _read(source: Path) -> Evidence:
    with source.open("rb") as file:
        return tomllib.load(file)


def _sections(root: Path, document: str) -> Iterator[Section]:
    """Find the headings of a document that have rows with ids below them."""
    for part in re.split(r"(?m)^## ", (root / document).read_text(encoding="utf-8"))[1:]:
        column = -1 if "\n| id | Lucia JS | here |\n" in part else 0
        rows: list[tuple[str, str]] = []
        for line in part.splitlines():
            if match := _ROW.match(line):
                cell = re.split(r"(?<!\\)\|", match[2])[column]
                rows.append((match[1], cell.strip().replace("](#", f"]({Path(document).name}#")))
        if rows:
            yield Section(document, part.partition("\n")[0], rows)


def _uncovered(sections: Sequence[Section], evidence: Evidence) -> Iterator[str]:
    seen: set[str] = set()
    for section in sections:
        for name, _ in section.rows:
            if name in seen:
                yield f"{section.document}: {name} is there twice"
            seen.add(name)
            entries = [evidence.get(name, {}), evidence.get(name.partition("-")[0], {})]
            if not any(tests for entry in entries for tests in entry.values()):
                yield f"{section.document}: {name} has no tests in {SOURCE}"


def _unknown(sections: Sequence[Section], evidence: Evidence) -> Iterator[str]:
    known = {name for section in sections for name in section.names()}
    for name in evidence.keys() - known:
        yield f"{SOURCE}: no document has a row {name}"


class _Tests:
    """The functions and classes of the tests, by name."""

    def __init__(self, root: Path) -> None:
        self._places: dict[str, list[str]] = {}
        for folder in FOLDERS:
            for path in sorted((root / folder).rglob("*.py")):
                relative = path.relative_to(root)
                if not relative.is_relative_to(GENERATED):
                    self._add(relative, ast.parse(path.read_text(encoding="utf-8")).body)

    def _add(self, path: Path, body: Sequence[ast.stmt], within: str = "") -> None:
        for node in body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                self._places.setdefault(node.name, []).append(f"{path}::{within}{node.name}")
                if isinstance(node, ast.ClassDef):
                    self._add(path, node.body, f"{node.name}::")

    def find(self, reference: str) -> str:
        """Return the path of a test, or raise `LookupError` if there is none or more than one."""
        qualifier, _, name = reference.rpartition("::")
        places = [
            place
            for place in self._places.get(name, [])
            if f"/{qualifier}/" in f"/{place.partition('.py::')[0]}/" or not qualifier
        ]
        if len(places) == 1:
            return places[0]
        if places:
            raise LookupError(f"{reference} may be any of {', '.join(places)}")
        near = difflib.get_close_matches(name, self._places)
        raise LookupError(f"no test {reference}" + f"; is it {' or '.join(near)}?" * bool(near))


if __name__ == "__main__":
    sys.exit(main())
