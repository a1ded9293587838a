"""The documents: links have targets, each promise has tests, and lists match the code."""

import inspect
import logging
import re
from collections.abc import Iterator
from itertools import chain, takewhile
from pathlib import Path
from typing import Final

import pytest

import lucia
import lucia.testing
from lucia import _logs
from lucia.adapters.redis import AsyncRedisSessionAdapter
from tests.aio.redis.single_server.test_commands import described
from tests.aio.redis.test_layouts import SEARCHING
from tests.support.acl_rights import (
    LEAST_RIGHTS,
    LEAST_RIGHTS_CLUSTER,
    LEAST_RIGHTS_PLAIN,
    NEAR_RIGHTS,
    for_sets,
)
from tools import evidence

ROOT: Final = Path(__file__).parents[2]
DOCUMENTS: Final = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
PRODUCTION: Final = (ROOT / "docs/production.md").read_text()
RUNNING: Final = (ROOT / "docs/running-redis.md").read_text()
ADAPTERS: Final = (ROOT / "docs/writing-an-adapter.md").read_text()
REDIS: Final = (ROOT / "docs/redis.md").read_text()

_LINK: Final = re.compile(r"\]\((?!https?:)([^)#]*)(?:#([^)]*))?\)")
_WORKFLOW: Final = re.compile(r"^\.\./\.\./actions/workflows/([^/]+)(/badge\.svg)?$")
"""GitHub's own page of a workflow, and its badge; from the README, both are above the files."""

_CODE: Final = re.compile(r"(?ms)^```.*?^```$")


def section(text: str, heading: str) -> str:
    """Return the text under a heading, up to the next heading of its level."""
    level = heading.partition(" ")[0]
    lines = text.split(f"\n{heading}\n")[1].splitlines()
    return "\n".join(takewhile(lambda line: not re.match(rf"#{{1,{len(level)}}} ", line), lines))


def rows(text: str) -> Iterator[list[str]]:
    """Yield the cells of each row of each table, without the header."""
    for table in re.findall(r"(?m)^\| .*\n\| ---.*\n((?:\|.*\n)+)", f"{text}\n"):
        for line in table.splitlines():
            yield [cell.strip().replace(r"\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def anchors(document: Path) -> set[str]:
    """Return the anchors of a document's headings."""
    headings = re.findall(r"(?m)^#+ (.*)$", _CODE.sub("", document.read_text()))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_links(document: Path) -> None:
    """Every link to a document, and to a heading in it, has a target."""
    for link, anchor in _LINK.findall(_CODE.sub("", document.read_text())):
        path = _WORKFLOW.sub(r".github/workflows/\1", link)
        target = (document.parent / path).resolve() if path else document
        assert target.exists(), path
        assert not anchor or anchor in anchors(target), f"{path}#{anchor}"


def test_index() -> None:
    """Every page of the documentation is in its index."""
    index = (ROOT / "docs/index.md").read_text()
    assert [
        page.name
        for page in (ROOT / "docs").glob("*.md")
        if page.name != "index.md" and f"({page.name})" not in index
    ] == []


def test_evidence() -> None:
    """Each promise and each difference has tests that exist, and the page about them is current."""
    assert (ROOT / evidence.PAGE).read_text() == evidence.page(), "run python tools/evidence.py"


@pytest.fixture
def small_project(tmp_path: Path) -> Path:
    """Return a project with two promises, and tests of which two have the same name."""
    files = {
        "docs/promises.md": """
## Ids

| id | promise | limits |
| --- | --- | --- |
| A-1 | one | some |
| B-1 | two | |
""",
        "docs/differences.md": """
## Keys

| id | Lucia JS | here |
| --- | --- | --- |
| K-1 | no | yes |
""",
        "docs/evidence.toml": """
[A]
"in memory" = ["test_one"]
[B-1]
tests = ["x::test_two"]
[K-1]
tests = ["test_three"]
""",
        "tests/x.py": """
def test_one(): ...
def test_two(): ...
class Suite:
    def test_three(self): ...
""",
        "tests/y.py": "def test_two(): ...",
        "tests/sync/x.py": "def test_one(): ...",
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def test_evidence_of_a_small_project(
    small_project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The page is out of date until it is written, and names each test with its file."""
    assert evidence.main(["--check"], small_project) == 1
    assert "out of date" in capsys.readouterr().err
    assert evidence.main([], small_project) == 0
    assert evidence.main(["--check"], small_project) == 0
    text = (small_project / evidence.PAGE).read_text()
    assert "| A | in memory | `tests/x.py::test_one` |" in text
    assert "| B-1 | two | `tests/x.py::test_two` |" in text
    assert "| K-1 | yes | `tests/x.py::Suite::test_three` |" in text


@pytest.mark.parametrize(
    ("document", "before", "after", "fault"),
    [
        ("tests/x.py", "test_one", "test_won", "no test test_one; is it"),
        ("docs/evidence.toml", "x::test_two", "test_two", "test_two may be any of tests/x.py"),
        ("docs/evidence.toml", '["test_three"]', "[]", "K-1 has no tests"),
        ("docs/evidence.toml", "[B-1]", "[B-2]", "no document has a row B-2"),
        ("docs/promises.md", "B-1", "A-1", "A-1 is there twice"),
    ],
)
def test_evidence_that_does_not_fit(
    small_project: Path, document: str, before: str, after: str, fault: str
) -> None:
    """A renamed test, an ambiguous name, a promise without tests and a row without promise fail."""
    path = small_project / document
    path.write_text(path.read_text().replace(before, after))
    with pytest.raises(evidence.Broken, match=re.escape(fault)):
        evidence.page(small_project)
    assert evidence.main([], small_project) == 1


def rights(cell: str) -> set[str]:
    """Return the commands in a cell."""
    return set(re.findall(r"\+([a-z|]+)", cell))


def test_rights() -> None:
    """The least rights in the documents are those that the tests run with."""
    table = {purpose: rights(commands) for purpose, commands in rows(section(RUNNING, "## Rights"))}
    assert table["one server, and behind Sentinel"] == set(LEAST_RIGHTS)
    assert table["the same without scripts"] == set(LEAST_RIGHTS_PLAIN)
    assert table["a cluster, on each node"] == set(LEAST_RIGHTS_CLUSTER)
    assert table["a cluster without scripts"] == set(LEAST_RIGHTS_CLUSTER) - set(LEAST_RIGHTS)
    lists = {"lpush", "lrem", "lrange", "llen"}
    assert table["the layout `lucia-v2`"] == lists | set(for_sets(LEAST_RIGHTS)) - set(LEAST_RIGHTS)
    assert table["`near_cache=`"] == set(NEAR_RIGHTS) - set(LEAST_RIGHTS)
    assert table["`reindex()`"] == set(chain.from_iterable(SEARCHING.values()))


def test_commands() -> None:
    """The commands in the documents are those of the class's docstring, which tests check."""
    documented = described()
    found: dict[str, set[str]] = {}
    for method, commands in rows(section(REDIS, "## Commands")):
        name = method.strip("`").partition("`")[0]
        named = [each for each in re.findall(r"`([a-z_]+)`", commands) if each in found]
        same = ["delete_sessions_by_user_id"] if commands.startswith("the same") else []
        found[name] = set(re.findall(r"`([A-Z]+)\b", commands)).union(
            *(found[each] for each in (*named, *same))
        )
        found[name] |= {"SCRIPT"} if "script" in commands else set()
    assert found == documented
    assert all(hasattr(AsyncRedisSessionAdapter, method) for method in found)


def test_log_lines() -> None:
    """The log lines in the documents have the code's loggers, levels, fields and limits."""
    found = {
        event.strip("`"): (
            logger.strip("`"),
            level,
            re.findall(r"`(\w+)`", fields),
            re.findall(r"^\d+ a minute", most),
        )
        for event, logger, level, fields, _, most in rows(
            section(PRODUCTION, "## Logging").partition("\n### ")[0]
        )
    }
    assert found == {
        name: (
            event.logger,
            logging.getLevelName(event.level).lower(),
            list(event.fields),
            [] if event.most is None else [f"{event.most} a minute"],
        )
        for name, event in _logs.EVENTS.items()
    }


def test_alarms() -> None:
    """Each alarm names an existing log line, and every error has an alarm."""
    named = {
        event
        for alarm, _ in rows(section(PRODUCTION, "### Alarms"))
        for event in re.findall(r"`(\w+)`", alarm)
    }
    named.discard("user_id")
    assert named <= _logs.EVENTS.keys()
    assert {name for name, event in _logs.EVENTS.items() if event.level == logging.ERROR} <= named


def public(class_: type) -> set[str]:
    """Return the names of a class that are neither private nor a test."""
    return {name for name in dir(class_) if not name.startswith(("_", "test_"))}


def test_adapter_protocols() -> None:
    """The methods of each protocol in the documents are those of the code."""
    table = section(ADAPTERS, "## The protocols")
    found = {protocol.strip("`"): methods for protocol, methods, _ in rows(table)}
    assert len(found) == 5
    for name, methods in found.items():
        named = set(re.findall(r"`([a-z_]+)`", methods))
        if methods.startswith("these, and"):
            named |= public(lucia.SessionAdapter)
        assert named == public(getattr(lucia, name)), name


def test_adapter_suites() -> None:
    """The suites have the attributes and methods that the documents name, with these arguments."""
    suites = (lucia.testing.RenewingSessionAdapterSuite, lucia.testing.UserAdapterSuite)
    cells = [cell for cell, *_ in rows(section(ADAPTERS, "## Test it"))]
    found = [each for cell in cells for each in re.findall(r"`([a-z].*?)`", cell)]
    assert len(found) == 8
    for each in found:
        name, _, arguments = each.partition("(")
        (member, *_) = [getattr(suite, name) for suite in suites if hasattr(suite, name)]
        if arguments:
            parameters = list(inspect.signature(member).parameters)[1:]
            assert arguments == f"{', '.join(parameters)})", each


def test_signature_of_set_user() -> None:
    """The arguments of ``set_user`` in the documents are those of the protocol."""
    (arguments,) = re.findall(r"`set_user\((.*?)\)`", ADAPTERS)
    assert (
        arguments.split(", ") == list(inspect.signature(lucia.UserAdapter.set_user).parameters)[1:]
    )


def test_places_in_contributing() -> None:
    """Every file and folder in the guide for contributors exists."""
    text = (ROOT / "CONTRIBUTING.md").read_text()
    named = re.findall(r"`((?:\w+/)*\w+(?:\.(?:py|md|toml)|/))`", text)
    assert len(named) > 30
    roots = (ROOT, ROOT / "src/lucia")
    assert [name for name in named if not any((root / name).exists() for root in roots)] == []
