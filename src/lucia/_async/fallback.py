"""Renewal, ``keep=`` and a cap over an adapter that has only five methods."""

from collections.abc import Sequence

from lucia._async.protocols import AsyncSessionAdapter
from lucia._compat.locks import AsyncLock
from lucia._memory.renewals import Renewals
from lucia._rules.caps import login_after, surplus_sessions
from lucia._rules.sessions import Clock
from lucia.models import SessionRow, StoredSession


class AsyncFiveMethods:
    """Turns an adapter with five methods into a renewing one, as well as those five allow.

    Within this process, a session has one successor, the used id leads to it during the grace, and
    revoking the used id revokes it too. Between processes it is less:

    - Two processes that renew the same idle session concurrently create two successors.
    - A used id leads nowhere in another process.
    - A renewal that finds the used session revoked meanwhile undoes itself; a concurrent revocation
      of all sessions can miss the successor.
    - With a cap, a user exceeds it by the logins that are in progress.
    """

    expires_records: bool = False

    def __init__(self, adapter: AsyncSessionAdapter, clock: Clock) -> None:
        self._adapter = adapter
        self._clock = clock
        self._lock = AsyncLock()
        self._renewals = Renewals(clock)
        self.keeps_attributes: bool = getattr(adapter, "keeps_attributes", False)

    async def get_session(self, session_id: str, /) -> StoredSession | None:
        """Return the session, as the adapter does."""
        return await self._adapter.get_session(session_id)

    async def get_sessions_by_user_id(self, user_id: str, /) -> Sequence[SessionRow]:
        """Return the user's sessions, as the adapter does."""
        return await self._adapter.get_sessions_by_user_id(user_id)

    async def set_session(self, session: SessionRow, /) -> None:
        """Store a session, as the adapter does."""
        await self._adapter.set_session(session)

    async def set_session_capped(self, session: SessionRow, /, *, limit: int) -> SessionRow:
        """Store a session, then list the user's sessions and revoke the oldest logins."""
        async with self._lock:
            now = self._clock()
            # Another machine's clock may be ahead: make this login the newest before storing it.
            stored = login_after(
                await self._adapter.get_sessions_by_user_id(session.user_id), session, now
            )
            await self._adapter.set_session(stored)
            rows = await self._adapter.get_sessions_by_user_id(session.user_id)
            if surplus := surplus_sessions(rows, session, limit, now, spare=False):
                await self._delete_chains(surplus)
            return stored

    async def delete_session(self, /, *session_ids: str) -> None:
        """Remove these sessions, and their successors of the last 60 seconds in this process."""
        async with self._lock:
            await self._delete_chains(session_ids)

    async def _delete_chains(self, session_ids: Sequence[str]) -> None:
        chain = list(session_ids)
        # It grows while it is iterated, so that successors of successors are found too.
        for session_id in chain:
            successor = self._renewals.successor(session_id)
            if successor is not None:
                chain.append(successor)
        await self._adapter.delete_session(*chain)

    async def delete_sessions_by_user_id(self, user_id: str, /) -> None:
        """Remove all sessions of a user, not during a renewal in this process."""
        async with self._lock:
            await self._adapter.delete_sessions_by_user_id(user_id)

    async def delete_other_sessions(self, user_id: str, keep: str, /) -> bool:
        """List the user's sessions and remove all but one; a concurrent login is not seen."""
        async with self._lock:
            kept = await self._end_of_chain(keep)
            if kept is None or kept.user_id != user_id:
                await self._adapter.delete_sessions_by_user_id(user_id)
                return False
            rows = await self._adapter.get_sessions_by_user_id(user_id)
            # A database that ignores case lists sessions of other users too.
            others = [row.id for row in rows if row.user_id == user_id and row.id != kept.id]
            if others:
                await self._adapter.delete_session(*others)
            return True

    async def renew_session(
        self, session_id: str, successor: SessionRow, /, *, grace: int
    ) -> StoredSession | None:
        """Store the successor, then remove the used session."""
        async with self._lock:
            if await self._adapter.get_session(session_id) is None:
                return await self._successor(session_id)
            # Before the used session goes: a crash in between leaves two sessions, and not none.
            await self._adapter.set_session(successor)
            # Read again: a revocation since the first read may have missed the successor.
            if await self._adapter.get_session(session_id) is None:
                await self._adapter.delete_session(successor.id)
                return None
            await self._adapter.delete_session(session_id)
            self._renewals.add(session_id, successor.id, grace)
            return successor

    async def get_successor(self, session_id: str, /) -> StoredSession | None:
        """Return what the used id was renewed to here, while each renewal is within its grace."""
        async with self._lock:
            return await self._successor(session_id)

    async def _end_of_chain(self, session_id: str) -> StoredSession | None:
        """Return the session, or its successor of the last 60 seconds, whatever the grace."""
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
