"""The cookie jar and headers of a test client, for ``login``.

Only what the clients of httpx, Starlette and requests have in common is used.
"""

from collections.abc import MutableMapping
from email.message import Message
from http.client import HTTPResponse
from http.cookiejar import CookieJar
from typing import Any, Protocol, cast
from urllib.request import Request

from lucia._rules.cookies import Cookie
from lucia._rules.origins import parse_origin


class CookieClient(Protocol):
    """The members of a client that ``login`` uses.

    ``httpx.Client``, ``httpx.AsyncClient``, Starlette's ``TestClient`` and ``requests.Session``
    have them.
    """

    @property
    def cookies(self) -> Any:
        """An ``http.cookiejar.CookieJar``, or an object that has one as ``jar``."""
        ...

    @property
    def headers(self) -> MutableMapping[str, str]:
        """Headers sent with every request."""
        ...


class _Response:
    """A response that sets a cookie, with what a cookie jar reads of it."""

    def __init__(self, cookie: Cookie) -> None:
        self._headers = Message()
        self._headers["Set-Cookie"] = cookie.serialize()

    def info(self) -> Message:
        return self._headers


def base_url_of(client: CookieClient, given: str | None) -> str:
    """Return the URL that the client's requests go to.

    Raises:
        ValueError: none was given and the client has none, or it is not a URL.
    """
    url = given or str(getattr(client, "base_url", ""))
    if parse_origin(url) is None:
        raise ValueError(
            "this client has no base_url: give login the application's address, "
            "such as base_url='http://testserver'"
        )
    return url


def give_cookie(client: CookieClient, cookie: Cookie, base_url: str) -> None:
    """Put a cookie into the client's jar as a response from ``base_url`` would.

    Later responses can then replace it.

    Raises:
        ValueError: the client would not send it back.
    """
    jar: CookieJar = getattr(client.cookies, "jar", client.cookies)
    request = Request(base_url)  # noqa: S310 -- nothing is opened
    jar.extract_cookies(cast(HTTPResponse, _Response(cookie)), request)
    probe = Request(base_url)  # noqa: S310 -- nothing is opened
    jar.add_cookie_header(probe)
    if cookie.name not in (probe.get_header("Cookie") or ""):
        raise ValueError(
            f"a client at {base_url} would not send this session cookie: "
            "its domain, path or Secure attribute forbids it"
        )


def set_origin(client: CookieClient, base_url: str) -> None:
    """Make the client send the Origin header of the application's own pages, unless it has one."""
    client.headers.setdefault("Origin", str(parse_origin(base_url)))
