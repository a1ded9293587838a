"""An adapter on an emptied server, and an inspector of the server's keys."""

from collections.abc import Iterator

import pytest
from redis.asyncio import Redis

from lucia.adapters.redis import AsyncRedisSessionAdapter
from tests.support.redis_inspectors import Inspector
from tools.servers import Server


@pytest.fixture
def inspector(server: Server) -> Iterator[Inspector]:
    """Yield an inspector of the emptied server."""
    with Inspector(server) as found:
        yield found


@pytest.fixture
def adapter(inspector: Inspector, redis_client: Redis) -> AsyncRedisSessionAdapter:
    """Return an adapter on the emptied server, over clients that return bytes or text."""
    return AsyncRedisSessionAdapter(redis_client)
