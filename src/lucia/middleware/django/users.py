"""``django.contrib.auth`` beside the library: ``request.user``, its login and its logout."""

from typing import Any

from django.contrib.auth import load_backend
from django.contrib.auth.signals import user_logged_in, user_logged_out
from django.utils.functional import SimpleLazyObject

from lucia.middleware.django.accounts import MODEL_BACKEND
from lucia.middleware.django.request import DjangoAuthRequest
from lucia.models import UNSET

__all__ = ["RequestUser", "follow_django"]


class RequestUser:
    """``request.user`` and ``request.auser()``: the user of the library's session.

    Without such a session, or if its user is not active, they are what ``django.contrib.auth``
    says. The user is loaded when it is used for the first time.

    Args:
        request: Django's request, behind ``AuthenticationMiddleware``.
        lucia: its ``request.lucia``.
    """

    def __init__(self, request: Any, lucia: DjangoAuthRequest[Any, Any]) -> None:
        self._request = request
        self._lucia = lucia
        self._otherwise = request.user
        self._aotherwise = request.auser
        self.forget()

    def forget(self) -> None:
        """Let the user be loaded again."""
        self._user: Any = UNSET
        self._request.user = SimpleLazyObject(lambda: self.load() or self._otherwise)
        self._request.auser = self._auser

    def load(self) -> Any:
        """Return the user of the library's session; None for a visitor, or if it is not active."""
        if self._user is UNSET:
            session = self._lucia.validate()
            # As Django's own sessions do: by the default manager, and only active users.
            self._user = session and load_backend(MODEL_BACKEND).get_user(session.user_id)
        return self._user

    async def aload(self) -> Any:
        """Return what :meth:`load` does."""
        if self._user is UNSET:
            session = await self._lucia.avalidate()
            self._user = session and await load_backend(MODEL_BACKEND).aget_user(session.user_id)
        return self._user

    async def _auser(self) -> Any:
        return await self.aload() or await self._aotherwise()


def follow_django() -> None:
    """Follow the logins and logouts of ``django.contrib.auth``, such as those of the admin."""
    user_logged_in.connect(_follow_login, dispatch_uid="lucia")
    user_logged_out.connect(_follow_logout, dispatch_uid="lucia")


# Both are sync functions: for alogin() and alogout() Django calls them in a thread.


def _follow_login(request: Any, user: Any, **_: Any) -> None:
    """Sign out whoever else is logged in.

    Otherwise somebody who is logged in to the site could not log in to the admin as another user.
    """
    lucia = _beside_django(request)
    session = None if lucia is None else lucia.validate()
    if lucia is not None and session is not None and str(session.user_id) != str(user.pk):
        lucia.sign_out()


def _follow_logout(request: Any, **_: Any) -> None:
    """Sign out: otherwise "Log out" in the admin would not log out."""
    lucia = _beside_django(request)
    if lucia is not None:
        lucia.sign_out()


def _beside_django(request: Any) -> DjangoAuthRequest[Any, Any] | None:
    """Return ``request.lucia`` if it decides about ``request.user``."""
    # The test client logs in and out by a request of its own, which no middleware has seen.
    lucia: DjangoAuthRequest[Any, Any] | None = getattr(request, "lucia", None)
    return None if lucia is None or lucia.request_user is None else lucia
