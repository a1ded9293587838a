"""The commands that operations yield, and the replies that they are sent.

An operation is a generator, see :mod:`lucia._redis.operations`. A driver sends what it yields to
the server: calls, scripts, and batches and transactions of them.
"""

from collections.abc import Awaitable, Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import msgspec

from lucia._redis.scripts import Script

T = TypeVar("T")

Argument = str | bytes | int
Words = Sequence[str | bytes | int]
"""A command as it is sent: its name and its arguments."""

Reply = Any
"""A server's reply, not decoded: bytes, an int, None, or a list of these."""

Replies = list[Reply]
"""The replies to commands, in order."""

AsyncReplies = Awaitable[Replies]
"""Awaits the replies to commands."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SendMode:
    """How commands are sent.

    Args:
        alone: on a connection on which nothing else is sent meanwhile: a command that waits
            (``WAIT``) or has a long reply delays no other.
        fresh: on a connection that is opened for them. A retry needs that (T1): a pooled connection
            may be as dead as the one that was lost.
        during_replay: even while a replay of revocations is due.
    """

    alone: bool = False
    fresh: bool = False
    during_replay: bool = False


DEFAULT_MODE: Final = SendMode()
UNGATED: Final = SendMode(alone=True, during_replay=True)
"""For the replay itself, and for commands that read no session."""


class Call(msgspec.Struct, frozen=True, gc=False):
    """A command of the server."""

    name: str
    arguments: tuple[Argument, ...]


class Eval(msgspec.Struct, frozen=True, gc=False):
    """A script with its keys and arguments."""

    script: Script
    keys: tuple[Argument, ...]
    arguments: tuple[Argument, ...]


class Batch(msgspec.Struct, frozen=True, gc=False):
    """Commands that do not depend on each other, and may be sent side by side.

    The reply is the list of their replies. If one fails, others may have been executed.
    """

    commands: tuple[Call | Eval, ...]


class Transaction(msgspec.Struct, frozen=True, gc=False):
    """Commands on keys in one slot that are executed together or not at all (MULTI, EXEC).

    The reply is the list of their replies.
    """

    commands: tuple[Call, ...]


class DropConnections(msgspec.Struct, frozen=True, gc=False):
    """Close the idle connections, so that the next command is sent on a new one.

    A reply belonged to another command (I0), so the connections' replies are not to be trusted.
    """


class ReplicationBarrier(msgspec.Struct, frozen=True, gc=False):
    """At every primary, write a key that lives for a second, and ``WAIT`` until replicas have it.

    Replication keeps the order of writes, so those replicas have everything that was written before
    on any connection. (``WAIT`` alone covers only its own connection's writes, and returns at once
    on a connection that has written nothing.) The reply is the number of replicas that confirmed,
    at the primary with the fewest.

    Args:
        prefix: of the key.
        value: of the key.
        replicas: how many have to confirm.
        milliseconds: how long to wait for them at each primary.
    """

    prefix: str
    value: bytes
    replicas: int
    milliseconds: int


class Nodes(msgspec.Struct, frozen=True, gc=False):
    """Ask which servers hold the keys.

    The reply is the list of a cluster's primaries by name, or ``[""]`` for one server.
    """


class OnNode(msgspec.Struct, frozen=True, gc=False):
    """Commands for one of the :class:`Nodes`, sent together, whatever their keys.

    They read, or write the key of a :class:`ReplicationBarrier`: sending them twice does no harm.
    The reply is the list of their replies.
    """

    node: str
    commands: tuple[Call, ...]


Command = Call | Eval | Batch | Transaction | ReplicationBarrier | DropConnections | Nodes | OnNode
Operation = Generator[Command, Reply, T]


class ScriptsRefusedError(Exception):
    """The server refuses scripts, or does not permit them to this client.

    A signal between two layers.
    """


def with_or_without_scripts(
    start: Callable[[], Operation[T]], give_up: Callable[[], None]
) -> Operation[T]:
    """Run an operation; if the server refuses scripts, run it again without them.

    Args:
        start: starts the operation, with scripts until they are given up.
        give_up: makes later operations use no scripts.
    """
    try:
        return (yield from start())
    except ScriptsRefusedError:
        give_up()
    # Outside of the handler: there the refusal would become the context of any later error.
    return (yield from start())
