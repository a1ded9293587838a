"""Processes are killed before and after each command of each operation, on real servers."""

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
    # redis-py 7's cluster clients cause this warning themselves.
    pytest.mark.filterwarnings("ignore:(?s).*lib_:DeprecationWarning"),
]

DEPLOYMENTS: Final = ("redis", "valkey", "cluster", "redis, no scripts")
MOST: Final = 40
"""The most commands that an operation may have in this test."""

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
"""Sessions after each operation; ``new`` is the one it creates."""

Kill = Callable[[str, int, str], bool]


@pytest.fixture(params=DEPLOYMENTS)
def place_name(request: pytest.FixtureRequest) -> str:
    """Return the name of each deployment."""
    return str(request.param)


@pytest.fixture
def deployment(request: pytest.FixtureRequest, place_name: str) -> Iterator[Deployment]:
    """Yield an empty deployment."""
    with open_deployment(request, place_name) as opened:
        yield opened


@pytest.fixture
def kill(deployment: Deployment, place_name: str) -> Iterator[Kill]:
    """Yield a function that kills an operation. See ``process_killer``."""
    with process_killer(deployment, place_name) as found:
        yield found


@contextmanager
def process_killer(deployment: Deployment, place_name: str) -> Iterator[Kill]:
    """Run ``tests/support/killed_processes.py``, and yield a function that uses it.

    The function lets a process run an operation and die at its n-th command. It returns whether the
    operation had so many commands.
    """
    command = [sys.executable, "-m", "tests.support.killed_processes", deployment.url, place_name]
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


def begin(deployment: Deployment) -> RedisSessionAdapter:
    """Return an adapter, after storing three sessions of its user."""
    deployment.inspector.on_each("FLUSHALL")
    adapter = RedisSessionAdapter(deployment.client)
    for id_ in ("used", "kept", "other"):
        adapter.set_session(row(id_))
    return adapter


def whole(inspector: Inspector) -> set[str]:
    """Return the sessions that are complete: their TTL is longer than a provisional one."""
    return {
        id_ for id_ in inspector.live() if inspector.client.pttl(f"session:{id_}") > PROVISIONAL_MS
    }


@pytest.mark.parametrize("operation", OPERATIONS)
def test_killed_process_leaves_consistent_keys(
    deployment: Deployment, kill: Kill, operation: str
) -> None:
    """A process killed at any command leaves no key without a TTL and no unindexed session.

    Nobody else is logged out. Repeating the operation completes it. Signing out everywhere then
    revokes every session that is left.
    """
    number = 1
    while all(
        was_killed(deployment, kill, operation, number, moment) for moment in ("before", "after")
    ):
        number += 1
        assert number < MOST
    assert number > 1


def was_killed(
    deployment: Deployment, kill: Kill, operation: str, number: int, moment: str
) -> bool:
    """Kill a process at its n-th command, and check what it left.

    Return whether the operation had so many commands.
    """
    adapter = begin(deployment)
    if not kill(operation, number, moment):
        return False
    deployment.inspector.check_remains()
    left = whole(deployment.inspector)
    assert left >= BEFORE & AFTERWARDS[operation], "another session was revoked"
    assert operation != "renew" or left & {"used", "lost"}, "the user was logged out"
    check_doing_it_again(deployment, adapter, operation, left)
    adapter.delete_sessions_by_user_id("u1")
    deployment.inspector.check_remains()
    assert whole(deployment.inspector) == set()
    return True


def check_doing_it_again(
    deployment: Deployment, adapter: RedisSessionAdapter, operation: str, left: set[str]
) -> None:
    """Check that repeating the operation completes it and revives no session."""
    result = OPERATIONS[operation](adapter, "new")
    deployment.inspector.check_remains()
    found = whole(deployment.inspector)
    successors = {result.id} if isinstance(result, SessionRow | SessionRecord) else set[str]()
    assert found - {"lost"} == (AFTERWARDS[operation] | successors) - {"lost"}
    assert found >= successors
    assert found <= left | {"new"}
    assert operation != "renew" or successors


@pytest.mark.parametrize("place_name", ["redis"])
def test_control_separate_index_ttl_is_detected(deployment: Deployment) -> None:
    """Control: a login that sets the index's TTL in a separate command is found out."""
    with process_killer(deployment, "control") as kill:
        assert kill("create", 3, "before")
    assert deployment.inspector.census()["userSession:u1"].expires == -1
    with pytest.raises(AssertionError):
        deployment.inspector.check_remains()
