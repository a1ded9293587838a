"""The rule by which every subject is warmed up."""

from collections.abc import Callable
from typing import Final

__all__ = ["warm_up"]

RISING: Final = 1.02
"""How many times the best rate so far a window has to reach for the rate to be rising still."""


def warm_up(window: Callable[[], float], most: int) -> float:
    """Measure windows until the rate stops rising; return the best rate.

    Args:
        window: measures one window and returns its rate.
        most: how many windows there are at most.
    """
    best = 0.0
    for _ in range(most):
        rate = window()
        if rate < RISING * best:
            return max(best, rate)
        best = rate
    return best
