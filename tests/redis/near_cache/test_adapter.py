"""The near-cache of an adapter on real servers: what is read from it, and what never is."""

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
from tests.aio.redis.test_conformance import AsyncSessionFirstSuite
from tests.support.deployments import WITHOUT_SCRIPTS
from tests.support.near_cache import HasNoLease, wait_until
from tests.support.proxies import HoldingProxy, holding_proxy
from tests.support.redis_clients import AsyncClients, Clients
from tests.support.redis_inspectors import ClusterInspector, Inspector
from tests.support.redis_servers import tls_server, without_tls
from tests.support.sentinels import sentinel_group
from tests.support.sessions import HOUR, row
from tools.servers import Cluster, Server

# redis-py 7's cluster clients cause this warning themselves.
pytestmark = pytest.mark.filterwarnings("ignore:(?s).*lib_:DeprecationWarning")

LEASE: Final = timedelta(seconds=2)

DEPLOYMENTS: Final = ["redis", "valkey", "old_redis", "cluster"]


@pytest.fixture
def inspector(request: pytest.FixtureRequest, deployment: str) -> Iterator[Inspector]:
    """Yield an inspector of an empty server or cluster."""
    if deployment == "cluster":
        with ClusterInspector(request.getfixturevalue("cluster")) as found:
            yield found
    else:
        with Inspector(
            request.getfixturevalue(f"{deployment.removesuffix(WITHOUT_SCRIPTS)}_server")
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
def deployment() -> str:
    """Return the default deployment."""
    return "redis"


everywhere = pytest.mark.parametrize("deployment", DEPLOYMENTS)


def client_of(inspector: Inspector, **options: Any) -> Any:
    if isinstance(inspector, ClusterInspector):
        return AsyncClients.of_cluster("redis", inspector.cluster, **options)
    return Redis(port=inspector.server.port, **options)


@pytest.fixture
async def adapter(inspector: Inspector) -> AsyncIterator[AsyncRedisSessionAdapter]:
    """Yield a connected adapter."""
    client = client_of(inspector)
    async with client, AsyncRedisSessionAdapter(client, near_cache=LEASE) as found:
        await found.get_sessions_by_user_id("nobody")
        yield found


def entries_of(adapter: AsyncRedisSessionAdapter) -> Entries:
    return adapter._reads.near.entries


async def read(adapter: AsyncRedisSessionAdapter, *session_ids: str) -> list[StoredSession | None]:
    """Read these sessions, so that they are cached."""
    return [await adapter.get_session(each) for each in session_ids]


# Conformance


class TestOneServer(AsyncRenewingSessionAdapterSuite):
    """The adapter suite on one server, with a near-cache."""

    @pytest.fixture
    async def adapter(self, redis_server: Server) -> AsyncIterator[AsyncRedisSessionAdapter]:
        redis_server.flush()
        async with (
            Redis(port=redis_server.port) as client,
            AsyncRedisSessionAdapter(client, near_cache=LEASE) as adapter,
        ):
            yield adapter


class TestCluster(AsyncSessionFirstSuite):
    """The adapter suite in a cluster, with a near-cache."""

    @pytest.fixture
    async def adapter(self, cluster: Cluster) -> AsyncIterator[AsyncRedisSessionAdapter]:
        cluster.flush()
        client: RedisCluster = AsyncClients.of_cluster("redis", cluster)
        async with client, AsyncRedisSessionAdapter(client, near_cache=LEASE) as adapter:
            yield adapter


# Cached reads


@everywhere
async def test_active_session_is_read_once(
    adapter: AsyncRedisSessionAdapter, inspector: Inspector
) -> None:
    """An active session that was read is not requested again."""
    await adapter.set_session(row("one"))
    first = await adapter.get_session("one")
    link_reads = inspector.calls("mget")
    again = [await adapter.get_session("one") for _ in range(1_000)]
    assert inspector.calls("mget") < link_reads + 100  # some are heartbeats
    assert first is not None
    assert all(each == first for each in again)


@everywhere
@pytest.mark.parametrize("coalesce", [True, False])
async def test_reads_at_once(inspector: Inspector, coalesce: bool) -> None:
    """Sessions that are read concurrently are all cached, with and without coalescing."""
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
    """An idle session is read from the server each time."""
    idle = row("idle", life=HOUR)
    idle = SessionRow(
        id="idle", user_id="u1", active_expires=system_clock() - 1, idle_expires=idle.idle_expires
    )
    await adapter.set_session(idle)
    before = inspector.calls("mget")
    assert await read(adapter, "idle", "idle", "idle") == [idle] * 3
    assert inspector.calls("mget") >= before + 3


async def test_invalid_records_are_not_cached(
    adapter: AsyncRedisSessionAdapter, inspector: Inspector
) -> None:
    """An invalid record, or another id's, is not returned from the cache either."""
    for record in (
        b"garbage",
        b'{"id":"other","user_id":"u1","active_expires":1,"idle_expires":2}',
    ):
        inspector.client.set("session:one", record)
        assert await read(adapter, "one", "one") == [None, None]
    assert await read(adapter, "nobody's", "nobody's") == [None, None]


@everywhere
async def test_markers_are_not_cached(adapter: AsyncRedisSessionAdapter) -> None:
    """Only records of sessions are cached."""
    await adapter.set_session(row("used"))
    await adapter.renew_session("used", row("new"), grace=60_000)
    await adapter.get_successor("used")
    await adapter.get_sessions_by_user_id("u1")
    await read(adapter, "used", "new")
    assert set(entries_of(adapter)._entries) == {b"session:new"}


async def test_hashes_of_ids(inspector: Inspector) -> None:
    """With hashed ids the cache holds hashes too.

    A session under an older key's hash is cached as well.
    """
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


# Revoked by this process

Revoke = Callable[[AsyncRedisSessionAdapter], Awaitable[object]]

REVOCATIONS: Final[dict[str, Revoke]] = {
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


@pytest.mark.parametrize("deployment", ["redis", "cluster", f"redis{WITHOUT_SCRIPTS}"])
@pytest.mark.parametrize("end", REVOCATIONS)
async def test_own_revocation_is_seen_at_once(
    inspector: Inspector, deployment: str, end: str
) -> None:
    """A session revoked by this process is not used, even before the server's invalidation."""
    client = client_of(
        inspector,
        **(
            {"username": "scriptless", "password": "secret"}
            if deployment.endswith(WITHOUT_SCRIPTS)
            else {}
        ),
    )
    async with client, AsyncRedisSessionAdapter(client, near_cache=LEASE) as adapter:
        for name in ("one", "other"):
            await adapter.set_session(row(name, created_at=1))
        assert None not in await read(adapter, "one", "other", "one", "other")
        entries_of(adapter).drop = _ignore  # type: ignore[method-assign]
        await REVOCATIONS[end](adapter)
        assert await adapter.get_session("one") is None


def _ignore(keys: object) -> None:
    """Ignore the invalidations of the server."""


async def test_control_without_own_changes_returns_revoked_session(inspector: Inspector) -> None:
    """Control: without its own bookkeeping the adapter would return the session."""
    client = client_of(inspector)
    async with client, AsyncRedisSessionAdapter(client, near_cache=LEASE) as adapter:
        await adapter.set_session(row("one"))
        await read(adapter, "one", "one")
        entries_of(adapter).drop = _ignore  # type: ignore[method-assign]
        inspector.client.delete("session:one")
        assert await adapter.get_session("one") is not None


async def test_session_revoked_during_read_is_not_cached(redis_server: Server) -> None:
    """A session that is revoked while it is read is not cached.

    This holds even if the reply arrives after the revocation.
    """
    with Inspector(redis_server):
        async with (
            holding_proxy(redis_server.port, b"TRACKING") as proxy,
            Redis(port=proxy.port) as client,
            AsyncRedisSessionAdapter(client, near_cache=LEASE) as adapter,
        ):
            await adapter.set_session(row("one"))
            await read(adapter, "other", "other")
            reading = await _held(proxy, adapter)
            await adapter.delete_session("one")
            proxy.let_go(proxy.held.index(b">2\r\n"))
            found = await reading
            assert found is not None  # the reply is from before the revocation
            again = asyncio.ensure_future(adapter.get_session("one"))
            await asyncio.sleep(0.01)
            assert not again.done()
            proxy.open()
            assert await again is None


async def _held(
    proxy: HoldingProxy, adapter: AsyncRedisSessionAdapter
) -> "asyncio.Future[StoredSession | None]":
    """Begin a read of a session, and hold back its reply."""
    proxy.close()
    reading = asyncio.ensure_future(adapter.get_session("one"))
    await wait_until(lambda: b"u1" in proxy.held)
    return reading


# Revoked by another process


@everywhere
async def test_foreign_revocation_drops_the_entry(
    adapter: AsyncRedisSessionAdapter, inspector: Inspector
) -> None:
    """A session revoked by another process is dropped at the server's invalidation."""
    await adapter.set_session(row("one"))
    await read(adapter, "one", "one")
    entries_of(adapter).clock = lambda: 0.0  # leases never end
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
    """Yield a function that moves a key, and its slot, to the next node.

    In the end the slot is where it was.
    """
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


@pytest.mark.parametrize("deployment", ["cluster"])
async def test_a_session_that_is_moved(
    adapter: AsyncRedisSessionAdapter, moved: Callable[[str], None]
) -> None:
    """A session that is moved to another node is dropped.

    The first node would not announce its revocation.
    """
    await adapter.set_session(row("one"))
    await read(adapter, "one", "one")
    entries_of(adapter).clock = lambda: 0.0  # leases never end
    moved("session:one")
    await wait_until(lambda: len(entries_of(adapter)) == 0)
    assert await adapter.get_session("one") is not None


async def test_validated_from_memory(
    adapter: AsyncRedisSessionAdapter, inspector: Inspector
) -> None:
    """``Auth`` validates from the cache, and an invalidated session is refused at once."""
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
    """Over TLS sessions are cached and dropped in the same way."""
    with tls_server(tmp_path) as (server, certificate), Inspector(without_tls(server)) as inspector:
        client = AsyncClients.make(
            f"{library}-py as it is", server, ssl=True, ssl_ca_certs=str(certificate)
        )
        async with client, AsyncRedisSessionAdapter(client, near_cache=LEASE) as adapter:
            auth = AsyncAuth(sessions=adapter, env="DEV")
            session = await auth.create_session("alice")
            await auth.validate_session(session.session_id)
            entries_of(adapter).clock = lambda: 0.0  # leases never end
            before = inspector.calls("mget")
            for _ in range(100):
                assert (await auth.validate_session(session.session_id)).user_id == "alice"
            assert inspector.calls("mget") < before + 50  # some are heartbeats
            with Clients.make("redis-py, RESP2", inspector.server) as other:
                RedisSessionAdapter(other).delete_session(session.session_id)
            await wait_until(lambda: len(entries_of(adapter)) == 0)
            with pytest.raises(InvalidSessionId):
                await auth.validate_session(session.session_id)


@pytest.mark.slow
@pytest.mark.parametrize("library", ["redis", "valkey"])
async def test_failover(library: str, tmp_path: Any) -> None:
    """After a failover no entry of the former primary is used, and the new one is read."""
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


# A link with random delays


class StaleReadCounter:
    """Readers of sessions that another adapter revokes, and counts of stale reads."""

    def __init__(
        self, near: AsyncRedisSessionAdapter, other: AsyncRedisSessionAdapter, lease: float
    ) -> None:
        self.within = self.beyond = 0
        self._near = near
        self._other = other
        self._lease = lease
        self._live: list[str] = []
        self._ended: dict[str, float] = {}

    async def go_on(self, seconds: float, proxy: HoldingProxy, chance: random.Random) -> None:
        """Run the readers, while the link is closed and opened at random."""
        end = time.monotonic() + seconds
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._change(end, chance, tasks))
            while time.monotonic() < end:
                await asyncio.sleep(chance.random() * self._lease)
                proxy.close(both=chance.random() < 0.5)
                await asyncio.sleep(chance.random() * 2 * self._lease)
                proxy.open()

    async def _change(self, end: float, chance: random.Random, tasks: asyncio.TaskGroup) -> None:
        """Keep some sessions alive, each with a reader, and revoke them one by one."""
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


async def count_stale_reads(redis_server: Server, entries: Entries) -> StaleReadCounter:
    """Run for a few seconds with these entries, and return the counts."""
    lease, chance = 0.1, random.Random(11)  # noqa: S311 (not a secret)
    async with (
        holding_proxy(redis_server.port, b"TRACKING") as proxy,
        Redis(port=proxy.port) as client,
        Redis(port=redis_server.port) as direct,
        AsyncRedisSessionAdapter(direct) as other,
        AsyncRedisSessionAdapter(client, near_cache=timedelta(seconds=lease)) as near,
    ):
        near._reads.near.entries = entries
        found = StaleReadCounter(near, other, lease)
        await found.go_on(4, proxy, chance)
        return found


@pytest.mark.slow
async def test_never_beyond_the_lease(redis_server: Server) -> None:
    """No read that begins a lease after a revocation finds the session.

    The link delays replies and invalidations at random.
    """
    redis_server.flush()
    found = await count_stale_reads(redis_server, Entries())
    assert found.within > 0
    assert found.beyond == 0


@pytest.mark.slow
async def test_control_cache_without_lease_is_detected(redis_server: Server) -> None:
    """Control: a cache without a lease is found out."""
    redis_server.flush()
    assert (await count_stale_reads(redis_server, HasNoLease())).beyond > 0


# Event loops and processes


def test_loops_at_the_same_time(inspector: Inspector) -> None:
    """A session revoked in one event loop is not used in another, even before the invalidation."""
    adapter = AsyncRedisSessionAdapter(client_of(inspector), near_cache=LEASE)
    is_read, is_ended = threading.Event(), threading.Event()
    found: list[StoredSession | None] = []

    async def first() -> None:
        await adapter.set_session(row("one"))
        found.extend(await read(adapter, "one", "one"))
        entries_of(adapter).drop = _ignore  # type: ignore[method-assign]
        is_read.set()
        is_ended.wait(30)  # blocks the loop, so nothing is read from the server
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
    """Entries of a closed loop are not used: nothing reads the server's invalidations there."""
    adapter = AsyncRedisSessionAdapter(client_of(inspector), near_cache=LEASE)

    async def use(session_id: str) -> None:
        assert len(entries_of(adapter)) == 0
        await adapter.set_session(row(session_id))
        await read(adapter, session_id, session_id)
        assert len(entries_of(adapter)) == 1

    for number in range(3):
        asyncio.run(use(f"s{number}"))


def test_a_fork(inspector: Inspector) -> None:
    """A child process does not inherit the entries of any adapter."""
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
    """A forked process begins with an empty cache, and exits without a ResourceWarning."""
    # Python 3.12 warns of a fork in a process with threads.
    warnings = ("-W", "ignore::DeprecationWarning", "-W", "error::ResourceWarning")
    command = [sys.executable, *warnings, "-c", FORKING, str(inspector.server.port)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=60, check=False, env={**os.environ}
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")


# The option


def test_the_lease_is_a_time(inspector: Inspector) -> None:
    """A lease is a ``timedelta`` from 50 milliseconds to 5 seconds, or None for no cache."""
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
    """The sync adapter has no near-cache."""
    make: Any = RedisSessionAdapter
    with (
        Clients.make("redis-py as it is", redis_server) as client,
        pytest.raises(TypeError, match="near_cache"),
    ):
        make(client, near_cache=LEASE)


async def test_off_by_default(inspector: Inspector) -> None:
    """By default there is no cache, and the server does not track keys."""
    async with client_of(inspector) as client, AsyncRedisSessionAdapter(client) as adapter:
        await adapter.set_session(row("one"))
        before = inspector.calls("mget")
        await read(adapter, *["one"] * 10)
        assert inspector.calls("mget") == before + 10
        assert inspector.client.info("clients")["tracking_clients"] == 0


class Counting(Redis):
    """A client that can't be copied, because it runs commands in its own way."""

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        execute: Any = super().execute_command
        return await execute(*args, **options)


async def test_a_client_that_can_not_be_copied(inspector: Inspector) -> None:
    """A client passthrough caches nothing."""
    async with (
        Counting(port=inspector.server.port) as client,
        AsyncRedisSessionAdapter(client, near_cache=LEASE) as adapter,
    ):
        await adapter.set_session(row("one"))
        assert None not in await read(adapter, "one", "one")
        assert len(entries_of(adapter)) == 0
