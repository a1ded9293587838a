"""Where the record of a session is, and which session is in it."""

from collections.abc import Sequence
from typing import Protocol

from lucia._redis.keys import Layout
from lucia._redis.records import decode_session
from lucia.models import StoredSession


class Lookup(Protocol):
    """The keys that a session may be at, and how to read their values."""

    @property
    def prefix(self) -> str | None:
        """The prefix of the id in a session's only possible key; None if there are others."""
        ...

    def keys(self, session_id: str) -> list[bytes]:
        """Return all keys that the session may be at; the value of the first counts first."""
        ...

    def row(self, session_id: str, records: Sequence[bytes | None]) -> StoredSession | None:
        """Return the session in the values of these keys; None if there is none.

        Raises:
            MismatchedReply: a value is another session's.
        """
        ...


class PlainLookup:
    """A session is at the key with its id."""

    def __init__(self, layout: Layout) -> None:
        self.prefix: str | None = layout.session_key("")
        self._layout = layout

    def keys(self, session_id: str) -> list[bytes]:
        """Return the one key."""
        return [self._layout.session_key(session_id).encode()]

    def row(self, session_id: str, records: Sequence[bytes | None]) -> StoredSession | None:
        """Return the session in its record."""
        (record,) = records
        return None if record is None else decode_session(record, session_id)
