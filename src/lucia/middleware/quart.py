"""Quart: an extension with ``current_user``, ``login_required`` and the ready routes."""

from collections.abc import Awaitable, Callable, Coroutine, Generator, Mapping, Sequence
from functools import partial, wraps
from inspect import isawaitable
from typing import Any, Final, Generic, NoReturn, ParamSpec, TypeVar, Unpack, cast

try:
    from quart import (
        Blueprint,
        Quart,
        Response,
        current_app,
        has_app_context,
        has_request_context,
        has_websocket_context,
        redirect,
        request,
        url_for,
        websocket,
    )
    from quart.globals import app_ctx
    from quart.typing import ResponseTypes
    from quart.wrappers import BaseRequestWebsocket
    from werkzeug.exceptions import default_exceptions
except ImportError as error:
    raise ImportError(
        'lucia.middleware.quart needs Quart: pip install "lucia-auth[quart]"'
    ) from error

from lucia._async.accounts import AsyncAccountRoutes, AsyncAccountSettings
from lucia._async.auth import AsyncAuth
from lucia._async.request import AsyncAuthRequest, required
from lucia._compat.awaited import AsyncTruth
from lucia._rules.accounts import AccountRoute, ErrorDetail, Submission
from lucia._rules.bodies import check_body_length, check_charset, read_body
from lucia._rules.redirects import prefers_page
from lucia._rules.requests import Transport, check_transport
from lucia._rules.responses import ERRORS, response_for
from lucia._typing import UserIdT, UserT, with_defaults
from lucia.errors import InvalidRequest, LuciaError, NotAuthenticated
from lucia.middleware._werkzeug import (
    FORMS,
    RequestProxy,
    general_handler,
    handle_http_error,
    json_response,
    login_redirect,
    response_of,
)
from lucia.middleware.asgi import (
    ASGIExchange,
    ASGISender,
    Receive,
    RequestState,
    Scope,
    Send,
    check_auth,
    find_session,
    find_session_user,
)
from lucia.models import Session, SessionUser

__all__ = ["QuartAuth", "current_session", "current_user", "login_required"]

P = ParamSpec("P")
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

_EXTENSION: Final = "lucia"
_KEY: Final = "lucia.quart"


@with_defaults
class QuartAuth(Generic[UserT, UserIdT]):
    """Sessions for a Quart application.

    ::

        web = QuartAuth(auth, login_view="auth.log_in_page")
        web.init_app(app)
        app.register_blueprint(web.blueprint(url_prefix="/auth"))

    ``init_app`` also handles the library's errors that a view does not catch, without telling which
    credential was wrong: as the ``HTTPException`` of their status, so that the application's own
    handlers for 401, 403 and so on take precedence, and so do those for the library's classes, also
    for ``LuciaError``.
    Without such a handler clients get JSON, and browsers Quart's page. A WebSocket that was not
    accepted yet is refused with that response, an accepted one is closed with 1013 where the status
    would be 503, else with 1008.

    In templates ``current_user`` and ``current_session`` are the values themselves, without
    ``await``. They are read whenever a template is rendered; a store error is raised where the
    template uses them. Without a user adapter there is no ``current_user``.

    Args:
        auth: the application's ``AsyncAuth``.
        app: the application, if there is one already; else call :meth:`init_app`.
        transport: ``cookie``, ``bearer`` for clients that are not browsers, or ``both``.
        forbid_cross_site: respond 403 to a request that fails the origin check, instead of treating
            it as a visitor's.
        login_view: the endpoint of the login page, or its URL: where a visitor's browser is sent
            from a page that needs a login. None, the default, for 401. Requests that do not ask
            for HTML get 401 in any case.

    Raises:
        TypeError: ``auth`` is not an ``AsyncAuth``.
        ValueError: ``transport`` is none of the three.
    """

    def __init__(
        self,
        auth: AsyncAuth[UserT, UserIdT, Any],
        app: Quart | None = None,
        *,
        transport: Transport = "cookie",
        forbid_cross_site: bool = False,
        login_view: str | None = None,
    ) -> None:
        check_auth(auth)
        check_transport(transport)
        self.auth = auth
        self.transport: Transport = transport
        self.forbid_cross_site = forbid_cross_site
        self.login_view = login_view
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Quart) -> None:
        """Add the extension to an application; several applications may share it.

        ``current_user`` and ``login_required`` belong to the first one that is added.
        """
        app.extensions.setdefault(_EXTENSION, []).append(self)
        # Not around ``app.asgi_app``: a ProxyFixMiddleware there gives Quart a copy of the scope,
        # and only in that one are the scheme and the host that the browser sees.
        app.asgi_http_class = self._with_cookies(app.asgi_http_class)
        app.asgi_websocket_class = self._with_cookies(app.asgi_websocket_class)
        if self.forbid_cross_site:
            app.before_request(self._forbid)
            app.before_websocket(self._forbid)
        app.context_processor(_template_context)
        handlers: Mapping[Any, Any] = app.error_handler_spec[None][None]
        if LuciaError not in handlers:
            app.register_error_handler(LuciaError, self._respond)

    def blueprint(
        self,
        name: str = "auth",
        url_prefix: str | None = None,
        **settings: Unpack[AsyncAccountSettings],
    ) -> Blueprint:
        """Return the ready routes: sign up, log in and out, devices, change of the password.

        Args:
            name: the blueprint's name, which begins the endpoints: ``auth.log_in`` and so on, and
                ``auth.log_in_page`` for the page.
            url_prefix: the path before the routes, such as ``/auth``.
            settings: see :class:`~lucia.middleware.accounts.AsyncAccountRoutes`.
        """
        accounts = AsyncAccountRoutes(self.auth, self.transport, **settings)
        blueprint = Blueprint(name, __name__, url_prefix=url_prefix)
        for route in accounts.routes:
            blueprint.add_url_rule(
                route.path.replace("{handle}", "<handle>"),
                endpoint=route.endpoint,
                view_func=self._view(accounts, route),
                methods=[route.method],
            )
        return blueprint

    def request(self) -> AsyncAuthRequest[UserT, UserIdT]:
        """Return the ``AuthRequest`` of the current request, for example to sign in and out.

        Raises:
            RuntimeError: the extension was not added to the current application.
        """
        if self not in _installed():
            raise _not_installed()
        state = self._state(_scope(_connection()))
        return cast("AsyncAuthRequest[UserT, UserIdT]", state.request)

    @AsyncTruth.needs_await
    async def optional_session(self) -> Session[UserIdT] | None:
        """Return the request's session, or None for a visitor."""
        return await self.request().validate()

    @AsyncTruth.needs_await
    async def optional_user(self) -> UserT | None:
        """Return the request's user, or None for a visitor."""
        both = await self.request().validate_user()
        return None if both is None else both.user

    async def session(self) -> Session[UserIdT]:
        """Return the request's session.

        Raises:
            NotAuthenticated: the request is a visitor's; the response is 401.
        """
        return required(await find_session(self.request()))

    async def session_user(self) -> SessionUser[UserT, UserIdT]:
        """Return the request's session and user.

        Raises:
            NotAuthenticated: the request is a visitor's; the response is 401.
        """
        return required(await find_session_user(self.request()))

    async def user(self) -> UserT:
        """Return the request's user.

        Raises:
            NotAuthenticated: the request is a visitor's; the response is 401.
        """
        return required(await find_session_user(self.request())).user

    def _state(self, scope: Scope) -> RequestState:
        states: dict[object, RequestState] = scope.setdefault(_KEY, {})
        state = states.get(self)
        if state is None:
            exchange = ASGIExchange(scope)
            state = RequestState(exchange, self.auth.handle_request(exchange, self.transport))
            states[self] = state
        return state

    def _with_cookies(self, connection_class: Callable[..., Any]) -> Any:
        """Return what replaces a class of Quart's connections; their responses have the cookies."""

        def connect(app: Quart, scope: Scope) -> Callable[[Receive, Send], Awaitable[None]]:
            handle = connection_class(app, scope)
            exchange = self._state(scope).exchange
            return lambda receive, send: handle(receive, ASGISender(exchange, scope, send))

        return connect

    async def _forbid(self) -> None:
        if self.request().is_cross_site:
            raise InvalidRequest

    # None for a WebSocket, which Quart's type of error handlers leaves out; hence Any.
    async def _respond(self, error: LuciaError) -> Any:
        connection = _connection()
        if not isinstance(error, ERRORS):
            handler = general_handler(current_app, connection.blueprints)
            if handler is None:
                raise error
            return await current_app.ensure_async(handler)(error)
        answer = response_for(error, self.transport)
        exchange = self._state(_scope(connection)).exchange
        if exchange.is_websocket and exchange.started:
            await websocket.close(answer.close_code, answer.close_reason)
            return None
        wants_page = prefers_page(connection.headers.get("Accept"))
        if wants_page and isinstance(error, NotAuthenticated):
            location = login_redirect(connection, self.login_view, url_for)
            if location is not None:
                return redirect(location, 303)
        http_error = default_exceptions[answer.status](answer.detail)
        handled = await handle_http_error(current_app, app_ctx, http_error)
        if handled is None:
            return None  # a WebSocket, which the application's own handler has closed
        if handled is http_error and not wants_page:
            response: ResponseTypes = json_response(
                Response, ErrorDetail(answer.detail), answer.status
            )
        else:
            response = await current_app.make_response(handled)
        for name, value in answer.headers.items():
            response.headers.setdefault(name, value)
        return response

    def _view(
        self, accounts: AsyncAccountRoutes[UserT, UserIdT], route: AccountRoute
    ) -> Callable[..., Coroutine[Any, Any, ResponseTypes]]:
        async def view(handle: str = "") -> ResponseTypes:
            reply = await accounts.handle(route, self.request(), await _submission(handle))
            return response_of(Response, reply)

        return view


def login_required(view: Callable[P, Any]) -> Callable[P, Coroutine[Any, Any, Any]]:
    """Let only people who are logged in into a view, which may be sync, or into a WebSocket.

    A visitor's request gets 401, or a browser the ``login_view``; a WebSocket is not accepted. The
    decorator goes below ``@app.route`` or ``@app.websocket``.
    """

    @wraps(view)
    async def decorated(*args: P.args, **kwargs: P.kwargs) -> Any:
        # A preflight of CORS carries no cookie.
        if _connection().method != "OPTIONS":
            await _extension().session()
        return await current_app.ensure_async(view)(*args, **kwargs)

    return decorated


class _Current(Awaitable[T_co]):
    """A value of the current request, which has to be awaited since the store may be asked for it.

    The object itself would be true for everybody, so it has no truth value.
    """

    def __init__(self, name: str, read: Callable[[], Awaitable[T_co]]) -> None:
        self._name = name
        self._read = read

    def __await__(self) -> Generator[Any, Any, T_co]:
        return self._read().__await__()

    def __bool__(self) -> bool:
        raise TypeError(
            f"{self._name} was not awaited, and is true for everybody: write 'await {self._name}'"
        )

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("_"):  # Python's own questions
            raise AttributeError(name)
        raise AttributeError(f"{self._name} was not awaited: write '(await {self._name}).{name}'")

    def __repr__(self) -> str:
        return f"<{self._name}, to be awaited>"


def _installed() -> Sequence[QuartAuth[Any, Any]]:
    if has_app_context():
        extensions = current_app.extensions.get(_EXTENSION, ())
    else:
        # In a test that uses its client in an ``async with`` block, older Quarts keep the request
        # alone. The last extension was asked first, see _with_cookies.
        extensions = [*reversed(_scope(_connection()).get(_KEY, {}))]
    return cast("Sequence[QuartAuth[Any, Any]]", extensions)


def _not_installed() -> RuntimeError:
    return RuntimeError(
        "QuartAuth is not installed: add web.init_app(app), where web = QuartAuth(auth)"
    )


def _extension() -> QuartAuth[Any, Any]:
    installed = _installed()
    if not installed:
        raise _not_installed()
    return installed[0]


current_user: Awaitable[Any] = _Current("current_user", lambda: _extension().optional_user())
"""The user of the current request: what ``transform_database_user`` makes, or None for a visitor.

``user = await current_user``; the store is asked when it is awaited for the first time in a
request.
"""

current_session: Awaitable[Session[Any] | None] = _Current(
    "current_session", lambda: _extension().optional_session()
)
"""The ``Session`` of the current request, or None for a visitor; it is awaited, too."""


def _connection() -> BaseRequestWebsocket:
    """Return the current request or WebSocket; where there are both, the request, as Quart does."""
    is_socket = has_websocket_context() and not has_request_context()
    found: Any = websocket if is_socket else request
    return cast("BaseRequestWebsocket", found._get_current_object())


def _scope(connection: BaseRequestWebsocket) -> Scope:
    return cast("Scope", connection.scope)


async def _template_context() -> dict[str, Any]:
    """Read the values before the template is rendered: its ``if`` can't await."""
    if not (has_request_context() or has_websocket_context()):
        return {}
    web = _extension()
    context: dict[str, Any] = {}
    if web.auth.has_users:
        context["current_user"] = await _value(web.optional_user)
    context["current_session"] = await _value(web.optional_session)
    return context


async def _value(read: Callable[[], Awaitable[T]]) -> T:
    """Return a value for templates; in place of one that can't be read, what raises the error.

    Or the application's own page for 503 could not be rendered while the store is down.
    """
    try:
        return await read()
    except Exception as error:
        return cast("T", RequestProxy(partial(_raise, error)))


def _raise(error: Exception) -> NoReturn:
    raise error


async def _submission(handle: str) -> Submission:
    check_body_length(request.content_length or 0)
    check_charset(request.content_type or "")
    fields: Mapping[str, Any]
    is_form = request.mimetype in FORMS
    if is_form:
        # By Quart's own parser: another extension may have read the body already.
        form: Any = await cast("Any", request).form
        fields = form.to_dict()
        check_body_length(sum(map(len, fields.values())))  # it need not have told its length
    else:
        body = cast("bytes", await request.get_data())
        fields, is_form = read_body(request.content_type or "", body)
    return Submission(
        fields=fields,
        is_form=is_form,
        wants_page=prefers_page(request.headers.get("Accept")),
        path=request.root_path + request.path,
        root=request.root_path,
        host=request.host,
        query_next=request.args.get("next"),
        handle=handle,
        user_agent=request.headers.get("User-Agent", ""),
        hidden=await _csrf_field(),
        request=request,
    )


async def _csrf_field() -> Mapping[str, str]:
    """Return the field that a CSRF extension such as Quart-WTF looks for in each form, if used."""
    makers = cast("Mapping[str, Any]", current_app.jinja_env.globals)
    csrf_token = makers.get("csrf_token")
    if csrf_token is None:
        return {}
    token = csrf_token()
    return {"csrf_token": str(await token if isawaitable(token) else token)}
