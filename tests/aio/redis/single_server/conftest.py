"""An adapter on an emptied server, and a view of the server's keys."""

from collections.abc import Iterator

import pytest
from redis.asyncio import Redis

from lucia.adapters.redis import AsyncRedisSessionAdapter
from tests.support.redis_inspectors import Inspector
from tools.servers import Server


@pytest.fixture
def inspector(server: Server) -> Iterator[Inspector]:
    """A look into the same server from outside, emptied."""
    with Inspector(server) as found:
        yield found


@pytest.fixture
def adapter(inspector: Inspector, redis_client: Redis) -> AsyncRedisSessionAdapter:
    """An adapter on an emptied server, over clients that give bytes or text."""
    return AsyncRedisSessionAdapter(redis_client)
