"""Redirects to the login page for Flask and Quart, whose requests are both Werkzeug's."""

from urllib.parse import quote, unquote, urlsplit

from werkzeug.sansio.request import Request

from lucia._rules.redirects import login_location

__all__ = ["login_redirect"]


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
