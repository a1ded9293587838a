"""``Auth``: the configuration, and what a request needs of it."""

from __future__ import annotations

from collections.abc import Callable, Collection
from types import TracebackType
from typing import Any, Self, overload

from lucia._async.fallback import AsyncFiveMethods
from lucia._async.protocols import (
    AsyncRenewingSessionAdapter,
    AsyncSessionAdapter,
    AsyncSessionUserAdapter,
    AsyncUserAdapter,
)
from lucia._async.request import AsyncAuthRequest, Transport
from lucia._async.throttling import AsyncGuard, choose_throttle_store
from lucia._async.users import AsyncUserMethods
from lucia._compat.concurrency import AsyncPasswordWorkers
from lucia._compat.flavours import check_flavour, check_function, check_methods
from lucia._logs import cross_site_request
from lucia._memory.user_cache import UserCache
from lucia._rules.caps import check_cap
from lucia._rules.cookies import Cookie, Env, SessionCookie, create_session_cookie, find_cookie
from lucia._rules.origins import OriginFailure, check_origin, configured_origins
from lucia._rules.passwords import PasswordHasher, PasswordPool, ScryptHash
from lucia._rules.requests import RequestLike
from lucia._rules.sessions import (
    USER_ID_LENGTH,
    Clock,
    SessionExpiry,
    check_purposes,
    generate_random_string,
    new_session_id,
    system_clock,
)
from lucia._rules.throttling import Throttle
from lucia.errors import InvalidRequest
from lucia.models import Session, User, UserRow, UserT

_DEFAULT_THROTTLE = Throttle()
_DEFAULT_PURPOSES = ("password_reset", "email_verification")


def _default_user(row: UserRow) -> User:
    return User(row.id)


def _default_user_id() -> str:
    return generate_random_string(USER_ID_LENGTH)


class AsyncAuth(AsyncUserMethods[UserT]):
    """Users, keys and sessions over two adapters.

    It can be made at import and used without being closed, in several event loops one after another, and after a fork.
    Closing it, by ``with`` or by hand, ends its password workers and never the adapters' clients and engines.

    Args:
        sessions: where sessions are stored; five methods are enough, see :class:`~lucia.SessionAdapter`.
        users: where users and keys are stored, maybe the same object; left out, this is a session library beside somebody's own users.
        env: ``PROD`` makes cookies Secure, ``DEV`` does not.
        transform_database_user: makes what the application gets for a user, from the row; the type it returns is this class's parameter.
        hash: makes and verifies password hashes.
        password_pool: how many passwords are hashed at once, and how many more may wait, see :class:`~lucia.PasswordPool`.
        session_cookie: the cookie's name and attributes.
        session_expires_in: how long sessions live.
        max_sessions_per_user: how many logins a user may have, from 1 to 1,000: for one more, the oldest ends. None for no cap.
        csrf_protection: whether requests are checked for their origin.
        origin: other origins whose pages may change things here, such as ``https://app.example.com``.
        auto_database_cleanup: whether dead sessions are removed in passing, from stores that do not expire them.
        throttle: how often wrong passwords may be tried; None for no limit. Failures are counted by the session adapter where it can,
            else in this process's memory.
        single_use_purposes: the providers of single-use keys that must not outlive a change of the user's credentials,
            such as tokens for a password reset: changing a password and removing a key revoke them. By default
            ``password_reset`` and ``email_verification``.
        user_cache: keeps the users of requests in memory for a while, see :class:`~lucia.UserCache`; None for no such cache. It is not
            used where one adapter has sessions and users and gives both in one query.
        generate_custom_user_id: makes the id of a new user; by default 15 random characters.
        clock: gives the time in milliseconds since the epoch.

    Raises:
        TypeError: an adapter of the other colour, an adapter or a hasher that lacks a method or is a class,
            a duration that is no ``timedelta``, a cap that is no ``int``,
            ``single_use_purposes`` that are a single string, or something else than a plain function for
            ``transform_database_user``, ``generate_custom_user_id`` or ``clock``.
        ValueError: a setting contradicts another one, or what the session adapter can do.
    """

    @overload
    def __init__(
        self: AsyncAuth[User],
        *,
        sessions: AsyncSessionAdapter,
        users: AsyncUserAdapter | None = None,
        env: Env,
        hash: PasswordHasher = ...,
        password_pool: PasswordPool | None = None,
        session_cookie: SessionCookie = ...,
        session_expires_in: SessionExpiry = ...,
        max_sessions_per_user: int | None = None,
        csrf_protection: bool = True,
        origin: Collection[str] = (),
        auto_database_cleanup: bool = True,
        throttle: Throttle | None = ...,
        single_use_purposes: Collection[str] = ...,
        user_cache: UserCache | None = None,
        generate_custom_user_id: Callable[[], str] = ...,
        clock: Clock = ...,
    ) -> None: ...

    @overload
    def __init__(
        self,
        *,
        sessions: AsyncSessionAdapter,
        users: AsyncUserAdapter | None = None,
        env: Env,
        transform_database_user: Callable[[UserRow], UserT],
        hash: PasswordHasher = ...,
        password_pool: PasswordPool | None = None,
        session_cookie: SessionCookie = ...,
        session_expires_in: SessionExpiry = ...,
        max_sessions_per_user: int | None = None,
        csrf_protection: bool = True,
        origin: Collection[str] = (),
        auto_database_cleanup: bool = True,
        throttle: Throttle | None = ...,
        single_use_purposes: Collection[str] = ...,
        user_cache: UserCache | None = None,
        generate_custom_user_id: Callable[[], str] = ...,
        clock: Clock = ...,
    ) -> None: ...

    def __init__(
        self,
        *,
        sessions: AsyncSessionAdapter,
        users: AsyncUserAdapter | None = None,
        env: Env,
        transform_database_user: Callable[[UserRow], Any] = _default_user,
        hash: PasswordHasher | None = None,
        password_pool: PasswordPool | None = None,
        session_cookie: SessionCookie | None = None,
        session_expires_in: SessionExpiry | None = None,
        max_sessions_per_user: int | None = None,
        csrf_protection: bool = True,
        origin: Collection[str] = (),
        auto_database_cleanup: bool = True,
        throttle: Throttle | None = _DEFAULT_THROTTLE,
        single_use_purposes: Collection[str] = _DEFAULT_PURPOSES,
        user_cache: UserCache | None = None,
        generate_custom_user_id: Callable[[], str] = _default_user_id,
        clock: Clock = system_clock,
    ) -> None:
        if env not in ("DEV", "PROD"):
            raise ValueError(f"env must be 'DEV' or 'PROD', got {env!r}")
        self._env: Env = env
        self._cookie = session_cookie or SessionCookie()
        self._cookie.check_env(env)
        self._expiry = session_expires_in or SessionExpiry()
        self._max_sessions = check_cap(max_sessions_per_user)
        self._clock = clock
        self._use_adapters(sessions, users)
        self._user_cache = None if self._joined else user_cache
        self._transform = transform_database_user
        self._generate_user_id = generate_custom_user_id
        check_function("transform_database_user", transform_database_user)
        check_function("generate_custom_user_id", generate_custom_user_id)
        check_function("clock", clock)
        self._hasher = ScryptHash() if hash is None else hash
        check_methods("hash", self._hasher, PasswordHasher)
        self._workers = AsyncPasswordWorkers(self._hasher, password_pool)
        self._guard = AsyncGuard(throttle, choose_throttle_store(sessions, clock))
        self._single_use_purposes = check_purposes(single_use_purposes)
        self._cleanup = auto_database_cleanup
        self._csrf_protection = csrf_protection
        self._origins = configured_origins(origin)

    def _use_adapters(self, sessions: AsyncSessionAdapter, users: AsyncUserAdapter | None) -> None:
        check_methods("sessions", sessions, AsyncSessionAdapter)
        check_flavour("sessions", sessions.set_session, self.get_session)
        if users is not None:
            check_methods("users", users, AsyncUserAdapter)
            check_flavour("users", users.get_user, self.get_user)
        self._users = users
        self._sessions = (
            sessions
            if isinstance(sessions, AsyncRenewingSessionAdapter)
            else AsyncFiveMethods(sessions, self._clock)
        )
        one_object = id(sessions) == id(users)
        self._joined = (
            sessions if one_object and isinstance(sessions, AsyncSessionUserAdapter) else None
        )
        if self._expiry.absolute is not None and not self._sessions.keeps_attributes:
            raise ValueError(
                "an absolute lifetime needs a session adapter that keeps attributes, for the time of the login"
            )
        if self._max_sessions is not None and not self._sessions.keeps_attributes:
            raise ValueError(
                "max_sessions_per_user needs a session adapter that keeps attributes, for the times of the logins"
            )

    def generate_session_id(self) -> tuple[str, int, int]:
        """A new session's id and the ends of its active and its idle period, in milliseconds since the epoch."""
        now = self._clock()
        return new_session_id(), *self._expiry.ends(now, now)

    def create_session_cookie(self, session: Session | None) -> Cookie:
        """The cookie that carries ``session``, or that clears it. Its expiry is the end of the idle period."""
        return create_session_cookie(session, self._cookie, self._env)

    def check_request(self, context: RequestLike) -> OriginFailure | None:
        """Why the request must be taken for another site's, which is logged; None if it passes."""
        failure = check_origin(context, self._origins) if self._csrf_protection else None
        if failure is not None:
            cross_site_request(failure)
        return failure

    def find_session_id(self, context: RequestLike) -> str | None:
        """What the request's session cookie holds, whether it can be an id or not; None if it is missing or empty."""
        return find_cookie(context.headers.get("cookie", ()), self._cookie.name)

    def parse_request_headers(self, context: RequestLike) -> str | None:
        """Check the request's origin, and return what its session cookie holds.

        Raises:
            InvalidRequest: the request failed the origin check.
        """
        failure = self.check_request(context)
        if failure is not None:
            raise InvalidRequest(str(failure))
        return self.find_session_id(context)

    def handle_request(
        self, context: RequestLike, transport: Transport = "cookie"
    ) -> AsyncAuthRequest[UserT]:
        """What this request may ask and do; ``transport="bearer"`` is for clients that are no browsers.

        Raises:
            ValueError: the transport is neither ``cookie`` nor ``bearer``.
        """
        if transport not in ("cookie", "bearer"):
            raise ValueError(f"transport must be 'cookie' or 'bearer', got {transport!r}")
        return AsyncAuthRequest(self, context, transport)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """End the library's own workers; the adapters' clients and engines stay open. Using it afterwards starts new ones."""
        await self._workers.aclose()
