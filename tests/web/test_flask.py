"""Flask applications: the proxies, the cookie on every response, errors, and the ready routes."""

import sys
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from typing import Any

import pytest
from flask import (
    Blueprint,
    Flask,
    Response,
    abort,
    copy_current_request_context,
    flash,
    get_flashed_messages,
    redirect,
    render_template_string,
    request,
    session,
    stream_with_context,
)
from flask.testing import FlaskClient
from flask.views import MethodView
from werkzeug.exceptions import HTTPException
from werkzeug.middleware.proxy_fix import ProxyFix
from werkzeug.test import TestResponse

from lucia import (
    AsyncAuth,
    Auth,
    DuplicateKeyId,
    InvalidInput,
    InvalidRequest,
    InvalidSessionId,
    LuciaError,
    NotAuthenticated,
    Overloaded,
    PrimaryKey,
    RequestUnauthorized,
    ScryptHash,
    StoreCorrupt,
    StoreUnavailable,
    TooManyAttempts,
    User,
    UsersNotConfigured,
)
from lucia._rules.bodies import MAX_BODY_BYTES
from lucia.adapters.memory import AsyncMemoryAdapter, MemoryAdapter
from lucia.middleware.flask import FlaskAuth, current_session, current_user, login_required
from lucia.testing import login
from tests.web.driver import NAME, Time, user_of

HTML = {"Accept": "text/html,application/xhtml+xml;q=0.9,*/*;q=0.8"}
ORIGIN = "http://localhost"
FOREIGN = {"Origin": "https://evil.example"}
ANN = {"username": "ann", "password": "correct horse"}


@pytest.fixture
def store(time: Time) -> MemoryAdapter:
    """Return a store of users and sessions."""
    return MemoryAdapter(clock=time)


@pytest.fixture
def auth(store: MemoryAdapter, time: Time) -> Auth[User]:
    """Return an auth with a cheap hash."""
    return Auth(users=store, sessions=store, env="DEV", clock=time, hash=ScryptHash(ln=4, r=1, p=1))


@pytest.fixture
def web(auth: Auth[User]) -> FlaskAuth[User]:
    """Return the extension, which no application has yet."""
    return FlaskAuth(auth)


@pytest.fixture
def app() -> Flask:
    """Return an application without the extension."""
    app = Flask(__name__)
    app.secret_key = "secret"
    return app


@pytest.fixture
def idle(auth: Auth[User], time: Time) -> str:
    """Return the id of an idle session: whoever validates it gets another one."""
    session_id = auth.create_session("ann").session_id
    time.pass_hours(25)
    return session_id


def member(auth: Auth[User], name: str = "ann") -> User:
    """Create a user."""
    return auth.create_user(primary_key=PrimaryKey("username", name, "correct horse"))


def send(app: Flask, path: str = "/", cookie: str | None = None, **more: Any) -> TestResponse:
    """Return the response to one request of a page of the application, without a cookie jar."""
    headers = {"Origin": ORIGIN, **more.pop("headers", {})}
    if cookie is not None:
        headers["Cookie"] = f"{NAME}={cookie}"
    client = app.test_client(use_cookies=False)
    return client.open(path, headers=headers, buffered=True, **more)


def route(app: Flask, path: str, view: Callable[..., Any], *methods: str) -> None:
    """Add a view whose endpoint is its path."""
    app.add_url_rule(path, path, view, methods=methods or ("GET",))


def before(app: Flask, ask: Callable[[], object]) -> None:
    """Call this function before each request, whatever it returns."""

    @app.before_request
    def call() -> None:
        ask()


def empty() -> str:
    """Return nothing: a view whose body does not matter."""
    return ""


def cookie_of(response: TestResponse) -> str | None:
    """Return the session cookie that was set: None if none was set, empty if it was cleared."""
    values = [
        text.partition(";")[0].removeprefix(f"{NAME}=")
        for text in response.headers.getlist("Set-Cookie")
        if text.startswith(f"{NAME}=")
    ]
    assert len(values) < 2, "the cookie was set twice"
    return values[0] if values else None


def detail_of(response: TestResponse) -> object:
    """Return the detail of an error response."""
    body: Any = response.get_json()
    return body["detail"]


# Installation


def test_an_application_factory(auth: Auth[User]) -> None:
    """One extension serves several applications, and none mixes up their requests."""
    web = FlaskAuth(auth)

    def create_app(name: str) -> Flask:
        app = Flask(name)
        web.init_app(app)

        @app.get("/")
        @login_required
        def index() -> list[str]:
            return [name, current_session.user_id]

        return app

    apps = [create_app(name) for name in ("one", "two")]
    clients = [app.test_client() for app in apps]
    for client, user_id in zip(clients, ["ann", "bob"], strict=True):
        login(client, auth, user_id)
    for _ in range(2):
        assert [client.get("/").get_json() for client in clients] == [
            ["one", "ann"],
            ["two", "bob"],
        ]


def test_installing_at_once(auth: Auth[User], app: Flask, idle: str) -> None:
    """The application may be given at once, and installing it twice changes nothing."""
    web = FlaskAuth(auth, app)
    web.init_app(app)
    route(app, "/", login_required(empty))
    response = send(app, cookie=idle)
    assert response.status_code == 200
    assert cookie_of(response) not in (None, "", idle)


def test_two_extensions(auth: Auth[User], app: Flask, time: Time) -> None:
    """Two extensions in one application: the proxies belong to the first one."""
    staff = MemoryAdapter(clock=time)
    web = FlaskAuth(auth, app)
    other = FlaskAuth(Auth(sessions=staff, env="DEV", clock=time), app, transport="bearer")

    @app.get("/")
    def index() -> list[str | None]:
        both = (current_session._get_current_object(), other.optional_session())
        return [user_of(each) for each in both]

    token = other.auth.create_session("root").session_id
    response = send(
        app,
        cookie=web.auth.create_session("ann").session_id,
        headers={"Authorization": f"Bearer {token}"},
    )
    assert response.get_json() == ["ann", "root"]


def test_an_application_in_another_one(
    auth: Auth[User], web: FlaskAuth[User], app: Flask, idle: str
) -> None:
    """Two applications that share an extension answer one request with one cookie."""
    inner = Flask("inner")
    for each in (app, inner):
        web.init_app(each)
    route(inner, "/", lambda: current_session.user_id)

    @app.get("/")
    def index() -> Any:
        web.session()
        return Response.from_app(inner, request.environ)

    response = send(app, cookie=idle)
    assert response.text == "ann"
    assert cookie_of(response) not in (None, "", idle)


def test_an_application_without_the_extension(
    auth: Auth[User], web: FlaskAuth[User], app: Flask
) -> None:
    """Each way to the session says that the extension is not installed, and how to add it."""
    FlaskAuth(auth).init_app(app)
    bare = Flask("bare")

    @login_required
    def protected() -> str:
        return ""

    uses: list[tuple[Flask, Callable[[], object]]] = [
        (app, web.request),  # another one is installed, which would set no cookie for this one
        (bare, web.optional_user),
        (bare, protected),
        (bare, lambda: current_user.user_id),
        (bare, lambda: current_session.user_id),
        (bare, lambda: not current_user),
    ]
    for where, use in uses:
        with where.test_request_context(), pytest.raises(RuntimeError, match=r"web\.init_app\(app"):
            use()


def test_flask_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says what to install."""
    monkeypatch.setitem(sys.modules, "flask", None)
    monkeypatch.delitem(sys.modules, "lucia.middleware.flask")
    with pytest.raises(ImportError, match=r'pip install "lucia-auth\[flask\]"'):
        import_module("lucia.middleware.flask")


def test_an_async_auth_is_refused() -> None:
    """The error names the sync ``Auth``, whose results need no ``await``."""
    wrong: Any = AsyncAuth(sessions=AsyncMemoryAdapter(), env="DEV")
    with pytest.raises(TypeError, match=r"must be an Auth, not AsyncAuth: .* sync adapter"):
        FlaskAuth(wrong)


# The session in views


def test_what_the_methods_return(auth: Auth[User], web: FlaskAuth[User], app: Flask) -> None:
    """Each method and proxy returns the session or the user, and the optional ones None."""
    web.init_app(app)

    @app.get("/")
    def index() -> list[Any]:
        both = web.session_user()
        assert both == (web.session(), web.user())
        assert (web.optional_session(), web.optional_user()) == tuple(both)
        assert (current_session, current_user) == tuple(both)
        assert current_user
        return [both.user.user_id, web.request().client_address]

    @app.get("/visitor")
    def visitor() -> list[object]:
        for required in (web.session, web.user, web.session_user):
            with pytest.raises(NotAuthenticated):
                required()
        return [web.optional_session(), web.optional_user(), bool(current_user)]

    client = app.test_client()
    assert client.get("/visitor").get_json() == [None, None, False]
    user = member(auth)
    login(client, auth, user.user_id)
    assert client.get("/").get_json() == [user.user_id, "127.0.0.1"]


def test_the_user_of_a_session_may_be_gone(
    auth: Auth[User], web: FlaskAuth[User], app: Flask
) -> None:
    """A session without a user is valid, but views that need the user get 401."""
    web.init_app(app)

    @app.get("/")
    @login_required
    def index() -> str:
        assert not current_user
        return web.user().user_id

    client = app.test_client()
    login(client, auth, "nobody")
    assert client.get("/").status_code == 401


def test_a_view_that_does_not_ask_reads_nothing(
    web: FlaskAuth[User], app: Flask, auth: Auth[User], idle: str
) -> None:
    """The store is not asked before a view uses the session."""
    web.init_app(app)
    route(app, "/", lambda: render_template_string("no user here"))
    assert cookie_of(send(app, cookie=idle)) is None
    assert auth.get_session(idle).state == "idle"


@pytest.mark.parametrize("path", ["/sync", "/async", "/class", "/blueprint", "/guarded/page"])
def test_protected_views(auth: Auth[User], web: FlaskAuth[User], app: Flask, path: str) -> None:
    """``login_required`` protects views of every kind, and whole blueprints."""
    web.init_app(app)

    @app.get("/sync")
    @login_required
    def sync_view() -> str:
        return str(current_session.user_id)

    @app.get("/async")
    @login_required
    async def async_view() -> str:
        return str(current_session.user_id)

    class View(MethodView):
        decorators = [login_required]  # noqa: RUF012 -- so does Flask declare it

        def get(self) -> str:
            return str(current_session.user_id)

    app.add_url_rule("/class", view_func=View.as_view("class"))
    blueprint = Blueprint("own", __name__)

    @blueprint.get("/blueprint")
    @login_required
    def in_blueprint() -> str:
        return str(current_session.user_id)

    guarded = Blueprint("guarded", __name__, url_prefix="/guarded")
    guarded.before_request(login_required(lambda: None))

    @guarded.get("/page")
    def page() -> str:
        return str(current_session.user_id)

    app.register_blueprint(blueprint)
    app.register_blueprint(guarded)
    client = app.test_client()
    assert client.get(path).status_code == 401
    login(client, auth, "ann")
    assert client.get(path).text == "ann"


def test_a_general_handler(web: FlaskAuth[User], app: Flask) -> None:
    """An application's handler for all errors gets the library's other errors as they are."""
    web.init_app(app)
    route(app, "/", raising(StoreCorrupt()))
    pages = Blueprint("pages", __name__)
    pages.add_url_rule("/pages", view_func=raising(StoreCorrupt()))
    pages.register_error_handler(Exception, lambda error: f"pages {type(error).__name__}")
    app.register_blueprint(pages)
    app.register_error_handler(Exception, lambda error: type(error).__name__)
    assert [send(app, path).text for path in ("/", "/pages")] == [
        "StoreCorrupt",
        "pages StoreCorrupt",
    ]


def test_an_error_is_no_visitor(
    web: FlaskAuth[User], app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A RuntimeError on the way to the user is raised, and does not look like a visitor."""

    def broken() -> None:
        raise RuntimeError("out of order")

    web.init_app(app)
    monkeypatch.setattr(web, "optional_user", broken)
    with app.test_request_context(), pytest.raises(RuntimeError, match="out of order"):
        bool(current_user)


def test_a_preflight_needs_no_login(web: FlaskAuth[User], app: Flask) -> None:
    """An OPTIONS request reaches the view, whether Flask or the view responds to it."""
    web.init_app(app)

    @login_required
    def own() -> str:
        return "mine"

    route(app, "/automatic", login_required(empty))
    route(app, "/own", own, "GET", "OPTIONS")
    assert app.test_client().options("/automatic").status_code == 200
    assert app.test_client().options("/own").text == "mine"
    assert app.test_client().get("/own").status_code == 401


def test_templates(auth: Auth[User], web: FlaskAuth[User], app: Flask) -> None:
    """Templates know ``current_user`` and ``current_session``."""
    web.init_app(app)
    page = "{% if current_user %}{{ current_session.user_id }}{% else %}visitor{% endif %}"
    route(app, "/", lambda: render_template_string(page))
    client = app.test_client()
    assert client.get("/").text == "visitor"
    user = member(auth)
    login(client, auth, user.user_id)
    assert client.get("/").text == user.user_id
    with app.app_context():  # such as an e-mail's
        assert render_template_string(page) == "visitor"


def test_the_test_client_in_an_application_context(
    auth: Auth[User], web: FlaskAuth[User], app: Flask
) -> None:
    """A user is not remembered in an application context, which several requests may share."""
    web.init_app(app)
    route(app, "/", lambda: str(web.optional_session() and current_session.user_id))
    clients = {user_id: app.test_client() for user_id in ("ann", "bob")}
    for user_id, client in clients.items():
        login(client, auth, user_id)
    with app.app_context():
        for _ in range(2):
            assert {who: client.get("/").text for who, client in clients.items()} == {
                "ann": "ann",
                "bob": "bob",
            }
            assert app.test_client().get("/").text == "None"


def test_the_context_that_a_test_client_preserves(
    auth: Auth[User], web: FlaskAuth[User], app: Flask, idle: str
) -> None:
    """In ``with client`` the proxies are those of the last request."""
    web.init_app(app)
    route(app, "/", lambda: "")
    with app.test_client() as client:
        client.set_cookie(NAME, idle)
        client.get("/")
        assert current_session.user_id == "ann"
        assert current_session.state == "idle"  # the response is sent: nobody gets a new id


def test_a_request_context_of_a_test(auth: Auth[User], web: FlaskAuth[User], app: Flask) -> None:
    """``test_request_context`` has a session, which may change."""
    web.init_app(app)
    session_id = auth.create_session("ann").session_id
    headers = {"Cookie": f"{NAME}={session_id}", "Origin": ORIGIN}
    with app.test_request_context(method="POST", headers=headers):
        assert current_session.user_id == "ann"
        web.request().sign_in("bob")
        assert current_session.user_id == "bob"
    with app.test_request_context(), pytest.raises(NotAuthenticated):
        login_required(empty)()


# The cookie


def test_signing_in_and_out(auth: Auth[User], web: FlaskAuth[User], app: Flask) -> None:
    """The cookie is set when somebody signs in, and cleared when they sign out."""
    web.init_app(app)

    @app.post("/in")
    def sign_in() -> str:
        return web.request().sign_in("ann").user_id

    @app.post("/out")
    def sign_out() -> str:
        web.request().sign_out()
        return ""

    session_id = cookie_of(send(app, "/in", method="POST"))
    assert session_id
    assert auth.get_session(session_id).user_id == "ann"
    assert cookie_of(send(app, "/out", session_id, method="POST")) == ""
    with pytest.raises(InvalidSessionId):
        auth.get_session(session_id)


@pytest.fixture
def every_response(web: FlaskAuth[User], app: Flask) -> Flask:
    """Return an application that validates the session and then responds in some way."""
    web.init_app(app)
    before(app, web.optional_session)

    @app.get("/own")
    def own() -> Response:
        response = Response("")
        response.set_cookie("theme", "dark")
        response.headers["Cache-Control"] = "public"
        response.vary.add("Accept")
        return response

    @app.get("/flask-session")
    def flask_session() -> str:
        session["seen"] = True
        flash("welcome")
        return str(get_flashed_messages())

    @app.get("/stream")
    def stream() -> Response:
        def parts() -> Iterator[str]:
            yield current_session.user_id
            yield current_session.state

        return Response(stream_with_context(parts()))

    @app.get("/redirect")
    def to_root() -> Any:
        return redirect("/", 303)

    route(app, "/abort", lambda: abort(418))
    route(app, "/refused", raising(RequestUnauthorized()))
    route(app, "/crash", raising(ZeroDivisionError()))
    return app


def raising(error: Exception) -> Callable[[], str]:
    """Return a view that raises this error."""

    def view() -> str:
        raise error

    return view


STATUSES = {
    "/own": 200,
    "/flask-session": 200,
    "/stream": 200,
    "/redirect": 303,
    "/abort": 418,
    "/refused": 403,
    "/crash": 500,
    "/nowhere": 404,
    "/static/nothing.css": 404,
}


@pytest.mark.parametrize("path", STATUSES)
def test_the_cookie_is_on_every_kind_of_response(
    every_response: Flask, auth: Auth[User], idle: str, path: str
) -> None:
    """Every kind of response carries the cookie of a renewed session, beside the own headers."""
    response = send(every_response, path, idle)
    assert response.status_code == STATUSES[path]
    renewed = cookie_of(response)
    assert renewed not in (None, "", idle)
    assert response.headers.getlist("Cache-Control") == ["no-store"]
    varies = [field.strip() for field in ",".join(response.headers.getlist("Vary")).split(",")]
    assert varies.count("Cookie") == 1
    names = [text.partition("=")[0] for text in response.headers.getlist("Set-Cookie")]
    beside = {"/own": ["theme"], "/flask-session": ["session"]}
    assert names == [*beside.get(path, []), NAME]
    again = send(every_response, path, renewed)
    assert cookie_of(again) is None
    assert "no-store" not in again.headers.get("Cache-Control", "")


@pytest.mark.parametrize("cookie", ["", "x", "a" * 40, "ä" * 5_000, f"a; {NAME}=b"])
def test_a_visitor_gets_no_cookie(every_response: Flask, cookie: str) -> None:
    """A response to a visitor gets Vary and no cookie, with any Cookie header."""
    response = send(every_response, "/redirect", cookie)
    assert response.status_code == 303
    assert not {"Set-Cookie", "Cache-Control"} & {name for name, _ in response.headers}
    assert response.headers.getlist("Vary") == ["Cookie"]


def test_a_stream_that_asks_first_sets_no_cookie(
    web: FlaskAuth[User], app: Flask, idle: str
) -> None:
    """A streamed body is sent after the headers: it leaves an idle session alone."""
    web.init_app(app)

    @app.post("/")
    def stream() -> Response:
        def parts() -> Iterator[str]:
            yield current_session.state
            with pytest.raises(RuntimeError, match="has started"):
                web.request().sign_in("bob")
            yield "."

        return Response(stream_with_context(parts()))

    response = send(app, cookie=idle, method="POST")
    assert (response.text, cookie_of(response)) == ("idle.", None)


def test_a_stream_can_not_sign_in(web: FlaskAuth[User], app: Flask) -> None:
    """A cookie that is set in a streamed body would be lost, also if the view asked before."""
    web.init_app(app)

    @app.post("/")
    def stream() -> Response:
        own = web.request()
        assert own.validate() is None

        def parts() -> Iterator[str]:
            with pytest.raises(RuntimeError, match="has started"):
                own.sign_in("ann")
            yield "."

        return Response(parts())

    assert send(app, method="POST").text == "."


def test_a_thread_with_the_requests_context(auth: Auth[User], web: FlaskAuth[User]) -> None:
    """``copy_current_request_context`` knows the session of the request."""
    app = Flask(__name__)
    web.init_app(app)

    @app.get("/")
    def index() -> str:
        return copy_current_request_context(lambda: str(current_session.user_id))()

    client = app.test_client()
    login(client, auth, "ann")
    assert client.get("/").text == "ann"


@pytest.mark.parametrize("is_first", [True, False])
def test_functions_after_the_request(
    web: FlaskAuth[User], app: Flask, idle: str, is_first: bool
) -> None:
    """Such a function may use the session, and can't let a cache store its cookie."""

    def note(response: Response) -> Response:
        response.headers["X-User"] = current_session.user_id
        response.headers["Cache-Control"] = "public, max-age=60"
        return response

    if is_first:
        app.after_request(note)
    web.init_app(app)
    if not is_first:
        app.after_request(note)
    route(app, "/", lambda: "")
    response = send(app, cookie=idle)
    assert response.headers["X-User"] == "ann"
    assert cookie_of(response) not in (None, "", idle)
    assert response.headers.getlist("Cache-Control") == ["no-store"]


def test_a_function_after_the_request_that_fails(
    web: FlaskAuth[User], app: Flask, idle: str
) -> None:
    """The cookie of a renewed session is not lost where such a function raises an error."""
    web.init_app(app)

    @app.after_request
    def fail(response: Response) -> Response:
        raise ZeroDivisionError

    route(app, "/", lambda: str(current_session.user_id))
    response = send(app, cookie=idle)
    assert response.status_code == 500
    assert cookie_of(response) not in (None, "", idle)


@pytest.mark.parametrize("is_first", [True, False])
def test_behind_a_proxy(web: FlaskAuth[User], app: Flask, auth: Auth[User], is_first: bool) -> None:
    """The scheme, host and address are those of ``ProxyFix``, in whatever order it is added."""

    def fix() -> None:
        app.wsgi_app = ProxyFix(app.wsgi_app, x_host=1)  # type: ignore[method-assign]

    if is_first:
        fix()
    web.init_app(app)
    if not is_first:
        fix()

    @app.post("/")
    def index() -> list[Any]:
        own = web.request()
        return [own.origin_failure, own.client_address, own.sign_in("ann").user_id]

    headers = {
        "X-Forwarded-Proto": "https",
        "X-Forwarded-Host": "shop.example",
        "X-Forwarded-For": "203.0.113.9",
        "Origin": "https://shop.example",
    }
    response = send(app, method="POST", headers=headers)
    assert response.get_json() == [None, "203.0.113.9", "ann"]
    assert cookie_of(response)


# Errors


@pytest.mark.parametrize(
    ("error", "status", "detail"),
    [
        (NotAuthenticated(), 401, "Not logged in."),
        (InvalidSessionId(), 401, "Not logged in."),
        (InvalidRequest("secret"), 403, "This request comes from another site."),
        (RequestUnauthorized(), 403, "Not allowed."),
        (DuplicateKeyId(), 409, "This name is taken."),
        (InvalidInput("too <b>short</b>"), 422, "too <b>short</b>"),
        (Overloaded(), 503, "Too many requests at once. Try again in a moment."),
        (StoreUnavailable(), 503, "Sessions can't be reached. Try again in a moment."),
    ],
)
def test_errors_of_the_library(
    web: FlaskAuth[User], app: Flask, error: LuciaError, status: int, detail: str
) -> None:
    """Clients get the detail as JSON, and browsers Flask's page with it."""
    web.init_app(app)
    route(app, "/", raising(error))
    response = send(app)
    assert (response.status_code, detail_of(response)) == (status, detail)
    page = send(app, headers=HTML)
    assert (page.status_code, page.mimetype) == (status, "text/html")
    assert "<b>" not in page.text
    for each in (response, page):
        assert each.headers.get("WWW-Authenticate") == ("APIKey" if status == 401 else None)
        assert each.headers.get("Retry-After") == ("1" if status == 503 else None)


def test_too_many_attempts_say_how_long(web: FlaskAuth[User], app: Flask) -> None:
    """A 429 names the seconds to wait."""
    web.init_app(app)
    route(app, "/", raising(TooManyAttempts(retry_after=17)))
    response = send(app)
    assert (response.status_code, response.headers["Retry-After"]) == (429, "17")


@pytest.mark.parametrize("error", [StoreCorrupt(), UsersNotConfigured()])
def test_the_servers_own_errors(web: FlaskAuth[User], app: Flask, error: LuciaError) -> None:
    """Errors that are nobody's but the server's stay Flask's 500."""
    web.init_app(app)
    route(app, "/", raising(error))
    assert send(app).status_code == 500


def test_a_bearer_clients_401_names_the_scheme(auth: Auth[User], app: Flask) -> None:
    """``WWW-Authenticate`` is that of the transport."""
    FlaskAuth(auth, app, transport="bearer")
    route(app, "/", raising(NotAuthenticated()))
    assert send(app).headers["WWW-Authenticate"] == "Bearer"


OWN_HANDLERS: Mapping[str, type[Exception] | int] = {
    "class": NotAuthenticated,
    "status": 401,
    "HTTPException": HTTPException,
    "Exception": Exception,
}


@pytest.mark.parametrize("accept", [{}, HTML], ids=["API", "page"])
@pytest.mark.parametrize("is_first", [True, False], ids=["before", "after"])
@pytest.mark.parametrize("key", OWN_HANDLERS.values(), ids=OWN_HANDLERS)
def test_the_applications_own_error_handlers(
    web: FlaskAuth[User],
    app: Flask,
    accept: dict[str, str],
    is_first: bool,
    key: type[Exception] | int,
) -> None:
    """The application's handlers take precedence, whenever they were added."""

    def own(error: Exception) -> tuple[str, int]:
        return f"own page for {type(error).__name__}", 401

    if is_first:
        app.register_error_handler(key, own)
    web.init_app(app)
    if not is_first:
        app.register_error_handler(key, own)
    route(app, "/", login_required(empty))
    response = send(app, headers=accept)
    name = "NotAuthenticated" if key is NotAuthenticated else "Unauthorized"
    assert (response.status_code, response.text) == (401, f"own page for {name}")
    is_ours = key is not NotAuthenticated
    assert response.headers.get("WWW-Authenticate") == ("APIKey" if is_ours else None)


def test_an_error_handler_that_returns_the_error(web: FlaskAuth[User], app: Flask) -> None:
    """A handler of all errors may leave those of HTTP alone; clients then get JSON."""
    web.init_app(app)
    app.register_error_handler(Exception, lambda error: error)
    route(app, "/", raising(NotAuthenticated()))
    assert detail_of(send(app)) == "Not logged in."


def test_an_error_handler_of_a_blueprint(web: FlaskAuth[User], app: Flask) -> None:
    """A blueprint's own handlers are for its own views."""
    web.init_app(app)
    blueprint = Blueprint("own", __name__)
    blueprint.register_error_handler(NotAuthenticated, lambda error: ("blueprint", 418))
    blueprint.add_url_rule("/inside", "inside", raising(NotAuthenticated()))
    app.register_blueprint(blueprint)
    route(app, "/outside", raising(NotAuthenticated()))
    assert (send(app, "/inside").status_code, send(app, "/outside").status_code) == (418, 401)


def test_a_page_for_an_outage(web: FlaskAuth[User], app: Flask) -> None:
    """The application's own page for 503 keeps the header that says when to try again."""
    web.init_app(app)
    app.register_error_handler(503, lambda error: (render_template_string("sorry"), 503))
    route(app, "/", raising(StoreUnavailable()))
    response = send(app, headers=HTML)
    assert (response.status_code, response.text) == (503, "sorry")
    assert response.headers["Retry-After"] == "1"


def test_cross_site_requests_are_visitors_or_forbidden(auth: Auth[User]) -> None:
    """A foreign request finds no session, or gets 403 if the option forbids it."""
    session_id = auth.create_session("ann").session_id
    for forbids, expected in ((False, (200, "None")), (True, (403, "own 403"))):
        app = Flask(__name__)
        web = FlaskAuth(auth, app, forbid_cross_site=forbids)
        app.register_error_handler(403, lambda error: ("own 403", 403))
        route(app, "/", lambda web=web: str(web.optional_session()), "POST")
        response = send(app, cookie=session_id, method="POST", headers=FOREIGN)
        assert (response.status_code, response.text) == expected
        assert send(app, cookie=session_id, method="POST").status_code == 200
        assert cookie_of(response) is None


# The login page


@pytest.fixture
def pages(auth: Auth[User], app: Flask) -> Flask:
    """Return an application with a protected page, and the login page of the ready routes."""
    web = FlaskAuth(auth, app, login_view="auth.log_in_page")
    app.register_blueprint(web.blueprint(url_prefix="/auth"))
    route(app, "/private", login_required(empty), "GET", "POST")

    @app.get("/files/<path:name>")
    @login_required
    def file(name: str) -> str:
        return name

    return app


@pytest.mark.parametrize(
    ("path", "back"),
    [
        ("/private", "/private"),
        ("/private?a=b&c=%2Fd", "/private%3Fa%3Db%26c%3D%252Fd"),
        ("/files/caf%C3%A9%3Fx", "/files/caf%25C3%25A9%253Fx"),
        ("/private?caf\xe9", None),
    ],
)
def test_a_visitor_of_a_page_is_sent_to_log_in(pages: Flask, path: str, back: str | None) -> None:
    """The login page leads back to the page, unless its URL is none."""
    path, _, query = path.partition("?")
    sent = {"QUERY_STRING": query}
    response = send(pages, path, headers=HTML, environ_overrides=sent)
    assert response.status_code == 303
    location = "/auth/login" if back is None else f"/auth/login?next={back}"
    assert response.headers["Location"] == location


def test_who_is_not_sent_to_log_in(pages: Flask) -> None:
    """An API's client gets 401, and a form that was sent does not lead back."""
    assert send(pages, "/private").status_code == 401
    response = send(pages, "/private", method="POST", headers=HTML)
    assert (response.status_code, response.headers["Location"]) == (303, "/auth/login")


def test_below_a_prefix(pages: Flask) -> None:
    """Under a SCRIPT_NAME the redirect and the way back are URLs of the browser's."""
    response = send(pages, "/private", headers=HTML, environ_overrides={"SCRIPT_NAME": "/shop"})
    assert response.headers["Location"] == "/shop/auth/login?next=/shop/private"
    form = {**ANN, "next": "/shop/private"}
    signed_up = send(
        pages,
        "/auth/signup",
        method="POST",
        data=form,
        headers=HTML,
        environ_overrides={"SCRIPT_NAME": "/shop"},
    )
    assert signed_up.headers["Location"] == "/shop/private"
    page = send(pages, "/auth/login", headers=HTML, environ_overrides={"SCRIPT_NAME": "/shop"})
    assert '<a href="/shop/auth/signup">' in page.text


@pytest.mark.parametrize(
    ("login_view", "location"),
    [
        ("log_in", "/log-in?next=/"),
        ("/log-in", "/log-in?next=/"),
        ("/log-in?from=app", "/log-in?from=app&next=/"),
        ("https://sso.example/", "https://sso.example/?next=/"),
    ],
)
def test_the_login_view(auth: Auth[User], app: Flask, login_view: str, location: str) -> None:
    """The login page is an endpoint or a URL; a page that needs a login itself is no loop."""
    web = FlaskAuth(auth, app, login_view=login_view)
    before(app, web.session)
    app.add_url_rule("/", "index", empty)
    app.add_url_rule("/log-in", "log_in", empty)
    response = send(app, headers=HTML)
    assert (response.status_code, response.headers["Location"]) == (303, location)
    at_login = send(app, "/log-in?next=/", headers=HTML)
    assert at_login.status_code == (303 if "sso" in login_view else 401)


# The ready routes


def test_the_ready_routes_in_json(pages: Flask) -> None:
    """Somebody signs up, logs in elsewhere, logs out there, and changes the password."""
    phone, laptop = pages.test_client(), pages.test_client()
    for client in (phone, laptop):
        client.environ_base["HTTP_ORIGIN"] = ORIGIN
    laptop.environ_base["HTTP_USER_AGENT"] = "laptop"
    signed_up = phone.post("/auth/signup", json=ANN)
    assert signed_up.status_code == 201
    assert laptop.post("/auth/login", json=ANN).get_json() == signed_up.get_json()
    assert phone.get("/auth/me").get_json() == signed_up.get_json()
    devices = sorted(phone.get("/auth/devices").get_json(), key=lambda each: each["current"])
    assert [each["current"] for each in devices] == [False, True]
    assert devices[0]["metadata"] == {"user_agent": "laptop"}
    assert phone.post(f"/auth/devices/{devices[0]['handle']}/revoke").status_code == 204
    assert phone.post(f"/auth/devices/{devices[0]['handle']}/revoke").status_code == 404
    assert laptop.get("/auth/me").status_code == 401
    change = {"current_password": "correct horse", "new_password": "battery staple"}
    assert phone.post("/auth/password", json=change).status_code == 200
    assert phone.post("/auth/devices/revoke-others").status_code == 204
    out = phone.post("/auth/logout")
    assert (out.status_code, out.data, cookie_of(out)) == (204, b"", "")
    assert phone.post("/auth/login", json=ANN).status_code == 401


@pytest.mark.parametrize("kind", ["multipart/form-data", "application/x-www-form-urlencoded"])
def test_the_ready_routes_with_forms(pages: Flask, kind: str) -> None:
    """Forms of both kinds lead a browser on, and one that is refused is shown again."""
    send(pages, "/auth/signup", method="POST", json=ANN)

    def submit(**fields: str) -> TestResponse:
        return send(
            pages, "/auth/login", method="POST", data=fields, content_type=kind, headers=HTML
        )

    assert submit(**ANN).headers["Location"] == "/"
    assert submit(**ANN, next="/private?a=b").headers["Location"] == "/private?a=b"
    assert submit(**ANN, next="//evil.example").headers["Location"] == "/"
    refused = submit(username="ann", password="wrong")
    assert (refused.status_code, cookie_of(refused)) == (401, None)
    assert 'value="ann"' in refused.text
    missing = submit(username="ann")
    assert (missing.status_code, "password is missing" in missing.text) == (422, True)


def test_the_query_of_the_login_page_names_the_way_back(pages: Flask) -> None:
    """A form without an action is sent to the URL of its page, with the query."""
    send(pages, "/auth/signup", method="POST", json=ANN)
    path = "/auth/login?next=/private"
    response = send(pages, path, method="POST", data=ANN, headers=HTML)
    assert response.headers["Location"] == "/private"


def test_the_pages(pages: Flask) -> None:
    """The pages are HTML that no other site may show in a frame, and no cache keeps."""
    for path in ("/auth/login", "/auth/signup"):
        page = send(pages, path, headers=HTML)
        assert page.mimetype == "text/html"
        assert page.headers["Content-Security-Policy"] == "frame-ancestors 'none'"
        assert page.headers["Cache-Control"] == "no-store"
        assert "csrf_token" not in page.text
    visitor = send(pages, "/auth/devices", headers=HTML)
    assert visitor.headers["Location"] == "/auth/login?next=/auth/devices"


def test_the_field_of_a_csrf_extension(pages: Flask) -> None:
    """The forms have the token that Flask-WTF's ``CSRFProtect`` looks for."""
    pages.add_template_global(lambda: 'a"b', "csrf_token")
    page = send(pages, "/auth/login", headers=HTML)
    assert '<input type="hidden" name="csrf_token" value="a&quot;b">' in page.text


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        ({"data": b"{", "content_type": "application/json"}, "the body is not JSON"),
        ({"json": []}, "the body must be a JSON object"),
        ({"data": b"a", "content_type": "text/plain"}, "the body must be JSON"),
        ({"json": {"username": "x" * MAX_BODY_BYTES}}, "the body is longer than"),
        ({"data": {"username": "x" * MAX_BODY_BYTES}}, "the body is longer than"),
        ({"data": {}}, "username is missing"),
    ],
)
def test_bodies_that_are_refused(pages: Flask, body: dict[str, Any], detail: str) -> None:
    """A body that is malformed or too long is 422, in JSON as well as in a form."""
    response = send(pages, "/auth/login", method="POST", **body)
    assert response.status_code == 422
    assert str(detail_of(response)).startswith(detail)


@pytest.mark.parametrize(
    "kind", ["application/json", "application/x-www-form-urlencoded", "multipart/form-data"]
)
def test_a_body_without_a_length(pages: Flask, kind: str) -> None:
    """A body in chunks is read up to the limit, and not further."""
    read: list[int] = []

    class Endless:
        def read(self, size: int = -1) -> bytes:
            assert 0 < size <= 2 * MAX_BODY_BYTES, "the whole body would be read"
            read.append(size)
            return b"a" * size

    response = send(
        pages,
        "/auth/login",
        method="POST",
        content_type=f"{kind}; boundary=B",
        environ_overrides={"wsgi.input": Endless(), "wsgi.input_terminated": True},
    )
    assert response.status_code == 422
    assert str(detail_of(response)).startswith("the body is longer than")
    assert sum(read) <= 2 * MAX_BODY_BYTES


@pytest.mark.parametrize("read", [lambda: request.get_data(), lambda: request.form])
@pytest.mark.parametrize("body", [{"json": ANN}, {"data": ANN}])
def test_another_extension_may_read_the_body_first(
    pages: Flask, read: Callable[[], object], body: dict[str, Any]
) -> None:
    """The body may have been read when a ready route gets the request."""
    before(pages, read)
    assert send(pages, "/auth/signup", method="POST", **body).status_code == 201


def test_tokens(auth: Auth[User], app: Flask) -> None:
    """With ``both`` there is a route that issues tokens, which then work beside the cookie."""
    web = FlaskAuth(auth, app, transport="both")
    app.register_blueprint(web.blueprint("accounts", pages=False))
    assert "accounts.log_in_page" not in app.view_functions
    assert send(app, "/signup", method="POST", json=ANN).status_code == 201
    issued = app.test_client().post("/token", json=ANN)
    token = issued.get_json()["access_token"]
    assert cookie_of(issued) is None
    headers = {"Authorization": f"Bearer {token}"}
    assert app.test_client().get("/me", headers=headers).status_code == 200


def test_foreign_pages_change_nothing(pages: Flask, auth: Auth[User]) -> None:
    """A form of another site gets 403, and nobody is logged out."""
    session_id = auth.create_session("ann").session_id
    response = send(pages, "/auth/logout", session_id, method="POST", headers=FOREIGN)
    assert (response.status_code, cookie_of(response)) == (403, None)
    assert auth.get_session(session_id).user_id == "ann"


def test_an_outage(
    pages: Flask, store: MemoryAdapter, auth: Auth[User], monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the store is down the response is 503, and the cookie stays as it is."""
    client: FlaskClient = pages.test_client()
    login(client, auth, "ann")

    def fail(*args: object) -> None:
        raise StoreUnavailable

    with monkeypatch.context() as patch:
        for name in ("get_session", "delete_session"):
            patch.setattr(store, name, fail)
        for response in (client.get("/private"), client.get("/auth/me")):
            assert (response.status_code, response.headers["Retry-After"]) == (503, "1")
            assert "Set-Cookie" not in response.headers
    assert client.get("/private").status_code == 200
