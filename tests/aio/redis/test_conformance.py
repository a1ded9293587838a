"""The Redis session adapter passes the public suites on each kind of server, with each setting."""

from dataclasses import replace
from typing import Any, ClassVar, Final

import pytest
from redis.asyncio import Redis, RedisCluster

from lucia._rules.id_hashes import HashedIds
from lucia._testing.checks import ODD_TEXTS
from lucia.adapters.redis import AsyncRedisSessionAdapter
from lucia.models import SessionRow, handle_of
from lucia.testing import AsyncRenewingSessionAdapterSuite

ID_KEYS: Final = (b"current key".ljust(32), b"older key".ljust(32))

pytestmark = [
    pytest.mark.no_cover,
    # redis-py 7's cluster clients cause deprecation warnings themselves.
    pytest.mark.filterwarnings("ignore:(?s).*lib_:DeprecationWarning"),
]


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
