"""A cache of users in the memory of this process."""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from datetime import timedelta
from typing import Final, NamedTuple

from lucia._compat.per_loop import PerProcess
from lucia._rules.sessions import milliseconds
from lucia.models import UserRow

__all__ = ["UserCache"]

DEFAULT_MAX_USERS: Final = 10_000


class Reading(NamedTuple):
    """A read from the store that has begun: when, in seconds, and after how many changes."""

    begun: float
    changes: int


class UserCache:
    """Caches users in the memory of this process, so that requests need not read the user store.

    Changes by other processes and programs are seen after ``max_age`` at the latest. Changes and
    deletions by an ``Auth`` with this cache are seen as soon as its method returns. Sessions, keys
    and passwords are never cached: a revoked session is refused at once.

    Several ``Auth`` in one process may share a cache if they have the same users. After a fork, the
    child's cache is empty.

    Args:
        max_age: how long a user is cached, from the time before it was read.
        max_users: how many users are cached; beyond that, the one that was read first is evicted.
        clock: returns monotonic time in seconds.

    Raises:
        TypeError: ``max_age`` is not a ``timedelta``, or ``max_users`` is not an ``int``.
        ValueError: one of them is not greater than zero.
    """

    def __init__(
        self,
        *,
        max_age: timedelta,
        max_users: int = DEFAULT_MAX_USERS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if milliseconds("max_age", max_age) == 0:
            raise ValueError(
                "max_age must be greater than zero; leave user_cache= out to cache no users"
            )
        self._max_age = max_age.total_seconds()
        self._max_users = _check_max_users(max_users)
        self._clock = clock
        self._kept = PerProcess(_Kept)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._max_users} users for {self._max_age:g} s>"

    def find(self, user_id: str) -> UserRow | None:
        """Return the cached user, or None if it is not cached or too old."""
        kept = self._kept.get()
        with kept.lock:
            found = kept.users.get(user_id)
        return found[1] if found is not None and self._clock() - found[0] < self._max_age else None

    def begin(self) -> Reading:
        """Announce a read from the store; pass the result to :meth:`keep`."""
        return Reading(self._clock(), self._kept.get().changes)

    def keep(self, row: UserRow, reading: Reading) -> None:
        """Cache what was read, unless any user was dropped since :meth:`begin`."""
        kept = self._kept.get()
        with kept.lock:
            # It may have been read before the change for which a user was dropped.
            if kept.changes != reading.changes:
                return
            kept.users.pop(row.id, None)
            kept.users[row.id] = reading.begun, row
            if len(kept.users) > self._max_users:
                kept.users.popitem(last=False)

    def drop(self, *user_ids: str) -> None:
        """Remove these users, such as after committing a change that ``Auth`` did not make."""
        kept = self._kept.get()
        with kept.lock:
            kept.changes += 1
            for user_id in user_ids:
                kept.users.pop(user_id, None)

    def clear(self) -> None:
        """Remove all users."""
        kept = self._kept.get()
        with kept.lock:
            kept.changes += 1
            kept.users.clear()


def _check_max_users(given: object) -> int:
    if not isinstance(given, int) or isinstance(given, bool):
        raise TypeError(f"max_users must be an int, not {type(given).__name__}")
    if given < 1:
        raise ValueError(f"max_users must be at least 1, got {given}")
    return given


class _Kept:
    """The cache of one process: each user with the time of its read, the earliest first."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.users: OrderedDict[str, tuple[float, UserRow]] = OrderedDict()
        self.changes = 0
