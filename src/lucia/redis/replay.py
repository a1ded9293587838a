"""What this process ended of late, and when to end it again: once a server may have forgotten it.

A primary that fails takes with it what its replica had not received, and a server that restarts what was not on its disk. Ids are used
once, so ending one again harms nobody. What is remembered is in memory alone, and bounded.
"""

import re
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from lucia.redis.commands import Batch, Call, Command, Operation, Reply

KEPT_SECONDS: Final = 600
"""How long an ended id is remembered at least, unless there are too many; it is forgotten when others are ended after that time."""

KEPT_IDS: Final = 10_000
"""How many are: about two megabytes."""

TURN_SECONDS: Final = 1.0
"""How long a command waits at most, in blocks, for what was ended to be ended again; what is left is the next one's turn."""

RETRY_SECONDS: Final = 1.0
"""How long nothing is ended again after that failed."""

BLOCK: Final = 500
"""How many one step ends again: about a millisecond of the server's time."""

_NEW: Final = b"new"
_UNSEEN: Final = b"unseen"
_UNTOLD: Final = b"untold"

_HISTORY: Final = re.compile(rb"^master_replid:(\w+)", re.MULTILINE)


class OtherHistory(Exception):
    """A new connection has found another history, so what was ended has to be ended again first. A signal between two layers."""

    def for_another(self) -> "OtherHistory":
        """The same for another command: raising an error changes it, so nobody shares one."""
        return OtherHistory()


def history_in(reply: Reply) -> bytes | None:
    """The id of a server's history in its reply to ``INFO replication``: another one after each promotion and each restart.

    None if the server refused, or named none.
    """
    found = _HISTORY.search(reply) if isinstance(reply, bytes) else None
    return found[1] if found else None


class Revocations:
    """The ended ids, and whether they have to be ended again.

    Args:
        clock: in seconds, from any beginning.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._ended: deque[tuple[float, str]] = deque(maxlen=KEPT_IDS)
        self._renewed: deque[tuple[float, str, str]] = deque(maxlen=KEPT_IDS)
        self._histories: dict[object, bytes] = {}
        self._settled = False
        self._lost = False
        self._due = False
        self._waiting: list[str] | None = None
        self._not_before = 0.0
        self.changes = 0
        """How often a server was met with another history than before."""

    def ended(self, session_ids: Iterable[str], since: int) -> None:
        """Remember that these were ended; ``since`` is what :attr:`changes` was before: by now another server may be the primary."""
        now = self._clock()
        if entries := [(now, id_) for id_ in session_ids]:
            _forget(self._ended, now)
            self._ended.extend(entries)
            if since != self.changes:
                self._due, self._waiting = True, None

    def renewed(self, used_id: str, successor_id: str) -> None:
        """Remember a renewal: if it is undone and its successor was ended, the used id, alive again, has to be ended too."""
        now = self._clock()
        _forget(self._renewed, now)
        self._renewed.append((now, used_id, successor_id))

    def expect(self, places: Iterable[object]) -> None:
        """The places that there are at first: what is found there first is no change, but a place that comes later is one."""
        if not self._settled:
            self._histories = dict.fromkeys(places, _UNSEEN) | self._histories
            self._settled = True

    def met(self, place: object, history: bytes | None) -> bool:
        """A connection to this place has come up, where the history is this one; returns whether it is another one than before.

        Where it can't be told (None), a connection after one that was lost counts as that.
        """
        before, now = self._histories.get(place, _NEW if self._settled else _UNSEEN), history or _UNTOLD
        changed = before != _UNSEEN and (before != now or (now == _UNTOLD and self._lost))
        self._histories[place] = now
        self._lost = False
        if changed:
            self.changes += 1
            self._due, self._waiting, self._not_before = bool(self._ended), None, 0.0
        return changed

    def lost(self) -> None:
        """A connection was lost."""
        self._lost = True

    @property
    def due(self) -> bool:
        """Whether it is time to end them again."""
        return self._due and self._clock() >= self._not_before

    def all(self) -> list[str]:
        """What to end again: what was ended, newest first, and the used ids that led there."""
        found = dict.fromkeys(id_ for _, id_ in reversed(tuple(self._ended)))
        for _, used_id, successor_id in reversed(tuple(self._renewed)):
            if successor_id in found:
                found[used_id] = None
        return list(found)

    def block(self) -> list[str]:
        """What to end again next."""
        if self._waiting is None:
            self._waiting = self.all()
        return self._waiting[:BLOCK]

    def done(self, block: Sequence[str], since: int) -> None:
        """These were ended again; ``since`` is what :attr:`changes` was when that began: if it changed since, all has to be done anew."""
        if since == self.changes and self._waiting is not None:
            done = frozenset(block)
            self._waiting = [id_ for id_ in self._waiting if id_ not in done]
            self._due = bool(self._waiting)

    def failed(self) -> None:
        """They could not be ended again now."""
        self._not_before = self._clock() + RETRY_SECONDS


class Replay(NamedTuple):
    """What was ended, and the operation that ends such again."""

    revocations: Revocations
    end_again: Callable[[Sequence[str]], Operation[None]]


@dataclass(frozen=True, slots=True)
class Watch:
    """What one place tells: a server, by its address in a cluster, or wherever the application's client leads to."""

    revocations: Revocations
    place: object = None

    def came_up(self, reply: Reply) -> bool:
        """A new connection has this reply to ``INFO replication``; whether it met another history."""
        return self.revocations.met(self.place, history_in(reply))

    def lost(self) -> None:
        """A connection was lost."""
        self.revocations.lost()

    @property
    def due(self) -> bool:
        """Whether to end again what was ended, before anything else."""
        return self.revocations.due


def _forget(entries: "deque[Any]", now: float) -> None:
    while entries and entries[0][0] < now - KEPT_SECONDS:
        entries.popleft()


def end_again(operation: Operation[None]) -> Operation[None]:
    """A protocol's ``delete``, without taking the ids out of their indexes one by one: what is dead there goes when they are read."""
    command = next(operation, None)
    while command is not None:
        reply = [0] * len(command.commands) if isinstance(command, Batch) and all(map(_is_removal, command.commands)) else (yield command)
        try:
            command = operation.send(reply)
        except StopIteration:
            return


def _is_removal(command: Command) -> bool:
    return isinstance(command, Call) and command.name in {"LREM", "SREM"}
