"""The async adapter with and without coalescing. Everything else is tested in both flavours."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import hiredis
import pytest
import redis
from redis.asyncio import Redis, RedisCluster

from lucia._compat.gathering import MAX_CONCURRENT_CALLS
from lucia._redis.commands import Batch, Call, Eval, Operation
from lucia._redis.transport import batching as batches_module
from lucia._redis.transport import connection_io as wire_module
from lucia._rules.id_hashes import HashedIds
from lucia.adapters.redis import AsyncRedisSessionAdapter
from lucia.errors import Overloaded, StoreUnavailable
from lucia.testing import AsyncRenewingSessionAdapterSuite
from tests.aio.redis.test_conformance import AsyncSessionFirstSuite
from tests.aio.support.rendezvous import retry_until_answered
from tests.support.redis_clients import AsyncClients
from tests.support.redis_inspectors import ClusterInspector, Inspector
from tests.support.redis_servers import frozen
from tests.support.sessions import row
from tools.servers import Cluster, Server, own_server, unused_port

# redis-py 7's cluster clients cause this warning themselves.
pytestmark = pytest.mark.filterwarnings("ignore:(?s).*lib_:DeprecationWarning")

MANY = 200


@pytest.fixture
def inspector(redis_server: Server) -> Iterator[Inspector]:
    """Yield an inspector of an empty server."""
    with Inspector(redis_server) as found:
        yield found


@pytest.fixture
def cluster_inspector(cluster: Cluster) -> Iterator[ClusterInspector]:
    """Yield an inspector of an empty cluster."""
    with ClusterInspector(cluster) as found:
        yield found


@pytest.fixture
async def client(inspector: Inspector) -> AsyncIterator[Redis]:
    """Yield a client with few connections."""
    async with Redis(port=inspector.server.port, max_connections=8) as client:
        yield client


@pytest.fixture
async def cluster_client(
    cluster_inspector: ClusterInspector, cluster: Cluster
) -> AsyncIterator[Any]:
    """Yield a client of the cluster."""
    async with AsyncClients.of_cluster("redis", cluster) as client:
        yield client


class TestUncoalesced(AsyncRenewingSessionAdapterSuite):
    """The adapter suite on one server, without coalescing."""

    @pytest.fixture
    def adapter(self, client: Redis) -> AsyncRedisSessionAdapter:
        return AsyncRedisSessionAdapter(client, coalesce=False)


@pytest.mark.no_cover
class TestUncoalescedCluster(AsyncSessionFirstSuite):
    """The adapter suite in a cluster, without coalescing."""

    @pytest.fixture
    def adapter(self, cluster_client: RedisCluster) -> AsyncRedisSessionAdapter:
        return AsyncRedisSessionAdapter(cluster_client, coalesce=False)


@pytest.mark.parametrize(("coalesce", "commands"), [(True, 2), (False, MANY)])
async def test_reads_at_once(
    client: Redis, inspector: Inspector, coalesce: bool, commands: int
) -> None:
    """Concurrent reads are two commands, and each gets its own session or None."""
    adapter = AsyncRedisSessionAdapter(client, coalesce=coalesce)
    rows = [row(f"s{number}", f"u{number}") for number in range(MANY)]
    await asyncio.gather(*map(adapter.set_session, rows[::2]))
    before = inspector.calls("mget")
    found = await asyncio.gather(*(adapter.get_session(each.id) for each in rows))
    assert found == [each if number % 2 == 0 else None for number, each in enumerate(rows)]
    assert inspector.calls("mget") == before + commands


async def test_reads_at_once_in_a_cluster(
    cluster_client: RedisCluster, cluster_inspector: ClusterInspector
) -> None:
    """In a cluster concurrent reads find their sessions, and the slot map is read once."""
    adapter = AsyncRedisSessionAdapter(cluster_client)
    rows = [row(f"s{number}", f"u{number}") for number in range(MANY)]
    before = cluster_inspector.calls("cluster|slots")
    await asyncio.gather(*map(adapter.set_session, rows))
    assert cluster_inspector.calls("cluster|slots") == before + 1
    assert await asyncio.gather(*(adapter.get_session(each.id) for each in rows)) == rows


async def test_writes_at_once(client: Redis, inspector: Inspector) -> None:
    """Concurrent logins, renewals and revocations share a few connections."""
    adapter = AsyncRedisSessionAdapter(client)
    ids = [f"s{number}" for number in range(MANY)]
    await asyncio.gather(*(adapter.set_session(row(each, "u1")) for each in ids))
    assert inspector.live() == set(ids)
    renewed = await asyncio.gather(
        *(adapter.renew_session(each, row(f"{each}-new"), grace=0) for each in ids)
    )
    assert [each.id for each in renewed if each is not None] == [f"{each}-new" for each in ids]
    await asyncio.gather(*(adapter.delete_session(f"{each}-new") for each in ids))
    assert inspector.live() == set()
    assert await adapter.get_sessions_by_user_id("u1") == []


def batch(*commands: Call | Eval) -> Operation[Any]:
    """Run one batch as an operation."""
    return (yield Batch(commands))


async def test_a_batch_of_many_commands(client: Redis, inspector: Inspector) -> None:
    """The replies to a batch are in the order of its commands, however many there are."""
    adapter = AsyncRedisSessionAdapter(client)
    names = [f"k{number}" for number in range(3 * MAX_CONCURRENT_CALLS // 2)]
    for name in names:
        inspector.client.set(name, name)
    replies = await adapter._driver.run(batch(*(Call("MGET", (name,)) for name in names)))
    assert replies == [[name.encode()] for name in names]


@pytest.mark.parametrize("coalesce", [True, False])
async def test_a_batch_of_which_one_command_fails(
    client: Redis, inspector: Inspector, coalesce: bool
) -> None:
    """The error of a failed command in a batch is raised.

    Commands sent together with it are executed, later ones are not sent.
    """
    adapter = AsyncRedisSessionAdapter(client, coalesce=coalesce)
    inspector.client.mset({"text": "no number", "other": "1"})
    with pytest.raises(redis.ResponseError, match="not an integer"):
        await adapter._driver.run(batch(Call("INCR", ("text",)), Call("DEL", ("other",))))
    assert inspector.client.exists("other") == (0 if coalesce else 1)


async def test_a_batch_of_which_a_read_is_not_answered(tmp_path: Path) -> None:
    """A batch without a reply is ambiguous if any of its commands writes."""
    with own_server("redis-server", tmp_path) as server:
        async with (
            Redis(port=server.port) as client,
            AsyncRedisSessionAdapter(client, deadline=timedelta(seconds=0.3)) as adapter,
        ):
            await retry_until_answered(lambda: adapter.get_session("mine"))
            with frozen(server), pytest.raises(StoreUnavailable) as raised:
                await adapter._driver.run(batch(Call("MGET", ("one",)), Call("DEL", ("other",))))
            assert raised.value.ambiguous


async def test_read_after_revocation_finds_nothing(client: Redis) -> None:
    """A read that begins after a revocation never finds the session, despite concurrent reads."""
    adapter = AsyncRedisSessionAdapter(client)
    is_over = asyncio.Event()

    async def read_on() -> None:
        while not is_over.is_set():
            await adapter.get_session("mine")

    async with asyncio.TaskGroup() as readers:
        for _ in range(20):
            readers.create_task(read_on())
        for _ in range(20):
            await adapter.set_session(row("mine"))
            assert None not in await asyncio.gather(
                *(adapter.get_session("mine") for _ in range(20))
            )
            await adapter.delete_session("mine")
            assert (
                await asyncio.gather(*(adapter.get_session("mine") for _ in range(20)))
                == [None] * 20
            )
        is_over.set()


async def test_requests_beyond_limit_are_overloaded(
    client: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Requests beyond the limit are refused as `Overloaded`, and the others are served."""
    adapter = AsyncRedisSessionAdapter(client)
    await adapter.set_session(row("mine"))
    monkeypatch.setattr(batches_module, "MAX_WAITING", 10)
    found = await asyncio.gather(
        *(adapter.get_session("mine") for _ in range(30)), return_exceptions=True
    )
    assert [type(each) for each in found].count(Overloaded) == 20
    assert await adapter.get_session("mine") is not None


async def test_an_error_for_each() -> None:
    """If nothing listens, each caller gets an error and a cause of its own."""
    async with Redis(port=unused_port()) as client:
        adapter = AsyncRedisSessionAdapter(client)
        for _ in range(2):  # at first there are no connections yet
            errors = await asyncio.gather(
                *(adapter.get_session("mine") for _ in range(5)), return_exceptions=True
            )
            assert [type(each) for each in errors] == [StoreUnavailable] * 5
            causes = [each.__cause__ for each in errors if isinstance(each, StoreUnavailable)]
            assert [type(each) for each in causes] == [redis.ConnectionError] * 5
            assert len(set(map(id, [*errors, *causes]))) == 10


@pytest.mark.parametrize("packs", ["hiredis", "the client"])
async def test_hiredis_and_client_packing_are_equivalent(
    client: Redis, packs: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Commands packed by hiredis and by the client have the same effect."""
    monkeypatch.setattr(wire_module, "_PACK", hiredis.pack_command if packs == "hiredis" else None)
    adapter = AsyncRedisSessionAdapter(client)
    session = row("mïne", "ü", metadata={"agent": "é\x00\r\n"})
    await adapter.set_session(session)
    assert await adapter.get_session("mïne") == session
    assert await adapter.get_sessions_by_user_id("ü") == [session]


async def test_damaged_record_without_coalescing(client: Redis, inspector: Inspector) -> None:
    """A damaged record under one key's hash does not hide the session under another's."""
    current, older = b"current key".ljust(32), b"older key".ljust(32)
    async with (
        AsyncRedisSessionAdapter(client, id_keys=[older]) as writer,
        AsyncRedisSessionAdapter(client, id_keys=[current, older], coalesce=False) as reader,
    ):
        session = row("mine")
        await writer.set_session(session)
        assert await reader.get_session("mine") == session
        newest = HashedIds([current, older]).candidates("mine")[0]
        inspector.client.set(f"session:{newest}", "garbage", px=60_000)
        assert await reader.get_session("mine") == session
        await writer.delete_session("mine")
        assert await reader.get_session("mine") is None
