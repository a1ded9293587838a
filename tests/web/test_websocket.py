"""The ASGI middleware over WebSockets, message by message."""

import pytest

from lucia import AsyncAuth, AsyncAuthRequest, User
from lucia.adapters.memory import AsyncMemoryAdapter
from lucia.middleware.asgi import (
    ASGIApp,
    LuciaMiddleware,
    Message,
    Receive,
    Scope,
    Send,
    auth_request,
)
from tests.web.driver import (
    FOREIGN,
    NAME,
    Act,
    Pairs,
    Time,
    connect,
    log_in,
    nothing,
    user_of,
    validate,
)

ACCEPT: Message = {
    "type": "websocket.accept",
    "subprotocol": "chat",
    "headers": [(b"set-cookie", b"a=1"), (b"x", b"y")],
}
CLOSE: Message = {"type": "websocket.close", "code": 1008, "reason": "no"}
DENY: Message = {"type": "websocket.http.response.start", "status": 401, "headers": [(b"x", b"y")]}


def socket(auth: AsyncAuth[User], act: Act, *messages: Message, after: Act = nothing) -> ASGIApp:
    """Return an application that calls `act`, sends these messages, and calls `after`."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        request = auth_request(auth, scope)
        await act(request)
        for message in messages:
            await send(message)
        await after(request)

    return LuciaMiddleware(app, auth=auth)


async def test_a_handshake_knows_its_session(auth: AsyncAuth[User]) -> None:
    """A handshake with an active session finds it, and no message changes."""
    session_id = await log_in(auth)
    found: list[str | None] = []

    async def note(request: AsyncAuthRequest[User]) -> None:
        found.append(user_of(await request.validate()))

    answer = await connect(socket(auth, note, ACCEPT, CLOSE), session_id)
    assert (answer.messages, found) == ([ACCEPT, CLOSE], ["ann"])


async def test_an_idle_session_is_renewed_with_the_accept(
    auth: AsyncAuth[User], time: Time
) -> None:
    """The accept carries the new cookie, and keeps the application's headers and subprotocol."""
    session_id = await log_in(auth)
    time.pass_hours(25)
    answer = await connect(socket(auth, validate, ACCEPT, CLOSE), session_id)
    assert answer.cookie not in (None, "", session_id)
    assert answer.messages[0]["subprotocol"] == "chat"
    assert answer.headers[:-1] == [
        ("set-cookie", "a=1"),
        ("x", "y"),
        ("cache-control", "no-store"),
        ("vary", "Cookie"),
    ]
    assert answer.messages[1] == CLOSE


async def test_an_accept_without_headers_takes_the_cookie(
    auth: AsyncAuth[User], time: Time
) -> None:
    """An accept without headers, which ASGI allows, carries the cookie."""
    session_id = await log_in(auth)
    time.pass_hours(25)
    assert (await connect(socket(auth, validate, {"type": "websocket.accept"}), session_id)).cookie


async def test_after_the_accept_nothing_is_renewed(
    auth: AsyncAuth[User], store: AsyncMemoryAdapter, time: Time
) -> None:
    """After the accept, an idle session is returned as idle: no cookie can be sent any more."""
    session_id = await log_in(auth)
    time.pass_hours(25)
    found: list[object] = []

    async def note(request: AsyncAuthRequest[User]) -> None:
        session = await request.validate()
        found.append(session.state if session else None)

    answer = await connect(socket(auth, nothing, ACCEPT, after=note), session_id)
    assert (answer.messages, found) == ([ACCEPT], ["idle"])
    assert [row.id for row in await store.get_sessions_by_user_id("ann")] == [session_id]


async def test_after_the_accept_signing_in_is_refused_and_out_works(
    auth: AsyncAuth[User], store: AsyncMemoryAdapter
) -> None:
    """After the accept, sign_in stores nothing, and sign_out revokes the session."""
    session_id = await log_in(auth)

    async def change(request: AsyncAuthRequest[User]) -> None:
        with pytest.raises(RuntimeError, match="has started"):
            await request.sign_in("bob")
        await request.sign_out()

    answer = await connect(socket(auth, nothing, ACCEPT, after=change), session_id)
    assert answer.messages == [ACCEPT]
    assert (
        await store.get_sessions_by_user_id("bob")
        == await store.get_sessions_by_user_id("ann")
        == []
    )


@pytest.mark.parametrize(
    "headers", [FOREIGN, [("origin", "https://evil.example")], [("sec-fetch-site", "same-site")]]
)
async def test_a_foreign_handshake_is_a_visitors_or_rejected(
    auth: AsyncAuth[User], headers: Pairs
) -> None:
    """A handshake from another site finds no session, or is rejected if the option forbids it."""
    session_id = await log_in(auth)
    found: list[str | None] = []

    async def note(request: AsyncAuthRequest[User]) -> None:
        found.append(user_of(await request.validate()))

    app = socket(auth, note, ACCEPT)
    assert isinstance(app, LuciaMiddleware)
    assert (await connect(app, session_id, headers)).messages == [ACCEPT]
    assert found == [None]
    forbidding = LuciaMiddleware(app.app, auth=auth, forbid_cross_site=True)
    answer = await connect(forbidding, session_id, headers)
    assert answer.messages == [
        {"type": "websocket.close", "code": 1008, "reason": "This request comes from another site."}
    ]
    assert found == [None]
    assert (await connect(forbidding, session_id)).messages == [ACCEPT]
    assert found == [None, "ann"]


@pytest.mark.parametrize("can_deny", [True, False])
async def test_a_rejection_for_the_moment_says_so(auth: AsyncAuth[User], *, can_deny: bool) -> None:
    """A close with 1013 before the accept becomes a 503 if the server can send a response.

    Otherwise, and after the accept, it is sent unchanged.
    """
    later: Message = {"type": "websocket.close", "code": 1013, "reason": "no"}
    rejected = await connect(socket(auth, nothing, later), can_deny=can_deny)
    assert rejected.status == 503 if can_deny else rejected.messages == [later]
    accepted = await connect(socket(auth, nothing, ACCEPT, later), can_deny=can_deny)
    assert accepted.messages == [ACCEPT, later]


async def test_a_response_that_rejects_takes_the_cookie(auth: AsyncAuth[User], time: Time) -> None:
    """An application's own denial response carries the cookie like any other response."""
    session_id = await log_in(auth)
    time.pass_hours(25)
    body: Message = {"type": "websocket.http.response.body", "body": b"no"}
    answer = await connect(socket(auth, validate, DENY, body), session_id)
    assert (answer.status, answer.body) == (401, b"no")
    assert answer.cookie not in (None, "", session_id)
    assert answer.headers[0] == ("x", "y")


async def test_a_close_that_rejects_becomes_a_response_with_the_cookie(
    auth: AsyncAuth[User], time: Time
) -> None:
    """A close before the accept becomes a 403 with the cookie of a renewed session."""
    session_id = await log_in(auth)
    time.pass_hours(25)
    answer = await connect(socket(auth, validate, CLOSE), session_id)
    assert answer.types == ["websocket.http.response.start", "websocket.http.response.body"]
    assert (answer.status, answer.body) == (403, b"")
    assert answer.cookie not in (None, "", session_id)
    assert answer.headers[:-1] == [
        ("content-length", "0"),
        ("cache-control", "no-store"),
        ("vary", "Cookie"),
    ]
    assert (await auth.get_session(str(answer.cookie))).state == "active"


async def test_a_close_that_rejects_stays_a_close_elsewhere(
    auth: AsyncAuth[User], time: Time
) -> None:
    """A close stays a close without a cookie, or if the server can't send headers.

    In the latter case the next request with the used id gets the successor.
    """
    session_id = await log_in(auth)
    assert (await connect(socket(auth, validate, CLOSE), session_id)).messages == [CLOSE]
    time.pass_hours(25)
    assert (await connect(socket(auth, validate, CLOSE), session_id, can_deny=False)).messages == [
        CLOSE
    ]
    again = await connect(socket(auth, validate, ACCEPT), session_id)
    assert again.cookie not in (None, "", session_id)


async def test_after_a_rejection_nothing_is_renewed(
    auth: AsyncAuth[User], store: AsyncMemoryAdapter, time: Time
) -> None:
    """After a rejection the handshake is over, and an idle session is not renewed."""
    session_id = await log_in(auth)
    time.pass_hours(25)
    assert (await connect(socket(auth, nothing, CLOSE, after=validate), session_id)).messages == [
        CLOSE
    ]
    assert [row.id for row in await store.get_sessions_by_user_id("ann")] == [session_id]


async def test_a_secure_handshake_is_compared_as_https(auth: AsyncAuth[User]) -> None:
    """wss and https are the same origin; ws and https are not."""
    session_id = await log_in(auth)
    found: list[str | None] = []

    async def note(request: AsyncAuthRequest[User]) -> None:
        found.append(user_of(await request.validate()))

    for scheme in ("wss", "ws"):
        scope_headers = [
            (b"host", b"app"),
            (b"origin", b"https://app"),
            (b"cookie", f"{NAME}={session_id}".encode()),
        ]
        await connect(_with_headers(socket(auth, note, ACCEPT), scope_headers), scheme=scheme)
    assert found == ["ann", None]


def _with_headers(app: ASGIApp, headers: list[tuple[bytes, bytes]]) -> ASGIApp:
    """Return the application with exactly these request headers."""

    async def outer(scope: Scope, receive: Receive, send: Send) -> None:
        await app({**scope, "headers": headers}, receive, send)

    return outer
