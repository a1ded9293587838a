"""Faults of the proxy as a plain client sees them: the control for all tests that use it."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.support.faulty_proxy import FaultyProxy, unanswered_port
from tools.servers import Server


@pytest.fixture(params=["to TCP", "to a unix socket"])
def proxy(request: pytest.FixtureRequest, redis_server: Server) -> Iterator[FaultyProxy]:
    target = redis_server.port if request.param == "to TCP" else redis_server.socket
    with FaultyProxy(target) as found:
        yield found


@pytest.fixture
def client(proxy: FaultyProxy) -> Iterator[Any]:
    """Yield a client that never retries, with one open connection."""
    once = Retry(NoBackoff(), 0)
    with redis.Redis(port=proxy.port, retry=once, single_connection_client=True) as found:
        assert found.ping()
        yield found


FAULTS = [FaultyProxy.reset, FaultyProxy.reset_late, FaultyProxy.half_close, FaultyProxy.cut]


@pytest.mark.parametrize("fault", FAULTS)
def test_breaks(fault: Callable[[FaultyProxy], None], proxy: FaultyProxy, client: Any) -> None:
    """The next command on a broken connection fails, and a new connection works."""
    fault(proxy)
    with pytest.raises(redis.ConnectionError):
        client.ping()
    assert client.ping()
    assert (proxy.accepted, proxy.open) == (2, 1)


def test_resets_with_rst(proxy: FaultyProxy) -> None:
    """A reset sends RST at once, and a late reset in reply to the next packet."""
    for late in (False, True):
        with socket.create_connection(("127.0.0.1", proxy.port)) as connection:
            connection.sendall(b"PING\r\n")
            assert connection.recv(99) == b"+PONG\r\n"
            (proxy.reset_late if late else proxy.reset)()
            if late:
                connection.settimeout(0.05)
                with pytest.raises(TimeoutError):
                    connection.recv(1)
                connection.settimeout(None)
                connection.sendall(b"PING\r\n")
            with pytest.raises(ConnectionResetError):
                connection.recv(1)
    assert proxy.resets == 2


def test_drops(proxy: FaultyProxy) -> None:
    """A connection that drops everything gets no replies and stays open."""
    with socket.create_connection(("127.0.0.1", proxy.port), 0.1) as connection:
        connection.sendall(b"PING\r\n")
        assert connection.recv(99) == b"+PONG\r\n"
        proxy.drop()
        connection.sendall(b"PING\r\n")
        with pytest.raises(TimeoutError):
            connection.recv(1)


def test_delays_and_holds(proxy: FaultyProxy, client: Any) -> None:
    """A delay applies in each direction, and held data arrives when it flows again."""
    proxy.delay = 0.05
    before = time.monotonic()
    assert client.ping()
    assert time.monotonic() - before >= 0.1
    proxy.delay = 0
    proxy.hold()
    threading.Timer(0.1, proxy.flow).start()
    assert client.ping()
    assert time.monotonic() - before >= 0.2


def test_answers_some_packets(proxy: FaultyProxy) -> None:
    """New connections get replies to a limited number of packets."""
    proxy.answered_packets = 1
    with socket.create_connection(("127.0.0.1", proxy.port), 0.1) as connection:
        connection.sendall(b"PING\r\n")
        assert connection.recv(99) == b"+PONG\r\n"
        connection.sendall(b"PING\r\n")
        with pytest.raises(TimeoutError):
            connection.recv(1)


def test_refuses(proxy: FaultyProxy) -> None:
    """New connections can be refused for a while."""
    proxy.refuse()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", proxy.port))
    proxy.accept()
    socket.create_connection(("127.0.0.1", proxy.port)).close()


def test_listens_on_a_unix_socket(redis_server: Server, tmp_path: Path) -> None:
    """The proxy can listen on a unix socket."""
    path = tmp_path / "proxy.sock"
    with FaultyProxy(redis_server.socket, path) as proxy:
        with redis.Redis(unix_socket_path=str(path)) as client:
            assert client.ping()
        assert proxy.accepted == 1


def test_unanswered_port() -> None:
    """A SYN packet gets no reply."""
    with unanswered_port() as port, pytest.raises(TimeoutError):
        socket.create_connection(("127.0.0.1", port), 0.1)
