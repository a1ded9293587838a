"""Beside ``django.contrib.auth``: ``request.user``, permissions, the admin, and login_required."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.contrib import admin
from django.contrib.auth import alogin, alogout, decorators, login, logout
from django.contrib.auth.mixins import PermissionRequiredMixin
from django.contrib.auth.models import Permission, User
from django.contrib.contenttypes.models import ContentType
from django.db import connections
from django.db.backends.utils import CursorWrapper
from django.http import HttpResponse
from django.template import engines
from django.urls import path
from django.utils.decorators import method_decorator
from django.views.generic import TemplateView, View

from lucia import PrimaryKey, StoreUnavailable
from lucia.middleware.django import LoginRequiredMixin, login_required
from tests.support.django_site_web import MIDDLEWARE, NAME, PASSWORD, Site, site

__all__ = ["site"]

HTML = "text/html"
LUCIA_MIDDLEWARE = "lucia.middleware.django.LuciaMiddleware"
LOGIN_REQUIRED = "django.contrib.auth.middleware.LoginRequiredMiddleware"


@pytest.fixture
def anna(site: Site) -> Any:
    """Return a user of the site."""
    return User.objects.create_user("anna")


@pytest.fixture
def root(site: Site) -> Any:
    """Return an admin with a password of Django's own."""
    return User.objects.create_superuser("root", password=PASSWORD)


def name(request: Any) -> HttpResponse:
    """Respond with the user's name."""
    return HttpResponse(request.user.get_username())


async def aname(request: Any) -> HttpResponse:
    """Respond with the user's name, by async code."""
    return HttpResponse((await request.auser()).get_username())


# request.user


@pytest.mark.parametrize("view", [name, aname])
@pytest.mark.parametrize("is_asgi", [False, True])
def test_the_user_of_the_session(
    site: Site, anna: Any, view: Callable[..., Any], is_asgi: bool
) -> None:
    """The request's user is the session's, in sync and async code; for a visitor, nobody."""
    site.serve(view)
    session = site.log_in(anna.pk)
    if is_asgi:
        responses = [asyncio.run(site.async_client(each).get("/")) for each in (session, None)]
    else:
        responses = [site.client(each).get("/") for each in (session, None)]
    assert [response.content for response in responses] == [b"anna", b""]


def test_the_user_is_loaded_once(
    site: Site, anna: Any, sent_queries: Callable[[], list[Any]]
) -> None:
    """The user is loaded when it is used, once for sync and async code together."""

    async def view(request: Any) -> HttpResponse:
        before = len(sent_queries())
        users = [await request.auser(), await sync_to_async(lambda: request.user.pk)()]
        users += [await request.auser(), await sync_to_async(lambda: request.user.pk)()]
        assert users == [anna, anna.pk] * 2
        # In async code too, since nothing is left to load.
        assert request.user.pk == anna.pk
        return HttpResponse(str(len(sent_queries()) - before))

    site.serve(view)
    assert asyncio.run(site.async_client(site.log_in(anna.pk)).get("/")).content == b"1"
    assert site.reads == ["async"]


@pytest.fixture
def sent_queries(monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[Any]]:
    """Return a function that returns the queries that were sent."""
    sent: list[Any] = []
    execute = CursorWrapper.execute

    def noting(self: Any, sql: Any, params: Any = None) -> Any:
        sent.append(sql)
        return execute(self, sql, params)

    monkeypatch.setattr(CursorWrapper, "execute", noting)
    return lambda: sent


@pytest.mark.parametrize("view", [name, aname])
def test_users_who_are_not_active(site: Site, anna: Any, view: Callable[..., Any]) -> None:
    """A user who is not active, or was deleted, is nobody, though their session is live."""
    site.serve(view)
    client = site.client(site.log_in(anna.pk))
    assert client.get("/").content == b"anna"
    User.objects.update(is_active=False)
    assert client.get("/").content == b""
    User.objects.all().delete()
    assert client.get("/").content == b""


def test_the_user_changes_with_the_login(site: Site, anna: Any, root: Any) -> None:
    """A login and a logout change the user of the same request, as Django's own do."""
    names: list[str] = []

    def view(request: Any) -> HttpResponse:
        names.append(request.user.username)
        request.lucia.sign_in(anna.pk)
        names.append(request.user.username)
        session = request.lucia.sign_in(root.pk)
        names.append(request.user.username)
        request.lucia.sign_out()
        names.append(request.user.username)
        request.lucia.set_session(session)
        names.append(request.user.username)
        return HttpResponse()

    site.serve(view)
    assert site.client().post("/").status_code == 200
    assert names == ["", "anna", "root", "", ""]  # the last session was revoked


async def test_the_user_changes_with_a_login_in_async_code(site: Site, anna: Any) -> None:
    """A login in async code changes the user of sync code too."""
    names: list[str] = []

    async def view(request: Any) -> HttpResponse:
        async def note() -> None:
            names.append((await request.auser()).get_username())
            names.append(await sync_to_async(lambda: request.user.get_username())())

        await note()
        await request.lucia.asign_in(anna.pk)
        await note()
        await request.lucia.asign_out()
        await note()
        return HttpResponse()

    site.serve(view)
    assert (await site.async_client().post("/")).status_code == 200
    assert names == ["", "", "anna", "anna", "", ""]


def test_who_decides_about_the_user(site: Site, anna: Any) -> None:
    """A setting switches it off, and a middleware before Django's own changes nothing."""
    session = site.log_in(anna.pk)
    site.serve(name, REQUEST_USER=False)
    assert site.client(session).get("/").content == b""
    first = [LUCIA_MIDDLEWARE, *(each for each in MIDDLEWARE if each != LUCIA_MIDDLEWARE)]
    site.serve(name, middleware=first)
    assert site.client(session).get("/").content == b""
    site.serve(lambda request: HttpResponse(hasattr(request, "user")), middleware=first[:1])
    assert site.client(session).get("/").content == b"False"


def test_templates_and_permissions(site: Site, anna: Any) -> None:
    """Templates, permissions and Django's own decorators see the session's user."""
    kind = ContentType.objects.get_for_model(User)
    permission, _ = Permission.objects.get_or_create(codename="add_user", content_type=kind)
    anna.user_permissions.add(permission)
    template = "{{ user.username }} {{ perms.auth.add_user }} {{ perms.auth.delete_user }}"

    @decorators.login_required
    @decorators.permission_required("auth.add_user", raise_exception=True)
    def view(request: Any) -> HttpResponse:
        return HttpResponse(engines["django"].from_string(template).render({}, request))

    site.serve(view)
    assert site.client(site.log_in(anna.pk)).get("/").content == b"anna True False"
    assert site.client().get("/").headers["Location"] == "/accounts/login/?next=/"
    other = User.objects.create_user("berta")
    assert site.client(site.log_in(other.pk)).get("/").status_code == 403


def test_a_view_of_django_by_async_code(site: Site, anna: Any) -> None:
    """Django's own login_required sees the session's user in async views too."""

    @decorators.login_required
    async def view(request: Any) -> HttpResponse:
        return HttpResponse("in")

    site.serve(view)
    session = site.log_in(anna.pk)
    assert asyncio.run(site.async_client(session).get("/")).content == b"in"
    assert asyncio.run(site.async_client().get("/")).status_code == 302


def test_login_required_everywhere(site: Site, anna: Any) -> None:
    """Django's LoginRequiredMiddleware sees the session's user."""
    site.serve(name, middleware=[*MIDDLEWARE, LOGIN_REQUIRED])
    assert site.client(site.log_in(anna.pk)).get("/").content == b"anna"
    assert site.client().get("/").status_code == 302


# Logging in and out by django.contrib.auth


@pytest.fixture
def served(site: Site) -> Site:
    """Return a site with the admin."""
    site.serve(name, path("admin/", admin.site.urls), settings={"LOGIN_URL": "/admin/login/"})
    return site


CREDENTIALS = {"username": "root", "password": PASSWORD}


def test_an_admin_logs_in_by_the_own_password(served: Site, root: Any) -> None:
    """The admin's login and logout work as without the library, with CSRF tokens."""
    client = served.client(enforce_csrf_checks=True)
    assert client.post("/admin/login/", CREDENTIALS).status_code == 403
    client.get("/admin/login/")
    token = {"csrfmiddlewaretoken": client.cookies["csrftoken"].value}
    response = client.post("/admin/login/?next=/admin/", {**CREDENTIALS, **token})
    assert response.headers["Location"] == "/admin/"
    assert client.get("/").content == b"root"
    assert client.get("/admin/").status_code == 200
    token = {"csrfmiddlewaretoken": client.cookies["csrftoken"].value}
    assert client.post("/admin/logout/", token).status_code == 200
    assert client.get("/").content == b""


def test_logging_out_in_the_admin(served: Site, root: Any) -> None:
    """Whoever uses the admin by a session of the library is logged out by "Log out"."""
    session = served.log_in(root.pk)
    client = served.client(session)
    assert client.get("/admin/").status_code == 200
    response = client.post("/admin/logout/")
    assert response.cookies[NAME].value == ""
    assert not served.is_live(session.session_id)
    assert client.get("/").content == b""


def test_logging_in_as_somebody_else(served: Site, anna: Any, root: Any) -> None:
    """Who is logged in to the site logs in to the admin as another user, and is that user."""
    session = served.log_in(anna.pk)
    client = served.client(session)
    assert client.get("/admin/").status_code == 302
    response = client.post("/admin/login/?next=/admin/", CREDENTIALS)
    assert response.headers["Location"] == "/admin/"
    assert client.get("/").content == b"root"
    assert not served.is_live(session.session_id)


def test_logging_in_as_oneself(served: Site, root: Any) -> None:
    """Who logs in to the admin as the same user keeps the session."""
    session = served.log_in(root.pk)
    client = served.client(session)
    client.post("/admin/login/?next=/admin/", CREDENTIALS)
    assert served.is_live(session.session_id)
    assert client.get("/").content == b"root"


def test_logging_out_while_the_store_is_down(served: Site, root: Any) -> None:
    """A logout that can't revoke the session is 503, and nobody is logged out by half."""
    client = served.client()
    client.post("/admin/login/?next=/admin/", CREDENTIALS)
    session = served.log_in(root.pk)
    client.cookies[NAME] = session.session_id

    def down(*session_ids: str) -> None:
        raise StoreUnavailable

    delete, served.sessions.delete_session = served.sessions.delete_session, down  # type: ignore[method-assign]
    assert client.post("/admin/logout/").status_code == 503
    served.sessions.delete_session = delete  # type: ignore[method-assign]
    assert client.get("/").content == b"root"
    assert served.is_live(session.session_id)


async def test_logging_in_and_out_by_async_code(site: Site, anna: Any, root: Any) -> None:
    """Django's own async functions log the library's sessions out too."""
    names: list[object] = []

    async def view(request: Any) -> HttpResponse:
        await alogin(request, root, "django.contrib.auth.backends.ModelBackend")
        names.append((await request.lucia.avalidate()) and "anna")
        await request.lucia.asign_in(root.pk)
        await alogout(request)
        names.append((await request.lucia.avalidate()) and "root")
        return HttpResponse()

    site.serve(view)
    session = site.log_in(anna.pk)
    response = await site.async_client(session).post("/")
    assert (response.status_code, names) == (200, [None, None])
    assert response.cookies[NAME].value == ""
    assert not site.is_live(session.session_id)


def test_logins_that_are_not_beside_the_library(site: Site, root: Any, anna: Any) -> None:
    """Where the library does not decide about the user, Django's logins change no session of it."""

    def view(request: Any) -> HttpResponse:
        login(request, root, "django.contrib.auth.backends.ModelBackend")
        logout(request)
        return HttpResponse()

    session = site.log_in(anna.pk)
    site.serve(view)  # from now on the signals are connected
    site.client().post("/")
    site.serve(view, REQUEST_USER=False)
    assert site.client(session).post("/").status_code == 200
    assert site.is_live(session.session_id)


def test_the_test_client_logs_in(site: Site, root: Any) -> None:
    """The test client's force_login and logout work beside the library."""
    site.serve(name)
    client = site.client()
    client.force_login(root)
    assert client.get("/").content == b"root"
    client.logout()
    assert client.get("/").content == b""


def test_the_csrf_token_changes_with_a_login(site: Site, anna: Any) -> None:
    """A login changes the CSRF token, which somebody else may have given the visitor."""

    def view(request: Any) -> HttpResponse:
        request.lucia.sign_in(anna.pk)
        return HttpResponse()

    site.serve(view)
    client = site.client()
    assert "csrftoken" not in client.post("/").cookies
    client.cookies["csrftoken"] = "a" * 32
    assert client.post("/").cookies["csrftoken"].value != "a" * 32


# login_required


class Sync(LoginRequiredMixin, View):
    """A sync class-based view."""

    def get(self, request: Any) -> HttpResponse:
        """Respond."""
        return HttpResponse("in")


class Async(LoginRequiredMixin, View):
    """An async class-based view."""

    async def get(self, request: Any) -> HttpResponse:
        """Respond."""
        return HttpResponse("in")


@method_decorator(login_required, name="dispatch")
class Decorated(TemplateView):
    """A class-based view with the decorator."""

    def render_to_response(self, context: Any, **_: Any) -> Any:
        """Respond."""
        return HttpResponse("in")


@login_required
def inside(request: Any) -> HttpResponse:
    """Respond to people who are logged in."""
    return HttpResponse("in")


@login_required
async def ainside(request: Any) -> HttpResponse:
    """Respond to people who are logged in, by async code."""
    return HttpResponse("in")


PROTECTED = [inside, ainside, Sync.as_view(), Async.as_view(), Decorated.as_view()]


@pytest.mark.parametrize("view", PROTECTED, ids=range(len(PROTECTED)))
@pytest.mark.parametrize("is_asgi", [False, True])
@pytest.mark.parametrize("beside_django", [False, True])
def test_a_view_that_needs_a_login(
    site: Site, anna: Any, view: Any, is_asgi: bool, beside_django: bool
) -> None:
    """A session is let in; a visitor gets 401 as JSON, or the login page in a browser."""
    site.serve(view, REQUEST_USER=beside_django)
    session = site.log_in(anna.pk)

    def get(*args: Any, **headers: str) -> Any:
        if is_asgi:
            return asyncio.run(site.async_client(*args, **headers).get("/?a=b"))
        extra = {f"HTTP_{key.upper()}": value for key, value in headers.items()}
        return site.client(*args, **extra).get("/?a=b")

    assert get(session).content == b"in"
    api = get()
    assert (api.status_code, api.json()) == (401, {"detail": "Not logged in."})
    assert api.headers["WWW-Authenticate"] == "APIKey"
    page = get(accept=HTML)
    assert page.status_code == 303
    assert page.headers["Location"] == "/accounts/login/?next=/%3Fa%3Db"
    site.failure = StoreUnavailable()
    assert get(session).status_code == 503
    site.failure = None
    User.objects.update(is_active=False)
    assert get(session).status_code == (401 if beside_django else 200)


def test_a_login_page_of_its_own(site: Site) -> None:
    """The decorator and the mixin take the name or the URL of another login page."""

    class Mixed(Sync):
        login_url = "enter"

    class Choosing(Sync):
        def get_login_url(self) -> str:
            return f"/{self.request.method}/login"

    views = {
        "enter": login_required(login_url="/a/login")(name),
        "b": login_required(name, login_url="enter"),
        "e": login_required(name, "back", "enter"),
        "f": login_required(name, None, "enter"),
        "g": Sync.as_view(redirect_field_name="back"),
        "c": Mixed.as_view(),
        "d": Choosing.as_view(),
    }
    site.serve(None, *(path(key, view, name=key) for key, view in views.items()))
    client = site.client(HTTP_ACCEPT=HTML)
    found = {key: client.get(f"/{key}").headers["Location"] for key in views}
    assert found == {
        "enter": "/a/login?next=/enter",
        "b": "/enter?next=/b",
        "c": "/enter?next=/c",
        "d": "/GET/login?next=/d",
        "e": "/enter?back=/e",
        "f": "/enter",
        "g": "/accounts/login/?back=/g",
    }
    assert client.post("/b").headers["Location"] == "/enter"


def test_a_view_that_refuses_visitors(site: Site, anna: Any) -> None:
    """With raise_exception the mixin responds as Django's: 403, also to a browser."""
    site.serve(Sync.as_view(raise_exception=True, permission_denied_message="no"))
    assert site.client(HTTP_ACCEPT=HTML).get("/").status_code == 403
    assert site.client(site.log_in(anna.pk)).get("/").status_code == 200


def test_a_mixin_for_permissions(site: Site, anna: Any) -> None:
    """Whoever is logged in and lacks a permission gets 403, and is not sent to log in."""

    permissions: Any = PermissionRequiredMixin

    class Restricted(LoginRequiredMixin, permissions, View):  # type: ignore[misc]
        permission_required = "auth.change_user"

        def get(self, request: Any) -> HttpResponse:
            return HttpResponse("in")

    site.serve(Restricted.as_view())
    assert site.client(HTTP_ACCEPT=HTML).get("/").status_code == 303
    client = site.client(site.log_in(anna.pk), HTTP_ACCEPT=HTML)
    assert client.get("/").status_code == 403
    User.objects.update(is_superuser=True)
    assert client.get("/").content == b"in"


def test_an_admin_without_a_session_of_the_library(site: Site, root: Any) -> None:
    """The library's login_required needs its own session; Django's also takes the admin's login."""
    site.serve(inside, path("django", decorators.login_required(name)))
    client = site.client()
    client.force_login(root)
    assert client.get("/").status_code == 401
    assert client.get("/django").content == b"root"


def test_transactions_around_requests(site: Site, anna: Any, atomic_requests: None) -> None:
    """With ATOMIC_REQUESTS a view signs up and in, and an error of the library rolls it back."""

    def view(request: Any) -> HttpResponse:
        key = PrimaryKey("username", request.GET["name"], PASSWORD)
        user = site.auth.create_user(primary_key=key, attributes={"username": request.GET["name"]})
        request.lucia.sign_in(user.user_id)
        if "wrong" in request.GET:
            request.lucia.sign_in_with_key("username", "nobody", PASSWORD)
        return HttpResponse(request.user.username)

    site.serve(view)
    assert site.client().post("/?name=berta").content == b"berta"
    assert site.client().post("/?name=berta").status_code == 409
    assert site.client().post("/?name=clara&wrong").status_code == 401
    assert set(User.objects.values_list("username", flat=True)) == {"anna", "berta"}


@pytest.fixture
def atomic_requests(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Switch ATOMIC_REQUESTS on."""
    monkeypatch.setitem(connections["sqlite"].settings_dict, "ATOMIC_REQUESTS", True)


def clara(site: Site) -> Any:
    """Create a user who logs in with a key, and return the id."""
    key = PrimaryKey("username", "clara", PASSWORD)
    return site.auth.create_user(primary_key=key, attributes={"username": "clara"}).user_id


def test_logging_in_by_a_key(site: Site) -> None:
    """A sync view checks a key and its password, logs its user in, and renews the session."""

    def log_in(request: Any) -> HttpResponse:
        session = request.lucia.sign_in_with_key("username", "clara", PASSWORD)
        assert request.lucia.renew().session_id != session.session_id
        return HttpResponse(str(session.user_id))

    site.serve(log_in)
    user_id = clara(site)
    response = site.client().post("/")
    assert (response.content.decode(), NAME in response.cookies) == (str(user_id), True)


async def test_logging_in_by_a_key_in_async_code(site: Site) -> None:
    """So does an async view, with an ``AsyncAuth``."""

    async def log_in(request: Any) -> HttpResponse:
        session = await request.lucia.asign_in_with_key("username", "clara", PASSWORD)
        return HttpResponse(str(session.user_id))

    site.serve(log_in)
    user_id = await sync_to_async(clara)(site)
    response = await site.async_client().post("/")
    assert (response.content.decode(), NAME in response.cookies) == (str(user_id), True)
