"""Count the live sessions of a store, and the users who have them: for ``lucia sessions stats``.

Either every key is read, page by page, or a number of random keys. Nothing is kept but counts: a
user is counted at their index, if it leads to a live session, so that no set of users is needed.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from lucia._redis.commands import Call, Nodes, OnNode, Operation
from lucia._redis.doctor.findings import role_of
from lucia._redis.doctor.keys import unless_refused
from lucia._redis.index import FIRST_PAGE, IndexCursor
from lucia._redis.keys import Layout
from lucia._redis.operations import milliseconds_of, session_key, to_text
from lucia._redis.records import peek
from lucia._redis.repair import SCAN_COUNT, call_all, read_values, scan
from lucia.models import SessionRow

_Z: Final = 1.96
"""The half width of a 95 % confidence interval, in standard deviations."""


class Count(NamedTuple):
    """How many there are: an estimate, and the bounds of its 95 % confidence interval.

    Of what was counted exactly, all three are the same.
    """

    estimate: int
    low: int
    high: int


@dataclass
class Tally:
    """How many keys were read, and how many of them stand for a live session or for a user."""

    keys: int = 0
    sessions: int = 0
    users: int = 0

    def add(self, other: "Tally") -> None:
        """Add the counts of other keys."""
        self.keys += other.keys
        self.sessions += other.sessions
        self.users += other.users


def exactly(found: int) -> Count:
    """Return the count of what was counted to the end."""
    return Count(found, found, found)


def estimated(found: int, sample: int, total: int) -> Count:
    """Return the count of those in ``total`` like the ``found`` ones of a random sample.

    The interval is Wilson's, which holds for a sample without any, too.
    """
    share, squared = found / sample, _Z**2
    middle = (share + squared / (2 * sample)) / (1 + squared / sample)
    spread = (
        _Z
        * math.sqrt(share * (1 - share) / sample + squared / (4 * sample**2))
        / (1 + squared / sample)
    )
    return Count(
        round(total * share),
        math.floor(total * max(middle - spread, 0)),
        math.ceil(total * min(middle + spread, 1)),
    )


def nodes() -> Operation[list[str]]:
    """Return the names of the servers that hold the keys."""
    return list((yield Nodes()))


def number_of_keys(node: str) -> Operation[int | None]:
    """Return how many keys a node has; None if it refuses to tell."""
    count = yield from unless_refused(node, Call("DBSIZE", ()))
    return None if count is None else int(count)


def count_page(layout: Layout, node: str, cursor: int) -> Operation[tuple[int, Tally]]:
    """Count in a page of a node's keys, and return the cursor of the next, 0 at the end."""
    following, names = yield from scan(node, cursor)
    return following, (yield from _count(layout, node, names))


def count_random(layout: Layout, node: str, keys: int) -> Operation[Tally]:
    """Count in so many random keys of a node, at most a page, drawn with replacement."""
    names = yield OnNode(node, (Call("RANDOMKEY", ()),) * min(keys, SCAN_COUNT))
    # A server that has become empty meanwhile draws none.
    return (yield from _count(layout, node, [name for name in names if name is not None]))


def _count(layout: Layout, node: str, names: Sequence[bytes]) -> Operation[Tally]:
    roles = [role_of(layout, name) for name in names]
    (time,) = yield OnNode(node, (Call("TIME", ()),))
    now = milliseconds_of(time)
    prefix = layout.session_key("").encode()
    ids = [
        name.removeprefix(prefix)
        for name, role in zip(names, roles, strict=True)
        if role == "session"
    ]
    rows = yield from _live_rows(layout, node, ids, now)
    indexes = [name for name, role in zip(names, roles, strict=True) if role == "index"]
    users = yield from _count_users(layout, node, indexes, now)
    return Tally(len(names), sum(row is not None for row in rows), users)


def _live_rows(
    layout: Layout, node: str, ids: Sequence[bytes], now: int
) -> Operation[list[SessionRow | None]]:
    """Return the live session of each id, or None."""
    records = yield from read_values(node, [session_key(layout, id_) for id_ in ids])
    rows = [
        None if record is None else peek(record, to_text(id_))
        for id_, record in zip(ids, records, strict=True)
    ]
    return [row if row is not None and row.idle_expires >= now else None for row in rows]


def _count_users(layout: Layout, node: str, names: Sequence[bytes], now: int) -> Operation[int]:
    """Count the indexes that lead to a live session."""
    kinds = yield from call_all(node, [Call("TYPE", (name,)) for name in names])
    sound = [
        name for name, kind in zip(names, kinds, strict=True) if kind == layout.index.type.encode()
    ]
    # Nearly always the newest session is alive. Only where it is not, the others are read.
    newest = yield from call_all(node, [layout.index.newest(name) for name in sound])
    ids = [next(iter(found), b"") for found in newest]
    rows = yield from _live_rows(layout, node, ids, now)
    count = 0
    for name, row in zip(sound, rows, strict=True):
        count += _is_of(layout, name, row) or (yield from _has_live(layout, node, name, now))
    return count


def _has_live(layout: Layout, node: str, name: bytes, now: int) -> Operation[bool]:
    """Return whether any id in an index is that of a live session of this user."""
    cursor: IndexCursor | None = FIRST_PAGE
    while cursor is not None:
        page = yield from layout.index.read_page(name, cursor, SCAN_COUNT)
        rows = yield from _live_rows(layout, node, page.ids, now)
        if any(_is_of(layout, name, row) for row in rows):
            return True
        cursor = page.next
    return False


def _is_of(layout: Layout, name: bytes, row: SessionRow | None) -> bool:
    return row is not None and layout.index_key(row.user_id).encode() == name
