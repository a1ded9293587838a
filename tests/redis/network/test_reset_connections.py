"""Reset, closed or silenced idle connections fail no request, in every topology."""

from collections.abc import Callable, Iterator
from datetime import timedelta
from itertools import count
from typing import Any, Final

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from lucia._redis.transport import settings as connection_settings
from lucia._redis.transport.connections import AsyncServer, Server
from tests.redis.network.topologies import TOPOLOGIES, Topology, open_topology
from tests.support.callers import (
    ASYNC_FLAVOURS,
    FLAVOURS,
    Call,
    Caller,
    failures,
    foreign,
    open_caller,
    read,
    some_slow,
)
from tests.support.faulty_proxy import FaultyProxy
from tests.support.sessions import row
from tools.servers import until

pytestmark = pytest.mark.no_cover

REQUESTS: Final = 64
MANY: Final = 512

LOCAL_FAULTS: Final = {
    "reset": FaultyProxy.reset,
    "half-closed": FaultyProxy.half_close,
    "closed": FaultyProxy.cut,
}
"""Faults that the client's operating system notices before the next command."""

_NUMBERS: Final = count()


QUICK_TOPOLOGIES: Final = ("TCP", "TLS", "Sentinel", "cluster", "near-cache")


@pytest.fixture(scope="module", params=some_slow(TOPOLOGIES, QUICK_TOPOLOGIES))
def topology(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Topology]:
    """Yield servers behind proxies, with sessions to read."""
    folder = tmp_path_factory.mktemp("topology")
    with open_topology(request.param, request, folder) as found:
        found.inspector.fill("reader", MANY)
        yield found


@pytest.fixture(params=some_slow(FLAVOURS, ("threads", "asyncio")))
def flavour(request: pytest.FixtureRequest, topology: Topology) -> str:
    """Return a way to call the adapter. The near-cache has only async ones."""
    if topology.settings and request.param not in ASYNC_FLAVOURS:
        pytest.skip("the near-cache has no sync flavour")
    return str(request.param)


@pytest.fixture
def caller(flavour: str, topology: Topology) -> Iterator[Caller]:
    """Yield a caller whose adapter has idle connections."""
    with open_caller(flavour, topology.connect(), **topology.settings) as found:
        warm_up(found)
        yield found


def reads(number: int = REQUESTS) -> list[Call]:
    return [read(f"reader-{each}") for each in range(number)]


def creates() -> list[Call]:
    return [create(f"new-{next(_NUMBERS)}") for _ in range(REQUESTS)]


def create(session_id: str) -> Call:
    session = row(session_id, f"user-of-{session_id}")
    return lambda adapter: adapter.set_session(session)


def warm_up(caller: Caller) -> None:
    """Open connections for reads and writes, and leave them idle."""
    for calls in (reads(), creates()):
        assert failures(caller.all(calls)) == {}


def all_alive(outcomes: list[Any]) -> bool:
    return [each.id for each in outcomes] == [f"reader-{n}" for n in range(len(outcomes))]


@pytest.mark.parametrize("noticed", [False, True], ids=["at once", "noticed"])
@pytest.mark.parametrize("fault", some_slow(LOCAL_FAULTS, ("reset",)))
def test_broken_while_idle(fault: str, noticed: bool, caller: Caller, topology: Topology) -> None:
    """After all idle connections were broken, no read and no create fails."""
    for calls in (reads(), creates()):
        assert topology.break_all(LOCAL_FAULTS[fault]) > 0
        caller.rest(0.02 if noticed else 0)
        assert failures(caller.all(calls)) == {}
    assert all_alive(caller.all(reads()))


def test_reset_by_the_next_packet(caller: Caller, topology: Topology) -> None:
    """If RST answers the next packet on each idle connection, no read fails.

    There are fewer reads than connections, so a retry could get another old connection.
    """
    before = sum(proxy.resets for proxy in topology.proxies)
    for number in (REQUESTS // 4, REQUESTS):
        assert topology.break_all(FaultyProxy.reset_late) > 0
        outcomes = caller.all(reads(number))
        assert failures(outcomes) == {}
        assert all_alive(outcomes)
    assert sum(proxy.resets for proxy in topology.proxies) > before


@pytest.mark.parametrize("topology", ["TCP"], indirect=True)
@pytest.mark.parametrize("flavour", ["threads", "asyncio, coalesce=False"])
def test_retry_meets_no_other_old_connection(
    caller: Caller,
    topology: Topology,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A retry uses a fresh connection even if the old ones were not closed."""

    async def keep(*_: Any, **__: Any) -> None:
        pass

    monkeypatch.setattr(AsyncServer, "_lose", keep)
    monkeypatch.setattr(Server, "_lose", lambda *_, **__: None)
    assert topology.break_all(FaultyProxy.reset_late) > 1
    outcomes = caller.all(reads(1))
    assert all_alive(outcomes)


def test_create_after_a_long_pause(
    caller: Caller,
    topology: Topology,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A create checks a connection that was idle for long, so a late reset costs no reply."""
    monkeypatch.setattr(connection_settings, "IDLE_CHECK_SECONDS", 0.05, raising=False)
    assert topology.break_all(FaultyProxy.reset_late) > 0
    caller.rest(0.1)
    assert failures(caller.all(creates())) == {}


def test_create_after_a_short_pause(caller: Caller, topology: Topology) -> None:
    """A create whose reply is lost raises an ambiguous error, and no other error is raised."""
    topology.break_all(FaultyProxy.reset_late)
    calls = creates()
    assert foreign(caller.all(calls)) == {}
    until(lambda: not failures(caller.all(calls)), 10)  # repeating the same create is no error


@pytest.mark.parametrize("late", [False, True], ids=["reset", "reset late"])
def test_many_requests_over_four_connections(late: bool, flavour: str, topology: Topology) -> None:
    """Of 512 reads over four connections that were reset, none fails."""
    connect = topology.connect(max_connections=4)
    with open_caller(flavour, connect, **topology.settings) as caller:
        warm_up(caller)
        topology.break_all(FaultyProxy.reset_late if late else FaultyProxy.reset)
        caller.rest(0.02)
        outcomes = caller.all(reads(MANY))
    assert failures(outcomes) == {}
    assert all_alive(outcomes)


@pytest.mark.parametrize("topology", ["TCP", "cluster", "near-cache"], indirect=True)
def test_silenced_while_idle(flavour: str, topology: Topology) -> None:
    """Idle connections that drop everything cost at most one deadline, not one each."""
    deadline = timedelta(seconds=1.5)
    with open_caller(flavour, topology.connect(), deadline=deadline, **topology.settings) as caller:
        warm_up(caller)
        topology.break_all(FaultyProxy.drop)
        assert foreign(caller.all(reads())) == {}
        assert failures(caller.all(reads())) == {}


@pytest.mark.parametrize("topology", ["TCP"], indirect=True)
@pytest.mark.parametrize("fault", [*LOCAL_FAULTS.values(), FaultyProxy.reset_late])
def test_control_plain_client_fails_after_reset(
    fault: Callable[[FaultyProxy], None], topology: Topology
) -> None:
    """Control: a plain client with an idle connection and without retries fails."""
    once = Retry(NoBackoff(), 0)
    port = topology.proxies[0].port
    with redis.Redis(port=port, retry=once, single_connection_client=True) as client:
        assert client.ping()
        assert topology.break_all(fault) == 1
        with pytest.raises(redis.ConnectionError):
            client.ping()
