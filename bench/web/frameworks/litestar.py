"""Litestar: with lucia-auth, and with its own ``SessionAuth`` over its ``RedisStore``."""

from typing import Any, Literal

from litestar import Litestar, Request, get, post
from litestar.connection import ASGIConnection
from litestar.middleware.session.server_side import (
    ServerSideSessionBackend,
    ServerSideSessionConfig,
)
from litestar.security.session_auth import SessionAuth
from litestar.stores.redis import RedisStore

from bench.drive import user_ids
from bench.peer import HOUR, RECORD
from bench.web import Web
from bench.web.frameworks import async_client, make_async_auth
from lucia import AsyncAuthRequest
from lucia.middleware.litestar import LitestarAuth

Library = Literal["none", "lucia", "own"]


def make_web(url: str, *, library: Library, **settings: Any) -> Web:
    """Set the application up as the library's documentation shows.

    Args:
        url: the URL of Redis.
        library: the library.
        settings: those of ``make_async_auth``.
    """
    if library == "lucia":
        return with_lucia(url, **settings)
    return {"none": without, "own": with_session_auth}[library](url)


def without(_: str) -> Web:
    """Make the application without authentication."""
    nobody = user_ids(1)[0]

    @get("/me")
    async def me() -> dict[str, str]:
        return {"user_id": nobody}

    return Web(app=Litestar([me], logging_config=None), guarded=False)


def with_lucia(url: str, **settings: Any) -> Web:
    """Make the application with lucia-auth."""

    @post("/login/{user_id:str}", exclude_from_auth=True)
    async def login(user_id: str, auth_request: AsyncAuthRequest[Any]) -> dict[str, str]:
        await auth_request.sign_in(user_id)
        return {"user_id": user_id}

    @get("/me")
    async def me(request: Request[str, Any, Any]) -> dict[str, str]:
        return {"user_id": request.user}

    plugin = LitestarAuth(make_async_auth(url, **settings))
    return Web(app=Litestar([login, me], plugins=[plugin], logging_config=None))


def with_session_auth(url: str) -> Web:
    """Make the application with ``SessionAuth``, and users in memory."""

    async def find_user(
        session: dict[str, Any], _: ASGIConnection[Any, Any, Any, Any]
    ) -> str | None:
        return session.get("user_id")

    @post("/login/{user_id:str}", exclude_from_auth=True)
    async def login(user_id: str, request: Request[Any, Any, Any]) -> dict[str, str]:
        request.set_session(RECORD | {"user_id": user_id})
        return {"user_id": user_id}

    @get("/me")
    async def me(request: Request[str, Any, Any]) -> dict[str, str]:
        return {"user_id": request.user}

    auth = SessionAuth[str, ServerSideSessionBackend](
        retrieve_user_handler=find_user,
        session_backend_config=ServerSideSessionConfig(max_age=HOUR),
    )
    app = Litestar(
        [login, me],
        on_app_init=[auth.on_app_init],
        stores={"sessions": RedisStore(async_client(url))},
        logging_config=None,
    )
    return Web(app=app)
