"""Renewal, ``keep=`` and a cap over an adapter that has the original's five methods alone."""

from collections.abc import Sequence

from lucia._async.protocols import AsyncSessionAdapter
from lucia._compat.locks import AsyncLock
from lucia._memory.renewals import Renewals
from lucia._rules.caps import login_after, surplus_sessions
from lucia._rules.sessions import Clock
from lucia.models import SessionRow, StoredSession


class AsyncFiveMethods:
    """Makes a renewing adapter of one with five methods, as good as those five allow.

    Within this process: one successor, a grace, and an end for both when the used id is ended. Between processes: two that renew one
    idle session at the same moment make two successors, a used id leads nowhere, and a renewal that overlaps with the end of the used
    session is undone as soon as it sees that; ending all sessions meanwhile can miss its successor. With a cap a user has one login more
    for a moment, or as many as log in at the same moment, until each of them has looked at the list.
    """

    expires_records: bool = False

    def __init__(self, adapter: AsyncSessionAdapter, clock: Clock) -> None:
        self._adapter = adapter
        self._clock = clock
        self._lock = AsyncLock()
        self._renewals = Renewals(clock)
        self.keeps_attributes: bool = getattr(adapter, "keeps_attributes", False)

    async def get_session(self, session_id: str, /) -> StoredSession | None:
        """The adapter's own."""
        return await self._adapter.get_session(session_id)

    async def get_sessions_by_user_id(self, user_id: str, /) -> Sequence[SessionRow]:
        """The adapter's own."""
        return await self._adapter.get_sessions_by_user_id(user_id)

    async def set_session(self, session: SessionRow, /) -> None:
        """The adapter's own."""
        await self._adapter.set_session(session)

    async def set_session_capped(self, session: SessionRow, /, *, limit: int) -> SessionRow:
        """Store it, then list the user's sessions and end the oldest logins; before, see that it is the newest."""
        async with self._lock:
            now = self._clock()
            stored = login_after(
                await self._adapter.get_sessions_by_user_id(session.user_id), session, now
            )
            await self._adapter.set_session(stored)
            rows = await self._adapter.get_sessions_by_user_id(session.user_id)
            if surplus := surplus_sessions(rows, session, limit, now, spare=False):
                await self._delete_chains(surplus)
            return stored

    async def delete_session(self, /, *session_ids: str) -> None:
        """The adapter's own, for these ids and for what they were renewed to in this process within the last 60 seconds."""
        async with self._lock:
            await self._delete_chains(session_ids)

    async def _delete_chains(self, session_ids: Sequence[str]) -> None:
        chain = list(session_ids)
        for session_id in chain:
            successor = self._renewals.successor(session_id)
            if successor is not None:
                chain.append(successor)
        await self._adapter.delete_session(*chain)

    async def delete_sessions_by_user_id(self, user_id: str, /) -> None:
        """The adapter's own, not while a renewal of this process is under way."""
        async with self._lock:
            await self._adapter.delete_sessions_by_user_id(user_id)

    async def delete_other_sessions(self, user_id: str, keep: str, /) -> bool:
        """List the user's sessions and end all but one; a login meanwhile is not in the list."""
        async with self._lock:
            kept = await self._end_of_chain(keep)
            if kept is None or kept.user_id != user_id:
                await self._adapter.delete_sessions_by_user_id(user_id)
                return False
            rows = await self._adapter.get_sessions_by_user_id(user_id)
            others = [row.id for row in rows if row.user_id == user_id and row.id != kept.id]
            if others:
                await self._adapter.delete_session(*others)
            return True

    async def renew_session(
        self, session_id: str, successor: SessionRow, /, *, grace: int
    ) -> StoredSession | None:
        """Make the successor, then end the used session; undo that if the used one was ended meanwhile."""
        async with self._lock:
            if await self._adapter.get_session(session_id) is None:
                return await self._successor(session_id)
            await self._adapter.set_session(successor)
            if await self._adapter.get_session(session_id) is None:
                await self._adapter.delete_session(successor.id)
                return None
            await self._adapter.delete_session(session_id)
            self._renewals.add(session_id, successor.id, grace)
            return successor

    async def get_successor(self, session_id: str, /) -> StoredSession | None:
        """What the used id was renewed to in this process, while each step is within its grace."""
        async with self._lock:
            return await self._successor(session_id)

    async def _end_of_chain(self, session_id: str) -> StoredSession | None:
        """The session, or what it was renewed to in this process within the last 60 seconds, whatever the grace."""
        successor = self._renewals.successor(session_id)
        return await (
            self._adapter.get_session(session_id)
            if successor is None
            else self._end_of_chain(successor)
        )

    async def _successor(self, session_id: str) -> StoredSession | None:
        successor = self._renewals.within_grace(session_id)
        return (
            None
            if successor is None
            else await self._adapter.get_session(successor) or await self._successor(successor)
        )
