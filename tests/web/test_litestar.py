"""Litestar applications: what is protected, the dependencies, errors, OpenAPI, the ready routes."""

import gc
import re
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import pytest
from litestar import (
    Controller,
    Litestar,
    Request,
    Response,
    Router,
    WebSocket,
    get,
    post,
    route,
    websocket,
)
from litestar.config.csrf import CSRFConfig
from litestar.connection import ASGIConnection
from litestar.datastructures import Cookie
from litestar.di import Provide
from litestar.enums import ScopeType
from litestar.exceptions import (
    HTTPException,
    NotAuthorizedException,
    NotFoundException,
    WebSocketDisconnect,
)
from litestar.handlers.base import BaseRouteHandler
from litestar.openapi import OpenAPIConfig, ResponseSpec
from litestar.openapi.spec import Components, SecurityScheme
from litestar.response import Redirect, Stream
from litestar.testing import AsyncTestClient, TestClient, create_test_client
from litestar.types import ASGIApp, Receive, Scope, Send

from lucia import (
    AsyncAuth,
    AsyncAuthRequest,
    Auth,
    DuplicateKeyId,
    InvalidInput,
    InvalidPassword,
    InvalidRequest,
    InvalidSessionId,
    LuciaError,
    NotAuthenticated,
    OutdatedPassword,
    Overloaded,
    PrimaryKey,
    RequestUnauthorized,
    Session,
    SessionCookie,
    SessionUser,
    StoreCorrupt,
    StoreUnavailable,
    TooManyAttempts,
    User,
    UsersNotConfigured,
)
from lucia._rules.bodies import MAX_BODY_BYTES
from lucia.adapters.memory import AsyncMemoryAdapter, MemoryAdapter
from lucia.middleware.litestar import LitestarAuth, ThreadAuthRequest, login_required
from tests.web import driver
from tests.web.conftest import make_auth
from tests.web.driver import NAME, Time, connect, log_in, scope_of, user_of

T = TypeVar("T")

if TYPE_CHECKING:
    from litestar.di import NamedDependency
else:
    try:
        from litestar.di import NamedDependency
    except ImportError:  # before 2.23 no mark is needed
        NamedDependency = Annotated[T, None]

Handler = Any
AuthRequest = NamedDependency[AsyncAuthRequest[User]]
CurrentSession = NamedDependency[Session]
CurrentUser = NamedDependency[User]

ORIGIN = "http://testserver.local"
FOREIGN = {"Origin": "https://evil.example"}
HTML = {"Accept": "text/html,*/*;q=0.8"}
NOT_UTF8 = b'--x\r\nContent-Disposition: form-data; name="username"\r\n\r\n\xff\r\n--x--\r\n'
ANN = {"username": "ann", "password": "correct horse"}


def make_app(web: LitestarAuth[Any, Any], *handlers: Handler, **options: Any) -> Litestar:
    """Return an application with this plugin, which leaves the logging of the tests alone."""
    return Litestar([*handlers], plugins=[web], logging_config=None, **options)


def client_of(app: Litestar) -> TestClient[Litestar]:
    """Return a client that sends the application's own Origin, as a browser would."""
    client = TestClient(app, raise_server_exceptions=False)
    client.headers["Origin"] = ORIGIN
    client.follow_redirects = False
    return client


def in_loop(
    client: TestClient[Litestar], function: Callable[..., Awaitable[T]], *arguments: object
) -> T:
    """Call an async function in the event loop of an entered test client."""
    with client.portal() as portal:
        return portal.call(function, *arguments)


def error_of(handlers: list[Handler], plugins: list[Any]) -> Exception:
    """Return the error that the handler of ``/`` raises."""
    errors: list[Exception] = []

    async def note(error: Exception, scope: Scope) -> None:
        errors.append(error)

    app = Litestar(handlers, plugins=plugins, logging_config=None, after_exception=[note])
    assert client_of(app).get("/").status_code == 500
    (error,) = errors
    return error


def refusal(client: TestClient[Litestar], path: str) -> tuple[int, str]:
    """Return the code and the reason with which a WebSocket is closed."""
    with pytest.raises(WebSocketDisconnect) as caught, client.websocket_connect(path) as connection:
        connection.receive_text()
    return caught.value.code, caught.value.detail


async def sign_up(auth: AsyncAuth[User]) -> str:
    """Create a user and a session, and return the id of the session."""
    user = await auth.create_user(primary_key=PrimaryKey("username", "ann", "correct horse"))
    return await log_in(auth, user.user_id)


@pytest.fixture
def web(auth: AsyncAuth[User]) -> LitestarAuth[User]:
    """Return the plugin."""
    return LitestarAuth(auth)


@pytest.fixture
def lazy(auth: AsyncAuth[User]) -> LitestarAuth[User]:
    """Return the plugin of an application whose handlers need no login."""
    return LitestarAuth(auth, required=False)


# Handlers


@get("/me")
async def me(request: Request[User, Session, Any]) -> list[str]:
    """Return who it is, as Litestar's own authentication says it."""
    return [request.user.user_id, request.auth.user_id]


@get("/session")
async def session(current_session: CurrentSession) -> str:
    """Return the user of the session."""
    return current_session.user_id


@get("/user")
async def user(current_user: "NamedDependency[User]") -> str:
    """Return the user."""
    return current_user.user_id


@get("/both")
async def both(session_user: NamedDependency[SessionUser[User]]) -> list[str]:
    """Return both."""
    return [session_user.session.user_id, session_user.user.user_id]


@get("/optional")
async def optional(
    optional_session: NamedDependency[Session | None], optional_user: NamedDependency[User | None]
) -> list[str | None]:
    """Return who it is, or None."""
    return [user_of(optional_session), optional_user.user_id if optional_user else None]


@get("/open", exclude_from_auth=True)
async def open_to_all() -> str:
    """Return a greeting."""
    return "hello"


@post("/in", exclude_from_auth=True)
async def sign_in(auth_request: AuthRequest) -> str:
    """Log in."""
    return (await auth_request.sign_in_with_key("username", "ann", "correct horse")).user_id


@post("/out", exclude_from_auth=True)
async def sign_out(auth_request: AuthRequest) -> None:
    """Log out."""
    await auth_request.sign_out()


@websocket("/socket")
async def socket(socket: WebSocket[User, Session, Any], current_user: CurrentUser) -> None:
    """Send who it is."""
    await socket.accept()
    await socket.send_text(f"{current_user.user_id} {socket.user.user_id} {socket.auth.user_id}")
    await socket.close()


@websocket("/open-socket", exclude_from_auth=True)
async def open_socket(
    socket: WebSocket[Any, Any, Any], optional_user: NamedDependency[User | None]
) -> None:
    """Send who it is, or that it is a visitor."""
    await socket.accept()
    await socket.send_text(optional_user.user_id if optional_user else "visitor")
    await socket.close()


ALL: tuple[Handler, ...] = (
    me,
    session,
    user,
    both,
    optional,
    open_to_all,
    sign_in,
    sign_out,
    socket,
    open_socket,
)


def raising(error: Exception) -> Handler:
    """Return a handler that raises this error."""

    @route("/", http_method=["GET", "POST"])
    async def handler() -> None:
        raise error

    return handler


# What is protected


def test_everybody_is_known_by_each_dependency(
    web: LitestarAuth[User], auth: AsyncAuth[User]
) -> None:
    """Handlers and WebSockets know a logged-in user, and refuse a visitor."""
    with client_of(make_app(web, *ALL)) as client:
        in_loop(client, sign_up, auth)
        for _ in range(2):
            for path in ("/me", "/session", "/user", "/both", "/optional"):
                response = client.get(path)
                assert (response.status_code, "set-cookie" in response.headers) == (401, False)
            user_id = client.post("/in").text
            for path in ("/me", "/both", "/optional"):
                assert client.get(path).json() == [user_id, user_id]
            assert client.get("/session").text == client.get("/user").text == user_id
            with client.websocket_connect("/socket") as connection:
                assert connection.receive_text() == f"{user_id} {user_id} {user_id}"
            with client.websocket_connect("/open-socket") as connection:
                assert connection.receive_text() == user_id
            assert client.post("/out").status_code == 201
            assert client.cookies.get(NAME) is None
            with client.websocket_connect("/open-socket") as connection:
                assert connection.receive_text() == "visitor"


def test_a_visitor_gets_the_401_of_litestar(web: LitestarAuth[User]) -> None:
    """The body is that of Litestar's own NotAuthorizedException, and the header names a scheme."""

    @get("/")
    async def private() -> None: ...

    response = client_of(make_app(web, private)).get("/")
    assert response.status_code == 401
    assert response.json() == {"status_code": 401, "detail": "Not logged in."}
    assert response.headers["www-authenticate"] == "APIKey"
    assert "set-cookie" not in response.headers


def test_a_client_without_a_lifespan(web: LitestarAuth[User], auth: AsyncAuth[User]) -> None:
    """A test client works without its ``with`` block, as it does without this plugin."""
    client = client_of(make_app(web, *ALL))
    in_loop(client, sign_up, auth)
    assert client.post("/in").status_code == 201
    assert client.get("/user").status_code == 200
    assert client.post("/out").status_code == 201
    assert client.get("/user").status_code == 401


def test_a_test_client_without_origin_is_a_foreign_page(web: LitestarAuth[User]) -> None:
    """A test client that sends no Origin gets 403 for a login."""
    with create_test_client([sign_in], plugins=[web], logging_config=None) as client:
        assert client.post("/in").status_code == 403


async def test_the_async_test_client(web: LitestarAuth[User], auth: AsyncAuth[User]) -> None:
    """Litestar's AsyncTestClient has a cookie jar as the other one."""
    await sign_up(auth)
    async with AsyncTestClient(make_app(web, *ALL)) as client:
        response = await client.post("/in", headers={"Origin": ORIGIN})
        assert (await client.get("/user")).text == response.text


def test_excluded_paths(auth: AsyncAuth[User]) -> None:
    """Patterns of paths, a key in ``opt`` and HTTP methods exclude handlers, as in SessionAuth."""

    def respond() -> Any:
        async def handler() -> None: ...

        return handler

    async def posted() -> None: ...

    paths_of_get = ("/docs/page", "/docs", "/a/docs", "/help", "/x")
    handlers = [
        *(get(path)(respond()) for path in paths_of_get),
        get("/key", public=True)(respond()),
        post("/x")(posted),
    ]
    paths = {
        "/docs/page": (200, 200),
        "/docs": (200, 200),
        "/a/docs": (401, 401),
        "/help": (401, 200),
        "/key": (401, 200),
        "/x": (401, 401),
    }
    one = LitestarAuth(auth, exclude="^/docs")
    several = LitestarAuth(
        auth, exclude=["^/docs", "^/help"], exclude_opt_key="public", exclude_http_methods=["POST"]
    )
    for index, web in enumerate((one, several)):
        app = make_app(web, *handlers)
        client = client_of(app)
        assert {path: client.get(path).status_code for path in paths} == {
            path: statuses[index] for path, statuses in paths.items()
        }
        assert client.post("/x").status_code == (401, 201)[index]
        document = app.openapi_schema.to_schema()["paths"]
        secured = {path for path in paths if "security" in document[path]["get"]}
        assert secured == {path for path, statuses in paths.items() if statuses[index] == 401}
        assert ("security" in document["/x"]["post"]) is (index == 0)


def test_scopes(auth: AsyncAuth[User]) -> None:
    """The check can be left to WebSockets alone, or to requests alone."""

    @get("/")
    async def handler() -> None: ...

    @websocket("/socket")
    async def accept(socket: WebSocket[Any, Any, Any]) -> None:
        await socket.accept()
        await socket.send_text("open")

    sockets = LitestarAuth(auth, scopes={ScopeType.WEBSOCKET})
    app = make_app(sockets, handler, accept)
    client = client_of(app)
    assert client.get("/").status_code == 200
    assert "security" not in app.openapi_schema.to_schema()["paths"]["/"]["get"]
    assert refusal(client, "/socket") == (1008, "Not logged in.")
    requests = LitestarAuth(auth, scopes={ScopeType.HTTP})
    client = client_of(make_app(requests, handler, accept))
    assert client.get("/").status_code == 401
    with client.websocket_connect("/socket") as connection:
        assert connection.receive_text() == "open"


class DownStore(AsyncMemoryAdapter):
    """A store that can't be reached."""

    async def get_session(self, session_id: str) -> Any:
        raise StoreUnavailable


def test_the_store_is_read_only_if_a_handler_asks(time: Time) -> None:
    """Excluded handlers work while the store is down; others get 503, and the cookie stays."""
    web = LitestarAuth(make_auth(DownStore(clock=time), time))
    with client_of(make_app(web, *ALL)) as client:
        client.cookies.set(NAME, "a" * 40)
        assert client.get("/open").text == "hello"
        for path in ("/me", "/user"):
            response = client.get(path)
            assert response.status_code == 503
            assert response.headers["retry-after"] == "1"
            assert "set-cookie" not in response.headers
        assert client.get("/open").headers.get_list("set-cookie") == []


def test_an_auth_without_a_user_adapter(time: Time) -> None:
    """``request.user`` is the user's id; a handler that needs more says what is missing."""
    auth: AsyncAuth[User] = AsyncAuth(sessions=AsyncMemoryAdapter(clock=time), env="DEV")

    @get("/id")
    async def who(request: Request[str, Session, Any]) -> list[str]:
        return [request.user, request.auth.user_id]

    with client_of(make_app(LitestarAuth(auth), who, user)) as client:
        assert client.get("/id").status_code == 401
        client.cookies.set(NAME, in_loop(client, log_in, auth))
        assert client.get("/id").json() == ["ann", "ann"]

    @get("/")
    async def asking(current_user: CurrentUser) -> None: ...

    error = error_of([asking], [LitestarAuth(auth, required=False)])
    assert isinstance(error, UsersNotConfigured)


def test_the_user_of_a_session_may_be_gone(lazy: LitestarAuth[User], auth: AsyncAuth[User]) -> None:
    """A session without a user is valid, but what needs the user gets 401."""

    @get("/guarded", guards=[login_required])
    async def guarded() -> None: ...

    with client_of(make_app(lazy, *ALL, guarded)) as client:
        client.cookies.set(NAME, in_loop(client, log_in, auth, "nobody"))
        assert client.get("/session").text == "nobody"
        assert [client.get(path).status_code for path in ("/user", "/both", "/guarded")] == [
            401
        ] * 3


# The guard


class Guarded(Controller):
    """A controller whose handlers need a login."""

    path = "/controller"
    guards = (login_required,)

    @get("/")
    async def handler(self, request: Request[User, Session, Any]) -> list[str]:
        """Return who it is."""
        return [request.user.user_id, request.auth.user_id]


def test_the_guard(lazy: LitestarAuth[User], auth: AsyncAuth[User]) -> None:
    """Handlers, controllers, routers and WebSockets can need a login where others need none."""

    @get("/plain")
    async def plain(request: Request[Any, Any, Any]) -> bool:
        return "user" in request.scope

    @get("/handler", guards=[login_required])
    async def handler(request: Request[User, Session, Any]) -> list[str]:
        return [request.user.user_id, request.auth.user_id]

    @get("/")
    async def routed(request: Request[User, Session, Any]) -> list[str]:
        return [request.user.user_id, request.auth.user_id]

    @websocket("/guarded-socket", guards=[login_required])
    async def guarded(socket: WebSocket[User, Session, Any]) -> None:
        await socket.accept()
        await socket.send_text(socket.user.user_id)

    router = Router("/router", guards=[login_required], route_handlers=[routed])
    app = make_app(lazy, plain, handler, Guarded, router, guarded)
    paths = ["/handler", "/controller", "/router"]
    with client_of(app) as client:
        assert [client.get(path).status_code for path in paths] == [401] * 3
        assert refusal(client, "/guarded-socket") == (1008, "Not logged in.")
        client.cookies.set(NAME, in_loop(client, sign_up, auth))
        assert client.get("/plain").json() is False
        one, *others = [client.get(path).json() for path in paths]
        assert others == [one, one]
        with client.websocket_connect("/guarded-socket") as connection:
            assert [connection.receive_text()] * 2 == one
    document = app.openapi_schema.to_schema()["paths"]
    assert {path for path, item in document.items() if "security" in item["get"]} == set(paths)


def test_the_guard_protects_excluded_handlers(auth: AsyncAuth[User]) -> None:
    """The guard also asks for a login where the plugin's own check is left out."""

    @get("/a", exclude_from_auth=True, guards=[login_required])
    async def excluded() -> None: ...

    @get("/b", guards=[login_required])
    async def left_out() -> None: ...

    app = make_app(LitestarAuth(auth, exclude="^/b"), excluded, left_out)
    client = client_of(app)
    assert [client.get(path).status_code for path in ("/a", "/b")] == [401, 401]
    document = app.openapi_schema.to_schema()["paths"]
    assert all(document[path]["get"]["security"] for path in ("/a", "/b"))


def test_a_forgotten_plugin_is_said(web: LitestarAuth[User]) -> None:
    """The guard and the methods of a plugin that was not added say what is missing."""

    @get("/", guards=[login_required])
    async def guarded() -> None: ...

    @get("/")
    async def method(request: Request[Any, Any, Any]) -> None:
        web.auth_request(request.scope)

    for handler in (guarded, method):
        error = error_of([handler], [])
        assert isinstance(error, RuntimeError)
        assert str(error).startswith("LitestarAuth is not installed: add it")


# Cookies


@get("/value")
async def value(current_session: CurrentSession) -> dict[str, int]:
    """Return a value."""
    return {"a": 1}


@get("/response")
async def response(current_session: CurrentSession) -> Response[str]:
    """Return a response with headers of its own."""
    headers = {"Cache-Control": "public", "Vary": "Accept"}
    return Response("a", headers=headers, cookies=[Cookie("own", "1")])


@get("/redirect")
async def redirect(current_session: CurrentSession) -> Redirect:
    """Redirect."""
    return Redirect("/")


@get("/stream")
async def stream(current_session: CurrentSession) -> Stream:
    """Stream."""

    async def parts() -> AsyncIterator[bytes]:
        yield b"a"
        yield b"b"

    return Stream(parts())


@get("/teapot")
async def teapot(current_session: CurrentSession) -> None:
    """Raise an error of Litestar's."""
    raise HTTPException(status_code=418)


@get("/invalid")
async def invalid(current_session: CurrentSession, request: Request[Any, Any, Any]) -> None:
    """Raise an error of the library's."""
    raise InvalidInput("no")


@get("/crash")
async def crash(current_session: CurrentSession) -> None:
    """Raise an unexpected error."""
    raise ZeroDivisionError


async def cleanup(current_session: CurrentSession) -> AsyncIterator[str]:
    """Yield the user, and fail afterwards."""
    yield current_session.user_id
    raise HTTPException(status_code=409)


@get("/cleanup", dependencies={"cleaned": cleanup})
async def cleaned_up(cleaned: NamedDependency[str]) -> str:
    """Return a value whose dependency fails afterwards."""
    return cleaned


class Refusing:
    """Middleware that asks who it is, and then refuses."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse a request, and let a WebSocket pass."""
        raise NotFoundException


@get("/refused", middleware=[Refusing])
async def refused() -> None:
    """Never run."""


STATUSES = {
    "/value": 200,
    "/response": 200,
    "/redirect": 302,
    "/stream": 200,
    "/teapot": 418,
    "/invalid": 422,
    "/crash": 500,
    "/cleanup": 409,
    "/refused": 404,
}
KINDS: tuple[Handler, ...] = (
    value,
    response,
    redirect,
    stream,
    teapot,
    invalid,
    crash,
    cleaned_up,
    refused,
)


@pytest.mark.parametrize("path", STATUSES)
def test_the_cookie_is_on_every_kind_of_response(
    web: LitestarAuth[User], auth: AsyncAuth[User], time: Time, path: str
) -> None:
    """Every kind of response has the cookie of a renewed session, and only that one."""
    with client_of(make_app(web, *KINDS)) as client:
        session_id = in_loop(client, sign_up, auth)
        time.pass_hours(25)
        client.cookies.set(NAME, session_id)
        response = client.get(path)
        assert response.status_code == STATUSES[path]
        cookies = response.headers.get_list("set-cookie")
        names = ["own", NAME] if path == "/response" else [NAME]
        assert [text.partition("=")[0] for text in cookies] == names
        assert response.headers.get_list("cache-control") == ["no-store"]
        varies = ["Accept", "Cookie"] if path == "/response" else ["Cookie"]
        assert response.headers.get_list("vary") == varies
        assert session_id not in cookies[-1]
        client.cookies.clear()
        client.cookies.set(NAME, cookies[-1].partition(";")[0].partition("=")[2])
        again = client.get(path).headers.get_list("set-cookie")
        assert [text.partition("=")[0] for text in again] == names[:-1]


@pytest.mark.parametrize(
    ("path", "method", "status"), [("/nowhere", "GET", 404), ("/value", "DELETE", 405)]
)
def test_responses_without_a_handler_have_the_cookie(
    web: LitestarAuth[User], auth: AsyncAuth[User], time: Time, path: str, method: str, status: int
) -> None:
    """A hook of the application may ask who it is where no handler is found."""

    async def note(error: Exception, scope: Scope) -> None:
        assert await web.optional_session(scope) is not None

    with client_of(make_app(web, value, after_exception=[note])) as client:
        session_id = in_loop(client, sign_up, auth)
        time.pass_hours(25)
        client.cookies.set(NAME, session_id)
        response = client.request(method, path)
        assert response.status_code == status
        assert response.headers["set-cookie"].startswith(f"{NAME}=")
        client.cookies.clear()
        client.cookies.set(NAME, in_loop(client, log_in, auth))
        assert "set-cookie" not in client.request(method, path).headers


def test_a_visitor_finds_no_page(web: LitestarAuth[User]) -> None:
    """A path without a handler is 404 for everybody."""
    response = client_of(make_app(web, value)).get("/nowhere")
    assert (response.status_code, "set-cookie" in response.headers) == (404, False)


def test_the_response_cache_has_no_cookie(
    web: LitestarAuth[User], auth: AsyncAuth[User], time: Time
) -> None:
    """Litestar's response cache never gives the cookie of one person to the next."""

    @get("/", cache=True)
    async def cached() -> str:
        return "cached"

    with client_of(make_app(web, cached)) as client:
        session_id = in_loop(client, sign_up, auth)
        user_id = in_loop(client, auth.get_session, session_id).user_id
        time.pass_hours(25)
        client.cookies.set(NAME, session_id)
        assert len(client.get("/").headers.get_list("set-cookie")) == 1
        client.cookies.clear()
        client.cookies.set(NAME, in_loop(client, log_in, auth, user_id))
        response = client.get("/")
        assert (response.text, response.headers.get_list("set-cookie")) == ("cached", [])


class OneRequest:
    """An object that is freed with the scope that refers to it."""


async def test_a_finished_request_is_freed(web: LitestarAuth[User], auth: AsyncAuth[User]) -> None:
    """The plugin adds no reference cycle to a request, whether it succeeds or fails."""
    app: Any = make_app(web, me)
    for cookie, status in ((await sign_up(auth), 200), (None, 401)):
        # Litestar's caches keep what the first request fills in.
        for _ in range(2):
            request = OneRequest()
            freed = weakref.ref(request)
            gc.disable()
            try:
                answer = await driver.run(app, scope_of(cookie=cookie, path="/me", own=request))
                del request
                assert (answer.status, freed()) == (status, None)
            finally:
                gc.enable()


# Errors


COOKIE = {"www-authenticate": "APIKey"}
ANSWERS = [
    (NotAuthenticated(), 401, "Not logged in.", COOKIE),
    (InvalidSessionId(), 401, "Not logged in.", COOKIE),
    (InvalidPassword(), 401, "Wrong name or password.", COOKIE),
    (OutdatedPassword(), 401, "Wrong name or password.", COOKIE),
    (InvalidRequest("expected this"), 403, "This request comes from another site.", {}),
    (RequestUnauthorized("for reasons"), 403, "Not allowed.", {}),
    (DuplicateKeyId(), 409, "This name is taken.", {}),
    (InvalidInput("the password is empty"), 422, "the password is empty", {}),
    (
        TooManyAttempts(retry_after=17),
        429,
        "Too many failed logins. Try again later.",
        {"retry-after": "17"},
    ),
    (Overloaded(), 503, "Too many requests at once. Try again in a moment.", {"retry-after": "1"}),
    (
        StoreUnavailable(ambiguous=True),
        503,
        "Sessions can't be reached. Try again in a moment.",
        {"retry-after": "1"},
    ),
]


@pytest.mark.parametrize(
    ("error", "status", "detail", "headers"), ANSWERS, ids=lambda value: type(value).__name__
)
def test_an_error_that_a_handler_lets_pass_is_answered(
    lazy: LitestarAuth[User], error: LuciaError, status: int, detail: str, headers: dict[str, str]
) -> None:
    """The response tells only what a client may know, in Litestar's own form."""
    response = client_of(make_app(lazy, raising(error))).get("/")
    assert response.status_code == status
    assert response.json() == {"status_code": status, "detail": detail}
    found = {
        name: value
        for name, value in response.headers.items()
        if name not in ("content-type", "content-length")
    }
    assert found == headers


def test_other_errors_of_the_library_are_the_applications_own(lazy: LitestarAuth[User]) -> None:
    """Errors that no client can do anything about are 500."""
    for error in (StoreCorrupt(), UsersNotConfigured()):
        assert client_of(make_app(lazy, raising(error))).get("/").status_code == 500


def mine(request: Request[Any, Any, Any], error: Exception) -> Response[str]:
    """Respond to an error as an application may do it."""
    return Response(type(error).__name__, status_code=400)


@pytest.mark.parametrize(
    ("key", "text"),
    [
        (NotAuthenticated, "NotAuthenticated"),
        (401, "NotAuthorizedException"),
        (NotAuthorizedException, "NotAuthorizedException"),
        (HTTPException, "NotAuthorizedException"),
    ],
)
def test_the_applications_own_handlers_go_first(
    web: LitestarAuth[User], key: Any, text: str
) -> None:
    """Handlers for the library's class, for the status and for Litestar's class are asked."""

    @get("/", exclude_from_auth=True)
    async def handler(current_user: CurrentUser) -> None: ...

    @get("/router")
    async def routed() -> None: ...

    handlers: Any = {key: mine}
    client = client_of(make_app(web, handler, exception_handlers=handlers))
    assert (client.get("/").status_code, client.get("/").text) == (400, text)
    router = Router("/", route_handlers=[handler, routed], exception_handlers=handlers)
    client = client_of(make_app(web, router))
    assert [client.get(path).text for path in ("/", "/router")] == [text, text]


def test_the_applications_handler_for_all_errors(web: LitestarAuth[User]) -> None:
    """An application's own handler for ``LuciaError`` takes precedence."""

    def own(request: Request[Any, Any, Any], error: Exception) -> Response[str]:
        return Response(type(error).__name__, status_code=418)

    app = make_app(web, raising(NotAuthenticated()), exception_handlers={LuciaError: own})
    response = client_of(app).get("/")
    assert (response.status_code, response.text) == (418, "NotAuthenticated")


def test_cross_site_requests_can_be_forbidden(auth: AsyncAuth[User]) -> None:
    """With the option, the 403 comes before a handler runs, and equals that of the error."""
    forbidding = LitestarAuth(auth, forbid_cross_site=True)
    early_app = make_app(forbidding, raising(ZeroDivisionError()), open_to_all, open_socket)
    late_app = make_app(LitestarAuth(auth, required=False), raising(InvalidRequest()))
    early = client_of(early_app).post("/", headers=FOREIGN)
    late = client_of(late_app).post("/", headers=FOREIGN)
    assert early.status_code == late.status_code == 403
    assert early.json() == late.json()
    client = client_of(early_app)
    assert client.get("/open", headers=FOREIGN).status_code == 200
    client.headers.update(FOREIGN)
    expected = (1008, "This request comes from another site.")
    assert refusal(client, "/open-socket") == expected


def test_the_bearer_transport(auth: AsyncAuth[User]) -> None:
    """The id is read from the Authorization header, and the challenge names the scheme."""
    with client_of(make_app(LitestarAuth(auth, transport="bearer"), session)) as client:
        session_id = in_loop(client, sign_up, auth)
        response = client.get("/session", headers={"Authorization": f"Bearer {session_id}"})
        assert (response.status_code, "set-cookie" in response.headers) == (200, False)
        response = client.get("/session", headers={"Cookie": f"{NAME}={session_id}"})
        assert (response.status_code, response.headers["www-authenticate"]) == (401, "Bearer")


@pytest.mark.parametrize(
    ("headers", "status", "location"),
    [
        (HTML, 303, "/login?next=/a%2520page%3Fa%3D1"),
        ({"Accept": "application/json"}, 401, None),
        ({}, 401, None),
    ],
)
def test_a_visitor_of_a_page_is_sent_to_the_login_page(
    auth: AsyncAuth[User], headers: dict[str, str], status: int, location: str | None
) -> None:
    """A browser is sent to the login page, which leads back; other clients get 401."""

    @route(["/a page", "/login"], http_method=["GET", "POST"])
    async def page() -> None: ...

    client = client_of(make_app(LitestarAuth(auth, login_url="/login"), page))
    response = client.get("/a page?a=1", headers=headers)
    assert (response.status_code, response.headers.get("location")) == (status, location)
    response = client.post("/a page", headers=headers)
    assert response.headers.get("location") == (location and "/login")
    # Nobody excluded this login page: 401, and no redirect to itself for ever.
    assert client.get("/login?next=/a", headers=headers).status_code == 401


def test_what_is_refused_at_once(auth: AsyncAuth[User]) -> None:
    """A sync auth and a login page that is no URL are refused when the plugin is made."""
    sync_auth: Any = Auth(sessions=MemoryAdapter(), env="DEV")
    with pytest.raises(TypeError, match="auth must be an AsyncAuth, not Auth"):
        LitestarAuth(sync_auth)
    with pytest.raises(ValueError, match="login_url must be a path"):
        LitestarAuth(auth, login_url="login")


# WebSockets


def socket_raising(error: Exception, *, accepted: bool) -> Handler:
    """Return a handler of WebSockets that raises this error."""

    @websocket("/")
    async def handler(
        socket: WebSocket[Any, Any, Any], optional_session: NamedDependency[Session | None]
    ) -> None:
        if accepted:
            await socket.accept()
        raise error

    return handler


CLOSES = [
    (NotAuthenticated(), 1008, "Not logged in."),
    (InvalidSessionId(), 1008, "Not logged in."),
    (StoreUnavailable(), 1013, "Sessions can't be reached. Try again in a moment."),
    (ZeroDivisionError(), 4500, "Internal Server Error"),
]


@pytest.mark.parametrize(("error", "code", "reason"), CLOSES, ids=lambda value: str(value))
@pytest.mark.parametrize("accepted", [True, False])
def test_an_error_closes_a_socket(
    lazy: LitestarAuth[User], error: Exception, code: int, reason: str, accepted: bool
) -> None:
    """A socket is closed with the library's codes; other errors keep Litestar's own."""
    client = client_of(make_app(lazy, socket_raising(error, accepted=accepted)))
    assert refusal(client, "/") == (code, reason)


@pytest.mark.parametrize(
    ("error", "status"), [(RequestUnauthorized(), 403), (StoreUnavailable(), 503)]
)
async def test_a_rejected_socket_keeps_its_cookie(
    lazy: LitestarAuth[User], auth: AsyncAuth[User], time: Time, error: Exception, status: int
) -> None:
    """The response that rejects a handshake has the cookie of a session that was renewed."""
    app: Any = make_app(lazy, socket_raising(error, accepted=False))
    session_id = await log_in(auth)
    time.pass_hours(25)
    answer = await connect(app, session_id)
    assert answer.status == status
    assert answer.cookie not in (None, "", session_id)


async def test_a_socket_is_accepted_with_its_cookie(
    web: LitestarAuth[User], auth: AsyncAuth[User], time: Time
) -> None:
    """The response that accepts a handshake has the cookie of a session that was renewed."""
    app: Any = make_app(web, socket)
    session_id = await sign_up(auth)
    time.pass_hours(25)
    answer = await connect(app, session_id, path="/socket")
    assert answer.types == ["websocket.accept", "websocket.send", "websocket.close"]
    assert answer.cookie not in (None, "", session_id)


async def test_a_store_that_is_down_rejects_sockets_for_now(time: Time) -> None:
    """The plugin's own check rejects the handshake with 503, or closes with 1013."""
    app: Any = make_app(LitestarAuth(make_auth(DownStore(clock=time), time)), socket)
    assert (await connect(app, "a" * 40, path="/socket")).status == 503
    (closed,) = (await connect(app, "a" * 40, can_deny=False, path="/socket")).messages
    assert (closed["type"], closed["code"]) == ("websocket.close", 1013)


def test_other_middleware_may_refuse_a_socket(lazy: LitestarAuth[User]) -> None:
    """An error that other middleware raises is Litestar's own matter."""

    @websocket("/", middleware=[Refusing])
    async def handler(socket: WebSocket[Any, Any, Any]) -> None: ...

    client = client_of(make_app(lazy, handler))
    assert refusal(client, "/") == (4500, "Not Found")


# Dependencies


def test_the_applications_own_dependencies_go_first(lazy: LitestarAuth[User]) -> None:
    """A dependency of the same name that the application has is used instead."""

    async def somebody() -> User:
        return User(user_id="somebody")

    own = {"current_user": Provide(somebody)}
    assert client_of(make_app(lazy, user, dependencies=own)).get("/user").text == "somebody"
    router = Router("/", route_handlers=[user], dependencies=own)
    assert client_of(make_app(lazy, router)).get("/user").text == "somebody"


def test_two_auths_on_one_application(web: LitestarAuth[User], time: Time) -> None:
    """Customers and staff each have a cookie, their own handlers, and a scheme in the document."""
    store = AsyncMemoryAdapter(clock=time)
    staff_auth: AsyncAuth[User] = AsyncAuth(
        users=store,
        sessions=store,
        env="DEV",
        clock=time,
        session_cookie=SessionCookie(name="staff"),
    )
    staff = LitestarAuth(staff_auth, required=False, scheme_name="staff")

    @post("/in", exclude_from_auth=True)
    async def enter(auth_request: AuthRequest, staff_request: AuthRequest) -> None:
        await auth_request.sign_in("ann")
        await staff_request.sign_in("boss")

    @get("/who", exclude_from_auth=True)
    async def who(current_session: CurrentSession, staff_session: CurrentSession) -> list[str]:
        return [current_session.user_id, staff_session.user_id]

    @get("/guarded", guards=[login_required], exclude_from_auth=True)
    async def guarded() -> None: ...

    # Routers are copied, with their dependencies.
    router = Router(
        "/",
        route_handlers=[enter, who, guarded],
        dependencies={
            "staff_session": Provide(staff.current_session),
            "staff_request": Provide(staff.auth_request, sync_to_thread=False),
        },
    )
    app = Litestar([router], plugins=[web, staff], logging_config=None)
    with client_of(app) as client:
        assert client.get("/who").status_code == 401
        client.post("/in")
        assert sorted(client.cookies.keys()) == [NAME, "staff"]
        assert client.get("/who").json() == ["ann", "boss"]
    document = app.openapi_schema.to_schema()
    assert sorted(document["components"]["securitySchemes"]) == ["session", "staff"]
    assert document["paths"]["/guarded"]["get"]["security"] == [{"session": []}]


def test_plain_functions(lazy: LitestarAuth[User], auth: AsyncAuth[User]) -> None:
    """A handler in a thread has all methods of the AuthRequest."""

    @post("/", sync_to_thread=True)
    def handler(
        sync_auth_request: NamedDependency[ThreadAuthRequest[User]],
    ) -> list[str | None]:
        request = sync_auth_request
        assert request.validate() is None
        key = ("username", "ann", "correct horse")
        ann = request.sign_in_with_key(*key, via="web")
        both = request.validate_user()
        assert both is not None
        renewed = request.renew()
        assert renewed is not None
        request.sign_out()
        assert request.validate() is None
        other = request.sign_in(ann.user_id, via="web")
        request.set_session(other)
        return [ann.user_id, both.user.user_id, renewed.user_id, user_of(request.validate())]

    with client_of(make_app(lazy, handler)) as client:
        in_loop(client, sign_up, auth)
        response = client.post("/")
        assert response.status_code == 201
        assert len(set(response.json())) == 1
        assert client.cookies[NAME]


def test_a_plain_function_in_the_event_loop_is_refused(lazy: LitestarAuth[User]) -> None:
    """Waiting for the event loop in the event loop is an error, and no deadlock."""

    @get("/", sync_to_thread=False)
    def handler(sync_auth_request: NamedDependency[ThreadAuthRequest[User]]) -> None:
        sync_auth_request.validate()

    error = error_of([handler], [lazy])
    assert isinstance(error, RuntimeError)
    assert "in Litestar also sync_to_thread=True" in str(error)


# The OpenAPI document


SESSION_SCHEME = {
    "type": "apiKey",
    "in": "cookie",
    "name": NAME,
    "description": "The session cookie.",
}
TOKEN_SCHEME = {"type": "http", "scheme": "bearer", "description": "The session id."}
TOKEN_FLOW = {
    "type": "oauth2",
    "description": "The session id.",
    "flows": {"password": {"tokenUrl": "/api/auth/token", "scopes": {}}},
}


def test_the_document_names_the_cookie_and_the_401(web: LitestarAuth[User]) -> None:
    """Exactly the handlers that need a login document the scheme and a 401; own ones stay."""

    @get(
        "/own",
        raises=[NotAuthorizedException],
        responses={401: ResponseSpec(str, description="Mine.", generate_examples=False)},
        security=[{"key": []}],
    )
    async def own() -> None: ...

    @post("/me", exclude_from_auth=True)
    async def same_path() -> None: ...

    app = make_app(web, me, own, same_path, open_to_all)
    document = app.openapi_schema.to_schema()
    assert document["components"]["securitySchemes"] == {"session": SESSION_SCHEME}
    paths = document["paths"]
    assert paths["/me"]["get"]["security"] == [{"session": []}]
    assert paths["/me"]["get"]["responses"].keys() == {"200", "401"}
    assert paths["/own"]["get"]["security"] == [{"key": []}, {"session": []}]
    assert paths["/own"]["get"]["responses"]["401"]["description"] == "Mine."
    for operation in (paths["/me"]["post"], paths["/open"]["get"]):
        assert "security" not in operation
        assert "401" not in operation["responses"]


@pytest.mark.parametrize(
    ("transport", "has_routes", "schemes"),
    [
        ("cookie", True, {"session": SESSION_SCHEME}),
        ("bearer", False, {"session": TOKEN_SCHEME}),
        ("bearer", True, {"session": TOKEN_FLOW}),
        ("both", False, {"session": SESSION_SCHEME, "session_token": TOKEN_SCHEME}),
        ("both", True, {"session": SESSION_SCHEME, "session_token": TOKEN_FLOW}),
    ],
)
def test_the_document_names_the_transport(
    auth: AsyncAuth[User], transport: Any, has_routes: bool, schemes: dict[str, Any]
) -> None:
    """Each transport is an alternative; with a token URL the page of the document can log in."""
    web = LitestarAuth(auth, transport=transport)
    api = Router("/api", route_handlers=[me, *([web.router()] if has_routes else [])])
    given = Components(security_schemes={"key": SecurityScheme(type="http", scheme="basic")})
    for components in (given, [given]):
        config = OpenAPIConfig("Mine", "1", components=components)
        document = make_app(web, api, openapi_config=config).openapi_schema.to_schema()
        found = document["components"]["securitySchemes"]
        assert found.pop("key") == {"type": "http", "scheme": "basic"}
        assert found == schemes
        security: list[dict[str, list[str]]] = [{name: []} for name in schemes]
        assert document["paths"]["/api/me"]["get"]["security"] == security
        if has_routes:
            assert document["paths"]["/api/auth/me"]["get"]["security"] == security
        assert config.components is components


def test_an_application_without_a_document(web: LitestarAuth[User]) -> None:
    """An application may have no OpenAPI document."""
    client = client_of(make_app(web, me, web.router(), openapi_config=None))
    assert client.get("/me").status_code == 401


def test_the_document_describes_the_ready_routes(web: LitestarAuth[User]) -> None:
    """The document has the bodies, the responses and the parameter of the ready routes."""
    paths = make_app(web, web.router()).openapi_schema.to_schema()["paths"]
    operations = {
        f"{method} {path.removeprefix('/auth')}": operation
        for path, item in paths.items()
        for method, operation in item.items()
    }
    assert {name: sorted(each["responses"]) for name, each in operations.items()} == {
        "post /signup": ["201", "403", "409", "422", "503"],
        "post /login": ["200", "401", "403", "422", "429", "503"],
        "post /logout": ["204", "403", "503"],
        "get /me": ["200", "401", "403", "503"],
        "get /devices": ["200", "401", "403", "503"],
        "post /devices/revoke-others": ["204", "401", "403", "503"],
        "post /devices/{handle}/revoke": ["204", "400", "401", "403", "404", "503"],
        "post /password": ["200", "401", "403", "422", "429", "503"],
    }
    secured = {name for name, each in operations.items() if "security" in each}
    assert secured == operations.keys() - {"post /signup", "post /login", "post /logout"}
    content = operations["post /login"]["requestBody"]["content"]
    for kind in ("application/json", "application/x-www-form-urlencoded"):
        assert content[kind]["schema"] == {
            "type": "object",
            "properties": {"username": {"type": "string"}, "password": {"type": "string"}},
            "required": ["username", "password"],
        }
    change = operations["post /password"]["requestBody"]["content"]["application/json"]["schema"]
    assert change["required"] == ["current_password", "new_password"]
    shown = operations["get /me"]["responses"]["200"]["content"]["application/json"]["schema"]
    assert shown == {"$ref": "#/components/schemas/SignedInUser"}
    (parameter,) = operations["post /devices/{handle}/revoke"]["parameters"]
    assert (parameter["name"], parameter["in"]) == ("handle", "path")
    assert "content" not in operations["post /logout"]["responses"]["204"]
    assert {each["operationId"] for each in operations.values()} >= {"AuthLoginLogIn"}
    assert operations["post /login"]["tags"] == ["auth"]


# The ready routes


@pytest.fixture
def client(web: LitestarAuth[User]) -> Iterator[TestClient[Litestar]]:
    """Return a client of an application with the ready routes."""
    with client_of(make_app(web, me, web.router())) as client:
        yield client


def test_the_ready_routes_in_json(client: TestClient[Litestar], time: Time) -> None:
    """An API client signs up, sees its devices, logs out elsewhere, and changes its password."""
    response = client.post("/auth/signup", json=ANN)
    assert (response.status_code, list(response.json())) == (201, ["user_id"])
    assert client.get("/auth/me").json() == response.json()
    assert [client.get("/me").json()[0]] == [*response.json().values()]
    other = client_of(client.app)
    other.headers["User-Agent"] = "laptop"
    time.pass_hours(1)
    assert other.post("/auth/login", json=ANN).status_code == 200
    devices = client.get("/auth/devices").json()
    assert [device["current"] for device in devices] == [False, True]
    assert devices[0]["metadata"] == {"user_agent": "laptop"}
    revoke = f"/auth/devices/{devices[0]['handle']}/revoke"
    assert client.post(revoke).status_code == 204
    missing = client.post(revoke)
    assert missing.status_code == 404
    assert missing.json() == {"status_code": 404, "detail": "No login on such a device."}
    assert other.get("/auth/me").status_code == 401
    other.post("/auth/login", json=ANN)
    assert client.post("/auth/devices/revoke-others").status_code == 204
    assert other.get("/auth/me").status_code == 401
    change = {"current_password": ANN["password"], "new_password": "battery staple"}
    assert client.post("/auth/password", json=change).status_code == 200
    assert client.post("/auth/password", json=change).status_code == 401
    out = client.post("/auth/logout")
    assert (out.status_code, out.content) == (204, b"")
    assert NAME not in client.cookies
    assert client.app.route_reverse("auth.log_in_page") == "/auth/login"


def test_input_that_is_refused(client: TestClient[Litestar]) -> None:
    """Bodies that are no input are refused in Litestar's own form."""
    refused: list[tuple[dict[str, Any], int]] = [
        ({"json": {}}, 422),
        ({"json": [1]}, 422),
        ({"content": b"{", "headers": {"Content-Type": "application/json"}}, 422),
        ({"content": b"a", "headers": {"Content-Type": "text/plain"}}, 422),
        ({"files": {"username": b"ann"}}, 422),
        ({"content": b"-", "headers": {"Content-Type": "multipart/form-data; boundary=x"}}, 400),
        (
            {"content": NOT_UTF8, "headers": {"Content-Type": "multipart/form-data; boundary=x"}},
            422,
        ),
        ({"json": {"username": "a" * MAX_BODY_BYTES}}, 413),
        ({"json": ANN, "headers": FOREIGN}, 403),
    ]
    for message, status in refused:
        response = client.post("/auth/signup", **message)
        assert response.status_code == status
        assert response.json()["status_code"] == status
    client.post("/auth/signup", json=ANN)
    assert client.post("/auth/signup", json=ANN).status_code == 409


def form_of(page: str, action: str = "") -> dict[str, str]:
    """Return the hidden fields of the form with this action on a page."""
    for attributes, inputs in re.findall(r"<form method=\"post\"([^>]*)>(.*?)</form>", page):
        if (f'action="{action}"' in attributes) if action else not attributes:
            return dict(re.findall(r'type="hidden" name="([^"]+)" value="([^"]*)"', inputs))
    raise AssertionError(f"no form for {action!r}: {page}")


@pytest.mark.parametrize("has_csrf", [False, True])
@pytest.mark.parametrize("is_multipart", [False, True])
def test_the_pages_of_a_browser(
    web: LitestarAuth[User], has_csrf: bool, is_multipart: bool
) -> None:
    """A browser gets pages and redirects, also beside Litestar's own CSRF protection."""
    csrf = CSRFConfig(secret="secret") if has_csrf else None
    with client_of(make_app(web, me, web.router(), csrf_config=csrf)) as client:
        client.headers.update(HTML)

        def submit(page: str, action: str = "", **fields: str) -> Any:
            hidden = form_of(client.get(page).text, action)
            assert (hidden.keys() == {"_csrf_token"}) is has_csrf
            sent = {**hidden, **fields}
            if is_multipart:
                parts: Any = {name: (None, value) for name, value in sent.items()}
                return client.post(action or page, files=parts or {"x": (None, "")})
            return client.post(action or page, data=sent)

        refused = submit("/auth/login", **ANN)
        assert (refused.status_code, 'role="alert"' in refused.text) == (401, True)
        assert refused.headers["content-type"] == "text/html; charset=utf-8"
        assert refused.headers["content-security-policy"] == "frame-ancestors 'none'"
        assert (form_of(refused.text).keys() == {"_csrf_token"}) is has_csrf
        signed_up = submit("/auth/signup?next=/me", **ANN)
        assert (signed_up.status_code, signed_up.headers["location"]) == (303, "/me")
        assert client.get("/me").status_code == 200
        assert "this device" in client.get("/auth/devices").text
        change = {"current_password": ANN["password"], "new_password": "battery staple"}
        changed = submit("/auth/password", **change)
        assert (changed.status_code, changed.headers["location"]) == (303, "/auth/devices")
        others = submit("/auth/devices", "/auth/devices/revoke-others")
        assert others.headers["location"] == "/auth/devices"
        out = submit("/auth/devices", "/auth/logout")
        assert (out.status_code, out.headers["location"], NAME in client.cookies) == (
            303,
            "/",
            False,
        )
        sent = client.get("/auth/devices")
        assert sent.headers["location"] == "/auth/login?next=/auth/devices"
        fields = {**ANN, "password": "battery staple", "next": "/me"}
        assert submit("/auth/login", **fields).headers["location"] == "/me"
        if has_csrf:
            assert client.post("/auth/logout", data={}).status_code == 403


def token_url(app: Litestar) -> Any:
    """Return where the OpenAPI document says that tokens are to be had."""
    scheme = app.openapi_schema.to_schema()["components"]["securitySchemes"]["session_token"]
    return scheme["flows"]["password"]["tokenUrl"]


def test_the_token_route(auth: AsyncAuth[User]) -> None:
    """A client gets a token by the form of OAuth2, and sends it with each request."""
    web = LitestarAuth(auth, transport="both")
    with client_of(make_app(web, me, web.router("/account", name="account"))) as client:
        client.post("/account/signup", json=ANN)
        client.cookies.clear()
        response = client.post("/account/token", data={"grant_type": "password", **ANN})
        assert response.headers["cache-control"] == "no-store"
        token = response.json()
        assert token["token_type"] == "bearer"
        headers = {"Authorization": f"Bearer {token['access_token']}"}
        assert client.get("/me", headers=headers).status_code == 200
        assert client.app.route_reverse("account.token") == "/account/token"
        assert token_url(client.app) == "/account/token"
    assert token_url(make_app(web, web.router("/other"))) == "/other/token"


def test_own_steps_and_users(web: LitestarAuth[User]) -> None:
    """The settings of the ready routes are used; Litestar encodes and documents the user."""

    def show_user(user: User) -> dict[str, str]:
        return {"id": user.user_id}

    app = make_app(web, web.router(show_user=show_user, sign_up=None, pages=False))
    paths = app.openapi_schema.to_schema()["paths"]
    assert "/auth/signup" not in paths
    schema = paths["/auth/me"]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
    assert schema == {"type": "object", "additionalProperties": {"type": "string"}}
    assert client_of(app).get("/auth/login").status_code == 405
    untyped = make_app(web, web.router(show_user=lambda user: user)).openapi_schema.to_schema()
    responses = untyped["paths"]["/auth/me"]["get"]["responses"]
    assert responses["200"]["content"]["application/json"]["schema"] == {}


def test_the_user_is_shown(web: LitestarAuth[User]) -> None:
    """``/me`` shows what ``show_user`` returns, by Litestar's own encoder."""
    router = web.router(show_user=lambda user: user)
    with client_of(make_app(web, router)) as client:
        user_id = client.post("/auth/signup", json=ANN).json()["user_id"]
        assert client.get("/auth/me").json() == {"user_id": user_id}


async def guard_of_the_application(
    connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler
) -> None:
    """Look at the user, as guards of applications do."""
    assert connection.user.user_id


def test_guards_of_the_application(web: LitestarAuth[User]) -> None:
    """Guards of the application find the user of a protected handler."""

    @get("/", guards=[guard_of_the_application])
    async def handler() -> None: ...

    with client_of(make_app(web, handler, web.router())) as client:
        assert client.get("/").status_code == 401
        client.post("/auth/signup", json=ANN)
        assert client.get("/").status_code == 200
