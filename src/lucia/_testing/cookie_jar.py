"""A test client's cookie jar and headers, for ``login``: what httpx's, Starlette's and requests' clients have in common."""

from collections.abc import MutableMapping
from email.message import Message
from http.client import HTTPResponse
from http.cookiejar import CookieJar
from typing import Any, Protocol, cast
from urllib.request import Request

from lucia._rules.cookies import Cookie
from lucia._rules.origins import parse_origin


class CookieClient(Protocol):
    """What ``login`` needs of a client: ``httpx.Client``, ``httpx.AsyncClient``, Starlette's ``TestClient``, ``requests.Session``."""

    @property
    def cookies(self) -> Any:
        """A ``http.cookiejar.CookieJar``, or an object that has one as ``jar``."""
        ...

    @property
    def headers(self) -> MutableMapping[str, str]:
        """Headers that go with every request."""
        ...


class _Answer:
    """The response that sets a cookie, as far as a cookie jar looks at it."""

    def __init__(self, cookie: Cookie) -> None:
        self._headers = Message()
        self._headers["Set-Cookie"] = cookie.serialize()

    def info(self) -> Message:
        return self._headers


def base_url_of(client: CookieClient, given: str | None) -> str:
    """The URL that the client's requests go to.

    Raises:
        ValueError: it was not given, and the client has none; or it is no URL.
    """
    url = given or str(getattr(client, "base_url", ""))
    if parse_origin(url) is None:
        raise ValueError(
            "this client has no base_url: give login the application's address, such as base_url='http://testserver'"
        )
    return url


def give_cookie(client: CookieClient, cookie: Cookie, base_url: str) -> None:
    """Put a cookie into the client's jar as a response from ``base_url`` would, so that later responses can replace it.

    Raises:
        ValueError: the client would not send it back.
    """
    jar: CookieJar = getattr(client.cookies, "jar", client.cookies)
    request = Request(base_url)  # noqa: S310 -- nothing is opened
    jar.extract_cookies(cast(HTTPResponse, _Answer(cookie)), request)
    probe = Request(base_url)  # noqa: S310 -- nothing is opened
    jar.add_cookie_header(probe)
    if cookie.name not in (probe.get_header("Cookie") or ""):
        raise ValueError(
            f"a client at {base_url} would not send this session cookie: its domain, path or Secure attribute forbids it"
        )


def set_origin(client: CookieClient, base_url: str) -> None:
    """Send the Origin header of the application's own pages with every request, unless the client has one already."""
    client.headers.setdefault("Origin", str(parse_origin(base_url)))
