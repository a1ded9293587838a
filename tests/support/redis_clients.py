"""Clients of every kind, sync and async, and session adapters over clients of their own."""

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from types import ModuleType
from typing import Any, Final, Protocol

import redis
import redis.asyncio
import redis.asyncio.sentinel
import redis.sentinel
import valkey
import valkey.asyncio
import valkey.asyncio.retry
import valkey.asyncio.sentinel
import valkey.retry
import valkey.sentinel
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.retry import Retry

from lucia.adapters.redis import AsyncRedisSessionAdapter, RedisSessionAdapter
from tools.servers import Cluster, Server

__all__ = ["Adapters", "AsyncAdapters", "AsyncClients", "Clients", "WatchedBySentinel"]

_OPTIONS: Final[Mapping[str, Mapping[str, Any]]] = {
    "redis-py as it is": {},
    "redis-py, RESP2": {"protocol": 2},
    "redis-py, RESP3": {"protocol": 3},
    "redis-py, text": {"decode_responses": True},
    "redis-py, Latin-1": {"decode_responses": True, "encoding": "latin-1"},
    "redis-py, strict ASCII": {
        "decode_responses": True,
        "encoding": "ascii",
        "encoding_errors": "strict",
    },
    "redis-py, one connection": {"single_connection_client": True},
    "redis-py, blocking pool": {"pool": "BlockingConnectionPool"},
    "redis-py, unix socket": {"socket": True},
    "valkey-py as it is": {},
    "valkey-py, RESP3": {"protocol": 3},
    "valkey-py, text": {"decode_responses": True},
    "valkey-py, Latin-1": {"decode_responses": True, "encoding": "latin-1"},
    "valkey-py, one connection": {"single_connection_client": True},
    "valkey-py, blocking pool": {"pool": "BlockingConnectionPool"},
    "valkey-py, unix socket": {"socket": True},
}


_RETRIES: Final[Mapping[tuple[str, str], Any]] = {
    ("asynchronous", "redis"): AsyncRetry,
    ("asynchronous", "valkey"): valkey.asyncio.retry.Retry,
    ("blocking", "redis"): Retry,
    ("blocking", "valkey"): valkey.retry.Retry,
}


def _make(
    kind: str, server: Server, modules: Mapping[str, ModuleType], changes: Mapping[str, Any]
) -> Any:
    library = kind.partition("-py")[0]
    module = modules[library]
    client_class = getattr(module, library.capitalize())
    options: dict[str, Any] = {
        "host": server.host,
        "port": server.port,
        **_OPTIONS[kind],
        **changes,
    }
    if pool := options.pop("pool", None):
        return client_class.from_pool(getattr(module, pool)(**options))
    if options.pop("socket", False):
        del options["host"], options["port"]
        return client_class(unix_socket_path=str(server.socket), **options)
    return client_class(**options)


class WatchedBySentinel(Protocol):
    """Servers that a Sentinel monitors."""

    @property
    def library(self) -> str: ...

    @property
    def name(self) -> str: ...

    @property
    def sentinels(self) -> list[tuple[str, int]]: ...


class AsyncClients:
    """Async clients of every kind."""

    kinds: Final = tuple(_OPTIONS)
    modules: Final[Mapping[str, ModuleType]] = {"redis": redis.asyncio, "valkey": valkey.asyncio}
    sentinels: Final[Mapping[str, Any]] = {
        "redis": redis.asyncio.sentinel.Sentinel,
        "valkey": valkey.asyncio.sentinel.Sentinel,
    }

    @classmethod
    def make(cls, kind: str, server: Server, **changes: Any) -> Any:
        """Return a client, which the test must close."""
        return _make(kind, server, cls.modules, changes)

    @classmethod
    def of_cluster(cls, library: str, cluster: Cluster, **options: Any) -> Any:
        """Return a client of the cluster, which the test must close."""
        found = getattr(cls.modules[library], f"{library.capitalize()}Cluster")
        return found(host="127.0.0.1", port=cluster.ports[0], **options)

    @classmethod
    def retrying(cls, library: str, count: int) -> Mapping[str, Any]:
        """Return the options of a client that retries a command `count` times."""
        return {"retry": _RETRIES["asynchronous", library](NoBackoff(), count)}

    @classmethod
    def make_hasty(cls, server: Server, **changes: Any) -> Any:
        """Return a redis-py client that does not retry."""
        return cls.make("redis-py, RESP2", server, retry=AsyncRetry(NoBackoff(), 0), **changes)

    @classmethod
    @asynccontextmanager
    async def behind_sentinel(
        cls, group: "WatchedBySentinel", **options: Any
    ) -> AsyncIterator[Any]:
        """Yield a client of the group's current master."""
        sentinel = cls.sentinels[group.library](group.sentinels, socket_timeout=5)
        try:
            async with sentinel.master_for(group.name, socket_timeout=5, **options) as client:
                yield client
        finally:
            for each in sentinel.sentinels:
                await each.aclose()


class Clients:
    """Sync clients of every kind."""

    kinds: Final = tuple(_OPTIONS)
    modules: Final[Mapping[str, ModuleType]] = {"redis": redis, "valkey": valkey}
    sentinels: Final[Mapping[str, Any]] = {
        "redis": redis.sentinel.Sentinel,
        "valkey": valkey.sentinel.Sentinel,
    }

    @classmethod
    def make(cls, kind: str, server: Server, **changes: Any) -> Any:
        """Return a client, which the test must close."""
        return _make(kind, server, cls.modules, changes)

    @classmethod
    def of_cluster(cls, library: str, cluster: Cluster, **options: Any) -> Any:
        """Return a client of the cluster, which the test must close."""
        found = getattr(cls.modules[library], f"{library.capitalize()}Cluster")
        return found(host="127.0.0.1", port=cluster.ports[0], **options)

    @classmethod
    def retrying(cls, library: str, count: int) -> Mapping[str, Any]:
        """Return the options of a client that retries a command `count` times."""
        return {"retry": _RETRIES["blocking", library](NoBackoff(), count)}

    @classmethod
    def make_hasty(cls, server: Server, **changes: Any) -> Any:
        """Return a redis-py client that does not retry."""
        return cls.make("redis-py, RESP2", server, retry=Retry(NoBackoff(), 0), **changes)

    @classmethod
    @contextmanager
    def behind_sentinel(cls, group: "WatchedBySentinel", **options: Any) -> Iterator[Any]:
        """Yield a client of the group's current master."""
        sentinel = cls.sentinels[group.library](group.sentinels, socket_timeout=5)
        try:
            with sentinel.master_for(group.name, socket_timeout=5, **options) as client:
                yield client
        finally:
            for each in sentinel.sentinels:
                each.close()


class AsyncAdapters:
    """Adapters with clients of their own, as in separate processes."""

    @staticmethod
    @asynccontextmanager
    async def on(
        server: Server, user: str | None = None, **settings: Any
    ) -> AsyncIterator[AsyncRedisSessionAdapter]:
        """Yield an adapter for this server with these settings."""
        login = {} if user is None else {"username": user, "password": "pass"}
        async with (
            AsyncClients.make("redis-py, RESP2", server, **login) as client,
            AsyncRedisSessionAdapter(client, **settings) as adapter,
        ):
            yield adapter


class Adapters:
    """Adapters with clients of their own, as in separate processes."""

    @staticmethod
    @contextmanager
    def on(
        server: Server, user: str | None = None, **settings: Any
    ) -> Iterator[RedisSessionAdapter]:
        """Yield an adapter for this server with these settings."""
        login = {} if user is None else {"username": user, "password": "pass"}
        with (
            Clients.make("redis-py, RESP2", server, **login) as client,
            RedisSessionAdapter(client, **settings) as adapter,
        ):
            yield adapter
