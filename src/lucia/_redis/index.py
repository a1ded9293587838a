"""A user's index of session ids, a list or a set, and the commands for both."""

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
    """How far an index was read page by page.

    Args:
        position: in a list, how many entries were read, counted from the oldest; in a set, the
            cursor of ``SSCAN``.
        anchor: in a list, the last entry that was read.
    """

    position: int
    anchor: bytes | None = None

    def after_removing(self, count: int) -> "IndexCursor":
        """Return the cursor after so many of the entries that were read are removed."""
        return (
            self if self.anchor is None else IndexCursor(max(self.position - count, 0), self.anchor)
        )


class IndexPage(NamedTuple):
    """Some ids of an index.

    Args:
        ids: in the order of the index.
        next: where the next page begins; None after the last one.
        has_moved: whether entries that were read before are gone, so that others may have been
            skipped.
    """

    ids: list[bytes]
    next: IndexCursor | None
    has_moved: bool


FIRST_PAGE: Final = IndexCursor(0)


class Index(Protocol):
    """The commands for one kind of index. They fail if the key holds a value of another type."""

    @property
    def type(self) -> Literal["list", "set"]:
        """The reply to ``TYPE``."""
        ...

    @property
    def legacy_writers(self) -> bool:
        """Whether others add an id before they write its session, and set no expiry."""
        ...

    @property
    def scripts(self) -> IndexScripts:
        """The scripts for such an index."""
        ...

    def read(self, key: str) -> Operation[list[bytes]]:
        """Read all ids: of a list newest first, of a set in any order."""
        ...

    def sample(
        self, key: str, count: int, length: int, random_below: Callable[[int], int]
    ) -> Operation[list[bytes]]:
        """Read at most ``count`` random ids of an index that had this length."""
        ...

    def newest(self, key: Argument) -> Call:
        """Return the command that reads the newest id of a list, or any id of a set."""
        ...

    def check(self, key: str) -> Call:
        """Return a cheap command that fails if the key holds a value of another type."""
        ...

    def length(self, key: Argument) -> Call:
        """Return the command that counts the ids."""
        ...

    def add(self, key: str, session_id: str) -> tuple[Call, ...]:
        """Return the commands that add an id; the last one's reply is the new length."""
        ...

    def remove(self, key: Argument, session_ids: Sequence[Argument]) -> tuple[Call, ...]:
        """Return the commands that remove ids."""
        ...

    def find(self, key: Argument, session_id: Argument) -> Call:
        """Return the command that searches for an id."""
        ...

    def is_found(self, reply: Any) -> bool:
        """Return whether the reply to :meth:`find` says that the id is there."""
        ...

    def count(self, key: Argument, session_id: Argument) -> Operation[int]:
        """Count the entries of an id."""
        ...

    def read_page(self, key: Argument, cursor: IndexCursor, size: int) -> Operation[IndexPage]:
        """Read about so many ids.

        From :data:`FIRST_PAGE` to the end, every id is read that is there all the time, unless a
        page says that it has moved.
        """
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

    def newest(self, key: Argument) -> Call:
        return Call("LRANGE", (key, 0, 0))

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

    def read_page(self, key: Argument, cursor: IndexCursor, size: int) -> Operation[IndexPage]:
        """Read pages from the oldest end: logins are added at the other end, and move nothing."""
        # Each page reads the last entry of the page before once more. If it is another one now,
        # entries were removed meanwhile, and others moved into the part that was read.
        ids = list(
            cast(
                "list[bytes]",
                # At most -1, since -0 would be the other end of the list.
                (yield Call("LRANGE", (key, -(cursor.position + size), -max(cursor.position, 1)))),
            )
        )
        is_last = len(ids) < size + min(cursor.position, 1)
        has_moved = bool(cursor.position) and ids[-1:] != [cursor.anchor]
        if cursor.position:
            ids = ids[:-1]
        return IndexPage(
            ids, None if is_last else IndexCursor(cursor.position + len(ids), ids[0]), has_moved
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

    def newest(self, key: Argument) -> Call:
        return Call("SRANDMEMBER", (key, 1))

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

    def read_page(self, key: Argument, cursor: IndexCursor, size: int) -> Operation[IndexPage]:
        position, ids = yield Call("SSCAN", (key, cursor.position, "COUNT", size))
        following = IndexCursor(int(position)) if int(position) else None
        return IndexPage(sorted(ids), following, has_moved=False)


LIST: Final = ListIndex()
SET: Final = SetIndex()
LEGACY_LIST: Final = ListIndex(legacy_writers=True)
LEGACY_SET: Final = SetIndex(legacy_writers=True)
