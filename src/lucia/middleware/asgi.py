"""Any ASGI application: a middleware that gives each request its ``AuthRequest`` and puts its cookies on the response.

Format: the ASGI HTTP and WebSocket specification, version 2 and 3. No framework is imported.
"""

from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any, Final, Generic, TypeVar

from lucia._async.auth import AsyncAuth
from lucia._async.request import AsyncAuthRequest, Transport
from lucia.context import REQUEST_HEADERS, RequestContext
from lucia.cookies import Cookie

UserT = TypeVar("UserT")

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]
RawHeaders = Iterable[tuple[bytes, bytes]]

_KEY: Final = "lucia.requests"
_READ: Final = {name.encode(): name for name in (*REQUEST_HEADERS, "host")}
_STARTS: Final = frozenset({"http.response.start", "websocket.accept", "websocket.http.response.start", "websocket.close"})
_REFUSED: Final = b"This request comes from another site."


class LuciaMiddleware:
    """Gives each HTTP request and each WebSocket an ``AuthRequest``, which :func:`auth_request` finds.

    Its cookies are set on whatever response the application sends: returned, streamed, or made by an exception handler. It works
    without a lifespan. Starlette's answer 500 lies outside of what ``add_middleware`` adds and would go without them: wrap the whole
    application, as the ``install`` methods for Starlette and FastAPI do.

    Args:
        app: the ASGI application.
        auth: the application's ``AsyncAuth``.
        transport: ``cookie``, or ``bearer`` for clients that are no browsers.
        forbid_cross_site: answer 403 to a request that fails the origin check, instead of treating it as a visitor's.
    """

    def __init__(self, app: ASGIApp, *, auth: AsyncAuth[Any], transport: Transport = "cookie", forbid_cross_site: bool = False) -> None:
        self.app = app
        self.auth = auth
        self.transport: Transport = transport
        self.forbid_cross_site = forbid_cross_site

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        response = _Response(send, can_deny="websocket.http.response" in (scope.get("extensions") or ()))
        exchange = _Exchange(self.auth, self.transport, response)
        others = scope.get(_KEY)
        scope[_KEY] = {**others, self.auth: exchange} if others else {self.auth: exchange}
        if self.forbid_cross_site and exchange.request(scope).origin_failure is not None:
            await _refuse(scope, send)
        else:
            await self.app(scope, receive, response.send)


def auth_request(auth: AsyncAuth[UserT], scope: Scope) -> AsyncAuthRequest[UserT]:
    """The ``AuthRequest`` for this request, the same one each time; who never asks for it pays nothing for it.

    Raises:
        RuntimeError: the middleware is not installed for this ``auth``.
    """
    exchanges: dict[AsyncAuth[Any], _Exchange[UserT]] = scope.get(_KEY, {})
    try:
        exchange = exchanges[auth]
    except KeyError:
        raise RuntimeError("LuciaMiddleware is not installed for this auth: add it to the application") from None
    return exchange.request(scope)


class _Exchange(Generic[UserT]):
    """A request whose ``AuthRequest`` is made when it is first asked for.

    Nothing here leads back to it, nor to the scope: cycles would leave each request to the garbage collector.
    """

    __slots__ = ("_auth", "_request", "_response", "_transport")

    def __init__(self, auth: AsyncAuth[UserT], transport: Transport, response: "_Response") -> None:
        self._auth = auth
        self._transport: Transport = transport
        self._response = response
        self._request: AsyncAuthRequest[UserT] | None = None

    def request(self, scope: Scope) -> AsyncAuthRequest[UserT]:
        """The ``AuthRequest``, the same one each time."""
        if self._request is None:
            self._request = self._auth.handle_request(_context(scope, self._response), self._transport)
        return self._request


class _Response:
    """What the library adds to the response, and whether it still can."""

    __slots__ = ("_can_deny", "_cookies", "_headers", "_send", "started")

    def __init__(self, send: Send, *, can_deny: bool) -> None:
        self._send = send
        self._can_deny = can_deny
        self._cookies: dict[str, bytes] = {}
        self._headers: dict[str, str] = {}
        self.started = False

    def can_set_cookie(self) -> bool:
        return not self.started

    def set_cookie(self, cookie: Cookie) -> None:
        if self.started:
            raise RuntimeError("the response has started meanwhile, so that no cookie can be set")
        self._cookies[cookie.name] = cookie.serialize().encode()

    def set_header(self, name: str, value: str) -> None:
        self._headers[name] = value

    def send(self, message: Message) -> Awaitable[None]:
        """What the application calls in the place of the server's ``send``."""
        if self.started or message["type"] not in _STARTS:
            return self._send(message)
        self.started = True
        if not self._cookies:
            return self._send(message)
        if message["type"] == "websocket.close":
            return self._close(message)
        return self._send({**message, "headers": self._with_cookies(message.get("headers", ()))})

    async def _close(self, message: Message) -> None:
        """Reject a WebSocket by a response that takes cookies, which says the same to the client, where the server can send one."""
        if not self._can_deny:
            await self._send(message)
            return
        headers = self._with_cookies([(b"content-length", b"0")])
        await self._send({"type": "websocket.http.response.start", "status": 403, "headers": headers})
        await self._send({"type": "websocket.http.response.body", "body": b""})

    def _with_cookies(self, headers: RawHeaders) -> list[tuple[bytes, bytes]]:
        kept = [(name, value) for name, value in headers if name.lower() != b"cache-control"]
        varies = {field.strip().lower() for name, value in kept if name.lower() == b"vary" for field in value.split(b",")}
        added = [(name.encode(), value.encode()) for name, value in self._headers.items() if value.lower().encode() not in varies]
        cookies = [(b"set-cookie", cookie) for cookie in self._cookies.values()]
        return kept + added + cookies


def _context(scope: Scope, response: _Response) -> RequestContext:
    headers: dict[str, list[str]] = {}
    host = ""
    for raw_name, raw_value in scope["headers"]:
        name = _READ.get(raw_name.lower())
        if name == "host":
            host = raw_value.decode("latin-1")
        elif name is not None:
            headers.setdefault(name, []).append(raw_value.decode("latin-1"))
    return RequestContext(
        method=scope.get("method", "GET"),
        url=f"{scope.get('scheme', 'http')}://{host or _server(scope)}/{scope['path'].removeprefix('/')}",
        headers=headers,
        set_cookie=response.set_cookie,
        set_header=response.set_header,
        is_websocket=scope["type"] == "websocket",
        can_set_cookie=response.can_set_cookie,
        client_address=(scope.get("client") or (None,))[0],
    )


def _server(scope: Scope) -> str:
    """Where the server listens, for a request without a Host header (HTTP/1.0)."""
    host, port = scope.get("server") or ("", None)
    bracketed = f"[{host}]" if ":" in host else host
    return bracketed if port is None else f"{bracketed}:{port}"


async def _refuse(scope: Scope, send: Send) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008, "reason": _REFUSED.decode()})
        return
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(_REFUSED)).encode())]
    await send({"type": "http.response.start", "status": 403, "headers": headers})
    await send({"type": "http.response.body", "body": _REFUSED})
