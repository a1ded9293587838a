"""The ASGI middleware over HTTP, message by message."""

import asyncio
import gc
import json
import weakref
from collections.abc import Sequence
from typing import Any

import pytest

from lucia import AsyncAuth, AsyncAuthRequest, Auth, PrimaryKey, SessionCookie, SessionRow, User
from lucia.adapters.memory import AsyncMemoryAdapter, MemoryAdapter
from lucia.middleware import wsgi
from lucia.middleware.asgi import LuciaMiddleware, Message, Receive, Scope, Send, auth_request
from lucia.middleware.flask import FlaskAuth
from lucia.middleware.litestar import LitestarAuth
from lucia.middleware.quart import QuartAuth
from lucia.middleware.starlette import StarletteAuth
from tests.aio.support.watched_store import AsyncWatchedStore, make_auth
from tests.support import clocks
from tests.support.sessions import changed
from tests.web.driver import (
    FOREIGN,
    NAME,
    ORIGIN,
    Act,
    Pairs,
    SentResponse,
    Time,
    get,
    log_in,
    nothing,
    post,
    respond,
    run,
    scope_of,
    user_of,
    validate,
)

CACHE = ("cache-control", "no-store")
VARY = ("vary", "Cookie")


async def ids(store: AsyncMemoryAdapter, user_id: str = "ann") -> list[str]:
    """Return the ids of all stored sessions of a user."""
    return [row.id for row in await store.get_sessions_by_user_id(user_id)]


async def test_an_active_session_leaves_the_response_alone(
    auth: AsyncAuth[User], store: AsyncMemoryAdapter
) -> None:
    """An active session adds no header but Vary, and is not written."""
    session_id = await log_in(auth)
    before = await store.get_session(session_id)
    headers = [("content-type", "text/plain"), ("cache-control", "max-age=60")]
    answer = await get(LuciaMiddleware(respond(auth, validate, headers), auth=auth), session_id)
    assert answer.headers == [*headers, VARY]
    assert await store.get_session(session_id) == before


@pytest.mark.parametrize("cookie", [None, "", "no-id", "0" * 40])
async def test_a_visitor_leaves_the_response_alone(
    auth: AsyncAuth[User], cookie: str | None
) -> None:
    """An unknown cookie is not cleared: a late request must not clear its successor's cookie."""
    answer = await get(LuciaMiddleware(respond(auth, validate), auth=auth), cookie)
    assert answer.headers == [VARY]


async def test_an_idle_session_is_renewed_by_the_response(
    auth: AsyncAuth[User], store: AsyncMemoryAdapter, time: Time
) -> None:
    """The response sets the new id as a cookie, and must not be cached."""
    session_id = await log_in(auth)
    time.pass_hours(25)
    answer = await get(LuciaMiddleware(respond(auth, validate), auth=auth), session_id)
    assert answer.cookie not in (None, "", session_id)
    assert await ids(store) == [answer.cookie]
    session = await auth.get_session(str(answer.cookie))
    assert answer.headers == [
        CACHE,
        VARY,
        ("set-cookie", auth.create_session_cookie(session).serialize()),
    ]


async def test_a_used_id_gets_its_successors_cookie_within_the_grace(
    auth: AsyncAuth[User], time: Time
) -> None:
    """Requests in flight during a renewal all get the same cookie."""
    session_id = await log_in(auth)
    time.pass_hours(25)
    app = LuciaMiddleware(respond(auth, validate), auth=auth)
    answers = await asyncio.gather(*(get(app, session_id) for _ in range(5)))
    assert len({answer.cookie for answer in answers}) == 1
    assert answers[0].cookie != session_id


@pytest.mark.parametrize(
    ("headers", "kept"),
    [
        ([("cache-control", "public"), ("CACHE-CONTROL", "max-age=60")], [CACHE, VARY]),
        ([("vary", "Accept")], [("vary", "Accept"), CACHE, VARY]),
        ([("Vary", "Accept,  COOKIE")], [("Vary", "Accept,  COOKIE"), CACHE]),
        (
            [("vary", "Cookies"), ("vary", "x-cookie")],
            [("vary", "Cookies"), ("vary", "x-cookie"), CACHE, VARY],
        ),
        ([("vary", "Accept"), ("vary", "Cookie")], [("vary", "Accept"), ("vary", "Cookie"), CACHE]),
        (
            [("Set-Cookie", "b=2"), ("x", "y"), ("set-cookie", "a=1")],
            [("Set-Cookie", "b=2"), ("x", "y"), ("set-cookie", "a=1"), CACHE, VARY],
        ),
    ],
)
async def test_a_response_with_our_cookie_is_not_cached_and_keeps_the_rest(
    auth: AsyncAuth[User], headers: Pairs, kept: list[tuple[str, str]]
) -> None:
    """Cache-Control is replaced, Vary is added once, and other headers keep their order."""

    async def sign_in(request: AsyncAuthRequest[User]) -> None:
        await request.sign_in("ann")

    answer = await post(LuciaMiddleware(respond(auth, sign_in, headers), auth=auth))
    assert answer.headers[:-1] == kept
    assert answer.headers[-1][1].startswith(f"{NAME}=")


def test_a_sync_auth_is_refused() -> None:
    """Creating the middleware with a sync auth is a TypeError that says what to use."""
    sync: Any = Auth(sessions=MemoryAdapter(), env="DEV")
    application: Any = respond
    with pytest.raises(
        TypeError,
        match=r"\Aauth must be an AsyncAuth, not Auth: .* make an AsyncAuth over an async adapter",
    ):
        LuciaMiddleware(application, auth=sync)


async def test_a_response_without_headers_takes_the_cookie(auth: AsyncAuth[User]) -> None:
    """A response without headers, which ASGI allows, carries the cookie."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await auth_request(auth, scope).sign_in("ann")
        await send({"type": "http.response.start", "status": 204})
        await send({"type": "http.response.body"})

    answer = await post(LuciaMiddleware(app, auth=auth))
    assert answer.cookie
    assert answer.messages[1:] == [{"type": "http.response.body"}]


async def test_the_last_cookie_wins_and_is_sent_once(
    auth: AsyncAuth[User], store: AsyncMemoryAdapter
) -> None:
    """The response has one cookie, that of the last change in the request."""

    async def out_and_in_twice(request: AsyncAuthRequest[User]) -> None:
        await request.sign_out()
        await request.sign_in("ann")
        await request.sign_in("bob")

    async def in_and_out(request: AsyncAuthRequest[User]) -> None:
        await request.sign_in("ann")
        await request.sign_out()

    session_id = await log_in(auth)
    answer = await post(LuciaMiddleware(respond(auth, out_and_in_twice), auth=auth), session_id)
    assert await ids(store) == []
    assert await ids(store, "bob") == [answer.cookie]
    answer = await post(LuciaMiddleware(respond(auth, in_and_out), auth=auth), answer.cookie)
    assert answer.cookie == ""
    assert await ids(store, "bob") == []
    assert [name for name, _ in answer.headers] == ["cache-control", "vary", "set-cookie"]


async def test_a_session_made_elsewhere_can_be_set(auth: AsyncAuth[User]) -> None:
    """set_session sends the session's cookie, and validate then returns that session."""
    await log_in(auth)
    session = await auth.create_session("bob")
    found: list[str] = []

    async def set_session(request: AsyncAuthRequest[User]) -> None:
        request.set_session(session)
        now = await request.validate()
        found.append(now.user_id if now else "")

    answer = await post(LuciaMiddleware(respond(auth, set_session), auth=auth))
    assert (answer.cookie, found) == (session.session_id, ["bob"])


async def test_a_session_that_no_cookie_can_hold_is_refused_at_once(auth: AsyncAuth[User]) -> None:
    """set_session refuses an id that no cookie can hold, and the response is unaffected."""
    bad = changed(await auth.create_session("ann"), session_id="a\r\nSet-Cookie: x=y")

    async def set_session(request: AsyncAuthRequest[User]) -> None:
        with pytest.raises(ValueError, match="cookie"):
            request.set_session(bad)

    answer = await post(LuciaMiddleware(respond(auth, set_session), auth=auth))
    assert answer.status == 200
    assert answer.headers == []


async def test_once_the_response_has_started_an_idle_session_stays_idle(
    auth: AsyncAuth[User], store: AsyncMemoryAdapter, time: Time
) -> None:
    """After the response has started, validate does not renew; the next request does."""
    session_id = await log_in(auth)
    time.pass_hours(25)
    states: list[str | None] = []

    async def state(request: AsyncAuthRequest[User]) -> None:
        session = await request.validate()
        states.append(session.state if session else None)

    app = LuciaMiddleware(respond(auth, nothing, after=state), auth=auth)
    answer = await get(app, session_id)
    assert (answer.headers, answer.body, states) == ([], b"ab", ["idle"])
    assert await ids(store) == [session_id]


async def test_once_the_response_has_started_nobody_is_signed_in(
    auth: AsyncAuth[User], store: AsyncMemoryAdapter
) -> None:
    """After the response has started, sign_in and set_session raise before changing anything."""
    session_id = await log_in(auth)
    session = await auth.get_session(session_id)

    async def change(request: AsyncAuthRequest[User]) -> None:
        with pytest.raises(RuntimeError, match="has started"):
            await request.sign_in("ann")
        with pytest.raises(RuntimeError, match="has started"):
            await request.sign_in_with_key("username", "ann", "password")
        with pytest.raises(RuntimeError, match="has started"):
            request.set_session(session)
        assert (await request.validate()) == session

    answer = await post(
        LuciaMiddleware(respond(auth, nothing, after=change), auth=auth), session_id
    )
    assert answer.headers == []
    assert await ids(store) == [session_id]


async def test_login_that_finishes_after_the_response_started(auth: AsyncAuth[User]) -> None:
    """A login that finishes after the response has started raises an error."""
    await auth.create_user(primary_key=PrimaryKey("username", "ann", "password"))

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        login = asyncio.create_task(
            auth_request(auth, scope).sign_in_with_key("username", "ann", "password")
        )
        await asyncio.sleep(0)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        with pytest.raises(RuntimeError, match="has started"):
            await login
        await send({"type": "http.response.body"})

    assert (await post(LuciaMiddleware(app, auth=auth))).headers == []


async def test_response_that_starts_while_the_former_session_is_revoked() -> None:
    """A login whose cookie can't be set any more raises an error."""
    time = clocks.Time()
    store = AsyncWatchedStore(time)
    auth = make_auth(store, time)
    session_id = await log_in(auth)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async def start() -> None:
            await send({"type": "http.response.start", "status": 200, "headers": []})

        store.after["delete_session"] = start
        with pytest.raises(RuntimeError, match="has already started"):
            await auth_request(auth, scope).sign_in("ann")
        await send({"type": "http.response.body"})

    assert (await post(LuciaMiddleware(app, auth=auth), session_id)).headers == [VARY]


async def test_once_the_response_has_started_signing_out_still_ends_the_session(
    auth: AsyncAuth[User], store: AsyncMemoryAdapter
) -> None:
    """After the response has started, sign_out revokes the session, though its cookie stays."""
    session_id = await log_in(auth)

    async def sign_out(request: AsyncAuthRequest[User]) -> None:
        await request.sign_out()
        assert await request.validate() is None

    answer = await post(
        LuciaMiddleware(respond(auth, nothing, after=sign_out), auth=auth), session_id
    )
    assert answer.headers == []
    assert await ids(store) == []


async def test_a_client_that_is_gone_before_the_response_is_not_logged_out(
    auth: AsyncAuth[User], time: Time
) -> None:
    """If the client never gets the response, its used id still leads to the successor."""
    session_id = await log_in(auth)
    time.pass_hours(25)
    app = LuciaMiddleware(respond(auth, validate), auth=auth)

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        raise OSError(message["type"])

    with pytest.raises(OSError, match=r"http\.response\.start"):
        await app(scope_of(cookie=session_id), receive, send)
    again = await get(app, session_id)
    assert again.cookie not in (None, "", session_id)


async def test_a_request_that_is_cancelled_leaves_a_session_that_works(
    auth: AsyncAuth[User], time: Time
) -> None:
    """A client that disconnects while its session is renewed stays logged in."""
    session_id = await log_in(auth)
    time.pass_hours(25)
    validated = asyncio.Event()

    async def hang(request: AsyncAuthRequest[User]) -> None:
        await request.validate()
        validated.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(get(LuciaMiddleware(respond(auth, hang), auth=auth), session_id))
    await validated.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    again = await get(LuciaMiddleware(respond(auth, validate), auth=auth), session_id)
    assert again.cookie not in (None, "", session_id)


async def test_a_client_that_is_gone_in_the_middle_has_the_cookie(auth: AsyncAuth[User]) -> None:
    """The start of the response carries the cookie; later errors are raised unchanged."""
    sent: list[Message] = []

    async def sign_in(request: AsyncAuthRequest[User]) -> None:
        await request.sign_in("ann")

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        if sent:
            raise OSError("gone")
        sent.append(message)

    with pytest.raises(OSError, match="gone"):
        await LuciaMiddleware(respond(auth, sign_in), auth=auth)(
            scope_of(method="POST"), receive, send
        )
    assert SentResponse(sent).cookie


async def test_application_errors_pass_through(auth: AsyncAuth[User], time: Time) -> None:
    """The middleware lets the application's exceptions through."""
    session_id = await log_in(auth)
    time.pass_hours(25)

    async def fail(request: AsyncAuthRequest[User]) -> None:
        await request.validate()
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await get(LuciaMiddleware(respond(auth, fail), auth=auth), session_id)


async def test_other_messages_pass_as_they_are(auth: AsyncAuth[User]) -> None:
    """Messages other than the start of the response pass unchanged."""
    messages: list[Message] = [
        {"type": "http.response.debug", "info": {}},
        {"type": "http.response.start", "status": 200, "headers": [], "trailers": True},
        {"type": "http.response.body", "body": b"a"},
        {"type": "http.response.trailers", "headers": [(b"cache-control", b"x")]},
    ]

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await auth_request(auth, scope).sign_in("ann")
        for message in messages:
            await send(message)

    answer = await post(LuciaMiddleware(app, auth=auth))
    assert [each for each in answer.messages if each["type"] != "http.response.start"] == [
        messages[0],
        *messages[2:],
    ]
    assert answer.messages[1]["trailers"] is True
    assert [name for name, _ in answer.messages[1]["headers"]] == [
        b"cache-control",
        b"vary",
        b"set-cookie",
    ]


async def test_the_lifespan_passes_through(auth: AsyncAuth[User]) -> None:
    """For a lifespan, the application gets the same scope, receive and send."""
    passed: list[object] = []

    async def app(*arguments: object) -> None:
        passed.extend(arguments)

    async def receive() -> Message:
        pytest.fail("nothing is received or sent here")

    async def send(message: Message) -> None:
        pytest.fail("nothing is received or sent here")

    scope: Scope = {"type": "lifespan"}
    await LuciaMiddleware(app, auth=auth)(scope, receive, send)
    assert [id(each) for each in passed] == [id(scope), id(receive), id(send)]
    assert scope == {"type": "lifespan"}


async def test_a_missing_middleware_is_said_to_be_missing(
    auth: AsyncAuth[User], time: Time
) -> None:
    """Without this auth's middleware, asking for the AuthRequest raises a helpful error."""
    other = AsyncAuth(sessions=AsyncMemoryAdapter(clock=time), env="DEV")
    for app in (respond(auth, nothing), LuciaMiddleware(respond(auth, nothing), auth=other)):
        with pytest.raises(RuntimeError, match=r"not installed .*: add web.install\(app\)"):
            await get(app)


async def test_two_auths_on_one_application(auth: AsyncAuth[User], time: Time) -> None:
    """Two auths have an AuthRequest and a cookie each; one response can set both cookies."""
    staff = AsyncAuth(
        sessions=AsyncMemoryAdapter(clock=time),
        env="DEV",
        clock=time,
        session_cookie=SessionCookie(name="staff"),
    )
    found: list[tuple[str, str]] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        one, other = (
            await auth_request(auth, scope).validate(),
            await auth_request(staff, scope).validate(),
        )
        assert one is not None
        assert other is not None
        found.append((one.user_id, other.user_id))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body"})

    session_id = await log_in(auth)
    staff_id = (await staff.create_session("boss")).session_id
    wrapped = LuciaMiddleware(LuciaMiddleware(app, auth=auth), auth=staff)
    headers = [("cookie", f"staff={staff_id}")]
    assert (await get(wrapped, session_id, headers)).headers == [VARY]
    time.pass_hours(25)
    answer = await get(wrapped, session_id, headers)
    assert found == [("ann", "boss")] * 2
    assert [name for name, _ in answer.headers] == [
        "vary",
        "set-cookie",
        "cache-control",
        "set-cookie",
    ]
    assert sorted(text.partition("=")[0] for text in answer.all("set-cookie")) == [NAME, "staff"]


async def test_an_inner_middleware_goes_before_an_outer_one_of_the_same_auth(
    auth: AsyncAuth[User],
) -> None:
    """A mounted application can install the middleware again, with other options."""
    session_id = await log_in(auth)
    found: list[str | None] = []

    async def note(request: AsyncAuthRequest[User]) -> None:
        session = await request.validate()
        found.append(user_of(session))

    app = LuciaMiddleware(
        LuciaMiddleware(respond(auth, note), auth=auth, transport="bearer"), auth=auth
    )
    await get(app, session_id)
    await get(app, None, [("authorization", f"Bearer {session_id}")])
    assert found == [None, "ann"]


async def test_headers_are_read_on_first_use(
    auth: AsyncAuth[User], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Origin and cookie are read once, when they are needed, and not for other routes."""
    session_id = await log_in(auth)
    looks: list[str] = []
    check, find = auth.check_request, auth.find_session_id

    def checked(context: Any) -> Any:
        looks.append("origin")
        return check(context)

    def found(context: Any) -> Any:
        looks.append("cookie")
        return find(context)

    async def ask(request: AsyncAuthRequest[User]) -> None:
        for _ in range(2):
            assert request.origin_failure is None
            assert await request.validate() is await request.validate()

    monkeypatch.setattr(auth, "check_request", checked)
    monkeypatch.setattr(auth, "find_session_id", found)
    await get(LuciaMiddleware(respond(auth, nothing), auth=auth), session_id)
    assert looks == []
    await get(LuciaMiddleware(respond(auth, ask), auth=auth), session_id)
    assert looks == ["origin", "cookie"]


async def test_a_session_can_be_validated_ahead(auth: AsyncAuth[User], time: Time) -> None:
    """Validated ahead, a session is there when the route runs, and renewed if it is idle."""
    session_id = await log_in(auth)
    found: list[str | None] = []

    async def note(request: AsyncAuthRequest[User]) -> None:
        asked = request.validate()
        with pytest.raises(StopIteration) as at_once:  # it does not wait for anything
            asked.send(None)
        found.append(user_of(at_once.value.value))

    answer = await get(
        LuciaMiddleware(respond(auth, note), auth=auth, validate_ahead=True), session_id
    )
    assert (found, answer.headers) == (["ann"], [VARY])
    time.pass_hours(25)
    for ahead in (False, True):
        answer = await get(
            LuciaMiddleware(respond(auth, nothing), auth=auth, validate_ahead=ahead), session_id
        )
        assert (answer.cookie is not None) is ahead


@pytest.mark.parametrize("cookie", [None, "x", "0" * 40])
async def test_a_visitor_passes_ahead(auth: AsyncAuth[User], cookie: str | None) -> None:
    """Validated ahead, an unknown cookie finds no session and is not cleared."""
    answer = await get(
        LuciaMiddleware(respond(auth, validate), auth=auth, validate_ahead=True), cookie
    )
    assert (answer.status, answer.headers) == (200, [VARY])


async def test_validate_ahead_raises_store_error_in_the_route(
    auth: AsyncAuth[User], store: AsyncMemoryAdapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error of the store is raised when the route asks for the session, after a retry."""
    session_id = await log_in(auth)
    get_session = store.get_session
    failures = [OSError("down"), OSError("down"), OSError("down")]

    async def failing(session_id: str, /) -> SessionRow | None:
        if failures:
            raise failures.pop()
        return await get_session(session_id)

    monkeypatch.setattr(store, "get_session", failing)
    assert (
        await get(
            LuciaMiddleware(respond(auth, nothing), auth=auth, validate_ahead=True), session_id
        )
    ).status == 200
    asking = LuciaMiddleware(respond(auth, validate), auth=auth, validate_ahead=True)
    with pytest.raises(OSError, match="down"):
        await get(asking, session_id)
    failures.append(OSError("down"))
    assert (await get(asking, session_id)).status == 200
    assert failures == []


class OneRequest:
    """A server's request object. The application's scope must not refer back to its `send`."""

    def __init__(self, scope: Scope) -> None:
        self.scope = scope

    async def receive(self) -> Message:
        pytest.fail("nothing is received or sent here")

    async def send(self, message: Message) -> None:
        """Drop the message."""


async def test_finished_request_is_freed(auth: AsyncAuth[User], time: Time) -> None:
    """A finished request is freed without the garbage collector: there is no reference cycle."""
    session_id = await log_in(auth)
    app = LuciaMiddleware(respond(auth, validate), auth=auth)
    requests: list[weakref.ref[OneRequest]] = []
    gc.disable()
    try:
        for hours in (0, 25):
            time.pass_hours(hours)
            request = OneRequest(scope_of(cookie=session_id))
            requests.append(weakref.ref(request))
            await app(request.scope, request.receive, request.send)
            del request
    finally:
        gc.enable()
    assert [request() for request in requests] == [None, None]


@pytest.mark.parametrize(
    ("sent", "is_foreign"),
    [
        (FOREIGN, True),
        ([("origin", "https://evil.example")], True),
        ([("sec-fetch-site", "cross-site")], True),
        ([("sec-fetch-site", "same-origin")], False),
        ([], False),
    ],
)
async def test_a_foreign_request_is_a_visitors_or_forbidden(
    auth: AsyncAuth[User], sent: Pairs, is_foreign: bool
) -> None:
    """A cross-site request finds no session, or gets 403 if the option forbids it."""
    session_id = await log_in(auth)
    found: list[tuple[bool, str | None]] = []

    async def note(request: AsyncAuthRequest[User]) -> None:
        session = await request.validate()
        found.append((request.origin_failure is not None, user_of(session)))

    answer = await post(LuciaMiddleware(respond(auth, note), auth=auth), session_id, sent)
    assert (answer.status, found) == (200, [(True, None) if is_foreign else (False, "ann")])
    found.clear()
    forbidding = LuciaMiddleware(respond(auth, note), auth=auth, forbid_cross_site=True)
    answer = await post(forbidding, session_id, sent)
    assert (answer.status, found) == ((403, []) if is_foreign else (200, [(False, "ann")]))
    assert (await get(forbidding, session_id, sent)).status == 200


async def test_the_403_is_a_whole_response(auth: AsyncAuth[User]) -> None:
    """The 403 has a JSON body like the responses to errors, its length, and no cookie."""
    answer = await post(
        LuciaMiddleware(respond(auth, nothing), auth=auth, forbid_cross_site=True), None, FOREIGN
    )
    assert answer.types == ["http.response.start", "http.response.body"]
    assert json.loads(answer.body) == {"detail": "This request comes from another site."}
    assert answer.headers == [
        ("content-type", "application/json"),
        ("content-length", str(len(answer.body))),
    ]


@pytest.mark.parametrize(
    ("more", "headers", "passes"),
    [
        ({"server": ("127.0.0.1", 8000)}, [("origin", "http://127.0.0.1:8000")], True),
        ({"server": ("127.0.0.1", 80)}, [("origin", "http://127.0.0.1")], True),
        ({"server": ("::1", 8000)}, [("origin", "http://[::1]:8000")], True),
        ({"server": ("/run/app.sock", None)}, [("origin", "http://app")], False),
        ({"server": None}, [("origin", "http://app")], False),
        ({}, [("host", "app:8000"), ("origin", "http://app:8000")], True),
        ({"scheme": "https"}, [("host", "app"), ("origin", "https://app")], True),
        ({"path": "*"}, [("host", "app"), ("origin", "http://app")], True),
        (
            {"path": ".evil.example"},
            [("host", "app"), ("origin", "http://app.evil.example")],
            False,
        ),
        ({"path": "//evil.example/"}, [("host", "app"), ("origin", "http://evil.example")], False),
        ({}, [("Host", "app"), ("ORIGIN", "http://app")], True),
        ({}, [("host", "app"), ("origin", "http://app"), ("Sec-Fetch-Site", "cross-site")], False),
        ({}, [("host", "app"), ("origin", "http://app"), ("origin", "http://app")], False),
        ({}, [("host", "app\xff"), ("origin", "http://app\xff")], False),
    ],
)
async def test_the_own_origin_is_scheme_host_and_port_of_the_request(
    auth: AsyncAuth[User], more: Scope, headers: Sequence[tuple[str, str]], passes: bool
) -> None:
    """The own origin is the request's scheme and Host, or the server's address without a Host."""
    scope = scope_of(method="POST", **more)
    scope["headers"] = [(name.encode(), value.encode("latin-1")) for name, value in headers]
    answer = await run(
        LuciaMiddleware(respond(auth, nothing), auth=auth, forbid_cross_site=True), scope
    )
    assert answer.status == (200 if passes else 403)


async def test_a_scope_without_scheme_and_extensions_is_understood(auth: AsyncAuth[User]) -> None:
    """A scope without a scheme, which ASGI allows, has the scheme http."""
    scope = scope_of(method="POST")
    del scope["scheme"]
    assert "extensions" not in scope
    answer = await run(
        LuciaMiddleware(respond(auth, nothing), auth=auth, forbid_cross_site=True), scope
    )
    assert answer.status == 200


async def test_the_cookie_is_found_in_any_of_several_headers(auth: AsyncAuth[User]) -> None:
    """The cookie is found in any of several Cookie headers, beside any other bytes.

    HTTP/2 lets a client send each cookie in a header of its own.
    """
    session_id = await log_in(auth)
    found: list[str | None] = []

    async def note(request: AsyncAuthRequest[User]) -> None:
        session = await request.validate()
        found.append(user_of(session))

    app = LuciaMiddleware(respond(auth, note), auth=auth)
    await get(
        app,
        None,
        [("cookie", "a=b"), ("cookie", f"{NAME}={session_id}"), ("cookie", f"{NAME}={'0' * 40}")],
    )
    await get(app, None, [("Cookie", f'\xff\x00"=; {NAME}={session_id}; x="')])
    await get(app, None, [("cookie", f"\xa0{NAME}={session_id}")])
    assert found == ["ann", "ann", None]


@pytest.mark.parametrize("first", ["", "x", "0" * 39, f'"{"0" * 40}"', "\x00"])
async def test_a_malformed_cookie_in_front_logs_nobody_out(
    auth: AsyncAuth[User], first: str
) -> None:
    """A malformed cookie of our name in front of the right one is ignored."""
    session_id = await log_in(auth)
    found: list[str | None] = []

    async def note(request: AsyncAuthRequest[User]) -> None:
        found.append(user_of(await request.validate()))

    app = LuciaMiddleware(respond(auth, note), auth=auth)
    one = [("cookie", f"{NAME}={first}; {NAME}={session_id}")]
    two = [("cookie", f"{NAME}={first}"), ("cookie", f"{NAME}={session_id}")]
    for headers in (one, two):
        assert (await get(app, None, headers)).headers == [VARY]
    assert found == ["ann", "ann"]


async def test_signing_out_clears_a_malformed_cookie(auth: AsyncAuth[User]) -> None:
    """sign_out also clears a malformed cookie, so that it can't precede a later one."""

    async def leave(request: AsyncAuthRequest[User]) -> None:
        await request.sign_out()

    app = LuciaMiddleware(respond(auth, leave), auth=auth)
    assert (await post(app, "no id")).cookie == ""
    assert (await post(app)).cookie is None


async def test_device_list_shows_login_metadata(auth: AsyncAuth[User]) -> None:
    """The metadata of sign_in is shown in the device list."""

    async def sign_in(request: AsyncAuthRequest[User]) -> None:
        await request.sign_in(user.user_id, user_agent="Firefox")

    user = await auth.create_user(primary_key=None)
    await post(LuciaMiddleware(respond(auth, sign_in), auth=auth))
    assert [dict(device.metadata) for device in await auth.get_all_user_sessions(user.user_id)] == [
        {"user_agent": "Firefox"}
    ]


BEARER = [
    ("Bearer {}", True),
    ("bearer {}", True),
    ("BEARER   {} ", True),
    ("{}", False),
    ("Basic {}", False),
    ("Bearer", False),
    ("Bearer ", False),
    ("Bearer\t{}", False),
    ("Bearer {} {}", False),
    ("Bearer {}=", False),
    ("Bearer={}", False),
    ('Bearer "{}"', False),
    ("", False),
]


@pytest.mark.parametrize(("header", "counts"), BEARER)
async def test_the_bearer_transport_reads_the_authorization_header(
    auth: AsyncAuth[User], header: str, counts: bool
) -> None:
    """The bearer transport accepts exactly one header ``Bearer ID``, in any case of the word."""
    session_id = await log_in(auth)
    found: list[object] = []

    async def note(request: AsyncAuthRequest[User]) -> None:
        found.append(await request.validate())

    app = LuciaMiddleware(respond(auth, note), auth=auth, transport="bearer")
    pair = ("authorization", header.format(session_id, session_id))
    await get(app, None, [pair])
    await get(app, None, [pair, pair])
    assert found == [await auth.get_session(session_id) if counts else None, None]


async def test_the_bearer_transport_knows_no_cookies(
    auth: AsyncAuth[User], store: AsyncMemoryAdapter
) -> None:
    """The bearer transport reads and sets no cookie, and does not check the origin."""
    session_id = await log_in(auth)
    minted: list[str] = []

    async def sign_in(request: AsyncAuthRequest[User]) -> None:
        assert request.origin_failure is None
        assert await request.validate() is None
        minted.append((await request.sign_in("bob")).session_id)
        now = await request.validate()
        assert now is not None
        assert now.user_id == "bob"

    async def sign_out(request: AsyncAuthRequest[User]) -> None:
        await request.sign_out()

    def wrap(act: Act) -> LuciaMiddleware:
        return LuciaMiddleware(
            respond(auth, act), auth=auth, transport="bearer", forbid_cross_site=True
        )

    assert (await post(wrap(sign_in), session_id, FOREIGN)).headers == [("vary", "Authorization")]
    assert await ids(store) == [session_id], "the session of the cookie must not be revoked"
    assert await ids(store, "bob") == minted
    answer = await post(
        wrap(sign_out), session_id, [*FOREIGN, ("authorization", f"Bearer {minted[0]}")]
    )
    assert answer.headers == [("vary", "Authorization")]
    assert await ids(store, "bob") == []


async def test_the_bearer_transport_never_renews(
    auth: AsyncAuth[User], store: AsyncMemoryAdapter, time: Time
) -> None:
    """The bearer transport never renews: the client would not learn the new id."""
    user = await auth.create_user(primary_key=None)
    session_id = await log_in(auth, user.user_id)
    time.pass_hours(25)
    found: list[object] = []

    async def note(request: AsyncAuthRequest[User]) -> None:
        session = await request.validate()
        both = await request.validate_user()
        found.append(
            (session.state if session else None, both and both.session.session_id == session_id)
        )

    async def note_user(request: AsyncAuthRequest[User]) -> None:
        both = await request.validate_user()
        found.append(both and (both.session.state, both.session.session_id == session_id))

    for act in (note, note_user):
        app = LuciaMiddleware(respond(auth, act), auth=auth, transport="bearer")
        assert (await get(app, None, [("authorization", f"Bearer {session_id}")])).headers == [
            ("vary", "Authorization")
        ]
    assert found == [("idle", True)] * 2
    assert await ids(store, user.user_id) == [session_id]


async def test_a_request_can_renew_its_session(
    auth: AsyncAuth[User], store: AsyncMemoryAdapter
) -> None:
    """renew sets the new id as a cookie; with the bearer transport it is only returned."""
    returned: list[str] = []

    async def renew(request: AsyncAuthRequest[User]) -> None:
        session = await request.renew()
        returned.append(session.session_id if session else "")

    first = await log_in(auth)
    answer = await post(LuciaMiddleware(respond(auth, renew), auth=auth), first)
    assert returned == [answer.cookie]
    app = LuciaMiddleware(respond(auth, renew), auth=auth, transport="bearer")
    answer = await post(app, None, [("authorization", f"Bearer {returned[0]}")])
    assert answer.headers == [("vary", "Authorization")]
    assert len({first, *returned}) == 3
    assert await ids(store) == [returned[1]]


async def test_a_request_shows_no_secret(auth: AsyncAuth[User]) -> None:
    """The repr of an AuthRequest has only the method and the transport."""
    session_id = await log_in(auth)
    reprs: list[str] = []

    async def note(request: AsyncAuthRequest[User]) -> None:
        await request.validate()
        reprs.append(repr(request))

    await post(LuciaMiddleware(respond(auth, note), auth=auth), session_id)
    assert reprs == ["<AsyncAuthRequest POST cookie>"]
    assert ORIGIN not in reprs[0]


@pytest.mark.parametrize("transport", ["cookie", "bearer"])
async def test_nothing_that_holds_the_headers_shows_them(
    auth: AsyncAuth[User], transport: Any
) -> None:
    """No repr of an object that holds the request's headers shows them."""
    session_id = await log_in(auth)
    reprs: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        request = auth_request(auth, scope)
        await request.validate()
        reprs.extend(map(repr, (request, request._context, send, scope["lucia.requests"])))
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body"})

    sent = [("authorization", f"Bearer {session_id}")]
    await post(LuciaMiddleware(app, auth=auth, transport=transport), session_id, sent)
    assert len(reprs) == 4
    assert not any(session_id in each for each in reprs)


async def test_vary_names_each_transport_that_was_asked(auth: AsyncAuth[User]) -> None:
    """A route that asks by cookie and by bearer token has a response that depends on both."""

    async def ask_both(request: AsyncAuthRequest[User]) -> None:
        await request.validate()
        await request.with_transport("bearer").validate()

    answer = await get(LuciaMiddleware(respond(auth, ask_both), auth=auth))
    assert answer.headers == [("vary", "Cookie, Authorization")]


@pytest.mark.parametrize("transport", ["Cookie", "", None])
def test_an_unknown_transport_is_refused(auth: AsyncAuth[User], transport: Any) -> None:
    """An unknown transport is a ValueError at once, also in the integrations of frameworks."""
    sync_auth: Auth[User] = Auth(sessions=MemoryAdapter(), env="DEV")
    for make in (
        lambda: LuciaMiddleware(respond(auth, nothing), auth=auth, transport=transport),
        lambda: StarletteAuth(auth, transport=transport),
        lambda: LitestarAuth(auth, transport=transport),
        lambda: QuartAuth(auth, transport=transport),
        lambda: FlaskAuth(sync_auth, transport=transport),
        lambda: wsgi.LuciaMiddleware(lambda *_: [], auth=sync_auth, transport=transport),
    ):
        with pytest.raises(ValueError, match="transport"):
            make()


@pytest.mark.parametrize(
    ("client", "address"),
    [(("203.0.113.9", 5), "203.0.113.9"), (["::1", 5], "::1"), (None, None), (("", 0), "")],
    ids=["4", "6", "none", "empty"],
)
async def test_where_a_request_came_from(
    auth: AsyncAuth[User], client: object, address: str | None
) -> None:
    """The client address is the server's; forwarding headers don't change it."""
    found: list[str | None] = []

    async def act(request: AsyncAuthRequest[User]) -> None:
        found.append(request._context.client_address)

    forged = [("x-forwarded-for", "198.51.100.1"), ("forwarded", "for=198.51.100.1")]
    await post(LuciaMiddleware(respond(auth, act), auth=auth), headers=forged, client=client)
    assert found == [address]


async def test_headers_that_can_be_read_only_once(auth: AsyncAuth[User]) -> None:
    """Headers that come as an iterator, as ASGI allows, are read here and by the application."""
    found: list[object] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        session = await auth_request(auth, scope).validate()
        found.extend([session and session.user_id, *(name for name, _ in scope["headers"])])
        await respond(auth, nothing)(scope, receive, send)

    scope = scope_of("http", "POST", await log_in(auth))
    scope["headers"] = iter(scope["headers"])
    await run(LuciaMiddleware(app, auth=auth), scope)
    assert found[0] == "ann"
    assert b"cookie" in found
