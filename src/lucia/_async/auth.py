"""``Auth``: the settings, and the methods that they configure."""

import copy
from collections.abc import Callable, Collection, Mapping
from types import TracebackType
from typing import Any, Final, Generic, Required, Self, TypedDict, Unpack, cast, overload

from lucia._async.fallback import AsyncFiveMethods
from lucia._async.protocols import (
    AsyncIdAssigningUserAdapter,
    AsyncRenewingSessionAdapter,
    AsyncSessionAdapter,
    AsyncSessionUserAdapter,
    AsyncTransactionalAdapter,
    AsyncUserAdapter,
)
from lucia._async.request import AsyncRequestMethods
from lucia._async.throttling import AsyncGuard, choose_throttle_store
from lucia._async.transactions import AsyncUncommittedChanges
from lucia._compat.flavours import check_flavour, check_function, check_methods, check_names
from lucia._compat.password_pool import AsyncPasswordWorkers
from lucia._compat.uncancelled import AsyncUncancelled
from lucia._memory.user_cache import UserCache
from lucia._rules.caps import check_cap
from lucia._rules.cookies import Env, SessionCookie
from lucia._rules.keys import check_purposes
from lucia._rules.origins import configured_origins
from lucia._rules.passwords import PasswordHasher, PasswordPool, ScryptHash
from lucia._rules.sessions import (
    Clock,
    SessionExpiry,
    new_session_id,
    system_clock,
)
from lucia._rules.throttling import Throttle
from lucia._rules.user_ids import TEXT_IDS, UserIdType, check_stored_ids, user_id_type
from lucia._typing import (
    AttributesT,
    GivenAttributesT,
    GivenUserIdT,
    GivenUserT,
    UserIdT,
    UserT,
    with_defaults,
)
from lucia.models import UNSET, Unset, User, UserRow

_DEFAULT_THROTTLE: Final = Throttle()
_DEFAULT_PURPOSES: Final = ("password_reset", "email_verification")


_ANY_ATTRIBUTES: Final = cast("type[Mapping[str, Any]]", dict)


def _default_user(row: UserRow[GivenUserIdT]) -> User[GivenUserIdT]:
    return User(row.id)


class AsyncAuthSettings(TypedDict, total=False):
    """The settings that :class:`AsyncAuth` takes by keyword and documents.

    Those that decide its type are not among them.
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
    clock: Clock


class AsyncTextIdSettings(AsyncAuthSettings, total=False):
    """The settings of an application whose user ids are text."""

    generate_custom_user_id: Callable[[], str] | None


class AsyncUserIdSettings(AsyncAuthSettings, Generic[GivenUserIdT], total=False):
    """The settings of an application whose user ids are of another type."""

    user_id: Required[type[GivenUserIdT] | UserIdType[GivenUserIdT]]
    generate_custom_user_id: Callable[[], GivenUserIdT] | None


@with_defaults
class AsyncAuth(AsyncRequestMethods[UserT, UserIdT, AttributesT]):
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
        user_id: the type of user ids: ``str``, the default, ``int``, ``UUID`` or, for any other, a
            :class:`~lucia.UserIdType`. It is the second type parameter of this class.
        transform_database_user: turns a user's row into what the application gets for a user; the
            type that it returns is the first type parameter of this class. By default
            :class:`~lucia.User`, which has the id alone.
        user_attributes: the ``TypedDict`` of a new user's attributes, by which type checkers check
            ``create_user(attributes=...)``. It is the third type parameter; nothing is checked at
            run time.
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
        generate_custom_user_id: creates the id of a new user: by default 15 random characters, or
            for ``UUID`` a random one. None, the default of other types, lets the database assign
            it.
        clock: returns the time in milliseconds since the epoch.

    Raises:
        TypeError: an adapter is of the other flavour than this class; an adapter or the hasher
            lacks a method or is a class; a duration is not a ``timedelta``; the cap is not an
            ``int``; the user adapter has ids of another type than ``user_id``;
            ``single_use_purposes`` is a single string; ``transform_database_user``,
            ``generate_custom_user_id`` or ``clock`` is not a plain function; or a setting is
            unknown or missing.
        ValueError: a setting contradicts another one, or needs more than the session adapter
            offers.
    """

    # Where an argument is left out, mypy takes the default of its type variable, and pyright the
    # type of its default value.
    @overload
    def __init__(
        self: "AsyncAuth[User, str, GivenAttributesT]",
        *,
        user_attributes: type[GivenAttributesT] = _ANY_ATTRIBUTES,  # type: ignore[assignment]
        **settings: Unpack[AsyncTextIdSettings],
    ) -> None: ...

    @overload
    def __init__(
        self: "AsyncAuth[GivenUserT, str, GivenAttributesT]",
        *,
        transform_database_user: Callable[[UserRow], GivenUserT],
        user_attributes: type[GivenAttributesT] = _ANY_ATTRIBUTES,  # type: ignore[assignment]
        **settings: Unpack[AsyncTextIdSettings],
    ) -> None: ...

    @overload
    def __init__(
        self: "AsyncAuth[User[GivenUserIdT], GivenUserIdT, GivenAttributesT]",
        *,
        user_attributes: type[GivenAttributesT] = _ANY_ATTRIBUTES,  # type: ignore[assignment]
        **settings: Unpack[AsyncUserIdSettings[GivenUserIdT]],
    ) -> None: ...

    @overload
    def __init__(
        self: "AsyncAuth[GivenUserT, GivenUserIdT, GivenAttributesT]",
        *,
        transform_database_user: Callable[[UserRow[GivenUserIdT]], GivenUserT],
        user_attributes: type[GivenAttributesT] = _ANY_ATTRIBUTES,  # type: ignore[assignment]
        **settings: Unpack[AsyncUserIdSettings[GivenUserIdT]],
    ) -> None: ...

    def __init__(
        self,
        *,
        transform_database_user: Callable[[Any], Any] = _default_user,
        user_attributes: type[Any] = _ANY_ATTRIBUTES,
        user_id: type[Any] | UserIdType[Any] = TEXT_IDS,
        generate_custom_user_id: Callable[[], Any] | Unset | None = UNSET,
        **settings: Unpack[AsyncAuthSettings],
    ) -> None:
        check_names(type(self).__name__, settings, AsyncAuthSettings, AsyncUserIdSettings)
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
        self._user_ids = user_id_type(user_id)
        self._use_adapters(settings["sessions"], settings.get("users"))
        self._changes = None
        # One query for a session and its user needs no cache, and its user is never out of date.
        self._user_cache = None if self._joined else settings.get("user_cache")
        self._transform = transform_database_user
        check_function("transform_database_user", self._transform)
        self._generate_user_id = (
            self._user_ids.generate if generate_custom_user_id is UNSET else generate_custom_user_id
        )
        if self._generate_user_id is not None:
            check_function("generate_custom_user_id", self._generate_user_id)
        elif not isinstance(self._users, AsyncIdAssigningUserAdapter | None):
            raise ValueError(
                "generate_custom_user_id is missing: a function that creates the id of a new user. "
                f"{type(self._users).__name__} can't let the database assign it"
            )
        check_stored_ids(self._users, self._user_ids, self._generate_user_id)
        hasher = settings.get("hash")
        self._hasher = ScryptHash() if hasher is None else hasher
        check_methods("hash", self._hasher, PasswordHasher)
        self._workers = AsyncPasswordWorkers(self._hasher, settings.get("password_pool"))
        self._throttle = settings.get("throttle", _DEFAULT_THROTTLE)
        self._guard = AsyncGuard(
            self._throttle, choose_throttle_store(settings["sessions"], self._clock)
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
        self._given = sessions, users
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

    def in_transaction(
        self, transaction: Any, /
    ) -> "AsyncTransactionBlock[UserT, UserIdT, AttributesT]":
        """Return a block in which this ``Auth`` works in a transaction of the application's.

        Users and keys, and sessions in the same adapter, are stored when the application commits,
        which it does inside the block, or not at all. Sessions in another store, such as Redis, are
        created and revoked at once; a rollback does not undo that. At its end the block revokes
        again what a concurrent login could have used before the commit.

        Args:
            transaction: what the user adapter takes for one, such as the application's own session
                of SQLAlchemy.

        Raises:
            TypeError: the adapter can't take part in a transaction, or not in this one.
            RuntimeError: it is called inside of such a block; or, at the end of the block, the
                transaction is still open, and something was changed in it that needs a revocation
                after the commit.
            SessionsNotRevoked: at the end of the block: that revocation failed. To revoke again,
                call :meth:`invalidate_all_user_sessions`.
        """
        if self._changes is not None:
            raise RuntimeError("blocks of in_transaction() can't be nested")
        sessions, users = self._given
        if not isinstance(users, AsyncTransactionalAdapter):
            raise TypeError(
                f"{type(users).__name__} can't take part in a transaction of the application's"
            )
        bound = users.in_transaction(transaction)
        inside = copy.copy(self)
        if id(sessions) == id(users):
            inside._use_adapters(bound, bound)
            # In SQLite, counting in another transaction would wait for this one.
            inside._guard = AsyncGuard(self._throttle, choose_throttle_store(bound, self._clock))
        else:
            inside._use_adapters(sessions, bound)
        # What is read in the transaction may never be committed.
        inside._user_cache = None
        inside._changes = AsyncUncommittedChanges(bound)
        return AsyncTransactionBlock(self, inside, inside._changes)

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


class AsyncTransactionBlock(Generic[UserT, UserIdT, AttributesT]):
    """A block in which an ``Auth`` works in a transaction of the application's."""

    def __init__(
        self,
        outside: AsyncAuth[UserT, UserIdT, AttributesT],
        inside: AsyncAuth[UserT, UserIdT, AttributesT],
        changes: AsyncUncommittedChanges,
    ) -> None:
        self._outside = outside
        self._inside = inside
        self._changes = changes

    async def __aenter__(self) -> AsyncAuth[UserT, UserIdT, AttributesT]:
        return self._inside

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None:
        is_open = self._changes.is_open()
        self._changes.close()
        if not is_open:
            # Also if this task is cancelled now: the change is committed.
            await AsyncUncancelled.run(self._repeat)
        elif error is None:
            raise RuntimeError(
                "the transaction is still open: commit or roll back before the end of the block, "
                "since some revocations have to be repeated after the commit"
            )

    async def _repeat(self) -> None:
        await self._outside._repeat(self._changes)  # pyright: ignore[reportPrivateUsage]
