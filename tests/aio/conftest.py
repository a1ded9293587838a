"""Clients of the test servers, in this folder's colour."""

from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis, RedisCluster

from tests.servers import Cluster, Server


@pytest.fixture
async def redis_client(server: Server, decode_responses: bool) -> AsyncIterator[Redis]:
    """A client of each kind of server, emptied, that gives bytes or text: four runs of a test."""
    async with Redis.from_url(server.url, decode_responses=decode_responses) as client:
        await client.flushall()
        yield client


@pytest.fixture
async def cluster_client(cluster: Cluster, decode_responses: bool) -> AsyncIterator[RedisCluster]:
    """A client of the cluster, emptied."""
    async with RedisCluster.from_url(cluster.url, decode_responses=decode_responses, protocol=2) as client:
        await client.flushall(target_nodes="primaries")
        yield client


@pytest.fixture
async def scriptless_client(redis_client: Redis, server: Server) -> AsyncIterator[Redis]:
    """A client that may do everything but run scripts."""
    await redis_client.acl_setuser("scriptless", enabled=True, passwords=["+secret"], commands=["+@all", "-@scripting"], keys=["*"])
    async with Redis.from_url(server.url, username="scriptless", password="secret", protocol=2) as client:
        yield client
    await redis_client.acl_deluser("scriptless")
