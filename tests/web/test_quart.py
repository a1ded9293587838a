"""Quart applications: the awaited proxies, the cookie on every response, and WebSockets."""

import asyncio
import gc
import sys
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from importlib import import_module
from typing import Any

import pytest
from hypercorn.middleware import ProxyFixMiddleware
from quart import (
    Blueprint,
    Quart,
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
    websocket,
)
from quart.datastructures import FileStorage
from quart.templating import stream_template_string
from quart.testing.connections import WebsocketResponseError
from quart.views import MethodView
from quart.wrappers import Request
from werkzeug.exceptions import HTTPException

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
    StoreCorrupt,
    StoreUnavailable,
    TooManyAttempts,
    User,
    UsersNotConfigured,
)
from lucia._rules.accounts import Page
from lucia._rules.bodies import MAX_BODY_BYTES
from lucia.adapters.memory import AsyncMemoryAdapter, MemoryAdapter
from lucia.middleware import quart as quart_integration
from lucia.middleware.asgi import Message
from lucia.middleware.quart import QuartAuth, current_session, current_user, login_required
from lucia.testing import alogin
from tests.web.driver import NAME, SentResponse, Time, log_in, scope_of, user_of

HTML = {"Accept": "text/html,application/xhtml+xml;q=0.9,*/*;q=0.8"}
ORIGIN = "http://localhost"
FOREIGN = {"Origin": "https://evil.example"}
ANN = {"username": "ann", "password": "correct horse"}


@pytest.fixture
def web(auth: AsyncAuth[User]) -> QuartAuth[User]:
    """Return the extension, which no application has yet."""
    return QuartAuth(auth)


@pytest.fixture
def app() -> Quart:
    """Return an application without the extension."""
    app = Quart(__name__)
    app.secret_key = "secret"
    return app


@pytest.fixture
async def idle(auth: AsyncAuth[User], time: Time) -> str:
    """Return the id of an idle session: whoever validates it gets another one."""
    session_id = await log_in(auth)
    time.pass_hours(25)
    return session_id


async def member(auth: AsyncAuth[User], name: str = "ann") -> User:
    """Create a user."""
    return await auth.create_user(primary_key=PrimaryKey("username", name, "correct horse"))


async def send(app: Quart, path: str = "/", cookie: str | None = None, **more: Any) -> Response:
    """Return the response to one request of a page of the application, without a cookie jar."""
    headers = {"Origin": ORIGIN, **more.pop("headers", {})}
    if cookie is not None:
        headers["Cookie"] = f"{NAME}={cookie}"
    return await app.test_client(use_cookies=False).open(path, headers=headers, **more)


def route(app: Quart, path: str, view: Callable[..., Any], *methods: str) -> None:
    """Add a view whose endpoint is its path."""
    app.add_url_rule(path, path, view, methods=list(methods or ("GET",)))


def before(app: Quart, ask: Callable[[], Awaitable[object]]) -> None:
    """Call this function before each request, whatever it returns."""

    @app.before_request
    async def call() -> None:
        await ask()


async def empty() -> str:
    """Return nothing: a view whose body does not matter."""
    return ""


async def user_id() -> str:
    """Return the user id of the session: a view for people who are logged in."""
    found = await current_session
    return "visitor" if found is None else found.user_id


def raising(error: Exception) -> Callable[[], Awaitable[str]]:
    """Return a view that raises this error."""

    async def view() -> str:
        raise error

    return view


def rendering(page: str) -> Callable[[], Awaitable[str]]:
    """Return a view that renders this template."""

    async def view() -> str:
        return await render_template_string(page)

    return view


def cookie_of(response: Response) -> str | None:
    """Return the session cookie that was set: None if none was set, empty if it was cleared."""
    values = [
        text.partition(";")[0].removeprefix(f"{NAME}=")
        for text in response.headers.getlist("Set-Cookie")
        if text.startswith(f"{NAME}=")
    ]
    assert len(values) < 2, "the cookie was set twice"
    return values[0] if values else None


async def text_of(response: Response) -> str:
    """Return the body of a response."""
    return await response.get_data(as_text=True)


async def detail_of(response: Response) -> object:
    """Return the detail of an error response."""
    body: Any = await response.get_json()
    return body["detail"]


async def connect(
    app: Quart,
    path: str = "/",
    cookie: str | None = None,
    headers: Mapping[str, str] = {},
    *,
    can_deny: bool = True,
) -> SentResponse:
    """Return what an application sends to a client of a WebSocket that sends nothing."""
    sent: list[Message] = []
    to_receive: asyncio.Queue[Message] = asyncio.Queue()
    to_receive.put_nowait({"type": "websocket.connect"})

    async def send(message: Message) -> None:
        sent.append(message)
        kind = message["type"]
        if kind == "websocket.close" or (kind.endswith("body") and not message.get("more_body")):
            to_receive.put_nowait({"type": "websocket.disconnect", "code": 1000})

    scope = scope_of(
        "websocket",
        cookie=cookie,
        headers=headers.items(),
        path=path,
        extensions={"websocket.http.response": {}} if can_deny else None,
        asgi={"version": "3.0", "spec_version": "2.3"},
    )
    await app(scope, to_receive.get, send)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    return SentResponse(sent)


# Installation


async def test_an_application_factory(auth: AsyncAuth[User]) -> None:
    """One extension serves several applications, and none mixes up their requests."""
    web = QuartAuth(auth)

    def create_app(name: str) -> Quart:
        app = Quart(name)
        web.init_app(app)

        @app.get("/")
        @login_required
        async def index() -> list[str]:
            return [name, await user_id()]

        return app

    clients = [create_app(name).test_client() for name in ("one", "two")]
    for client, who in zip(clients, ["ann", "bob"], strict=True):
        await alogin(client, auth, who)
    for _ in range(2):
        assert [await (await client.get("/")).get_json() for client in clients] == [
            ["one", "ann"],
            ["two", "bob"],
        ]


async def test_installing_at_once(auth: AsyncAuth[User], app: Quart, idle: str) -> None:
    """The application may be given at once, and installing it twice changes nothing."""
    web = QuartAuth(auth, app)
    web.init_app(app)
    route(app, "/", login_required(empty))
    response = await send(app, cookie=idle)
    assert response.status_code == 200
    assert cookie_of(response) not in (None, "", idle)


async def test_two_extensions(auth: AsyncAuth[User], app: Quart, time: Time, idle: str) -> None:
    """Two extensions in one application each have their request; the proxies are the first's."""
    QuartAuth(auth, app)
    staff = AsyncAuth(sessions=AsyncMemoryAdapter(clock=time), env="DEV", clock=time)
    other = QuartAuth(staff, app, transport="bearer")

    @app.get("/")
    async def index() -> list[str | None]:
        return [await user_id(), user_of(await other.optional_session())]

    token = (await staff.create_session("root")).session_id
    headers = {"Authorization": f"Bearer {token}"}
    response = await send(app, cookie=idle, headers=headers)
    assert await response.get_json() == ["ann", "root"]
    assert cookie_of(response) not in (None, "", idle)


async def test_an_application_without_the_extension(
    auth: AsyncAuth[User], web: QuartAuth[User], app: Quart
) -> None:
    """Each way to the session says that the extension is not installed, and how to add it."""
    QuartAuth(auth).init_app(app)
    bare = Quart("bare")

    async def user() -> object:
        return await current_user

    uses: list[tuple[Quart, Callable[[], Awaitable[object]]]] = [
        (app, web.optional_user),  # another one is installed, which would set no cookie for this
        (bare, web.optional_user),
        (bare, login_required(empty)),
        (bare, user),
        (bare, user_id),
    ]
    for where, use in uses:
        async with where.test_request_context("/"):
            with pytest.raises(RuntimeError, match=r"web\.init_app\(app"):
                await use()


def test_quart_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says what to install."""
    monkeypatch.setitem(sys.modules, "quart", None)
    monkeypatch.delitem(sys.modules, "lucia.middleware.quart")
    with pytest.raises(ImportError, match=r'pip install "lucia-auth\[quart\]"'):
        import_module("lucia.middleware.quart")


def test_a_sync_auth_is_refused() -> None:
    """The error names the ``AsyncAuth``, whose results are awaited."""
    wrong: Any = Auth(sessions=MemoryAdapter(), env="DEV")
    with pytest.raises(TypeError, match=r"must be an AsyncAuth, not Auth"):
        QuartAuth(wrong)


# The session in views


async def test_what_the_methods_return(
    auth: AsyncAuth[User], web: QuartAuth[User], app: Quart
) -> None:
    """Each method and proxy returns the session or the user, and the optional ones None."""
    web.init_app(app)

    @app.get("/")
    async def index() -> list[Any]:
        both = await web.session_user()
        assert both == (await web.session(), await web.user())
        assert (await web.optional_session(), await web.optional_user()) == tuple(both)
        assert await asyncio.gather(current_session, current_user) == list(both)
        return [both.user.user_id, web.request().client_address]

    @app.get("/visitor")
    async def visitor() -> list[object]:
        for required in (web.session, web.user, web.session_user):
            with pytest.raises(NotAuthenticated):
                await required()
        return [await web.optional_session(), await web.optional_user(), await current_user]

    client = app.test_client()
    assert await (await client.get("/visitor")).get_json() == [None, None, None]
    user = await member(auth)
    await alogin(client, auth, user.user_id)
    response = await client.get("/", scope_base={"client": ("203.0.113.9", 50_000)})
    assert await response.get_json() == [user.user_id, "203.0.113.9"]


async def test_a_proxy_that_is_not_awaited() -> None:
    """A forgotten ``await`` is an error that names it, and lets nobody in."""
    for name, proxy in {"current_user": current_user, "current_session": current_session}.items():
        forgotten: Any = proxy
        with pytest.raises(TypeError, match=f"write 'await {name}'"):
            assert forgotten
        with pytest.raises(AttributeError, match=rf"write '\(await {name}\)\.user_id'"):
            _ = forgotten.user_id
        assert not hasattr(forgotten, "__len__")
        assert repr(proxy) == f"<{name}, to be awaited>"


async def test_the_user_of_a_session_may_be_gone(
    auth: AsyncAuth[User], web: QuartAuth[User], app: Quart
) -> None:
    """A session without a user is valid, but views that need the user get 401."""
    web.init_app(app)

    @app.get("/")
    @login_required
    async def index() -> str:
        assert await current_user is None
        return (await web.user()).user_id

    client = app.test_client()
    await alogin(client, auth, "nobody")
    assert (await client.get("/")).status_code == 401


async def test_a_view_that_does_not_ask_reads_nothing(
    web: QuartAuth[User], app: Quart, auth: AsyncAuth[User], idle: str
) -> None:
    """The store is not asked before a view uses the session."""
    web.init_app(app)
    route(app, "/", empty)
    assert cookie_of(await send(app, cookie=idle)) is None
    assert (await auth.get_session(idle)).state == "idle"


@pytest.mark.parametrize("path", ["/sync", "/async", "/class", "/blueprint", "/guarded/page"])
async def test_protected_views(
    auth: AsyncAuth[User], web: QuartAuth[User], app: Quart, path: str
) -> None:
    """``login_required`` protects views of every kind, and whole blueprints."""
    web.init_app(app)

    @app.get("/sync")
    @login_required
    def sync_view() -> str:
        return "ann"

    class View(MethodView):
        decorators = [login_required]  # noqa: RUF012 -- so does Quart declare it

        async def get(self) -> str:
            return await user_id()

    route(app, "/async", login_required(user_id))
    app.add_url_rule("/class", view_func=View.as_view("class"))
    blueprint = Blueprint("own", __name__)
    blueprint.add_url_rule("/blueprint", "own", login_required(user_id))

    @login_required
    async def guard() -> None:
        pass

    guarded = Blueprint("guarded", __name__, url_prefix="/guarded")
    guarded.before_request(guard)
    guarded.add_url_rule("/page", "page", user_id)
    app.register_blueprint(blueprint)
    app.register_blueprint(guarded)
    client = app.test_client()
    assert (await client.get(path)).status_code == 401
    await alogin(client, auth, "ann")
    assert await text_of(await client.get(path)) == "ann"


async def test_a_preflight_needs_no_login(web: QuartAuth[User], app: Quart) -> None:
    """An OPTIONS request reaches the view, whether Quart or the view responds to it."""
    web.init_app(app)

    @login_required
    async def own() -> str:
        return "mine"

    route(app, "/automatic", login_required(empty))
    route(app, "/own", own, "GET", "OPTIONS")
    client = app.test_client()
    assert (await client.options("/automatic")).status_code == 200
    assert await text_of(await client.options("/own")) == "mine"
    assert (await client.get("/own")).status_code == 401


# Templates

PAGE = "{% if current_user %}{{ current_session.user_id }}{% else %}visitor{% endif %}"


async def test_templates(auth: AsyncAuth[User], web: QuartAuth[User], app: Quart) -> None:
    """In templates ``current_user`` and ``current_session`` are the values themselves."""
    web.init_app(app)
    route(app, "/", rendering(PAGE))

    @app.get("/stream")
    async def stream() -> Response:
        return Response(await stream_template_string(PAGE))

    client = app.test_client()
    assert await text_of(await client.get("/")) == "visitor"
    user = await member(auth)
    await alogin(client, auth, user.user_id)
    for path in ("/", "/stream"):
        assert await text_of(await client.get(path)) == user.user_id
    async with app.app_context():  # such as an e-mail's
        assert await render_template_string(PAGE) == "visitor"


async def test_a_template_renews_the_session(
    web: QuartAuth[User], app: Quart, idle: str, auth: AsyncAuth[User]
) -> None:
    """A page that a template makes carries the cookie, even if the user is gone."""
    web.init_app(app)
    page = "{{ 'nobody' if current_user is none }}"
    route(app, "/", rendering(page))
    user = await member(auth)
    assert await text_of(await send(app, cookie=idle)) == "nobody"
    session_id = await log_in(auth, user.user_id)
    assert await text_of(await send(app, cookie=session_id)) == ""


async def test_templates_without_a_user_adapter(app: Quart, time: Time) -> None:
    """An application without users has the session alone."""
    auth = AsyncAuth(sessions=AsyncMemoryAdapter(clock=time), env="DEV", clock=time)
    QuartAuth(auth, app)
    page = "{{ current_session.user_id }}{{ current_user is defined }}"
    route(app, "/", rendering(page))
    session_id = (await auth.create_session("ann")).session_id
    assert await text_of(await send(app, cookie=session_id)) == "annFalse"


async def test_templates_while_the_store_is_down(
    web: QuartAuth[User],
    app: Quart,
    auth: AsyncAuth[User],
    store: AsyncMemoryAdapter,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A page that shows the user is 503; the application's own page for 503 can be rendered."""
    web.init_app(app)
    route(app, "/shop", rendering("a shop"))
    route(app, "/user", rendering(PAGE))
    route(app, "/session", rendering("{{ current_session.user_id }}"))

    @app.errorhandler(503)
    async def sorry(error: Exception) -> tuple[str, int]:
        return await render_template_string("sorry"), 503

    session_id = await log_in(auth)
    break_down(store, monkeypatch)
    assert await text_of(await send(app, "/shop", session_id)) == "a shop"
    for path in ("/user", "/session"):
        response = await send(app, path, session_id)
        assert (response.status_code, await text_of(response)) == (503, "sorry")
        assert response.headers["Retry-After"] == "1"
        assert cookie_of(response) is None


def break_down(store: AsyncMemoryAdapter, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a store unavailable."""

    async def fail(*args: object) -> None:
        raise StoreUnavailable

    for name in ("get_session", "delete_session", "get_session_and_user"):
        monkeypatch.setattr(store, name, fail, raising=False)


# Contexts


async def test_the_test_client_in_an_application_context(
    auth: AsyncAuth[User], web: QuartAuth[User], app: Quart
) -> None:
    """A user is not remembered in an application context, which several requests may share."""
    web.init_app(app)
    route(app, "/", user_id)
    clients = {who: app.test_client() for who in ("ann", "bob")}
    for who, client in clients.items():
        await alogin(client, auth, who)
    async with app.app_context():
        for _ in range(2):
            for who, client in clients.items():
                assert await text_of(await client.get("/")) == who
            assert await text_of(await app.test_client().get("/")) == "visitor"


async def test_the_context_that_a_test_client_preserves(
    web: QuartAuth[User], app: Quart, idle: str
) -> None:
    """In ``async with client`` the proxies are those of the last request."""
    web.init_app(app)
    route(app, "/", empty)
    async with app.test_client() as client:
        client.set_cookie("localhost", NAME, idle)
        await client.get("/")
        found = await current_session
        assert found is not None
        assert (found.user_id, found.state) == ("ann", "idle")  # sent: nobody gets a new id


async def test_a_request_context_of_a_test(
    auth: AsyncAuth[User], web: QuartAuth[User], app: Quart
) -> None:
    """``test_request_context`` has a session, which may change."""
    web.init_app(app)
    headers = {"Cookie": f"{NAME}={await log_in(auth)}", "Origin": ORIGIN}
    async with app.test_request_context("/", method="POST", headers=headers):
        assert await user_id() == "ann"
        await web.request().sign_in("bob")
        assert await user_id() == "bob"
    async with app.test_request_context("/"):
        with pytest.raises(NotAuthenticated):
            await login_required(empty)()


async def test_outside_of_a_request(web: QuartAuth[User], app: Quart) -> None:
    """Where there is no request, the error is Quart's own."""
    web.init_app(app)
    async with app.app_context():
        # Older Quarts say "Not within a request context".
        with pytest.raises(RuntimeError, match=r"request (in this )?context"):
            await current_user


async def test_a_copied_context(auth: AsyncAuth[User], web: QuartAuth[User], app: Quart) -> None:
    """``copy_current_request_context`` and tasks know the session of the request."""
    web.init_app(app)

    @app.get("/")
    async def index() -> list[str]:
        copied = copy_current_request_context(user_id)
        return list(await asyncio.gather(copied(), asyncio.create_task(user_id())))

    client = app.test_client()
    await alogin(client, auth, "ann")
    assert await (await client.get("/")).get_json() == ["ann", "ann"]


async def test_a_background_task_neither_renews_nor_signs_in(
    web: QuartAuth[User], app: Quart, idle: str, auth: AsyncAuth[User]
) -> None:
    """After the response an idle session stays idle, and signing out still revokes it."""
    web.init_app(app)
    states: list[object] = []
    is_sent, is_done = asyncio.Event(), asyncio.Event()

    async def later() -> None:
        await is_sent.wait()
        states.append((await web.session()).state)
        with pytest.raises(RuntimeError, match="has started"):
            await web.request().sign_in("bob")
        await web.request().sign_out()
        states.append(await web.optional_session())
        is_done.set()

    @app.post("/")
    async def index() -> str:
        # Older Quarts let the task see the request by itself.
        app.add_background_task(copy_current_request_context(later))
        return ""

    assert cookie_of(await send(app, cookie=idle, method="POST")) is None
    is_sent.set()
    await asyncio.wait_for(is_done.wait(), 10)
    assert states == ["idle", None]
    with pytest.raises(InvalidSessionId):
        await auth.get_session(idle)


async def test_finished_request_is_freed(
    auth: AsyncAuth[User], web: QuartAuth[User], app: Quart, time: Time
) -> None:
    """A finished request is freed without the garbage collector: there is no reference cycle."""
    requests: list[weakref.ref[Request]] = []
    web.init_app(app)

    class OneRequest(Request):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            requests.append(weakref.ref(self))

    app.request_class = OneRequest
    route(app, "/", user_id)
    session_id = await log_in(auth)
    gc.disable()
    try:
        for hours in (0, 25):
            time.pass_hours(hours)
            await send(app, cookie=session_id)
        await asyncio.sleep(0)
    finally:
        gc.enable()
    assert [request() for request in requests] == [None, None]


# The cookie


async def test_signing_in_and_out(auth: AsyncAuth[User], web: QuartAuth[User], app: Quart) -> None:
    """The cookie is set when somebody signs in, and cleared when they sign out."""
    web.init_app(app)

    @app.post("/in")
    async def sign_in() -> str:
        return (await web.request().sign_in("ann")).user_id

    @app.post("/out")
    async def sign_out() -> str:
        await web.request().sign_out()
        return ""

    session_id = cookie_of(await send(app, "/in", method="POST"))
    assert session_id
    assert (await auth.get_session(session_id)).user_id == "ann"
    assert cookie_of(await send(app, "/out", session_id, method="POST")) == ""
    with pytest.raises(InvalidSessionId):
        await auth.get_session(session_id)


@pytest.fixture
def every_response(web: QuartAuth[User], app: Quart) -> Quart:
    """Return an application that validates the session and then responds in some way."""
    web.init_app(app)
    before(app, web.optional_session)

    @app.get("/own")
    async def own() -> Response:
        response = Response("")
        response.set_cookie("theme", "dark")
        response.headers["Cache-Control"] = "public"
        response.vary.add("Accept")
        return response

    @app.get("/quart-session")
    async def quart_session() -> str:
        session["seen"] = True
        await flash("welcome")
        return str(get_flashed_messages())

    @app.get("/stream")
    async def stream() -> Response:
        @stream_with_context
        async def parts() -> AsyncIterator[str]:
            yield await user_id()
            yield (await web.session()).state

        return Response(parts())

    @app.get("/redirect")
    async def to_root() -> Any:
        return redirect("/", 303)

    @app.get("/abort")
    async def aborted() -> str:
        abort(418)

    route(app, "/refused", raising(RequestUnauthorized()))
    route(app, "/crash", raising(ZeroDivisionError()))
    return app


STATUSES = {
    "/own": 200,
    "/quart-session": 200,
    "/stream": 200,
    "/redirect": 303,
    "/abort": 418,
    "/refused": 403,
    "/crash": 500,
    "/nowhere": 404,
    "/static/nothing.css": 404,
}


@pytest.mark.parametrize("path", STATUSES)
async def test_the_cookie_is_on_every_kind_of_response(
    every_response: Quart, idle: str, path: str
) -> None:
    """Every kind of response carries the cookie of a renewed session, beside the own headers."""
    response = await send(every_response, path, idle)
    assert response.status_code == STATUSES[path]
    renewed = cookie_of(response)
    assert renewed not in (None, "", idle)
    assert response.headers.getlist("Cache-Control") == ["no-store"]
    varies = [field.strip() for field in ",".join(response.headers.getlist("Vary")).split(",")]
    assert varies.count("Cookie") == 1
    names = [text.partition("=")[0] for text in response.headers.getlist("Set-Cookie")]
    beside = {"/own": ["theme"], "/quart-session": ["session"]}
    assert names == [*beside.get(path, []), NAME]
    again = await send(every_response, path, renewed)
    assert cookie_of(again) is None
    assert "no-store" not in again.headers.get("Cache-Control", "")


async def test_the_page_of_an_error_that_is_shown(every_response: Quart, idle: str) -> None:
    """Quart's page with the traceback, which developers see, carries the cookie."""
    every_response.debug = True
    every_response.config["PROPAGATE_EXCEPTIONS"] = True
    response = await send(every_response, "/crash", idle)
    assert response.status_code == 500
    assert "ZeroDivisionError" in await text_of(response)
    assert cookie_of(response) not in (None, "", idle)


@pytest.mark.parametrize("cookie", ["", "x", "a" * 40, "ä" * 5_000, f"a; {NAME}=b"])
async def test_a_visitor_gets_no_cookie(every_response: Quart, cookie: str) -> None:
    """A response to a visitor gets Vary and no cookie, with any Cookie header."""
    response = await send(every_response, "/redirect", cookie)
    assert response.status_code == 303
    assert not {"Set-Cookie", "Cache-Control"} & {name for name, _ in response.headers}
    assert response.headers.getlist("Vary") == ["Cookie"]


async def test_a_stream_that_asks_first_sets_no_cookie(
    web: QuartAuth[User], app: Quart, idle: str
) -> None:
    """A streamed body is sent after the headers: it leaves an idle session alone."""
    web.init_app(app)

    @app.post("/")
    async def stream() -> Response:
        @stream_with_context
        async def parts() -> AsyncIterator[str]:
            yield (await web.session()).state
            with pytest.raises(RuntimeError, match="has started"):
                await web.request().sign_in("bob")
            yield "."

        return Response(parts())

    response = await send(app, cookie=idle, method="POST")
    assert (await text_of(response), cookie_of(response)) == ("idle.", None)


@pytest.mark.parametrize("is_first", [True, False])
async def test_functions_after_the_request(
    web: QuartAuth[User], app: Quart, idle: str, is_first: bool
) -> None:
    """Such a function may use the session, and can't let a cache store its cookie."""

    async def note(response: Any) -> Any:
        response.headers["X-User"] = await user_id()
        response.headers["Cache-Control"] = "public, max-age=60"
        return response

    if is_first:
        app.after_request(note)
    web.init_app(app)
    if not is_first:
        app.after_request(note)
    route(app, "/", empty)
    response = await send(app, cookie=idle)
    assert response.headers["X-User"] == "ann"
    assert cookie_of(response) not in (None, "", idle)
    assert response.headers.getlist("Cache-Control") == ["no-store"]


async def test_a_function_after_the_request_that_fails(
    web: QuartAuth[User], app: Quart, idle: str
) -> None:
    """The cookie of a renewed session is not lost where such a function raises an error."""
    web.init_app(app)

    @app.after_request
    async def fail(response: Any) -> Any:
        raise ZeroDivisionError

    route(app, "/", user_id)
    response = await send(app, cookie=idle)
    assert response.status_code == 500
    assert cookie_of(response) not in (None, "", idle)


@pytest.mark.parametrize("is_first", [True, False])
async def test_behind_a_proxy(
    web: QuartAuth[User], app: Quart, auth: AsyncAuth[User], is_first: bool
) -> None:
    """The scheme and host that a proxy tells count, whenever ``ProxyFixMiddleware`` is added."""

    def fix() -> None:
        app.asgi_app = ProxyFixMiddleware(app.asgi_app)  # type: ignore[method-assign]

    if is_first:
        fix()
    web.init_app(app)
    if not is_first:
        fix()

    @app.post("/")
    async def index() -> list[Any]:
        own = web.request()
        return [own.origin_failure, own.client_address, (await own.sign_in("ann")).user_id]

    headers = {
        "X-Forwarded-Proto": "https",
        "X-Forwarded-Host": "shop.example",
        "X-Forwarded-For": "203.0.113.9",
        "Origin": "https://shop.example",
    }
    response = await send(app, method="POST", headers=headers)
    assert await response.get_json() == [None, "203.0.113.9", "ann"]
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
async def test_errors_of_the_library(
    web: QuartAuth[User], app: Quart, error: LuciaError, status: int, detail: str
) -> None:
    """Clients get the detail as JSON, and browsers Quart's page with it."""
    web.init_app(app)
    route(app, "/", raising(error))
    response = await send(app)
    assert (response.status_code, await detail_of(response)) == (status, detail)
    page = await send(app, headers=HTML)
    assert (page.status_code, page.mimetype) == (status, "text/html")
    assert "<b>" not in await text_of(page)
    for each in (response, page):
        assert each.headers.get("WWW-Authenticate") == ("APIKey" if status == 401 else None)
        assert each.headers.get("Retry-After") == ("1" if status == 503 else None)


async def test_too_many_attempts_say_how_long(web: QuartAuth[User], app: Quart) -> None:
    """A 429 names the seconds to wait."""
    web.init_app(app)
    route(app, "/", raising(TooManyAttempts(retry_after=17)))
    response = await send(app)
    assert (response.status_code, response.headers["Retry-After"]) == (429, "17")


@pytest.mark.parametrize("error", [StoreCorrupt(), UsersNotConfigured()])
async def test_the_servers_own_errors(web: QuartAuth[User], app: Quart, error: LuciaError) -> None:
    """Errors that are nobody's but the server's stay Quart's 500."""
    web.init_app(app)
    route(app, "/", raising(error))
    assert (await send(app)).status_code == 500


async def test_a_bearer_clients_401_names_the_scheme(auth: AsyncAuth[User], app: Quart) -> None:
    """``WWW-Authenticate`` is that of the transport."""
    QuartAuth(auth, app, transport="bearer")
    route(app, "/", raising(NotAuthenticated()))
    assert (await send(app)).headers["WWW-Authenticate"] == "Bearer"


OWN_HANDLERS: Mapping[str, type[Exception] | int] = {
    "class": NotAuthenticated,
    "status": 401,
    "HTTPException": HTTPException,
    "Exception": Exception,
}


@pytest.mark.parametrize("accept", [{}, HTML], ids=["API", "page"])
@pytest.mark.parametrize("is_first", [True, False], ids=["before", "after"])
@pytest.mark.parametrize("key", OWN_HANDLERS.values(), ids=OWN_HANDLERS)
async def test_the_applications_own_error_handlers(
    web: QuartAuth[User],
    app: Quart,
    accept: dict[str, str],
    is_first: bool,
    key: type[Exception] | int,
) -> None:
    """The application's handlers take precedence, whenever they were added."""

    async def own(error: Exception) -> tuple[str, int]:
        return f"own page for {type(error).__name__}", 401

    if is_first:
        app.register_error_handler(key, own)
    web.init_app(app)
    if not is_first:
        app.register_error_handler(key, own)
    route(app, "/", login_required(empty))
    response = await send(app, headers=accept)
    name = "NotAuthenticated" if key is NotAuthenticated else "Unauthorized"
    assert (response.status_code, await text_of(response)) == (401, f"own page for {name}")
    is_ours = key is not NotAuthenticated
    assert response.headers.get("WWW-Authenticate") == ("APIKey" if is_ours else None)


async def test_cross_site_requests_are_visitors_or_forbidden(auth: AsyncAuth[User]) -> None:
    """A foreign request finds no session, or gets 403 if the option forbids it."""
    session_id = await log_in(auth)
    for forbids, expected in ((False, (200, "visitor")), (True, (403, "own 403"))):
        app = Quart(__name__)
        QuartAuth(auth, app, forbid_cross_site=forbids)
        app.register_error_handler(403, lambda error: ("own 403", 403))
        route(app, "/", user_id, "POST")
        response = await send(app, cookie=session_id, method="POST", headers=FOREIGN)
        assert (response.status_code, await text_of(response)) == expected
        assert (await send(app, cookie=session_id, method="POST")).status_code == 200
        assert cookie_of(response) is None


# The login page


@pytest.fixture
def pages(auth: AsyncAuth[User], app: Quart) -> Quart:
    """Return an application with a protected page, and the login page of the ready routes."""
    web = QuartAuth(auth, app, login_view="auth.log_in_page")
    app.register_blueprint(web.blueprint(url_prefix="/auth"))
    route(app, "/private", login_required(empty), "GET", "POST")

    @app.get("/files/<path:name>")
    @login_required
    async def file(name: str) -> str:
        return name

    return app


@pytest.mark.parametrize(
    ("path", "back"),
    [
        ("/private", "/private"),
        ("/private?a=b&c=%2Fd", "/private%3Fa%3Db%26c%3D%252Fd"),
        ("/files/caf%C3%A9%3Fx", "/files/caf%25C3%25A9%253Fx"),
    ],
)
async def test_a_visitor_of_a_page_is_sent_to_log_in(pages: Quart, path: str, back: str) -> None:
    """The login page leads back to the page, whatever characters its URL has."""
    response = await send(pages, path, headers=HTML)
    assert response.status_code == 303
    assert response.headers["Location"] == f"/auth/login?next={back}"


async def test_who_is_not_sent_to_log_in(pages: Quart) -> None:
    """An API's client gets 401, and a form that was sent does not lead back."""
    assert (await send(pages, "/private")).status_code == 401
    response = await send(pages, "/private", method="POST", headers=HTML)
    assert (response.status_code, response.headers["Location"]) == (303, "/auth/login")


async def test_below_a_root_path(pages: Quart) -> None:
    """Under a root path the redirect and the way back are URLs of the browser's."""

    async def below(path: str, **more: Any) -> Response:
        return await send(pages, f"/shop{path}", headers=HTML, root_path="/shop", **more)

    response = await below("/private")
    assert response.headers["Location"] == "/shop/auth/login?next=/shop/private"
    form = {**ANN, "next": "/shop/private"}
    signed_up = await below("/auth/signup", method="POST", form=form)
    assert signed_up.headers["Location"] == "/shop/private"
    page = await below("/auth/login")
    assert '<a href="/shop/auth/signup">' in await text_of(page)


@pytest.mark.parametrize(
    ("login_view", "location"),
    [
        ("log_in", "/log-in?next=/"),
        ("/log-in", "/log-in?next=/"),
        ("/log-in?from=app", "/log-in?from=app&next=/"),
        ("https://sso.example/", "https://sso.example/?next=/"),
    ],
)
async def test_the_login_view(
    auth: AsyncAuth[User], app: Quart, login_view: str, location: str
) -> None:
    """The login page is an endpoint or a URL; a page that needs a login itself is no loop."""
    web = QuartAuth(auth, app, login_view=login_view)
    before(app, web.session)
    app.add_url_rule("/", "index", empty)
    app.add_url_rule("/log-in", "log_in", empty)
    response = await send(app, headers=HTML)
    assert (response.status_code, response.headers["Location"]) == (303, location)
    at_login = await send(app, "/log-in?next=/", headers=HTML)
    assert at_login.status_code == (303 if "sso" in login_view else 401)


# The ready routes


async def test_the_ready_routes_in_json(pages: Quart) -> None:
    """Somebody signs up, logs in elsewhere, logs out there, and changes the password."""
    phone, laptop = pages.test_client(), pages.test_client()
    own = {"Origin": ORIGIN}
    signed_up = await phone.post("/auth/signup", json=ANN, headers=own)
    assert signed_up.status_code == 201
    user = await signed_up.get_json()
    laptop_headers = {**own, "User-Agent": "laptop"}
    logged_in = await laptop.post("/auth/login", json=ANN, headers=laptop_headers)
    assert await logged_in.get_json() == user
    assert await (await phone.get("/auth/me")).get_json() == user
    listed = await (await phone.get("/auth/devices")).get_json()
    devices = sorted(listed, key=lambda each: bool(each["current"]))
    assert [each["current"] for each in devices] == [False, True]
    assert devices[0]["metadata"] == {"user_agent": "laptop"}
    for status in (204, 404):
        path = f"/auth/devices/{devices[0]['handle']}/revoke"
        assert (await phone.post(path, headers=own)).status_code == status
    assert (await laptop.get("/auth/me")).status_code == 401
    change = {"current_password": "correct horse", "new_password": "battery staple"}
    assert (await phone.post("/auth/password", json=change, headers=own)).status_code == 200
    others = await phone.post("/auth/devices/revoke-others", headers=own)
    assert others.status_code == 204
    out = await phone.post("/auth/logout", headers=own)
    assert (out.status_code, await text_of(out), cookie_of(out)) == (204, "", "")
    assert (await phone.post("/auth/login", json=ANN, headers=own)).status_code == 401


@pytest.mark.parametrize("is_multipart", [True, False])
async def test_the_ready_routes_with_forms(pages: Quart, is_multipart: bool) -> None:
    """Forms of both kinds lead a browser on, and one that is refused is shown again."""
    await send(pages, "/auth/signup", method="POST", json=ANN)

    async def submit(**fields: str) -> Response:
        files: dict[str, FileStorage] | None = {} if is_multipart else None
        return await send(
            pages, "/auth/login", method="POST", form=fields, files=files, headers=HTML
        )

    assert (await submit(**ANN)).headers["Location"] == "/"
    assert (await submit(**ANN, next="/private?a=b")).headers["Location"] == "/private?a=b"
    assert (await submit(**ANN, next="//evil.example")).headers["Location"] == "/"
    refused = await submit(username="ann", password="wrong")
    assert (refused.status_code, cookie_of(refused)) == (401, None)
    assert 'value="ann"' in await text_of(refused)
    missing = await submit(username="ann")
    assert missing.status_code == 422
    assert "password is missing" in await text_of(missing)


async def test_the_query_of_the_login_page_names_the_way_back(pages: Quart) -> None:
    """A form without an action is sent to the URL of its page, with the query."""
    await send(pages, "/auth/signup", method="POST", json=ANN)
    path = "/auth/login?next=/private"
    response = await send(pages, path, method="POST", form=ANN, headers=HTML)
    assert response.headers["Location"] == "/private"


async def test_the_pages(pages: Quart) -> None:
    """The pages are HTML that no other site may show in a frame, and no cache keeps."""
    for path in ("/auth/login", "/auth/signup"):
        page = await send(pages, path, headers=HTML)
        assert page.mimetype == "text/html"
        assert page.headers["Content-Security-Policy"] == "frame-ancestors 'none'"
        assert page.headers["Cache-Control"] == "no-store"
        assert "csrf_token" not in await text_of(page)
    visitor = await send(pages, "/auth/devices", headers=HTML)
    assert visitor.headers["Location"] == "/auth/login?next=/auth/devices"


async def async_token() -> str:
    """Return a token of a CSRF extension."""
    return 'a"b'


@pytest.mark.parametrize("maker", [async_token, lambda: 'a"b'])
async def test_the_field_of_a_csrf_extension(pages: Quart, maker: Callable[[], Any]) -> None:
    """The forms have the token of a CSRF extension, whose function may be async."""
    pages.add_template_global(maker, "csrf_token")
    page = await text_of(await send(pages, "/auth/login", headers=HTML))
    assert '<input type="hidden" name="csrf_token" value="a&quot;b">' in page


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        ({"data": b"{", "headers": {"Content-Type": "application/json"}}, "the body is not JSON"),
        ({"json": []}, "the body must be a JSON object"),
        ({"data": b"a", "headers": {"Content-Type": "text/plain"}}, "the body must be JSON"),
        ({"json": {"username": "x" * MAX_BODY_BYTES}}, "the body is longer than"),
        (
            {
                "form": {"username": "x" * MAX_BODY_BYTES},
                "headers": {"Content-Length": str(MAX_BODY_BYTES + 100)},
            },
            "the body is longer than",
        ),
        ({"form": {}}, "username is missing"),
    ],
)
async def test_bodies_that_are_refused(pages: Quart, body: dict[str, Any], detail: str) -> None:
    """A body that is malformed or too long is 422, in JSON as well as in a form."""
    response = await send(pages, "/auth/login", method="POST", **body)
    assert response.status_code == 422
    assert str(await detail_of(response)).startswith(detail)


@pytest.mark.parametrize(
    "kind", ["application/json", "application/x-www-form-urlencoded", "multipart/form-data"]
)
async def test_a_body_without_a_length(pages: Quart, kind: str) -> None:
    """A body in chunks that is too long is refused, too."""
    headers = {"Origin": ORIGIN, "Content-Type": f"{kind}; boundary=B"}
    begin, end = b"username=", b""
    if "multipart" in kind:
        begin = b'--B\r\nContent-Disposition: form-data; name="username"\r\n\r\n'
        end = b"\r\n--B--\r\n"
    async with pages.test_client().request("/auth/login", method="POST", headers=headers) as client:
        for part in (begin, *[b"a" * (MAX_BODY_BYTES // 2)] * 3, end):
            await client.send(part)
        await client.send_complete()
    response = await client.as_response()
    assert response.status_code == 422
    assert str(await detail_of(response)).startswith("the body is longer than")


async def test_a_request_without_an_application_context(
    auth: AsyncAuth[User], web: QuartAuth[User], app: Quart, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The session is found in a request that an older Quart's test client keeps alone."""
    web.init_app(app)

    @app.get("/")
    async def index() -> str:
        monkeypatch.setattr(quart_integration, "has_app_context", lambda: False)
        return await user_id()

    session_id = await log_in(auth)
    assert await text_of(await send(app, cookie=session_id)) == "ann"


async def test_a_general_handler(web: QuartAuth[User], app: Quart) -> None:
    """An application's handler for all errors gets the library's other errors as they are."""
    web.init_app(app)
    route(app, "/", raising(StoreCorrupt()))

    @app.errorhandler(Exception)
    async def handle(error: Exception) -> str:
        return type(error).__name__

    assert await text_of(await send(app, "/")) == "StoreCorrupt"


async def test_pages_from_templates(auth: AsyncAuth[User], app: Quart) -> None:
    """The function that renders pages may await Quart's templates."""

    async def render(page: Page) -> str:
        return await render_template_string("own {{ page.name }}", page=page)

    web = QuartAuth(auth, app)
    app.register_blueprint(web.blueprint(render=render))
    assert await text_of(await send(app, "/login", headers=HTML)) == "own log_in"


@pytest.mark.parametrize("body", [{"json": ANN}, {"form": ANN}])
async def test_another_extension_may_read_the_body_first(
    pages: Quart, body: dict[str, Any]
) -> None:
    """The body may have been read when a ready route gets the request."""

    @pages.before_request
    async def read() -> None:
        await request.get_data()
        await request.form

    assert (await send(pages, "/auth/signup", method="POST", **body)).status_code == 201


async def test_tokens(auth: AsyncAuth[User], app: Quart) -> None:
    """With ``both`` there is a route that issues tokens, which then work beside the cookie."""
    web = QuartAuth(auth, app, transport="both")
    app.register_blueprint(web.blueprint("accounts", pages=False))
    assert "accounts.log_in_page" not in app.view_functions
    assert (await send(app, "/signup", method="POST", json=ANN)).status_code == 201
    issued = await app.test_client().post("/token", json=ANN)
    token = (await issued.get_json())["access_token"]
    assert cookie_of(issued) is None
    headers = {"Authorization": f"Bearer {token}"}
    assert (await app.test_client().get("/me", headers=headers)).status_code == 200


async def test_foreign_pages_change_nothing(pages: Quart, auth: AsyncAuth[User]) -> None:
    """A form of another site gets 403, and nobody is logged out."""
    session_id = await log_in(auth)
    response = await send(pages, "/auth/logout", session_id, method="POST", headers=FOREIGN)
    assert (response.status_code, cookie_of(response)) == (403, None)
    assert (await auth.get_session(session_id)).user_id == "ann"


async def test_an_outage(
    pages: Quart,
    store: AsyncMemoryAdapter,
    auth: AsyncAuth[User],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """While the store is down the response is 503, and the cookie stays as it is."""
    client = pages.test_client()
    await alogin(client, auth, "ann")
    with monkeypatch.context() as patch:
        break_down(store, patch)
        for response in (await client.get("/private"), await client.get("/auth/me")):
            assert (response.status_code, response.headers["Retry-After"]) == (503, "1")
            assert cookie_of(response) is None
    assert (await client.get("/private")).status_code == 200


# WebSockets


@pytest.fixture
def sockets(auth: AsyncAuth[User], app: Quart) -> Quart:
    """Return an application with sockets that ask before or after they are accepted."""
    web = QuartAuth(auth, app, login_view="/log-in")

    @app.websocket("/before")
    @login_required
    async def ask_first() -> None:
        await websocket.accept(headers={"X-Own": "1"})
        await websocket.send(await user_id())

    @app.websocket("/after")
    async def accept_first() -> None:
        await websocket.accept()
        await websocket.send((await web.session()).state)

    @app.websocket("/template")
    async def render() -> None:
        await websocket.send(await render_template_string("{{ current_session.user_id }}"))

    return app


async def test_a_socket_knows_its_session(sockets: Quart, auth: AsyncAuth[User], idle: str) -> None:
    """An idle session is renewed by the handshake, and not after it."""
    after = await connect(sockets, "/after", idle)
    assert [after.cookie, after.messages[1]["text"]] == [None, "idle"]
    handshake = await connect(sockets, "/before", idle)
    assert handshake.cookie not in (None, "", idle)
    assert [name for name, _ in handshake.headers] == [
        "x-own",
        "cache-control",
        "vary",
        "set-cookie",
    ]
    assert handshake.messages[1]["text"] == "ann"
    assert (await connect(sockets, "/before", handshake.cookie)).cookie is None


async def test_a_template_in_a_socket(sockets: Quart, auth: AsyncAuth[User]) -> None:
    """Templates that the handler of a socket renders know the session."""
    user = await member(auth)
    found = await connect(sockets, "/template", await log_in(auth, user.user_id))
    assert found.messages[1]["text"] == user.user_id


async def test_a_socket_of_the_test_client(sockets: Quart, auth: AsyncAuth[User]) -> None:
    """Quart's own test client gets the user, or the response that refuses a visitor."""
    client = sockets.test_client()
    async with client.websocket("/before") as visitor:
        with pytest.raises(WebsocketResponseError) as refused:
            await visitor.receive()
    assert refused.value.response.status_code == 401
    await alogin(client, auth, "ann")
    async with client.websocket("/before", headers={"Origin": ORIGIN}) as socket:
        assert await socket.receive() == "ann"


async def test_a_visitors_socket_is_refused_or_closed(sockets: Quart) -> None:
    """A visitor's handshake gets 401, if the server can, and an accepted socket is closed."""
    refused = await connect(sockets, "/before")
    assert (refused.status, refused.body) == (401, b'{"detail": "Not logged in."}')
    assert refused.all("www-authenticate") == ["APIKey"]
    old_server = await connect(sockets, "/before", can_deny=False)
    assert old_server.types == ["websocket.close"]
    after = await connect(sockets, "/after")
    assert after.types == ["websocket.accept", "websocket.close"]
    closed = after.messages[-1]
    assert (closed["code"], closed["reason"]) == (1008, "Not logged in.")


async def test_a_socket_that_can_not_be_served_now_may_try_again(
    sockets: Quart,
    auth: AsyncAuth[User],
    store: AsyncMemoryAdapter,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """While the store is down a handshake gets 503, and an accepted socket is closed with 1013."""
    session_id = await log_in(auth)
    break_down(store, monkeypatch)
    refused = await connect(sockets, "/before", session_id)
    assert (refused.status, refused.all("retry-after"), refused.cookie) == (503, ["1"], None)
    closed = (await connect(sockets, "/after", session_id)).messages[-1]
    assert (closed["code"], closed["reason"]) == (
        1013,
        "Sessions can't be reached. Try again in a moment.",
    )


async def test_a_refused_handshake_carries_the_cookie(
    auth: AsyncAuth[User], app: Quart, idle: str
) -> None:
    """A renewed session is not lost where the handshake is refused afterwards."""
    web = QuartAuth(auth, app)

    @app.websocket("/")
    async def refuse() -> None:
        await web.session()
        raise RequestUnauthorized

    refused = await connect(app, cookie=idle)
    assert refused.status == 403
    assert refused.cookie not in (None, "", idle)


async def test_foreign_pages_sockets(auth: AsyncAuth[User]) -> None:
    """The handshake of a foreign page is a visitor's, or forbidden if the option says so."""
    session_id = await log_in(auth)
    for forbids, status in ((False, 401), (True, 403)):
        app = Quart(__name__)
        QuartAuth(auth, app, forbid_cross_site=forbids)
        app.add_websocket("/", "socket", login_required(empty))
        assert (await connect(app, cookie=session_id, headers=FOREIGN)).status == status


async def test_the_applications_own_handler_may_refuse_a_socket(sockets: Quart) -> None:
    """An error handler for 401 responds to a handshake as well."""
    sockets.register_error_handler(401, lambda error: ("own 401", 401))
    refused = await connect(sockets, "/before")
    assert (refused.status, refused.body) == (401, b"own 401")


async def test_the_applications_own_handler_may_close_a_socket(sockets: Quart) -> None:
    """An error handler may close a handshake with a code of its own, and respond nothing."""

    async def close(error: Exception) -> Any:
        await websocket.close(4401)

    sockets.register_error_handler(401, close)
    closed = await connect(sockets, "/before")
    assert [(each["type"], each["code"]) for each in closed.messages] == [("websocket.close", 4401)]


async def test_a_request_within_a_socket(sockets: Quart, auth: AsyncAuth[User]) -> None:
    """A request that the handler of a socket makes has the session of its own."""
    route(sockets, "/", user_id)

    @sockets.websocket("/outer")
    async def outer() -> None:
        await websocket.send(await text_of(await send(sockets)))

    session = await connect(sockets, "/outer", await log_in(auth))
    assert session.messages[1]["text"] == "visitor"
