"""The library's adapters, and one that somebody wrote, are held to the public suites."""

from dataclasses import replace
from datetime import timedelta
from typing import Any, ClassVar, Final

import pytest
from redis.asyncio import Redis, RedisCluster

from lucia._async.fallback import AsyncFiveMethods
from lucia._redis.at_rest import HashedIds
from lucia._rules.sessions import system_clock
from lucia._testing.checks import ODD_TEXTS
from lucia.adapters.memory import AsyncMemoryAdapter
from lucia.adapters.redis import AsyncRedisSessionAdapter
from lucia.models import SessionRow, handle_of
from lucia.testing import (
    AsyncRenewingSessionAdapterSuite,
    AsyncSessionAdapterSuite,
    AsyncSessionUserAdapterSuite,
    AsyncUserAdapterSuite,
)
from tests.aio.support.minimal_adapters import AsyncColumnsAdapter, AsyncDictionaryAdapter
from tests.support.clocks import Time

ID_KEYS: Final = (b"current key".ljust(32), b"older key".ljust(32))

pytestmark = pytest.mark.filterwarnings(
    "ignore:(?s).*lib_:DeprecationWarning"
)  # redis-py 7's cluster clients warn of themselves


class TestMemorySessions(AsyncRenewingSessionAdapterSuite):
    """Sessions in memory."""

    @pytest.fixture
    def adapter(self) -> AsyncMemoryAdapter:
        """An empty store."""
        return AsyncMemoryAdapter()


class TestMemoryUsers(AsyncUserAdapterSuite):
    """Users and keys in memory."""

    @pytest.fixture
    def adapter(self) -> AsyncMemoryAdapter:
        """An empty store."""
        return AsyncMemoryAdapter()


class TestMemoryBoth(AsyncSessionUserAdapterSuite):
    """Sessions with their users in memory."""

    @pytest.fixture
    def adapter(self) -> AsyncMemoryAdapter:
        """An empty store."""
        return AsyncMemoryAdapter()


class TestRedis(AsyncRenewingSessionAdapterSuite):
    """Sessions in Redis and Valkey, by clients that give bytes or text."""

    @pytest.fixture
    def adapter(self, redis_client: Redis) -> AsyncRedisSessionAdapter:
        """An empty server."""
        return AsyncRedisSessionAdapter(redis_client)


@pytest.mark.parametrize("server", ["old_redis"], indirect=True)
@pytest.mark.parametrize("decode_responses", [False])
class TestOldRedis(AsyncRenewingSessionAdapterSuite):
    """Sessions in Redis 6.2."""

    @pytest.fixture
    def adapter(self, redis_client: Redis) -> AsyncRedisSessionAdapter:
        """An empty server."""
        return AsyncRedisSessionAdapter(redis_client)


@pytest.mark.parametrize("server", ["redis"], indirect=True)
@pytest.mark.parametrize("decode_responses", [True])
class TestRedisNamespaces(AsyncRenewingSessionAdapterSuite):
    """Sessions in namespaces of their own, one of which begins like the other and holds a hash tag."""

    @pytest.fixture
    def adapter(self, redis_client: Redis) -> AsyncRedisSessionAdapter:
        """An empty server."""
        return AsyncRedisSessionAdapter(
            redis_client, namespaces={"session": "app:{1}:s", "user_session": "app:{1}:s*é"}
        )


class AsyncSessionFirstSuite(AsyncRenewingSessionAdapterSuite):
    """Where a session's marker has to share its slot, an id may not hold braces that are no hash tag."""

    odd_texts: ClassVar[tuple[str, ...]] = (
        *(text for text in ODD_TEXTS if "}" not in text),
        "{a}b{}",
        "a{b}",
        "{",
    )


class TestRedisCluster(AsyncSessionFirstSuite):
    """Sessions in a cluster, by clients that give bytes or text."""

    @pytest.fixture
    def adapter(self, cluster_client: RedisCluster) -> AsyncRedisSessionAdapter:
        """An empty cluster."""
        return AsyncRedisSessionAdapter(cluster_client)


@pytest.mark.parametrize("decode_responses", [True])
class TestValkeyCluster(AsyncSessionFirstSuite):
    """The same by the other library's clients."""

    @pytest.fixture
    def adapter(self, valkey_cluster_client: Any) -> AsyncRedisSessionAdapter:
        """An empty cluster."""
        return AsyncRedisSessionAdapter(valkey_cluster_client)


@pytest.mark.parametrize(
    ("server", "decode_responses"), [("redis", False), ("valkey", True)], indirect=["server"]
)
class TestRedisWithoutScripts(AsyncSessionFirstSuite):
    """Sessions on servers that refuse scripts to this client."""

    @pytest.fixture
    def adapter(self, scriptless_client: Redis) -> AsyncRedisSessionAdapter:
        """An empty server."""
        return AsyncRedisSessionAdapter(scriptless_client)


@pytest.mark.parametrize("server", ["redis"], indirect=True)
@pytest.mark.parametrize("decode_responses", [False])
class TestRedisSets(AsyncRenewingSessionAdapterSuite):
    """Sessions in the layout ``lucia-v2``, on one server."""

    @pytest.fixture
    def adapter(self, redis_client: Redis) -> AsyncRedisSessionAdapter:
        """An empty server."""
        return AsyncRedisSessionAdapter(redis_client, layout="lucia-v2")


@pytest.mark.parametrize("decode_responses", [True])
class TestRedisClusterSets(AsyncSessionFirstSuite):
    """The same in a cluster."""

    @pytest.fixture
    def adapter(self, cluster_client: RedisCluster) -> AsyncRedisSessionAdapter:
        """An empty cluster."""
        return AsyncRedisSessionAdapter(cluster_client, layout="lucia-v2")


@pytest.mark.parametrize(("server", "decode_responses"), [("valkey", True)], indirect=["server"])
class TestRedisSetsWithoutScripts(AsyncSessionFirstSuite):
    """The same on a server that refuses scripts."""

    @pytest.fixture
    def adapter(self, scriptless_client: Redis) -> AsyncRedisSessionAdapter:
        """An empty server."""
        return AsyncRedisSessionAdapter(scriptless_client, layout="lucia-v2")


class AsyncHashedSuite(AsyncRenewingSessionAdapterSuite):
    """Where hashes stand for ids, the lists have those, and a handle for each session."""

    def as_listed(self, row: SessionRow) -> SessionRow:
        """The row under its id's hash."""
        return replace(
            row,
            id=HashedIds(ID_KEYS).stored(row.id),
            attributes={"handle": handle_of(row), **row.attributes},
        )


@pytest.mark.parametrize("server", ["redis"], indirect=True)
@pytest.mark.parametrize("decode_responses", [True])
class TestRedisHashed(AsyncHashedSuite):
    """Sessions under hashes of their ids."""

    @pytest.fixture
    def adapter(self, redis_client: Redis) -> AsyncRedisSessionAdapter:
        """An empty server."""
        return AsyncRedisSessionAdapter(redis_client, id_keys=ID_KEYS)


@pytest.mark.parametrize("decode_responses", [False])
class TestRedisClusterHashed(AsyncHashedSuite):
    """The same in a cluster."""

    @pytest.fixture
    def adapter(self, cluster_client: RedisCluster) -> AsyncRedisSessionAdapter:
        """An empty cluster."""
        return AsyncRedisSessionAdapter(cluster_client, id_keys=ID_KEYS)


@pytest.mark.parametrize(("server", "decode_responses"), [("redis", False)], indirect=["server"])
class TestRedisHashedWithoutScripts(AsyncHashedSuite):
    """The same on a server that refuses scripts to this client."""

    @pytest.fixture
    def adapter(self, scriptless_client: Redis) -> AsyncRedisSessionAdapter:
        """An empty server."""
        return AsyncRedisSessionAdapter(scriptless_client, id_keys=ID_KEYS)


class AsyncLateAdapter(AsyncMemoryAdapter):
    """Refuses what is over; the first that lives for less than a minute it is asked for too late."""

    def __init__(self, time: Time) -> None:
        super().__init__(clock=time)
        self.time = time
        self.is_late = True

    async def set_session(self, session: SessionRow, /) -> None:
        if self.is_late and session.idle_expires < self.time.now + 60_000:
            self.is_late = False
            self.time.advance(timedelta(minutes=1))
        if session.idle_expires < self.time.now:
            raise ValueError
        await super().set_session(session)


class AsyncTimedSuite(AsyncRenewingSessionAdapterSuite):
    """The laws by the test's own clock."""

    def __init__(self, time: Time) -> None:
        self.time = time

    def now(self) -> int:
        """The test's time."""
        return self.time.now

    async def wait(self, milliseconds: int) -> None:
        """Move it."""
        self.time.advance(timedelta(milliseconds=milliseconds))


async def test_short_lives_on_a_busy_machine() -> None:
    """What lives for a moment is stored once more where the machine was busy for longer than that."""
    adapter = AsyncLateAdapter(time := Time())
    await AsyncTimedSuite(time).test_cap_expired(adapter)
    assert not adapter.is_late


class AsyncRefusingAdapter(AsyncMemoryAdapter):
    """Takes no session that lives for less than an hour."""

    async def set_session(self, session: SessionRow, /) -> None:
        if session.idle_expires < self._clock() + 3_600_000:
            raise ValueError("too short")
        await super().set_session(session)


async def test_short_lives_refused() -> None:
    """A store that takes no session that lives for a moment is not asked for ever: its own error goes up."""
    with pytest.raises(ValueError, match="too short"):
        await AsyncRenewingSessionAdapterSuite().test_cap_expired(AsyncRefusingAdapter())


class TestFiveMethods(AsyncSessionAdapterSuite):
    """An adapter of five methods, by itself."""

    @pytest.fixture
    def adapter(self) -> AsyncDictionaryAdapter:
        """An empty dictionary."""
        return AsyncDictionaryAdapter()


class TestFiveMethodsRenewing(AsyncRenewingSessionAdapterSuite):
    """What the library makes of an adapter of five methods."""

    @pytest.fixture
    def adapter(self) -> AsyncFiveMethods:
        """An empty dictionary."""
        return AsyncFiveMethods(AsyncDictionaryAdapter(), system_clock)


class TestColumnsRenewing(AsyncRenewingSessionAdapterSuite):
    """The same for one that does not keep attributes."""

    @pytest.fixture
    def adapter(self) -> AsyncFiveMethods:
        """An empty dictionary."""
        return AsyncFiveMethods(AsyncColumnsAdapter(), system_clock)
