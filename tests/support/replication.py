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
    """A server process of the test's own, on a port that stays the same when it is started anew."""

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
        """Whether it is there and has read its data."""
        try:
            return bool(self.client.ping())
        except redis.ConnectionError:  # a BusyLoadingError is one
            return False

    def server(self, library: str = "redis") -> Server:
        """It as other tools of the tests take it."""
        return Server(
            "valkey" if library == "valkey" else "redis", "127.0.0.1", self.port, Path("/nowhere")
        )

    def kill(self) -> None:
        """End it by ``kill -9``: nothing that it still holds is written or sent."""
        self._process.kill()
        self._process.wait()

    def restart(self) -> None:
        """Start it anew, with what it finds on its disk."""
        self._process = self._started()

    def freeze(self) -> None:
        """Stop it where it is: its connections stay open and nothing answers."""
        os.kill(self._process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        os.kill(self._process.pid, signal.SIGCONT)

    def sets(self) -> set[str]:
        """The names of its keys."""
        return {key.decode() for key in self.client.keys("*")}

    def refuse_replicas(self) -> None:
        """Drop the replicas' links, and let none come back."""
        self.client.execute_command("ACL", "SETUSER", "default", "-psync", "-sync", "-replconf")
        self.client.execute_command("CLIENT", "KILL", "TYPE", "replica")
        until(lambda: self.client.info("replication")["connected_slaves"] == 0)

    def close(self) -> None:
        """End it, however it is."""
        with suppress(ProcessLookupError):
            self.thaw()
        self.kill()
        self.client.close()


def until_replicated(primary: Node, replica: Node) -> None:
    """Wait until a replica has all that its primary has."""
    until(lambda: replica.client.info("replication").get("master_link_status") == "up", 30)
    until(lambda: _offset(primary) == _offset(replica), 30)


def _offset(node: Node) -> int:
    found = node.client.info("replication")
    return int(
        found["slave_repl_offset"] if found["role"] == "slave" else found["master_repl_offset"]
    )


@dataclass(frozen=True)
class Pair:
    """A primary, its replica behind a link, and a front: the address that applications know, which leads to the primary."""

    primary: Node
    replica: Node
    link: FaultyProxy
    front: FaultyProxy

    def settle(self) -> None:
        """Wait until the replica has all that the primary has."""
        until_replicated(self.primary, self.replica)

    def fail_over(self) -> None:
        """Kill the primary, promote the replica as it is, and let the front lead there."""
        self.primary.kill()
        self.replica.client.replicaof("NO", "ONE")
        self.front.lead_to(self.replica.port)

    def server(self, library: str = "redis") -> Server:
        """The front."""
        return Server(
            "valkey" if library == "valkey" else "redis",
            "127.0.0.1",
            self.front.port,
            Path("/nowhere"),
        )


@contextmanager
def pair(program: str, folder: Path, *options: str) -> Iterator[Pair]:
    """A primary and its replica."""
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
