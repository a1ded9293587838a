"""For tests of failovers: servers that can be killed, frozen and started anew, links between them that can be cut, and what takes over."""

import os
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import redis

from lucia.adapters.redis import AsyncRedisSessionAdapter, RedisSessionAdapter
from tests.redis_tools import AsyncClients, Clients, own_sentinel, until, unused_port
from tests.servers import Cluster, Server
from tests.support.faulty_proxy import FaultyProxy
from tools.servers import unused_node_port

__all__ = [
    "Adapters",
    "AsyncAdapters",
    "Node",
    "Pair",
    "ReplicatedCluster",
    "SentinelPair",
    "pair",
    "replicated_cluster",
    "sentinel_pair",
]

NODE_TIMEOUT_MS: Final = 1_000
"""After how long without an answer a cluster's node is held to be down."""

DOWN_AFTER_MS: Final = 1_000
"""The same for Sentinel."""

_AT_ONCE: Final = ("--repl-diskless-sync-delay", "0", "--repl-ping-replica-period", "1")


class AsyncAdapters:
    """Adapters over clients of their own, as in processes of their own."""

    @staticmethod
    @asynccontextmanager
    async def on(
        server: Server, user: str | None = None, **settings: Any
    ) -> AsyncIterator[AsyncRedisSessionAdapter]:
        """One for this server, with these settings."""
        login = {} if user is None else {"username": user, "password": "pass"}
        async with (
            AsyncClients.make("redis-py, RESP2", server, **login) as client,
            AsyncRedisSessionAdapter(client, **settings) as adapter,
        ):
            yield adapter


class Adapters:
    """Adapters over clients of their own, as in processes of their own."""

    @staticmethod
    @contextmanager
    def on(
        server: Server, user: str | None = None, **settings: Any
    ) -> Iterator[RedisSessionAdapter]:
        """One for this server, with these settings."""
        login = {} if user is None else {"username": user, "password": "pass"}
        with (
            Clients.make("redis-py, RESP2", server, **login) as client,
            RedisSessionAdapter(client, **settings) as adapter,
        ):
            yield adapter


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


def _until_replicated(primary: Node, replica: Node) -> None:
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
        _until_replicated(self.primary, self.replica)

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
        primary = _closing(stack, Node(program, folder, *options))
        link, front = (
            _closing(stack, FaultyProxy(primary.port)),
            _closing(stack, FaultyProxy(primary.port)),
        )
        replica = _closing(
            stack, Node(program, folder, *options, "--replicaof", "127.0.0.1", str(link.port))
        )
        found = Pair(primary, replica, link, front)
        found.settle()
        yield found


def _closing(stack: ExitStack, thing: Any) -> Any:
    stack.callback(thing.close)
    return thing


@dataclass(frozen=True)
class SentinelPair:
    """A primary, its replica behind a link, and a Sentinel that watches them."""

    library: str
    pair: Pair
    sentinel_port: int
    name: str = "sessions"

    @property
    def sentinels(self) -> list[tuple[str, int]]:
        return [("127.0.0.1", self.sentinel_port)]

    def fail_over(self) -> None:
        """Kill the primary, and wait until Sentinel has promoted the replica."""
        self.pair.primary.kill()
        until(lambda: self.pair.replica.client.info("replication")["role"] == "master", 30)


@contextmanager
def sentinel_pair(library: str, folder: Path) -> Iterator[SentinelPair]:
    """A primary and its replica that a Sentinel watches."""
    program = f"{library}-server"
    with pair(program, folder) as servers:
        settings = folder / "sentinel.conf"
        settings.write_text(
            f"sentinel monitor sessions 127.0.0.1 {servers.primary.port} 1\n"
            f"sentinel down-after-milliseconds sessions {DOWN_AFTER_MS}\nsentinel failover-timeout sessions 60000\n"
        )
        with own_sentinel(program, settings) as port:
            client: Any
            with redis.Redis(port=port) as client:
                until(lambda: client.execute_command("SENTINEL", "REPLICAS", "sessions"), 30)
            yield SentinelPair(library, servers, port)


@dataclass(frozen=True)
class ReplicatedCluster:
    """Three primaries, the replica of each, and a slot range for each."""

    primaries: tuple[Node, ...]
    replicas: tuple[Node, ...]

    @property
    def cluster(self) -> Cluster:
        """It as other tools of the tests take it, by nodes of which the first one stays."""
        return Cluster(tuple(node.port for node in (*self.primaries, *self.replicas)))

    def settle(self) -> None:
        """Wait until each replica has all that its primary has."""
        for primary, replica in zip(self.primaries, self.replicas, strict=True):
            _until_replicated(primary, replica)

    def number_of(self, key: str) -> int:
        """Which primary has this key."""
        slot = self.primaries[0].client.execute_command("CLUSTER", "KEYSLOT", key)
        return next(number for number in range(3) if slot < _BOUNDS[number + 1])

    def fail_over(self, number: int) -> None:
        """Kill a primary, and wait until its replica has taken its place and all others know."""
        self.primaries[number].kill()
        until(lambda: self.replicas[number].client.info("replication")["role"] == "master", 30)
        alive = [
            node for node in (*self.primaries, *self.replicas) if node is not self.primaries[number]
        ]
        for node in alive:
            until(partial(_is_served, node, self.replicas[number].port), 30)


_BOUNDS: Final = (0, 5_461, 10_922, 16_384)


def _is_served(node: Node, by: int) -> bool:
    """Whether a node holds the cluster to be well, with that one among its primaries."""
    ports = {int(entry[2][1]) for entry in node.client.execute_command("CLUSTER SLOTS")}
    return by in ports and node.client.execute_command("CLUSTER INFO")["cluster_state"] == "ok"


@contextmanager
def replicated_cluster(folder: Path) -> Iterator[ReplicatedCluster]:
    """A cluster of three primaries, each with a replica."""
    options = (
        "--cluster-enabled",
        "yes",
        "--cluster-node-timeout",
        str(NODE_TIMEOUT_MS),
        "--cluster-replica-validity-factor",
        "0",
    )
    with ExitStack() as stack:
        nodes: list[Node] = [
            _closing(stack, Node("redis-server", folder, *options, port=unused_node_port()))
            for _ in range(6)
        ]
        found = ReplicatedCluster(tuple(nodes[:3]), tuple(nodes[3:]))
        _join(found)
        yield found


def _join(cluster: ReplicatedCluster) -> None:
    """Give the primaries their slots, introduce all nodes to the first, and each replica to its primary."""
    nodes = (*cluster.primaries, *cluster.replicas)
    for number, node in enumerate(cluster.primaries):
        node.client.execute_command(
            "CLUSTER ADDSLOTSRANGE", _BOUNDS[number], _BOUNDS[number + 1] - 1
        )
    for number, node in enumerate(nodes):
        node.client.execute_command("CLUSTER SET-CONFIG-EPOCH", number + 1)
        node.client.execute_command("CLUSTER MEET", "127.0.0.1", nodes[0].port)
    for node in nodes:
        until(partial(_knows_all, node), 30)
    for primary, replica in zip(cluster.primaries, cluster.replicas, strict=True):
        replica.client.execute_command(
            "CLUSTER REPLICATE", primary.client.execute_command("CLUSTER MYID").decode()
        )
    for node in nodes:
        until(partial(_is_whole, node), 30)
    cluster.settle()


def _knows_all(node: Node) -> bool:
    return bool(node.client.execute_command("CLUSTER INFO")["cluster_known_nodes"] == "6")


def _is_whole(node: Node) -> bool:
    """Whether a node holds the cluster to be well, and each primary to have its replica."""
    whole = all(len(entry) > 3 for entry in node.client.execute_command("CLUSTER SLOTS"))
    return whole and node.client.execute_command("CLUSTER INFO")["cluster_state"] == "ok"
