"""Every decision about sessions and keys, without waiting: the clock and the randomness are arguments."""

import json
import os
import string
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from functools import lru_cache
from typing import Any, Final, TypeVar, cast

from lucia._rules.passwords import is_outdated
from lucia.errors import (
    InvalidCredentials,
    InvalidInput,
    InvalidKeyId,
    InvalidPassword,
    InvalidUserId,
    OutdatedPassword,
    quoted,
)
from lucia.models import (
    HANDLE_BYTES,
    MAX_EPOCH_MS,
    MAX_ID_LENGTH,
    Device,
    Key,
    KeyRow,
    PersistentKey,
    PrimaryKey,
    Session,
    SessionRow,
    SessionState,
    SingleUseKey,
    StoredSession,
    UserRow,
    base64url,
    check_storable,
    check_text,
    check_user_id,
    handle_of,
    login_time,
    metadata_of,
    to_datetime,
)

ALPHANUMERIC: Final = string.digits + string.ascii_uppercase + string.ascii_lowercase
SESSION_ID_LENGTH: Final = 40
USER_ID_LENGTH: Final = 15
MAX_METADATA_BYTES: Final = 8_192
"""The longest JSON that is noted about a session."""

MARKER_MS: Final = 60_000
"""How long a used id is remembered after its renewal, in milliseconds."""

Clock = Callable[[], int]
"""Gives the time in milliseconds since the epoch."""

RandomBytes = Callable[[int], bytes]
"""Gives so many bytes from a cryptographically secure source."""

RowT = TypeVar("RowT", KeyRow, UserRow)


def system_clock() -> int:
    """The time in milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


def generate_random_string(
    length: int, alphabet: str = ALPHANUMERIC, *, random_bytes: RandomBytes = os.urandom
) -> str:
    """A string of ``length`` characters, each drawn uniformly from ``alphabet`` by a cryptographically secure source.

    Raises:
        ValueError: the length is negative, or the alphabet is empty, repeats a character or holds one beyond Latin-1.
    """
    if length < 0:
        raise ValueError(f"length must not be negative, got {length}")
    table, rejected = _translation(alphabet)
    drawn = b""
    while len(drawn) < length:
        drawn += random_bytes(length + length // 4 + 2).translate(table, rejected)
    return drawn[:length].decode("latin-1")


@lru_cache(maxsize=16)
def _translation(alphabet: str) -> tuple[bytes, bytes]:
    """Return the table from a random byte to a character, and the bytes to reject so that no character is likelier than another."""
    if not alphabet or len(set(alphabet)) != len(alphabet):
        raise ValueError("alphabet must hold at least one character, and each only once")
    try:
        characters = alphabet.encode("latin-1")
    except UnicodeEncodeError:
        raise ValueError("alphabet must hold Latin-1 characters only") from None
    size = len(characters)
    return bytes(characters[byte % size] for byte in range(256)), bytes(
        range(256 - 256 % size, 256)
    )


def new_session_id(random_bytes: RandomBytes = os.urandom) -> str:
    """40 random characters of ``0-9A-Za-z``: 238 bits."""
    return generate_random_string(SESSION_ID_LENGTH, random_bytes=random_bytes)


def is_session_id(value: object) -> bool:
    """Return whether ``Auth`` could have made this id: 40 characters of ``0-9A-Za-z``.

    Raises:
        TypeError: it is no ``str``. Ids that requests carry always are: it is a mistake in the code.
    """
    if not isinstance(value, str):
        hint = ": give session.session_id" if isinstance(value, Session) else ""
        raise TypeError(f"session_id must be a str, not {type(value).__name__}{hint}")
    # In bytes, isalnum() takes half the time that it takes in a str.
    return len(value) == SESSION_ID_LENGTH and value.isascii() and value.encode().isalnum()


def check_handle(value: object) -> None:
    """Refuse what is given for the handle of a login and is none.

    Raises:
        TypeError: it is no ``str``.
    """
    if not isinstance(value, str):
        kind = type(value).__name__
        hint = f": give {kind.lower()}.handle" if isinstance(value, Session | Device) else ""
        raise TypeError(f"handle must be a str, not {kind}{hint}")


def milliseconds(name: str, duration: object) -> int:
    """A duration in whole milliseconds, rounded down.

    Raises:
        TypeError: it is no ``timedelta``; a bare number's unit would be a guess.
        ValueError: it is negative.
    """
    if not isinstance(duration, timedelta):
        raise TypeError(f"{name} must be a datetime.timedelta, not {type(duration).__name__}")
    if duration < timedelta(0):
        raise ValueError(f"{name} must not be negative, got {duration}")
    return duration // timedelta(milliseconds=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionExpiry:
    """How long sessions live.

    Args:
        active: the active period, in which a session is used as it is.
        idle: the idle period after it, in which the next use renews the session.
        absolute: the longest time from login to the end, renewals included; None for no limit.
        grace: how long a used id leads to its successor after a renewal, at most 60 seconds.

    Raises:
        TypeError: a duration is no ``timedelta``.
        ValueError: one is negative, ``active`` or ``absolute`` is zero, ``grace`` is over 60 seconds, or together they pass the year 9999.
    """

    active: timedelta = timedelta(hours=24)
    idle: timedelta = timedelta(days=14)
    absolute: timedelta | None = None
    grace: timedelta = timedelta(seconds=60)

    active_ms: int = field(init=False, repr=False, compare=False)
    """``active`` in milliseconds."""

    idle_ms: int = field(init=False, repr=False, compare=False)
    """``idle`` in milliseconds."""

    absolute_ms: int | None = field(init=False, repr=False, compare=False)
    """``absolute`` in milliseconds, or None."""

    grace_ms: int = field(init=False, repr=False, compare=False)
    """``grace`` in milliseconds."""

    def __post_init__(self) -> None:
        for name in ("active", "idle", "absolute", "grace"):
            duration = getattr(self, name)
            is_none = name == "absolute" and duration is None
            object.__setattr__(
                self, f"{name}_ms", None if is_none else milliseconds(name, duration)
            )
        if self.active_ms == 0 or self.absolute_ms == 0:
            raise ValueError("active and absolute must be longer than zero")
        if self.grace_ms > MARKER_MS:
            raise ValueError(f"grace must be at most 60 seconds, got {self.grace}")
        if self.active_ms + self.idle_ms > MAX_EPOCH_MS // 2:
            raise ValueError("active and idle together are longer than 4,000 years")

    def ends(self, now: int, created_at: int) -> tuple[int, int]:
        """The ends of the active and the idle period of a session written ``now``, in milliseconds since the epoch.

        Both are clamped to the absolute lifetime, so that every reader of the record obeys it.
        """
        active = now + self.active_ms
        idle = active + self.idle_ms
        last = (
            MAX_EPOCH_MS
            if self.absolute_ms is None
            else min(created_at + self.absolute_ms, MAX_EPOCH_MS)
        )
        return min(active, last), min(idle, last)


def new_session_row(
    user_id: str,
    now: int,
    expiry: SessionExpiry,
    metadata: Mapping[str, Any],
    random_bytes: RandomBytes = os.urandom,
) -> SessionRow:
    """The row of a login."""
    active_expires, idle_expires = expiry.ends(now, now)
    attributes: dict[str, Any] = {
        "created_at": now,
        "handle": base64url(random_bytes(HANDLE_BYTES)),
    }
    if metadata:
        attributes["noted"] = dict(metadata)
    return SessionRow(
        id=new_session_id(random_bytes),
        user_id=user_id,
        active_expires=active_expires,
        idle_expires=idle_expires,
        attributes=attributes,
    )


def successor_row(
    row: StoredSession, now: int, expiry: SessionExpiry, random_bytes: RandomBytes = os.urandom
) -> SessionRow:
    """The row that a renewal puts in the place of ``row``: a new id and new ends; handle, creation and every other attribute stay."""
    created_at = created_at_of(row, expiry)
    active_expires, idle_expires = expiry.ends(now, created_at)
    return SessionRow(
        id=new_session_id(random_bytes),
        user_id=row.user_id,
        active_expires=active_expires,
        idle_expires=idle_expires,
        attributes={**row.attributes, "created_at": created_at, "handle": handle_of(row)},
    )


def check_metadata(metadata: object) -> dict[str, Any]:
    """Return the metadata of a login as every store gives it back: a dict of JSON values.

    Keys that are no text become the text that JSON makes of them, and tuples become lists.

    Raises:
        TypeError: it is no mapping.
        ValueError: it holds something that is no JSON value.
        InvalidInput: its JSON is longer than 8 KiB, or it holds text that some store can't keep.
    """
    if not isinstance(metadata, Mapping):
        raise TypeError(
            f"the metadata of a session must be a dict of JSON values, not {type(metadata).__name__}"
        )
    size = 0
    kept: dict[str, Any] = {}
    # The braces of each member are as long as the braces and commas of the whole object.
    for name, value in cast("Mapping[str, Any]", metadata).items():
        text, member = _as_json(name, value)
        size += len(text)
        kept |= member
    if size > MAX_METADATA_BYTES:
        raise InvalidInput(
            f"what is noted about a session has {size} bytes as JSON, more than {MAX_METADATA_BYTES}"
        )
    check_texts("what is noted about a session", kept)
    return kept


def check_user_attributes(attributes: object) -> None:
    """Refuse a user's attributes that can't be stored, before anything is stored.

    Raises:
        TypeError: they are no mapping.
        InvalidInput: a name or a value holds text that some store can't keep.
    """
    if not isinstance(attributes, Mapping):
        raise TypeError(f"attributes must be a dict, not {type(attributes).__name__}")
    for name, value in cast("Mapping[object, object]", attributes).items():
        check_texts("the name of an attribute", name)
        check_texts(f"the attribute {quoted(str(name))}", value)


def check_texts(name: str, value: object) -> None:
    """Refuse text, in whatever lists and mappings, that some store can't keep.

    Raises:
        InvalidInput: there is a NUL character or a lone surrogate.
    """
    if isinstance(value, str):
        try:
            check_storable(name, value)
        except ValueError as error:
            raise InvalidInput(str(error)) from None
    elif isinstance(value, Mapping):
        for pair in cast("Mapping[object, object]", value).items():
            check_texts(name, pair)
    elif isinstance(value, list | tuple):
        for item in cast("list[object] | tuple[object, ...]", value):
            check_texts(name, item)


def _as_json(name: str, value: object) -> tuple[str, dict[str, Any]]:
    """Return the JSON object with this one member, as text and as it is read back.

    Raises:
        ValueError: it is no JSON value; the message says why, and quotes nothing but the name.
    """
    try:
        text = json.dumps({name: value}, allow_nan=False)
        return text, json.loads(text)
    except TypeError as error:  # its text has names of types alone
        reason = str(error)
    except ValueError:
        reason = "it holds NaN or an infinity, or contains itself"
    except RecursionError:
        reason = "it is nested too deep"
    raise ValueError(
        f"the metadata {quoted(str(name))} is no JSON value: {reason}. Use text, numbers, booleans, "
        "None, and lists and dicts of these; for a time, its isoformat()"
    )


def session_state(row: StoredSession, now: int) -> SessionState | None:
    """``active``, ``idle``, or None for a dead session. At its very end a period still counts."""
    if now > row.idle_expires:
        return None
    return "idle" if now > row.active_expires else "active"


def created_at_of(row: StoredSession, expiry: SessionExpiry) -> int:
    """Return when the login happened, in milliseconds since the epoch."""
    return login_time(row, expiry.active_ms)


def to_session(
    row: StoredSession, state: SessionState, expiry: SessionExpiry, *, fresh: bool
) -> Session:
    """Return what the application gets for a live record."""
    return Session(row, state, fresh, expiry.active_ms)


def check_session(session: object) -> None:
    """Refuse what is given for a session and is none.

    Raises:
        TypeError: it is neither a ``Session`` nor None.
    """
    if session is not None and not isinstance(session, Session):
        raise TypeError(f"session must be a Session or None, not {type(session).__name__}")


def to_device(row: StoredSession, state: SessionState, expiry: SessionExpiry) -> Device:
    """What the device list shows for a live row."""
    return Device(
        handle=handle_of(row),
        user_id=row.user_id,
        created_at=to_datetime(created_at_of(row, expiry)),
        active_period_expires_at=to_datetime(row.active_expires),
        idle_period_expires_at=to_datetime(row.idle_expires),
        state=state,
        metadata=metadata_of(row),
    )


def check_primary_key(key: object) -> None:
    """Refuse what is given for a ``PrimaryKey`` and is none.

    Raises:
        TypeError: it is neither a ``PrimaryKey`` nor None.
    """
    if key is not None and not isinstance(key, PrimaryKey):
        raise TypeError(
            f"primary_key must be a PrimaryKey or None, not {type(key).__name__}: write PrimaryKey(provider_id, provider_user_id, password)"
        )


def key_id(provider_id: str, provider_user_id: str) -> str:
    """The id of a key, ``provider_id:provider_user_id``.

    Raises:
        TypeError: a part is no text.
        ValueError: ``provider_id`` is empty, holds NUL, a lone surrogate or a colon (the id is split at the first one), or
            has more than 253 characters.
        InvalidInput: ``provider_user_id`` is empty, holds NUL or a lone surrogate, or makes the id longer than 255
            characters. The message is for who typed it, who knows it as a name.
    """
    _check_provider_id(provider_id)
    if not isinstance(provider_user_id, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"provider_user_id must be a str, not {type(provider_user_id).__name__}")
    longest = MAX_ID_LENGTH - len(provider_id) - 1
    if not provider_user_id:
        raise InvalidInput("a name must not be empty")
    if len(provider_user_id) > longest:
        raise InvalidInput(f"a name must not be longer than {longest} characters")
    check_texts("a name", provider_user_id)
    return f"{provider_id}:{provider_user_id}"


def sought_key_id(provider_id: str, provider_user_id: str) -> str | None:
    """The id of a key to look up; None if no key can have it: a name that somebody typed is no programming error.

    Raises:
        TypeError: a part is no text.
        ValueError: ``provider_id`` can be no part of a key's id, as in :func:`key_id`.
    """
    _check_provider_id(provider_id)
    try:
        return key_id(provider_id, provider_user_id)
    except InvalidInput:
        return None


def _check_provider_id(provider_id: object) -> None:
    text = check_text("provider_id", provider_id)
    if ":" in text:
        raise ValueError(
            f"provider_id may hold no colon, got {quoted(text)}: key ids are split at the first one"
        )
    if len(text) > MAX_ID_LENGTH - 2:
        raise ValueError(
            f"provider_id has {len(text)} characters, more than {MAX_ID_LENGTH - 2}: "
            f"with a colon and a name, a key id has at most {MAX_ID_LENGTH}"
        )


def check_purposes(purposes: Collection[str]) -> frozenset[str]:
    """Return the provider ids as a set.

    Raises:
        TypeError: it is a single string, whose letters would be taken for provider ids, or one of them is no text.
        ValueError: one of them can't be a provider id.
    """
    if isinstance(purposes, str):
        raise TypeError(
            f"single_use_purposes must be a collection of provider ids, such as ({purposes!r},), not a str"
        )
    for purpose in purposes:
        _check_provider_id(purpose)
    return frozenset(purposes)


def is_revoked_with_credentials(row: KeyRow, user_id: str, purposes: Collection[str]) -> bool:
    """Return whether this is a single-use key of this user for one of these purposes."""
    return (
        row.user_id == user_id and row.expires is not None and row.id.partition(":")[0] in purposes
    )


def exactly(row: RowT | None, id_: str) -> RowT | None:
    """Return the row if its id is the one that was asked for, else None.

    A store may compare ids without regard to case, accents or spaces. Then it finds a row under a name that is not the
    row's own: ``victim@exämple.com`` would be a key of ``victim@example.com``.
    """
    return row if row is not None and row.id == id_ else None


def sought_user_id(user_id: object) -> str:
    """Return ``user_id``, of a user to look up.

    Raises:
        TypeError: it is no ``str``.
        InvalidUserId: no user can have it.
    """
    try:
        return check_user_id(user_id)
    except ValueError:
        raise InvalidUserId from None


def refusal(row: KeyRow | None, *, password_given: bool) -> type[InvalidCredentials] | None:
    """Why a key can't be used whatever the password is; None if its hash decides, or if it needs none."""
    if row is None:
        return InvalidKeyId
    if row.hashed_password is None:
        return InvalidPassword if password_given else None
    if not password_given:
        return InvalidPassword
    return OutdatedPassword if is_outdated(row.hashed_password) else None


def to_key(row: KeyRow, now: int) -> Key:
    """What the application gets for a key's row; a single-use key has expired once ``now`` is past its end."""
    provider_id, _, provider_user_id = row.id.partition(":")
    if row.expires is None:
        return PersistentKey(
            provider_id=provider_id,
            provider_user_id=provider_user_id,
            user_id=row.user_id,
            password_defined=row.hashed_password is not None,
            primary=row.primary_key,
        )
    return SingleUseKey(
        provider_id=provider_id,
        provider_user_id=provider_user_id,
        user_id=row.user_id,
        password_defined=row.hashed_password is not None,
        expires_at=to_datetime(row.expires),
        expired=now > row.expires,
    )
