"""The page about the commands: its commands run, and its JSON and its rights are the real ones."""

import json
import re
import shlex
from pathlib import Path
from typing import Any, Final

import pytest

from lucia.cli.shared import EXIT_OK
from tests.commands.test_stats import RIGHTS, SAMPLING
from tests.support.command_runs import lucia
from tests.support.redis_inspectors import Inspector
from tests.support.sessions import HOUR, row
from tools.servers import Server

PAGE: Final = (Path(__file__).parents[2] / "docs/commands.md").read_text()
HANDLE: Final = "3xH9cQ0kTn2mVbQe7yZpLw"
"""The handle in the page's examples."""


def blocks(language: str) -> list[str]:
    """Return the page's blocks of a language."""
    return re.findall(rf"(?ms)^```{language}\n(.*?)^```$", PAGE)


def commands() -> list[list[str]]:
    """Return the words of each ``lucia sessions`` in the page, without the name of the program."""
    lines = "".join(blocks("bash")).splitlines()
    words = [shlex.split(line.partition(">")[0], comments=True) for line in lines]
    return [each[1:] for each in words if each[:2] == ["lucia", "sessions"]]


def sign_in(inspector: Inspector) -> None:
    """Store two sessions of alice, of which one has the handle of the page."""
    for number, handle in enumerate(("another", HANDLE)):
        session = row(f"{number}" * 40, "alice", handle=handle, noted={"agent": "Firefox"})
        inspector.write(session)
        inspector.enter(session.id, user_id="alice")
    inspector.client.pexpire(inspector.layout.index_key("alice"), HOUR)


def run(server: Server, *words: str) -> Any:
    """Run a command on a store with alice's two sessions."""
    with Inspector(server) as inspector:
        sign_in(inspector)
        return lucia(*words, LUCIA_STORE_URL=server.url)


def shape(value: Any) -> Any:
    """Return the names in a JSON value, and the types of the others; a list's first alone."""
    if isinstance(value, dict):
        return {name: shape(member) for name, member in value.items() if name != "metadata"}
    return [shape(value[0])] if isinstance(value, list) else type(value)


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_commands(redis_server: Server, words: list[str]) -> None:
    """Each command in the page does what it says, and ends with exit code 0."""
    outcome = run(redis_server, *words)
    assert (outcome.code, outcome.errors) == (EXIT_OK, "")
    assert outcome.out


def test_all_commands_are_documented() -> None:
    """The page has every command, and the variable that the tests use."""
    assert {words[1] for words in commands()} == {"list", "revoke", "stats"}
    assert "export LUCIA_STORE_URL=redis://" in PAGE


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (0, ("list", "alice")),
        (1, ("revoke", "alice", "--keep", HANDLE)),
        (2, ("stats",)),
    ],
)
def test_json(redis_server: Server, number: int, words: tuple[str, ...]) -> None:
    """The JSON in the page has the members of the real one."""
    shown = json.loads(blocks("json")[number])
    assert shape(shown) == shape(run(redis_server, "sessions", *words, "--json").report)


def test_text(redis_server: Server) -> None:
    """The output of list and revoke in the page looks like the real one."""
    listed, revoked, _ = blocks("text")
    out = run(redis_server, "sessions", "list", "alice").out
    assert [line.split()[:4] for line in listed.splitlines()[:1]] == [out.split()[:4]]
    out = run(redis_server, "sessions", "revoke", "alice", HANDLE).out
    time = r"\d{4}-\d\d-\d\d \d\d:\d\d"
    assert re.sub(time, "", revoked) == re.sub(time, "", out)


def test_documented_rights() -> None:
    """The page names each right that the tests find to be needed."""
    for right in (*RIGHTS, *SAMPLING, "srandmember", "sscan"):
        assert f"+{right}" in PAGE, right
