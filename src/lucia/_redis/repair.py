"""What mends a session store while the application goes on using it: for ``lucia doctor``, and for the adapters' ``reindex``.

Each step looks again at the moment at which it changes something. Ids are used once, and a session is written before its index entry: so
what was ended stays ended, and an id that is pushed to an index although its session was ended meanwhile is taken out again, by the
second look or, if that is lost, by whoever reads the index next.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Final, Literal, NamedTuple, Protocol, TypeVar

from lucia._redis.cluster import PROVISIONAL_MS, SlotSteps
from lucia._redis.commands import Argument, Batch, Call, Eval, Nodes, OnNode, Operation, Reply
from lucia._redis.operations import milliseconds_of, session_key, to_bytes, to_text
from lucia._redis.records import Layout, peek
from lucia._redis.scripts import ALREADY_EXPIRED, NOW, Script
from lucia.models import SessionRow

T = TypeVar("T")

SCAN_COUNT: Final = 500
"""About how many keys are looked at together."""

AT_ONCE: Final = 100
"""How many quick commands are sent together."""

ENTRIES_AT_ONCE: Final = 100_000
"""How many entries are searched together for ids: that takes the server some milliseconds."""

SETTLE_TRIES: Final = 3
"""How often a session whose record changes meanwhile is looked at, where no script can."""

Entry = tuple[Argument, Argument]
"""An index's key and an id."""

Led = SessionRow | Literal["gone", "damaged"]
"""What an id leads to."""

_GLOB: Final = re.compile(rb"([*?\[\]\\^-])")


SETTLE: Final = Script(
    "settle",
    """
-- KEYS: session. ARGV: its record as it was seen, its idle end in ms. Lets it end then, and returns 1; 0 if it holds another record.
if redis.call('MGET', KEYS[1])[1] ~= ARGV[1] then return 0 end
return redis.call('PEXPIREAT', KEYS[1], ARGV[2])
""",
    repeatable=True,
)

EXTEND: Final = Script(
    "extend",
    f"""
-- KEYS: a key. ARGV: an end in ms, '1' to give it also to a key without one. Lets the key not end before; never shortens its life.
{NOW}
local ttl = redis.call('PTTL', KEYS[1])
if (ttl == -1 and ARGV[2] == '1') or (ttl >= 0 and now + ttl < tonumber(ARGV[1])) then
  return redis.call('PEXPIREAT', KEYS[1], ARGV[1])
end
return 0
""",
    repeatable=True,
)

ERASE: Final = Script(
    "erase",
    """
-- KEYS: a key. ARGV: its type as it was seen, and its value if that was a string. Deletes it and returns 1; 0 if it is another by now.
if redis.call('TYPE', KEYS[1]).ok ~= ARGV[1] then return 0 end
if ARGV[1] == 'string' and redis.call('MGET', KEYS[1])[1] ~= ARGV[2] then return 0 end
return redis.call('UNLINK', KEYS[1])
""",
    repeatable=True,
)

SINGLE: Final = Script(
    "single",
    """
-- KEYS: an index that is a list. ARGV: an id. Leaves its oldest entry of this id alone; returns how many were taken out.
local count = #redis.call('LPOS', KEYS[1], ARGV[1], 'COUNT', 0)
if count < 2 then return 0 end
return redis.call('LREM', KEYS[1], count - 1, ARGV[1])
""",
    repeatable=True,
)


class Reindexed(NamedTuple):
    """What ``reindex`` did.

    Args:
        sessions: how many live sessions it saw.
        indexed: how many of them were in no index and are in their user's now.
    """

    sessions: int
    indexed: int


class RepairOperations(Protocol):
    """What changes one key only if it still is as it was seen."""

    def settle(self, key: bytes, record: bytes, row: SessionRow) -> Operation[bool]:
        """Let a session end at its idle end, at once if that is past, while it holds this record; says whether it did."""
        ...

    def extend(self, key: bytes, expires: int, *, endless: bool) -> Operation[bool]:
        """Let a key that ends before ``expires`` end then, with ``endless`` also one that has no end; says whether it does."""
        ...

    def erase(self, key: bytes, kind: bytes, value: bytes | None) -> Operation[bool]:
        """Delete a key while it has this type, and this value if it is a string; says whether it did."""
        ...

    def single(self, index: bytes, session_id: bytes) -> Operation[bool]:
        """Leave the oldest entry of an id in a list alone; says whether it did."""
        ...


class ScriptedMends:
    """One script for each."""

    def settle(self, key: bytes, record: bytes, row: SessionRow) -> Operation[bool]:
        return bool((yield Eval(SETTLE, (key,), (record, row.idle_expires))))

    def extend(self, key: bytes, expires: int, *, endless: bool) -> Operation[bool]:
        yield Eval(EXTEND, (key,), (expires, int(endless)))
        return True

    def erase(self, key: bytes, kind: bytes, value: bytes | None) -> Operation[bool]:
        return bool((yield Eval(ERASE, (key,), (kind, value or b""))))

    def single(self, index: bytes, session_id: bytes) -> Operation[bool]:
        return bool((yield Eval(SINGLE, (index,), (session_id,))))


class PlainMends:
    """Commands alone, each between two looks."""

    def settle(self, key: bytes, record: bytes, row: SessionRow) -> Operation[bool]:
        """The end that is set is that of the record that is there afterwards: another one is looked at anew."""
        for _ in range(SETTLE_TRIES):
            if (yield Call("MGET", (key,)))[0] != record:
                return False
            yield Call("PEXPIREAT", (key, row.idle_expires))
            after: bytes | None = (yield Call("MGET", (key,)))[0]
            changed = None if after is None or after == record else peek(after, row.id)
            if after is None or changed is None:
                return True
            record, row = after, changed
        return False

    def extend(self, key: bytes, expires: int, *, endless: bool) -> Operation[bool]:
        if endless:
            yield Call("PEXPIREAT", (key, expires, "NX"))
        yield Call("PEXPIREAT", (key, expires, "GT"))
        return True

    def erase(self, key: bytes, kind: bytes, value: bytes | None) -> Operation[bool]:
        if (yield Call("TYPE", (key,))) != kind or (yield Call("MGET", (key,)))[0] != value:
            return False
        return bool((yield Call("UNLINK", (key,))))

    def single(self, index: bytes, session_id: bytes) -> Operation[bool]:
        """Nothing: twice in a list does no harm, and two who mend it at once without a script could take out both."""
        yield from ()
        return False


def scan(node: str, cursor: int, pattern: bytes = b"*") -> Operation[tuple[int, list[bytes]]]:
    """Some keys of a node, each once, and the cursor of the next ones, which is 0 at the end."""
    ((following, names),) = yield OnNode(
        node, (Call("SCAN", (cursor, "MATCH", pattern, "COUNT", SCAN_COUNT)),)
    )
    return int(following), list(dict.fromkeys(names))


def literally(prefix: str) -> bytes:
    """The pattern of all keys that begin so."""
    return _GLOB.sub(rb"\\\1", prefix.encode()) + b"*"


def together(node: str, calls: Sequence[Call]) -> Operation[list[Reply]]:
    """The replies to commands on any keys: a few at once where one server has all, which then has others' commands in between."""
    replies: list[Reply] = []
    for start in range(0, len(calls), AT_ONCE):
        some = tuple(calls[start : start + AT_ONCE])
        replies += yield OnNode(node, some) if node == "" else Batch(some)
    return replies


def read_together(node: str, keys: Iterable[Argument]) -> Operation[list[bytes | None]]:
    """The strings at these keys, None where there is none, as :func:`together`."""
    replies = yield from together(node, [Call("MGET", (key,)) for key in keys])
    return [value for (value,) in replies]


def led_to(layout: Layout, node: str, ids: Sequence[bytes]) -> Operation[dict[bytes, Led]]:
    """What each id in an index leads to."""
    records = yield from read_together(node, [session_key(layout, id_) for id_ in ids])
    return {
        id_: "gone" if record is None else peek(record, to_text(id_)) or "damaged"
        for id_, record in zip(ids, records, strict=True)
    }


def is_whole(ttl: int) -> bool:
    """Whether a session with so much of its life left is not one of ten seconds that is in the making."""
    return ttl == -1 or ttl > PROVISIONAL_MS


def _in_parts(entries: Sequence[Entry], costs: Sequence[int]) -> list[list[Entry]]:
    """The entries in parts that cost no more than is done at once, if they are more than one."""
    parts: list[list[Entry]] = []
    spent = 0
    for entry, cost in zip(entries, costs, strict=True):
        if not parts or spent + cost > ENTRIES_AT_ONCE:
            parts.append([])
            spent = 0
        parts[-1].append(entry)
        spent += cost
    return parts


class Repair:
    """Finds sessions without their index, and puts them there."""

    def __init__(self, layout: Layout, steps: SlotSteps) -> None:
        self._layout = layout
        self._steps = steps

    def unindexed(self, node: str, rows: Sequence[SessionRow]) -> Operation[list[SessionRow]]:
        """Those of a node's live sessions that are not in their user's index, since they are not there or it is of another type.

        A session that was ended between the two looks at it is none of them.
        """
        index, keys = self._layout.index, [self._layout.index_key(row.user_id) for row in rows]
        kinds = yield from together(node, [Call("TYPE", (key,)) for key in keys])
        sound = [
            (row, key)
            for row, key, kind in zip(rows, keys, kinds, strict=True)
            if kind == index.type.encode()
        ]
        are_held = yield from self.held(node, [(key, row.id) for row, key in sound])
        found = {row.id for (row, _), is_held in zip(sound, are_held, strict=True) if is_held}
        absent = [row for row in rows if row.id not in found]
        records = yield from read_together(
            node, [self._layout.session_key(row.id) for row in absent]
        )
        return [row for row, record in zip(absent, records, strict=True) if record is not None]

    def held(self, node: str, entries: Sequence[Entry]) -> Operation[list[bool]]:
        """Whether each id is in the index at this key; so many are looked for together that the server is not kept for long."""
        index, keys = self._layout.index, list(dict.fromkeys(key for key, _ in entries))
        lengths = dict(
            zip(keys, (yield from together(node, [index.length(key) for key in keys])), strict=True)
        )
        held: list[bool] = []
        for some in _in_parts(entries, [lengths[key] for key, _ in entries]):
            replies = yield from together(node, [index.find(key, id_) for key, id_ in some])
            held += [index.is_found(reply) for reply in replies]
        return held

    def index(self, row: SessionRow) -> Operation[bool]:
        """Put a session into its user's index, which lives as long at least; says whether it is there.

        It is not if it was ended meanwhile, or if the index is of another type, which is left as it is.
        """
        index, key = self._layout.index, self._layout.index_key(row.user_id)
        if (yield Call("TYPE", (key,))) not in (b"none", index.type.encode()):
            return False
        if (
            yield from self._steps.add_to_index(index, key, row.id, row.idle_expires)
        ) == ALREADY_EXPIRED:
            return False
        if (yield Call("MGET", (self._layout.session_key(row.id),)))[0] is not None:
            return True
        yield from self._steps.remove_from_index(index, key, [to_bytes(row.id)])
        return False

    def reindex(self) -> Operation[Reindexed]:
        """Put every live session that is in no index into its user's."""
        pages = yield from self._each_page(self._reindex_page)
        return Reindexed(sum(page.sessions for page in pages), sum(page.indexed for page in pages))

    def delete_by_scan(
        self, user_id: str, delete: Callable[[Iterable[str]], Operation[None]]
    ) -> Operation[None]:
        """End all sessions of a user, also those that are in no index: looks at every session that there is."""

        def delete_in_page(_node: str, rows: Sequence[SessionRow]) -> Operation[None]:
            if ids := [row.id for row in rows if row.user_id == user_id]:
                yield from delete(ids)

        yield from self._each_page(delete_in_page)

    def _reindex_page(self, node: str, rows: Sequence[SessionRow]) -> Operation[Reindexed]:
        indexed = 0
        for row in (yield from self.unindexed(node, rows)):
            indexed += yield from self.index(row)
        return Reindexed(len(rows), indexed)

    def _each_page(
        self, visit: Callable[[str, Sequence[SessionRow]], Operation[T]]
    ) -> Operation[list[T]]:
        """What ``visit`` returns for the live sessions of each page of each node."""
        found: list[T] = []
        for node in (yield Nodes()):
            cursor: int | None = None
            while cursor != 0:
                cursor, rows = yield from self._scan_live(node, cursor or 0)
                found.append((yield from visit(node, rows)))
        return found

    def _scan_live(self, node: str, cursor: int) -> Operation[tuple[int, list[SessionRow]]]:
        prefix = self._layout.session_key("")
        cursor, names = yield from scan(node, cursor, literally(prefix))
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
