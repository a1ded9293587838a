"""Connections of the Redis adapter: each event loop and process has its own, and closes it."""

import asyncio
import gc
import subprocess
import sys
import threading
import weakref
from collections.abc import Awaitable, Callable, Generator
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import redis
import redis.asyncio
import redis.exceptions

from lucia._compat.per_loop import AsyncPerLoop
from lucia._redis.commands import DEFAULT_MODE, UNGATED, Call, Eval, SendMode, Transaction
from lucia._redis.index import LIST, SET
from lucia._redis.replay import ConnectionMonitor, Revocations
from lucia._redis.scripts import DELETE, REPLACE_WITH_MARKER
from lucia._redis.transport.connections import AsyncServer, Server
from lucia._redis.transport.fair_semaphore import FairSemaphore
from lucia._redis.transport.passthrough import AsyncClientPassthrough, ClientPassthrough
from lucia._redis.transport.retries import BatchRejected, NoReply, is_repeatable
from lucia._redis.transport.settings import AsyncSettings, Settings
from lucia._redis.transport.slots import SLOTS, is_redirected, parse_slot_map, redirection_in
from lucia._redis.transport.topology import ConnectionFactory, InCluster, OneServer, topology_of
from lucia.adapters.redis import AsyncRedisSessionAdapter, RedisSessionAdapter
from lucia.errors import StoreUnavailable
from tests.support.event_loops import InterruptedLoop
from tests.support.faulty_proxy import FaultyProxy
from tests.support.redis_clients import AsyncClients, Clients
from tests.support.redis_inspectors import Inspector
from tests.support.redis_servers import frozen, silent_server
from tests.support.sessions import row
from tools.servers import Cluster, own_server, until, unused_port
from tools.servers import Server as RealServer


@pytest.fixture
def inspector(redis_server: RealServer) -> Generator[Inspector]:
    """Yield an inspector of an empty server."""
    with Inspector(redis_server) as found:
        yield found


def named(inspector: Inspector, name: str) -> int:
    """Return how many connections have this name."""
    return [each["name"] for each in inspector.client.client_list()].count(name)


# Event loops


def test_one_loop_after_another(inspector: Inspector) -> None:
    """An adapter works in one event loop after another.

    Each loop closes its connections when it ends.
    """
    adapter = AsyncRedisSessionAdapter(
        redis.asyncio.Redis(port=inspector.server.port, client_name="mine")
    )

    async def use(session_id: str) -> None:
        await adapter.set_session(row(session_id))
        assert await adapter.get_session(session_id) is not None
        assert named(inspector, "mine") == 1

    for number in range(3):
        asyncio.run(use(f"s{number}"))
        until(lambda: named(inspector, "mine") == 0)
    assert len(adapter._driver._route._by_loop) == 1


def test_loops_at_the_same_time(inspector: Inspector) -> None:
    """An adapter works in the event loops of several threads at the same time."""
    adapter = AsyncRedisSessionAdapter(redis.asyncio.Redis(port=inspector.server.port))
    failed: list[BaseException] = []

    async def use(thread: int) -> None:
        for number in range(20):
            await adapter.set_session(row(f"{thread}-{number}", f"u{thread}"))
            assert await adapter.get_session(f"{thread}-{number}") is not None

    def run(thread: int) -> None:
        try:
            asyncio.run(use(thread))
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []


async def test_an_adapter_that_is_gone(inspector: Inspector) -> None:
    """When an adapter is garbage collected, also as part of a cycle, its connections are closed."""
    client = redis.asyncio.Redis(port=inspector.server.port, client_name="mine")
    adapter: Any = AsyncRedisSessionAdapter(client)
    circle: list[Any] = [adapter]
    circle.append(circle)
    await adapter.get_session("one")
    assert named(inspector, "mine") == 1
    del adapter, circle
    gc.collect()
    for _ in range(200):
        await asyncio.sleep(0.01)
        if named(inspector, "mine") == 0:
            return
    raise AssertionError("the connection was not closed")


async def test_an_adapter_that_is_gone_after_a_replay(inspector: Inspector) -> None:
    """An adapter is garbage-collected too, and its connections closed, after a replay.

    This holds for a replay that failed and for one that was completed.
    """
    client = redis.asyncio.Redis(port=inspector.server.port, client_name="mine")
    for fails in (True, False):
        adapter: Any = AsyncRedisSessionAdapter(client, deadline=timedelta(milliseconds=200))
        await adapter.set_session(row("one"))
        await adapter.delete_session("one")
        adapter._revocations.met(None, b"another")
        if fails:
            with frozen(inspector.server), pytest.raises(StoreUnavailable):
                await adapter.get_session("one")
        else:
            assert await adapter.get_session("one") is None
        assert adapter._revocations.due is fails
        driver = weakref.ref(adapter._driver)
        del adapter
        for _ in range(200):
            gc.collect()
            await asyncio.sleep(0.01)
            if driver() is None and named(inspector, "mine") == 0:
                break
        assert (driver(), named(inspector, "mine")) == (None, 0)


class Thing:
    """An object that counts how often it is closed."""

    def __init__(self) -> None:
        self.closed = 0

    async def aclose(self) -> None:
        self.closed += 1


def test_a_loop_that_is_closed_before_its_owner_is_gone() -> None:
    """Values that a loop closed when it ended are not closed again when their owner is freed."""
    things: list[Thing] = []

    def make() -> Thing:
        things.append(Thing())
        return things[-1]

    async def use(owned: AsyncPerLoop[Thing]) -> None:
        assert await owned.get() is await owned.get()

    owned = AsyncPerLoop(make)
    asyncio.run(use(owned))
    del owned
    gc.collect()
    assert [thing.closed for thing in things] == [1]


async def test_read_while_the_adapter_closes(inspector: Inspector) -> None:
    """A read that comes while the adapter closes leaves no connection open after the next close."""
    client = redis.asyncio.Redis(port=inspector.server.port, client_name="own")
    adapter = AsyncRedisSessionAdapter(client)
    await adapter.set_session(row("one"))
    # Closing this one, which exists once a replay was due, gives other tasks a turn.
    assert adapter._driver._replayer is not None
    await adapter._driver._replayer.get()
    closing = asyncio.create_task(adapter.aclose())
    reading = asyncio.create_task(adapter._reader.read("one"))
    await asyncio.gather(closing, reading)
    assert await adapter.get_session("one") is not None
    await adapter.aclose()
    await asyncio.to_thread(until, lambda: named(inspector, "own") == 0)


def test_loops_of_two_threads_that_drop_the_same_closed_loop() -> None:
    """Two threads may use a value for the first time at once, each in its own loop."""
    owned = AsyncPerLoop(Thing)

    async def use() -> None:
        await owned.get()

    closed = InterruptedLoop()
    with asyncio.Runner(loop_factory=lambda: closed) as runner:
        runner.run(use())
    closed.meanwhile = lambda: asyncio.run(use())
    asyncio.run(use())
    assert len(owned._by_loop) == 2
    assert closed not in owned._by_loop


async def test_closing_what_was_never_opened() -> None:
    """Closing an adapter that is unused or already closed does nothing."""
    adapter = AsyncRedisSessionAdapter(redis.asyncio.Redis(port=1))
    await adapter.aclose()
    await adapter.aclose()


# Processes

FORK = """
import asyncio, os, sys
import redis, redis.asyncio
from lucia.adapters.redis import AsyncRedisSessionAdapter, RedisSessionAdapter
port = int(sys.argv[1])
blocking = RedisSessionAdapter(redis.Redis(port=port, client_name="blocking"))
waiting = AsyncRedisSessionAdapter(redis.asyncio.Redis(port=port, client_name="waiting"))

async def use(adapter):
    for _ in range(50):
        assert (await adapter.get_session("one")).id == "one"
        assert await adapter.get_session("two") is None

def both():
    for _ in range(50):
        assert blocking.get_session("one").id == "one"
        assert blocking.get_session("two") is None
    asyncio.run(use(waiting))

both()
child = os.fork()
both()
if child == 0:
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
both()
print("done")
"""


def test_fork(inspector: Inspector) -> None:
    """After a fork, parent and child use their own connections, and no reply is mixed up."""
    inspector.write(row("one"))
    command = [
        sys.executable,
        "-W",
        "error::ResourceWarning",
        "-c",
        FORK,
        str(inspector.server.port),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")


UNCLOSED = """
import asyncio, sys
import {library}, {library}.asyncio
from lucia.adapters.redis import AsyncRedisSessionAdapter, RedisSessionAdapter
port = int(sys.argv[1])
adapter = RedisSessionAdapter({library}.{client}(port=port))
adapter.get_session("one")
waiting = AsyncRedisSessionAdapter({library}.asyncio.{client}(port=port))

async def main():
    await asyncio.gather(*(waiting.get_session("one") for _ in range(5)))
    await AsyncRedisSessionAdapter({library}.asyncio.{client}(port=port)).get_session("one")

asyncio.run(main())
print("done")
"""


@pytest.mark.parametrize(("library", "client"), [("redis", "Redis"), ("valkey", "Valkey")])
def test_nobody_has_to_close_an_adapter(inspector: Inspector, library: str, client: str) -> None:
    """A program that closes no adapter exits at once and without a ResourceWarning."""
    program = UNCLOSED.format(library=library, client=client)
    command = [
        sys.executable,
        "-W",
        "error::ResourceWarning",
        "-c",
        program,
        str(inspector.server.port),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")


# Most tests of the adapter cover both flavours. These are for what differs.


def test_short_connect_timeout_does_not_persist(inspector: Inspector) -> None:
    """The timeout of the request that opens a connection does not apply to later requests."""
    topology = topology_of(redis.Redis(port=inspector.server.port, max_connections=1))
    assert isinstance(topology, OneServer)
    server = Server(topology.factory, ConnectionMonitor(Revocations()), Settings())
    assert server.ask([("PING",)], 0.3) == [b"PONG"]
    assert server.ask([("BLPOP", "nothing", "0.5")], 5) == [None]
    assert len(server._idle) == 1
    server.close()


async def test_a_cancelled_call(inspector: Inspector) -> None:
    """A cancelled call releases its connection, and its reply is given to nobody else."""
    adapter = AsyncRedisSessionAdapter(
        redis.asyncio.Redis(port=inspector.server.port, max_connections=1)
    )
    await adapter.set_session(row("one"))
    with frozen(inspector.server):
        call = asyncio.ensure_future(adapter.get_sessions_by_user_id("u1"))
        await asyncio.sleep(0.05)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
    found = await adapter.get_session("one")
    assert found is not None
    await adapter.aclose()


async def test_a_cancelled_revocation_is_remembered_at_once(inspector: Inspector) -> None:
    """A cancelled revocation, which may have been executed, is remembered when the call ends.

    That holds also while somebody has the error with its traceback.
    """
    adapter = AsyncRedisSessionAdapter(redis.asyncio.Redis(port=inspector.server.port))
    await adapter.set_session(row("one"))
    with frozen(inspector.server):
        call = asyncio.ensure_future(adapter.delete_session("one"))
        await asyncio.sleep(0.05)
        call.cancel()
        with pytest.raises(asyncio.CancelledError) as cancelled:
            await call
        assert adapter._revocations.all() == ["one"]
    assert cancelled.tb is not None
    await adapter.aclose()


async def test_an_idle_connection_that_somebody_closed(inspector: Inspector) -> None:
    """An idle connection that was closed is replaced, whether for a read or for a write."""
    adapter = AsyncRedisSessionAdapter(redis.asyncio.Redis(port=inspector.server.port))
    await adapter.set_session(row("one"))
    route: Any = await adapter._driver._route.get()
    await route._server._idle[0].connection.disconnect()
    assert await adapter.get_session("one") is not None
    await route._server._idle[0].connection.disconnect()
    await adapter.set_session(row("two"))
    await adapter.aclose()


FOREIGN = {
    "asyncio": TypeError("'NoneType' object is not callable"),
    "uvloop": RuntimeError("unable to perform operation on <TCPTransport closed=True>"),
    "ssl": ValueError("Read on closed or unwrapped SSL socket."),
}
"""Errors raised by transports and sockets that are already closed."""


@pytest.mark.parametrize("error", FOREIGN.values(), ids=FOREIGN)
@pytest.mark.parametrize("flavour", ["async", "sync"])
async def test_errors_of_closed_transports(
    flavour: str, error: Exception, inspector: Inspector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Errors of closed transports are raised as an unambiguous `StoreUnavailable`."""
    port = inspector.server.port
    client: Any = redis.asyncio.Redis(port=port) if flavour == "async" else redis.Redis(port=port)
    adapter: Any = (
        AsyncRedisSessionAdapter(client) if flavour == "async" else RedisSessionAdapter(client)
    )
    call: Any = awaited if flavour == "async" else asyncio.to_thread
    assert await call(adapter.get_session, "one") is None
    connection: Any = redis.asyncio.Connection if flavour == "async" else redis.Connection
    send = connection.send_packed_command

    def send_or_raise(to: Any, packed: Any, *options: Any, **named: Any) -> Any:
        if b"session" in b"".join(packed if isinstance(packed, list) else [packed]):  # no handshake
            raise error
        return send(to, packed, *options, **named)

    monkeypatch.setattr(connection, "send_packed_command", send_or_raise)
    for method, argument in ((adapter.get_session, "one"), (adapter.set_session, row("one"))):
        with pytest.raises(StoreUnavailable) as raised:
            await call(method, argument)
        assert (repr(raised.value.__cause__), raised.value.ambiguous) == (repr(error), False)
    await call(adapter.aclose if flavour == "async" else adapter.close)


async def test_deadline_applies_to_client_passthrough() -> None:
    """The deadline also applies to an async client that is used as is."""
    with silent_server() as server:
        client = redis.asyncio.Redis(host=server.host, port=server.port)
        with pytest.raises(NoReply) as raised:
            await AsyncClientPassthrough(client, ConnectionMonitor(Revocations())).ask(
                None, [("PING",)], 0.05
            )
        assert (raised.value.error, raised.value.sent) == (None, True)
        await client.aclose()


async def test_client_passthrough_ignores_alone(inspector: Inspector) -> None:
    """A client passthrough ignores ``alone``: it sends every request in the same way."""
    async with redis.asyncio.Redis(port=inspector.server.port) as client:
        assert await AsyncClientPassthrough(client, ConnectionMonitor(Revocations())).ask(
            None, [("ECHO", "x")], 5, SendMode(alone=True)
        ) == [b"x"]
    with redis.Redis(port=inspector.server.port) as client_of_threads:
        assert ClientPassthrough(client_of_threads, ConnectionMonitor(Revocations())).ask(
            None, [("ECHO", "x")], 5, SendMode(alone=True)
        ) == [b"x"]


async def test_client_passthrough_has_no_key_per_primary() -> None:
    """A client passthrough can't name a key for each primary: that is an error, not no keys."""
    with pytest.raises(NoReply):
        ClientPassthrough(object(), ConnectionMonitor(Revocations())).key_per_primary(
            "prefix", 1, 0
        )
    with pytest.raises(NoReply):
        await AsyncClientPassthrough(object(), ConnectionMonitor(Revocations())).key_per_primary(
            "prefix", 1, 0
        )


# Checks of connections


class Pool(NamedTuple):
    """A connection pool of either flavour."""

    server: Any
    call: Callable[..., Awaitable[Any]]

    @property
    def idle(self) -> int:
        """Return how many connections are idle."""
        return len(self.server._idle)

    async def ask(
        self, *commands: tuple[Any, ...], seconds: float = 5, mode: SendMode = DEFAULT_MODE
    ) -> Any:
        """Send commands."""
        return await self.call(self.server.ask, commands, seconds, mode)


async def awaited(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a coroutine function and await it."""
    return await function(*arguments)


@pytest.fixture(params=["async", "sync"])
def pools(request: pytest.FixtureRequest) -> Callable[[int, Revocations], Pool]:
    """Return a function that makes a pool for a port."""

    def make(port: int, revocations: Revocations) -> Pool:
        if request.param == "async":
            topology = topology_of(redis.asyncio.Redis(port=port))
            assert isinstance(topology, OneServer)
            return Pool(
                AsyncServer(
                    topology.factory, ConnectionMonitor(revocations), AsyncSettings(coalesce=False)
                ),
                awaited,
            )
        topology = topology_of(redis.Redis(port=port))
        assert isinstance(topology, OneServer)
        return Pool(
            Server(topology.factory, ConnectionMonitor(revocations), Settings()), asyncio.to_thread
        )

    return make


Pools = Callable[[int, Revocations], Pool]


@pytest.mark.parametrize("fault", [FaultyProxy.reset, FaultyProxy.cut, FaultyProxy.half_close])
async def test_a_connection_that_was_closed(
    pools: Pools, inspector: Inspector, fault: Callable[[FaultyProxy], None]
) -> None:
    """A connection that was closed or reset while idle is replaced, without a retry."""
    with FaultyProxy(inspector.server.port) as front:
        pool = pools(front.port, Revocations())
        await asyncio.gather(*(pool.ask(("BLPOP", "nothing", "0.2")) for _ in range(3)))
        assert pool.idle == 3
        fault(front)
        await asyncio.sleep(0.05)  # let the event loop notice
        assert await pool.ask(("PING",)) == [b"PONG"]
        await pool.call(pool.server.drop_idle)


async def test_nothing_was_sent(
    pools: Pools, inspector: Inspector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the connection is lost before the first byte, the error says that nothing was sent."""

    async def is_clean(_: Any) -> bool:
        return True

    with FaultyProxy(inspector.server.port) as front:
        pool = pools(front.port, Revocations())
        await pool.ask(("PING",))
        front.reset()
        await asyncio.sleep(0.05)
        # As if the connection was lost right after it was checked.
        monkeypatch.setattr("lucia._redis.transport.connections.is_clean", is_clean)
        monkeypatch.setattr("lucia._redis.transport.blocking_io.is_clean", lambda *_: True)
        with pytest.raises(NoReply) as raised:
            await pool.ask(("SET", "key", "value"))
        assert raised.value.sent is False


async def test_a_fresh_connection(pools: Pools, inspector: Inspector) -> None:
    """A request that needs a fresh connection gets one, which replaces an idle one."""
    pool = pools(inspector.server.port, Revocations())
    (before,) = await pool.ask(("CLIENT", "ID"))
    assert await pool.ask(("CLIENT", "ID")) == [before]
    (fresh,) = await pool.ask(("CLIENT", "ID"), mode=SendMode(fresh=True))
    assert (fresh > before, pool.idle) == (True, 1)
    await pool.call(pool.server.drop_idle)


async def test_a_connection_to_a_former_server(pools: Pools, tmp_path: Path) -> None:
    """Once any event loop or thread has met a new server, the former one gets no requests.

    Nor does the replay go to it.
    """
    revocations = Revocations()
    with ExitStack() as stack:
        former, new = (stack.enter_context(own_server("redis-server", tmp_path)) for _ in range(2))
        front = stack.enter_context(FaultyProxy(former.port))
        for server in (former, new):
            stack.enter_context(redis.Redis(port=server.port)).set("session", "alive")
        one, other = pools(front.port, revocations), pools(front.port, revocations)
        assert await one.ask(("GET", "session")) == [b"alive"]
        revocations.revoked(["session"], revocations.newest_demand)
        front.target = new.port  # open connections stay connected to the former server
        with pytest.raises(BatchRejected):
            await other.ask(("GET", "session"))
        with pytest.raises(BatchRejected):
            await one.ask(("GET", "session"))
        assert await one.ask(("DEL", "session"), mode=UNGATED) == [1]
        revocations.done(revocations.block(), revocations.newest_demand)
        assert await other.ask(("GET", "session")) == [None]
        for pool in (one, other):
            await pool.call(pool.server.drop_idle)
        with redis.Redis(port=former.port) as client:
            assert client.get("session") == b"alive"


async def test_a_request_with_little_time(pools: Pools, inspector: Inspector) -> None:
    """A request that times out early closes only its own connection.

    One that had the full timeout closes all idle connections.
    """
    pool = pools(inspector.server.port, Revocations())
    pausing = ("BLPOP", "nothing", "0.2")
    await asyncio.gather(*(pool.ask(pausing) for _ in range(4)))
    assert pool.idle == 4
    with pytest.raises(NoReply):
        await pool.ask(pausing, seconds=0.05)
    assert pool.idle == 3
    pool.server._seconds = 0.05
    with pytest.raises(NoReply):
        await pool.ask(pausing, seconds=0.05)
    assert pool.idle == 0


async def test_connections_are_checked_after_early_timeout(
    pools: Pools, inspector: Inspector
) -> None:
    """After a request timed out early, the other connections are checked before use."""
    with FaultyProxy(inspector.server.port) as front:
        pool = pools(front.port, Revocations())
        await asyncio.gather(*(pool.ask(("BLPOP", "nothing", "0.2")) for _ in range(3)))
        front.drop()
        with pytest.raises(NoReply):
            await pool.ask(("PING",), seconds=0.05)
        assert pool.idle == 2
        pool.server._seconds = 2
        assert await pool.ask(("PING",), seconds=2) == [b"PONG"]
        await pool.call(pool.server.drop_idle)


async def test_timeout_while_waiting_closes_nothing(pools: Pools, inspector: Inspector) -> None:
    """A request that times out while it waits for a connection closes none."""
    revocations = Revocations()
    pool = pools(inspector.server.port, revocations)
    await pool.ask(("PING",))
    is_sync = isinstance(pool.server, Server)
    pool.server._permits = FairSemaphore(0) if is_sync else asyncio.Semaphore(0)
    with pytest.raises(NoReply) as raised:
        await pool.ask(("PING",), seconds=0.05)
    assert (raised.value.error, raised.value.sent) == (None, False)
    assert pool.idle == 1
    assert not revocations._lost
    await pool.call(pool.server.drop_idle)


async def test_closing_during_a_check(
    pools: Pools, inspector: Inspector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection that is being checked when the pool is closed is closed on release."""
    monkeypatch.setattr("lucia._redis.transport.settings.IDLE_CHECK_SECONDS", -1.0)
    with FaultyProxy(inspector.server.port) as front:
        pool = pools(front.port, Revocations())
        await pool.ask(("PING",))
        front.hold()
        asking = asyncio.ensure_future(pool.ask(("PING",)))
        await asyncio.sleep(0.1)
        await pool.call(
            pool.server.close if isinstance(pool.server, Server) else pool.server.aclose
        )
        front.flow()
        assert await asking == [b"PONG"]
        assert pool.idle == 0


async def test_a_check_that_is_not_answered(
    pools: Pools, inspector: Inspector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection whose check is not answered is replaced before the request times out."""
    with FaultyProxy(inspector.server.port) as front:
        pool = pools(front.port, Revocations())
        await pool.ask(("PING",))
        front.drop()
        monkeypatch.setattr("lucia._redis.transport.settings.IDLE_CHECK_SECONDS", -1.0)
        assert await pool.ask(("PING",), seconds=2) == [b"PONG"]
        await pool.call(pool.server.drop_idle)


# Clusters

KEYS: list[str | bytes | int] = [
    "foo",
    b"foo",
    "{foo}bar",
    "a{foo}{bar}",
    "{}foo",
    "{foo",
    "foo}",
    "{{a}}",
    "ü{ö}",
    5,
]


async def test_a_cluster_that_is_not_there() -> None:
    """If no node can be asked for the slot map, `StoreUnavailable` is raised."""
    client = AsyncClients.of_cluster("redis", Cluster((unused_port(),)))
    async with AsyncRedisSessionAdapter(client) as adapter:
        with pytest.raises(StoreUnavailable) as raised:
            await adapter.get_session("one")
        assert isinstance(raised.value.__cause__, redis.exceptions.ConnectionError)


async def test_a_cluster_without_slots(tmp_path: Path) -> None:
    """If no node knows a slot, ClusterDownError is the cause once the deadline is over."""
    soon = timedelta(seconds=2)
    with own_server(
        "redis-server", tmp_path, "--cluster-enabled", "yes", "--cluster-port", str(unused_port())
    ) as server:
        client = AsyncClients.of_cluster("redis", Cluster((server.port,)))
        async with AsyncRedisSessionAdapter(client, deadline=soon) as adapter:
            with pytest.raises(StoreUnavailable) as raised:
                await adapter.get_session("one")
            assert isinstance(raised.value.__cause__, redis.exceptions.ClusterDownError)


@pytest.mark.parametrize("library", ["redis", "valkey"])
@pytest.mark.parametrize("clients", [AsyncClients, Clients])
async def test_slots_of_keys(library: str, clients: Any, cluster: Cluster) -> None:
    """A key's slot is the one the server computes, by its hash tag if it has one."""
    client = clients.of_cluster(library, cluster)
    topology = topology_of(client)
    await (client.aclose() if clients is AsyncClients else asyncio.to_thread(client.close))
    assert isinstance(topology, InCluster)
    with redis.Redis(port=cluster.ports[0]) as node:
        for key in KEYS:
            assert topology.slot_of(key) == node.execute_command("CLUSTER KEYSLOT", key)


def test_redirections() -> None:
    """A node without a name, in a slot map or a redirection, is the one that was asked."""
    reply = [
        [0, 1, [b"", 7000, b"id"], [b"host", 7001, b"id"]],
        [3, 3, ["host", 7002, "id", []]],
        [4, 4, [None, 7003]],
    ]
    found = parse_slot_map(reply, ("me", 1), lambda address: address)
    assert found.primaries == {0: ("me", 7000), 1: ("me", 7000), 3: ("host", 7002), 4: ("me", 7003)}
    assert found.nodes == (("me", 7000), ("host", 7002), ("me", 7003), ("host", 7001))
    moved = redirection_in([b"OK", redis.exceptions.MovedError("12 :7000")], ("me", 1))
    assert moved is not None
    assert (moved.address, moved.asking, moved.slot) == (("me", 7000), False, 12)
    assert redirection_in([redis.exceptions.ResponseError("MOVED")], ("me", 1)) is None
    assert redirection_in([b"MOVED 1 x:1"], ("me", 1)) is None


def test_redirection_without_usable_node() -> None:
    """A redirection that names no usable node means that the command was not executed."""
    for error in ("MovedError", "AskError"):
        for target in ("12 ?:7000", "12 x:0"):
            moved = redirection_in([getattr(redis.exceptions, error)(target)], ("me", 1))
            assert moved is not None
            assert (moved.address, moved.can_repeat) == (None, False)
    down, again = redis.exceptions.ClusterDownError("down"), redis.exceptions.TryAgainError("again")
    assert [
        getattr(redirection_in([each], ("me", 1)), "can_repeat", None) for each in (down, again)
    ] == [False, True]
    assert is_redirected([b"OK", down])
    assert not is_redirected([b"OK", redis.exceptions.ResponseError("NOPERM")])


def test_a_map_of_all_slots() -> None:
    """A slot map is complete if each slot has a primary; addresses in it can be remapped."""
    ranges = [[0, 8_000, ["a", 1]], [8_001, SLOTS - 1, ["b", 2]]]
    elsewhere = parse_slot_map(
        ranges, ("me", 1), lambda address: (f"near {address[0]}", address[1])
    )
    assert elsewhere.is_complete
    assert elsewhere.nodes == (("near a", 1), ("near b", 2))
    for part in (ranges[:1], ranges[1:], []):
        assert not parse_slot_map(part, ("me", 1), lambda address: address).is_complete


# Retries


def test_retryable_commands() -> None:
    """Reads and revocations may be retried; creates, renewals and transactions may not."""
    repeatable = {"delete", "revoke", "prune", "drop"}
    for index in (LIST, SET):
        scripts = index.scripts
        for script in (
            scripts.create,
            scripts.renew,
            scripts.push,
            scripts.revoke,
            scripts.prune,
            scripts.drop,
            DELETE,
            REPLACE_WITH_MARKER,
        ):
            assert is_repeatable(Eval(script, (), ())) is (
                script.name.partition(" ")[0] in repeatable
            ), script.name
    for name in ("MGET", "LRANGE", "SMEMBERS", "PTTL", "TIME", "DEL", "LREM", "SREM"):
        assert is_repeatable(Call(name, ("k",)))
    for name in ("SET", "LPUSH", "SADD", "PEXPIREAT", "PERSIST", "an unknown one"):
        assert not is_repeatable(Call(name, ("k",)))
    assert not is_repeatable(Transaction((Call("DEL", ("k",)),)))


# Options copied from the client


class Renamed(redis.Redis):
    """A derived client class that runs commands as its base class does."""


def test_client_options_are_copied() -> None:
    """The options of a derived client are copied, except those for retries and timeouts.

    Passwords are not shown.
    """
    client = Renamed(
        host="h",
        password="secret word",
        retry_on_error=[ValueError],
        health_check_interval=9,
        max_connections=7,
    )
    topology = topology_of(client)
    assert isinstance(topology, OneServer)
    assert (
        topology.factory.options["host"],
        topology.factory.options["password"],
        topology.factory.limit,
    ) == ("h", "secret word", 7)
    assert (
        not {"retry", "retry_on_error", "health_check_interval", "socket_timeout"}
        & topology.factory.options.keys()
    )
    assert "secret word" not in repr(topology)


def test_names_that_redis_py_gives_itself() -> None:
    """The library name that redis-py 7 sets on its cluster connections is not copied.

    redis-py warns of it as deprecated. Names set by others are copied.
    """
    own, others = (
        {"db": 1, "lib_name": name, "lib_version": "7.4.0"} for name in ("redis-py", "valkey-py")
    )
    assert ConnectionFactory.of(redis.Connection, own, 1).options == {"db": 1}
    assert ConnectionFactory.of(redis.Connection, others, 1).options == others


def test_unknown_pool_is_not_copied() -> None:
    """A client without a known kind of pool is used as is."""
    client: Any = Renamed()
    client.connection_pool = object()
    assert topology_of(client) is None
    assert topology_of(object()) is None


@pytest.mark.parametrize("method", ["_connect", "read_response"])
@pytest.mark.parametrize("module", [redis, redis.asyncio])
def test_connection_class_with_one_method_of_its_own(module: Any, method: str) -> None:
    """A connection class that only records replies, or only connects otherwise, is used."""
    kind = type("Own", (module.Connection,), {method: lambda self, *args, **kwargs: None})
    pool = module.ConnectionPool(connection_class=kind)
    topology = topology_of(module.Redis(connection_pool=pool))
    assert isinstance(topology, OneServer)
    assert topology.factory.make is kind


@pytest.mark.parametrize("module", [redis, redis.asyncio])
def test_connection_class_without_a_socket(module: Any) -> None:
    """A connection class that answers by itself is left to its client."""
    own = dict.fromkeys(["_connect", "read_response"], lambda self, *args, **kwargs: None)
    pool = module.ConnectionPool(connection_class=type("Own", (module.Connection,), own))
    assert topology_of(module.Redis(connection_pool=pool)) is None
