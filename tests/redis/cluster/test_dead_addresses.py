"""Addresses that do not reply: nodes and Sentinels that are gone or drop packets."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any, Final

import pytest
import redis
from redis.crc import key_slot

from lucia._async.stores.redis.router import open_route as open_async_route
from lucia._redis.commands import DEFAULT_MODE, SendMode
from lucia._redis.replay import Revocations
from lucia._redis.transport.retries import NoReply
from lucia._redis.transport.settings import AsyncSettings, Settings
from lucia._redis.transport.topology import InCluster, topology_of
from lucia._sync.stores.redis.router import open_route
from lucia.adapters.redis import AsyncRedisSessionAdapter, RedisSessionAdapter
from lucia.errors import StoreUnavailable
from tests.aio.support.rendezvous import until
from tests.support.cluster_changes import (
    FLAVOURS,
    EitherAdapter,
    either_adapter,
    swallowed_ports,
)
from tests.support.faulty_proxy import FaultyProxy
from tests.support.redis_clients import AsyncClients, Clients
from tests.support.redis_servers import silent_server
from tests.support.sentinels import SentinelPair, sentinel_pair
from tests.support.sessions import row
from tools.servers import Cluster, unused_port

SECONDS: Final = 3.0
"""The deadline of a command."""

each_flavour = pytest.mark.parametrize("flavour", FLAVOURS)

pytestmark = [
    pytest.mark.no_cover,
    pytest.mark.filterwarnings("ignore:(?s).*lib_:DeprecationWarning"),
]


@pytest.fixture(scope="module")
def dead() -> Iterator[list[int]]:
    """Yield a dozen ports that drop packets."""
    with swallowed_ports(12) as ports:
        yield ports


def route_to(flavour: str, cluster: Cluster, *ports: int) -> Any:
    """Return a route to a cluster that is configured with these ports."""
    kind: Any = AsyncClients if flavour == "async" else Clients
    topology = topology_of(kind.of_cluster("redis", cluster))
    assert isinstance(topology, InCluster)
    topology = replace(topology, nodes=tuple(("127.0.0.1", port) for port in ports))
    if flavour == "async":
        return open_async_route(topology, AsyncSettings(seconds=SECONDS), Revocations())
    return open_route(topology, Settings(seconds=SECONDS), Revocations())


async def call(flavour: str, method: Any, *arguments: Any) -> Any:
    """Call a method of either flavour."""
    if flavour == "async":
        return await method(*arguments)
    return await asyncio.to_thread(method, *arguments)


async def ping(flavour: str, route: Any, key: str | None = None, seconds: float = SECONDS) -> Any:
    """Send PING to the node that serves a key, or to any node."""
    return await call(flavour, route.ask, key, [("PING",)], seconds, DEFAULT_MODE)


@each_flavour
async def test_a_dozen_dead_addresses(flavour: str, dead: list[int], cluster: Cluster) -> None:
    """If twelve configured addresses drop packets, the map is read from the thirteenth."""
    route = route_to(flavour, cluster, *dead, cluster.ports[0])
    calls = [ping(flavour, route, f"k{key}") for key in range(300)]
    assert await asyncio.gather(*calls) == [[b"PONG"]] * 300
    assert route._nodes_with_map()[0][1] in cluster.ports  # a live node comes first
    assert len(await call(flavour, route.nodes, SECONDS)) == len(cluster.ports)
    await call(flavour, getattr(route, "aclose", None) or route.close)


@each_flavour
async def test_what_a_node_says_of_a_slot(flavour: str, cluster: Cluster) -> None:
    """A redirection to the known node of a slot does not make the map outdated."""
    route = route_to(flavour, cluster, *cluster.ports)
    nowhere = ("127.0.0.1", unused_port())
    route._record_redirection(nowhere, 0, asking=False)
    assert (route._slots, route._is_outdated) == ({}, False)
    await ping(flavour, route, "key")
    route._record_redirection(route._slots[0], 0, asking=False)
    assert not route._is_outdated
    route._record_redirection(nowhere, 0, asking=False)
    assert (route._slots[0], route._is_outdated) == (nowhere, True)
    await call(flavour, route.nodes, SECONDS)
    assert (route._slots[0] != nowhere, route._is_outdated) == (True, False)
    await call(flavour, getattr(route, "aclose", None) or route.close)


@each_flavour
async def test_a_redirection_while_primaries_are_listed(flavour: str, cluster: Cluster) -> None:
    """Listing the primaries that may have taken a write is not hindered by a redirection.

    Another thread may record one at any moment.
    """
    route = route_to(flavour, cluster, *cluster.ports)
    await ping(flavour, route, "key")

    class Interrupted(float):
        """A time; another thread records a redirection while it is compared."""

        def __ge__(self, other: object) -> bool:
            with ThreadPoolExecutor(1) as threads:
                address = ("127.0.0.1", unused_port())
                record = partial(route._record_redirection, address, 0, asking=True)
                threads.submit(record).result()
            return False

    for number in range(2):
        route._importing["127.0.0.1", number] = Interrupted()
    found = await call(flavour, route.key_per_primary, "session:renewed:", SECONDS, 0.0)
    assert len(found) == len(cluster.ports)
    await call(flavour, getattr(route, "aclose", None) or route.close)


@each_flavour
async def test_only_dead_addresses(flavour: str, dead: list[int], cluster: Cluster) -> None:
    """If all addresses drop packets, an error is raised soon after the timeout."""
    route = route_to(flavour, cluster, *dead, *dead[:1])
    began = time.monotonic()
    with pytest.raises(NoReply) as raised:
        await ping(flavour, route, "key", SECONDS / 3)
    assert raised.value.sent is False
    assert time.monotonic() - began < SECONDS
    await call(flavour, getattr(route, "aclose", None) or route.close)


@each_flavour
async def test_a_map_that_names_dead_addresses(
    flavour: str, dead: list[int], cluster: Cluster
) -> None:
    """If the map names dead addresses, the next try finds the right ones."""
    moved: dict[int, int] = dict(zip(cluster.ports, dead, strict=False))

    def reach(address: tuple[str, int]) -> tuple[str, int]:
        return address[0], moved.get(address[1], address[1])

    route = route_to(flavour, cluster, *cluster.ports)
    route._topology = replace(route._topology, remap=reach)
    with pytest.raises(NoReply):
        await ping(flavour, route, "key", SECONDS / 3)
    moved.clear()
    assert await ping(flavour, route, "key") == [b"PONG"]
    assert {port for _, port in route._servers} <= set(cluster.ports)
    await call(flavour, getattr(route, "aclose", None) or route.close)


@each_flavour
async def test_a_node_that_left_its_address(
    flavour: str, dead: list[int], cluster: Cluster
) -> None:
    """If an address dies during a request, the new one is found before the deadline."""
    moved: dict[int, int] = {}

    def reach(address: tuple[str, int]) -> tuple[str, int]:
        return address[0], moved.get(address[1], address[1])

    options, deadline = {"address_remap": reach}, timedelta(seconds=SECONDS)
    async with either_adapter(flavour, cluster, options, deadline=deadline) as adapter:
        moved.update(zip(cluster.ports, dead, strict=False))
        asking = asyncio.gather(*(adapter.get(f"nobody{number}") for number in range(5)))
        await asyncio.sleep(SECONDS / 6)  # the map was read, and connecting hangs
        moved.clear()
        assert await asking == [None] * 5
        await adapter.add(row("somebody"))
        await adapter.delete("somebody")


@each_flavour
async def test_requests_while_the_map_is_read(
    flavour: str, dead: list[int], cluster: Cluster
) -> None:
    """While the map can't be read, only requests to suspect nodes wait for it.

    Then they use the last map.
    """
    route = route_to(flavour, cluster, *cluster.ports)
    await ping(flavour, route, "key")
    suspect = route._slots[key_slot(b"key")]
    others = [f"k{number}" for number in range(300)]
    others = [key for key in others if route._slots[key_slot(key.encode())] != suspect]
    nowhere = tuple(("127.0.0.1", port) for port in dead)
    route._topology, route._nodes = replace(route._topology, nodes=nowhere), ()
    route._suspects.add(suspect)
    waiting = asyncio.create_task(ping(flavour, route, "key"))
    await asyncio.sleep(0.1)
    calls = [ping(flavour, route, key) for key in others]
    assert await asyncio.gather(*calls) == [[b"PONG"]] * len(others)
    assert not waiting.done()
    assert await waiting == [b"PONG"]
    with pytest.raises(NoReply):
        await call(flavour, route.nodes, SECONDS / 3)
    await call(flavour, getattr(route, "aclose", None) or route.close)


@each_flavour
async def test_a_shard_that_is_down_is_no_other_server_elsewhere(
    flavour: str, cluster: Cluster
) -> None:
    """While one shard is down, the others answer, also if no server tells its history.

    A connection that was lost at one shard demands no replay at another, since the replay could
    not be completed. It is due once the shard is back.
    """
    rights = ("reset", "on", ">secret", "~*", "+@all", "-info")
    cluster.on_each("ACL", "SETUSER", "app", *rights)
    with FaultyProxy(cluster.ports[0]) as shard:

        def reach(address: tuple[str, int]) -> tuple[str, int]:
            return address[0], shard.port if address[1] == shard.target else address[1]

        options = {"address_remap": reach, "username": "app", "password": "secret"}
        async with either_adapter(flavour, cluster, options) as adapter:
            ids = [f"{flavour}-{number}" for number in range(12)]
            await adapter.add(*(row(session_id) for session_id in ids))
            route = await adapter.route()
            down = ("127.0.0.1", shard.port)
            there = [
                each for each in ids if route._slots[key_slot(f"session:{each}".encode())] == down
            ]
            others = set(ids) - set(there)
            await adapter.delete(there[0])
            shard.refuse()
            shard.cut()
            for _ in range(2):
                with pytest.raises(StoreUnavailable):
                    await adapter.get(there[1])
                await adapter.call(route.drop_idle)  # the next connections are checked
                assert await adapter.live(*others) == others
            shard.accept()
            demand = adapter.adapter._revocations.newest_demand
            assert await adapter.live(*ids) == {*others, *there[1:]}
            assert adapter.adapter._revocations.newest_demand > demand
    cluster.on_each("ACL", "DELUSER", "app")


# Sentinel


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SentinelPair]:
    """Yield a primary and its replica that a Sentinel watches."""
    with sentinel_pair("redis", tmp_path_factory.mktemp("sentinel")) as found:
        yield found


@asynccontextmanager
async def behind_sentinels(
    flavour: str, watched: SentinelPair, *ports: int, **options: Any
) -> AsyncIterator[EitherAdapter]:
    """Yield an adapter behind Sentinels at these ports.

    Args:
        options: of the client of the primary.
    """
    kind: Any = AsyncClients if flavour == "async" else Clients
    sentinel = kind.sentinels["redis"]([("127.0.0.1", port) for port in ports])
    client, deadline = sentinel.master_for(watched.name, **options), timedelta(seconds=SECONDS)
    if flavour == "async":
        async with client, AsyncRedisSessionAdapter(client, deadline=deadline) as adapter:
            yield EitherAdapter(adapter)
        return
    with client, RedisSessionAdapter(client, deadline=deadline) as sync_adapter:
        yield EitherAdapter(sync_adapter)


@each_flavour
@pytest.mark.parametrize("kind", ["dropping", "silent", "closed"])
async def test_a_dozen_dead_sentinels(
    flavour: str, kind: str, dead: list[int], watched: SentinelPair
) -> None:
    """If twelve Sentinels drop packets, stay silent or are gone, the thirteenth is asked."""
    with ExitStack() as stack:
        ports = dead
        if kind == "silent":
            ports = [stack.enter_context(silent_server()).port for _ in range(12)]
        if kind == "closed":
            ports = [unused_port() for _ in range(12)]
        async with behind_sentinels(flavour, watched, *ports, watched.sentinel_port) as adapter:
            session_id = f"{flavour}-{kind}"
            await adapter.add(row(session_id))
            assert await adapter.live(session_id) == {session_id}


@each_flavour
async def test_a_slow_sentinel_among_dead_ones(
    flavour: str, dead: list[int], watched: SentinelPair
) -> None:
    """A slow Sentinel is waited for, however many others are dead.

    A thirteenth of the timeout for all Sentinels would be too short for one reply.
    """
    with FaultyProxy(watched.sentinel_port) as link:
        link.delay = SECONDS / 50  # in each direction
        async with behind_sentinels(flavour, watched, *dead, link.port) as adapter:
            await adapter.add(row(f"{flavour}-slow"))
            assert await adapter.get(f"{flavour}-slow") is not None


@each_flavour
@pytest.mark.parametrize("right", ["+info", "-info"])
async def test_connections_to_an_old_master(
    flavour: str, right: str, watched: SentinelPair
) -> None:
    """When Sentinel names another primary, connections to the old one are not reused.

    This holds even if the servers may not tell their history.
    """
    old, new = watched.pair.primary, watched.pair.replica
    for node in (old, new):
        node.client.execute_command(
            "ACL", "SETUSER", "app", "reset", "on", ">secret", "~*", "+@all", right
        )

    def name(port: int) -> None:
        with redis.Redis(port=watched.sentinel_port) as sentinel:
            sentinel.sentinel_remove(watched.name)
            sentinel.sentinel_monitor(watched.name, "127.0.0.1", port, 1)

    def restore() -> None:
        new.client.replicaof("127.0.0.1", watched.pair.link.port)
        name(old.port)

    login = {"username": "app", "password": "secret"}
    async with AsyncExitStack() as stack:
        stack.callback(restore)
        adapter = await stack.enter_async_context(
            behind_sentinels(flavour, watched, watched.sentinel_port, **login)
        )
        assert await adapter.get("one") is None
        route = await adapter.route()
        blocking, alone = ("BLPOP", "nothing", "1"), SendMode(alone=True)
        in_use = [adapter.call(route.ask, None, [blocking], SECONDS, alone) for _ in range(3)]
        waiting = asyncio.gather(*in_use)
        await until(lambda: old.client.info("clients")["blocked_clients"] == len(in_use))
        new.client.replicaof("NO", "ONE")
        name(new.port)
        assert await ping(flavour, route) == [b"PONG"]
        assert await waiting == [[None]] * 3
        assert await ping(flavour, route) == [b"PONG"]
        assert {each.connection.port for each in route._server._idle} == {new.port}


@each_flavour
async def test_only_dead_sentinels(flavour: str, dead: list[int], watched: SentinelPair) -> None:
    """If no Sentinel replies, an error is raised within the deadline.

    It is the client's own or `StoreUnavailable`.
    """
    async with behind_sentinels(flavour, watched, *dead) as adapter:
        began = time.monotonic()
        with pytest.raises(Exception, match=r"No master found|did not reply|no Sentinel"):
            await adapter.get("one")
        assert time.monotonic() - began < 2 * SECONDS
