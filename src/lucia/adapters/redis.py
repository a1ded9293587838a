"""The Redis session adapter, in both colours, for redis-py's and valkey-py's clients; neither is imported here."""

from lucia._async.redis import AsyncRedisSessionAdapter
from lucia._sync.redis import RedisSessionAdapter
from lucia.redis.clients import AsyncRedisClient, RedisClient
from lucia.redis.repair import Reindexed

__all__ = ["AsyncRedisClient", "AsyncRedisSessionAdapter", "RedisClient", "RedisSessionAdapter", "Reindexed"]
