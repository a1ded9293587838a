"""The adapter's own connections: to one server, to Sentinel, to a cluster; the deadline."""

import logging
import math
from collections.abc import Callable, Generator
from contextlib import ExitStack
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest
import redis.credentials
import redis.exceptions
import valkey.credentials
import valkey.exceptions
from redis.asyncio import Redis
from redis.crc import key_slot

from lucia._compat.pause import AsyncPause
from lucia._redis.commands import Batch, Call, Command, Operation
from lucia._testing.racing_calls import AsyncRacingCalls
from lucia.adapters.redis import AsyncRedisSessionAdapter
from lucia.errors import StoreUnavailable
from tests.aio.support.rendezvous import retry_until_answered
from tests.support.redis_clients import AsyncClients
from tests.support.redis_inspectors import ClusterInspector, Inspector
from tests.support.redis_servers import frozen, silent_server, tls_server, without_tls
from tests.support.sentinels import sentinel_group
from tests.support.sessions import row
from tools.servers import Cluster, Server, own_server, until, unused_port

MINUTE: Final = 60_000
SOON: Final = timedelta(seconds=0.3)
LIBRARIES: Final = ("redis", "valkey")
CONNECTION_ERRORS: Final = (redis.exceptions.ConnectionError, valkey.exceptions.ConnectionError)

of_each_library = pytest.mark.parametrize("library", LIBRARIES)


@pytest.fixture
def inspector(redis_server: Server) -> Generator[Inspector]:
    """Yield an inspector of an emptied server."""
    with Inspector(redis_server) as found:
        yield found


async def live(adapter: AsyncRedisSessionAdapter) -> None:
    """Create, renew, list and revoke a session."""
    await adapter.set_session(row("one"))
    assert await adapter.renew_session("one", row("two"), grace=MINUTE) is not None
    assert [each.id for each in await adapter.get_sessions_by_user_id("u1")] == ["two"]
    await adapter.delete_session("one")
    assert await adapter.get_session("two") is None


# Options of the client


@of_each_library
async def test_tls(library: str, tmp_path: Path) -> None:
    """The adapter uses the client's TLS options; an untrusted certificate is the client's error.

    A frozen server with TLS is StoreUnavailable.
    """
    with tls_server(tmp_path) as (server, certificate):
        kind = f"{library}-py as it is"
        client = AsyncClients.make(kind, server, ssl=True, ssl_ca_certs=str(certificate))
        async with (
            client,
            AsyncRedisSessionAdapter(client) as adapter,
            AsyncRedisSessionAdapter(client, deadline=SOON) as hasty,
        ):
            await live(adapter)
            await retry_until_answered(partial(hasty.get_session, "one"))
            with frozen(without_tls(server)), pytest.raises(StoreUnavailable):
                await hasty.get_session("one")
            await retry_until_answered(partial(hasty.get_session, "one"))
            await live(adapter)
        async with (
            AsyncClients.make(kind, server, ssl=True) as client,
            AsyncRedisSessionAdapter(client) as adapter,
        ):
            with pytest.raises(StoreUnavailable) as raised:
                await adapter.get_session("one")
            assert isinstance(raised.value.__cause__, CONNECTION_ERRORS)


CREDENTIALS: Final[dict[str, Any]] = {
    "redis": redis.credentials.UsernamePasswordCredentialProvider,
    "valkey": valkey.credentials.UsernamePasswordCredentialProvider,
}


@of_each_library
async def test_credential_provider(
    library: str, redis_server: Server, inspector: Inspector
) -> None:
    """The adapter logs in with the client's credential provider."""
    inspector.on_each("ACL", "SETUSER", "app", "reset", "on", ">pass", "~*", "+@all")
    provider = CREDENTIALS[library]("app", "pass")
    client = AsyncClients.make(f"{library}-py as it is", redis_server, credential_provider=provider)
    async with client, AsyncRedisSessionAdapter(client) as adapter:
        await live(adapter)
        assert [each["user"] for each in inspector.client.client_list()].count("app") == 1
    inspector.on_each("ACL", "DELUSER", "app")


async def test_connections_that_the_server_closed(
    redis_server: Server, inspector: Inspector
) -> None:
    """A connection closed by the server is detected before a command is sent, even for a login."""
    async with (
        Redis.from_url(redis_server.url) as client,
        AsyncRedisSessionAdapter(client) as adapter,
    ):
        for _ in range(3):
            await live(adapter)
            inspector.client.client_kill_filter(_type="normal")
            await AsyncPause.seconds(0.02)
            await live(adapter)


async def test_a_user_that_is_deleted(redis_server: Server, inspector: Inspector) -> None:
    """If the Redis user is deleted, the adapter's next call raises the client's own error."""
    inspector.on_each("ACL", "SETUSER", "app", "reset", "on", ">pass", "~*", "+@all")
    async with (
        Redis.from_url(redis_server.url, username="app", password="pass") as client,
        AsyncRedisSessionAdapter(client) as adapter,
    ):
        await live(adapter)
        inspector.on_each("ACL", "DELUSER", "app")
        await AsyncPause.seconds(0.02)
        with pytest.raises(redis.exceptions.AuthenticationError):
            await adapter.set_session(row("one"))


async def test_not_logged_in_any_more(tmp_path: Path) -> None:
    """A connection that is no longer logged in raises the client's error, and is closed."""
    with own_server("redis-server", tmp_path) as server:
        async with (
            Redis.from_url(server.url) as client,
            AsyncRedisSessionAdapter(client) as adapter,
        ):
            await live(adapter)
            with redis.Redis(port=server.port) as admin:
                admin.config_set("requirepass", "secret")
            route: Any = await adapter._driver._route.get()
            await route._server.ask([("RESET",)], 1)
            with pytest.raises(redis.exceptions.AuthenticationError):
                await adapter.set_session(row("one"))
            assert route._server._idle == []


async def test_closing_while_in_use(redis_server: Server, inspector: Inspector) -> None:
    """A connection in use when the adapter is closed is closed after its reply."""
    async with Redis.from_url(redis_server.url, client_name="mine") as client:
        adapter = AsyncRedisSessionAdapter(client)
        await adapter.set_session(row("one"))

        async def close_meanwhile() -> None:
            await AsyncPause.seconds(0.05)
            await adapter.aclose()
            stopped.close()

        with ExitStack() as stopped:
            stopped.enter_context(frozen(redis_server))
            found, _ = await AsyncRacingCalls.gather_results(
                partial(adapter.get_session, "one"), close_meanwhile
            )
        assert getattr(found, "id", None) == "one"
        until(lambda: "mine" not in [each["name"] for each in inspector.client.client_list()])


# Sentinel


@of_each_library
async def test_a_sentinel_that_hangs(library: str, tmp_path: Path) -> None:
    """If one Sentinel does not reply, the next one is asked, within the deadline.

    If none replies, it is StoreUnavailable.
    """
    with sentinel_group(library, tmp_path) as group, silent_server() as silent:
        sentinel = AsyncClients.sentinels[library]([(silent.host, silent.port), *group.sentinels])
        client = sentinel.master_for(group.name)
        async with (
            client,
            AsyncRedisSessionAdapter(client, deadline=timedelta(seconds=3)) as adapter,
        ):
            await live(adapter)
        nowhere = AsyncClients.sentinels[library]([("127.0.0.1", unused_port())]).master_for(
            group.name
        )
        async with nowhere, AsyncRedisSessionAdapter(nowhere) as adapter:
            with pytest.raises(StoreUnavailable) as raised:
                await adapter.set_session(row("one"))
            assert isinstance(raised.value.__cause__, CONNECTION_ERRORS)
            assert not raised.value.ambiguous


# Clusters


@pytest.fixture
def nodes(cluster: Cluster) -> Generator[ClusterInspector]:
    """Yield an inspector of the emptied cluster."""
    with ClusterInspector(cluster) as found:
        yield found


Change = Callable[[str, int], None]


@pytest.fixture
def moving(nodes: ClusterInspector) -> Generator[Change]:
    """Yield a function that moves the slot of a key step by step; undo all moves at the end."""
    changed: dict[int, int] = {}
    ids = nodes.ids()

    def owner(slot: int) -> int:
        port = nodes.client.nodes_manager.get_node_from_slot(slot).port
        return nodes.cluster.ports.index(int(port))

    def change(step: str, slot: int) -> None:
        source = changed.setdefault(slot, owner(slot))
        target = (source + 1) % len(ids)
        if step == "begin":
            nodes.nodes[target].execute_command("CLUSTER SETSLOT", slot, "IMPORTING", ids[source])
            nodes.nodes[source].execute_command("CLUSTER SETSLOT", slot, "MIGRATING", ids[target])
        elif step == "disagree":
            nodes.nodes[source].execute_command("CLUSTER SETSLOT", slot, "NODE", ids[target])
        elif step == "end":
            for node in (nodes.nodes[target], nodes.nodes[source]):
                node.execute_command("CLUSTER SETSLOT", slot, "NODE", ids[target])
        else:
            for node in nodes.nodes:
                node.execute_command("CLUSTER SETSLOT", slot, "STABLE")

    yield change
    nodes.on_each("FLUSHALL")
    for slot, source in changed.items():
        nodes.assign(slot, source)


@of_each_library
async def test_slots_that_move(
    library: str, cluster: Cluster, nodes: ClusterInspector, moving: Change
) -> None:
    """Sessions work while their slot is moved to another node, and afterwards."""
    async with (
        AsyncClients.of_cluster(library, cluster) as client,
        AsyncRedisSessionAdapter(client) as adapter,
    ):
        await live(adapter)
        slot = key_slot(b"session:moved")
        moving("begin", slot)
        await adapter.set_session(row("moved"))
        assert await adapter.get_session("moved") is not None
        moving("end", slot)
        assert await adapter.get_session("moved") is not None
        await adapter.delete_session("moved")
        assert nodes.live() == set()
        await adapter.set_session(row("moved"))
        assert nodes.live() == {"moved"}


async def test_keys_of_a_slot_that_moves(
    cluster: Cluster, nodes: ClusterInspector, moving: Change
) -> None:
    """A command whose keys are on two nodes waits for the end of the move, or for its deadline."""
    async with (
        AsyncClients.of_cluster("redis", cluster) as client,
        AsyncRedisSessionAdapter(client) as adapter,
    ):
        await adapter.set_session(row("moved"))
        slot = key_slot(b"session:moved")
        moving("begin", slot)

        async def end_later() -> None:
            await AsyncPause.seconds(1)
            moving("abandon", slot)

        await AsyncRacingCalls.gather_results(partial(adapter.delete_session, "moved"), end_later)
        assert nodes.live() == set()
        await adapter.set_session(row("moved"))
        moving("begin", slot)
        hasty = AsyncRedisSessionAdapter(client, deadline=SOON * 4)
        # The last one is raised if the deadline ends an attempt.
        in_vain = r"(?i)multiple keys|TRYAGAIN|in time|may have been done or not"
        with pytest.raises((redis.exceptions.ResponseError, StoreUnavailable), match=in_vain):
            await hasty.delete_session("moved")


async def test_nodes_that_disagree(
    cluster: Cluster, nodes: ClusterInspector, moving: Change
) -> None:
    """If two nodes redirect to each other, a command waits until they agree, or times out."""
    async with (
        AsyncClients.of_cluster("redis", cluster) as client,
        AsyncRedisSessionAdapter(client) as adapter,
    ):
        slot = key_slot(b"session:moved")
        moving("disagree", slot)
        hasty = AsyncRedisSessionAdapter(client, deadline=SOON * 4)
        with pytest.raises((redis.exceptions.MovedError, StoreUnavailable)):
            await hasty.set_session(row("moved"))

        async def agree_later() -> None:
            await AsyncPause.seconds(1)
            moving("end", slot)

        await AsyncRacingCalls.gather_results(
            partial(adapter.set_session, row("moved")), agree_later
        )
        assert nodes.live() == {"moved"}


@of_each_library
async def test_a_frozen_node(library: str, cluster: Cluster, nodes: ClusterInspector) -> None:
    """Sessions of a frozen node are StoreUnavailable by the deadline; those of others work."""
    async with (
        AsyncClients.of_cluster(library, cluster) as client,
        AsyncRedisSessionAdapter(client, deadline=SOON * 6) as adapter,
    ):
        ids = [f"s{number}" for number in range(12)]
        for id_ in ids:
            await retry_until_answered(partial(adapter.set_session, row(id_)))
        port = port_of(nodes, "session:s0")
        theirs = [id_ for id_ in ids if port_of(nodes, f"session:{id_}") != port]
        with frozen(Server("redis", "127.0.0.1", port, Path("/nowhere"))):
            with pytest.raises(StoreUnavailable):
                await adapter.get_session("s0")
            assert [id_ for id_ in theirs if await adapter.get_session(id_) is None] == []
        assert theirs
        assert await retry_until_answered(partial(adapter.get_session, "s0")) is not None


async def test_a_map_by_whichever_node_answers(cluster: Cluster, nodes: ClusterInspector) -> None:
    """If any one node is frozen, another one is asked for the slot map, within the deadline."""
    async with AsyncClients.of_cluster("redis", cluster) as client:
        for port in cluster.ports:
            id_ = next(
                f"s{number}" for number in range(99) if port_of(nodes, f"session:s{number}") != port
            )
            nodes.write(row(id_))
            adapter = AsyncRedisSessionAdapter(client, deadline=SOON * 6)
            with frozen(Server("redis", "127.0.0.1", port, Path("/nowhere"))):
                assert await adapter.get_session(id_) is not None
            await adapter.aclose()


def port_of(nodes: ClusterInspector, key: str) -> int:
    """Return the port of the node that has a key's slot."""
    return int(nodes.client.nodes_manager.get_node_from_slot(key_slot(key.encode())).port)


async def test_a_map_that_is_refused(cluster: Cluster, nodes: ClusterInspector) -> None:
    """A user without the right to the slot map gets the client's own error."""
    nodes.on_each("ACL", "SETUSER", "app", "reset", "on", ">pass", "~*", "+@all")
    async with AsyncClients.of_cluster("redis", cluster, username="app", password="pass") as client:
        nodes.on_each("ACL", "SETUSER", "app", "-cluster")
        adapter = AsyncRedisSessionAdapter(client)
        with pytest.raises(redis.exceptions.NoPermissionError, match="cluster"):
            await adapter.get_session("one")
        await adapter.aclose()
    nodes.on_each("ACL", "DELUSER", "app")


async def test_a_map_that_is_wrong(cluster: Cluster, nodes: ClusterInspector) -> None:
    """If a node is not at its address in the slot map, the next call reads the map again."""
    gone: set[int] = set()
    nowhere = unused_port()

    def reach(address: tuple[str, int]) -> tuple[str, int]:
        return (address[0], nowhere) if gone else address

    async with (
        AsyncClients.of_cluster("redis", cluster, address_remap=reach) as client,
        AsyncRedisSessionAdapter(client) as adapter,
    ):
        gone.add(1)
        with pytest.raises(StoreUnavailable) as raised:
            await adapter.set_session(row("one"))
        assert isinstance(raised.value.__cause__, CONNECTION_ERRORS)
        gone.clear()
        await live(adapter)
    assert nodes.live() == set()


async def test_any_node(cluster: Cluster, nodes: ClusterInspector) -> None:
    """A command without a key is sent to any node."""
    async with (
        AsyncClients.of_cluster("redis", cluster) as client,
        AsyncRedisSessionAdapter(client) as adapter,
    ):
        seconds, _ = await adapter._driver.run(sent(Call("TIME", ())))
        assert int(seconds) > 0


async def test_a_batch_of_which_one_command_fails(inspector: Inspector) -> None:
    """The replies of a batch are in order, and the error of its first failed command is raised."""
    client = AsyncClients.make("redis-py as it is", inspector.server)
    async with client, AsyncRedisSessionAdapter(client) as adapter:
        good = Call("SET", ("text", "no number")), Call("MGET", ("other",))
        assert await adapter._driver.run(sent(Batch(good))) == [b"OK", [None]]
        with pytest.raises(redis.exceptions.ResponseError, match="not an integer"):
            await adapter._driver.run(
                sent(Batch((*good, Call("INCR", ("text",)), Call("NEVER", ()))))
            )


def sent(command: Command) -> Operation[Any]:
    """Return an operation of one command."""
    return (yield command)


# Clients that can't be copied


class Traced(Redis):
    """A client that runs commands in its own way."""

    sent: int = 0

    async def execute_command(self, *arguments: Any, **options: Any) -> Any:
        self.sent += 1
        execute: Any = super().execute_command
        return await execute(*arguments, **options)


async def test_custom_client_is_used_as_is(
    redis_server: Server, inspector: Inspector, caplog: pytest.LogCaptureFixture
) -> None:
    """A client that runs commands in its own way is used itself, which is logged once."""
    inspector.on_each("ACL", "SETUSER", "app", "reset", "on", ">pass", "~*", "+@all", "-@scripting")
    logins: tuple[dict[str, Any], ...] = ({}, {"username": "app", "password": "pass"})
    for options in logins:
        caplog.clear()
        async with Traced(host=redis_server.host, port=redis_server.port, **options) as client:
            async with AsyncRedisSessionAdapter(client) as adapter:
                await live(adapter)
                inspector.client.set("session:mine", b"{}")
                assert await adapter.get_session("mine") is None
            assert client.sent > 5
            assert await client.ping()
        assert caplog.records[0].levelno == logging.WARNING
        assert "this Traced can't be copied" in caplog.records[0].getMessage()
    inspector.on_each("ACL", "DELUSER", "app")


async def test_custom_client_without_server() -> None:
    """If such a client fails, a read has changed nothing, and a write may have been done."""
    async with Traced(
        host="127.0.0.1", port=unused_port(), **AsyncClients.retrying("redis", 0)
    ) as client:
        adapter = AsyncRedisSessionAdapter(client)
        with pytest.raises(StoreUnavailable) as raised:
            await adapter.get_session("one")
        assert isinstance(raised.value.__cause__, CONNECTION_ERRORS)
        assert not raised.value.ambiguous
        with pytest.raises(StoreUnavailable) as raised:
            await adapter.set_session(row("one"))
        assert raised.value.ambiguous


# The deadline


@pytest.mark.parametrize(
    ("deadline", "error", "words"),
    [
        (5, TypeError, "deadline must be a datetime.timedelta, not int"),
        (timedelta(0), ValueError, "more than 0 and at most 30 seconds, not 0"),
        (timedelta(seconds=-1), ValueError, "more than 0 and at most 30 seconds, not -1"),
        (timedelta(seconds=31), ValueError, "more than 0 and at most 30 seconds, not 31"),
    ],
    ids=["number", "zero", "negative", "long"],
)
async def test_refused_deadlines(deadline: Any, error: type[Exception], words: str) -> None:
    """A deadline must be a positive ``timedelta`` of at most 30 seconds.

    With ``revoke_ack``, whose timeout is compared with it, the error is the same.
    """
    for revoke_ack in (0, 1):
        with pytest.raises(error, match=words):
            AsyncRedisSessionAdapter(Redis(), deadline=deadline, revoke_ack=revoke_ack)


def pausing(count: int) -> Operation[None]:
    """Return an operation of several commands, which take 0.15 seconds each."""
    for _ in range(count):
        yield Call("BLPOP", ("nothing", "0.15"))


async def test_operation_has_one_deadline(redis_server: Server, inspector: Inspector) -> None:
    """All commands of an operation share one deadline, unless it goes page by page."""
    soon = timedelta(seconds=0.4)
    async with (
        AsyncClients.make("redis-py as it is", redis_server) as client,
        AsyncRedisSessionAdapter(client, deadline=soon) as adapter,
    ):
        await adapter._driver.run(pausing(1))
        for count, seconds in ((4, None), (1, 0.0)):
            with pytest.raises(StoreUnavailable):
                await adapter._driver.run(pausing(count), seconds)
        await adapter._driver.run(pausing(4), math.inf)
