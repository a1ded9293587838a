"""Records: the JSON of a session and of a renewal's marker.

A record is one JSON object: ``id``, ``user_id``, ``active_expires`` and ``idle_expires`` (in
milliseconds since the epoch), and beside them the attributes of the row. ``Auth`` writes
``created_at``, ``handle`` and, for the metadata of a login, ``noted``. A marker is
``{"id", "successor", "grace"}``, with ``sealed`` where ids are stored as hashes.
"""

import json
import math
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Final, NamedTuple, NoReturn, cast

import msgspec

from lucia._logs import record_ignored
from lucia._rules.sessions import MARKER_MS
from lucia.models import (
    MAX_EPOCH_MS,
    MAX_ID_LENGTH,
    SESSION_COLUMNS,
    SessionRow,
    StoredSession,
)

MAX_RECORD_BYTES: Final = 16_384
"""A longer record is neither written nor read."""

MAX_DEPTH: Final = 100
"""How deep lists and objects may be nested. Not every Python's JSON parser has a limit."""

_AS_TEXT = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))
_ESCAPED = json.JSONEncoder(allow_nan=False, separators=(",", ":"))

_SCALARS: Final = frozenset({str, int, bool, type(None)})
_encode_plain: Final = msgspec.json.Encoder().encode

_NESTING = (dict, list, tuple)
"""The containers that Python's JSON encoder accepts."""


class Marker(NamedTuple):
    """The successor of a used id, and for how many milliseconds the used id leads to it.

    Where ids are stored as hashes, ``successor`` is the hash of the successor's id, and ``sealed``
    the id itself, encrypted for those who have the used id.
    """

    id: str
    successor: str
    grace: int
    sealed: str | None = None


def encode_row(row: SessionRow) -> bytes:
    """Return the record of a session.

    Raises:
        ValueError: the record is longer than 16 KiB, or an attribute is no JSON value or nested
            deeper than 100.
    """
    members = {
        "id": row.id,
        "user_id": row.user_id,
        "active_expires": row.active_expires,
        "idle_expires": row.idle_expires,
        **row.attributes,
    }
    try:
        record = _encode_object(members)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(
            f"an attribute of the session can't be stored as JSON: {type(error).__name__}"
        ) from None
    if len(record) > MAX_RECORD_BYTES:
        raise ValueError(
            f"the session's record has {len(record)} bytes, more than {MAX_RECORD_BYTES}: "
            "give the session less metadata"
        )
    return record


def _encode_object(members: Mapping[str, Any]) -> bytes:
    if _is_plain(members):
        try:  # each login runs this, and suppress() takes as long as encoding
            return _encode_plain(members)
        except PARSE_ERRORS:  # a lone surrogate, or an int of too many digits
            pass
    _check_depth(members)
    try:
        return _AS_TEXT.encode(members).encode()
    except UnicodeEncodeError:  # a lone surrogate, which JSON can hold as an escape only
        return _ESCAPED.encode(members).encode()


def _is_plain(members: Mapping[Any, Any], depth: int = 2) -> bool:
    """Return whether msgspec encodes an object just as ``json`` does.

    It does with strings, integers, booleans and null, and with objects of these.
    Exact classes: a subclass, such as an enum, may be encoded in another way.
    """
    for name, value in members.items():
        if name.__class__ is not str:
            return False
        if value.__class__ not in _SCALARS:
            is_object = value.__class__ is dict and depth > 1
            if not (is_object and _is_plain(value, depth - 1)):
                return False
    return True


class MismatchedReply(Exception):
    """A signal between two layers: what was read is no string, or belongs to another session.

    A reply was mismatched with a command, or somebody copied the record to another key.
    """


Id = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_ID_LENGTH)]
EpochMs = Annotated[int, msgspec.Meta(ge=0, le=MAX_EPOCH_MS)]


class SessionRecord(
    msgspec.Struct, frozen=True, gc=False, eq=False, forbid_unknown_fields=True, kw_only=True
):
    """A session as ``Auth`` writes it and :data:`parse_record` reads it: a :class:`StoredSession`.

    The types are strict on purpose. Any other record that is a session all the same, such as one
    with members of the application's own, is read by :func:`decode_row`.
    """

    id: Id
    user_id: Id
    active_expires: EpochMs
    idle_expires: EpochMs
    created_at: EpochMs | msgspec.UnsetType = msgspec.UNSET
    handle: Id | msgspec.UnsetType = msgspec.UNSET
    noted: dict[str, str | int | bool | None] | msgspec.UnsetType = msgspec.UNSET

    @property
    def attributes(self) -> dict[str, Any]:
        """The record's other members, in a dict of the caller's own."""
        members: dict[str, Any] = {}
        if self.created_at is not msgspec.UNSET:
            members["created_at"] = self.created_at
        if self.handle is not msgspec.UNSET:
            members["handle"] = self.handle
        if self.noted is not msgspec.UNSET:
            members["noted"] = dict(self.noted)
        return members

    def to_row(self) -> SessionRow:
        """Return the same session as a plain row."""
        return SessionRow(
            id=self.id,
            user_id=self.user_id,
            active_expires=self.active_expires,
            idle_expires=self.idle_expires,
            attributes=self.attributes,
        )

    def __repr__(self) -> str:
        return (
            f"SessionRecord(user_id={self.user_id!r}, active_expires={self.active_expires}, "
            f"idle_expires={self.idle_expires}, attributes={self.attributes!r})"
        )

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, SessionRecord | SessionRow):
            return NotImplemented
        return _columns(self) == _columns(other) and self.attributes == other.attributes

    def __ne__(self, other: object) -> bool:  # else msgspec's own, which compares identities
        return not self == other

    def __hash__(self) -> int:
        return hash(_columns(self))


def _columns(row: StoredSession) -> tuple[str, str, int, int]:
    return row.id, row.user_id, row.active_expires, row.idle_expires


PARSE_ERRORS: Final = (TypeError, ValueError, msgspec.MsgspecError)
"""Errors of :data:`parse_record`. Not every msgspec derives its own from ``ValueError``."""

parse_record: Final = msgspec.json.Decoder(SessionRecord).decode
"""Return the :class:`SessionRecord` in a record; msgspec's own function, since nothing is called
more often. The caller checks the record's length, whose it is, and that no id has a NUL character.

Raises:
    PARSE_ERRORS: :func:`decode_session` has to decide.
"""


def decode_session(record: bytes, session_id: str) -> SessionRecord | SessionRow | None:
    """Return the session in a record; None, and a line in the log, if it holds none.

    Raises:
        MismatchedReply: it is a record, but of another id, or not even a string.
    """
    # MGET replies with strings: a number or a list is from another command's reply, which may have
    # as many elements (I0).
    if record.__class__ is not bytes:
        raise MismatchedReply
    try:
        session = _read_record(record)
    except (TypeError, ValueError, RecursionError) as error:
        record_ignored(
            # Only our own texts: those of subclasses, as of JSON errors, may quote the record.
            str(error) if type(error) in (TypeError, ValueError) else type(error).__name__
        )
        return None
    if session.id != session_id:
        record_ignored("it is another session's")
        raise MismatchedReply
    return session


def decode_row(record: bytes, session_id: str) -> SessionRow | None:
    """Return the session in a record as a plain row, otherwise like :func:`decode_session`."""
    session = decode_session(record, session_id)
    return session.to_row() if isinstance(session, SessionRecord) else session


def peek(record: bytes, session_id: str) -> SessionRow | None:
    """Return the session in a record, without a line in the log.

    None if it holds no session, or another one.
    """
    try:
        session = _read_record(record)
    except (TypeError, ValueError, RecursionError):
        return None
    if session.id != session_id:
        return None
    return session.to_row() if isinstance(session, SessionRecord) else session


def _read_record(record: bytes) -> SessionRecord | SessionRow:
    if len(record) > MAX_RECORD_BYTES:
        raise ValueError(f"it has {len(record)} bytes, more than {MAX_RECORD_BYTES}")
    try:
        session = parse_record(record)
    except PARSE_ERRORS:
        return read_odd_record(record)
    if "\0" in session.id + session.user_id:
        raise ValueError("an id has a NUL character")
    return session


def read_odd_record(record: bytes) -> SessionRow:
    """Return the session in any record that Lucia JS, or an application, may have written.

    Accepted is what ``JSON.parse`` accepts: further members, lists and objects in them to a depth
    of 100, floats in them, any encoding of Unicode, lone surrogates outside of the ids.

    Raises:
        TypeError, ValueError, RecursionError: there is no session in it; the message says why.
    """
    members = _parse_object(record)
    if record.count(b"{") + record.count(b"[") > MAX_DEPTH:  # else there are too few to be deep
        _check_depth(members)
    try:
        id_, user_id = members.pop("id"), members.pop("user_id")
        active_expires, idle_expires = members.pop("active_expires"), members.pop("idle_expires")
    except KeyError:
        # Parsed again, since pop() has removed some of them.
        columns = SESSION_COLUMNS - _parse_object(record).keys()
        raise ValueError(f"it has no {', '.join(sorted(columns))}") from None
    return SessionRow(
        id=id_,
        user_id=user_id,
        active_expires=active_expires,
        idle_expires=idle_expires,
        attributes=members,
    )


def _check_depth(members: Mapping[str, Any]) -> None:
    level: list[Any] = [value for value in members.values() if isinstance(value, _NESTING)]
    for _ in range(MAX_DEPTH):
        if not level:
            return
        level = [
            value for each in level for value in _children(each) if isinstance(value, _NESTING)
        ]
    raise ValueError(f"it is nested deeper than {MAX_DEPTH}")


def _children(value: Any) -> Iterable[Any]:
    return cast("dict[str, Any]", value).values() if isinstance(value, dict) else value


def _parse_object(text: bytes) -> dict[str, Any]:
    if text.startswith(b'{"'):
        value = _decode(text.decode("utf-8", "surrogatepass"))
    else:
        value = _DECODER.decode(
            text.decode(json.detect_encoding(text), "surrogatepass")
        )  # as json.loads, which makes a decoder each time
    if not isinstance(value, dict):
        raise TypeError(f"it is no JSON object but {type(value).__name__}")
    return cast("dict[str, Any]", value)


def _decode(text: str) -> Any:
    """Decode JSON text that begins with no white space."""
    value, end = _DECODER.raw_decode(text)
    return value if end == len(text) else _DECODER.decode(text)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def _finite(text: str) -> float:
    if math.isinf(number := float(text)):
        raise ValueError("it holds a number that is too large")
    return number


_DECODER: Final = json.JSONDecoder(parse_constant=_refuse_constant, parse_float=_finite)


def encode_marker(marker: Marker) -> bytes:
    """The JSON of a marker."""
    members = {"id": marker.id, "successor": marker.successor, "grace": marker.grace}
    return _encode_object(
        members if marker.sealed is None else {**members, "sealed": marker.sealed}
    )


def decode_marker(value: bytes | None, used_id: str) -> Marker | None:
    """The marker in a value; None if it holds none.

    Raises:
        MismatchedReply: it is a marker, but of another id, or not even a string.
    """
    if value is None:
        return None
    if value.__class__ is not bytes:  # as in decode_session
        raise MismatchedReply
    if len(value) > MAX_RECORD_BYTES:
        return None
    try:
        members = _parse_object(value)
    except (TypeError, ValueError, RecursionError):
        return None
    successor, grace, sealed = members.get("successor"), members.get("grace"), members.get("sealed")
    if not (
        isinstance(successor, str) and successor and type(grace) is int and 0 <= grace <= MARKER_MS
    ):
        return None
    if members.get("id") != used_id:
        raise MismatchedReply
    return Marker(used_id, successor, grace, sealed if isinstance(sealed, str) else None)
