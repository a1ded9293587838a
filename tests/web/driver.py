"""Helpers that run an ASGI application without a server, and small applications to run."""

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
    """A clock that stands still until a test moves it."""

    def __init__(self, now: int) -> None:
        self.now = now

    def __call__(self) -> int:
        return self.now

    def pass_hours(self, hours: int) -> None:
        """Move the clock forward."""
        self.now += hours * 3_600_000


@dataclass(frozen=True)
class SentResponse:
    """The messages that an application sent, and the parts of its HTTP response."""

    messages: Sequence[Message]

    @property
    def status(self) -> int:
        """The response's status; 101 for an accepted WebSocket."""
        start = self.messages[0]
        return 101 if start["type"] == "websocket.accept" else int(start["status"])

    @property
    def headers(self) -> list[tuple[str, str]]:
        """The response's headers, in the order in which they were sent."""
        return [
            (name.decode(), value.decode()) for name, value in self.messages[0].get("headers", ())
        ]

    @property
    def body(self) -> bytes:
        """The whole body of the response."""
        return b"".join(message.get("body", b"") for message in self.messages)

    def all(self, name: str) -> list[str]:
        """Return every value of a header."""
        return [value for key, value in self.headers if key.lower() == name]

    @property
    def cookie(self) -> str | None:
        """The session cookie that was set: None if none was set, empty if it was cleared."""
        values = [
            text.partition(";")[0].removeprefix(f"{NAME}=")
            for text in self.all("set-cookie")
            if text.startswith(f"{NAME}=")
        ]
        assert len(values) < 2, "the cookie was set twice"
        return values[0] if values else None

    @property
    def types(self) -> list[str]:
        """The types of the messages."""
        return [message["type"] for message in self.messages]


def scope_of(
    kind: str = "http",
    method: str = "GET",
    cookie: str | None = None,
    headers: Pairs = (),
    **more: Any,
) -> Scope:
    """Return a scope as servers make it, with the application's own Origin before `headers`."""
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


async def run(app: ASGIApp, scope: Scope, incoming: Iterable[Message] = ()) -> SentResponse:
    """Run the application on these messages, and return what it sent.

    After the messages, an HTTP client waits, and a WebSocket client disconnects.
    """
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
    return SentResponse(sent)


async def get(
    app: ASGIApp, cookie: str | None = None, headers: Pairs = (), **more: Any
) -> SentResponse:
    """Return the response to a GET request."""
    return await run(app, scope_of("http", "GET", cookie, headers, **more))


async def post(
    app: ASGIApp, cookie: str | None = None, headers: Pairs = (), **more: Any
) -> SentResponse:
    """Return the response to a POST request. Its Origin is the application's own by default."""
    return await run(app, scope_of("http", "POST", cookie, headers, **more))


async def connect(
    app: ASGIApp,
    cookie: str | None = None,
    headers: Pairs = (),
    *,
    can_deny: bool = True,
    **more: Any,
) -> SentResponse:
    """Return the response to a WebSocket handshake.

    `can_deny` says whether the server can reject a handshake with a response.
    """
    extensions: dict[str, Scope] | None = {"websocket.http.response": {}} if can_deny else None
    return await run(
        app, scope_of("websocket", "GET", cookie, headers, extensions=extensions, **more)
    )


def served(app: ASGIApp) -> ASGIApp:
    """Wrap an application as a server does: exceptions that it raises end here."""

    async def server(scope: Scope, receive: Receive, send: Send) -> None:
        with suppress(Exception):
            await app(scope, receive, send)

    return server


def respond(
    auth: AsyncAuth[User], act: Act, headers: Pairs = (), *, after: Act | None = None
) -> ASGIApp:
    """Return an application that calls `act`, responds with these headers, and calls `after`."""
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
    """Validate the session: an endpoint that does nothing else."""
    await request.validate()


async def nothing(request: AsyncAuthRequest[User]) -> None:
    """Do nothing: an endpoint that does not use its AuthRequest."""


async def log_in(auth: AsyncAuth[User], user_id: str = "ann") -> str:
    """Create a session, and return its id."""
    return (await auth.create_session(user_id)).session_id


def set_cookies_of(response: Any) -> list[str]:
    """Return the Set-Cookie headers of a response of an httpx client."""
    return [text for text in response.headers.get_list("set-cookie") if text.startswith(NAME)]


def user_of(session: Session | None) -> str | None:
    """Return the user id of a session."""
    return None if session is None else session.user_id


def in_loop(client: TestClient, function: Callable[..., Awaitable[T]], *arguments: object) -> T:
    """Call an async function in the event loop of an entered test client."""
    assert client.portal is not None
    return client.portal.call(function, *arguments)
