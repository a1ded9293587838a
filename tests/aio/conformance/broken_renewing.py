"""Renewing session adapters with one fault each, named in the docstring."""

from dataclasses import replace

from lucia._rules.caps import surplus_sessions
from lucia._testing.checks import CONCURRENT_CALLS
from lucia.adapters.memory import AsyncMemoryAdapter
from lucia.errors import DuplicateSessionId
from lucia.models import SessionRow
from lucia.testing import AsyncRenewingSessionAdapterSuite as Suite
from tests.aio.conformance.broken import breaks
from tests.aio.support.rendezvous import AsyncRendezvousAdapter, until


@breaks(Suite.test_renew)
class AsyncLeavesUsed(AsyncMemoryAdapter):
    """Keeps the used session alive, as Lucia JS does."""

    async def renew_session(
        self, session_id: str, successor: SessionRow, /, *, grace: int
    ) -> SessionRow | None:
        used = self._sessions.get(session_id)
        found = await super().renew_session(session_id, successor, grace=grace)
        if used is not None:
            self._sessions[session_id] = used
        return found


@breaks(Suite.test_renew_attributes)
class AsyncDropsAttributes(AsyncMemoryAdapter):
    """Drops the attributes on renewal."""

    async def renew_session(
        self, session_id: str, successor: SessionRow, /, *, grace: int
    ) -> SessionRow | None:
        return await super().renew_session(
            session_id, replace(successor, attributes={}), grace=grace
        )


@breaks(Suite.test_renew_unknown)
class AsyncUpserts(AsyncMemoryAdapter):
    """Stores the successor of an unknown id."""

    async def renew_session(
        self, session_id: str, successor: SessionRow, /, *, grace: int
    ) -> SessionRow | None:
        if session_id not in self._sessions and self._renewals.successor(session_id) is None:
            await self.set_session(successor)
        return await super().renew_session(session_id, successor, grace=grace)


@breaks(Suite.test_renew_revoked)
class AsyncRevivesRevoked(AsyncMemoryAdapter):
    """Renews sessions that were revoked with all sessions of their user."""

    async def delete_sessions_by_user_id(self, user_id: str, /) -> None:
        self.ended = {row.id for row in await self.get_sessions_by_user_id(user_id)}
        await super().delete_sessions_by_user_id(user_id)

    async def renew_session(
        self, session_id: str, successor: SessionRow, /, *, grace: int
    ) -> SessionRow | None:
        if session_id in getattr(self, "ended", ()):
            await self.set_session(successor)
            return successor
        return await super().renew_session(session_id, successor, grace=grace)


@breaks(Suite.test_renew_again)
class AsyncStoresLosers(AsyncMemoryAdapter):
    """Returns the first successor, but stores the second one too."""

    async def renew_session(
        self, session_id: str, successor: SessionRow, /, *, grace: int
    ) -> SessionRow | None:
        found = await super().renew_session(session_id, successor, grace=grace)
        if found is not None and found.id != successor.id:
            self._sessions[successor.id] = successor
        return found


class AsyncRenewsInSteps(AsyncRendezvousAdapter):
    """Reads the used session, then stores the successor, then removes the used session."""

    async def renew_session(
        self, session_id: str, successor: SessionRow, /, *, grace: int
    ) -> SessionRow | None:
        used = self._sessions.get(session_id)
        if used is None:
            return await self.get_successor(session_id)
        await self.come_between(used)
        await self.set_session(successor)
        self._sessions.pop(session_id, None)
        self._renewals.add(session_id, successor.id, grace)
        return successor

    async def come_between(self, used: SessionRow) -> None:
        """Wait until the other renewals have read the session too."""
        await self.meeting.wait()


breaks(Suite.test_renew_at_once, Suite.test_renew_at_once_without_grace)(AsyncRenewsInSteps)


class AsyncRenewsWhatIsRevoked(AsyncRenewsInSteps):
    """Renews a session that is revoked between the read and the write."""

    def __init__(self) -> None:
        super().__init__()
        self.looked: set[str] = set()

    async def come_between(self, used: SessionRow) -> None:
        """Wait until the session is revoked."""
        self.looked.update((used.id, used.user_id))
        await until(lambda: used.id not in self._sessions)

    async def delete_session(self, /, *session_ids: str) -> None:
        await until(lambda: self.looked.issuperset(session_ids))
        await super().delete_session(*session_ids)

    async def delete_sessions_by_user_id(self, user_id: str, /) -> None:
        await until(lambda: user_id in self.looked)
        await super().delete_sessions_by_user_id(user_id)


breaks(Suite.test_delete_amid_renewals, Suite.test_delete_by_user_amid_renewals)(
    AsyncRenewsWhatIsRevoked
)


@breaks(Suite.test_renew_at_once)
class AsyncIgnoresGrace(AsyncMemoryAdapter):
    """Never returns the successor of an earlier call."""

    async def renew_session(
        self, session_id: str, successor: SessionRow, /, *, grace: int
    ) -> SessionRow | None:
        return await super().renew_session(session_id, successor, grace=0)


@breaks(Suite.test_renew_at_once_without_grace, Suite.test_no_grace)
class AsyncAlwaysGrace(AsyncMemoryAdapter):
    """Always allows a grace of a minute."""

    async def renew_session(
        self, session_id: str, successor: SessionRow, /, *, grace: int
    ) -> SessionRow | None:
        return await super().renew_session(session_id, successor, grace=60_000)


@breaks(Suite.test_taken_successor_id)
class AsyncRevokesUsedFirst(AsyncMemoryAdapter):
    """Removes the used session before it knows whether the successor's id is free."""

    async def renew_session(
        self, session_id: str, successor: SessionRow, /, *, grace: int
    ) -> SessionRow | None:
        if session_id in self._sessions and successor.id in self._sessions:
            del self._sessions[session_id]
            raise DuplicateSessionId
        return await super().renew_session(session_id, successor, grace=grace)


@breaks(Suite.test_taken_successor_id)
class AsyncOverwritesTaken(AsyncMemoryAdapter):
    """Overwrites another session that has the successor's id."""

    async def renew_session(
        self, session_id: str, successor: SessionRow, /, *, grace: int
    ) -> SessionRow | None:
        self._sessions.pop(successor.id, None)
        return await super().renew_session(session_id, successor, grace=grace)


@breaks(Suite.test_successor)
class AsyncLeadsNowhere(AsyncMemoryAdapter):
    """Forgets the successors of used ids."""

    async def get_successor(self, session_id: str, /) -> SessionRow | None:
        return None


@breaks(Suite.test_successor_of_chain)
class AsyncOneStep(AsyncMemoryAdapter):
    """Follows a used id for one step only."""

    async def get_successor(self, session_id: str, /) -> SessionRow | None:
        successor = self._renewals.within_grace(session_id)
        return None if successor is None else await self.get_session(successor)


@breaks(Suite.test_no_successor)
class AsyncLeadsToItself(AsyncMemoryAdapter):
    """Returns a live session as its own successor."""

    async def get_successor(self, session_id: str, /) -> SessionRow | None:
        return await self.get_session(session_id) or await super().get_successor(session_id)


@breaks(Suite.test_end_of_grace)
class AsyncLongerGrace(AsyncMemoryAdapter):
    """Extends any grace to at least a second."""

    async def renew_session(
        self, session_id: str, successor: SessionRow, /, *, grace: int
    ) -> SessionRow | None:
        return await super().renew_session(
            session_id, successor, grace=max(grace, 1_000) if grace else 0
        )


@breaks(Suite.test_successor_revoked)
class AsyncRemembersRevoked(AsyncMemoryAdapter):
    """Returns a successor that was revoked."""

    async def renew_session(
        self, session_id: str, successor: SessionRow, /, *, grace: int
    ) -> SessionRow | None:
        self.last = successor
        return await super().renew_session(session_id, successor, grace=grace)

    async def get_successor(self, session_id: str, /) -> SessionRow | None:
        return self.last


class AsyncRevokesUsedOnly(AsyncMemoryAdapter):
    """Revokes a used id but not its successor."""

    async def delete_session(self, /, *session_ids: str) -> None:
        for session_id in session_ids:
            self._sessions.pop(session_id, None)


breaks(Suite.test_delete_used, Suite.test_delete_used_without_grace)(AsyncRevokesUsedOnly)


@breaks(Suite.test_delete_used)
class AsyncRevokesOneStep(AsyncMemoryAdapter):
    """Revokes the direct successor only, not the whole chain."""

    async def delete_session(self, /, *session_ids: str) -> None:
        for session_id in session_ids:
            self._sessions.pop(session_id, None)
            self._sessions.pop(self._renewals.successor(session_id) or "", None)


@breaks(Suite.test_delete_used_without_grace)
class AsyncRevokesWithinGrace(AsyncMemoryAdapter):
    """Revokes the successor only within the grace."""

    async def delete_session(self, /, *session_ids: str) -> None:
        for session_id in session_ids:
            end: str | None = session_id
            while end is not None:
                self._sessions.pop(end, None)
                end = self._renewals.within_grace(end)


@breaks(Suite.test_delete_by_user_revokes_successors)
class AsyncForgetsSuccessors(AsyncMemoryAdapter):
    """Removes only those of a user's sessions that did not come from a renewal."""

    async def delete_sessions_by_user_id(self, user_id: str, /) -> None:
        successors = {renewal.successor for renewal in self._renewals._renewals.values()}
        rows = list(self._sessions.values())
        await self.delete_session(
            *(row.id for row in rows if row.user_id == user_id and row.id not in successors)
        )


@breaks(Suite.test_keep)
class AsyncKeepsNone(AsyncMemoryAdapter):
    """Returns True as if it had kept a session, but revokes all."""

    async def delete_other_sessions(self, user_id: str, keep: str, /) -> bool:
        await self.delete_sessions_by_user_id(user_id)
        return True


@breaks(Suite.test_keep)
class AsyncRevokesEverybodys(AsyncMemoryAdapter):
    """Revokes the sessions of all users."""

    async def delete_other_sessions(self, user_id: str, keep: str, /) -> bool:
        self._sessions = {id_: row for id_, row in self._sessions.items() if id_ == keep}
        return True


@breaks(Suite.test_keep_the_only_one)
class AsyncCountsRevoked(AsyncMemoryAdapter):
    """Returns whether it revoked a session instead of whether it kept one."""

    async def delete_other_sessions(self, user_id: str, keep: str, /) -> bool:
        before = len(self._sessions)
        await super().delete_other_sessions(user_id, keep)
        return len(self._sessions) < before


@breaks(Suite.test_keep_renewed_without_grace)
class AsyncKeepsWithinGrace(AsyncMemoryAdapter):
    """Follows the used id to keep only within its grace."""

    def _end_of_chain(self, session_id: str) -> SessionRow | None:
        return self._sessions.get(session_id) or self._successor(session_id)


@breaks(Suite.test_keep_renewed)
class AsyncKeepsById(AsyncMemoryAdapter):
    """Does not follow the used id to keep."""

    async def delete_other_sessions(self, user_id: str, keep: str, /) -> bool:
        kept = await self.get_session(keep)
        self._keep_only(user_id, keep)
        return kept is not None and kept.user_id == user_id


@breaks(Suite.test_keep_unknown)
class AsyncRefusesUnknownKeep(AsyncMemoryAdapter):
    """Revokes nothing if the session to keep does not exist."""

    async def delete_other_sessions(self, user_id: str, keep: str, /) -> bool:
        return keep in self._sessions and await super().delete_other_sessions(user_id, keep)


@breaks(Suite.test_keep_foreign)
class AsyncKeepsForeign(AsyncMemoryAdapter):
    """Does not check who owns the session to keep."""

    async def delete_other_sessions(self, user_id: str, keep: str, /) -> bool:
        self._keep_only(user_id, keep)
        return keep in self._sessions


@breaks(Suite.test_keep_amid_renewals)
class AsyncResolvesFirst(AsyncMemoryAdapter):
    """Looks up the session to keep, and misses a renewal before it revokes the others."""

    def __init__(self) -> None:
        super().__init__()
        self.looked: set[str] = set()

    async def renew_session(
        self, session_id: str, successor: SessionRow, /, *, grace: int
    ) -> SessionRow | None:
        await until(lambda: session_id in self.looked)
        return await super().renew_session(session_id, successor, grace=grace)

    async def delete_other_sessions(self, user_id: str, keep: str, /) -> bool:
        kept = await self.get_session(keep) or await self.get_successor(keep)
        self.looked.add(keep)
        await until(lambda: keep not in self._sessions)
        self._keep_only(user_id, None if kept is None else kept.id)
        return kept is not None


@breaks(Suite.test_cap)
class AsyncCapsNobody(AsyncMemoryAdapter):
    """Ignores the limit."""

    async def set_session_capped(self, session: SessionRow, /, *, limit: int) -> SessionRow:
        await self.set_session(session)
        return session


@breaks(Suite.test_cap)
class AsyncCapsAll(AsyncMemoryAdapter):
    """Counts the sessions of all users."""

    async def set_session_capped(self, session: SessionRow, /, *, limit: int) -> SessionRow:
        others = [replace(row, user_id=session.user_id) for row in self._sessions.values()]
        await self.delete_session(*surplus_sessions(others, session, limit, self._clock()))
        await self.set_session(session)
        return session


@breaks(Suite.test_cap_order)
class AsyncRevokesFirstStored(AsyncMemoryAdapter):
    """Revokes the session that was stored first."""

    async def set_session_capped(self, session: SessionRow, /, *, limit: int) -> SessionRow:
        await self.set_session(session)
        rows = await self.get_sessions_by_user_id(session.user_id)
        await self.delete_session(*(row.id for row in rows[:-limit]))
        return session


@breaks(Suite.test_cap_order)
class AsyncRevokesOne(AsyncMemoryAdapter):
    """Revokes one session for each login, even if a lower limit requires several."""

    async def set_session_capped(self, session: SessionRow, /, *, limit: int) -> SessionRow:
        await self.set_session(session)
        await self.delete_session(
            *surplus_sessions(self._sessions.values(), session, limit, self._clock())[:1]
        )
        return session


@breaks(Suite.test_cap_renewed)
class AsyncCountsRenewalAsLogin(AsyncMemoryAdapter):
    """Counts a renewal as a new login."""

    async def renew_session(
        self, session_id: str, successor: SessionRow, /, *, grace: int
    ) -> SessionRow | None:
        await super().renew_session(session_id, successor, grace=grace)
        self._sessions[successor.id] = replace(
            successor, attributes={**successor.attributes, "created_at": self._clock()}
        )
        return successor


@breaks(Suite.test_cap_expired)
class AsyncCountsDead(AsyncMemoryAdapter):
    """Counts expired sessions."""

    async def set_session_capped(self, session: SessionRow, /, *, limit: int) -> SessionRow:
        await self.set_session(session)
        await self.delete_session(*surplus_sessions(self._sessions.values(), session, limit, 0))
        return session


@breaks(Suite.test_cap_keeps_new)
class AsyncRevokesTheNew(AsyncMemoryAdapter):
    """Revokes the new session if the clock of its machine is behind."""

    async def set_session_capped(self, session: SessionRow, /, *, limit: int) -> SessionRow:
        await self.set_session(session)
        await self.delete_session(
            *surplus_sessions(self._sessions.values(), session, limit, self._clock(), spare=False)
        )
        return session


@breaks(Suite.test_cap_taken_id)
class AsyncRevokesBeforehand(AsyncMemoryAdapter):
    """Revokes other sessions before a login that is then refused."""

    async def set_session_capped(self, session: SessionRow, /, *, limit: int) -> SessionRow:
        await self.delete_session(
            *surplus_sessions(self._sessions.values(), session, limit, self._clock())
        )
        await self.set_session(session)
        return session


@breaks(Suite.test_cap_at_once)
class AsyncCountsFirst(AsyncMemoryAdapter):
    """Reads which sessions are over the limit, and revokes them only later."""

    def __init__(self) -> None:
        super().__init__()
        self.looked: list[str] = []

    async def set_session_capped(self, session: SessionRow, /, *, limit: int) -> SessionRow:
        surplus = surplus_sessions(list(self._sessions.values()), session, limit, self._clock())
        self.looked.append(session.user_id)
        await until(lambda: self.looked.count(session.user_id) >= CONCURRENT_CALLS)
        await self.delete_session(*surplus)
        await self.set_session(session)
        return session


@breaks(Suite.test_cap_amid_renewals)
class AsyncRevokesWhatItSaw(AsyncMemoryAdapter):
    """Revokes the ids that it read, but not the successors that they got meanwhile."""

    def __init__(self) -> None:
        super().__init__()
        self.looked: set[str] = set()

    async def set_session_capped(self, session: SessionRow, /, *, limit: int) -> SessionRow:
        await self.set_session(session)
        surplus = surplus_sessions(list(self._sessions.values()), session, limit, self._clock())
        self.looked.add(session.user_id)
        await until(lambda: any(map(self._renewals.successor, surplus)))
        for session_id in surplus:
            self._sessions.pop(session_id, None)
        return session

    async def renew_session(
        self, session_id: str, successor: SessionRow, /, *, grace: int
    ) -> SessionRow | None:
        await until(lambda: successor.user_id in self.looked)
        return await super().renew_session(session_id, successor, grace=grace)


@breaks(Suite.test_renew_other_spellings)
class AsyncFollowsInAnyCase(AsyncMemoryAdapter):
    """Ignores case when it looks up the successor of a used id."""

    async def get_successor(self, session_id: str, /) -> SessionRow | None:
        return await super().get_successor(session_id.casefold())


@breaks(Suite.test_renew_other_spellings)
class AsyncRenewsPadded(AsyncMemoryAdapter):
    """Ignores trailing spaces when it renews a session."""

    async def renew_session(
        self, session_id: str, successor: SessionRow, /, *, grace: int
    ) -> SessionRow | None:
        return await super().renew_session(session_id.rstrip(" "), successor, grace=grace)
