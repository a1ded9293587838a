"""Fixtures: an auth over the memory adapter, its clock, and a client of a real Redis."""

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
    """Return a clock that stands still, at the real time because Redis has its own clock."""
    return Time(system_clock())


@pytest.fixture
def store(time: Time) -> AsyncMemoryAdapter:
    """Return a store of users and sessions."""
    return AsyncMemoryAdapter(clock=time)


@pytest.fixture
def auth(store: AsyncMemoryAdapter, time: Time) -> AsyncAuth[User]:
    """Return an auth with a cheap hash."""
    return make_auth(store, time)


def make_auth(store: AsyncMemoryAdapter, time: Time) -> AsyncAuth[User]:
    """Return an auth over this store that trusts one other origin."""
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
    """Return a client of an emptied Redis server."""
    client = Redis.from_url(redis_server.url, protocol=2)
    async with client:
        await client.flushall()
        yield client
