"""Flask: an extension with ``current_user``, ``login_required`` and the ready routes."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import Any, Final, Generic, ParamSpec, TypeVar, Unpack, cast

try:
    from flask import Blueprint, Flask, Response, current_app, redirect, request, url_for
    from flask.globals import app_ctx
    from werkzeug.exceptions import default_exceptions
    from werkzeug.local import LocalProxy
except ImportError as error:
    raise ImportError(
        'lucia.middleware.flask needs Flask: pip install "lucia-auth[flask]"'
    ) from error

from lucia._rules.accounts import (
    AccountRoute,
    ErrorDetail,
    Reply,
    Submission,
    check_body_length,
    read_body,
    to_json,
)
from lucia._rules.pages import PAGE_HEADERS
from lucia._rules.redirects import prefers_page
from lucia._rules.requests import Transport
from lucia._rules.responses import ERRORS, response_for
from lucia._sync.accounts import AccountRoutes, AccountSettings
from lucia._sync.auth import Auth
from lucia._sync.request import AuthRequest
from lucia._typing import UserIdT, UserT, with_defaults
from lucia.errors import InvalidRequest, NotAuthenticated
from lucia.middleware._werkzeug import handle_http_error, login_redirect
from lucia.middleware.wsgi import Environ, StartResponse, WSGIApp, WSGIExchange, check_auth
from lucia.models import Session, SessionUser

__all__ = ["FlaskAuth", "current_session", "current_user", "login_required"]

P = ParamSpec("P")
ReturnT = TypeVar("ReturnT")

_EXTENSION: Final = "lucia"
_KEY: Final = "lucia.flask"


@dataclass(slots=True)
class _Kept:
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
        return self.exchange.merged(headers) if self.exchange.cookies else headers


@with_defaults
class FlaskAuth(Generic[UserT, UserIdT]):
    """Sessions for a Flask application.

    ::

        web = FlaskAuth(auth, login_view="auth.log_in_page")
        web.init_app(app)
        app.register_blueprint(web.blueprint(url_prefix="/auth"))

    ``init_app`` also handles the library's errors that a view does not catch, without telling which
    credential was wrong: as the ``HTTPException`` of their status, so that the application's own
    handlers for 401, 403 and so on take precedence, and so do those for the library's classes.
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
        for error in ERRORS:
            if error not in handlers:
                app.register_error_handler(error, self._respond)

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
                endpoint=f"{route.name}_page" if route.is_page else route.name,
                view_func=self._view(accounts, route),
                methods=[route.method],
            )
        return blueprint

    def request(self) -> AuthRequest[UserT, UserIdT]:
        """Return the ``AuthRequest`` of the current request, for example to sign in and out.

        Raises:
            RuntimeError: the extension was not added to the current application.
        """
        if self not in _installed():
            raise _not_installed()
        kept: _Kept = request.environ.setdefault(_KEY, {}).setdefault(self, _Kept())
        if kept.request is None:
            # Not earlier: a ProxyFix around this application has changed the environ by now.
            kept.exchange = WSGIExchange(request.environ)
            kept.exchange.started = kept.has_started
            kept.request = self.auth.handle_request(kept.exchange, self.transport)
        return cast("AuthRequest[UserT, UserIdT]", kept.request)

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
        session = self.request().validate()
        if session is None:
            raise NotAuthenticated
        return session

    def session_user(self) -> SessionUser[UserT, UserIdT]:
        """Return the request's session and user.

        Raises:
            NotAuthenticated: the request is a visitor's; the response is 401.
        """
        both = self.request().validate_user()
        if both is None:
            raise NotAuthenticated
        return both

    def user(self) -> UserT:
        """Return the request's user.

        Raises:
            NotAuthenticated: the request is a visitor's; the response is 401.
        """
        return self.session_user().user

    def _forbid(self) -> None:
        if self.request().origin_failure is not None:
            raise InvalidRequest

    def _with_cookies(self, app: WSGIApp) -> Any:
        """Return the application; its responses have the cookies."""

        def wsgi_app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
            of_extensions: dict[object, _Kept] = environ.setdefault(_KEY, {})
            if self in of_extensions:  # this application is in another one, which adds the cookies
                return app(environ, start_response)
            kept = of_extensions[self] = _Kept()

            def start(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
                return start_response(status, kept.start(headers), exc_info)

            return app(environ, start)

        return wsgi_app

    def _respond(self, error: Exception) -> Response:
        wants_page = prefers_page(request.headers.get("Accept"))
        if wants_page and isinstance(error, NotAuthenticated):
            location = self._login_location()
            if location is not None:
                return cast("Response", redirect(location, 303))
        answer = response_for(error, self.transport)
        http_error = default_exceptions[answer.status](answer.detail)
        handled = handle_http_error(current_app, app_ctx, http_error)
        if handled is http_error and not wants_page:
            response = _json(ErrorDetail(answer.detail), answer.status)
        else:
            response = current_app.make_response(handled)
        for name, value in answer.headers.items():
            response.headers.setdefault(name, value)
        return response

    def _login_location(self) -> str | None:
        """Return the URL of the login page, or None if there is none or this is it."""
        view = self.login_view
        if view is None:
            return None
        login_url = view if view.startswith(("/", "http://", "https://")) else url_for(view)
        return login_redirect(request, login_url)

    def _view(
        self, accounts: AccountRoutes[UserT, UserIdT], route: AccountRoute
    ) -> Callable[..., Response]:
        def view(handle: str = "") -> Response:
            reply = accounts.handle(route, self.request(), _submission(handle))
            return _response(accounts, reply)

        return view


def login_required(view: Callable[P, ReturnT]) -> Callable[P, ReturnT]:
    """Let only people who are logged in into a view, which may be async.

    A visitor's request gets 401, or a browser the ``login_view``. The decorator goes below
    ``@app.route``.
    """

    @wraps(view)
    def decorated(*args: P.args, **kwargs: P.kwargs) -> ReturnT:
        # A preflight of CORS carries no cookie.
        if request.method != "OPTIONS":
            _extension().session()
        return cast("ReturnT", current_app.ensure_sync(view)(*args, **kwargs))

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


current_user: Any = LocalProxy(lambda: _extension().optional_user())
"""The user of the current request: what ``transform_database_user`` makes, or None for a visitor.

The store is asked when it is used for the first time in a request.
"""

current_session: Any = LocalProxy(lambda: _extension().optional_session())
"""The ``Session`` of the current request, or None for a visitor."""


def _template_context() -> dict[str, Any]:
    return {"current_user": current_user, "current_session": current_session}


def _submission(handle: str) -> Submission:
    check_body_length(request.content_length or 0)
    fields: Mapping[str, Any]
    is_form = request.mimetype in ("application/x-www-form-urlencoded", "multipart/form-data")
    if is_form:
        # By Flask's own parser: another extension may have read the body already.
        fields = request.form.to_dict()
    else:
        fields, is_form = read_body(request.content_type or "", request.get_data())
    return Submission(
        fields=fields,
        is_form=is_form,
        wants_page=prefers_page(request.headers.get("Accept")),
        path=request.root_path + request.path,
        next=request.form.get("next") or request.args.get("next"),
        handle=handle,
        user_agent=request.headers.get("User-Agent", ""),
        hidden=_csrf_field(),
        request=request,
    )


def _csrf_field() -> Mapping[str, str]:
    """Return the field that Flask-WTF's ``CSRFProtect`` looks for in each form, if it is used."""
    makers = cast("Mapping[str, Any]", current_app.jinja_env.globals)
    csrf_token = makers.get("csrf_token")
    return {} if csrf_token is None else {"csrf_token": str(csrf_token())}


def _response(accounts: AccountRoutes[Any, Any], reply: Reply) -> Response:
    if reply.location is not None:
        response = cast("Response", redirect(reply.location, reply.status))
    elif reply.page is not None:
        response = Response(accounts.render(reply.page), reply.status, dict(PAGE_HEADERS))
    elif reply.status == 204:
        response = Response(status=204)
    else:
        response = _json(reply.content, reply.status)
    response.headers.update(dict(reply.headers))  # older Werkzeugs know no other mapping
    return response


def _json(content: object, status: int) -> Response:
    return Response(to_json(content), status, mimetype="application/json")
