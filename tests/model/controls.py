"""Protocols that are known to be wrong. The explorer has to find out: a model that misses them proves nothing."""

from collections.abc import Callable

from lucia.models import SessionRow
from lucia.redis.commands import Batch, Call, Operation
from lucia.redis.common import follow, marker_or_none, to_text
from lucia.redis.layout import Marker, encode_marker, encode_row
from lucia.redis.session_first import INDEX_SLACK_MS, Scripted, SessionFirst
from lucia.rules import MARKER_MS


class IndexFirst(SessionFirst):
    """Puts the id into the index, then writes the session: a sign-out in between takes the id out for good."""

    def create(self, row: SessionRow, random_below: Callable[[int], int]) -> Operation[None]:
        yield from self._steps.push(self._layout.index_key(row.user_id), row.id, row.idle_expires)
        yield Call("SET", (self._layout.session_key(row.id), encode_row(row), "NX", "PXAT", row.idle_expires))


class Original(SessionFirst):
    """What the JavaScript adapter does: both writes side by side, and a sign-out everywhere that deletes the index."""

    def create(self, row: SessionRow, random_below: Callable[[int], int]) -> Operation[None]:
        index = self._layout.index_key(row.user_id)
        write = Call("SET", (self._layout.session_key(row.id), encode_row(row), "PXAT", row.idle_expires))
        yield Batch((Call("LPUSH", (index, row.id)), write))
        yield Call("PEXPIREAT", (index, row.idle_expires + INDEX_SLACK_MS))

    def delete_by_user(self, user_id: str, keep: str | None = None) -> Operation[bool]:
        index = self._layout.index_key(user_id)
        ids: list[bytes] = yield Call("LRANGE", (index, 0, -1))
        yield Batch(tuple(Call("DEL", (self._layout.session_key(to_text(id_)),)) for id_ in ids))
        yield Call("DEL", (index,))
        return False


class IndexDeleted(SessionFirst):
    """The shipped protocol, but a sign-out everywhere deletes the index and with it the ids that it did not see."""

    def delete_by_user(self, user_id: str, keep: str | None = None) -> Operation[bool]:
        index = self._layout.index_key(user_id)
        ids: list[bytes] = yield Call("LRANGE", (index, 0, -1))
        yield from self._end(map(to_text, ids), set())
        yield Call("DEL", (index,))
        return False


class PointerFirst(SessionFirst):
    """A renewal that names its successor before it makes it: a crash in between leaves a promise that others keep, or nobody."""

    def renew(self, used_id: str, successor: SessionRow, grace: int) -> Operation[SessionRow | None]:
        used, pointer = self._layout.session_key(used_id), self._layout.marker_key(used_id)
        own = Marker(used_id, successor.id, grace)
        won = yield Call("SET", (pointer, encode_marker(own), "NX", "PX", MARKER_MS))
        if not won:
            (value,) = yield Call("MGET", (pointer,))
            marker = marker_or_none(value, used_id)
            return (yield from follow(self._layout, None if marker is None else marker.successor))
        if (yield Call("MGET", (used,)))[0] is None:
            return None
        yield from self._make(successor)
        yield Call("DEL", (used,))
        return successor


class CreateThenDelete(SessionFirst):
    """A renewal without a marker: a sign-out everywhere that saw the used id alone never hears of the successor."""

    def renew(self, used_id: str, successor: SessionRow, grace: int) -> Operation[SessionRow | None]:
        yield from self._make(successor)
        if (yield Call("DEL", (self._layout.session_key(used_id),))):
            return successor
        yield Call("DEL", (self._layout.session_key(successor.id),))
        return None


class MarkersIgnored(SessionFirst):
    """Ends sessions, but not what they were renewed to."""

    def _end(self, session_ids: object, seen: set[str | None]) -> Operation[None]:
        for id_ in session_ids:  # type: ignore[attr-defined] # the control takes what the shipped one takes
            yield Call("DEL", (self._layout.session_key(id_),))


CONTROLS = (IndexFirst, Original, IndexDeleted, PointerFirst, CreateThenDelete, MarkersIgnored)

__all__ = ["CONTROLS", "Scripted"]
