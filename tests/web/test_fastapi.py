"""FastAPI applications: the dependencies, their OpenAPI document, and differences to Starlette."""

from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from typing import Annotated, Any

import pytest
from fastapi import (
    APIRouter,
    BackgroundTasks,
    Depends,
    FastAPI,
    HTTPException,
    Request,
    Response,
    WebSocket,
)
from fastapi.responses import JSONResponse, StreamingResponse
from fastapi.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from lucia import (
    AsyncAuth,
    AsyncAuthRequest,
    Auth,
    InvalidSessionId,
    NotAuthenticated,
    Overloaded,
    PrimaryKey,
    Session,
    SessionCookie,
    SessionUser,
    User,
    UsersNotConfigured,
)
from lucia.adapters.memory import AsyncMemoryAdapter, MemoryAdapter
from lucia.middleware.fastapi import FastAPIAuth
from lucia.middleware.starlette import StarletteAuth
from tests.web.driver import NAME, ORIGIN, Time, get, in_loop, log_in, user_of


def make_app(web: FastAPIAuth[User], auth: AsyncAuth[User]) -> FastAPI:
    """Return an application that uses each dependency, in routes and in a WebSocket."""
    app = FastAPI()
    web.install(app)
    api = APIRouter()

    @api.post("/signup")
    async def signup(
        request: Annotated[AsyncAuthRequest[User], Depends(web.request)], name: str, password: str
    ) -> str:
        user = await auth.create_user(primary_key=PrimaryKey("username", name, password))
        await request.sign_in(user.user_id)
        return user.user_id

    @api.post("/login")
    async def login(
        request: Annotated[AsyncAuthRequest[User], Depends(web.request)], name: str, password: str
    ) -> str:
        return (await request.sign_in_with_key("username", name, password, via="web")).user_id

    @api.post("/logout")
    async def logout(request: Annotated[AsyncAuthRequest[User], Depends(web.request)]) -> None:
        await request.sign_out()

    @api.get("/session")
    async def session(session: Annotated[Session, Depends(web.session)]) -> str:
        return session.user_id

    @api.get("/user")
    async def user(user: Annotated[User, Depends(web.user)]) -> str:
        return user.user_id

    @api.get("/both")
    async def both(both: Annotated[SessionUser[User], Depends(web.session_user)]) -> list[str]:
        return [both.session.user_id, both.user.user_id]

    @api.get("/optional")
    async def optional(
        session: Annotated[Session | None, Depends(web.optional_session)],
        user: Annotated[User | None, Depends(web.optional_user)],
    ) -> list[str | None]:
        return [user_of(session), user.user_id if user else None]

    @api.get("/own-401", responses={401: {"description": "Mine."}})
    async def own_401(user: Annotated[User, Depends(web.user)]) -> None: ...

    @api.websocket("/socket")
    async def socket(socket: WebSocket, user: Annotated[User, Depends(web.user)]) -> None:
        await socket.accept()
        await socket.send_text(user.user_id)
        await socket.close()

    app.include_router(api)
    return app


@pytest.fixture
def web(auth: AsyncAuth[User]) -> FastAPIAuth[User]:
    """Return the application's FastAPIAuth."""
    return FastAPIAuth(auth)


@pytest.fixture
def client(web: FastAPIAuth[User], auth: AsyncAuth[User]) -> Iterator[TestClient]:
    """Return a client that sends the application's own Origin, as a browser would."""
    with TestClient(make_app(web, auth), headers={"Origin": ORIGIN}) as client:
        yield client


ANN = {"name": "ann", "password": "correct horse"}
NEEDS_LOGIN = ["/session", "/user", "/both"]


def test_each_dependency_gives_what_it_names(client: TestClient) -> None:
    """Every route knows a logged-in user; without one it fails, and the optional ones get None."""
    user_id = client.post("/signup", params=ANN).json()
    for _ in range(2):
        assert [client.get(path).json() for path in NEEDS_LOGIN] == [
            user_id,
            user_id,
            [user_id, user_id],
        ]
        assert client.get("/optional").json() == [user_id, user_id]
        with client.websocket_connect("/socket") as socket:
            assert socket.receive_text() == user_id
        assert client.post("/logout").status_code == 200
        assert client.cookies.get(NAME) is None
        assert [client.get(path).status_code for path in NEEDS_LOGIN] == [401, 401, 401]
        assert client.get("/optional").json() == [None, None]
        with pytest.raises(WebSocketDisconnect) as caught, client.websocket_connect("/socket"):
            pass
        assert caught.value.code == 1008
        assert client.post("/login", params=ANN).json() == user_id


async def test_sessions_can_be_validated_ahead(auth: AsyncAuth[User], time: Time) -> None:
    """With the option, an idle session is renewed even if no dependency asks for it."""
    session_id = await log_in(auth)
    web = FastAPIAuth(auth, validate_ahead=True)
    app = make_app(web, auth)
    assert (await get(app, session_id, path="/session")).body == b'"ann"'
    time.pass_hours(25)
    assert (await get(app, session_id, path="/openapi.json")).cookie not in (None, "", session_id)


def test_visitor_gets_401(client: TestClient) -> None:
    """A visitor gets 401 with FastAPI's challenge for a cookie, and no Set-Cookie."""
    response = client.get("/user")
    assert (response.status_code, response.json()) == (401, {"detail": "Not logged in."})
    assert response.headers["www-authenticate"] == "APIKey"
    assert "set-cookie" not in response.headers


def test_a_failed_login_tells_nothing(client: TestClient) -> None:
    """A wrong password and an unknown name get the same response and change no login."""
    client.post("/signup", params=ANN)
    cookie = client.cookies[NAME]
    answers = [
        client.post("/login", params={**ANN, **wrong})
        for wrong in ({"password": "x"}, {"name": "bob"})
    ]
    assert [(answer.status_code, answer.json()) for answer in answers] == [
        (401, {"detail": "Wrong name or password."})
    ] * 2
    assert not any("set-cookie" in answer.headers for answer in answers)
    assert client.cookies[NAME] == cookie


def test_a_login_ends_the_session_before_it(client: TestClient, auth: AsyncAuth[User]) -> None:
    """A login makes a new session id, and revokes the session of its request."""
    user_id = client.post("/signup", params=ANN).json()
    before = client.cookies[NAME]
    client.post("/login", params=ANN)
    after = client.cookies[NAME]
    assert after != before
    assert [device.metadata for device in in_loop(client, auth.get_all_user_sessions, user_id)] == [
        {"via": "web"}
    ]
    client.cookies.clear()
    client.cookies.set(NAME, before)
    assert client.get("/user").status_code == 401


def test_a_foreign_page_can_neither_log_in_nor_out(client: TestClient) -> None:
    """A foreign page gets 403 without Set-Cookie, and the user stays logged in."""
    client.post("/signup", params=ANN)
    cookie = client.cookies[NAME]
    foreign = {"Origin": "https://evil.example"}
    answers = [
        client.post("/logout", headers=foreign),
        client.post("/login", params=ANN, headers=foreign),
    ]
    assert [answer.status_code for answer in answers] == [403, 403]
    assert not any("set-cookie" in answer.headers for answer in answers)
    assert client.get("/user").status_code == 200
    assert client.cookies[NAME] == cookie


def test_the_document_names_the_cookie_and_the_401(client: TestClient) -> None:
    """Exactly the routes that need a login document a 401; a route's own 401 stays."""
    for _ in range(2):
        document = client.get("/openapi.json").json()
        assert document["components"]["securitySchemes"] == {
            "session": {
                "type": "apiKey",
                "in": "cookie",
                "name": NAME,
                "description": "The session cookie.",
            }
        }
        operations = {
            path: operation
            for path, item in document["paths"].items()
            for operation in item.values()
        }
        secured = {
            path
            for path, operation in operations.items()
            if operation.get("security") == [{"session": []}]
        }
        assert secured == {*NEEDS_LOGIN, "/own-401"}
        described = {
            path: each["responses"]["401"]["description"]
            for path, each in operations.items()
            if "401" in each["responses"]
        }
        assert described == {**dict.fromkeys(NEEDS_LOGIN, "Not logged in."), "/own-401": "Mine."}


def test_the_document_names_the_bearer_scheme(auth: AsyncAuth[User]) -> None:
    """The document tells other clients than browsers how to send the session id."""
    document = make_app(FastAPIAuth(auth, transport="bearer", scheme_name="token"), auth).openapi()
    assert document["components"]["securitySchemes"] == {
        "token": {"type": "http", "scheme": "bearer", "description": "The session id."}
    }
    assert document["paths"]["/user"]["get"]["security"] == [{"token": []}]
    assert "401" in document["paths"]["/user"]["get"]["responses"]


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"paths": {}},
        {
            "paths": {
                "/": {
                    "summary": "x",
                    "parameters": [{"security": [{"session": []}]}],
                    "servers": [],
                }
            }
        },
        {"paths": {"/": {"get": {"responses": {}}, "post": {"security": [{}, {"other": []}]}}}},
    ],
)
def test_a_document_of_an_applications_own_is_left_alone_where_no_session_is_needed(
    web: FastAPIAuth[User], document: dict[str, Any]
) -> None:
    """A document is unchanged where operations need no session, whatever else its paths have."""
    before = repr(document)
    assert repr(web._documented(document)) == before


def test_a_document_of_an_applications_own_gets_the_401(web: FastAPIAuth[User]) -> None:
    """The 401 is added without other responses, and if the session is one of several schemes."""
    document: dict[str, Any] = {
        "paths": {
            "/": {
                "get": {"security": [{"session": []}]},
                "put": {"security": [{"key": []}, {"session": []}]},
                "post": {"security": [{"key": [], "session": []}]},
            }
        }
    }
    described = {"responses": {"401": {"description": "Not logged in."}}}
    paths = web._documented(document)["paths"]
    assert all(operation.items() >= described.items() for operation in paths["/"].values())


def test_two_auths_on_one_application(web: FastAPIAuth[User], time: Time) -> None:
    """Customers and staff each have a cookie, and a scheme in the document."""
    store = AsyncMemoryAdapter(clock=time)
    staff_auth = AsyncAuth(
        users=store,
        sessions=store,
        env="DEV",
        clock=time,
        session_cookie=SessionCookie(name="staff"),
    )
    staff = FastAPIAuth(staff_auth, scheme_name="staff")
    app = FastAPI()
    web.install(app)
    staff.install(app)

    @app.post("/in")
    async def sign_in(
        one: Annotated[AsyncAuthRequest[User], Depends(web.request)],
        other: Annotated[AsyncAuthRequest[User], Depends(staff.request)],
    ) -> None:
        await one.sign_in("ann")
        await other.sign_in("boss")

    @app.get("/who")
    async def who(
        one: Annotated[Session, Depends(web.session)],
        other: Annotated[Session, Depends(staff.session)],
    ) -> list[str]:
        return [one.user_id, other.user_id]

    with TestClient(app, headers={"Origin": ORIGIN}) as client:
        assert client.get("/who").status_code == 401
        client.post("/in")
        assert sorted(client.cookies.keys()) == [NAME, "staff"]
        assert client.get("/who").json() == ["ann", "boss"]
        document = client.get("/openapi.json").json()
        assert sorted(document["components"]["securitySchemes"]) == ["session", "staff"]
        assert list(document["paths"]["/who"]["get"]["responses"]) == ["200", "401"]


def test_the_applications_own_handlers_go_first(
    web: FastAPIAuth[User], auth: AsyncAuth[User]
) -> None:
    """An exception handler that the application adds after the install takes precedence."""
    app = make_app(web, auth)

    @app.exception_handler(NotAuthenticated)
    async def to_login(request: Request, error: NotAuthenticated) -> JSONResponse:
        return JSONResponse({"go": "/login"}, 303)

    response = TestClient(app, follow_redirects=False).get("/user")
    assert (response.status_code, response.json()) == (303, {"go": "/login"})


def test_too_many_logins_are_asked_to_wait(web: FastAPIAuth[User]) -> None:
    """Overloaded is answered with 503 and Retry-After in seconds."""
    app = FastAPI()
    web.install(app)

    @app.get("/")
    async def overloaded() -> None:
        raise Overloaded

    response = TestClient(app).get("/")
    assert (response.status_code, response.headers["retry-after"]) == (503, "1")


async def test_the_cookie_is_on_every_kind_of_response(
    web: FastAPIAuth[User], auth: AsyncAuth[User], time: Time
) -> None:
    """The cookie is set on every kind of response.

    These are returned values and responses, the injected response, streams, errors, and
    dependencies with yield that fail or set headers.
    """
    app = FastAPI()
    web.install(app)
    known = Depends(web.session)

    async def cleanup(response: Response, session: Annotated[Session, known]) -> AsyncIterator[str]:
        response.headers["x-dependency"] = session.user_id
        yield session.user_id

    async def failing(session: Annotated[Session, known]) -> AsyncIterator[str]:
        try:
            yield session.user_id
        except ZeroDivisionError:
            raise HTTPException(418) from None

    @app.get("/value", dependencies=[known])
    async def value() -> dict[str, int]:
        return {"a": 1}

    @app.get("/injected", dependencies=[known])
    async def injected(response: Response) -> None:
        response.set_cookie("own", "1")
        response.headers["Cache-Control"] = "public"

    @app.get("/response", dependencies=[known])
    async def response() -> Response:
        return Response(status_code=204)

    @app.get("/stream", dependencies=[known])
    async def stream() -> StreamingResponse:
        return StreamingResponse(iter(["a", "b"]))

    @app.get("/error", dependencies=[known])
    async def error() -> None:
        raise HTTPException(409)

    @app.get("/invalid", dependencies=[known])
    async def invalid(number: int) -> None: ...

    @app.get("/cleanup")
    async def with_cleanup(user_id: Annotated[str, Depends(cleanup)]) -> str:
        return user_id

    @app.get("/failing")
    async def with_failing(user_id: Annotated[str, Depends(failing)]) -> None:
        raise ZeroDivisionError

    statuses = {
        "/value": 200,
        "/injected": 200,
        "/response": 204,
        "/stream": 200,
        "/error": 409,
        "/invalid": 422,
        "/cleanup": 200,
        "/failing": 418,
    }
    for path, status in statuses.items():
        session_id = await log_in(auth)
        time.pass_hours(25)
        answer = await get(app, session_id, path=path)
        assert (path, answer.status) == (path, status)
        assert answer.cookie not in (None, "", session_id)
        assert answer.all("cache-control") == ["no-store"]
        assert [text.partition("=")[0] for text in answer.all("set-cookie")] == (
            ["own", NAME] if path == "/injected" else [NAME]
        )


def test_a_background_task_finds_the_session_and_leaves_it(
    web: FastAPIAuth[User], auth: AsyncAuth[User], time: Time
) -> None:
    """A background task, which runs after the response, does not renew an idle session."""
    app = FastAPI()
    web.install(app)
    found: list[str] = []

    async def later(request: AsyncAuthRequest[User]) -> None:
        session = await request.validate()
        found.append(session.state if session else "none")

    @app.get("/later")
    async def start(
        request: Annotated[AsyncAuthRequest[User], Depends(web.request)], tasks: BackgroundTasks
    ) -> None:
        tasks.add_task(later, request)

    @app.get("/now", dependencies=[Depends(web.session)])
    async def now() -> None: ...

    with TestClient(app) as client:
        client.cookies.set(NAME, in_loop(client, log_in, auth))
        time.pass_hours(25)
        assert "set-cookie" not in client.get("/later").headers
        assert found == ["idle"]
        assert "set-cookie" in client.get("/now").headers


@pytest.mark.parametrize("installed", ["outside", "both"])
def test_a_mounted_application(
    web: FastAPIAuth[User], auth: AsyncAuth[User], installed: str
) -> None:
    """A mounted application has the outer one's auth, but needs its own install for a 401."""
    inner = make_app(web, auth) if installed == "both" else FastAPI()
    outer = FastAPI()
    web.install(outer)
    outer.mount("/inner", inner)

    @inner.get("/who")
    async def who(session: Annotated[Session, Depends(web.session)]) -> str:
        return session.user_id

    with TestClient(outer, raise_server_exceptions=False) as client:
        session_id = in_loop(client, log_in, auth)
        assert client.get("/inner/who", headers={"Cookie": f"{NAME}={session_id}"}).json() == "ann"
        if installed == "both":
            assert client.get("/inner/who").status_code == 401
            assert (
                "401"
                in client.get("/inner/openapi.json").json()["paths"]["/who"]["get"]["responses"]
            )
        else:
            assert client.get("/inner/who").status_code == 500


def test_cross_site_requests_can_be_forbidden(auth: AsyncAuth[User]) -> None:
    """With the option, cross-site requests get 403 before a route runs; sockets are rejected."""
    client = TestClient(
        make_app(FastAPIAuth(auth, forbid_cross_site=True), auth),
        headers={"Origin": "https://evil.example"},
    )
    assert client.post("/logout").status_code == 403
    assert client.get("/optional").status_code == 200
    with pytest.raises(WebSocketDisconnect) as caught, client.websocket_connect("/socket"):
        pass
    assert (caught.value.code, caught.value.reason) == (
        1008,
        "This request comes from another site.",
    )


def test_a_socket_outlives_a_renewal_and_not_its_login(
    web: FastAPIAuth[User], auth: AsyncAuth[User], time: Time
) -> None:
    """A socket that checks its login by the handle survives a renewal, but not a revocation."""
    app = FastAPI()
    web.install(app)

    @app.websocket("/ws")
    async def follow(socket: WebSocket, session: Annotated[Session, Depends(web.session)]) -> None:
        await socket.accept()
        with suppress(InvalidSessionId):
            while await socket.receive_text():
                await auth.get_user_session(session.user_id, session.handle)
                await socket.send_text("open")
        await socket.close(code=1008)

    with TestClient(app, headers={"Origin": ORIGIN}) as client:
        session_id = in_loop(client, log_in, auth)
        client.cookies.set(NAME, session_id)
        with client.websocket_connect("/ws") as socket:
            socket.send_text("?")
            assert socket.receive_text() == "open"
            renewed = in_loop(client, auth.renew_session, session_id)
            time.pass_hours(1)
            with pytest.raises(InvalidSessionId):
                in_loop(client, auth.get_session, session_id)
            socket.send_text("?")
            assert socket.receive_text() == "open"
            assert in_loop(client, auth.invalidate_user_session, renewed.user_id, renewed.handle)
            socket.send_text("?")
            with pytest.raises(WebSocketDisconnect) as caught:
                socket.receive_text()
        assert caught.value.code == 1008


@pytest.mark.parametrize(
    "name", ["request", "session", "user", "session_user", "optional_session", "optional_user"]
)
def test_a_dependency_that_is_called_is_refused(web: FastAPIAuth[User], name: str) -> None:
    """Calling a dependency in `Depends(...)` is a TypeError that says to drop the parentheses."""
    dependency: Any = getattr(web, name)
    with pytest.raises(
        TypeError,
        match=r"\Aname the dependency without calling it, as in Depends\(web.user\): "
        r".* missing 1 required",
    ):
        Depends(dependency())


@pytest.mark.parametrize("name", ["user", "optional_user"])
def test_a_dependency_without_depends_is_refused(web: FastAPIAuth[User], name: str) -> None:
    """Without Depends the client would say who it is: that is an error where the route is made."""

    async def endpoint(user: Any) -> None: ...

    endpoint.__annotations__["user"] = Annotated[User, getattr(web, name)]
    with pytest.raises(TypeError, match=r"as in Annotated\[User, Depends\(web.user\)\]"):
        FastAPI().post("/")(endpoint)


@pytest.mark.parametrize("view", [FastAPIAuth, StarletteAuth])
def test_a_sync_auth_is_refused(view: Any) -> None:
    """Creating a FastAPIAuth or StarletteAuth with a sync auth is a TypeError."""
    with pytest.raises(TypeError, match="auth must be an AsyncAuth, not Auth"):
        view(Auth(sessions=MemoryAdapter(), env="DEV"))


def test_a_missing_user_adapter_is_said_at_the_first_request(time: Time) -> None:
    """A route that needs a user fails even for a visitor if there is no user adapter.

    A developer who is not logged in sees what is missing.
    """
    web = FastAPIAuth(AsyncAuth(sessions=AsyncMemoryAdapter(clock=time), env="DEV", clock=time))
    app = FastAPI()
    web.install(app)

    @app.get("/")
    async def who(user: Annotated[User, Depends(web.user)]) -> str:
        return user.user_id

    with pytest.raises(UsersNotConfigured, match="users="):
        TestClient(app).get("/")


def test_a_forgotten_install_is_said(web: FastAPIAuth[User]) -> None:
    """Using a dependency without the middleware raises an error that says what is missing."""
    app = FastAPI()

    @app.get("/")
    async def who(session: Annotated[Session, Depends(web.session)]) -> None: ...

    with pytest.raises(RuntimeError, match=r"not installed .*: add web.install\(app\)"):
        TestClient(app).get("/")
