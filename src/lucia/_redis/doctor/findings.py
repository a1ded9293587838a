"""The faults that ``lucia doctor`` finds in a session store, and how they are reported.

No session id is in a report. Ids are kept only in :class:`Deferred`, until the second examination.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, Literal, NamedTuple

from lucia._redis.keys import Layout
from lucia._redis.operations import to_text
from lucia.models import SessionRow, handle_of


class Kind(StrEnum):
    """A kind of fault. The values are the names in the JSON."""

    SESSION_WITHOUT_TTL = "session_without_ttl"
    SESSION_WRONG_TTL = "session_wrong_ttl"
    DEAD_SESSION = "dead_session"
    UNINDEXED_SESSION = "unindexed_session"
    UNDECODABLE_RECORD = "undecodable_record"
    INDEX_WITHOUT_TTL = "index_without_ttl"
    INDEX_SHORT_TTL = "index_short_ttl"
    INDEX_WITH_TTL = "index_with_ttl"
    DEAD_ENTRY = "dead_index_entry"
    FOREIGN_ENTRY = "index_entry_of_another_user"
    DUPLICATE_ENTRY = "duplicate_index_entry"
    MARKER_TTL = "marker_wrong_ttl"
    DAMAGED_MARKER = "damaged_marker"
    THROTTLE_WITHOUT_TTL = "throttle_without_ttl"
    WRONG_TYPE = "key_of_another_type"
    BARE_SESSION = "bare_session"
    BARE_INDEX = "bare_index"
    OTHERS_UNREADABLE = "other_keys_unreadable"
    EVICTION = "eviction_policy"
    EVICTION_UNKNOWN = "eviction_policy_unreadable"


MEANINGS: Final[Mapping[Kind, str]] = {
    Kind.SESSION_WITHOUT_TTL: "sessions that never expire",
    Kind.SESSION_WRONG_TTL: "sessions whose key expires at another time than the session",
    Kind.DEAD_SESSION: "expired sessions that are still stored",
    Kind.UNINDEXED_SESSION: "live sessions that are not in their user's index",
    Kind.UNDECODABLE_RECORD: "records that can't be decoded",
    Kind.INDEX_WITHOUT_TTL: "indexes that never expire",
    Kind.INDEX_SHORT_TTL: "indexes that expire before a session in them",
    Kind.INDEX_WITH_TTL: "indexes that expire although JavaScript writes to them",
    Kind.DEAD_ENTRY: "index entries whose session is gone",
    Kind.FOREIGN_ENTRY: "index entries that lead to another user's session",
    Kind.DUPLICATE_ENTRY: "sessions with several entries in their index",
    Kind.MARKER_TTL: "markers of used ids that live for more than a minute",
    Kind.DAMAGED_MARKER: "markers of used ids that can't be decoded",
    Kind.THROTTLE_WITHOUT_TTL: "counts of failed logins that never expire",
    Kind.WRONG_TYPE: "keys of another type in the store's namespaces",
    Kind.BARE_SESSION: "sessions of adapters before 1.1.0, stored under the bare id",
    Kind.BARE_INDEX: "indexes of adapters before 1.1.0, stored under the bare user id",
    Kind.OTHERS_UNREADABLE: "other keys could not be read",
    Kind.EVICTION: "servers whose eviction policy may evict sessions",
    Kind.EVICTION_UNKNOWN: "servers whose eviction policy could not be read",
}

Role = Literal["session", "marker", "throttle", "index", "other"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One fault, and whether it was fixed. It holds no session id.

    A session is named by its user and its handle. Any other key has no handle: ``key`` is then a
    pattern by which ``SCAN`` finds it, see :func:`pattern_of`.
    """

    kind: Kind
    fixed: bool = False
    user_id: str | None = None
    handle: str | None = None
    key: str | None = None

    @classmethod
    def about(cls, kind: Kind, row: SessionRow, fixed: bool) -> "Finding":
        """Return the finding for a fault of one session."""
        return cls(kind, fixed, row.user_id, handle_of(row))


@dataclass(frozen=True, slots=True)
class Deferred:
    """The keys of one page that are left for the second examination.

    These are index entries that lead to no session, by user, and sessions that are in no index.
    """

    node: str
    entries: list[tuple[str, bytes]] = field(default_factory=list[tuple[str, bytes]])
    rows: list[SessionRow] = field(default_factory=list[SessionRow])


@dataclass(frozen=True, slots=True)
class Examined:
    """The findings of one page of keys."""

    findings: list[Finding]
    keys: dict[Role, int]
    deferred: Deferred


@dataclass(frozen=True, slots=True, kw_only=True)
class RepairOptions:
    """The changes that the doctor may make.

    Args:
        fix: fix what can be fixed safely.
        delete_damaged: with ``fix``, delete records and markers that can't be decoded, and keys of
            another type.
        move_bare: with ``fix``, move the keys that adapters before 1.1.0 stored.
    """

    fix: bool = False
    delete_damaged: bool = False
    move_bare: bool = False


class Server(NamedTuple):
    """One server: its number of keys, run id and eviction policy; None for what it refused."""

    keys: int | None
    run_id: str | None
    policy: str | None


_PLAIN: Final = re.compile(rb"[^0-9A-Za-z:_.{}-]")
"""Bytes that have a meaning of their own in a ``SCAN`` pattern, a shell or a terminal."""

_SHOWN_BYTES: Final = 8


def pattern_of(layout: Layout, name: bytes) -> str:
    """Return a pattern that finds a key by ``SCAN`` and does not reveal a session id."""
    marker = f"{layout.session}:renewed:"
    prefixes = (
        f"{marker}{{{layout.session_key('')}",
        marker,
        layout.throttle_key(""),
        layout.session_key(""),
    )
    start = next(len(prefix) for each in prefixes if name.startswith(prefix := each.encode()))
    # A key that is not a session to this version may be a live session to another program. So at
    # most a quarter of its id is shown, and never more than eight bytes: the rest can't be guessed.
    shown = min((len(name) - start) // 4 or 1, _SHOWN_BYTES)
    return _PLAIN.sub(b"?", name[: start + shown]).decode() + "*"


def role_of(layout: Layout, name: bytes) -> Role:
    """Return what a key holds, judged by its name alone."""
    key = to_text(name)
    if key.startswith(layout.index_key("")):
        return "index"
    if not key.startswith(layout.session_key("")):
        return "other"
    if key.startswith(layout.throttle_key("")):
        return "throttle"
    return "session" if layout.is_storable(key.removeprefix(layout.session_key(""))) else "marker"
