"""What both protocols of the store share: reading one session, following used ids, and the rows of an index."""

from collections.abc import Callable, Iterable, Sequence
from typing import Final, Protocol, TypeVar

from lucia._compat.blocks import Blocks
from lucia._redis.commands import Batch, Call, DropConnections, Operation, Reply
from lucia._redis.lookup import Lookup, PlainLookup
from lucia._redis.records import Layout, Marker, MismatchedReply, decode_marker, decode_row
from lucia._rules.caps import login_after, surplus_sessions
from lucia._rules.sessions import MARKER_MS
from lucia.errors import ConcurrentlyRevoked
from lucia.models import SessionRow

T = TypeVar("T")

MAX_HOPS: Final = 16
"""How many renewals within one grace are followed to a live session; ending sessions follows all of them."""

PRUNE_SAMPLE_SIZE: Final = 8
"""How many entries of an index one login looks at."""


def get_session(layout: Layout, session_id: str) -> Operation[SessionRow | None]:
    """Read one session.

    ``MGET session:{id}``; if the record is another session's, the connections are dropped and it is read once more.
    """
    return (yield from retry_if_mismatched(lambda: get_session_once(layout, session_id)))


def retry_if_mismatched(read: Callable[[], Operation[T | None]]) -> Operation[T | None]:
    """Do it; if the reply was another's, once more."""
    try:
        return (yield from read())
    except MismatchedReply:
        pass
    return (yield from retry_on_new_connection(read))


def retry_on_new_connection(read: Callable[[], Operation[T | None]]) -> Operation[T | None]:
    """After a reply that was another's: drop the connections and do it again; wrong again is None."""
    yield DropConnections()
    try:
        return (yield from read())
    except MismatchedReply:
        return None


def get_session_once(layout: Layout, session_id: str) -> Operation[SessionRow | None]:
    """Read one session.

    Raises:
        MismatchedReply: the record is another session's.
    """
    record = one_value((yield Call("MGET", (layout.session_key(session_id),))))
    return None if record is None else decode_row(record, session_id)


def one_value(reply: Reply) -> bytes | None:
    """The value in a reply to ``MGET`` of one key.

    Raises:
        MismatchedReply: the reply has another shape, so it was another command's.
    """
    match reply:
        case [bytes() | None as value]:
            return value
        case _:
            raise MismatchedReply


def get_successor(layout: Layout, used_id: str) -> Operation[SessionRow | None]:
    """Follow a used id to the live end of its chain of renewals, each within its grace: ``MGET`` and ``PTTL`` of its marker."""
    return (yield from follow_chain(layout, (yield from _successor_id(layout, used_id))))


def follow_chain(layout: Layout, session_id: str | None) -> Operation[SessionRow | None]:
    for _ in range(MAX_HOPS):
        if session_id is None:
            return None
        row = yield from get_session(layout, session_id)
        if row is not None:
            return row
        session_id = yield from _successor_id(layout, session_id)
    return None


def _successor_id(layout: Layout, used_id: str) -> Operation[str | None]:
    return (yield from retry_if_mismatched(lambda: _successor_id_once(layout, used_id)))


def _successor_id_once(layout: Layout, used_id: str) -> Operation[str | None]:
    marker = yield from _marker_of_once(layout, used_id)
    if marker is None:
        return None
    life = yield Call("PTTL", (layout.marker_key(used_id),))
    return successor_within_grace(marker, life)


def _marker_of(layout: Layout, used_id: str) -> Operation[Marker | None]:
    return (yield from retry_if_mismatched(lambda: _marker_of_once(layout, used_id)))


def _marker_of_once(layout: Layout, used_id: str) -> Operation[Marker | None]:
    return decode_marker(one_value((yield Call("MGET", (layout.marker_key(used_id),)))), used_id)


class Reading:
    """The operations that read one session, which both protocols share."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self.lookup: Lookup = PlainLookup(layout)

    def get(self, session_id: str) -> Operation[SessionRow | None]:
        return get_session(self._layout, session_id)

    def get_once(self, session_id: str) -> Operation[SessionRow | None]:
        return get_session_once(self._layout, session_id)

    def get_successor(self, used_id: str) -> Operation[SessionRow | None]:
        return get_successor(self._layout, used_id)


def successor_within_grace(marker: Marker | None, life: int) -> str | None:
    """The successor's id while the grace lasts; None for a sealed one, since that names by no id what it leads to."""
    return (
        marker.successor
        if marker is not None and marker.sealed is None and is_in_grace(marker, life)
        else None
    )


def is_in_grace(marker: Marker, life: int) -> bool:
    """Whether so much of a marker's life has passed at most as the grace lasts, by the server's clock."""
    return 0 <= MARKER_MS - life < marker.grace


def resolve_chain(
    layout: Layout, user_id: str, session_id: str
) -> Operation[tuple[list[str], SessionRow] | None]:
    """The ids from this one along its renewals of the last minute, and the live session of this user that they lead to, if any."""
    chain: list[str] = []
    following: str | None = session_id
    while following is not None and following not in chain:
        chain.append(following)
        row = yield from get_session(layout, following)
        if row is not None:
            return (chain, row) if row.user_id == user_id else None
        marker = yield from _marker_of(layout, following)
        following = None if marker is None else marker.successor
    return None


def add_unseen(layout: Layout, session_ids: Iterable[str], seen: set[str | None]) -> list[str]:
    """Those ids that were not seen before, each once; they are seen now."""
    new = [id_ for id_ in dict.fromkeys(session_ids) if id_ not in seen and layout.is_storable(id_)]
    seen.update(new)
    return new


def successor_ids(used_ids: Iterable[str], markers: Iterable[bytes | None]) -> list[str]:
    found = [marker_or_none(marker, id_) for id_, marker in zip(used_ids, markers, strict=True)]
    return [marker.successor for marker in found if marker is not None]


def milliseconds_of(time: Sequence[bytes]) -> int:
    """The reply to ``TIME`` in milliseconds since the epoch."""
    seconds, microseconds = time
    return int(seconds) * 1000 + int(microseconds) // 1000


def session_key(layout: Layout, session_id: bytes) -> bytes:
    """The key of an id as the index holds it, which need not be valid text."""
    return layout.session_key("").encode() + session_id


def to_bytes(text: str) -> bytes:
    """The bytes that :func:`to_text` made text of."""
    return text.encode(errors="surrogateescape")


def to_text(id_: bytes) -> str:
    """An id as the index holds it, as text, whatever the bytes."""
    return id_.decode(errors="surrogateescape")


def row_or_none(record: bytes | None, session_id: str) -> SessionRow | None:
    try:
        return None if record is None else decode_row(record, session_id)
    except MismatchedReply:
        return None


def marker_or_none(value: bytes | None, used_id: str) -> Marker | None:
    try:
        return decode_marker(value, used_id)
    except MismatchedReply:
        return None


def decode_rows(
    user_id: str, ids: Sequence[bytes], records: Sequence[bytes | None]
) -> list[SessionRow]:
    """The sessions of this user among what the index led to, each once."""
    rows: dict[bytes, SessionRow] = {}
    for id_, record in zip(ids, records, strict=True):
        row = row_or_none(record, to_text(id_))
        if row is not None and row.user_id == user_id:
            rows[id_] = row
    return list(rows.values())


Read = Callable[[Sequence[bytes]], Operation[list[bytes | None]]]
"""Reads what is at these keys."""


def read_user_sessions(
    layout: Layout, user_id: str, read: Read
) -> Operation[tuple[list[SessionRow], list[bytes]]]:
    """Return the sessions that a user's index leads to, in its order, and the ids without a session.

    Before all others are those that were renewed meanwhile.

    They are read and decoded block by block, so that a user with very many sessions holds up nobody:
    while the server is asked for a block, the event loop serves others.

    One that was renewed after the index was read is gone, and its successor not among the ids: its marker leads there.

    Args:
        layout: the key names.
        user_id: whose sessions.
        read: reads what is at these keys.
    """
    rows: list[SessionRow] = []
    gone: list[bytes] = []
    seen: set[str | None] = set()
    for ids in Blocks((yield from layout.index.read(layout.index_key(user_id)))):
        block = [id_ for id_ in dict.fromkeys(ids) if to_text(id_) not in seen]
        records = yield from read([session_key(layout, id_) for id_ in block])
        rows += decode_rows(user_id, block, records)
        gone += ids_without_record(block, records)
        seen.update(map(to_text, block))
    waiting = gone
    while waiting:
        led_to: list[bytes] = []
        for block in Blocks(waiting):
            markers = yield from read([to_bytes(layout.marker_key(to_text(id_))) for id_ in block])
            led_to += map(
                to_bytes, add_unseen(layout, successor_ids(map(to_text, block), markers), seen)
            )
        waiting = led_to
        records = yield from read([session_key(layout, id_) for id_ in waiting])
        rows = decode_rows(user_id, waiting, records) + rows
        waiting = ids_without_record(waiting, records)
    return rows, gone


def expire_dead_sessions(layout: Layout, rows: Iterable[SessionRow], now: int) -> Operation[None]:
    """``PEXPIREAT`` sessions that are dead though their keys live on, as the original's do; so the server's clock has the last word."""
    for block in Blocks([row for row in rows if row.idle_expires < now]):
        yield Batch(
            tuple(
                Call("PEXPIREAT", (layout.session_key(row.id), row.idle_expires)) for row in block
            )
        )


def create_then_revoke_surplus(
    store: "CreatesAndEnds",
    layout: Layout,
    read: Read,
    row: SessionRow,
    limit: int,
    now: int,
    random_below: Callable[[int], int],
) -> Operation[SessionRow]:
    """Store the session of a new login, then look which of the user's logins are surplus, and end these.

    All logins follow one order, and each looks after it is in the index. So of those at the same time the last to look sees them all,
    and the newest are left. That no other machine's clock makes a new login the oldest, its time is set after those it sees before.

    Raises:
        DuplicateSessionId, ConcurrentlyRevoked, ValueError: as the store's ``create``. A login that newer ones have ended, while it was
            made, is one that was ended afterwards.
    """
    stored = login_after((yield from store.get_by_user(row.user_id, now)), row, now)
    try:
        yield from store.create(stored, random_below)
    except ConcurrentlyRevoked:
        if not (yield from _is_overtaken(layout, read, row, stored, limit, now)):
            raise
        return stored
    rows = yield from store.get_by_user(row.user_id, now)
    yield from store.delete(surplus_sessions(rows, row, limit, now, spare=False))
    return stored


def _is_overtaken(
    layout: Layout, read: Read, row: SessionRow, stored: SessionRow, limit: int, now: int
) -> Operation[bool]:
    """Whether as many newer logins are there as the limit allows, so that it was one of them that ended the one that was stored.

    A newer one may itself be ended between the looks at the index and at its record, by one that is in the index by then: so the look
    counts only if none was.
    """
    known: set[bytes] = set()
    while True:
        rows, gone = yield from read_user_sessions(layout, row.user_id, read)
        if stored.id in surplus_sessions([*rows, stored], row, limit, now, spare=False):
            return True
        if known.issuperset(gone):
            return False
        known.update(gone)


class CreatesAndEnds(Protocol):
    """The operations that :func:`create_then_end` is made of."""

    def create(self, row: SessionRow, random_below: Callable[[int], int]) -> Operation[None]: ...

    def delete(self, session_ids: Iterable[str]) -> Operation[None]: ...

    def get_by_user(self, user_id: str, now: int) -> Operation[list[SessionRow]]: ...


def ids_without_record(ids: Sequence[bytes], records: Sequence[bytes | None]) -> list[bytes]:
    """The ids whose session is gone."""
    return [id_ for id_, record in zip(ids, records, strict=True) if record is None]


def is_prune_due(layout: Layout, length: int) -> bool:
    """Whether a login looks at eight ids of an index of this length: every eighth login does, from the sixteenth session on.

    None does where nothing goes out of an index with its session gone.
    """
    return (
        length >= 2 * PRUNE_SAMPLE_SIZE
        and not length % PRUNE_SAMPLE_SIZE
        and not layout.index.legacy_writers
    )


def check_storable(layout: Layout, row: SessionRow) -> None:
    """Refuse an id whose key could be taken for one of our other keys.

    Raises:
        ValueError: it begins with ``renewed:`` or ``throttle:``.
    """
    if not layout.is_storable(row.id):
        raise ValueError(
            "a session id may not begin with 'renewed:' or 'throttle:', which mark keys of another kind"
        )


def already_expired_error() -> ValueError:
    """The error for a session that the server would drop at once."""
    return ValueError(
        "the session's idle period has ended by the server's clock: compare this machine's clock with the Redis server's"
    )
