"""End-to-end tests: a real uvicorn, real clients, and a real Redis."""

import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from datetime import timedelta
from threading import Thread
from time import sleep
from typing import Annotated

import httpx
import pytest
import uvicorn
from fastapi import Depends, FastAPI, Form, Request, WebSocket
from fastapi.responses import StreamingResponse
from redis.asyncio import Redis
from websockets.exceptions import ConnectionClosedError, InvalidStatus
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Origin

from lucia import (
    AsyncAuth,
    AsyncAuthRequest,
    PrimaryKey,
    RequestUnauthorized,
    ScryptHash,
    Session,
    User,
)
from lucia.adapters.memory import AsyncMemoryAdapter
from lucia.adapters.redis import AsyncRedisSessionAdapter
from lucia.middleware.fastapi import FastAPIAuth
from tests.web.driver import NAME, Time
from tools.servers import Server

Text = Annotated[str, Form()]


def make_app(redis_url: str, store: AsyncMemoryAdapter, time: Time) -> FastAPI:
    """Return an application like the README's, with sign-up, login, logout and a device list."""
    redis = Redis.from_url(redis_url, protocol=2)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with redis, auth:
            await redis.flushall()
            yield

    auth = AsyncAuth(
        users=store,
        sessions=AsyncRedisSessionAdapter(redis),
        env="DEV",
        clock=time,
        hash=ScryptHash(ln=4, r=1, p=1),
    )
    web = FastAPIAuth(auth)
    app = FastAPI(lifespan=lifespan)
    web.install(app)
    add_routes(app, auth, web)
    add_sockets(app, web)
    return app


def add_routes(app: FastAPI, auth: AsyncAuth[User], web: FastAPIAuth[User]) -> None:
    """Add the HTTP routes."""

    @app.post("/signup")
    async def signup(
        request: Annotated[AsyncAuthRequest[User], Depends(web.request)], name: Text, password: Text
    ) -> None:
        user = await auth.create_user(primary_key=PrimaryKey("username", name, password))
        await request.sign_in(user.user_id)

    @app.post("/login")
    async def login(
        request: Annotated[AsyncAuthRequest[User], Depends(web.request)],
        name: Text,
        password: Text,
        via: Text,
    ) -> None:
        await request.sign_in_with_key("username", name, password, via=via)

    @app.post("/logout")
    async def logout(request: Annotated[AsyncAuthRequest[User], Depends(web.request)]) -> None:
        await request.sign_out()

    @app.get("/devices")
    async def devices(
        user: Annotated[User, Depends(web.user)], request: Request
    ) -> dict[str, object]:
        found = await auth.get_all_user_sessions(user.user_id)
        return {
            "port": request.client and request.client.port,
            "via": [device.metadata.get("via") for device in found],
        }

    @app.get("/stream")
    async def stream(session: Annotated[Session, Depends(web.session)]) -> StreamingResponse:
        return StreamingResponse(str(number) for number in range(1_000))

    @app.get("/crash")
    async def crash(session: Annotated[Session, Depends(web.session)]) -> None:
        raise ZeroDivisionError


def add_sockets(app: FastAPI, web: FastAPIAuth[User]) -> None:
    """Add the WebSocket routes."""

    @app.websocket("/before")
    async def before(socket: WebSocket, session: Annotated[Session, Depends(web.session)]) -> None:
        await socket.accept(headers=[(b"set-cookie", b"own=1")])
        await socket.send_text(session.state)
        await socket.close()

    @app.websocket("/after")
    async def after(
        socket: WebSocket, request: Annotated[AsyncAuthRequest[User], Depends(web.request)]
    ) -> None:
        await socket.accept()
        session = await request.validate()
        await socket.send_text(session.state if session else "visitor")
        raise RequestUnauthorized

    @app.websocket("/rejected")
    async def rejected(
        socket: WebSocket, session: Annotated[Session, Depends(web.session)]
    ) -> None:
        raise RequestUnauthorized


@contextmanager
def serving(app: FastAPI) -> Iterator[int]:
    """Serve the application with uvicorn in a thread, and yield the port."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical"))
    thread = Thread(target=server.run, args=([listener],))
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive(), "uvicorn has exited"
            sleep(0.01)
        yield int(listener.getsockname()[1])
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


@pytest.fixture
def port(redis_server: Server, store: AsyncMemoryAdapter, time: Time) -> Iterator[int]:
    """Serve the application, and return its port."""
    with serving(make_app(redis_server.url, store, time)) as port:
        yield port


@pytest.fixture
def client(port: int) -> Iterator[httpx.Client]:
    """Return a browser in which Ann has just signed up."""
    with browser(port) as client:
        client.post("/signup", data={"name": "ann", "password": "correct horse"}).raise_for_status()
        yield client


def browser(port: int) -> httpx.Client:
    """Return a client that has a cookie jar, keeps its connection, and sends an Origin."""
    origin = f"http://localhost:{port}"
    return httpx.Client(base_url=origin, headers={"Origin": origin}, trust_env=False)


def open_socket(
    port: int, path: str, cookie: str | None, origin: str | None = None
) -> ClientConnection:
    """Open a WebSocket with this cookie; its origin is the application's own by default."""
    headers = {} if cookie is None else {"Cookie": f"{NAME}={cookie}"}
    page = Origin(origin or f"http://localhost:{port}")
    return connect(
        f"ws://localhost:{port}{path}", additional_headers=headers, origin=page, proxy=None
    )


@contextmanager
def listening_to_nobody() -> Iterator[int]:
    """Yield a port that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield int(listener.getsockname()[1])


@contextmanager
def listening_not() -> Iterator[int]:
    """Yield a port that refuses connections."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield int(held.getsockname()[1])


@pytest.mark.parametrize("outage", [listening_not, listening_to_nobody])
def test_a_redis_that_can_not_be_reached(
    outage: Callable[[], AbstractContextManager[int]], store: AsyncMemoryAdapter
) -> None:
    """While Redis refuses or hangs, requests with a cookie get 503, and visitors are served."""
    with outage() as redis_port:
        redis = Redis(port=redis_port, protocol=2)
        adapter = AsyncRedisSessionAdapter(redis, deadline=timedelta(seconds=0.2))
        auth = AsyncAuth(users=store, sessions=adapter, env="DEV", hash=ScryptHash(ln=4, r=1, p=1))
        web = FastAPIAuth(auth)
        app = FastAPI()
        web.install(app)
        add_routes(app, auth, web)
        with serving(app) as port, browser(port) as client:
            assert client.get("/devices").status_code == 401
            client.cookies.set(NAME, "a" * 40)
            for answer in (client.get("/devices"), client.post("/logout"), client.get("/stream")):
                assert answer.status_code == 503
                assert answer.json() == {
                    "detail": "Sessions can't be reached. Try again in a moment."
                }
                assert answer.headers["retry-after"] == "1"
                assert "set-cookie" not in answer.headers


def test_two_browsers_on_kept_connections(client: httpx.Client, port: int) -> None:
    """Two browsers have a session each; logging out of one, even twice, keeps the other."""
    answers = [client.get("/devices").json() for _ in range(3)]
    assert len({answer["port"] for answer in answers}) == 1, (
        "one connection was kept for all requests"
    )
    assert answers[-1]["via"] == [None]
    with browser(port) as phone:
        assert phone.get("/devices").status_code == 401
        login = {"name": "ann", "password": "correct horse", "via": "phone"}
        assert phone.post("/login", data={**login, "password": "wrong"}).status_code == 401
        assert phone.get("/devices").status_code == 401
        assert phone.post("/login", data=login).status_code == 200
        assert sorted(phone.get("/devices").json()["via"], key=str) == [None, "phone"]
        used = phone.cookies[NAME]
        for _ in range(2):
            assert phone.post("/logout").status_code == 200
            assert NAME not in phone.cookies
        phone.cookies.set(NAME, used)
        assert phone.get("/devices").status_code == 401
    assert client.get("/devices").json()["via"] == [None]


def test_an_idle_session_is_renewed_over_the_wire(client: httpx.Client, time: Time) -> None:
    """A normal response, a stream and a 500 renew an idle session; an active one sends nothing."""
    for path, status in (("/devices", 200), ("/stream", 200), ("/crash", 500)):
        time.pass_hours(25)
        before = client.cookies[NAME]
        # uvicorn closes the connection after an exception. The next request must not arrive on it.
        answer = client.get(path, headers={"Connection": "close"})
        assert answer.status_code == status
        assert client.cookies[NAME] != before
        assert (answer.headers["cache-control"], answer.headers["vary"]) == ("no-store", "Cookie")
        again = client.get("/devices")
        assert again.status_code == 200
        assert "set-cookie" not in again.headers


def test_a_client_that_hangs_up_in_the_middle(client: httpx.Client, port: int, time: Time) -> None:
    """A used id whose response was lost leads to the session that the response renewed."""
    time.pass_hours(25)
    used = client.cookies[NAME]
    with socket.create_connection(("localhost", port)) as raw:
        head = f"GET /stream HTTP/1.1\r\nHost: localhost:{port}\r\n"
        raw.sendall(f"{head}Cookie: {NAME}={used}\r\n\r\n".encode())
        first = raw.recv(4096)
    assert b"set-cookie" in first.lower()
    renewed = first.split(f"{NAME}=".encode())[1].partition(b";")[0].decode()
    assert client.get("/devices").status_code == 200
    assert client.cookies[NAME] == renewed


def test_http_1_0_without_a_host(client: httpx.Client, port: int) -> None:
    """Without a Host header, the request's own origin is the server's address."""
    body = "name=ann&password=correct+horse&via=old"

    def status(origin: str) -> bytes:
        head = f"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {len(body)}"
        with socket.create_connection(("127.0.0.1", port)) as raw:
            raw.sendall(
                f"POST /login HTTP/1.0\r\nOrigin: {origin}\r\n{head}\r\n\r\n{body}".encode()
            )
            return raw.recv(4096).split()[1]

    assert status(f"http://127.0.0.1:{port}") == b"200"
    assert status("http://evil.example") == b"403"


def test_a_foreign_page_gets_nothing(client: httpx.Client, port: int) -> None:
    """A foreign page gets 403 for a form or a socket, although the browser sends the cookie."""
    evil = {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"}
    assert client.post("/logout", headers=evil).status_code == 403
    with (
        pytest.raises(InvalidStatus) as caught,
        open_socket(port, "/before", client.cookies[NAME], "https://evil.example"),
    ):
        pass
    assert caught.value.response.status_code == 403
    assert client.get("/devices").status_code == 200


def test_a_socket_is_renewed_by_its_handshake_alone(
    client: httpx.Client, port: int, time: Time
) -> None:
    """The 101 response carries the cookie; after it, an idle session stays idle."""
    time.pass_hours(25)
    used = client.cookies[NAME]
    with open_socket(port, "/after", used) as connection:
        assert connection.recv() == "idle"
        assert connection.response is not None
        assert "set-cookie" not in connection.response.headers
        with pytest.raises(ConnectionClosedError) as closed:
            connection.recv()
        assert closed.value.rcvd is not None
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1008, "Not allowed.")
    with open_socket(port, "/before", used) as connection:
        assert connection.recv() == "active"
        assert connection.response is not None
        texts = connection.response.headers.get_all("set-cookie")
    assert [text.partition("=")[0] for text in texts] == ["own", NAME]
    renewed = texts[1].partition(";")[0].partition("=")[2]
    with open_socket(port, "/before", renewed) as connection:
        assert connection.response is not None
        assert connection.response.headers.get_all("set-cookie") == ["own=1"]


def test_a_rejected_socket_keeps_the_renewed_session(
    client: httpx.Client, port: int, time: Time
) -> None:
    """A rejected handshake gets a 403, with the cookie if a session was renewed."""
    for hours, count in ((0, 0), (25, 1)):
        time.pass_hours(hours)
        with (
            pytest.raises(InvalidStatus) as caught,
            open_socket(port, "/rejected", client.cookies[NAME]),
        ):
            pass
        assert caught.value.response.status_code == 403
        assert len(caught.value.response.headers.get_all("set-cookie")) == count
    with pytest.raises(InvalidStatus), open_socket(port, "/before", None):
        pass
