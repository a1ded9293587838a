"""An adapter with a near-cache, on real servers: what it gives from memory, and what it never gives."""

import asyncio
import math
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack, suppress
from datetime import timedelta
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, Final

import pytest
import redis
import redis.exceptions
from redis.asyncio import Redis, RedisCluster
from redis.crc import key_slot

from lucia import AsyncAuth, InvalidSessionId
from lucia._redis.transport.near_cache import _begin_all
from lucia._redis.transport.near_cache_entries import Entries
from lucia._rules.sessions import system_clock
from lucia.adapters.redis import AsyncRedisSessionAdapter, RedisSessionAdapter
from lucia.models import SessionRow, StoredSession
from lucia.testing import AsyncRenewingSessionAdapterSuite
from tests.aio.conformance.test_conformance import AsyncSessionFirstSuite
from tests.support.deployments import WITHOUT_SCRIPTS
from tests.support.near_cache import HasNoLease, wait_until
from tests.support.proxies import HoldingProxy, holding_proxy
from tests.support.redis_clients import AsyncClients, Clients
from tests.support.redis_inspectors import ClusterInspector, Inspector
from tests.support.redis_servers import tls_server, without_tls
from tests.support.sentinels import sentinel_group
from tests.support.sessions import HOUR, row
from tools.servers import Cluster, Server

pytestmark = pytest.mark.filterwarnings(
    "ignore:(?s).*lib_:DeprecationWarning"
)  # redis-py 7's cluster clients warn of themselves

LEASE: Final = timedelta(seconds=2)

PLACES: Final = ["redis", "valkey", "old_redis", "cluster"]


@pytest.fixture
def inspector(request: pytest.FixtureRequest, place: str) -> Iterator[Inspector]:
    """A look into an emptied server or cluster."""
    if place == "cluster":
        with ClusterInspector(request.getfixturevalue("cluster")) as found:
            yield found
    else:
        with Inspector(
            request.getfixturevalue(f"{place.removesuffix(WITHOUT_SCRIPTS)}_server")
        ) as found:
            found.on_each(
                "ACL",
                "SETUSER",
                "scriptless",
                "reset",
                "on",
                ">secret",
                "~*",
                "+@all",
                "-@scripting",
            )
            yield found
            found.on_each("ACL", "DELUSER", "scriptless")


@pytest.fixture
def place() -> str:
    """Where sessions are, if a test does not say."""
    return "redis"


everywhere = pytest.mark.parametrize("place", PLACES)


def client_of(inspector: Inspector, **options: Any) -> Any:
    if isinstance(inspector, ClusterInspector):
        return AsyncClients.of_cluster("redis", inspector.cluster, **options)
    return Redis(port=inspector.server.port, **options)


@pytest.fixture
async def adapter(inspector: Inspector) -> AsyncIterator[AsyncRedisSessionAdapter]:
    """An adapter that is connected."""
    client = client_of(inspector)
    async with client, AsyncRedisSessionAdapter(client, near_cache=LEASE) as found:
        await found.get_sessions_by_user_id("nobody")
        yield found


def entries_of(adapter: AsyncRedisSessionAdapter) -> Entries:
    return adapter._reads.near.entries


async def read(adapter: AsyncRedisSessionAdapter, *session_ids: str) -> list[StoredSession | None]:
    """Read these, so that they are in memory."""
    return [await adapter.get_session(each) for each in session_ids]


# Conformance


class TestOneServer(AsyncRenewingSessionAdapterSuite):
    """All laws, on one server."""

    @pytest.fixture
    async def adapter(self, redis_server: Server) -> AsyncIterator[AsyncRedisSessionAdapter]:
        """An empty server."""
        redis_server.flush()
        async with (
            Redis(port=redis_server.port) as client,
            AsyncRedisSessionAdapter(client, near_cache=LEASE) as adapter,
        ):
            yield adapter


class TestCluster(AsyncSessionFirstSuite):
    """The same in a cluster."""

    @pytest.fixture
    async def adapter(self, cluster: Cluster) -> AsyncIterator[AsyncRedisSessionAdapter]:
        """An empty cluster."""
        cluster.flush()
        client: RedisCluster = AsyncClients.of_cluster("redis", cluster)
        async with client, AsyncRedisSessionAdapter(client, near_cache=LEASE) as adapter:
            yield adapter


# What is given from memory


@everywhere
async def test_from_memory(adapter: AsyncRedisSessionAdapter, inspector: Inspector) -> None:
    """An active session that was read is not asked for again."""
    await adapter.set_session(row("one"))
    first = await adapter.get_session("one")
    link_reads = inspector.calls("mget")
    again = [await adapter.get_session("one") for _ in range(1_000)]
    assert inspector.calls("mget") < link_reads + 100  # but for signs of life
    assert first is not None
    assert all(each == first for each in again)


@everywhere
@pytest.mark.parametrize("coalesce", [True, False])
async def test_reads_at_once(inspector: Inspector, coalesce: bool) -> None:
    """Sessions that are read at the same time are all in memory afterwards, whether or not they are read together."""
    client = client_of(inspector)
    async with (
        client,
        AsyncRedisSessionAdapter(client, near_cache=LEASE, coalesce=coalesce) as adapter,
    ):
        rows = [row(f"s{number}", f"u{number}") for number in range(50)]
        await asyncio.gather(*map(adapter.set_session, rows))
        for _ in range(2):
            assert await asyncio.gather(*(adapter.get_session(each.id) for each in rows)) == rows
        assert len(entries_of(adapter)) == 50


async def test_only_active_sessions(
    adapter: AsyncRedisSessionAdapter, inspector: Inspector
) -> None:
    """An idle session is asked for each time."""
    idle = row("idle", life=HOUR)
    idle = SessionRow(
        id="idle", user_id="u1", active_expires=system_clock() - 1, idle_expires=idle.idle_expires
    )
    await adapter.set_session(idle)
    before = inspector.calls("mget")
    assert await read(adapter, "idle", "idle", "idle") == [idle] * 3
    assert inspector.calls("mget") >= before + 3


async def test_not_what_is_no_session(
    adapter: AsyncRedisSessionAdapter, inspector: Inspector
) -> None:
    """What is no session, or another one's, is none from memory either."""
    for record in (
        b"garbage",
        b'{"id":"other","user_id":"u1","active_expires":1,"idle_expires":2}',
    ):
        inspector.client.set("session:one", record)
        assert await read(adapter, "one", "one") == [None, None]
    assert await read(adapter, "nobody's", "nobody's") == [None, None]


@everywhere
async def test_no_markers(adapter: AsyncRedisSessionAdapter) -> None:
    """Of all that the adapter reads, only records of sessions are kept."""
    await adapter.set_session(row("used"))
    await adapter.renew_session("used", row("new"), grace=60_000)
    await adapter.get_successor("used")
    await adapter.get_sessions_by_user_id("u1")
    await read(adapter, "used", "new")
    assert set(entries_of(adapter)._entries) == {b"session:new"}


async def test_hashes_of_ids(inspector: Inspector) -> None:
    """With ids at rest, memory has hashes in the place of ids, as the server does; a session under an old key's hash is found too."""
    old, new = b"o" * 32, b"n" * 32
    client = client_of(inspector)
    async with client:
        await AsyncRedisSessionAdapter(client, id_keys=[old]).set_session(row("s" * 40))
        async with AsyncRedisSessionAdapter(
            client, id_keys=[new, old], near_cache=LEASE
        ) as adapter:
            first = await adapter.get_session("s" * 40)
            assert first is not None
            assert first.id == "s" * 40
            first = await adapter.get_session("s" * 40)
            assert await adapter.get_session("s" * 40) == first
            (key,) = entries_of(adapter)._entries
            assert b"s" * 40 not in key
            await adapter.delete_session("s" * 40)
            assert await adapter.get_session("s" * 40) is None


# What this process ends

End = Callable[[AsyncRedisSessionAdapter], Awaitable[object]]

ENDS: Final[dict[str, End]] = {
    "one": lambda adapter: adapter.delete_session("one"),
    "all": lambda adapter: adapter.delete_sessions_by_user_id("u1"),
    "all that are stored": lambda adapter: adapter.delete_sessions_by_user_id(
        "u1", exhaustive=True
    ),
    "others": lambda adapter: adapter.delete_other_sessions("u1", "other"),
    "renewed": lambda adapter: adapter.renew_session("one", row("new"), grace=0),
    "cap": lambda adapter: adapter.set_session_capped(
        row("new", created_at=system_clock()), limit=1
    ),
}


@pytest.mark.parametrize("place", ["redis", "cluster", f"redis{WITHOUT_SCRIPTS}"])
@pytest.mark.parametrize("end", ENDS)
async def test_what_is_ended_here(inspector: Inspector, place: str, end: str) -> None:
    """Whatever ends a session: when it returns, the session is not used from memory, though the server's word of it has not come."""
    client = client_of(
        inspector,
        **(
            {"username": "scriptless", "password": "secret"}
            if place.endswith(WITHOUT_SCRIPTS)
            else {}
        ),
    )
    async with client, AsyncRedisSessionAdapter(client, near_cache=LEASE) as adapter:
        for name in ("one", "other"):
            await adapter.set_session(row(name, created_at=1))
        assert None not in await read(adapter, "one", "other", "one", "other")
        entries_of(adapter).drop = _ignore  # type: ignore[method-assign]
        await ENDS[end](adapter)
        assert await adapter.get_session("one") is None


def _ignore(keys: object) -> None:
    """As if the server's word had not come."""


async def test_control_of_own_ends(inspector: Inspector) -> None:
    """Were it not for what the adapter does itself, the test above would find the session."""
    client = client_of(inspector)
    async with client, AsyncRedisSessionAdapter(client, near_cache=LEASE) as adapter:
        await adapter.set_session(row("one"))
        await read(adapter, "one", "one")
        entries_of(adapter).drop = _ignore  # type: ignore[method-assign]
        inspector.client.delete("session:one")
        assert await adapter.get_session("one") is not None


async def test_a_read_that_overlaps_an_own_end(redis_server: Server) -> None:
    """A session that is ended while it is read is not used afterwards, though the read's answer comes after the end."""
    with Inspector(redis_server):
        async with (
            holding_proxy(redis_server.port, b"TRACKING") as dam,
            Redis(port=dam.port) as client,
            AsyncRedisSessionAdapter(client, near_cache=LEASE) as adapter,
        ):
            await adapter.set_session(row("one"))
            await read(adapter, "other", "other")
            reading = await _held(dam, adapter)
            await adapter.delete_session("one")
            dam.let_go(dam.held.index(b">2\r\n"))
            found = await reading
            assert found is not None  # as of before the end
            again = asyncio.ensure_future(adapter.get_session("one"))
            await asyncio.sleep(0.01)
            assert not again.done()
            dam.open()
            assert await again is None


async def _held(
    dam: HoldingProxy, adapter: AsyncRedisSessionAdapter
) -> "asyncio.Future[StoredSession | None]":
    """A read of a session whose answer is held back."""
    dam.close()
    reading = asyncio.ensure_future(adapter.get_session("one"))
    await wait_until(lambda: b"u1" in dam.held)
    return reading


# What another process ends


@everywhere
async def test_what_is_ended_elsewhere(
    adapter: AsyncRedisSessionAdapter, inspector: Inspector
) -> None:
    """What another process ends is gone here once the server has said so, long before the lease ends."""
    await adapter.set_session(row("one"))
    await read(adapter, "one", "one")
    entries_of(adapter).clock = lambda: 0.0  # leases don't end
    if isinstance(inspector, ClusterInspector):
        with Clients.of_cluster("redis", inspector.cluster, protocol=2) as client:
            RedisSessionAdapter(client).delete_session("one")
    else:
        with Clients.make("redis-py, RESP2", inspector.server) as client:
            RedisSessionAdapter(client).delete_session("one")
    await wait_until(lambda: len(entries_of(adapter)) == 0)
    assert await adapter.get_session("one") is None


@pytest.fixture
def moved(cluster: Cluster) -> Iterator[Callable[[str], None]]:
    """Moves a key to the cluster's next node, with its slot as far as that goes; in the end the slot is where it was."""
    undo = ExitStack()

    def move(key: str) -> None:
        slot = key_slot(key.encode())
        nodes: list[Any] = [redis.Redis(port=port, protocol=2) for port in cluster.ports]
        ids = [node.execute_command("CLUSTER MYID").decode() for node in nodes]
        source = next(number for number, node in enumerate(nodes) if node.exists(key))
        target = (source + 1) % len(nodes)
        for node in nodes:
            undo.callback(node.close)
            undo.callback(node.execute_command, "CLUSTER SETSLOT", slot, "STABLE")
        nodes[target].execute_command("CLUSTER SETSLOT", slot, "IMPORTING", ids[source])
        nodes[source].execute_command("CLUSTER SETSLOT", slot, "MIGRATING", ids[target])
        nodes[source].execute_command("MIGRATE", "127.0.0.1", cluster.ports[target], key, 0, 5_000)

    with undo:
        yield move


@pytest.mark.parametrize("place", ["cluster"])
async def test_a_session_that_is_moved(
    adapter: AsyncRedisSessionAdapter, moved: Callable[[str], None]
) -> None:
    """When a session is moved to another node of a cluster, it is not used from memory any more: the first node would not tell its end."""
    await adapter.set_session(row("one"))
    await read(adapter, "one", "one")
    entries_of(adapter).clock = lambda: 0.0  # leases don't end
    moved("session:one")
    await wait_until(lambda: len(entries_of(adapter)) == 0)
    assert await adapter.get_session("one") is not None


async def test_validated_from_memory(
    adapter: AsyncRedisSessionAdapter, inspector: Inspector
) -> None:
    """``Auth`` validates from memory, and what is invalidated is refused at once."""
    auth = AsyncAuth(sessions=adapter, env="DEV")
    session = await auth.create_session("alice")
    await auth.validate_session(session.session_id)
    before = inspector.calls("mget")
    for _ in range(100):
        assert (await auth.validate_session(session.session_id)).user_id == "alice"
    assert inspector.calls("mget") < before + 50
    await auth.invalidate_all_user_sessions("alice")
    with pytest.raises(InvalidSessionId):
        await auth.validate_session(session.session_id)


@pytest.mark.parametrize("library", ["redis", "valkey"])
async def test_tls(library: str, tmp_path: Path) -> None:
    """Over TLS too sessions are validated from memory, and what another process ends is refused once the server has said so."""
    with tls_server(tmp_path) as (server, certificate), Inspector(without_tls(server)) as inspector:
        client = AsyncClients.make(
            f"{library}-py as it is", server, ssl=True, ssl_ca_certs=str(certificate)
        )
        async with client, AsyncRedisSessionAdapter(client, near_cache=LEASE) as adapter:
            auth = AsyncAuth(sessions=adapter, env="DEV")
            session = await auth.create_session("alice")
            await auth.validate_session(session.session_id)
            entries_of(adapter).clock = lambda: 0.0  # leases don't end
            before = inspector.calls("mget")
            for _ in range(100):
                assert (await auth.validate_session(session.session_id)).user_id == "alice"
            assert inspector.calls("mget") < before + 50  # but for signs of life
            with Clients.make("redis-py, RESP2", inspector.server) as other:
                RedisSessionAdapter(other).delete_session(session.session_id)
            await wait_until(lambda: len(entries_of(adapter)) == 0)
            with pytest.raises(InvalidSessionId):
                await auth.validate_session(session.session_id)


@pytest.mark.slow
@pytest.mark.parametrize("library", ["redis", "valkey"])
async def test_failover(library: str, tmp_path: Any) -> None:
    """After a failover nothing is used that was read from the server that was, and all is read from the new one."""
    with sentinel_group(library, tmp_path) as group:
        async with (
            AsyncClients.behind_sentinel(group) as client,
            AsyncRedisSessionAdapter(client, near_cache=LEASE) as adapter,
        ):
            await adapter.set_session(row("one"))
            await read(adapter, "one", "one")
            assert len(entries_of(adapter)) == 1
            await asyncio.to_thread(group.fail_over)
            await wait_until(lambda: len(entries_of(adapter)) == 0)
            assert await _when_it_is_back(adapter) is not None
            await read(adapter, "one")
            assert len(entries_of(adapter)) == 1


async def _when_it_is_back(adapter: AsyncRedisSessionAdapter) -> StoredSession | None:
    async with asyncio.timeout(30):
        while True:
            with suppress(redis.exceptions.RedisError, OSError):
                return await adapter.get_session("one")
            await asyncio.sleep(0.05)


# A link that holds things up at random


class ConnectionMonitor:
    """Reads sessions all the time, while another adapter ends them, and counts what is still given after that."""

    def __init__(
        self, near: AsyncRedisSessionAdapter, other: AsyncRedisSessionAdapter, lease: float
    ) -> None:
        self.within = self.beyond = 0
        self._near = near
        self._other = other
        self._lease = lease
        self._live: list[str] = []
        self._ended: dict[str, float] = {}

    async def go_on(self, seconds: float, dam: HoldingProxy, chance: random.Random) -> None:
        """Do so, while the link is closed and opened at random."""
        end = time.monotonic() + seconds
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._change(end, chance, tasks))
            while time.monotonic() < end:
                await asyncio.sleep(chance.random() * self._lease)
                dam.close(both=chance.random() < 0.5)
                await asyncio.sleep(chance.random() * 2 * self._lease)
                dam.open()

    async def _change(self, end: float, chance: random.Random, tasks: asyncio.TaskGroup) -> None:
        """Keep some sessions alive, each with a reader, and end one after another."""
        for number in count():
            await self._other.set_session(row(f"s{number}"))
            tasks.create_task(self._read(f"s{number}"))
            self._live.append(f"s{number}")
            while len(self._live) > (8 if time.monotonic() < end else 0):
                session_id = self._live.pop(chance.randrange(len(self._live)))
                await self._other.delete_session(session_id)
                self._ended[session_id] = time.monotonic()
            if not self._live:
                return
            await asyncio.sleep(0.005)

    async def _read(self, session_id: str) -> None:
        """Read a session until it is gone."""
        while True:
            begin = time.monotonic()
            ended = self._ended.get(session_id, math.inf)
            if await self._near.get_session(session_id) is None:
                return
            self.within += ended < begin <= ended + self._lease
            self.beyond += begin > ended + self._lease
            await asyncio.sleep(0)


async def monitor(redis_server: Server, entries: Entries) -> ConnectionMonitor:
    """What a watch counts in some seconds, with such entries."""
    lease, chance = 0.1, random.Random(11)  # noqa: S311 (no secret)
    async with (
        holding_proxy(redis_server.port, b"TRACKING") as dam,
        Redis(port=dam.port) as client,
        Redis(port=redis_server.port) as direct,
        AsyncRedisSessionAdapter(direct) as other,
        AsyncRedisSessionAdapter(client, near_cache=timedelta(seconds=lease)) as near,
    ):
        near._reads.near.entries = entries
        found = ConnectionMonitor(near, other, lease)
        await found.go_on(4, dam, chance)
        return found


@pytest.mark.slow
async def test_never_beyond_the_lease(redis_server: Server) -> None:
    """Whenever the link holds up answers, and what the server tells: no read that begins a lease after a session's end finds it."""
    redis_server.flush()
    found = await monitor(redis_server, Entries())
    assert found.within > 0
    assert found.beyond == 0


@pytest.mark.slow
async def test_never_beyond_the_lease_has_power(redis_server: Server) -> None:
    """A cache without a lease is found out."""
    redis_server.flush()
    assert (await monitor(redis_server, HasNoLease())).beyond > 0


# Event loops and processes


def test_loops_at_the_same_time(inspector: Inspector) -> None:
    """What one event loop of a process ends is not used by another one's either, though the server's word has not come."""
    adapter = AsyncRedisSessionAdapter(client_of(inspector), near_cache=LEASE)
    is_read, is_ended = threading.Event(), threading.Event()
    found: list[StoredSession | None] = []

    async def first() -> None:
        await adapter.set_session(row("one"))
        found.extend(await read(adapter, "one", "one"))
        entries_of(adapter).drop = _ignore  # type: ignore[method-assign]
        is_read.set()
        is_ended.wait(30)  # and reads nothing from the server meanwhile
        found.append(await adapter.get_session("one"))
        await adapter.aclose()

    async def second() -> None:
        await adapter.delete_session("one")
        await adapter.aclose()

    thread = threading.Thread(target=lambda: asyncio.run(first()))
    thread.start()
    is_read.wait(30)
    asyncio.run(second())
    is_ended.set()
    thread.join()
    assert [each is not None for each in found] == [True, True, False]


def test_one_loop_after_another(inspector: Inspector) -> None:
    """When a loop has ended, nothing is used of what was read in it: nobody reads there what the server tells."""
    adapter = AsyncRedisSessionAdapter(client_of(inspector), near_cache=LEASE)

    async def use(session_id: str) -> None:
        assert len(entries_of(adapter)) == 0
        await adapter.set_session(row(session_id))
        await read(adapter, session_id, session_id)
        assert len(entries_of(adapter)) == 1

    for number in range(3):
        asyncio.run(use(f"s{number}"))


def test_a_fork(inspector: Inspector) -> None:
    """What a process has in memory is not its child's, of whichever adapter."""
    adapters = [AsyncRedisSessionAdapter(client_of(inspector), near_cache=LEASE) for _ in range(2)]
    before = [entries_of(each) for each in adapters]
    _begin_all()
    assert not any(
        entries_of(each) is entries for each, entries in zip(adapters, before, strict=True)
    )


FORKING: Final = """
import asyncio, os, sys
from datetime import timedelta
from redis.asyncio import Redis
from lucia.adapters.redis import AsyncRedisSessionAdapter
from tests.support.sessions import row

adapter = AsyncRedisSessionAdapter(Redis(port=int(sys.argv[1])), near_cache=timedelta(seconds=2))

async def use(name):
    assert len(adapter._reads.near.entries) == 0
    await adapter.set_session(row(name))
    for _ in range(3):
        assert await adapter.get_session(name) is not None
    assert len(adapter._reads.near.entries) == 1
    if name == "parent":
        child = os.fork()
        if child:
            assert os.waitpid(child, 0)[1] == 0
            assert await adapter.get_session(name) is not None
            assert len(adapter._reads.near.entries) == 1
        else:
            assert len(adapter._reads.near.entries) == 0
            os._exit(0)

asyncio.run(use("parent"))
child = os.fork()
if child:
    assert os.waitpid(child, 0)[1] == 0
else:
    asyncio.run(use("child"))
    os._exit(0)
print("done")
"""


def test_forks(inspector: Inspector) -> None:
    """A forked process begins with nothing in memory; nobody has to close an adapter, and nothing warns of one that was not closed."""
    warnings = (
        "-W",
        "ignore::DeprecationWarning",
        "-W",
        "error::ResourceWarning",
    )  # Python 3.12 warns of a fork amid threads
    command = [sys.executable, *warnings, "-c", FORKING, str(inspector.server.port)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=60, check=False, env={**os.environ}
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")


# The option


def test_the_lease_is_a_time(inspector: Inspector) -> None:
    """A lease is a ``timedelta`` from 50 milliseconds to 5 seconds; without one nothing is in memory."""
    make: Any = partial(AsyncRedisSessionAdapter, client_of(inspector))
    for seconds in (0.05, 1, 5):
        assert make(near_cache=timedelta(seconds=seconds))._reads.near.lease == seconds
    for lease in (1, 1.0, True):
        with pytest.raises(TypeError, match=r"near_cache must be a datetime\.timedelta"):
            make(near_cache=lease)
    for seconds in (0, -1, 0.049, 5.001):
        with pytest.raises(
            ValueError, match="near_cache must be from 50 milliseconds to 5 seconds"
        ):
            make(near_cache=timedelta(seconds=seconds))
    assert make()._reads.near.lease is make(near_cache=None)._reads.near.lease is None


def test_not_for_threads(redis_server: Server) -> None:
    """The synchronous adapter has none."""
    make: Any = RedisSessionAdapter
    with (
        Clients.make("redis-py as it is", redis_server) as client,
        pytest.raises(TypeError, match="near_cache"),
    ):
        make(client, near_cache=LEASE)


async def test_off_by_default(inspector: Inspector) -> None:
    """Without the option the server is asked each time, and is not told to remember anything."""
    async with client_of(inspector) as client, AsyncRedisSessionAdapter(client) as adapter:
        await adapter.set_session(row("one"))
        before = inspector.calls("mget")
        await read(adapter, *["one"] * 10)
        assert inspector.calls("mget") == before + 10
        assert inspector.client.info("clients")["tracking_clients"] == 0


class Counting(Redis):
    """A client with a way of its own to run commands, so that it can't be copied."""

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        execute: Any = super().execute_command
        return await execute(*args, **options)


async def test_a_client_that_can_not_be_copied(inspector: Inspector) -> None:
    """Where we make no connections of our own, nothing is in memory."""
    async with (
        Counting(port=inspector.server.port) as client,
        AsyncRedisSessionAdapter(client, near_cache=LEASE) as adapter,
    ):
        await adapter.set_session(row("one"))
        assert None not in await read(adapter, "one", "one")
        assert len(entries_of(adapter)) == 0
