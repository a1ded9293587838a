"""Clients of the test servers, in this folder's colour."""

from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from tests.servers import Server


@pytest.fixture
async def redis_client(server: Server, decode_responses: bool) -> AsyncIterator[Redis]:
    """A client of each kind of server, emptied, that gives bytes or text: four runs of a test."""
    async with Redis.from_url(server.url, decode_responses=decode_responses) as client:
        await client.flushall()
        yield client
