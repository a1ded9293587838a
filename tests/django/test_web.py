"""The middleware for Django: cookies on every response, and one ``request.lucia`` for all code."""

import asyncio
import gc
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib import import_module
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.core.exceptions import ImproperlyConfigured, SynchronousOnlyOperation
from django.core.handlers.asgi import ASGIRequest
from django.http import Http404, HttpRequest, HttpResponse, StreamingHttpResponse
from django.shortcuts import redirect
from django.test import AsyncRequestFactory, RequestFactory, override_settings
from django.urls import path
from django.utils.cache import patch_vary_headers
from django.utils.decorators import sync_and_async_middleware

from lucia import (
    DuplicateKeyId,
    InvalidInput,
    InvalidPassword,
    InvalidRequest,
    InvalidSessionId,
    LuciaError,
    NotAuthenticated,
    PrimaryKey,
    RequestUnauthorized,
    StoreUnavailable,
    TooManyAttempts,
    UsersNotConfigured,
)
from lucia.middleware.django import (
    DjangoAuthRequest,
    LuciaHttpRequest,
    LuciaMiddleware,
    login_required,
)
from lucia.middleware.django.request import DjangoExchange
from tests.support.django_site_web import MIDDLEWARE, NAME, ORIGIN, PASSWORD, Site, site

__all__ = ["site"]

HTML = "text/html,application/xhtml+xml"
EVIL = {"HTTP_ORIGIN": "https://evil.example"}


def who(request: Any) -> HttpResponse:
    """Respond with the id of the session's user."""
    session = request.lucia.validate()
    return HttpResponse(str(session and session.user_id))


async def awho(request: Any) -> HttpResponse:
    """Respond with the id of the session's user, by async code."""
    session = await request.lucia.avalidate()
    return HttpResponse(str(session and session.user_id))


def raising(error: Exception) -> Callable[..., HttpResponse]:
    """Return a view that raises this error."""

    def view(request: HttpRequest) -> HttpResponse:
        raise error

    return view


def cookies(response: Any) -> list[str]:
    """Return the values of the session cookie that a response sets."""
    return [response.cookies[NAME].value] if NAME in response.cookies else []


# Responses


def returned(request: Any) -> Any:
    """Return a response with headers of its own."""
    request.lucia.validate()
    response = HttpResponse("a", headers={"Cache-Control": "public, max-age=60"})
    response.set_cookie("own", "1")
    patch_vary_headers(response, ["Accept-Language"])
    return response


def streamed(request: Any) -> Any:
    """Return a streamed response."""
    request.lucia.validate()
    return StreamingHttpResponse([b"a", b"b"])


def redirected(request: Any) -> Any:
    """Return a redirect."""
    request.lucia.validate()
    return redirect("/elsewhere")


def missed(request: Any) -> Any:
    """Raise an error that Django answers."""
    request.lucia.validate()
    raise Http404


def refused(request: Any) -> Any:
    """Raise an error that the library answers."""
    request.lucia.validate()
    raise RequestUnauthorized


def crashed(request: Any) -> Any:
    """Raise an unexpected error."""
    request.lucia.validate()
    raise ZeroDivisionError


@pytest.mark.parametrize(
    ("view", "status"),
    [
        (returned, 200),
        (streamed, 200),
        (redirected, 302),
        (missed, 404),
        (refused, 403),
        (crashed, 500),
    ],
)
def test_the_cookie_is_on_every_kind_of_response(
    site: Site, view: Callable[[Any], Any], status: int
) -> None:
    """Every kind of response carries the cookie of a renewed session, beside its own headers."""
    site.serve(view)
    session = site.idle_session()
    client = site.client(session)
    response = client.get("/")
    assert response.status_code == status
    (renewed,) = cookies(response)
    assert renewed not in ("", session.session_id)
    assert response.headers["Cache-Control"] == "no-store"
    own = {"own", "Accept-Language"} if view is returned else set()
    assert {*response.cookies, *response.headers["Vary"].split(", ")} == {NAME, "Cookie", *own}
    again = client.get("/")
    assert cookies(again) == []
    assert again.headers.get("Cache-Control") == (
        "public, max-age=60" if view is returned else None
    )


def test_a_404_carries_the_cookie_of_a_middleware_further_down(site: Site) -> None:
    """Every middleware below may ask for the session, also where no view is found."""
    site.serve(middleware=[*MIDDLEWARE, f"{__name__}.asking"])
    session = site.idle_session()
    response = site.client(session).get("/nowhere")
    assert response.status_code == 404
    assert cookies(response) not in ([], [session.session_id])


@sync_and_async_middleware
def asking(get_response: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Make a middleware that asks for the session."""
    if asyncio.iscoroutinefunction(get_response):

        async def amiddleware(request: Any) -> Any:
            await request.lucia.avalidate()
            return await get_response(request)

        return amiddleware

    def middleware(request: Any) -> Any:
        request.lucia.validate()
        return get_response(request)

    return middleware


def test_the_attributes_of_the_cookie(site: Site) -> None:
    """The cookie has the attributes that Auth says; the one that clears it differs in its value."""

    def view(request: Any) -> HttpResponse:
        if request.method == "POST":
            request.lucia.sign_in(1)
        else:
            request.lucia.sign_out()
        return HttpResponse()

    site.serve(view)
    client = site.client()
    made = client.post("/").cookies[NAME]
    assert (made["httponly"], made["samesite"], made["path"]) == (True, "Lax", "/")
    assert (made["secure"], made["domain"], made["max-age"]) == ("", "", "")
    assert site.is_live(made.value)
    cleared = client.get("/").cookies[NAME]
    assert (cleared.value, cleared["expires"][:16]) == ("", "Thu, 01 Jan 1970")
    assert cleared.OutputString().startswith(f"{NAME}=; ")
    assert not site.is_live(made.value)


def test_a_route_that_does_not_ask(site: Site) -> None:
    """A view that does not ask who it is costs no read, and renews nothing."""
    site.serve(lambda request: HttpResponse())
    session = site.idle_session()
    assert cookies(site.client(session).get("/")) == []
    assert site.reads == []


def test_no_cookie_after_the_response_has_started(site: Site) -> None:
    """While a response is streamed, an idle session stays as it is, and nobody can sign in."""
    found: list[object] = []

    def view(request: Any) -> StreamingHttpResponse:
        def parts() -> Iterator[bytes]:
            found.append(request.lucia.validate().state)
            with pytest.raises(RuntimeError, match="has started"):
                request.lucia.sign_in(2)
            yield b"a"

        return StreamingHttpResponse(parts())

    site.serve(view)
    response: Any = site.client(site.idle_session()).get("/")
    assert b"".join(response) == b"a"
    assert (found, cookies(response)) == (["idle"], [])


@pytest.mark.parametrize(
    "cookie",
    ["", ";;=;", NAME, f"{NAME}=", f"{NAME}={'a' * 41}", f"{NAME}=\xe4\xff", "x=" + "a" * 100_000],
)
def test_a_hostile_cookie_is_a_visitor(site: Site, cookie: str) -> None:
    """No text of a Cookie header is an error, and none logs anybody in."""
    site.serve(who)
    response = site.client().get("/", HTTP_COOKIE=cookie)
    assert (response.status_code, response.content, cookies(response)) == (200, b"None", [])


def test_a_planted_cookie_is_skipped(site: Site) -> None:
    """A malformed cookie of the same name, sent before the session's, does not hide it."""
    site.serve(who)
    value = f"{NAME}=planted; theme=dark; {NAME}={site.log_in(7).session_id}"
    assert site.client().get("/", HTTP_COOKIE=value).content == b"7"


def test_two_headers_of_one_name(site: Site) -> None:
    """Two Cookie headers never log in somebody else, and two Origin headers are refused."""
    site.serve(who)
    one, other = (f"{NAME}={site.log_in(user).session_id}" for user in (1, 2))
    assert site.client().get("/", HTTP_COOKIE=f"{one},{other}").content == b"None"
    site.serve(who, FORBID_CROSS_SITE=True)
    both = f"{ORIGIN},https://evil.example"
    assert site.client(HTTP_ORIGIN=both).post("/").status_code == 403


# Sync and async code


def test_async_views_by_wsgi(site: Site) -> None:
    """Under WSGI async code uses the sync Auth: each view has an event loop of its own."""
    site.serve(awho)
    response = site.client(site.log_in(7)).get("/")
    assert (response.content, site.reads) == (b"7", ["sync"])


async def test_async_views_by_asgi(site: Site) -> None:
    """Under ASGI async code uses the AsyncAuth."""
    site.serve(awho)
    response = await site.async_client(site.idle_session(7)).get("/")
    assert (response.content, len(cookies(response))) == (b"7", 1)
    assert set(site.reads) == {"async"}


async def test_sync_views_by_asgi(site: Site) -> None:
    """Under ASGI sync code uses the sync Auth, in Django's thread."""
    site.serve(who)
    response = await site.async_client(site.idle_session(7)).get("/")
    assert (response.content, len(cookies(response))) == (b"7", 1)
    assert set(site.reads) == {"sync"}


async def test_without_an_async_auth(site: Site) -> None:
    """Without an AsyncAuth the async methods call the sync Auth in Django's thread."""
    site.serve(awho, ASYNC_AUTH=None)
    response = await site.async_client(site.log_in(7)).get("/")
    assert (response.content, site.reads) == (b"7", ["sync"])


async def test_the_middleware_is_async(site: Site) -> None:
    """In an async stack the middleware is async: no thread waits for the response."""
    site.serve()

    async def get_response(request: HttpRequest) -> HttpResponse:
        return HttpResponse(str(asyncio.get_running_loop() is loop))

    loop = asyncio.get_running_loop()
    response = await LuciaMiddleware(get_response)(AsyncRequestFactory().get("/"))
    assert response.content == b"True"


CALLS = ["validate", "validate_user", "renew"]


@pytest.mark.parametrize("is_async_first", [False, True])
@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("has_async_auth", [False, True])
async def test_code_of_both_kinds_shares_what_was_found(
    site: Site, anna: Any, name: str, is_async_first: bool, has_async_auth: bool
) -> None:
    """Sync and async code know what the other has found: one read serves both."""

    async def view(request: Any) -> HttpResponse:
        sync = sync_to_async(getattr(request.lucia, name))
        asynchronous = getattr(request.lucia, f"a{name}")
        first = await (asynchronous if is_async_first else sync)()
        if name != "renew":
            assert await (sync if is_async_first else asynchronous)() == first
        sessions = [await request.lucia.avalidate(), await sync_to_async(request.lucia.validate)()]
        assert sessions[0] == sessions[1] is not None
        return HttpResponse(sessions[0].session_id)

    site.serve(view, ASYNC_AUTH=f"{Site.__module__}.async_auth" if has_async_auth else None)
    idle = site.idle_session(anna.user_id)
    response = await site.async_client(idle).get("/")
    assert response.status_code == 200
    assert cookies(response) == [response.content.decode()] != [idle.session_id]
    assert site.reads == ["async" if is_async_first and has_async_auth else "sync"]


@pytest.fixture
def anna(site: Site) -> Any:
    """Return a user who logs in with a key."""
    key = PrimaryKey("username", "anna", PASSWORD)
    return site.auth.create_user(primary_key=key, attributes={"username": "anna"})


KEY = ("username", "anna", PASSWORD)


@pytest.mark.parametrize("is_async_first", [False, True])
@pytest.mark.parametrize("has_async_auth", [False, True])
async def test_code_of_both_kinds_shares_a_login(
    site: Site, anna: Any, is_async_first: bool, has_async_auth: bool
) -> None:
    """Sync and async code know what the other has done, through a whole visit."""
    seen: list[object] = []

    async def view(request: Any) -> HttpResponse:
        lucia = request.lucia

        def call(name: str, *args: Any, turn: bool = False, **kwargs: Any) -> Any:
            if is_async_first is turn:
                return sync_to_async(getattr(lucia, name))(*args, **kwargs)
            return getattr(lucia, f"a{name}")(*args, **kwargs)

        async def everybody() -> list[Any]:
            found = [await call("validate", turn=turn) for turn in (True, False)]
            found += [await call("validate_user", turn=turn) for turn in (True, False)]
            return [each and (each.user_id if i < 2 else each.user) for i, each in enumerate(found)]

        assert await everybody() == [None] * 4
        signed_in = await call("sign_in", anna.user_id, browser="a")
        assert signed_in.metadata == {"browser": "a"}
        seen.append(await everybody())
        await call("sign_out", turn=True)
        seen.append(await everybody())
        by_key = await call("sign_in_with_key", *KEY, browser="b")
        seen.append(await everybody())
        lucia.set_session(None)
        seen.append(await everybody())
        lucia.set_session(by_key)
        seen.append(await everybody())
        return HttpResponse(by_key.session_id)

    site.serve(view, ASYNC_AUTH=f"{Site.__module__}.async_auth" if has_async_auth else None)
    response = await site.async_client().post("/")
    assert response.status_code == 200
    logged_in = [anna.user_id] * 2 + [anna] * 2
    assert seen == [logged_in, [None] * 4, logged_in, [None] * 4, logged_in]
    assert cookies(response) == [response.content.decode()]


async def test_code_of_both_kinds_at_once(site: Site, anna: Any) -> None:
    """Code of both kinds that asks at the same time gets the same session."""

    async def view(request: Any) -> HttpResponse:
        lucia = request.lucia
        both = await asyncio.gather(
            lucia.avalidate_user(), sync_to_async(lucia.validate_user)(), lucia.avalidate()
        )
        assert both[0] == both[1]
        assert both[2] == both[0].session
        return HttpResponse(both[2].session_id)

    site.serve(view)
    response = await site.async_client(site.idle_session(anna.user_id)).get("/")
    assert response.status_code == 200
    assert cookies(response) == [response.content.decode()]


async def test_sync_methods_do_not_block_the_event_loop(site: Site) -> None:
    """A sync method in an async view is refused, and the error says what to call."""

    async def view(request: Any) -> HttpResponse:
        for call in (
            request.lucia.validate,
            request.lucia.validate_user,
            request.lucia.renew,
            request.lucia.sign_out,
            lambda: request.lucia.sign_in(1),
            lambda: request.lucia.sign_in_with_key(*KEY),
        ):
            with pytest.raises(SynchronousOnlyOperation, match=r"request\.lucia\.avalidate\(\)"):
                call()
        return HttpResponse("done")

    site.serve(view)
    assert (await site.async_client().post("/")).content == b"done"


async def test_a_forgotten_await_lets_nobody_in(site: Site) -> None:
    """A method that was not awaited has no truth value."""

    async def view(request: Any) -> HttpResponse:
        for name in ("avalidate", "avalidate_user", "arenew"):
            with pytest.raises(TypeError, match=f"await {name}"):
                bool(getattr(request.lucia, name)())
        return HttpResponse("done")

    site.serve(view)
    assert (await site.async_client().get("/")).content == b"done"


# The request


def meta(**headers: str) -> DjangoExchange:
    """Return the exchange of a request with these members of META."""
    factory: Any = RequestFactory()
    return DjangoExchange(factory.post("/a?b=c", **headers))


def test_the_url_of_a_request(site: Site) -> None:
    """The URL has the scheme and the host that Django's settings say."""
    assert meta().url == "http://testserver/"
    assert meta(HTTP_HOST="testserver:8000").url == "http://testserver:8000/"
    proxy = {"HTTP_X_FORWARDED_PROTO": "https", "HTTP_X_FORWARDED_HOST": "shop.example"}
    assert meta(**proxy).url == "http://testserver/"
    with override_settings(
        SECURE_PROXY_SSL_HEADER=("HTTP_X_FORWARDED_PROTO", "https"),
        USE_X_FORWARDED_HOST=True,
        ALLOWED_HOSTS=["shop.example"],
    ):
        assert meta(**proxy).url == "https://shop.example/"


def test_a_host_that_is_not_allowed(site: Site) -> None:
    """A host that ALLOWED_HOSTS forbids is no own origin, and no error of the library's."""
    assert meta(HTTP_HOST="evil.example").url == "http:///"
    site.serve(who, middleware=["lucia.middleware.django.LuciaMiddleware"])
    session = site.log_in(7)
    evil = {"HTTP_HOST": "evil.example", "HTTP_ORIGIN": "http://evil.example"}
    assert site.client(session).post("/", **evil).content == b"None"
    assert site.client(session).get("/", **evil).content == b"7"


def test_the_address_of_a_client(site: Site) -> None:
    """The address is the one that the server knows, or none."""
    assert meta(REMOTE_ADDR="203.0.113.9").client_address == "203.0.113.9"
    assert meta(REMOTE_ADDR="").client_address is None


async def test_requests_leave_no_garbage(site: Site) -> None:
    """A request behind the middleware is freed at once, without the garbage collector."""
    site.serve(middleware=["lucia.middleware.django.LuciaMiddleware"])

    def get_response(request: Any) -> HttpResponse:
        return HttpResponse(repr(request.lucia))

    async def aget_response(request: Any) -> HttpResponse:
        await request.lucia.avalidate()
        return HttpResponse(repr(request.lucia))

    middleware, amiddleware = LuciaMiddleware(get_response), LuciaMiddleware(aget_response)
    gc.collect()
    gc.disable()
    try:
        assert middleware(RequestFactory().get("/")).content == b"<DjangoAuthRequest GET cookie>"
        await amiddleware(AsyncRequestFactory().get("/"))
        left = [each for each in gc.get_objects() if type(each) is DjangoAuthRequest]
    finally:
        gc.enable()
    assert left == []


# Cross-site requests


def test_the_origin_check(site: Site) -> None:
    """A request of another site is a visitor's, and can't log in; or it gets 403."""

    def view(request: Any) -> HttpResponse:
        failure = request.lucia.origin_failure
        assert (failure is None) is (request.lucia.validate() is not None)
        request.lucia.sign_out()
        return HttpResponse()

    site.serve(view)
    session = site.log_in()
    assert site.client(session).post("/", **EVIL).status_code == 403
    assert site.is_live(session.session_id)
    assert site.client(session).post("/").status_code == 200
    assert not site.is_live(session.session_id)


@pytest.mark.parametrize("accept", ["*/*", HTML])
def test_forbidding_cross_site_requests(site: Site, accept: str) -> None:
    """Such a request is refused before the view runs, as JSON or by Django's own page."""
    site.serve(who, FORBID_CROSS_SITE=True)
    asynchronous = site.async_client(origin="https://evil.example", accept=accept)
    for response in (
        site.client().post("/", HTTP_ACCEPT=accept, **EVIL),
        asyncio.run(asynchronous.post("/")),
    ):
        assert response.status_code == 403
        if accept == HTML:
            assert b"<h1>403 Forbidden</h1>" in response.content
        else:
            assert response.json() == {"detail": "This request comes from another site."}
    assert site.client(**EVIL).get("/").status_code == 200
    assert site.client().post("/").status_code == 200


def test_bearer_tokens(site: Site) -> None:
    """A bearer token is a session too, and needs no origin; no cookie is read or set."""

    def view(request: Any) -> HttpResponse:
        return HttpResponse(f"{request.lucia.uses_cookies} {who(request).content.decode()}")

    site.serve(view, TRANSPORT="both")
    session = site.idle_session(7)
    token = {"HTTP_AUTHORIZATION": f"Bearer {session.session_id}"}
    response = site.client(HTTP_ORIGIN="https://evil.example").post("/", **token)
    assert (response.content, cookies(response)) == (b"False 7", [])
    assert site.client(session).post("/").content == b"True 7"
    site.serve(view, TRANSPORT="bearer")
    assert site.client(session).post("/").content == b"False None"


# Errors


@pytest.mark.parametrize(
    ("error", "status", "headers"),
    [
        (NotAuthenticated(), 401, {"WWW-Authenticate": "APIKey"}),
        (InvalidSessionId(), 401, {"WWW-Authenticate": "APIKey"}),
        (InvalidPassword(), 401, {"WWW-Authenticate": "APIKey"}),
        (InvalidRequest(), 403, {}),
        (DuplicateKeyId(), 409, {}),
        (InvalidInput("too short"), 422, {}),
        (TooManyAttempts(retry_after=9), 429, {"Retry-After": "9"}),
        (StoreUnavailable(), 503, {"Retry-After": "1"}),
    ],
)
def test_an_error_that_a_view_does_not_catch(
    site: Site, error: LuciaError, status: int, headers: dict[str, str]
) -> None:
    """Each of the library's errors has a response: JSON for clients, and a page for browsers."""
    site.serve(raising(error))
    for response in (site.client().get("/"), asyncio.run(site.async_client().get("/"))):
        assert response.status_code == status
        assert headers.items() <= dict(response.headers).items()
        assert list(response.json()) == ["detail"]
    page = site.client().get("/", HTTP_ACCEPT=HTML)
    if isinstance(error, NotAuthenticated):
        assert (page.status_code, page.headers["Location"]) == (303, "/accounts/login/?next=/")
        return
    assert page.status_code == status
    assert headers.items() <= dict(page.headers).items()
    kind = "text/html" if status == 403 else "text/plain"
    assert page.headers["Content-Type"] == f"{kind}; charset=utf-8"
    assert status == 403 or page.content.decode() == response.json()["detail"]


def test_errors_of_the_server(site: Site) -> None:
    """An error that no client can help is Django's 500."""
    for error in (UsersNotConfigured(), ZeroDivisionError()):
        site.serve(raising(error))
        assert site.client().get("/").status_code == 500


def test_a_view_may_catch_the_error(site: Site) -> None:
    """An error that a view catches is the view's matter."""

    def view(request: Any) -> HttpResponse:
        with suppress(InvalidSessionId):
            site.auth.get_session("a" * 40)
        return HttpResponse("caught")

    site.serve(view)
    assert site.client().get("/").content == b"caught"


def test_a_store_that_is_down(site: Site) -> None:
    """While the store is down a request with a cookie gets 503, and keeps its cookie."""
    site.serve(who)
    client = site.client(site.idle_session(7))
    site.failure = StoreUnavailable()
    response = client.get("/")
    assert (response.status_code, response.headers["Retry-After"]) == (503, "1")
    assert cookies(response) == []
    assert site.client().get("/").content == b"None"
    site.failure = None
    assert client.get("/").content == b"7"


@pytest.mark.parametrize("is_asgi", [False, True])
def test_an_error_in_another_middleware(site: Site, is_asgi: bool) -> None:
    """An error of the library's in a middleware further down has its response too."""
    site.serve(who, middleware=[*MIDDLEWARE, f"{__name__}.asking"])
    site.failure = StoreUnavailable()
    session = site.log_in(7)
    client = site.async_client(session) if is_asgi else site.client(session)
    response: Any = asyncio.run(client.get("/")) if is_asgi else client.get("/")
    assert (response.status_code, response.headers["Retry-After"]) == (503, "1")
    assert (list(response.json()), cookies(response)) == (["detail"], [])


def test_a_page_for_an_error_in_another_middleware(site: Site) -> None:
    """The page that a browser gets for it has the cookie of the session that was renewed."""
    site.serve(who, middleware=[*MIDDLEWARE, f"{__name__}.asking", f"{__name__}.refusing"])
    page = site.client(site.idle_session(), HTTP_ACCEPT=HTML).get("/")
    assert (page.status_code, NAME in page.cookies) == (403, True)


def refusing(get_response: Any) -> Any:
    """Make a middleware that raises an error of the library's."""

    def middleware(request: Any) -> Any:
        raise RequestUnauthorized

    return middleware


def test_what_a_cache_may_keep(site: Site) -> None:
    """Django's cache gives nobody the page of somebody else, and keeps what does not ask."""

    def page(request: Any) -> HttpResponse:
        session = request.lucia.validate()
        return HttpResponse(str(session and session.user_id))

    cache = "django.middleware.cache"
    site.serve(
        page,
        path("open", lambda request: HttpResponse("open")),
        middleware=[
            f"{cache}.UpdateCacheMiddleware",
            *MIDDLEWARE,
            f"{cache}.FetchFromCacheMiddleware",
        ],
    )
    clients = [site.client(site.log_in(1)), site.client(site.log_in(2)), site.client()]
    assert [client.get("/").content for client in clients] == [b"1", b"2", b"None"]
    assert clients[0].get("/").headers["Vary"] == "Cookie"
    assert not clients[0].get("/open").has_header("Vary")


def test_errors_before_the_middleware(site: Site) -> None:
    """An error in a middleware above is Django's matter."""
    site.serve(who, middleware=[f"{__name__}.failing", *MIDDLEWARE])
    assert site.client().get("/").status_code == 500


def failing(get_response: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Make a middleware that raises an error of the library's."""

    def middleware(request: Any) -> Any:
        raise StoreUnavailable

    return middleware


def test_no_login_page(site: Site) -> None:
    """Without a LOGIN_URL a visitor's browser gets 401."""
    site.serve(raising(NotAuthenticated()), settings={"LOGIN_URL": None})
    page = site.client().get("/", HTTP_ACCEPT=HTML)
    assert (page.status_code, page.content) == (401, b"Not logged in.")


def test_a_login_page_that_needs_a_login(site: Site) -> None:
    """A login page that needs a login itself is 401: it would redirect to itself for ever."""
    site.serve(login_required(who), settings={"LOGIN_URL": "/"})
    assert site.client().get("/", HTTP_ACCEPT=HTML).status_code == 401


def test_the_middleware_is_not_installed(site: Site) -> None:
    """Code that needs the middleware says so."""
    site.serve(login_required(who), middleware=[])
    with pytest.raises(ImproperlyConfigured, match="LuciaMiddleware has not seen this request"):
        site.client(raise_request_exception=True).get("/")


def test_sync_middleware_in_an_async_stack(site: Site) -> None:
    """A sync middleware below makes ours sync too; async views go on to use the AsyncAuth."""
    site.serve(awho, middleware=[*MIDDLEWARE, f"{__name__}.passing"])
    response = asyncio.run(site.async_client(site.idle_session(7)).get("/"))
    assert (response.content, len(cookies(response))) == (b"7", 1)
    assert set(site.reads) == {"async"}


def passing(get_response: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Make a sync middleware."""

    def middleware(request: Any) -> Any:
        assert isinstance(request, ASGIRequest)
        return get_response(request)

    return middleware


# The package


def test_the_type_of_a_request(site: Site) -> None:
    """Views may name the type of their request, with the types of users and ids or without."""

    def view(request: LuciaHttpRequest[Any, int]) -> HttpResponse:
        session = request.lucia.validate()
        return HttpResponse("nobody" if session is None else str(session.user_id + 1))

    site.serve(view)
    assert site.client(site.log_in(7)).get("/").content == b"8"
    assert LuciaHttpRequest[Any] == LuciaHttpRequest[Any, str]


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ("django.middleware.csrf", r'pip install "lucia-auth\[django\]"'),
        ("asgiref.sync", r'pip install "lucia-auth\[django\]"'),
        ("lucia.middleware.django.request", "lucia.middleware.django.request"),
    ],
)
def test_an_import_that_fails(broken: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without Django the import names the command that installs it; other errors are raised."""
    for name in [name for name in sys.modules if name.startswith("lucia.middleware.django")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, broken, None)
    with pytest.raises(ImportError, match=message):
        import_module("lucia.middleware.django")
