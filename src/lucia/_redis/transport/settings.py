"""How an adapter uses its connections, and the options of it that differ between the colours."""

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final, TypedDict

from lucia._redis.transport.near_cache import AsyncNearCache, NearCache

__all__ = ["IDLE_CHECK_SECONDS", "AsyncReadOptions", "AsyncSettings", "ReadOptions", "Settings"]

IDLE_CHECK_SECONDS: Final = 3.0
"""After how long a connection is checked by a round trip before it is used again.

That finds connections that the network has lost without telling, and servers that lost their
history or their role while the connection stayed open.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class AsyncSettings:
    """How an adapter uses its connections.

    Args:
        seconds: the deadline of an operation.
        coalesce: whether what is asked within one tick of the event loop is sent together.
        near_cache: keeps active sessions in memory, and how long one may be used at most that another process has ended; None for none.

    Raises:
        TypeError, ValueError: as :class:`AsyncNearCache`.
    """

    seconds: float = 5.0
    coalesce: bool = True
    near_cache: timedelta | None = None
    near: AsyncNearCache = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "near", AsyncNearCache(self.near_cache))


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How an adapter uses its connections; ``seconds`` is the deadline of an operation."""

    seconds: float = 5.0
    coalesce: bool = field(init=False, default=False)
    near: NearCache = field(init=False, default_factory=NearCache)


class AsyncReadOptions(TypedDict, total=False):
    """The options that only the asynchronous adapter has, as :class:`AsyncSettings` has them."""

    coalesce: bool
    near_cache: timedelta | None


class ReadOptions(TypedDict):
    """The options that only the synchronous adapter has: none."""
