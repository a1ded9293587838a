"""Small web applications, set up as the documentation of each library says.

Those beside this file are FastAPI's, one per library; ``frameworks`` has a module for each other
framework. Each module has ``make_web(url, **settings)``. ``POST /login/{user_id}`` sets the
library's cookie. ``GET /me``, the measured endpoint, returns the id of the logged-in user.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

__all__ = ["Web"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Web:
    """An application to serve.

    Args:
        app: the application, of ASGI or of WSGI.
        guarded: whether ``GET /me`` answers 401 without a valid cookie.
    """

    app: Callable[..., Any]
    guarded: bool = True
