"""How an adapter uses its connections, and its options, which differ between sync and async."""

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final, TypedDict

from lucia._redis.transport.near_cache import AsyncNearCache, NearCache

__all__ = [
    "IDLE_CHECK_SECONDS",
    "WRITE_SECONDS",
    "AsyncReadOptions",
    "AsyncSettings",
    "ReadOptions",
    "Settings",
    "deadline_seconds",
]

IDLE_CHECK_SECONDS: Final = 3.0
"""After how long a connection is checked by a round trip before it is used again.

That finds connections that the network has lost silently, and servers that lost their history or
their role while the connection stayed open.
"""

WRITE_SECONDS: Final = 30.0
"""How long a login or a renewal may take with all its commands, and any single command.

Half as long as a marker lives, so that no write arrives after its marker is gone.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class AsyncSettings:
    """How an async adapter uses its connections.

    Args:
        seconds: the deadline of an operation.
        coalesce: whether requests of one tick of the event loop are sent together.
        near_cache: keeps active sessions in memory, and how long at most one that another process
            has revoked may still be used; None for no near-cache.

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
    """How a sync adapter uses its connections; ``seconds`` is the deadline of an operation."""

    seconds: float = 5.0
    coalesce: bool = field(init=False, default=False)
    near: NearCache = field(init=False, default_factory=NearCache)


class AsyncReadOptions(TypedDict, total=False):
    """The options that only the async adapter has, as :class:`AsyncSettings` has them."""

    coalesce: bool
    near_cache: timedelta | None


class ReadOptions(TypedDict):
    """The options that only the sync adapter has: none."""


def deadline_seconds(deadline: object) -> float:
    """Return the deadline of an operation in seconds.

    Raises:
        TypeError: it is no ``timedelta``; a bare number's unit would be a guess.
        ValueError: it is not more than 0, or longer than a login may take in all.
    """
    if not isinstance(deadline, timedelta):
        raise TypeError(f"deadline must be a datetime.timedelta, not {type(deadline).__name__}")
    seconds = deadline.total_seconds()
    if not 0 < seconds <= WRITE_SECONDS:
        raise ValueError(
            f"deadline must be more than 0 and at most {WRITE_SECONDS:.0f} seconds, not {seconds:g}"
        )
    return seconds
