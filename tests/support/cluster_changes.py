"""A real cluster whose nodes are added, removed and moved to other addresses while it is used."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

from lucia.adapters.redis import AsyncRedisSessionAdapter, RedisSessionAdapter
from lucia.models import SessionRow
from tests.support.redis_clients import AsyncClients, Clients
from tests.support.redis_clusters import NODE_TIMEOUT_MS
from tests.support.replication import Node
from tools.servers import Cluster, until, unused_node_port

__all__ = [
    "FLAVOURS",
    "ChangingCluster",
    "EitherAdapter",
    "Member",
    "changing_cluster",
    "either_adapter",
    "swallowed_ports",
]

FLAVOURS: Final = ("async", "sync")

SLOTS: Final = 16_384

_OPTIONS: Final = (
    *("--cluster-enabled", "yes", "--cluster-node-timeout", str(NODE_TIMEOUT_MS)),
    *("--cluster-replica-validity-factor", "0", "--cluster-allow-replica-migration", "no"),
    *("--enable-debug-command", "yes"),
)


class Member(Node):
    """A node of a cluster, which can move to another port and keep its id."""

    def __init__(self, folder: Path) -> None:
        super().__init__("redis-server", folder, *_OPTIONS, port=unused_node_port())

    @property
    def id(self) -> str:
        """The node's id, which never changes."""
        return str(self.client.execute_command("CLUSTER MYID").decode())

    @property
    def slots(self) -> set[int]:
        """The slots that the node serves, according to itself."""
        ranges: list[Any] = self.client.execute_command("CLUSTER SLOTS")
        own = [each for each in ranges if int(each[2][1]) == self.port]
        return {slot for first, last, *_ in own for slot in range(first, last + 1)}

    def move_to_other_port(self) -> int:
        """Restart the node with its data at another port, and return the old port."""
        self.client.save()
        self.client.close()
        self.kill()
        before, self.port = self.port, unused_node_port()
        words = [str(self.port) if word == str(before) else word for word in self._command]
        self._command = tuple(words)
        self.client = type(self.client)(port=self.port, protocol=2)
        self.restart()
        return before


@dataclass
class ChangingCluster:
    """A cluster of primaries. The first ones are those that it started with."""

    folder: Path
    stack: ExitStack
    members: list[Member] = field(default_factory=list[Member])

    @property
    def cluster(self) -> Cluster:
        """The cluster as other helpers need it."""
        return Cluster(tuple(member.port for member in self.members))

    def start(self) -> Member:
        """Start a node outside of the cluster."""
        member = Member(self.folder)
        self.stack.callback(member.close)
        return member

    def add(self) -> Member:
        """Add a new node, and wait until all nodes know it."""
        member = self.start()
        member.client.execute_command("CLUSTER MEET", "127.0.0.1", self.members[0].port)
        self.members.append(member)
        self.settle()
        return member

    def move_slots(self, source: Member, target: Member, slots: Sequence[int]) -> None:
        """Move slots with their keys in batches, as ``redis-cli --cluster reshard`` does."""
        for start in range(0, len(slots), 256):
            part = slots[start : start + 256]
            self.begin_move(source, target, part)
            _move_keys(source, target, set(part))
            for member in (target, source, *self.members):
                _each_slot(member, part, "NODE", target.id)

    def begin_move(self, source: Member, target: Member, slots: Sequence[int]) -> None:
        """Let a node import slots from another, whose keys stay where they are."""
        _each_slot(target, slots, "IMPORTING", source.id)
        _each_slot(source, slots, "MIGRATING", target.id)

    def empty(self, source: Member) -> None:
        """Move all slots of a node to the others."""
        others = [member for member in self.members if member is not source]
        slots = sorted(source.slots)
        for number, target in enumerate(others):
            self.move_slots(source, target, slots[number :: len(others)])

    def remove(self, member: Member, *, reset: bool = True) -> None:
        """Make all other nodes forget a node, which keeps running.

        Args:
            reset: make the node forget the others too, as ``redis-cli --cluster del-node`` does.
        """
        self.members.remove(member)
        gone = member.id
        for other in self.members:
            other.client.execute_command("CLUSTER FORGET", gone)
        if reset:
            member.client.flushall()
            member.client.execute_command("CLUSTER RESET SOFT")
        self.settle()

    def settle(self) -> None:
        """Wait until all nodes agree on the primaries and report a healthy cluster."""
        until(self._agree, 60)

    def serving(self, key: str) -> Member:
        """Return the primary that serves a key."""
        slot = self.members[0].client.execute_command("CLUSTER KEYSLOT", key)
        return next(member for member in self.members if slot in member.slots)

    def _agree(self) -> bool:
        found = [_view(member) for member in self.members]
        ports = {member.port for member in self.members}
        return all(each == (found[0][0], ports, "ok") for each in found)


def _view(member: Member) -> tuple[frozenset[Any], set[int], str]:
    """Return the slots by port, the ports of all nodes, and the state, according to one node."""
    ranges: list[Any] = member.client.execute_command("CLUSTER SLOTS")
    nodes: dict[str, Any] = member.client.execute_command("CLUSTER NODES")
    info: dict[str, str] = member.client.execute_command("CLUSTER INFO")
    owners = frozenset((first, last, int(node[1])) for first, last, node, *_ in ranges)
    ports = {int(address.rpartition(":")[2].partition("@")[0]) for address in nodes}
    return owners, ports, info["cluster_state"]


def _each_slot(member: Member, slots: Sequence[int], *words: str) -> None:
    with member.client.pipeline(transaction=False) as pipeline:
        for slot in slots:
            pipeline.execute_command("CLUSTER SETSLOT", slot, *words)
        pipeline.execute()


def _move_keys(source: Member, target: Member, slots: set[int]) -> None:
    for key in source.client.keys("*"):
        if source.client.execute_command("CLUSTER KEYSLOT", key) in slots:
            source.client.execute_command("MIGRATE", "127.0.0.1", target.port, key, 0, 5_000)


@contextmanager
def changing_cluster(folder: Path, count: int = 3) -> Iterator[ChangingCluster]:
    """Start a cluster with this number of primaries and no replicas."""
    with ExitStack() as stack:
        found = ChangingCluster(folder, stack)
        found.members += [found.start() for _ in range(count)]
        bounds = [SLOTS * number // count for number in range(count + 1)]
        for number, member in enumerate(found.members):
            first, last = bounds[number], bounds[number + 1] - 1
            member.client.execute_command("CLUSTER ADDSLOTSRANGE", first, last)
            member.client.execute_command("CLUSTER SET-CONFIG-EPOCH", number + 1)
            member.client.execute_command("CLUSTER MEET", "127.0.0.1", found.members[0].port)
        found.settle()
        yield found


@contextmanager
def swallowed_ports(count: int, *, at: Sequence[int] = ()) -> Iterator[list[int]]:
    """Yield ports that swallow connections, like the address of a dead machine.

    Their listen queues are full, so Linux drops the SYN packets.

    Args:
        count: the number of ports.
        at: ports to use; the others are free ones.
    """
    with ExitStack() as stack:
        wanted = [*at, *[0] * (count - len(at))]
        yield [swallow_port(stack, port) for port in wanted]


def swallow_port(stack: ExitStack, port: int = 0) -> int:
    """Make a port swallow connections until the stack is closed, and return the port."""
    listening = stack.enter_context(socket.socket())
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.bind(("127.0.0.1", port))
    listening.listen(0)
    while True:
        waiting = stack.enter_context(socket.socket())
        waiting.settimeout(0.1)
        try:
            waiting.connect(listening.getsockname())
        except TimeoutError:
            return int(listening.getsockname()[1])


class EitherAdapter:
    """An adapter of either flavour with async methods. Calls of a sync one run in threads."""

    def __init__(self, adapter: AsyncRedisSessionAdapter | RedisSessionAdapter) -> None:
        self.adapter: Any = adapter
        self._is_async = isinstance(adapter, AsyncRedisSessionAdapter)

    async def route(self) -> Any:
        """Return the adapter's route to the servers."""
        return await self.call(self.adapter._driver._route.get)

    async def call(self, method: Callable[..., Any], *arguments: Any) -> Any:
        """Call a method, which is a coroutine function in the async flavour."""
        if self._is_async:
            return await method(*arguments)
        return await asyncio.to_thread(method, *arguments)

    async def get(self, session_id: str) -> SessionRow | None:
        """Read a session."""
        found: SessionRow | None = await self.call(self.adapter.get_session, session_id)
        return found

    async def add(self, *rows: SessionRow) -> None:
        """Store sessions."""
        for each in rows:
            await self.call(self.adapter.set_session, each)

    async def delete(self, session_id: str) -> None:
        """Revoke a session."""
        await self.call(self.adapter.delete_session, session_id)

    async def live(self, *session_ids: str) -> set[str]:
        """Return those of the ids that have a session."""
        found = await asyncio.gather(*map(self.get, session_ids))
        return {row.id for row in found if row is not None}


@asynccontextmanager
async def either_adapter(
    flavour: str, cluster: Cluster, options: dict[str, Any] | None = None, **settings: Any
) -> AsyncIterator[EitherAdapter]:
    """Yield an adapter with a client of its own.

    Args:
        flavour: ``async`` or ``sync``.
        cluster: the cluster to connect to.
        options: the options of the client.
        settings: the settings of the adapter.
    """
    if flavour == "async":
        client = AsyncClients.of_cluster("redis", cluster, **options or {})
        async with client, AsyncRedisSessionAdapter(client, **settings) as adapter:
            yield EitherAdapter(adapter)
        return
    client = await asyncio.to_thread(partial(Clients.of_cluster, "redis", cluster, **options or {}))
    with client, RedisSessionAdapter(client, **settings) as sync_adapter:
        yield EitherAdapter(sync_adapter)
