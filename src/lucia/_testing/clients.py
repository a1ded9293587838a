"""The test clients that ``login`` knows: where each keeps its cookies and its headers.

No framework is imported: a client is recognised by its members.
"""

from collections.abc import Callable
from email.message import Message
from http.client import HTTPResponse
from http.cookiejar import CookieJar
from http.cookies import SimpleCookie
from inspect import iscoroutinefunction
from typing import Any, cast
from urllib.request import Request

from lucia._rules.cookies import Cookie
from lucia._rules.origins import parse_origin

__all__ = ["base_url_of", "give_cookie", "set_origin"]


def base_url_of(client: Any, given: str | None) -> str:
    """Return the URL that the client's requests go to.

    Raises:
        ValueError: none was given and the client has none, or it is not a URL.
    """
    url = given or _base_url(client)
    if parse_origin(url) is None:
        raise ValueError(
            "this client has no base_url: give login the application's address, "
            "such as base_url='http://testserver'"
        )
    return url


def give_cookie(client: Any, cookie: Cookie, base_url: str) -> None:
    """Give a client a cookie as a response from ``base_url`` would.

    Later responses can then replace it.

    Raises:
        TypeError: the client is of no kind that is known.
        ValueError: the client would not send the cookie back.
    """
    if _is_django(client):
        client.cookies[cookie.name] = cookie.value
    elif _is_flask(client):
        host = Request(base_url).host.partition(":")[0]  # noqa: S310 -- nothing is opened
        client.set_cookie(
            cookie.name,
            cookie.value,
            domain=cookie.domain or host,
            origin_only=cookie.domain is None,
            path=cookie.path,
        )
    else:
        _give_to_jar(_jar_of(client), cookie, base_url)


def set_origin(client: Any, base_url: str) -> None:
    """Make a client send the Origin header of the application's own pages, unless it has one."""
    origin = str(parse_origin(base_url))
    if _is_django(client):
        # The async client takes names of headers, and the sync one those of WSGI.
        name = "origin" if iscoroutinefunction(client.request) else "HTTP_ORIGIN"
        client.defaults.setdefault(name, origin)
    elif _is_flask(client):
        client.environ_base.setdefault("HTTP_ORIGIN", origin)
    elif _is_quart(client):
        client.open = _with_origin(client.open, origin)
    else:
        client.headers.setdefault("Origin", origin)


def _is_django(client: Any) -> bool:
    return isinstance(getattr(client, "cookies", None), SimpleCookie)


def _is_flask(client: Any) -> bool:
    return hasattr(client, "environ_base")


def _is_quart(client: Any) -> bool:
    return hasattr(client, "cookie_jar") and hasattr(client, "app")


def _base_url(client: Any) -> str:
    if _is_django(client):
        return f"http://{client.defaults.get('SERVER_NAME', 'testserver')}"
    if _is_flask(client):
        config = client.application.config
        return f"{config['PREFERRED_URL_SCHEME']}://{config['SERVER_NAME'] or 'localhost'}"
    if _is_quart(client):
        return f"http://{client.app.config['SERVER_NAME'] or 'localhost'}"
    return str(getattr(client, "base_url", ""))


def _jar_of(client: Any) -> CookieJar:
    """Return the jar of a client like those of httpx, requests and Quart.

    Raises:
        TypeError: it has none.
    """
    cookies = client.cookie_jar if _is_quart(client) else getattr(client, "cookies", None)
    jar = getattr(cookies, "jar", cookies)
    if not isinstance(jar, CookieJar):
        raise TypeError(
            f"login does not know how to give a cookie to {type(client).__name__}: it knows the "
            "test clients of Starlette, FastAPI, Litestar, Flask, Quart and Django, httpx and "
            "requests"
        )
    return jar


def _give_to_jar(jar: CookieJar, cookie: Cookie, base_url: str) -> None:
    request = Request(base_url)  # noqa: S310 -- nothing is opened
    jar.extract_cookies(cast(HTTPResponse, _Response(cookie)), request)
    probe = Request(base_url)  # noqa: S310 -- nothing is opened
    jar.add_cookie_header(probe)
    if cookie.name not in (probe.get_header("Cookie") or ""):
        raise ValueError(
            f"a client at {base_url} would not send this session cookie: "
            "its domain, path or Secure attribute forbids it"
        )


def _with_origin(send: Callable[..., Any], origin: str) -> Callable[..., Any]:
    """Return Quart's ``client.open`` with a default header, which its client has no place for."""

    def opened(*args: Any, headers: Any = None, **kwargs: Any) -> Any:
        given = dict(headers or {})
        if not any(name.lower() == "origin" for name in given):
            given["Origin"] = origin
        return send(*args, headers=given, **kwargs)

    return opened


class _Response:
    """A response that sets a cookie, with what a cookie jar reads of it."""

    def __init__(self, cookie: Cookie) -> None:
        self._headers = Message()
        self._headers["Set-Cookie"] = cookie.serialize()

    def info(self) -> Message:
        return self._headers
