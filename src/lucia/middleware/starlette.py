"""Starlette: the middleware, responses to errors, the session in routes, and the ready routes."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Generic, Unpack

try:
    from anyio import from_thread
    from starlette.applications import Starlette
    from starlette.authentication import (
        AuthCredentials,
        AuthenticationBackend,
        AuthenticationError,
        BaseUser,
    )
    from starlette.middleware import Middleware
    from starlette.middleware.authentication import AuthenticationMiddleware
    from starlette.requests import HTTPConnection, Request
    from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
    from starlette.routing import Route
    from starlette.types import ASGIApp
    from starlette.websockets import WebSocket
except ImportError as error:
    raise ImportError(
        'lucia.middleware.starlette needs Starlette: pip install "lucia-auth[starlette]"'
    ) from error

from lucia._async.accounts import AsyncAccountRoutes, AsyncAccountSettings
from lucia._async.auth import AsyncAuth
from lucia._async.request import AsyncAuthRequest
from lucia._rules.accounts import (
    MAX_BODY_BYTES,
    AccountRoute,
    Reply,
    Submission,
    read_body,
    to_json,
)
from lucia._rules.pages import PAGE_HEADERS
from lucia._rules.redirects import check_redirect, login_location, prefers_page
from lucia._rules.requests import Transport
from lucia._rules.responses import ERRORS, response_for
from lucia._typing import UserIdT, UserT, with_defaults
from lucia.errors import LuciaError, NotAuthenticated
from lucia.middleware._threads import ThreadAuthRequest
from lucia.middleware.asgi import LuciaMiddleware, auth_request, check_auth
from lucia.models import Session, SessionUser

__all__ = ["LuciaMiddleware", "LuciaUser", "StarletteAuth", "ThreadAuthRequest"]


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

    Args:
        auth: the application's ``AsyncAuth``.
        transport: ``cookie``, ``bearer`` for clients that are not browsers, or ``both``.
        forbid_cross_site: respond 403 to a request that fails the origin check, instead of treating
            it as a visitor's.
        validate_ahead: validate before the application runs, see
            :class:`~lucia.middleware.asgi.LuciaMiddleware`.
        login_url: where a visitor's browser is sent from a page that needs a login, such as
            ``/auth/login``; the page to come back to is added as ``?next=``. None, the default, for
            401. Requests that do not ask for HTML get 401 in any case.

    Raises:
        TypeError: ``auth`` is not an ``AsyncAuth``.
        ValueError: ``login_url`` is not a URL.
    """

    def __init__(
        self,
        auth: AsyncAuth[UserT, UserIdT, Any],
        *,
        transport: Transport = "cookie",
        forbid_cross_site: bool = False,
        validate_ahead: bool = False,
        login_url: str | None = None,
    ) -> None:
        check_auth(auth)
        self.auth = auth
        self.transport: Transport = transport
        self.forbid_cross_site = forbid_cross_site
        self.validate_ahead = validate_ahead
        self.login_url = None if login_url is None else check_redirect("login_url", login_url)

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

    def routes(self, prefix: str = "", **settings: Unpack[AsyncAccountSettings]) -> Sequence[Route]:
        """Return the ready routes: sign up, log in and out, devices, change of the password.

        Args:
            prefix: the path before them, such as ``/auth``.
            settings: see :class:`~lucia.middleware.accounts.AsyncAccountRoutes`.
        """
        accounts = AsyncAccountRoutes(self.auth, self.transport, **settings)
        return [
            Route(
                prefix + route.path,
                partial(self.respond_to, accounts, route),
                methods=[route.method],
                name=f"{route.name}_page" if route.is_page else route.name,
            )
            for route in accounts.routes
        ]

    def authentication_middleware(
        self, scopes: Callable[[UserT], Sequence[str]] | None = None
    ) -> Middleware:
        """Return Starlette's ``AuthenticationMiddleware`` for this auth.

        ``request.user`` is then a :class:`LuciaUser` or Starlette's ``UnauthenticatedUser``, and
        ``@requires("authenticated")`` works. A store error is responded to as anywhere else.

        Args:
            scopes: returns what a user may do besides being ``authenticated``. It needs a user
                adapter.
        """
        return Middleware(
            AuthenticationMiddleware,
            backend=_Backend(self, scopes),
            on_error=self._respond_to_backend,
        )

    def request(self, connection: HTTPConnection) -> AsyncAuthRequest[UserT, UserIdT]:
        """Return the ``AuthRequest``, for example to sign in and out."""
        return auth_request(self.auth, connection.scope)

    def sync_request(self, connection: HTTPConnection) -> ThreadAuthRequest[UserT, UserIdT]:
        """Return the ``AuthRequest`` for a route that is a plain function."""
        return ThreadAuthRequest(self.request(connection), from_thread.run)

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

    async def respond_to(
        self,
        accounts: AsyncAccountRoutes[UserT, UserIdT],
        route: AccountRoute,
        request: Request,
    ) -> Response:
        """Return the response of a ready route."""
        return response_of(accounts, await self.reply_to(accounts, route, request))

    async def reply_to(
        self,
        accounts: AsyncAccountRoutes[UserT, UserIdT],
        route: AccountRoute,
        request: Request,
    ) -> Reply:
        """Run a ready route, and return what it responds."""
        submission = await _submission(request)
        return await accounts.handle(route, self.request(request), submission)

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
        if isinstance(connection, WebSocket):
            response = response_for(error, self.transport)
            await connection.close(code=response.close_code, reason=response.close_reason)
            return None
        return self._error_response(connection, error)

    def _respond_to_backend(self, connection: HTTPConnection, error: Exception) -> Response:
        cause = error.__cause__
        return self._error_response(connection, cause if isinstance(cause, Exception) else error)

    def _error_response(self, connection: HTTPConnection, error: Exception) -> Response:
        if (
            self.login_url is not None
            and isinstance(error, NotAuthenticated)
            and prefers_page(connection.headers.get("accept"))
        ):
            path = _path_of(connection)
            if query := connection.url.query:
                path = f"{path}?{query}"
            location = login_location(self.login_url, connection.scope["method"], path)
            if location is not None:
                return RedirectResponse(location, 303)
        response = response_for(error, self.transport)
        return JSONResponse({"detail": response.detail}, response.status, dict(response.headers))


class LuciaUser(BaseUser):
    """``request.user`` behind ``AuthenticationMiddleware``.

    Args:
        session: the request's session.
        user: the user, as ``transform_database_user`` makes it; None without a user adapter.
    """

    def __init__(self, session: Session[Any], user: Any) -> None:
        self.session = session
        self.user = user

    @property
    def is_authenticated(self) -> bool:
        """True."""
        return True

    @property
    def display_name(self) -> str:
        """The user's id as text."""
        return str(self.session.user_id)

    @property
    def identity(self) -> str:
        """The user's id as text."""
        return str(self.session.user_id)


class _Backend(AuthenticationBackend, Generic[UserT, UserIdT]):
    """The backend of ``AuthenticationMiddleware``, which validates the session."""

    def __init__(
        self,
        web: StarletteAuth[UserT, UserIdT],
        scopes: Callable[[UserT], Sequence[str]] | None,
    ) -> None:
        self._web = web
        self._scopes = scopes

    async def authenticate(self, conn: HTTPConnection) -> tuple[AuthCredentials, BaseUser] | None:
        request = self._web.request(conn)
        try:
            if not self._web.auth.has_users:
                session = await request.validate()
                if session is None:
                    return None
                return AuthCredentials(["authenticated"]), LuciaUser(session, None)
            both = await request.validate_user()
        except LuciaError as error:
            # The exception handlers of the application are further inside.
            raise AuthenticationError from error
        if both is None:
            return None
        scopes = () if self._scopes is None else self._scopes(both.user)
        return AuthCredentials(["authenticated", *scopes]), LuciaUser(*both)


def _path_of(connection: HTTPConnection) -> str:
    """Return the path as the browser knows it. ASGI's ``path`` contains the ``root_path``."""
    return str(connection.url.path)


async def _submission(request: Request) -> Submission:
    fields, is_form = await _fields(request)
    following = fields.get("next") if is_form else None
    return Submission(
        fields=fields,
        is_form=is_form,
        wants_page=prefers_page(request.headers.get("accept")),
        path=_path_of(request),
        next=following or request.query_params.get("next"),
        handle=request.path_params.get("handle", ""),
        user_agent=request.headers.get("user-agent", ""),
        request=request,
    )


async def _fields(request: Request) -> tuple[Mapping[str, Any], bool]:
    if request.method == "GET":
        return {}, False
    kind = request.headers.get("content-type", "")
    if kind.startswith("multipart/form-data"):
        # Starlette responds 400 to a form that is malformed or has files.
        form = await request.form(max_files=0, max_fields=100, max_part_size=MAX_BODY_BYTES)
        return dict(form), True
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > MAX_BODY_BYTES:
            break  # refused below
    return read_body(kind, bytes(body))


def response_of(accounts: AsyncAccountRoutes[Any, Any], reply: Reply) -> Response:
    """Return Starlette's response for what a ready route responds."""
    headers = dict(reply.headers)
    if reply.location is not None:
        return RedirectResponse(reply.location, reply.status, headers)
    if reply.page is not None:
        html = accounts.render(reply.page)
        return HTMLResponse(html, reply.status, {**headers, **PAGE_HEADERS})
    if reply.status == 204:
        return Response(status_code=204, headers=headers)
    return Response(to_json(reply.content), reply.status, headers, "application/json")
