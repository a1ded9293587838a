"""The ready routes in Django: forms and JSON, sync and async, with CsrfViewMiddleware."""

import asyncio
import re
from collections.abc import Callable, Mapping
from html import unescape
from importlib import import_module, reload
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.exceptions import ImproperlyConfigured
from django.db import IntegrityError, connections
from django.http import HttpResponse
from django.template import engines
from django.test import override_settings
from django.urls import include, path, reverse

from lucia import AsyncAuth, Auth, InvalidInput, PrimaryKey, ScryptHash, StoreUnavailable
from lucia._rules.bodies import MAX_BODY_BYTES
from lucia.adapters.django import AsyncDjangoUserAdapter, DjangoUserAdapter
from lucia.adapters.memory import AsyncMemoryAdapter, MemoryAdapter
from lucia.middleware.accounts import Page, Submission
from lucia.middleware.django import accounts, login_required
from tests.support.django_site_web import LUCIA, MIDDLEWARE, NAME, PASSWORD, Site, site

__all__ = ["site"]

HTML = "text/html"
HASH = ScryptHash(ln=4, r=1, p=1)
LOGIN_REQUIRED = "django.contrib.auth.middleware.LoginRequiredMiddleware"
ANNA = {"username": " Anna ", "password": PASSWORD}


@login_required
def private(request: Any) -> HttpResponse:
    """Respond to people who are logged in."""
    return HttpResponse(request.user.username)


def serve(site: Site, *pages: Any, is_asgi: bool = False, **options: Any) -> None:
    """Serve a page that needs a login at ``/``, and the ready routes below ``/auth``."""
    if not is_asgi:
        options["ASYNC_AUTH"] = None
    lucia = {key: value for key, value in options.items() if key.isupper()}
    members = {name: value for name, value in {**LUCIA, **lucia}.items() if value is not None}
    site.use_auths()
    with override_settings(LUCIA=members):
        urls = reload(import_module("lucia.middleware.django.urls"))
    routes = include((urls.urlpatterns, urls.app_name))
    site.serve(private, path("auth/", routes), *pages, **options)


class Browser:
    """A client by WSGI or ASGI, with one cookie jar."""

    def __init__(self, site: Site, *, is_asgi: bool, **options: Any) -> None:
        self._is_asgi = is_asgi
        self._client: Any = (
            site.async_client(**options)
            if is_asgi
            else site.client(**{f"HTTP_{key.upper()}": value for key, value in options.items()})
        )
        self.cookies = self._client.cookies

    def get(self, url: str, **options: Any) -> Any:
        """Return the response to a GET request."""
        return self._call("get", url, **options)

    def post(self, url: str, *args: Any, **options: Any) -> Any:
        """Return the response to a POST request."""
        return self._call("post", url, *args, **options)

    def json(self, url: str, content: object = None) -> Any:
        """Return the response to a POST request with JSON."""
        return self.post(url, content, content_type="application/json")

    def submit(self, url: str, action: str = "", **fields: str) -> Any:
        """Fill in a form on a page and send it."""
        page = self.get(url)
        assert page.headers["Content-Type"] == "text/html; charset=utf-8"
        for attributes, inputs in re.findall(
            r'<form method="post"([^>]*)>(.*?)</form>', page.content.decode(), re.DOTALL
        ):
            if attributes == (f' action="{action}"' if action else ""):
                hidden = re.findall(r'type="hidden" name="([^"]+)" value="([^"]*)"', inputs)
                known = {unescape(name): unescape(value) for name, value in hidden}
                return self.post(action or url, {**known, **fields})
        raise AssertionError(f"no form for {action!r}: {page.content!r}")

    def _call(self, method: str, *args: Any, **options: Any) -> Any:
        call = getattr(self._client, method)
        response = call(*args, **options)
        return asyncio.run(response) if self._is_asgi else response


@pytest.fixture(params=["wsgi", "asgi", "asgi without an AsyncAuth"])
def browser(request: pytest.FixtureRequest, site: Site) -> Callable[..., Browser]:
    """Return a function that returns a browser, by each kind of server and configuration."""
    kind: str = request.param
    serve(site, is_asgi=kind == "asgi")
    return lambda **options: Browser(site, is_asgi=kind != "wsgi", **options)


def test_an_async_auth_under_wsgi(site: Site) -> None:
    """The routes work under WSGI beside an AsyncAuth too, by the sync Auth."""
    serve(site, is_asgi=True)
    client = Browser(site, is_asgi=False)
    assert client.json("/auth/signup", ANNA).status_code == 201
    assert client.get("/auth/me").status_code == 200
    assert set(site.reads) == {"sync"}


def test_clients_with_json(browser: Callable[..., Browser], site: Site) -> None:
    """An API client signs up, logs in, sees and revokes its logins, and changes the password."""
    client, other = browser(user_agent="phone"), browser()
    assert client.get("/").status_code == 401
    signed_up = client.json("/auth/signup", ANNA)
    user = User.objects.get()
    assert (signed_up.status_code, signed_up.json()) == (201, {"user_id": user.pk})
    assert (user.username, user.has_usable_password()) == ("anna", False)
    assert signed_up.headers["Cache-Control"] == "no-store"
    assert client.get("/").content == b"anna"
    assert client.get("/auth/me").json() == {"user_id": user.pk}
    assert other.json("/auth/login", {**ANNA, "password": "wrong"}).status_code == 401
    assert other.json("/auth/login", ANNA).status_code == 200
    devices = other.get("/auth/devices").json()
    assert [each["metadata"] for each in devices if not each["current"]] == [
        {"user_agent": "phone"}
    ]
    handle = next(each["handle"] for each in devices if not each["current"])
    assert other.json(f"/auth/devices/{handle}/revoke").status_code == 204
    assert other.json(f"/auth/devices/{handle}/revoke").status_code == 404
    assert client.get("/").status_code == 401
    change = {"current_password": PASSWORD, "new_password": "battery staple"}
    assert other.json("/auth/password", change).status_code == 200
    assert other.json("/auth/devices/revoke-others").status_code == 204
    assert other.get("/").content == b"anna"
    gone = other.json("/auth/logout")
    assert (gone.status_code, gone.content, gone.cookies[NAME].value) == (204, b"", "")
    assert other.get("/").status_code == 401


def test_browsers_with_forms(browser: Callable[..., Browser], site: Site) -> None:
    """A browser signs up, logs in, sees its logins and logs out by pages."""
    client = browser(accept=HTML)
    assert client.get("/").headers["Location"] == "/accounts/login/?next=/"
    signed_up = client.submit("/auth/signup", **ANNA)
    assert (signed_up.status_code, signed_up.headers["Location"]) == (303, "/")
    assert client.get("/").content == b"anna"
    page = client.get("/auth/devices")
    assert b"this device" in page.content
    assert page.headers["Content-Security-Policy"] == "frame-ancestors 'none'"
    out = client.submit("/auth/devices", "/auth/logout")
    assert (out.status_code, out.headers["Location"], out.cookies[NAME].value) == (303, "/", "")
    assert client.get("/auth/devices").headers["Location"] == "/auth/login?next=/auth/devices"
    wrong = client.submit("/auth/login", username='"><b>', password="wrong")
    assert (wrong.status_code, b"Wrong name or password." in wrong.content) == (401, True)
    assert b"&quot;&gt;&lt;b&gt;" in wrong.content
    back = client.submit("/auth/login?next=/auth/devices", **ANNA)
    assert back.headers["Location"] == "/auth/devices"
    change = {"current_password": PASSWORD, "new_password": "battery staple"}
    assert client.submit("/auth/password", **change).headers["Location"] == "/auth/devices"


def test_input_that_is_refused(browser: Callable[..., Browser], site: Site) -> None:
    """Names that are taken or invalid, and bodies that can't be read, are errors of the client."""
    client = browser()
    assert client.json("/auth/signup", ANNA).status_code == 201
    assert client.json("/auth/signup", ANNA).status_code == 409
    User.objects.create_user("root")
    for username, status in (("root", 409), ("a b", 422), ("a" * 151, 422), ("", 422)):
        response = client.json("/auth/signup", {**ANNA, "username": username})
        assert (response.status_code, list(response.json())) == (status, ["detail"])
    assert client.json("/auth/signup", {"username": "b"}).status_code == 422
    assert client.json("/auth/signup", ["b"]).status_code == 422
    assert client.post("/auth/signup", "b", content_type="text/plain").status_code == 422
    assert User.objects.count() == 2
    page = browser(accept=HTML).submit("/auth/signup", username="root", password=PASSWORD)
    assert (page.status_code, b"This name is taken." in page.content) == (409, True)
    assert b'value="root"' in page.content


def test_methods(browser: Callable[..., Browser], site: Site) -> None:
    """A path responds to the methods of its routes, to HEAD where there is GET, and to OPTIONS."""
    client = browser()
    assert client.post("/auth/me").status_code == 405
    assert client.get("/auth/logout").headers["Allow"] == "OPTIONS, POST"
    head = client._call("head", "/auth/login")
    assert (head.status_code, head.content) == (200, b"")
    options = client._call("options", "/auth/login")
    assert set(options.headers["Allow"].split(", ")) == {"GET", "HEAD", "POST", "OPTIONS"}


def test_cross_site_requests(browser: Callable[..., Browser], site: Site) -> None:
    """A page of another site changes nothing."""
    assert browser().json("/auth/signup", ANNA).status_code == 201
    evil = browser(origin="https://evil.example")
    for body in (ANNA, {"username": "berta", "password": PASSWORD}):
        assert evil.json("/auth/signup", body).status_code == 403
        assert evil.post("/auth/login", body).status_code == 403
    assert User.objects.count() == 1
    assert evil.cookies == {}


def test_a_store_that_is_down(browser: Callable[..., Browser], site: Site) -> None:
    """While the store is down the routes respond 503, and cookies stay."""
    client = browser()
    client.json("/auth/signup", ANNA)
    before = client.cookies[NAME].value
    site.failure = StoreUnavailable()
    for response in (client.get("/auth/me"), client.get("/")):
        assert (response.status_code, response.headers["Retry-After"]) == (503, "1")
    site.failure = None
    assert client.cookies[NAME].value == before
    assert client.get("/auth/me").status_code == 200


# Beside Django


@pytest.mark.parametrize("is_asgi", [False, True])
@pytest.mark.parametrize("checks_origin", [False, True])
def test_csrf_tokens(site: Site, is_asgi: bool, checks_origin: bool) -> None:
    """JSON needs no CSRF token, unless Auth's origin check is off; forms have one, and a login
    changes it.
    """
    site.auth._csrf_protection = site.async_auth._csrf_protection = checks_origin
    serve(site, is_asgi=is_asgi)
    client = Browser(site, is_asgi=is_asgi, accept=HTML)
    client._client.handler.enforce_csrf_checks = True
    assert client.json("/auth/signup", ANNA).status_code == (201 if checks_origin else 403)
    assert client.submit("/auth/signup", username="b", password=PASSWORD).status_code == 303
    before = client.cookies["csrftoken"].value
    assert client.submit("/auth/login", username="b", password="wrong").status_code == 401
    assert client.cookies["csrftoken"].value == before
    assert client.submit("/auth/login", username="b", password=PASSWORD).status_code == 303
    assert client.cookies["csrftoken"].value != before
    client.cookies["csrftoken"] = "a" * 32
    form = {"username": "b", "password": PASSWORD}
    assert client.post("/auth/login", form).status_code == (303 if checks_origin else 403)


def test_json_sets_no_csrf_cookie(site: Site) -> None:
    """A response that is no page sets no cookie of CsrfViewMiddleware's."""
    serve(site)
    assert site.client().get("/auth/devices").cookies == {}
    assert "csrftoken" in site.client().get("/auth/login").cookies


@pytest.mark.parametrize("is_asgi", [False, True])
def test_logging_out_of_both(site: Site, is_asgi: bool) -> None:
    """The ready logout also ends a login by django.contrib.auth."""
    serve(site, is_asgi=is_asgi)
    client = Browser(site, is_asgi=is_asgi)
    client.json("/auth/signup", ANNA)
    client._client.force_login(User.objects.create_user("root"))
    assert client.get("/").content == b"anna"
    assert client.json("/auth/logout").status_code == 204
    assert client.cookies["sessionid"].value == ""
    client.json("/auth/login", ANNA)
    assert client.get("/").content == b"anna"


def test_logging_out_without_djangos_users(site: Site) -> None:
    """The ready logout leaves Django alone if the library does not decide about the user."""
    serve(site, REQUEST_USER=False)
    client = site.client()
    client.post("/auth/signup", ANNA, content_type="application/json")
    client.force_login(User.objects.create_user("root"))
    assert client.post("/auth/logout").status_code == 204
    assert client.cookies["sessionid"].value != ""


def test_login_required_everywhere(site: Site) -> None:
    """LoginRequiredMiddleware leaves the ready routes to visitors."""
    serve(site, middleware=[*MIDDLEWARE, LOGIN_REQUIRED], settings={"LOGIN_URL": "lucia:log_in"})
    client = Browser(site, is_asgi=False, accept=HTML)
    assert client.get("/").headers["Location"] == "/auth/login?next=/"
    client.submit("/auth/signup", **ANNA)
    assert client.get("/").content == b"anna"


@pytest.mark.parametrize("is_asgi", [False, True])
def test_passwords_that_the_settings_refuse(site: Site, is_asgi: bool) -> None:
    """AUTH_PASSWORD_VALIDATORS are asked about new passwords, and the page says what is wrong."""
    rules = "django.contrib.auth.password_validation"
    validators = [
        {"NAME": f"{rules}.{name}"}
        for name in ("CommonPasswordValidator", "UserAttributeSimilarityValidator")
    ]
    serve(site, is_asgi=is_asgi, settings={"AUTH_PASSWORD_VALIDATORS": validators})
    client = Browser(site, is_asgi=is_asgi, accept=HTML)
    refused = client.submit("/auth/signup", username="anna", password="password123")
    assert (refused.status_code, b"This password is too common." in refused.content) == (422, True)
    similar = client.submit("/auth/signup", username="annalena", password="annalena77")
    assert (similar.status_code, b"too similar to the username" in similar.content) == (422, True)
    assert client.submit("/auth/signup", **{**ANNA, "username": "annalena"}).status_code == 303
    for password in ("password123", "annalena77"):
        change = {"current_password": PASSWORD, "new_password": password}
        assert client.submit("/auth/password", **change).status_code == 422
    assert client.submit("/auth/login", username="annalena", password=PASSWORD).status_code == 303


def test_own_steps_have_their_own_rules(site: Site) -> None:
    """The settings for passwords are for the steps of the library."""

    def sign_up(request: Any, submission: Submission) -> dict[str, str]:
        return {"invited": submission.text("email")}

    serve(site, ROUTES={"sign_up": sign_up})
    response = Browser(site, is_asgi=False).json("/auth/signup", {"email": "a@b.c"})
    assert (response.status_code, response.json()) == (201, {"invited": "a@b.c"})


def test_passwords_without_djangos_users(monkeypatch: pytest.MonkeyPatch) -> None:
    """Validators are asked without a user where ``django.contrib.auth`` has no users."""

    def no_users() -> None:
        raise ImproperlyConfigured("AUTH_USER_MODEL refers to a model that is not installed")

    monkeypatch.setattr(accounts, "get_user_model", no_users)
    rules = "django.contrib.auth.password_validation"
    validators = [{"NAME": f"{rules}.CommonPasswordValidator"}]
    with override_settings(AUTH_PASSWORD_VALIDATORS=validators):
        accounts.check_password("battery staple", 1, has_django_users=False)
        with pytest.raises(InvalidInput, match="too common"):
            accounts.check_password("password123", 1, has_django_users=False)


def test_own_pages_in_async_code(site: Site) -> None:
    """A function that renders pages has to be a plain one: Django's templates use the database."""

    async def render(page: Page) -> str:
        return page.name

    with pytest.raises(ImproperlyConfigured, match=r"ASYNC_ROUTES.*render must be a plain"):
        serve(site, is_asgi=True, ROUTES={}, ASYNC_ROUTES={"render": render})


def test_users_without_a_name(site: Site) -> None:
    """Attributes may lack the name: nobody is taken for a user without one."""
    serve(site, ROUTES={"attributes": lambda submission: {"first_name": "a"}})
    assert Browser(site, is_asgi=False).json("/auth/signup", ANNA).status_code == 201


def test_names_in_another_case(browser: Callable[..., Browser]) -> None:
    """A name that Django has in another case is taken: people could not tell them apart."""
    User.objects.create_user("Root")
    body = {"username": "root", "password": PASSWORD}
    assert browser().json("/auth/signup", body).status_code == 409


@pytest.mark.parametrize("is_asgi", [False, True])
def test_two_sign_ups_at_once(site: Site, is_asgi: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that somebody else takes after it was checked is 409, too."""
    serve(site, is_asgi=is_asgi)
    monkeypatch.setattr(accounts, "_check_new_user", lambda *arguments: None)
    User.objects.create_user("anna")
    assert Browser(site, is_asgi=is_asgi).json("/auth/signup", ANNA).status_code == 409


def test_users_who_are_not_active(browser: Callable[..., Browser], site: Site) -> None:
    """Whoever is not active can't log in, and gets the response for a wrong password."""
    client = browser()
    assert client.json("/auth/signup", ANNA).status_code == 201
    User.objects.update(is_active=False)
    other = browser()
    refused = other.json("/auth/login", ANNA)
    assert (refused.status_code, refused.json()["detail"]) == (401, "Wrong name or password.")
    assert other.json("/auth/login", {**ANNA, "password": "wrong"}).json() == refused.json()
    assert NAME not in {name for name, each in other.cookies.items() if each.value}
    assert len(site.auth.get_all_user_sessions(User.objects.get().pk)) == 1


def test_long_forms(browser: Callable[..., Browser]) -> None:
    """A form of 64 KiB or more is refused, as JSON is, and so are odd codecs."""
    client = browser()
    long = client.post("/auth/login", {"username": "a" * MAX_BODY_BYTES, "password": "b"})
    assert (long.status_code, "longer than" in long.json()["detail"]) == (422, True)
    kind = "multipart/form-data; boundary=B; charset=punycode"
    odd = client.post("/auth/login", b"--B--\r\n", content_type=kind)
    assert (odd.status_code, odd.json()["detail"]) == (422, "the body must be in UTF-8")


# Django's session


def remember(request: Any) -> HttpResponse:
    """Show what Django's session remembers, and let it remember something else."""
    seen = request.session.get("seen", "nothing")
    if "set" in request.GET:
        request.session["seen"] = request.GET["set"]
    return HttpResponse(seen)


@pytest.fixture(params=["wsgi", "asgi", "asgi without an AsyncAuth"])
def remembering(request: pytest.FixtureRequest, site: Site) -> Callable[..., Browser]:
    """Return a function that returns a browser of a site that uses Django's session."""
    kind: str = request.param
    engine = "django.contrib.sessions.backends.cache"
    seen = path("seen", remember)
    serve(site, seen, is_asgi=kind == "asgi", settings={"SESSION_ENGINE": engine})
    return lambda **options: Browser(site, is_asgi=kind != "wsgi", **options)


def test_a_planted_session_of_django(remembering: Callable[..., Browser]) -> None:
    """A login gives Django's session a new key: somebody else may know the old one."""
    attacker, victim = remembering(), remembering()
    attacker.get("/seen?set=cart")
    planted = attacker.cookies["sessionid"].value
    victim.cookies["sessionid"] = planted
    assert victim.json("/auth/signup", ANNA).status_code == 201
    assert victim.get("/seen?set=card").content == b"cart"
    assert victim.cookies["sessionid"].value != planted
    assert attacker.get("/seen").content == b"nothing"


@pytest.mark.parametrize("ended", ["not", "revoked", "logged in to the admin"])
def test_another_persons_session_of_django(
    remembering: Callable[..., Browser], site: Site, ended: str
) -> None:
    """Whoever logs in over somebody else, or after them, does not see their data."""
    client = remembering()
    client.json("/auth/signup", ANNA)
    client.get("/seen?set=secret")
    assert client.json("/auth/login", ANNA).status_code == 200
    assert client.get("/seen").content == b"secret"
    if ended == "revoked":
        site.auth.invalidate_all_user_sessions(User.objects.get().pk)
    elif ended == "logged in to the admin":
        client.json("/auth/logout")
        client._client.force_login(User.objects.create_user("root"))
        client.get("/seen?set=secret")
    client.json("/auth/signup", {**ANNA, "username": "berta"})
    assert client.get("/seen?set=other").content == b"nothing"
    assert client.json("/auth/logout").status_code == 204
    assert client.get("/seen").content == b"nothing"


def test_a_visitors_session_of_django(remembering: Callable[..., Browser], site: Site) -> None:
    """A login, a refused request and an outage keep the data of a visitor's session."""
    client = remembering(accept=HTML)
    client.get("/seen?set=cart")
    assert client.post("/auth/devices/x/revoke").headers["Location"].startswith("/auth/login")
    assert client.get("/seen").content == b"cart"
    client.submit("/auth/signup", **ANNA)
    assert client.get("/seen").content == b"cart"
    site.failure = StoreUnavailable()
    assert client.get("/seen?set=more").content == b"cart"
    site.failure = None
    assert client.get("/seen").content == b"more"


def test_revoking_this_device(remembering: Callable[..., Browser]) -> None:
    """Revoking the own login logs out of Django, too."""
    client = remembering()
    client.json("/auth/signup", ANNA)
    client.get("/seen?set=secret")
    client._client.force_login(User.objects.create_user("root"))
    (device,) = client.get("/auth/devices").json()
    assert client.json(f"/auth/devices/{device['handle']}/revoke").status_code == 204
    assert client.get("/").status_code == 401
    assert client.get("/seen").content == b"nothing"


@pytest.mark.parametrize("is_asgi", [False, True])
def test_a_user_that_the_database_refuses(site: Site, is_asgi: bool) -> None:
    """If the database refuses a user for another reason than the name, the response is 500.

    So it is if the users are of another model: their names are not looked for among Django's.
    """

    def attributes(submission: Submission) -> Mapping[str, Any]:
        return {"username": submission.text("username"), "is_staff": None}

    serve(site, is_asgi=is_asgi, ROUTES={"attributes": attributes})
    assert Browser(site, is_asgi=is_asgi).json("/auth/signup", ANNA).status_code == 500
    client = site.client(raise_request_exception=True)
    with pytest.raises(IntegrityError):
        client.post("/auth/signup", ANNA, content_type="application/json")
    site.auth = Auth(
        users=DjangoUserAdapter("django_site.PersonKey"),
        sessions=MemoryAdapter(),
        env="DEV",
        hash=HASH,
    )
    site.async_auth = AsyncAuth(
        users=AsyncDjangoUserAdapter("django_site.PersonKey"),
        sessions=AsyncMemoryAdapter(),
        env="DEV",
        hash=HASH,
    )
    serve(site, is_asgi=is_asgi, ROUTES={"attributes": lambda submission: {"email": "a@b.c"}})
    client = Browser(site, is_asgi=is_asgi)
    assert client.json("/auth/signup", ANNA).status_code == 201
    assert client.json("/auth/signup", {**ANNA, "username": "berta"}).status_code == 500


@pytest.mark.parametrize("is_asgi", [False, True])
def test_transactions_around_requests(
    site: Site, is_asgi: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With ATOMIC_REQUESTS the routes work, outside of a transaction."""
    monkeypatch.setitem(connections["sqlite"].settings_dict, "ATOMIC_REQUESTS", True)
    inside: list[bool] = []

    def attributes(submission: Submission) -> Mapping[str, Any]:
        inside.append(connections["sqlite"].in_atomic_block)
        return {"username": submission.text("username")}

    serve(site, is_asgi=is_asgi, ROUTES={"attributes": attributes})
    assert Browser(site, is_asgi=is_asgi).json("/auth/signup", ANNA).status_code == 201
    assert inside == [False]


def test_error_reports_have_no_password(site: Site) -> None:
    """Django's reports of errors leave out what was sent to the routes."""

    def render(page: Page) -> str:
        raise ZeroDivisionError

    serve(site, ROUTES={"render": render})
    client = Browser(site, is_asgi=False, accept=HTML)
    response = client.post("/auth/login", {**ANNA, "password": "wrong"})
    assert response.status_code == 500
    assert response.wsgi_request.sensitive_post_parameters == "__ALL__"


# Settings


def test_where_forms_lead_to(site: Site) -> None:
    """Django's own settings say where forms lead to, and the settings of the routes prevail."""
    urls = {"LOGIN_REDIRECT_URL": "lucia:devices", "LOGOUT_REDIRECT_URL": "/bye"}
    serve(site, settings=urls)
    client = Browser(site, is_asgi=False, accept=HTML)
    assert client.submit("/auth/signup", **ANNA).headers["Location"] == "/auth/devices"
    assert client.submit("/auth/devices", "/auth/logout").headers["Location"] == "/bye"
    serve(site, settings=urls, ROUTES={"after_login": "/hello"})
    client = Browser(site, is_asgi=False, accept=HTML)
    assert client.submit("/auth/login", **ANNA).headers["Location"] == "/hello"


ROUTES = {"provider_id": "email", "normalize": str.upper}


def test_settings_by_a_dotted_path(site: Site) -> None:
    """The settings of the routes may be a dict in a module, and are those of async code too."""
    for is_asgi, name in ((False, "anna"), (True, "berta")):
        serve(site, is_asgi=is_asgi, ROUTES=f"{__name__}.ROUTES")
        client = Browser(site, is_asgi=is_asgi)
        assert client.json("/auth/signup", {**ANNA, "username": name}).status_code == 201
        assert client.get("/").content == name.upper().encode()
        assert site.auth.get_key("email", name.upper()).user_id


def test_own_steps(site: Site) -> None:
    """A step of the application's own takes the AuthRequest of its flavour; None leaves one out."""

    def me(request: Any, submission: Submission) -> object:
        return {"name": submission.request.user.username}

    async def ame(request: Any, submission: Submission) -> object:
        return {"name": (await submission.request.auser()).username}

    routes = {"ROUTES": {"me": me, "sign_up": None}, "ASYNC_ROUTES": {"me": ame, "sign_up": None}}
    key = PrimaryKey("username", "anna", PASSWORD)
    site.auth.create_user(primary_key=key, attributes={"username": "anna"})
    for is_asgi in (False, True):
        serve(site, is_asgi=is_asgi, **routes)
        client = Browser(site, is_asgi=is_asgi)
        assert client.json("/auth/signup", ANNA).status_code == 404
        client.json("/auth/login", ANNA)
        assert client.get("/auth/me").json() == {"name": "anna"}


def test_own_pages(site: Site) -> None:
    """A page may be rendered by a template, which gets Django's request."""

    def render(page: Page) -> str:
        template = engines["django"].from_string("{{ page.name }} {{ user }} {{ page.hidden }}")
        return template.render({"page": page}, page.request)

    for is_asgi in (False, True):
        serve(site, is_asgi=is_asgi, ROUTES={"render": render})
        page = Browser(site, is_asgi=is_asgi).get("/auth/login")
        assert page.content.startswith(b"log_in AnonymousUser {&#x27;csrfmiddlewaretoken&#x27;: ")


@pytest.mark.parametrize("transport", ["bearer", "both"])
def test_bearer_tokens(site: Site, transport: str) -> None:
    """Clients that are not browsers log in and out by tokens, without CSRF tokens."""
    serve(site, TRANSPORT=transport)
    client = site.client(enforce_csrf_checks=True)
    json = {"content_type": "application/json"}
    client.post("/auth/signup", ANNA, **json)
    client.cookies.clear()
    token = client.post("/auth/token", ANNA, **json).json()["access_token"]
    bearer = {"HTTP_AUTHORIZATION": f"Bearer {token}"}
    assert client.get("/", **bearer).content == b"anna"
    assert client.post("/auth/devices/revoke-others", **bearer, **json).status_code == 204
    assert client.post("/auth/logout", **bearer).status_code == 204
    assert client.get("/", **bearer).status_code == 401
    assert client.get("/auth/login").status_code == (405 if transport == "bearer" else 200)


def test_names_of_urls(site: Site) -> None:
    """The URLs have names."""
    serve(site)
    names = ["sign_up", "log_in", "log_out", "me", "devices", "revoke_others", "change_password"]
    site.client().get("/auth/me")
    assert [reverse(f"lucia:{name}") for name in names] == [
        "/auth/signup",
        "/auth/login",
        "/auth/logout",
        "/auth/me",
        "/auth/devices",
        "/auth/devices/revoke-others",
        "/auth/password",
    ]
    assert reverse("lucia:revoke_device", args=["x"]) == "/auth/devices/x/revoke"
