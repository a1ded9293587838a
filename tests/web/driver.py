"""Runs an ASGI application without a server, so that a test sees each message, and small applications to run."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from starlette.testclient import TestClient

from lucia import AsyncAuth, AsyncAuthRequest, Session, User
from lucia.middleware.asgi import ASGIApp, Message, Receive, Scope, Send, auth_request

ORIGIN = "http://testserver"
NAME = "auth_session"
FOREIGN = [("origin", "https://evil.example"), ("sec-fetch-site", "cross-site")]

T = TypeVar("T")
Pairs = Iterable[tuple[str, str]]
Act = Callable[[AsyncAuthRequest[User]], Awaitable[object]]


class Time:
    """A clock that stands until a test moves it."""

    def __init__(self, now: int) -> None:
        self.now = now

    def __call__(self) -> int:
        return self.now

    def pass_hours(self, hours: int) -> None:
        """Move it."""
        self.now += hours * 3_600_000


@dataclass(frozen=True)
class Answer:
    """What an application sent: all messages, and the parts of an HTTP response among them."""

    messages: Sequence[Message]

    @property
    def status(self) -> int:
        """The response's status; 101 for an accepted WebSocket."""
        start = self.messages[0]
        return 101 if start["type"] == "websocket.accept" else int(start["status"])

    @property
    def headers(self) -> list[tuple[str, str]]:
        """The response's headers, as they were sent."""
        return [
            (name.decode(), value.decode()) for name, value in self.messages[0].get("headers", ())
        ]

    @property
    def body(self) -> bytes:
        """The response's whole body."""
        return b"".join(message.get("body", b"") for message in self.messages)

    def all(self, name: str) -> list[str]:
        """Every value of a header."""
        return [value for key, value in self.headers if key.lower() == name]

    @property
    def cookie(self) -> str | None:
        """The value of the session cookie that was set, None if none was, empty if it was cleared."""
        values = [
            text.partition(";")[0].removeprefix(f"{NAME}=")
            for text in self.all("set-cookie")
            if text.startswith(f"{NAME}=")
        ]
        assert len(values) < 2, "the cookie was set twice"
        return values[0] if values else None

    @property
    def types(self) -> list[str]:
        """The messages' types."""
        return [message["type"] for message in self.messages]


def scope_of(
    kind: str = "http",
    method: str = "GET",
    cookie: str | None = None,
    headers: Pairs = (),
    **more: Any,
) -> Scope:
    """A scope as servers make it, with the application's own Origin; ``headers`` come after those."""
    sent = [("host", "testserver"), ("accept", "*/*"), ("origin", ORIGIN), *headers]
    if cookie is not None:
        sent.append(("cookie", f"{NAME}={cookie}"))
    scope: Scope = {
        "type": kind,
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "scheme": "ws" if kind == "websocket" else "http",
        "path": "/",
        "raw_path": b"/",
        "query_string": b"",
        "root_path": "",
        "headers": [(name.encode("latin-1"), value.encode("latin-1")) for name, value in sent],
        "client": ("127.0.0.1", 50_000),
        "server": ("testserver", 80),
    }
    if kind == "http":
        scope["method"] = method
    return {**scope, **more}


async def run(app: ASGIApp, scope: Scope, incoming: Iterable[Message] = ()) -> Answer:
    """Run the application on these messages, after which an HTTP client waits and a WebSocket's is gone, and give what it sent."""
    first: Message = (
        {"type": "websocket.connect"}
        if scope["type"] == "websocket"
        else {"type": "http.request", "body": b""}
    )
    waiting = [first, *incoming]
    sent: list[Message] = []

    async def receive() -> Message:
        if waiting:
            return waiting.pop(0)
        if scope["type"] == "http":
            await asyncio.Event().wait()
        return {"type": "websocket.disconnect", "code": 1001}

    async def send(message: Message) -> None:
        await asyncio.sleep(0)
        sent.append(message)

    await app(scope, receive, send)
    return Answer(sent)


async def get(app: ASGIApp, cookie: str | None = None, headers: Pairs = (), **more: Any) -> Answer:
    """The answer to a GET request."""
    return await run(app, scope_of("http", "GET", cookie, headers, **more))


async def post(app: ASGIApp, cookie: str | None = None, headers: Pairs = (), **more: Any) -> Answer:
    """The answer to a POST request from the application's own origin, if ``headers`` say nothing else."""
    return await run(app, scope_of("http", "POST", cookie, headers, **more))


async def connect(
    app: ASGIApp,
    cookie: str | None = None,
    headers: Pairs = (),
    *,
    can_deny: bool = True,
    **more: Any,
) -> Answer:
    """What a WebSocket's handshake gets, by a server that can send a response to reject it or by one that can't."""
    extensions: dict[str, Scope] | None = {"websocket.http.response": {}} if can_deny else None
    return await run(
        app, scope_of("websocket", "GET", cookie, headers, extensions=extensions, **more)
    )


def served(app: ASGIApp) -> ASGIApp:
    """The application as servers run it: an error that it lets go up after its answer ends there."""

    async def server(scope: Scope, receive: Receive, send: Send) -> None:
        with suppress(Exception):
            await app(scope, receive, send)

    return server


def respond(
    auth: AsyncAuth[User], act: Act, headers: Pairs = (), *, after: Act | None = None
) -> ASGIApp:
    """An application that acts on the AuthRequest, responds with these headers, and acts once more."""
    raw = [(name.encode(), value.encode()) for name, value in headers]

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        request = auth_request(auth, scope)
        await act(request)
        await send({"type": "http.response.start", "status": 200, "headers": raw})
        await send({"type": "http.response.body", "body": b"a", "more_body": True})
        if after is not None:
            await after(request)
        await send({"type": "http.response.body", "body": b"b"})

    return app


async def validate(request: AsyncAuthRequest[User]) -> None:
    """An endpoint that only asks who it is."""
    await request.validate()


async def nothing(request: AsyncAuthRequest[User]) -> None:
    """An endpoint that does not even ask."""


async def log_in(auth: AsyncAuth[User], user_id: str = "ann") -> str:
    """A new session's id."""
    return (await auth.create_session(user_id)).session_id


def user_of(session: Session | None) -> str | None:
    """Whose session it is."""
    return None if session is None else session.user_id


def in_loop(client: TestClient, function: Callable[..., Awaitable[T]], *arguments: object) -> T:
    """Call something that waits in the event loop of a test client that was entered."""
    assert client.portal is not None
    return client.portal.call(function, *arguments)
