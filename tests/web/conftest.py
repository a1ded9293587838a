"""An application's auth over the memory adapter, its clock, and a real Redis in the place of its session store."""

from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from lucia import AsyncAuth, ScryptHash, User
from lucia._rules.sessions import system_clock
from lucia.adapters.memory import AsyncMemoryAdapter
from tests.web.driver import Time
from tools.servers import Server


@pytest.fixture
def time() -> Time:
    """The time, which stands; it is the real one at first, since Redis has a clock of its own."""
    return Time(system_clock())


@pytest.fixture
def store(time: Time) -> AsyncMemoryAdapter:
    """The store of users and sessions."""
    return AsyncMemoryAdapter(clock=time)


@pytest.fixture
def auth(store: AsyncMemoryAdapter, time: Time) -> AsyncAuth[User]:
    """An application's auth, with cheap hashes."""
    return make_auth(store, time)


def make_auth(store: AsyncMemoryAdapter, time: Time) -> AsyncAuth[User]:
    """An auth over this store that trusts one other origin."""
    return AsyncAuth(
        users=store,
        sessions=store,
        env="DEV",
        clock=time,
        hash=ScryptHash(ln=4, r=1, p=1),
        origin=["https://trusted.example"],
    )


@pytest.fixture
async def redis(redis_server: Server) -> AsyncIterator[Redis]:
    """A client of an emptied Redis server."""
    client = Redis.from_url(redis_server.url, protocol=2)
    async with client:
        await client.flushall()
        yield client
