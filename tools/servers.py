"""Starts Redis and Valkey servers and clusters for the tests and the benchmark, on free ports of this machine alone."""

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
"""How far above its port a node listens to the other nodes."""

NODE_PORTS: Final = range(20_000, 32_767 - BUS_OFFSET)
"""Both are below those that systems give to outgoing connections, which come and go."""

PATIENCE: Final = 60.0
"""Seconds after which a server or a cluster that did not come up is an error."""


@dataclass(frozen=True)
class Server:
    """A running server that belongs to this process alone, so that it may be flushed.

    Args:
        kind: which program it is.
        socket: its unix socket.
    """

    kind: Kind
    host: str
    port: int
    socket: Path

    @property
    def url(self) -> str:
        """What ``from_url`` of a Redis client takes."""
        return f"redis://{self.host}:{self.port}"

    @property
    def ports(self) -> tuple[int]:
        """As a cluster has them."""
        return (self.port,)

    def flush(self) -> None:
        """Empty it."""
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
        """Empty all nodes."""
        self.on_each("FLUSHALL")

    @property
    def url(self) -> str:
        """What ``from_url`` of a cluster client takes: its first node."""
        return f"redis://127.0.0.1:{self.ports[0]}"


MANY: Final = "30000"
"""How many connections a server takes: more than the benchmark has; fewer where a process may not have as many files."""


def path_of(program: str) -> str:
    """Where the program is; its bare name if it is nowhere, so that starting it fails with it."""
    return shutil.which(program) or program


@contextmanager
def own_server(program: str, folder: Path, *options: str) -> Generator[Server]:
    """A server with options that can only be given when it starts.

    Args:
        program: ``redis-server`` or ``valkey-server``, or where it is.
        folder: where it writes.
        options: as in its command line.
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
        "--unixsocket",
        str(path),
    ):
        until(partial(_answers, port), PATIENCE)
        yield Server(
            "redis" if Path(program).name.startswith("redis") else "valkey", "127.0.0.1", port, path
        )


@contextmanager
def own_cluster(folder: Path) -> Generator[Cluster]:
    """Three nodes of ``redis-server``, each with a third of the slots."""
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
            options["maxclients"] = MANY
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
    """A program that runs meanwhile, and says nothing."""
    process = subprocess.Popen([path_of(command[0]), *command[1:]], stdout=subprocess.DEVNULL)  # noqa: S603 # the caller's own
    try:
        yield
    finally:
        process.terminate()
        process.wait()


def until(holds: Callable[[], object], seconds: float = 15) -> None:
    """Wait until it holds.

    Raises:
        TimeoutError: it does not come to hold.
    """
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            raise TimeoutError(holds)
        time.sleep(0.005)


def unused_port() -> int:
    """A port that nobody listens on."""
    with socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def unused_node_port() -> int:
    """A port for a cluster's node: nobody listens on it, nor on the one for the other nodes, and nobody else is given it.

    A node takes a while to listen, and processes start clusters side by side: so for each node port the one as far below is kept.
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
    """Whether a port can be had; with ``keep``, this process has it then as long as it runs."""
    with socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        if keep:
            probe.detach()  # stays open
    return True


def _join(ports: Sequence[int]) -> None:
    """Give each node its slots, introduce the nodes to the first, and wait until all agree."""
    bounds = [16_384 * number // len(ports) for number in range(len(ports) + 1)]
    for number, port in enumerate(ports):
        until(partial(_answers, port), PATIENCE)
        with _client(port) as client:
            client.execute_command("CLUSTER ADDSLOTSRANGE", bounds[number], bounds[number + 1] - 1)
            client.execute_command("CLUSTER MEET", "127.0.0.1", ports[0])
    for port in ports:
        until(partial(_agrees, port, len(ports)), PATIENCE)


def _agrees(port: int, nodes: int) -> bool:
    """Whether a node knows all others and all slots are served."""
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
