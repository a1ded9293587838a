"""Quart: with lucia-auth, and with Quart-Session."""

from datetime import timedelta
from typing import Literal

from quart import Quart, abort, session
from quart_session import Session  # type: ignore[import-untyped] # it has no types

from bench.drive import user_ids
from bench.peer import HOUR, RECORD
from bench.web import Web
from bench.web.frameworks import async_client, make_async_auth
from lucia.middleware.quart import QuartAuth, login_required

Library = Literal["none", "lucia", "quart_session"]


def make_web(url: str, *, library: Library) -> Web:
    """Set the application up as the library's documentation shows."""
    return {"none": without, "lucia": with_lucia, "quart_session": with_quart_session}[library](url)


def without(_: str) -> Web:
    """Make the application without authentication."""
    app, nobody = Quart(__name__), user_ids(1)[0]

    @app.get("/me")
    async def me() -> dict[str, str]:
        return {"user_id": nobody}

    return Web(app=app, guarded=False)


def with_lucia(url: str) -> Web:
    """Make the application with lucia-auth."""
    app = Quart(__name__)
    web = QuartAuth(make_async_auth(url), app)

    @app.post("/login/<user_id>")
    async def login(user_id: str) -> dict[str, str]:
        await web.request().sign_in(user_id)
        return {"user_id": user_id}

    @app.get("/me")
    @login_required
    async def me() -> dict[str, str]:
        return {"user_id": (await web.session()).user_id}

    return Web(app=app)


def with_quart_session(url: str) -> Web:
    """Make the application with Quart-Session."""
    app = Quart(__name__)
    app.config.update(
        SESSION_TYPE="redis",
        SESSION_REDIS=async_client(url),
        PERMANENT_SESSION_LIFETIME=timedelta(seconds=HOUR),
    )
    Session(app)

    @app.post("/login/<user_id>")
    async def login(user_id: str) -> dict[str, str]:
        session.update(RECORD | {"user_id": user_id})
        return {"user_id": user_id}

    @app.get("/me")
    async def me() -> dict[str, str]:
        user_id: str | None = session.get("user_id")
        if user_id is None:
            abort(401)
        return {"user_id": user_id}

    return Web(app=app)
