"""Flask: an extension with ``current_user``, ``login_required`` and the ready routes."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import wraps
from inspect import iscoroutinefunction
from typing import Any, Final, Generic, ParamSpec, TypeVar, Unpack, cast

try:
    from flask import (
        Blueprint,
        Flask,
        Response,
        current_app,
        has_request_context,
        redirect,
        request,
        url_for,
    )
    from flask.globals import app_ctx
    from werkzeug.exceptions import RequestEntityTooLarge, default_exceptions
    from werkzeug.wsgi import LimitedStream
except ImportError as error:
    raise ImportError(
        'lucia.middleware.flask needs Flask: pip install "lucia-auth[flask]"'
    ) from error

from lucia._rules.accounts import AccountRoute, ErrorDetail, Submission
from lucia._rules.bodies import (
    MAX_BODY_BYTES,
    body_too_long,
    check_body_length,
    check_charset,
    read_body,
)
from lucia._rules.redirects import prefers_page
from lucia._rules.requests import Transport, check_transport
from lucia._rules.responses import ERRORS, response_for
from lucia._sync.accounts import AccountRoutes, AccountSettings
from lucia._sync.auth import Auth
from lucia._sync.request import AuthRequest, required
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
from lucia.middleware.wsgi import Environ, StartResponse, WSGIApp, WSGIExchange, check_auth
from lucia.models import Session, SessionUser

__all__ = ["FlaskAuth", "current_session", "current_user", "login_required"]

P = ParamSpec("P")
ReturnT = TypeVar("ReturnT")

_EXTENSION: Final = "lucia"
_KEY: Final = "lucia.flask"


@dataclass(slots=True)
class _RequestState:
    """The state of one extension in a request's environ, empty until a view asks who it is."""

    exchange: WSGIExchange | None = None
    request: AuthRequest[Any, Any] | None = None
    has_started: bool = False

    def start(self, headers: list[tuple[str, str]]) -> list[tuple[str, str]]:
        """Return the headers of the response, which starts now, and those of the library."""
        self.has_started = True
        if self.exchange is None:
            return headers
        self.exchange.started = True
        return headers if self.exchange.varies is None else self.exchange.merged(headers)


@with_defaults
class FlaskAuth(Generic[UserT, UserIdT]):
    """Sessions for a Flask application.

    ::

        web = FlaskAuth(auth, login_view="auth.log_in_page")
        web.init_app(app)
        app.register_blueprint(web.blueprint(url_prefix="/auth"))

    ``init_app`` also handles the library's errors that a view does not catch, without telling which
    credential was wrong: as the ``HTTPException`` of their status, so that the application's own
    handlers for 401, 403 and so on take precedence, and so do those for the library's classes, also
    for ``LuciaError``.
    Without such a handler clients get JSON, and browsers Flask's page.

    Args:
        auth: the application's ``Auth``.
        app: the application, if there is one already; else call :meth:`init_app`.
        transport: ``cookie``, ``bearer`` for clients that are not browsers, or ``both``.
        forbid_cross_site: respond 403 to a request that fails the origin check, instead of treating
            it as a visitor's.
        login_view: the endpoint of the login page, or its URL: where a visitor's browser is sent
            from a page that needs a login. None, the default, for 401. Requests that do not ask
            for HTML get 401 in any case.

    Raises:
        TypeError: ``auth`` is not an ``Auth``.
        ValueError: ``transport`` is none of the three.
    """

    def __init__(
        self,
        auth: Auth[UserT, UserIdT, Any],
        app: Flask | None = None,
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

    def init_app(self, app: Flask) -> None:
        """Add the extension to an application; several applications may share it.

        ``current_user`` and ``login_required`` belong to the first one that is added.
        """
        app.extensions.setdefault(_EXTENSION, []).append(self)
        # Not by after_request: other such functions may run later, and may use the session or
        # replace Cache-Control; and after an error in one of them the rest is left out.
        app.wsgi_app = self._with_cookies(app.wsgi_app)  # type: ignore[method-assign]
        if self.forbid_cross_site:
            app.before_request(self._forbid)
        app.context_processor(_template_context)
        handlers: Mapping[Any, Any] = app.error_handler_spec[None][None]
        if LuciaError not in handlers:
            app.register_error_handler(LuciaError, self._respond)

    def blueprint(
        self, name: str = "auth", url_prefix: str | None = None, **settings: Unpack[AccountSettings]
    ) -> Blueprint:
        """Return the ready routes: sign up, log in and out, devices, change of the password.

        Args:
            name: the blueprint's name, which begins the endpoints: ``auth.log_in`` and so on, and
                ``auth.log_in_page`` for the page.
            url_prefix: the path before the routes, such as ``/auth``.
            settings: see :class:`~lucia.middleware.accounts.AccountRoutes`.
        """
        accounts = AccountRoutes(self.auth, self.transport, **settings)
        blueprint = Blueprint(name, __name__, url_prefix=url_prefix)
        for route in accounts.routes:
            blueprint.add_url_rule(
                route.path.replace("{handle}", "<handle>"),
                endpoint=route.endpoint,
                view_func=self._view(accounts, route),
                methods=[route.method],
            )
        return blueprint

    def request(self) -> AuthRequest[UserT, UserIdT]:
        """Return the ``AuthRequest`` of the current request, for example to sign in and out.

        Raises:
            RuntimeError: the extension was not added to the current application.
        """
        states: dict[object, _RequestState] = request.environ.setdefault(_KEY, {})
        state = states.get(self)
        if state is None or state.request is None:
            if self not in _installed():
                raise _not_installed()
            state = states.setdefault(self, _RequestState())
            # Not earlier: a ProxyFix around this application has changed the environ by now.
            state.exchange = WSGIExchange(request.environ)
            state.exchange.started = state.has_started
            state.request = self.auth.handle_request(state.exchange, self.transport)
        return cast("AuthRequest[UserT, UserIdT]", state.request)

    def optional_session(self) -> Session[UserIdT] | None:
        """Return the request's session, or None for a visitor."""
        return self.request().validate()

    def optional_user(self) -> UserT | None:
        """Return the request's user, or None for a visitor."""
        both = self.request().validate_user()
        return None if both is None else both.user

    def session(self) -> Session[UserIdT]:
        """Return the request's session.

        Raises:
            NotAuthenticated: the request is a visitor's; the response is 401.
        """
        return required(self.request().validate())

    def session_user(self) -> SessionUser[UserT, UserIdT]:
        """Return the request's session and user.

        Raises:
            NotAuthenticated: the request is a visitor's; the response is 401.
        """
        return required(self.request().validate_user())

    def user(self) -> UserT:
        """Return the request's user.

        Raises:
            NotAuthenticated: the request is a visitor's; the response is 401.
        """
        return self.session_user().user

    def _forbid(self) -> None:
        if self.request().is_cross_site:
            raise InvalidRequest

    def _with_cookies(self, app: WSGIApp) -> Any:
        """Return the application; its responses have the cookies."""

        def wsgi_app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
            states: dict[object, _RequestState] = environ.setdefault(_KEY, {})
            if self in states:  # this application is in another one, which adds the cookies
                return app(environ, start_response)
            state = states[self] = _RequestState()

            def start(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
                return start_response(status, state.start(headers), exc_info)

            return app(environ, start)

        return wsgi_app

    def _respond(self, error: LuciaError) -> Response:
        if not isinstance(error, ERRORS):
            handler = general_handler(current_app, request.blueprints)
            if handler is None:
                raise error
            return current_app.make_response(current_app.ensure_sync(handler)(error))
        wants_page = prefers_page(request.headers.get("Accept"))
        if wants_page and isinstance(error, NotAuthenticated):
            location = login_redirect(request, self.login_view, url_for)
            if location is not None:
                return cast("Response", redirect(location, 303))
        answer = response_for(error, self.transport)
        http_error = default_exceptions[answer.status](answer.detail)
        handled = handle_http_error(current_app, app_ctx, http_error)
        if handled is http_error and not wants_page:
            response = json_response(Response, ErrorDetail(answer.detail), answer.status)
        else:
            response = current_app.make_response(handled)
        for name, value in answer.headers.items():
            response.headers.setdefault(name, value)
        return response

    def _view(
        self, accounts: AccountRoutes[UserT, UserIdT], route: AccountRoute
    ) -> Callable[..., Response]:
        def view(handle: str = "") -> Response:
            reply = accounts.handle(route, self.request(), _submission(handle))
            return response_of(Response, reply)

        return view


def login_required(view: Callable[P, ReturnT]) -> Callable[P, ReturnT]:
    """Let only people who are logged in into a view, which may be async.

    A visitor's request gets 401, or a browser the ``login_view``. The decorator goes below
    ``@app.route``.
    """

    is_async = iscoroutinefunction(view)

    @wraps(view)
    def decorated(*args: P.args, **kwargs: P.kwargs) -> ReturnT:
        # A preflight of CORS carries no cookie.
        if request.method != "OPTIONS":
            _extension().session()
        if is_async:
            return cast("ReturnT", current_app.ensure_sync(view)(*args, **kwargs))
        return view(*args, **kwargs)

    return decorated


def _installed() -> Sequence[FlaskAuth[Any, Any]]:
    return cast("Sequence[FlaskAuth[Any, Any]]", current_app.extensions.get(_EXTENSION, ()))


def _not_installed() -> RuntimeError:
    return RuntimeError(
        "FlaskAuth is not installed: add web.init_app(app), where web = FlaskAuth(auth)"
    )


def _extension() -> FlaskAuth[Any, Any]:
    installed = _installed()
    if not installed:
        raise _not_installed()
    return installed[0]


current_user: Any = RequestProxy(lambda: _extension().optional_user())
"""The user of the current request: what ``transform_database_user`` makes, or None for a visitor.

The store is asked when it is used for the first time in a request.
"""

current_session: Any = RequestProxy(lambda: _extension().optional_session())
"""The ``Session`` of the current request, or None for a visitor."""


def _template_context() -> dict[str, Any]:
    if not has_request_context():
        return {}
    return {"current_user": current_user, "current_session": current_session}


def _submission(handle: str) -> Submission:
    fields, is_form = _fields()
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
        hidden=_csrf_field(),
        request=request,
    )


def _fields() -> tuple[Mapping[str, Any], bool]:
    check_body_length(request.content_length or 0)
    check_charset(request.content_type or "")
    # The client need not have told its length.
    stream = LimitedStream(request.environ["wsgi.input"], MAX_BODY_BYTES + 1, is_max=True)
    request.environ["wsgi.input"] = stream
    try:
        if request.mimetype in FORMS:
            # By Flask's own parser: another extension may have read the body already.
            found: tuple[Mapping[str, Any], bool] = (request.form.to_dict(), True)
        else:
            found = read_body(request.content_type or "", request.get_data())
    except RequestEntityTooLarge:
        raise body_too_long() from None
    if stream.is_exhausted:
        raise body_too_long()
    return found


def _csrf_field() -> Mapping[str, str]:
    """Return the field that Flask-WTF's ``CSRFProtect`` looks for in each form, if it is used."""
    makers = cast("Mapping[str, Any]", current_app.jinja_env.globals)
    csrf_token = makers.get("csrf_token")
    return {} if csrf_token is None else {"csrf_token": str(csrf_token())}
