"""What can be wrong in one user's index, and how it is found and mended, page by page: its end, and its entries."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from lucia._redis.cluster import INDEX_SLACK_MS, SlotSteps
from lucia._redis.commands import Call, OnNode, Operation
from lucia._redis.doctor.findings import Deferred, Finding, Kind, RepairOptions
from lucia._redis.index import FIRST_PAGE
from lucia._redis.operations import milliseconds_of, to_bytes, to_text
from lucia._redis.records import Layout
from lucia._redis.repair import SCAN_COUNT, Led, Repair, RepairOperations, led_to
from lucia.models import SessionRow

HOUR_MS: Final = 3_600_000
"""How long a key lives at least that is given an end."""

RESTARTS: Final = 10
"""How often an index is read anew since entries were taken out meanwhile."""

_SKETCH_BITS: Final = 1 << 23


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


class IndexDoctor:
    """Examines indexes of the layout's type. Beside ``legacy_writers`` no index gets an end, and dead entries wait for a second look."""

    def __init__(
        self,
        layout: Layout,
        steps: SlotSteps,
        repair: Repair,
        mends: RepairOperations,
        treatment: RepairOptions,
    ) -> None:
        self._layout = layout
        self._steps = steps
        self._repair = repair
        self._mends = mends
        self._treatment = treatment

    def examine(self, key: bytes, later: Deferred) -> Operation[list[Finding]]:
        """Look at an index: first at all its entries, then at its end."""
        user_id = self.user_of(key)
        findings, latest = yield from self._examine_entries(key, user_id, later)
        ttl, time = yield OnNode(later.node, (Call("PTTL", (key,)), Call("TIME", ())))
        now = milliseconds_of(time)
        if ttl == -2:
            return findings
        if self._layout.index.legacy_writers:
            if ttl != -1:
                findings.append(
                    Finding(
                        Kind.INDEX_WITH_TTL,
                        self._treatment.fix and (yield from _persist(key)),
                        user_id,
                    )
                )
        elif ttl == -1:
            mended = self._treatment.fix and (
                yield from self._end(later.node, key, max(latest, now + HOUR_MS))
            )
            findings.append(Finding(Kind.INDEX_WITHOUT_TTL, mended, user_id))
        elif now + ttl < latest:
            mended = self._treatment.fix and (
                yield from self._mends.extend(key, latest + INDEX_SLACK_MS, endless=True)
            )
            findings.append(Finding(Kind.INDEX_SHORT_TTL, mended, user_id))
        return findings

    def user_of(self, key: bytes) -> str:
        """Return the id of the user whose index is at this key."""
        return to_text(key.removeprefix(self._layout.index_key("").encode()))

    def drop(self, user_id: str, ids: Sequence[bytes]) -> Operation[bool]:
        """Take ids out of a user's index if the treatment says so; says whether they are out, as they are not if it is no index."""
        key = to_bytes(self._layout.index_key(user_id))
        if not self._treatment.fix:
            return False
        kind: bytes = yield Call("TYPE", (key,))
        if kind == self._layout.index.type.encode():
            yield from self._steps.remove_from_index(self._layout.index, key, ids)
            return True
        return kind == b"none"

    def _examine_entries(
        self, key: bytes, user_id: str, later: Deferred
    ) -> Operation[tuple[list[Finding], int]]:
        """What is wrong with the entries, page by page, and when the last of the user's sessions among them ends."""
        findings: list[Finding] = []
        sketch, latest, place = _Sketch(), 0, FIRST_PAGE
        while True:
            page = yield from self._layout.index.read_page(key, place, SCAN_COUNT)
            rows = yield from led_to(self._layout, later.node, list(dict.fromkeys(page.ids)))
            latest = max(
                [
                    latest,
                    *(
                        row.idle_expires
                        for row in rows.values()
                        if isinstance(row, SessionRow) and row.user_id == user_id
                    ),
                ]
            )
            removed = yield from self._examine_page(key, user_id, rows, later, findings)
            taken = sum(page.ids.count(id_) for id_ in removed)
            if self._layout.index.type == "list":
                repeated = {
                    id_
                    for id_ in page.ids
                    if sketch.may_have(id_) and isinstance(rows[id_], SessionRow)
                }
                singled = yield from self._examine_repeated(
                    key, user_id, repeated - set(removed), findings
                )
                taken += sum(page.ids.count(id_) - 1 for id_ in singled)
            if page.next is None:
                return findings, latest
            place = page.next.after_removing(taken)

    def _examine_page(
        self,
        key: bytes,
        user_id: str,
        rows: Mapping[bytes, Led],
        later: Deferred,
        findings: list[Finding],
    ) -> Operation[list[bytes]]:
        """Judge what the ids of a page lead to, and take out those that lead nowhere or to another user; returns those taken out."""
        dead = yield from self._held(
            later.node, key, [id_ for id_, row in rows.items() if row == "gone"]
        )
        foreign = [
            id_
            for id_, row in rows.items()
            if isinstance(row, SessionRow) and row.user_id != user_id
        ]
        if self._layout.index.legacy_writers:
            later.entries.extend((user_id, id_) for id_ in dead)
            dead = []
        removed = [*dead, *foreign]
        mended = bool(removed) and (yield from self.drop(user_id, removed))
        findings += [Finding(Kind.DEAD_ENTRY, mended, user_id) for _ in dead]
        findings += [Finding(Kind.FOREIGN_ENTRY, mended, user_id) for _ in foreign]
        return removed if mended else []

    def _examine_repeated(
        self, key: bytes, user_id: str, ids: Iterable[bytes], findings: list[Finding]
    ) -> Operation[list[bytes]]:
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

    def _end(self, node: str, key: bytes, expires: int) -> Operation[bool]:
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
        latest, place, restarts = 0, FIRST_PAGE, 0
        while restarts < RESTARTS:
            page = yield from self._layout.index.read_page(key, place, SCAN_COUNT)
            if page.has_moved:
                place, restarts = FIRST_PAGE, restarts + 1
                continue
            rows = yield from led_to(self._layout, node, page.ids)
            latest = max(
                [
                    latest,
                    *(row.idle_expires for row in rows.values() if isinstance(row, SessionRow)),
                ]
            )
            if page.next is None:
                return latest
            place = page.next
        return None


def _persist(key: bytes) -> Operation[bool]:
    yield Call("PERSIST", (key,))
    return True
