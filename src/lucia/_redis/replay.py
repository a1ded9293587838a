"""The replay: what this process revoked recently is revoked again once a server may have lost it.

A primary that fails takes with it what its replica had not received, and a server that restarts
takes what was not on its disk. Both show another *history* afterwards (``master_replid``). Ids are
used once, so revoking one again harms nobody. What is remembered is in memory alone, and bounded.

While a replay is due, no connection carries anything else: an answer of a server that has lost a
revocation would show the revoked session as alive.
"""

import re
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, Final, NamedTuple

from lucia._redis.commands import Operation, Reply
from lucia._redis.transport.client_errors import is_transient
from lucia._redis.transport.connection_io import closes_connection

KEPT_SECONDS: Final = 600
"""How long a revoked id is remembered at least; it is forgotten when others are revoked after that.

An outage may take longer, so time alone forgets nothing.
"""

KEPT_IDS: Final = 10_000
"""How many revoked ids are remembered: about two megabytes."""

MAX_REPLAYED_AT_ONCE: Final = 500
"""How many ids one step of the replay revokes: about a millisecond of the server's time."""

# In the place of a history: of a place that appeared later, of one that was not met yet, and of a
# server that does not tell its history.
_NEW: Final = b"new"
_NOT_SEEN_YET: Final = b"unseen"
_NO_HISTORY: Final = b"untold"

_HISTORY: Final = re.compile(rb"^master_replid:(\w+)", re.MULTILINE)
_REPLICA: Final = re.compile(rb"^role:slave", re.MULTILINE)


def history_in(reply: Reply) -> bytes | None:
    """Return the id of a server's history in its reply to ``INFO replication``.

    It changes with each promotion and each restart. None if the server refused, or named none.
    """
    found = _HISTORY.search(reply) if isinstance(reply, bytes) else None
    return found[1] if found else None


def is_replica(reply: Reply) -> bool:
    """Return whether a server says in its reply to ``INFO replication`` that it is a replica."""
    return isinstance(reply, bytes) and _REPLICA.search(reply) is not None


class Revocations:
    """The revoked ids, and whether they have to be revoked again: the state of the replay.

    No lock guards it, since a lock may be held by another thread when the process forks. Instead
    each demand for a replay has a number of its own, and a replay settles only the demand that was
    the newest when it began. A demand that was made meanwhile therefore stays.

    Args:
        clock: in seconds, from any beginning.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._revoked: deque[tuple[float, str]] = deque(maxlen=KEPT_IDS)
        self._renewed: deque[tuple[float, str, str]] = deque(maxlen=KEPT_IDS)
        self._histories: dict[object, bytes] = {}
        self._first_places_known = False
        self._lost: set[object] = set()
        self._numbers = count(1)
        # A demand, and the ids that still have to be revoked again for it.
        self._waiting: tuple[int, list[str]] = (0, [])
        self.newest_demand = 0
        """The number of the newest demand for a replay.

        There is a new one whenever a server was met with another history.
        """
        self.due = False
        """Whether a replay is demanded and not complete: until then nothing else may be sent.

        An attribute, since every batch of requests looks at it.
        """

    def revoked(self, session_ids: Iterable[str], demand: int) -> None:
        """Remember that these ids were revoked.

        Args:
            session_ids: which ids.
            demand: the newest demand before they were revoked. If there is a newer one now, that
                server may not be the primary any more: a replay is demanded.
        """
        now = self._clock()
        if entries := [(now, id_) for id_ in session_ids]:
            _forget(self._revoked, now)
            # First remembered, then compared; `met` demands first and looks then whether anything
            # is remembered. So of two threads at least one sees what the other did.
            self._revoked.extend(entries)
            if demand != self.newest_demand:
                self._demand()

    def renewed(self, used_id: str, successor_id: str) -> None:
        """Remember a renewal.

        If it is undone and its successor was revoked, the used id, alive again, has to be revoked.
        """
        now = self._clock()
        _forget(self._renewed, now)
        self._renewed.append((now, used_id, successor_id))

    def expect(self, places: Iterable[object]) -> None:
        """Learn the first places: the first history met at one of them is no change.

        A place that appears later is one: its server may have been promoted.
        """
        if not self._first_places_known:
            # Histories that were met before the first map stay known.
            self._histories = dict.fromkeys(places, _NOT_SEEN_YET) | self._histories
            self._first_places_known = True

    def is_changed(self, place: object, history: bytes | None) -> bool:
        """Return whether the server at this place has another history than the known one."""
        before = self._histories.get(place, _NEW if self._first_places_known else _NOT_SEEN_YET)
        now = history or _NO_HISTORY
        # Where the server does not tell, it may be another one after each lost connection.
        return before != _NOT_SEEN_YET and (
            before != now or (now == _NO_HISTORY and place in self._lost)
        )

    def met(self, place: object, history: bytes | None) -> int:
        """Record the history of the server at this place, and demand a replay if it changed.

        The connections that lead to the former history have to be retired before, or the replay
        could be sent on one of them.

        Returns:
            The newest demand that this server was met after.
        """
        demand = self.newest_demand
        if self.is_changed(place, history):
            # Demanded before it is known, or another thread could find it known and nothing due.
            demand = self._demand()
        self._histories[place] = history or _NO_HISTORY
        self._lost.discard(place)
        return demand

    def lost(self, place: object) -> None:
        """Take note that a connection to the server at this place was lost or given up."""
        self._lost.add(place)

    def _demand(self) -> int:
        """Demand a replay, which is due if there is anything to revoke again; return its number."""
        self.newest_demand = demand = next(self._numbers)
        # Without anything to revoke again nobody waits; the new number still has each connection
        # checked.
        if self._revoked:
            self.due = True
        return demand

    def all(self) -> list[str]:
        """Return what a replay revokes: the revoked ids, newest first, and their used ids."""
        # Copies: other threads may add to the deques, which must not change while iterated.
        found = dict.fromkeys(id_ for _, id_ in reversed(tuple(self._revoked)))
        # The newest renewal first, so that a whole chain is found from its revoked end.
        for _, used_id, successor_id in reversed(tuple(self._renewed)):
            if successor_id in found:
                found[used_id] = None
        return list(found)

    def block(self, size: int = MAX_REPLAYED_AT_ONCE) -> list[str]:
        """Return the ids that the replay revokes next, at most so many."""
        listed_for, waiting = self._waiting
        if listed_for != self.newest_demand:
            listed_for = self.newest_demand
            waiting = self.all()
            self._waiting = listed_for, waiting
        return waiting[:size]

    def done(self, block: Sequence[str], demand: int) -> None:
        """Take note that a block was revoked again.

        Args:
            block: which ids.
            demand: the newest demand when the block was returned. If there is a newer one now, the
                replay starts again.
        """
        listed_for, waiting = self._waiting
        if demand == listed_for:
            revoked = frozenset(block)
            waiting = [id_ for id_ in waiting if id_ not in revoked]
            self._waiting = demand, waiting
            if not waiting:
                # First cleared, then compared: another thread may demand a replay in between, and
                # in the other order this one would clear it.
                self.due = False
                if self.newest_demand != demand:
                    self.due = True


class Replay(NamedTuple):
    """The revoked ids, and the operation that revokes such ids again."""

    revocations: Revocations
    revoke_again: Callable[[Sequence[str]], Operation[None]]


class Checkpoint(NamedTuple):
    """The result of a connection's last check.

    Args:
        history: of the server; None if it does not tell.
        demand: the newest demand for a replay that the check came after.
    """

    history: bytes | None
    demand: int


@dataclass(frozen=True, slots=True)
class ConnectionMonitor:
    """Learns of the history of the server at one place.

    Args:
        revocations: what has to be revoked again once the history changed.
        place: a node's address in a cluster; None for wherever the application's client leads to.
    """

    revocations: Revocations
    place: object = None

    def check(self, reply: Reply) -> None:
        """Refuse a connection with such a reply to ``INFO replication``.

        Raises:
            Exception: the connection must not be used.
        """
        if closes_connection(reply) or is_transient(reply):
            raise reply
        # A replica's answers may be older than a revocation. In a cluster it redirects to its
        # primary instead.
        if self.place is None and is_replica(reply):
            raise ConnectionError("the server is a replica: waiting for a primary")

    def is_changed(self, reply: Reply, before: "Checkpoint | None" = None) -> bool:
        """Return whether this reply to ``INFO replication`` tells of a new history.

        Args:
            reply: the server's.
            before: the connection's last check; None if it is new.

        Raises:
            ConnectionError: the connection leads to a former server: its history is the same as
                at its last check, and another connection has met a newer one since.
        """
        history = history_in(reply)
        is_changed = self.revocations.is_changed(self.place, history)
        if is_changed and before is not None and before.history == history:
            raise ConnectionError("the connection leads to a server that was replaced")
        return is_changed

    def connected(self, reply: Reply) -> "Checkpoint":
        """Record the server's history, once the connections to the former one are retired."""
        history = history_in(reply)
        return Checkpoint(history, self.revocations.met(self.place, history))

    def lost(self) -> None:
        """Take note that a connection was lost, or that the next one may lead elsewhere."""
        self.revocations.lost(self.place)


def _forget(entries: "deque[Any]", now: float) -> None:
    """Remove the entries that are too old."""
    # Not by popleft: another thread may have removed the entry meanwhile, and the first one now may
    # be too young.
    try:  # each renewal runs this, and suppress() takes longer than all of it
        while (first := entries[0])[0] < now - KEPT_SECONDS:
            entries.remove(first)
    except (IndexError, ValueError):  # there is none, or it is gone
        pass
