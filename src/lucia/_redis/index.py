"""A user's index of session ids, a list or a set: the one place that names the commands for it."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, Literal, NamedTuple, Protocol, cast

from lucia._redis.commands import Argument, Call, Operation
from lucia._redis.scripts import IndexScripts, index_scripts

_LIST_FUNCTIONS: Final = """
local function index_length(key) return redis.call('LLEN', key) end
local function index_ids(key) return redis.call('LRANGE', key, 0, -1) end
local function index_add(key, id) return redis.call('LPUSH', key, id) end
local function index_remove(key, id) redis.call('LREM', key, 0, id) end
local function index_remove_oldest(key, id) redis.call('LREM', key, -1, id) end
"""

_SET_FUNCTIONS: Final = """
local function index_length(key) return redis.call('SCARD', key) end
local function index_ids(key) return redis.call('SMEMBERS', key) end
local function index_add(key, id)
  redis.call('SADD', key, id)
  return redis.call('SCARD', key)
end
local function index_remove(key, id) redis.call('SREM', key, id) end
local index_remove_oldest = index_remove
"""


class IndexCursor(NamedTuple):
    """How far an index was read by pages: in a list so many entries from its oldest end, the last of which was ``anchor``.

    In a set it is the cursor of the scan, and there is no anchor.
    """

    position: int
    anchor: bytes | None = None

    def after_removing(self, count: int) -> "IndexCursor":
        """The same place, once so many of the entries before it are taken out."""
        return (
            self if self.anchor is None else IndexCursor(max(self.position - count, 0), self.anchor)
        )


class IndexPage(NamedTuple):
    """Some ids of an index, and the place where the next page begins, if there is one.

    ``has_moved`` says that entries that were read before are gone, so that others may have been missed.
    """

    ids: list[bytes]
    next: IndexCursor | None
    has_moved: bool


FIRST_PAGE: Final = IndexCursor(0)
"""Where the first page begins."""


class Index(Protocol):
    """How the ids of a user's sessions are kept at the key of an index. A value of another type there fails every command."""

    @property
    def type(self) -> Literal["list", "set"]:
        """What the command ``TYPE`` answers."""
        ...

    @property
    def legacy_writers(self) -> bool:
        """Whether others put an id into it before they write its session, and give it no end."""
        ...

    @property
    def scripts(self) -> IndexScripts:
        """The scripts that touch such an index."""
        ...

    def read(self, key: str) -> Operation[list[bytes]]:
        """Read all ids, as they are there: of a list newest first, of a set in any order."""
        ...

    def sample(
        self, key: str, count: int, length: int, random_below: Callable[[int], int]
    ) -> Operation[list[bytes]]:
        """Some ids, ``count`` at most, by chance, of an index that had this length."""
        ...

    def check(self, key: str) -> Call:
        """A cheap command that fails at a value of another type."""
        ...

    def length(self, key: Argument) -> Call:
        """The command that tells how many ids there are."""
        ...

    def add(self, key: str, session_id: str) -> tuple[Call, ...]:
        """The commands that put an id in; the last one's reply is the new length."""
        ...

    def remove(self, key: Argument, session_ids: Sequence[Argument]) -> tuple[Call, ...]:
        """The commands that take ids out."""
        ...

    def find(self, key: Argument, session_id: Argument) -> Call:
        """The command that looks for an id."""
        ...

    def is_found(self, reply: Any) -> bool:
        """Whether the reply to that says that it is there."""
        ...

    def count(self, key: Argument, session_id: Argument) -> Operation[int]:
        """How often an id is there."""
        ...

    def read_page(self, key: Argument, place: IndexCursor, size: int) -> Operation[IndexPage]:
        """About so many ids. From :data:`START` to the end, every id is seen that is there all the time, unless a page has moved."""
        ...


class ListIndex:
    """A list of ids, newest first, as in the default layout."""

    def __init__(self, *, legacy_writers: bool = False) -> None:
        self.type: Literal["list", "set"] = "list"
        self.legacy_writers = legacy_writers
        self.scripts = index_scripts("", _LIST_FUNCTIONS, legacy_writers=legacy_writers)

    def read(self, key: str) -> Operation[list[bytes]]:
        return list(cast("list[bytes]", (yield Call("LRANGE", (key, 0, -1)))))

    def sample(
        self, key: str, count: int, length: int, random_below: Callable[[int], int]
    ) -> Operation[list[bytes]]:
        first = random_below(length - count + 1)
        return list(cast("list[bytes]", (yield Call("LRANGE", (key, first, first + count - 1)))))

    def check(self, key: str) -> Call:
        return Call("LRANGE", (key, 0, 0))

    def add(self, key: str, session_id: str) -> tuple[Call, ...]:
        return (Call("LPUSH", (key, session_id)),)

    def length(self, key: Argument) -> Call:
        return Call("LLEN", (key,))

    def remove(self, key: Argument, session_ids: Sequence[Argument]) -> tuple[Call, ...]:
        return tuple(Call("LREM", (key, 0, id_)) for id_ in session_ids)

    def find(self, key: Argument, session_id: Argument) -> Call:
        return Call("LPOS", (key, session_id))

    def is_found(self, reply: Any) -> bool:
        return reply is not None

    def count(self, key: Argument, session_id: Argument) -> Operation[int]:
        return len((yield Call("LPOS", (key, session_id, "COUNT", 0))))

    def read_page(self, key: Argument, place: IndexCursor, size: int) -> Operation[IndexPage]:
        """Pages from the oldest end, where logins move nothing; each begins with a second look at the entry before it."""
        ids = list(
            cast(
                "list[bytes]",
                (yield Call("LRANGE", (key, -(place.position + size), -max(place.position, 1)))),
            )
        )
        is_last = len(ids) < size + min(place.position, 1)
        has_moved = bool(place.position) and ids[-1:] != [place.anchor]
        if place.position:
            ids = ids[:-1]
        return IndexPage(
            ids, None if is_last else IndexCursor(place.position + len(ids), ids[0]), has_moved
        )


class SetIndex:
    """A set of ids, as in the layout ``lucia-v2``."""

    def __init__(self, *, legacy_writers: bool = False) -> None:
        self.type: Literal["list", "set"] = "set"
        self.legacy_writers = legacy_writers
        self.scripts = index_scripts(" set", _SET_FUNCTIONS, legacy_writers=legacy_writers)

    def read(self, key: str) -> Operation[list[bytes]]:
        members = yield Call("SMEMBERS", (key,))
        return list(cast("Iterable[bytes]", members))  # some clients return a set

    def sample(
        self, key: str, count: int, length: int, random_below: Callable[[int], int]
    ) -> Operation[list[bytes]]:
        return sorted(cast("list[bytes]", (yield Call("SRANDMEMBER", (key, count)))))

    def check(self, key: str) -> Call:
        return Call("SCARD", (key,))

    def add(self, key: str, session_id: str) -> tuple[Call, ...]:
        return Call("SADD", (key, session_id)), self.check(key)

    def length(self, key: Argument) -> Call:
        return Call("SCARD", (key,))

    def remove(self, key: Argument, session_ids: Sequence[Argument]) -> tuple[Call, ...]:
        return (Call("SREM", (key, *session_ids)),)

    def find(self, key: Argument, session_id: Argument) -> Call:
        return Call("SISMEMBER", (key, session_id))

    def is_found(self, reply: Any) -> bool:
        return bool(reply)

    def count(self, key: Argument, session_id: Argument) -> Operation[int]:
        return int((yield self.find(key, session_id)))

    def read_page(self, key: Argument, place: IndexCursor, size: int) -> Operation[IndexPage]:
        cursor, ids = yield Call("SSCAN", (key, place.position, "COUNT", size))
        return IndexPage(
            sorted(ids), IndexCursor(int(cursor)) if int(cursor) else None, has_moved=False
        )


LIST: Final = ListIndex()
SET: Final = SetIndex()
LEGACY_LIST: Final = ListIndex(legacy_writers=True)
LEGACY_SET: Final = SetIndex(legacy_writers=True)
