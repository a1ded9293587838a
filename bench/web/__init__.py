"""The same small FastAPI application with each library, as its own documentation sets it up.

Each module has ``make_web(url, **settings)``. ``POST /login/{user_id}`` sets the library's cookie, and ``GET /me``, which is measured,
answers with the id of the user whose cookie it is.
"""

from dataclasses import dataclass

from fastapi import FastAPI

__all__ = ["Web"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Web:
    """What is served.

    Args:
        app: the application.
        guarded: whether it answers 401 to who has not logged in.
    """

    app: FastAPI
    guarded: bool = True
