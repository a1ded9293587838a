"""Reindexing, and exhaustive revocations of sessions in no index, with every kind of client."""

from typing import Any

import pytest
from redis.asyncio import Redis, RedisCluster
from redis.exceptions import NoPermissionError

from lucia.adapters.redis import AsyncRedisSessionAdapter, Reindexed
from tests.support.redis_inspectors import ClusterInspector, Inspector
from tests.support.sessions import row
from tools.servers import Cluster, Server

KEYS = [bytes(32)]


async def _loses_its_index(adapter: AsyncRedisSessionAdapter, client: Any) -> None:
    """Lose the index and rebuild it; lose it again, and revoke its sessions exhaustively."""
    for number in range(3):
        await adapter.set_session(row(f"session-{number}", "u1"))
    await adapter.set_session(row("another's", "u2"))
    await client.delete("userSession:u1")
    assert await adapter.reindex() == Reindexed(sessions=4, indexed=3)
    assert len(await adapter.get_sessions_by_user_id("u1")) == 3
    assert await adapter.reindex() == Reindexed(sessions=4, indexed=0)
    await client.delete("userSession:u1")
    await adapter.delete_sessions_by_user_id("u1")
    assert await adapter.get_session("session-1") is not None
    await adapter.delete_sessions_by_user_id("u1", exhaustive=True)
    assert [await adapter.get_session(f"session-{number}") for number in range(3)] == [
        None,
        None,
        None,
    ]
    assert await adapter.get_session("another's") is not None


async def test_one_server(redis_client: Redis, server: Server) -> None:
    """On one server, each session is then in its index once, and each key has a TTL."""
    async with AsyncRedisSessionAdapter(redis_client) as adapter:
        await _loses_its_index(adapter, redis_client)
        with Inspector.looking_at(server) as inspector:
            inspector.check()


async def test_cluster(cluster_client: RedisCluster, cluster: Cluster) -> None:
    """In a cluster, all nodes are searched."""
    with ClusterInspector(cluster) as inspector:
        async with AsyncRedisSessionAdapter(cluster_client) as adapter:
            await _loses_its_index(adapter, cluster_client)
            inspector.check()


async def test_without_scripts(scriptless_client: Redis) -> None:
    """Reindexing works without scripts, even if it is the first call that the server refuses."""
    async with AsyncRedisSessionAdapter(scriptless_client) as adapter:
        await _loses_its_index(adapter, scriptless_client)
    await scriptless_client.delete("userSession:u2")
    async with AsyncRedisSessionAdapter(scriptless_client) as adapter:
        assert await adapter.reindex() == Reindexed(sessions=1, indexed=1)


async def test_ids_at_rest(redis_client: Redis) -> None:
    """With hashed ids, the index contains hashes."""
    async with AsyncRedisSessionAdapter(redis_client, id_keys=KEYS) as adapter:
        await _loses_its_index(adapter, redis_client)


class Wrapped(Redis):
    """A client that can't be copied."""

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        parent: Any = super()
        return await parent.execute_command(*args, **options)


async def test_client_that_is_used_as_it_is(redis_client: Redis, server: Server) -> None:
    """A client that can't be copied works too."""
    async with (
        Wrapped(host=server.host, port=server.port, protocol=2) as client,
        AsyncRedisSessionAdapter(client) as adapter,
    ):
        await _loses_its_index(adapter, redis_client)


class WrappedCluster(RedisCluster):
    """A cluster's client that can't be copied."""

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        parent: Any = super()
        return await parent.execute_command(*args, **options)


async def test_cluster_that_is_used_as_it_is(cluster: Cluster) -> None:
    """With a cluster client that can't be copied, it is an error: it can't ask each node."""
    async with (
        WrappedCluster.from_url(cluster.url, protocol=2) as client,
        AsyncRedisSessionAdapter(client) as adapter,
    ):
        with pytest.raises(TypeError, match="one by one"):
            await adapter.reindex()


async def test_user_that_may_not_scan(redis_client: Redis, server: Server) -> None:
    """Without the right to SCAN, the client's own error is raised, and nothing is changed."""
    await redis_client.acl_setuser(
        "no-scan",
        enabled=True,
        passwords=["+secret"],
        commands=["+@all", "-scan"],
        keys=["*"],
        reset=True,
    )
    async with AsyncRedisSessionAdapter(redis_client) as adapter:
        await adapter.set_session(row("session-1", "u1"))
    await redis_client.delete("userSession:u1")
    async with (
        Redis.from_url(server.url, username="no-scan", password="secret") as client,
        AsyncRedisSessionAdapter(client) as adapter,
    ):
        with pytest.raises(NoPermissionError):
            await adapter.reindex()
    await redis_client.acl_deluser("no-scan")
    assert await redis_client.exists("userSession:u1") == 0
