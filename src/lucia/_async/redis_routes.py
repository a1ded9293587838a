"""Which server a command goes to: the one, the master that Sentinel names, or the node that has a key's slot."""

import time
from collections.abc import Sequence
from typing import Any, Final, Protocol

from lucia._concurrency import AsyncLock
from lucia._connections import AsyncPause, AsyncServer, AsyncSettings
from lucia.redis.commands import ALONE, UNGATED, Argument, AsyncReplies, Reply, SendMode, Words
from lucia.redis.replay import Revocations, Watch
from lucia.redis.slots import addresses_of_slots, keys_everywhere, redirection_of, slot_of
from lucia.redis.topology import Address, BehindSentinel, InCluster, OneServer, Topology
from lucia.redis.unanswered import AskAlone, AsyncRecords, Unanswered

_REDIRECTIONS_AT_ONCE: Final = 5
"""How many nodes are followed without a pause; after that they point at each other, since they do not agree yet whose a slot is."""

_PAUSE_SECONDS: Final = 0.05
"""How long to wait for them to agree; or where a slot with several keys of a command is just being moved."""


class AsyncRoute(Protocol):
    """A way to the servers, for one event loop."""

    def ask(self, key: Argument | None, commands: Sequence[Words], seconds: float, mode: SendMode, /) -> AsyncReplies:
        """Send commands together, on one connection to the server that has this key; their replies in order.

        Raises:
            Unanswered: there was no answer.
            OtherHistory: nothing was sent, since a replay of revocations comes first.
        """
        ...

    def read(self, keys: Sequence[bytes], /) -> AsyncRecords:
        """What is at these keys; where they are in many slots, none after the first at which there is anything.

        Raises:
            AskAlone: something is in the way, and to be asked by :meth:`ask`.
            Overloaded, Unanswered, OtherHistory: as that.
        """
        ...

    def keys_everywhere(self, prefix: str) -> list[str]:
        """For each primary that is known the name of one key with this prefix that is, or would be, there."""
        ...

    def nodes(self, seconds: float, /) -> AsyncReplies:
        """The names of the servers that hold the keys.

        Raises:
            Unanswered: there was no answer.
        """
        ...

    def ask_node(self, node: str, commands: Sequence[Words], seconds: float, /) -> AsyncReplies:
        """Send commands together, to the server of this name, whatever their keys.

        Raises:
            Unanswered: there was no answer.
        """
        ...

    async def drop_idle(self) -> None:
        """Close the connections that lie idle."""
        ...

    async def aclose(self) -> None:
        """Close all connections; later calls open new ones."""
        ...


def open_route(topology: Topology, settings: AsyncSettings, revocations: Revocations) -> AsyncRoute:
    """A way to the servers of the application's client; no connection is made yet."""
    if isinstance(topology, InCluster):
        return AsyncClusterRoute(topology, settings, revocations)
    if isinstance(topology, BehindSentinel):
        return AsyncSentinelRoute(topology, settings, revocations)
    return AsyncOneRoute(topology, settings, revocations)


class AsyncOneRoute:
    """The one server."""

    def __init__(self, topology: OneServer, settings: AsyncSettings, revocations: Revocations) -> None:
        self._server = AsyncServer(topology.recipe, Watch(revocations), settings)

    def ask(self, key: Argument | None, commands: Sequence[Words], seconds: float, mode: SendMode, /) -> AsyncReplies:
        """Any key is there."""
        return self._server.ask(commands, seconds, mode)

    def read(self, keys: Sequence[bytes], /) -> AsyncRecords:
        """All of them."""
        return self._server.read(keys)

    def keys_everywhere(self, prefix: str) -> list[str]:
        """One key, for the one primary."""
        return keys_everywhere(prefix, {})

    async def nodes(self, _seconds: float, /) -> list[str]:
        """It needs no name."""
        return [""]

    async def ask_node(self, _node: str, commands: Sequence[Words], seconds: float, /) -> list[Reply]:
        """It is the only one."""
        return await self._server.ask(commands, seconds, ALONE)

    async def drop_idle(self) -> None:
        """Close the connections that lie idle."""
        await self._server.drop_idle()

    async def aclose(self) -> None:
        """Close all connections; later calls open new ones."""
        await self._server.aclose()


class AsyncSentinelRoute(AsyncOneRoute):
    """The master, for which each new connection asks Sentinel."""

    def __init__(self, topology: BehindSentinel, settings: AsyncSettings, revocations: Revocations) -> None:
        self._master = AsyncMaster(topology, settings.seconds, self.drop_idle)
        super().__init__(OneServer(topology.recipe.with_options(connection_pool=self._master)), settings, revocations)

    async def aclose(self) -> None:
        """Close all connections, those to Sentinel too."""
        await super().aclose()
        await self._master.aclose()


class AsyncMaster:
    """What a client's connection asks of its pool to find the master; other than in a pool, that takes a bounded time."""

    is_master: Final = True
    check_connection: Final = False

    def __init__(self, topology: BehindSentinel, seconds: float, moved: Any) -> None:
        self._service = topology.service
        self._finder = topology.copy_finder(seconds / (2 * len(topology.finder.sentinels) + 1))
        self._moved = moved
        self._address: Address | None = None

    async def get_master_address(self) -> Address:
        """Where the master is by now; idle connections to another one are closed."""
        address: Address = await self._finder.discover_master(self._service)
        before, self._address = self._address, address
        if before not in (None, address):
            await self._moved()
        return address

    async def aclose(self) -> None:
        """Close the connections to Sentinel."""
        for client in self._finder.sentinels:
            await client.connection_pool.disconnect()


class AsyncClusterRoute:
    """The node that has a key's slot, by the cluster's map, which is asked for at first, and after a node could not be reached."""

    def __init__(self, topology: InCluster, settings: AsyncSettings, revocations: Revocations) -> None:
        self._topology = topology
        self._settings = settings
        self._revocations = revocations
        self._servers: dict[Address, AsyncServer] = {}
        self._mapping = AsyncLock()
        self._slots: dict[int, Address] = {}

    def ask(self, key: Argument | None, commands: Sequence[Words], seconds: float, mode: SendMode, /) -> AsyncReplies:
        """Go where the key's slot is, and on where a node points to.

        Raises:
            Unanswered: there was no answer. The map is asked for anew next time.
        """
        return self._ask(key, commands, seconds, mode)

    def read(self, keys: Sequence[bytes], /) -> AsyncRecords:
        """One after another, at the nodes that have them by the map; a node that points elsewhere is followed by :meth:`ask` alone.

        Raises:
            AskAlone: there is no map, or a node did not tell.
            Overloaded, Unanswered, OtherHistory: as :meth:`ask`. The map is asked for anew next time.
        """
        return self._read(keys)

    def keys_everywhere(self, prefix: str) -> list[str]:
        """For each primary in the map the name of one key that is, or would be, there."""
        return keys_everywhere(prefix, self._slots)

    async def nodes(self, seconds: float, /) -> list[str]:
        """The primaries that have slots, by the map as it is now."""
        self._slots = await self._read_map(time.monotonic() + seconds)
        return sorted({f"{host}:{port}" for host, port in self._slots.values()})

    async def ask_node(self, node: str, commands: Sequence[Words], seconds: float, /) -> list[Reply]:
        """That primary."""
        host, _, port = node.rpartition(":")
        return await self._server((host, int(port))).ask(commands, seconds, ALONE)

    async def drop_idle(self) -> None:
        """Close the connections that lie idle, to all nodes."""
        for server in list(self._servers.values()):
            await server.drop_idle()

    async def aclose(self) -> None:
        """Close all connections; later calls open new ones."""
        for server in list(self._servers.values()):
            await server.aclose()

    async def _read(self, keys: Sequence[bytes]) -> list[bytes | None]:
        records: list[bytes | None] = []
        for key in keys:
            address = self._slots.get(slot_of(key))
            if address is None:
                raise AskAlone
            try:
                records += await self._server(address).read((key,))
            except Unanswered:
                self._slots = {}
                raise
            if records[-1] is not None:
                break
        return records + [None] * (len(keys) - len(records))

    async def _ask(self, key: Argument | None, commands: Sequence[Words], seconds: float, mode: SendMode) -> list[Reply]:
        try:
            return await self._follow(key, commands, time.monotonic() + seconds, mode)
        except Unanswered:
            self._slots = {}
            raise

    async def _follow(self, key: Argument | None, commands: Sequence[Words], end: float, mode: SendMode) -> list[Reply]:
        address, asking = await self._find(key, end), False
        redirections = 0
        while True:
            asked = [("ASKING",), *commands] if asking else commands
            replies = await self._server(address).ask(asked, _left(end), mode)
            replies = replies[1:] if asking else replies
            redirection = redirection_of(replies, address)
            if redirection is None:
                return replies
            if redirection.address is not None:
                redirections += 1
                address, asking = self._where(redirection.address), redirection.asking
                if not asking:
                    self._slots[redirection.slot] = address
            if redirection.address is None or redirections > _REDIRECTIONS_AT_ONCE:
                if _left(end) <= _PAUSE_SECONDS:
                    return replies
                await AsyncPause.seconds(_PAUSE_SECONDS)

    async def _find(self, key: Argument | None, end: float) -> Address:
        if not self._slots:
            async with self._mapping:  # one reads the map, for all who need it
                self._slots = self._slots or await self._read_map(end)
        some = next(iter(self._slots.values()), self._topology.nodes[0])  # which says what is wrong, if no node has the slot
        return some if key is None else self._slots.get(slot_of(key), some)

    async def _read_map(self, end: float) -> dict[int, Address]:
        """The address of each slot's primary, as the first node tells that answers; each has a part of the time."""
        lost = Unanswered(None, sent=False)
        for address in dict.fromkeys([*self._servers, *self._topology.nodes]):
            try:
                (reply,) = await self._server(address).ask([("CLUSTER", "SLOTS")], _left(end) / 3, UNGATED)
            except Unanswered as error:
                lost = Unanswered(error.error, sent=False)
                lost.__cause__ = error.error
                continue
            if isinstance(reply, Exception):
                lost = Unanswered(reply, sent=False)
                continue
            slots = {slot: self._where(each) for slot, each in addresses_of_slots(reply, address).items()}
            self._revocations.expect(slots.values())
            return slots
        raise lost

    def _where(self, address: Address) -> Address:
        return self._topology.remap(address) if self._topology.remap is not None else address

    def _server(self, address: Address) -> AsyncServer:
        server = self._servers.get(address)
        if server is None:
            host, port = address
            server = self._servers[address] = AsyncServer(
                self._topology.recipe.with_options(host=host, port=port), Watch(self._revocations, address), self._settings, many_slots=True
            )
        return server


def _left(end: float) -> float:
    return max(end - time.monotonic(), 0)
