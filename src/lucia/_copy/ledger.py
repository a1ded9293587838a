"""The state file of a copy: what was copied, in SQLite.

It holds no session id, only digests of the ids that the destination stores. Only its owner may read
it, and only one process at a time may use it.
"""

import hashlib
import json
import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from lucia._copy.stores import CopyError, Skipped
from lucia.models import SessionRow, handle_of

VERSION: Final = 1

USERS_PER_PAGE: Final = 50
"""How many users' sessions are compared at once."""

_ALWAYS: Final = 2**62
"""A number that no run has: an entry that is not looked for."""

_TABLES: Final = """
CREATE TABLE IF NOT EXISTS settings (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS copied (
    digest BLOB PRIMARY KEY,
    user_id TEXT NOT NULL,
    login BLOB NOT NULL,
    fingerprint TEXT NOT NULL,
    expires INTEGER NOT NULL,
    seen INTEGER NOT NULL,
    leaving INTEGER NOT NULL DEFAULT 0,
    refused TEXT
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS copied_login ON copied (user_id, login);
"""


@dataclass(frozen=True, slots=True)
class Entry:
    """A session of the source that was copied, or never will be.

    Args:
        digest: of its id in the destination.
        login: a digest of its handle.
        fingerprint: of the record that was written.
        is_seen: whether this run has seen it in the source.
        refused: why it is not to be copied; None if it was.
    """

    digest: bytes
    login: bytes
    fingerprint: str
    is_seen: bool
    refused: Skipped | None


def digest_of(session_id: str) -> bytes:
    """Return what stands for a stored id in the file."""
    return hashlib.sha256(session_id.encode()).digest()


def login_of(row: SessionRow) -> bytes:
    """Return what stands for a session's handle in the file. Renewals keep it."""
    return hashlib.sha256(handle_of(row).encode(errors="surrogatepass")).digest()


def _keep_private(path: Path) -> None:
    """Make the file, or take the rights on it away from others; refuse a symbolic link."""
    # SQLite gives the files beside it the same rights.
    number = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        os.fchmod(number, 0o600)
    finally:
        os.close(number)


class Ledger:
    """The open state file.

    Args:
        database: the file's connection.
        run: the number of this run.
        unused: the file's path if it is new, and the destination has nothing that it would know of.
    """

    def __init__(self, database: sqlite3.Connection, run: int, unused: Path | None) -> None:
        self._database = database
        self.run = run
        self.unused = unused

    @classmethod
    def open(cls, path: Path, settings: Mapping[str, Any], *, dry_run: bool = False) -> Self:
        """Open a state file, or make a new one.

        Args:
            path: the file.
            settings: must be the same at every run.
            dry_run: whether to work on a temporary copy, and leave the file as it is.

        Raises:
            CopyError: it is no state file, belongs to another copy, or is in use.
        """
        path = Path(os.path.abspath(path))  # noqa: PTH100  SQLite gives ":memory:" a meaning
        if not dry_run:
            _keep_private(path)
        database = sqlite3.connect("" if dry_run else path, timeout=0, isolation_level=None)
        try:
            if dry_run and path.exists():
                with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as it:
                    it.backup(database)
            # The whole run is one user of the file. A crash of the machine must not lose an entry
            # whose trace in the destination is removed already.
            database.execute("PRAGMA locking_mode = EXCLUSIVE")
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = FULL")
            run = _begin_run(database, {"version": VERSION, **settings}, path)
            return cls(database, run, path if run == 1 and not dry_run else None)
        except sqlite3.OperationalError as error:
            database.close()
            raise CopyError(
                f"{path} can't be used ({error}): perhaps another copy is running with it"
            ) from None
        except sqlite3.DatabaseError:
            database.close()
            raise CopyError(f"{path} is no state file of lucia copy: name another one") from None
        except CopyError:
            database.close()
            raise

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def begin_writing(self) -> None:
        """Note that something may be written to the destination: from now on the file is needed."""
        self.unused = None

    def find(self, digests: Iterable[bytes]) -> dict[bytes, Entry]:
        """Return the entries of these digests."""
        wanted = list(digests)
        return {entry.digest: entry for entry in self._entries(_one_of(wanted), wanted)}

    def has_login(self, row: SessionRow, now: int) -> bool:
        """Return whether other sessions of this session's login were copied, and not removed."""
        found = self._database.execute(
            "SELECT 1 FROM copied WHERE user_id = ? AND login = ? AND digest != ?"
            " AND NOT leaving AND expires > ? LIMIT 1",
            (row.user_id, login_of(row), digest_of(row.id), now),
        )
        return found.fetchone() is not None

    def add(self, rows: Iterable[tuple[SessionRow, str, Skipped | None]]) -> None:
        """Add sessions, each with the fingerprint of its record, and why it is not to be copied."""
        self._write(
            "INSERT OR REPLACE INTO copied VALUES (?, ?, ?, ?, ?, ?, 0, ?)",
            [
                (
                    digest_of(row.id),
                    row.user_id,
                    login_of(row),
                    fingerprint,
                    row.idle_expires,
                    self.run,
                    refused,
                )
                for row, fingerprint, refused in rows
            ],
        )

    def mark_seen(self, digests: Iterable[bytes]) -> None:
        """Remember that this run has seen sessions in the source."""
        self._write(
            "UPDATE copied SET seen = ? WHERE digest = ?", [(self.run, each) for each in digests]
        )

    def mark_leaving(self, digests: Iterable[bytes]) -> None:
        """Remember that the copy is about to remove sessions from the destination."""
        self._write("UPDATE copied SET leaving = 1 WHERE digest = ?", [(each,) for each in digests])

    def mark_changed(self, digests: Iterable[bytes]) -> None:
        """Keep the entries of sessions that the destination has changed until they expire."""
        self._write(
            "UPDATE copied SET refused = ?, seen = ?, leaving = 0 WHERE digest = ?",
            [(Skipped.CHANGED_THERE, _ALWAYS, each) for each in digests],
        )

    def forget(self, digests: Iterable[bytes]) -> None:
        """Delete the entries of sessions that are gone from the source."""
        self._write("DELETE FROM copied WHERE digest = ?", [(each,) for each in digests])

    def forget_expired(self, now: int) -> None:
        """Delete the entries of sessions that have expired."""
        self._write("DELETE FROM copied WHERE expires <= ?", [(now,)])

    def count(self, now: int) -> int:
        """Return how many sessions that have not expired were copied."""
        found = self._database.execute(
            "SELECT count(*) FROM copied WHERE expires > ? AND refused IS NULL", (now,)
        )
        count: int = found.fetchone()[0]
        return count

    def refused(self) -> dict[Skipped, int]:
        """Return how many sessions that this run has seen are not to be copied, by reasons."""
        found = self._database.execute(
            "SELECT refused, count(*) FROM copied WHERE refused IS NOT NULL AND seen = ?"
            " GROUP BY refused",
            (self.run,),
        )
        return {Skipped(reason): count for reason, count in found}

    def unseen(self, now: int) -> Iterator[list[tuple[str, list[Entry]]]]:
        """Return the entries that this run has not seen, by users, page by page."""
        last = ""  # no user has an empty id
        of_user = "user_id = ? AND seen < ? AND expires > ?"
        while users := self._database.execute(
            "SELECT DISTINCT user_id FROM copied WHERE seen < ? AND expires > ? AND user_id > ?"
            " ORDER BY user_id LIMIT ?",
            (self.run, now, last, USERS_PER_PAGE),
        ).fetchall():
            yield [(user, self._entries(of_user, [user, self.run, now])) for (user,) in users]
            (last,) = users[-1]

    def _entries(self, condition: str, values: Sequence[object]) -> list[Entry]:
        found = self._database.execute(
            f"SELECT digest, login, fingerprint, seen, refused FROM copied WHERE {condition}",  # noqa: S608
            values,
        )
        return [
            Entry(
                digest,
                login,
                fingerprint,
                seen == self.run,
                None if refused is None else Skipped(refused),
            )
            for digest, login, fingerprint, seen, refused in found
        ]

    def _write(self, statement: str, rows: list[tuple[Any, ...]]) -> None:
        """Execute a statement for each of these rows, in one transaction."""
        if rows:
            self._database.execute("BEGIN IMMEDIATE")
            self._database.executemany(statement, rows)
            self._database.execute("COMMIT")


def _one_of(digests: Sequence[bytes]) -> str:
    return f"digest IN ({', '.join('?' * len(digests))})"


def _begin_run(database: sqlite3.Connection, settings: Mapping[str, Any], path: Path) -> int:
    """Check that the file belongs to this copy; return the number of the run that begins."""
    database.executescript(_TABLES)
    before = dict(database.execute("SELECT name, value FROM settings"))
    run = int(before.pop("run", 0)) + 1
    now = {name: json.dumps(value) for name, value in settings.items()}
    if before and (changed := sorted(each for each in now if now[each] != before.get(each))):
        raise CopyError(
            f"{path} belongs to a copy with another {changed[0]}: use the same options, or name "
            "another file with --state"
        )
    database.execute("BEGIN IMMEDIATE")
    database.executemany(
        "INSERT OR REPLACE INTO settings VALUES (?, ?)", [*now.items(), ("run", str(run))]
    )
    database.execute("COMMIT")
    return run
