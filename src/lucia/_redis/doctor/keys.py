"""Examine and fix the keys of a live session store, one page at a time.

The application goes on writing while a page is examined. Keys are therefore read in the order in
which the library writes them, and what it is just doing is no finding: a login that is half done, a
login between two reads, a session that is revoked after the first read.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple, cast

from lucia._redis.cluster import SlotSteps
from lucia._redis.commands import Call, OnNode, Operation, Reply
from lucia._redis.doctor.findings import (
    Deferred,
    Examined,
    Finding,
    Kind,
    RepairOptions,
    Role,
    Server,
    pattern_of,
    role_of,
)
from lucia._redis.doctor.index import HOUR_MS, IndexExaminer
from lucia._redis.doctor.legacy import BareKeyExaminer
from lucia._redis.keys import Layout
from lucia._redis.operations import marker_or_none, milliseconds_of, session_key, to_bytes, to_text
from lucia._redis.records import peek
from lucia._redis.repair import Repair, RepairOperations, is_whole, read_values
from lucia._redis.revocations import TOMBSTONE
from lucia._redis.transport.client_errors import is_refusal
from lucia._rules.sessions import MARKER_MS
from lucia.models import SessionRow

TTL_TOLERANCE_MS: Final = 1_500
"""How far the expiry of a key and of its session may differ: JavaScript writes whole seconds."""

DEAD_MARGIN_MS: Final = 60_000
"""How long ago a session must have expired before its key is a finding: clocks differ."""

SECOND_EXAMINATION_MS: Final = 60_000
"""The time between two examinations where JavaScript writes.

It writes a session and its index entry in any order, so one without the other may be half done.
"""


class KeySnapshot(NamedTuple):
    """A key as it was read. Its type is ``none`` if it is gone; only strings have a value."""

    name: bytes
    type: bytes
    ttl: int
    value: bytes | None

    @property
    def is_gone(self) -> bool:
        return (
            self.type == b"none"
            or self.ttl == -2
            or (self.type == b"string" and self.value is None)
        )


class _Now(NamedTuple):
    """The server's time before and after a page was read, in milliseconds since the epoch."""

    earliest: int
    latest: int

    def may_end_at(self, ttl: int, end: int, tolerance: int) -> bool:
        """Return whether a key with this ``PTTL`` expires at ``end``."""
        return self.earliest + ttl - tolerance <= end <= self.latest + ttl + tolerance


class KeyExaminer:
    """Examines the keys of a store of one layout, and changes only what the options allow.

    With ``legacy_writers``, missing and dead index entries are judged at a second examination.
    """

    def __init__(
        self, layout: Layout, steps: SlotSteps, repairs: RepairOperations, options: RepairOptions
    ) -> None:
        self._layout = layout
        self._repairs = repairs
        self._options = options
        self._repair = Repair(layout, steps)
        self._indexes = IndexExaminer(layout, steps, self._repair, repairs, options)
        self._bare_keys = BareKeyExaminer(layout, self._repair, repairs, options)

    def examine_server(self, node: str) -> Operation[Server]:
        """Ask a server about itself: ``DBSIZE``, ``INFO`` and ``CONFIG GET maxmemory-policy``.

        Each may be refused; then that part is None.
        """
        keys = yield from unless_refused(node, Call("DBSIZE", ()))
        server = yield from unless_refused(node, Call("INFO", ("server",)))
        setting = yield from unless_refused(node, Call("CONFIG", ("GET", "maxmemory-policy")))
        memory = yield from unless_refused(node, Call("INFO", ("memory",)))
        return Server(
            keys,
            _field_of(server, "run_id"),
            # Where CONFIG is refused, INFO may tell it.
            _setting_in(setting) or _field_of(memory, "maxmemory_policy"),
        )

    def examine(self, node: str, names: Sequence[bytes], *, others: bool) -> Operation[Examined]:
        """Examine keys of a node; those outside of the layout only with ``others``."""
        by_role: dict[Role, list[bytes]] = {}
        for name in names:
            by_role.setdefault(role_of(self._layout, name), []).append(name)
        examined = Examined(
            [], {role: len(found) for role, found in by_role.items()}, Deferred(node)
        )
        foreign = by_role.pop("other", [])
        ours = [name for found in by_role.values() for name in found]
        snapshots, now = yield from _read_snapshots(node, ours)
        yield from self._examine_ours(snapshots, now, examined)
        if others and foreign:
            examined.findings.extend((yield from self._bare_keys.examine(node, foreign)))
        return examined

    def examine_deferred(self, deferred: Deferred) -> Operation[list[Finding]]:
        """Examine again what one page left, and return what is still wrong."""
        findings: list[Finding] = []
        records = yield from read_values(
            deferred.node, [session_key(self._layout, id_) for _, id_ in deferred.entries]
        )
        are_indexed = yield from self._repair.are_indexed(
            deferred.node,
            [(self._layout.index_key(user_id), id_) for user_id, id_ in deferred.entries],
        )
        for (user_id, id_), record, is_indexed in zip(
            deferred.entries, records, are_indexed, strict=True
        ):
            if record is None and is_indexed:
                findings.append(
                    Finding(
                        Kind.DEAD_ENTRY, (yield from self._indexes.drop(user_id, [id_])), user_id
                    )
                )
        findings += yield from self._index_missing(deferred.node, deferred.rows)
        return findings

    def _examine_ours(
        self, snapshots: Iterable[KeySnapshot], now: _Now, examined: Examined
    ) -> Operation[None]:
        live: list[SessionRow] = []
        findings = examined.findings
        for snapshot in snapshots:
            role = role_of(self._layout, snapshot.name)
            if snapshot.is_gone:
                continue
            if role == "session":
                findings += yield from self._examine_session(snapshot, now, live)
            elif role == "marker":
                findings += yield from self._examine_marker(snapshot)
            elif role == "index":
                if snapshot.type == self._layout.index.type.encode():
                    findings += yield from self._indexes.examine(snapshot.name, examined.deferred)
                else:
                    fixed = yield from self._delete_damaged(snapshot)
                    findings.append(
                        Finding(Kind.WRONG_TYPE, fixed, self._indexes.user_of(snapshot.name))
                    )
            elif snapshot.ttl == -1:
                fixed = self._options.fix and (
                    yield from self._repairs.extend_expiry(
                        snapshot.name, now.latest + HOUR_MS, endless=True
                    )
                )
                findings.append(self._about_key(Kind.THROTTLE_WITHOUT_TTL, snapshot, fixed))
        if self._layout.index.legacy_writers:
            examined.deferred.rows.extend(
                (yield from self._repair.unindexed(examined.deferred.node, live))
            )
        else:
            findings += yield from self._index_missing(examined.deferred.node, live)

    def _examine_session(
        self, snapshot: KeySnapshot, now: _Now, live: list[SessionRow]
    ) -> Operation[list[Finding]]:
        if snapshot.type != b"string":
            return [
                self._about_key(
                    Kind.WRONG_TYPE, snapshot, (yield from self._delete_damaged(snapshot))
                )
            ]
        row = peek(
            cast("bytes", snapshot.value),
            to_text(snapshot.name.removeprefix(self._layout.session_key("").encode())),
        )
        if row is None:
            return [
                self._about_key(
                    Kind.UNDECODABLE_RECORD, snapshot, (yield from self._delete_damaged(snapshot))
                )
            ]
        if row.idle_expires <= now.latest:
            is_left = row.idle_expires < now.earliest - DEAD_MARGIN_MS
            return (
                [
                    Finding.about(
                        Kind.DEAD_SESSION, row, (yield from self._remove_dead(snapshot, row))
                    )
                ]
                if is_left
                else []
            )
        if not is_whole(snapshot.ttl):  # a login or renewal is just being made
            return []
        live.append(row)
        if snapshot.ttl != -1 and now.may_end_at(snapshot.ttl, row.idle_expires, TTL_TOLERANCE_MS):
            return []
        kind = Kind.SESSION_WITHOUT_TTL if snapshot.ttl == -1 else Kind.SESSION_WRONG_TTL
        return [Finding.about(kind, row, (yield from self._set_expiry(snapshot, row)))]

    def _set_expiry(self, snapshot: KeySnapshot, row: SessionRow) -> Operation[bool]:
        return self._options.fix and (
            yield from self._repairs.set_expiry(snapshot.name, cast("bytes", snapshot.value), row)
        )

    def _remove_dead(self, snapshot: KeySnapshot, row: SessionRow) -> Operation[bool]:
        """Expire the key of a session whose time is past, and remove the session from its index."""
        if not (yield from self._set_expiry(snapshot, row)):
            return False
        yield from self._indexes.drop(row.user_id, [to_bytes(row.id)])
        return True

    def _index_missing(self, node: str, rows: Sequence[SessionRow]) -> Operation[list[Finding]]:
        findings: list[Finding] = []
        for row in (yield from self._repair.unindexed(node, rows)):
            fixed = self._options.fix and (yield from self._repair.add_to_index(row))
            findings.append(Finding.about(Kind.UNINDEXED_SESSION, row, fixed))
        return findings

    def _examine_marker(self, snapshot: KeySnapshot) -> Operation[list[Finding]]:
        if self._layout.receipt_id(to_text(snapshot.name)) is not None:
            return []  # a copy is in progress, or was interrupted
        if not self._is_marker(snapshot):
            return [
                self._about_key(
                    Kind.DAMAGED_MARKER, snapshot, (yield from self._delete_damaged(snapshot))
                )
            ]
        if 0 <= snapshot.ttl <= MARKER_MS:
            return []
        fixed = self._options.fix and (
            yield from self._repairs.delete_unchanged(snapshot.name, snapshot.type, snapshot.value)
        )
        return [self._about_key(Kind.MARKER_TTL, snapshot, fixed)]

    def _is_marker(self, snapshot: KeySnapshot) -> bool:
        if snapshot.value is None or snapshot.value == TOMBSTONE:
            return snapshot.value is not None
        used_id = self._layout.used_id(to_text(snapshot.name))
        return used_id is not None and marker_or_none(snapshot.value, used_id) is not None

    def _about_key(self, kind: Kind, snapshot: KeySnapshot, fixed: bool) -> Finding:
        return Finding(kind, fixed, key=pattern_of(self._layout, snapshot.name))

    def _delete_damaged(self, snapshot: KeySnapshot) -> Operation[bool]:
        wanted = self._options.fix and self._options.delete_damaged
        return wanted and (
            yield from self._repairs.delete_unchanged(snapshot.name, snapshot.type, snapshot.value)
        )


def _read_snapshots(node: str, names: Sequence[bytes]) -> Operation[tuple[list[KeySnapshot], _Now]]:
    calls = [
        call
        for name in names
        for call in (Call("TYPE", (name,)), Call("PTTL", (name,)), Call("MGET", (name,)))
    ]
    before, *replies, after = yield OnNode(node, (Call("TIME", ()), *calls, Call("TIME", ())))
    seen = zip(names, replies[::3], replies[1::3], replies[2::3], strict=True)
    return [KeySnapshot(name, kind, ttl, value) for name, kind, ttl, (value,) in seen], _Now(
        milliseconds_of(before), milliseconds_of(after)
    )


def unless_refused(node: str, call: Call) -> Operation[Reply]:
    """Return the reply, or None if the server refuses the command."""
    try:
        (reply,) = yield OnNode(node, (call,))
    except Exception as error:
        if not is_refusal(error):
            raise
        return None
    return reply


def _setting_in(reply: list[bytes] | Mapping[bytes, bytes] | None) -> str | None:
    """Return the one setting in a reply to ``CONFIG GET``, in RESP2 or RESP3."""
    values = list(reply.values()) if isinstance(reply, Mapping) else (reply or [])[1::2]
    return to_text(values[0]) if values else None


def _field_of(info: bytes | None, name: str) -> str | None:
    """Return a field of a reply to ``INFO``."""
    lines = [] if info is None else to_text(info).splitlines()
    return next((line.partition(":")[2] for line in lines if line.startswith(f"{name}:")), None)
