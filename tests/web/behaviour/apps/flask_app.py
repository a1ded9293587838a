"""The application in Flask. Every second view is async."""

import time
from typing import Any

from flask import Flask, Response, abort, jsonify, redirect

from lucia.middleware.flask import FlaskAuth, current_session, login_required
from tests.web.behaviour.apps.stores import OWN_HEADERS, numbers, shown, sync_auth

app = Flask(__name__)
web = FlaskAuth(sync_auth(), app, forbid_cross_site=True, login_view="auth.log_in_page")
app.register_blueprint(web.blueprint(url_prefix="/auth"))


@app.get("/who")
def who() -> dict[str, Any]:
    return shown(web.optional_session())


@app.get("/private")
@login_required
async def private() -> dict[str, Any]:
    return shown(current_session)


@app.get("/unused")
def unused() -> dict[str, Any]:
    return {}


@app.get("/crash")
async def crash() -> dict[str, Any]:
    web.optional_session()
    raise ZeroDivisionError


@app.post("/crash")
def crash_after_sign_in() -> dict[str, Any]:
    web.request().sign_in("ann")
    raise ZeroDivisionError


@app.get("/gone")
async def gone() -> dict[str, Any]:
    web.optional_session()
    abort(404)


@app.get("/redirect")
def to_who() -> Any:
    web.optional_session()
    return redirect("/who", 303)


@app.get("/stream")
def stream() -> Response:
    web.optional_session()
    return Response(iter(numbers()))


@app.get("/own-headers")
def own_headers() -> Response:
    web.optional_session()
    response = jsonify({})
    response.headers.update(OWN_HEADERS)
    response.set_cookie("theme", "dark")
    return response


@app.get("/slow")
def slow() -> dict[str, Any]:
    session = web.optional_session()
    time.sleep(0.2)
    return shown(session)
