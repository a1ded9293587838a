"""The application in Django, for WSGI and ASGI. Every second view is async."""

# ruff: noqa: E402
import asyncio
import os
import time
from collections.abc import AsyncIterator
from typing import Any

import django
from django.conf import settings

settings.configure(
    SECRET_KEY="of nobody",
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    INSTALLED_APPS=[
        "django.contrib.contenttypes",
        "django.contrib.auth",
        "django.contrib.sessions",
    ],
    SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies",
    MIDDLEWARE=[
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.middleware.common.CommonMiddleware",
        "django.middleware.csrf.CsrfViewMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
        "lucia.middleware.django.LuciaMiddleware",
    ],
    SECURE_PROXY_SSL_HEADER=("HTTP_X_FORWARDED_PROTO", "https"),
    LUCIA={
        "AUTH": f"{__name__}.auth",
        "ASYNC_AUTH": None if "BEHAVIOUR_SYNC_AUTH" in os.environ else f"{__name__}.async_auth",
        "FORBID_CROSS_SITE": True,
    },
    LOGIN_URL="lucia:log_in",
)
django.setup()

from django.http import (
    Http404,
    HttpRequest,
    HttpResponse,
    HttpResponseRedirect,
    JsonResponse,
    StreamingHttpResponse,
)
from django.urls import include, path
from django.views.decorators.csrf import csrf_exempt

from lucia.middleware.django import login_required
from tests.web.behaviour.apps import stores
from tests.web.behaviour.apps.stores import OWN_HEADERS, numbers, shown

auth = stores.sync_auth()
async_auth = stores.async_auth()


def finish(request: HttpRequest, session: Any) -> HttpResponse | StreamingHttpResponse:
    """Return the response of a view that has asked who it is."""
    match request.path:
        case "/crash":
            raise ZeroDivisionError
        case "/gone":
            raise Http404
        case "/redirect":
            return HttpResponseRedirect("/who")
        case "/stream":
            return StreamingHttpResponse(parts() if hasattr(request, "scope") else iter(numbers()))
        case "/own-headers":
            response = JsonResponse({}, headers=OWN_HEADERS)
            response.set_cookie("theme", "dark")
            return response
        case _:
            return JsonResponse(shown(session))


async def parts() -> AsyncIterator[bytes]:
    """Yield the parts of the stream, under ASGI."""
    for part in numbers():
        yield part


@csrf_exempt
def view(request: Any) -> HttpResponse | StreamingHttpResponse:
    """Respond in sync code."""
    if request.method == "POST":
        request.lucia.sign_in("ann")
    session = request.lucia.validate()
    if request.path == "/slow":
        time.sleep(0.2)
    return finish(request, session)


@csrf_exempt
async def async_view(request: Any) -> HttpResponse | StreamingHttpResponse:
    """Respond in async code."""
    if request.method == "POST":
        await request.lucia.asign_in("ann")
    session = await request.lucia.avalidate()
    if request.path == "/slow":
        await asyncio.sleep(0.2)
    return finish(request, session)


def unused(request: HttpRequest) -> HttpResponse:
    """Respond without asking."""
    return JsonResponse({})


other = view if "BEHAVIOUR_SYNC_VIEWS" in os.environ else async_view

urlpatterns = [
    path("auth/", include("lucia.middleware.django.urls")),
    path("private", login_required(other)),
    path("unused", unused),
    *(path(name, view) for name in ("who", "gone", "own-headers", "redirect")),
    *(path(name, other) for name in ("crash", "stream", "slow")),
]
