"""Records in this process's memory, of which a server tells when they change: what may be used of them, and for how long.

Nothing here waits or asks. Who reads a connection says what was read on it, in the order in which it came: so a record is here before the
server's word that it is gone. That word can be late, or never come. So a record is used only while it is proven that no such word is
missing (:class:`Lease`), and only for a few seconds. What this process ends itself is gone at once.

Every call may come from any thread.
"""

import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Container, Generator, Iterable, Sequence
from contextlib import contextmanager
from typing import Any, Final

__all__ = ["ENTRY_SECONDS", "MAX_ENTRIES", "Entries", "Entry", "Lease", "Reading"]

MAX_ENTRIES: Final = 100_000
"""How many records are kept; beyond that the oldest goes."""

ENTRY_SECONDS: Final = 5.0
"""How long a record is used at most after it was asked for, whatever the server says."""


class Lease:
    """Until when the records that came over one connection may be used: so long after a command was sent that was answered on it.

    A server tells of a change before it answers a later command. So each answer proves that every change is known that was made before
    its command was sent, and what is newer than that is no older than the lease is long.

    Args:
        seconds: how long.
    """

    __slots__ = ("_seconds", "ends")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self.ends = -math.inf

    def extend(self, sent: float) -> None:
        """A command was answered that was sent at this time, by the clock of the entries."""
        self.ends = sent + self._seconds


class Entry:
    """A record, and in ``row`` what its user made of it."""

    __slots__ = ("ends", "lease", "record", "row")

    def __init__(self, record: bytes, row: Any, ends: float, lease: Lease) -> None:
        self.record = record
        self.row = row
        self.ends = ends
        self.lease = lease


class Reading:
    """Keys that are being read, of which ``open`` are those whose records may be kept."""

    __slots__ = ("keys", "open")

    def __init__(self, keys: Sequence[bytes], refused: Container[bytes]) -> None:
        self.keys = keys
        self.open = {key for key in keys if key not in refused}


class Entries:
    """The records by their keys.

    Args:
        max_entries: how many.
        clock: in seconds, from any beginning.
    """

    def __init__(
        self, max_entries: int = MAX_ENTRIES, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.clock = clock
        self._max_entries = max_entries
        self._lock = threading.Lock()
        self._entries: OrderedDict[bytes, Entry] = OrderedDict()
        self._readings: set[Reading] = set()
        self._refused: dict[bytes, int] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: bytes) -> Entry | None:
        """The record at this key, if it may be used now."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        now = self.clock()
        return entry if now < entry.lease.ends and now < entry.ends else None

    def begin(self, keys: Sequence[bytes]) -> Reading:
        """These keys will now be asked for; to be called before that is sent, and to be followed by :meth:`fill` or :meth:`give_up`."""
        with self._lock:
            reading = Reading(keys, self._refused)
            self._readings.add(reading)
            return reading

    def fill(
        self, reading: Reading, records: Sequence[bytes | None], sent: float, lease: Lease
    ) -> None:
        """Keep what was read, but for what is nothing and for what this process ended since the reading began.

        Args:
            reading: what was asked for.
            records: what is at its keys, in their order.
            sent: when it was asked for.
            lease: of the connection on which that came.
        """
        with self._lock:
            self._readings.discard(reading)
            for key, record in zip(reading.keys, records, strict=True):
                if record is not None and key in reading.open:
                    before = self._entries.pop(key, None)
                    row = before.row if before is not None and before.record == record else None
                    self._entries[key] = Entry(record, row, sent + ENTRY_SECONDS, lease)
            while len(self._entries) > self._max_entries:
                self._entries.popitem(last=False)

    def give_up(self, reading: Reading) -> None:
        """These keys were not read."""
        with self._lock:
            self._readings.discard(reading)

    def drop(self, keys: Iterable[bytes]) -> None:
        """The server says that what is at these keys is not what it was."""
        with self._lock:
            for key in keys:
                self._entries.pop(key, None)

    def flush(self) -> None:
        """Nothing is certain any more: keep none of what is here, nor of what is being read."""
        with self._lock:
            self._entries.clear()
            for reading in self._readings:
                reading.open.clear()

    def sweep(self) -> None:
        """Take out what is too old to be used."""
        now = self.clock()
        with self._lock:
            while self._entries and next(iter(self._entries.values())).ends <= now:
                self._entries.popitem(last=False)

    @contextmanager
    def dropping(self, keys: Iterable[bytes]) -> Generator[None]:
        """While this process changes what is at these keys: nothing is kept of it, nor afterwards of what was asked for before the end.

        That change may be made over another connection than the one that tells of it, which may be slower.
        """
        changed = list(keys)
        self._refuse(changed)
        try:
            yield
        finally:
            self._allow(changed)

    def _refuse(self, keys: Sequence[bytes]) -> None:
        with self._lock:
            for key in keys:
                self._refused[key] = self._refused.get(key, 0) + 1
                self._entries.pop(key, None)
            for reading in self._readings:
                reading.open.difference_update(keys)

    def _allow(self, keys: Sequence[bytes]) -> None:
        with self._lock:
            for key in keys:
                count = self._refused.pop(key)
                if count > 1:
                    self._refused[key] = count - 1
