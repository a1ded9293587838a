"""Where the record of a session is looked for, and what is found there: for operations, and for the shortest way there is to a session."""

from collections.abc import Sequence
from typing import Protocol

from lucia._redis.keys import Layout
from lucia._redis.records import decode_row
from lucia.models import SessionRow


class Lookup(Protocol):
    """The keys that a session may be at, and how to read what is there."""

    @property
    def prefix(self) -> str | None:
        """What the id follows in the only key that a session may be at; None if there are others."""
        ...

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
        self.prefix: str | None = layout.session_key("")
        self._layout = layout

    def keys(self, session_id: str) -> list[bytes]:
        """Return the one key."""
        return [self._layout.session_key(session_id).encode()]

    def row(self, session_id: str, records: Sequence[bytes | None]) -> SessionRow | None:
        """The session in its record."""
        (record,) = records
        return None if record is None else decode_row(record, session_id)
