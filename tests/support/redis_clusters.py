"""A cluster of three primaries with a replica each."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from tests.support.replication import Node, closing, until_replicated
from tools.servers import Cluster, until, unused_node_port

__all__ = ["NODE_TIMEOUT_MS", "ReplicatedCluster", "replicated_cluster"]

NODE_TIMEOUT_MS: Final = 1_000
"""The time after which the cluster considers a silent node down."""


@dataclass(frozen=True)
class ReplicatedCluster:
    """Three primaries, and a replica of each."""

    primaries: tuple[Node, ...]
    replicas: tuple[Node, ...]

    @property
    def cluster(self) -> Cluster:
        """The cluster as a :class:`Cluster`."""
        return Cluster(tuple(node.port for node in (*self.primaries, *self.replicas)))

    def settle(self) -> None:
        """Wait until each replica has everything that its primary has."""
        for primary, replica in zip(self.primaries, self.replicas, strict=True):
            until_replicated(primary, replica)

    def number_of(self, key: str) -> int:
        """Return the number of the primary that has this key."""
        slot = self.primaries[0].client.execute_command("CLUSTER", "KEYSLOT", key)
        return next(number for number in range(3) if slot < _BOUNDS[number + 1])

    def fail_over(self, number: int) -> None:
        """Kill a primary, and wait until all other nodes know its replica as the new primary."""
        self.primaries[number].kill()
        self._until_promoted(number, but=self.primaries[number])

    def switch_over(self, number: int) -> "ReplicatedCluster":
        """Let a primary and its replica change roles without any loss; return the new roles."""
        old, new = self.primaries[number], self.replicas[number]
        new.client.execute_command("CLUSTER FAILOVER")
        self._until_promoted(number)
        until_replicated(new, old)
        primaries, replicas = list(self.primaries), list(self.replicas)
        primaries[number], replicas[number] = new, old
        return ReplicatedCluster(tuple(primaries), tuple(replicas))

    def _until_promoted(self, number: int, but: Node | None = None) -> None:
        """Wait until all nodes but one know a replica as the new primary."""
        until(lambda: self.replicas[number].client.info("replication")["role"] == "master", 30)
        for node in (*self.primaries, *self.replicas):
            if node is not but:
                until(partial(_is_served, node, self.replicas[number].port), 30)


_BOUNDS: Final = (0, 5_461, 10_922, 16_384)


def _is_served(node: Node, by: int) -> bool:
    """Return whether a node reports a healthy cluster with a primary at this port."""
    ports = {int(entry[2][1]) for entry in node.client.execute_command("CLUSTER SLOTS")}
    return by in ports and node.client.execute_command("CLUSTER INFO")["cluster_state"] == "ok"


@contextmanager
def replicated_cluster(folder: Path) -> Iterator[ReplicatedCluster]:
    """Start a cluster of three primaries with a replica each."""
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
            closing(stack, Node("redis-server", folder, *options, port=unused_node_port()))
            for _ in range(6)
        ]
        found = ReplicatedCluster(tuple(nodes[:3]), tuple(nodes[3:]))
        _join(found)
        yield found


def _join(cluster: ReplicatedCluster) -> None:
    """Assign the slots, join the nodes, and attach the replicas to their primaries."""
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
    """Return whether a node reports a healthy cluster in which each primary has a replica."""
    whole = all(len(entry) > 3 for entry in node.client.execute_command("CLUSTER SLOTS"))
    return whole and node.client.execute_command("CLUSTER INFO")["cluster_state"] == "ok"
