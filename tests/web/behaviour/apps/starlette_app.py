"""The application in Starlette."""

import asyncio
from collections.abc import AsyncIterator

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

from lucia.middleware.starlette import StarletteAuth
from tests.web.behaviour.apps.stores import OWN_HEADERS, async_auth, numbers, shown

web = StarletteAuth(async_auth(), forbid_cross_site=True, login_url="/auth/login")


async def who(request: Request) -> Response:
    return JSONResponse(shown(await web.optional_session(request)))


async def private(request: Request) -> Response:
    return JSONResponse(shown(await web.session(request)))


async def unused(request: Request) -> Response:
    return JSONResponse({})


async def crash(request: Request) -> Response:
    if request.method == "POST":
        await web.request(request).sign_in("ann")
    await web.optional_session(request)
    raise ZeroDivisionError


async def gone(request: Request) -> Response:
    await web.optional_session(request)
    raise HTTPException(404)


async def redirect(request: Request) -> Response:
    await web.optional_session(request)
    return RedirectResponse("/who", 303)


async def stream(request: Request) -> Response:
    await web.optional_session(request)

    async def parts() -> AsyncIterator[bytes]:
        for part in numbers():
            yield part

    return StreamingResponse(parts())


async def own_headers(request: Request) -> Response:
    await web.optional_session(request)
    response = JSONResponse({}, headers=OWN_HEADERS)
    response.set_cookie("theme", "dark")
    return response


async def slow(request: Request) -> Response:
    session = await web.optional_session(request)
    await asyncio.sleep(0.2)
    return JSONResponse(shown(session))


app = Starlette(
    routes=[
        Route("/who", who),
        Route("/private", private),
        Route("/unused", unused),
        Route("/crash", crash, methods=["GET", "POST"]),
        Route("/gone", gone),
        Route("/redirect", redirect),
        Route("/stream", stream),
        Route("/own-headers", own_headers),
        Route("/slow", slow),
        *web.routes(prefix="/auth"),
    ]
)
web.install(app)
