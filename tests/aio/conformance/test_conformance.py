"""The library's adapters, and a minimal one over a dictionary, pass the public suites."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any, ClassVar, Final
from zlib import crc32

import pytest
from redis.asyncio import Redis, RedisCluster

from lucia._async.fallback import AsyncFiveMethods
from lucia._rules.id_hashes import HashedIds
from lucia._rules.sessions import system_clock
from lucia._testing.checks import ODD_TEXTS
from lucia.adapters.memory import AsyncMemoryAdapter
from lucia.adapters.redis import AsyncRedisSessionAdapter
from lucia.errors import InvalidUserId
from lucia.models import KeyRow, SessionRow, UserRow, handle_of
from lucia.testing import (
    AsyncRenewingSessionAdapterSuite,
    AsyncSessionAdapterSuite,
    AsyncSessionUserAdapterSuite,
    AsyncUserAdapterSuite,
)
from tests.aio.support.minimal_adapters import AsyncColumnsAdapter, AsyncDictionaryAdapter
from tests.support.clocks import Time

ID_KEYS: Final = (b"current key".ljust(32), b"older key".ljust(32))

# redis-py 7's cluster clients cause deprecation warnings themselves.
pytestmark = pytest.mark.filterwarnings("ignore:(?s).*lib_:DeprecationWarning")


class TestMemorySessions(AsyncRenewingSessionAdapterSuite):
    """Sessions in memory."""

    @pytest.fixture
    def adapter(self) -> AsyncMemoryAdapter:
        return AsyncMemoryAdapter()


class TestMemoryUsers(AsyncUserAdapterSuite):
    """Users and keys in memory."""

    @pytest.fixture
    def adapter(self) -> AsyncMemoryAdapter:
        return AsyncMemoryAdapter()


class TestMemoryBoth(AsyncSessionUserAdapterSuite):
    """Sessions joined with their users in memory."""

    @pytest.fixture
    def adapter(self) -> AsyncMemoryAdapter:
        return AsyncMemoryAdapter()


class AsyncNumberedUsers(AsyncMemoryAdapter):
    """An adapter whose user ids are numbers, as those of many databases are."""

    async def set_user(
        self, user_id: str, attributes: Mapping[str, Any], key: KeyRow | None, /
    ) -> UserRow:
        return await super().set_user(check_number(user_id), attributes, key)

    async def set_session(self, session: SessionRow, /) -> None:
        check_number(session.user_id)
        await super().set_session(session)


def check_number(user_id: str) -> str:
    """Return the user id if it is a number."""
    if not user_id.isdecimal():
        raise InvalidUserId
    return user_id


class NumberedNames:
    """The hook of a suite for such an adapter."""

    def user_id(self, name: str) -> str:
        return str(crc32(name.encode()))


class TestNumberedUsers(NumberedNames, AsyncUserAdapterSuite):
    """Users whose ids are numbers."""

    @pytest.fixture
    def adapter(self) -> AsyncNumberedUsers:
        return AsyncNumberedUsers()


class TestNumberedSessions(NumberedNames, AsyncRenewingSessionAdapterSuite):
    """Sessions of users whose ids are numbers."""

    @pytest.fixture
    def adapter(self) -> AsyncNumberedUsers:
        return AsyncNumberedUsers()


class TestNumberedBoth(NumberedNames, AsyncSessionUserAdapterSuite):
    """Sessions joined with users whose ids are numbers."""

    @pytest.fixture
    def adapter(self) -> AsyncNumberedUsers:
        return AsyncNumberedUsers()


class TestRedis(AsyncRenewingSessionAdapterSuite):
    """Sessions in Redis and Valkey, with clients that return bytes or text."""

    @pytest.fixture
    def adapter(self, redis_client: Redis) -> AsyncRedisSessionAdapter:
        return AsyncRedisSessionAdapter(redis_client)


@pytest.mark.parametrize("server", ["old_redis"], indirect=True)
@pytest.mark.parametrize("decode_responses", [False])
class TestOldRedis(AsyncRenewingSessionAdapterSuite):
    """Sessions in Redis 6.2."""

    @pytest.fixture
    def adapter(self, redis_client: Redis) -> AsyncRedisSessionAdapter:
        return AsyncRedisSessionAdapter(redis_client)


@pytest.mark.parametrize("server", ["redis"], indirect=True)
@pytest.mark.parametrize("decode_responses", [True])
class TestRedisNamespaces(AsyncRenewingSessionAdapterSuite):
    """Sessions in two namespaces that share a prefix with a hash tag."""

    @pytest.fixture
    def adapter(self, redis_client: Redis) -> AsyncRedisSessionAdapter:
        return AsyncRedisSessionAdapter(
            redis_client, namespaces={"session": "app:{1}:s", "user_session": "app:{1}:s*é"}
        )


class AsyncSessionFirstSuite(AsyncRenewingSessionAdapterSuite):
    """Sessions in stores that put a session's marker into the slot of the session.

    Braces in an id are refused there unless they form a hash tag.
    """

    odd_texts: ClassVar[tuple[str, ...]] = (
        *(text for text in ODD_TEXTS if "}" not in text),
        "{a}b{}",
        "a{b}",
        "{",
    )


class TestRedisCluster(AsyncSessionFirstSuite):
    """Sessions in a cluster, with clients that return bytes or text."""

    @pytest.fixture
    def adapter(self, cluster_client: RedisCluster) -> AsyncRedisSessionAdapter:
        return AsyncRedisSessionAdapter(cluster_client)


@pytest.mark.parametrize("decode_responses", [True])
class TestValkeyCluster(AsyncSessionFirstSuite):
    """Sessions in a cluster, with clients of valkey-py."""

    @pytest.fixture
    def adapter(self, valkey_cluster_client: Any) -> AsyncRedisSessionAdapter:
        return AsyncRedisSessionAdapter(valkey_cluster_client)


@pytest.mark.parametrize(
    ("server", "decode_responses"), [("redis", False), ("valkey", True)], indirect=["server"]
)
class TestRedisWithoutScripts(AsyncSessionFirstSuite):
    """Sessions on servers that don't let the client run scripts."""

    @pytest.fixture
    def adapter(self, scriptless_client: Redis) -> AsyncRedisSessionAdapter:
        return AsyncRedisSessionAdapter(scriptless_client)


@pytest.mark.parametrize("server", ["redis"], indirect=True)
@pytest.mark.parametrize("decode_responses", [False])
class TestRedisSets(AsyncRenewingSessionAdapterSuite):
    """Sessions in the layout ``lucia-v2`` on one server."""

    @pytest.fixture
    def adapter(self, redis_client: Redis) -> AsyncRedisSessionAdapter:
        return AsyncRedisSessionAdapter(redis_client, layout="lucia-v2")


@pytest.mark.parametrize("decode_responses", [True])
class TestRedisClusterSets(AsyncSessionFirstSuite):
    """Sessions in the layout ``lucia-v2`` in a cluster."""

    @pytest.fixture
    def adapter(self, cluster_client: RedisCluster) -> AsyncRedisSessionAdapter:
        return AsyncRedisSessionAdapter(cluster_client, layout="lucia-v2")


@pytest.mark.parametrize(("server", "decode_responses"), [("valkey", True)], indirect=["server"])
class TestRedisSetsWithoutScripts(AsyncSessionFirstSuite):
    """Sessions in the layout ``lucia-v2`` on a server without scripts."""

    @pytest.fixture
    def adapter(self, scriptless_client: Redis) -> AsyncRedisSessionAdapter:
        return AsyncRedisSessionAdapter(scriptless_client, layout="lucia-v2")


class AsyncHashedSuite(AsyncRenewingSessionAdapterSuite):
    """Sessions stored by the hashes of their ids: a list has the hash and the handle of each."""

    def as_listed(self, row: SessionRow) -> SessionRow:
        """Return the row as its user's list has it."""
        return replace(
            row,
            id=HashedIds(ID_KEYS).stored(row.id),
            attributes={"handle": handle_of(row), **row.attributes},
        )


@pytest.mark.parametrize("server", ["redis"], indirect=True)
@pytest.mark.parametrize("decode_responses", [True])
class TestRedisHashed(AsyncHashedSuite):
    """Hashed session ids on one server."""

    @pytest.fixture
    def adapter(self, redis_client: Redis) -> AsyncRedisSessionAdapter:
        return AsyncRedisSessionAdapter(redis_client, id_keys=ID_KEYS)


@pytest.mark.parametrize("decode_responses", [False])
class TestRedisClusterHashed(AsyncHashedSuite):
    """Hashed session ids in a cluster."""

    @pytest.fixture
    def adapter(self, cluster_client: RedisCluster) -> AsyncRedisSessionAdapter:
        return AsyncRedisSessionAdapter(cluster_client, id_keys=ID_KEYS)


@pytest.mark.parametrize(("server", "decode_responses"), [("redis", False)], indirect=["server"])
class TestRedisHashedWithoutScripts(AsyncHashedSuite):
    """Hashed session ids on a server without scripts."""

    @pytest.fixture
    def adapter(self, scriptless_client: Redis) -> AsyncRedisSessionAdapter:
        return AsyncRedisSessionAdapter(scriptless_client, id_keys=ID_KEYS)


class AsyncLateAdapter(AsyncMemoryAdapter):
    """An adapter that refuses expired sessions.

    The first session with less than a minute to live arrives a minute late, and has expired.
    """

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
    """The suite with a clock that the test moves."""

    def __init__(self, time: Time) -> None:
        self.time = time

    def now(self) -> int:
        """Return the time of the test's clock."""
        return self.time.now

    async def wait(self, milliseconds: int) -> None:
        """Move the clock."""
        self.time.advance(timedelta(milliseconds=milliseconds))


async def test_short_lives_on_a_busy_machine() -> None:
    """A session that expired before a busy machine could store it is stored once more."""
    adapter = AsyncLateAdapter(time := Time())
    await AsyncTimedSuite(time).test_cap_expired(adapter)
    assert not adapter.is_late


class AsyncRefusingAdapter(AsyncMemoryAdapter):
    """An adapter that refuses sessions with less than an hour to live."""

    async def set_session(self, session: SessionRow, /) -> None:
        if session.idle_expires < self._clock() + 3_600_000:
            raise ValueError("too short")
        await super().set_session(session)


async def test_short_lives_refused() -> None:
    """If a store refuses all short sessions, the suite raises its error instead of looping."""
    with pytest.raises(ValueError, match="too short"):
        await AsyncRenewingSessionAdapterSuite().test_cap_expired(AsyncRefusingAdapter())


class TestFiveMethods(AsyncSessionAdapterSuite):
    """An adapter with five methods, alone."""

    @pytest.fixture
    def adapter(self) -> AsyncDictionaryAdapter:
        return AsyncDictionaryAdapter()


class TestFiveMethodsRenewing(AsyncRenewingSessionAdapterSuite):
    """An adapter with five methods, with the library's fallback."""

    @pytest.fixture
    def adapter(self) -> AsyncFiveMethods:
        return AsyncFiveMethods(AsyncDictionaryAdapter(), system_clock)


class TestColumnsRenewing(AsyncRenewingSessionAdapterSuite):
    """An adapter with five methods that stores no attributes, with the library's fallback."""

    @pytest.fixture
    def adapter(self) -> AsyncFiveMethods:
        return AsyncFiveMethods(AsyncColumnsAdapter(), system_clock)
