"""The application in WSGI, without a framework."""

import time
from collections.abc import Callable, Iterable
from typing import Any

from lucia import AuthRequest, NotAuthenticated, User
from lucia.middleware.accounts import AccountRoutes
from lucia.middleware.wsgi import LuciaMiddleware, auth_request
from tests.web.behaviour.apps.plain import (
    AFTER_VALIDATION,
    GONE,
    Answer,
    error_answer,
    find_route,
    json_answer,
    reply_answer,
    submission_of,
)
from tests.web.behaviour.apps.stores import shown, sync_auth

auth = sync_auth()
accounts = AccountRoutes(auth, "cookie")


def respond(environ: dict[str, Any], request: AuthRequest[User]) -> Answer:
    method, path = environ["REQUEST_METHOD"].replace("HEAD", "GET"), environ["PATH_INFO"]
    found = find_route(accounts.routes, method, path)
    if found is not None:
        route, handle = found
        submission = submission_of(
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0)),
            environ.get("CONTENT_TYPE", ""),
            environ.get("HTTP_ACCEPT", ""),
            environ.get("HTTP_USER_AGENT", ""),
            path,
            environ["QUERY_STRING"],
            handle,
        )
        return reply_answer(accounts.handle(route, request, submission))
    if path == "/unused":
        return json_answer({})
    if path == "/crash" and method == "POST":
        request.sign_in("ann")
    session = request.validate()
    if path == "/crash":
        raise ZeroDivisionError
    if path in AFTER_VALIDATION:
        return AFTER_VALIDATION[path]
    if path == "/private" and session is None:
        raise NotAuthenticated
    if path == "/slow":
        time.sleep(0.2)
    return json_answer(shown(session)) if path in ("/who", "/private", "/slow") else GONE


def application(environ: dict[str, Any], start_response: Callable[..., object]) -> Iterable[bytes]:
    try:
        answer = respond(environ, auth_request(auth, environ))
    except Exception as error:
        accept = environ.get("HTTP_ACCEPT", "")
        answer = error_answer(error, environ["REQUEST_METHOD"], environ["PATH_INFO"], accept)
    start_response(answer.line, list(answer.headers))
    return [] if environ["REQUEST_METHOD"] == "HEAD" else answer.body


app = LuciaMiddleware(application, auth=auth, forbid_cross_site=True)
