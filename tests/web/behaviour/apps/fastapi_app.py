"""The application in FastAPI. Every second route is a plain function, which runs in a thread."""

import time
from collections.abc import Iterator
from typing import Annotated, Any

from fastapi import Depends, FastAPI, HTTPException, Response
from fastapi.responses import RedirectResponse, StreamingResponse

from lucia import AsyncAuthRequest, Session, User
from lucia.middleware.fastapi import FastAPIAuth, ThreadAuthRequest
from tests.web.behaviour.apps.stores import OWN_HEADERS, async_auth, numbers, shown

web = FastAPIAuth(async_auth(), forbid_cross_site=True, login_url="/auth/login")
app = FastAPI()
web.install(app)
app.include_router(web.router(prefix="/auth"))

Visitor = Annotated[Session | None, Depends(web.optional_session)]
ThreadRequest = Annotated[ThreadAuthRequest[User], Depends(web.sync_request)]


@app.api_route("/who", methods=["GET", "HEAD"])
async def who(session: Visitor) -> dict[str, Any]:
    return shown(session)


@app.get("/private")
def private(session: Annotated[Session, Depends(web.session)]) -> dict[str, Any]:
    return shown(session)


@app.get("/unused")
async def unused(request: Annotated[AsyncAuthRequest[User], Depends(web.request)]) -> None:
    pass


@app.get("/crash")
async def crash(session: Visitor) -> None:
    raise ZeroDivisionError


@app.post("/crash")
def crash_after_sign_in(request: ThreadRequest) -> None:
    request.sign_in("ann")
    raise ZeroDivisionError


@app.get("/gone")
def gone(request: ThreadRequest) -> None:
    request.validate()
    raise HTTPException(404)


@app.get("/redirect")
async def redirect(session: Visitor) -> Response:
    return RedirectResponse("/who", 303)


@app.get("/stream")
def stream(request: ThreadRequest) -> Response:
    request.validate()

    def parts() -> Iterator[bytes]:
        yield from numbers()

    return StreamingResponse(parts())


@app.get("/own-headers")
async def own_headers(session: Visitor, response: Response) -> None:
    response.headers.update(OWN_HEADERS)
    response.set_cookie("theme", "dark")


@app.get("/slow")
def slow(session: Visitor) -> dict[str, Any]:
    time.sleep(0.2)
    return shown(session)
