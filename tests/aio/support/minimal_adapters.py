"""Session adapters with the five methods of Lucia JS and nothing else, over a dictionary."""

import json
from collections.abc import Sequence

from lucia import DuplicateSessionId, SessionRow


class AsyncDictionaryAdapter:
    """A store of sessions as JSON in a dictionary, by their ids."""

    keeps_attributes = True

    def __init__(self) -> None:
        self._records: dict[str, str] = {}

    async def get_session(self, session_id: str, /) -> SessionRow | None:
        """Return the session with this id, or None."""
        record = self._records.get(session_id)
        return None if record is None else decode(record)

    async def get_sessions_by_user_id(self, user_id: str, /) -> Sequence[SessionRow]:
        """Return the user's sessions."""
        return [row for row in map(decode, list(self._records.values())) if row.user_id == user_id]

    async def set_session(self, session: SessionRow, /) -> None:
        """Store a new session."""
        record = encode(session)
        if self._records.setdefault(session.id, record) is not record:
            raise DuplicateSessionId

    async def delete_session(self, /, *session_ids: str) -> None:
        """Remove these sessions."""
        for session_id in session_ids:
            self._records.pop(session_id, None)

    async def delete_sessions_by_user_id(self, user_id: str, /) -> None:
        """Remove the user's sessions."""
        await self.delete_session(*(row.id for row in await self.get_sessions_by_user_id(user_id)))


class AsyncColumnsAdapter(AsyncDictionaryAdapter):
    """A store that drops attributes, like the adapters of Lucia JS."""

    keeps_attributes = False

    async def set_session(self, session: SessionRow, /) -> None:
        """Store a new session without its attributes."""
        columns = SessionRow(
            id=session.id,
            user_id=session.user_id,
            active_expires=session.active_expires,
            idle_expires=session.idle_expires,
        )
        await super().set_session(columns)


def encode(row: SessionRow) -> str:
    """Encode a session as JSON."""
    return json.dumps(
        [row.id, row.user_id, row.active_expires, row.idle_expires, dict(row.attributes)]
    )


def decode(record: str) -> SessionRow:
    """Decode a session from JSON."""
    session_id, user_id, active_expires, idle_expires, attributes = json.loads(record)
    return SessionRow(
        id=session_id,
        user_id=user_id,
        active_expires=active_expires,
        idle_expires=idle_expires,
        attributes=attributes,
    )
