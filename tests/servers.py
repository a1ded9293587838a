"""Real servers for the tests, one of each kind for a test process, on free ports: a pytest plugin.

A server that is not installed is an error, never a skip.
"""

import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import pytest
import redis
from port_for import get_port, is_available
from pytest_redis import factories
from pytest_redis.executor import RedisExecutor

__all__ = ["Cluster", "Server", "cluster", "old_redis_server", "redis_server", "server", "valkey_server"]

BUS_OFFSET = 10_000
"""How far above its port a node listens to the other nodes."""

NODE_PORTS = (20_000, 32_767 - BUS_OFFSET)
"""Both are below those that systems give to outgoing connections, which come and go."""

PATIENCE = 60.0
"""Seconds after which a cluster that did not come up is an error."""


@dataclass(frozen=True)
class Server:
    """A running server that belongs to this test process alone, so that a test may flush it.

    Args:
        kind: which program it is.
        socket: its unix socket.
    """

    kind: Literal["redis", "valkey"]
    host: str
    port: int
    socket: Path

    @property
    def url(self) -> str:
        """What ``from_url`` of a Redis client takes."""
        return f"redis://{self.host}:{self.port}"

    @classmethod
    def of(cls, kind: Literal["redis", "valkey"], process: RedisExecutor) -> "Server":
        return cls(kind, str(process.host), int(process.port), Path(process.unixsocket))


def _path(program: str) -> str:
    """Where the program is; its bare name if it is nowhere, so that the fixture fails with it."""
    return shutil.which(program) or program


redis_process = factories.redis_proc(executable=_path("redis-server"))
old_redis_process = factories.redis_proc(executable=str(Path(sys.prefix, "bin", "redis-server-6.2")))
valkey_process = factories.redis_proc(executable=_path("valkey-server"))


@pytest.fixture(scope="session")
def redis_server(redis_process: RedisExecutor) -> Server:
    """A running ``redis-server``."""
    return Server.of("redis", redis_process)


@pytest.fixture(scope="session")
def old_redis_server(old_redis_process: RedisExecutor) -> Server:
    """A running ``redis-server`` 6.2, which ``scripts/setup`` installs beside the interpreter."""
    return Server.of("redis", old_redis_process)


@pytest.fixture(scope="session")
def valkey_server(valkey_process: RedisExecutor) -> Server:
    """A running ``valkey-server``."""
    return Server.of("valkey", valkey_process)


@pytest.fixture(scope="session", params=["redis", "valkey"])
def server(request: pytest.FixtureRequest) -> Server:
    """Each kind of server in turn; ``parametrize`` it with ``old_redis`` for Redis 6.2."""
    found: Server = request.getfixturevalue(f"{request.param}_server")
    return found


@pytest.fixture(params=[False, True], ids=["bytes", "str"])
def decode_responses(request: pytest.FixtureRequest) -> bool:
    """Both ways a client may give its answers; ``parametrize`` it to have one."""
    return bool(request.param)


@dataclass(frozen=True)
class Cluster:
    """A running cluster of three nodes without replicas, which belongs to this test process alone."""

    ports: tuple[int, ...]

    def on_each(self, *command: str) -> None:
        """Run a command on each node."""
        for port in self.ports:
            client: Any = redis.Redis(port=port, protocol=2)
            with client:
                client.execute_command(*command)

    @property
    def url(self) -> str:
        """What ``from_url`` of a cluster client takes: its first node."""
        return f"redis://127.0.0.1:{self.ports[0]}"


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Three nodes of ``redis-server``, each with a third of the slots."""
    ports: list[int] = []
    while len(ports) < 3:
        if (port := get_port(NODE_PORTS, ports)) is not None and is_available(port + BUS_OFFSET):
            ports.append(port)
    nodes = [_start_node(port, tmp_path_factory.mktemp(f"node-{port}")) for port in ports]
    try:
        _join(ports)
        yield Cluster(tuple(ports))
    finally:
        for node in nodes:
            node.terminate()
            node.wait()


def _start_node(port: int, folder: Path) -> "subprocess.Popen[bytes]":
    options = {"port": port, "bind": "127.0.0.1", "dir": folder, "save": "", "cluster-enabled": "yes", "logfile": folder / "log"}
    arguments = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    return subprocess.Popen([_path("redis-server"), *arguments])


def _join(ports: list[int]) -> None:
    """Give each node its slots, introduce the nodes to the first, and wait until all agree."""
    clients: list[Any] = [redis.Redis(port=port, protocol=2) for port in ports]
    bounds = [16_384 * number // len(ports) for number in range(len(ports) + 1)]
    for number, client in enumerate(clients):
        _eventually(client.ping)
        client.execute_command("CLUSTER ADDSLOTSRANGE", bounds[number], bounds[number + 1] - 1)
        client.execute_command("CLUSTER MEET", "127.0.0.1", ports[0])
    for client in clients:
        _eventually(partial(_agrees, client, len(ports)))
        client.close()


def _agrees(client: Any, nodes: int) -> bool:
    """Whether a node knows all others and all slots are served."""
    info: dict[str, str] = client.execute_command("CLUSTER INFO")
    return info["cluster_state"] == "ok" and info["cluster_known_nodes"] == str(nodes)


def _eventually(holds: Callable[[], object]) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            if holds():
                return
        except redis.ConnectionError:
            pass
        if time.monotonic() > deadline:
            raise TimeoutError("the cluster did not come up")
        time.sleep(0.05)
