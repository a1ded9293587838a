"""The names of the keys, what kind of index a user has, and the JSON of the records.

======================================== ==================================================================================
key                                      value
======================================== ==================================================================================
``session:{session id}``                 string: JSON of the session's row
``userSession:{user id}``                list of the user's session ids, newest first; in ``lucia-v2`` it is a set under the
                                         name ``user_sessions:{user id}``
``session:renewed:{session:{used id}}``  string: JSON ``{"id", "successor", "grace"}``, for 60 seconds after a renewal
``session:throttle:{32 hex digits}``     list of failed sign-ins at a key or from an address, newest first, until they are forgotten
======================================== ==================================================================================

``session`` and ``userSession`` are the namespaces. The braces of the third name are literal: they make its slot in a cluster that of
``session:{used id}``.
"""

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal, NamedTuple, NoReturn, cast, get_args

import msgspec

from lucia._logs import record_ignored
from lucia._redis.index import LEGACY_LIST, LEGACY_SET, LIST, SET, Index
from lucia._rules.sessions import MARKER_MS
from lucia.models import (
    MAX_EPOCH_MS,
    MAX_ID_LENGTH,
    SESSION_COLUMNS,
    SessionRow,
)

MAX_RECORD_BYTES: Final = 16_384
"""A longer record is neither written nor read."""

MAX_DEPTH: Final = 100
"""Nor is one whose lists and objects are nested deeper: Python's JSON parser itself sets a bound in some versions only."""

LayoutName = Literal["default", "lucia-v2"]
"""The formats that the original's adapters share: of 1.1.0, and of 2.x."""

_NAMESPACES: Final[dict[LayoutName, dict[str, str]]] = {
    "default": {"session": "session", "user_session": "userSession"},
    "lucia-v2": {"session": "session", "user_session": "user_sessions"},
}
_INDEXES: Final[dict[LayoutName, tuple[Index, Index]]] = {
    "default": (LIST, LEGACY_LIST),
    "lucia-v2": (SET, LEGACY_SET),
}
"""Without and with ``legacy_writers``."""

RESERVED: Final = ("renewed:", "throttle:")
"""How no session's id begins: used ids' markers, and failed sign-ins, have such keys."""

_BRACES = re.compile(r"[^{}]*(?:\{[^{}]+\}[^{}]*)?")
"""No brace, or one pair that holds something: a cluster's hash tag."""

_AS_TEXT = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))
_ESCAPED = json.JSONEncoder(allow_nan=False, separators=(",", ":"))

_NESTING = (dict, list, tuple)
"""What JSON is nested of; anything else in an attribute, another mapping too, is no JSON value to Python's encoder."""


class Marker(NamedTuple):
    """What a used id leads to: the successor, and for how many milliseconds after the renewal.

    ``sealed`` is the successor's id for who has the used one, where ``successor`` only stands for it.
    """

    id: str
    successor: str
    grace: int
    sealed: str | None = None


@dataclass(frozen=True, slots=True)
class Layout:
    """Key names in two namespaces, and the kind of index that a user has.

    Raises:
        TypeError, ValueError: a namespace is no text, or the two make keys of one kind pass for keys of the other.
    """

    session: str
    user_session: str
    index: Index = LIST

    def __post_init__(self) -> None:
        for name, namespace in (("session", self.session), ("user_session", self.user_session)):
            _check_namespace(name, namespace)
        one, other = f"{self.session}:", f"{self.user_session}:"
        if one.startswith(other) or other.startswith(one):
            raise ValueError(
                f"namespaces {self.session!r} and {self.user_session!r} collide: a key of one could be a key of the other; "
                "choose names of which neither is the other nor begins with the other and a colon"
            )

    @classmethod
    def from_namespaces(
        cls,
        namespaces: Mapping[str, str] | None,
        layout: LayoutName = "default",
        *,
        legacy_writers: bool = False,
    ) -> "Layout":
        """The layout of this name for an adapter's ``namespaces=``, each of which may be left out.

        Raises:
            TypeError: ``namespaces`` is no mapping.
            ValueError: there is no such layout, a name is neither ``session`` nor ``user_session``, or as the class says.
        """
        _check_mapping(namespaces)
        if layout not in _NAMESPACES:
            raise ValueError(
                f"unknown layout {layout!r}: expected {' or '.join(map(repr, get_args(LayoutName)))}"
            )
        defaults = _NAMESPACES[layout]
        chosen = {**defaults, **(namespaces or {})}
        if unknown := sorted(chosen.keys() - defaults.keys()):
            raise ValueError(
                f"unknown namespace {unknown[0]!r}: expected 'session' and 'user_session'"
            )
        return cls(
            chosen["session"], chosen["user_session"], _INDEXES[layout][bool(legacy_writers)]
        )

    def session_key(self, session_id: str) -> str:
        """Where the session's record is."""
        return f"{self.session}:{session_id}"

    def index_key(self, user_id: str) -> str:
        """Where the index of the user's session ids is."""
        return f"{self.user_session}:{user_id}"

    def marker_key(self, session_id: str) -> str:
        """Where a used id's successor is named: in the slot of the session's key, by a hash tag that is that key, or the one it holds."""
        key = self.session_key(session_id)
        return (
            f"{self.session}:renewed:{key}"
            if _has_hash_tag(key)
            else f"{self.session}:renewed:{{{key}}}"
        )

    def is_one_slot(self, session_id: str) -> bool:
        """Whether a session's key and its marker's are in one slot of a cluster: not if it has braces that are no hash tag."""
        key = self.session_key(session_id)
        return _has_hash_tag(key) or "}" not in key

    def throttle_key(self, name: str) -> str:
        """Where the failures that are counted under this name are."""
        return f"{self.session}:throttle:{name}"

    def is_storable(self, session_id: str) -> bool:
        """Whether a session's key could not be mistaken for one of our other keys."""
        return not session_id.startswith(RESERVED)


def _has_hash_tag(key: str) -> bool:
    """Whether a cluster finds a key's slot by what is in braces: from the first opening one to the next closing one, if not empty."""
    opening = key.find("{")
    return opening >= 0 and key.find("}", opening) > opening + 1


def _check_mapping(namespaces: object) -> None:
    if namespaces is not None and not isinstance(namespaces, Mapping):
        raise TypeError(
            f"namespaces must be a mapping, not {type(namespaces).__name__}: write, for the prefix app, "
            "namespaces={'session': 'app:session', 'user_session': 'app:userSession'}"
        )


def _check_namespace(name: str, namespace: object) -> None:
    if not isinstance(namespace, str):
        raise TypeError(f"namespace {name} must be a str, not {type(namespace).__name__}")
    if not namespace.strip():
        raise ValueError(f"namespace {name} is empty: keys would have no name of their own")
    if _BRACES.fullmatch(namespace) is None:
        raise ValueError(
            f"namespace {name} has braces that are no hash tag, which would tear its keys apart in a cluster: {namespace!r}"
        )


def encode_row(row: SessionRow) -> bytes:
    """The record of a session: one JSON object, attributes beside the four columns.

    Raises:
        ValueError: the record is longer than 16 KiB, or an attribute is no JSON value or nested deeper than 100.
    """
    columns = {
        "id": row.id,
        "user_id": row.user_id,
        "active_expires": row.active_expires,
        "idle_expires": row.idle_expires,
    }
    try:
        record = _encode_object({**columns, **row.attributes})
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(
            f"an attribute of the session can't be stored as JSON: {type(error).__name__}"
        ) from None
    if len(record) > MAX_RECORD_BYTES:
        raise ValueError(
            f"the session's record has {len(record)} bytes, more than {MAX_RECORD_BYTES}: note less about it"
        )
    return record


def _encode_object(members: Mapping[str, Any]) -> bytes:
    try:
        return _join(members, _AS_TEXT.encode).encode()
    except UnicodeEncodeError:  # a lone surrogate, which JSON can hold as an escape only
        return _join(members, _ESCAPED.encode).encode()


def _join(members: Mapping[str, Any], encode: Callable[[object], str]) -> str:
    """The JSON of an object, member by member: texts and numbers, which most are, take an encoder far less than what holds them."""
    texts: list[str] = []
    for name, value in members.items():
        if name.__class__ is str and value.__class__ is str:
            texts.append(f"{encode(name)}:{encode(value)}")
        elif name.__class__ is str and value.__class__ is int:
            texts.append(f"{encode(name)}:{value}")
        else:
            member = {name: value}
            _check_depth(member)
            texts.append(encode(member)[1:-1])
    return f"{{{','.join(texts)}}}"


class MismatchedReply(Exception):
    """What was read is another session's: replies were crossed, or somebody copied it here. A signal between two layers."""


Id = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_ID_LENGTH)]
EpochMs = Annotated[int, msgspec.Meta(ge=0, le=MAX_EPOCH_MS)]


class SessionRecord(
    msgspec.Struct, frozen=True, gc=False, eq=False, forbid_unknown_fields=True, kw_only=True
):
    """A session as ``Auth`` writes it and as :data:`parse_record` reads it: a :class:`StoredSession`.

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
        return repr(self.to_row())

    def __eq__(self, other: object) -> bool:
        if isinstance(other, SessionRecord):
            return self.to_row() == other.to_row()
        return self.to_row() == other if isinstance(other, SessionRow) else NotImplemented

    def __ne__(self, other: object) -> bool:  # else msgspec's own, which compares identities
        return not self == other

    def __hash__(self) -> int:
        return hash(self.to_row())


parse_record: Final = msgspec.json.Decoder(SessionRecord).decode
"""Return the :class:`SessionRecord` in a record; msgspec's own function, since nothing is called
more often. Neither the record's length nor whose it is has been checked.

Raises:
    ValueError: :func:`decode_row` has to decide.
"""


def decode_row(record: bytes, session_id: str) -> SessionRow | None:
    """Return the session in a record; None, and a line in the log, if it holds none.

    Raises:
        MismatchedReply: it is a record, but of another id.
    """
    try:
        row = _read_record(record)
    except (TypeError, ValueError, RecursionError) as error:
        record_ignored(
            str(error) if type(error) in (TypeError, ValueError) else type(error).__name__
        )
        return None
    if row.id != session_id:
        record_ignored("it is another session's")
        raise MismatchedReply
    return row


def peek(record: bytes, session_id: str) -> SessionRow | None:
    """Return the session in a record; None, without a line in the log, if it holds none or another one."""
    try:
        row = _read_record(record)
    except (TypeError, ValueError, RecursionError):
        return None
    return row if row.id == session_id else None


def _read_record(record: bytes) -> SessionRow:
    if len(record) > MAX_RECORD_BYTES:
        raise ValueError(f"it has {len(record)} bytes, more than {MAX_RECORD_BYTES}")
    try:
        return parse_record(record).to_row()
    except ValueError:
        return read_odd_record(record)


def read_odd_record(record: bytes) -> SessionRow:
    """Return the session in any record that the original, or an application, may have written.

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
    """What JSON text means that begins with no white space."""
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
        MismatchedReply: it is a marker, but of another id.
    """
    if value is None or len(value) > MAX_RECORD_BYTES:
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
