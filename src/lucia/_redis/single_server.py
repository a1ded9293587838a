"""The operations on one server: each changes the store in one script, atomically, and every key that it touches is declared."""

from collections.abc import Callable, Iterable, Sequence
from typing import Final, cast

from lucia._logs import revoked
from lucia._redis.cluster import ScriptedSteps, SlotSteps
from lucia._redis.commands import Batch, Call, Eval, Operation
from lucia._redis.operations import (
    PRUNE_SAMPLE_SIZE,
    Reading,
    add_unseen,
    already_expired_error,
    check_storable,
    create_then_revoke_surplus,
    decode_rows,
    expire_dead_sessions,
    follow_chain,
    ids_without_record,
    is_prune_due,
    read_user_sessions,
    resolve_chain,
    retry_if_mismatched,
    row_or_none,
    session_key,
    successor_ids,
    successor_within_grace,
    to_bytes,
    to_text,
)
from lucia._redis.records import Layout, Marker, decode_marker, encode_marker, encode_row
from lucia._redis.scripts import ALREADY_EXPIRED, CHANGED, DELETE, TAKEN
from lucia._rules.caps import surplus_sessions
from lucia._rules.sessions import MARKER_MS
from lucia.errors import DuplicateSessionId
from lucia.models import SessionRow

BLOCK: Final = 1_000
"""How many sessions one command reads or ends: about a millisecond of the server's time."""

PRUNE_BLOCK: Final = 64
"""How many entries one script takes out of an index."""

CAP_TRIES: Final = 100
"""How often a login within a cap tries to be one atomic step; each time somebody else's step was in between."""

OPTIMISTIC_TRIES: Final = 3
"""How often a sign-out everywhere tries to be one atomic step before it goes block by block."""


class SingleServerStore(Reading):
    """The operations over one layout."""

    def __init__(self, layout: Layout) -> None:
        super().__init__(layout)
        self.steps: SlotSteps = ScriptedSteps()
        self._scripts = layout.index.scripts

    def create(self, row: SessionRow, random_below: Callable[[int], int]) -> Operation[None]:
        """Store a new session and its index entry in one step: the script CREATE.

        From the sixteenth session of a user on, every eighth login takes dead ids out of eight entries of the index.

        Raises:
            DuplicateSessionId: another session has this id.
            ValueError: its end is past by the server's clock, or it can't be stored.
        """
        check_storable(self._layout, row)
        index = self._layout.index_key(row.user_id)
        arguments = (row.id, encode_row(row), row.idle_expires)
        length = yield Eval(
            self._scripts.create, (self._layout.session_key(row.id), index), arguments
        )
        _check_written(length)
        if is_prune_due(self._layout, length):
            ids = yield from self._layout.index.sample(
                index, PRUNE_SAMPLE_SIZE, length, random_below
            )
            yield from self._prune(
                index,
                ids_without_record(
                    ids, (yield from self._values([session_key(self._layout, id_) for id_ in ids]))
                ),
            )

    def create_capped(
        self, row: SessionRow, limit: int, now: int, random_below: Callable[[int], int]
    ) -> Operation[SessionRow]:
        """Store the session of a new login and end the user's oldest logins beyond the limit, in one step: the script CREATE_CAPPED.

        What is in the index, and the sessions that it names, are read before; if the script finds something else, it does nothing, and
        all is looked at anew: somebody else's step was done meanwhile. A login that is overtaken at every try, or whose user has more
        than 1,000 sessions that can't be ended, ends the surplus after it was stored.

        Raises:
            DuplicateSessionId, ValueError: as :meth:`create`.
        """
        check_storable(self._layout, row)
        index = self._layout.index_key(row.user_id)
        for _ in range(CAP_TRIES):
            ids = yield from self._layout.index.read(index)
            if len(ids) > BLOCK:
                if not (yield from self._make_room(row, limit, now)):
                    break
                continue
            command = yield from self._create_capped(row, ids, limit, now)
            answer = yield command
            if answer != CHANGED:
                _check_written(answer)
                return row
        return (
            yield from create_then_revoke_surplus(
                self, self._layout, self._values, row, limit, now, random_below
            )
        )

    def _create_capped(
        self, row: SessionRow, ids: Sequence[bytes], limit: int, now: int
    ) -> Operation[Eval]:
        """The command for an index that holds these ids."""
        records = yield from self._values([session_key(self._layout, id_) for id_ in ids])
        rows = [each for each in decode_rows(row.user_id, ids, records) if each.id != row.id]
        ended = dict.fromkeys(surplus_sessions(rows, row, limit, now))
        counted = (*ended, *(each.id for each in rows if each.id not in ended))
        gone = [] if self._layout.index.legacy_writers else ids_without_record(ids, records)
        dropped = [*map(to_bytes, ended), *gone]
        keys = (self._layout.index_key(row.user_id), *map(self._layout.session_key, counted))
        new = (row.id, encode_row(row), row.idle_expires)
        command = self._scripts.create_capped
        return Eval(
            command,
            (self._layout.session_key(row.id), *keys),
            (*new, len(ended), len(dropped), *dropped, *ids),
        )

    def _make_room(self, row: SessionRow, limit: int, now: int) -> Operation[bool]:
        """End the surplus by blocks, before the login is stored, and take dead ids out of the index; says whether it is shorter then."""
        index = self._layout.index_key(row.user_id)
        rows, gone = yield from read_user_sessions(self._layout, row.user_id, self._values)
        yield from self._prune(index, gone)
        ended = list(map(to_bytes, surplus_sessions(rows, row, limit, now)))[::-1]
        for start in range(0, len(ended), BLOCK):
            block = ended[start : start + BLOCK]
            yield self._revoke(index, block, None, whole=False)
            yield from self._delete_successors(block, None)
        return bool(ended or (gone and not self._layout.index.legacy_writers))

    def renew(
        self, used_id: str, successor: SessionRow, grace: int, sealed: str | None = None
    ) -> Operation[SessionRow | None]:
        """Put ``successor`` in the place of a session, once, in one step: the script RENEW.

        Returns:
            ``successor``; or, where an earlier call was first and within its grace, the live end of that chain; else None.

        Raises:
            DuplicateSessionId, ValueError: as :func:`create`.
        """
        check_storable(self._layout, successor)
        if not self._layout.is_storable(used_id):
            return None
        index = self._layout.index_key(successor.user_id)
        keys = (
            self._layout.session_key(used_id),
            self._layout.session_key(successor.id),
            index,
            self._layout.marker_key(used_id),
        )
        marker = encode_marker(Marker(used_id, successor.id, grace, sealed))
        command = Eval(
            self._scripts.renew,
            keys,
            (
                used_id,
                successor.id,
                encode_row(successor),
                successor.idle_expires,
                marker,
                MARKER_MS,
            ),
        )
        end = yield from retry_if_mismatched(lambda: _renew_once(command, used_id, successor.id))
        return successor if end == successor.id else (yield from follow_chain(self._layout, end))

    def delete(self, session_ids: Iterable[str], kept: str | None = None) -> Operation[None]:
        """End sessions and what they were renewed to: the script DELETE, then take the id of each out of its index.

        A session is dead as soon as the script has run; an index entry that is left behind by a crash is pruned later. What ``kept``
        was renewed to is not followed.
        """
        ended = yield from self._delete_records(session_ids, kept)
        if ended:
            revoked(0, ended[0].user_id)
            index = self._layout.index
            yield Batch(
                tuple(
                    call
                    for row in ended
                    for call in index.remove(self._layout.index_key(row.user_id), [row.id])
                )
            )

    def delete_records(self, session_ids: Iterable[str]) -> Operation[None]:
        """End sessions and what they were renewed to; leave their ids in the indexes."""
        yield from self._delete_records(session_ids, None)

    def _delete_records(
        self, session_ids: Iterable[str], kept: str | None
    ) -> Operation[list[SessionRow]]:
        """The script DELETE for each, along the chains; returns the sessions that were there."""
        seen: set[str | None] = {kept}
        ended: list[SessionRow] = []
        waiting = add_unseen(self._layout, session_ids, seen)
        while waiting:
            block, waiting = waiting[:BLOCK], waiting[BLOCK:]
            keys = tuple(
                key
                for id_ in block
                for key in (self._layout.session_key(id_), self._layout.marker_key(id_))
            )
            held: list[tuple[bytes | None, bytes | None]] = yield Eval(DELETE, keys, ())
            found = [row_or_none(record, id_) for id_, (record, _) in zip(block, held, strict=True)]
            ended += [row for row in found if row is not None]
            waiting += add_unseen(
                self._layout, successor_ids(block, (marker for _, marker in held)), seen
            )
        return ended

    def get_by_user(self, user_id: str, now: int) -> Operation[list[SessionRow]]:
        """Read a user's sessions, in the order of the index, with one ``MGET`` for each block.

        What is dead but still there is ended, and ids whose session is gone are pruned.
        """
        rows, gone = yield from read_user_sessions(self._layout, user_id, self._values)
        yield from expire_dead_sessions(self._layout, rows, now)
        yield from self._prune(self._layout.index_key(user_id), gone)
        return rows

    def delete_by_user(self, user_id: str, keep: str | None = None) -> Operation[bool]:
        """End a user's sessions, but for ``keep`` or what that was renewed to.

        Up to 1,000 sessions in one atomic step, the script REVOKE: the index names the keys, and the script does nothing if the index
        holds another id by then. More sessions, or an index that changes at every try, go in blocks of 1,000, oldest first: whatever
        was in the index at the beginning is ended, and so is what it was renewed to meanwhile.

        Returns:
            Whether a session was kept; if ``keep`` is no live session of this user, all are ended and it is False.
        """
        index = self._layout.index_key(user_id)
        for _ in range(OPTIMISTIC_TRIES):
            kept = yield from self._resolve_kept(user_id, keep)
            ids = yield from self._layout.index.read(index)
            if not ids:
                return kept is not None
            if len(ids) > BLOCK:
                break
            if (yield self._revoke(index, ids, kept, whole=True)) == 1:
                return kept is not None
        return (yield from self._delete_in_blocks(user_id, keep))

    def _delete_in_blocks(self, user_id: str, keep: str | None) -> Operation[bool]:
        index = self._layout.index_key(user_id)
        ids = yield from self._layout.index.read(index)
        kept = yield from self._resolve_kept(user_id, keep)
        while ids:
            block = ids[-BLOCK:]
            if (yield self._revoke(index, block, kept, whole=False)) == 1:
                yield from self._delete_successors(block, kept)
                del ids[-BLOCK:]
            kept = yield from self._resolve_kept(user_id, kept)
        return kept is not None

    def _delete_successors(self, ids: Sequence[bytes], kept: str | None) -> Operation[None]:
        """End what these ids, which are dead by now, were renewed to before; but not ``kept`` and what that was renewed to."""
        ended = [id_ for id_ in map(to_text, ids) if id_ != kept]
        if ended:
            markers = yield Call(
                "MGET", tuple(to_bytes(self._layout.marker_key(id_)) for id_ in ended)
            )
            yield from self.delete(successor_ids(ended, markers), kept)

    def _resolve_kept(self, user_id: str, keep: str | None) -> Operation[str | None]:
        """The id of the session to keep, through its marker if it was renewed meanwhile; None if it is no live session of this user."""
        if keep is None:
            return None
        found = yield from resolve_chain(self._layout, user_id, keep)
        return None if found is None else found[1].id

    def _revoke(self, index: str, ids: Sequence[bytes], kept: str | None, *, whole: bool) -> Eval:
        kept_id = b"" if kept is None else kept.encode()
        ended = [id_ for id_ in reversed(ids) if id_ != kept_id]
        kept_key = () if kept is None else (self._layout.session_key(kept),)
        keys = (index, *(session_key(self._layout, id_) for id_ in ended), *kept_key)
        return Eval(self._scripts.revoke, keys, (int(whole), kept_id, *ended))

    def _values(self, keys: Sequence[bytes]) -> Operation[list[bytes | None]]:
        values: list[bytes | None] = []
        for start in range(0, len(keys), BLOCK):
            values += yield Call("MGET", tuple(keys[start : start + BLOCK]))
        return values

    def _prune(self, index: str, gone: Sequence[bytes]) -> Operation[None]:
        """Take ids out of the index whose session is gone: an id is indexed with its session and used once, so gone is for ever.

        Not so beside ``legacy_writers``, where it may not be written yet.
        """
        if self._layout.index.legacy_writers:
            return
        for start in range(0, len(gone), PRUNE_BLOCK):
            block = gone[start : start + PRUNE_BLOCK]
            yield Eval(
                self._scripts.prune,
                (index, *(session_key(self._layout, id_) for id_ in block)),
                tuple(block),
            )


def _renew_once(command: Eval, used_id: str, successor_id: str) -> Operation[str | None]:
    """The id that the used one leads to by now. The same call may be sent again: its own marker tells that it was the first."""
    answer = yield command
    if not isinstance(answer, list):
        _check_written(answer)
        return successor_id
    written, life = cast("tuple[bytes | None, int]", answer)
    marker = decode_marker(written, used_id)
    own = marker is not None and marker.successor == successor_id
    return successor_id if own else successor_within_grace(marker, life)


def _check_written(answer: int) -> None:
    if answer == TAKEN:
        raise DuplicateSessionId
    if answer == ALREADY_EXPIRED:
        raise already_expired_error()
