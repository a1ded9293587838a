"""``request.lucia``: the session of one request, for sync and for async code."""

from contextlib import suppress
from typing import Any, Final, Generic, Protocol, cast

from asgiref.sync import sync_to_async
from django.core.exceptions import DisallowedHost, ImproperlyConfigured
from django.core.handlers.asgi import ASGIRequest
from django.http import HttpRequest
from django.middleware.csrf import rotate_token
from django.utils.asyncio import async_unsafe

from lucia._async.request import AsyncAuthRequest
from lucia._compat.awaited import AsyncTruth
from lucia._rules.origins import OriginFailure
from lucia._sync.request import AuthRequest
from lucia._typing import UserIdT, UserT, with_defaults
from lucia.errors import LuciaError
from lucia.middleware._exchange import Exchange
from lucia.middleware.django.conf import Configuration
from lucia.middleware.django.sessions import DjangoSession
from lucia.middleware.wsgi import META_KEYS
from lucia.models import Session, SessionUser

__all__ = ["DjangoAuthRequest", "DjangoExchange", "LuciaHttpRequest", "Sharing", "auth_request"]

_BLOCKS: Final = (
    "This method blocks the event loop. In async code, await the method whose name begins with an "
    "a, such as request.lucia.avalidate(), or request.auser() for request.user."
)


class FollowingUser(Protocol):
    """``request.user``, where it is the user of the session."""

    def forget(self) -> None: ...

    def load(self) -> Any: ...

    async def aload(self) -> Any: ...


class DjangoExchange(Exchange):
    """One request of Django."""

    __slots__ = ("_meta", "_scheme", "client_address", "method")

    def __init__(self, request: HttpRequest) -> None:
        super().__init__()
        self.method: str = request.method or ""
        self.client_address: str | None = request.META.get("REMOTE_ADDR") or None
        self._meta = request.META
        self._scheme = request.scheme

    @property
    def headers(self) -> dict[str, list[str]]:
        """The headers that the library reads."""
        # Headers of one name are joined by commas. A session id has none, so that the id of a
        # second Cookie header is not found, as by Django itself; two origins are none.
        return {name: [self._meta[key]] for name, key in META_KEYS.items() if key in self._meta}

    @property
    def url(self) -> str:
        """The URL without its path. A host that ``ALLOWED_HOSTS`` forbids is left out."""
        try:
            host = self.bare_request().get_host()
        except DisallowedHost:
            host = ""
        return f"{self._scheme}://{host}/"

    def bare_request(self) -> HttpRequest:
        """Return a request with the same ``META``, which refers to nothing of the library."""
        request = HttpRequest()
        request.META = self._meta
        return request


@with_defaults
class DjangoAuthRequest(Generic[UserT, UserIdT]):
    """The session of one request: an ``AuthRequest`` for sync code and one for async code.

    The methods are those of :class:`lucia.AuthRequest`. As everywhere in Django, those for async
    code have an ``a`` before their name. What the one has found or done, the other knows: the store
    is asked once per request, whoever asks.

    Args:
        request: Django's request.
        configuration: what the setting ``LUCIA`` says.
    """

    __slots__ = (
        "async_request",
        "configuration",
        "django_session",
        "error",
        "exchange",
        "request_user",
        "sync_request",
    )

    def __init__(self, request: HttpRequest, configuration: Configuration) -> None:
        self.configuration = configuration
        self.request_user: FollowingUser | None = None
        self.error: Exception | None = None
        self.exchange = DjangoExchange(request)
        self.django_session = DjangoSession(getattr(request, "session", None))
        self.sync_request: AuthRequest[UserT, UserIdT] = configuration.auth.handle_request(
            self.exchange, configuration.transport
        )
        self.async_request: AsyncAuthRequest[UserT, UserIdT] | None = None
        # Not under WSGI, where each async view has an event loop of its own: what an AsyncAuth
        # keeps for a loop, such as its connections, would be made anew for each request.
        if configuration.async_auth is not None and isinstance(request, ASGIRequest):
            self.async_request = configuration.async_auth.handle_request(
                self.exchange, configuration.transport
            )

    def __repr__(self) -> str:
        return repr(self.sync_request).replace("AuthRequest", type(self).__name__)

    @property
    def uses_cookies(self) -> bool:
        """Whether the session id comes and goes in a cookie, and not as a bearer token."""
        return self.sync_request.uses_cookies

    @property
    def origin_failure(self) -> OriginFailure | None:
        """Why the request failed the origin check; see :class:`lucia.AuthRequest`."""
        with Sharing(self.sync_request, self.async_request):
            return self.sync_request.origin_failure

    @property
    def is_cross_site(self) -> bool:
        """Whether ``FORBID_CROSS_SITE`` refuses the request; see :class:`lucia.AuthRequest`."""
        with Sharing(self.sync_request, self.async_request):
            return self.sync_request.is_cross_site

    @async_unsafe(_BLOCKS)
    def validate(self) -> Session[UserIdT] | None:
        """Return the request's session; see :meth:`lucia.AuthRequest.validate`."""
        with Sharing(self.sync_request, self.async_request):
            return self.sync_request.validate()

    @AsyncTruth.needs_await
    async def avalidate(self) -> Session[UserIdT] | None:
        """Return the request's session; see :meth:`lucia.AsyncAuthRequest.validate`."""
        if self.async_request is None:
            return await sync_to_async(self.validate)()
        with Sharing(self.async_request, self.sync_request):
            return await self.async_request.validate()

    @async_unsafe(_BLOCKS)
    def validate_user(self) -> SessionUser[UserT, UserIdT] | None:
        """Return the session and its user; see :meth:`lucia.AuthRequest.validate_user`."""
        with Sharing(self.sync_request, self.async_request):
            return self.sync_request.validate_user()

    @AsyncTruth.needs_await
    async def avalidate_user(self) -> SessionUser[UserT, UserIdT] | None:
        """Return the session and its user; see :meth:`lucia.AsyncAuthRequest.validate_user`."""
        if self.async_request is None:
            return await sync_to_async(self.validate_user)()
        with Sharing(self.async_request, self.sync_request):
            return await self.async_request.validate_user()

    @async_unsafe(_BLOCKS)
    def sign_in(self, user_id: UserIdT, /, **metadata: Any) -> Session[UserIdT]:
        """Log a user in; see :meth:`lucia.AuthRequest.sign_in`."""
        with Sharing(self.sync_request, self.async_request):
            session = self.sync_request.sign_in(user_id, **metadata)
        self.logged_in()
        return session

    async def asign_in(self, user_id: UserIdT, /, **metadata: Any) -> Session[UserIdT]:
        """Log a user in; see :meth:`lucia.AsyncAuthRequest.sign_in`."""
        if self.async_request is None:
            return await sync_to_async(self.sign_in)(user_id, **metadata)
        with Sharing(self.async_request, self.sync_request):
            session = await self.async_request.sign_in(user_id, **metadata)
        await self.alogged_in()
        return session

    @async_unsafe(_BLOCKS)
    def sign_in_with_key(
        self, provider_id: str, provider_user_id: str, password: str | None, /, **metadata: Any
    ) -> Session[UserIdT]:
        """Check a key and log its user in; see :meth:`lucia.AuthRequest.sign_in_with_key`."""
        with Sharing(self.sync_request, self.async_request):
            session = self.sync_request.sign_in_with_key(
                provider_id, provider_user_id, password, **metadata
            )
        self.logged_in()
        return session

    async def asign_in_with_key(
        self, provider_id: str, provider_user_id: str, password: str | None, /, **metadata: Any
    ) -> Session[UserIdT]:
        """Check a key and log its user in; see :meth:`lucia.AsyncAuthRequest.sign_in_with_key`."""
        key = (provider_id, provider_user_id, password)
        if self.async_request is None:
            return await sync_to_async(self.sign_in_with_key)(*key, **metadata)
        with Sharing(self.async_request, self.sync_request):
            session = await self.async_request.sign_in_with_key(*key, **metadata)
        await self.alogged_in()
        return session

    @async_unsafe(_BLOCKS)
    def renew(self) -> Session[UserIdT] | None:
        """Replace the session by a new one; see :meth:`lucia.AuthRequest.renew`."""
        with Sharing(self.sync_request, self.async_request):
            return self.sync_request.renew()

    @AsyncTruth.needs_await
    async def arenew(self) -> Session[UserIdT] | None:
        """Replace the session by a new one; see :meth:`lucia.AsyncAuthRequest.renew`."""
        if self.async_request is None:
            return await sync_to_async(self.renew)()
        with Sharing(self.async_request, self.sync_request):
            return await self.async_request.renew()

    @async_unsafe(_BLOCKS)
    def sign_out(self) -> None:
        """Revoke the session and clear its cookie; see :meth:`lucia.AuthRequest.sign_out`.

        Who is logged in by ``django.contrib.auth`` too stays so; its ``logout`` ends both.
        """
        with Sharing(self.sync_request, self.async_request):
            self.sync_request.sign_out()
        self.logged_out()

    async def asign_out(self) -> None:
        """Revoke the session and clear its cookie; see :meth:`sign_out`."""
        if self.async_request is None:
            await sync_to_async(self.sign_out)()
            return
        with Sharing(self.async_request, self.sync_request):
            await self.async_request.sign_out()
        await self.alogged_out()

    def set_session(self, session: Session[UserIdT] | None) -> None:
        """Set or clear the cookie; see :meth:`lucia.AuthRequest.set_session`."""
        with Sharing(self.sync_request, self.async_request):
            self.sync_request.set_session(session)
        self.forget_user()
        if session is not None:
            self._rotate_token()

    def logged_in(self) -> None:
        """Complete a login as ``django.contrib.auth`` does: a new CSRF token and session key."""
        self.forget_user()
        self._rotate_token()
        session = self.sync_request.validate()  # which is known: the store is not asked
        if session is not None and self.django_session.exists:
            is_django_user = self.request_user is not None
            self.django_session.log_in(session.user_id, is_django_user=is_django_user)

    async def alogged_in(self) -> None:
        """Complete a login; see :meth:`logged_in`."""
        await sync_to_async(self.logged_in)()

    def logged_out(self) -> None:
        """Complete a logout: Django's session is deleted, too."""
        self.forget_user()
        if self.django_session.exists:
            self.django_session.log_out()

    async def alogged_out(self) -> None:
        """Complete a logout; see :meth:`logged_out`."""
        await sync_to_async(self.logged_out)()

    def set_owner(self) -> None:
        """Note whose data are in Django's session, if this request has written to it."""
        if self.django_session.is_modified:
            with suppress(LuciaError):  # the response does not depend on it
                session = self.validate()
                if session is not None:
                    self.django_session.set_owner(session.user_id)

    async def aset_owner(self) -> None:
        """Note whose data are in Django's session; see :meth:`set_owner`."""
        if self.django_session.is_modified:
            with suppress(LuciaError):
                session = await self.avalidate()
                if session is not None:
                    self.django_session.set_owner(session.user_id)

    def forget_user(self) -> None:
        """Let ``request.user`` be loaded again."""
        if self.request_user is not None:
            self.request_user.forget()

    def _rotate_token(self) -> None:
        """Change the CSRF token, which somebody else may have planted."""
        request = self.exchange.bare_request()
        if "CSRF_COOKIE" in request.META:
            rotate_token(request)


@with_defaults
class LuciaHttpRequest(HttpRequest, Generic[UserT, UserIdT]):
    """A request behind ``LuciaMiddleware``: for type annotations alone."""

    lucia: DjangoAuthRequest[UserT, UserIdT]


def auth_request(request: HttpRequest) -> DjangoAuthRequest[Any, Any]:
    """Return ``request.lucia``.

    Raises:
        ImproperlyConfigured: the middleware is not installed.
    """
    try:
        return cast("LuciaHttpRequest[Any, Any]", request).lucia
    except AttributeError:
        raise ImproperlyConfigured(
            "LuciaMiddleware has not seen this request: add "
            "'lucia.middleware.django.LuciaMiddleware' to MIDDLEWARE. A test needs the test "
            "client for it: no middleware sees the requests of RequestFactory"
        ) from None


class Sharing:
    """Lets one ``AuthRequest`` know what the other one found and did in this block."""

    __slots__ = ("_other", "_used")

    def __init__(
        self,
        used: AuthRequest[Any, Any] | AsyncAuthRequest[Any, Any],
        other: AuthRequest[Any, Any] | AsyncAuthRequest[Any, Any] | None,
    ) -> None:
        self._used = used
        self._other = other

    def __enter__(self) -> None:
        pass

    def __exit__(self, *error: object) -> None:
        if self._other is not None:
            self._other.adopt(self._used)
