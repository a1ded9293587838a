"""The middleware for any ASGI application.

It gives each request an ``AuthRequest`` and puts its cookies on the response. Format: ASGI HTTP and
WebSocket specification, versions 2 and 3. No framework is imported.
"""

import json
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from contextlib import suppress
from inspect import unwrap
from typing import Any, Final, NamedTuple

from lucia._async.auth import AsyncAuth
from lucia._async.request import AsyncAuthRequest
from lucia._rules.requests import REQUEST_HEADERS, Transport, check_transport
from lucia._rules.responses import TRY_AGAIN_LATER, ErrorResponse, response_for
from lucia._typing import UserIdT, UserT
from lucia.errors import InvalidRequest
from lucia.middleware._exchange import Exchange
from lucia.models import Session, SessionUser

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]
RawHeaders = Iterable[tuple[bytes, bytes]]

_KEY: Final = "lucia.requests"
_HEADER_NAMES: Final = {name.encode(): name for name in REQUEST_HEADERS}
_STARTS: Final = frozenset(
    {"http.response.start", "websocket.accept", "websocket.http.response.start", "websocket.close"}
)


_Find = Callable[[AsyncAuthRequest[Any, Any]], Awaitable[Any]]
_validate: Final[_Find] = unwrap(AsyncAuthRequest[Any, Any].validate)
_validate_user: Final[_Find] = unwrap(AsyncAuthRequest[Any, Any].validate_user)


class LuciaMiddleware:
    """Gives each HTTP request and each WebSocket an ``AuthRequest``; see :func:`auth_request`.

    Its cookies are put on whatever response the application sends: returned, streamed, or made by
    an exception handler. No lifespan is needed. Starlette's response 500 is made outside of what
    ``add_middleware`` adds and would lack them: wrap the whole application, as the ``install``
    methods for Starlette and FastAPI do.

    Args:
        app: the ASGI application.
        auth: the application's ``AsyncAuth``.
        transport: ``cookie``, ``bearer`` for clients that are not browsers, or ``both``.
        forbid_cross_site: respond 403 to a request that fails the origin check, instead of treating
            it as a visitor's.
        validate_ahead: validate before the application runs, and so before the framework makes its
            objects for the request, which the garbage collector would look at meanwhile. It pays if
            nearly every route needs the session. After a store error the route asks the store
            again, and so may wait for its deadline a second time.

    Raises:
        TypeError: ``auth`` is not an ``AsyncAuth``.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        auth: AsyncAuth[Any, Any, Any],
        transport: Transport = "cookie",
        forbid_cross_site: bool = False,
        validate_ahead: bool = False,
    ) -> None:
        check_auth(auth)
        check_transport(transport)
        self.app = app
        self.auth = auth
        self.transport: Transport = transport
        self.forbid_cross_site = forbid_cross_site
        self.validate_ahead = validate_ahead

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # Servers look at this method to tell ASGI 3 from ASGI 2, so it has to be a coroutine.
        await self.handle(scope, receive, send)

    def handle(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Return the application's own awaitable, which saves a coroutine for each request."""
        if scope["type"] not in ("http", "websocket"):
            return self.app(scope, receive, send)
        exchange = ASGIExchange(scope)
        request = self.auth.handle_request(exchange, self.transport)
        outer = scope.get(_KEY)
        scope[_KEY] = {**outer, self.auth: request} if outer else {self.auth: request}
        sender = ASGISender(exchange, scope, send)
        if self.forbid_cross_site or self.validate_ahead:
            return self._check_first(request, scope, receive, sender)
        return self.app(scope, receive, sender)

    async def _check_first(
        self, request: AsyncAuthRequest[Any, Any], scope: Scope, receive: Receive, send: Send
    ) -> None:
        if self.forbid_cross_site and request.is_cross_site:
            await _refuse(scope, send, response_for(InvalidRequest(), self.transport))
            return
        if self.validate_ahead:
            with suppress(Exception):  # the route will ask the store again
                await request.validate()
        await self.app(scope, receive, send)


def auth_request(
    auth: AsyncAuth[UserT, UserIdT, Any], scope: Scope
) -> AsyncAuthRequest[UserT, UserIdT]:
    """Return the ``AuthRequest`` that the middleware made for this request.

    Raises:
        RuntimeError: the middleware is not installed for this ``auth``.
    """
    try:
        request: AsyncAuthRequest[UserT, UserIdT] = scope[_KEY][auth]
    except KeyError:
        raise RuntimeError(
            "the auth is not installed in this application: add web.install(app), "
            "or in an application without a framework LuciaMiddleware(app, auth=auth)"
        ) from None
    return request


# For integrations that await them at once: without the check that they are awaited.


def find_session(request: AsyncAuthRequest[Any, UserIdT]) -> Awaitable[Session[UserIdT] | None]:
    """Return what ``request.validate()`` returns."""
    return _validate(request)


def find_session_user(
    request: AsyncAuthRequest[UserT, UserIdT],
) -> Awaitable[SessionUser[UserT, UserIdT] | None]:
    """Return what ``request.validate_user()`` returns."""
    return _validate_user(request)


def check_auth(auth: object) -> None:
    """Refuse a sync ``Auth``, whose results can't be awaited.

    Raises:
        TypeError: it is not an ``AsyncAuth``.
    """
    if not isinstance(auth, AsyncAuth):
        kind = type(auth).__name__
        reason = "ASGI applications are async, so make an AsyncAuth over an async adapter"
        raise TypeError(f"auth must be an AsyncAuth, not {kind}: {reason}")


class ASGIExchange(Exchange):
    """One request of ASGI. It must not refer to the server's ``send`` either."""

    __slots__ = (
        "_client",
        "_path",
        "_raw_headers",
        "_scheme",
        "_server",
        "is_websocket",
        "method",
    )

    def __init__(self, scope: Scope) -> None:
        super().__init__()
        self.method: str = scope.get("method", "GET")
        self.is_websocket = scope["type"] == "websocket"
        headers: RawHeaders = scope["headers"]
        if not isinstance(headers, list):
            # ASGI allows an iterator, which would then be empty for the application.
            headers = scope["headers"] = list(headers)
        self._raw_headers = headers
        self._scheme: str = scope.get("scheme", "http")
        self._path: str = scope["path"]
        self._server: Any = scope.get("server")
        self._client: Any = scope.get("client")

    @property
    def headers(self) -> dict[str, list[str]]:
        """The headers that the library reads."""
        headers: dict[str, list[str]] = {}
        for raw_name, raw_value in self._raw_headers:
            name = _HEADER_NAMES.get(raw_name.lower())
            if name is not None:
                headers.setdefault(name, []).append(raw_value.decode("latin-1"))
        return headers

    @property
    def url(self) -> str:
        """The URL, from the Host header; without one (HTTP/1.0), from the server's address."""
        hosts = [
            value.decode("latin-1") for name, value in self._raw_headers if name.lower() == b"host"
        ]
        host = (hosts and hosts[-1]) or _address(self._server)
        return f"{self._scheme}://{host}/{self._path.removeprefix('/')}"

    @property
    def client_address(self) -> str | None:
        """The address that the server says the request came from."""
        return (self._client or (None,))[0]

    def merged_raw(self, headers: RawHeaders) -> list[tuple[bytes, bytes]]:
        """Return the response's headers and those that the library adds."""
        headers = list(headers)
        if self.varies is None:
            return headers
        if not self.cookies and not any(name.lower() == b"vary" for name, _ in headers):
            # What nearly every response needs, without the work below.
            return [*headers, (b"vary", self.varies.encode())]
        texts = ((name.decode("latin-1"), value.decode("latin-1")) for name, value in headers)
        return [
            (name.encode("latin-1"), value.encode("latin-1")) for name, value in self.merged(texts)
        ]


class RequestState(NamedTuple):
    """The state of an integration for one request: its exchange and its ``AuthRequest``."""

    exchange: ASGIExchange
    request: AsyncAuthRequest[Any, Any]


class ASGISender:
    """The ``send`` that the application calls instead of the server's."""

    __slots__ = ("_exchange", "_scope", "_send")

    def __init__(self, exchange: ASGIExchange, scope: Scope, send: Send) -> None:
        self._exchange = exchange
        self._scope = scope
        self._send = send

    def __call__(self, message: Message) -> Awaitable[None]:
        exchange = self._exchange
        if exchange.started or message["type"] not in _STARTS:
            return self._send(message)
        # Before the message is sent: meanwhile another task could set a cookie that would be lost.
        exchange.started = True
        if message["type"] == "websocket.close":
            return self._close(message)
        if exchange.varies is None:
            return self._send(message)
        return self._send({**message, "headers": exchange.merged_raw(message.get("headers", ()))})

    async def _close(self, message: Message) -> None:
        """Reject a WebSocket before it is accepted.

        The server turns a close into a 403 without cookies, whatever its code is. So respond
        directly if there is a cookie or the status is another one, and the server can do it.
        """
        is_temporary = message.get("code") == TRY_AGAIN_LATER
        says_more = is_temporary or self._exchange.cookies
        if not says_more or "websocket.http.response" not in (self._scope.get("extensions") or ()):
            await self._send(message)
            return
        status = 503 if is_temporary else 403
        headers = self._exchange.merged_raw([(b"content-length", b"0")])
        await self._send(
            {"type": "websocket.http.response.start", "status": status, "headers": headers}
        )
        await self._send({"type": "websocket.http.response.body", "body": b"", "more_body": False})


def _address(server: tuple[str, int | None] | None) -> str:
    host, port = server or ("", None)
    bracketed = f"[{host}]" if ":" in host else host
    return bracketed if port is None else f"{bracketed}:{port}"


async def _refuse(scope: Scope, send: Send, response: ErrorResponse) -> None:
    if scope["type"] == "websocket":
        code, reason = response.close_code, response.close_reason
        await send({"type": "websocket.close", "code": code, "reason": reason})
        return
    body = json.dumps({"detail": response.detail}, separators=(",", ":")).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": response.status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})
