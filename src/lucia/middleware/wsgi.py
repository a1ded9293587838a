"""The middleware for any WSGI application.

It gives each request an ``AuthRequest`` and puts its cookies on the response. Format: PEP 3333. No
framework is imported.
"""

from collections.abc import Callable, Iterable
from typing import Any, Final

from lucia._rules.accounts import ErrorDetail, to_json
from lucia._rules.requests import REQUEST_HEADERS, Transport, check_transport
from lucia._rules.responses import response_for
from lucia._sync.auth import Auth
from lucia._sync.request import AuthRequest
from lucia._typing import UserIdT, UserT
from lucia.errors import InvalidRequest
from lucia.middleware._exchange import Exchange

__all__ = ["LuciaMiddleware", "WSGIExchange", "auth_request", "check_auth"]

Environ = dict[str, Any]
StartResponse = Callable[..., Any]
WSGIApp = Callable[[Environ, StartResponse], Iterable[bytes]]

_KEY: Final = "lucia.requests"
META_KEYS: Final = {name: f"HTTP_{name.upper().replace('-', '_')}" for name in REQUEST_HEADERS}
"""The keys of the request headers that the library reads, by the names of the headers."""


class LuciaMiddleware:
    """Gives each request an ``AuthRequest``; see :func:`auth_request`.

    Its cookies are put on whatever response the application starts.

    Args:
        app: the WSGI application.
        auth: the application's ``Auth``.
        transport: ``cookie``, ``bearer`` for clients that are not browsers, or ``both``.
        forbid_cross_site: respond 403 to a request that fails the origin check, instead of treating
            it as a visitor's.

    Raises:
        TypeError: ``auth`` is not an ``Auth``.
    """

    def __init__(
        self,
        app: WSGIApp,
        *,
        auth: Auth[Any, Any, Any],
        transport: Transport = "cookie",
        forbid_cross_site: bool = False,
    ) -> None:
        check_auth(auth)
        check_transport(transport)
        self.app = app
        self.auth = auth
        self.transport: Transport = transport
        self.forbid_cross_site = forbid_cross_site

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        exchange = WSGIExchange(environ)
        request = self.auth.handle_request(exchange, self.transport)
        if self.forbid_cross_site and request.is_cross_site:
            return _refuse(start_response, self.transport)
        environ[_KEY] = {**environ.get(_KEY, {}), self.auth: request}

        def start(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
            exchange.started = True
            sent = headers if exchange.varies is None else exchange.merged(headers)
            return start_response(status, sent, exc_info)

        return self.app(environ, start)


def auth_request(auth: Auth[UserT, UserIdT, Any], environ: Environ) -> AuthRequest[UserT, UserIdT]:
    """Return the ``AuthRequest`` that the middleware made for this request.

    Raises:
        RuntimeError: the middleware is not installed for this ``auth``.
    """
    try:
        request: AuthRequest[UserT, UserIdT] = environ[_KEY][auth]
    except KeyError:
        raise RuntimeError(
            "LuciaMiddleware is not installed for this auth: "
            "wrap the application, as in app = LuciaMiddleware(app, auth=auth)"
        ) from None
    return request


def check_auth(auth: object) -> None:
    """Refuse an ``AsyncAuth``, whose results would have to be awaited.

    Raises:
        TypeError: it is not an ``Auth``.
    """
    if not isinstance(auth, Auth):
        kind = type(auth).__name__
        reason = "WSGI applications are sync, so make an Auth over a sync adapter"
        raise TypeError(f"auth must be an Auth, not {kind}: {reason}")


class WSGIExchange(Exchange):
    """One request of WSGI."""

    __slots__ = ("client_address", "headers", "method", "url")

    def __init__(self, environ: Environ) -> None:
        super().__init__()
        self.method: str = environ["REQUEST_METHOD"]
        # Servers join headers of one name by commas. A session id has none, so that the id of a
        # second Cookie header is not found, as in the frameworks; two origins are none.
        self.headers = {name: [environ[key]] for name, key in META_KEYS.items() if key in environ}
        host = environ.get("HTTP_HOST") or _address(environ["SERVER_NAME"], environ["SERVER_PORT"])
        self.url = f"{environ['wsgi.url_scheme']}://{host}/"
        self.client_address: str | None = environ.get("REMOTE_ADDR") or None


def _address(name: str, port: str) -> str:
    # Servers give an address of IPv6 as it is, or in the brackets that a URL needs.
    return f"[{name.strip('[]')}]:{port}" if ":" in name else f"{name}:{port}"


def _refuse(start_response: StartResponse, transport: Transport) -> Iterable[bytes]:
    response = response_for(InvalidRequest(), transport)
    body = to_json(ErrorDetail(response.detail))
    headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
    start_response("403 Forbidden", headers)
    return [body]
