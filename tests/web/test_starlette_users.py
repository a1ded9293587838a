"""Starlette's AuthenticationMiddleware: ``request.user``, ``request.auth`` and ``@requires``."""

from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.authentication import requires
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient, WebSocketDenialResponse
from starlette.websockets import WebSocket, WebSocketDisconnect

from lucia import AsyncAuth, PrimaryKey, StoreUnavailable, User
from lucia.adapters.memory import AsyncMemoryAdapter
from lucia.middleware.starlette import LuciaUser, StarletteAuth
from lucia.testing import login
from tests.web.driver import NAME, Time, set_cookies_of


async def who(request: Request) -> Response:
    """Show what Starlette knows of the user."""
    user: Any = request.user
    return JSONResponse([user.is_authenticated, user.display_name, sorted(request.auth.scopes)])


@requires("authenticated")
async def private(request: Request) -> Response:
    """Show the user to people who are logged in."""
    user = request.user
    assert isinstance(user, LuciaUser)
    return JSONResponse([user.identity, user.session.user_id, user.user and user.user.user_id])


@requires("admin")
async def admin(request: Request) -> Response:
    """Respond to admins."""
    return JSONResponse([])


@requires("authenticated", redirect="who")
async def page(request: Request) -> Response:
    """Respond to people who are logged in, and send others elsewhere."""
    return JSONResponse([])


async def chat(websocket: WebSocket) -> None:
    """Say who is there."""
    await websocket.accept()
    await websocket.send_text(websocket.user.display_name)
    await websocket.close()


def make_app(web: StarletteAuth[User], **options: Any) -> Starlette:
    """Return an application with both middlewares."""
    app = Starlette(
        routes=[
            Route("/who", who),
            Route("/private", private),
            Route("/admin", admin),
            Route("/page", page),
            WebSocketRoute("/chat", requires("authenticated")(chat)),
        ],
        middleware=[web.authentication_middleware(**options)],
    )
    web.install(app)
    return app


def scopes(user: User) -> list[str]:
    """Return what a user may do."""
    return ["admin"] if user.user_id == "boss" else []


@pytest.fixture
def web(auth: AsyncAuth[User]) -> StarletteAuth[User]:
    """Return the application's StarletteAuth."""
    return StarletteAuth(auth)


async def sign_up(auth: AsyncAuth[User], name: str) -> str:
    """Store a user, and return the id."""
    user = await auth.create_user(primary_key=PrimaryKey("username", name, None))
    return user.user_id


def test_a_visitor(web: StarletteAuth[User]) -> None:
    """A visitor is Starlette's own unauthenticated user."""
    with TestClient(make_app(web), follow_redirects=False) as client:
        assert client.get("/who").json() == [False, "", []]
        assert client.get("/private").status_code == 403
        assert client.get("/page").headers["location"].startswith("http://testserver/who?next=")
        with pytest.raises(WebSocketDisconnect), client.websocket_connect("/chat"):
            pass


def test_a_user(web: StarletteAuth[User], auth: AsyncAuth[User], time: Time) -> None:
    """A user is known to routes, WebSockets and decorators, and an idle session is renewed."""
    with TestClient(make_app(web)) as client:
        assert client.portal is not None
        user_id = client.portal.call(sign_up, auth, "anna")
        login(client, auth, user_id)
        assert client.get("/who").json() == [True, user_id, ["authenticated"]]
        assert client.get("/private").json() == [user_id, user_id, user_id]
        assert client.get("/admin").status_code == 403
        with client.websocket_connect("/chat") as socket:
            assert socket.receive_text() == user_id
        time.pass_hours(25)
        before = client.cookies[NAME]
        assert len(set_cookies_of(client.get("/who"))) == 1
        assert client.cookies[NAME] != before


def test_scopes(store: AsyncMemoryAdapter, time: Time) -> None:
    """The application says what a user may do besides."""
    auth: AsyncAuth[User] = AsyncAuth(
        users=store, sessions=store, env="DEV", clock=time, generate_custom_user_id=lambda: "boss"
    )
    with TestClient(make_app(StarletteAuth(auth), scopes=scopes)) as client:
        assert client.portal is not None
        login(client, auth, client.portal.call(sign_up, auth, "boss"))
        assert client.get("/admin").status_code == 200


def test_without_users(time: Time) -> None:
    """Without a user adapter there are the session and the user's id."""
    auth: AsyncAuth[User] = AsyncAuth(sessions=AsyncMemoryAdapter(clock=time), env="DEV")
    with TestClient(make_app(StarletteAuth(auth))) as client:
        assert client.get("/who").json() == [False, "", []]
        login(client, auth, "anna")
        assert client.get("/private").json() == ["anna", "anna", None]


def test_an_outage(
    web: StarletteAuth[User],
    auth: AsyncAuth[User],
    store: AsyncMemoryAdapter,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A store that can't be reached is 503, logs nobody out, and refuses WebSockets."""

    async def down(*arguments: object) -> None:
        raise StoreUnavailable

    with TestClient(make_app(web)) as client:
        login(client, auth, "anna")
        monkeypatch.setattr(store, "get_session_and_user_by_session_id", down)
        response = client.get("/who")
        assert (response.status_code, response.headers["retry-after"]) == (503, "1")
        assert set_cookies_of(response) == []
        with pytest.raises(WebSocketDenialResponse) as refused, client.websocket_connect("/chat"):
            pass
        assert refused.value.status_code == 503


def test_scopes_without_users(time: Time) -> None:
    """Scopes are those of a user, so that a user adapter is needed."""
    auth: AsyncAuth[User] = AsyncAuth(sessions=AsyncMemoryAdapter(clock=time), env="DEV")
    with pytest.raises(TypeError, match="scopes= needs users"):
        StarletteAuth(auth).authentication_middleware(scopes=scopes)


def test_the_way_back_of_requires(web: StarletteAuth[User], auth: AsyncAuth[User]) -> None:
    """``@requires`` names the absolute URL of the page, to which the ready login leads back."""

    @requires("authenticated", redirect="log_in_page")
    async def own(request: Request) -> Response:
        return JSONResponse([request.user.identity])

    app = Starlette(
        routes=[Route("/own", own), *web.routes(prefix="/auth")],
        middleware=[web.authentication_middleware()],
    )
    web.install(app)
    form = {"username": "anna", "password": "correct horse"}
    headers = {"Origin": "http://testserver", "Accept": "text/html"}
    with TestClient(app, headers=headers, follow_redirects=False) as client:
        login_page = client.get("/own?a=b").headers["location"]
        assert login_page.startswith("http://testserver/auth/login?next=http")
        signed_up = client.post("/auth/signup", data=form)
        assert signed_up.headers["location"] == "/"
        client.cookies.clear()
        assert client.post(login_page, data=form).headers["location"] == "/own?a=b"
