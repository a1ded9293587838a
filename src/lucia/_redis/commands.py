"""What an operation yields: commands of the server, scripts, and batches of both; what it is sent: their replies."""

from collections.abc import Awaitable, Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from lucia._redis.scripts import Script

T = TypeVar("T")

Argument = str | bytes | int
Words = Sequence[str | bytes | int]
"""A command as it is sent: its name and its arguments."""

Reply = Any
"""bytes, int, None or a list of these: what a server answers, not decoded."""

Replies = list[Reply]
"""The replies to commands, in order."""

AsyncReplies = Awaitable[Replies]
"""The same, to be waited for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SendMode:
    """How commands are sent.

    Args:
        alone: on a connection that nothing else is sent on meanwhile: what waits there (``WAIT``)
            or has long replies holds up nobody.
        fresh: on a connection that is opened for them. A retry needs that: a pooled connection may
            be as dead as the one that was lost.
        during_replay: also while a replay of revocations is due.
    """

    alone: bool = False
    fresh: bool = False
    during_replay: bool = False


USUAL: Final = SendMode()
UNGATED: Final = SendMode(alone=True, during_replay=True)
"""For the replay itself, and for what looks at no session."""


@dataclass(frozen=True, slots=True)
class Call:
    """A command of the server."""

    name: str
    arguments: tuple[Argument, ...]


@dataclass(frozen=True, slots=True)
class Eval:
    """A script and the keys and arguments it runs with."""

    script: Script
    keys: tuple[Argument, ...]
    arguments: tuple[Argument, ...]


@dataclass(frozen=True, slots=True)
class Batch:
    """Commands that do not depend on each other; the reply is the list of theirs. They may be sent side by side.

    Where one fails, others may have been done.
    """

    commands: tuple[Call | Eval, ...]


@dataclass(frozen=True, slots=True)
class Transaction:
    """Commands on one key, or on two in one slot, that run together or not at all (MULTI, EXEC); the reply is the list of theirs."""

    commands: tuple[Call, ...]


@dataclass(frozen=True, slots=True)
class DropConnections:
    """Replies may have been crossed: close the connections that lie idle, so that the next command gets a new one."""


@dataclass(frozen=True, slots=True)
class ReplicationBarrier:
    """At every primary, write a key that lives a second, and wait on that connection until so many replicas have it.

    Replication keeps the order, so they have all that was written before, on whatever connection. (``WAIT`` alone tells nothing of the
    kind: on a connection that has written nothing it waits for nothing.) The reply is the fewest replicas that confirmed at a primary.

    Args:
        prefix: what the key's name begins with.
        replicas: how many.
        milliseconds: how long to wait for them at each primary.
    """

    prefix: str
    value: bytes
    replicas: int
    milliseconds: int


@dataclass(frozen=True, slots=True)
class Nodes:
    """Which servers hold the keys: the reply is the list of their names, a cluster's primaries, or ``[""]`` for one server."""


@dataclass(frozen=True, slots=True)
class OnNode:
    """Commands that change nothing, for one of the :class:`Nodes`, whatever their keys, sent together; the reply is the list of theirs."""

    node: str
    commands: tuple[Call, ...]


Command = Call | Eval | Batch | Transaction | ReplicationBarrier | DropConnections | Nodes | OnNode
Operation = Generator[Command, Reply, T]


class ScriptsRefusedError(Exception):
    """The server, or what the client may do there, refuses scripts; a signal between two layers."""


def with_or_without_scripts(
    start: Callable[[], Operation[T]], give_up: Callable[[], None]
) -> Operation[T]:
    """An operation that is started anew, without scripts, where they turn out to be refused.

    Args:
        start: starts it, with scripts unless they were given up.
        give_up: gives them up, from now on.
    """
    try:
        return (yield from start())
    except ScriptsRefusedError:
        give_up()
    return (yield from start())
