"""Ids at rest: Redis holds hashes of session ids, so that whoever reads it can't use a session.

:class:`~lucia._rules.id_hashes.HashedIds` computes them. :class:`HashedIdStore` wraps a store,
which works on ids as they are stored and knows nothing of hashes: it hashes the ids that callers
give, and returns sessions under the ids that they were asked for. Lists contain stored ids, since
nothing else is known.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import msgspec

from lucia._logs import marker_unreadable
from lucia._redis.commands import Batch, Call, Operation, Reply
from lucia._redis.keys import Layout
from lucia._redis.operations import MAX_HOPS, get_session, is_in_grace, retry_if_mismatched
from lucia._redis.records import (
    MismatchedReply,
    SessionRecord,
    decode_marker,
    decode_session,
)
from lucia._redis.store import ServerStore, Store
from lucia._rules.id_hashes import HashedIds, RawIds, hashed_ids, is_hash
from lucia.models import SessionRow, StoredSession, derived_handle


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
                return self._ids.from_stored(row, session_id)
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
                return self._ids.from_stored(row, successor.id)
            successor = yield from self._successor(successor.id, [successor.stored])
        return None

    def create(self, row: SessionRow, random_below: Callable[[int], int]) -> Operation[None]:
        """Store a new session under the current key's hash of its id.

        Raises:
            DuplicateSessionId: a session is stored under this hash. Other hashes are not checked.
        """
        yield from self._store.create(self._ids.to_stored(row), random_below)

    def create_capped(
        self, row: SessionRow, limit: int, now: int, random_below: Callable[[int], int]
    ) -> Operation[SessionRow]:
        """Store the session of a new login, and revoke the oldest logins beyond the limit."""
        stored = yield from self._store.create_capped(
            self._ids.to_stored(row), limit, now, random_below
        )
        return self._ids.from_stored(stored, row.id)

    def renew(
        self, used_id: str, successor: SessionRow, grace: int
    ) -> Operation[SessionRow | None]:
        """Replace a session by its successor, once; the marker seals the successor's id."""
        stored = yield from self._find(used_id)
        if stored is None:
            return None
        hashed = self._ids.to_stored(successor)
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
                if successor is None and marker.sealed is not None:
                    marker_unreadable()
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
        TypeError, ValueError, ImportError: see :func:`~lucia._rules.id_hashes.hashed_ids`.
    """
    ids = hashed_ids(id_keys, raw_ids)
    if ids is None:
        return lambda store: store
    return lambda store: HashedIdStore(store, layout, ids, one_server=one_server)


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
