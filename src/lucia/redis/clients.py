"""What the adapter asks of a client and of its errors, for redis-py and valkey-py alike and without importing either."""

import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, Protocol

from lucia._colour import waits
from lucia.redis.commands import Argument, Batch, Call, Command, Eval, OnNode, Reply, Transaction

_SHORTEST_SECRET = 16
"""Shorter arguments are words and numbers; ids that ``Auth`` makes have 40 characters."""

_QUOTATION = ", with args beginning with:"
"""How a server that does not know a command begins to quote its arguments. It cuts them off, maybe in the middle of an id."""


_SCRIPTS_REFUSED = re.compile(r"no permissions to run the '?evalsha|unknown command '?`?evalsha", re.IGNORECASE)

_ANNOTATION = re.compile(r"Command # \d+ \(.*\) of pipeline caused error: ", re.DOTALL)
"""How clients quote a command of a transaction, cut off at some length."""


class AsyncRedisClient(Protocol):
    """What the asynchronous adapter needs of a client: ``redis.asyncio.Redis``, ``valkey.asyncio.Valkey`` and Sentinel's have it."""

    def execute_command(self, *args: Any, **options: Any) -> Awaitable[Any]:
        """Send one command and wait for its reply."""
        ...


class RedisClient(Protocol):
    """What the adapter needs of a client: ``redis.Redis``, ``valkey.Valkey`` and Sentinel's have it."""

    def execute_command(self, *args: Any, **options: Any) -> Any:
        """Send one command and return its reply."""
        ...


def check_client(client: Any, *, like: Callable[..., Any]) -> None:
    """Refuse a client that the adapter can't work with; ``like`` is one of the adapter's methods.

    Raises:
        TypeError: it is no Redis client, one of the other colour, a pipeline, one with a cache, or one that reads from replicas.
    """
    execute = getattr(client, "execute_command", None)
    found = type(client).__name__
    if isinstance(client, type) or not callable(execute) or _is_a(client, "Pipeline") or _is_a(client, "ClusterPipeline"):
        raise TypeError(f"expected a Redis client such as redis.Redis or redis.asyncio.Redis, got {found}")
    if any(getattr(pool, "cache", None) is not None for pool in _pools(client)):
        raise TypeError(f"the {found} given has a client-side cache, which may answer with sessions that were ended: make it without cache")
    if _reads_from_replicas(client):
        raise TypeError(f"the {found} given reads from replicas, which may answer with sessions that were ended: let it use primaries")
    if waits(execute) != waits(like):
        wanted, other = ("redis.asyncio.Redis", "RedisSessionAdapter") if waits(like) else ("redis.Redis", "AsyncRedisSessionAdapter")
        raise TypeError(f"this adapter needs a client such as {wanted}; for the {found} given here use {other}")


def _reads_from_replicas(client: Any) -> bool:
    """Whether it says so: a cluster's client by its options, one that Sentinel made by ``slave_for`` by its pool."""
    if getattr(client, "read_from_replicas", False) or getattr(client, "load_balancing_strategy", None) is not None:
        return True
    return any(getattr(pool, "is_master", True) is False for pool in _pools(client))


def is_cluster(client: Any) -> bool:
    """Whether it is a client for a cluster."""
    return _is_a(client, "RedisCluster") or _is_a(client, "ValkeyCluster")


def one_node(client: Any) -> list[str]:
    """The name of a client's only server.

    Raises:
        TypeError: the client is for a cluster: only connections of our own can ask its nodes one by one.
    """
    if is_cluster(client):
        raise TypeError(f"the {type(client).__name__} given can't be copied, so its nodes can't be asked one by one: give a RedisCluster")
    return [""]


def _pools(client: Any) -> list[Any]:
    """The connection pools of a client, of which one for a cluster has one for each node; an asynchronous one has none."""
    clients: list[Any] = [
        client,
        *(getattr(node, f"{library}_connection", None) for node in _nodes(client) for library in ("redis", "valkey")),
    ]
    return [each.connection_pool for each in clients if getattr(each, "connection_pool", None) is not None]


def _nodes(client: Any) -> list[Any]:
    return client.get_nodes() if is_cluster(client) else []


def is_no_script(error: BaseException) -> bool:
    """Whether the server did not know a script, and so did not run it."""
    return _is_a(error, "NoScriptError")


def refuses_scripts(error: BaseException) -> bool:
    """Whether a command was refused since it is a script, and so did not run: by access rules, or by a server that has none."""
    return _is_a(error, "ResponseError") and _SCRIPTS_REFUSED.search(str(error)) is not None


def is_refusal(error: BaseException) -> bool:
    """Whether it is a server's answer: that it does not know the command, or that it may not be run."""
    return _is_a(error, "ResponseError")


_TRANSIENT: Final = ("BusyLoadingError", "ClusterDownError", "MasterDownError", "TryAgainError")


def is_transient(error: object) -> bool:
    """Whether a server refused a command for the moment only: it is busy, loading, or changing its role."""
    is_busy = isinstance(error, Exception) and str(error).startswith("BUSY ")
    return is_busy or any(_is_a(error, name) for name in _TRANSIENT)


def is_wrong_type(error: BaseException) -> bool:
    """Whether a key held a value of another type."""
    return _is_a(error, "ResponseError") and "WRONGTYPE" in str(error)


def is_read_only(error: BaseException) -> bool:
    """Whether a server refused a write since it is a replica; a connection that is Sentinel's says so by another error."""
    return any(_is_a(each, "ReadOnlyError") for each in (error, error.__context__))


def is_answer(error: BaseException) -> bool:
    """Whether an error is what the server answered; if not, there may have been no answer at all."""
    kinds = ("ResponseError", "BusyLoadingError", "AuthenticationError")
    return any(_is_a(error, kind) for kind in kinds) or is_read_only(error)


def is_outage(error: BaseException) -> bool:
    """Whether a server says that it can't serve now: it is loading its data, or its cluster is down."""
    return _is_a(error, "BusyLoadingError") or _is_a(error, "ClusterDownError")


def is_last(replies: Sequence[Reply]) -> bool:
    """Whether the newest reply is one after which clients close the connection: loading, not logged in, a master that is none any more."""
    return bool(replies) and isinstance(replies[-1], Exception) and not _is_a(replies[-1], "ResponseError")


def redact(error: BaseException, command: Command) -> None:
    """Take the command's arguments out of an error's text, and out of those of the errors behind it; class and object stay."""
    secrets = sorted({text for text in map(_text, _arguments(command)) if len(text) >= _SHORTEST_SECRET}, key=len, reverse=True)
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        each = waiting.pop()
        if each is None or id(each) in seen:
            continue
        seen.add(id(each))
        redacted = tuple(_without(argument, secrets) for argument in each.args)
        if redacted != each.args:
            each.args = redacted
        waiting += [each.__cause__, each.__context__]


def _without(argument: object, secrets: list[str]) -> object:
    if not isinstance(argument, str):
        return argument
    for secret in secrets:
        argument = argument.replace(secret, "<redacted>")
    return _ANNOTATION.sub("", argument).partition(_QUOTATION)[0]


def _arguments(command: Command) -> tuple[Argument, ...]:
    if isinstance(command, Eval):
        return command.keys + command.arguments
    if isinstance(command, Batch | Transaction | OnNode):
        return tuple(argument for each in command.commands for argument in _arguments(each))
    return command.arguments if isinstance(command, Call) else ()


def _text(argument: Argument) -> str:
    return argument.decode(errors="replace") if isinstance(argument, bytes) else str(argument)


def _is_a(value: object, name: str) -> bool:
    return any(base.__name__ == name for base in type(value).__mro__)
