"""How the application's client makes its connections, so that the store can make its own in the same way.

Its own connections are what makes the rest possible: no command is sent again behind the store's back, a deadline holds in every phase,
and it is known whether a command was sent when it fails.
"""

import copy
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from lucia._redis.transport.clients import is_cluster

Address = tuple[str, int]
"""Host and port."""

_LEFT_OUT: Final = frozenset(
    {
        "retry", "retry_on_error", "retry_on_timeout", "health_check_interval", "socket_timeout", "socket_connect_timeout",
        "maint_notifications_config", "maint_notifications_pool_handler", "maintenance_state", "maintenance_notification_hash",
        "orig_host_address", "orig_socket_timeout", "orig_socket_connect_timeout", "oss_cluster_maint_notifications_handler",
        "event_dispatcher", "himport_registry", "connection_pool", "response_callbacks",
    }
)  # fmt: skip
"""Options that would send commands again, wait in another way than we do, or tie a connection to the client's pool."""

_OWN_NAME: Final = "redis-py"
"""Given unasked by redis-py 7's asynchronous client of a cluster to its connections, which have it by default, and warn of it."""


@dataclass(frozen=True, slots=True)
class ConnectionFactory:
    """How to make a connection, and how many there may be at once to one server. The options may hold passwords."""

    make: Callable[..., Any]
    options: Mapping[str, Any] = field(repr=False)
    limit: int

    @classmethod
    def of(
        cls, make: Callable[..., Any], options: Mapping[str, Any], limit: int
    ) -> "ConnectionFactory":
        """Without what is left out."""
        left_out = (
            _LEFT_OUT | {"lib_name", "lib_version"}
            if options.get("lib_name") == _OWN_NAME
            else _LEFT_OUT
        )
        return cls(
            make, {name: value for name, value in options.items() if name not in left_out}, limit
        )

    def with_options(self, **changes: Any) -> "ConnectionFactory":
        """The same with other options."""
        return replace(self, options={**self.options, **changes})

    def connection(self) -> Any:
        """A connection that is not connected yet."""
        return self.make(**self.options)


@dataclass(frozen=True, slots=True)
class OneServer:
    """A client of one server."""

    factory: ConnectionFactory


@dataclass(frozen=True, slots=True)
class BehindSentinel:
    """A client of the master that Sentinel names."""

    factory: ConnectionFactory
    service: str
    finder: Any

    def copy_finder(self, number: int, seconds: float) -> Any:
        """Return a copy of the client's Sentinel object that asks one of the Sentinels, once.

        Args:
            number: of the Sentinel, in the order in which the application named them.
            seconds: how long it waits for a connection or an answer.
        """
        copied = copy.copy(self.finder)
        copied.sentinels = [_copy_of(self.finder.sentinels[number], seconds)]
        return copied


@dataclass(frozen=True, slots=True)
class InCluster:
    """A client of a cluster.

    Args:
        nodes: addresses that the application gave to its client, or that the client found with them.
        remap: tells at which address a node can be reached that names itself so.
    """

    factory: ConnectionFactory
    nodes: tuple[Address, ...]
    remap: Callable[[Address], Address] | None


Topology = OneServer | BehindSentinel | InCluster


def topology_of(client: Any) -> Topology | None:
    """How the client makes its connections; None if it can't be told, or if it runs commands in a way of its own."""
    if not _is_stock(client):
        return None
    try:
        return _of_cluster(client) if is_cluster(client) else _of_pool(client.connection_pool)
    except (AttributeError, LookupError):
        return None


def _is_stock(client: Any) -> bool:
    """Whether it is the library's own code that runs its commands."""
    kind: type[Any] = client.__class__
    execute: Any = getattr(kind, "execute_command", None)
    return str(getattr(execute, "__module__", "")).partition(".")[0] in {"redis", "valkey"}


def _of_pool(pool: Any) -> Topology:
    factory = ConnectionFactory.of(
        pool.connection_class, pool.connection_kwargs, pool.max_connections
    )
    if hasattr(pool, "sentinel_manager"):
        return BehindSentinel(factory, pool.service_name, pool.sentinel_manager)
    return OneServer(factory)


def _of_cluster(client: Any) -> InCluster:
    manager = client.nodes_manager
    nodes = [*manager.nodes_cache.values(), *manager.startup_nodes.values()]
    return InCluster(_factory_of_node(client, nodes[0]), _addresses(nodes), manager.address_remap)


def _addresses(nodes: Iterable[Any]) -> tuple[Address, ...]:
    return tuple(dict.fromkeys((str(node.host), int(node.port)) for node in nodes))


def _factory_of_node(client: Any, node: Any) -> ConnectionFactory:
    """An asynchronous node makes connections itself, another has a client with a pool, made on first use."""
    if hasattr(node, "connection_kwargs"):
        return ConnectionFactory.of(
            node.connection_class, node.connection_kwargs, node.max_connections
        )
    of_node = getattr(client, "get_redis_connection", None) or client.get_valkey_connection
    pool = of_node(node).connection_pool
    return ConnectionFactory.of(pool.connection_class, pool.connection_kwargs, pool.max_connections)


def _copy_of(client: Any, seconds: float) -> Any:
    """A client of the same server that sends nothing again."""
    pool = client.connection_pool
    factory = ConnectionFactory.of(
        pool.connection_class, pool.connection_kwargs, pool.max_connections
    )
    timeouts = {"socket_timeout": seconds, "socket_connect_timeout": seconds}
    return type(client)(
        connection_pool=type(pool)(
            connection_class=factory.make, **factory.with_options(**timeouts).options
        )
    )
