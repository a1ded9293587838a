"""Starlette: with lucia-auth, and with starsessions."""

from collections.abc import Callable
from typing import Any, Literal

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starsessions import SessionAutoloadMiddleware, SessionMiddleware
from starsessions.stores.redis import RedisStore

from bench.drive import user_ids
from bench.peer import HOUR, RECORD
from bench.web import Web
from bench.web.frameworks import async_client, make_async_auth
from lucia.middleware.starlette import StarletteAuth

Library = Literal["none", "lucia", "starsessions"]
Endpoint = Callable[[Request], Any]


def make_web(url: str, *, library: Library, **settings: Any) -> Web:
    """Set the application up as the library's documentation shows.

    Args:
        url: the URL of Redis.
        library: the library.
        settings: those of ``StarletteAuth``, and ``near_cache``.
    """
    if library == "none":
        return without()
    return with_lucia(url, **settings) if library == "lucia" else with_starsessions(url)


def without() -> Web:
    """Make the application without authentication."""
    nobody = user_ids(1)[0]

    async def me(_: Request) -> JSONResponse:
        return JSONResponse({"user_id": nobody})

    return Web(app=Starlette(routes=[Route("/me", me)]), guarded=False)


def with_lucia(url: str, *, near_cache: float | None = None, **settings: Any) -> Web:
    """Make the application with lucia-auth."""
    web = StarletteAuth(make_async_auth(url, near_cache=near_cache), **settings)

    async def login(request: Request) -> JSONResponse:
        await web.request(request).sign_in(request.path_params["user_id"])
        return JSONResponse({})

    async def me(request: Request) -> JSONResponse:
        session = await web.session(request)
        return JSONResponse({"user_id": session.user_id})

    app = Starlette(routes=routes(login, me))
    web.install(app)
    return Web(app=app)


def with_starsessions(url: str) -> Web:
    """Make the application with both of its middlewares; the second one loads each session."""
    middleware = [
        Middleware(
            SessionMiddleware,
            store=RedisStore(connection=async_client(url)),
            lifetime=HOUR,
            cookie_https_only=False,
        ),
        Middleware(SessionAutoloadMiddleware),
    ]

    async def login(request: Request) -> JSONResponse:
        request.session.update(RECORD | {"user_id": request.path_params["user_id"]})
        return JSONResponse({})

    async def me(request: Request) -> JSONResponse:
        user_id = request.session.get("user_id")
        if user_id is None:
            raise HTTPException(401)
        return JSONResponse({"user_id": user_id})

    return Web(app=Starlette(routes=routes(login, me), middleware=middleware))


def routes(login: Endpoint, me: Endpoint) -> list[Route]:
    """Return the routes of each application."""
    return [Route("/login/{user_id}", login, methods=["POST"]), Route("/me", me)]
