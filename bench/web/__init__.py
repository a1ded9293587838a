"""Small FastAPI applications, one per library, set up as its documentation says.

Each module has ``make_web(url, **settings)``. ``POST /login/{user_id}`` sets the library's cookie.
``GET /me``, the measured endpoint, returns the id of the logged-in user.
"""

from dataclasses import dataclass

from fastapi import FastAPI

__all__ = ["Web"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Web:
    """An application to serve.

    Args:
        app: the application.
        guarded: whether ``GET /me`` answers 401 without a valid cookie.
    """

    app: FastAPI
    guarded: bool = True
