"""The types of the functions that an application gives to the ready routes."""

from collections.abc import Awaitable, Callable
from typing import Any

__all__ = ["AsyncStep", "Step"]

AsyncStep = Callable[..., Awaitable[Any]]
"""Takes the ``AsyncAuthRequest`` and the ``Submission``; what it returns is the JSON response."""

Step = Callable[..., Any]
"""Takes the ``AuthRequest`` and the ``Submission``; what it returns is the JSON response."""
