"""Django: with lucia-auth, and with its own sessions in its Redis cache.

The two libraries that end with ``_user`` also read the user, a row in SQLite, by ``request.user``.
The other ones read the session alone.
"""

from collections.abc import Callable
from typing import Any, Final, Literal, cast

import django  # type: ignore[import-untyped] # it has no types
from django.conf import settings  # type: ignore[import-untyped]
from django.contrib import auth  # type: ignore[import-untyped]
from django.core.asgi import get_asgi_application  # type: ignore[import-untyped]
from django.core.wsgi import get_wsgi_application  # type: ignore[import-untyped]
from django.db import connection  # type: ignore[import-untyped]
from django.http import HttpResponse, JsonResponse  # type: ignore[import-untyped]
from django.urls import path  # type: ignore[import-untyped]

from bench.drive import user_ids
from bench.peer import RECORD
from bench.peers import CONNECTIONS, KEEPALIVE
from bench.web import Web
from bench.web.frameworks import make_async_auth, make_auth
from lucia.adapters.django import AsyncDjangoUserAdapter, DjangoUserAdapter
from lucia.middleware.django import login_required

View = Callable[..., Any]
Library = Literal["none", "lucia", "lucia_user", "sessions", "sessions_user"]

SESSIONS: Final = "django.contrib.sessions.middleware.SessionMiddleware"
USERS: Final = "django.contrib.auth.middleware.AuthenticationMiddleware"
LUCIA: Final = "lucia.middleware.django.LuciaMiddleware"
MIDDLEWARE: Final[dict[Library, list[str]]] = {
    "none": [],
    "lucia": [LUCIA],
    "lucia_user": [SESSIONS, USERS, LUCIA],
    "sessions": [SESSIONS],
    "sessions_user": [SESSIONS, USERS],
}
WITH_USER: Final = ("lucia_user", "sessions_user")
APPS: Final = ["django.contrib.auth", "django.contrib.contenttypes", "lucia.adapters.django"]
NOBODY: Final = user_ids(1)[0]


def make_web(url: str, *, library: Library, server: Literal["wsgi", "asgi"], database: str) -> Web:
    """Configure Django as its documentation and that of the library show.

    Args:
        url: the URL of Redis.
        library: the library.
        server: under ``asgi`` the views are async.
        database: the path of the SQLite file.
    """
    is_async, with_user = server == "asgi", library in WITH_USER
    login_view, me = (ASYNC_VIEWS if is_async else VIEWS)[library]
    cache = {
        "BACKEND": "django.core.cache.backends.redis.RedisCache",
        "LOCATION": url,
        "OPTIONS": {"max_connections": CONNECTIONS, "socket_keepalive": KEEPALIVE},
    }
    sqlite = {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": database,
        # Django's documentation advises against connections that stay open under ASGI.
        "CONN_MAX_AGE": 0 if is_async else None,
    }
    users = {"users": DjangoUserAdapter(), "user_id": int} if with_user else {}
    async_users: dict[str, Any] = (
        {"users": AsyncDjangoUserAdapter(), "user_id": int} if with_user else {}
    )
    settings.configure(
        ALLOWED_HOSTS=["127.0.0.1"],
        CACHES={"default": cache},
        DATABASES={"default": sqlite} if with_user else {},
        INSTALLED_APPS=APPS if with_user else [],
        LUCIA={
            "AUTH": make_auth(url, **users),
            "ASYNC_AUTH": make_async_auth(url, **async_users),
        },
        MIDDLEWARE=MIDDLEWARE[library],
        ROOT_URLCONF=(path("login/<user_id>", login_view), path("me", me)),
        SECRET_KEY="a benchmark's",  # noqa: S106 # not a real one
        SESSION_ENGINE="django.contrib.sessions.backends.cache",
    )
    django.setup()
    if with_user:
        with connection.schema_editor() as editor:
            editor.create_model(auth.get_user_model())
    app = get_asgi_application() if is_async else get_wsgi_application()
    return Web(app=app, guarded=library != "none")


def nobody(_: Any) -> JsonResponse:
    """Return a user's id."""
    return JsonResponse({"user_id": NOBODY})


async def anobody(_: Any) -> JsonResponse:
    """Return a user's id."""
    return JsonResponse({"user_id": NOBODY})


def lucia_login(request: Any, user_id: str) -> HttpResponse:
    """Log in with lucia-auth."""
    request.lucia.sign_in(user_id)
    return HttpResponse()


async def lucia_alogin(request: Any, user_id: str) -> HttpResponse:
    """Log in with lucia-auth."""
    await request.lucia.asign_in(user_id)
    return HttpResponse()


@login_required
def lucia_me(request: Any) -> JsonResponse:
    """Return the user's id from lucia-auth's session."""
    return JsonResponse({"user_id": request.lucia.validate().user_id})


@login_required
async def lucia_ame(request: Any) -> JsonResponse:
    """Return the user's id from lucia-auth's session."""
    return JsonResponse({"user_id": (await request.lucia.avalidate()).user_id})


def sessions_login(request: Any, user_id: str) -> HttpResponse:
    """Log in with Django's session."""
    request.session.update(RECORD | {"user_id": user_id})
    return HttpResponse()


async def sessions_alogin(request: Any, user_id: str) -> HttpResponse:
    """Log in with Django's session."""
    await request.session.aupdate(RECORD | {"user_id": user_id})
    return HttpResponse()


def sessions_me(request: Any) -> HttpResponse:
    """Return the user's id from Django's session."""
    user_id = request.session.get("user_id")
    return HttpResponse(status=401) if user_id is None else JsonResponse({"user_id": user_id})


async def sessions_ame(request: Any) -> HttpResponse:
    """Return the user's id from Django's session."""
    user_id = await request.session.aget("user_id")
    return HttpResponse(status=401) if user_id is None else JsonResponse({"user_id": user_id})


def lucia_user_login(request: Any, user_id: str) -> HttpResponse:
    """Log a user of the database in with lucia-auth."""
    request.lucia.sign_in(stored_user(user_id).pk)
    return HttpResponse()


async def lucia_user_alogin(request: Any, user_id: str) -> HttpResponse:
    """Log a user of the database in with lucia-auth."""
    await request.lucia.asign_in((await astored_user(user_id)).pk)
    return HttpResponse()


def user_login(request: Any, user_id: str) -> HttpResponse:
    """Log a user of the database in with ``django.contrib.auth``."""
    auth.login(request, stored_user(user_id))
    return HttpResponse()


async def user_alogin(request: Any, user_id: str) -> HttpResponse:
    """Log a user of the database in with ``django.contrib.auth``."""
    await auth.alogin(request, await astored_user(user_id))
    return HttpResponse()


def user_me(request: Any) -> HttpResponse:
    """Return the id of ``request.user``."""
    return user_response(request.user)


async def user_ame(request: Any) -> HttpResponse:
    """Return the id of ``request.auser()``."""
    return user_response(await request.auser())


def user_response(user: Any) -> HttpResponse:
    """Return the response with a user's id, as the worker knows it."""
    if not user.is_authenticated:
        return HttpResponse(status=401)
    return JsonResponse({"user_id": f"{user.pk:032x}"})


def stored_user(user_id: str) -> Any:
    """Return the user whose id the worker means, and store them first if they are new."""
    users = cast("Any", auth.get_user_model()).objects
    user, _ = users.get_or_create(pk=int(user_id, 16), username=user_id)
    return user


async def astored_user(user_id: str) -> Any:
    """Return what :func:`stored_user` does."""
    users = cast("Any", auth.get_user_model()).objects
    user, _ = await users.aget_or_create(pk=int(user_id, 16), username=user_id)
    return user


VIEWS: Final[dict[Library, tuple[View, View]]] = {
    "none": (nobody, nobody),
    "lucia": (lucia_login, lucia_me),
    "lucia_user": (lucia_user_login, user_me),
    "sessions": (sessions_login, sessions_me),
    "sessions_user": (user_login, user_me),
}
"""The views that log in and that are measured."""

ASYNC_VIEWS: Final[dict[Library, tuple[View, View]]] = {
    "none": (anobody, anobody),
    "lucia": (lucia_alogin, lucia_ame),
    "lucia_user": (lucia_user_alogin, user_ame),
    "sessions": (sessions_alogin, sessions_ame),
    "sessions_user": (user_alogin, user_ame),
}
