"""Clients of the test servers, and an ``Auth`` in memory with a clock that a test moves."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis.asyncio import Redis, RedisCluster

from lucia import AsyncAuth, User
from tests.aio.support.watched_store import AsyncWatchedStore, make_auth
from tests.support.clocks import Time
from tests.support.redis_clients import AsyncClients
from tools.servers import Cluster, Server


@pytest.fixture
async def redis_client(server: Server, decode_responses: bool) -> AsyncIterator[Redis]:
    """Yield a client of each kind of server, emptied: four runs of a test, with bytes or text."""
    async with Redis.from_url(server.url, decode_responses=decode_responses) as client:
        await client.flushall()
        yield client


@pytest.fixture
async def cluster_client(cluster: Cluster, decode_responses: bool) -> AsyncIterator[RedisCluster]:
    """Yield a client of the emptied cluster."""
    cluster.on_each("FLUSHALL")
    async with RedisCluster.from_url(
        cluster.url, decode_responses=decode_responses, protocol=2
    ) as client:
        yield client


@pytest.fixture
async def valkey_cluster_client(cluster: Cluster, decode_responses: bool) -> AsyncIterator[Any]:
    """Yield a client of the emptied cluster, from valkey-py."""
    cluster.on_each("FLUSHALL")
    async with AsyncClients.of_cluster(
        "valkey", cluster, decode_responses=decode_responses
    ) as client:
        yield client


@pytest.fixture
async def scriptless_client(
    server: Server, redis_client: Redis, decode_responses: bool
) -> AsyncIterator[Redis]:
    """Yield a client of each kind of server, emptied, without the right to run scripts."""
    await redis_client.acl_setuser(
        "scriptless",
        enabled=True,
        passwords=["+secret"],
        commands=["+@all", "-@scripting"],
        keys=["*"],
    )
    async with Redis.from_url(
        server.url, username="scriptless", password="secret", decode_responses=decode_responses
    ) as client:
        yield client
    await redis_client.acl_deluser("scriptless")


@pytest.fixture
def time() -> Time:
    """Return the clock of everything except Redis."""
    return Time()


@pytest.fixture
def store(time: Time) -> AsyncWatchedStore:
    """Return the only store."""
    return AsyncWatchedStore(time)


@pytest.fixture
def auth(store: AsyncWatchedStore, time: Time) -> AsyncAuth[User]:
    """Return an ``Auth`` with the default settings."""
    return make_auth(store, time)
