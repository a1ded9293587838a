"""Starlette: the middleware, responses to the library's errors, and the session in routes."""

from typing import Any, Generic

try:
    from starlette.applications import Starlette
    from starlette.requests import HTTPConnection
    from starlette.responses import JSONResponse
    from starlette.types import ASGIApp
    from starlette.websockets import WebSocket
except ImportError as error:
    raise ImportError(
        'lucia.middleware.starlette needs Starlette: pip install "lucia-auth[starlette]"'
    ) from error

from lucia._async.auth import AsyncAuth
from lucia._async.request import AsyncAuthRequest
from lucia._rules.requests import Transport
from lucia._typing import UserIdT, UserT, with_defaults
from lucia.errors import NotAuthenticated
from lucia.middleware._responses import ERRORS, response_for
from lucia.middleware.asgi import LuciaMiddleware, auth_request, check_auth
from lucia.models import Session, SessionUser

__all__ = ["LuciaMiddleware", "StarletteAuth"]


@with_defaults
class StarletteAuth(Generic[UserT, UserIdT]):
    """Sessions for a Starlette application: install it once, then use it in routes and WebSockets.

    ``install`` also handles the library's errors that a route does not catch, without telling which
    credential was wrong: 401 for ``NotAuthenticated``, ``InvalidSessionId`` and
    ``InvalidCredentials``, 403 for ``InvalidRequest`` and ``RequestUnauthorized``, 409 for
    ``DuplicateKeyId``, 422 with its message for ``InvalidInput``, 429 for ``TooManyAttempts``, 503
    for ``Overloaded`` and ``StoreUnavailable``. A WebSocket is closed with 1013 where the status
    would be 503, else with 1008. The application's own exception handlers for these classes take
    precedence.

    The arguments are those of :class:`~lucia.middleware.asgi.LuciaMiddleware`, and so is the
    ``TypeError``.
    """

    def __init__(
        self,
        auth: AsyncAuth[UserT, UserIdT, Any],
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
        """Add the middleware and the exception handlers to an application.

        The middleware goes around all other middleware and around the response 500, which
        ``add_middleware`` can't do.

        Raises:
            RuntimeError: the application has started.
        """
        if app.middleware_stack is not None:
            raise RuntimeError("install the auth before the application has started")
        # Wrapped where the stack is built: the response 500 is made outside of all added
        # middleware.
        build = app.build_middleware_stack
        app.build_middleware_stack = lambda: self._wrap(build())  # type: ignore[method-assign]
        for error in ERRORS:
            app.exception_handlers.setdefault(error, self._respond)

    def request(self, connection: HTTPConnection) -> AsyncAuthRequest[UserT, UserIdT]:
        """Return the ``AuthRequest``, for example to sign in and out."""
        return auth_request(self.auth, connection.scope)

    async def optional_session(self, connection: HTTPConnection) -> Session[UserIdT] | None:
        """Return the request's session, or None for a visitor."""
        return await self.request(connection).validate()

    async def optional_user(self, connection: HTTPConnection) -> UserT | None:
        """Return the request's user, or None for a visitor."""
        both = await self.request(connection).validate_user()
        return None if both is None else both.user

    async def session(self, connection: HTTPConnection) -> Session[UserIdT]:
        """Return the request's session.

        Raises:
            NotAuthenticated: the request is a visitor's; the response is 401.
        """
        session = await self.request(connection).validate()
        if session is None:
            raise NotAuthenticated
        return session

    async def session_user(self, connection: HTTPConnection) -> SessionUser[UserT, UserIdT]:
        """Return the request's session and user.

        Raises:
            NotAuthenticated: the request is a visitor's; the response is 401.
        """
        both = await self.request(connection).validate_user()
        if both is None:
            raise NotAuthenticated
        return both

    async def user(self, connection: HTTPConnection) -> UserT:
        """Return the request's user.

        Raises:
            NotAuthenticated: the request is a visitor's; the response is 401.
        """
        return (await self.session_user(connection)).user

    def _wrap(self, app: ASGIApp) -> ASGIApp:
        middleware = LuciaMiddleware(
            app,
            auth=self.auth,
            transport=self.transport,
            forbid_cross_site=self.forbid_cross_site,
            validate_ahead=self.validate_ahead,
        )
        # Not the middleware itself: only servers need its coroutine, and here Starlette calls it.
        return middleware.handle

    # Starlette has different types for handlers of requests and of WebSockets, hence Any.
    async def _respond(self, connection: Any, error: Exception) -> Any:
        response = response_for(error, self.transport)
        if isinstance(connection, WebSocket):
            await connection.close(code=response.close_code, reason=response.close_reason)
            return None
        return JSONResponse({"detail": response.detail}, response.status, dict(response.headers))
