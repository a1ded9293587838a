"""Rows, as adapters see them, and the frozen objects that the application gets."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import Any, Final, Generic, Literal, NamedTuple, TypeVar

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
    "Unset",
    "User",
    "UserRow",
]

UserT = TypeVar("UserT")
UserT_co = TypeVar("UserT_co", covariant=True)
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

SESSION_COLUMNS: Final = frozenset({"id", "user_id", "active_expires", "idle_expires"})


def check_text(name: str, value: object) -> str:
    """Return ``value`` if it can name something in every store: a string, not empty, that every store can keep.

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
    """Refuse text that some store can't keep: PostgreSQL refuses NUL, and a lone surrogate has no encoding.

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
    if clash := sorted(reserved & attributes.keys()):
        raise ValueError(
            f"attributes may not be named {', '.join(clash)}: those are the library's own"
        )


def _draft(model: type[Any]) -> type[Any]:
    """A class whose instances have the model's members and are not frozen, until their ``__class__`` is set to the model.

    A frozen dataclass sets each member by a call, which takes ten times as long.
    """
    return type(f"{model.__name__}Draft", model.__bases__, {"__slots__": model.__slots__})


class _Keeps:
    """Places beside a row's members, so that what is read again need not be made again: for what it was read from and made into."""

    __slots__ = ("_made", "source")
    source: object

    def kept(self, by: object) -> "Session | None":
        """What :meth:`keep` was given, if ``by`` is what else that depends on, told by its identity; else None."""
        made: Session | None = getattr(self, "_made", None)
        return made if made is not None and getattr(made, "_by", None) is by else None

    def keep(self, made: "Session") -> "Session":
        """Keep what this row was made into, and return it."""
        object.__setattr__(self, "_made", made)
        return made

    def read_from(self, source: object) -> None:
        """Keep what this row was read from."""
        object.__setattr__(self, "source", source)


class _CopiedWhole:
    """A dataclass with a member that is no field (see :func:`_hides`): copies and pickles have it."""

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
        fields: dict[str, Any] = getattr(model, "__dataclass_fields__")  # noqa: B009 (a type variable has no such member)
        del fields[secret]
        return model

    return hide


class _Made(_CopiedWhole):
    """A place beside a session's members for what else than its row it was made by."""

    __slots__ = ("_by",)


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionRow(_Keeps):
    """A stored session.

    Args:
        id: the secret that the cookie carries; any text of 1 to 255 characters.
        user_id: whose it is.
        active_expires: end of the active period, in milliseconds since the epoch.
        idle_expires: end of the idle period, likewise; after it the session is dead.
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


_RowDraft: Final = _draft(SessionRow)


def stored_row(
    id_: Any, user_id: Any, active_expires: Any, idle_expires: Any, attributes: Mapping[str, Any]
) -> SessionRow:
    """The row of these members, none of whose attributes is named as a column: in less time, if they are as usual.

    Raises:
        TypeError, ValueError: as :class:`SessionRow`, but NUL in an id is not looked for.
    """
    is_usual = (
        id_.__class__ is user_id.__class__ is str
        and active_expires.__class__ is idle_expires.__class__ is int
        and 0 < len(id_) <= MAX_ID_LENGTH
        and 0 < len(user_id) <= MAX_USER_ID_BYTES
        and id_.isascii()
        and user_id.isascii()
        and 0 <= active_expires <= MAX_EPOCH_MS
        and 0 <= idle_expires <= MAX_EPOCH_MS
    )
    if not is_usual:
        return SessionRow(
            id=id_,
            user_id=user_id,
            active_expires=active_expires,
            idle_expires=idle_expires,
            attributes=attributes,
        )
    row = _RowDraft()
    row.id = id_
    row.user_id = user_id
    row.active_expires = active_expires
    row.idle_expires = idle_expires
    row.attributes = attributes
    row._made = None
    row.__class__ = SessionRow
    made: SessionRow = row
    return made


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRow:
    """A stored key.

    Args:
        id: ``providerId:providerUserId``, split at the first colon; not in the ``repr``, since a single-use key's may be the secret itself.
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
class UserRow:
    """A stored user: an id and the application's own columns.

    Raises:
        TypeError, ValueError: the id is no id, or an attribute is named ``id``.
    """

    id: str
    attributes: Mapping[str, Any] = field(default_factory=dict[str, Any], hash=False, repr=False)

    def __post_init__(self) -> None:
        check_user_id(self.id)
        check_attributes(self.attributes, frozenset({"id"}))


@_hides("session_id")
@dataclass(frozen=True, slots=True, kw_only=True)
class Session(_Made):
    """A live session. All times are in UTC."""

    session_id: str = field(repr=False)
    """The secret that the cookie carries. It is neither in the ``repr`` nor in any JSON, also not in
    what ``dataclasses.asdict`` gives; it is in a pickle."""

    user_id: str
    active_period_expires_at: datetime
    idle_period_expires_at: datetime
    state: SessionState
    """``active`` until ``active_period_expires_at``, then ``idle`` until ``idle_period_expires_at``."""

    fresh: bool
    """Made or renewed by this call, so that the cookie has to be set."""

    handle: str
    """Names this login to its owner without being a secret; renewals keep it."""

    created_at: datetime
    """When the person logged in; renewals keep it."""

    metadata: Mapping[str, Any] = field(hash=False)
    """The metadata of the login; renewals keep it. It can't be changed, nor what is in
    it, since requests may share it."""


SessionDraft: Final = _draft(Session)


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """One entry of a user's device list: a live session without its id, safe to show.

    The members are those of :class:`Session`; ``handle`` is what ``invalidate_user_session`` takes.
    """

    handle: str
    user_id: str
    created_at: datetime
    active_period_expires_at: datetime
    idle_period_expires_at: datetime
    state: SessionState
    metadata: Mapping[str, Any] = field(hash=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class PersistentKey:
    """A key that stays until it is deleted. ``primary`` ones go only with their user."""

    provider_id: str
    provider_user_id: str
    user_id: str
    password_defined: bool
    primary: bool


@_hides("provider_user_id")
@dataclass(frozen=True, slots=True, kw_only=True)
class SingleUseKey(_CopiedWhole):
    """A key that is consumed by its first use."""

    provider_id: str
    provider_user_id: str = field(repr=False)
    """The secret itself, where the key has no password. So it is neither in the ``repr`` nor in any
    JSON, also not in what ``dataclasses.asdict`` gives; it is in a pickle."""

    user_id: str
    password_defined: bool
    expires_at: datetime
    """In UTC."""

    expired: bool
    """Whether ``expires_at`` is past."""


Key = PersistentKey | SingleUseKey


@dataclass(frozen=True, slots=True)
class PrimaryKey:
    """How a new user proves who they are. The password is kept out of the ``repr``; None makes a key without one."""

    provider_id: str
    provider_user_id: str
    password: str | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class User:
    """What the application gets for a user when it configures no ``transform_database_user``."""

    user_id: str


class SessionUser(NamedTuple, Generic[UserT_co]):
    """A live session and its user."""

    session: Session
    user: UserT_co
