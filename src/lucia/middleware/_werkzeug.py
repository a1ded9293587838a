"""Code shared by Flask and Quart: errors of HTTP, and redirects to the login page.

Both have Werkzeug's requests and Flask's application.
"""

from inspect import signature
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from werkzeug.exceptions import HTTPException
from werkzeug.sansio.request import Request

from lucia._rules.redirects import login_location

__all__ = ["handle_http_error", "login_redirect"]


def handle_http_error(app: Any, context: Any, error: HTTPException) -> Any:
    """Return what the application's handler for this error returns; the error if it has none.

    Quart's handlers have to be awaited. Since Quart 0.23, and in Flask 3.2, the context comes
    first.
    """
    handle = app.handle_http_exception
    if len(signature(handle).parameters) == 1:
        return handle(error)
    return handle(context._get_current_object(), error)


def login_redirect(request: Request, login_url: str) -> str | None:
    """Return the URL of the login page that leads back to this request.

    None if the request is for the login page. If that needs a login itself, which is a mistake, it
    would redirect to itself for ever.
    """
    path = request.root_path + request.path
    login = urlsplit(login_url)
    if unquote(login.path) == path and login.netloc in ("", request.host):
        return None
    back = quote(path, safe="/:@!$&'()*+,;=")
    if request.query_string:
        back += "?" + request.query_string.decode("latin-1")
    return login_location(login_url, request.method, back)
