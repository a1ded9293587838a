"""The operations where one script can't see all keys: in a cluster, and on a server that refuses scripts.

A session is written before its index entry, and taken out of the index only by who ended it or saw it gone. Ids are used once. So an id
in the index without a session is dead for ever, and whoever reads the index finds every session that was handed out:

* ``create``: C1 ``SET session … NX PX 10000``, C2 push the id to the index, C3 ``PEXPIREAT session``. A crash leaves a session that nobody
  knows and that is gone in ten seconds.
* ``renew``: make the successor whole, telling nobody its id; then, at the used session, put a marker that names it in the session's place.
  Whoever finds a marker there, or nothing, deletes the successor it made and follows the marker.
* ``delete`` and ``delete_by_user``: end each session, and after it read its marker and go on along the chain; then take the ids that were
  seen out of the index. The index itself is never deleted.

What happens at one key or at two in one slot is a :class:`SlotSteps`: one script, or plain commands where scripts are refused. There the
marker is a register that is written once: a renewal writes its successor into it and deletes the session in one transaction, and who
ends a session writes a tombstone after it.
"""

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Final, Protocol, cast

from lucia._compat.blocks import Blocks
from lucia._logs import revoked
from lucia._redis.commands import Argument, Batch, Call, Eval, Operation, Transaction
from lucia._redis.index import Index
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
    marker_or_none,
    milliseconds_of,
    read_user_sessions,
    resolve_chain,
    row_or_none,
    session_key,
    successor_ids,
    successor_within_grace,
    to_bytes,
    to_text,
)
from lucia._redis.records import Layout, Marker, encode_marker, encode_row
from lucia._redis.scripts import ALREADY_EXPIRED, DELETE, SWAP
from lucia._rules.sessions import MARKER_MS, handle_of
from lucia.errors import ConcurrentlyRevoked, DuplicateSessionId
from lucia.models import SessionRow

PROVISIONAL_MS: Final = 10_000
"""How long a session lives that is not whole yet."""

INDEX_SLACK_MS: Final = 60_000
"""How much longer than its sessions an index lives, for two servers' clocks."""

TOMBSTONE: Final = b'{"ended":true}'
"""A marker that names no successor."""

RecordAndMarker = tuple[bytes | None, bytes | None]
"""What was at a session's key and at its marker's."""

BATCH: Final = 500
"""How many sessions are read or ended side by side."""


class SlotSteps(Protocol):
    """What an operation does at one key, or at two in one slot, so that nothing comes between."""

    def add_to_index(self, index: Index, key: str, session_id: str, expires: int) -> Operation[int]:
        """Put an id into an index, which lives at least until ``expires``; returns its length, or ALREADY_EXPIRED if that is past."""
        ...

    def replace_with_marker(
        self, used: str, marker_key: str, marker: bytes
    ) -> Operation[tuple[bytes | None, int] | None]:
        """Put a marker in the place of a session and return None; if that is gone, return its marker, if any, and what is left of it."""
        ...

    def revoke(self, keys: Sequence[tuple[bytes, bytes]]) -> Operation[list[RecordAndMarker]]:
        """End sessions for ever, and return for each what it and its marker held."""
        ...

    def remove_from_index(
        self, index: Index, key: Argument, ids: Sequence[bytes]
    ) -> Operation[None]:
        """Take ids out of an index; if many, the oldest first, since those are found at once at its end."""
        ...


class ScriptedSteps:
    """One script for each step; all its keys are in one slot."""

    def add_to_index(self, index: Index, key: str, session_id: str, expires: int) -> Operation[int]:
        length: int = yield Eval(index.scripts.push, (key,), (session_id, expires, INDEX_SLACK_MS))
        return length

    def replace_with_marker(
        self, used: str, marker_key: str, marker: bytes
    ) -> Operation[tuple[bytes | None, int] | None]:
        answer = yield Eval(SWAP, (used, marker_key), (marker, MARKER_MS))
        return None if answer == 1 else (answer[0], answer[1])

    def revoke(self, keys: Sequence[tuple[bytes, bytes]]) -> Operation[list[RecordAndMarker]]:
        answers: list[list[list[bytes | None]]] = yield Batch(
            tuple(Eval(DELETE, pair, ()) for pair in keys)
        )
        return [(held[0][0], held[0][1]) for held in answers]

    def remove_from_index(
        self, index: Index, key: Argument, ids: Sequence[bytes]
    ) -> Operation[None]:
        yield Eval(index.scripts.drop, (key,), tuple(ids))


class PlainSteps:
    """Commands alone, for servers that refuse scripts; needs Redis 7 for the index's expiry."""

    def add_to_index(self, index: Index, key: str, session_id: str, expires: int) -> Operation[int]:
        if expires <= milliseconds_of((yield Call("TIME", ()))):
            return ALREADY_EXPIRED
        yield index.check(key)  # a key of another type fails here, before its expiry is touched
        endless = (
            yield Call("PTTL", (key,))
        ) == -1  # the original wrote it; with an end it could end before the original's sessions
        first, longer = (
            Call("PEXPIREAT", (key, expires + INDEX_SLACK_MS, condition))
            for condition in ("NX", "GT")
        )
        added = index.add(key, session_id)
        if index.legacy_writers:
            replies = yield Transaction((*added, Call("PERSIST", (key,))))
            return cast("int", replies[len(added) - 1])
        replies = yield Transaction((*added, *(() if endless else (first, longer))))
        length = cast("int", replies[len(added) - 1])
        if endless and length == 1:  # it was emptied meanwhile
            yield first
        return length

    def replace_with_marker(
        self, used: str, marker_key: str, marker: bytes
    ) -> Operation[tuple[bytes | None, int] | None]:
        if (yield Call("MGET", (used,)))[0] is not None:
            write = Call("SET", (marker_key, marker, "NX", "PX", MARKER_MS))
            written, ended = yield Transaction((write, Call("DEL", (used,))))
            if written:
                return None if ended else (None, 0)
        (value,) = yield Call("MGET", (marker_key,))
        life = yield Call("PTTL", (marker_key,))
        return value, life

    def revoke(self, keys: Sequence[tuple[bytes, bytes]]) -> Operation[list[RecordAndMarker]]:
        records: list[list[bytes | None]] = yield Batch(
            tuple(Call("MGET", (session,)) for session, _ in keys)
        )
        yield Batch(
            tuple(Call("DEL", (session,)) for session, _ in keys)
        )  # first, since a server without memory refuses the next
        yield Batch(
            tuple(Call("SET", (marker, TOMBSTONE, "NX", "PX", MARKER_MS)) for _, marker in keys)
        )
        markers: list[list[bytes | None]] = yield Batch(
            tuple(Call("MGET", (marker,)) for _, marker in keys)
        )
        return [(record[0], marker[0]) for record, marker in zip(records, markers, strict=True)]

    def remove_from_index(
        self, index: Index, key: Argument, ids: Sequence[bytes]
    ) -> Operation[None]:
        yield Batch(index.remove(key, ids))


class ClusterStore(Reading):
    """The operations for one layout, by the given steps."""

    def __init__(self, layout: Layout, steps: SlotSteps) -> None:
        super().__init__(layout)
        self._steps = steps

    @property
    def steps(self) -> SlotSteps:
        return self._steps

    def create(self, row: SessionRow, random_below: Callable[[int], int]) -> Operation[None]:
        """Store a new session. From the sixteenth one of a user on, every eighth takes dead ids out of eight entries of the index.

        Raises:
            DuplicateSessionId: another session has this id.
            ConcurrentlyRevoked: it was ended while it was made, as all of its user's sessions were.
            ValueError: its end is past by the server's clock, or it can't be stored.
        """
        length = yield from self._make(row)
        if is_prune_due(self._layout, length):
            index = self._layout.index_key(row.user_id)
            ids = yield from self._layout.index.sample(
                index, PRUNE_SAMPLE_SIZE, length, random_below
            )
            yield from self._drop(index, ids_without_record(ids, (yield from self._records(ids))))

    def create_capped(
        self, row: SessionRow, limit: int, now: int, random_below: Callable[[int], int]
    ) -> Operation[SessionRow]:
        """Store the session of a new login, then end the user's oldest logins beyond the limit.

        Until all logins that go on at the same time have returned, there may be as many more than the limit.

        Raises:
            DuplicateSessionId, ConcurrentlyRevoked, ValueError: as :meth:`create`.
        """
        return (
            yield from create_then_revoke_surplus(
                self, self._layout, self._values, row, limit, now, random_below
            )
        )

    def _make(self, row: SessionRow) -> Operation[int]:
        """Steps C1 to C3; returns the index's length."""
        check_storable(self._layout, row)
        if not self._layout.is_one_slot(row.id):
            raise ValueError(
                "a session id may not hold braces that are no hash tag, where a cluster has to find its marker"
            )
        record, key, index = (
            encode_row(row),
            self._layout.session_key(row.id),
            self._layout.index_key(row.user_id),
        )
        written = yield Call("SET", (key, record, "NX", "PX", PROVISIONAL_MS))
        if not written and (yield Call("MGET", (key,)))[0] != record:
            raise DuplicateSessionId
        try:
            length = yield from self._steps.add_to_index(
                self._layout.index, index, row.id, row.idle_expires
            )
        except Exception:
            with suppress(Exception):  # if this is lost too, the session is gone in ten seconds
                yield Call("DEL", (key,))
            raise
        if length == ALREADY_EXPIRED:
            yield Call("DEL", (key,))
            raise already_expired_error()
        if not (yield Call("PEXPIREAT", (key, row.idle_expires))):
            yield from self._drop(index, [row.id.encode()])
            raise ConcurrentlyRevoked
        return length

    def renew(
        self, used_id: str, successor: SessionRow, grace: int, sealed: str | None = None
    ) -> Operation[SessionRow | None]:
        """Put ``successor`` in the place of a session, once.

        Returns:
            ``successor``; or, where an earlier call was first and within its grace, the live end of that chain; else None.

        Raises:
            DuplicateSessionId, ConcurrentlyRevoked, ValueError: as :meth:`create`.
        """
        if not (self._layout.is_storable(used_id) and self._layout.is_one_slot(used_id)):
            return None
        marker = Marker(used_id, successor.id, grace, sealed)
        yield from self._make(successor)
        used, marker_key = self._layout.session_key(used_id), self._layout.marker_key(used_id)
        answer = yield from self._steps.replace_with_marker(used, marker_key, encode_marker(marker))
        found = None if answer is None else marker_or_none(answer[0], used_id)
        if answer is None or found == marker:
            if (
                self._layout.index.legacy_writers
            ):  # nobody else takes it out, whose session this call has ended
                yield from self._drop(self._layout.index_key(successor.user_id), [used_id.encode()])
            return successor
        yield Call("DEL", (self._layout.session_key(successor.id),))
        yield from self._drop(self._layout.index_key(successor.user_id), [successor.id.encode()])
        return (yield from follow_chain(self._layout, successor_within_grace(found, answer[1])))

    def delete(self, session_ids: Iterable[str]) -> Operation[None]:
        """End sessions and what they were renewed to."""
        yield from self._end(session_ids, set())

    def delete_records(self, session_ids: Iterable[str]) -> Operation[None]:
        """End sessions and what they were renewed to; leave their ids in the indexes."""
        yield from self._delete_records(session_ids, set())

    def get_by_user(self, user_id: str, now: int) -> Operation[list[SessionRow]]:
        """Read a user's sessions, in the order of the index; what is dead but still there is ended.

        Ids whose session is gone are taken out of the index; not so beside ``legacy_writers``, where it may not be written yet.
        """
        rows, gone = yield from read_user_sessions(self._layout, user_id, self._values)
        yield from expire_dead_sessions(self._layout, rows, now)
        if not self._layout.index.legacy_writers:
            yield from self._drop(self._layout.index_key(user_id), gone)
        return rows

    def delete_by_user(self, user_id: str, keep: str | None = None) -> Operation[bool]:
        """End a user's sessions that are in the index now, but for ``keep`` or what that was renewed to.

        What to keep is looked for after the index was read, and spared is its whole chain and whatever has its handle: the successor that
        a renewal has made, and has not put in its place yet, is in the index already.

        Returns:
            Whether a session was kept; if ``keep`` is no live session of this user, all are ended and it is False.
        """
        index = self._layout.index_key(user_id)
        ids = yield from self._layout.index.read(index)
        found = None if keep is None else (yield from resolve_chain(self._layout, user_id, keep))
        spared = (
            set[str | None]()
            if found is None
            else (yield from self._incarnations(user_id, ids, *found))
        )
        ended = [id_ for id_ in ids if to_text(id_) not in spared]
        held = yield from self._end(map(to_text, ended), spared)
        yield from self._drop(
            index,
            [id_ for id_ in ended if to_text(id_) in held]
            if self._layout.index.legacy_writers
            else ended,
        )
        return found is not None

    def _incarnations(
        self, user_id: str, ids: Sequence[bytes], chain: Sequence[str], end: SessionRow
    ) -> Operation[set[str | None]]:
        """A chain of ids, and those in the index whose session is of the same login, by its handle."""
        found = set[str | None](chain)
        for block in Blocks(ids):
            rows = decode_rows(user_id, block, (yield from self._records(block)))
            found.update(row.id for row in rows if handle_of(row) == handle_of(end))
        return found

    def _end(self, session_ids: Iterable[str], seen: set[str | None]) -> Operation[set[str]]:
        """End these sessions and what they were renewed to; then take them out of their indexes.

        Returns:
            The ids at which there was a record.
        """
        found = yield from self._delete_records(session_ids, seen)
        ended: dict[str, list[bytes]] = {}
        for id_, row in found.items():
            if row is not None:
                revoked(0, row.user_id)
                ended.setdefault(self._layout.index_key(row.user_id), []).append(id_.encode())
        for index, ids in ended.items():
            yield from self._drop(index, ids[::-1])
        return set(found)

    def _delete_records(
        self, session_ids: Iterable[str], seen: set[str | None]
    ) -> Operation[dict[str, SessionRow | None]]:
        """End these sessions, then what their markers name, and so on, each once.

        Returns:
            By the ids at which there was a record, the session in it; None if it was no session.
        """
        found: dict[str, SessionRow | None] = {}
        waiting = add_unseen(self._layout, session_ids, seen)
        while waiting:
            block, waiting = waiting[:BATCH], waiting[BATCH:]
            held = yield from self._take(block)
            records = {
                id_: record
                for id_, (record, _) in zip(block, held, strict=True)
                if record is not None
            }
            found.update((id_, row_or_none(record, id_)) for id_, record in records.items())
            waiting += add_unseen(
                self._layout, successor_ids(block, (marker for _, marker in held)), seen
            )
        return found

    def _take(self, session_ids: Sequence[str]) -> Operation[list[RecordAndMarker]]:
        """End these sessions, and return what they and their markers held. One whose marker would be in another slot has none."""
        whole = list(filter(self._layout.is_one_slot, session_ids))
        held = dict(
            zip(
                whole,
                (yield from self._steps.revoke([self._keys(id_) for id_ in whole])),
                strict=True,
            )
        )
        for id_ in session_ids:
            if id_ not in held:  # another protocol's, which had one server
                key, _ = self._keys(id_)
                held[id_] = (yield Call("MGET", (key,)))[0], None
                yield Call("DEL", (key,))
        return [held[id_] for id_ in session_ids]

    def _keys(self, session_id: str) -> tuple[bytes, bytes]:
        return to_bytes(self._layout.session_key(session_id)), to_bytes(
            self._layout.marker_key(session_id)
        )

    def _records(self, ids: Sequence[bytes]) -> Operation[list[bytes | None]]:
        return (yield from self._values([session_key(self._layout, id_) for id_ in ids]))

    def _values(self, keys: Sequence[bytes]) -> Operation[list[bytes | None]]:
        values: list[bytes | None] = []
        for start in range(0, len(keys), BATCH):
            answers: list[list[bytes | None]] = yield Batch(
                tuple(Call("MGET", (key,)) for key in keys[start : start + BATCH])
            )
            values += [answer[0] for answer in answers]
        return values

    def _drop(self, index: str, ids: Sequence[bytes]) -> Operation[None]:
        for start in range(0, len(ids), BATCH):
            yield from self._steps.remove_from_index(
                self._layout.index, index, ids[start : start + BATCH]
            )
