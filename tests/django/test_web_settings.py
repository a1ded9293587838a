"""The setting ``LUCIA``: what is wrong with it is said when Django starts."""

from typing import Any

import pytest
from django.core.checks import CheckMessage, run_checks
from django.core.exceptions import ImproperlyConfigured
from django.core.handlers.wsgi import WSGIHandler
from django.core.management import call_command
from django.http import HttpResponse
from django.test import override_settings
from django.urls import path

from lucia import Auth
from lucia.adapters.memory import MemoryAdapter
from lucia.middleware.django.conf import load_configuration
from tests.support.django_site_web import LUCIA, MIDDLEWARE, Site, site

__all__ = ["site"]

SITE = Site.__module__
REQUEST_USER = [
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "lucia.middleware.django.LuciaMiddleware",
]


def checked() -> list[CheckMessage]:
    """Return what the library's check says."""
    return run_checks(tags=["lucia"])


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"AUTH": None}, r"must be a dict with the dotted path of your Auth: LUCIA = {\"AUTH\": "),
    ({"AUTH": 7}, r"LUCIA\['AUTH'\] must be an Auth, not int"),
    ({"AUTH": "nowhere.auth"}, r"LUCIA\['AUTH'\] = 'nowhere.auth' can't be imported: No module"),
    ({"AUTH": f"{SITE}.other"}, r"LUCIA\['AUTH'\] .* does not define a \"other\" attribute"),
    (
        {"AUTH": f"{SITE}.async_auth"},
        r"LUCIA\['AUTH'\] must be an Auth, not AsyncAuth: an AsyncAuth belongs into ASYNC_AUTH",
    ),
    (
        {"ASYNC_AUTH": f"{SITE}.auth"},
        r"LUCIA\['ASYNC_AUTH'\] must be an AsyncAuth, not Auth: an Auth belongs into AUTH",
    ),
    ({"TRANSPORT": "coookie"}, r"LUCIA\['TRANSPORT'\] must be .*, not 'coookie'"),
    ({"TRANSPROT": "bearer"}, r"LUCIA\['TRANSPROT'\] is unknown: did you mean 'TRANSPORT'\?"),
    ({"x": "bearer"}, r"LUCIA\['x'\] is unknown: it may have AUTH, ASYNC_AUTH, "),
    ({"ROUTES": [1]}, r"LUCIA\['ROUTES'\] must be a dict, not list: give the settings"),
    ({"ROUTES": {"after_logn": "/"}}, r"LUCIA\['ROUTES'\]: .* did you mean 'after_login'\?"),
    (
        {"ROUTES": {"me": lambda request, submission: {}}},
        r"LUCIA\['ASYNC_ROUTES'\]: me must be an async function here",
    ),
    ({"ASYNC_ROUTES": {"pagse": False}}, r"LUCIA\['ASYNC_ROUTES'\]: .* did you mean 'pages'\?"),
]


@pytest.mark.parametrize(("lucia", "message"), WRONG, ids=range(len(WRONG)))
def test_a_wrong_setting(site: Site, lucia: dict[str, Any], message: str) -> None:
    """The check says what is wrong, naming the member, and the site does not start."""
    site.serve(**lucia)
    (found,) = checked()
    assert found.id == "lucia.E001"
    with pytest.raises(ImproperlyConfigured, match=message) as error:
        WSGIHandler()
    assert str(error.value) == found.msg


def test_where_to_go_after_a_login(site: Site) -> None:
    """``after_login`` takes a path or the name of a URL; the check refuses everything else."""
    home = path("home/", lambda request: HttpResponse(), name="home")
    site.serve(None, home, ROUTES={"after_login": "home"})
    assert checked() == []
    assert dict(load_configuration().accounts._after)["log_in"] == "/home/"
    for wrong in ("nowhere", "javascript:1.0"):
        with override_settings(LUCIA={**LUCIA, "ROUTES": {"after_login": wrong}}):
            (found,) = checked()
            assert (found.id, "after_login must be a path" in found.msg) == ("lucia.E001", True)


def test_a_missing_setting(site: Site) -> None:
    """With the middleware the setting is required."""
    site.serve()
    with override_settings(LUCIA=None):
        assert [each.id for each in checked()] == ["lucia.E001"]


def test_the_adapters_alone() -> None:
    """An application that uses the adapters alone needs no setting."""
    assert checked() == []
    with pytest.raises(ImproperlyConfigured, match="the setting LUCIA must be a dict"):
        load_configuration()


def test_the_order_of_middleware(site: Site) -> None:
    """The check warns if AuthenticationMiddleware would replace request.user."""
    site.serve(middleware=REQUEST_USER)
    assert checked() == []
    site.serve(middleware=REQUEST_USER[::-1])
    (warning,) = checked()
    assert (warning.id, "below it" in (warning.hint or "")) == ("lucia.W001", True)
    site.serve(middleware=REQUEST_USER[::-1], REQUEST_USER=False)
    assert checked() == []
    site.serve(middleware=REQUEST_USER[:1])
    assert checked() == []


def test_the_check_of_manage_py(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    """The check is one of Django's."""
    site.serve(middleware=MIDDLEWARE)
    call_command("check", tags=["lucia"])
    assert capsys.readouterr().out == "System check identified no issues (0 silenced).\n"


@pytest.mark.parametrize(
    ("users", "request_user"),
    [("lucia.Key", True), ("django_site.PersonKey", False), (None, False)],
)
def test_whose_users_are_those_of_django(site: Site, users: str | None, request_user: bool) -> None:
    """Only users of AUTH_USER_MODEL are request.user; ids of others may be the same numbers."""
    from lucia.adapters.django import DjangoUserAdapter

    adapter = None if users is None else DjangoUserAdapter(users)
    kind = int if request_user else str
    site.auth = Auth(users=adapter, sessions=MemoryAdapter(), user_id=kind, env="DEV")
    site.serve()
    assert load_configuration().request_user is request_user
    site.serve(REQUEST_USER=True)
    assert load_configuration().request_user


def test_users_elsewhere(site: Site) -> None:
    """With users of another store, sessions work without django.contrib.auth's."""
    memory = MemoryAdapter()
    site.auth = Auth(users=memory, sessions=memory, env="DEV")

    def view(request: Any) -> HttpResponse:
        both = request.lucia.validate_user()
        return HttpResponse(both.user.user_id)

    site.serve(view, ASYNC_AUTH=None)
    user = site.auth.create_user(primary_key=None)
    session = site.auth.create_session(user.user_id)
    assert site.client(session).get("/").content.decode() == user.user_id


def test_an_auth_itself(site: Site) -> None:
    """An Auth may be given in place of its path, as tests do."""
    site.serve(AUTH=site.auth, ASYNC_AUTH=site.async_auth)
    assert load_configuration().auth is site.auth
