"""The functions that an application gives to the ready routes."""

from collections.abc import Awaitable, Callable
from inspect import isawaitable
from typing import Any

from lucia._compat.flavours import check_function

__all__ = ["AsyncRender", "AsyncStep", "Render", "Step"]

AsyncStep = Callable[..., Awaitable[Any]]
"""Takes the ``AsyncAuthRequest`` and the ``Submission``; what it returns is the JSON response."""

Step = Callable[..., Any]
"""Takes the ``AuthRequest`` and the ``Submission``; what it returns is the JSON response."""


class AsyncRender:
    """Calls the function that renders a page, which may be async: some templates are awaited."""

    @staticmethod
    def check(name: str, function: object) -> None:
        """Raise `TypeError` if it can't be called."""
        if not callable(function):
            raise TypeError(f"{name} must be a function, not {type(function).__name__}")

    @staticmethod
    async def call(function: Callable[[Any], Any], page: object) -> Any:
        """Return what the function returns."""
        html = function(page)
        return await html if isawaitable(html) else html


class Render:
    """Calls the function that renders a page."""

    check = staticmethod(check_function)

    @staticmethod
    def call(function: Callable[[Any], Any], page: object) -> Any:
        """Return what the function returns."""
        return function(page)
