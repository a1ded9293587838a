"""The Redis session adapter, sync and async, for the clients of redis-py and valkey-py.

Neither of these is imported here: the adapter uses the client that it is given.
"""

try:
    from lucia._async.stores.redis.adapter import AsyncRedisSessionAdapter
    from lucia._redis.repair import Reindexed
    from lucia._redis.transport.clients import AsyncRedisClient, RedisClient
    from lucia._sync.stores.redis.adapter import RedisSessionAdapter
except ImportError as error:
    if (error.name or "").partition(".")[0] != "msgspec":
        raise
    raise ImportError('the Redis adapters need msgspec: pip install "lucia-auth[redis]"') from error

__all__ = [
    "AsyncRedisClient",
    "AsyncRedisSessionAdapter",
    "RedisClient",
    "RedisSessionAdapter",
    "Reindexed",
]
