"""Starlette: the middleware, responses to errors, the session in routes, and the ready routes."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any, Generic, Unpack

try:
    from anyio import from_thread
    from starlette.applications import Starlette
    from starlette.authentication import AuthCredentials, BaseUser, UnauthenticatedUser
    from starlette.middleware import Middleware
    from starlette.requests import HTTPConnection, Request
    from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
    from starlette.routing import Route
    from starlette.types import ASGIApp, Message, Receive, Scope, Send
    from starlette.websockets import WebSocket
except ImportError as error:
    raise ImportError(
        'lucia.middleware.starlette needs Starlette: pip install "lucia-auth[starlette]"'
    ) from error

from lucia._async.accounts import AsyncAccountRoutes, AsyncAccountSettings
from lucia._async.auth import AsyncAuth
from lucia._async.request import AsyncAuthRequest, required
from lucia._compat.awaited import AsyncTruth
from lucia._rules.accounts import AccountRoute, Reply, Submission, to_json
from lucia._rules.bodies import check_body_length, check_charset, read_body
from lucia._rules.pages import PAGE_HEADERS
from lucia._rules.redirects import below_root, check_redirect, login_location, prefers_page
from lucia._rules.requests import Transport, check_transport
from lucia._rules.responses import ERRORS, response_for
from lucia._typing import UserIdT, UserT, with_defaults
from lucia.errors import LuciaError, NotAuthenticated
from lucia.middleware._threads import ThreadAuthRequest
from lucia.middleware.asgi import (
    LuciaMiddleware,
    auth_request,
    check_auth,
    find_session,
    find_session_user,
)
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
    would be 503, else with 1008. The application's own exception handlers for these classes, and
    for ``LuciaError``, take precedence.

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
        ValueError: ``login_url`` is not a URL, or ``transport`` is none of the three.
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
        check_transport(transport)
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
            TypeError: it is no application, but for example a router.
        """
        if not hasattr(app, "build_middleware_stack"):
            raise TypeError(f"install needs the application, not {type(app).__name__}")
        if app.middleware_stack is not None:
            raise RuntimeError("install the auth before the application has started")
        # Wrapped where the stack is built: the response 500 is made outside of all added
        # middleware.
        build = app.build_middleware_stack
        app.build_middleware_stack = lambda: self._wrap(build())  # type: ignore[method-assign]
        app.exception_handlers.setdefault(LuciaError, self._respond_to_error)

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
                partial(_respond, self, accounts, route),
                methods=[route.method],
                name=route.endpoint,
            )
            for route in accounts.routes
        ]

    def authentication_middleware(
        self, scopes: Callable[[UserT], Sequence[str]] | None = None
    ) -> Middleware:
        """Return a middleware that does what Starlette's ``AuthenticationMiddleware`` does.

        ``request.user`` is then a :class:`LuciaUser` or Starlette's ``UnauthenticatedUser``, and
        ``@requires("authenticated")`` works. A store error is responded to as anywhere else.

        Args:
            scopes: returns what a user may do besides being ``authenticated``.

        Raises:
            TypeError: there are ``scopes``, and no user adapter.
        """
        if scopes is not None and not self.auth.has_users:
            raise TypeError("scopes= needs users: make the AsyncAuth with a user adapter, users=")
        return Middleware(
            _Authentication,
            authenticate=partial(self._authenticate, scopes),
            respond=self._respond_to_error,
        )

    def request(self, connection: HTTPConnection) -> AsyncAuthRequest[UserT, UserIdT]:
        """Return the ``AuthRequest``, for example to sign in and out."""
        return auth_request(self.auth, connection.scope)

    def sync_request(self, connection: HTTPConnection) -> ThreadAuthRequest[UserT, UserIdT]:
        """Return the ``AuthRequest`` for a route that is a plain function."""
        return ThreadAuthRequest(self.request(connection), from_thread.run)

    @AsyncTruth.needs_await
    async def optional_session(self, connection: HTTPConnection) -> Session[UserIdT] | None:
        """Return the request's session, or None for a visitor."""
        return await self.request(connection).validate()

    @AsyncTruth.needs_await
    async def optional_user(self, connection: HTTPConnection) -> UserT | None:
        """Return the request's user, or None for a visitor."""
        both = await self.request(connection).validate_user()
        return None if both is None else both.user

    async def session(self, connection: HTTPConnection) -> Session[UserIdT]:
        """Return the request's session.

        Raises:
            NotAuthenticated: the request is a visitor's; the response is 401.
        """
        return required(await find_session(self.request(connection)))

    async def session_user(self, connection: HTTPConnection) -> SessionUser[UserT, UserIdT]:
        """Return the request's session and user.

        Raises:
            NotAuthenticated: the request is a visitor's; the response is 401.
        """
        return required(await find_session_user(self.request(connection)))

    async def user(self, connection: HTTPConnection) -> UserT:
        """Return the request's user.

        Raises:
            NotAuthenticated: the request is a visitor's; the response is 401.
        """
        return required(await find_session_user(self.request(connection))).user

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

    async def _authenticate(
        self, scopes: Callable[[UserT], Sequence[str]] | None, connection: HTTPConnection
    ) -> tuple[AuthCredentials, BaseUser]:
        if self.auth.has_users:
            both = await self.request(connection).validate_user()
            if both is not None:
                own = () if scopes is None else scopes(both.user)
                return AuthCredentials(["authenticated", *own]), LuciaUser(*both)
        else:
            session = await self.optional_session(connection)
            if session is not None:
                return AuthCredentials(["authenticated"]), LuciaUser(session, None)
        return AuthCredentials(), UnauthenticatedUser()

    # Starlette has different types for handlers of requests and of WebSockets, hence Any.
    async def _respond_to_error(self, connection: Any, error: Exception) -> Any:
        if not isinstance(error, ERRORS):
            raise error
        if isinstance(connection, WebSocket):
            response = response_for(error, self.transport)
            await connection.close(code=response.close_code, reason=response.close_reason)
            return None
        return self._error_response(connection, error)

    def _error_response(self, connection: HTTPConnection, error: Exception) -> Response:
        if (
            self.login_url is not None
            and isinstance(error, NotAuthenticated)
            and prefers_page(connection.headers.get("accept"))
        ):
            root, path = _paths(connection)
            location = login_location(
                below_root(self.login_url, root),
                method=connection.scope["method"],
                path=path,
                query=connection.scope["query_string"].decode("latin-1"),
                host=connection.url.netloc,
            )
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


class _Authentication:
    """Sets ``request.user`` and ``request.auth``, as Starlette's ``AuthenticationMiddleware``.

    That one would close each WebSocket with 1000, whatever the error is.

    Args:
        app: the application further inside.
        authenticate: returns what ``request.auth`` and ``request.user`` are.
        respond: returns the response to an error, or closes the WebSocket.
    """

    def __init__(
        self,
        app: ASGIApp,
        authenticate: Callable[[HTTPConnection], Awaitable[tuple[AuthCredentials, BaseUser]]],
        respond: Callable[[HTTPConnection, Exception], Awaitable[Response | None]],
    ) -> None:
        self._app = app
        self._authenticate = authenticate
        self._respond = respond

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket"):
            is_websocket = scope["type"] == "websocket"
            connection = WebSocket(scope, receive, send) if is_websocket else Request(scope)
            try:
                scope["auth"], scope["user"] = await self._authenticate(connection)
            except LuciaError as error:
                # The exception handlers of the application are further inside.
                response = await self._respond(connection, error)
                if response is not None:
                    await response(scope, receive, send)
                return
        await self._app(scope, receive, send)


def _paths(connection: HTTPConnection) -> tuple[str, str]:
    """Return the path of the application, and that of the request, as the browser knows them."""
    scope = connection.scope
    root: str = scope.get("app_root_path", scope.get("root_path", ""))
    path: str = scope["path"]
    # ASGI's path contains the root_path. With FastAPI(root_path=…) it does not.
    return root, path if f"{path}/".startswith(f"{root}/") else root + path


async def reply_to(
    web: StarletteAuth[UserT, UserIdT],
    accounts: AsyncAccountRoutes[UserT, UserIdT],
    route: AccountRoute,
    request: Request,
) -> Reply:
    """Run a ready route, and return what it responds."""
    return await accounts.handle(route, web.request(request), await _submission(request))


async def _respond(
    web: StarletteAuth[UserT, UserIdT],
    accounts: AsyncAccountRoutes[UserT, UserIdT],
    route: AccountRoute,
    request: Request,
) -> Response:
    return response_of(await reply_to(web, accounts, route, request))


async def _submission(request: Request) -> Submission:
    fields, is_form = await _fields(request)
    root, path = _paths(request)
    return Submission(
        fields=fields,
        is_form=is_form,
        wants_page=prefers_page(request.headers.get("accept")),
        path=path,
        root=root,
        host=request.url.netloc,
        query_next=request.query_params.get("next"),
        handle=request.path_params.get("handle", ""),
        user_agent=request.headers.get("user-agent", ""),
        request=request,
    )


async def _fields(request: Request) -> tuple[Mapping[str, Any], bool]:
    if request.method == "GET":
        return {}, False
    body = bytearray()
    try:
        async for part in request.stream():
            body += part
            check_body_length(len(body))
    except RuntimeError:
        # Another dependency has read the form, which Starlette keeps.
        return dict(await request.form()), True
    kind = request.headers.get("content-type", "")
    if kind.startswith("multipart/form-data"):
        check_charset(kind)

        async def receive() -> Message:
            return {"type": "http.request", "body": bytes(body)}

        # Starlette responds 400 to a form that is malformed or has files.
        return dict(await Request(request.scope, receive).form(max_files=0, max_fields=100)), True
    return read_body(kind, bytes(body))


def response_of(reply: Reply) -> Response:
    """Return Starlette's response for what a ready route responds."""
    headers = dict(reply.headers)
    if reply.location is not None:
        return RedirectResponse(reply.location, reply.status, headers)
    if reply.html is not None:
        return HTMLResponse(reply.html, reply.status, {**headers, **PAGE_HEADERS})
    if reply.status == 204:
        return Response(status_code=204, headers=headers)
    return Response(to_json(reply.content), reply.status, headers, "application/json")
