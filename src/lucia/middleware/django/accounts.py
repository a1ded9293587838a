"""The steps of the ready routes, with the rules of Django's settings."""

from collections.abc import Callable, Mapping
from typing import Any, Final, Unpack

from asgiref.sync import sync_to_async
from django.contrib.auth import get_user_model
from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.db import IntegrityError

from lucia._async.accounts import AsyncAccountRoutes, AsyncAccountSettings
from lucia._async.auth import AsyncAuth
from lucia._async.request import AsyncAuthRequest
from lucia._rules.accounts import AccountRoute, Submission, normalize_name
from lucia._rules.requests import Transport
from lucia._sync.accounts import AccountRoutes, AccountSettings
from lucia._sync.auth import Auth
from lucia._sync.request import AuthRequest
from lucia.errors import DuplicateKeyId, InvalidInput

__all__ = ["AsyncDjangoAccountRoutes", "DjangoAccountRoutes"]

Attributes = Callable[[Submission], Mapping[str, Any]]

_NEW_PASSWORDS: Final[Mapping[str, str]] = {
    "sign_up": "password",
    "change_password": "new_password",
}
"""The steps that set a password, and the fields that it is in."""


class DjangoAccountRoutes(AccountRoutes[Any, Any]):
    """The ready routes for sync code.

    New passwords are also checked by ``AUTH_PASSWORD_VALIDATORS``.

    Args:
        has_django_users: whether the users are those of ``AUTH_USER_MODEL``: a new user's name is
            then the one that they log in with, and that of a user without a key, such as an admin,
            is taken.
        auth: the application's ``Auth``.
        transport: the transport of the integration.
        settings: see :class:`~lucia.middleware.accounts.AccountRoutes`.
    """

    def __init__(
        self,
        has_django_users: bool,
        auth: Auth[Any, Any, Any],
        transport: Transport,
        **settings: Unpack[AccountSettings],
    ) -> None:
        if has_django_users:
            settings.setdefault("attributes", _username(settings.get("normalize", normalize_name)))
        super().__init__(auth, transport, **settings)
        self._has_django_users = has_django_users

    def _content(
        self, route: AccountRoute, request: AuthRequest[Any, Any], submission: Submission
    ) -> Any:
        if route.method == "GET" or route.name not in _NEW_PASSWORDS:
            return super()._content(route, request, submission)
        _check_password(route, submission)
        try:
            return super()._content(route, request, submission)
        except IntegrityError:
            if not self._has_django_users or not _is_taken(self._attributes, submission):
                raise
        raise DuplicateKeyId


class AsyncDjangoAccountRoutes(AsyncAccountRoutes[Any, Any]):
    """The ready routes for async code, as :class:`DjangoAccountRoutes`."""

    def __init__(
        self,
        has_django_users: bool,
        auth: AsyncAuth[Any, Any, Any],
        transport: Transport,
        **settings: Unpack[AsyncAccountSettings],
    ) -> None:
        if has_django_users:
            settings.setdefault("attributes", _username(settings.get("normalize", normalize_name)))
        super().__init__(auth, transport, **settings)
        self._has_django_users = has_django_users

    async def _content(
        self, route: AccountRoute, request: AsyncAuthRequest[Any, Any], submission: Submission
    ) -> Any:
        if route.method == "GET" or route.name not in _NEW_PASSWORDS:
            return await super()._content(route, request, submission)
        await sync_to_async(_check_password)(route, submission)
        try:
            return await super()._content(route, request, submission)
        except IntegrityError:
            if not self._has_django_users or not await sync_to_async(_is_taken)(
                self._attributes, submission
            ):
                raise
        raise DuplicateKeyId


def _username(normalize: Callable[[str], str]) -> Attributes:
    """Return a function that gives a new user the name that they log in with."""

    def attributes(submission: Submission) -> Mapping[str, Any]:
        model: Any = get_user_model()
        field = model._meta.get_field(model.USERNAME_FIELD)
        try:
            name = field.clean(normalize(submission.text("username")), None)
        except ValidationError as error:
            raise InvalidInput(" ".join(error.messages)) from None
        return {model.USERNAME_FIELD: name}

    return attributes


def _is_taken(attributes: Attributes, submission: Submission) -> bool:
    """Return whether another user has the name, for which the database refused a new one."""
    model: Any = get_user_model()
    name = attributes(submission).get(model.USERNAME_FIELD)
    return bool(model._base_manager.filter(**{model.USERNAME_FIELD: name}).exists())


def _check_password(route: AccountRoute, submission: Submission) -> None:
    """Ask ``AUTH_PASSWORD_VALIDATORS`` about a new password.

    Raises:
        InvalidInput: one of them refuses it, or there is none.
    """
    try:
        validate_password(submission.text(_NEW_PASSWORDS[route.name]))
    except ValidationError as error:
        raise InvalidInput(" ".join(error.messages)) from None
