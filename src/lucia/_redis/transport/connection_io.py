"""Use one async connection of redis-py or valkey-py: send, read replies, check, close."""

from collections.abc import Awaitable, Callable, Coroutine, Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Final, Protocol

from lucia._redis.commands import Reply, Words
from lucia._redis.transport.client_errors import is_a, is_error_reply
from lucia._redis.transport.retries import BatchRejected

__all__ = [
    "HIGH_WATER",
    "INFO",
    "AsyncRecords",
    "Exchange",
    "Records",
    "closes_connection",
    "drop",
    "found_in",
    "is_clean",
    "is_open",
    "pack",
    "read_replies",
    "records_in",
]

INFO: Final = ("INFO", "replication")
"""The check of a connection: the reply names the server's history and role."""

HIGH_WATER: Final = 65_536
"""How many bytes a transport accepts before ``drain()`` blocks: asyncio's default.

If writing fewer fails, the transport was closed before, or the very first attempt to send failed:
the server has received nothing. If writing more fails, it may have received some of them (T2).
"""

# By hiredis, as the sync clients do it: the async ones pack in Python.
_PACK: Final[Callable[[tuple[str | bytes | int, ...]], bytes] | None] = (
    import_module("hiredis").pack_command if find_spec("hiredis") is not None else None
)

Records = list[bytes | None]
"""The values of some keys."""

AsyncRecords = Awaitable[Records]


class Exchange(Protocol):
    """Sends commands on one connection, and returns their replies in order.

    A server's error is a reply too.

    Args:
        commands: what to send.
        seconds: for all of it.
        only_reads: whether none of them changes anything.
        fresh: whether the connection has to be opened for them.
        sending: called when they may begin to arrive at the server.

    Raises:
        NoReply: the time was over, or no connection could be made, or it was lost.
        BatchRejected: nothing was sent, since a replay of revocations comes first.
    """

    def __call__(
        self,
        commands: Sequence[Words],
        seconds: float,
        *,
        only_reads: bool = False,
        fresh: bool = False,
        sending: Callable[[], None] | None = None,
    ) -> Coroutine[Any, Any, list[Reply]]: ...


def pack(connection: Any, commands: Sequence[Words]) -> bytes:
    """Return commands as they are sent."""
    if _PACK is None:
        return b"".join(connection.pack_commands(commands))
    # hiredis takes tuples only.
    return b"".join([_PACK(tuple(words)) for words in commands])


async def read_replies(connection: Any, count: int) -> list[Reply]:
    """Read so many replies, or fewer if the client closes the connection after one of them."""
    replies: list[Reply] = []
    for _ in range(count):
        try:
            # Bytes, also if the application's client decodes.
            replies.append(await connection.read_response(disable_decoding=True))
        except Exception as error:
            if not is_error_reply(error):
                raise
            replies.append(error)
            if closes_connection(error):
                break
    return replies


def closes_connection(reply: Reply) -> bool:
    """Return whether the client closes the connection after this reply.

    It does after each error of a server that is loading, that refuses to log in, or that is no
    master any more.
    """
    return isinstance(reply, Exception) and not is_a(reply, "ResponseError")


def found_in(reply: Reply, count: int) -> Records | None:
    """Return the values in a reply to ``MGET`` of so many keys; None if it is another reply."""
    return reply if reply.__class__ is list and len(reply) == count else None


def records_in(reply: Reply, count: int) -> Records:
    """Return the values in a reply to ``MGET`` of so many keys.

    Raises:
        BatchRejected: it is another reply.
    """
    records = found_in(reply, count)
    if records is None:
        raise BatchRejected
    return records


def is_open(connection: Any) -> bool:
    """Return whether a connection was neither closed nor reset, as far as the event loop knows."""
    reader, writer = connection._reader, connection._writer
    # redis-py's can_read does not report a reset: asyncio records that as the reader's exception,
    # not as its end. And writing to a transport that is closed raises TypeError in asyncio and
    # RuntimeError in uvloop (T1).
    return (
        writer is not None
        and not writer.transport.is_closing()
        and reader.exception() is None
        and not reader.at_eof()
    )


async def is_clean(connection: Any) -> bool:
    """Return whether an idle connection is still open and has no unread reply."""
    # The buffer is checked too: not every client's can_read does, and a server that closes an idle
    # connection may send an error before.
    # redis-py 7 and valkey-py have only can_read_destructive.
    can_read = getattr(connection, "can_read", None) or connection.can_read_destructive
    return is_open(connection) and not connection._reader._buffer and not await can_read()


async def drop(connection: Any) -> None:
    """Close a connection without waiting for the other side, which may be frozen."""
    # Aborted first, since disconnect() sends what is still buffered: a command that was given up
    # could arrive later, after a revocation.
    transport = getattr(getattr(connection, "_writer", None), "transport", None)
    if transport is not None:
        transport.abort()
    await connection.disconnect(nowait=True)
