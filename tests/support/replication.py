"""Servers that can be killed, frozen and restarted, and pairs of a primary and its replica."""

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import redis

from tests.support.faulty_proxy import FaultyProxy
from tools.servers import Server, until, unused_port

__all__ = ["Node", "Pair", "closing", "pair", "until_replicated"]

_AT_ONCE: Final = ("--repl-diskless-sync-delay", "0", "--repl-ping-replica-period", "1")


class Node:
    """A server process that keeps its port when it is restarted."""

    def __init__(self, program: str, folder: Path, *options: str, port: int | None = None) -> None:
        self.port = unused_port() if port is None else port
        self._folder = folder / str(self.port)
        self._folder.mkdir()
        place = (
            "--port",
            str(self.port),
            "--bind",
            "127.0.0.1",
            "--dir",
            str(self._folder),
            "--save",
            "",
        )
        self._command = (program, *place, *_AT_ONCE, *options)
        self.client: Any = redis.Redis(port=self.port, protocol=2)
        self._process = self._started()

    def _started(self) -> "subprocess.Popen[bytes]":
        process = subprocess.Popen(
            self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        until(self.answers)
        return process

    def answers(self) -> bool:
        """Return whether the server runs and has loaded its data."""
        try:
            return bool(self.client.ping())
        except redis.ConnectionError:  # includes BusyLoadingError
            return False

    def server(self, library: str = "redis") -> Server:
        """Return the node as a :class:`Server`."""
        return Server(
            "valkey" if library == "valkey" else "redis", "127.0.0.1", self.port, Path("/nowhere")
        )

    def kill(self) -> None:
        """Kill the process with SIGKILL, so that it writes and sends nothing more."""
        self._process.kill()
        self._process.wait()

    def restart(self) -> None:
        """Restart the process with the data on its disk."""
        self._process = self._started()

    def freeze(self) -> None:
        """Stop the process: its connections stay open and nothing replies."""
        os.kill(self._process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Continue the process."""
        os.kill(self._process.pid, signal.SIGCONT)

    def sets(self) -> set[str]:
        """Return the names of the node's keys."""
        return {key.decode() for key in self.client.keys("*")}

    def refuse_replicas(self) -> None:
        """Disconnect the replicas, and refuse their reconnections."""
        self.client.execute_command("ACL", "SETUSER", "default", "-psync", "-sync", "-replconf")
        self.client.execute_command("CLIENT", "KILL", "TYPE", "replica")
        until(lambda: self.client.info("replication")["connected_slaves"] == 0)

    def close(self) -> None:
        """Kill the process, even if it is stopped."""
        with suppress(ProcessLookupError):
            self.thaw()
        self.kill()
        self.client.close()


def until_replicated(primary: Node, replica: Node) -> None:
    """Wait until a replica has everything that its primary has."""
    until(lambda: replica.client.info("replication").get("master_link_status") == "up", 30)
    until(lambda: _offset(primary) == _offset(replica), 30)


def _offset(node: Node) -> int:
    found = node.client.info("replication")
    return int(
        found["slave_repl_offset"] if found["role"] == "slave" else found["master_repl_offset"]
    )


@dataclass(frozen=True)
class Pair:
    """A primary and its replica.

    The replica reaches the primary through the proxy ``link``. Applications connect to the
    proxy ``front``, which leads to the primary.
    """

    primary: Node
    replica: Node
    link: FaultyProxy
    front: FaultyProxy

    def settle(self) -> None:
        """Wait until the replica has everything that the primary has."""
        until_replicated(self.primary, self.replica)

    def fail_over(self) -> None:
        """Kill the primary, promote the replica, and make the front lead to it."""
        self.primary.kill()
        self.replica.client.replicaof("NO", "ONE")
        self.front.lead_to(self.replica.port)

    def server(self, library: str = "redis") -> Server:
        """Return the server as applications reach it."""
        return Server(
            "valkey" if library == "valkey" else "redis",
            "127.0.0.1",
            self.front.port,
            Path("/nowhere"),
        )


@contextmanager
def pair(program: str, folder: Path, *options: str) -> Iterator[Pair]:
    """Start a primary and its replica."""
    with ExitStack() as stack:
        primary = closing(stack, Node(program, folder, *options))
        link, front = (
            closing(stack, FaultyProxy(primary.port)),
            closing(stack, FaultyProxy(primary.port)),
        )
        replica = closing(
            stack, Node(program, folder, *options, "--replicaof", "127.0.0.1", str(link.port))
        )
        found = Pair(primary, replica, link, front)
        found.settle()
        yield found


def closing(stack: ExitStack, thing: Any) -> Any:
    stack.callback(thing.close)
    return thing
