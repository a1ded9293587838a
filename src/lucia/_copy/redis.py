"""A Redis store as the source or the destination of a copy.

Its writes are scripts: each compares the key with what the copy expects, and changes it, in one
step. The trace of a written session is a receipt, ``session:renewed:copied:{session:ID}``, in the
slot of the session; the script that writes the session writes it too, and does nothing if it is
there. It expires with the session.

On one server, a script writes a session and its index entry. In a cluster these are two steps, as
in ``reindex()``: a sign-out everywhere in between does not revoke the session.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, TypeVar

from lucia._copy.stores import BATCH_SIZE, Inserted, Page, Skipped, UsedSession, Written
from lucia._redis.cluster import INDEX_SLACK_MS, ScriptedSteps
from lucia._redis.commands import Batch, Call, Eval, Nodes, OnNode, Operation
from lucia._redis.doctor.findings import role_of
from lucia._redis.doctor.walk import Driver
from lucia._redis.keys import Layout
from lucia._redis.operations import (
    marker_or_none,
    milliseconds_of,
    resolve_chain,
    to_bytes,
    to_text,
)
from lucia._redis.records import Marker, encode_marker, encode_row, peek
from lucia._redis.repair import (
    Repair,
    ScriptedRepairs,
    call_all,
    is_whole,
    prefix_pattern,
    read_values,
    scan,
)
from lucia._redis.revocations import TOMBSTONE
from lucia._redis.scripts import NOW, Script
from lucia._redis.store import choose_store
from lucia._redis.transport.client_errors import is_refusal
from lucia._redis.transport.clients import is_cluster
from lucia._rules.sessions import system_clock
from lucia.models import SessionRow

T = TypeVar("T")

_RESULTS: Final[dict[int, Inserted | Skipped]] = {
    1: Inserted.WRITTEN,
    2: Inserted.SAME,
    0: Skipped.TAKEN,
    -3: Skipped.EXPIRED,
    -4: Skipped.INDEX_TYPE,
}
"""The results of an insertion, by the numbers that its scripts return."""

_INSERT: Final = f"""
local function insert(session, receipt, record, expires)
  if tonumber(expires) <= now then return -3 end
  -- The session was written, and the reply was lost. If it is gone, it was revoked.
  if redis.call('EXISTS', receipt) == 1 then return 1 end
  if redis.call('SET', session, record, 'NX', 'PXAT', expires) then
    redis.call('SET', receipt, '{TOMBSTONE.decode()}', 'PXAT', expires)
    return 3
  end
  return redis.call('MGET', session)[1] == record and 2 or 0
end
"""

INSERT: Final = Script(
    "copy_insert",
    f"""
-- KEYS: for each session it, its receipt and its index. ARGV: the type of an index, the command
-- that adds to it, then for each session its id, its record and its idle end in ms.
-- Returns for each 1 (written), 2 (the same is there), 0 (another one is there), -3 (expired) or
-- -4 (the index is of another type).
{NOW}
{_INSERT}
local results = {{}}
for i = 1, #KEYS / 3 do
  local index, id, expires = KEYS[3 * i], ARGV[3 * i], ARGV[3 * i + 2]
  local kind = redis.call('TYPE', index).ok
  if kind ~= 'none' and kind ~= ARGV[1] then
    results[i] = -4
  else
    results[i] = insert(KEYS[3 * i - 2], KEYS[3 * i - 1], ARGV[3 * i + 1], expires)
    if results[i] == 3 then
      redis.call(ARGV[2], index, id)
      local ttl = redis.call('PTTL', index)
      if kind == 'none' or (ttl >= 0 and now + ttl < tonumber(expires)) then
        redis.call('PEXPIREAT', index, expires)
      end
      results[i] = 1
    end
  end
end
return results
""",
)

INSERT_ALONE: Final = Script(
    "copy_insert_alone",
    f"""
-- KEYS: a session, its receipt. ARGV: its record, its idle end in ms.
-- Returns 1 (written), 2 (the same is there), 0 (another one is there) or -3 (expired).
{NOW}
{_INSERT}
local result = insert(KEYS[1], KEYS[2], ARGV[1], ARGV[2])
return result == 3 and 1 or result
""",
)

UPDATE: Final = Script(
    "copy_update",
    """
-- KEYS: a session. ARGV: the SHA-1 of the record that was copied, the new record, its idle end.
-- Returns 1, or 0 if there is another record.
local record = redis.call('MGET', KEYS[1])[1]
if not record then return 0 end
if record ~= ARGV[2] and redis.sha1hex(record) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'PXAT', ARGV[3])
return 1
""",
)

END: Final = Script(
    "copy_end",
    """
-- KEYS: a session, its marker. ARGV: the SHA-1 of the record that was copied, or '' if none was;
-- the marker, or '' to write none; the marker's life in ms.
-- Deletes the session, and returns 1; or 0 if it is not as it was copied.
local record = redis.call('MGET', KEYS[1])[1]
if record and redis.sha1hex(record) ~= ARGV[1] then return 0 end
if not record and (ARGV[1] ~= '' or redis.call('EXISTS', KEYS[1]) == 1) then return 0 end
if ARGV[2] ~= '' and not redis.call('SET', KEYS[2], ARGV[2], 'NX', 'PX', ARGV[3]) and not record
  then return 0 end
redis.call('DEL', KEYS[1])
return 1
""",
)


class RedisStore:
    """A store on one server, or in a cluster.

    Args:
        client: redis-py's.
        driver: runs operations over it.
        layout: the key names.
    """

    def __init__(self, client: Any, driver: Driver, layout: Layout) -> None:
        self._run = driver.run
        self._layout = layout
        self._store = choose_store(client, layout)
        self._is_cluster = is_cluster(client)

    # As the source.

    def total(self) -> int | None:
        """Return how many keys all nodes have; None if one refuses to tell."""
        return self._run(_count_keys())

    def pages(self, *, only_used: bool) -> Iterator[Page]:
        """Walk over the keys of each node."""
        prefix = f"{self._layout.session}:{'renewed:' if only_used else ''}"
        for node, names in self._scan(prefix_pattern(prefix)):
            yield self._run(self._read_page(node, names))

    def _scan(self, pattern: bytes) -> Iterator[tuple[str, list[bytes]]]:
        """Return the names of keys page by page, each with its node."""
        for node in self._run(_nodes()):
            cursor: int | None = None
            while cursor != 0:
                cursor, names = self._run(scan(node, cursor or 0, pattern))
                yield node, names

    def _read_page(self, node: str, names: Sequence[bytes]) -> Operation[Page]:
        page = Page(len(names))
        roles = [role_of(self._layout, name) for name in names]
        yield from self._read_sessions(
            node, [name for name, role in zip(names, roles, strict=True) if role == "session"], page
        )
        yield from self._read_markers(
            node, [name for name, role in zip(names, roles, strict=True) if role == "marker"], page
        )
        return page

    def _read_sessions(self, node: str, names: Sequence[bytes], page: Page) -> Operation[None]:
        calls = [call for name in names for call in (Call("PTTL", (name,)), Call("MGET", (name,)))]
        replies = yield OnNode(node, (Call("TIME", ()), *calls))
        now = milliseconds_of(replies[0])
        prefix = self._layout.session_key("").encode()
        no_strings: list[bytes] = []
        for name, ttl, (record,) in zip(names, replies[1::2], replies[2::2], strict=True):
            row = None if record is None else peek(record, to_text(name.removeprefix(prefix)))
            if record is None:
                no_strings.append(name)
            elif row is None:
                page.skipped.append(Skipped.UNDECODABLE)
            elif row.idle_expires <= now:
                page.skipped.append(Skipped.EXPIRED)
            elif not is_whole(ttl) and row.idle_expires > now + ttl + 1_000:
                # A login or a renewal in a cluster that is just being made.
                page.skipped.append(Skipped.INCOMPLETE)
            else:
                page.sessions.append(row)
        # Either they are gone since they were named, or they are of another type.
        kinds = yield from call_all(node, [Call("TYPE", (name,)) for name in no_strings])
        page.skipped += [Skipped.WRONG_TYPE for kind in kinds if kind not in (b"none", b"string")]

    def _read_markers(self, node: str, names: Sequence[bytes], page: Page) -> Operation[None]:
        values = yield from read_values(node, names)
        for name, value in zip(names, values, strict=True):
            if value is None or value == TOMBSTONE:
                continue
            used_id = self._layout.used_id(to_text(name))
            marker = None if used_id is None else marker_or_none(value, used_id)
            if marker is None:
                page.skipped.append(Skipped.UNDECODABLE)
                continue
            # Without a live session at its end, it leads nowhere.
            found = yield from resolve_chain(self._layout, None, marker.successor)
            # Read last: the used id must not lead to its successor for longer than in the source.
            left = yield Call("PTTL", (name,))
            if found is not None and left > 0:
                end = found[1]
                page.sessions.append(end)
                page.used.append(UsedSession(*marker, left, end.id, end.user_id))

    def sessions_of(self, user_id: str) -> list[SessionRow]:
        """Return the live sessions that the user's index leads to."""
        now = system_clock()
        rows = self._run(self._store.read_by_user(user_id))
        return [row for row in rows if row.idle_expires > now]

    # As the destination.

    def is_empty(self) -> bool:
        """Return whether no key is a session's."""
        return not any(page.sessions for page in self.pages(only_used=False))

    def fingerprint(self, row: SessionRow) -> str:
        """Return the SHA-1 of the record, which scripts can compute too.

        Raises:
            ValueError: the record is too long, or the id is not storable in this layout.
        """
        if not self._layout.is_storable(row.id):
            raise ValueError("the id begins like the keys of markers")
        if self._is_cluster and not self._layout.is_one_slot(row.id):
            raise ValueError("the id has braces that are no hash tag")
        return _sha1(encode_row(row))

    def insert(self, rows: Sequence[SessionRow]) -> list[Inserted | Skipped]:
        """Store sessions, their index entries and their receipts."""
        if self._is_cluster:
            return self._run(self._insert_in_cluster(rows))
        keys = tuple(
            key
            for row in rows
            for key in (
                self._layout.session_key(row.id),
                self._layout.receipt_key(row.id),
                self._layout.index_key(row.user_id),
            )
        )
        records = [each for row in rows for each in (row.id, encode_row(row), row.idle_expires)]
        index = self._layout.index
        add = index.add("", "")[0].name
        results = self._run(_evaluate(Eval(INSERT, keys, (index.type, add, *records))))
        return [_RESULTS[each] for each in results]

    def _insert_in_cluster(self, rows: Sequence[SessionRow]) -> Operation[list[Inserted | Skipped]]:
        index = self._layout.index
        kinds = yield from call_all(
            "cluster", [Call("TYPE", (self._layout.index_key(row.user_id),)) for row in rows]
        )
        sound = [
            row
            for row, kind in zip(rows, kinds, strict=True)
            if kind in (b"none", index.type.encode())
        ]
        results = yield Batch(
            tuple(
                Eval(
                    INSERT_ALONE,
                    (self._layout.session_key(row.id), self._layout.receipt_key(row.id)),
                    (encode_row(row), row.idle_expires),
                )
                for row in sound
            )
        )
        repair = Repair(self._layout, ScriptedSteps())
        there = [row for row, result in zip(sound, results, strict=True) if result > 0]
        entries = [(self._layout.index_key(row.user_id), row.id) for row in there]
        are_indexed = yield from repair.are_indexed("cluster", entries)
        for row, is_indexed in zip(there, are_indexed, strict=True):
            if not is_indexed:
                yield from repair.add_to_index(row)
        codes = dict(zip((row.id for row in sound), results, strict=True))
        return [_RESULTS[codes.get(row.id, -4)] for row in rows]

    def preview(self, rows: Sequence[SessionRow]) -> list[Inserted | Skipped]:
        """Return whether the keys are free."""
        keys = [self._layout.session_key(row.id) for row in rows]
        node = "cluster" if self._is_cluster else ""
        replies = self._run(
            call_all(
                node,
                [call for key in keys for call in (Call("TYPE", (key,)), Call("MGET", (key,)))],
            )
        )
        return [
            Inserted.WRITTEN
            if kind == b"none"
            else Inserted.SAME
            if record == encode_row(row)
            else Skipped.TAKEN
            for row, kind, (record,) in zip(rows, replies[::2], replies[1::2], strict=True)
        ]

    def confirm(self, session_ids: Sequence[str]) -> None:
        """Delete receipts."""
        keys = tuple(map(self._layout.receipt_key, session_ids))
        calls = [Call("DEL", (key,)) for key in keys] if self._is_cluster else [Call("DEL", keys)]
        self._run(_send_all(calls))

    def unconfirmed(self) -> Iterator[Mapping[str, Written | None]]:
        """Return the sessions that have a receipt."""
        pattern = prefix_pattern(f"{self._layout.session}:renewed:copied:")
        for _, names in self._scan(pattern):
            ids = [self._layout.receipt_id(to_text(name)) for name in names]
            yield {id_: self._run(self._read_written(id_)) for id_ in ids if id_ is not None}

    def _read_written(self, session_id: str) -> Operation[Written | None]:
        found = yield from resolve_chain(self._layout, None, session_id)
        if found is None:
            return None
        # Not the row encoded anew, which may have its members in another order.
        (record,) = yield Call("MGET", (self._layout.session_key(session_id),))
        return Written(found[1], _sha1(record or b""))

    def discard(self, session_ids: Sequence[str]) -> None:
        """Delete receipts: the sessions are revoked already."""
        self.confirm(session_ids)

    def update(self, row: SessionRow, fingerprint: str) -> bool:
        """Replace a record that is as it was copied, and let the index live as long."""
        return self._run(self._update(row, fingerprint))

    def _update(self, row: SessionRow, fingerprint: str) -> Operation[bool]:
        # The index first: a session must not outlive the entry that a sign-out finds it by.
        slack = INDEX_SLACK_MS if self._is_cluster else 0
        yield from ScriptedRepairs().extend_expiry(
            to_bytes(self._layout.index_key(row.user_id)), row.idle_expires + slack, endless=False
        )
        return bool(
            (
                yield Eval(
                    UPDATE,
                    (self._layout.session_key(row.id),),
                    (fingerprint, encode_row(row), row.idle_expires),
                )
            )
        )

    def replace(self, used: UsedSession, fingerprint: str | None) -> bool:
        """Write a marker in place of a session, or where none is."""
        marker = encode_marker(Marker(used.id, used.successor, used.grace, used.sealed))
        return self._run(self._end(used.id, used.user_id, (fingerprint or "", marker, used.left)))

    def remove(self, row: SessionRow, fingerprint: str) -> bool:
        """Delete a session that is as it was copied, and remove it from its index."""
        return self._run(self._end(row.id, row.user_id, (fingerprint, b"", 0)))

    def _end(
        self, session_id: str, user_id: str, arguments: tuple[str, bytes, int]
    ) -> Operation[bool]:
        keys = (self._layout.session_key(session_id), self._layout.marker_key(session_id))
        done = yield Eval(END, keys, arguments)
        if done:
            index = self._layout.index_key(user_id)
            yield Batch(self._layout.index.remove(index, [session_id]))
        return bool(done)

    def revoke(self, session_ids: Sequence[str]) -> None:
        """Revoke sessions, and what they were renewed to."""
        self._run(self._store.delete(session_ids))


def _sha1(record: bytes) -> str:
    return hashlib.sha1(record, usedforsecurity=False).hexdigest()


def _nodes() -> Operation[list[str]]:
    return list((yield Nodes()))


def _count_keys() -> Operation[int | None]:
    count = 0
    for node in (yield Nodes()):
        try:
            (keys,) = yield OnNode(node, (Call("DBSIZE", ()),))
        except Exception as error:
            if not is_refusal(error):
                raise
            return None
        count += int(keys)
    return count


def _evaluate(command: Eval) -> Operation[list[int]]:
    return list((yield command))


def _send_all(calls: Sequence[Call]) -> Operation[None]:
    for start in range(0, len(calls), BATCH_SIZE):
        yield Batch(tuple(calls[start : start + BATCH_SIZE]))
