"""One run of a copy; see :mod:`lucia._copy` for what it promises and why."""

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from lucia._copy.ids import IdConversion
from lucia._copy.ledger import USERS_PER_PAGE, Entry, Ledger, digest_of, login_of
from lucia._copy.stores import (
    BATCH_SIZE,
    TO_LOOK_AT,
    CopyError,
    Destination,
    Inserted,
    Page,
    Skipped,
    Source,
    UsedSession,
    Written,
)
from lucia._rules.sessions import Clock, system_clock
from lucia.models import SessionRow

VERSION: Final = 1
"""The version of the JSON."""

MAX_REVOCATIONS: Final = 16
"""How often the sessions of a login are revoked until none is left: each renewal makes one more."""


class Progress(Protocol):
    """Shows the progress of a copy."""

    def __call__(self, done: int, total: int | None, description: str) -> None:
        """Show that ``done`` of about ``total`` are done; None for an unknown total."""
        ...


@dataclass
class RunCounts:
    """The counts of one run.

    Args:
        copied: sessions that were copied.
        unchanged: sessions that an earlier run had copied, and that have not changed.
        updated: sessions that an earlier run had copied, and that had changed in the source.
        used: used ids that lead to their successors in the destination now.
        removed: sessions that were renewed in the source, and removed from the destination.
        revoked: logins that were revoked in the source, and are in the destination now.
        skipped: sessions that were not copied, by reasons.
    """

    copied: int = 0
    unchanged: int = 0
    updated: int = 0
    used: int = 0
    removed: int = 0
    revoked: int = 0
    skipped: Counter[Skipped] = field(default_factory=Counter[Skipped])

    def to_look_at(self) -> int:
        """Return how many sessions were skipped for a reason that an operator must look at."""
        return sum(self.skipped[reason] for reason in TO_LOOK_AT)

    def as_json(self) -> dict[str, Any]:
        """Return the counts as they are printed with ``--json``."""
        return {
            "copied": self.copied,
            "unchanged": self.unchanged,
            "updated": self.updated,
            "used": self.used,
            "removed": self.removed,
            "revoked": self.revoked,
            "skipped": {str(reason): self.skipped[reason] for reason in Skipped},
        }


class Pacer:
    """Slows a copy down.

    Args:
        rate: how many sessions a second; None for as many as can be.
        monotonic: returns the time in seconds, by a clock that never goes back.
        sleep: waits for a number of seconds.
    """

    def __init__(
        self,
        rate: int | None,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.batch = BATCH_SIZE if rate is None else max(min(BATCH_SIZE, rate), 1)
        self._rate = rate
        self._monotonic = monotonic
        self._sleep = sleep
        self._free_at = monotonic()

    def wait(self, count: int) -> None:
        """Wait until so many sessions may be copied."""
        if self._rate is not None:
            now = self._monotonic()
            if now < self._free_at:
                self._sleep(self._free_at - now)
            self._free_at = max(self._free_at, now) + count / self._rate


class DryRun:
    """A destination to which nothing is written."""

    def __init__(self, destination: Destination) -> None:
        self.is_empty = destination.is_empty
        self.fingerprint = destination.fingerprint
        self.insert = self.preview = destination.preview
        self.sessions_of = destination.sessions_of
        self._used = set[str]()

    def confirm(self, session_ids: Sequence[str]) -> None: ...

    def unconfirmed(self) -> Iterable[Mapping[str, Written | None]]:
        return ()

    def discard(self, session_ids: Sequence[str]) -> None: ...

    def update(self, row: SessionRow, fingerprint: str) -> bool:
        return True

    def replace(self, used: UsedSession, fingerprint: str | None) -> bool:
        is_new = used.id not in self._used
        self._used.add(used.id)
        return is_new

    def remove(self, row: SessionRow, fingerprint: str) -> bool:
        return True

    def revoke(self, session_ids: Sequence[str]) -> None: ...


@dataclass(frozen=True, slots=True)
class _Record:
    """A session as the destination stores it, and the fingerprint of that."""

    row: SessionRow
    fingerprint: str


class Copier:
    """Copies what has changed in the source since the last run.

    Args:
        source: is read.
        destination: is written.
        ids: turns ids of the source into ids of the destination.
        ledger: the state file.
        pacer: slows it down.
        progress: shows the progress.
        clock: returns the time in milliseconds since the epoch.
    """

    def __init__(
        self,
        source: Source,
        destination: Destination,
        ids: IdConversion,
        ledger: Ledger,
        *,
        pacer: Pacer,
        progress: Progress,
        clock: Clock = system_clock,
    ) -> None:
        self.counts = RunCounts()
        self._source = source
        self._destination = destination
        self._ids = ids
        self._ledger = ledger
        self._pacer = pacer
        self._progress = progress
        self._clock = clock
        # How many sessions an earlier run has copied, and how many of these this run has seen.
        self._copied_before = 0
        self._seen_before = 0
        # What an interrupted run has written and not entered: at most a batch for each such run.
        self._unentered: dict[str, Written] = {}

    def run(self, *, merge: bool = False, all_revoked: bool = False) -> None:
        """Copy everything once.

        Args:
            merge: whether sessions may be in the destination before the first run.
            all_revoked: whether all sessions that were copied before may be gone.

        Raises:
            CopyError: it can't go on.
        """
        self._check_start(merge=merge)
        self._copied_before = self._ledger.count(self._clock())
        self._confirm_rest()
        # What was renewed within the last minute has to lead to its successor as soon as possible,
        # and what is renewed during the long walk is found by that.
        for page in self._source.pages(only_used=True):
            self._copy_page(page)
        self.counts.skipped.clear()  # the walk finds the same again
        total, looked_at = self._source.total(), 0
        for page in self._source.pages(only_used=False):
            self._copy_page(page)
            self.counts.skipped.update(page.skipped)
            looked_at += page.looked_at
            self._progress(looked_at, total, "sessions")
        if not all_revoked:
            self._check_end()
        self._remove_unentered()
        for number, users in enumerate(self._ledger.unseen(self._clock())):
            self._progress(number * USERS_PER_PAGE, None, "users with revoked or renewed sessions")
            self._remove(users)
        self._ledger.forget_expired(self._clock())
        self.counts.skipped.update(self._ledger.refused())

    def _check_start(self, *, merge: bool) -> None:
        if self._ledger.run == 1 and not merge and not self._destination.is_empty():
            raise CopyError(
                "the destination has sessions, and the state file is new: if you have copied "
                "before, give the state file of that with --state, or sessions that were revoked "
                "would be valid again; if these sessions are others, add --merge"
            )

    def _check_end(self) -> None:
        entered = self._ledger.find(map(digest_of, self._unentered))
        if (self._copied_before or self._unentered) and not (self._seen_before or entered):
            raise CopyError(
                "the source has none of the sessions that were copied before: check its address. "
                "Nothing was revoked in the destination. If all of them were revoked indeed, add "
                "--all-revoked"
            )

    def _confirm_rest(self) -> None:
        """Confirm what an interrupted run has written to the destination and to the file."""
        now = self._clock()
        for found in self._destination.unconfirmed() if self._ledger.run > 1 else ():
            known = self._ledger.find(map(digest_of, found))
            if entered := [id_ for id_ in found if digest_of(id_) in known]:
                self._destination.confirm(entered)
            self._unentered |= {
                id_: written
                for id_, written in found.items()
                if written is not None
                and written.row.idle_expires > now
                and digest_of(id_) not in known
            }

    def _remove_unentered(self) -> None:
        """Remove what an interrupted run has written, and this run has not seen in the source.

        It was revoked or renewed there before it had an entry by which that could be found out.
        """
        known = self._ledger.find(map(digest_of, self._unentered))
        gone = [id_ for id_ in self._unentered if digest_of(id_) not in known]
        users = defaultdict[str, list[Entry]](list)
        for id_ in gone:
            row, fingerprint = self._unentered[id_]
            entry = Entry(digest_of(id_), login_of(row), fingerprint, is_seen=False, refused=None)
            users[row.user_id].append(entry)
        for user in users.items():
            self._remove([user])
        if gone:
            self._destination.discard(gone)

    def _copy_page(self, page: Page) -> None:
        # Sessions before used ids, which must not lead to what is not there yet.
        self._copy_all(page.sessions)
        self._replace_all(page.used)

    def _copy_all(self, rows: Sequence[SessionRow]) -> None:
        for start in range(0, len(rows), self._pacer.batch):
            batch = rows[start : start + self._pacer.batch]
            self._pacer.wait(len(batch))
            self._copy(batch)

    def _copy(self, rows: Iterable[SessionRow]) -> None:
        records = self._records(rows)
        known = self._ledger.find(records)
        self._seen_before += sum(not entry.is_seen for entry in known.values())
        self._ledger.mark_seen(known)
        new: list[_Record] = []
        for digest, record in records.items():
            if digest not in known:
                new.append(record)
            else:
                self._update(known[digest], record)
        if new:
            self._insert(new)

    def _records(self, rows: Iterable[SessionRow]) -> dict[bytes, _Record]:
        """Return the sessions as the destination stores them, by the digests of their ids."""
        records: dict[bytes, _Record] = {}
        for row in map(self._ids.row, rows):
            try:
                records[digest_of(row.id)] = _Record(row, self._destination.fingerprint(row))
            except ValueError:
                self.counts.skipped[Skipped.REFUSED] += 1
        return records

    def _update(self, entry: Entry, record: _Record) -> None:
        """Bring a session that was copied before up to date."""
        if entry.refused is not None:
            return  # counted at the end
        if entry.fingerprint == record.fingerprint:
            self.counts.unchanged += not entry.is_seen
        elif self._destination.update(record.row, entry.fingerprint):
            self._ledger.add([(record.row, record.fingerprint, None)])
            self.counts.updated += 1
        else:
            self.counts.skipped[Skipped.CHANGED_THERE] += 1

    def _insert(self, records: Sequence[_Record]) -> None:
        """Store sessions that were not copied before."""
        revoked = self._revoked_there([record.row for record in records])
        wanted = [record for record in records if record.row.id not in revoked]
        self._ledger.begin_writing()
        results = self._destination.insert([record.row for record in wanted]) if wanted else []
        entries: list[tuple[SessionRow, str, Skipped | None]] = [
            (record.row, "", Skipped.REVOKED_THERE)
            for record in records
            if record.row.id in revoked
        ]
        there: list[str] = []
        for record, result in zip(wanted, results, strict=True):
            if isinstance(result, Inserted):
                entries.append((record.row, record.fingerprint, None))
                there.append(record.row.id)
                self.counts.copied += result is Inserted.WRITTEN
                self.counts.unchanged += result is Inserted.SAME
            elif result is Skipped.TAKEN:
                entries.append((record.row, "", result))
            else:
                self.counts.skipped[result] += 1
        self._ledger.add(entries)
        if there:
            self._destination.confirm(there)

    def _revoked_there(self, rows: Iterable[SessionRow]) -> set[str]:
        """Return the ids of sessions that are new, and whose login the destination has revoked."""
        now = self._clock()
        copied = [row for row in rows if self._ledger.has_login(row, now)]
        logins = {
            user_id: set(map(login_of, self._destination.sessions_of(user_id)))
            for user_id in {row.user_id for row in copied}
        }
        return {row.id for row in copied if login_of(row) not in logins[row.user_id]}

    def _replace_all(self, from_source: Iterable[UsedSession]) -> None:
        """Let used ids lead to their successors."""
        found: list[tuple[UsedSession, Entry | None]] = []
        for each in from_source:
            used = self._ids.used(each)
            if used is None:
                self.counts.skipped[Skipped.UNDECODABLE] += 1
                continue
            digest, end = digest_of(used.id), digest_of(self._ids.stored(used.end))
            known = self._ledger.find([digest, end])
            entry = known.get(digest)
            # What was not copied, for whatever reason, is nothing to lead to.
            is_end_there = end in known and known[end].refused is None
            if is_end_there and (entry is None or entry.refused is None):
                found.append((used, entry))
        # Together, since each change of the file waits for the disk.
        digests = [entry.digest for _, entry in found if entry is not None]
        self._ledger.mark_leaving(digests)
        done: list[bytes] = []
        changed: list[bytes] = []
        for used, entry in found:
            is_done = self._destination.replace(used, self._fingerprint_of(used.id, entry))
            self.counts.used += is_done
            if entry is not None:
                (done if is_done else changed).append(entry.digest)
        self._ledger.forget(done)
        # Without their entries they would be used ids that were never copied.
        self._ledger.mark_changed(changed)

    def _fingerprint_of(self, session_id: str, entry: Entry | None) -> str | None:
        """Return the fingerprint of the record that was copied; None if none was."""
        if entry is not None:
            return entry.fingerprint
        written = self._unentered.get(session_id)
        return None if written is None else written.fingerprint

    def _remove(self, users: Sequence[tuple[str, Sequence[Entry]]]) -> None:
        """Remove users' sessions that the walk has not seen from the destination."""
        rows = {user_id: self._source.sessions_of(user_id) for user_id, _ in users}
        # The walk may have missed sessions that were made behind it. They come first: a login
        # must not be without any session in between.
        self._copy_all([row for found in rows.values() for row in found])
        here = {digest_of(self._ids.stored(row.id)) for found in rows.values() for row in found}
        gone = {
            user_id: [entry for entry in entries if entry.digest not in here]
            for user_id, entries in users
        }
        digests = [entry.digest for entries in gone.values() for entry in entries]
        self._ledger.mark_leaving(digests)
        for user_id, entries in gone.items():
            self._remove_from_destination(user_id, entries, set(map(login_of, rows[user_id])))
        self._ledger.forget(digests)

    def _remove_from_destination(
        self, user_id: str, gone: Sequence[Entry], logins: set[bytes]
    ) -> None:
        """Remove a user's sessions that are gone from the source.

        Args:
            user_id: the user.
            gone: the sessions.
            logins: those that are alive in the source: their sessions were renewed there, and are
                not revoked.
        """
        for login in {entry.login for entry in gone if entry.refused is None} - logins:
            self._revoke(user_id, login)
        there = {digest_of(row.id): row for row in self._destination.sessions_of(user_id)}
        for entry in gone:
            if entry.login in logins and entry.digest in there:
                self.counts.removed += self._destination.remove(
                    there[entry.digest], entry.fingerprint
                )

    def _revoke(self, user_id: str, login: bytes) -> None:
        """Revoke a login that was revoked in the source, and what it was renewed to."""
        was_there = False
        for _ in range(MAX_REVOCATIONS):
            rows = self._destination.sessions_of(user_id)
            ids = [row.id for row in rows if login_of(row) == login]
            if not ids:
                break
            was_there = True
            self._destination.revoke(ids)
        self.counts.revoked += was_there
