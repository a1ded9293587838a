"""Repair a session store while the application uses it: for ``lucia doctor`` and ``reindex``.

Each change compares the key again with what was read before. Two rules of the protocol make that
safe: ids are used once (I6), and a session is written before its index entry. So a revoked session
stays revoked. An id may be added to an index just after its session was revoked: the check that
follows removes it again or, if the process dies in between, the next reader of the index does.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Final, Literal, NamedTuple, Protocol, TypeVar

from lucia._redis.cluster import PROVISIONAL_MS, SlotSteps
from lucia._redis.commands import Argument, Batch, Call, Eval, Nodes, OnNode, Operation, Reply
from lucia._redis.keys import Layout
from lucia._redis.operations import milliseconds_of, session_key, to_bytes, to_text
from lucia._redis.records import peek
from lucia._redis.scripts import ALREADY_EXPIRED, NOW, Script
from lucia.models import SessionRow

T = TypeVar("T")

SCAN_COUNT: Final = 500
"""About how many keys make a page."""

CALLS_PER_BATCH: Final = 100
"""How many quick commands are sent in one batch."""

MAX_ENTRIES_SEARCHED: Final = 100_000
"""How many index entries one batch may search: that takes the server some milliseconds."""

SET_EXPIRY_TRIES: Final = 3
"""How often the expiry of a session is set again because its record changed, without scripts."""

Entry = tuple[Argument, Argument]
"""An index's key and an id."""

ResolvedId = SessionRow | Literal["gone", "damaged"]
"""The value that an id in an index leads to."""

_GLOB: Final = re.compile(rb"([*?\[\]\\^-])")


SET_EXPIRY: Final = Script(
    "set_expiry",
    """
-- KEYS: a session. ARGV: its record as it was read, its expiry in ms.
-- Sets the expiry and returns 1, or returns 0 if the key holds another record.
if redis.call('MGET', KEYS[1])[1] ~= ARGV[1] then return 0 end
return redis.call('PEXPIREAT', KEYS[1], ARGV[2])
""",
    repeatable=True,
)

EXTEND_EXPIRY: Final = Script(
    "extend_expiry",
    f"""
-- KEYS: a key. ARGV: an expiry in ms, '1' to give it also to a key without one.
-- Extends the key's life to at least that time, and never shortens it.
{NOW}
local ttl = redis.call('PTTL', KEYS[1])
if (ttl == -1 and ARGV[2] == '1') or (ttl >= 0 and now + ttl < tonumber(ARGV[1])) then
  return redis.call('PEXPIREAT', KEYS[1], ARGV[1])
end
return 0
""",
    repeatable=True,
)

DELETE_UNCHANGED: Final = Script(
    "delete_unchanged",
    """
-- KEYS: a key. ARGV: its type as it was read, and its value if it was a string.
-- Deletes it and returns 1, or returns 0 if it has changed.
if redis.call('TYPE', KEYS[1]).ok ~= ARGV[1] then return 0 end
if ARGV[1] == 'string' and redis.call('MGET', KEYS[1])[1] ~= ARGV[2] then return 0 end
return redis.call('UNLINK', KEYS[1])
""",
    repeatable=True,
)

REMOVE_DUPLICATES: Final = Script(
    "remove_duplicates",
    """
-- KEYS: an index that is a list. ARGV: an id.
-- Keeps the oldest entry of this id, and returns how many others were removed.
local count = #redis.call('LPOS', KEYS[1], ARGV[1], 'COUNT', 0)
if count < 2 then return 0 end
return redis.call('LREM', KEYS[1], count - 1, ARGV[1])
""",
    repeatable=True,
)


class Reindexed(NamedTuple):
    """The result of ``reindex``.

    Args:
        sessions: how many live sessions there are.
        indexed: how many of them were missing from their user's index, and were added to it.
    """

    sessions: int
    indexed: int


class RepairOperations(Protocol):
    """Changes of one key, each made only if the key still is as it was read."""

    def set_expiry(self, key: bytes, record: bytes, row: SessionRow) -> Operation[bool]:
        """Set the expiry of a session's key to the session's own, if it still holds this record.

        An expiry in the past deletes the key. Returns whether it was set.
        """
        ...

    def extend_expiry(self, key: bytes, expires: int, *, endless: bool) -> Operation[bool]:
        """Extend the life of a key to ``expires``.

        With ``endless``, a key without an expiry gets this one. A longer life is never shortened.
        Returns True.
        """
        ...

    def delete_unchanged(self, key: bytes, kind: bytes, value: bytes | None) -> Operation[bool]:
        """Delete a key if it still has this type, and this value if it is a string."""
        ...

    def remove_duplicates(self, index: bytes, session_id: bytes) -> Operation[bool]:
        """Keep only the oldest entry of an id in a list, and return whether others were removed."""
        ...


class ScriptedRepairs:
    """Makes each change by one script."""

    def set_expiry(self, key: bytes, record: bytes, row: SessionRow) -> Operation[bool]:
        return bool((yield Eval(SET_EXPIRY, (key,), (record, row.idle_expires))))

    def extend_expiry(self, key: bytes, expires: int, *, endless: bool) -> Operation[bool]:
        yield Eval(EXTEND_EXPIRY, (key,), (expires, int(endless)))
        return True

    def delete_unchanged(self, key: bytes, kind: bytes, value: bytes | None) -> Operation[bool]:
        return bool((yield Eval(DELETE_UNCHANGED, (key,), (kind, value or b""))))

    def remove_duplicates(self, index: bytes, session_id: bytes) -> Operation[bool]:
        return bool((yield Eval(REMOVE_DUPLICATES, (index,), (session_id,))))


class PlainRepairs:
    """Makes each change by plain commands, with a check before and after."""

    def set_expiry(self, key: bytes, record: bytes, row: SessionRow) -> Operation[bool]:
        """Set the expiry, then read the record again."""
        for _ in range(SET_EXPIRY_TRIES):
            if (yield Call("MGET", (key,)))[0] != record:
                return False
            yield Call("PEXPIREAT", (key, row.idle_expires))
            # If the record was replaced between the check and PEXPIREAT, the key has the expiry of
            # the old record now, and that of the new one is set in the next round.
            after: bytes | None = (yield Call("MGET", (key,)))[0]
            changed = None if after is None or after == record else peek(after, row.id)
            if after is None or changed is None:
                return True
            record, row = after, changed
        return False

    def extend_expiry(self, key: bytes, expires: int, *, endless: bool) -> Operation[bool]:
        # GT takes a key without an expiry for one that lives longest, so NX comes first.
        if endless:
            yield Call("PEXPIREAT", (key, expires, "NX"))
        yield Call("PEXPIREAT", (key, expires, "GT"))
        return True

    def delete_unchanged(self, key: bytes, kind: bytes, value: bytes | None) -> Operation[bool]:
        # For a key that is no string, MGET returns nil, and the value is None too.
        if (yield Call("TYPE", (key,))) != kind or (yield Call("MGET", (key,)))[0] != value:
            return False
        return bool((yield Call("UNLINK", (key,))))

    def remove_duplicates(self, index: bytes, session_id: bytes) -> Operation[bool]:
        """Do nothing: without a script, two processes at once could remove every entry.

        Duplicates do no harm.
        """
        yield from ()
        return False


def scan(node: str, cursor: int, pattern: bytes = b"*") -> Operation[tuple[int, list[bytes]]]:
    """Return a page of a node's keys, each once, and the cursor of the next page, 0 at the end."""
    ((following, names),) = yield OnNode(
        node, (Call("SCAN", (cursor, "MATCH", pattern, "COUNT", SCAN_COUNT)),)
    )
    return int(following), list(dict.fromkeys(names))


def prefix_pattern(prefix: str) -> bytes:
    """Return the ``SCAN`` pattern of all keys with this prefix."""
    return _GLOB.sub(rb"\\\1", prefix.encode()) + b"*"


def call_all(node: str, calls: Sequence[Call]) -> Operation[list[Reply]]:
    """Send commands on any keys, and return their replies."""
    replies: list[Reply] = []
    # In small batches, so that the server serves other clients in between.
    for start in range(0, len(calls), CALLS_PER_BATCH):
        some = tuple(calls[start : start + CALLS_PER_BATCH])
        # In a cluster the keys are on several nodes.
        replies += yield OnNode(node, some) if node == "" else Batch(some)
    return replies


def read_values(node: str, keys: Iterable[Argument]) -> Operation[list[bytes | None]]:
    """Return the strings at these keys, None where there is none."""
    replies = yield from call_all(node, [Call("MGET", (key,)) for key in keys])
    return [value for (value,) in replies]


def resolve_ids(
    layout: Layout, node: str, ids: Sequence[bytes]
) -> Operation[dict[bytes, ResolvedId]]:
    """Return what is stored under each id of an index."""
    records = yield from read_values(node, [session_key(layout, id_) for id_ in ids])
    return {
        id_: "gone" if record is None else peek(record, to_text(id_)) or "damaged"
        for id_, record in zip(ids, records, strict=True)
    }


def is_whole(ttl: int) -> bool:
    """Return whether a session with this ``PTTL`` is complete.

    A cluster writes a session with a life of ten seconds first, and extends it once the session is
    in its index.
    """
    return ttl == -1 or ttl > PROVISIONAL_MS


def _in_parts(entries: Sequence[Entry], costs: Sequence[int]) -> list[list[Entry]]:
    """Split entries into parts whose summed cost is at most :data:`MAX_ENTRIES_SEARCHED`.

    An entry that costs more is a part of its own.
    """
    parts: list[list[Entry]] = []
    spent = 0
    for entry, cost in zip(entries, costs, strict=True):
        if not parts or spent + cost > MAX_ENTRIES_SEARCHED:
            parts.append([])
            spent = 0
        parts[-1].append(entry)
        spent += cost
    return parts


class Repair:
    """Finds live sessions that are missing from their user's index, and adds them."""

    def __init__(self, layout: Layout, steps: SlotSteps) -> None:
        self._layout = layout
        self._steps = steps

    def unindexed(self, node: str, rows: Sequence[SessionRow]) -> Operation[list[SessionRow]]:
        """Return those of a node's live sessions that are not in their user's index.

        The index may lack them, or its key may hold a value of another type.
        """
        index, keys = self._layout.index, [self._layout.index_key(row.user_id) for row in rows]
        kinds = yield from call_all(node, [Call("TYPE", (key,)) for key in keys])
        sound = [
            (row, key)
            for row, key, kind in zip(rows, keys, kinds, strict=True)
            if kind == index.type.encode()
        ]
        are_indexed = yield from self.are_indexed(node, [(key, row.id) for row, key in sound])
        found = {
            row.id for (row, _), is_indexed in zip(sound, are_indexed, strict=True) if is_indexed
        }
        absent = [row for row in rows if row.id not in found]
        # Read once more: a session that was revoked meanwhile has left its index rightly.
        records = yield from read_values(node, [self._layout.session_key(row.id) for row in absent])
        return [row for row, record in zip(absent, records, strict=True) if record is not None]

    def are_indexed(self, node: str, entries: Sequence[Entry]) -> Operation[list[bool]]:
        """Return for each key of an index and id whether the id is in it."""
        index, keys = self._layout.index, list(dict.fromkeys(key for key, _ in entries))
        lengths = dict(
            zip(keys, (yield from call_all(node, [index.length(key) for key in keys])), strict=True)
        )
        found: list[bool] = []
        # LPOS reads a list from one end. So the searches of one batch are limited by the lengths of
        # the lists, for the server to serve others in between.
        for some in _in_parts(entries, [lengths[key] for key, _ in entries]):
            replies = yield from call_all(node, [index.find(key, id_) for key, id_ in some])
            found += [index.is_found(reply) for reply in replies]
        return found

    def add_to_index(self, row: SessionRow) -> Operation[bool]:
        """Add a session to its user's index, which then lives at least as long.

        Returns:
            Whether it is there now. It is not if it was revoked meanwhile, or if the key of the
            index holds a value of another type, which is left as it is.
        """
        index, key = self._layout.index, self._layout.index_key(row.user_id)
        if (yield Call("TYPE", (key,))) not in (b"none", index.type.encode()):
            return False
        if (
            yield from self._steps.add_to_index(index, key, row.id, row.idle_expires)
        ) == ALREADY_EXPIRED:
            return False
        # Revoking deletes the session first, then removes its id. If it was deleted before this
        # read, the removal may have been before the id was added: so remove it here. If it is
        # deleted after this read, the removal is still to come.
        if (yield Call("MGET", (self._layout.session_key(row.id),)))[0] is not None:
            return True
        yield from self._steps.remove_from_index(index, key, [to_bytes(row.id)])
        return False

    def reindex(self) -> Operation[Reindexed]:
        """Add every live session that is missing from its user's index to it."""
        pages = yield from self._each_page(self._reindex_page)
        return Reindexed(sum(page.sessions for page in pages), sum(page.indexed for page in pages))

    def delete_by_scan(
        self, user_id: str, delete: Callable[[Iterable[str]], Operation[None]]
    ) -> Operation[None]:
        """Revoke all sessions of a user, also those in no index: reads every session there is."""

        def delete_in_page(_node: str, rows: Sequence[SessionRow]) -> Operation[None]:
            if ids := [row.id for row in rows if row.user_id == user_id]:
                yield from delete(ids)

        yield from self._each_page(delete_in_page)

    def _reindex_page(self, node: str, rows: Sequence[SessionRow]) -> Operation[Reindexed]:
        indexed = 0
        for row in (yield from self.unindexed(node, rows)):
            indexed += yield from self.add_to_index(row)
        return Reindexed(len(rows), indexed)

    def _each_page(
        self, visit: Callable[[str, Sequence[SessionRow]], Operation[T]]
    ) -> Operation[list[T]]:
        """Call ``visit`` with the live sessions of each page of each node; return the results."""
        found: list[T] = []
        for node in (yield Nodes()):
            cursor: int | None = None
            while cursor != 0:
                cursor, rows = yield from self._scan_live(node, cursor or 0)
                found.append((yield from visit(node, rows)))
        return found

    def _scan_live(self, node: str, cursor: int) -> Operation[tuple[int, list[SessionRow]]]:
        prefix = self._layout.session_key("")
        cursor, names = yield from scan(node, cursor, prefix_pattern(prefix))
        ids = [to_text(name.removeprefix(prefix.encode())) for name in names]
        wanted = [
            (id_, name)
            for id_, name in zip(ids, names, strict=True)
            if self._layout.is_storable(id_)
        ]
        calls = [
            call for _, name in wanted for call in (Call("PTTL", (name,)), Call("MGET", (name,)))
        ]
        time, *replies = yield OnNode(node, (Call("TIME", ()), *calls))
        rows = [
            peek(record, id_)
            for (id_, _), ttl, (record,) in zip(wanted, replies[::2], replies[1::2], strict=True)
            if record is not None and is_whole(ttl)
        ]
        return cursor, [
            row for row in rows if row is not None and row.idle_expires > milliseconds_of(time)
        ]
