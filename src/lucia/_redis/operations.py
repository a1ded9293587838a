"""Operations that the stores for one server and for a cluster share.

An operation is a generator: it yields commands, and is sent their replies. It does no I/O, so that
the sync and the async driver, the model checker and the tests all run the same code.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import Final, TypeVar

from lucia._compat.blocks import Blocks
from lucia._redis.commands import Batch, Call, DropConnections, Operation, Reply
from lucia._redis.keys import Layout
from lucia._redis.lookup import Lookup, PlainLookup
from lucia._redis.records import Marker, MismatchedReply, decode_marker, decode_row
from lucia._redis.revocations import UNRECORDED, RevocationRecorder, RevocationTracking
from lucia._rules.caps import login_after, surplus_sessions
from lucia._rules.sessions import MARKER_MS
from lucia.errors import ConcurrentlyRevoked
from lucia.models import SessionRow

T = TypeVar("T")

MAX_HOPS: Final = 16
"""How many renewals a read follows. A revocation follows all of them."""

PRUNE_SAMPLE_SIZE: Final = 8
"""How many entries of an index one login checks for dead ids (I7)."""


class BaseStore(ABC):
    """The operations that both kinds of store share.

    Args:
        layout: the key names.
        tracking: remembers and confirms revocations.
    """

    def __init__(self, layout: Layout, tracking: RevocationTracking | None) -> None:
        self._layout = layout
        self._tracking = tracking or RevocationTracking(layout)
        self.lookup: Lookup = PlainLookup(layout)

    def get(self, session_id: str) -> Operation[SessionRow | None]:
        """Read one session."""
        return get_session(self._layout, session_id)

    def get_once(self, session_id: str) -> Operation[SessionRow | None]:
        """Read one session without a retry.

        Raises:
            MismatchedReply: the record belongs to another session.
        """
        return get_session_once(self._layout, session_id)

    def get_successor(self, used_id: str) -> Operation[SessionRow | None]:
        """Follow a used id along its renewals to a live session, each within its grace."""
        return get_successor(self._layout, used_id)

    @abstractmethod
    def create(self, row: SessionRow, random_below: Callable[[int], int]) -> Operation[None]:
        """Store a new session."""

    @abstractmethod
    def get_by_user(self, user_id: str, now: int) -> Operation[list[SessionRow]]:
        """Read a user's sessions, in the order of the index."""

    @abstractmethod
    def _delete(self, session_ids: Iterable[str], recorder: RevocationRecorder) -> Operation[None]:
        """Revoke sessions and what they were renewed to."""

    @abstractmethod
    def _read_values(self, keys: Sequence[bytes]) -> Operation[list[bytes | None]]:
        """Read the strings at these keys, None where there is none."""

    def _read_records(self, ids: Sequence[bytes]) -> Operation[list[bytes | None]]:
        return (yield from self._read_values([session_key(self._layout, id_) for id_ in ids]))

    def read_by_user(self, user_id: str) -> Operation[list[SessionRow]]:
        """Read a user's sessions, in the order of the index, and change nothing."""
        rows, _ = yield from self._read_user_sessions(user_id)
        return rows

    def _read_user_sessions(self, user_id: str) -> Operation[tuple[list[SessionRow], list[bytes]]]:
        """Return the sessions that a user's index leads to, in its order, and the dead ids in it.

        Successors of renewals that were made meanwhile come first.
        """
        layout = self._layout
        rows: list[SessionRow] = []
        dead: list[bytes] = []
        seen: set[str | None] = set()
        # Block by block: while the server is asked for the next one, other tasks run.
        for ids in Blocks((yield from layout.index.read(layout.index_key(user_id)))):
            block = [id_ for id_ in dict.fromkeys(ids) if to_text(id_) not in seen]
            records = yield from self._read_records(block)
            rows += decode_rows(user_id, block, records)
            dead += ids_without_record(block, records)
            seen.update(map(to_text, block))
        # A session that was renewed after the index was read is gone, and its successor is not
        # among the ids that were read. So the marker of each dead id is followed.
        to_follow = dead
        while to_follow:
            found: list[bytes] = []
            for block in Blocks(to_follow):
                used_ids = list(map(to_text, block))
                markers = yield from self._read_values(
                    [to_bytes(layout.marker_key(id_)) for id_ in used_ids]
                )
                found += map(to_bytes, add_unseen(layout, successor_ids(used_ids, markers), seen))
            records = yield from self._read_records(found)
            rows = decode_rows(user_id, found, records) + rows
            to_follow = ids_without_record(found, records)
        return rows, dead

    def _create_then_revoke_surplus(
        self, row: SessionRow, limit: int, now: int, random_below: Callable[[int], int]
    ) -> Operation[SessionRow]:
        """Store the session of a new login, then revoke the user's logins beyond the limit.

        Raises:
            DuplicateSessionId, ConcurrentlyRevoked, ValueError: see the store's ``create``. A login
                that newer ones revoked while it was made is returned, as one that was revoked
                afterwards.
        """
        # A machine whose clock is behind must not make a new login the oldest.
        stored = login_after((yield from self.get_by_user(row.user_id, now)), row, now)
        try:
            yield from self.create(stored, random_below)
        except ConcurrentlyRevoked:
            if not (yield from self._is_surplus(row, stored, limit, now)):
                raise
            return stored
        # Read once more, after this login has entered the index: of several at the same time, the
        # last one to read sees all of them, and as all apply the same order, the newest remain.
        rows = yield from self.get_by_user(row.user_id, now)
        surplus = surplus_sessions(rows, row, limit, now, spare=False)
        yield from self._delete(surplus, UNRECORDED)
        return stored

    def _is_surplus(
        self, row: SessionRow, stored: SessionRow, limit: int, now: int
    ) -> Operation[bool]:
        """Return whether newer logins fill the limit, so that one of them revoked this one."""
        # A newer login may be revoked after the index was read and before its record is. The login
        # that revoked it has entered the index by then. So read again until no new id is dead.
        known: set[bytes] = set()
        while True:
            rows, dead = yield from self._read_user_sessions(row.user_id)
            # Its own record is gone, but it still has to be counted.
            if stored.id in surplus_sessions([*rows, stored], row, limit, now, spare=False):
                return True
            if known.issuperset(dead):
                return False
            known.update(dead)


def get_session(layout: Layout, session_id: str) -> Operation[SessionRow | None]:
    """Read one session: ``MGET session:{id}``."""
    return (yield from retry_if_mismatched(lambda: get_session_once(layout, session_id)))


def get_session_once(layout: Layout, session_id: str) -> Operation[SessionRow | None]:
    """Read one session without a retry.

    Raises:
        MismatchedReply: the record belongs to another session.
    """
    # MGET and not GET: for a key of another type it returns nil, where GET fails.
    record = one_value((yield Call("MGET", (layout.session_key(session_id),))))
    return None if record is None else decode_row(record, session_id)


def retry_if_mismatched(read: Callable[[], Operation[T | None]]) -> Operation[T | None]:
    """Read, and once more on new connections if the reply belongs to another command (I0)."""
    try:
        return (yield from read())
    except MismatchedReply:
        pass  # read outside of the handler: errors of that must not get this one as their context
    return (yield from retry_on_new_connection(read))


def retry_on_new_connection(read: Callable[[], Operation[T | None]]) -> Operation[T | None]:
    """Drop the idle connections, whose replies are not to be trusted (I0), and read again.

    Returns:
        What was read; None if the reply is another command's again.
    """
    yield DropConnections()
    try:
        return (yield from read())
    except MismatchedReply:
        return None


def one_value(reply: Reply) -> bytes | None:
    """Return the value in a reply to ``MGET`` of one key.

    Raises:
        MismatchedReply: the reply has another shape, so it belongs to another command.
    """
    match reply:
        case [bytes() | None as value]:
            return value
        case _:
            raise MismatchedReply


def get_successor(layout: Layout, used_id: str) -> Operation[SessionRow | None]:
    """Follow a used id along its renewals to a live session, each within its grace.

    For each renewal that is ``MGET`` and ``PTTL`` of the marker, and ``MGET`` of the successor.
    """
    return (yield from follow_chain(layout, (yield from _successor_id(layout, used_id))))


def follow_chain(layout: Layout, session_id: str | None) -> Operation[SessionRow | None]:
    """Return this session or, if it was renewed within the grace, the live one it leads to."""
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
    marker = yield from _marker_once(layout, used_id)
    if marker is None:
        return None
    ttl = yield Call("PTTL", (layout.marker_key(used_id),))
    return successor_within_grace(marker, ttl)


def _marker(layout: Layout, used_id: str) -> Operation[Marker | None]:
    return (yield from retry_if_mismatched(lambda: _marker_once(layout, used_id)))


def _marker_once(layout: Layout, used_id: str) -> Operation[Marker | None]:
    return decode_marker(one_value((yield Call("MGET", (layout.marker_key(used_id),)))), used_id)


def successor_within_grace(marker: Marker | None, ttl: int) -> str | None:
    """Return the successor's id while the grace lasts.

    None for a sealed marker: only who has the used id can open it, see :mod:`lucia._redis.at_rest`.
    """
    if marker is None or marker.sealed is not None or not is_in_grace(marker, ttl):
        return None
    return marker.successor


def is_in_grace(marker: Marker, ttl: int) -> bool:
    """Return whether the grace still lasts, by how much is left of the marker's life."""
    # If the marker has expired since it was read, its PTTL is -2, which is past any grace.
    return 0 <= MARKER_MS - ttl < marker.grace


def resolve_chain(
    layout: Layout, user_id: str | None, session_id: str
) -> Operation[tuple[list[str], SessionRow] | None]:
    """Follow the renewals of the last minute, whatever their grace.

    Returns:
        The ids from this one on, and the live session of this user, or of any if that is None,
        that they lead to; None if there is none.
    """
    chain: list[str] = []
    next_id: str | None = session_id
    # Ids are used once (I6): only markers that somebody else wrote could form a circle.
    while next_id is not None and next_id not in chain:
        chain.append(next_id)
        row = yield from get_session(layout, next_id)
        if row is not None:
            return (chain, row) if user_id in (None, row.user_id) else None
        marker = yield from _marker(layout, next_id)
        next_id = None if marker is None else marker.successor
    return None


def add_unseen(layout: Layout, session_ids: Iterable[str], seen: set[str | None]) -> list[str]:
    """Add ids to ``seen``, and return those that are new, each once."""
    new = [id_ for id_ in dict.fromkeys(session_ids) if id_ not in seen and layout.is_storable(id_)]
    seen.update(new)
    return new


def successor_ids(used_ids: Iterable[str], markers: Iterable[bytes | None]) -> list[str]:
    """Return the successors that these used ids' markers name."""
    found = [marker_or_none(marker, id_) for id_, marker in zip(used_ids, markers, strict=True)]
    return [marker.successor for marker in found if marker is not None]


def milliseconds_of(time: Sequence[bytes]) -> int:
    """Return the reply to ``TIME`` in milliseconds since the epoch."""
    seconds, microseconds = time
    return int(seconds) * 1000 + int(microseconds) // 1000


def session_key(layout: Layout, session_id: bytes) -> bytes:
    """Return the key of an id as the index holds it, which may be any bytes."""
    return layout.session_key("").encode() + session_id


def to_bytes(text: str) -> bytes:
    """Return the bytes that :func:`to_text` made text of."""
    return text.encode(errors="surrogateescape")


def to_text(id_: bytes) -> str:
    """Return an id as the index holds it as text; bytes that are no UTF-8 survive."""
    return id_.decode(errors="surrogateescape")


def row_or_none(record: bytes | None, session_id: str) -> SessionRow | None:
    """Decode a record; return None if it holds no session, or another one."""
    try:
        return None if record is None else decode_row(record, session_id)
    except MismatchedReply:
        return None


def marker_or_none(value: bytes | None, used_id: str) -> Marker | None:
    """Decode a marker; return None if the value is none, or is another id's."""
    try:
        return decode_marker(value, used_id)
    except MismatchedReply:
        return None


def decode_rows(
    user_id: str, ids: Sequence[bytes], records: Sequence[bytes | None]
) -> list[SessionRow]:
    """Decode the records of these ids; return the sessions of this user, each once."""
    rows: dict[bytes, SessionRow] = {}
    for id_, record in zip(ids, records, strict=True):
        row = row_or_none(record, to_text(id_))
        if row is not None and row.user_id == user_id:
            rows[id_] = row
    return list(rows.values())


def ids_without_record(ids: Sequence[bytes], records: Sequence[bytes | None]) -> list[bytes]:
    """Return the ids whose session is gone."""
    return [id_ for id_, record in zip(ids, records, strict=True) if record is None]


def expire_dead_sessions(layout: Layout, rows: Iterable[SessionRow], now: int) -> Operation[None]:
    """Set the expiry of sessions that are past their idle end although their keys exist (I3).

    Lucia JS writes such keys: it gives them a time to live of 57 years.
    """
    # Not by DEL: PEXPIREAT deletes only what has expired by the server's clock too.
    for block in Blocks([row for row in rows if row.idle_expires < now]):
        yield Batch(
            tuple(
                Call("PEXPIREAT", (layout.session_key(row.id), row.idle_expires)) for row in block
            )
        )


def is_prune_due(layout: Layout, length: int) -> bool:
    """Return whether a login that made an index this long checks some of its entries for dead ids.

    Every eighth login does from the sixteenth session on, which bounds the dead ids (I7) at no cost
    to most logins.
    """
    # Beside other writers an id without a session may be a login that is not complete.
    return (
        length >= 2 * PRUNE_SAMPLE_SIZE
        and not length % PRUNE_SAMPLE_SIZE
        and not layout.index.legacy_writers
    )


def check_storable(layout: Layout, row: SessionRow) -> None:
    """Refuse an id whose key could be taken for a key of another kind.

    Raises:
        ValueError: it begins with ``renewed:`` or ``throttle:``.
    """
    if not layout.is_storable(row.id):
        raise ValueError(
            "a session id may not begin with 'renewed:' or 'throttle:': such keys are markers and "
            "failed logins"
        )


def already_expired_error() -> ValueError:
    """Return the error for a session that the server would drop at once."""
    return ValueError(
        "the session's idle period is over by the server's clock: compare this machine's clock "
        "with the Redis server's"
    )
