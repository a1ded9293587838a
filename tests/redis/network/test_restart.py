"""Restarts from an older snapshot, and a server that is busy for a moment."""

import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import pytest
import redis

from lucia.errors import StoreUnavailable
from tests.redis.network.failovers import Load
from tests.support.callers import failures, open_caller, read, some_slow
from tests.support.redis_inspectors import Inspector
from tests.support.replication import Node
from tools.servers import Server, until

pytestmark = pytest.mark.no_cover

LOADS_SLOWLY: Final = (
    *("--key-load-delay", "2000"),  # in microseconds
    *("--loading-process-events-interval-bytes", "1024"),
)

NEAR_CACHE: Final = {"near_cache": timedelta(seconds=1)}

CASES: Final = {
    "threads": ("threads", {}),
    "asyncio": ("asyncio", {}),
    "asyncio, coalesce=False": ("asyncio, coalesce=False", {}),
    "near-cache": ("asyncio", NEAR_CACHE),
}


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    found = Node("redis-server", tmp_path, *LOADS_SLOWLY)
    yield found
    found.close()


@pytest.fixture
def inspector(node: Node) -> Iterator[Inspector]:
    with Inspector(node.server()) as found:
        yield found


@pytest.mark.parametrize("case", some_slow(CASES, ("threads", "asyncio")))
def test_restart_from_an_older_snapshot(case: str, node: Node, inspector: Inspector) -> None:
    """No revoked session validates while a server loads an older snapshot, or after.

    Control: in a process that did not revoke them, the sessions are alive.
    """
    flavour, settings = CASES[case]
    load = Load(inspector.fill("live", 20), inspector.fill("revoked", 600))
    node.client.save()

    def connect(clients: Any) -> Any:
        return clients.make("redis-py as it is", node.server())

    with (
        open_caller(flavour, connect, **settings) as caller,
        open_caller("threads", connect) as control,
    ):
        load.revoke(caller)

        def restart() -> None:
            node.kill()
            node.restart()
            time.sleep(1.5)

        for outcomes in caller.all_until(load.reads(200), restart):
            load.assert_all_revoked(outcomes)
        assert refused_replays(node)
        load.assert_all_revoked(caller.all(load.reads()))
        node.kill()
        node.restart()
        assert load.wrong(control.all(load.reads(200))) == 100


def refused_replays(node: Node) -> int:
    """Return how many of the caller's replays a node refused, since it loaded its data."""
    refused: int = node.client.info("commandstats")["cmdstat_evalsha"]["rejected_calls"]
    return refused


# Busy


@pytest.mark.parametrize("busy", [True, False], ids=["busy", "control"])
def test_busy_when_tracking_begins(busy: bool, redis_server: Server) -> None:
    """A server that is busy when the near-cache connects turns it off only briefly."""
    with Inspector(redis_server) as look:
        (session_id,) = look.fill("reader", 1)

        def connect(clients: Any) -> Any:
            return clients.make("redis-py as it is", redis_server)

        def is_cached() -> bool:
            before = look.calls("mget")
            outcomes = [outcome for _ in range(20) for outcome in caller.all([read(session_id)])]
            return not failures(outcomes) and look.calls("mget") - before < 10

        with open_caller("asyncio", connect, **NEAR_CACHE) as caller:
            caller.all([read("nobody")])  # the next read opens the tracking connection
            if busy:
                with Busy(look):
                    for _ in range(3):
                        caller.all([read(session_id)])
            until(is_cached, 8)


@pytest.mark.parametrize("flavour", ["asyncio", "threads"])
def test_busy_is_an_outage(flavour: str, redis_server: Server) -> None:
    """While a server is busy, requests raise `StoreUnavailable`; afterwards they succeed."""
    with Inspector(redis_server) as look:
        (session_id,) = look.fill("reader", 1)

        def connect(clients: Any) -> Any:
            return clients.make("redis-py as it is", redis_server)

        with open_caller(flavour, connect) as caller:
            assert not failures(caller.all([read(session_id)]))
            with Busy(look, seconds=2):
                (error,) = caller.all([read(session_id)])
            assert isinstance(error, StoreUnavailable)
            assert str(error.__cause__).startswith("BUSY ")
            assert not failures(caller.all([read(session_id)]))


class Busy:
    """A server that runs an endless script for a moment and answers BUSY."""

    def __init__(self, inspector: Inspector, seconds: float = 0.3) -> None:
        self._seconds = seconds
        self._client = inspector.client
        self._server = inspector.server
        self._before = self._client.config_get("busy-reply-threshold")
        self._script = threading.Thread(target=self._run)

    def __enter__(self) -> None:
        self._client.config_set("busy-reply-threshold", 5)
        self._script.start()
        until(self._is_busy)
        threading.Timer(self._seconds, self._kill).start()

    def __exit__(self, *_: object) -> None:
        self._script.join()
        self._client.config_set("busy-reply-threshold", self._before["busy-reply-threshold"])

    def _run(self) -> None:
        with redis.Redis(port=self._server.port) as client, suppress(redis.ResponseError):
            client.eval("while true do end", 0)

    def _is_busy(self) -> bool:
        try:
            self._client.ping()
        except redis.ResponseError:
            return True
        return False

    def _kill(self) -> None:
        # redis-py repeats a command whose reply is late; the script has ended then.
        with suppress(redis.ResponseError):
            self._client.execute_command("SCRIPT", "KILL")
