"""The steps of the ready routes, with the rules of Django's settings."""

from collections.abc import Mapping
from typing import Any, Final, Unpack

from asgiref.sync import sync_to_async
from django.contrib.auth import get_user_model, load_backend
from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.db import IntegrityError

from lucia._async.accounts import AsyncAccountRoutes, AsyncAccountSettings
from lucia._async.auth import AsyncAuth
from lucia._async.request import AsyncAuthRequest, required
from lucia._compat.flavours import check_function
from lucia._rules.accounts import AccessToken, Page, SignedInUser, Submission
from lucia._rules.requests import Transport
from lucia._sync.accounts import AccountRoutes, AccountSettings
from lucia._sync.auth import Auth
from lucia._sync.request import AuthRequest
from lucia.errors import DuplicateKeyId, InvalidCredentials, InvalidInput
from lucia.models import PrimaryKey, Session

__all__ = ["MODEL_BACKEND", "AsyncDjangoAccountRoutes", "DjangoAccountRoutes", "check_password"]

MODEL_BACKEND: Final = "django.contrib.auth.backends.ModelBackend"
"""Finds the active users of ``AUTH_USER_MODEL``, for Django's own sessions too."""


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
            settings.setdefault("attributes", _username)
        super().__init__(auth, transport, **settings)
        self._has_django_users = has_django_users

    def _create_user(self, key: PrimaryKey, attributes: Mapping[str, Any]) -> None:
        _check_new_user(key, attributes, self._has_django_users)
        try:
            super()._create_user(key, attributes)
        except IntegrityError:
            if not self._has_django_users or not _is_taken(attributes):
                raise
            raise DuplicateKeyId from None  # somebody else was first

    def _log_in(
        self, request: AuthRequest[Any, Any], submission: Submission
    ) -> SignedInUser | AccessToken:
        shown = super()._log_in(request, submission)
        user_id = required(request.validate()).user_id
        allowed = False
        try:
            allowed = not self._has_django_users or _is_active(user_id)
        finally:
            if not allowed:
                request.sign_out()
        if not allowed:
            raise InvalidCredentials
        return shown

    def _check_new_password(self, password: str, session: Session[Any]) -> None:
        check_password(password, session.user_id, self._has_django_users)


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
            settings.setdefault("attributes", _username)
        super().__init__(auth, transport, **settings)
        check_function("render", self._render)
        self._has_django_users = has_django_users

    async def _create_user(self, key: PrimaryKey, attributes: Mapping[str, Any]) -> None:
        await sync_to_async(_check_new_user)(key, attributes, self._has_django_users)
        try:
            await super()._create_user(key, attributes)
        except IntegrityError:
            if not self._has_django_users or not await sync_to_async(_is_taken)(attributes):
                raise
            raise DuplicateKeyId from None  # somebody else was first

    async def _rendered(self, page: Page) -> Any:
        # A template may use the database.
        return await sync_to_async(self._render)(page)

    async def _log_in(
        self, request: AsyncAuthRequest[Any, Any], submission: Submission
    ) -> SignedInUser | AccessToken:
        shown = await super()._log_in(request, submission)
        user_id = required(await request.validate()).user_id
        allowed = False
        try:
            allowed = not self._has_django_users or await sync_to_async(_is_active)(user_id)
        finally:
            if not allowed:
                await request.sign_out()
        if not allowed:
            raise InvalidCredentials
        return shown

    async def _check_new_password(self, password: str, session: Session[Any]) -> None:
        await sync_to_async(check_password)(password, session.user_id, self._has_django_users)


def _username(submission: Submission) -> Mapping[str, Any]:
    """Return the attributes of a new user: the name that they log in with."""
    model: Any = get_user_model()
    field = model._meta.get_field(model.USERNAME_FIELD)
    try:
        name = field.clean(submission.name, None)
    except ValidationError as error:
        raise InvalidInput(" ".join(error.messages)) from None
    return {model.USERNAME_FIELD: name}


def _is_active(user_id: object) -> bool:
    """Return whether Django lets a user log in."""
    return load_backend(MODEL_BACKEND).get_user(user_id) is not None


def _is_taken(attributes: Mapping[str, Any]) -> bool:
    """Return whether a user has the name, in whatever case: people could not tell them apart."""
    model: Any = get_user_model()
    name = attributes.get(model.USERNAME_FIELD)
    same = {f"{model.USERNAME_FIELD}__iexact": name}
    return name is not None and bool(model._base_manager.filter(**same).exists())


def _check_new_user(key: PrimaryKey, attributes: Mapping[str, Any], has_django_users: bool) -> None:
    """Check the name, and ask ``AUTH_PASSWORD_VALIDATORS`` about the password of a new user.

    Raises:
        DuplicateKeyId: a user of the table has the name.
        InvalidInput: one of the validators refuses the password.
    """
    user: Any = None
    if has_django_users:
        if _is_taken(attributes):
            raise DuplicateKeyId
        model: Any = get_user_model()
        names = {field.name for field in model._meta.fields}
        user = model(**{name: attributes[name] for name in names & attributes.keys()})
    _validate(key.password or "", user)


def check_password(password: str, user_id: object, has_django_users: bool) -> None:
    """Ask ``AUTH_PASSWORD_VALIDATORS`` about the new password of a user.

    Args:
        password: the password.
        user_id: whose it is.
        has_django_users: whether the users are those of ``AUTH_USER_MODEL``. If not, validators
            can't compare the password with the user.

    Raises:
        InvalidInput: one of them refuses it.
    """
    user: Any = None
    if has_django_users:
        user = get_user_model()._base_manager.filter(pk=user_id).first()
    _validate(password, user)


def _validate(password: str, user: Any) -> None:
    try:
        validate_password(password, user)
    except ValidationError as error:
        raise InvalidInput(" ".join(error.messages)) from None
