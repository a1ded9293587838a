"""What can be wrong in a live session store, and how it is found and mended, one page of keys at a time: the decisions of ``lucia doctor``.

Everything is judged by what was read in the order in which the library writes it, so that what the application does meanwhile is no
finding: a session that is in the making, a login between two looks, one that was ended after the first.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, Literal, NamedTuple, cast

from lucia.models import SessionRow
from lucia.redis.clients import is_refusal
from lucia.redis.commands import Call, OnNode, Operation, Reply
from lucia.redis.common import marker_or_none, milliseconds_of, session_key, to_bytes, to_text
from lucia.redis.findings import Examined, Finding, Kind, Later, Role, Server, Treatment, role_of
from lucia.redis.index import LIST, START
from lucia.redis.layout import Layout, peek
from lucia.redis.repair import SCAN_COUNT, Mends, Repair, is_whole, read_together
from lucia.redis.session_first import INDEX_SLACK_MS, TOMBSTONE, SlotSteps
from lucia.rules import MARKER_MS, handle_of, is_session_id

TTL_TOLERANCE_MS: Final = 1_500
"""How far a key's end may be from its session's: others write whole seconds."""

DEAD_MARGIN_MS: Final = 60_000
"""How long a session has to be over before its key is found to be left: clocks differ."""

HOUR_MS: Final = 3_600_000

SECOND_LOOK_MS: Final = 60_000
"""How far two looks are apart where JavaScript writes: it puts the session and its index entry there in any order."""

RESTARTS: Final = 10
"""How often an index is read anew since entries were taken out meanwhile."""

_SKETCH_BITS: Final = 1 << 23


Led = SessionRow | Literal["gone", "damaged"]
"""What an id leads to."""


class _Sight(NamedTuple):
    """A key as it was seen. For one that is gone, the type is ``none``; the value is that of a string."""

    name: bytes
    type: bytes
    ttl: int
    value: bytes | None

    @property
    def is_gone(self) -> bool:
        return self.type == b"none" or self.ttl == -2 or (self.type == b"string" and self.value is None)


class _Now(NamedTuple):
    """The server's time before and after the look, in milliseconds since the epoch."""

    earliest: int
    latest: int

    def may_end_at(self, ttl: int, end: int, tolerance: int) -> bool:
        """Whether a key with so much of its life left ends then."""
        return self.earliest + ttl - tolerance <= end <= self.latest + ttl + tolerance


class _Sketch:
    """Which ids were seen before, in a megabyte: says so of some that were not, too."""

    def __init__(self) -> None:
        self._bits = bytearray(_SKETCH_BITS // 8)

    def may_have(self, id_: bytes) -> bool:
        """Whether it may have been seen; now it was."""
        byte, bit = divmod(hash(id_) % _SKETCH_BITS, 8)
        before = self._bits[byte]
        self._bits[byte] |= 1 << bit
        return bool(before & (1 << bit))


class Doctor:
    """Examines the keys of a store that follows one layout; changes nothing unless the treatment says so.

    Beside ``legacy_writers``, what an index lacks or has too much is judged at a second look, and no index gets an end.
    """

    def __init__(self, layout: Layout, steps: SlotSteps, mends: Mends, treatment: Treatment) -> None:
        self._layout = layout
        self._steps = steps
        self._mends = mends
        self._treatment = treatment
        self._repair = Repair(layout, steps)

    def examine_server(self, node: str) -> Operation[Server]:
        """``DBSIZE``, ``INFO``, and ``CONFIG GET maxmemory-policy``, each of which may be refused."""
        keys = yield from _unless_refused(node, Call("DBSIZE", ()))
        server = yield from _unless_refused(node, Call("INFO", ("server",)))
        setting = yield from _unless_refused(node, Call("CONFIG", ("GET", "maxmemory-policy")))
        memory = yield from _unless_refused(node, Call("INFO", ("memory",)))
        return Server(keys, _field_of(server, "run_id"), _setting_in(setting) or _field_of(memory, "maxmemory_policy"))

    def examine(self, node: str, names: Sequence[bytes], *, others: bool) -> Operation[Examined]:
        """Look at keys of a node; at those of other programs only with ``others``."""
        by_role: dict[Role, list[bytes]] = {}
        for name in names:
            by_role.setdefault(role_of(self._layout, name), []).append(name)
        examined = Examined([], {role: len(found) for role, found in by_role.items()}, Later(node))
        foreign = by_role.pop("other", [])
        ours = [name for found in by_role.values() for name in found]
        sights, now = yield from _look(node, ours)
        yield from self._examine_ours(sights, now, examined)
        if others and foreign:
            examined.findings.extend((yield from self._examine_others(node, foreign)))
        return examined

    def look_again(self, later: Later) -> Operation[list[Finding]]:
        """What is still so at a second look."""
        findings: list[Finding] = []
        ids = [id_ for _, id_ in later.entries]
        records = yield from self._records(later.node, ids)
        are_held = yield from self._repair.held(later.node, [(self._layout.index_key(user_id), id_) for user_id, id_ in later.entries])
        for (user_id, id_), record, is_held in zip(later.entries, records, are_held, strict=True):
            if record is None and is_held:
                findings.append(Finding(Kind.DEAD_ENTRY, (yield from self._drop(user_id, [id_])), user_id))
        findings += yield from self._index(later.node, later.rows)
        return findings

    def _examine_ours(self, sights: Iterable[_Sight], now: _Now, examined: Examined) -> Operation[None]:
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
                findings += yield from self._examine_index(sight, examined.later)
            elif sight.ttl == -1:
                findings.append(Finding(Kind.THROTTLE_WITHOUT_TTL, (yield from self._extend(sight.name, now.latest + HOUR_MS))))
        if self._layout.index.legacy_writers:
            examined.later.rows.extend((yield from self._repair.unindexed(examined.later.node, live)))
        else:
            findings += yield from self._index(examined.later.node, live)

    def _examine_session(self, sight: _Sight, now: _Now, live: list[SessionRow]) -> Operation[list[Finding]]:
        if sight.type != b"string":
            return [Finding(Kind.WRONG_TYPE, (yield from self._delete_damaged(sight)))]
        row = peek(cast("bytes", sight.value), to_text(sight.name.removeprefix(self._layout.session_key("").encode())))
        if row is None:
            return [Finding(Kind.UNDECODABLE_RECORD, (yield from self._delete_damaged(sight)))]
        if row.idle_expires <= now.latest:
            is_left = row.idle_expires < now.earliest - DEAD_MARGIN_MS
            return [_about(Kind.DEAD_SESSION, row, (yield from self._bury(sight, row)))] if is_left else []
        if not is_whole(sight.ttl):
            return []
        live.append(row)
        if sight.ttl != -1 and now.may_end_at(sight.ttl, row.idle_expires, TTL_TOLERANCE_MS):
            return []
        kind = Kind.SESSION_WITHOUT_TTL if sight.ttl == -1 else Kind.SESSION_WRONG_TTL
        return [_about(kind, row, (yield from self._settle(sight, row)))]

    def _settle(self, sight: _Sight, row: SessionRow) -> Operation[bool]:
        return self._treatment.fix and (yield from self._mends.settle(sight.name, cast("bytes", sight.value), row))

    def _bury(self, sight: _Sight, row: SessionRow) -> Operation[bool]:
        """Let a session's key end, which is past, and take it out of the index."""
        if not (yield from self._settle(sight, row)):
            return False
        yield from self._drop(row.user_id, [to_bytes(row.id)])
        return True

    def _index(self, node: str, rows: Sequence[SessionRow]) -> Operation[list[Finding]]:
        findings: list[Finding] = []
        for row in (yield from self._repair.unindexed(node, rows)):
            mended = self._treatment.fix and (yield from self._repair.index(row))
            findings.append(_about(Kind.UNINDEXED_SESSION, row, mended))
        return findings

    def _examine_marker(self, sight: _Sight) -> Operation[list[Finding]]:
        if not self._is_marker(sight):
            return [Finding(Kind.DAMAGED_MARKER, (yield from self._delete_damaged(sight)))]
        if 0 <= sight.ttl <= MARKER_MS:
            return []
        mended = self._treatment.fix and (yield from self._mends.erase(sight.name, sight.type, sight.value))
        return [Finding(Kind.MARKER_TTL, mended)]

    def _is_marker(self, sight: _Sight) -> bool:
        if sight.value is None or sight.value == TOMBSTONE:
            return sight.value is not None
        used = to_text(sight.name.removeprefix(f"{self._layout.session}:renewed:".encode()))
        used = used[1:-1] if used.startswith("{") and used.endswith("}") else used
        used = used.removeprefix(self._layout.session_key(""))
        return to_bytes(self._layout.marker_key(used)) == sight.name and marker_or_none(sight.value, used) is not None

    def _examine_index(self, sight: _Sight, later: Later) -> Operation[list[Finding]]:
        if sight.type != self._layout.index.type.encode():
            return [Finding(Kind.WRONG_TYPE, (yield from self._delete_damaged(sight)))]
        user_id = to_text(sight.name.removeprefix(self._layout.index_key("").encode()))
        findings, latest = yield from self._examine_entries(sight.name, user_id, later)
        ((ttl, time),) = yield from self._ends(later.node, [sight.name])
        if ttl == -2:
            return findings
        if self._layout.index.legacy_writers:
            if ttl != -1:
                findings.append(Finding(Kind.INDEX_WITH_TTL, (yield from self._persist(sight.name)), user_id))
        elif ttl == -1:
            mended = self._treatment.fix and (yield from self._end_index(later.node, sight.name, max(latest, time + HOUR_MS)))
            findings.append(Finding(Kind.INDEX_WITHOUT_TTL, mended, user_id))
        elif time + ttl < latest:
            findings.append(Finding(Kind.INDEX_SHORT_TTL, (yield from self._extend(sight.name, latest + INDEX_SLACK_MS)), user_id))
        return findings

    def _examine_entries(self, key: bytes, user_id: str, later: Later) -> Operation[tuple[list[Finding], int]]:
        """What is wrong with the entries, page by page, and when the last of the user's sessions among them ends."""
        findings: list[Finding] = []
        sketch, latest, place = _Sketch(), 0, START
        while True:
            page = yield from self._layout.index.read_page(key, place, SCAN_COUNT)
            rows = yield from self._rows(later.node, list(dict.fromkeys(page.ids)))
            latest = max([latest, *(row.idle_expires for row in rows.values() if isinstance(row, SessionRow) and row.user_id == user_id)])
            removed = yield from self._examine_page(key, user_id, rows, later, findings)
            taken = sum(page.ids.count(id_) for id_ in removed)
            if self._layout.index.type == "list":
                repeated = {id_ for id_ in page.ids if sketch.may_have(id_) and isinstance(rows[id_], SessionRow)}
                singled = yield from self._examine_repeated(key, user_id, repeated - set(removed), findings)
                taken += sum(page.ids.count(id_) - 1 for id_ in singled)
            if page.next is None:
                return findings, latest
            place = page.next.after_removing(taken)

    def _examine_page(
        self, key: bytes, user_id: str, rows: Mapping[bytes, Led], later: Later, findings: list[Finding]
    ) -> Operation[list[bytes]]:
        """Judge what the ids of a page lead to, and take out those that lead nowhere or to another user; returns those taken out."""
        dead = yield from self._held(later.node, key, [id_ for id_, row in rows.items() if row == "gone"])
        foreign = [id_ for id_, row in rows.items() if isinstance(row, SessionRow) and row.user_id != user_id]
        if self._layout.index.legacy_writers:
            later.entries.extend((user_id, id_) for id_ in dead)
            dead = []
        removed = [*dead, *foreign]
        mended = bool(removed) and (yield from self._drop(user_id, removed))
        findings += [Finding(Kind.DEAD_ENTRY, mended, user_id) for _ in dead]
        findings += [Finding(Kind.FOREIGN_ENTRY, mended, user_id) for _ in foreign]
        return removed if mended else []

    def _examine_repeated(self, key: bytes, user_id: str, ids: Iterable[bytes], findings: list[Finding]) -> Operation[list[bytes]]:
        """Look whether ids are in a list more than once, and leave one entry of each; returns those of which others were taken out."""
        singled: list[bytes] = []
        for id_ in sorted(ids):
            if (yield from self._layout.index.count(key, id_)) > 1:
                single = self._treatment.fix and (yield from self._mends.single(key, id_))
                findings.append(Finding(Kind.DUPLICATE_ENTRY, single, user_id))
                singled += [id_] if single else []
        return singled

    def _held(self, node: str, key: bytes, ids: Sequence[bytes]) -> Operation[list[bytes]]:
        """Those ids that are still in an index: who ends a session takes its id out a moment later."""
        are_held = yield from self._repair.held(node, [(key, id_) for id_ in ids])
        return [id_ for id_, is_held in zip(ids, are_held, strict=True) if is_held]

    def _rows(self, node: str, ids: Sequence[bytes]) -> Operation[dict[bytes, Led]]:
        """What each id in an index leads to."""
        found: dict[bytes, Led] = {}
        for id_, record in zip(ids, (yield from self._records(node, ids)), strict=True):
            found[id_] = "gone" if record is None else peek(record, to_text(id_)) or "damaged"
        return found

    def _end_index(self, node: str, key: bytes, expires: int) -> Operation[bool]:
        """Give an end to an index that has none.

        From the moment that it has one, logins put it off. Those before are all in the index: so it is read once more, and its end is put
        off to that of the last session in it. If entries are taken out all the while, the end is taken away again.
        """
        yield from self._mends.extend(key, expires + INDEX_SLACK_MS, endless=True)
        latest = yield from self._latest(node, key)
        if latest is None:
            yield Call("PERSIST", (key,))
            return False
        yield from self._mends.extend(key, latest + INDEX_SLACK_MS, endless=False)
        return True

    def _latest(self, node: str, key: bytes) -> Operation[int | None]:
        """When the last session in an index ends; None if it could not be read without one being missed."""
        latest, place, restarts = 0, START, 0
        while restarts < RESTARTS:
            page = yield from self._layout.index.read_page(key, place, SCAN_COUNT)
            if page.has_moved:
                place, restarts = START, restarts + 1
                continue
            rows = yield from self._rows(node, page.ids)
            latest = max([latest, *(row.idle_expires for row in rows.values() if isinstance(row, SessionRow))])
            if page.next is None:
                return latest
            place = page.next
        return None

    def _examine_others(self, node: str, names: Sequence[bytes]) -> Operation[list[Finding]]:
        """Keys of adapters before 1.1.0: a session at its bare id, and a list of such ids at the bare id of a user."""
        findings: list[Finding] = []
        try:
            kinds: list[bytes] = yield OnNode(node, tuple(Call("TYPE", (name,)) for name in names))
        except Exception as error:
            if not is_refusal(error):
                raise
            return [Finding(Kind.OTHERS_UNREADABLE)]
        may_move = self._treatment.fix and self._treatment.move_bare and node == ""
        for name, kind in zip(names, kinds, strict=True):
            if kind == b"string" and is_session_id(to_text(name)):
                (record,) = yield Call("MGET", (name,))
                if (row := peek(record or b"", to_text(name))) is not None:
                    findings.append(_about(Kind.BARE_SESSION, row, may_move and (yield from self._move(row, name, record))))
            elif kind == b"list":
                head = yield Call("LRANGE", (name, 0, 0))
                if head and is_session_id(to_text(head[0])):
                    mended = may_move and (yield from self._move_bare_index(name, findings))
                    findings.append(Finding(Kind.BARE_INDEX, mended, to_text(name)))
        return findings

    def _move(self, row: SessionRow, name: bytes, record: bytes) -> Operation[bool]:
        """Move a session from its bare id to where the layout has it, unless something is there; delete it if it is over."""
        key = to_bytes(self._layout.session_key(row.id))
        if row.idle_expires < milliseconds_of((yield Call("TIME", ()))):
            return (yield from self._mends.erase(name, b"string", record))
        if not (yield Call("RENAMENX", (name, key))):
            return False
        yield from self._mends.settle(key, record, row)
        yield from self._repair.index(row)
        return True

    def _move_bare_index(self, name: bytes, findings: list[Finding]) -> Operation[bool]:
        """Move the sessions of a bare index, and delete it if one of them is the user's: only that shows that it is an index."""
        is_index, place = False, START
        while True:
            page = yield from LIST.read_page(name, place, SCAN_COUNT)
            replies: list[list[bytes | None]] = yield OnNode("", tuple(Call("MGET", (id_,)) for id_ in page.ids))
            for id_, (record,) in zip(page.ids, replies, strict=True):
                if record is not None and (row := peek(record, to_text(id_))) is not None:
                    findings.append(_about(Kind.BARE_SESSION, row, (yield from self._move(row, id_, record))))
            rows = yield from self._rows("", page.ids)
            is_index = is_index or any(isinstance(row, SessionRow) and to_bytes(row.user_id) == name for row in rows.values())
            if page.next is None:
                return is_index and (yield from self._mends.erase(name, b"list", None))
            place = page.next

    def _delete_damaged(self, sight: _Sight) -> Operation[bool]:
        wanted = self._treatment.fix and self._treatment.delete_damaged
        return wanted and (yield from self._mends.erase(sight.name, sight.type, sight.value))

    def _extend(self, key: bytes, expires: int) -> Operation[bool]:
        if self._treatment.fix:
            yield from self._mends.extend(key, expires, endless=True)
        return self._treatment.fix

    def _persist(self, key: bytes) -> Operation[bool]:
        if self._treatment.fix:
            yield Call("PERSIST", (key,))
        return self._treatment.fix

    def _drop(self, user_id: str, ids: Sequence[bytes]) -> Operation[bool]:
        """Take ids out of a user's index, unless that is none."""
        key = to_bytes(self._layout.index_key(user_id))
        if not self._treatment.fix:
            return False
        kind: bytes = yield Call("TYPE", (key,))
        if kind == self._layout.index.type.encode():
            yield from self._steps.drop(self._layout.index, key, ids)
            return True
        return kind == b"none"

    def _records(self, node: str, ids: Sequence[bytes]) -> Operation[list[bytes | None]]:
        return (yield from read_together(node, [session_key(self._layout, id_) for id_ in ids]))

    def _ends(self, node: str, keys: Sequence[bytes]) -> Operation[list[tuple[int, int]]]:
        """What is left of each key's life, and the time after that."""
        *ttls, time = yield OnNode(node, (*(Call("PTTL", (key,)) for key in keys), Call("TIME", ())))
        return [(ttl, milliseconds_of(time)) for ttl in ttls]


def _look(node: str, names: Sequence[bytes]) -> Operation[tuple[list[_Sight], _Now]]:
    calls = [call for name in names for call in (Call("TYPE", (name,)), Call("PTTL", (name,)), Call("MGET", (name,)))]
    before, *replies, after = yield OnNode(node, (Call("TIME", ()), *calls, Call("TIME", ())))
    seen = zip(names, replies[::3], replies[1::3], replies[2::3], strict=True)
    return [_Sight(name, kind, ttl, value) for name, kind, ttl, (value,) in seen], _Now(milliseconds_of(before), milliseconds_of(after))


def _about(kind: Kind, row: SessionRow, mended: bool) -> Finding:
    return Finding(kind, mended, row.user_id, handle_of(row))


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
