"""Where the record of a session is looked for, and what is found there: for operations, and for the shortest way there is to a session."""

from collections.abc import Sequence
from typing import Protocol

from lucia._redis.records import Layout, decode_row
from lucia.models import SessionRow


class Lookup(Protocol):
    """The keys that a session may be at, and how to read what is there."""

    def keys(self, session_id: str) -> list[bytes]:
        """All keys at which the session may be, in the order in which what is there counts."""
        ...

    def row(self, session_id: str, records: Sequence[bytes | None]) -> SessionRow | None:
        """The session in what these keys hold; None if there is none.

        Raises:
            MismatchedReply: what they hold is another session's.
        """
        ...


class PlainLookup:
    """A session is where its id says."""

    def __init__(self, layout: Layout) -> None:
        self._prefix = layout.session_key("")

    def keys(self, session_id: str) -> list[bytes]:
        """One."""
        return [(self._prefix + session_id).encode()]

    def row(self, session_id: str, records: Sequence[bytes | None]) -> SessionRow | None:
        """The session in its record."""
        (record,) = records
        return None if record is None else decode_row(record, session_id)
