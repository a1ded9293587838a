"""Rows that were read of late, each with what it was read from: where that has not changed, it need not be decoded again."""

import threading
from typing import Final

from lucia._redis.transport.connection_io import Records
from lucia.models import SessionRow

__all__ = ["MAX_KEPT", "MAX_KEPT_BYTES", "KeptRows"]

MAX_KEPT: Final = 20_000
"""How many rows are kept: with what is made of them 30 MB, 40 if each has a user agent noted, 70 if each record is as long as may be.

To decode a row again takes a few microseconds, so that more rows would not be worth the memory of each process.
"""

MAX_KEPT_BYTES: Final = 1_024
"""A row is not kept if its records are longer, together."""


class KeptRows:
    """Rows by their ids, young and old ones: all grow old at once, and an old one that is asked for is young again.

    Where there are too many, one that is old goes: one at a time, so that nobody waits until thousands are gone. Every call may come from
    any thread. None waits for another: what would have to is not done, since a row that is not kept is decoded again, no more.

    Args:
        most: how many.
    """

    def __init__(self, most: int = MAX_KEPT) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._young: dict[str, SessionRow] = {}
        self._old: dict[str, SessionRow] = {}

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

    def find(self, session_id: str, records: Records) -> SessionRow | None:
        """The row of this id that was read from just these records; None if there is none."""
        row = self._young.get(session_id)
        if row is None and self._old:
            row = self._rejuvenated(session_id)
        if row is not None and row.source == (records[0] if len(records) == 1 else tuple(records)):
            return row
        return None

    def keep(self, records: Records, row: SessionRow) -> None:
        """This row was read from these records."""
        length = sum([len(record) for record in records if record is not None])
        if length > MAX_KEPT_BYTES or not self._lock.acquire(blocking=False):
            return
        try:
            row.read_from(
                records[0] if len(records) == 1 else tuple(records)
            )  # nothing that a garbage collector has to look at
            if row.id not in self._young and len(self) >= self._most:
                self._drop_one()
            self._young[row.id] = row
        finally:
            self._lock.release()

    def _rejuvenated(self, session_id: str) -> SessionRow | None:
        if not self._lock.acquire(blocking=False):
            return None
        try:
            row = self._old.pop(session_id, None)
            if row is not None:
                self._young[session_id] = row
            return row
        finally:
            self._lock.release()

    def _drop_one(self) -> None:
        """The one that has been young the longest time ago."""
        if not self._old:
            self._old, self._young = dict(reversed(self._young.items())), {}
        self._old.popitem()
