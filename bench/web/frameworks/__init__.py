"""Small applications, one module per framework: without authentication, and with each library.

Where a library leaves the session's content to the application, it is that of our session record.
"""

from typing import Any

import redis
import redis.asyncio

from bench.peers import CONNECTIONS, KEEPALIVE
from bench.peers.ours import LIFE
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


def make_async_auth(url: str, **settings: Any) -> AsyncAuth[Any, Any]:
    """Return lucia-auth's ``AsyncAuth`` with its default settings, but for those given."""
    return AsyncAuth(
        sessions=AsyncRedisSessionAdapter(async_client(url)),
        env="DEV",
        session_expires_in=LIFE,
        **settings,
    )
