"""Responses: JSON, pages, redirects, and the responses to errors."""

from django.conf import settings
from django.contrib.auth import REDIRECT_FIELD_NAME
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import resolve_url

from lucia._rules.accounts import ErrorDetail, to_json
from lucia._rules.redirects import login_location, prefers_page
from lucia._rules.responses import response_for
from lucia.errors import NotAuthenticated
from lucia.middleware.django.request import auth_request

__all__ = ["HttpResponseSeeOther", "error_response", "json_response", "wants_page"]


class HttpResponseSeeOther(HttpResponseRedirect):
    """A redirect that the browser follows by GET, also after a form."""

    status_code = 303


def wants_page(request: HttpRequest) -> bool:
    """Return whether a request is a browser's, for a page."""
    return prefers_page(request.META.get("HTTP_ACCEPT"))


def json_response(content: object, status: int) -> HttpResponse:
    """Return a response with JSON."""
    return HttpResponse(to_json(content), "application/json", status)


def error_response(
    request: HttpRequest,
    error: Exception,
    login_url: str | None = None,
    redirect_field_name: str | None = REDIRECT_FIELD_NAME,
) -> HttpResponse:
    """Return the response to one of the library's errors.

    Args:
        request: the request.
        error: the error.
        login_url: where a visitor's browser is sent; by default ``LOGIN_URL``.
        redirect_field_name: the field of its query for the way back; None for no way back.

    Raises:
        PermissionDenied: the response is a page with the status 403, which is Django's matter.
    """
    answer = response_for(error, auth_request(request).configuration.transport)
    if not wants_page(request):
        response = json_response(ErrorDetail(answer.detail), answer.status)
    else:
        login_url = login_url or settings.LOGIN_URL
        if login_url and isinstance(error, NotAuthenticated):
            location = login_location(
                resolve_url(login_url),
                method=request.method or "",
                path=request.path,
                query=request.META.get("QUERY_STRING", ""),
                host=request.get_host(),
                field=redirect_field_name,
            )
            if location is not None:
                return HttpResponseSeeOther(location)
        if answer.status == 403:
            raise PermissionDenied(answer.detail) from error
        response = HttpResponse(answer.detail, "text/plain; charset=utf-8", answer.status)
    for name, value in answer.headers.items():
        response.headers[name] = value
    return response
