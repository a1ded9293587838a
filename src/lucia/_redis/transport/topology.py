"""Learn how the application's client connects, so that the store can connect in the same way.

With connections of its own the store keeps promises that the client can't keep: no command is sent
again unseen, one deadline holds in every phase, and after a failure it is known whether a command
was sent.
"""

import copy
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from lucia._redis.commands import Argument
from lucia._redis.transport.clients import is_cluster

Address = tuple[str, int]
"""Host and port."""

_LEFT_OUT: Final = frozenset(
    {
        "retry", "retry_on_error", "retry_on_timeout", "health_check_interval",
        "socket_timeout", "socket_connect_timeout",
        "maint_notifications_config", "maint_notifications_pool_handler", "maintenance_state",
        "maintenance_notification_hash", "oss_cluster_maint_notifications_handler",
        "orig_host_address", "orig_socket_timeout", "orig_socket_connect_timeout",
        "event_dispatcher", "himport_registry", "connection_pool", "response_callbacks",
    }
)  # fmt: skip
"""Options that would repeat commands, add timeouts, or tie a connection to the client's pool."""

_OWN_NAME: Final = "redis-py"
"""``lib_name`` that redis-py 7's async cluster client passes to its connections unasked.

It is their default anyway, and passing it makes them warn.
"""


@dataclass(frozen=True, slots=True)
class ConnectionFactory:
    """Makes connections to one server.

    Args:
        make: the client's connection class.
        options: its arguments; they may hold passwords.
        limit: how many connections there may be at once.
    """

    make: Callable[..., Any]
    options: Mapping[str, Any] = field(repr=False)
    limit: int

    @classmethod
    def of(
        cls, make: Callable[..., Any], options: Mapping[str, Any], limit: int
    ) -> "ConnectionFactory":
        """Return a factory with the options that are not left out."""
        left_out = (
            _LEFT_OUT | {"lib_name", "lib_version"}
            if options.get("lib_name") == _OWN_NAME
            else _LEFT_OUT
        )
        return cls(
            make, {name: value for name, value in options.items() if name not in left_out}, limit
        )

    @classmethod
    def of_pool(cls, pool: Any) -> "ConnectionFactory":
        """Return a factory of such connections as a client's pool makes."""
        return cls.of(pool.connection_class, pool.connection_kwargs, pool.max_connections)

    def with_options(self, **changes: Any) -> "ConnectionFactory":
        """Return a factory with other options."""
        return replace(self, options={**self.options, **changes})

    def connection(self) -> Any:
        """Return a connection that is not connected yet."""
        return self.make(**self.options)


@dataclass(frozen=True, slots=True)
class OneServer:
    """A client of one server."""

    factory: ConnectionFactory


@dataclass(frozen=True, slots=True)
class BehindSentinel:
    """A client of the master that Sentinel names.

    Args:
        factory: makes connections to the master.
        service: its name.
        finder: the client's ``Sentinel`` object.
    """

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
        copied.sentinels = [_without_retries(self.finder.sentinels[number], seconds)]
        return copied


@dataclass(frozen=True, slots=True)
class InCluster:
    """A client of a cluster.

    Args:
        factory: makes connections to a node.
        nodes: addresses that the application gave to its client, or that the client found.
        remap: returns the address at which a node that names itself so can be reached; None if it
            is the same one.
        slot_of: returns the slot of a key.
    """

    factory: ConnectionFactory
    nodes: tuple[Address, ...]
    remap: Callable[[Address], Address] | None
    slot_of: Callable[[Argument], int]


Topology = OneServer | BehindSentinel | InCluster


def topology_of(client: Any) -> Topology | None:
    """Return how the client connects; None if it can't be told, or commands take another way."""
    # A subclass or an instrumentation that overrides it expects to see each command.
    if not _is_stock(client.__class__, "execute_command"):
        return None
    try:
        topology = _of_cluster(client) if is_cluster(client) else _of_pool(client.connection_pool)
    except (AttributeError, LookupError):
        return None
    # Connections that neither open a socket nor read from one answer by themselves, as fakeredis's
    # do. A subclass that only records replies, or only connects by a proxy, has a socket to use.
    make = topology.factory.make
    has_socket = _is_stock(make, "_connect") or _is_stock(make, "read_response")
    return topology if has_socket else None


def _is_stock(kind: Any, method: str) -> bool:
    """Return whether a method of a class is the client library's own code."""
    module = getattr(getattr(kind, method, None), "__module__", "")
    return str(module).partition(".")[0] in {"redis", "valkey"}


def _of_pool(pool: Any) -> Topology:
    factory = ConnectionFactory.of_pool(pool)
    if hasattr(pool, "sentinel_manager"):
        return BehindSentinel(factory, pool.service_name, pool.sentinel_manager)
    return OneServer(factory)


def _of_cluster(client: Any) -> InCluster:
    manager = client.nodes_manager
    nodes = [*manager.nodes_cache.values(), *manager.startup_nodes.values()]
    return InCluster(
        _factory_of_node(client, nodes[0]),
        _addresses(nodes),
        manager.address_remap,
        client.keyslot,
    )


def _addresses(nodes: Iterable[Any]) -> tuple[Address, ...]:
    return tuple(dict.fromkeys((str(node.host), int(node.port)) for node in nodes))


def _factory_of_node(client: Any, node: Any) -> ConnectionFactory:
    # An async node is its own pool. A sync node has a client with a pool, made on first use.
    if hasattr(node, "connection_kwargs"):
        return ConnectionFactory.of_pool(node)
    of_node = getattr(client, "get_redis_connection", None) or client.get_valkey_connection
    return ConnectionFactory.of_pool(of_node(node).connection_pool)


def _without_retries(client: Any, seconds: float) -> Any:
    """Return a client of the same server that repeats nothing."""
    pool = client.connection_pool
    factory = ConnectionFactory.of_pool(pool)
    timeouts = {"socket_timeout": seconds, "socket_connect_timeout": seconds}
    return type(client)(
        connection_pool=type(pool)(
            connection_class=factory.make, **factory.with_options(**timeouts).options
        )
    )
