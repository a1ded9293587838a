"""Rows, as adapters see them, and the frozen objects that the application gets."""

# A session's properties stand for the fields of the dataclass that it extends.
# mypy: disable-error-code="override"
# pyright: reportIncompatibleVariableOverride=false

import base64
import hashlib
from collections.abc import Awaitable, Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Any, Final, Generic, Literal, NamedTuple, Protocol, TypeVar, cast

from lucia._typing import UserIdT, UserT_co, with_defaults

__all__ = [
    "UNSET",
    "Device",
    "Key",
    "KeyRow",
    "PersistentKey",
    "PrimaryKey",
    "Session",
    "SessionRow",
    "SessionState",
    "SessionUser",
    "SingleUseKey",
    "StoredSession",
    "Unset",
    "User",
    "UserRow",
]

ModelT = TypeVar("ModelT")


class Unset(Enum):
    """The type of :data:`UNSET`, for arguments where None is a value."""

    UNSET = "unset"


UNSET: Final = Unset.UNSET
"""Nothing was given."""

SessionState = Literal["active", "idle"]

MAX_EPOCH_MS: Final = 253_402_300_799_999
"""The last millisecond of the year 9999, in milliseconds since the epoch."""

MAX_ID_LENGTH: Final = 255
"""The longest session id and key id, in characters."""

MAX_USER_ID_BYTES: Final = 12_288
"""The longest user id, in bytes of UTF-8."""

HANDLE_BYTES: Final = 16
"""The length of a session's handle, before it is base64url."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)

SESSION_COLUMNS: Final = frozenset({"id", "user_id", "active_expires", "idle_expires"})


def check_text(name: str, value: object) -> str:
    """Return ``value`` if it can be an id in every store: text that is not empty.

    Raises:
        TypeError: it is no ``str``.
        ValueError: it is empty, or :func:`check_storable` refuses it.
    """
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a str, not {type(value).__name__}")
    if not value:
        raise ValueError(f"{name} is empty")
    check_storable(name, value)
    return value


def check_storable(name: str, text: str) -> None:
    """Check that every store can keep a text.

    PostgreSQL refuses NUL, and a lone surrogate has no encoding.

    Raises:
        ValueError: the text holds one.
    """
    if "\0" in text:
        raise ValueError(f"{name} holds a NUL character, which some databases can't keep")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{name} holds a lone surrogate, which no store can keep") from None


def check_id(name: str, value: object) -> str:
    """Return ``value`` if it can be the id of a session or a key.

    Raises:
        TypeError, ValueError: as :func:`check_text`, and for more than 255 characters.
    """
    text = check_text(name, value)
    if len(text) > MAX_ID_LENGTH:
        raise ValueError(f"{name} has {len(text)} characters, more than {MAX_ID_LENGTH}")
    return text


def check_user_id(value: object) -> str:
    """Return ``value`` if it can be a user's id.

    Raises:
        TypeError, ValueError: as :func:`check_text`, and for more than 12,288 bytes of UTF-8.
    """
    text = check_text("user_id", value)
    if (size := len(text.encode())) > MAX_USER_ID_BYTES:
        raise ValueError(f"user_id has {size} bytes, more than {MAX_USER_ID_BYTES}")
    return text


def check_epoch(name: str, value: object) -> int:
    """Return ``value`` if it is a whole number of milliseconds from 1970 to 9999.

    Raises:
        TypeError: it is no ``int`` (a ``bool`` is none).
        ValueError: it is out of range.
    """
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(
            f"{name} must be an int of milliseconds since the epoch, not {type(value).__name__}"
        )
    if not 0 <= value <= MAX_EPOCH_MS:
        raise ValueError(
            f"{name} is out of range: expected 0 to {MAX_EPOCH_MS} ms, the end of the year 9999"
        )
    return value


def check_attributes(attributes: Mapping[str, Any], reserved: frozenset[str]) -> None:
    """Refuse attributes whose names are the library's own.

    Raises:
        ValueError: an attribute clashes.
    """
    if not reserved.isdisjoint(attributes):
        clash = ", ".join(sorted(reserved & attributes.keys()))
        raise ValueError(f"attributes may not be named {clash}: those are the library's own")


class _CopiedWhole:
    """The pickle support of a dataclass with a hidden member (see :func:`_hides`)."""

    __slots__ = ()

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[type[Any], dict[str, Any]]]:
        model: type[Any] = type(self)
        return _make, (model, {name: getattr(self, name) for name in model.__slots__})


def _make(model: type[Any], members: dict[str, Any]) -> Any:
    return model(**members)


def _hides(secret: str) -> Callable[[type[ModelT]], type[ModelT]]:
    """Take a member out of the fields of a dataclass, so that no serializer finds it.

    Whatever makes JSON of a dataclass writes all its fields: FastAPI, pydantic, orjson,
    ``dataclasses.asdict``. So a route that returns a session would publish the session's id. The
    member is set, compared and copied as the others are, but ``dataclasses.replace`` does not know
    it and has to be given it.
    """

    def hide(model: type[ModelT]) -> type[ModelT]:
        # By getattr, since a type variable has no such member.
        found: dict[str, Any] = getattr(model, "__dataclass_fields__")  # noqa: B009
        del found[secret]
        return model

    return hide


class StoredSession(Protocol):
    """A session from an adapter: a :class:`SessionRow`, or another object with its members."""

    @property
    def id(self) -> str:
        """The secret that the cookie carries."""
        ...

    @property
    def user_id(self) -> str:
        """The id of the session's user."""
        ...

    @property
    def active_expires(self) -> int:
        """The end of the active period, in milliseconds since the epoch."""
        ...

    @property
    def idle_expires(self) -> int:
        """The end of the idle period, in milliseconds since the epoch."""
        ...

    @property
    def attributes(self) -> Mapping[str, Any]:
        """The record's other members."""
        ...


FoundSession = StoredSession | None
"""The result of looking up an id: None if there is no session."""

AsyncFoundSession = Awaitable[StoredSession | None]
"""An awaitable :data:`FoundSession`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionRow:
    """A stored session.

    Args:
        id: the secret that the cookie carries; any text of 1 to 255 characters.
        user_id: whose it is.
        active_expires: end of the active period, in milliseconds since the epoch.
        idle_expires: end of the idle period, also in milliseconds; after it the session is dead.
        attributes: the record's other members, kept and given back as they are.

    Raises:
        TypeError, ValueError: a member is not as described; the message says which.
    """

    id: str = field(repr=False)
    user_id: str
    active_expires: int
    idle_expires: int
    attributes: Mapping[str, Any] = field(default_factory=dict[str, Any], hash=False)

    def __post_init__(self) -> None:
        check_id("session id", self.id)
        check_user_id(self.user_id)
        check_epoch("active_expires", self.active_expires)
        check_epoch("idle_expires", self.idle_expires)
        check_attributes(self.attributes, SESSION_COLUMNS)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRow:
    """A stored key.

    Args:
        id: ``providerId:providerUserId``, split at the first colon; not in the ``repr``, since that
            of a single-use key may be the secret itself.
        user_id: whose it is.
        hashed_password: None for a key without a password.
        primary_key: made with the user, and goes only with the user.
        expires: milliseconds since the epoch for a single-use key, else None.

    Raises:
        TypeError, ValueError: a member is not as described; the message says which.
    """

    id: str = field(repr=False)
    user_id: str
    hashed_password: str | None = field(repr=False)
    primary_key: bool
    expires: int | None

    def __post_init__(self) -> None:
        check_id("key id", self.id)
        check_user_id(self.user_id)
        if self.expires is not None:
            check_epoch("expires", self.expires)


@dataclass(frozen=True, slots=True, kw_only=True)
class UserRow(Generic[UserIdT]):
    """A stored user: an id and the application's own columns.

    Adapters make it with the id's text. ``transform_database_user`` gets it with the id in the
    application's own type.

    Raises:
        TypeError, ValueError: a text is no id, or an attribute is named ``id``.
    """

    id: UserIdT
    attributes: Mapping[str, Any] = field(default_factory=dict[str, Any], hash=False, repr=False)

    def __post_init__(self) -> None:
        if isinstance(self.id, str):
            check_user_id(self.id)
        check_attributes(self.attributes, frozenset({"id"}))


@dataclass(kw_only=True, init=False, repr=False, eq=False)
class _PublicMembers(Generic[UserIdT]):
    """The members of a session that may be shown to its user, in the order in which they are shown.

    Whatever makes JSON of a dataclass (FastAPI, pydantic, orjson, ``dataclasses.asdict``) writes
    these fields and no others, so a route that returns a session does not publish its id.
    """

    __slots__ = ()

    user_id: UserIdT
    active_period_expires_at: datetime
    idle_period_expires_at: datetime
    state: SessionState
    fresh: bool
    handle: str
    created_at: datetime
    metadata: dict[str, Any]


class Session(_PublicMembers[UserIdT]):
    """A live session: an immutable view of its record, made by ``Auth``. All times are in UTC.

    Args:
        row: the record.
        state: ``active`` or ``idle``, when the session was read.
        fresh: whether the cookie has to be set.
        active_ms: how long an active period lasts, in milliseconds, to tell the time of the login
            where the record does not have it.
        user_id: the user's id; None if it is text, as in the record.
    """

    __slots__ = ("_active_ms", "_fresh", "_row", "_state", "_user_id")

    def __init__(
        self,
        row: StoredSession,
        state: SessionState,
        fresh: bool,
        active_ms: int,
        user_id: UserIdT | None = None,
    ) -> None:
        self._row = row
        self._state: SessionState = state
        self._fresh = fresh
        self._active_ms = active_ms
        self._user_id = user_id

    @property
    def session_id(self) -> str:
        """The secret that the cookie carries.

        It is in a pickle, but neither in the ``repr`` nor in any JSON, and not in what
        ``dataclasses.asdict`` returns.
        """
        return self._row.id

    @property
    def user_id(self) -> UserIdT:
        """The id of the session's user."""
        return cast("UserIdT", self._row.user_id) if self._user_id is None else self._user_id

    @property
    def active_period_expires_at(self) -> datetime:
        """When the active period ends, and the session becomes idle."""
        return to_datetime(self._row.active_expires)

    @property
    def idle_period_expires_at(self) -> datetime:
        """When the idle period ends, and with it the session."""
        return to_datetime(self._row.idle_expires)

    @property
    def state(self) -> SessionState:
        """``active`` until ``active_period_expires_at``, then ``idle``."""
        return self._state

    @property
    def fresh(self) -> bool:
        """Whether this call created or renewed the session, so that the cookie has to be set."""
        return self._fresh

    @property
    def handle(self) -> str:
        """Names this login to its user without being a secret. Renewals keep it."""
        return handle_of(self._row)

    @property
    def created_at(self) -> datetime:
        """When the user logged in. Renewals keep it."""
        return to_datetime(login_time(self._row, self._active_ms))

    @property
    def metadata(self) -> dict[str, Any]:
        """The metadata of the login, as a copy of its own each time. Renewals keep it."""
        return metadata_of(self._row)

    def __repr__(self) -> str:
        members = ", ".join(f"{each.name}={getattr(self, each.name)!r}" for each in fields(self))
        return f"{type(self).__name__}({members})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Session):
            return NotImplemented
        return self._members() == other._members()

    def __hash__(self) -> int:
        return hash((self.session_id, self._state, self._fresh))

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        row = SessionRow(
            id=self._row.id,
            user_id=self._row.user_id,
            active_expires=self._row.active_expires,
            idle_expires=self._row.idle_expires,
            attributes=deepcopy(dict(self._row.attributes)),
        )
        return Session, (row, self._state, self._fresh, self._active_ms, self._user_id)

    def _members(self) -> tuple[object, ...]:
        return self.session_id, *(getattr(self, each.name) for each in fields(self))


def user_id_text(session: Session[Any]) -> str:
    """Return the text of the id of a session's user, as in the record."""
    return session._row.user_id  # pyright: ignore[reportPrivateUsage]


def handle_of(row: StoredSession) -> str:
    """Return the record's handle; for a record without one, the one derived from its id."""
    handle = row.attributes.get("handle")
    return handle if isinstance(handle, str) and handle else derived_handle(row.id)


def derived_handle(session_id: str) -> str:
    """Return the handle of a record that has none.

    It is 16 bytes of a hash of the session id, which does not lead back to the id, in base64url.
    """
    digest = hashlib.sha256(b"lucia handle " + session_id.encode()).digest()
    return base64url(digest[:HANDLE_BYTES])


def login_time(row: StoredSession, active_ms: int) -> int:
    """Return when the login happened, in milliseconds since the epoch.

    A record that does not say so was written one active period before that period's end.
    """
    created_at = row.attributes.get("created_at")
    if (
        isinstance(created_at, int)
        and not isinstance(created_at, bool)
        and 0 <= created_at <= MAX_EPOCH_MS
    ):
        return created_at
    return max(0, row.active_expires - active_ms)


def metadata_of(row: StoredSession) -> dict[str, Any]:
    """Return a copy of the metadata of a login; empty if the record has none."""
    metadata = row.attributes.get("noted")
    return deepcopy(cast("dict[str, Any]", metadata)) if isinstance(metadata, dict) else {}


def to_datetime(epoch_ms: int) -> datetime:
    """Return the UTC time of so many milliseconds since the epoch."""
    return _EPOCH + epoch_ms * _MILLISECOND


def base64url(data: bytes) -> str:
    """Return the URL-safe base64 of the bytes, without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


@dataclass(frozen=True, slots=True, kw_only=True)
class Device(Generic[UserIdT]):
    """One entry of a user's device list: a live session without its id, safe to show.

    The members are those of :class:`Session`; ``handle`` is what ``invalidate_user_session`` takes.
    """

    handle: str
    user_id: UserIdT
    created_at: datetime
    active_period_expires_at: datetime
    idle_period_expires_at: datetime
    state: SessionState
    metadata: Mapping[str, Any] = field(hash=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class PersistentKey(Generic[UserIdT]):
    """A key that stays until it is deleted. ``primary`` ones go only with their user."""

    provider_id: str
    provider_user_id: str
    user_id: UserIdT
    password_defined: bool
    primary: bool


@_hides("provider_user_id")
@dataclass(frozen=True, slots=True, kw_only=True)
class SingleUseKey(_CopiedWhole, Generic[UserIdT]):
    """A key that is consumed by its first use."""

    provider_id: str
    provider_user_id: str = field(repr=False)
    """The secret itself, where the key has no password. So it is neither in the ``repr`` nor in any
    JSON, also not in what ``dataclasses.asdict`` gives; it is in a pickle."""

    user_id: UserIdT
    password_defined: bool
    expires_at: datetime
    """In UTC."""

    expired: bool
    """Whether ``expires_at`` is past."""


Key = PersistentKey[UserIdT] | SingleUseKey[UserIdT]


@dataclass(frozen=True, slots=True)
class PrimaryKey:
    """The key that a new user logs in with; without a password if that is None."""

    provider_id: str
    provider_user_id: str
    password: str | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class User(Generic[UserIdT]):
    """The user that an application gets without a ``transform_database_user``."""

    user_id: UserIdT


@with_defaults
class SessionUser(NamedTuple, Generic[UserT_co, UserIdT]):
    """A live session and its user."""

    session: Session[UserIdT]
    user: UserT_co
