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
marker is a register that is written once: a renewal writes its successor into it before it deletes, and who ends a session writes
a tombstone.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, Protocol, cast

from lucia.errors import ConcurrentlyRevoked, DuplicateSessionId
from lucia.models import SessionRow
from lucia.redis.commands import Batch, Call, Eval, Operation, Transaction
from lucia.redis.layout import Layout, Marker, decode_marker, encode_marker, encode_row
from lucia.redis.scripts import BORN_DEAD, DELETE, DROP, PUSH, SWAP
from lucia.rules import MARKER_MS

PROVISIONAL_MS: Final = 10_000
"""How long a session lives that is not whole yet."""

INDEX_SLACK_MS: Final = 60_000
"""How much longer than its sessions an index lives, for two servers' clocks."""

TOMBSTONE: Final = b'{"ended":true}'
"""A marker that names no successor."""

Held = tuple[bytes | None, bytes | None]
"""What was at a session's key and at its marker's."""

BATCH: Final = 500
"""How many sessions are read or ended side by side."""


class SlotSteps(Protocol):
    """What an operation does at one key, or at two in one slot, so that nothing comes between."""

    def push(self, index: str, session_id: str, expires: int) -> Operation[int]:
        """Put an id at the head of an index, which lives at least until ``expires``; returns its length, or BORN_DEAD if that is past."""
        ...

    def swap(self, used: str, marker_key: str, marker: bytes) -> Operation[tuple[bytes | None, int] | None]:
        """Put a marker in the place of a session and return None; or return the marker that is there, if any, and what is left of its life."""
        ...

    def take(self, keys: Sequence[tuple[bytes, bytes]]) -> Operation[list[Held]]:
        """End sessions for ever, and return for each what it and its marker held."""
        ...

    def drop(self, index: str, ids: Sequence[bytes]) -> Operation[None]:
        """Take ids out of an index."""
        ...


class Scripted:
    """One script for each step; all its keys are in one slot."""

    def push(self, index: str, session_id: str, expires: int) -> Operation[int]:
        length: int = yield Eval(PUSH, (index,), (session_id, expires, INDEX_SLACK_MS))
        return length

    def swap(self, used: str, marker_key: str, marker: bytes) -> Operation[tuple[bytes | None, int] | None]:
        answer = yield Eval(SWAP, (used, marker_key), (marker, MARKER_MS))
        return cast("tuple[bytes | None, int]", tuple(answer)) if isinstance(answer, list) else None

    def take(self, keys: Sequence[tuple[bytes, bytes]]) -> Operation[list[Held]]:
        answers: list[list[list[bytes | None]]] = yield Batch(tuple(Eval(DELETE, pair, ()) for pair in keys))
        return [(held[0][0], held[0][1]) for held in answers]

    def drop(self, index: str, ids: Sequence[bytes]) -> Operation[None]:
        yield Eval(DROP, (index,), tuple(ids))


class Plain:
    """Commands alone, for servers that refuse scripts; needs Redis 7 for the index's expiry."""

    def push(self, index: str, session_id: str, expires: int) -> Operation[int]:
        seconds, microseconds = yield Call("TIME", ())
        if expires <= int(seconds) * 1000 + int(microseconds) // 1000:
            return BORN_DEAD
        last = expires + INDEX_SLACK_MS
        length, *_ = yield Transaction(
            (Call("LPUSH", (index, session_id)), Call("PEXPIREAT", (index, last, "NX")), Call("PEXPIREAT", (index, last, "GT")))
        )
        return cast("int", length)

    def swap(self, used: str, marker_key: str, marker: bytes) -> Operation[tuple[bytes | None, int] | None]:
        won = yield Call("SET", (marker_key, marker, "NX", "PX", MARKER_MS))
        deleted = yield Call("DEL", (used,))  # who lost helps the winner, which may have crashed in between
        if won and deleted:
            return None
        if won:
            return None, -2
        (value,) = yield Call("MGET", (marker_key,))
        life = yield Call("PTTL", (marker_key,))
        return value, life

    def take(self, keys: Sequence[tuple[bytes, bytes]]) -> Operation[list[Held]]:
        yield Batch(tuple(Call("SET", (marker, TOMBSTONE, "NX", "PX", MARKER_MS)) for _, marker in keys))
        records: list[list[bytes | None]] = yield Batch(tuple(Call("MGET", (session,)) for session, _ in keys))
        yield Batch(tuple(Call("DEL", (session,)) for session, _ in keys))
        markers: list[list[bytes | None]] = yield Batch(tuple(Call("MGET", (marker,)) for _, marker in keys))
        return [(record[0], marker[0]) for record, marker in zip(records, markers, strict=True)]

    def drop(self, index: str, ids: Sequence[bytes]) -> Operation[None]:
        yield Batch(tuple(Call("LREM", (index, 0, id_)) for id_ in ids))


class SessionFirst:
    """The operations for one layout, by the given steps."""

    def __init__(self, layout: Layout, steps: SlotSteps) -> None:
        self._layout = layout
        self._steps = steps

    def create(self, row: SessionRow, random_below: Callable[[int], int]) -> Operation[None]:
        """Store a new session.

        Raises:
            DuplicateSessionId: another session has this id.
            ConcurrentlyRevoked: it was ended while it was made: all of its user's sessions were.
            ValueError: its end is past by the server's clock, or it can't be stored.
        """
        length = yield from self._make(row)
        yield from maintain(self._layout, row.user_id, length, random_below, self._steps.drop)

    def _make(self, row: SessionRow) -> Operation[int]:
        check_storable(self._layout, row)
        record, key, index = encode_row(row), self._layout.session_key(row.id), self._layout.index_key(row.user_id)
        written = yield Call("SET", (key, record, "NX", "PX", PROVISIONAL_MS))
        if not written and (yield Call("MGET", (key,)))[0] != record:
            raise DuplicateSessionId
        try:
            length = yield from self._steps.push(index, row.id, row.idle_expires)
        except Exception:
            yield Call("DEL", (key,))
            raise
        if length == BORN_DEAD:
            yield Call("DEL", (key,))
            raise born_dead()
        if not (yield Call("PEXPIREAT", (key, row.idle_expires))):
            yield from self._steps.drop(index, [row.id.encode()])
            raise ConcurrentlyRevoked
        return length

    def renew(self, used_id: str, successor: SessionRow, grace: int) -> Operation[SessionRow | None]:
        """Put ``successor`` in the place of a session, once.

        Returns:
            ``successor``; or, where an earlier call was first and within its grace, the live end of that chain; else None.

        Raises:
            DuplicateSessionId, ConcurrentlyRevoked, ValueError: as :meth:`create`.
        """
        marker = encode_marker(Marker(successor.id, grace))
        yield from self._make(successor)
        answer = yield from self._steps.swap(self._layout.session_key(used_id), self._layout.marker_key(used_id), marker)
        if answer is None or answer[0] == marker:
            return successor
        yield Call("DEL", (self._layout.session_key(successor.id),))
        yield from self._steps.drop(self._layout.index_key(successor.user_id), [successor.id.encode()])
        return (yield from follow(self._layout, within_grace(decode_marker(answer[0]), answer[1])))

    def delete(self, session_ids: Iterable[str]) -> Operation[None]:
        """End sessions and what they were renewed to."""
        yield from self._end([id_.encode() for id_ in session_ids], frozenset(), drop=True)

    def get_by_user(self, user_id: str) -> Operation[list[SessionRow]]:
        """Read a user's sessions, newest first; ids whose session is gone are taken out of the index."""
        index = self._layout.index_key(user_id)
        ids: list[bytes] = yield Call("LRANGE", (index, 0, -1))
        records = yield from records_one_by_one(self._layout, ids)
        gone = [id_ for id_, record in zip(ids, records, strict=True) if record is None]
        if gone:
            yield from self._steps.drop(index, gone)
        return rows_of(user_id, ids, records)

    def delete_by_user(self, user_id: str, keep: str | None = None) -> Operation[bool]:
        """End a user's sessions that are in the index now, but for ``keep`` or what that was renewed to.

        The one to keep is looked for after the index was read, and its whole chain is spared: a renewal on the way ends nothing of it.

        Returns:
            Whether a session was kept; if ``keep`` is no live session of this user, all are ended and it is False.
        """
        index = self._layout.index_key(user_id)
        ids: list[bytes] = yield Call("LRANGE", (index, 0, -1))
        chain = [] if keep is None else (yield from chain_of(self._layout, keep, user_id))
        spared = frozenset(id_.encode() for id_ in chain)
        ended = [id_ for id_ in ids if id_ not in spared]
        yield from self._end(ended, spared, drop=False)
        for start in range(0, len(ended), BATCH):
            yield from self._steps.drop(index, ended[start : start + BATCH])
        return bool(chain)

    def _end(self, ids: Sequence[bytes], spared: frozenset[bytes], *, drop: bool) -> Operation[None]:
        waiting = list(ids)
        for _ in range(MAX_HOPS):
            followed: list[bytes] = []
            for start in range(0, len(waiting), BATCH):
                followed += yield from self._end_batch(waiting[start : start + BATCH], drop=drop)
            waiting = [id_ for id_ in followed if id_ not in spared]
            drop = True
            if not waiting:
                return

    def _end_batch(self, ids: Sequence[bytes], *, drop: bool) -> Operation[list[bytes]]:
        """End sessions and return what their markers name; the index entries go too where the caller does not see to that."""
        keys = [(session_key(self._layout, id_), marker_key(self._layout, id_)) for id_ in ids]
        held = yield from self._steps.take(keys)
        for id_, (record, _) in zip(ids, held, strict=True):
            row = row_or_none(record, id_)
            if drop and row is not None:
                yield from self._steps.drop(self._layout.index_key(row.user_id), [id_])
        markers = [decode_marker(marker) for _, marker in held]
        return [marker.successor.encode() for marker in markers if marker is not None]
