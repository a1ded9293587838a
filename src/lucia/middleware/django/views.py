"""The views of the ready routes."""

from collections.abc import Mapping
from typing import Any

from asgiref.sync import sync_to_async
from django.contrib.auth import logout
from django.contrib.auth.decorators import login_not_required
from django.db import connections
from django.db.transaction import non_atomic_requests
from django.http import HttpRequest, HttpResponse
from django.middleware.csrf import get_token
from django.urls import URLPattern, path
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.debug import sensitive_post_parameters
from django.views.generic import View

from lucia._rules.accounts import AccountRoute, Reply, Submission
from lucia._rules.bodies import check_body_length, check_charset, read_body
from lucia._rules.pages import PAGE_HEADERS
from lucia.middleware.django.conf import load_configuration
from lucia.middleware.django.request import DjangoAuthRequest, Sharing, auth_request
from lucia.middleware.django.responses import HttpResponseSeeOther, json_response, wants_page

__all__ = ["account_urls"]

_LOGINS = ("sign_up", "log_in")
_LOGOUTS = ("log_out", "revoke_device")  # the device may be this one
_FORMS = ("application/x-www-form-urlencoded", "multipart/form-data")


def account_urls() -> list[URLPattern]:
    """Return the URLs of the ready routes that the setting ``LUCIA`` asks for."""
    configuration = load_configuration()
    view_class = AccountView if configuration.async_auth is None else AsyncAccountView
    by_path: dict[str, dict[str, AccountRoute]] = {}
    for route in configuration.table():
        by_path.setdefault(route.path, {})[route.method] = route
    urls: list[URLPattern] = []
    for url, routes in by_path.items():
        names = ["options", *(method.lower() for method in routes)]
        if "GET" in routes:
            names.append("head")
        view = view_class.as_view(routes=routes, http_method_names=names)
        view = sensitive_post_parameters()(view)
        # For LoginRequiredMiddleware: the routes themselves check who is logged in.
        view = login_not_required(view)
        # No transaction around the view: a change of the password has to be committed before the
        # old password's sessions are revoked.
        for alias in connections:
            view = non_atomic_requests(using=alias)(view)
        if configuration.is_csrf_exempt():
            view = csrf_exempt(view)
        pattern = url.removeprefix("/").replace("{handle}", "<str:handle>")
        urls.append(path(pattern, view, name=next(iter(routes.values())).name))
    return urls


class _AccountPath(View):
    """The ready routes of one path, by their methods."""

    routes: Mapping[str, AccountRoute] = {}

    def run(self, request: HttpRequest, handle: str = "") -> HttpResponse:
        """Run the route's step in sync code, and return the response."""
        lucia = auth_request(request)
        accounts = lucia.configuration.accounts
        route, submission = self._read(request, handle)
        was_logged_in = route.name != "revoke_device" or lucia.validate() is not None
        with Sharing(lucia.sync_request, lucia.async_request):
            reply = accounts.handle(route, lucia.sync_request, submission)
        if was_logged_in and route.method == "POST" and reply.status < 400:
            _follow(request, lucia, route)
        return _response(reply)

    async def arun(self, request: HttpRequest, handle: str = "") -> HttpResponse:
        """Run the route's step in async code, and return the response."""
        lucia = auth_request(request)
        accounts = lucia.configuration.async_accounts
        if accounts is None or lucia.async_request is None:
            return await sync_to_async(self.run)(request, handle)
        route, submission = self._read(request, handle)
        was_logged_in = route.name != "revoke_device" or await lucia.avalidate() is not None
        with Sharing(lucia.async_request, lucia.sync_request):
            reply = await accounts.handle(route, lucia.async_request, submission)
        if was_logged_in and route.method == "POST" and reply.status < 400:
            await sync_to_async(_follow)(request, lucia, route)
        return _response(reply)

    def _read(self, request: HttpRequest, handle: str) -> tuple[AccountRoute, Submission]:
        route = self.routes["POST" if request.method == "POST" else "GET"]
        kind = request.content_type or ""
        is_form = route.method == "POST" and kind in _FORMS
        fields: Mapping[str, Any] = {}
        check_body_length(_content_length(request))
        check_charset(request.META.get("CONTENT_TYPE", ""))
        if is_form:
            # By Django's own parser: CsrfViewMiddleware may have read the body already.
            fields = request.POST.dict()
        elif route.method == "POST":
            fields, _ = read_body(kind, request.body)
        shows_page = route.is_page or wants_page(request)
        return route, Submission(
            fields=fields,
            is_form=is_form,
            wants_page=wants_page(request),
            path=request.path,
            host=request.get_host(),
            query_next=request.GET.get("next"),
            handle=handle,
            user_agent=request.META.get("HTTP_USER_AGENT", ""),
            hidden={"csrfmiddlewaretoken": get_token(request)} if shows_page else {},
            request=request,
        )


class AccountView(_AccountPath):
    """The ready routes of one path, without an ``AsyncAuth``."""

    get = post = _AccountPath.run


class AsyncAccountView(_AccountPath):
    """The ready routes of one path, with an ``AsyncAuth``."""

    get = post = _AccountPath.arun


def _content_length(request: HttpRequest) -> int:
    length = request.META.get("CONTENT_LENGTH") or ""
    return int(length) if length.isdecimal() else 0


def _follow(request: HttpRequest, lucia: DjangoAuthRequest[Any, Any], route: AccountRoute) -> None:
    """Let the rest of Django know what a route did.

    Who logs out is also logged out of ``django.contrib.auth``. Otherwise they would still be logged
    in if they had logged in to the admin as well.
    """
    if route.name in _LOGINS:
        lucia.logged_in()
    elif route.name in _LOGOUTS and lucia.sync_request.validate() is None:
        lucia.logged_out()
        if lucia.request_user is not None:
            logout(request)


def _response(reply: Reply) -> HttpResponse:
    response: HttpResponse
    if reply.location is not None:
        response = HttpResponseSeeOther(reply.location)
    elif reply.html is not None:
        response = HttpResponse(reply.html, status=reply.status, headers=dict(PAGE_HEADERS))
    elif reply.status == 204:
        response = HttpResponse(status=204)
    else:
        response = json_response(reply.content, reply.status)
    for name, value in reply.headers.items():
        response.headers[name] = value
    return response
