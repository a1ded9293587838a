"""The test clients that ``login`` knows: where each keeps its cookies and its headers.

No framework is imported: a client is recognised by its members.
"""

from collections.abc import Callable
from email.message import Message
from http.client import HTTPResponse
from http.cookiejar import CookieJar
from http.cookies import SimpleCookie
from inspect import iscoroutinefunction
from typing import Any, ClassVar, cast
from urllib.parse import urljoin
from urllib.request import Request

from lucia._rules.cookies import Cookie
from lucia._rules.origins import parse_origin

__all__ = ["KnownClient", "known_client"]


class KnownClient:
    """A client like those of httpx, Starlette, FastAPI, Litestar and requests.

    Args:
        client: the client.
        base_url: the URL of the application; None for that of the client.

    Raises:
        ValueError: the client has none, or it is not a URL.
    """

    ignores_secure: ClassVar[bool] = False
    """Whether the client sends Secure cookies by http too."""

    def __init__(self, client: Any, base_url: str | None) -> None:
        self.client = client
        self.url = base_url or self.own_url()
        origin = parse_origin(self.url)
        if origin is None:
            raise ValueError(
                f"base_url must be a URL such as 'http://testserver', not {base_url!r}"
                if base_url
                else "this client has no base_url: give login the application's address, "
                "such as base_url='http://testserver'"
            )
        self.origin = str(origin)

    @staticmethod
    def fits(client: Any) -> bool:
        """Return whether a client is of this kind."""
        return isinstance(_jar_of(client), CookieJar)

    def own_url(self) -> str:
        """Return the URL that the client's requests go to; empty if it has none."""
        return str(getattr(self.client, "base_url", ""))

    def log_in(self, cookie: Cookie) -> None:
        """Give the client a session cookie, and an Origin header that passes the origin check.

        An Origin header that the client has already stays.

        Raises:
            ValueError: the client would not send the cookie.
        """
        self.set_cookie(cookie)
        self.set_origin()

    def set_cookie(self, cookie: Cookie) -> None:
        """Do what the client does with a response that sets the cookie.

        So the application's own responses can replace and clear it.
        """
        self.receive(cookie, _jar_of(self.client))

    def receive(self, cookie: Cookie, jar: CookieJar) -> None:
        """Put a cookie into a jar as a response does.

        Raises:
            ValueError: the jar would not send it back.
        """
        url = self.url.replace("http://", "https://", 1) if self.ignores_secure else self.url
        jar.extract_cookies(cast("HTTPResponse", _Response(cookie)), Request(url))  # noqa: S310
        request = Request(urljoin(url, cookie.path))  # noqa: S310 -- nothing is opened
        jar.add_cookie_header(request)
        if f"{cookie.name}={cookie.value}" in (request.get_header("Cookie") or "").split("; "):
            return
        if cookie.secure and url.startswith("http://"):
            advice = "it is Secure, so the base URL must begin with https:// (or use env='DEV')"
        else:
            advice = "its domain, or the client's own policy for cookies, forbids it"
        raise ValueError(f"a client at {self.url} would not send this session cookie: {advice}")

    def set_origin(self) -> None:
        """Set the Origin header, unless the client has one."""
        self.client.headers.setdefault("Origin", self.origin)


class _QuartClient(KnownClient):
    """Quart's client, which has no headers of its own."""

    ignores_secure = True

    @staticmethod
    def fits(client: Any) -> bool:
        return hasattr(client, "cookie_jar") and hasattr(client, "websocket_connection_class")

    def own_url(self) -> str:
        return f"http://{self.client.app.config['SERVER_NAME'] or 'localhost'}"

    def set_cookie(self, cookie: Cookie) -> None:
        if self.client.cookie_jar is None:
            raise TypeError("this client keeps no cookies: create it without use_cookies=False")
        self.receive(cookie, self.client.cookie_jar)

    def set_origin(self) -> None:
        for name in ("http_connection_class", "websocket_connection_class"):
            connect = getattr(self.client, name)
            if not isinstance(connect, _QuartConnections):
                setattr(self.client, name, _QuartConnections(connect, self.origin))


class _FlaskClient(KnownClient):
    """Flask's client."""

    ignores_secure = True

    @staticmethod
    def fits(client: Any) -> bool:
        return hasattr(client, "environ_base")

    def own_url(self) -> str:
        config = self.client.application.config
        return f"{config['PREFERRED_URL_SCHEME']}://{config['SERVER_NAME'] or 'localhost'}"

    def set_cookie(self, cookie: Cookie) -> None:
        self.receive(cookie, CookieJar())  # to check the domain
        host = Request(self.url).host.partition(":")[0]  # noqa: S310 -- nothing is opened
        self.client.set_cookie(
            cookie.name,
            cookie.value,
            domain=cookie.domain or host,
            origin_only=cookie.domain is None,
            path=cookie.path,
        )

    def set_origin(self) -> None:
        self.client.environ_base.setdefault("HTTP_ORIGIN", self.origin)


class _DjangoClient(KnownClient):
    """Django's two clients, which send each cookie to any address."""

    @staticmethod
    def fits(client: Any) -> bool:
        return isinstance(getattr(client, "cookies", None), SimpleCookie)

    @property
    def is_async(self) -> bool:
        """Whether it is the ``AsyncClient``."""
        return iscoroutinefunction(self.client.request)

    def own_url(self) -> str:
        # The async client sends everything to "testserver".
        defaults: dict[str, Any] = {} if self.is_async else self.client.defaults
        host = defaults.get("HTTP_HOST") or defaults.get("SERVER_NAME", "testserver")
        return f"http://{host}"

    def set_cookie(self, cookie: Cookie) -> None:
        self.client.cookies[cookie.name] = cookie.value

    def set_origin(self) -> None:
        defaults = self.client.defaults
        # Upper case, as Django writes the names in headers=: only so can a request replace it.
        if not any(name.upper().removeprefix("HTTP_") == "ORIGIN" for name in defaults):
            defaults["ORIGIN" if self.is_async else "HTTP_ORIGIN"] = self.origin


def known_client(client: Any, base_url: str | None) -> KnownClient:
    """Return how to log a client in.

    Raises:
        TypeError: the client is of no kind that is known.
        ValueError: there is no base URL, or it is not a URL.
    """
    for kind in (_DjangoClient, _FlaskClient, _QuartClient, KnownClient):
        if kind.fits(client):
            return kind(client, base_url)
    raise TypeError(
        f"login does not know how to give a cookie to {type(client).__name__}: it knows the test "
        "clients of Starlette, FastAPI, Litestar, Flask, Quart and Django, httpx and requests"
    )


class _QuartConnections:
    """Makes the connections of Quart's client, with a default Origin header."""

    def __init__(self, connect: Callable[..., Any], origin: str) -> None:
        self._connect = connect
        self._header = (b"origin", origin.encode())

    def __call__(self, app: Any, scope: dict[str, Any], **options: Any) -> Any:
        if not any(name == b"origin" for name, _ in scope["headers"]):
            scope["headers"] = [*scope["headers"], self._header]
        return self._connect(app, scope, **options)


class _Response:
    """A response that sets a cookie, with what a cookie jar reads of it."""

    def __init__(self, cookie: Cookie) -> None:
        self._headers = Message()
        self._headers["Set-Cookie"] = cookie.serialize()

    def info(self) -> Message:
        return self._headers


def _jar_of(client: Any) -> Any:
    """Return the jar of a client like those of httpx and requests; else anything."""
    cookies = getattr(client, "cookies", None)
    return getattr(cookies, "jar", cookies)
