"""Route commands to the only server, to Sentinel's master, or to the node of a key's slot."""

import time
from collections.abc import Sequence
from functools import partial
from typing import Any, Final, Protocol

from lucia._compat.pause import AsyncPause
from lucia._redis.commands import UNGATED, Argument, AsyncReplies, Reply, SendMode, Words
from lucia._redis.replay import ConnectionMonitor, Revocations
from lucia._redis.transport.connection_io import AsyncRecords
from lucia._redis.transport.connections import AsyncServer
from lucia._redis.transport.first_result import AsyncFirstResult
from lucia._redis.transport.retries import BatchRejected, NoReply
from lucia._redis.transport.settings import WRITE_SECONDS, AsyncSettings
from lucia._redis.transport.single_flight import AsyncSingleFlight
from lucia._redis.transport.slots import SlotMap, key_per_primary, parse_slot_map, redirection_in
from lucia._redis.transport.topology import Address, BehindSentinel, InCluster, OneServer, Topology
from lucia.errors import StoreUnavailable

_REDIRECTIONS_AT_ONCE: Final = 5
"""How many redirections are followed without a pause.

After so many, nodes redirect to each other, since they do not agree yet which one has the slot.
"""

_PAUSE_SECONDS: Final = 0.05
"""How long to wait until nodes agree, or until a slot with several keys of a command has moved."""


class AsyncRoute(Protocol):
    """The connections to all servers, for one event loop."""

    @property
    def only_server(self) -> AsyncServer | None:
        """The server that has all keys, over connections of our own; None if there is none."""
        ...

    def ask(
        self, key: Argument | None, commands: Sequence[Words], seconds: float, mode: SendMode, /
    ) -> AsyncReplies:
        """Send commands on one connection to the server that has this key; return their replies.

        Raises:
            NoReply: there was no answer.
            BatchRejected: nothing was sent, since a replay of revocations comes first.
        """
        ...

    def read(self, keys: Sequence[bytes], seconds: float, /) -> AsyncRecords:
        """Return the values of keys; in a cluster, none after the first value found.

        Raises:
            BatchRejected: the keys have to be read by :meth:`ask`.
            Overloaded, NoReply: as :meth:`ask`.
        """
        ...

    async def key_per_primary(self, prefix: str, seconds: float, began: float, /) -> dict[str, str]:
        """Return for each primary that may have taken a write the name of a key that it serves.

        The servers are named as by :meth:`nodes`, and there is at least one.

        Args:
            prefix: what the names begin with.
            seconds: how long that may take.
            began: when the first write may have been sent, by the monotonic clock.

        Raises:
            NoReply: it is not known which servers there are.
        """
        ...

    def nodes(self, seconds: float, /) -> AsyncReplies:
        """Return the names of the servers that hold the keys.

        Raises:
            NoReply: there was no answer.
        """
        ...

    def ask_node(
        self, node: str, commands: Sequence[Words], seconds: float, mode: SendMode, /
    ) -> AsyncReplies:
        """Send commands on one connection to the server of this name, whatever their keys.

        Raises:
            NoReply: there was no answer.
        """
        ...

    async def drop_idle(self) -> None:
        """Close the idle connections."""
        ...

    async def aclose(self) -> None:
        """Close all connections; later calls open new ones."""
        ...


def open_route(topology: Topology, settings: AsyncSettings, revocations: Revocations) -> AsyncRoute:
    """Return a route to the servers of the application's client; no connection is made yet."""
    if isinstance(topology, InCluster):
        return AsyncClusterRoute(topology, settings, revocations)
    if isinstance(topology, BehindSentinel):
        return AsyncSentinelRoute(topology, settings, revocations)
    return AsyncOneRoute(topology, settings, revocations)


class AsyncOneRoute:
    """The route to the only server."""

    def __init__(
        self, topology: OneServer, settings: AsyncSettings, revocations: Revocations
    ) -> None:
        self._monitor = ConnectionMonitor(revocations)
        self._server = AsyncServer(topology.factory, self._monitor, settings)
        self.only_server: AsyncServer | None = self._server

    def ask(
        self, key: Argument | None, commands: Sequence[Words], seconds: float, mode: SendMode, /
    ) -> AsyncReplies:
        """Send commands to the server, whatever their key."""
        return self._server.ask(commands, seconds, mode)

    def read(self, keys: Sequence[bytes], seconds: float, /) -> AsyncRecords:
        """Read the keys by one command."""
        return self._server.read(keys, seconds)

    async def key_per_primary(
        self, prefix: str, _seconds: float, _began: float, /
    ) -> dict[str, str]:
        """Return one key, since there is one server."""
        return {"": f"{prefix}{{0}}"}

    async def nodes(self, _seconds: float, /) -> list[str]:
        """Return one empty name."""
        return [""]

    async def ask_node(
        self, _node: str, commands: Sequence[Words], seconds: float, mode: SendMode, /
    ) -> list[Reply]:
        """Send commands to the only server."""
        return await self._server.ask(commands, seconds, mode)

    async def drop_idle(self) -> None:
        """Close the idle connections."""
        # The next one may lead to another server. Where INFO is refused, nothing else tells (T3).
        self._monitor.lost()
        await self._server.drop_idle()

    async def aclose(self) -> None:
        """Close all connections; later calls open new ones."""
        await self._server.aclose()


class AsyncSentinelRoute(AsyncOneRoute):
    """The route to the master, for whose address each new connection asks Sentinel."""

    def __init__(
        self, topology: BehindSentinel, settings: AsyncSettings, revocations: Revocations
    ) -> None:
        # redis-py's managed connections ask their connection_pool for the address at each connect.
        master = AsyncMaster(topology, settings.seconds, self._leave_master)
        super().__init__(
            OneServer(topology.factory.with_options(connection_pool=master)), settings, revocations
        )

    async def _leave_master(self) -> None:
        """Close the connections to the former master, those in use when they are given back."""
        self._monitor.lost()  # as in drop_idle
        await self._server.close_all()


class AsyncMaster:
    """Tells connections where the master is, in place of redis-py's ``SentinelConnectionPool``.

    The Sentinels are asked by redis-py's own ``discover_master``, one per Sentinel: its loop over
    all of them waits for a full timeout at each dead one.

    Args:
        topology: the Sentinels, and the name of the service.
        seconds: a command's deadline. Half of it is for the Sentinels, however many are dead.
        on_move: called when the master is another one than before.
    """

    # What redis-py's managed connections read. No check by PING: the pool checks by INFO.
    is_master: Final = True
    check_connection: Final = False

    def __init__(self, topology: BehindSentinel, seconds: float, on_move: Any) -> None:
        self._topology = topology
        self._seconds = seconds / 2
        self._order = list(range(len(topology.finder.sentinels)))
        self._on_move = on_move
        self._address: Address | None = None

    async def get_master_address(self) -> Address:
        """Return where the master is now, and close the connections to another one.

        Raises:
            StoreUnavailable: no Sentinel answered in time. Any other error is the client's own.
        """
        calls = [partial(self._ask, number) for number in self._order]
        found, errors = await AsyncFirstResult.of(calls, self._seconds)
        if found is None:
            raise errors[-1] if errors else StoreUnavailable("no Sentinel answered in time")
        number, address = found
        self._order = [number, *(other for other in self._order if other != number)]
        # The connections to the former master are closed before one to the new master is made.
        before, self._address = self._address, address
        if before not in (None, address):
            await self._on_move()
        return address

    async def _ask(self, number: int, _seconds: float) -> tuple[int, Address]:
        """Ask one Sentinel; return its number, and the address that it told."""
        # On a new connection: one that was idle since the last failover may be dead.
        finder = self._topology.copy_finder(number, self._seconds / 2)
        try:
            return number, await finder.discover_master(self._topology.service)
        finally:
            await finder.sentinels[0].connection_pool.disconnect()


class AsyncClusterRoute:
    """The route to the node that serves a key's slot, by a slot map that is read from the nodes.

    The map is complete or there is none. It is kept until a newer complete one is read. Two events
    show that it is out of date:

    * A node did not answer, or knows nobody who has the slot: it is a suspect. Requests for it wait
      for a newer map; requests for other nodes go on.
    * A node redirected a request for one slot: that slot is corrected, and the map is read again
      while other requests go on.
    """

    def __init__(
        self, topology: InCluster, settings: AsyncSettings, revocations: Revocations
    ) -> None:
        self.only_server: AsyncServer | None = None
        self._topology = topology
        self._settings = settings
        self._revocations = revocations
        self._servers: dict[Address, AsyncServer] = {}
        self._departed: list[AsyncServer] = []
        self._reading = AsyncSingleFlight(
            self._read_map, settings.seconds / 2
        )  # the rest is for what needs the map
        self._slots: dict[int, Address] = {}
        self._nodes: tuple[Address, ...] = ()
        self._suspects: set[Address] = set()
        self._is_outdated = False
        self._importing: dict[Address, float] = {}
        self._unjoined: Address | None = None
        self._lost = NoReply(None, sent=False)
        self._version = self._corrections = 0

    def ask(
        self, key: Argument | None, commands: Sequence[Words], seconds: float, mode: SendMode, /
    ) -> AsyncReplies:
        """Send commands to the node that serves this key, and follow its redirections.

        Raises:
            NoReply: there was no answer.
        """
        return self._ask(key, commands, seconds, mode)

    def read(self, keys: Sequence[bytes], seconds: float, /) -> AsyncRecords:
        """Read keys one after another, at the nodes that serve them by the map.

        Raises:
            BatchRejected: there is no map, or it is out of date, or a node redirected.
            Overloaded, NoReply: as :meth:`ask`.
        """
        return self._read(keys, time.monotonic() + seconds)

    async def key_per_primary(self, prefix: str, seconds: float, began: float, /) -> dict[str, str]:
        """Return a key for each primary, also for one to which a slot is being moved.

        Raises:
            NoReply: the map is not known, or is out of date and could not be read.
        """
        end = time.monotonic() + seconds
        # A map that may be out of date is a failure, not a shorter list (T5).
        if not self._slots or self._suspects or self._is_outdated:
            await self._read_newer(end)
        # Also what other operations wrote recently: this one may repeat one that was not confirmed.
        since = min(began, time.monotonic() - WRITE_SECONDS)
        # A copy: another thread may be redirected meanwhile.
        redirected = self._importing.copy()
        importing = [address for address, then in redirected.items() if then >= since]
        # A node without slots in the map redirects the key until it has some: until then nothing is
        # confirmed (T5).
        keys = dict.fromkeys(importing, f"{prefix}{{0}}") | key_per_primary(
            prefix, dict(self._slots), self._topology.slot_of
        )
        return {_name(address): key for address, key in keys.items()}

    async def nodes(self, seconds: float, /) -> list[str]:
        """Return the primaries that have slots, by a map that is read now.

        Raises:
            NoReply: no node has a complete map.
        """
        await self._read_newer(time.monotonic() + seconds)
        return sorted(map(_name, set(self._slots.values())))

    async def ask_node(
        self, node: str, commands: Sequence[Words], seconds: float, mode: SendMode, /
    ) -> list[Reply]:
        """Send commands to this primary; follow no redirection.

        Raises:
            NoReply: there was no answer.
        """
        host, _, port = node.rpartition(":")
        address = host, int(port)
        replies = await self._send(address, commands, seconds, mode)
        # Not followed: another node's reply says nothing about this one (T5).
        if redirection_in(replies, address) is not None:
            self._is_outdated = True
        return replies

    async def drop_idle(self) -> None:
        """Close the idle connections to all nodes."""
        for server in list(self._servers.values()):
            await server.drop_idle()

    async def aclose(self) -> None:
        """Close all connections; later calls open new ones."""
        await self._reading.aclose()
        for server in [*self._servers.values(), *self._departed]:
            await server.aclose()

    async def _read(self, keys: Sequence[bytes], end: float) -> list[bytes | None]:
        records: list[bytes | None] = []
        for key in keys:
            address = self._slots.get(self._topology.slot_of(key))
            # Left to ask(), which can wait for a newer map and follows redirections.
            if address is None or (self._suspects and address in self._suspects):
                raise BatchRejected
            try:
                records += await self._server(address).read((key,), _seconds_left(end))
            except NoReply:
                self._suspects.add(address)
                raise
            # Found: the other keys are other places where this session could have been.
            if records[-1] is not None:
                break
        return records + [None] * (len(keys) - len(records))

    async def _ask(
        self, key: Argument | None, commands: Sequence[Words], seconds: float, mode: SendMode
    ) -> list[Reply]:
        """Send commands, and follow redirections until the time is over."""
        end = time.monotonic() + seconds
        address, asking = await self._find(key, end), False
        redirections = 0
        while True:
            asked = [("ASKING",), *commands] if asking else commands
            replies = await self._send(address, asked, _seconds_left(end), mode)
            if asking:
                # Where the client closes the connection after an error, ASKING's is the only reply.
                replies = replies[1:] or replies
            redirection = redirection_in(replies, address)
            if redirection is None:
                return replies
            if redirection.address is not None and redirections < _REDIRECTIONS_AT_ONCE:
                redirections += 1
                address, asking = self._remap(redirection.address), redirection.asking
                self._record_redirection(address, redirection.slot, asking=asking)
                if self._is_outdated:
                    # Not waited for: this request knows its node.
                    await self._reading.run(_seconds_left(end) / 2, join=False)
                continue
            if _seconds_left(end) <= 2 * _PAUSE_SECONDS:  # too little for another attempt
                return replies
            await AsyncPause.seconds(_PAUSE_SECONDS)
            if not redirection.can_repeat:  # the node knows no owner of the slot, or nodes disagree
                self._suspects.add(address)
                address, asking = await self._find(key, end), False
                redirections = 0

    async def _send(
        self, address: Address, commands: Sequence[Words], seconds: float, mode: SendMode
    ) -> list[Reply]:
        """Send commands to one node, which is a suspect if it does not answer."""
        try:
            return await self._server(address).ask(commands, seconds, mode)
        except NoReply:
            self._suspects.add(address)
            raise

    def _record_redirection(self, address: Address, slot: int, *, asking: bool) -> None:
        """Record that ``ASK`` named a node that imports the slot, or ``MOVED`` one that has it."""
        # T5: a revocation may have been written there, so this node has to confirm it too. The map
        # may not name the node yet, nor may one that is being read now.
        self._importing[address] = time.monotonic()
        if not asking and self._slots and self._slots[slot] != address:
            self._slots[slot] = address
            self._is_outdated = True
            self._corrections += 1

    async def _find(self, key: Argument | None, end: float) -> Address:
        """Return the node that serves a key; read the map first if it is missing or out of date."""
        address = self._primary_of(key)
        if address is None or address in self._suspects:
            await self._refresh(end)
        elif self._is_outdated:
            # Not waited for: this request knows its node.
            await self._reading.run(_seconds_left(end) / 2, join=False)
        address = self._primary_of(key) or self._unjoined
        if address is None:
            raise self._lost.for_another()
        return address

    def _primary_of(self, key: Argument | None) -> Address | None:
        """Return the node that serves a key by the map; without a key, any node, suspects last."""
        if key is not None:
            return self._slots.get(self._topology.slot_of(key))
        primaries = self._slots.values()
        trusted = (address for address in primaries if address not in self._suspects)
        return next(trusted, None) or next(iter(primaries), None)

    async def _refresh(self, end: float) -> None:
        """Wait for a newer map. Where there is an older one, half of the time is left to use it."""
        await self._reading.run(_seconds_left(end) / 2 if self._slots else _seconds_left(end))

    async def _read_newer(self, end: float) -> None:
        """Read the map now.

        Raises:
            NoReply: no node has a complete one.
        """
        before = self._version
        await self._refresh(end)
        if self._version == before:
            raise self._lost.for_another()

    async def _read_map(self, seconds: float) -> None:
        """Replace the map by the first complete one that a node has (T6)."""
        # As they are now: what is learned while the map is read may be newer than the map.
        corrections, suspects = self._corrections, set(self._suspects)
        unjoined: list[Address] = []
        calls = [
            partial(self._ask_for_map, address, unjoined) for address in self._nodes_with_map()
        ]
        found, errors = await AsyncFirstResult.of(calls, seconds)
        if found is not None:
            await self._adopt(found, suspects)
            self._is_outdated = self._corrections != corrections  # redirected meanwhile
            return
        causes = [error.error for error in errors if isinstance(error, NoReply) and error.error]
        self._lost = NoReply(causes[0] if causes else None, sent=False)
        # Without any map, a node that knows a part of it answers commands with the best error.
        self._unjoined = unjoined[0] if unjoined else None

    def _nodes_with_map(self) -> list[Address]:
        """Return the nodes to ask for the map: the one that had the last map first, suspects last.

        Those are the nodes that the last map names, and the addresses that the application gave,
        which are never forgotten (T6).
        """
        known = dict.fromkeys([*self._nodes[:1], *self._topology.nodes, *self._nodes])
        return sorted(known, key=self._suspects.__contains__)

    async def _ask_for_map(
        self, address: Address, unjoined: list[Address], seconds: float
    ) -> SlotMap:
        """Ask one node, on a connection for this alone: it waits for nothing that others send.

        Raises:
            NoReply: there was no answer, or an error, or the map is not complete. Then the node
                left the cluster, or did not join it yet, and is added to ``unjoined``.
        """
        # With revocations of its own: a replay in a cluster needs this map, so the map can't wait
        # for one.
        server = self._make_server(address, ConnectionMonitor(Revocations(), address))
        try:
            (reply,) = await server.ask([("CLUSTER", "SLOTS")], seconds, UNGATED)
        finally:
            await server.aclose()
        if isinstance(reply, Exception):
            raise NoReply(reply, sent=False)
        found = parse_slot_map(reply, address, self._remap)
        if not found.is_complete:
            unjoined.append(address)
            raise NoReply(None, sent=False)
        # A node that its own map does not name left the cluster, or has another address.
        first = [address] if address in found.nodes else []
        return SlotMap(found.primaries, tuple(dict.fromkeys([*first, *found.nodes])))

    async def _adopt(self, found: SlotMap, suspects: set[Address]) -> None:
        """Use a map, and close the connections to nodes that are not primaries in it.

        Args:
            found: the map.
            suspects: those that there were before it was read; later ones stay suspects.
        """
        primaries = set(found.primaries.values())
        # Before any connection: the nodes of the first map are no failover.
        self._revocations.expect(primaries)
        self._slots, self._nodes = found.primaries, found.nodes
        self._suspects, self._is_outdated = self._suspects - suspects, False
        self._unjoined, self._lost = None, NoReply(None, sent=False)
        self._version += 1
        gone = [address for address in list(self._servers) if address not in primaries]
        for address in gone:
            # It may come back after a time as a replica, and lack revocations (T3).
            self._revocations.lost(address)
        # A request that has begun may still open a connection to such a node: close it next time.
        departed, self._departed = self._departed, [self._servers.pop(each) for each in gone]
        for server in [*departed, *self._departed]:
            await server.aclose()

    def _remap(self, address: Address) -> Address:
        return self._topology.remap(address) if self._topology.remap is not None else address

    def _server(self, address: Address) -> AsyncServer:
        server = self._servers.get(address)
        if server is None:
            server = self._make_server(address, ConnectionMonitor(self._revocations, address))
            # Among threads another one may have been first.
            server = self._servers.setdefault(address, server)
        return server

    def _make_server(self, address: Address, monitor: ConnectionMonitor) -> AsyncServer:
        host, port = address
        factory = self._topology.factory.with_options(host=host, port=port)
        return AsyncServer(factory, monitor, self._settings, many_slots=True)


def _seconds_left(end: float) -> float:
    return max(end - time.monotonic(), 0)


def _name(address: Address) -> str:
    host, port = address
    return f"{host}:{port}"
