"""One asynchronous connection of redis-py or valkey-py: its replies, whether it is clean, and how it is closed without waiting."""

from typing import Any

from lucia.redis.clients import is_answer, is_last
from lucia.redis.commands import Reply

__all__ = ["drop", "is_clean", "replies_of"]


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


async def is_clean(connection: Any) -> bool:
    """Whether an idle connection is still open and has no reply that nobody read."""
    can_read = getattr(connection, "can_read", None) or connection.can_read_destructive
    try:
        return not await can_read()
    except Exception:  # the client's own kinds of it
        return False


async def drop(connection: Any) -> None:
    """Close a connection without waiting for the other side, which may be frozen."""
    transport = getattr(getattr(connection, "_writer", None), "transport", None)
    if transport is not None:
        transport.abort()
    await connection.disconnect(nowait=True)
