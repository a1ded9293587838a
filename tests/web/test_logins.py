"""``login`` logs in the test client of each framework, as the framework itself makes it."""

import asyncio
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from http.cookiejar import DefaultCookiePolicy
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, Final, Literal
from uuid import UUID, uuid4

import fastapi.testclient
import flask
import httpx
import litestar.testing
import pytest
import quart
import starlette.testclient
from litestar.config.csrf import CSRFConfig
from quart.testing.connections import WebsocketResponseError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.websockets import WebSocket

import tests.support.django_site  # noqa: F401 -- sets up Django
from lucia import (
    AsyncAuth,
    AsyncAuthRequest,
    Auth,
    AuthRequest,
    Session,
    SessionCookie,
    User,
)
from lucia.adapters.memory import AsyncMemoryAdapter, MemoryAdapter
from lucia.middleware import asgi, wsgi
from lucia.middleware.fastapi import FastAPIAuth
from lucia.middleware.flask import FlaskAuth
from lucia.middleware.litestar import LitestarAuth
from lucia.middleware.quart import QuartAuth
from lucia.middleware.starlette import StarletteAuth
from lucia.testing import alogin, login
from tools.servers import path_of

# isort: split
from django.contrib.auth.models import User as DjangoUser
from django.http import HttpResponse
from django.test import AsyncClient, Client, override_settings
from django.urls import path

METHODS: Final = ("GET", "POST", "PUT")
EVIL: Final = "https://evil.example"


@dataclass(frozen=True)
class Options:
    """How an application and its client are made; by default as their framework makes them."""

    env: Literal["DEV", "PROD"] = "DEV"
    scheme: Literal["http", "https"] = "http"
    host: str | None = None
    domain: str | None = None

    def auth(self) -> Auth[User]:
        """Return the ``Auth`` of a sync application."""
        cookie = SessionCookie(domain=self.domain)
        return Auth(sessions=MemoryAdapter(), env=self.env, session_cookie=cookie)

    def async_auth(self) -> AsyncAuth[User]:
        """Return the ``AsyncAuth`` of an async application."""
        cookie = SessionCookie(domain=self.domain)
        return AsyncAuth(sessions=AsyncMemoryAdapter(), env=self.env, session_cookie=cookie)

    def base_url(self, host: str = "testserver", *, always: bool = False) -> dict[str, Any]:
        """Return the argument ``base_url``: ``always``, or if the client's own is another one."""
        if always or self.scheme == "https" or self.host is not None:
            return {"base_url": f"{self.scheme}://{self.host or host}"}
        return {}


class Site:
    """An application, its auth, and a client.

    GET responds with the user's id, POST signs out, PUT signs in "bert". A request from another
    site is refused with 403.

    Args:
        client: the client.
        auth: the application's auth.
        login_options: what ``login`` is called with.
        arguments: what each request is sent with.
    """

    def __init__(
        self, client: Any, auth: Any, login_options: dict[str, Any] | None = None, **arguments: Any
    ) -> None:
        self.client = client
        self.auth = auth
        self.login_options = login_options or {}
        self.arguments = arguments

    def log_in(self, user: object = "anna", **options: Any) -> Session[Any]:
        """Log the client in."""
        return login(self.client, self.auth, user, **{**self.login_options, **options})

    def send(self, method: str, **arguments: Any) -> tuple[int, str]:
        """Send a request, and return the status and the text of the response."""
        response = self.request(method)("/", **self.arguments, **arguments)
        return response.status_code, response.text

    def request(self, method: str) -> Callable[..., Any]:
        """Return the client's method for an HTTP method."""
        request: Callable[..., Any] = getattr(self.client, method.lower())
        return request

    def user(self) -> str:
        """Return the user whom the application sees; empty for a visitor."""
        status, text = self.send("GET")
        assert status == 200
        return text


class AsyncSite(Site):
    """The same for an async client, in an event loop of its own."""

    runner: asyncio.Runner

    def log_in(self, user: object = "anna", **options: Any) -> Session[Any]:
        """Log the client in."""
        given = {**self.login_options, **options}
        return self.runner.run(alogin(self.client, self.auth, user, **given))

    def send(self, method: str, **arguments: Any) -> tuple[int, str]:
        """Send a request, and return the status and the text of the response."""
        return self.runner.run(self._send(method, arguments))

    async def _send(self, method: str, arguments: dict[str, Any]) -> tuple[int, str]:
        response = await self.request(method)("/", **self.arguments, **arguments)
        is_quart = isinstance(response, quart.Response)
        text = await response.get_data(as_text=True) if is_quart else response.text
        return response.status_code, text


def act(request: AuthRequest[User], method: str) -> str:
    """Do what each sync application does."""
    if method == "POST":
        request.sign_out()
    elif method == "PUT":
        request.sign_in("bert")
    session = request.validate()
    return "" if session is None else session.user_id


async def aact(request: AsyncAuthRequest[User], method: str) -> str:
    """Do what each async application does."""
    if method == "POST":
        await request.sign_out()
    elif method == "PUT":
        await request.sign_in("bert")
    session = await request.validate()
    return "" if session is None else session.user_id


def starlette_app(auth: AsyncAuth[User]) -> Starlette:
    """Return a Starlette application."""
    web = StarletteAuth(auth, forbid_cross_site=True)

    async def endpoint(request: Request) -> PlainTextResponse:
        return PlainTextResponse(await aact(web.request(request), request.method))

    async def socket(socket: WebSocket) -> None:
        await socket.accept()
        await socket.send_text(await aact(web.request(socket), "GET"))
        await socket.close()

    app = Starlette(
        routes=[Route("/", endpoint, methods=METHODS), WebSocketRoute("/socket", socket)]
    )
    web.install(app)
    return app


@contextmanager
def starlette_site(options: Options) -> Iterator[Site]:
    """Yield a client outside of its ``with`` block."""
    auth = options.async_auth()
    yield Site(starlette.testclient.TestClient(starlette_app(auth), **options.base_url()), auth)


@contextmanager
def entered_starlette_site(options: Options) -> Iterator[Site]:
    """Yield a client within its ``with`` block."""
    with starlette_site(options) as site, site.client:
        yield site


@contextmanager
def fastapi_site(options: Options) -> Iterator[Site]:
    """Yield a client outside of its ``with`` block."""
    auth = options.async_auth()
    web = FastAPIAuth(auth, forbid_cross_site=True)
    app = fastapi.FastAPI()
    web.install(app)

    @app.api_route("/", methods=[*METHODS])
    async def endpoint(
        http: fastapi.Request,
        request: Annotated[AsyncAuthRequest[User], fastapi.Depends(web.request)],
    ) -> PlainTextResponse:
        return PlainTextResponse(await aact(request, http.method))

    yield Site(fastapi.testclient.TestClient(app, **options.base_url()), auth)


@contextmanager
def entered_fastapi_site(options: Options) -> Iterator[Site]:
    """Yield a client within its ``with`` block."""
    with fastapi_site(options) as site, site.client:
        yield site


def litestar_app(auth: AsyncAuth[User]) -> litestar.Litestar:
    """Return a Litestar application."""
    web = LitestarAuth(auth, forbid_cross_site=True, required=False)

    @litestar.route("/", http_method=[*METHODS], status_code=200, media_type="text/plain")
    async def endpoint(request: litestar.Request[Any, Any, Any]) -> str:
        return await aact(web.auth_request(request.scope), request.method)

    @litestar.websocket("/socket")
    async def handler(socket: litestar.WebSocket[Any, Any, Any]) -> None:
        await socket.accept()
        await socket.send_text(await aact(web.auth_request(socket.scope), "GET"))
        await socket.close()

    return litestar.Litestar([endpoint, handler], plugins=[web])


@contextmanager
def litestar_site(options: Options) -> Iterator[Site]:
    """Yield a client outside of its ``with`` block."""
    auth = options.async_auth()
    yield Site(
        litestar.testing.TestClient(litestar_app(auth), **options.base_url("testserver.local")),
        auth,
    )


@contextmanager
def entered_litestar_site(options: Options) -> Iterator[Site]:
    """Yield a client within its ``with`` block."""
    with litestar_site(options) as site, site.client:
        yield site


@contextmanager
def async_litestar_site(options: Options) -> Iterator[Site]:
    """Yield an async client within its ``async with`` block."""
    auth = options.async_auth()
    client = litestar.testing.AsyncTestClient(
        litestar_app(auth), **options.base_url("testserver.local")
    )
    site = AsyncSite(client, auth)
    with asyncio.Runner() as site.runner:
        site.runner.run(client.__aenter__())
        yield site
        site.runner.run(client.__aexit__(None, None, None))


@contextmanager
def asgi_site(options: Options) -> Iterator[Site]:
    """Yield a client of httpx for an ASGI application."""
    auth = options.async_auth()

    async def app(scope: asgi.Scope, receive: asgi.Receive, send: asgi.Send) -> None:
        body = await aact(asgi.auth_request(auth, scope), scope["method"])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body.encode()})

    transport = httpx.ASGITransport(asgi.LuciaMiddleware(app, auth=auth, forbid_cross_site=True))
    url = options.base_url(always=True)
    site = AsyncSite(httpx.AsyncClient(transport=transport, **url), auth)
    with asyncio.Runner() as site.runner:
        yield site


@contextmanager
def wsgi_site(options: Options) -> Iterator[Site]:
    """Yield a client of httpx for a WSGI application."""
    auth = options.auth()

    def app(environ: wsgi.Environ, start_response: wsgi.StartResponse) -> Iterable[bytes]:
        body = act(wsgi.auth_request(auth, environ), environ["REQUEST_METHOD"])
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [body.encode()]

    transport = httpx.WSGITransport(wsgi.LuciaMiddleware(app, auth=auth, forbid_cross_site=True))
    with httpx.Client(transport=transport, **options.base_url(always=True)) as client:
        yield Site(client, auth)


@contextmanager
def flask_site(options: Options) -> Iterator[Site]:
    """Yield a client of Flask."""
    auth = options.auth()
    app = flask.Flask(__name__)
    app.config.update(PREFERRED_URL_SCHEME=options.scheme, SERVER_NAME=options.host)
    web = FlaskAuth(auth, app, forbid_cross_site=True)

    @app.route("/", methods=METHODS)
    def view() -> str:
        return act(web.request(), flask.request.method)

    yield Site(app.test_client(), auth)


@contextmanager
def quart_site(options: Options) -> Iterator[Site]:
    """Yield a client of Quart."""
    auth = options.async_auth()
    app = quart.Quart(__name__)
    app.config.update(SERVER_NAME=options.host)
    web = QuartAuth(auth, app, forbid_cross_site=True)

    @app.route("/", methods=[*METHODS])
    async def view() -> str:
        return await aact(web.request(), quart.request.method)

    @app.websocket("/socket")
    async def socket() -> None:
        await quart.websocket.send(await aact(web.request(), "GET"))

    login_options = options.base_url("localhost") if options.scheme == "https" else {}
    site = AsyncSite(app.test_client(), auth, login_options, scheme=options.scheme)
    with asyncio.Runner() as site.runner:
        yield site


django_auth: Any = None
"""The ``Auth`` of the running test, which Django's settings name."""

django_async_auth: Any = None
"""Its ``AsyncAuth``."""


def view(request: Any) -> HttpResponse:
    """Respond as each application does."""
    return HttpResponse(act(request.lucia, request.method))


async def aview(request: Any) -> HttpResponse:
    """Respond as each application does."""
    lucia = request.lucia
    if request.method == "POST":
        await lucia.asign_out()
    elif request.method == "PUT":
        await lucia.asign_in("bert")
    session = await lucia.avalidate()
    return HttpResponse("" if session is None else session.user_id)


@contextmanager
def django_settings(options: Options, view: Any) -> Iterator[None]:
    """Let Django serve a view."""
    global django_auth, django_async_auth
    django_auth, django_async_auth = options.auth(), options.async_auth()
    urls: Any = ModuleType("urls_of_a_test")
    urls.urlpatterns = [path("", view)]
    auths = {"AUTH": f"{__name__}.django_auth", "ASYNC_AUTH": f"{__name__}.django_async_auth"}
    with override_settings(
        ALLOWED_HOSTS=["*"],
        LUCIA={**auths, "FORBID_CROSS_SITE": True},
        MIDDLEWARE=["lucia.middleware.django.LuciaMiddleware"],
        ROOT_URLCONF=urls,
    ):
        yield


@contextmanager
def django_site(options: Options) -> Iterator[Site]:
    """Yield Django's client."""
    is_https = options.scheme == "https"
    login_options = options.base_url() if is_https else {}
    with django_settings(options, view):
        yield Site(Client(), django_auth, login_options, secure=is_https)


@contextmanager
def async_django_site(options: Options) -> Iterator[Site]:
    """Yield Django's async client."""
    is_https = options.scheme == "https"
    login_options = options.base_url() if is_https else {}
    site = AsyncSite(AsyncClient(), None, login_options, secure=is_https)
    with django_settings(options, aview), asyncio.Runner() as site.runner:
        site.auth = django_async_auth
        yield site


Kind = Callable[[Options], AbstractContextManager[Site]]

BY_URL: Final[list[Kind]] = [
    starlette_site,
    entered_starlette_site,
    fastapi_site,
    entered_fastapi_site,
    litestar_site,
    entered_litestar_site,
    async_litestar_site,
    asgi_site,
    wsgi_site,
]
"""Clients with a base URL, whose cookies are a jar that knows what Secure is."""

KINDS: Final[list[Kind]] = [*BY_URL, flask_site, quart_site, django_site, async_django_site]


@pytest.fixture(params=KINDS, ids=lambda kind: kind.__name__)
def kind(request: pytest.FixtureRequest) -> Kind:
    """Return how the site of one kind of client is made."""
    found: Kind = request.param
    return found


@pytest.fixture
def site(kind: Kind) -> Iterator[Site]:
    """Yield a site with the defaults of its framework."""
    with kind(Options()) as site:
        yield site


def test_login(site: Site) -> None:
    """The client is logged in, and its POST, which was refused before, passes the origin check."""
    assert site.user() == ""
    assert site.send("POST")[0] == 403
    session = site.log_in(browser="tests")
    assert (session.user_id, dict(session.metadata)) == ("anna", {"browser": "tests"})
    assert site.user() == "anna"
    assert site.send("POST") == (200, "")
    assert site.user() == ""


def test_cookies_of_responses(site: Site) -> None:
    """The application's own cookies replace and clear the one that ``login`` gave."""
    site.log_in()
    assert site.send("PUT") == (200, "bert")
    assert site.user() == "bert"
    assert site.send("POST") == (200, "")
    assert site.user() == ""
    assert site.send("PUT") == (200, "bert")
    assert site.user() == "bert"


def test_second_login(site: Site) -> None:
    """A second login replaces the first one, of which no cookie is left."""
    site.log_in()
    site.log_in("bert")
    assert site.user() == "bert"
    assert site.send("POST") == (200, "")
    assert site.user() == ""


def test_origin_of_a_request(site: Site) -> None:
    """An Origin header of a single request replaces that of ``login``, for this request."""
    site.log_in()
    assert site.send("POST", headers={"Origin": EVIL})[0] == 403
    assert site.user() == "anna"
    assert site.send("POST")[0] == 200


def give_headers(client: Any) -> None:
    """Give an Origin header to a client that has headers."""
    client.headers["Origin"] = EVIL


def give_environ(client: Any) -> None:
    """Give it to Flask's client."""
    client.environ_base["HTTP_ORIGIN"] = EVIL


def give_defaults(client: Any) -> None:
    """Give it to a client of Django as ``Client(headers={"origin": …})`` does."""
    client.defaults["HTTP_ORIGIN"] = EVIL


def give_lower_case(client: Any) -> None:
    """Give it to a client of Django as ``AsyncClient(origin=…)`` does."""
    client.defaults["origin"] = EVIL


@pytest.mark.parametrize(
    ("kind", "give"),
    [
        *((kind, give_headers) for kind in BY_URL),
        (flask_site, give_environ),
        (django_site, give_defaults),
        (async_django_site, give_defaults),
        (async_django_site, give_lower_case),
    ],
)
def test_origin_of_the_client(site: Site, give: Callable[[Any], None]) -> None:
    """An Origin header that the client has already is kept."""
    give(site.client)
    site.log_in()
    assert site.send("POST")[0] == 403
    assert site.user() == "anna"


def test_production_by_https(kind: Kind) -> None:
    """With ``env="PROD"`` a client that uses https is logged in."""
    with kind(Options("PROD", "https")) as site:
        site.log_in()
        assert site.user() == "anna"
        assert site.send("PUT") == (200, "bert")
        assert site.send("POST") == (200, "")
        assert site.user() == ""


@pytest.mark.parametrize("kind", BY_URL)
def test_production_by_http(kind: Kind) -> None:
    """With ``env="PROD"`` the error says that the client's URL has to begin with https."""
    with kind(Options("PROD")) as site, pytest.raises(ValueError, match="begin with https://"):
        site.log_in()


@pytest.mark.parametrize("kind", [flask_site, quart_site, django_site, async_django_site])
def test_secure_cookies_by_http(kind: Kind) -> None:
    """Clients that send Secure cookies by http too are logged in."""
    with kind(Options("PROD")) as site:
        site.log_in()
        assert site.user() == "anna"
        assert site.send("POST") == (200, "")
        assert site.user() == ""


@pytest.mark.parametrize("kind", [*BY_URL, flask_site, quart_site])
def test_domain(kind: Kind) -> None:
    """A cookie for a domain is given to a client of a subdomain, and replaced by responses."""
    with kind(Options(host="app.example.com", domain="example.com")) as site:
        site.log_in()
        assert site.user() == "anna"
        assert site.send("PUT") == (200, "bert")
        assert site.send("POST") == (200, "")
        assert site.user() == ""


@pytest.mark.parametrize("kind", [*BY_URL, flask_site, quart_site])
def test_another_domain(kind: Kind) -> None:
    """A cookie for the domain of another host is refused, whatever other cookies there are."""
    with kind(Options(domain="example.com")) as site:
        if kind in BY_URL:
            site.client.cookies.set("my_auth_session", "1")
        with pytest.raises(ValueError, match="its domain"):
            site.log_in()


@pytest.mark.parametrize("kind", [django_site, async_django_site])
def test_any_domain(kind: Kind) -> None:
    """Django's clients, which do not look at domains, are logged in."""
    with kind(Options(domain="example.com")) as site:
        site.log_in()
        assert site.user() == "anna"
        assert site.send("POST") == (200, "")
        assert site.user() == ""


@pytest.mark.parametrize(
    "arguments", [{"SERVER_NAME": "app.test"}, {"headers": {"host": "app.test"}}]
)
def test_host_of_django(arguments: Any) -> None:
    """The origin is that of the host to which Django's client sends its requests."""
    with django_site(Options()) as site:
        site.client = Client(**arguments)
        site.log_in()
        assert site.client.defaults["HTTP_ORIGIN"] == "http://app.test"
        assert site.send("POST") == (200, "")


def test_path() -> None:
    """A cookie for a path is sent below it."""
    cookie = SessionCookie(path="/app")
    auth: AsyncAuth[User] = AsyncAuth(
        sessions=AsyncMemoryAdapter(), env="DEV", session_cookie=cookie
    )
    app = Starlette(routes=[Mount("/app", starlette_app(auth))])
    with starlette.testclient.TestClient(app) as client:
        login(client, auth, "anna")
        assert client.get("/app/").text == "anna"


def test_policy_of_the_client() -> None:
    """A client that accepts no cookies is refused."""
    with starlette_site(Options()) as site:
        site.client.cookies.jar.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        with pytest.raises(ValueError, match="own policy"):
            site.log_in()


@pytest.mark.parametrize("kind", [flask_site, quart_site])
def test_without_cookies(kind: Kind) -> None:
    """A client of Flask or Quart that was made without cookies is refused."""
    with kind(Options()) as site:
        app = getattr(site.client, "application", None) or site.client.app
        site.client = app.test_client(use_cookies=False)
        with pytest.raises(TypeError, match="cookies"):
            site.log_in()


def test_given_url() -> None:
    """``base_url`` takes precedence over that of the client, and has to be a URL."""
    with flask_site(Options()) as site:
        site.log_in(base_url="http://app.test:8000")
        site.arguments = {"base_url": "http://app.test:8000"}
        assert site.user() == "anna"
        assert site.send("POST") == (200, "")
        with pytest.raises(ValueError, match=r"such as 'http://testserver', not 'app.test'"):
            site.log_in(base_url="app.test")


def test_no_url() -> None:
    """A client without a URL needs ``base_url``."""
    with pytest.raises(
        ValueError, match=r"no base_url: give login .* base_url='http://testserver'"
    ):
        login(httpx.Client(), Options().auth(), "anna")


# WebSockets


@pytest.mark.parametrize("kind", [starlette_site, entered_starlette_site, entered_litestar_site])
def test_websocket(site: Site) -> None:
    """A WebSocket is logged in too, and passes the origin check."""
    site.log_in()
    with site.client.websocket_connect("/socket") as socket:
        assert socket.receive_text() == "anna"


def test_websocket_of_quart() -> None:
    """A WebSocket of Quart's client is logged in, and may have another Origin."""

    async def connect(client: Any, **arguments: Any) -> str:
        async with client.websocket("/socket", **arguments) as socket:
            received: str = await socket.receive()
            return received

    with quart_site(Options()) as site:
        assert isinstance(site, AsyncSite)
        site.log_in()
        assert site.runner.run(connect(site.client)) == "anna"
        with pytest.raises(WebsocketResponseError):
            site.runner.run(connect(site.client, headers={"origin": EVIL}))


# Users


@dataclass(frozen=True)
class Member:
    """A user of an application's own type."""

    user_id: UUID


def test_users() -> None:
    """In place of the id, the library's User and an application's own user may be given."""
    auth = Options().auth()
    client = httpx.Client(base_url="http://testserver")
    assert login(client, auth, User("anna")).user_id == "anna"
    assert login(client, auth, auth.create_session("bert")).user_id == "bert"
    by_uuid = Auth(sessions=MemoryAdapter(), env="DEV", user_id=UUID)
    member = Member(uuid4())
    assert login(client, by_uuid, member).user_id == member.user_id
    assert login(client, by_uuid, member.user_id).user_id == member.user_id


def test_user_of_django() -> None:
    """An instance of Django's model of users may be given."""
    auth = Auth(sessions=MemoryAdapter(), env="DEV", user_id=int)
    assert login(Client(), auth, DjangoUser(pk=7)).user_id == 7


def test_wrong_type_of_user() -> None:
    """A user's id of another type is refused, by the type checkers too."""
    auth = Options().auth()
    client = httpx.Client(base_url="http://testserver")
    with pytest.raises(TypeError, match="user_id must be a str, not int"):
        login(client, auth, 7)  # type: ignore[misc]  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match="user_id must be a str, not UUID"):
        login(client, auth, Member(uuid4()))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match="user_id must be a str, not int"):
        login(client, auth, DjangoUser(pk=7))
    with pytest.raises(TypeError, match="user_id must be a str, not object"):
        login(client, auth, object())  # type: ignore[misc]  # pyright: ignore[reportArgumentType]
    assert list(client.cookies.jar) == []


# Mistakes


@pytest.mark.parametrize("base_url", [None, "http://testserver"])
async def test_unknown_client(base_url: str | None) -> None:
    """A client of another kind is a TypeError that names the known ones; nobody is logged in."""
    auth, async_auth = Options().auth(), Options().async_auth()
    message = (
        "to object: it knows the test clients of Starlette, FastAPI, Litestar, Flask, Quart and "
        "Django, httpx and requests"
    )
    with pytest.raises(TypeError, match=message):
        login(object(), auth, "anna", base_url=base_url)
    with pytest.raises(TypeError, match=message):
        await alogin(object(), async_auth, "anna", base_url=base_url)
    assert auth.get_all_user_sessions("anna") == []
    assert await async_auth.get_all_user_sessions("anna") == []


async def test_running_loop() -> None:
    """An AsyncAuth can't be used by ``login`` within an event loop: the error names ``alogin``."""
    auth = Options().async_auth()
    client = httpx.AsyncClient(base_url="http://testserver")
    with pytest.raises(RuntimeError, match=r"write 'await alogin\(client, auth, user\)'"):
        login(client, auth, "anna")
    assert (await alogin(client, auth, "anna")).user_id == "anna"


async def test_sync_auth_in_a_loop() -> None:
    """An Auth can be used by ``login`` within an event loop."""
    assert login(AsyncClient(), Options().auth(), "anna").user_id == "anna"


def test_wrong_auth() -> None:
    """An object that is no auth, such as an integration, is refused."""
    web: Any = FlaskAuth(Options().auth())
    with pytest.raises(TypeError, match="auth must be an Auth or an AsyncAuth, not FlaskAuth"):
        login(flask.Flask(__name__).test_client(), web, "anna")


# What docs/testing.md says


PAGE: Final = Path(__file__).parents[2].joinpath("docs/testing.md").read_text(encoding="utf-8")
FILES: Final[dict[str, str]] = dict(re.findall(r"(?ms)^```py\n# (\S+\.py)\n(.*?)^```$", PAGE))

DJANGO_SETTINGS: Final = """
SECRET_KEY = "of nobody"
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
INSTALLED_APPS = ["django.contrib.auth", "django.contrib.contenttypes", "lucia.adapters.django"]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
MIDDLEWARE = ["lucia.middleware.django.LuciaMiddleware"]
LUCIA = {"AUTH": "accounts.auth.auth"}
ROOT_URLCONF = "urls"
"""
DJANGO_URLS: Final = """
from django.urls import include, path

urlpatterns = [path("auth/", include("lucia.middleware.django.urls"))]
"""
DJANGO_AUTH: Final = """
from lucia import Auth
from lucia.adapters.django import DjangoUserAdapter
from lucia.adapters.memory import MemoryAdapter

auth = Auth(users=DjangoUserAdapter(), sessions=MemoryAdapter(), user_id=int, env="DEV")
"""


def run_tests(folder: Path, files: dict[str, str], *command: str) -> str:
    """Write files into a folder, run tests there, and return what they print."""
    for name, text in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-5_000:]
    return done.stdout


def test_files_of_the_page(tmp_path: Path) -> None:
    """The fixtures and tests of the page pass, with pytest-redis too."""
    (application,) = re.findall(r"(?ms)^```python\n(.*?^    return app\n)", PAGE)
    pytest_files = {name: text for name, text in FILES.items() if "/" not in name}
    assert sorted(pytest_files) == ["conftest.py", "test_sessions.py", "test_shop.py"]
    # pytest-asyncio is not on the page; it warns unless it is configured.
    options = ("-q", "-p", "no:asyncio", f"--redis-exec={path_of('redis-server')}")
    printed = run_tests(tmp_path, {"shop.py": application, **pytest_files}, "pytest", *options)
    assert "4 passed" in printed


def test_django_file_of_the_page(tmp_path: Path) -> None:
    """The tests of the page pass in a project of Django."""
    files = {
        "settings.py": DJANGO_SETTINGS,
        "urls.py": DJANGO_URLS,
        "accounts/__init__.py": "",
        "accounts/auth.py": DJANGO_AUTH,
        "accounts/tests.py": FILES["accounts/tests.py"],
    }
    printed = run_tests(tmp_path, files, "django", "test", "--settings", "settings", "accounts")
    assert "Ran 2 tests" in printed


def test_token_of_litestar() -> None:
    """With Litestar's CSRF protection, a POST needs the value of the cookie that a GET has set."""
    auth = Options().async_auth()
    web = LitestarAuth(auth)
    app = litestar.Litestar([web.router("/auth")], plugins=[web], csrf_config=CSRFConfig("secret"))
    with litestar.testing.TestClient(app) as client:
        login(client, auth, "anna")
        client.get("/auth/login")
        assert client.post("/auth/logout").status_code == 403
        headers = {"x-csrftoken": client.cookies["csrftoken"]}
        assert client.post("/auth/logout", headers=headers).status_code == 204


@pytest.mark.parametrize(("is_enabled", "status"), [(True, 400), (False, 204)])
def test_token_of_flask_wtf(is_enabled: bool, status: int) -> None:
    """Flask-WTF's CSRF protection can be turned off for tests."""
    auth = Options().auth()
    app = flask.Flask(__name__)
    app.config.update(SECRET_KEY="of nobody", WTF_CSRF_ENABLED=is_enabled)
    protect: Any = import_module("flask_wtf.csrf").CSRFProtect  # it has no types
    protect(app)
    app.register_blueprint(FlaskAuth(auth, app).blueprint(url_prefix="/auth"))
    client = app.test_client()
    login(client, auth, "anna")
    assert client.post("/auth/logout").status_code == status
