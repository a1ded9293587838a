"""The warm-up rule, the same for every subject."""

from collections.abc import Callable
from typing import Final

__all__ = ["warm_up"]

RISING: Final = 1.02
"""The rate is still rising while a window reaches this multiple of the best rate so far."""


def warm_up(window: Callable[[], float], most: int) -> float:
    """Measure windows until the rate stops rising; return the best rate.

    Args:
        window: measures one window and returns its rate.
        most: the largest number of windows.
    """
    best = 0.0
    for _ in range(most):
        rate = window()
        if rate < RISING * best:
            return max(best, rate)
        best = rate
    return best
