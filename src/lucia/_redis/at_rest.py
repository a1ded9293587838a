"""Ids at rest: Redis holds hashes of session ids, so that whoever reads it can't use a session.

An id is stored as its HMAC-SHA-256 under a key that Redis does not have, as 64 hex digits. A used
id has to lead to its successor's id, which nothing in Redis may show: the marker carries it sealed,
by AES-256-GCM under a key that is derived from the application's key and the used id. So only who
has both can open it.

:class:`HashedIds` computes this. :class:`HashedIdStore` wraps a store, which works on ids as they
are stored and knows nothing of hashes: it hashes the ids that callers give, and returns sessions
under the ids that they were asked for. Lists contain stored ids, since nothing else is known.
"""

import base64
import hmac
import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from importlib.util import find_spec
from typing import Final, Literal, NamedTuple, cast, get_args

import msgspec

from lucia._logs import marker_unreadable
from lucia._redis.commands import Batch, Call, Operation, Reply
from lucia._redis.keys import Layout
from lucia._redis.operations import MAX_HOPS, get_session, is_in_grace, retry_if_mismatched
from lucia._redis.records import (
    Marker,
    MismatchedReply,
    SessionRecord,
    decode_marker,
    decode_session,
)
from lucia._redis.store import ServerStore, Store
from lucia._rules.sessions import RandomBytes
from lucia.models import SessionRow, StoredSession, derived_handle, handle_of

RawIds = Literal["write", "read", "refuse"]
"""Whether sessions may be stored under their ids as they are.

``write``: new sessions are. ``read``: those that are there can be used. ``refuse``: they can't.
"""

MIN_KEY_BYTES: Final = 32
"""The shortest key: as long as the hashes that are made with it."""

NONCE_BYTES: Final = 12

_HASH = re.compile(r"[0-9a-f]{64}")

_SEALING = b"\xfflucia successor\x00"
"""Hashed with a used id to derive a sealing key. No id begins like this, since it is no UTF-8, so
that no stored hash of an id is a sealing key."""


class HashedIds:
    """Hashes ids and seals successors with a list of keys, of which the first is the current one.

    Args:
        keys: each of at least 32 bytes.
        raw_ids: whether sessions may be stored under their ids as they are.
        random_bytes: returns so many random bytes.

    Raises:
        TypeError: the keys are not a sequence of ``bytes``.
        ValueError: there is no key, one is too short, or ``raw_ids`` is unknown.
        ImportError: cryptography is not installed.
    """

    def __init__(
        self,
        keys: Sequence[bytes],
        raw_ids: RawIds = "read",
        random_bytes: RandomBytes = os.urandom,
    ) -> None:
        self._keys = _checked_keys(keys)
        self._raw_ids = check_raw_ids(raw_ids)
        _require_cryptography()
        self._random_bytes = random_bytes

    def __repr__(self) -> str:
        return f"{type(self).__name__}(<{len(self._keys)} keys>, {self._raw_ids!r})"

    def stored(self, session_id: str) -> str:
        """Return what a new session with this id is stored under."""
        if self._raw_ids == "write" and not is_hash(session_id):
            return session_id
        return _hash(self._keys[0], session_id)

    def hashes(self, session_id: str) -> list[str]:
        """Return the id's hash under each key, the current one first."""
        return [_hash(key, session_id) for key in self._keys]

    def may_be_raw(self, session_id: str) -> bool:
        """Return whether a session may be stored under this id as it is.

        Not if it looks like a hash: hashes are no secret, so no session may be found by one.
        """
        return self._raw_ids != "refuse" and not is_hash(session_id)

    def candidates(self, session_id: str) -> list[str]:
        """Return all stored ids that the id may have.

        A session keeps the one that it was created with.
        """
        return [*self.hashes(session_id), *([session_id] if self.may_be_raw(session_id) else [])]

    def seal(self, used_id: str, stored: str, successor_id: str) -> str | None:
        """Encrypt a successor's id for those who have the used id.

        Returns:
            The sealed id, bound to ``stored``, which the used id is stored under. None if the
            successor is stored under its id as it is.
        """
        if self.stored(successor_id) == successor_id:
            return None
        # A random nonce is safe here: each used id has a key of its own, which seals the successors
        # of this id alone.
        nonce = self._random_bytes(NONCE_BYTES)
        return _encrypt(_sealing_key(self._keys[0], used_id), nonce, successor_id, stored)

    def successor(self, used_id: str, marker: Marker) -> str | None:
        """Return the id of the successor in a used id's marker.

        None, and a line in the log, if the marker can't be opened, or names another session than
        the one in it.
        """
        if marker.sealed is None:
            return marker.successor if self.may_be_raw(marker.successor) else None
        for key in self._keys:
            found = _decrypt(_sealing_key(key, used_id), marker.sealed, marker.id)
            if found is not None and marker.successor in self.hashes(found):
                return found
        marker_unreadable()
        return None


def is_hash(session_id: str) -> bool:
    """Return whether an id looks like a stored hash."""
    return _HASH.fullmatch(session_id) is not None


def _hash(key: bytes, session_id: str) -> str:
    return hmac.digest(key, session_id.encode(), "sha256").hex()


def _sealing_key(key: bytes, used_id: str) -> bytes:
    return hmac.digest(key, _SEALING + used_id.encode(), "sha256")


def _encrypt(key: bytes, nonce: bytes, text: str, bound_to: str) -> str:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    return base64.urlsafe_b64encode(
        nonce + AESGCM(key).encrypt(nonce, text.encode(), bound_to.encode())
    ).decode()


def _decrypt(key: bytes, sealed: str, bound_to: str) -> str | None:
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    try:
        data = base64.b64decode(sealed, b"-_", validate=True)
        nonce, encrypted = data[:NONCE_BYTES], data[NONCE_BYTES:]
        return AESGCM(key).decrypt(nonce, encrypted, bound_to.encode()).decode()
    except (InvalidTag, ValueError):
        return None


def _require_cryptography() -> None:
    if find_spec("cryptography") is None:
        raise ImportError('ids at rest need cryptography: pip install "lucia-auth[ids-at-rest]"')


def check_raw_ids(raw_ids: RawIds) -> RawIds:
    """Return the setting, or raise `ValueError` if it is unknown."""
    if raw_ids not in get_args(RawIds):
        raise ValueError(f"raw_ids must be 'write', 'read' or 'refuse', got {raw_ids!r}")
    return raw_ids


def _checked_keys(keys: object) -> tuple[bytes, ...]:
    if isinstance(keys, str | bytes) or not isinstance(keys, Sequence):
        raise TypeError(
            f"id_keys must be a list of keys, the current one first, not {type(keys).__name__}"
        )
    if not keys:
        raise ValueError("id_keys is empty: hashed ids need a key")
    return tuple(map(_checked_key, cast("Sequence[object]", keys)))


def _checked_key(key: object) -> bytes:
    if not isinstance(key, bytes):
        raise TypeError(
            f"each of id_keys must be bytes, not {type(key).__name__}: turn text into bytes first, "
            "for example with bytes.fromhex"
        )
    if len(key) < MIN_KEY_BYTES:
        raise ValueError(
            f"a key of id_keys has {len(key)} bytes, fewer than {MIN_KEY_BYTES}: make one with "
            "secrets.token_bytes(32)"
        )
    return key


class _Successor(NamedTuple):
    """A successor's id, and what it is stored under."""

    id: str
    stored: str


class HashedLookup:
    """Finds a session under one of the hashes of its id, or under the id itself."""

    def __init__(self, layout: Layout, ids: HashedIds) -> None:
        self.prefix: str | None = None
        self._prefix = layout.session_key("")
        self._ids = ids

    def keys(self, session_id: str) -> list[bytes]:
        """Return the keys at which the session may be."""
        return [(self._prefix + stored).encode() for stored in self._ids.candidates(session_id)]

    def row(self, session_id: str, records: Sequence[bytes | None]) -> StoredSession | None:
        """Return the first session in what these keys hold, under the id that was asked for."""
        for stored, record in zip(self._ids.candidates(session_id), records, strict=True):
            row = None if record is None else decode_session(record, stored)
            if isinstance(row, SessionRecord):
                return _record_under_id(row, session_id)
            if row is not None:
                return _under_id(row, session_id)
        return None


class HashedIdStore:
    """A store for callers who know ids, over a store in which Redis holds hashes of them.

    A read asks for all stored ids that an id may have, in one command if one server has all keys. A
    revocation or renewal finds out first which of them it is, unless there is only one.

    Args:
        store: works on stored ids.
        layout: the key names.
        ids: hashes ids.
        one_server: whether one command may name keys in several slots.
    """

    def __init__(
        self, store: ServerStore, layout: Layout, ids: HashedIds, *, one_server: bool
    ) -> None:
        self._store = store
        self._layout = layout
        self._ids = ids
        self._one_server = one_server
        self.lookup = HashedLookup(layout, ids)

    def get(self, session_id: str) -> Operation[StoredSession | None]:
        """Read the session with this id."""
        return (yield from retry_if_mismatched(lambda: self.get_once(session_id)))

    def get_once(self, session_id: str) -> Operation[StoredSession | None]:
        """Read the session with this id, without a retry.

        Raises:
            MismatchedReply: the reply belongs to another command.
        """
        values = yield from self._read(
            [(self._layout.session_key(stored),) for stored in self._ids.candidates(session_id)]
        )
        return self.lookup.row(session_id, [record for (record,) in values])

    def get_successor(self, used_id: str) -> Operation[SessionRow | None]:
        """Follow a used id to a live session, by opening one marker after another."""
        successor = yield from self._successor(used_id, self._ids.candidates(used_id))
        for _ in range(MAX_HOPS):
            if successor is None:
                return None
            row = yield from get_session(self._layout, successor.stored)
            if row is not None:
                return _under_id(row, successor.id)
            successor = yield from self._successor(successor.id, [successor.stored])
        return None

    def create(self, row: SessionRow, random_below: Callable[[int], int]) -> Operation[None]:
        """Store a new session under the current key's hash of its id.

        Raises:
            DuplicateSessionId: a session is stored under this hash. Other hashes are not checked.
        """
        yield from self._store.create(self._hashed(row), random_below)

    def create_capped(
        self, row: SessionRow, limit: int, now: int, random_below: Callable[[int], int]
    ) -> Operation[SessionRow]:
        """Store the session of a new login, and revoke the oldest logins beyond the limit."""
        stored = yield from self._store.create_capped(self._hashed(row), limit, now, random_below)
        return _under_id(stored, row.id)

    def renew(
        self, used_id: str, successor: SessionRow, grace: int
    ) -> Operation[SessionRow | None]:
        """Replace a session by its successor, once; the marker seals the successor's id."""
        stored = yield from self._find(used_id)
        if stored is None:
            return None
        hashed = self._hashed(successor)
        sealed = self._ids.seal(used_id, stored, successor.id)
        found = yield from self._store.renew(stored, hashed, grace, sealed)
        if found is not None and found.id == hashed.id:
            return successor
        # What the store found has a stored id: only the opened marker names the real one.
        return (yield from self.get_successor(used_id))

    def delete(self, session_ids: Iterable[str]) -> Operation[None]:
        """Revoke the sessions of these ids, or of these stored ids, as a list contains them."""
        ids = list(dict.fromkeys(session_ids))
        stored = [hash_ for id_ in ids for hash_ in self._ids.hashes(id_)]
        # A raw id is revoked only if something is stored under it: without scripts, a revocation
        # leaves a tombstone, whose key would show the id.
        raw = yield from self._present(list(filter(self._ids.may_be_raw, ids)))
        yield from self._store.delete([*stored, *filter(is_hash, ids), *raw])

    def get_by_user(self, user_id: str, now: int) -> Operation[list[SessionRow]]:
        """Read a user's sessions, in the order of the index, under their stored ids."""
        return (yield from self._store.get_by_user(user_id, now))

    def delete_by_user(self, user_id: str, keep: str | None = None) -> Operation[bool]:
        """Revoke a user's sessions but for ``keep``, or what that was renewed to.

        Returns:
            Whether a session was kept.
        """
        kept = None if keep is None else (yield from self._find(keep)) or self._ids.stored(keep)
        return (yield from self._store.delete_by_user(user_id, kept))

    def _hashed(self, row: SessionRow) -> SessionRow:
        """Return a row as it is stored."""
        stored = self._ids.stored(row.id)
        if stored == row.id:
            return row
        # A row without a handle gets the one that is derived from its id: in a list it would be
        # derived from the stored id, and be another one.
        return replace(row, id=stored, attributes={"handle": handle_of(row), **row.attributes})

    def _successor(self, used_id: str, candidates: Sequence[str]) -> Operation[_Successor | None]:
        return (yield from retry_if_mismatched(lambda: self._successor_once(used_id, candidates)))

    def _successor_once(
        self, used_id: str, candidates: Sequence[str]
    ) -> Operation[_Successor | None]:
        """Return the successor in the marker of one of these stored ids, within its grace."""
        values = yield from self._read([(self._layout.marker_key(id_),) for id_ in candidates])
        for stored, (value,) in zip(candidates, values, strict=True):
            marker = decode_marker(value, stored)
            if marker is not None and is_in_grace(
                marker, (yield Call("PTTL", (self._layout.marker_key(stored),)))
            ):
                successor = self._ids.successor(used_id, marker)
                return None if successor is None else _Successor(successor, marker.successor)
        return None

    def _find(self, session_id: str) -> Operation[str | None]:
        """Return the stored id of a session that is live, or was renewed within the last minute.

        With only one possible stored id, that one, unchecked.
        """
        candidates = self._ids.candidates(session_id)
        if len(candidates) == 1:
            return candidates[0]
        return next(iter((yield from self._present(candidates))), None)

    def _present(self, stored: Sequence[str]) -> Operation[Sequence[str]]:
        """Return the stored ids that have a session or a marker.

        All of them if replies mismatch.
        """
        if not stored:
            return []
        present = yield from retry_if_mismatched(lambda: self._present_once(stored))
        # Replies that can't be trusted must not keep a session from being revoked (I0).
        return stored if present is None else present

    def _present_once(self, stored: Sequence[str]) -> Operation[list[str] | None]:
        found = yield from self._read([self._keys(id_) for id_ in stored])
        return [
            id_
            for id_, values in zip(stored, found, strict=True)
            if any(value is not None for value in values)
        ]

    def _keys(self, stored: str) -> tuple[str, ...]:
        """Return the session's key and, if one command can read both, its marker's."""
        session = self._layout.session_key(stored)
        if self._one_server or self._layout.is_one_slot(stored):
            return session, self._layout.marker_key(stored)
        return (session,)

    def _read(self, groups: Sequence[tuple[str, ...]]) -> Operation[list[list[bytes | None]]]:
        """Read the keys of each group by one ``MGET``, since they are in one slot.

        On one server all groups are read by one.

        Raises:
            MismatchedReply: a reply has another shape, so it belongs to another command.
        """
        if self._one_server:
            keys = tuple(key for group in groups for key in group)
            values = iter(_values((yield Call("MGET", keys)), len(keys)))
            return [[next(values) for _ in group] for group in groups]
        replies = yield Batch(tuple(Call("MGET", group) for group in groups))
        return [_values(reply, len(group)) for reply, group in zip(replies, groups, strict=True)]


def at_rest(
    layout: Layout, id_keys: Sequence[bytes], raw_ids: RawIds, *, one_server: bool
) -> Callable[[ServerStore], Store]:
    """Return a function that makes the store for callers: with keys, one that hashes ids.

    Raises:
        TypeError, ValueError, ImportError: see :class:`HashedIds`.
        ValueError: raw ids are to be refused, and there are no keys.
    """
    if id_keys:
        ids = HashedIds(id_keys, raw_ids)
        return lambda store: HashedIdStore(store, layout, ids, one_server=one_server)
    if check_raw_ids(raw_ids) == "refuse":
        raise ValueError(
            "raw_ids='refuse' needs id_keys: without a key, sessions are stored under their ids as "
            "they are"
        )
    return lambda store: store


def _values(reply: Reply, count: int) -> list[bytes | None]:
    """Return the values in a reply to ``MGET`` of so many keys.

    Raises:
        MismatchedReply: the reply has another shape.
    """
    match reply:
        case [*values] if len(values) == count and all(
            value is None or isinstance(value, bytes) for value in values
        ):
            return values
        case _:
            raise MismatchedReply


def _record_under_id(record: SessionRecord, session_id: str) -> SessionRecord:
    """Return a stored session under the id that led to it, without an added handle."""
    if record.id == session_id:
        return record
    is_added = record.handle == derived_handle(session_id)
    handle = msgspec.UNSET if is_added else record.handle
    return msgspec.structs.replace(record, id=session_id, handle=handle)


def _under_id(row: SessionRow, session_id: str) -> SessionRow:
    """Return a stored row under the id that led to it, without an added handle."""
    if row.id == session_id:
        return row
    attributes = dict(row.attributes)
    if attributes.get("handle") == derived_handle(session_id):  # see _hashed
        del attributes["handle"]
    return replace(row, id=session_id, attributes=attributes)
