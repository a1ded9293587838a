"""Clients of the test servers, and an ``Auth`` in memory with a clock that stands still, in this folder's flavour."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis.asyncio import Redis, RedisCluster

from lucia import AsyncAuth, User
from tests.aio.stores import AsyncWatchedStore, make_auth
from tests.redis_tools import AsyncClients
from tests.servers import Cluster, Server
from tests.shared import Time


@pytest.fixture
async def redis_client(server: Server, decode_responses: bool) -> AsyncIterator[Redis]:
    """A client of each kind of server, emptied, that gives bytes or text: four runs of a test."""
    async with Redis.from_url(server.url, decode_responses=decode_responses) as client:
        await client.flushall()
        yield client


@pytest.fixture
async def cluster_client(cluster: Cluster, decode_responses: bool) -> AsyncIterator[RedisCluster]:
    """A client of the cluster, emptied."""
    cluster.on_each("FLUSHALL")
    async with RedisCluster.from_url(
        cluster.url, decode_responses=decode_responses, protocol=2
    ) as client:
        yield client


@pytest.fixture
async def valkey_cluster_client(cluster: Cluster, decode_responses: bool) -> AsyncIterator[Any]:
    """A client of the other library for the cluster, emptied."""
    cluster.on_each("FLUSHALL")
    async with AsyncClients.of_cluster(
        "valkey", cluster, decode_responses=decode_responses
    ) as client:
        yield client


@pytest.fixture
async def scriptless_client(
    server: Server, redis_client: Redis, decode_responses: bool
) -> AsyncIterator[Redis]:
    """A client that may do everything but run scripts, of each kind of server, emptied."""
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
    """The clock of everything but Redis."""
    return Time()


@pytest.fixture
def store(time: Time) -> AsyncWatchedStore:
    """The only store."""
    return AsyncWatchedStore(time)


@pytest.fixture
def auth(store: AsyncWatchedStore, time: Time) -> AsyncAuth[User]:
    """An ``Auth`` with the default settings."""
    return make_auth(store, time)
