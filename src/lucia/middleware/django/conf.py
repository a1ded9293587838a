"""The setting ``LUCIA``, and its check when Django starts."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property, partial
from typing import Any, Final, TypeVar, cast

from django.apps import apps
from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.checks import CheckMessage, Error, Warning
from django.core.exceptions import ImproperlyConfigured
from django.shortcuts import resolve_url
from django.urls import NoReverseMatch
from django.utils.module_loading import import_string

from lucia._async.auth import AsyncAuth
from lucia._django.adapters import DjangoUserAdapter
from lucia._rules.accounts import AccountRoute
from lucia._rules.requests import TRANSPORTS, Transport
from lucia._sync.auth import Auth
from lucia.middleware.django.accounts import AsyncDjangoAccountRoutes, DjangoAccountRoutes

__all__ = ["Configuration", "check_setting", "load_configuration"]

T = TypeVar("T")

_NAMES: Final = (
    "AUTH",
    "ASYNC_AUTH",
    "TRANSPORT",
    "FORBID_CROSS_SITE",
    "REQUEST_USER",
    "ROUTES",
    "ASYNC_ROUTES",
)
_REDIRECTS: Final = {"after_login": "LOGIN_REDIRECT_URL", "after_logout": "LOGOUT_REDIRECT_URL"}
_MIDDLEWARE: Final = "lucia.middleware.django.LuciaMiddleware"
_AUTHENTICATION: Final = "django.contrib.auth.middleware.AuthenticationMiddleware"


@dataclass(frozen=True)
class Configuration:
    """The setting ``LUCIA``, a dict whose keys are these names in upper case.

    Args:
        auth: the application's ``Auth``, by its dotted path. It is required.
        async_auth: an ``AsyncAuth`` over the same stores, by its dotted path: under ASGI, async
            code uses it. Without it the async methods call those of ``auth`` in a thread.
        transport: ``cookie``, ``bearer`` for clients that are not browsers, or ``both``.
        forbid_cross_site: respond 403 to a request that fails the origin check, instead of treating
            it as a visitor's.
        has_django_users: whether the users are those of ``AUTH_USER_MODEL``. It has no key of its
            own: they are if ``request_user`` is True, or ``auth`` has a ``DjangoUserAdapter`` for
            this model.
        request_user: whether ``request.user`` is the session's user, or else that of
            ``django.contrib.auth``. By default it is if the users are those of
            ``AUTH_USER_MODEL``.
        routes: the settings of the ready routes, or the dotted path of a dict of them, see
            :class:`~lucia.middleware.accounts.AccountRoutes`. ``after_login`` and ``after_logout``
            may be names of URLs, and are by default ``LOGIN_REDIRECT_URL`` and
            ``LOGOUT_REDIRECT_URL``, if these are set. A new user of ``AUTH_USER_MODEL`` gets the
            name as ``USERNAME_FIELD``.
        async_routes: the same for ``async_auth``; by default ``routes``.
    """

    auth: Auth[Any, Any, Any]
    async_auth: AsyncAuth[Any, Any, Any] | None
    transport: Transport
    forbid_cross_site: bool
    has_django_users: bool
    request_user: bool
    routes: Mapping[str, Any]
    async_routes: Mapping[str, Any]

    @cached_property
    def accounts(self) -> DjangoAccountRoutes:
        """The ready routes for sync code."""
        return self._sync_accounts()

    @cached_property
    def async_accounts(self) -> AsyncDjangoAccountRoutes | None:
        """The ready routes for async code; None without an ``AsyncAuth``."""
        return self._async_accounts()

    def table(self) -> tuple[AccountRoute, ...]:
        """Return the ready routes that there are.

        Raises:
            ImproperlyConfigured: their settings are wrong.
        """
        # Without the redirects: names of URLs can't be resolved while these are being loaded.
        accounts = self._sync_accounts(with_redirects=False)
        self._async_accounts(with_redirects=False)
        return accounts.routes

    def check_redirects(self) -> None:
        """Check where the ready routes lead to, which can't be done before there are URLs.

        Raises:
            ImproperlyConfigured: there is no such URL.
        """
        self._sync_accounts()
        self._async_accounts()

    def is_csrf_exempt(self) -> bool:
        """Return whether the ready routes need no token of ``CsrfViewMiddleware``.

        The origin check of ``Auth`` is stricter, and a bearer token is in no cookie.
        """
        auths: list[Any] = [self.auth, self.async_auth or self.auth]
        return self.transport == "bearer" or all(auth._csrf_protection for auth in auths)

    def _sync_accounts(self, *, with_redirects: bool = True) -> DjangoAccountRoutes:
        make = partial(DjangoAccountRoutes, self.has_django_users, self.auth, self.transport)
        return _made("ROUTES", make, self.routes, with_redirects)

    def _async_accounts(self, *, with_redirects: bool = True) -> AsyncDjangoAccountRoutes | None:
        if self.async_auth is None:
            return None
        make = partial(
            AsyncDjangoAccountRoutes, self.has_django_users, self.async_auth, self.transport
        )
        return _made("ASYNC_ROUTES", make, self.async_routes, with_redirects)


def load_configuration() -> Configuration:
    """Return what the setting ``LUCIA`` says.

    Raises:
        ImproperlyConfigured: it is missing or wrong.
    """
    given: Any = getattr(settings, "LUCIA", None)
    if not isinstance(given, dict) or "AUTH" not in given:
        raise ImproperlyConfigured(
            "the setting LUCIA must be a dict with the dotted path of your Auth: "
            'LUCIA = {"AUTH": "accounts.auth.auth"}'
        )
    members = cast("dict[str, Any]", given)
    for name in members:
        if name not in _NAMES:
            close = get_close_matches(name, _NAMES, 1)
            hint = f"did you mean {close[0]!r}?" if close else f"it may have {', '.join(_NAMES)}"
            raise ImproperlyConfigured(f"LUCIA[{name!r}] is unknown: {hint}")
    auth: Auth[Any, Any, Any] = _imported(
        "AUTH", members["AUTH"], Auth, "an AsyncAuth belongs into ASYNC_AUTH"
    )
    async_auth = members.get("ASYNC_AUTH")
    if async_auth is not None:
        async_auth = _imported("ASYNC_AUTH", async_auth, AsyncAuth, "an Auth belongs into AUTH")
    transport = members.get("TRANSPORT", "cookie")
    if transport not in TRANSPORTS:
        raise ImproperlyConfigured(
            f"LUCIA['TRANSPORT'] must be 'cookie', 'bearer' or 'both', not {transport!r}"
        )
    hint = "give the settings of the ready routes, such as {'provider_id': 'email'}"
    routes: dict[str, Any] = _imported("ROUTES", members.get("ROUTES", {}), dict, hint)
    given = members.get("ASYNC_ROUTES", routes)
    async_routes: dict[str, Any] = _imported("ASYNC_ROUTES", given, dict, hint)
    has_django_users = members.get("REQUEST_USER") or _has_django_users(auth)
    configuration = Configuration(
        auth=auth,
        async_auth=async_auth,
        transport=transport,
        forbid_cross_site=members.get("FORBID_CROSS_SITE", False),
        has_django_users=has_django_users,
        request_user=members.get("REQUEST_USER", has_django_users),
        routes=routes,
        async_routes=async_routes,
    )
    configuration.table()
    return configuration


def _has_django_users(auth: Auth[Any, Any, Any]) -> bool:
    users = auth._users  # pyright: ignore[reportPrivateUsage]
    if not isinstance(users, DjangoUserAdapter) or not apps.is_installed("django.contrib.auth"):
        return False
    models = users._models  # pyright: ignore[reportPrivateUsage]
    return models.user is get_user_model()


def check_setting(**_: Any) -> list[CheckMessage]:
    """Check the setting ``LUCIA``, and where the middleware is: a system check of Django's."""
    middleware: list[str] = list(settings.MIDDLEWARE)
    if _MIDDLEWARE not in middleware and not hasattr(settings, "LUCIA"):
        return []  # the adapters are used alone
    try:
        configuration = load_configuration()
        configuration.check_redirects()
    except ImproperlyConfigured as error:
        return [Error(str(error), id="lucia.E001")]
    after = middleware[middleware.index(_MIDDLEWARE) :] if _MIDDLEWARE in middleware else []
    if configuration.request_user and _AUTHENTICATION in after:
        return [
            Warning(
                "LuciaMiddleware comes before AuthenticationMiddleware, which then replaces "
                "request.user",
                hint="Put 'lucia.middleware.django.LuciaMiddleware' below it in MIDDLEWARE, or set "
                "LUCIA['REQUEST_USER'] = False.",
                id="lucia.W001",
            )
        ]
    return []


def _imported(name: str, given: Any, kind: type[Any], hint: str) -> Any:
    """Return a member of the setting, imported if it is a dotted path."""
    try:
        value = import_string(given) if isinstance(given, str) else given
    except ImportError as error:
        raise ImproperlyConfigured(
            f"LUCIA[{name!r}] = {given!r} can't be imported: {error}"
        ) from error
    if not isinstance(value, kind):
        article = "an" if kind.__name__[0] == "A" else "a"
        raise ImproperlyConfigured(
            f"LUCIA[{name!r}] must be {article} {kind.__name__}, not {type(value).__name__}: {hint}"
        )
    return value


def _made(name: str, make: Callable[..., T], routes: Mapping[str, Any], with_redirects: bool) -> T:
    others = {key: value for key, value in routes.items() if key not in _REDIRECTS}
    try:
        return make(**others, **(_redirects(routes) if with_redirects else {}))
    except (TypeError, ValueError) as error:
        raise ImproperlyConfigured(f"LUCIA[{name!r}]: {error}") from error


def _redirects(routes: Mapping[str, Any]) -> dict[str, str]:
    """Return where the ready routes lead to, by their settings or else by those of Django."""
    found: dict[str, str] = {}
    for key, name in _REDIRECTS.items():
        given = getattr(settings, name) if settings.is_overridden(name) else None
        target = routes.get(key, given)
        if target:
            try:
                found[key] = resolve_url(target)
            except NoReverseMatch as error:
                raise ImproperlyConfigured(
                    f"{key} must be a path such as '/home', or the name of a URL, not {target!r}"
                ) from error
    return found
