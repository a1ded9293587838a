"""One asynchronous connection of redis-py or valkey-py: what goes on it, its replies, whether it is clean, and how it is closed."""

from collections.abc import Callable, Coroutine, Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Final, Protocol

from lucia._redis.commands import Reply, Words
from lucia._redis.transport.client_errors import is_answer, is_last

__all__ = ["HIGH_WATER", "INFO", "Exchange", "drop", "is_clean", "is_open", "pack", "replies_of"]

INFO: Final = ("INFO", "replication")
"""What a new connection asks: which history the server has."""

HIGH_WATER: Final = 65_536
"""How many bytes a transport takes before ``drain()`` blocks: asyncio's default.

If writing fewer fails, the transport was closed before, or the very first attempt to send failed:
the server has received nothing. If writing more fails, it may have received some of them.
"""

_PACK: Final[Callable[[tuple[str | bytes | int, ...]], bytes] | None] = (
    import_module("hiredis").pack_command if find_spec("hiredis") is not None else None
)


class Exchange(Protocol):
    """Sends commands together on one connection, and returns their replies in order.

    A server's refusal is a reply too.

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
    """The bytes of these commands: by hiredis, as the synchronous clients do it, since the asynchronous ones pack in Python."""
    if _PACK is None:
        return b"".join(connection.pack_commands(commands))
    return b"".join([_PACK(tuple(words)) for words in commands])


async def replies_of(connection: Any, count: int) -> list[Reply]:
    """So many replies; fewer if after one of them the client closes the connection."""
    replies: list[Reply] = []
    while len(replies) < count and not is_last(replies):
        try:
            replies.append(await connection.read_response(disable_decoding=True))
        except Exception as error:
            if not is_answer(error):
                raise
            replies.append(error)
    return replies


def is_open(connection: Any) -> bool:
    """Whether a connection was neither closed nor reset, as far as the event loop knows.

    redis-py's ``can_read`` does not tell of a reset: asyncio notes that as the reader's exception,
    not as its end. And writing to a transport that is closed raises ``TypeError`` in asyncio and
    ``RuntimeError`` in uvloop.
    """
    reader, writer = connection._reader, connection._writer
    return (
        writer is not None
        and not writer.transport.is_closing()
        and reader.exception() is None
        and not reader.at_eof()
    )


async def is_clean(connection: Any) -> bool:
    """Whether an idle connection is still open and has no reply that nobody read.

    The buffer is looked at too: not every client's ``can_read`` does, and a server that closes an
    idle connection may say so before.
    """
    can_read = getattr(connection, "can_read", None) or connection.can_read_destructive
    return is_open(connection) and not connection._reader._buffer and not await can_read()


async def drop(connection: Any) -> None:
    """Close a connection without waiting for the other side, which may be frozen."""
    transport = getattr(getattr(connection, "_writer", None), "transport", None)
    if transport is not None:
        transport.abort()
    await connection.disconnect(nowait=True)
