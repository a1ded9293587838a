"""Litestar: a plugin with dependencies, a guard, WebSockets, OpenAPI, and the ready routes."""

# Litestar names its generic types without their arguments in many places.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

import asyncio
import re
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, Final, Generic, Self, TypeVar, Unpack, cast, get_type_hints

try:
    from litestar import Litestar, Request, Response, Router
    from litestar.config.app import AppConfig
    from litestar.connection import ASGIConnection
    from litestar.di import Provide
    from litestar.enums import MediaType
    from litestar.exceptions import (
        ClientException,
        HTTPException,
        NotAuthorizedException,
        NotFoundException,
        PermissionDeniedException,
        ServiceUnavailableException,
        TooManyRequestsException,
    )
    from litestar.exceptions.responses import create_exception_response
    from litestar.handlers import HTTPRouteHandler
    from litestar.handlers.base import BaseRouteHandler
    from litestar.middleware.authentication import (
        AbstractAuthenticationMiddleware,
        AuthenticationResult,
    )
    from litestar.openapi.spec import SecurityRequirement
    from litestar.plugins import InitPlugin
    from litestar.plugins.base import ReceiveRoutePlugin
    from litestar.response import Redirect
    from litestar.routes import HTTPRoute
    from litestar.routes.base import BaseRoute
    from litestar.template.base import csrf_token
    from litestar.types import ASGIApp, Method, Scope, Scopes
except ImportError as error:
    raise ImportError(
        'lucia.middleware.litestar needs Litestar: pip install "lucia-auth[litestar]"'
    ) from error

from lucia._async.accounts import AsyncAccountRoutes, AsyncAccountSettings
from lucia._async.auth import AsyncAuth
from lucia._async.request import AsyncAuthRequest, required
from lucia._rules.accounts import AccountRoute, Reply, Submission
from lucia._rules.bodies import MAX_BODY_BYTES, check_charset, read_body
from lucia._rules.pages import PAGE_HEADERS
from lucia._rules.redirects import below_root, check_redirect, login_location, prefers_page
from lucia._rules.requests import Transport, check_transport
from lucia._rules.responses import ERRORS, response_for
from lucia._typing import UserIdT, UserT, with_defaults
from lucia.errors import InvalidInput, InvalidRequest, LuciaError, NotAuthenticated
from lucia.middleware._litestar_openapi import (
    operation_class,
    require,
    security_schemes,
    show_token_url,
    with_schemes,
)
from lucia.middleware._threads import Run, ThreadAuthRequest
from lucia.middleware.asgi import (
    ASGIExchange,
    ASGISender,
    RequestState,
    check_auth,
    find_session,
    find_session_user,
)
from lucia.models import Session, SessionUser

__all__ = ["LitestarAuth", "ThreadAuthRequest", "login_required"]

T = TypeVar("T")

_KEY: Final = "lucia.litestar"
_CLOSE: Final = "lucia.litestar.close"
_CSRF_FIELD: Final = "_csrf_token"  # the name is fixed in Litestar
_UNPROTECTED_METHODS: Final[Sequence[Method]] = ("OPTIONS", "HEAD")  # as in Litestar's SessionAuth


class ConflictException(ClientException):
    """A request that contradicts what is stored, such as for a name that is taken."""

    status_code = 409


class UnprocessableContentException(ClientException):
    """A request whose body is not valid."""

    status_code = 422
    detail = "What was sent can't be used."  # Python has no description of 422


_EXCEPTIONS: Final[Mapping[int, type[HTTPException]]] = {
    401: NotAuthorizedException,
    403: PermissionDeniedException,
    404: NotFoundException,
    409: ConflictException,
    422: UnprocessableContentException,
    429: TooManyRequestsException,
    503: ServiceUnavailableException,
}


@with_defaults
class LitestarAuth(InitPlugin, ReceiveRoutePlugin, Generic[UserT, UserIdT]):
    """Sessions for a Litestar application.

    ::

        web = LitestarAuth(auth, login_url="/auth/login")
        app = Litestar([home, web.router("/auth")], plugins=[web])

    Every handler needs a login, as with Litestar's own ``SessionAuth``, unless it is excluded:
    ``@get("/", exclude_from_auth=True)``. ``request.user`` is then the user, as
    ``transform_database_user`` makes it, and ``request.auth`` the ``Session``. Without a user
    adapter ``request.user`` is the user's id. Any handler can ask who it is by a dependency:

    ========================================== ================================================
    argument of a handler                      gives
    ========================================== ================================================
    ``auth_request: AsyncAuthRequest[User]``   the ``AuthRequest``, for signing in and out
    ``sync_auth_request: ThreadAuthRequest``   the same for a handler in a thread
    ``current_session: Session``               the ``Session``; 401 for a visitor
    ``current_user: User``                     the user; 401 for a visitor
    ``session_user: SessionUser[User]``        both; 401 for a visitor
    ``optional_session: Session | None``       the ``Session``, or None
    ``optional_user: User | None``             the user, or None
    ========================================== ================================================

    Litestar wants these types marked: ``current_user: NamedDependency[User]``. They work in
    WebSockets too, and read the store only if the handler has such an argument. The
    application's own dependencies of these names take precedence.

    The plugin also handles the library's errors that a handler does not catch, without telling
    which credential was wrong: as Litestar's ``HTTPException`` of their status, so that the
    application's own exception handlers for 401, 403 and so on take precedence, and so do those for
    the library's classes. A WebSocket is closed with 1013 where the status would be 503, else with
    1008.

    If an application has several of these plugins, the names above, :func:`login_required` and the
    responses to errors belong to the first one. Give the dependencies of the others names of their
    own: ``dependencies={"staff_session": Provide(staff.current_session)}``.

    Args:
        auth: the application's ``AsyncAuth``.
        transport: ``cookie``, ``bearer`` for clients that are not browsers, or ``both``.
        forbid_cross_site: respond 403 to a request that fails the origin check, instead of treating
            it as a visitor's.
        required: whether handlers need a login. False for an application in which only those do
            that have the guard :func:`login_required`, or ask for it by a dependency.
        exclude: a pattern of paths that need no login, or several, such as ``^/schema``.
        exclude_opt_key: the key in a handler's ``opt`` that says that it needs no login.
        exclude_http_methods: HTTP methods that need no login.
        scopes: the ASGI scopes that need a login; None for ``http`` and ``websocket``.
        login_url: where a visitor's browser is sent from a page that needs a login, such as
            ``/auth/login``; the page to come back to is added as ``?next=``. None, the default, for
            401. Requests that do not ask for HTML get 401 in any case.
        scheme_name: the name of the security scheme in the OpenAPI document; two plugins of one
            application need two names. With ``both`` there is a second scheme, with ``_token``
            after this name.

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
        required: bool = True,
        exclude: str | list[str] | None = None,
        exclude_opt_key: str = "exclude_from_auth",
        exclude_http_methods: Sequence[Method] = _UNPROTECTED_METHODS,
        scopes: "Scopes | None" = None,
        login_url: str | None = None,
        scheme_name: str = "session",
    ) -> None:
        check_auth(auth)
        check_transport(transport)
        self.auth = auth
        self.transport: Transport = transport
        self.forbid_cross_site = forbid_cross_site
        self.required = required
        self.exclude = exclude
        self.exclude_opt_key = exclude_opt_key
        self.exclude_http_methods = exclude_http_methods
        self.scopes = scopes
        self.login_url = None if login_url is None else check_redirect("login_url", login_url)
        self._schemes = security_schemes(auth, transport, scheme_name)
        # Each of them lets a request in.
        self._requirements: list[SecurityRequirement] = [{name: []} for name in self._schemes]
        self._token_routes: set[str] = set()

    def __deepcopy__(self, memo: object) -> Self:
        # Litestar copies routers, with the providers in them that are methods of this object.
        return self

    def on_app_init(self, app_config: AppConfig) -> AppConfig:
        """Add the middleware, dependencies, exception handlers and security schemes."""
        app_config.middleware.insert(0, self._middleware)
        app_config.before_send.append(self._add_cookies)
        app_config.after_exception.append(_choose_close)
        app_config.dependencies = {
            "auth_request": Provide(self.auth_request, sync_to_thread=False),
            "sync_auth_request": Provide(self.sync_auth_request, sync_to_thread=False),
            "current_session": Provide(self.current_session),
            "current_user": Provide(self.current_user),
            "session_user": Provide(self.session_user),
            "optional_session": Provide(self.optional_session),
            "optional_user": Provide(self.optional_user),
            **app_config.dependencies,
        }
        if LuciaError not in app_config.exception_handlers:
            app_config.exception_handlers = {
                **dict.fromkeys(ERRORS, self._respond),
                **app_config.exception_handlers,
            }
        if app_config.openapi_config is not None:
            app_config.openapi_config = with_schemes(app_config.openapi_config, self._schemes)
        return app_config

    def receive_route(self, route: BaseRoute) -> None:
        """Complete what the OpenAPI document says of a route."""
        if isinstance(route, HTTPRoute):
            for handler in route.route_handlers:
                if handler.name in self._token_routes:
                    show_token_url(self._schemes, route.path_format)
                if self._needs_login(route, handler):
                    require(handler, self._requirements)

    def router(
        self, path: str = "/auth", *, name: str = "auth", **settings: Unpack[AsyncAccountSettings]
    ) -> Router:
        """Return the ready routes: sign up, log in and out, devices, change of the password.

        Args:
            path: the path before them.
            name: what the names of the handlers begin with: ``auth.log_in`` and so on, and
                ``auth.log_in_page`` for the page.
            settings: see :class:`~lucia.middleware.accounts.AsyncAccountRoutes`. The return
                annotation of ``show_user`` is what the OpenAPI document says of ``/me``.
        """
        accounts = AsyncAccountRoutes(self.auth, self.transport, **settings)
        self._token_routes.add(f"{name}.token")
        handlers: list[HTTPRouteHandler] = []
        for route in accounts.routes:
            response_body = route.response_body
            if route.name == "me" and "show_user" in settings:
                response_body = get_type_hints(settings["show_user"]).get("return", Any)
            handler = HTTPRouteHandler(
                route.path.replace("{handle}", "{handle:str}"),
                http_method=route.method,
                name=f"{name}.{route.endpoint}",
                media_type=MediaType.HTML if route.is_page else MediaType.JSON,
                status_code=route.status,
                summary=route.summary,
                include_in_schema=not route.is_page,
                operation_class=operation_class(route),
                raises=[_EXCEPTIONS[status] for status in (*route.errors, 403, 503)],
            )
            if route.needs_login:
                handler.security = self._requirements
            handlers.append(handler(self._endpoint(accounts, route, response_body)))
        return Router(
            path,
            route_handlers=handlers,
            dto=None,
            return_dto=None,
            opt={self.exclude_opt_key: True},  # each route checks by itself
            request_max_body_size=MAX_BODY_BYTES,
            tags=["auth"],
        )

    def auth_request(self, scope: Scope) -> AsyncAuthRequest[UserT, UserIdT]:
        """Return the ``AuthRequest`` of a connection, for example to sign in and out.

        Raises:
            RuntimeError: the application does not have this plugin.
        """
        return cast("AsyncAuthRequest[UserT, UserIdT]", _state(self, scope).request)

    def sync_auth_request(self, scope: Scope) -> ThreadAuthRequest[UserT, UserIdT]:
        """Return the ``AuthRequest`` for a handler that Litestar runs in a thread."""
        return ThreadAuthRequest(self.auth_request(scope), _run_in(asyncio.get_running_loop()))

    async def optional_session(self, scope: Scope) -> Session[UserIdT] | None:
        """Return the connection's session, or None for a visitor."""
        return await self.auth_request(scope).validate()

    async def optional_user(self, scope: Scope) -> UserT | None:
        """Return the connection's user, or None for a visitor."""
        both = await self.auth_request(scope).validate_user()
        return None if both is None else both.user

    async def current_session(self, scope: Scope) -> Session[UserIdT]:
        """Return the connection's session.

        Raises:
            NotAuthenticated: the request is a visitor's; the response is 401.
        """
        return required(await find_session(self.auth_request(scope)))

    async def session_user(self, scope: Scope) -> SessionUser[UserT, UserIdT]:
        """Return the connection's session and user.

        Raises:
            NotAuthenticated: the request is a visitor's; the response is 401.
        """
        return required(await find_session_user(self.auth_request(scope)))

    async def current_user(self, scope: Scope) -> UserT:
        """Return the connection's user.

        Raises:
            NotAuthenticated: the request is a visitor's; the response is 401.
        """
        return required(await find_session_user(self.auth_request(scope))).user

    async def authenticate(self, scope: Scope) -> AuthenticationResult:
        """Return what ``connection.user`` and ``connection.auth`` are.

        Raises:
            NotAuthenticated: the request is a visitor's; the response is 401.
        """
        if not self.auth.has_users:
            session = required(await find_session(self.auth_request(scope)))
            return AuthenticationResult(user=session.user_id, auth=session)
        both = required(await find_session_user(self.auth_request(scope)))
        return AuthenticationResult(user=both.user, auth=both.session)

    def _middleware(self, app: ASGIApp) -> ASGIApp:
        return _Middleware(app, self)

    async def _add_cookies(self, message: Any, scope: Any) -> None:
        """Add the cookies to a response that Litestar makes outside of all middleware.

        That is the response to an error which other middleware raised, and 404 and 405.
        """
        state: RequestState | None = scope.get(_KEY, {}).get(self)
        if message["type"] == "http.response.start" and state is not None:
            exchange = state.exchange
            if exchange.varies is not None and not exchange.started:
                message["headers"] = exchange.merged_raw(message.get("headers", ()))
            exchange.started = True

    def _respond(self, request: Request[Any, Any, Any], error: Exception) -> Response[Any]:
        if isinstance(error, NotAuthenticated):
            location = self._login_location(request)
            if location is not None:
                return Redirect(location, status_code=303)
        answer = response_for(error, self.transport)
        exception = _EXCEPTIONS[answer.status](detail=answer.detail, headers=dict(answer.headers))
        handlers = request.route_handler.resolve_exception_handlers()
        for key in (answer.status, *type(exception).__mro__):  # Litestar's own order
            if key in handlers:
                handler: Any = handlers[cast("Any", key)]
                return cast("Response[Any]", handler(request, exception))
        return create_exception_response(request, exception)

    def _login_location(self, request: Request[Any, Any, Any]) -> str | None:
        """Return the URL of the login page; None if the response is 401."""
        if self.login_url is None or not prefers_page(request.headers.get("accept")):
            return None
        return login_location(
            below_root(self.login_url, request.scope.get("root_path", "")),
            method=request.method,
            path=request.url.path,
            query=request.scope["query_string"].decode("latin-1"),
            host=request.url.netloc,
        )

    def _needs_login(self, route: HTTPRoute, handler: HTTPRouteHandler) -> bool:
        if login_required in handler.resolve_guards() and _installed(handler.app) is self:
            return True
        exclude = [self.exclude] if isinstance(self.exclude, str) else self.exclude or []
        return (
            self.required
            and (not self.scopes or "http" in self.scopes)
            and not handler.opt.get(self.exclude_opt_key)
            and not handler.http_methods <= set(self.exclude_http_methods)
            and not any(re.search(pattern, route.path_format) for pattern in exclude)
        )

    def _endpoint(
        self, accounts: AsyncAccountRoutes[UserT, UserIdT], route: AccountRoute, response_body: Any
    ) -> Callable[..., Coroutine[Any, Any, Response[Any]]]:
        async def endpoint(request: Request[Any, Any, Any]) -> Response[Any]:
            submission = await _submission(request)
            reply = await accounts.handle(route, self.auth_request(request.scope), submission)
            return _response(reply)

        endpoint.__name__ = route.name
        # Litestar documents the response by the annotation.
        shown = None if response_body is None else cast("Any", Response)[response_body]
        endpoint.__annotations__ = {"request": Request[Any, Any, Any], "return": shown}
        return endpoint


async def login_required(
    connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler
) -> None:
    """Let only people who are logged in pass: a guard for handlers, controllers and routers.

    A visitor's request gets 401, or a browser the ``login_url``, also where the handler is excluded
    from the check of the plugin. ``connection.user`` and ``connection.auth`` are set. It is not for
    a whole application: the routes that log people in would need a login, too.
    """
    result = await _installed(connection.app).authenticate(connection.scope)
    connection.scope["user"], connection.scope["auth"] = result.user, result.auth


class _Middleware(AbstractAuthenticationMiddleware):
    """The middleware around each route, outside of all other middleware."""

    def __init__(self, app: ASGIApp, web: LitestarAuth[Any, Any]) -> None:
        super().__init__(
            app,
            web.exclude,
            web.exclude_opt_key,
            web.exclude_http_methods,
            web.scopes,
        )
        self._web = web

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        state = _state(self._web, scope)
        send = ASGISender(state.exchange, scope, send)
        if scope["type"] == "websocket":
            send = _with_close_code(scope, send)
        try:
            if self._web.forbid_cross_site and state.request.is_cross_site:
                raise InvalidRequest
            if self._web.required:
                await super().__call__(scope, receive, send)
            else:
                await self.app(scope, receive, send)
        except ERRORS as error:
            # Litestar would close the WebSocket outside of all middleware.
            if scope["type"] != "websocket":
                raise
            await _choose_close(error, scope)
            await send({"type": "websocket.close"})

    async def authenticate_request(
        self, connection: ASGIConnection[Any, Any, Any, Any]
    ) -> AuthenticationResult:
        return await self._web.authenticate(connection.scope)


def _state(web: LitestarAuth[Any, Any], scope: Any) -> RequestState:
    states: dict[object, RequestState] = scope.setdefault(_KEY, {})
    state = states.get(web)
    if state is None:
        if web not in Litestar.from_scope(scope).plugins:
            raise _not_installed()
        exchange = ASGIExchange(scope)
        state = RequestState(exchange, web.auth.handle_request(exchange, web.transport))
        states[web] = state
    return state


async def _choose_close(error: Exception, scope: Any) -> None:
    """Choose how Litestar closes a WebSocket because of an error; it asks no exception handler."""
    if scope["type"] == "websocket" and isinstance(error, ERRORS):
        response = response_for(error, "cookie")
        # Not the error itself, whose traceback refers to the scope.
        scope[_CLOSE] = {"code": response.close_code, "reason": response.close_reason}


def _with_close_code(scope: Any, send: Any) -> Any:
    """Return a ``send`` that closes a WebSocket with the code of the error that ended it."""

    async def send_close(message: Any) -> None:
        close = scope.get(_CLOSE)
        if close is not None and message["type"] == "websocket.close":
            message = {**message, **close}
        await send(message)

    return send_close


def _installed(app: Litestar) -> LitestarAuth[Any, Any]:
    """Return the first plugin of an application.

    Raises:
        RuntimeError: there is none.
    """
    for plugin in app.plugins.init:
        if isinstance(plugin, LitestarAuth):
            return plugin
    raise _not_installed()


def _not_installed() -> RuntimeError:
    return RuntimeError(
        "LitestarAuth is not installed: add it to Litestar(plugins=[web]), "
        "where web = LitestarAuth(auth)"
    )


def _run_in(loop: asyncio.AbstractEventLoop) -> Run:
    def run(function: Callable[[], Coroutine[Any, Any, T]], /) -> T:
        return asyncio.run_coroutine_threadsafe(function(), loop).result()

    return run


async def _submission(request: Request[Any, Any, Any]) -> Submission:
    fields, is_form = await _fields(request)
    token = csrf_token({"request": request})
    return Submission(
        fields=fields,
        is_form=is_form,
        wants_page=prefers_page(request.headers.get("accept")),
        path=request.url.path,
        root=request.scope.get("root_path", ""),
        host=request.url.netloc,
        query_next=request.query_params.get("next"),
        handle=request.path_params.get("handle", ""),
        user_agent=request.headers.get("user-agent", ""),
        hidden={_CSRF_FIELD: token} if token else {},
        request=request,
    )


async def _fields(request: Request[Any, Any, Any]) -> tuple[Mapping[str, Any], bool]:
    if request.method == "GET":
        return {}, False
    kind = request.headers.get("content-type", "")
    if kind.startswith("multipart/form-data"):
        check_charset(kind)
        try:
            form = await request.form()
        except UnicodeDecodeError:
            raise InvalidInput("the body is not a form") from None
        return {name: value for name, value in form.items() if isinstance(value, str)}, True
    return read_body(kind, await request.body())


def _response(reply: Reply) -> Response[Any]:
    headers = dict(reply.headers)
    if reply.location is not None:
        return Redirect(reply.location, status_code=303, headers=headers)
    if reply.html is not None:
        headers |= PAGE_HEADERS
        return Response(
            reply.html, status_code=reply.status, headers=headers, media_type=MediaType.HTML
        )
    if reply.status in _EXCEPTIONS:
        raise _EXCEPTIONS[reply.status](detail=reply.content.detail, headers=headers)
    return Response(
        reply.content, status_code=reply.status, headers=headers, media_type=MediaType.JSON
    )
