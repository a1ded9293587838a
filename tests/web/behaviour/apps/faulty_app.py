"""The application in WSGI with one fault, named by the environment: each breaks one promise."""

import os
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import parse_qs

import redis

from lucia import Auth, AuthRequest, StoreUnavailable, User
from lucia.adapters.memory import MemoryAdapter
from lucia.middleware.wsgi import LuciaMiddleware, auth_request
from tests.web.behaviour.apps import wsgi_app
from tests.web.behaviour.apps.stores import REDIS, sync_auth

Headers = list[tuple[str, str]]
Change = Callable[[str, str, Headers], Headers]
"""Takes the path, the status and the headers of a response, and returns other headers."""

FAULT = os.environ["BEHAVIOUR_FAULT"]
CLEARING = ("Set-Cookie", "auth_session=; Expires=Thu, 01 Jan 1970 00:00:00 GMT; Path=/")


def without_cookies(headers: Headers) -> Headers:
    return [(name, value) for name, value in headers if name.lower() != "set-cookie"]


def always_sets(path: str, status: str, headers: Headers) -> Headers:
    return [*headers, ("Set-Cookie", "auth_session=x")]


def loses_on_errors(path: str, status: str, headers: Headers) -> Headers:
    return without_cookies(headers) if status > "4" else headers


def loses_on_streams(path: str, status: str, headers: Headers) -> Headers:
    return without_cookies(headers) if path == "/stream" else headers


def forgets_vary(path: str, status: str, headers: Headers) -> Headers:
    return [(name, value) for name, value in headers if name.lower() != "vary"]


def clears_in_an_outage(path: str, status: str, headers: Headers) -> Headers:
    return [*headers, CLEARING] if status.startswith("503") else headers


def redirects_anywhere(path: str, status: str, headers: Headers) -> Headers:
    query = os.environ.get("BEHAVIOUR_QUERY", "")
    target = parse_qs(query).get("next", ["/"])[0]
    if path != "/auth/login":
        return headers
    return [(name, target if name == "Location" else value) for name, value in headers]


CHANGES: dict[str, Change] = {
    "always sets": always_sets,
    "loses on errors": loses_on_errors,
    "loses on streams": loses_on_streams,
    "forgets Vary": forgets_vary,
    "clears in an outage": clears_in_an_outage,
    "redirects anywhere": redirects_anywhere,
}


class Forgetful(AuthRequest[User]):
    """A request that takes an outage for a visitor."""

    __slots__ = ()

    def validate(self) -> Any:
        try:
            return super().validate()
        except StoreUnavailable:
            return None


def faulty_auth() -> Auth[User]:
    auth = sync_auth()
    if FAULT == "checks no origin":
        auth._csrf_protection = False
    if FAULT == "keeps sessions in memory":
        auth._use_adapters(MemoryAdapter(), auth._users)
    return auth


auth = faulty_auth()
wsgi_app.auth = auth
wsgi_app.accounts = type(wsgi_app.accounts)(auth, "cookie")
CLIENTS: list[Any] = []


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    os.environ["BEHAVIOUR_QUERY"] = environ["QUERY_STRING"]
    request: Any = auth_request(auth, environ)
    if FAULT == "takes an outage for a visitor":
        request.__class__ = Forgetful
    if FAULT == "leaks connections":
        CLIENTS.append(redis.Redis.from_url(REDIS))
        CLIENTS[-1].ping()
    if FAULT == "renews by logging in" and environ["PATH_INFO"] == "/who":
        session = request.validate()
        if session is not None and session.fresh:
            request.set_session(auth.create_session(session.user_id))
    if FAULT == "forgets to log out" and environ["PATH_INFO"] == "/auth/logout":
        request._known_id = None
    return wsgi_app.application(environ, start_response)


app_inside = LuciaMiddleware(application, auth=auth, forbid_cross_site=FAULT != "checks no origin")


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    def start(status: str, headers: Headers, exc_info: Any = None) -> Any:
        change = CHANGES.get(FAULT)
        changed = headers if change is None else change(environ["PATH_INFO"], status, headers)
        return start_response(status, changed, exc_info)

    return app_inside(environ, start)
