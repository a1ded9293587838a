"""The WSGI middleware: each way in which an application can respond carries the cookies."""

import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator

import pytest

from lucia import AsyncAuth, Auth, AuthRequest, InvalidRequest, ScryptHash, SessionCookie, User
from lucia.adapters.memory import AsyncMemoryAdapter, MemoryAdapter
from lucia.middleware.wsgi import (
    Environ,
    LuciaMiddleware,
    StartResponse,
    WSGIApp,
    WSGIExchange,
    auth_request,
)
from tests.web.driver import NAME, ORIGIN, Time, user_of

Act = Callable[[AuthRequest[User]], object]
OPTIONAL = ("HTTP_HOST", "HTTP_ORIGIN")


@dataclass
class Sent:
    """The response that an application sent to the server."""

    starts: list[tuple[str, list[tuple[str, str]]]] = field(default_factory=list)
    body: bytes = b""

    @property
    def status(self) -> int:
        """The status of the response that was started last."""
        return int(self.starts[-1][0].partition(" ")[0])

    def all(self, name: str) -> list[str]:
        """Return every value of a header."""
        return [value for key, value in self.starts[-1][1] if key.lower() == name]

    def cookie(self, name: str = NAME) -> str | None:
        """Return the session cookie that was set: None if none was set, empty if cleared."""
        values = [
            text.partition(";")[0].removeprefix(f"{name}=")
            for text in self.all("set-cookie")
            if text.startswith(f"{name}=")
        ]
        assert len(values) < 2, "the cookie was set twice"
        return values[0] if values else None


def environ_of(method: str = "GET", cookie: str | None = None, **more: Any) -> Environ:
    """Return an environ as servers make it, with the application's own Origin; None removes."""
    environ: Environ = {
        "REQUEST_METHOD": method,
        "HTTP_HOST": "testserver",
        "HTTP_ORIGIN": ORIGIN,
        "QUERY_STRING": "",
        "wsgi.input": BytesIO(),
        **({} if cookie is None else {"HTTP_COOKIE": f"{NAME}={cookie}"}),
        **more,
    }
    removed = [name for name in OPTIONAL if environ[name] is None]
    setup_testing_defaults(environ)
    for name in removed:
        del environ[name]
    return environ


def run(app: WSGIApp, environ: Environ) -> Sent:
    """Call an application as a server does, and return what it sent."""
    sent = Sent()

    def write(data: bytes) -> None:
        sent.body += data

    def start_response(status: str, headers: Any, exc_info: Any = None) -> Any:
        assert exc_info or not sent.starts, "the response was started twice"
        sent.starts.append((status, headers))
        return write

    # As the servers pass PEP 3333 on: wsgiref's validator checks the middleware from outside.
    checked: Any = validator(app)
    result: Any = checked(environ, start_response)
    try:
        for part in result:
            sent.body += part
    finally:
        result.close()
    return sent


def respond(auth: Auth[User], act: Act, *headers: tuple[str, str]) -> WSGIApp:
    """Return an application that calls `act` and responds."""

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        act(auth_request(auth, environ))
        start_response("200 OK", [("Content-Type", "text/plain"), *headers])
        return [b"a"]

    return app


def validate(request: AuthRequest[User]) -> None:
    """Validate the session: a view that does nothing else."""
    request.validate()


@pytest.fixture
def store(time: Time) -> MemoryAdapter:
    """Return a store of users and sessions."""
    return MemoryAdapter(clock=time)


@pytest.fixture
def auth(store: MemoryAdapter, time: Time) -> Auth[User]:
    """Return an auth with a cheap hash."""
    return make_auth(store, time)


def make_auth(store: MemoryAdapter, time: Time, name: str = NAME) -> Auth[User]:
    """Return an auth over this store, whose cookie has this name."""
    return Auth(
        users=store,
        sessions=store,
        env="DEV",
        clock=time,
        hash=ScryptHash(ln=4, r=1, p=1),
        session_cookie=SessionCookie(name=name),
    )


@pytest.fixture
def idle(auth: Auth[User], time: Time) -> str:
    """Return the id of an idle session: whoever validates it gets another one."""
    session_id = auth.create_session("ann").session_id
    time.pass_hours(25)
    return session_id


def test_signing_in_and_out(auth: Auth[User]) -> None:
    """The cookie is set when somebody signs in, and cleared when they sign out."""
    signed_in = run(
        LuciaMiddleware(respond(auth, lambda request: request.sign_in("ann")), auth=auth),
        environ_of("POST"),
    )
    session_id = signed_in.cookie()
    assert session_id
    assert auth.get_session(session_id).user_id == "ann"
    signed_out = run(
        LuciaMiddleware(respond(auth, lambda request: request.sign_out()), auth=auth),
        environ_of("POST", session_id),
    )
    assert signed_out.cookie() == ""


@pytest.mark.parametrize("cookie", [None, "", "x", "a" * 40, "\xff" * 5_000])
def test_a_visitor_gets_no_cookie(auth: Auth[User], cookie: str | None) -> None:
    """A response to a visitor gets Vary and nothing else, with any Cookie header."""
    app = respond(auth, validate, ("Cache-Control", "max-age=60"))
    sent = run(LuciaMiddleware(app, auth=auth), environ_of(cookie=cookie))
    assert sent.starts == [
        (
            "200 OK",
            [("Content-Type", "text/plain"), ("Cache-Control", "max-age=60"), ("vary", "Cookie")],
        )
    ]


def test_the_applications_own_headers_stay(auth: Auth[User], idle: str) -> None:
    """Cookies and Vary are added to the application's; its Cache-Control is replaced."""
    own = [("Set-Cookie", "a=b"), ("Vary", "Accept, Cookie"), ("cache-control", "public")]
    sent = run(LuciaMiddleware(respond(auth, validate, *own), auth=auth), environ_of(cookie=idle))
    assert sent.all("set-cookie")[0] == "a=b"
    assert sent.cookie() not in (None, "", idle)
    assert sent.all("vary") == ["Accept, Cookie"]
    assert sent.all("cache-control") == ["no-store"]


def test_a_generator_may_start_the_response_late(auth: Auth[User], idle: str) -> None:
    """An application that is a generator has not started before its first part is read."""

    def app(environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
        auth_request(auth, environ).validate()
        start_response("200 OK", [("Content-Type", "text/plain")])
        yield b"a"
        yield b"b"

    sent = run(LuciaMiddleware(app, auth=auth), environ_of(cookie=idle))
    assert sent.body == b"ab"
    assert sent.cookie() not in (None, "", idle)


def test_no_cookie_can_be_set_once_the_response_has_started(auth: Auth[User], idle: str) -> None:
    """A body that asks for the session leaves an idle one alone, and can't sign in."""
    states: list[object] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        request = auth_request(auth, environ)
        session = request.validate()
        states.append(session and session.state)
        with pytest.raises(RuntimeError, match="has started"):
            request.sign_in("ann")
        return [b"a"]

    sent = run(LuciaMiddleware(app, auth=auth), environ_of("POST", idle))
    assert (states, sent.cookie()) == (["idle"], None)


def test_the_body_may_be_written(auth: Auth[User], idle: str) -> None:
    """The function ``write`` of the server is passed on."""

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        auth_request(auth, environ).validate()
        write = start_response("200 OK", [("Content-Type", "text/plain")])
        write(b"a")
        return [b"b"]

    sent = run(LuciaMiddleware(app, auth=auth), environ_of(cookie=idle))
    assert sent.body == b"ab"
    assert sent.cookie() not in (None, "", idle)


def test_the_body_is_closed(auth: Auth[User]) -> None:
    """The server gets the application's own iterable, whose ``close`` it calls."""
    events: list[str] = []

    class Body:
        def __iter__(self) -> Iterator[bytes]:
            return iter([b"a"])

        def close(self) -> None:
            events.append("closed")

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        return Body()

    run(LuciaMiddleware(app, auth=auth), environ_of())
    assert events == ["closed"]


def test_an_error_response_in_place_of_the_first_one_has_the_cookie(
    auth: Auth[User], idle: str
) -> None:
    """A response that is started again because of an error carries the cookie."""

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        auth_request(auth, environ).validate()
        start_response("200 OK", [("Content-Type", "text/plain")])
        try:
            int("x")
        except ValueError:
            start_response("500 Oops", [("Content-Type", "text/plain")], sys.exc_info())
        return [b"a"]

    sent = run(LuciaMiddleware(app, auth=auth), environ_of(cookie=idle))
    assert [status for status, _ in sent.starts] == ["200 OK", "500 Oops"]
    assert sent.cookie() not in (None, "", idle)


def test_the_restart_passes_its_error_on(auth: Auth[User]) -> None:
    """The server gets ``exc_info``: once headers are sent it has to raise the error."""
    given: list[Any] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [])
        start_response("500 Oops", [], "the error")
        return []

    LuciaMiddleware(app, auth=auth)(
        environ_of(), lambda status, headers, exc_info=None: given.append(exc_info)
    )
    assert given == [None, "the error"]


def test_an_exception_of_the_application_is_raised(auth: Auth[User]) -> None:
    """The middleware responds to no error by itself."""

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run(LuciaMiddleware(app, auth=auth), environ_of())


@pytest.mark.parametrize("outer_is_first", [True, False])
def test_two_auths(store: MemoryAdapter, time: Time, outer_is_first: bool) -> None:
    """Two auths in one application each have their request and their cookie."""
    auths = [make_auth(store, time), make_auth(MemoryAdapter(clock=time), time, "admin_session")]

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        for auth, user_id in zip(auths, ["ann", "root"], strict=True):
            auth_request(auth, environ).sign_in(user_id)
        start_response("200 OK", [("Content-Type", "text/plain")])
        return []

    wrapped: WSGIApp = app
    for auth in auths if outer_is_first else reversed(auths):
        wrapped = LuciaMiddleware(wrapped, auth=auth)
    sent = run(wrapped, environ_of("POST"))
    for auth, name, user_id in zip(auths, [NAME, "admin_session"], ["ann", "root"], strict=True):
        assert auth.get_session(str(sent.cookie(name))).user_id == user_id


def test_a_foreign_request_is_a_visitors_or_forbidden(auth: Auth[User]) -> None:
    """A cross-site request finds no session and changes none, or gets 403 at once."""
    session_id = auth.create_session("ann").session_id
    found: list[object] = []

    def act(request: AuthRequest[User]) -> None:
        found.append(request.validate())
        with pytest.raises(InvalidRequest):
            request.sign_out()

    environ = environ_of("POST", session_id, HTTP_ORIGIN="https://evil.example")
    allowed = run(LuciaMiddleware(respond(auth, act), auth=auth), environ)
    assert (allowed.status, found) == (200, [None])
    environ = environ_of("POST", session_id, HTTP_ORIGIN="https://evil.example")
    strict = LuciaMiddleware(respond(auth, act), auth=auth, forbid_cross_site=True)
    refused = run(strict, environ)
    assert (refused.status, len(found)) == (403, 1)
    assert refused.all("content-type") == ["application/json"]
    assert refused.body == b'{"detail": "This request comes from another site."}'
    assert refused.all("content-length") == [str(len(refused.body))]
    assert run(LuciaMiddleware(respond(auth, validate), auth=auth), environ_of()).status == 200


def test_the_own_origin_may_pass_a_strict_middleware(auth: Auth[User]) -> None:
    """``forbid_cross_site`` lets the application's own requests through."""
    strict = LuciaMiddleware(respond(auth, validate), auth=auth, forbid_cross_site=True)
    assert run(strict, environ_of("POST")).status == 200


@pytest.mark.parametrize(
    ("server", "origin"),
    [
        ({"SERVER_NAME": "shop.example", "SERVER_PORT": "80"}, "http://shop.example"),
        ({"SERVER_NAME": "shop.example", "SERVER_PORT": "8000"}, "http://shop.example:8000"),
        ({"SERVER_NAME": "::1", "SERVER_PORT": "8000"}, "http://[::1]:8000"),
        ({"SERVER_NAME": "[::1]", "SERVER_PORT": "8000"}, "http://[::1]:8000"),
        (
            {"SERVER_NAME": "a", "SERVER_PORT": "443", "wsgi.url_scheme": "https"},
            "https://a",
        ),
    ],
)
def test_a_request_without_host(auth: Auth[User], server: dict[str, str], origin: str) -> None:
    """Without a Host header (HTTP/1.0) the server's own address is the application's origin."""
    app = LuciaMiddleware(respond(auth, validate), auth=auth, forbid_cross_site=True)
    own = environ_of("POST", HTTP_HOST=None, HTTP_ORIGIN=origin, **server)
    assert run(app, own).status == 200
    foreign = environ_of("POST", HTTP_HOST=None, HTTP_ORIGIN="http://evil.example", **server)
    assert run(app, foreign).status == 403


def test_a_request_without_origin(auth: Auth[User]) -> None:
    """A request that could change something, and names no origin at all, is refused."""
    app = LuciaMiddleware(respond(auth, validate), auth=auth, forbid_cross_site=True)
    assert run(app, environ_of("POST", HTTP_ORIGIN=None)).status == 403
    page = {"HTTP_SEC_FETCH_SITE": "same-origin"}
    assert run(app, environ_of("POST", HTTP_ORIGIN=None, **page)).status == 200


def test_bearer_tokens(auth: Auth[User]) -> None:
    """With ``bearer`` the id is in the Authorization header, and no cookie is read or set."""
    session_id = auth.create_session("ann").session_id
    found: list[str | None] = []

    def act(request: AuthRequest[User]) -> None:
        found.append(user_of(request.validate()))
        request.sign_in("bob")

    app = LuciaMiddleware(respond(auth, act), auth=auth, transport="bearer")
    token = {"HTTP_AUTHORIZATION": f"Bearer {session_id}"}
    assert run(app, environ_of("POST", HTTP_ORIGIN=None, **token)).all("set-cookie") == []
    run(app, environ_of("POST", session_id))
    assert found == ["ann", None]


@pytest.mark.parametrize(
    ("address", "known"), [("203.0.113.9", "203.0.113.9"), ("", None), (None, None)]
)
def test_the_clients_address(address: str | None, known: str | None) -> None:
    """The address is the server's; behind a Unix socket it is empty or missing."""
    environ = environ_of()
    if address is not None:
        environ["REMOTE_ADDR"] = address
    assert WSGIExchange(environ).client_address == known


def test_a_middleware_that_is_not_installed(auth: Auth[User]) -> None:
    """The error says how to install the middleware."""
    with pytest.raises(RuntimeError, match="wrap the application"):
        auth_request(auth, environ_of())
    other = make_auth(MemoryAdapter(), Time(0))
    with pytest.raises(RuntimeError, match="wrap the application"):
        run(LuciaMiddleware(respond(auth, validate), auth=other), environ_of())


def test_an_async_auth_is_refused() -> None:
    """The error names the sync ``Auth``, whose results need no ``await``."""
    wrong: Any = AsyncAuth(sessions=AsyncMemoryAdapter(), env="DEV")
    with pytest.raises(TypeError, match=r"must be an Auth, not AsyncAuth: .* sync adapter"):
        LuciaMiddleware(lambda environ, start_response: [], auth=wrong)
