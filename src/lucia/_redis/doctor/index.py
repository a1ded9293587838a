"""Examine and fix one user's index, page by page: its entries and its expiry.

An index may only lose an entry whose session is gone. That is safe to decide: ids are used once
(I6), and a session is written before its index entry, so an entry without a session stays dead.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from lucia._redis.cluster import INDEX_SLACK_MS, SlotSteps
from lucia._redis.commands import Call, OnNode, Operation
from lucia._redis.doctor.findings import Deferred, Finding, Kind, RepairOptions
from lucia._redis.index import FIRST_PAGE
from lucia._redis.keys import Layout
from lucia._redis.operations import milliseconds_of, to_bytes, to_text
from lucia._redis.repair import SCAN_COUNT, Repair, RepairOperations, ResolvedId, resolve_ids
from lucia.models import SessionRow

HOUR_MS: Final = 3_600_000
"""The shortest life of a key that had no expiry and is given one."""

RESTARTS: Final = 10
"""How often an index is read from the start because entries were removed during the read."""

_FILTER_BITS: Final = 1 << 23


class _SeenIds:
    """A set of ids in one megabyte, which may report an id that was never added.

    It is a Bloom filter with one hash function. What it reports is counted by the server.
    """

    def __init__(self) -> None:
        self._bits = bytearray(_FILTER_BITS // 8)

    def add(self, id_: bytes) -> bool:
        """Add an id, and return whether it may have been added before."""
        byte, bit = divmod(hash(id_) % _FILTER_BITS, 8)
        before = self._bits[byte]
        self._bits[byte] |= 1 << bit
        return bool(before & (1 << bit))


class IndexExaminer:
    """Examines indexes of the layout's type.

    With ``legacy_writers``, JavaScript writes to the store: then no index gets an expiry, and dead
    entries are judged at the second examination, since JavaScript writes a session and its entry
    in any order.
    """

    def __init__(
        self,
        layout: Layout,
        steps: SlotSteps,
        repair: Repair,
        repairs: RepairOperations,
        options: RepairOptions,
    ) -> None:
        self._layout = layout
        self._steps = steps
        self._repair = repair
        self._repairs = repairs
        self._options = options

    def examine(self, key: bytes, deferred: Deferred) -> Operation[list[Finding]]:
        """Examine an index: first all its entries, then its expiry."""
        user_id = self.user_of(key)
        # In this order: a login since the first read extends the expiry itself, so in a sound index
        # the expiry that is read later covers all sessions that are read here.
        findings, latest = yield from self._examine_entries(key, user_id, deferred)
        ttl, time = yield OnNode(deferred.node, (Call("PTTL", (key,)), Call("TIME", ())))
        now = milliseconds_of(time)
        if ttl == -2:
            return findings
        if self._layout.index.legacy_writers:
            if ttl != -1:
                findings.append(
                    Finding(
                        Kind.INDEX_WITH_TTL,
                        self._options.fix and (yield from _remove_expiry(key)),
                        user_id,
                    )
                )
        elif ttl == -1:
            fixed = self._options.fix and (
                yield from self._set_index_expiry(deferred.node, key, max(latest, now + HOUR_MS))
            )
            findings.append(Finding(Kind.INDEX_WITHOUT_TTL, fixed, user_id))
        elif now + ttl < latest:
            fixed = self._options.fix and (
                yield from self._repairs.extend_expiry(key, latest + INDEX_SLACK_MS, endless=True)
            )
            findings.append(Finding(Kind.INDEX_SHORT_TTL, fixed, user_id))
        return findings

    def user_of(self, key: bytes) -> str:
        """Return the id of the user whose index is at this key."""
        return to_text(key.removeprefix(self._layout.index_key("").encode()))

    def drop(self, user_id: str, ids: Sequence[bytes]) -> Operation[bool]:
        """Remove ids from a user's index if ``fix`` is set, and return whether they are gone.

        They are not if the key holds a value of another type, which is left as it is.
        """
        key = to_bytes(self._layout.index_key(user_id))
        if not self._options.fix:
            return False
        kind: bytes = yield Call("TYPE", (key,))
        if kind == self._layout.index.type.encode():
            yield from self._steps.remove_from_index(self._layout.index, key, ids)
            return True
        return kind == b"none"

    def _examine_entries(
        self, key: bytes, user_id: str, deferred: Deferred
    ) -> Operation[tuple[list[Finding], int]]:
        """Examine the entries page by page.

        Returns:
            The findings, and the latest expiry of the user's sessions in the index.
        """
        findings: list[Finding] = []
        seen, latest, place = _SeenIds(), 0, FIRST_PAGE
        while True:
            page = yield from self._layout.index.read_page(key, place, SCAN_COUNT)
            rows = yield from resolve_ids(
                self._layout, deferred.node, list(dict.fromkeys(page.ids))
            )
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
            removed = yield from self._examine_page(key, user_id, rows, deferred, findings)
            taken = sum(page.ids.count(id_) for id_ in removed)
            if self._layout.index.type == "list":
                repeated = {
                    id_ for id_ in page.ids if seen.add(id_) and isinstance(rows[id_], SessionRow)
                }
                deduplicated = yield from self._examine_repeated(
                    key, user_id, repeated - set(removed), findings
                )
                taken += sum(page.ids.count(id_) - 1 for id_ in deduplicated)
            if page.next is None:
                return findings, latest
            place = page.next.after_removing(taken)

    def _examine_page(
        self,
        key: bytes,
        user_id: str,
        rows: Mapping[bytes, ResolvedId],
        deferred: Deferred,
        findings: list[Finding],
    ) -> Operation[list[bytes]]:
        """Remove the ids of a page that lead to no session or to another user's.

        Returns:
            The ids that were removed.
        """
        dead = yield from self._are_indexed(
            deferred.node, key, [id_ for id_, row in rows.items() if row == "gone"]
        )
        foreign = [
            id_
            for id_, row in rows.items()
            if isinstance(row, SessionRow) and row.user_id != user_id
        ]
        if self._layout.index.legacy_writers:
            deferred.entries.extend((user_id, id_) for id_ in dead)
            dead = []
        removed = [*dead, *foreign]
        fixed = bool(removed) and (yield from self.drop(user_id, removed))
        findings += [Finding(Kind.DEAD_ENTRY, fixed, user_id) for _ in dead]
        findings += [Finding(Kind.FOREIGN_ENTRY, fixed, user_id) for _ in foreign]
        return removed if fixed else []

    def _examine_repeated(
        self, key: bytes, user_id: str, ids: Iterable[bytes], findings: list[Finding]
    ) -> Operation[list[bytes]]:
        """Leave one entry of each id that is in a list more than once.

        Returns:
            The ids of which entries were removed.
        """
        deduplicated: list[bytes] = []
        for id_ in sorted(ids):
            if (yield from self._layout.index.count(key, id_)) > 1:
                is_removed = self._options.fix and (
                    yield from self._repairs.remove_duplicates(key, id_)
                )
                findings.append(Finding(Kind.DUPLICATE_ENTRY, is_removed, user_id))
                deduplicated += [id_] if is_removed else []
        return deduplicated

    def _are_indexed(self, node: str, key: bytes, ids: Sequence[bytes]) -> Operation[list[bytes]]:
        """Return the ids that are still in an index.

        Revoking deletes a session first and removes its id a moment later. An id that is gone by
        now was such a revocation, and is no finding.
        """
        are_indexed = yield from self._repair.are_indexed(node, [(key, id_) for id_ in ids])
        return [id_ for id_, is_indexed in zip(ids, are_indexed, strict=True) if is_indexed]

    def _set_index_expiry(self, node: str, key: bytes, expires: int) -> Operation[bool]:
        """Give an expiry to an index that has none, and return whether it has one now."""
        # A login extends only an expiry that exists. So the expiry is set first, from the sessions
        # seen so far, and the index is then read again: a login before the first step is in it, and
        # a login after it has extended the expiry itself. So the index never expires before a
        # session in it (I1, I3).
        yield from self._repairs.extend_expiry(key, expires + INDEX_SLACK_MS, endless=True)
        latest = yield from self._latest_expiry(node, key)
        # Entries were removed during every read, so that a session may have been missed.
        if latest is None:
            yield Call("PERSIST", (key,))
            return False
        yield from self._repairs.extend_expiry(key, latest + INDEX_SLACK_MS, endless=False)
        return True

    def _latest_expiry(self, node: str, key: bytes) -> Operation[int | None]:
        """Return the latest expiry of the sessions in an index.

        None if entries were removed during every read.
        """
        latest, place, restarts = 0, FIRST_PAGE, 0
        while restarts < RESTARTS:
            page = yield from self._layout.index.read_page(key, place, SCAN_COUNT)
            if page.has_moved:
                place, restarts = FIRST_PAGE, restarts + 1
                continue
            rows = yield from resolve_ids(self._layout, node, page.ids)
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


def _remove_expiry(key: bytes) -> Operation[bool]:
    yield Call("PERSIST", (key,))
    return True
