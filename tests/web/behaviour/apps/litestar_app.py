"""The application in Litestar."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from litestar import Litestar, Response, get, post, route
from litestar.di import NamedDependency
from litestar.exceptions import NotFoundException
from litestar.response import Redirect, Stream

from lucia import AsyncAuthRequest, Session, User
from lucia.middleware.litestar import LitestarAuth
from tests.web.behaviour.apps.stores import OWN_HEADERS, async_auth, numbers, shown

web = LitestarAuth(async_auth(), forbid_cross_site=True, required=False, login_url="/auth/login")


@route("/who", http_method=["GET", "HEAD"])
async def who(optional_session: NamedDependency[Session | None]) -> dict[str, Any]:
    return shown(optional_session)


@get("/private")
async def private(current_session: NamedDependency[Session]) -> dict[str, Any]:
    return shown(current_session)


@get("/unused")
async def unused() -> dict[str, Any]:
    return {}


@get("/crash")
async def crash(optional_session: NamedDependency[Session | None]) -> None:
    raise ZeroDivisionError


@post("/crash")
async def crash_after_sign_in(auth_request: NamedDependency[AsyncAuthRequest[User]]) -> None:
    await auth_request.sign_in("ann")
    raise ZeroDivisionError


@get("/gone")
async def gone(optional_session: NamedDependency[Session | None]) -> None:
    raise NotFoundException


@get("/redirect", status_code=303)
async def redirect(optional_session: NamedDependency[Session | None]) -> Redirect:
    return Redirect("/who", status_code=303)


@get("/stream")
async def stream(optional_session: NamedDependency[Session | None]) -> Stream:
    async def parts() -> AsyncIterator[bytes]:
        for part in numbers():
            yield part

    return Stream(parts())


@get("/own-headers")
async def own_headers(optional_session: NamedDependency[Session | None]) -> Response[Any]:
    response: Response[Any] = Response({}, headers=OWN_HEADERS)
    response.set_cookie("theme", "dark")
    return response


@get("/slow")
async def slow(optional_session: NamedDependency[Session | None]) -> dict[str, Any]:
    await asyncio.sleep(0.2)
    return shown(optional_session)


app = Litestar(
    [
        who,
        private,
        unused,
        crash,
        crash_after_sign_in,
        gone,
        redirect,
        stream,
        own_headers,
        slow,
        web.router("/auth"),
    ],
    plugins=[web],
    openapi_config=None,
)
