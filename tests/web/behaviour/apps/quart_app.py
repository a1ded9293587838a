"""The application in Quart."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from quart import Quart, Response, abort, jsonify, redirect, request

from lucia.middleware.quart import QuartAuth, current_session, login_required
from tests.web.behaviour.apps.stores import OWN_HEADERS, async_auth, numbers, shown

app = Quart(__name__)
web = QuartAuth(async_auth(), app, forbid_cross_site=True, login_view="auth.log_in_page")
app.register_blueprint(web.blueprint(url_prefix="/auth"))


@app.get("/who")
async def who() -> dict[str, Any]:
    return shown(await current_session)


@app.get("/private")
@login_required
async def private() -> dict[str, Any]:
    return shown(await current_session)


@app.get("/unused")
async def unused() -> dict[str, Any]:
    return {}


@app.route("/crash", methods=["GET", "POST"])
async def crash() -> dict[str, Any]:
    if request.method == "POST":
        await web.request().sign_in("ann")
    await web.optional_session()
    raise ZeroDivisionError


@app.get("/gone")
async def gone() -> dict[str, Any]:
    await web.optional_session()
    abort(404)


@app.get("/redirect")
async def to_who() -> Any:
    await web.optional_session()
    return redirect("/who", 303)


@app.get("/stream")
async def stream() -> Any:
    await web.optional_session()

    async def parts() -> AsyncIterator[bytes]:
        for part in numbers():
            yield part

    return parts(), 200


@app.get("/own-headers")
async def own_headers() -> Response:
    await web.optional_session()
    response = jsonify({})
    response.headers.update(OWN_HEADERS)
    response.set_cookie("theme", "dark")
    return response


@app.get("/slow")
async def slow() -> dict[str, Any]:
    session = await web.optional_session()
    await asyncio.sleep(0.2)
    return shown(session)
