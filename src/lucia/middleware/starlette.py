"""Starlette: the middleware, answers to the library's errors, and what routes ask for."""

from typing import Any, Final, Generic

try:
    from starlette.applications import Starlette
    from starlette.requests import HTTPConnection
    from starlette.responses import JSONResponse
    from starlette.websockets import WebSocket
except ImportError as error:
    raise ImportError(
        'lucia.middleware.starlette needs Starlette: pip install "lucia-auth[starlette]"'
    ) from error

from lucia._async.auth import AsyncAuth
from lucia._async.request import AsyncAuthRequest, Transport
from lucia.errors import (
    DuplicateKeyId,
    InvalidCredentials,
    InvalidInput,
    InvalidRequest,
    InvalidSessionId,
    LuciaError,
    NotAuthenticated,
    Overloaded,
    RequestUnauthorized,
    StoreUnavailable,
    TooManyAttempts,
)
from lucia.middleware.asgi import (
    FOREIGN_REQUEST,
    TRY_AGAIN_LATER,
    ASGIApp,
    LuciaMiddleware,
    auth_request,
    check_auth,
)
from lucia.models import Session, SessionUser, UserT

__all__ = ["LuciaMiddleware", "StarletteAuth"]

_OWN_WORDS: Final = ""
"""The error's own message is the answer."""

_LONGEST_REASON: Final = 123
"""The longest reason of a WebSocket's close, in bytes (RFC 6455, section 5.5)."""

_ANSWERS: Final[dict[type[LuciaError], tuple[int, str]]] = {
    NotAuthenticated: (401, "Not logged in."),
    InvalidSessionId: (401, "Not logged in."),
    InvalidCredentials: (401, "Wrong name or password."),
    InvalidRequest: (403, FOREIGN_REQUEST),
    RequestUnauthorized: (403, "Not allowed."),
    DuplicateKeyId: (409, "This name is taken."),
    InvalidInput: (422, _OWN_WORDS),
    TooManyAttempts: (429, "Too many failed logins. Try again later."),
    Overloaded: (503, "Too many requests at once. Try again in a moment."),
    StoreUnavailable: (503, "Sessions can't be reached. Try again in a moment."),
}


class StarletteAuth(Generic[UserT]):
    """A Starlette application's view of ``auth``: install it once, then ask it in routes and WebSockets.

    ``install`` also answers the library's errors where a route lets them pass, without telling which credential was wrong: 401 for
    ``NotAuthenticated``, ``InvalidSessionId`` and ``InvalidCredentials``, 403 for ``InvalidRequest`` and ``RequestUnauthorized``, 409
    for ``DuplicateKeyId``, 422 with its message for ``InvalidInput``, 429 for ``TooManyAttempts``, 503 for ``Overloaded`` and
    ``StoreUnavailable``; a WebSocket is closed with 1013 where that would be 503, else with 1008. The application's own exception
    handlers for these classes go before these.

    The settings are those of :class:`~lucia.middleware.asgi.LuciaMiddleware`, and its ``TypeError``.
    """

    def __init__(
        self,
        auth: AsyncAuth[UserT],
        *,
        transport: Transport = "cookie",
        forbid_cross_site: bool = False,
        validate_ahead: bool = False,
    ) -> None:
        check_auth(auth)
        self.auth = auth
        self.transport: Transport = transport
        self.forbid_cross_site = forbid_cross_site
        self.validate_ahead = validate_ahead

    def install(self, app: Starlette) -> None:
        """Put the middleware around an application, around its other middleware and its answer 500 too, and add the answers.

        Raises:
            RuntimeError: the application has started.
        """
        if app.middleware_stack is not None:
            raise RuntimeError("install the auth before the application has started")
        build = app.build_middleware_stack
        app.build_middleware_stack = lambda: self._wrap(build())  # type: ignore[method-assign] # add_middleware leaves the answer 500 out
        for error in _ANSWERS:
            app.exception_handlers.setdefault(error, self._answer)

    def request(self, connection: HTTPConnection) -> AsyncAuthRequest[UserT]:
        """What this request may ask and do, such as ``sign_in_with_key`` and ``sign_out``."""
        return auth_request(self.auth, connection.scope)

    async def optional_session(self, connection: HTTPConnection) -> Session | None:
        """The request's session, or None for a visitor."""
        return await self.request(connection).validate()

    async def optional_user(self, connection: HTTPConnection) -> UserT | None:
        """The request's user, or None for a visitor."""
        both = await self.request(connection).validate_user()
        return None if both is None else both.user

    async def session(self, connection: HTTPConnection) -> Session:
        """The request's session.

        Raises:
            NotAuthenticated: a visitor's request; answered with 401.
        """
        session = await self.request(connection).validate()
        if session is None:
            raise NotAuthenticated
        return session

    async def session_user(self, connection: HTTPConnection) -> SessionUser[UserT]:
        """The request's session and user.

        Raises:
            NotAuthenticated: a visitor's request; answered with 401.
        """
        both = await self.request(connection).validate_user()
        if both is None:
            raise NotAuthenticated
        return both

    async def user(self, connection: HTTPConnection) -> UserT:
        """The request's user.

        Raises:
            NotAuthenticated: a visitor's request; answered with 401.
        """
        return (await self.session_user(connection)).user

    def _wrap(self, app: ASGIApp) -> LuciaMiddleware:
        return LuciaMiddleware(
            app,
            auth=self.auth,
            transport=self.transport,
            forbid_cross_site=self.forbid_cross_site,
            validate_ahead=self.validate_ahead,
        )

    async def _answer(
        self, connection: Any, error: Exception
    ) -> Any:  # Starlette types handlers of requests and of WebSockets apart
        status, detail = next(
            answer for kind, answer in _ANSWERS.items() if isinstance(error, kind)
        )
        detail = detail or str(error)
        if isinstance(connection, WebSocket):
            code = TRY_AGAIN_LATER if status == 503 else 1008
            await connection.close(
                code=code, reason=detail.encode()[:_LONGEST_REASON].decode(errors="ignore")
            )
            return None
        return JSONResponse({"detail": detail}, status, self._headers(error, status))

    def _headers(self, error: Exception, status: int) -> dict[str, str]:
        if status == 401:
            return {"WWW-Authenticate": "Bearer" if self.transport == "bearer" else "APIKey"}
        if isinstance(error, TooManyAttempts):
            return {"Retry-After": str(error.retry_after)}
        return {"Retry-After": "1"} if status == 503 else {}
