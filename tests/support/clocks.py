"""Clocks that stand still until a test moves them."""

from datetime import timedelta

__all__ = ["HOUR", "NOW", "ManualClock", "Time"]

HOUR = timedelta(hours=1)
NOW = 1_800_000_000_000


class Time:
    """A clock in milliseconds since the epoch that a test moves, in either direction."""

    def __init__(self, now: int = NOW) -> None:
        self.now = now

    def __call__(self) -> int:
        return self.now

    def advance(self, duration: timedelta) -> None:
        """Move the clock, backwards if the duration is negative."""
        self.now += duration // timedelta(milliseconds=1)


class ManualClock:
    """A monotonic clock in seconds that a test moves."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now
