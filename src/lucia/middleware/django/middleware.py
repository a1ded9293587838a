"""The middleware behind ``request.lucia``, for WSGI and ASGI."""

import sys
from collections.abc import Callable
from typing import Any, Final, Literal

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.core.exceptions import PermissionDenied
from django.core.handlers.exception import response_for_exception
from django.core.signals import got_request_exception
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.utils.cache import patch_vary_headers
from django.utils.http import http_date

from lucia._rules.responses import ERRORS
from lucia.errors import InvalidRequest
from lucia.middleware.django.conf import load_configuration
from lucia.middleware.django.request import DjangoAuthRequest
from lucia.middleware.django.responses import error_response
from lucia.middleware.django.users import RequestUser, follow_django

__all__ = ["LuciaMiddleware"]

_SAME_SITE: Final[dict[str, Literal["Lax", "Strict", "None"]]] = {
    "lax": "Lax",
    "strict": "Strict",
    "none": "None",
}


class LuciaMiddleware:
    """Gives each request a :class:`DjangoAuthRequest`, ``request.lucia``.

    Its cookies are put on whatever response comes from the view or from a middleware further down
    in ``MIDDLEWARE``, also on 404 and 500. Behind ``AuthenticationMiddleware``, ``request.user`` is
    the user of the session.

    The library's errors that nobody catches are responded to without telling which
    credential was wrong: 401 for ``NotAuthenticated``, ``InvalidSessionId`` and
    ``InvalidCredentials``, 403 for ``InvalidRequest`` and ``RequestUnauthorized``, 409 for
    ``DuplicateKeyId``, 422 with its message for ``InvalidInput``, 429 for ``TooManyAttempts``, 503
    for ``Overloaded`` and ``StoreUnavailable``. Clients get JSON. Browsers get a page, that of
    ``handler403`` for 403, and visitors are sent to ``LOGIN_URL``.

    Raises:
        ImproperlyConfigured: the setting ``LUCIA`` is missing or wrong, see
            :class:`~lucia.middleware.django.conf.Configuration`.
    """

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        self.get_response = get_response
        self.configuration = load_configuration()
        self.is_async = iscoroutinefunction(get_response)  # pyright: ignore[reportDeprecated]
        if self.is_async:
            markcoroutinefunction(self)
        got_request_exception.connect(_note_error, dispatch_uid="lucia")
        if self.configuration.request_user:
            follow_django()

    def __call__(self, request: HttpRequest) -> Any:
        """Return the response, or under ASGI an awaitable of it."""
        if self.is_async:
            return self.__acall__(request)
        lucia = self._begin(request)
        response = self._refuse(request, lucia) or self.get_response(request)
        lucia.set_owner()
        return _finish(request, lucia, response)

    async def __acall__(self, request: HttpRequest) -> HttpResponseBase:
        """Return the response."""
        lucia = self._begin(request)
        response = self._refuse(request, lucia) or await self.get_response(request)
        await lucia.aset_owner()
        return _finish(request, lucia, response)

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponse | None:
        """Return the response to one of the library's errors; None for other errors."""
        return error_response(request, exception) if isinstance(exception, ERRORS) else None

    def _begin(self, request: Any) -> DjangoAuthRequest[Any, Any]:
        lucia: DjangoAuthRequest[Any, Any] = DjangoAuthRequest(request, self.configuration)
        request.lucia = lucia
        if self.configuration.request_user and hasattr(request, "auser"):
            lucia.request_user = RequestUser(request, lucia)
        return lucia

    def _refuse(
        self, request: HttpRequest, lucia: DjangoAuthRequest[Any, Any]
    ) -> HttpResponse | None:
        if self.configuration.forbid_cross_site and lucia.is_cross_site:
            return error_response(request, InvalidRequest())
        return None


def _note_error(request: Any, **_: Any) -> None:
    """Note one of the library's errors that a middleware raised: Django responds 500 to it."""
    error = sys.exc_info()[1]
    lucia: DjangoAuthRequest[Any, Any] | None = getattr(request, "lucia", None)
    if lucia is not None and isinstance(error, ERRORS):
        lucia.error = error


def _finish(
    request: HttpRequest, lucia: DjangoAuthRequest[Any, Any], response: HttpResponseBase
) -> HttpResponseBase:
    """Return the response with cookies, and the headers that go with them."""
    if lucia.error is not None:
        try:
            response = error_response(request, lucia.error)
        except PermissionDenied as error:
            response = response_for_exception(request, error)
    exchange = lucia.exchange
    exchange.started = True
    for cookie in (exchange.cookies or {}).values():
        response.set_cookie(
            cookie.name,
            cookie.value,
            # As text: of a datetime Django makes a Max-Age by its own clock.
            expires=http_date(cookie.expires.timestamp()),
            path=cookie.path,
            domain=cookie.domain,
            secure=cookie.secure,
            httponly=cookie.http_only,
            samesite=_SAME_SITE[cookie.same_site],
        )
        # Otherwise an empty value would be in quotes, which are then the value.
        response.cookies[cookie.name].set(cookie.name, cookie.value, cookie.value)
        # The application's own Cache-Control could let a shared cache store the cookie.
        response.headers["Cache-Control"] = "no-store"
    if exchange.varies is not None:
        patch_vary_headers(response, exchange.varies.split(", "))
    return response
