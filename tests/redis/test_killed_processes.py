"""Processes that are killed before and after each command of each operation, on real servers: what they leave is lawful."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import pytest

from lucia._redis.cluster import PROVISIONAL_MS
from lucia._redis.records import SessionRecord
from lucia.adapters.redis import RedisSessionAdapter
from lucia.models import SessionRow
from tests.support.deployments import Deployment, open_deployment
from tests.support.killed_processes import OPERATIONS
from tests.support.redis_inspectors import Inspector
from tests.support.sessions import row

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings(
        "ignore:(?s).*lib_:DeprecationWarning"
    ),  # redis-py 7's cluster clients warn of themselves
]

PLACES: Final = ("redis", "valkey", "cluster", "redis, no scripts")
MOST: Final = 40
"""Commands of one operation; more is an error of the test."""

BEFORE: Final = frozenset({"used", "kept", "other"})

AFTERWARDS: Final = {
    "create": {"used", "kept", "other", "new"},
    "create within": {"new"},
    "renew": {"kept", "other"},  # and one of its successors
    "delete": {"kept", "other"},
    "delete all": set[str](),
    "delete others": {"kept"},
    "list": {"used", "kept", "other"},
}
"""The sessions there are when an operation was done, ``new`` being what it makes."""

Kill = Callable[[str, int, str], bool]


@pytest.fixture(params=PLACES)
def place_name(request: pytest.FixtureRequest) -> str:
    """Each place in turn."""
    return str(request.param)


@pytest.fixture
def place(request: pytest.FixtureRequest, place_name: str) -> Iterator[Deployment]:
    """A place that was emptied."""
    with open_deployment(request, place_name) as opened:
        yield opened


@pytest.fixture
def kill(place: Deployment, place_name: str) -> Iterator[Kill]:
    """Has a process run an operation and die at its n-th command; says whether it had so many."""
    with mortal_processes(place, place_name) as found:
        yield found


@contextmanager
def mortal_processes(place: Deployment, place_name: str) -> Iterator[Kill]:
    """The program of ``tests/support/killed_processes.py``."""
    command = [sys.executable, "-m", "tests.support.killed_processes", place.url, place_name]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as program:
        asked, answered = program.stdin, program.stdout
        assert asked is not None
        assert answered is not None

        def ask(operation: str, number: int, moment: str) -> bool:
            asked.write(json.dumps([operation, number, moment]) + "\n")
            asked.flush()
            answer = answered.readline().strip()
            assert answer in {"killed", "done"}
            return answer == "killed"

        yield ask
        asked.close()


def begin(place: Deployment) -> RedisSessionAdapter:
    """An adapter, and its user's three sessions."""
    place.inspector.on_each("FLUSHALL")
    adapter = RedisSessionAdapter(place.client)
    for id_ in ("used", "kept", "other"):
        adapter.set_session(row(id_))
    return adapter


def whole(inspector: Inspector) -> set[str]:
    """The sessions that live longer than one that is not whole."""
    return {
        id_ for id_ in inspector.live() if inspector.client.pttl(f"session:{id_}") > PROVISIONAL_MS
    }


@pytest.mark.parametrize("operation", OPERATIONS)
def test_killed(place: Deployment, kill: Kill, operation: str) -> None:
    """Wherever a process is killed, each key has an end, each session that stays is in its index, and nobody else is logged out.

    Doing the same again does all of it; signing out everywhere then ends every session that stays.
    """
    number = 1
    while all(was_killed(place, kill, operation, number, moment) for moment in ("before", "after")):
        number += 1
        assert number < MOST
    assert number > 1


def was_killed(place: Deployment, kill: Kill, operation: str, number: int, moment: str) -> bool:
    """Kill a process at its n-th command, and hold what it left to the laws; says whether there was such a command."""
    adapter = begin(place)
    if not kill(operation, number, moment):
        return False
    place.inspector.check_remains()
    left = whole(place.inspector)
    assert left >= BEFORE & AFTERWARDS[operation], "somebody else was logged out"
    assert operation != "renew" or left & {"used", "lost"}, "the user was logged out"
    check_doing_it_again(place, adapter, operation, left)
    adapter.delete_sessions_by_user_id("u1")
    place.inspector.check_remains()
    assert whole(place.inspector) == set()
    return True


def check_doing_it_again(
    place: Deployment, adapter: RedisSessionAdapter, operation: str, left: set[str]
) -> None:
    """Do an operation after it was cut off: it is done as if it had not been, and what was dead stays dead."""
    result = OPERATIONS[operation](adapter, "new")
    place.inspector.check_remains()
    found = whole(place.inspector)
    successors = {result.id} if isinstance(result, SessionRow | SessionRecord) else set[str]()
    assert found - {"lost"} == (AFTERWARDS[operation] | successors) - {"lost"}
    assert found >= successors
    assert found <= left | {"new"}
    assert operation != "renew" or successors


@pytest.mark.parametrize("place_name", ["redis"])
def test_killed_has_power(place: Deployment) -> None:
    """A login that gives the index its expiry in a step of its own is found out when it is killed before that."""
    with mortal_processes(place, "control") as kill:
        assert kill("create", 3, "before")
    assert place.inspector.census()["userSession:u1"].expires == -1
    with pytest.raises(AssertionError):
        place.inspector.check_remains()
