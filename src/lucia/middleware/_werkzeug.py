"""Code shared by Flask and Quart: proxies, errors of HTTP, redirects and responses.

Both have Werkzeug's requests and responses, and Flask's application.
"""

from collections.abc import Callable, Sequence
from inspect import signature
from typing import Any, Final, TypeVar, cast

from werkzeug.exceptions import HTTPException
from werkzeug.local import LocalProxy
from werkzeug.sansio.request import Request
from werkzeug.sansio.response import Response
from werkzeug.utils import redirect

from lucia._rules.accounts import Reply, to_json
from lucia._rules.pages import PAGE_HEADERS
from lucia._rules.redirects import below_root, login_location

__all__ = [
    "FORMS",
    "RequestProxy",
    "general_handler",
    "handle_http_error",
    "json_response",
    "login_redirect",
    "response_of",
]

ResponseT = TypeVar("ResponseT", bound=Response)

FORMS: Final = frozenset({"application/x-www-form-urlencoded", "multipart/form-data"})


class RequestProxy(LocalProxy[Any]):
    """A ``LocalProxy`` to a value of the request.

    That of Werkzeug is false if the value can't be read because of a ``RuntimeError``: an extension
    that is not installed would look like a visitor.
    """

    __slots__ = ()

    def __bool__(self) -> bool:
        return bool(self._get_current_object())


def handle_http_error(app: Any, context: Any, error: HTTPException) -> Any:
    """Return what the application's handler for this error returns; the error if it has none.

    Quart's handlers have to be awaited. Since Quart 0.23, and in Flask 3.2, the context comes
    first.
    """
    handle = app.handle_http_exception
    if len(signature(handle).parameters) == 1:
        return handle(error)
    return handle(context._get_current_object(), error)


def general_handler(app: Any, blueprints: Sequence[str]) -> Callable[[Exception], Any] | None:
    """Return the application's handler for ``Exception``, which one for ``LuciaError`` hides."""
    for name in (*blueprints, None):
        handler: Any = app.error_handler_spec[name][None].get(Exception)
        if handler is not None:
            return cast("Callable[[Exception], Any]", handler)
    return None


def login_redirect(
    request: Request, login_view: str | None, url_for: Callable[[str], str]
) -> str | None:
    """Return the URL of the login page that leads back to this request.

    None if there is no such page, or this is it.

    Args:
        request: the request.
        login_view: the endpoint of the page, or its URL.
        url_for: returns the URL of an endpoint.
    """
    if login_view is None:
        return None
    is_url = login_view.startswith(("/", "http://", "https://"))
    return login_location(
        below_root(login_view, request.root_path) if is_url else url_for(login_view),
        method=request.method,
        path=request.root_path + request.path,
        query=request.query_string.decode("latin-1"),
        host=request.host,
    )


def response_of(make: Callable[..., ResponseT], reply: Reply) -> ResponseT:
    """Return the framework's response for what a ready route responds."""
    if reply.location is not None:
        response: Any = redirect(reply.location, reply.status, cast("Any", make))
    elif reply.html is not None:
        response = make(reply.html, reply.status, dict(PAGE_HEADERS))
    elif reply.status == 204:
        response = make(status=204)
    else:
        response = json_response(make, reply.content, reply.status)
    response.headers.update(dict(reply.headers))  # older Werkzeugs know no other mapping
    return cast("ResponseT", response)


def json_response(make: Callable[..., ResponseT], content: object, status: int) -> ResponseT:
    """Return the framework's response with JSON."""
    return make(to_json(content), status, mimetype="application/json")
