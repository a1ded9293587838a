"""Renewals in the memory of this process: which id each used id was renewed to."""

from typing import NamedTuple

from lucia._rules.sessions import MARKER_MS, Clock


class _Renewal(NamedTuple):
    successor: str
    grace_ends: int
    expires: int


class Renewals:
    """Stores each renewal for 60 seconds; within its grace the used id leads to the successor."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._renewals: dict[str, _Renewal] = {}

    def add(self, used_id: str, successor: str, grace: int) -> None:
        """Add a renewal, whose grace is in milliseconds, and remove expired ones."""
        now = self._clock()
        self._renewals = {
            id_: renewal for id_, renewal in self._renewals.items() if now < renewal.expires
        }
        self._renewals[used_id] = _Renewal(successor, now + grace, now + MARKER_MS)

    def successor(self, used_id: str) -> str | None:
        """Return the successor's id, for 60 seconds: a revocation of the used id revokes it too."""
        renewal = self._renewals.get(used_id)
        return (
            renewal.successor if renewal is not None and self._clock() < renewal.expires else None
        )

    def within_grace(self, used_id: str) -> str | None:
        """Return the id that the used one still leads to."""
        renewal = self._renewals.get(used_id)
        return (
            renewal.successor
            if renewal is not None and self._clock() < renewal.grace_ends
            else None
        )
