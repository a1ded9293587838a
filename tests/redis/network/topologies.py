"""Servers of each topology, behind proxies that can break connections."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import pytest
import redis

from tests.support.faulty_proxy import FaultyProxy
from tests.support.redis_inspectors import ClusterInspector, Inspector
from tests.support.redis_servers import tls_server, without_tls
from tests.support.sentinels import own_sentinel
from tools.servers import Cluster, Server, own_server, until

__all__ = ["TOPOLOGIES", "Topology", "open_topology"]

TOPOLOGIES: Final = ("TCP", "valkey-py", "TLS", "unix socket", "Sentinel", "cluster", "near-cache")


@dataclass(frozen=True)
class Topology:
    """Servers behind proxies.

    Args:
        proxies: in front of all servers, and of Sentinel.
        inspector: connects to the servers directly.
        make: makes a client of ``Clients`` or ``AsyncClients``, as a context manager.
        settings: options of the adapter.
    """

    proxies: list[FaultyProxy]
    inspector: Inspector
    make: Callable[..., Any]
    settings: dict[str, Any] = field(default_factory=dict[str, Any])

    def connect(self, **options: Any) -> Callable[[Any], Any]:
        """Return a function that makes a client with these options."""
        return lambda clients: self.make(clients, **options)

    def break_all(self, fault: Callable[[FaultyProxy], None]) -> int:
        """Break all open connections, and return how many there were."""
        count = sum(proxy.open for proxy in self.proxies)
        for proxy in self.proxies:
            fault(proxy)
        return count


@contextmanager
def open_topology(name: str, request: pytest.FixtureRequest, folder: Path) -> Iterator[Topology]:
    """Start servers, or empty those that tests share."""
    with ExitStack() as stack:
        if name == "cluster":
            found = _cluster(stack, request.getfixturevalue("cluster"))
        elif name == "Sentinel":
            found = _sentinel(stack, folder)
        else:
            found = _one_server(stack, name, request.getfixturevalue("redis_server"), folder)
        stack.enter_context(found.inspector)
        yield found


def _one_server(stack: ExitStack, name: str, server: Server, folder: Path) -> Topology:
    kind, options, settings = "redis-py as it is", dict[str, Any](), dict[str, Any]()
    target: int | Path = server.port
    listen: Path | None = None
    if name == "TLS":
        secured, certificate = stack.enter_context(tls_server(folder))
        server, target = without_tls(secured), secured.port
        options = {"ssl": True, "ssl_ca_certs": str(certificate), "max_connections": 8}
    elif name == "unix socket":
        kind, target, listen = "redis-py, unix socket", server.socket, folder / "proxy.sock"
    elif name == "valkey-py":
        kind = "valkey-py as it is"
    elif name == "near-cache":
        settings = {"near_cache": timedelta(seconds=1)}
    proxy = stack.enter_context(FaultyProxy(target, listen))
    front = Server("redis", "127.0.0.1", proxy.port, listen or server.socket)

    def make(clients: Any, **more: Any) -> Any:
        return clients.make(kind, front, **{**options, **more})

    return Topology([proxy], Inspector(server), make, settings)


@dataclass(frozen=True)
class _Watched:
    """A primary that a Sentinel watches, both behind proxies."""

    sentinels: list[tuple[str, int]]
    library: str = "redis"
    name: str = "sessions"


def _sentinel(stack: ExitStack, folder: Path) -> Topology:
    server = stack.enter_context(own_server("redis-server", folder))
    front = stack.enter_context(FaultyProxy(server.port))
    settings = folder / "sentinel.conf"
    monitor = f"sentinel monitor sessions 127.0.0.1 {front.port} 1\n"
    settings.write_text(f"{monitor}sentinel down-after-milliseconds sessions 60000\n")
    port = stack.enter_context(own_sentinel("redis-server", settings))
    before_sentinel = stack.enter_context(FaultyProxy(port))
    group = _Watched([("127.0.0.1", before_sentinel.port)])
    client: Any
    with redis.Redis(port=port, decode_responses=True) as client:
        until(lambda: client.sentinel_master("sessions")["flags"] == "master")

    def make(clients: Any, **more: Any) -> Any:
        return clients.behind_sentinel(group, **more)

    return Topology([front, before_sentinel], Inspector(server), make)


def _cluster(stack: ExitStack, cluster: Cluster) -> Topology:
    proxies = {port: stack.enter_context(FaultyProxy(port)) for port in cluster.ports}
    fronts = Cluster(tuple(proxy.port for proxy in proxies.values()))

    def remap(address: tuple[str, int]) -> tuple[str, int]:
        host, port = address
        return host, proxies[port].port if port in proxies else port

    def make(clients: Any, **more: Any) -> Any:
        return clients.of_cluster("redis", fronts, address_remap=remap, **more)

    return Topology(list(proxies.values()), ClusterInspector(cluster), make)
