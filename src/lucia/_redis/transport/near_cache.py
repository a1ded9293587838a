"""The near-cache: active sessions that an adapter uses from this process's memory.

There is none for the sync adapter: records can be used only while somebody reads the invalidations
that the server sends, and sync code has no task that does.
"""

import os
import weakref
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from copy import deepcopy
from dataclasses import replace
from datetime import timedelta
from typing import Final

from lucia._redis.commands import Argument, Call, Eval, Nodes, OnNode, Transaction
from lucia._redis.lookup import Lookup
from lucia._redis.transport.connection_io import Records
from lucia._redis.transport.near_cache_entries import ENTRY_SECONDS, Entries
from lucia._redis.transport.retries import is_read
from lucia._rules.sessions import Clock, system_clock
from lucia.models import SessionRow, StoredSession

__all__ = ["AsyncNearCache", "NearCache"]

SHORTEST_LEASE: Final = 0.05
"""In seconds. A shorter lease could end before a reply arrives."""

_NOTHING: Final = nullcontext[None]()


class NearCache:
    """No session is in memory."""

    def keep(self, keys: Sequence[bytes], records: Records, row: StoredSession | None) -> None:
        """Keep nothing."""

    def changing(
        self, command: Call | Eval | Transaction | Nodes | OnNode
    ) -> AbstractContextManager[None]:
        """Return a context that does nothing."""
        return _NOTHING


class AsyncNearCache:
    """The records of one adapter in one process, for all its event loops; none without a lease.

    Args:
        lease: how long a session may still be used after another process has revoked it, if no
            invalidation arrives.
        clock: the time in milliseconds since the epoch, to tell whether a session is active.

    Raises:
        TypeError: the lease is not a ``timedelta``; the unit of a bare number would be a guess.
        ValueError: it is shorter than 50 milliseconds, or longer than the 5 seconds for which a
            record is kept at most.
    """

    def __init__(self, lease: timedelta | None, clock: Clock = system_clock) -> None:
        self.lease = None if lease is None else _seconds(lease)
        self._clock = clock
        self.begin()
        _IN_USE.add(self)

    def begin(self) -> None:
        """Start without records, as a forked process: it gets no invalidations of its parent's."""
        self.entries = Entries()

    def session(self, lookup: Lookup, session_id: str) -> StoredSession | None:
        """Return the session with this id if its record is in memory, usable, and active."""
        for key in lookup.keys(session_id):
            entry = self.entries.get(key)
            if entry is not None:
                row: StoredSession | None = entry.row
                if row is not None and row.id == session_id and self._clock() <= row.active_expires:
                    return _own(row)
        return None

    def keep(self, keys: Sequence[bytes], records: Records, row: StoredSession | None) -> None:
        """Keep a session beside the record that it was decoded from, if there is only one."""
        if self.lease is None or row is None:
            return
        held = [
            (key, record) for key, record in zip(keys, records, strict=True) if record is not None
        ]
        # With two records one is damaged: which of them was decoded is not known here.
        for key, record in held if len(held) == 1 else ():
            entry = self.entries.get(key)
            # The entry may have been read again since, and hold a newer record.
            if entry is not None and entry.record == record:
                entry.row = _own(row)

    def changing(
        self, command: Call | Eval | Transaction | Nodes | OnNode
    ) -> AbstractContextManager[None]:
        """Return a context in which nothing is used that this command may change.

        What was read before the end of the command is not used afterwards either.
        """
        if self.lease is None or isinstance(command, Nodes | OnNode) or is_read(command):
            return _NOTHING
        return self.entries.dropping(_keys(command))


_IN_USE: Final[weakref.WeakSet[AsyncNearCache]] = weakref.WeakSet()


def _begin_all() -> None:
    """Start all near-caches of a forked process without records."""
    for each in list(_IN_USE):
        each.begin()


def _forks_never(*, after_in_child: Callable[[], None]) -> None: ...


# Windows has no fork, and not this function.
getattr(os, "register_at_fork", _forks_never)(after_in_child=_begin_all)


def _own(session: StoredSession) -> StoredSession:
    """Return a session whose attributes the caller may change; a record's are always copies."""
    if isinstance(session, SessionRow):
        return replace(session, attributes=deepcopy(dict(session.attributes)))
    return session


def _keys(command: Call | Eval | Transaction) -> list[bytes]:
    """Return the keys that a command may change, and perhaps other arguments."""
    words = [argument for argument in _arguments(command) if not isinstance(argument, int)]
    return [word.encode() if isinstance(word, str) else word for word in words]


def _arguments(command: Call | Eval | Transaction) -> Sequence[Argument]:
    if isinstance(command, Transaction):
        return [argument for call in command.commands for argument in call.arguments]
    return command.keys if isinstance(command, Eval) else command.arguments


def _seconds(lease: object) -> float:
    if not isinstance(lease, timedelta):
        raise TypeError(f"near_cache must be a datetime.timedelta, not {type(lease).__name__}")
    seconds = lease.total_seconds()
    if not SHORTEST_LEASE <= seconds <= ENTRY_SECONDS:
        raise ValueError(
            f"near_cache must be from {SHORTEST_LEASE * 1000:.0f} milliseconds "
            f"to {ENTRY_SECONDS:.0f} seconds, not {seconds:g} s"
        )
    return seconds
