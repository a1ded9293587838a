"""The store on one server: each change is one atomic script.

Every script declares all keys that it touches. What a script is told (which ids an index holds, for
instance) is read before it runs, and it checks that nothing has changed: if something has, it does
nothing, and the operation starts again (optimistic concurrency).
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Final

from lucia._logs import revoked as log_revoked
from lucia._redis.cluster import ScriptedSteps, SlotSteps
from lucia._redis.commands import Batch, Call, Eval, Operation
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
    resolve_chain,
    retry_if_mismatched,
    row_or_none,
    session_key,
    successor_ids,
    successor_within_grace,
    to_bytes,
    to_text,
)
from lucia._redis.records import Marker, MismatchedReply, decode_marker, encode_marker, encode_row
from lucia._redis.revocations import UNRECORDED, RevocationRecorder, RevocationTracking
from lucia._redis.scripts import ALREADY_EXPIRED, CHANGED, DELETE, TAKEN
from lucia._rules.caps import surplus_sessions
from lucia._rules.sessions import MARKER_MS
from lucia.errors import DuplicateSessionId
from lucia.models import SessionRow

MAX_SESSIONS_PER_COMMAND: Final = 1_000
"""How many sessions one command reads or revokes: about a millisecond of the server's time."""

MAX_PRUNED_PER_SCRIPT: Final = 64
"""How many dead ids one script removes from an index, each by a search of the whole list."""

CAP_TRIES: Final = 100
"""How often a login within a cap tries to be one atomic step."""

REVOKE_TRIES: Final = 3
"""How often a sign-out everywhere tries to be one atomic step before it goes block by block."""


class SingleServerStore(BaseStore):
    """The operations on one server."""

    def __init__(self, layout: Layout, tracking: RevocationTracking | None = None) -> None:
        super().__init__(layout, tracking)
        self.steps: SlotSteps = ScriptedSteps()
        self._scripts = layout.index.scripts

    def create(self, row: SessionRow, random_below: Callable[[int], int]) -> Operation[None]:
        """Store a new session and its index entry, by the script CREATE.

        From a user's sixteenth session on, every eighth login removes the dead ids among eight
        entries of the index (I7).

        Raises:
            DuplicateSessionId: another session has this id (I4).
            ValueError: the session has expired by the server's clock, or can't be stored.
        """
        check_storable(self._layout, row)
        index = self._layout.index_key(row.user_id)
        length = yield Eval(
            self._scripts.create,
            (self._layout.session_key(row.id), index),
            (row.id, encode_row(row), row.idle_expires),
        )
        _check_written(length)
        if is_prune_due(self._layout, length):
            ids = yield from self._layout.index.sample(
                index, PRUNE_SAMPLE_SIZE, length, random_below
            )
            records = yield from self._read_records(ids)
            yield from self._prune(index, ids_without_record(ids, records))

    def create_capped(
        self, row: SessionRow, limit: int, now: int, random_below: Callable[[int], int]
    ) -> Operation[SessionRow]:
        """Store the session of a new login and revoke the oldest logins beyond the limit.

        The index and its sessions are read; then the script CREATE_CAPPED does all of it, or
        nothing if the index or a session has changed. A login that loses every try, or whose user
        has more than 1,000 sessions that must not be revoked, revokes the surplus after it was
        stored.

        Raises:
            DuplicateSessionId, ValueError: see :meth:`create`.
        """
        check_storable(self._layout, row)
        index = self._layout.index_key(row.user_id)
        for _ in range(CAP_TRIES):
            ids = yield from self._layout.index.read(index)
            if len(ids) > MAX_SESSIONS_PER_COMMAND:
                if not (yield from self._make_room(row, limit, now)):
                    break
                continue
            command = yield from self._create_capped(row, ids, limit, now)
            result = yield command
            if result != CHANGED:
                _check_written(result)
                return row
        return (yield from self._create_then_revoke_surplus(row, limit, now, random_below))

    def _create_capped(
        self, row: SessionRow, ids: Sequence[bytes], limit: int, now: int
    ) -> Operation[Eval]:
        """Return the script for an index that holds these ids."""
        records = yield from self._read_records(ids)
        # The login itself is there if the client sent the script twice: the second one found
        # another index, and so this is another try.
        rows = [each for each in decode_rows(row.user_id, ids, records) if each.id != row.id]
        surplus = dict.fromkeys(surplus_sessions(rows, row, limit, now))
        # The script checks that each session that was counted still exists, the surplus first.
        counted = (*surplus, *(each.id for each in rows if each.id not in surplus))
        # Beside other writers an id without a session may be a login that is not complete.
        dead = [] if self._layout.index.legacy_writers else ids_without_record(ids, records)
        removed = [*map(to_bytes, surplus), *dead]
        return Eval(
            self._scripts.create_capped,
            (
                self._layout.session_key(row.id),
                self._layout.index_key(row.user_id),
                *map(self._layout.session_key, counted),
            ),
            (
                *(row.id, encode_row(row), row.idle_expires),
                *(len(surplus), len(removed)),
                *removed,
                *ids,
            ),
        )

    def _make_room(self, row: SessionRow, limit: int, now: int) -> Operation[bool]:
        """Shorten an index that is too long for one script, before the login is stored.

        The surplus is revoked block by block, and dead ids are removed.

        Returns:
            Whether the index is shorter now.
        """
        index = self._layout.index_key(row.user_id)
        rows, dead = yield from self._read_user_sessions(row.user_id)
        yield from self._prune(index, dead)
        # Newest first, as _revoke takes them.
        surplus = list(map(to_bytes, surplus_sessions(rows, row, limit, now)))[::-1]
        for start in range(0, len(surplus), MAX_SESSIONS_PER_COMMAND):
            block = surplus[start : start + MAX_SESSIONS_PER_COMMAND]
            yield from self._revoke(index, block, None, UNRECORDED, whole=False)
            yield from self._delete_successors(block, None, UNRECORDED)
        return bool(surplus or (dead and not self._layout.index.legacy_writers))

    def renew(
        self, used_id: str, successor: SessionRow, grace: int, sealed: str | None = None
    ) -> Operation[SessionRow | None]:
        """Replace a session by its successor, once, by the script RENEW (I5).

        Args:
            used_id: the session's id.
            successor: the new session.
            grace: for how many milliseconds the used id leads to the successor.
            sealed: the successor's id, sealed for those who have the used id.

        Returns:
            ``successor``. If the session was renewed before, and within its grace, the live session
            that it leads to; else None.

        Raises:
            DuplicateSessionId, ValueError: see :meth:`create`.
        """
        check_storable(self._layout, successor)
        if not self._layout.is_storable(used_id):
            return None
        marker = encode_marker(Marker(used_id, successor.id, grace, sealed))
        command = Eval(
            self._scripts.renew,
            (
                self._layout.session_key(used_id),
                self._layout.session_key(successor.id),
                self._layout.index_key(successor.user_id),
                self._layout.marker_key(used_id),
            ),
            (
                *(used_id, successor.id, encode_row(successor), successor.idle_expires),
                *(marker, MARKER_MS),
            ),
        )
        next_id = yield from retry_if_mismatched(
            lambda: _renew_once(command, used_id, successor.id)
        )
        if next_id == successor.id:
            # If a failover undoes this after the successor was revoked, the used id has to be
            # revoked too.
            self._tracking.renewed(used_id, successor.id)
            return successor
        return (yield from follow_chain(self._layout, next_id))

    def delete(self, session_ids: Iterable[str]) -> Operation[None]:
        """Revoke sessions and what they were renewed to, by the script DELETE.

        Then their ids are removed from the indexes. An entry that a crash leaves behind is dead,
        and is pruned later.
        """
        ids = list(session_ids)
        return self._tracking.run(ids, lambda recorder: self._delete(ids, recorder))

    def _delete(
        self,
        session_ids: Iterable[str],
        recorder: RevocationRecorder,
        kept: str | None = None,
    ) -> Operation[None]:
        """Revoke sessions and what they were renewed to, but not ``kept`` or its successors."""
        # Sessions before index entries: an entry without a session is dead, but a session without
        # an entry would be missed by a sign-out everywhere (I1).
        rows = yield from self._delete_records(session_ids, recorder, kept)
        if rows:
            log_revoked(0, rows[0].user_id)
            index = self._layout.index
            yield Batch(
                tuple(
                    call
                    for row in rows
                    for call in index.remove(self._layout.index_key(row.user_id), [row.id])
                )
            )

    def delete_records(self, session_ids: Iterable[str]) -> Operation[None]:
        """Revoke sessions and what they were renewed to, for the replay.

        Their ids stay in the indexes, where they are dead: an index that is damaged must not stop
        the replay.
        """
        yield from self._delete_records(session_ids, UNRECORDED)

    def _delete_records(
        self,
        session_ids: Iterable[str],
        recorder: RevocationRecorder,
        kept: str | None = None,
    ) -> Operation[list[SessionRow]]:
        """Run the script DELETE for these ids and along their markers; return what it deleted."""
        seen: set[str | None] = {kept}
        rows: list[SessionRow] = []
        to_delete = add_unseen(self._layout, session_ids, seen)
        while to_delete:
            block = to_delete[:MAX_SESSIONS_PER_COMMAND]
            to_delete = to_delete[MAX_SESSIONS_PER_COMMAND:]
            deleted = yield from self._delete_block(block, recorder)
            found = [
                row_or_none(record, id_) for id_, (record, _) in zip(block, deleted, strict=True)
            ]
            rows += [row for row in found if row is not None]
            to_delete += add_unseen(
                self._layout, successor_ids(block, (marker for _, marker in deleted)), seen
            )
        return rows

    def _delete_block(
        self, ids: Sequence[str], recorder: RevocationRecorder
    ) -> Operation[list[tuple[bytes | None, bytes | None]]]:
        """Delete these sessions in one script; return the record and the marker of each."""
        keys = tuple(
            key
            for id_ in ids
            for key in (self._layout.session_key(id_), self._layout.marker_key(id_))
        )
        deleted: list[tuple[bytes | None, bytes | None]] = yield from recorder.send(
            Eval(DELETE, keys, ()),
            lambda deleted: (
                id_ for id_, (record, _) in zip(ids, deleted, strict=True) if record is not None
            ),
        )
        return deleted

    def get_by_user(self, user_id: str, now: int) -> Operation[list[SessionRow]]:
        """Read a user's sessions, in the order of the index, with one ``MGET`` for each block.

        Sessions that have expired although their keys exist get their expiry, and dead ids are
        removed from the index.
        """
        rows, dead = yield from self._read_user_sessions(user_id)
        yield from expire_dead_sessions(self._layout, rows, now)
        yield from self._prune(self._layout.index_key(user_id), dead)
        return rows

    def delete_by_user(self, user_id: str, keep: str | None = None) -> Operation[bool]:
        """Revoke a user's sessions but for ``keep``, or what that was renewed to (I2).

        Up to 1,000 sessions are revoked in one atomic step, by the script REVOKE. More sessions, or
        an index that changes at every try, are revoked in blocks of 1,000, oldest first. Then
        whatever was in the index at the beginning is revoked, and so is what it was renewed to
        meanwhile.

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
        # A login in between changes the index, and the script then does nothing. After some tries
        # the blocks, which need no unchanged index: a flood of logins must not prevent a sign-out.
        for _ in range(REVOKE_TRIES):
            kept = yield from self._resolve_kept(user_id, keep)
            ids = yield from self._layout.index.read(index)
            if not ids:
                return kept is not None
            if len(ids) > MAX_SESSIONS_PER_COMMAND:
                break
            if (yield from self._revoke(index, ids, kept, recorder, whole=True)):
                return kept is not None
        return (yield from self._delete_in_blocks(user_id, keep, recorder))

    def _delete_in_blocks(
        self, user_id: str, keep: str | None, recorder: RevocationRecorder
    ) -> Operation[bool]:
        index = self._layout.index_key(user_id)
        ids = yield from self._layout.index.read(index)
        kept = yield from self._resolve_kept(user_id, keep)
        while ids:
            block = ids[-MAX_SESSIONS_PER_COMMAND:]
            if (yield from self._revoke(index, block, kept, recorder, whole=False)):
                # A session that was renewed after the index was read has a successor that is not
                # among the ids: it has to be revoked too (I2).
                yield from self._delete_successors(block, kept, recorder)
                del ids[-MAX_SESSIONS_PER_COMMAND:]
            # The kept session may have been renewed while the block was revoked.
            kept = yield from self._resolve_kept(user_id, kept)
        return kept is not None

    def _delete_successors(
        self, ids: Sequence[bytes], kept: str | None, recorder: RevocationRecorder
    ) -> Operation[None]:
        """Revoke what these revoked ids had been renewed to, but not ``kept`` or its successors."""
        used_ids = [id_ for id_ in map(to_text, ids) if id_ != kept]
        if used_ids:
            markers = yield Call(
                "MGET", tuple(to_bytes(self._layout.marker_key(id_)) for id_ in used_ids)
            )
            yield from self._delete(successor_ids(used_ids, markers), recorder, kept)

    def _resolve_kept(self, user_id: str, keep: str | None) -> Operation[str | None]:
        """Return the id of the session to keep, which may have been renewed meanwhile.

        None if it is no live session of this user.
        """
        if keep is None:
            return None
        found = yield from resolve_chain(self._layout, user_id, keep)
        return None if found is None else found[1].id

    def _revoke(
        self,
        index: str,
        ids: Sequence[bytes],
        kept: str | None,
        recorder: RevocationRecorder,
        *,
        whole: bool,
    ) -> Operation[bool]:
        """Run the script REVOKE; return False if something has changed, so that it did nothing.

        Args:
            index: the key of the index.
            ids: the ids to revoke, newest first.
            kept: an id that is not revoked; the script checks that its session exists.
            recorder: sends the script.
            whole: whether the index must hold no other ids.
        """
        kept_id = b"" if kept is None else kept.encode()
        # Oldest first: the script finds these at once, at the end of the list.
        revoked = [id_ for id_ in reversed(ids) if id_ != kept_id]
        kept_key = () if kept is None else (self._layout.session_key(kept),)
        keys = (index, *(session_key(self._layout, id_) for id_ in revoked), *kept_key)
        done = yield from recorder.send(
            Eval(self._scripts.revoke, keys, (int(whole), kept_id, *revoked)),
            lambda done: map(to_text, revoked) if done else (),
        )
        return bool(done)

    def _read_values(self, keys: Sequence[bytes]) -> Operation[list[bytes | None]]:
        values: list[bytes | None] = []
        for start in range(0, len(keys), MAX_SESSIONS_PER_COMMAND):
            values += yield Call("MGET", tuple(keys[start : start + MAX_SESSIONS_PER_COMMAND]))
        return values

    def _prune(self, index: str, dead: Sequence[bytes]) -> Operation[None]:
        """Remove ids from the index whose session is gone (I7)."""
        # A session and its index entry are written in one step, and ids are used once (I6): an id
        # without a session stays without one. Not so beside other writers, which may write the
        # entry first.
        if self._layout.index.legacy_writers:
            return
        for start in range(0, len(dead), MAX_PRUNED_PER_SCRIPT):
            block = dead[start : start + MAX_PRUNED_PER_SCRIPT]
            yield Eval(
                self._scripts.prune,
                (index, *(session_key(self._layout, id_) for id_ in block)),
                tuple(block),
            )


def _renew_once(command: Eval, used_id: str, successor_id: str) -> Operation[str | None]:
    """Run the script RENEW; return the id that the used one leads to now.

    Raises:
        MismatchedReply: the reply belongs to another command. The script may be sent again, also if
            it ran: it finds its own successor in the marker.
    """
    match (yield command):
        case int(result):
            _check_written(result)
            return successor_id
        case [bytes() | None as value, int(ttl)]:
            marker = decode_marker(value, used_id)
        case _:
            raise MismatchedReply
    # The script was sent twice, and the first run renewed the session: no other renewal has this
    # successor.
    if marker is not None and marker.successor == successor_id:
        return successor_id
    return successor_within_grace(marker, ttl)


def _check_written(result: int) -> None:
    """Raise the error that a script's result stands for, if any."""
    if result == TAKEN:
        raise DuplicateSessionId
    if result == ALREADY_EXPIRED:
        raise already_expired_error()
