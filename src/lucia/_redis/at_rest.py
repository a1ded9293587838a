"""The store's operations for callers who know session ids, where Redis holds hashes of them.

A protocol works on what stands for ids, and knows nothing of hashes. Here an id is turned into what may stand for it, and what was
found is given back under the id that led there. Lists keep what stands for the ids: whoever reads Redis knows no more.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import NamedTuple

from lucia._redis.commands import Batch, Call, Operation, Reply
from lucia._redis.hashed_ids import HashedIds, RawIds, check_raw_ids, is_hash
from lucia._redis.operations import MAX_HOPS, get_session, is_in_grace, retry_if_mismatched
from lucia._redis.records import Layout, MismatchedReply, decode_marker, decode_row
from lucia._redis.store import ServerStore, Store
from lucia._rules.sessions import derived_handle, handle_of
from lucia.frozen import FrozenDict
from lucia.models import SessionRow, stored_row


class _Step(NamedTuple):
    """Where a used id leads to: the successor's id, and what stands for it."""

    id: str
    stored: str


class HashedLookup:
    """A session is where one of the hashes of its id says, or the id itself."""

    def __init__(self, layout: Layout, ids: HashedIds) -> None:
        self._prefix = layout.session_key("")
        self._ids = ids

    def keys(self, session_id: str) -> list[bytes]:
        """One for each that may stand for the id."""
        return [(self._prefix + stored).encode() for stored in self._ids.candidates(session_id)]

    def row(self, session_id: str, records: Sequence[bytes | None]) -> SessionRow | None:
        """The first session in them, under the id that led there."""
        for stored, record in zip(self._ids.candidates(session_id), records, strict=True):
            row = None if record is None else decode_row(record, stored)
            if row is not None:
                return _under_its_id(row, session_id)
        return None


class HashedIdStore:
    """A protocol's operations over hashed ids.

    Reading tries all that may stand for an id, in one command where one server has all keys. What ends or renews a session first looks
    which of them it is, unless there is only one: an id never changes what stands for it.

    Args:
        protocol: works on what stands for ids.
        layout: the key names.
        ids: says what stands for an id.
        one_server: whether one command may name keys of several slots.
    """

    def __init__(
        self, protocol: ServerStore, layout: Layout, ids: HashedIds, *, one_server: bool
    ) -> None:
        self._protocol = protocol
        self._layout = layout
        self._ids = ids
        self._one_server = one_server
        self.lookup = HashedLookup(layout, ids)

    def get(self, session_id: str) -> Operation[SessionRow | None]:
        """Read the session that this is the id of."""
        return (yield from retry_if_mismatched(lambda: self.get_once(session_id)))

    def get_once(self, session_id: str) -> Operation[SessionRow | None]:
        """The same, if no reply is another's."""
        held = yield from self._read(
            [(self._layout.session_key(stored),) for stored in self._ids.candidates(session_id)]
        )
        return self.lookup.row(session_id, [record for (record,) in held])

    def get_successor(self, used_id: str) -> Operation[SessionRow | None]:
        """Follow a used id to the live end of its chain of renewals, each within its grace, by opening one marker after another."""
        step = yield from self._step(used_id, self._ids.candidates(used_id))
        for _ in range(MAX_HOPS):
            if step is None:
                return None
            row = yield from get_session(self._layout, step.stored)
            if row is not None:
                return _under_its_id(row, step.id)
            step = yield from self._step(step.id, [step.stored])
        return None

    def create(self, row: SessionRow, random_below: Callable[[int], int]) -> Operation[None]:
        """Store a new session under the current key's hash of its id. That the id is taken is told for that hash alone."""
        yield from self._protocol.create(self._hidden(row), random_below)

    def create_capped(
        self, row: SessionRow, limit: int, now: int, random_below: Callable[[int], int]
    ) -> Operation[SessionRow]:
        """Store the session of a new login likewise, and end the user's oldest logins beyond the limit."""
        stored = yield from self._protocol.create_capped(
            self._hidden(row), limit, now, random_below
        )
        return _under_its_id(stored, row.id)

    def renew(
        self, used_id: str, successor: SessionRow, grace: int
    ) -> Operation[SessionRow | None]:
        """Put ``successor`` in the place of a session, once; its marker seals the successor's id."""
        stored = yield from self._find(used_id)
        if stored is None:
            return None
        hidden = self._hidden(successor)
        found = yield from self._protocol.renew(
            stored, hidden, grace, self._ids.seal(used_id, stored, successor.id)
        )
        if found is not None and found.id == hidden.id:
            return successor
        return (yield from self.get_successor(used_id))

    def delete(self, session_ids: Iterable[str]) -> Operation[None]:
        """End the sessions of these ids, and those that these stand for the ids of, as a list has them; with what they were renewed to.

        A raw id is ended only where something is stored under it: without scripts, what is ended leaves a key with its name.
        """
        ids = list(dict.fromkeys(session_ids))
        stored = [hash_ for id_ in ids for hash_ in self._ids.hashes(id_)]
        present = yield from self._present(list(filter(self._ids.may_be_raw, ids)))
        yield from self._protocol.delete([*stored, *filter(is_hash, ids), *present])

    def get_by_user(self, user_id: str, now: int) -> Operation[list[SessionRow]]:
        """Read a user's sessions, in the order of the index, under what stands for their ids."""
        return (yield from self._protocol.get_by_user(user_id, now))

    def delete_by_user(self, user_id: str, keep: str | None = None) -> Operation[bool]:
        """End a user's sessions, but for the one with the id ``keep`` or what that was renewed to; says whether one was kept."""
        kept = None if keep is None else (yield from self._find(keep)) or self._ids.stored(keep)
        return (yield from self._protocol.delete_by_user(user_id, kept))

    def _hidden(self, row: SessionRow) -> SessionRow:
        """A row as it is stored. One without a handle gets it: in a list it would be derived from another text than the id."""
        stored = self._ids.stored(row.id)
        return (
            row
            if stored == row.id
            else replace(row, id=stored, attributes={"handle": handle_of(row), **row.attributes})
        )

    def _step(self, used_id: str, candidates: Sequence[str]) -> Operation[_Step | None]:
        return (yield from retry_if_mismatched(lambda: self._step_once(used_id, candidates)))

    def _step_once(self, used_id: str, candidates: Sequence[str]) -> Operation[_Step | None]:
        held = yield from self._read([(self._layout.marker_key(stored),) for stored in candidates])
        for stored, (value,) in zip(candidates, held, strict=True):
            marker = decode_marker(value, stored)
            if marker is not None and is_in_grace(
                marker, (yield Call("PTTL", (self._layout.marker_key(stored),)))
            ):
                successor = self._ids.successor(used_id, marker)
                return None if successor is None else _Step(successor, marker.successor)
        return None

    def _find(self, session_id: str) -> Operation[str | None]:
        """What stands for an id, live or used within the last minute; None if nothing does."""
        candidates = self._ids.candidates(session_id)
        if len(candidates) == 1:
            return candidates[0]
        return next(iter((yield from self._present(candidates))), None)

    def _present(self, stored: Sequence[str]) -> Operation[Sequence[str]]:
        """Those of them that have a session or a marker; all of them, if replies are crossed."""
        if not stored:
            return []
        present = yield from retry_if_mismatched(lambda: self._present_once(stored))
        return stored if present is None else present

    def _present_once(self, stored: Sequence[str]) -> Operation[list[str] | None]:
        held = yield from self._read([self._keys(id_) for id_ in stored])
        return [
            id_
            for id_, values in zip(stored, held, strict=True)
            if any(value is not None for value in values)
        ]

    def _keys(self, stored: str) -> tuple[str, ...]:
        session = self._layout.session_key(stored)
        whole = self._one_server or self._layout.is_one_slot(stored)
        return (session, self._layout.marker_key(stored)) if whole else (session,)

    def _read(self, groups: Sequence[tuple[str, ...]]) -> Operation[list[list[bytes | None]]]:
        """What is at these keys; those of a group are in one slot, and read at one moment.

        Raises:
            MismatchedReply: a reply has another shape, so it was another command's.
        """
        if self._one_server:
            values = iter(
                _values(
                    (yield Call("MGET", tuple(key for keys in groups for key in keys))),
                    sum(map(len, groups)),
                )
            )
            return [[next(values) for _ in keys] for keys in groups]
        replies = yield Batch(tuple(Call("MGET", keys) for keys in groups))
        return [_values(reply, len(keys)) for reply, keys in zip(replies, groups, strict=True)]


def at_rest(
    layout: Layout, id_keys: Sequence[bytes], raw_ids: RawIds, *, one_server: bool
) -> Callable[[ServerStore], Store]:
    """What makes a store of a protocol: nothing but the protocol itself, or with keys one that holds hashes of ids.

    Raises:
        TypeError, ValueError, ImportError: as :class:`~lucia._redis.hashed_ids.HashedIds`.
        ValueError: raw ids are to be refused, and there are no keys.
    """
    if id_keys:
        ids = HashedIds(id_keys, raw_ids)
        return lambda protocol: HashedIdStore(protocol, layout, ids, one_server=one_server)
    if check_raw_ids(raw_ids) == "refuse":
        raise ValueError(
            "raw_ids='refuse' needs id_keys: without a key, sessions are stored under their ids as they are"
        )
    return lambda protocol: protocol


def _values(reply: Reply, count: int) -> list[bytes | None]:
    match reply:
        case [*values] if len(values) == count and all(
            value is None or isinstance(value, bytes) for value in values
        ):
            return values
        case _:
            raise MismatchedReply


def _under_its_id(row: SessionRow, session_id: str) -> SessionRow:
    """A stored row as it was given to the store, by the id that led to it."""
    if row.id == session_id:
        return row
    attributes = row.attributes
    if attributes.get("handle") == derived_handle(session_id):
        attributes = FrozenDict(
            {name: value for name, value in attributes.items() if name != "handle"}
        )
    return stored_row(session_id, row.user_id, row.active_expires, row.idle_expires, attributes)
