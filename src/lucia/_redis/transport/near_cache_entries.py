"""The records of the near-cache: which of them may be used, and for how long.

Nothing here waits or sends. Whoever reads a connection reports what arrived on it, in that order,
so a record is stored before the server's invalidation of it is reported. An invalidation can be
late, or never arrive. So a record is used only while it is proven that none is missing
(:class:`Lease`), and only for a few seconds. What this process revokes itself is dropped at once.

All functions may be called from any thread.
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
"""How many records are kept; the oldest is evicted for one more."""

ENTRY_SECONDS: Final = 5.0
"""How long a record is used at most after it was requested, whatever the server says."""


class Lease:
    """Until when the records that arrived on one connection may be used.

    A server sends the invalidation of a change before its reply to a later command. So each reply
    proves that all changes are known that were made before its command was sent, and an unknown
    change can't be older than the lease.

    Args:
        seconds: how long.
    """

    __slots__ = ("_seconds", "ends")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self.ends = -math.inf

    def extend(self, sent: float) -> None:
        """Take note of a reply to a command that was sent at this time, by the entries' clock."""
        self.ends = sent + self._seconds


class Entry:
    """A record, and in ``row`` the session that was decoded from it."""

    __slots__ = ("ends", "lease", "record", "row")

    def __init__(self, record: bytes, row: Any, ends: float, lease: Lease) -> None:
        self.record = record
        self.row = row
        self.ends = ends
        self.lease = lease


class Reading:
    """Keys that are being read; records of those in ``open`` may be kept."""

    __slots__ = ("keys", "open")

    def __init__(self, keys: Sequence[bytes], refused: Container[bytes]) -> None:
        self.keys = keys
        self.open = {key for key in keys if key not in refused}


class Entries:
    """Records by their keys.

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
        """Return the record at this key if it may be used now."""
        # Without the lock: each request comes here, and reading a dict is atomic.
        entry = self._entries.get(key)
        if entry is None:
            return None
        now = self.clock()
        return entry if now < entry.lease.ends and now < entry.ends else None

    def begin(self, keys: Sequence[bytes]) -> Reading:
        """Take note that these keys will be requested.

        It is called before the request is sent, and followed by :meth:`fill` or :meth:`give_up`.
        """
        with self._lock:
            reading = Reading(keys, self._refused)
            self._readings.add(reading)
            return reading

    def fill(
        self, reading: Reading, records: Sequence[bytes | None], sent: float, lease: Lease
    ) -> None:
        """Keep the records that were read, unless this process changed them since :meth:`begin`.

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
        """Take note that these keys were not read."""
        with self._lock:
            self._readings.discard(reading)

    def drop(self, keys: Iterable[bytes]) -> None:
        """Drop the records at these keys, which the server has invalidated."""
        with self._lock:
            for key in keys:
                self._entries.pop(key, None)

    def flush(self) -> None:
        """Drop all records, and those that are being read."""
        with self._lock:
            self._entries.clear()
            for reading in self._readings:
                reading.open.clear()

    def sweep(self) -> None:
        """Evict the records that are too old to be used."""
        now = self.clock()
        with self._lock:
            # The oldest come first: fill() moves what is read again to the end.
            while self._entries and next(iter(self._entries.values())).ends <= now:
                self._entries.popitem(last=False)

    @contextmanager
    def dropping(self, keys: Iterable[bytes]) -> Generator[None]:
        """Keep no records of these keys while this process changes them.

        Nor are records kept afterwards that were requested before the end: the invalidation may
        arrive on another, slower connection than the reply to the change.
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
                # Counted, since several commands may change one key at the same time.
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
