"""Check the application's Redis client, of redis-py or valkey-py, without importing either."""

from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from lucia._compat.flavours import is_async
from lucia._redis.transport.client_errors import is_a


class AsyncRedisClient(Protocol):
    """A client for the async adapter, such as ``redis.asyncio.Redis`` or Sentinel's."""

    def execute_command(self, *args: Any, **options: Any) -> Awaitable[Any]:
        """Send one command and wait for its reply."""
        ...


class RedisClient(Protocol):
    """A client for the sync adapter, such as ``redis.Redis`` or Sentinel's."""

    def execute_command(self, *args: Any, **options: Any) -> Any:
        """Send one command and return its reply."""
        ...


def check_client(client: Any, *, like: Callable[..., Any]) -> None:
    """Refuse a client that the adapter can't work with.

    Args:
        client: the application's.
        like: a method of the adapter, async or not.

    Raises:
        TypeError: it is no Redis client, or async for a sync adapter or the other way round, or it
            is a pipeline, has a cache, or reads from replicas.
    """
    execute = getattr(client, "execute_command", None)
    found = type(client).__name__
    if (
        isinstance(client, type)
        or not callable(execute)
        or is_a(client, "Pipeline")
        or is_a(client, "ClusterPipeline")
    ):
        raise TypeError(
            f"expected a Redis client such as redis.Redis or redis.asyncio.Redis, got {found}"
        )
    if any(getattr(pool, "cache", None) is not None for pool in _pools(client)):
        raise TypeError(
            f"the {found} given has a client-side cache, which may return revoked sessions:"
            " create it without a cache"
        )
    if _reads_from_replicas(client):
        raise TypeError(
            f"the {found} given reads from replicas, which may return revoked sessions:"
            " let it read from primaries"
        )
    if is_async(execute) != is_async(like):
        wanted, other = (
            ("redis.asyncio.Redis", "RedisSessionAdapter")
            if is_async(like)
            else ("redis.Redis", "AsyncRedisSessionAdapter")
        )
        raise TypeError(
            f"this adapter needs a client such as {wanted}; for the {found} given here use {other}"
        )


def _reads_from_replicas(client: Any) -> bool:
    """Return whether a cluster client's options say so, or Sentinel's ``slave_for`` made it."""
    if (
        getattr(client, "read_from_replicas", False)
        or getattr(client, "load_balancing_strategy", None) is not None
    ):
        return True
    return any(getattr(pool, "is_master", True) is False for pool in _pools(client))


def is_cluster(client: Any) -> bool:
    """Return whether it is a client for a cluster."""
    return is_a(client, "RedisCluster") or is_a(client, "ValkeyCluster")


def one_node(client: Any) -> list[str]:
    """Return the name of a client's only server.

    Raises:
        TypeError: the client is for a cluster: its nodes can be asked one by one only over
            connections of our own.
    """
    if is_cluster(client):
        raise TypeError(
            f"the {type(client).__name__} given can't be copied, so its nodes can't be asked one by"
            " one: use a RedisCluster"
        )
    return [""]


def _pools(client: Any) -> list[Any]:
    """Return a client's pools: one per node for a sync cluster, none for an async one."""
    clients: list[Any] = [
        client,
        *(
            getattr(node, f"{library}_connection", None)
            for node in _nodes(client)
            for library in ("redis", "valkey")
        ),
    ]
    return [
        each.connection_pool
        for each in clients
        if getattr(each, "connection_pool", None) is not None
    ]


def _nodes(client: Any) -> list[Any]:
    return client.get_nodes() if is_cluster(client) else []
