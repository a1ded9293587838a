"""The Redis session adapter, in both flavours, for redis-py's and valkey-py's clients; neither is imported here."""

from lucia._async.stores.redis.adapter import AsyncRedisSessionAdapter
from lucia._redis.repair import Reindexed
from lucia._redis.transport.clients import AsyncRedisClient, RedisClient
from lucia._sync.stores.redis.adapter import RedisSessionAdapter

__all__ = [
    "AsyncRedisClient",
    "AsyncRedisSessionAdapter",
    "RedisClient",
    "RedisSessionAdapter",
    "Reindexed",
]
