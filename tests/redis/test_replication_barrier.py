"""``revoke_ack`` where a primary answers MOVED until the deadline."""

from typing import Any

import pytest
import redis
import redis.asyncio
from redis.exceptions import MovedError

from lucia._async.stores.redis.driver import AsyncRedisDriver
from lucia._redis.commands import Operation, ReplicationBarrier
from lucia._redis.transport.settings import AsyncSettings, Settings
from lucia._sync.stores.redis.driver import RedisDriver
from lucia.errors import StoreUnavailable

SOON = 0.12


def barrier() -> Operation[int]:
    """Wait for one replica of each primary."""
    found: int = yield ReplicationBarrier("session:renewed:", b"x", 1, 10)
    return found


def moved() -> list[Any]:
    """Return the replies of a primary that no longer has the slot."""
    return [MovedError("1 n:2"), MovedError("1 n:2")]


class AsyncElsewhere:
    """A route to a primary that always answers MOVED."""

    async def key_per_primary(self, *_: Any) -> dict[str, str]:
        return {"n:1": "session:renewed:{0}"}

    async def ask_node(self, *_: Any) -> list[Any]:
        return moved()


class Elsewhere:
    """A route to a primary that always answers MOVED."""

    def key_per_primary(self, *_: Any) -> dict[str, str]:
        return {"n:1": "session:renewed:{0}"}

    def ask_node(self, *_: Any) -> list[Any]:
        return moved()


class Only:
    """A driver's routes, of which there is one."""

    def __init__(self, route: Any) -> None:
        self._route = route

    def peek(self) -> Any:
        return self._route

    def get(self) -> Any:
        return self._route


class AsyncOnly(Only):
    """A driver's routes, of which there is one."""

    async def get(self) -> Any:
        return self._route


async def test_a_primary_that_points_elsewhere() -> None:
    """If a primary answers MOVED until the deadline, `StoreUnavailable` is raised."""
    driver: Any = AsyncRedisDriver(redis.asyncio.Redis(), AsyncSettings(seconds=SOON))
    driver._route = AsyncOnly(AsyncElsewhere())
    with pytest.raises(StoreUnavailable) as raised:
        await driver.run(barrier(), 5)
    assert raised.value.ambiguous
    assert isinstance(raised.value.__cause__, MovedError)


def test_a_primary_that_points_elsewhere_sync() -> None:
    """The sync driver raises the same error."""
    driver: Any = RedisDriver(redis.Redis(), Settings(seconds=SOON))
    driver._route = Only(Elsewhere())
    with pytest.raises(StoreUnavailable) as raised:
        driver.run(barrier(), 5)
    assert raised.value.ambiguous
    assert isinstance(raised.value.__cause__, MovedError)
