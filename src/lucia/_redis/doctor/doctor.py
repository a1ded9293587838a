"""What can be wrong in a live session store, and how it is found and mended, one page of keys at a time: the decisions of ``lucia doctor``.

Everything is judged by what was read in the order in which the library writes it, so that what the application does meanwhile is no
finding: a session that is in the making, a login between two looks, one that was ended after the first.
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
from lucia._redis.doctor.index import HOUR_MS, IndexDoctor
from lucia._redis.doctor.legacy import BareKeys
from lucia._redis.operations import marker_or_none, milliseconds_of, session_key, to_bytes, to_text
from lucia._redis.records import Layout, peek
from lucia._redis.repair import Repair, RepairOperations, is_whole, read_together
from lucia._redis.revocations import TOMBSTONE
from lucia._redis.transport.client_errors import is_refusal
from lucia._rules.sessions import MARKER_MS
from lucia.models import SessionRow

TTL_TOLERANCE_MS: Final = 1_500
"""How far a key's end may be from its session's: others write whole seconds."""

DEAD_MARGIN_MS: Final = 60_000
"""How long a session has to be over before its key is found to be left: clocks differ."""

SECOND_LOOK_MS: Final = 60_000
"""How far two looks are apart where JavaScript writes: it puts the session and its index entry there in any order."""


class KeySnapshot(NamedTuple):
    """A key as it was seen. For one that is gone, the type is ``none``; the value is that of a string."""

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
    """The server's time before and after the look, in milliseconds since the epoch."""

    earliest: int
    latest: int

    def may_end_at(self, ttl: int, end: int, tolerance: int) -> bool:
        """Whether a key with so much of its life left ends then."""
        return self.earliest + ttl - tolerance <= end <= self.latest + ttl + tolerance


class Doctor:
    """Examines the keys of a store that follows one layout; changes nothing unless the treatment says so.

    Beside ``legacy_writers``, what an index lacks or has too much is judged at a second look, and no index gets an end.
    """

    def __init__(
        self, layout: Layout, steps: SlotSteps, mends: RepairOperations, treatment: RepairOptions
    ) -> None:
        self._layout = layout
        self._mends = mends
        self._treatment = treatment
        self._repair = Repair(layout, steps)
        self._indexes = IndexDoctor(layout, steps, self._repair, mends, treatment)
        self._bare_keys = BareKeys(layout, self._repair, mends, treatment)

    def examine_server(self, node: str) -> Operation[Server]:
        """``DBSIZE``, ``INFO``, and ``CONFIG GET maxmemory-policy``, each of which may be refused."""
        keys = yield from _unless_refused(node, Call("DBSIZE", ()))
        server = yield from _unless_refused(node, Call("INFO", ("server",)))
        setting = yield from _unless_refused(node, Call("CONFIG", ("GET", "maxmemory-policy")))
        memory = yield from _unless_refused(node, Call("INFO", ("memory",)))
        return Server(
            keys,
            _field_of(server, "run_id"),
            _setting_in(setting) or _field_of(memory, "maxmemory_policy"),
        )

    def examine(self, node: str, names: Sequence[bytes], *, others: bool) -> Operation[Examined]:
        """Look at keys of a node; at those of other programs only with ``others``."""
        by_role: dict[Role, list[bytes]] = {}
        for name in names:
            by_role.setdefault(role_of(self._layout, name), []).append(name)
        examined = Examined(
            [], {role: len(found) for role, found in by_role.items()}, Deferred(node)
        )
        foreign = by_role.pop("other", [])
        ours = [name for found in by_role.values() for name in found]
        sights, now = yield from _look(node, ours)
        yield from self._examine_ours(sights, now, examined)
        if others and foreign:
            examined.findings.extend((yield from self._bare_keys.examine(node, foreign)))
        return examined

    def look_again(self, later: Deferred) -> Operation[list[Finding]]:
        """What is still so at a second look."""
        findings: list[Finding] = []
        records = yield from read_together(
            later.node, [session_key(self._layout, id_) for _, id_ in later.entries]
        )
        are_held = yield from self._repair.held(
            later.node, [(self._layout.index_key(user_id), id_) for user_id, id_ in later.entries]
        )
        for (user_id, id_), record, is_held in zip(later.entries, records, are_held, strict=True):
            if record is None and is_held:
                findings.append(
                    Finding(
                        Kind.DEAD_ENTRY, (yield from self._indexes.drop(user_id, [id_])), user_id
                    )
                )
        findings += yield from self._index(later.node, later.rows)
        return findings

    def _examine_ours(
        self, sights: Iterable[KeySnapshot], now: _Now, examined: Examined
    ) -> Operation[None]:
        live: list[SessionRow] = []
        findings = examined.findings
        for sight in sights:
            role = role_of(self._layout, sight.name)
            if sight.is_gone:
                continue
            if role == "session":
                findings += yield from self._examine_session(sight, now, live)
            elif role == "marker":
                findings += yield from self._examine_marker(sight)
            elif role == "index":
                if sight.type == self._layout.index.type.encode():
                    findings += yield from self._indexes.examine(sight.name, examined.later)
                else:
                    mended = yield from self._delete_damaged(sight)
                    findings.append(
                        Finding(Kind.WRONG_TYPE, mended, self._indexes.user_of(sight.name))
                    )
            elif sight.ttl == -1:
                mended = self._treatment.fix and (
                    yield from self._mends.extend(sight.name, now.latest + HOUR_MS, endless=True)
                )
                findings.append(self._about_key(Kind.THROTTLE_WITHOUT_TTL, sight, mended))
        if self._layout.index.legacy_writers:
            examined.later.rows.extend(
                (yield from self._repair.unindexed(examined.later.node, live))
            )
        else:
            findings += yield from self._index(examined.later.node, live)

    def _examine_session(
        self, sight: KeySnapshot, now: _Now, live: list[SessionRow]
    ) -> Operation[list[Finding]]:
        if sight.type != b"string":
            return [
                self._about_key(Kind.WRONG_TYPE, sight, (yield from self._delete_damaged(sight)))
            ]
        row = peek(
            cast("bytes", sight.value),
            to_text(sight.name.removeprefix(self._layout.session_key("").encode())),
        )
        if row is None:
            return [
                self._about_key(
                    Kind.UNDECODABLE_RECORD, sight, (yield from self._delete_damaged(sight))
                )
            ]
        if row.idle_expires <= now.latest:
            is_left = row.idle_expires < now.earliest - DEAD_MARGIN_MS
            return (
                [Finding.about(Kind.DEAD_SESSION, row, (yield from self._bury(sight, row)))]
                if is_left
                else []
            )
        if not is_whole(sight.ttl):
            return []
        live.append(row)
        if sight.ttl != -1 and now.may_end_at(sight.ttl, row.idle_expires, TTL_TOLERANCE_MS):
            return []
        kind = Kind.SESSION_WITHOUT_TTL if sight.ttl == -1 else Kind.SESSION_WRONG_TTL
        return [Finding.about(kind, row, (yield from self._settle(sight, row)))]

    def _settle(self, sight: KeySnapshot, row: SessionRow) -> Operation[bool]:
        return self._treatment.fix and (
            yield from self._mends.settle(sight.name, cast("bytes", sight.value), row)
        )

    def _bury(self, sight: KeySnapshot, row: SessionRow) -> Operation[bool]:
        """Let a session's key end, which is past, and take it out of the index."""
        if not (yield from self._settle(sight, row)):
            return False
        yield from self._indexes.drop(row.user_id, [to_bytes(row.id)])
        return True

    def _index(self, node: str, rows: Sequence[SessionRow]) -> Operation[list[Finding]]:
        findings: list[Finding] = []
        for row in (yield from self._repair.unindexed(node, rows)):
            mended = self._treatment.fix and (yield from self._repair.index(row))
            findings.append(Finding.about(Kind.UNINDEXED_SESSION, row, mended))
        return findings

    def _examine_marker(self, sight: KeySnapshot) -> Operation[list[Finding]]:
        if not self._is_marker(sight):
            return [
                self._about_key(
                    Kind.DAMAGED_MARKER, sight, (yield from self._delete_damaged(sight))
                )
            ]
        if 0 <= sight.ttl <= MARKER_MS:
            return []
        mended = self._treatment.fix and (
            yield from self._mends.erase(sight.name, sight.type, sight.value)
        )
        return [self._about_key(Kind.MARKER_TTL, sight, mended)]

    def _is_marker(self, sight: KeySnapshot) -> bool:
        if sight.value is None or sight.value == TOMBSTONE:
            return sight.value is not None
        used = to_text(sight.name.removeprefix(f"{self._layout.session}:renewed:".encode()))
        used = used[1:-1] if used.startswith("{") and used.endswith("}") else used
        used = used.removeprefix(self._layout.session_key(""))
        return (
            to_bytes(self._layout.marker_key(used)) == sight.name
            and marker_or_none(sight.value, used) is not None
        )

    def _about_key(self, kind: Kind, sight: KeySnapshot, mended: bool) -> Finding:
        return Finding(kind, mended, key=pattern_of(self._layout, sight.name))

    def _delete_damaged(self, sight: KeySnapshot) -> Operation[bool]:
        wanted = self._treatment.fix and self._treatment.delete_damaged
        return wanted and (yield from self._mends.erase(sight.name, sight.type, sight.value))


def _look(node: str, names: Sequence[bytes]) -> Operation[tuple[list[KeySnapshot], _Now]]:
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


def _unless_refused(node: str, call: Call) -> Operation[Reply]:
    """The reply; None if the server refuses the command."""
    try:
        (reply,) = yield OnNode(node, (call,))
    except Exception as error:
        if not is_refusal(error):
            raise
        return None
    return reply


def _setting_in(reply: list[bytes] | Mapping[bytes, bytes] | None) -> str | None:
    """The one setting that CONFIG GET tells, as RESP2 or RESP3 has it."""
    values = list(reply.values()) if isinstance(reply, Mapping) else (reply or [])[1::2]
    return to_text(values[0]) if values else None


def _field_of(info: bytes | None, name: str) -> str | None:
    """A field of what INFO tells."""
    lines = [] if info is None else to_text(info).splitlines()
    return next((line.partition(":")[2] for line in lines if line.startswith(f"{name}:")), None)
