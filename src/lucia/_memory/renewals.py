"""What used ids were renewed to, for stores that keep it in this process's memory."""

from typing import NamedTuple

from lucia._rules.sessions import MARKER_MS, Clock


class _Renewal(NamedTuple):
    successor: str
    grace_ends: int
    expires: int


class Renewals:
    """Remembers each renewal for 60 seconds, and within its grace lets the used id lead to the successor."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._renewals: dict[str, _Renewal] = {}

    def add(self, used_id: str, successor: str, grace: int) -> None:
        """Remember a renewal, whose grace is in milliseconds, and forget those that are over."""
        now = self._clock()
        self._renewals = {
            id_: renewal for id_, renewal in self._renewals.items() if now < renewal.expires
        }
        self._renewals[used_id] = _Renewal(successor, now + grace, now + MARKER_MS)

    def successor(self, used_id: str) -> str | None:
        """The id that ends with the used one: its successor's, for 60 seconds after the renewal."""
        renewal = self._renewals.get(used_id)
        return (
            renewal.successor if renewal is not None and self._clock() < renewal.expires else None
        )

    def within_grace(self, used_id: str) -> str | None:
        """The id that the used one still leads to."""
        renewal = self._renewals.get(used_id)
        return (
            renewal.successor
            if renewal is not None and self._clock() < renewal.grace_ends
            else None
        )
