"""Start Redis and Valkey servers and clusters for the tests and the benchmark.

They listen on free ports of the loopback interface.
"""

import random
import shutil
import subprocess
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from socket import socket
from typing import Any, Final, Literal

import redis

__all__ = [
    "Cluster",
    "Server",
    "own_cluster",
    "own_server",
    "path_of",
    "running",
    "until",
    "unused_node_port",
    "unused_port",
]

Kind = Literal["redis", "valkey"]

BUS_OFFSET: Final = 10_000
"""How far above its port a node has its cluster bus."""

NODE_PORTS: Final = range(20_000, 32_767 - BUS_OFFSET)
"""Both ports are below those that systems use for outgoing connections."""

PATIENCE: Final = 60.0
"""How many seconds a server or a cluster may take to start."""


@dataclass(frozen=True)
class Server:
    """A running server that belongs to this process alone, so that it may be flushed.

    Args:
        kind: the program.
        socket: the path of its unix socket.
    """

    kind: Kind
    host: str
    port: int
    socket: Path

    @property
    def url(self) -> str:
        """The URL for ``from_url`` of a Redis client."""
        return f"redis://{self.host}:{self.port}"

    @property
    def ports(self) -> tuple[int]:
        """The port, as an attribute that a cluster has too."""
        return (self.port,)

    def flush(self) -> None:
        """Delete all keys."""
        with _client(self.port) as client:
            client.flushall()


@dataclass(frozen=True)
class Cluster:
    """A running cluster of three nodes without replicas, which belongs to this process alone."""

    ports: tuple[int, ...]

    def on_each(self, *command: str) -> None:
        """Run a command on each node."""
        for port in self.ports:
            with _client(port) as client:
                client.execute_command(*command)

    def flush(self) -> None:
        """Delete all keys of all nodes."""
        self.on_each("FLUSHALL")

    @property
    def url(self) -> str:
        """The URL of the first node, for ``from_url`` of a cluster client."""
        return f"redis://127.0.0.1:{self.ports[0]}"


BACKLOG: Final = "4096"
"""More connections than the benchmark opens at once. With fewer places, some wait for seconds.

The kernel lowers it to ``net.core.somaxconn``."""

MANY: Final = "30000"
"""The limit of connections of a server: more than the benchmark opens.

A server lowers it to what the limit of open files allows.
"""


def path_of(program: str) -> str:
    """Return the path of a program, or its name if it is missing: then starting it fails."""
    return shutil.which(program) or program


@contextmanager
def own_server(program: str, folder: Path, *options: str) -> Generator[Server]:
    """Start a server with command line options, and yield it.

    Args:
        program: ``redis-server`` or ``valkey-server``, or its path.
        folder: the folder in which it writes.
        options: the options of its command line.
    """
    port = unused_port()
    path = folder / f"{port}.sock"
    with running(
        program,
        *options,
        "--port",
        str(port),
        "--dir",
        str(folder),
        "--save",
        "",
        "--maxclients",
        MANY,
        "--tcp-backlog",
        BACKLOG,
        "--unixsocket",
        str(path),
    ):
        until(partial(_answers, port), PATIENCE)
        yield Server(
            "redis" if Path(program).name.startswith("redis") else "valkey", "127.0.0.1", port, path
        )


@contextmanager
def own_cluster(folder: Path) -> Generator[Cluster]:
    """Start a cluster of three primaries, each with a third of the slots, and yield it."""
    ports = [unused_node_port() for _ in range(3)]
    with ExitStack() as stack:
        for port in ports:
            own = folder / f"node-{port}"
            own.mkdir()
            options = {
                "port": port,
                "bind": "127.0.0.1",
                "dir": own,
                "save": "",
                "cluster-enabled": "yes",
                "logfile": own / "log",
            }
            options |= {"maxclients": MANY, "tcp-backlog": BACKLOG}
            stack.enter_context(
                running(
                    "redis-server",
                    *(
                        word
                        for name, value in options.items()
                        for word in (f"--{name}", str(value))
                    ),
                )
            )
        _join(ports)
        yield Cluster(tuple(ports))


@contextmanager
def running(*command: str) -> Generator[None]:
    """Run a program during the block, without its output."""
    words = [path_of(command[0]), *command[1:]]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL)  # noqa: S603 # the caller's own
    try:
        yield
    finally:
        process.terminate()
        process.wait()


def until(holds: Callable[[], object], seconds: float = 15) -> None:
    """Wait until a condition holds.

    Raises:
        TimeoutError: it did not hold in time.
    """
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            raise TimeoutError(holds)
        time.sleep(0.005)


def unused_port() -> int:
    """Return a port on which nobody listens."""
    with socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def unused_node_port() -> int:
    """Return a port for a node of a cluster, which no other process is given.

    Nobody listens on it, nor on the port of its cluster bus. A node takes a while until it listens,
    and test processes start clusters at the same time: so this process keeps the port that is as
    far below as the bus is above, as a reservation.
    """
    while True:
        port = random.choice(NODE_PORTS)  # noqa: S311 # a port is no secret
        if (
            _is_free(port)
            and _is_free(port + BUS_OFFSET)
            and _is_free(port - BUS_OFFSET, keep=True)
        ):
            return port


def _is_free(port: int, *, keep: bool = False) -> bool:
    """Return whether a port is free; with ``keep``, this process keeps it until it ends."""
    with socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        if keep:
            probe.detach()  # stays open
    return True


def _join(ports: Sequence[int]) -> None:
    """Assign the slots, introduce the nodes to each other, and wait until all agree."""
    bounds = [16_384 * number // len(ports) for number in range(len(ports) + 1)]
    for number, port in enumerate(ports):
        until(partial(_answers, port), PATIENCE)
        with _client(port) as client:
            client.execute_command("CLUSTER ADDSLOTSRANGE", bounds[number], bounds[number + 1] - 1)
            client.execute_command("CLUSTER MEET", "127.0.0.1", ports[0])
    for port in ports:
        until(partial(_agrees, port, len(ports)), PATIENCE)


def _agrees(port: int, nodes: int) -> bool:
    """Return whether a node knows all others and reports that all slots are served."""
    with _client(port) as client:
        info: dict[str, str] = client.execute_command("CLUSTER INFO")
    return info["cluster_state"] == "ok" and info["cluster_known_nodes"] == str(nodes)


def _answers(port: int) -> bool:
    with _client(port) as client:
        try:
            return bool(client.ping())
        except redis.ConnectionError:
            return False


def _client(port: int) -> Any:
    return redis.Redis(port=port, protocol=2)
