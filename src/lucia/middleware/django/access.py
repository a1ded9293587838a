"""``login_required`` and ``LoginRequiredMixin``, as those of ``django.contrib.auth``."""

from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar, cast, overload

from asgiref.sync import iscoroutinefunction
from django.contrib.auth import REDIRECT_FIELD_NAME
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse

from lucia.errors import NotAuthenticated
from lucia.middleware.django.request import auth_request
from lucia.middleware.django.responses import error_response

__all__ = ["LoginRequiredMixin", "login_required"]

P = ParamSpec("P")
ReturnT = TypeVar("ReturnT")
ViewT = TypeVar("ViewT", bound=Callable[..., Any])


@overload
def login_required(
    function: ViewT,
    redirect_field_name: str | None = REDIRECT_FIELD_NAME,
    login_url: str | None = None,
) -> ViewT: ...


@overload
def login_required(
    function: None = None,
    redirect_field_name: str | None = REDIRECT_FIELD_NAME,
    login_url: str | None = None,
) -> Callable[[ViewT], ViewT]: ...


def login_required(
    function: Callable[..., Any] | None = None,
    redirect_field_name: str | None = REDIRECT_FIELD_NAME,
    login_url: str | None = None,
) -> Any:
    """Let only people with a session into a view, which may be async.

    A visitor's browser is sent to the login page, and comes back by ``?next=``. Other clients get
    401 with JSON. Where ``request.user`` is the session's user, that user must be active.

    Args:
        function: the view.
        redirect_field_name: the field of the query for the way back.
        login_url: the URL or the name of the login page; by default ``LOGIN_URL``.
    """

    def decorate(view: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(view)
        def decorated(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
            if not _is_logged_in(request):
                return error_response(request, NotAuthenticated(), login_url, redirect_field_name)
            return view(request, *args, **kwargs)

        @wraps(view)
        async def adecorated(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
            if not await _ais_logged_in(request):
                return error_response(request, NotAuthenticated(), login_url, redirect_field_name)
            return await view(request, *args, **kwargs)

        # By asgiref, as Django itself does: it also knows class-based views.
        is_async = iscoroutinefunction(view)  # pyright: ignore[reportDeprecated]
        return adecorated if is_async else decorated

    return decorate if function is None else decorate(function)


class LoginRequiredMixin:
    """Lets only people with a session into a class-based view, as :func:`login_required` does.

    It goes to the left of the other bases. ``login_url`` is the login page, by default
    ``LOGIN_URL``, and ``redirect_field_name`` the field of its query for the way back. With
    ``raise_exception`` the response is Django's 403 in any case.
    """

    request: HttpRequest
    login_url: str | None = None
    redirect_field_name: str | None = REDIRECT_FIELD_NAME
    raise_exception = False
    permission_denied_message = ""
    _is_visitor = False

    def get_login_url(self) -> str | None:
        """Return ``login_url``; for a page that depends on the request."""
        return self.login_url

    def handle_no_permission(self) -> HttpResponse:
        """Return the response to a visitor.

        Raises:
            PermissionDenied: with ``raise_exception``, and for somebody who is logged in and whom
                another mixin does not let in.
        """
        if self.raise_exception or not self._is_visitor:
            raise PermissionDenied(self.permission_denied_message)
        return error_response(
            self.request, NotAuthenticated(), self.get_login_url(), self.redirect_field_name
        )

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        """Return the response of the view, or that to a visitor."""
        dispatch: Callable[..., Any] = cast("Any", super()).dispatch
        if cast("Any", self).view_is_async:
            return self._adispatch(dispatch, request, *args, **kwargs)
        self._is_visitor = not _is_logged_in(request)
        if self._is_visitor:
            return self.handle_no_permission()
        return dispatch(request, *args, **kwargs)

    async def _adispatch(
        self, dispatch: Callable[..., Any], request: HttpRequest, *args: Any, **kwargs: Any
    ) -> Any:
        self._is_visitor = not await _ais_logged_in(request)
        if self._is_visitor:
            return self.handle_no_permission()
        return await dispatch(request, *args, **kwargs)


def _is_logged_in(request: HttpRequest) -> bool:
    lucia = auth_request(request)
    if lucia.request_user is not None:
        return lucia.request_user.load() is not None
    return lucia.validate() is not None


async def _ais_logged_in(request: HttpRequest) -> bool:
    lucia = auth_request(request)
    if lucia.request_user is not None:
        return await lucia.request_user.aload() is not None
    return await lucia.avalidate() is not None
