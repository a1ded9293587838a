"""The protocols of the two stores of a copy. Ids are stored ids: hashes where ids are hashed."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, NamedTuple, Protocol

from lucia.models import SessionRow

PAGE_SIZE: Final = 500
"""About how many sessions are read at once."""

BATCH_SIZE: Final = 100
"""How many sessions are written at once, at most."""


class CopyError(Exception):
    """A copy can't go on; the message says what to do."""


class Skipped(StrEnum):
    """Why a session was not copied. The values are the names in the JSON."""

    EXPIRED = "expired"
    INCOMPLETE = "incomplete"
    REVOKED_THERE = "revoked_in_destination"
    CHANGED_THERE = "changed_in_destination"
    UNDECODABLE = "undecodable"
    WRONG_TYPE = "key_of_another_type"
    USER_MISSING = "user_missing"
    TAKEN = "id_taken"
    INDEX_TYPE = "index_of_another_type"
    REFUSED = "refused_by_destination"


TO_LOOK_AT: Final = frozenset(
    {
        Skipped.UNDECODABLE,
        Skipped.WRONG_TYPE,
        Skipped.USER_MISSING,
        Skipped.TAKEN,
        Skipped.INDEX_TYPE,
        Skipped.REFUSED,
    }
)
"""The reasons that an operator must look at. The others are the normal life of sessions."""


class Inserted(StrEnum):
    """The outcome of an insertion after which the destination has the session."""

    WRITTEN = "written"
    SAME = "same"


class UsedSession(NamedTuple):
    """A session that was renewed within the last minute.

    Args:
        id: its id.
        successor: the id that it was renewed to.
        grace: for how many milliseconds after the renewal the used id leads to its successor.
        sealed: that id, encrypted for those who have the used id; None where ids are not hashed.
        left: for how many milliseconds it is still remembered.
        end: the id of the live session that it leads to, through other renewals perhaps.
        user_id: its user.
    """

    id: str
    successor: str
    grace: int
    sealed: str | None
    left: int
    end: str
    user_id: str


class Written(NamedTuple):
    """A session as a destination has it after the copy has written it.

    Args:
        row: the session, or the one that it was renewed to.
        fingerprint: of its record; of none if it was renewed.
    """

    row: SessionRow
    fingerprint: str


@dataclass
class Page:
    """A part of a store. What the used sessions lead to is among the sessions."""

    looked_at: int = 0
    sessions: list[SessionRow] = field(default_factory=list[SessionRow])
    used: list[UsedSession] = field(default_factory=list[UsedSession])
    skipped: list[Skipped] = field(default_factory=list[Skipped])


class Source(Protocol):
    """The store that is read. Nothing is written to it."""

    def total(self) -> int | None:
        """Return about how many entries a walk looks at; None if the store does not tell."""
        ...

    def pages(self, *, only_used: bool) -> Iterator[Page]:
        """Walk over the store.

        Every session that is there during the whole walk is in a page, perhaps in several.

        Args:
            only_used: whether to look for used sessions, and what they lead to, alone.
        """
        ...

    def sessions_of(self, user_id: str) -> list[SessionRow]:
        """Return a user's live sessions, as the store's own index knows them."""
        ...


class Destination(Protocol):
    """The store that is written."""

    def is_empty(self) -> bool:
        """Return whether there is no session."""
        ...

    def fingerprint(self, row: SessionRow) -> str:
        """Return the fingerprint of the record that is stored for a session.

        Raises:
            ValueError: it can't be stored.
        """
        ...

    def insert(self, rows: Sequence[SessionRow]) -> list[Inserted | Skipped]:
        """Store those sessions whose ids are free, and a trace of each.

        A session that has a trace was written before, and is not written again.
        """
        ...

    def preview(self, rows: Sequence[SessionRow]) -> list[Inserted | Skipped]:
        """Return what :meth:`insert` would, and store nothing."""
        ...

    def confirm(self, session_ids: Sequence[str]) -> None:
        """Remove the traces of sessions that are in the state file."""
        ...

    def unconfirmed(self) -> Iterable[Mapping[str, Written | None]]:
        """Return what has a trace, by ids, in batches; None for what is gone."""
        ...

    def discard(self, session_ids: Sequence[str]) -> None:
        """Remove the traces of sessions that are neither in the state file nor in the source.

        What is no session before it is confirmed goes with its trace.
        """
        ...

    def update(self, row: SessionRow, fingerprint: str) -> bool:
        """Replace a session's record if it has this fingerprint, or is the new one already."""
        ...

    def replace(self, used: UsedSession, fingerprint: str | None) -> bool:
        """Replace a session by what leads from its used id to its successor.

        Args:
            used: the used session.
            fingerprint: of the record that was copied; None if none was.

        Returns:
            Whether that was done. It is not if there is another record, or none although one was
            copied.
        """
        ...

    def remove(self, row: SessionRow, fingerprint: str) -> bool:
        """Delete a session if its record has this fingerprint."""
        ...

    def sessions_of(self, user_id: str) -> list[SessionRow]:
        """Return a user's live sessions."""
        ...

    def revoke(self, session_ids: Sequence[str]) -> None:
        """Revoke sessions, and what they were renewed to."""
        ...


class Store(Source, Destination, Protocol):
    """A store that can be either."""
