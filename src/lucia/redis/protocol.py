"""Each operation of the store, as a pure generator: it yields the commands to send and is sent their replies.

No client, no waiting, no clock and no randomness in here: the drivers of both colours run these generators, and so can a test that
steps through every interleaving. What an operation keeps is its tuple of replies. Replies are bytes, ints, None and lists of them.
"""

from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar, cast

from lucia.errors import DuplicateSessionId
from lucia.models import SessionRow
from lucia.redis.layout import CrossedReply, Layout, Marker, decode_marker, decode_row, encode_marker, encode_row
from lucia.redis.scripts import BORN_DEAD, CREATE, DELETE, PRUNE, RENEW, REVOKE, TAKEN, Script
from lucia.rules import MARKER_MS

T = TypeVar("T")

Argument = str | bytes | int
Reply = Any
"""bytes, int, None or a list of these: what a server answers, not decoded."""


@dataclass(frozen=True, slots=True)
class Call:
    """A command of the server."""

    name: str
    arguments: tuple[Argument, ...]


@dataclass(frozen=True, slots=True)
class Eval:
    """A script and the keys and arguments it runs with."""

    script: Script
    keys: tuple[Argument, ...]
    arguments: tuple[Argument, ...]


@dataclass(frozen=True, slots=True)
class DropConnections:
    """Replies may have been crossed: close the connections that lie idle, so that the next command gets a new one."""


Command = Call | Eval | DropConnections
Operation = Generator[Command, Reply, T]

BLOCK: Final = 1_000
"""How many sessions one command reads or ends: about a millisecond of the server's time."""

PROBE: Final = 8
"""How many entries of an index one login looks at, in every eighth login from the sixteenth session on."""

PRUNE_BLOCK: Final = 64
"""How many entries one script takes out of an index."""

OPTIMISTIC_TRIES: Final = 3
"""How often a sign-out everywhere tries to be one atomic step before it goes block by block."""

MAX_HOPS: Final = 16
"""How many renewals within one grace are followed to a live session; ending sessions follows all of them."""


def get(layout: Layout, session_id: str) -> Operation[SessionRow | None]:
    """Read one session.

    ``MGET session:{id}``; if the record is another session's, the connections are dropped and it is read once more.
    """
    return (yield from _twice(lambda: _get_once(layout, session_id)))


def _twice(read: Callable[[], Operation[T | None]]) -> Operation[T | None]:
    """Do it; if the reply was another's, drop the connections and do it once more; wrong again is None."""
    try:
        return (yield from read())
    except CrossedReply:
        yield DropConnections()
    try:
        return (yield from read())
    except CrossedReply:
        return None


def _get_once(layout: Layout, session_id: str) -> Operation[SessionRow | None]:
    record = _one_value((yield Call("MGET", (layout.session_key(session_id),))))
    return None if record is None else decode_row(record, session_id)


def _one_value(reply: Reply) -> bytes | None:
    """The value in a reply to ``MGET`` of one key.

    Raises:
        CrossedReply: the reply has another shape, so it was another command's.
    """
    match reply:
        case [bytes() | None as value]:
            return value
        case _:
            raise CrossedReply


def create(layout: Layout, row: SessionRow, random_below: Callable[[int], int]) -> Operation[None]:
    """Store a new session and its index entry in one step: the script CREATE.

    From the sixteenth session of a user on, every eighth login takes dead ids out of eight entries of the index.

    Raises:
        DuplicateSessionId: another session has this id.
        ValueError: its end is past by the server's clock, or it can't be stored.
    """
    _check_storable(layout, row)
    index = layout.index_key(row.user_id)
    arguments = (row.id, encode_row(row), row.idle_expires)
    length = yield Eval(CREATE, (layout.session_key(row.id), index), arguments)
    _check_written(length)
    if length >= 2 * PROBE and length % PROBE == 0:
        first = random_below(length - PROBE + 1)
        ids = yield Call("LRANGE", (index, first, first + PROBE - 1))
        records = yield from _records(layout, ids)
        yield from _prune(layout, index, [id_ for id_, record in zip(ids, records, strict=True) if record is None])


def renew(layout: Layout, used_id: str, successor: SessionRow, grace: int) -> Operation[SessionRow | None]:
    """Put ``successor`` in the place of a session, once, in one step: the script RENEW.

    Returns:
        ``successor``; or, where an earlier call was first and within its grace, the live end of that chain; else None.

    Raises:
        DuplicateSessionId, ValueError: as :func:`create`.
    """
    _check_storable(layout, successor)
    if not layout.is_storable(used_id):
        return None
    index = layout.index_key(successor.user_id)
    keys = (layout.session_key(used_id), layout.session_key(successor.id), index, layout.marker_key(used_id))
    marker = encode_marker(Marker(used_id, successor.id, grace))
    command = Eval(RENEW, keys, (used_id, successor.id, encode_row(successor), successor.idle_expires, marker, MARKER_MS))
    end = yield from _twice(lambda: _renew_once(command, used_id, successor.id))
    return successor if end == successor.id else (yield from _follow(layout, end))


def _renew_once(command: Eval, used_id: str, successor_id: str) -> Operation[str | None]:
    """The id that the used one leads to by now. The same call may be sent again: its own marker tells that it was the first."""
    answer = yield command
    if not isinstance(answer, list):
        _check_written(answer)
        return successor_id
    written, life = cast("tuple[bytes | None, int]", answer)
    marker = decode_marker(written, used_id)
    own = marker is not None and marker.successor == successor_id
    return successor_id if own else _within_grace(marker, life)


def successor_of(layout: Layout, used_id: str) -> Operation[SessionRow | None]:
    """Follow a used id to the live end of its chain of renewals, each within its grace: ``MGET`` and ``PTTL`` of its marker."""
    return (yield from _follow(layout, (yield from _successor_id(layout, used_id))))


def _follow(layout: Layout, session_id: str | None) -> Operation[SessionRow | None]:
    for _ in range(MAX_HOPS):
        if session_id is None:
            return None
        row = yield from get(layout, session_id)
        if row is not None:
            return row
        session_id = yield from _successor_id(layout, session_id)
    return None


def _successor_id(layout: Layout, used_id: str) -> Operation[str | None]:
    return (yield from _twice(lambda: _successor_id_once(layout, used_id)))


def _successor_id_once(layout: Layout, used_id: str) -> Operation[str | None]:
    key = layout.marker_key(used_id)
    marker = decode_marker(_one_value((yield Call("MGET", (key,)))), used_id)
    if marker is None:
        return None
    life = yield Call("PTTL", (key,))
    return _within_grace(marker, life)


def _within_grace(marker: Marker | None, life: int) -> str | None:
    """The successor's id while the grace lasts: so much of the marker's life has passed at most, by the server's clock."""
    return marker.successor if marker is not None and 0 <= MARKER_MS - life < marker.grace else None


def delete(layout: Layout, session_ids: Iterable[str], kept: str | None = None) -> Operation[None]:
    """End sessions and what they were renewed to: the script DELETE, then ``LREM userSession:{user} 0 {id}`` for each.

    A session is dead as soon as the script has run; an index entry that is left behind by a crash is pruned later. What ``kept``
    was renewed to is not followed.
    """
    seen: set[str | None] = {kept}
    ended: list[SessionRow] = []
    waiting = _unseen(layout, session_ids, seen)
    while waiting:
        keys = tuple(key for id_ in waiting for key in (layout.session_key(id_), layout.marker_key(id_)))
        held: list[tuple[bytes | None, bytes | None]] = yield Eval(DELETE, keys, ())
        found = [_row_or_none(record, id_) for id_, (record, _) in zip(waiting, held, strict=True)]
        ended += [row for row in found if row is not None]
        waiting = _unseen(layout, _successors(waiting, (marker for _, marker in held)), seen)
    for row in ended:
        yield Call("LREM", (layout.index_key(row.user_id), 0, row.id))


def _unseen(layout: Layout, session_ids: Iterable[str], seen: set[str | None]) -> list[str]:
    """Those ids that were not seen before, each once; they are seen now."""
    new = [id_ for id_ in dict.fromkeys(session_ids) if id_ not in seen and layout.is_storable(id_)]
    seen.update(new)
    return new


def _successors(used_ids: Iterable[str], markers: Iterable[bytes | None]) -> list[str]:
    found = [_marker_or_none(marker, id_) for id_, marker in zip(used_ids, markers, strict=True)]
    return [marker.successor for marker in found if marker is not None]


def get_by_user(layout: Layout, user_id: str) -> Operation[list[SessionRow]]:
    """Read a user's sessions, newest first: ``LRANGE`` and ``MGET`` by blocks; ids whose session is gone are pruned."""
    index = layout.index_key(user_id)
    ids: list[bytes] = yield Call("LRANGE", (index, 0, -1))
    records = yield from _records(layout, ids)
    yield from _prune(layout, index, [id_ for id_, record in zip(ids, records, strict=True) if record is None])
    rows: dict[bytes, SessionRow] = {}
    for id_, record in zip(ids, records, strict=True):
        row = _row_or_none(record, id_.decode(errors="surrogateescape"))
        if row is not None and row.user_id == user_id:
            rows[id_] = row
    return list(rows.values())


def delete_by_user(layout: Layout, user_id: str, keep: str | None = None) -> Operation[bool]:
    """End a user's sessions, but for ``keep`` or what that was renewed to.

    Up to 1,000 sessions in one atomic step, the script REVOKE: ``LRANGE`` names the keys, and the script does nothing if the index
    holds another id by then. More sessions, or an index that changes at every try, go in blocks of 1,000, oldest first: whatever
    was in the index at the beginning is ended, and so is what it was renewed to meanwhile.

    Returns:
        Whether a session was kept; if ``keep`` is no live session of this user, all are ended and it is False.
    """
    index = layout.index_key(user_id)
    for _ in range(OPTIMISTIC_TRIES):
        kept = yield from _resolve_kept(layout, user_id, keep)
        ids: list[bytes] = yield Call("LRANGE", (index, 0, -1))
        if not ids:
            return kept is not None
        if len(ids) > BLOCK:
            break
        if (yield _revoke(layout, index, ids, kept, whole=True)) == 1:
            return kept is not None
    return (yield from _delete_in_blocks(layout, user_id, keep))


def _delete_in_blocks(layout: Layout, user_id: str, keep: str | None) -> Operation[bool]:
    index = layout.index_key(user_id)
    ids: list[bytes] = yield Call("LRANGE", (index, 0, -1))
    kept = yield from _resolve_kept(layout, user_id, keep)
    while ids:
        block = ids[-BLOCK:]
        if (yield _revoke(layout, index, block, kept, whole=False)) == 1:
            yield from _delete_successors(layout, block, kept)
            del ids[-BLOCK:]
        kept = yield from _resolve_kept(layout, user_id, keep)
    return kept is not None


def _delete_successors(layout: Layout, ids: Sequence[bytes], kept: str | None) -> Operation[None]:
    """End what these ids, which are dead by now, were renewed to before; but not ``kept`` and what that was renewed to."""
    ended = [id_ for id_ in (each.decode(errors="surrogateescape") for each in ids) if id_ != kept]
    if ended:
        markers = yield Call("MGET", tuple(_to_bytes(layout.marker_key(id_)) for id_ in ended))
        yield from delete(layout, _successors(ended, markers), kept)


def _resolve_kept(layout: Layout, user_id: str, keep: str | None) -> Operation[str | None]:
    """The id of the session to keep, through its marker if it was renewed meanwhile; None if it is no live session of this user."""
    if keep is None:
        return None
    row = (yield from get(layout, keep)) or (yield from successor_of(layout, keep))
    return row.id if row is not None and row.user_id == user_id else None


def _revoke(layout: Layout, index: str, ids: Sequence[bytes], kept: str | None, *, whole: bool) -> Eval:
    kept_id = b"" if kept is None else kept.encode()
    ended = [id_ for id_ in reversed(ids) if id_ != kept_id]
    kept_key = () if kept is None else (layout.session_key(kept),)
    keys = (index, *(_session_key(layout, id_) for id_ in ended), *kept_key)
    return Eval(REVOKE, keys, (int(whole), kept_id, *ended))


def _records(layout: Layout, ids: Sequence[bytes]) -> Operation[list[bytes | None]]:
    records: list[bytes | None] = []
    for start in range(0, len(ids), BLOCK):
        records += yield Call("MGET", tuple(_session_key(layout, id_) for id_ in ids[start : start + BLOCK]))
    return records


def _prune(layout: Layout, index: str, gone: Sequence[bytes]) -> Operation[None]:
    """Take ids out of the index whose session is gone. An id is indexed only with its session and never used again, so gone is for ever."""
    for start in range(0, len(gone), PRUNE_BLOCK):
        block = gone[start : start + PRUNE_BLOCK]
        yield Eval(PRUNE, (index, *(_session_key(layout, id_) for id_ in block)), tuple(block))


def _session_key(layout: Layout, session_id: bytes) -> bytes:
    """The key of an id as the index holds it, which need not be valid text."""
    return layout.session_key("").encode() + session_id


def _to_bytes(key: str) -> bytes:
    return key.encode(errors="surrogateescape")


def _row_or_none(record: bytes | None, session_id: str) -> SessionRow | None:
    try:
        return None if record is None else decode_row(record, session_id)
    except CrossedReply:
        return None


def _marker_or_none(value: bytes | None, used_id: str) -> Marker | None:
    try:
        return decode_marker(value, used_id)
    except CrossedReply:
        return None


def _check_storable(layout: Layout, row: SessionRow) -> None:
    if not layout.is_storable(row.id):
        raise ValueError("a session id may not begin with 'renewed:', which marks the keys of used ids")


def _check_written(answer: int) -> None:
    if answer == TAKEN:
        raise DuplicateSessionId
    if answer == BORN_DEAD:
        raise ValueError("the session's idle period has ended by the server's clock: compare this machine's clock with the Redis server's")
