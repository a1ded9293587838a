"""Every decision about sessions. The clock and the randomness are arguments."""

import json
import os
import string
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from functools import lru_cache
from typing import Any, Final, TypeVar, cast

from lucia._typing import UserIdT
from lucia.errors import InvalidInput, quoted
from lucia.models import (
    HANDLE_BYTES,
    MAX_EPOCH_MS,
    Device,
    KeyRow,
    Session,
    SessionRow,
    SessionState,
    StoredSession,
    UserRow,
    base64url,
    check_storable,
    handle_of,
    login_time,
    metadata_of,
    to_datetime,
)

ALPHANUMERIC: Final = string.digits + string.ascii_uppercase + string.ascii_lowercase
SESSION_ID_LENGTH: Final = 40
MAX_METADATA_BYTES: Final = 8_192
"""The longest JSON of a session's metadata."""

MARKER_MS: Final = 60_000
"""How long a used id is remembered after its renewal, in milliseconds."""

Clock = Callable[[], int]
"""Returns the time in milliseconds since the epoch."""

RandomBytes = Callable[[int], bytes]
"""Returns so many bytes from a cryptographically secure source."""

RowT = TypeVar("RowT", KeyRow, UserRow)


def system_clock() -> int:
    """Return the time in milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


def generate_random_string(
    length: int, alphabet: str = ALPHANUMERIC, *, random_bytes: RandomBytes = os.urandom
) -> str:
    """Return a string of random characters, each drawn uniformly from ``alphabet``.

    The source is cryptographically secure.

    Raises:
        ValueError: the length is negative, or the alphabet is empty, repeats a character or has one
            that is not in Latin-1.
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
    """Return the table from a random byte to a character, and the bytes to reject.

    Without the rejected bytes, each character is equally likely.
    """
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
    """Return 40 random characters of ``0-9A-Za-z``: 238 bits."""
    return generate_random_string(SESSION_ID_LENGTH, random_bytes=random_bytes)


def is_session_id(value: object) -> bool:
    """Return whether ``Auth`` could have created this id: 40 characters of ``0-9A-Za-z``.

    Raises:
        TypeError: it is not a ``str``. That is a mistake in the code: ids in requests always are.
    """
    if not isinstance(value, str):
        kind = type(value)
        hint = ": give session.session_id" if issubclass(kind, Session) else ""
        raise TypeError(f"session_id must be a str, not {kind.__name__}{hint}")
    # In bytes, isalnum() takes half the time that it takes in a str.
    return len(value) == SESSION_ID_LENGTH and value.isascii() and value.encode().isalnum()


def check_handle(value: object) -> None:
    """Raise `TypeError` unless the handle of a login is a ``str``."""
    if not isinstance(value, str):
        kind = type(value).__name__
        hint = f": give {kind.lower()}.handle" if isinstance(value, Session | Device) else ""
        raise TypeError(f"handle must be a str, not {kind}{hint}")


def milliseconds(name: str, duration: object) -> int:
    """Return a duration in whole milliseconds, rounded down.

    Raises:
        TypeError: it is not a ``timedelta``; the unit of a bare number would be a guess.
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
        TypeError: a duration is not a ``timedelta``.
        ValueError: one is negative, ``active`` or ``absolute`` is zero, ``grace`` is more than 60
            seconds, or ``active`` and ``idle`` are longer than 4,000 years.
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
        """Return when the active and the idle period of a session written ``now`` end.

        Times are in milliseconds since the epoch. Both ends are limited by the absolute lifetime,
        so that every reader of the record obeys it.
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
    """Return the row of a new login."""
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
    """Return the row that replaces ``row`` in a renewal.

    It has a new id and new expiries; handle, time of creation and all other attributes stay.
    """
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
    """Return the metadata of a login as every store returns it: a dict of JSON values.

    Keys that are not text become the text that JSON makes of them, and tuples become lists.

    Raises:
        TypeError: it is not a mapping.
        ValueError: a value is not a JSON value.
        InvalidInput: its JSON is longer than 8 KiB, or some store can't keep a text in it.
    """
    if not isinstance(metadata, Mapping):
        raise TypeError(
            "the metadata of a session must be a dict of JSON values, "
            f"not {type(metadata).__name__}"
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
            f"the metadata of a session has {size} bytes as JSON, more than {MAX_METADATA_BYTES}"
        )
    check_texts("the metadata of a session", kept)
    return kept


def check_texts(name: str, value: object) -> None:
    """Raise `InvalidInput` if some store can't keep a text in these lists and mappings.

    That is text with a NUL character or a lone surrogate.
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
    """Return the JSON object with this one member, as text and as it is decoded.

    Raises:
        ValueError: it is not a JSON value; the message says why, and quotes only the name.
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
        f"the metadata {quoted(str(name))} is no JSON value: {reason}. Use text, numbers, "
        "booleans, None, and lists and dicts of these; for a time, its isoformat()"
    )


def session_state(row: StoredSession, now: int) -> SessionState | None:
    """Return ``active``, ``idle``, or None for a dead session.

    A period includes its last millisecond.
    """
    if now > row.idle_expires:
        return None
    return "idle" if now > row.active_expires else "active"


def created_at_of(row: StoredSession, expiry: SessionExpiry) -> int:
    """Return when the login happened, in milliseconds since the epoch."""
    return login_time(row, expiry.active_ms)


def check_session(session: object) -> None:
    """Raise `TypeError` unless this is a ``Session`` or None."""
    if session is not None and not isinstance(session, Session):
        raise TypeError(f"session must be a Session or None, not {type(session).__name__}")


def to_device(
    row: StoredSession, state: SessionState, expiry: SessionExpiry, user_id: UserIdT
) -> Device[UserIdT]:
    """Return the entry of the device list for a live session of this user."""
    return Device(
        handle=handle_of(row),
        user_id=user_id,
        created_at=to_datetime(created_at_of(row, expiry)),
        active_period_expires_at=to_datetime(row.active_expires),
        idle_period_expires_at=to_datetime(row.idle_expires),
        state=state,
        metadata=metadata_of(row),
    )
