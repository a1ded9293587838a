"""The store where one script can't see all keys: in a cluster, or on a server that refuses scripts.

The protocol is *session-first*: a session is written before its index entry, and ids are used once
(I6). So an id in the index without a session is dead, and stays so, and a reader of the index finds
every session that was handed out (I1):

* ``create``: C1 ``SET session … NX PX 10000``, C2 add the id to the index, C3 ``PEXPIREAT
  session``. A crash leaves a session whose id nobody knows, and which expires after ten seconds.
* ``renew``: create the successor, telling nobody its id. Then, in the used session's slot, replace
  the session with a marker that names the successor. Whoever finds it gone deletes the successor
  that it made, and follows the marker that is there.
* ``delete`` and ``delete_by_user``: delete each session, and only after that read its marker and
  go on along the chain. Then remove the ids that were read from the index. The index itself is
  never deleted, since it may hold ids that were added after the read.

What has to be atomic concerns one key, or two in one slot. :class:`ScriptedSteps` uses a script for
each such step, :class:`PlainSteps` commands alone. There the marker is a register that is written
once (``SET … NX``): a renewal writes its successor into it and deletes the session in one
transaction; a revocation deletes the session, then writes a tombstone. If the marker names a
successor by then, the renewal was first, and the successor is revoked too.
"""

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Final, NamedTuple, Protocol, cast

from lucia._compat.blocks import Blocks
from lucia._logs import revoked as log_revoked
from lucia._redis.commands import Argument, Batch, Call, Eval, Operation, Transaction
from lucia._redis.index import Index
from lucia._redis.keys import Layout
from lucia._redis.operations import (
    PRUNE_SAMPLE_SIZE,
    BaseStore,
    add_unseen,
    already_expired_error,
    check_storable,
    decode_rows,
    expire_dead_sessions,
    follow_chain,
    ids_without_record,
    is_prune_due,
    marker_or_none,
    milliseconds_of,
    resolve_chain,
    row_or_none,
    successor_ids,
    successor_within_grace,
    to_bytes,
    to_text,
)
from lucia._redis.records import Marker, encode_marker, encode_row
from lucia._redis.revocations import (
    TOMBSTONE,
    UNRECORDED,
    RevocationRecorder,
    RevocationTracking,
)
from lucia._redis.scripts import ALREADY_EXPIRED, DELETE, REPLACE_WITH_MARKER
from lucia._rules.sessions import MARKER_MS
from lucia.errors import ConcurrentlyRevoked, DuplicateSessionId
from lucia.models import SessionRow, handle_of

PROVISIONAL_MS: Final = 10_000
"""How long a session lives until its creation is complete."""

INDEX_SLACK_MS: Final = 60_000
"""How much longer than its sessions an index lives: the clocks of two servers may differ (I3)."""

MAX_COMMANDS_PER_BATCH: Final = 500
"""How many sessions are read or revoked side by side."""


class SessionKeys(NamedTuple):
    """A session id, its key, and its marker's key in the same slot."""

    id: str
    session: bytes
    marker: bytes


class RecordAndMarker(NamedTuple):
    """The values at a session's key and at its marker's key."""

    record: bytes | None
    marker: bytes | None


class SlotSteps(Protocol):
    """The steps that are atomic, each at one key or at two keys in one slot."""

    def add_to_index(self, index: Index, key: str, session_id: str, expires: int) -> Operation[int]:
        """Add an id to an index, and let that live until ``expires`` at least.

        Returns:
            The index's length; ALREADY_EXPIRED if ``expires`` is past, and then nothing is done.
        """
        ...

    def replace_with_marker(
        self, session: str, marker_key: str, marker: bytes
    ) -> Operation[tuple[bytes | None, int] | None]:
        """Delete a session and write a marker.

        Returns:
            None if it was done. If the session is gone, the marker that is there, if any, and its
            time to live.
        """
        ...

    def revoke(
        self, sessions: Sequence[SessionKeys], recorder: RevocationRecorder
    ) -> Operation[list[RecordAndMarker]]:
        """Delete sessions, and after that read their markers.

        No renewal may replace such a session afterwards.
        """
        ...

    def remove_from_index(
        self, index: Index, key: Argument, ids: Sequence[bytes]
    ) -> Operation[None]:
        """Remove ids from an index. Oldest first is the fastest."""
        ...


class ScriptedSteps:
    """One script for each step; all its keys are in one slot."""

    def add_to_index(self, index: Index, key: str, session_id: str, expires: int) -> Operation[int]:
        length: int = yield Eval(index.scripts.push, (key,), (session_id, expires, INDEX_SLACK_MS))
        return length

    def replace_with_marker(
        self, session: str, marker_key: str, marker: bytes
    ) -> Operation[tuple[bytes | None, int] | None]:
        reply = yield Eval(REPLACE_WITH_MARKER, (session, marker_key), (marker, MARKER_MS))
        return None if reply == 1 else (reply[0], reply[1])

    def revoke(
        self, sessions: Sequence[SessionKeys], recorder: RevocationRecorder
    ) -> Operation[list[RecordAndMarker]]:
        replies = yield from recorder.send(
            Batch(tuple(Eval(DELETE, (each.session, each.marker), ()) for each in sessions)),
            lambda replies: (
                each.id
                for each, [(record, _)] in zip(sessions, replies, strict=True)
                if record is not None
            ),
        )
        return [RecordAndMarker(record, marker) for [(record, marker)] in replies]

    def remove_from_index(
        self, index: Index, key: Argument, ids: Sequence[bytes]
    ) -> Operation[None]:
        yield Eval(index.scripts.drop, (key,), tuple(ids))


class PlainSteps:
    """Commands alone, for servers that refuse scripts; the index's expiry needs Redis 7."""

    def add_to_index(self, index: Index, key: str, session_id: str, expires: int) -> Operation[int]:
        if expires <= milliseconds_of((yield Call("TIME", ()))):
            return ALREADY_EXPIRED
        # A key of another type fails here, before its expiry is touched.
        yield index.check(key)
        # An index without an expiry was written by Lucia JS: with one it could expire before the
        # sessions of Lucia JS do, which live for 57 years.
        is_endless = (yield Call("PTTL", (key,))) == -1
        # Only Redis 7 has these conditions. GT alone does not set the first expiry: no expiry
        # counts as infinite.
        first, longer = (
            Call("PEXPIREAT", (key, expires + INDEX_SLACK_MS, condition))
            for condition in ("NX", "GT")
        )
        added = index.add(key, session_id)
        if index.legacy_writers:
            replies = yield Transaction((*added, Call("PERSIST", (key,))))
            return cast("int", replies[len(added) - 1])
        # Together with the entry: a crash must not leave an index without an expiry (I3). Only an
        # index that was endless, and was emptied since PTTL, gets it one step later.
        replies = yield Transaction((*added, *(() if is_endless else (first, longer))))
        length = cast("int", replies[len(added) - 1])
        # The index was emptied since PTTL, so this one is new, and ours.
        if is_endless and length == 1:
            yield first
        return length

    def replace_with_marker(
        self, session: str, marker_key: str, marker: bytes
    ) -> Operation[tuple[bytes | None, int] | None]:
        # Asked first only to save the write; the transaction decides.
        if (yield Call("MGET", (session,)))[0] is not None:
            # DEL is executed even if SET writes nothing. That is safe: whoever wrote the marker
            # that is there has deleted the session before it or with it, and ids are used once.
            write = Call("SET", (marker_key, marker, "NX", "PX", MARKER_MS))
            written, deleted = yield Transaction((write, Call("DEL", (session,))))
            if written:
                # Nothing to delete: the session was revoked since it was read (I5).
                return None if deleted else (None, 0)
        (value,) = yield Call("MGET", (marker_key,))
        ttl = yield Call("PTTL", (marker_key,))
        return value, ttl

    def revoke(
        self, sessions: Sequence[SessionKeys], recorder: RevocationRecorder
    ) -> Operation[list[RecordAndMarker]]:
        # Read before they are deleted: they name the users whose indexes hold the ids.
        records: list[list[bytes | None]] = yield Batch(
            tuple(Call("MGET", (each.session,)) for each in sessions)
        )
        # Deleted before the tombstone is written: a server that is out of memory refuses SET, but
        # not DEL, and the sessions are revoked anyway.
        yield from recorder.send(
            Batch(tuple(Call("DEL", (each.session,)) for each in sessions)),
            lambda replies: (
                each.id for each, deleted in zip(sessions, replies, strict=True) if deleted
            ),
        )
        yield Batch(
            tuple(Call("SET", (each.marker, TOMBSTONE, "NX", "PX", MARKER_MS)) for each in sessions)
        )
        markers: list[list[bytes | None]] = yield Batch(
            tuple(Call("MGET", (each.marker,)) for each in sessions)
        )
        return [
            RecordAndMarker(record, marker)
            for (record,), (marker,) in zip(records, markers, strict=True)
        ]

    def remove_from_index(
        self, index: Index, key: Argument, ids: Sequence[bytes]
    ) -> Operation[None]:
        yield Batch(index.remove(key, ids))


class ClusterStore(BaseStore):
    """The operations in a cluster, or without scripts.

    Args:
        layout: the key names.
        steps: how the atomic steps are done.
        tracking: remembers and confirms revocations.
    """

    def __init__(
        self, layout: Layout, steps: SlotSteps, tracking: RevocationTracking | None = None
    ) -> None:
        super().__init__(layout, tracking)
        self.steps = steps

    def create(self, row: SessionRow, random_below: Callable[[int], int]) -> Operation[None]:
        """Store a new session.

        From a user's sixteenth session on, every eighth login removes the dead ids among eight
        entries of the index (I7).

        Raises:
            DuplicateSessionId: another session has this id (I4).
            ConcurrentlyRevoked: it was revoked while it was made, by a sign-out everywhere.
            ValueError: the session has expired by the server's clock, or can't be stored.
        """
        length = yield from self._store(row)
        if is_prune_due(self._layout, length):
            index = self._layout.index_key(row.user_id)
            ids = yield from self._layout.index.sample(
                index, PRUNE_SAMPLE_SIZE, length, random_below
            )
            records = yield from self._read_records(ids)
            yield from self._remove_from_index(index, ids_without_record(ids, records))

    def create_capped(
        self, row: SessionRow, limit: int, now: int, random_below: Callable[[int], int]
    ) -> Operation[SessionRow]:
        """Store the session of a new login, then revoke the user's oldest logins beyond the limit.

        There may be more logins than the limit until all that are in progress have returned.

        Raises:
            DuplicateSessionId, ConcurrentlyRevoked, ValueError: see :meth:`create`.
        """
        return self._create_then_revoke_surplus(row, limit, now, random_below)

    def _store(self, row: SessionRow) -> Operation[int]:
        """Do the steps C1 to C3; return the index's length."""
        check_storable(self._layout, row)
        if not self._layout.is_one_slot(row.id):
            raise ValueError(
                "a session id may not hold braces that are no hash tag: in a cluster its marker "
                "has to be in its slot"
            )
        record = encode_row(row)
        key, index = self._layout.session_key(row.id), self._layout.index_key(row.user_id)
        # With a short life, and before its entry: whenever this process dies, the session is in the
        # index, or it expires and nobody knows its id (I1).
        written = yield Call("SET", (key, record, "NX", "PX", PROVISIONAL_MS))
        # The same record is our own: the command was sent twice (I4).
        if not written and (yield Call("MGET", (key,)))[0] != record:
            raise DuplicateSessionId
        try:
            length = yield from self.steps.add_to_index(
                self._layout.index, index, row.id, row.idle_expires
            )
        except Exception:
            with suppress(Exception):  # If this fails too, the session expires in ten seconds.
                yield Call("DEL", (key,))
            raise
        if length == ALREADY_EXPIRED:
            yield Call("DEL", (key,))
            raise already_expired_error()
        # The session is gone: a sign-out everywhere found it in the index, or ten seconds are over.
        if not (yield Call("PEXPIREAT", (key, row.idle_expires))):
            yield from self._remove_from_index(index, [row.id.encode()])
            raise ConcurrentlyRevoked
        return length

    def renew(
        self, used_id: str, successor: SessionRow, grace: int, sealed: str | None = None
    ) -> Operation[SessionRow | None]:
        """Replace a session by its successor, once (I5).

        Args:
            used_id: the session's id.
            successor: the new session.
            grace: for how many milliseconds the used id leads to the successor.
            sealed: the successor's id, sealed for those who have the used id.

        Returns:
            ``successor``. If the session was renewed before, and within its grace, the live session
            that it leads to; else None.

        Raises:
            DuplicateSessionId, ConcurrentlyRevoked, ValueError: see :meth:`create`.
        """
        # With marker and session in two slots no renewal is atomic, so there is none.
        if not (self._layout.is_storable(used_id) and self._layout.is_one_slot(used_id)):
            return None
        marker = Marker(used_id, successor.id, grace, sealed)
        index = self._layout.index_key(successor.user_id)
        # The successor is complete before a marker names it: otherwise a crash in between would
        # leave a marker to a session that no revocation can reach (I2).
        yield from self._store(successor)
        session, marker_key = self._layout.session_key(used_id), self._layout.marker_key(used_id)
        found = yield from self.steps.replace_with_marker(
            session, marker_key, encode_marker(marker)
        )
        existing = None if found is None else marker_or_none(found[0], used_id)
        # Our own marker is there if the command was sent twice.
        if found is None or existing == marker:
            # Beside other writers dead ids are not pruned, so the used id is removed here.
            if self._layout.index.legacy_writers:
                yield from self._remove_from_index(index, [used_id.encode()])
            # If a failover undoes this after the successor was revoked, the used id has to be
            # revoked too.
            self._tracking.renewed(used_id, successor.id)
            return successor
        # The session before its entry: without the entry no sign-out would find it (I1).
        yield Call("DEL", (self._layout.session_key(successor.id),))
        yield from self._remove_from_index(index, [successor.id.encode()])
        next_id = successor_within_grace(existing, found[1])
        return (yield from follow_chain(self._layout, next_id))

    def delete(self, session_ids: Iterable[str]) -> Operation[None]:
        """Revoke sessions and what they were renewed to, then remove their ids from the indexes."""
        ids = list(session_ids)
        return self._tracking.run(ids, lambda recorder: self._delete(ids, recorder))

    def _delete(self, session_ids: Iterable[str], recorder: RevocationRecorder) -> Operation[None]:
        yield from self._revoke(session_ids, set(), recorder)

    def delete_records(self, session_ids: Iterable[str]) -> Operation[None]:
        """Revoke sessions and what they were renewed to, for the replay.

        Their ids stay in the indexes, where they are dead: an index that is damaged must not stop
        the replay.
        """
        yield from self._delete_records(session_ids, set(), UNRECORDED)

    def get_by_user(self, user_id: str, now: int) -> Operation[list[SessionRow]]:
        """Read a user's sessions, in the order of the index.

        Sessions that have expired although their keys exist get their expiry, and dead ids are
        removed from the index.
        """
        rows, dead = yield from self._read_user_sessions(user_id)
        yield from expire_dead_sessions(self._layout, rows, now)
        # Beside other writers an id without a session may be a login that is not complete.
        if not self._layout.index.legacy_writers:
            yield from self._remove_from_index(self._layout.index_key(user_id), dead)
        return rows

    def delete_by_user(self, user_id: str, keep: str | None = None) -> Operation[bool]:
        """Revoke the user's sessions but for ``keep``, or what that was renewed to (I2).

        Returns:
            Whether a session was kept. If ``keep`` is no live session of this user, all are revoked
            and it is False.
        """
        return self._tracking.run(
            (), lambda recorder: self._delete_by_user(user_id, keep, recorder)
        )

    def _delete_by_user(
        self, user_id: str, keep: str | None, recorder: RevocationRecorder
    ) -> Operation[bool]:
        index = self._layout.index_key(user_id)
        ids = yield from self._layout.index.read(index)
        # Resolved after the index was read: whatever the session is renewed to later is not in ids.
        found = None if keep is None else (yield from resolve_chain(self._layout, user_id, keep))
        spared: set[str | None] = set()
        if found is not None:
            spared = yield from self._ids_of_login(user_id, ids, *found)
        others = [id_ for id_ in ids if to_text(id_) not in spared]
        revoked = yield from self._revoke(map(to_text, others), spared, recorder)
        # Beside other writers an id without a session may be a login that is not complete.
        if self._layout.index.legacy_writers:
            others = [id_ for id_ in others if to_text(id_) in revoked]
        # Only the ids that were read: since then a login may have added another one (I1).
        yield from self._remove_from_index(index, others)
        return found is not None

    def _ids_of_login(
        self, user_id: str, ids: Sequence[bytes], chain: Sequence[str], live: SessionRow
    ) -> Operation[set[str | None]]:
        """Return all ids of one login: its chain of renewals, and sessions that have its handle."""
        found = set[str | None](chain)
        for block in Blocks(ids):
            rows = decode_rows(user_id, block, (yield from self._read_records(block)))
            # A renewal in progress has put its successor into the index already, and no marker
            # names it yet: by the handle, which a renewal does not change, it is this login's.
            found.update(row.id for row in rows if handle_of(row) == handle_of(live))
        return found

    def _revoke(
        self, session_ids: Iterable[str], seen: set[str | None], recorder: RevocationRecorder
    ) -> Operation[set[str]]:
        """Revoke sessions and what they were renewed to, then remove them from their indexes.

        Args:
            session_ids: the ids to revoke.
            seen: ids that are left alone. The revoked ids are added to it.
            recorder: sends the commands that revoke.

        Returns:
            The ids that had a record.
        """
        # Sessions before index entries, or a sign-out everywhere could miss one (I1).
        found = yield from self._delete_records(session_ids, seen, recorder)
        by_index: dict[str, list[bytes]] = {}
        for id_, row in found.items():
            if row is not None:
                log_revoked(0, row.user_id)
                by_index.setdefault(self._layout.index_key(row.user_id), []).append(id_.encode())
        for index, ids in by_index.items():
            yield from self._remove_from_index(index, ids[::-1])
        return set(found)

    def _delete_records(
        self, session_ids: Iterable[str], seen: set[str | None], recorder: RevocationRecorder
    ) -> Operation[dict[str, SessionRow | None]]:
        """Delete these sessions, then those that their markers name, and so on, each once.

        Returns:
            The session of each id that had a record; None if the record held no session.
        """
        found: dict[str, SessionRow | None] = {}
        to_delete = add_unseen(self._layout, session_ids, seen)
        while to_delete:
            block = to_delete[:MAX_COMMANDS_PER_BATCH]
            to_delete = to_delete[MAX_COMMANDS_PER_BATCH:]
            deleted = yield from self._delete_block(block, recorder)
            records = {
                id_: each.record
                for id_, each in zip(block, deleted, strict=True)
                if each.record is not None
            }
            found.update((id_, row_or_none(record, id_)) for id_, record in records.items())
            to_delete += add_unseen(
                self._layout, successor_ids(block, (each.marker for each in deleted)), seen
            )
        return found

    def _delete_block(
        self, session_ids: Sequence[str], recorder: RevocationRecorder
    ) -> Operation[list[RecordAndMarker]]:
        """Delete these sessions, and return what they and their markers held."""
        in_one_slot = list(filter(self._layout.is_one_slot, session_ids))
        replies = yield from self.steps.revoke([self._keys(id_) for id_ in in_one_slot], recorder)
        found = dict(zip(in_one_slot, replies, strict=True))
        for id_ in session_ids:
            # Written by the store for one server, where the marker may be in another slot. Here it
            # could not be written atomically, so no renewal has made one.
            if id_ not in found:
                found[id_] = yield from self._delete_without_marker(id_, recorder)
        return [found[id_] for id_ in session_ids]

    def _delete_without_marker(
        self, session_id: str, recorder: RevocationRecorder
    ) -> Operation[RecordAndMarker]:
        key = self._keys(session_id).session
        (record,) = yield Call("MGET", (key,))
        yield from recorder.send(
            Call("DEL", (key,)), lambda deleted: [session_id] if deleted else ()
        )
        return RecordAndMarker(record, None)

    def _keys(self, session_id: str) -> SessionKeys:
        return SessionKeys(
            session_id,
            to_bytes(self._layout.session_key(session_id)),
            to_bytes(self._layout.marker_key(session_id)),
        )

    def _read_values(self, keys: Sequence[bytes]) -> Operation[list[bytes | None]]:
        # One MGET for each key: in a cluster they are in different slots.
        values: list[bytes | None] = []
        for start in range(0, len(keys), MAX_COMMANDS_PER_BATCH):
            replies: list[list[bytes | None]] = yield Batch(
                tuple(Call("MGET", (key,)) for key in keys[start : start + MAX_COMMANDS_PER_BATCH])
            )
            values += [value for (value,) in replies]
        return values

    def _remove_from_index(self, index: str, ids: Sequence[bytes]) -> Operation[None]:
        for start in range(0, len(ids), MAX_COMMANDS_PER_BATCH):
            block = ids[start : start + MAX_COMMANDS_PER_BATCH]
            yield from self.steps.remove_from_index(self._layout.index, index, block)
