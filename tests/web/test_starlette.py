"""Starlette applications: every kind of response carries the cookie, and errors have responses."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.exceptions import HTTPException
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Mount, Route, Router, WebSocketRoute
from starlette.testclient import TestClient, WebSocketDenialResponse
from starlette.websockets import WebSocket, WebSocketDisconnect

from lucia import (
    AsyncAuth,
    DuplicateKeyId,
    DuplicateSessionId,
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
    StoreCorrupt,
    StoreUnavailable,
    TooManyAttempts,
    User,
    UsersNotConfigured,
)
from lucia.adapters.memory import AsyncMemoryAdapter
from lucia.middleware.starlette import LuciaMiddleware, StarletteAuth
from tests.web.driver import NAME, ORIGIN, Time, get, in_loop, log_in, post

Endpoint = Callable[[Request], Awaitable[Response]]


@pytest.fixture
def web(auth: AsyncAuth[User]) -> StarletteAuth[User]:
    """Return the application's StarletteAuth."""
    return StarletteAuth(auth)


def make_app(web: StarletteAuth[User], endpoint: Endpoint) -> Starlette:
    """Return an application with one endpoint and the auth installed."""
    app = Starlette(routes=[Route("/", endpoint, methods=["GET", "POST"])])
    web.install(app)
    return app


def raising(error: Exception) -> Endpoint:
    """Return an endpoint that raises this error."""

    async def endpoint(request: Request) -> Response:
        raise error

    return endpoint


async def returned(web: StarletteAuth[User], request: Request) -> Response:
    """Return a response with a cookie of its own."""
    await web.session(request)
    response = PlainTextResponse("a")
    response.set_cookie("own", "1")
    return response


async def streamed(web: StarletteAuth[User], request: Request) -> Response:
    """Return a streamed response."""
    await web.session(request)

    async def parts() -> AsyncIterator[bytes]:
        yield b"a"
        yield b"b"

    return StreamingResponse(parts())


async def failed(web: StarletteAuth[User], request: Request) -> Response:
    """Raise an error that the framework answers."""
    await web.session(request)
    raise HTTPException(418, headers={"x": "y"})


async def refused(web: StarletteAuth[User], request: Request) -> Response:
    """Raise an error that the library answers."""
    await web.session(request)
    raise RequestUnauthorized


async def crashed(web: StarletteAuth[User], request: Request) -> Response:
    """Raise an unexpected error."""
    await web.session(request)
    raise ZeroDivisionError


@pytest.mark.parametrize(
    ("view", "status"),
    [(returned, 200), (streamed, 200), (failed, 418), (refused, 403), (crashed, 500)],
)
def test_the_cookie_is_on_every_kind_of_response(
    web: StarletteAuth[User],
    auth: AsyncAuth[User],
    time: Time,
    view: Callable[[StarletteAuth[User], Request], Awaitable[Response]],
    status: int,
) -> None:
    """Every kind of response carries the cookie of a renewed session, even a 500."""

    async def endpoint(request: Request) -> Response:
        return await view(web, request)

    with TestClient(make_app(web, endpoint), raise_server_exceptions=False) as client:
        session_id = in_loop(client, log_in, auth)
        time.pass_hours(25)
        client.cookies.set(NAME, session_id)
        response = client.get("/")
        assert response.status_code == status
        texts = response.headers.get_list("set-cookie")
        assert [text.partition("=")[0] for text in texts] == (
            ["own", NAME] if view is returned else [NAME]
        )
        assert response.headers.get_list("cache-control") == ["no-store"]
        assert response.headers.get_list("vary") == ["Cookie"]
        assert session_id not in texts[-1]
        client.cookies.clear()
        client.cookies.set(NAME, texts[-1].partition(";")[0].partition("=")[2])
        assert client.get("/").headers.get_list("set-cookie") == (
            texts[:1] if view is returned else []
        )


async def test_a_404_carries_a_cookie_that_another_middleware_set(
    web: StarletteAuth[User], auth: AsyncAuth[User], time: Time
) -> None:
    """Every middleware of the application, whenever it was added, may ask for the session."""

    async def note(request: Request, call_next: RequestResponseEndpoint) -> Response:
        await web.optional_session(request)
        return await call_next(request)

    app = Starlette()
    app.add_middleware(BaseHTTPMiddleware, dispatch=note)
    web.install(app)
    app.add_middleware(BaseHTTPMiddleware, dispatch=note)
    session_id = await log_in(auth)
    time.pass_hours(25)
    answer = await get(app, session_id, path="/nowhere")
    assert answer.status == 404
    assert answer.cookie not in (None, "", session_id)


@pytest.mark.parametrize(
    ("how", "has_cookie"), [("installed", True), ("wrapped", True), ("added", False)]
)
async def test_add_middleware_leaves_the_answer_500_without_the_cookie(
    web: StarletteAuth[User], auth: AsyncAuth[User], time: Time, how: str, has_cookie: bool
) -> None:
    """Starlette's 500 comes from outside added middleware; only install or wrapping cover it."""

    async def endpoint(request: Request) -> Response:
        await web.session(request)
        raise ZeroDivisionError

    async def answer_500(request: Request, error: Exception) -> Response:
        return PlainTextResponse(type(error).__name__, 500)

    app = Starlette(routes=[Route("/", endpoint)], exception_handlers={500: answer_500})
    if how == "installed":
        web.install(app)
    elif how == "added":
        app.add_middleware(LuciaMiddleware, auth=auth)
    session_id = await log_in(auth)
    time.pass_hours(25)
    outermost = LuciaMiddleware(app, auth=auth) if how == "wrapped" else app
    client = TestClient(outermost, raise_server_exceptions=False, cookies={NAME: session_id})
    response = client.get("/")
    assert (response.status_code, response.text) == (500, "ZeroDivisionError")
    assert (NAME in response.headers.get("set-cookie", "")) is has_cookie


def test_a_background_task_neither_renews_nor_signs_in(
    web: StarletteAuth[User], auth: AsyncAuth[User], store: AsyncMemoryAdapter, time: Time
) -> None:
    """In a background task, an idle session stays idle, and sign_out still revokes it."""
    states: list[object] = []

    async def later(request: Request) -> None:
        session = await web.session(request)
        states.append(session.state)
        with pytest.raises(RuntimeError, match="has started"):
            await web.request(request).sign_in("bob")
        await web.request(request).sign_out()
        states.append(await web.optional_session(request))

    async def endpoint(request: Request) -> Response:
        return Response(background=BackgroundTask(later, request))

    with TestClient(make_app(web, endpoint), headers={"Origin": ORIGIN}) as client:
        client.cookies.set(NAME, in_loop(client, log_in, auth))
        time.pass_hours(25)
        response = client.post("/")
        assert "set-cookie" not in response.headers
        assert states == ["idle", None]
        assert (
            in_loop(client, store.get_sessions_by_user_id, "ann")
            == in_loop(client, store.get_sessions_by_user_id, "bob")
            == []
        )


def test_the_whole_way_in_a_test_client(web: StarletteAuth[User], auth: AsyncAuth[User]) -> None:
    """A test client logs in and out, and its jar has the cookies; also without a lifespan."""

    async def endpoint(request: Request) -> Response:
        match request.query_params.get("do"):
            case "in":
                await web.request(request).sign_in_with_key(
                    "username", "ann", "password", via="web"
                )
            case "out":
                await web.request(request).sign_out()
            case _:
                pass
        session = await web.optional_session(request)
        user = await web.optional_user(request)
        assert (session and session.user_id) == (user and user.user_id)
        return PlainTextResponse("known" if user else "visitor")

    async def sign_up() -> None:
        await auth.create_user(primary_key=PrimaryKey("username", "ann", "password"))

    app = make_app(web, endpoint)
    with TestClient(app, headers={"Origin": ORIGIN}) as client:
        in_loop(client, sign_up)
        _go_the_whole_way(client)
    _go_the_whole_way(TestClient(app, headers={"Origin": ORIGIN}))


def _go_the_whole_way(client: TestClient) -> None:
    assert client.get("/").text == "visitor"
    assert client.post("/?do=in").text == "known"
    assert client.get("/").text == "known"
    assert list(client.cookies.keys()) == [NAME]
    assert client.post("/?do=out").text == "visitor"
    assert list(client.cookies.keys()) == []
    assert client.get("/").text == "visitor"


def test_a_test_client_without_origin_is_a_foreign_page(web: StarletteAuth[User]) -> None:
    """A test client without an Origin gets 403 for a login."""

    async def endpoint(request: Request) -> Response:
        await web.request(request).sign_in("ann")
        return Response()

    client = TestClient(make_app(web, endpoint))
    assert client.post("/").status_code == 403
    assert client.post("/", headers={"Origin": ORIGIN}).status_code == 200


ANSWERS = [
    (NotAuthenticated(), 401, "Not logged in.", {"www-authenticate": "APIKey"}),
    (InvalidSessionId(), 401, "Not logged in.", {"www-authenticate": "APIKey"}),
    (InvalidPassword(), 401, "Wrong name or password.", {"www-authenticate": "APIKey"}),
    (OutdatedPassword(), 401, "Wrong name or password.", {"www-authenticate": "APIKey"}),
    (
        InvalidRequest("origin check failed: expected this, received that"),
        403,
        "This request comes from another site.",
        {},
    ),
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
def test_an_error_that_a_route_lets_pass_is_answered(
    web: StarletteAuth[User], error: LuciaError, status: int, detail: str, headers: dict[str, str]
) -> None:
    """The response tells only what a client may know, and never which credential was wrong."""
    response = TestClient(make_app(web, raising(error))).get("/")
    assert (response.status_code, response.json()) == (status, {"detail": detail})
    found = {
        name: value
        for name, value in response.headers.items()
        if name not in ("content-type", "content-length")
    }
    assert found == headers


def test_other_errors_of_the_library_are_the_applications_own(web: StarletteAuth[User]) -> None:
    """Errors that no client can do anything about are answered with 500."""
    for error in (StoreCorrupt(), DuplicateSessionId(), UsersNotConfigured()):
        client = TestClient(make_app(web, raising(error)), raise_server_exceptions=False)
        assert client.get("/").status_code == 500


@pytest.mark.parametrize("before", [True, False])
def test_the_applications_own_handlers_go_first(web: StarletteAuth[User], before: bool) -> None:
    """The application's handlers take precedence, added before or after the install."""

    async def answer(request: Request, error: Exception) -> Response:
        return PlainTextResponse("mine", 302)

    app = Starlette(
        routes=[Route("/", raising(NotAuthenticated()))],
        exception_handlers={NotAuthenticated: answer} if before else {},
    )
    web.install(app)
    if not before:
        app.add_exception_handler(NotAuthenticated, answer)
    response = TestClient(app, follow_redirects=False).get("/")
    assert (response.status_code, response.text) == (302, "mine")


def test_an_application_that_has_started_cannot_be_changed(web: StarletteAuth[User]) -> None:
    """Installing after the application has started is an error."""
    app = Starlette()
    TestClient(app).get("/")
    with pytest.raises(RuntimeError, match="before the application has started"):
        web.install(app)


def test_the_bearer_transport(auth: AsyncAuth[User]) -> None:
    """The id is read from the Authorization header, and the challenge names the scheme."""
    web = StarletteAuth(auth, transport="bearer")

    async def endpoint(request: Request) -> Response:
        return PlainTextResponse((await web.session(request)).user_id)

    with TestClient(make_app(web, endpoint)) as client:
        session_id = in_loop(client, log_in, auth)
        response = client.post("/", headers={"Authorization": f"Bearer {session_id}"})
        assert (response.text, "set-cookie" in response.headers) == ("ann", False)
        response = client.get("/", headers={"Cookie": f"{NAME}={session_id}"})
        assert (response.status_code, response.headers["www-authenticate"]) == (401, "Bearer")


def test_cross_site_requests_can_be_forbidden(auth: AsyncAuth[User]) -> None:
    """The option's 403 is sent before a route runs, and equals that of an ``InvalidRequest``."""
    headers = {"Origin": "https://evil.example"}
    web = StarletteAuth(auth, forbid_cross_site=True)
    early = TestClient(make_app(web, raising(ZeroDivisionError()))).post("/", headers=headers)
    late = TestClient(make_app(StarletteAuth(auth), raising(InvalidRequest()))).post(
        "/", headers=headers
    )
    assert early.status_code == late.status_code == 403
    assert early.json() == late.json()
    assert early.headers == late.headers


async def test_sessions_can_be_validated_ahead(auth: AsyncAuth[User], time: Time) -> None:
    """With the option, an idle session is renewed even if no route asks for it."""

    async def unasked(request: Request) -> Response:
        return PlainTextResponse("hello")

    session_id = await log_in(auth)
    time.pass_hours(25)
    for ahead in (False, True):
        app = Starlette(routes=[Route("/", unasked)])
        StarletteAuth(auth, validate_ahead=ahead).install(app)
        assert ((await get(app, session_id)).cookie is not None) is ahead


async def test_a_mounted_application_has_the_outer_ones_auth(
    web: StarletteAuth[User], auth: AsyncAuth[User], time: Time
) -> None:
    """Mounted routes find the AuthRequest, set its cookie, and have its errors answered."""

    async def known(request: Request) -> Response:
        return PlainTextResponse((await web.session(request)).user_id)

    app = Starlette(routes=[Mount("/outer", routes=[Mount("/inner", routes=[Route("/", known)])])])
    web.install(app)
    session_id = await log_in(auth)
    time.pass_hours(25)
    answer = await get(app, session_id, path="/outer/inner/")
    assert answer.body == b"ann"
    assert answer.cookie not in (None, "", session_id)
    assert (await get(app, path="/outer/inner/")).status == 401


@pytest.mark.parametrize("installed", ["outside", "inside", "both"])
async def test_a_mounted_starlette_application(
    web: StarletteAuth[User], auth: AsyncAuth[User], time: Time, installed: str
) -> None:
    """The auth can be installed outside a mounted application, inside it, or both."""

    async def known(request: Request) -> Response:
        return PlainTextResponse((await web.session(request)).user_id)

    inner = Starlette(routes=[Route("/", known)])
    outer = Starlette(routes=[Mount("/inner", inner)])
    for app, where in ((inner, "inside"), (outer, "outside")):
        if installed in (where, "both"):
            web.install(app)
    session_id = await log_in(auth)
    time.pass_hours(25)
    answer = await get(outer, session_id, path="/inner/")
    assert answer.body == b"ann"
    assert answer.cookie not in (None, "", session_id)


def test_the_lifespan_of_the_application_runs(web: StarletteAuth[User]) -> None:
    """The application's lifespan runs, and its state reaches the routes."""
    events: list[str] = []

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[dict[str, Any]]:
        events.append("up")
        yield {"x": "y"}
        events.append("down")

    async def endpoint(request: Request) -> Response:
        await web.optional_session(request)
        return PlainTextResponse(request.state.x)

    app = Starlette(routes=[Route("/", endpoint)], lifespan=lifespan)
    web.install(app)
    with TestClient(app) as client:
        assert client.get("/").text == "y"
    assert events == ["up", "down"]


@pytest.fixture
def socket_client(web: StarletteAuth[User], auth: AsyncAuth[User]) -> Iterator[TestClient]:
    """Return a client of an application with sockets that validate before or after the accept."""

    async def before(socket: WebSocket) -> None:
        user_id = (await web.session(socket)).user_id
        await socket.accept()
        await socket.send_text(user_id)
        await socket.close()

    async def after(socket: WebSocket) -> None:
        await socket.accept()
        await socket.send_text((await web.session(socket)).state)
        await socket.close()

    app = Starlette(routes=[WebSocketRoute("/before", before), WebSocketRoute("/after", after)])
    web.install(app)
    with TestClient(app, headers={"Origin": ORIGIN}) as client:
        yield client


def test_a_socket_knows_its_session(
    socket_client: TestClient, auth: AsyncAuth[User], time: Time
) -> None:
    """An idle session is renewed by the handshake, and not after it."""
    session_id = in_loop(socket_client, log_in, auth)
    time.pass_hours(25)
    socket_client.cookies.set(NAME, session_id)
    with socket_client.websocket_connect("/after") as socket:
        assert socket.receive_text() == "idle"
        assert socket.extra_headers == []
    with socket_client.websocket_connect("/before") as socket:
        assert socket.receive_text() == "ann"
        assert list(dict(socket.extra_headers or ())) == [b"cache-control", b"vary", b"set-cookie"]


def test_a_visitors_socket_is_rejected_or_closed(
    socket_client: TestClient, auth: AsyncAuth[User]
) -> None:
    """NotAuthenticated rejects a handshake, and closes an accepted socket, with code 1008."""
    with pytest.raises(WebSocketDisconnect) as caught, socket_client.websocket_connect("/before"):
        pass
    assert (caught.value.code, caught.value.reason) == (1008, "Not logged in.")
    assert not isinstance(caught.value, WebSocketDenialResponse)
    with (
        socket_client.websocket_connect("/after") as socket,
        pytest.raises(WebSocketDisconnect) as caught,
    ):
        socket.receive_text()
    assert (caught.value.code, caught.value.reason) == (1008, "Not logged in.")


@pytest.mark.parametrize(
    ("error", "detail"),
    [
        (Overloaded(), "Too many requests at once."),
        (StoreUnavailable(), "Sessions can't be reached."),
    ],
)
def test_a_socket_that_can_not_be_served_now_may_try_again(
    web: StarletteAuth[User], error: LuciaError, detail: str
) -> None:
    """Temporary errors reject a handshake with 503, and close an accepted socket with 1013."""

    async def before(socket: WebSocket) -> None:
        raise error

    async def after(socket: WebSocket) -> None:
        await socket.accept()
        raise error

    app = Starlette(routes=[WebSocketRoute("/before", before), WebSocketRoute("/after", after)])
    web.install(app)
    client = TestClient(app)
    with pytest.raises(WebSocketDenialResponse) as denied, client.websocket_connect("/before"):
        pass
    assert denied.value.status_code == 503
    with client.websocket_connect("/after") as socket, pytest.raises(WebSocketDisconnect) as caught:
        socket.receive_text()
    assert (caught.value.code, caught.value.reason) == (1013, f"{detail} Try again in a moment.")


def test_the_reason_of_a_close_fits_into_its_frame(web: StarletteAuth[User]) -> None:
    """A close reason is cut to what RFC 6455 allows, at a character boundary."""

    async def endpoint(socket: WebSocket) -> None:
        await socket.accept()
        raise InvalidInput("ä" * 100)

    app = Starlette(routes=[WebSocketRoute("/", endpoint)])
    web.install(app)
    with (
        TestClient(app).websocket_connect("/") as socket,
        pytest.raises(WebSocketDisconnect) as caught,
    ):
        socket.receive_text()
    assert (caught.value.code, caught.value.reason) == (1008, "ä" * 61)


def test_a_foreign_pages_socket_is_a_visitors(
    socket_client: TestClient, auth: AsyncAuth[User]
) -> None:
    """The cookie of a foreign page's handshake does not count."""
    socket_client.cookies.set(NAME, in_loop(socket_client, log_in, auth))
    foreign = {"Origin": "https://evil.example"}
    with (
        pytest.raises(WebSocketDisconnect),
        socket_client.websocket_connect("/before", headers=foreign),
    ):
        pass


async def test_the_user_of_a_session_may_be_gone(
    web: StarletteAuth[User], auth: AsyncAuth[User]
) -> None:
    """A session without a user is valid, but routes that need the user get 401."""
    session_id = await log_in(auth, "nobody")

    async def optional(request: Request) -> Response:
        assert (await web.session(request)).user_id == "nobody"
        return PlainTextResponse(str(await web.optional_user(request)))

    async def both(request: Request) -> Response:
        await web.session_user(request)
        pytest.fail("the session has no user")

    async def user(request: Request) -> Response:
        await web.user(request)
        pytest.fail("the session has no user")

    assert (await get(make_app(web, optional), session_id)).body == b"None"
    assert (await get(make_app(web, both), session_id)).status == 401
    assert (await post(make_app(web, user), session_id)).status == 401


async def test_a_user_is_given_with_the_session(
    web: StarletteAuth[User], auth: AsyncAuth[User]
) -> None:
    """session_user returns both, user the user alone, whichever is asked for first."""
    user = await auth.create_user(primary_key=None)
    session_id = await log_in(auth, user.user_id)

    async def endpoint(request: Request) -> Response:
        both = await web.session_user(request)
        assert both == (await web.session(request), await web.user(request))
        assert both.user is await web.optional_user(request)
        return PlainTextResponse(both.user.user_id)

    assert (await get(make_app(web, endpoint), session_id)).body.decode() == user.user_id


@pytest.mark.parametrize(
    ("accept", "status", "location"),
    [
        ("text/html", 303, "/login?next=/private%3Fa%3D1"),
        ("application/json", 401, None),
        (None, 401, None),
    ],
)
def test_a_visitor_of_a_page_is_sent_to_the_login_page(
    auth: AsyncAuth[User], accept: str | None, status: int, location: str | None
) -> None:
    """A browser is sent to the login page, which leads back; other clients get 401."""
    web = StarletteAuth(auth, login_url="/login")

    async def private(request: Request) -> Response:
        return PlainTextResponse((await web.session(request)).user_id)

    app = Starlette(
        routes=[Route("/private", private, methods=["GET", "POST"]), Route("/login", private)]
    )
    web.install(app)
    client = TestClient(app, follow_redirects=False, headers={"Origin": ORIGIN})
    headers = {} if accept is None else {"Accept": accept}
    response = client.get("/private?a=1", headers=headers)
    assert (response.status_code, response.headers.get("location")) == (status, location)
    assert client.post("/private", headers=headers).headers.get("location") == (
        location and "/login"
    )
    assert client.get("/login", headers=headers).status_code == 401  # no redirect to itself


@pytest.mark.parametrize(
    ("sent", "location"),
    [
        ("/caf%C3%A9", "/login?next=/caf%25C3%25A9"),
        ("/a%20b?c=%20", "/login?next=/a%2520b%3Fc%3D%2520"),
        ("/100%25", "/login?next=/100%2525"),
        ("/a%3Fb%23c", "/login?next=/a%253Fb%2523c"),
    ],
)
@pytest.mark.parametrize("root_path", ["", "/api", "/caf"])
def test_the_path_that_a_visitor_wanted(
    auth: AsyncAuth[User], sent: str, location: str, root_path: str
) -> None:
    """The way back is the path as it was sent, below the path of the application."""
    web = StarletteAuth(auth, login_url="/login")

    async def private(request: Request) -> None:
        await web.session(request)

    app = Starlette(routes=[Route("/{path:path}", private)])
    web.install(app)
    client = TestClient(
        app, root_path=root_path, follow_redirects=False, headers={"Accept": "text/html"}
    )
    expected = root_path + location.replace("next=", f"next={root_path}")
    assert client.get(root_path + sent).headers["location"] == expected


def test_a_router_is_no_application(web: StarletteAuth[User]) -> None:
    """Installing in a router is an error that says what is needed."""
    router: Any = Router()
    with pytest.raises(TypeError, match="install needs the application, not Router"):
        web.install(router)


def test_the_applications_handler_for_all_errors(
    web: StarletteAuth[User], auth: AsyncAuth[User]
) -> None:
    """An own handler for ``LuciaError`` takes precedence, before and after install."""

    async def own(request: Request, error: Exception) -> Response:
        return PlainTextResponse(type(error).__name__, 418)

    async def endpoint(request: Request) -> None:
        await web.session(request)

    for is_first in (True, False):
        app = Starlette(routes=[Route("/", endpoint)])
        if is_first:
            app.add_exception_handler(LuciaError, own)
        web.install(app)
        if not is_first:
            app.add_exception_handler(LuciaError, own)
        assert TestClient(app).get("/").text == "NotAuthenticated"


async def test_a_value_that_is_not_awaited(web: StarletteAuth[User]) -> None:
    """Testing ``optional_session`` or ``optional_user`` without ``await`` is a TypeError."""
    connection = Request({"type": "http", "headers": [], "method": "GET", "path": "/"})
    for ask in (web.optional_session, web.optional_user):
        with pytest.raises(TypeError, match=f"write 'await {ask.__name__}"):
            bool(ask(connection))


def test_a_login_url_that_is_none(auth: AsyncAuth[User]) -> None:
    """A login page that is no URL is refused at once."""
    with pytest.raises(ValueError, match="login_url must be a path"):
        StarletteAuth(auth, login_url="login")
