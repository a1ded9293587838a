"""Small applications, one module per framework: without authentication, and with each library.

Where a library leaves the session's content to the application, it is that of our session record.
"""

from typing import Any

import redis
import redis.asyncio

from bench.peers import CONNECTIONS, KEEPALIVE
from bench.peers.ours import LIFE, with_times
from lucia import AsyncAuth, Auth
from lucia.adapters.redis import AsyncRedisSessionAdapter, RedisSessionAdapter

__all__ = ["async_client", "client", "make_async_auth", "make_auth"]


def client(url: str) -> Any:
    """Return a client of redis-py."""
    return redis.Redis.from_url(url, max_connections=CONNECTIONS, socket_keepalive=KEEPALIVE)


def async_client(url: str) -> Any:
    """Return an async client of redis-py."""
    return redis.asyncio.Redis.from_url(
        url, max_connections=CONNECTIONS, socket_keepalive=KEEPALIVE
    )


def make_auth(url: str, **settings: Any) -> Auth[Any, Any]:
    """Return lucia-auth's ``Auth`` with its default settings, but for those given."""
    return Auth(
        sessions=RedisSessionAdapter(client(url)),
        env="DEV",
        session_expires_in=LIFE,
        **settings,
    )


def make_async_auth(
    url: str, *, near_cache: float | None = None, **settings: Any
) -> AsyncAuth[Any, Any]:
    """Return lucia-auth's ``AsyncAuth`` with its default settings, but for those given.

    Args:
        url: the URL of Redis.
        near_cache: the lease of the adapter's near-cache, in seconds; None for no such cache.
        settings: those of ``AsyncAuth``.
    """
    times = {} if near_cache is None else {"near_cache": near_cache}
    return AsyncAuth(
        sessions=AsyncRedisSessionAdapter(async_client(url), **with_times(times)),
        env="DEV",
        session_expires_in=LIFE,
        **settings,
    )
