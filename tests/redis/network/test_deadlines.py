"""One deadline covers a whole operation: waiting, connecting, replaying, sending and reading."""

import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import pytest
import redis.exceptions

from lucia.errors import StoreUnavailable
from lucia.models import SessionRow
from tests.support.callers import (
    FLAVOURS,
    Call,
    Caller,
    Timed,
    open_caller,
    read,
    timed,
    when_available,
)
from tests.support.faulty_proxy import FaultyProxy, unanswered_port
from tests.support.redis_inspectors import Inspector
from tests.support.replication import Pair, pair
from tests.support.sessions import row
from tools.servers import Cluster, Server, until

DEADLINE: Final = 1.0
MARGIN: Final = 1.0
"""Seconds allowed for a busy machine. With a deadline for each step, a call takes 2.5 s."""
SETTINGS: Final[dict[str, Any]] = {"deadline": timedelta(seconds=DEADLINE)}
REVOKED: Final = 10_000
CALLERS: Final = 16

slow = pytest.mark.slow

OUTAGE: Final = (StoreUnavailable, redis.exceptions.ConnectionError)


def assert_in_time(outcomes: Sequence[Timed]) -> None:
    """Check that each call returned or raised `StoreUnavailable` within the deadline."""
    assert max(each.seconds for each in outcomes) < DEADLINE + MARGIN
    errors = [each.outcome for each in outcomes if isinstance(each.outcome, BaseException)]
    assert [error for error in errors if not isinstance(error, OUTAGE)] == []


# Replaying revocations


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[Pair]:
    with pair("redis-server", tmp_path) as found:
        yield found


@slow
@pytest.mark.parametrize("flavour", ["threads", "asyncio", "asyncio, coalesce=False"])
def test_replay_over_a_slow_link(flavour: str, servers: Pair) -> None:
    """Calls keep their deadline while 10,000 revocations are replayed over a slow link.

    In the end all of them are replayed, and live sessions validate.
    """

    def connect(clients: Any) -> Any:
        return clients.make("redis-py as it is", servers.server())

    with (
        Inspector(servers.primary.server()) as inspector,
        open_caller(flavour, connect, **SETTINGS) as caller,
    ):
        ids = inspector.fill("revoked", REVOKED)
        (live,) = inspector.fill("live", 1)
        servers.settle()
        servers.link.hold()
        for first in range(0, REVOKED, 100):
            when_available(caller, [revoke(ids[first : first + 100])])
        servers.fail_over()
        servers.front.delay = 0.1
        calls = [timed(read(id_)) for id_ in [live, *ids[: CALLERS - 1]]]
        served: list[object] = []

        def is_served() -> bool:
            outcomes = caller.all(calls)
            assert_in_time(outcomes)
            assert not [each for each in outcomes[1:] if is_session(each)]
            served.append(is_session(outcomes[0]))
            return bool(served[-1])

        until(is_served, 60)
        servers.front.delay = 0
        until(lambda: servers.replica.client.dbsize() < 10, 10)


def revoke(session_ids: Sequence[str]) -> Call:
    return lambda adapter: adapter.delete_session(*session_ids)


def is_session(timed_call: Timed) -> bool:
    """Return whether a call returned a session."""
    return getattr(timed_call.outcome, "user_id", None) is not None


# Connecting


@pytest.fixture
def login(redis_server: Server) -> Iterator[dict[str, Any]]:
    """Yield options of a client whose connections need a handshake of several steps."""
    with Inspector(redis_server) as inspector:
        inspector.on_each("ACL", "SETUSER", "app", "reset", "on", ">pass", "~*", "+@all")
        yield {"username": "app", "password": "pass", "db": 1, "client_name": "app"}
        inspector.on_each("ACL", "DELUSER", "app")


def calls() -> list[Call]:
    """Return several logins and several reads."""
    logins = [log_in(row(f"new-{number}")) for number in range(4)]
    return [timed(call) for call in [*logins, *[read("nobody")] * 4]]


def log_in(session: SessionRow) -> Call:
    return lambda adapter: adapter.set_session(session)


def connecting(server: Server, login: dict[str, Any]) -> Callable[[Any], Any]:
    return lambda clients: clients.make("redis-py as it is", server, **login)


QUICK: Final = (("threads", None), ("threads", 3), ("threads", 4), ("asyncio", 3))


def case(flavour: str, answered: int | None) -> Any:
    return pytest.param(flavour, answered, marks=[] if (flavour, answered) in QUICK else slow)


CASES: Final = [case(flavour, answered) for flavour in FLAVOURS for answered in (None, 1, 2, 3, 4)]


@pytest.mark.parametrize(("flavour", "answered"), CASES)
def test_slow_handshake(
    flavour: str,
    answered: int | None,
    login: dict[str, Any],
    redis_server: Server,
) -> None:
    """A slow or unfinished handshake keeps the deadline.

    Control: without the fault all calls succeed.
    """
    with FaultyProxy(redis_server.port) as proxy:
        front = Server("redis", "127.0.0.1", proxy.port, redis_server.socket)
        connect = connecting(front, login)
        with open_caller(flavour, connect, **SETTINGS) as caller:
            proxy.delay, proxy.answered_packets = 0.25, answered
            outcomes = caller.all(calls())
            assert any(isinstance(each.outcome, Exception) for each in outcomes)
            assert_in_time(outcomes)
            proxy.cut()
            proxy.delay, proxy.answered_packets = 0, None
            until(lambda: all_succeed(caller), 10)


def all_succeed(caller: Caller) -> bool:
    return [each for each in caller.all(calls()) if each.outcome is not None] == []


@pytest.mark.parametrize("flavour", ["threads", "asyncio"])
def test_address_that_does_not_answer(flavour: str, login: dict[str, Any]) -> None:
    """Connecting to an address that drops SYN packets keeps the deadline."""
    with unanswered_port() as port:
        connect = connecting(Server("redis", "127.0.0.1", port, Path("/nowhere")), login)
        with open_caller(flavour, connect, **SETTINGS) as caller:
            outcomes = caller.all(calls())
    assert all(isinstance(each.outcome, StoreUnavailable) for each in outcomes)
    assert_in_time(outcomes)


@pytest.mark.parametrize("flavour", ["threads", "asyncio"])
@pytest.mark.parametrize("hangs", [True, False], ids=["hangs", "control"])
def test_name_server_that_hangs(
    flavour: str,
    hangs: bool,
    redis_server: Server,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Resolving the server's name keeps the deadline."""
    look_up = socket.getaddrinfo

    def look_up_late(*arguments: Any, **options: Any) -> Any:
        time.sleep(3 * DEADLINE if hangs else 0)
        return look_up(*arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", look_up_late)
    connect = connecting(Server("redis", "localhost", redis_server.port, redis_server.socket), {})
    with open_caller(flavour, connect, **SETTINGS) as caller:
        outcomes = caller.all([timed(read("nobody"))] * 4)
    failed = [isinstance(each.outcome, StoreUnavailable) for each in outcomes]
    assert failed == [hangs] * len(outcomes)
    assert_in_time(outcomes)


# Reading


@pytest.mark.parametrize("flavour", ["threads", "asyncio"])
def test_reply_in_pieces(flavour: str, redis_server: Server) -> None:
    """A reply that arrives byte by byte keeps the deadline.

    Control: a reply that arrives byte by byte in time is read.
    """
    with FaultyProxy(redis_server.port) as proxy, Inspector(redis_server) as inspector:
        (live,) = inspector.fill("live", 1)
        front = Server("redis", "127.0.0.1", proxy.port, redis_server.socket)

        def connect(clients: Any) -> Any:
            return clients.make("redis-py as it is", front)

        with open_caller(flavour, connect, **SETTINGS) as caller:
            until(lambda: all_succeed(caller), 10)
            proxy.trickle = 0.001
            (in_time,) = caller.all([timed(read(live))])
            proxy.trickle = 0.1
            (late,) = caller.all([timed(read(live))])
    assert is_session(in_time)
    assert isinstance(late.outcome, StoreUnavailable)
    assert_in_time([in_time, late])


@pytest.mark.parametrize("flavour", ["threads", "asyncio", "asyncio, coalesce=False"])
@pytest.mark.parametrize("delay", [0.25, 0.05], ids=["slow", "control"])
def test_several_keys_of_a_session_in_a_cluster(
    flavour: str, delay: float, cluster: Cluster
) -> None:
    """The reads of all keys that a session may be at have one deadline.

    With two ``id_keys`` there are three keys, which a cluster is asked for one after another. Two
    replies from a slow network arrive within the deadline, the third one does not.

    Control: three fast ones do.
    """
    keys = [bytes([number]) * 32 for number in (1, 2)]
    with ExitStack() as stack:
        links = {port: stack.enter_context(FaultyProxy(port)) for port in cluster.ports}

        def reach(address: tuple[str, int]) -> tuple[str, int]:
            link = links.get(address[1])
            return address if link is None else (address[0], link.port)

        def connect(clients: Any) -> Any:
            return clients.of_cluster("redis", cluster, address_remap=reach)

        caller = stack.enter_context(open_caller(flavour, connect, id_keys=keys, **SETTINGS))
        warm_up = [timed(read(f"nobody-{number}")) for number in range(10)]
        assert [each.outcome for each in caller.all(warm_up)] == [None] * 10
        for link in links.values():
            link.delay = delay
        (found,) = caller.all([timed(read("nobody"))])
        for link in links.values():
            link.delay = 0
    assert isinstance(found.outcome, StoreUnavailable) == (delay > 0.1)
    assert_in_time([found])
