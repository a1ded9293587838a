"""Users that were read a moment ago, kept for the requests that follow."""

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
    """A look at the store that has begun: when, in seconds, and after how many changes."""

    begun: float
    changes: int


class UserCache:
    """Keeps users in this process's memory, so that a request finds its user without asking the user store.

    What another process or another program changes is seen ``max_age`` later at most; what is changed or deleted by an ``Auth`` that
    has this cache, at once, when its method returns. Sessions are never in it, nor keys and passwords: who is logged out is out at once.

    Several ``Auth`` of one process may have the same cache, if they have the same users. A forked process begins with an empty one.

    Args:
        max_age: how long a user is kept, counted from before it was read.
        max_users: how many users are kept; for one more, the one that was read longest ago goes.
        clock: gives the time in seconds, from whenever on, and never goes back.

    Raises:
        TypeError: ``max_age`` is no ``timedelta``, or ``max_users`` is no ``int``.
        ValueError: one of them is not more than zero.
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
                "max_age must be longer than zero: without user_cache= no user is kept"
            )
        self._max_age = max_age.total_seconds()
        self._max_users = _check_max_users(max_users)
        self._clock = clock
        self._kept = PerProcess(_Kept)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._max_users} users for {self._max_age:g} s>"

    def find(self, user_id: str) -> UserRow | None:
        """The user, if it is kept and not too old."""
        kept = self._kept.get()
        with kept.lock:
            found = kept.users.get(user_id)
        return found[1] if found is not None and self._clock() - found[0] < self._max_age else None

    def begin(self) -> Reading:
        """Say that a user is going to be read from the store; :meth:`keep` takes what this gives."""
        return Reading(self._clock(), self._kept.get().changes)

    def keep(self, row: UserRow, reading: Reading) -> None:
        """Keep what was read, unless anything was dropped meanwhile: then it may be from before a change."""
        kept = self._kept.get()
        with kept.lock:
            if kept.changes != reading.changes:
                return
            kept.users.pop(row.id, None)
            kept.users[row.id] = reading.begun, row
            if len(kept.users) > self._max_users:
                kept.users.popitem(last=False)

    def drop(self, *user_ids: str) -> None:
        """Forget these users, such as after a change that was not made by ``Auth``, once it is committed."""
        kept = self._kept.get()
        with kept.lock:
            kept.changes += 1
            for user_id in user_ids:
                kept.users.pop(user_id, None)

    def clear(self) -> None:
        """Forget all users."""
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
    """What one process keeps: each user with the time from which on it may be out of date, the longest kept first."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.users: OrderedDict[str, tuple[float, UserRow]] = OrderedDict()
        self.changes = 0
