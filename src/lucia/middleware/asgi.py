"""Any ASGI application: a middleware that gives each request its ``AuthRequest`` and puts its cookies on the response.

Format: the ASGI HTTP and WebSocket specification, version 2 and 3. No framework is imported.
"""

import json
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from contextlib import suppress
from typing import Any, Final, TypeVar

from lucia._async.auth import AsyncAuth
from lucia._async.request import AsyncAuthRequest, Transport
from lucia._rules.cookies import Cookie
from lucia._rules.requests import REQUEST_HEADERS

UserT = TypeVar("UserT")

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]
RawHeaders = Iterable[tuple[bytes, bytes]]

_KEY: Final = "lucia.requests"
_READ: Final = {name.encode(): name for name in REQUEST_HEADERS}
_STARTS: Final = frozenset(
    {"http.response.start", "websocket.accept", "websocket.http.response.start", "websocket.close"}
)

FOREIGN_REQUEST: Final = "This request comes from another site."
"""The message to a client whose request failed the origin check."""

TRY_AGAIN_LATER: Final = 1013
"""The code that closes a WebSocket which can't be served now, in IANA's registry of such codes."""


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
        validate_ahead: ask for the session of each request that carries a possible id before the application sees it, in place of when it
            asks: where nearly every route asks, a request then waits while it is small, which saves much of its time. A store that fails
            fails for who asks, and not before.

    Raises:
        TypeError: ``auth`` is no ``AsyncAuth``.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        auth: AsyncAuth[Any],
        transport: Transport = "cookie",
        forbid_cross_site: bool = False,
        validate_ahead: bool = False,
    ) -> None:
        check_auth(auth)
        self.app = app
        self.auth = auth
        self.transport: Transport = transport
        self.forbid_cross_site = forbid_cross_site
        self.validate_ahead = validate_ahead

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        exchange = _Exchange(scope)
        request = self.auth.handle_request(exchange, self.transport)
        others = scope.get(_KEY)
        scope[_KEY] = {**others, self.auth: request} if others else {self.auth: request}
        if self.forbid_cross_site and request.origin_failure is not None:
            await _refuse(scope, send)
            return
        if self.validate_ahead:
            with suppress(Exception):  # who asks is the one to learn of it
                await request.validate()
        await self.app(scope, receive, _Sender(exchange, scope, send))


def auth_request(auth: AsyncAuth[UserT], scope: Scope) -> AsyncAuthRequest[UserT]:
    """The ``AuthRequest`` that the middleware made for this request.

    Raises:
        RuntimeError: the middleware is not installed for this ``auth``.
    """
    requests: dict[AsyncAuth[Any], AsyncAuthRequest[UserT]] = scope.get(_KEY, {})
    try:
        return requests[auth]
    except KeyError:
        raise RuntimeError(
            "LuciaMiddleware is not installed for this auth: add it to the application"
        ) from None


def check_auth(auth: object) -> None:
    """Refuse a sync ``Auth``, whose answers could not be awaited.

    Raises:
        TypeError: it is no ``AsyncAuth``.
    """
    if not isinstance(auth, AsyncAuth):
        kind = type(auth).__name__
        reason = "ASGI applications are async, so make an AsyncAuth over an async adapter"
        raise TypeError(f"auth must be an AsyncAuth, not {kind}: {reason}")


class _Exchange:
    """One request, whose headers are looked at when they are asked for; what the library adds to its response, and whether it still can.

    The scope leads to it, so it holds neither the scope nor the server's ``send``, which leads there: each request would be a cycle, and
    left to the garbage collector, which then is at work all the time.
    """

    __slots__ = (
        "_client",
        "_path",
        "_scheme",
        "_sent",
        "_server",
        "cookies",
        "is_websocket",
        "method",
        "set_headers",
        "started",
    )

    def __init__(self, scope: Scope) -> None:
        self.method: str = scope.get("method", "GET")
        self.is_websocket = scope["type"] == "websocket"
        self.started = False
        self.cookies: dict[str, bytes] = {}
        self.set_headers: dict[str, str] = {}
        self._sent: RawHeaders = scope["headers"]
        self._scheme: str = scope.get("scheme", "http")
        self._path: str = scope["path"]
        self._server: Any = scope.get("server")
        self._client: Any = scope.get("client")

    @property
    def headers(self) -> dict[str, list[str]]:
        """Those that the library reads."""
        headers: dict[str, list[str]] = {}
        for raw_name, raw_value in self._sent:
            name = _READ.get(raw_name.lower())
            if name is not None:
                headers.setdefault(name, []).append(raw_value.decode("latin-1"))
        return headers

    @property
    def url(self) -> str:
        """By the Host header; without one, as in HTTP/1.0, by where the server listens."""
        hosts = [value.decode("latin-1") for name, value in self._sent if name.lower() == b"host"]
        return f"{self._scheme}://{(hosts and hosts[-1]) or _address(self._server)}/{self._path.removeprefix('/')}"

    @property
    def client_address(self) -> str | None:
        """Where the request came from."""
        return (self._client or (None,))[0]

    def can_set_cookie(self) -> bool:
        return not self.started

    def set_cookie(self, cookie: Cookie) -> None:
        if self.started:
            raise RuntimeError("the response has started meanwhile, so that no cookie can be set")
        self.cookies[cookie.name] = cookie.serialize().encode()

    def set_header(self, name: str, value: str) -> None:
        self.set_headers[name] = value

    def with_cookies(self, headers: RawHeaders) -> list[tuple[bytes, bytes]]:
        """The response's headers, and what the library adds to them."""
        kept = [(name, value) for name, value in headers if name.lower() != b"cache-control"]
        varies = {
            field.strip().lower()
            for name, value in kept
            if name.lower() == b"vary"
            for field in value.split(b",")
        }
        added = [
            (name.encode(), value.encode())
            for name, value in self.set_headers.items()
            if value.lower().encode() not in varies
        ]
        cookies = [(b"set-cookie", cookie) for cookie in self.cookies.values()]
        return kept + added + cookies


class _Sender:
    """What the application calls in the place of the server's ``send``."""

    __slots__ = ("_exchange", "_scope", "_send")

    def __init__(self, exchange: _Exchange, scope: Scope, send: Send) -> None:
        self._exchange = exchange
        self._scope = scope
        self._send = send

    def __call__(self, message: Message) -> Awaitable[None]:
        exchange = self._exchange
        if exchange.started or message["type"] not in _STARTS:
            return self._send(message)
        exchange.started = True
        if message["type"] == "websocket.close":
            return self._close(message)
        if not exchange.cookies:
            return self._send(message)
        return self._send({**message, "headers": exchange.with_cookies(message.get("headers", ()))})

    async def _close(self, message: Message) -> None:
        """Reject a WebSocket, by a response of ours where the server can send one and it says more than the close.

        For a close the server answers 403 without cookies, whatever its code is.
        """
        is_temporary = message.get("code") == TRY_AGAIN_LATER
        says_more = is_temporary or self._exchange.cookies
        if not says_more or "websocket.http.response" not in (self._scope.get("extensions") or ()):
            await self._send(message)
            return
        status = 503 if is_temporary else 403
        headers = self._exchange.with_cookies([(b"content-length", b"0")])
        await self._send(
            {"type": "websocket.http.response.start", "status": status, "headers": headers}
        )
        await self._send({"type": "websocket.http.response.body", "body": b""})


def _address(server: tuple[str, int | None] | None) -> str:
    host, port = server or ("", None)
    bracketed = f"[{host}]" if ":" in host else host
    return bracketed if port is None else f"{bracketed}:{port}"


async def _refuse(scope: Scope, send: Send) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008, "reason": FOREIGN_REQUEST})
        return
    body = json.dumps({"detail": FOREIGN_REQUEST}, separators=(",", ":")).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 403, "headers": headers})
    await send({"type": "http.response.body", "body": body})
