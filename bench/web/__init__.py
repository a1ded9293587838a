"""One small FastAPI application for each library, set up as its documentation says.

Each module has ``make_web(url, **settings)``. ``POST /login/{user_id}`` sets the library's cookie, and ``GET /me``, which is measured,
answers with the id of the user whose cookie it is.
"""

from dataclasses import dataclass

from fastapi import FastAPI

__all__ = ["Web"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Web:
    """An application that is served.

    Args:
        app: the application.
        guarded: whether it answers 401 to who has not logged in.
    """

    app: FastAPI
    guarded: bool = True
