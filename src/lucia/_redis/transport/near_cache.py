"""The sessions that an adapter uses from this process's memory, without asking the server, and what this process does to them.

``AsyncNearCache`` stands beside ``NearCache``, with the same methods, so that generated code finds its own by name. There is none for the
synchronous adapter: records can be used only while somebody reads what the server tells of them, and it has nobody who does.
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
"""In seconds. A shorter one could be over before an answer is here."""

_NOTHING: Final = nullcontext[None]()


class NearCache:
    """Nothing is in memory."""

    def session(self, lookup: Lookup, session_id: str) -> StoredSession | None:
        """None: the server is asked."""
        return None

    def keep(self, keys: Sequence[bytes], records: Records, row: StoredSession | None) -> None:
        """Nothing is kept."""

    def changing(
        self, command: Call | Eval | Transaction | Nodes | OnNode
    ) -> AbstractContextManager[None]:
        """Nothing is to be done."""
        return _NOTHING


class AsyncNearCache:
    """The records of one adapter in one process, for all its event loops; none without a lease.

    Args:
        lease: how long a session may be used after another process has ended it, if nothing comes from the server.
        clock: says whether a session is active, in milliseconds since the epoch.

    Raises:
        TypeError: the lease is no ``timedelta``; a bare number's unit would be a guess.
        ValueError: it is shorter than 50 milliseconds, or longer than any record is kept, 5 seconds.
    """

    def __init__(self, lease: timedelta | None, clock: Clock = system_clock) -> None:
        self.lease = None if lease is None else _seconds(lease)
        self._clock = clock
        self.begin()
        _IN_USE.add(self)

    def begin(self) -> None:
        """Begin without any record, as a forked process does: what its parent is told, it is not."""
        self.entries = Entries()

    def session(self, lookup: Lookup, session_id: str) -> StoredSession | None:
        """The session with this id, if its record is here and may be used, and the session is active."""
        if self.lease is None:
            return None
        for key in lookup.keys(session_id):
            entry = self.entries.get(key)
            if entry is not None:
                row: StoredSession | None = entry.row
                if row is not None and row.id == session_id and self._clock() <= row.active_expires:
                    return _own(row)
        return None

    def keep(self, keys: Sequence[bytes], records: Records, row: StoredSession | None) -> None:
        """This row was read: in the one record that there is at these keys. It stays as long as that record."""
        if self.lease is None or row is None:
            return
        held = [
            (key, record) for key, record in zip(keys, records, strict=True) if record is not None
        ]
        for key, record in held if len(held) == 1 else ():
            entry = self.entries.get(key)
            if entry is not None and entry.record == record:
                entry.row = _own(row)

    def changing(
        self, command: Call | Eval | Transaction | Nodes | OnNode
    ) -> AbstractContextManager[None]:
        """While this command is under way, nothing is used of what it may change; nor what was read before it was over."""
        if self.lease is None or isinstance(command, Nodes | OnNode) or is_read(command):
            return _NOTHING
        return self.entries.dropping(_keys(command))


_IN_USE: Final[weakref.WeakSet[AsyncNearCache]] = weakref.WeakSet()


def _begin_all() -> None:
    """What a forked process does first."""
    for each in list(_IN_USE):
        each.begin()


def _forks_never(*, after_in_child: Callable[[], None]) -> None: ...


getattr(os, "register_at_fork", _forks_never)(after_in_child=_begin_all)


def _own(session: StoredSession) -> StoredSession:
    """Return a session whose attributes its caller may change; those of a record are always copies."""
    if isinstance(session, SessionRow):
        return replace(session, attributes=deepcopy(dict(session.attributes)))
    return session


def _keys(command: Call | Eval | Transaction) -> list[bytes]:
    """The keys that a command may change, and maybe some more words."""
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
            f"near_cache must be from {SHORTEST_LEASE * 1000:.0f} milliseconds to {ENTRY_SECONDS:.0f} seconds, not {seconds:g} s"
        )
    return seconds
