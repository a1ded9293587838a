"""``Auth``: the settings, and the methods that they configure."""

from collections.abc import Callable, Collection
from types import TracebackType
from typing import Any, Final, Required, Self, TypedDict, Unpack, overload

from lucia._async.fallback import AsyncFiveMethods
from lucia._async.protocols import (
    AsyncRenewingSessionAdapter,
    AsyncSessionAdapter,
    AsyncSessionUserAdapter,
    AsyncUserAdapter,
)
from lucia._async.request import AsyncRequestMethods
from lucia._async.throttling import AsyncGuard, choose_throttle_store
from lucia._compat.flavours import check_flavour, check_function, check_methods, check_names
from lucia._compat.password_pool import AsyncPasswordWorkers
from lucia._memory.user_cache import UserCache
from lucia._rules.caps import check_cap
from lucia._rules.cookies import Env, SessionCookie
from lucia._rules.keys import check_purposes
from lucia._rules.origins import configured_origins
from lucia._rules.passwords import PasswordHasher, PasswordPool, ScryptHash
from lucia._rules.sessions import (
    USER_ID_LENGTH,
    Clock,
    SessionExpiry,
    generate_random_string,
    new_session_id,
    system_clock,
)
from lucia._rules.throttling import Throttle
from lucia.models import User, UserRow, UserT

_DEFAULT_THROTTLE: Final = Throttle()
_DEFAULT_PURPOSES: Final = ("password_reset", "email_verification")


def _default_user(row: UserRow) -> User:
    return User(row.id)


def _default_user_id() -> str:
    return generate_random_string(USER_ID_LENGTH)


class AsyncAuthSettings(TypedDict, total=False):
    """The settings that :class:`AsyncAuth` takes by keyword and documents.

    ``transform_database_user`` is not among them, since its type decides that of ``AsyncAuth``.
    """

    sessions: Required[AsyncSessionAdapter]
    users: AsyncUserAdapter | None
    env: Required[Env]
    hash: PasswordHasher
    password_pool: PasswordPool | None
    session_cookie: SessionCookie
    session_expires_in: SessionExpiry
    max_sessions_per_user: int | None
    csrf_protection: bool
    origin: Collection[str]
    auto_database_cleanup: bool
    throttle: Throttle | None
    single_use_purposes: Collection[str]
    user_cache: UserCache | None
    generate_custom_user_id: Callable[[], str]
    clock: Clock


class AsyncAuth(AsyncRequestMethods[UserT]):
    """Users, keys and sessions over two adapters.

    Create it once, at import if you like. It works in several event loops one after another and
    after a fork, and need not be closed. Closing it, by a ``with`` block or by hand, stops its
    password workers; the adapters' clients and engines stay open.

    Args:
        sessions: the adapter that stores sessions; five methods are enough, see
            :class:`~lucia.SessionAdapter`.
        users: the adapter that stores users and keys; it may be the same object. Leave it out to
            use sessions alone, beside users of your own.
        env: ``PROD`` makes cookies Secure, ``DEV`` does not.
        transform_database_user: turns a user's row into what the application gets for a user; the
            type that it returns is the type parameter of this class. By default
            :class:`~lucia.User`, which has the id alone.
        hash: creates and verifies password hashes; by default :class:`~lucia.ScryptHash`.
        password_pool: how many passwords are hashed at once and how many more may wait, see
            :class:`~lucia.PasswordPool`.
        session_cookie: name and attributes of the cookie, see :class:`~lucia.SessionCookie`.
        session_expires_in: how long sessions live, see :class:`~lucia.SessionExpiry`.
        max_sessions_per_user: how many logins a user may have, from 1 to 1,000; each further login
            revokes the oldest one. None, the default, for no cap.
        csrf_protection: whether the origin of requests is checked; by default True.
        origin: other origins whose pages may send requests that change something, such as
            ``https://app.example.com``.
        auto_database_cleanup: whether dead sessions are deleted in passing, in stores that do not
            expire them; by default True.
        throttle: how often wrong passwords may be tried, see :class:`~lucia.Throttle`; None for no
            limit. Failures are counted by the session adapter if it can, else in the memory of
            this process.
        single_use_purposes: the providers of single-use keys that a change of the user's
            credentials revokes, such as tokens for a password reset: changing a password and
            removing a key do so. By default ``password_reset`` and ``email_verification``.
        user_cache: caches users in memory for a short time, see :class:`~lucia.UserCache`; None,
            the default, for no cache. It is not used if one adapter stores sessions and users and
            returns both from one query.
        generate_custom_user_id: creates the id of a new user; by default 15 random characters.
        clock: returns the time in milliseconds since the epoch.

    Raises:
        TypeError: an adapter is of the other flavour than this class; an adapter or the hasher
            lacks a method or is a class; a duration is not a ``timedelta``; the cap is not an
            ``int``; ``single_use_purposes`` is a single string; ``transform_database_user``,
            ``generate_custom_user_id`` or ``clock`` is not a plain function; or a setting is
            unknown or missing.
        ValueError: a setting contradicts another one, or needs more than the session adapter
            offers.
    """

    @overload
    def __init__(self: "AsyncAuth[User]", **settings: Unpack[AsyncAuthSettings]) -> None: ...

    @overload
    def __init__(
        self,
        *,
        transform_database_user: Callable[[UserRow], UserT],
        **settings: Unpack[AsyncAuthSettings],
    ) -> None: ...

    def __init__(
        self,
        *,
        transform_database_user: Callable[[UserRow], Any] = _default_user,
        **settings: Unpack[AsyncAuthSettings],
    ) -> None:
        check_names(type(self).__name__, settings, AsyncAuthSettings)
        self._env = settings["env"]
        if self._env not in ("DEV", "PROD"):
            raise ValueError(f"env must be 'DEV' or 'PROD', got {self._env!r}")
        self._cookie = settings.get("session_cookie") or SessionCookie()
        self._cookie.check_env(self._env)
        self._csrf_protection = settings.get("csrf_protection", True)
        self._origins = configured_origins(settings.get("origin", ()))
        self._expiry = settings.get("session_expires_in") or SessionExpiry()
        self._max_sessions = check_cap(settings.get("max_sessions_per_user"))
        self._cleanup = settings.get("auto_database_cleanup", True)
        self._clock = settings.get("clock", system_clock)
        check_function("clock", self._clock)
        self._use_adapters(settings["sessions"], settings.get("users"))
        # One query for a session and its user needs no cache, and its user is never out of date.
        self._user_cache = None if self._joined else settings.get("user_cache")
        self._transform = transform_database_user
        check_function("transform_database_user", self._transform)
        self._generate_user_id = settings.get("generate_custom_user_id", _default_user_id)
        check_function("generate_custom_user_id", self._generate_user_id)
        hasher = settings.get("hash")
        self._hasher = ScryptHash() if hasher is None else hasher
        check_methods("hash", self._hasher, PasswordHasher)
        self._workers = AsyncPasswordWorkers(self._hasher, settings.get("password_pool"))
        self._guard = AsyncGuard(
            settings.get("throttle", _DEFAULT_THROTTLE),
            choose_throttle_store(settings["sessions"], self._clock),
        )
        self._single_use_purposes = check_purposes(
            settings.get("single_use_purposes", _DEFAULT_PURPOSES)
        )

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
                "an absolute lifetime needs a session adapter that keeps attributes, "
                "since it counts from the time of the login"
            )
        if self._max_sessions is not None and not self._sessions.keeps_attributes:
            raise ValueError(
                "max_sessions_per_user needs a session adapter that keeps attributes, "
                "since it compares the times of the logins"
            )

    def generate_session_id(self) -> tuple[str, int, int]:
        """Return a new session id, and the ends of an active and an idle period that begin now.

        Both ends are in milliseconds since the epoch.
        """
        now = self._clock()
        return new_session_id(), *self._expiry.ends(now, now)

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
        """Stop the password workers; the adapters' clients and engines stay open.

        Hashing another password starts new workers.
        """
        await self._workers.aclose()
