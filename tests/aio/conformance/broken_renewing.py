"""Renewing session adapters that break one law each."""

from dataclasses import replace

from lucia._rules.caps import surplus_sessions
from lucia._testing.checks import CONCURRENT_CALLS
from lucia.adapters.memory import AsyncMemoryAdapter
from lucia.errors import DuplicateSessionId
from lucia.models import SessionRow
from lucia.testing import AsyncRenewingSessionAdapterSuite as Laws
from tests.aio.conformance.broken import breaks
from tests.aio.support.rendezvous import AsyncRendezvousAdapter, until


@breaks(Laws.test_renew)
class AsyncLeavesUsed(AsyncMemoryAdapter):
    """Leaves the used session alive, as the original does."""

    async def renew_session(
        self, session_id: str, successor: SessionRow, /, *, grace: int
    ) -> SessionRow | None:
        used = self._sessions.get(session_id)
        found = await super().renew_session(session_id, successor, grace=grace)
        if used is not None:
            self._sessions[session_id] = used
        return found


@breaks(Laws.test_renew_attributes)
class AsyncDropsAttributes(AsyncMemoryAdapter):
    """Renews the four columns alone."""

    async def renew_session(
        self, session_id: str, successor: SessionRow, /, *, grace: int
    ) -> SessionRow | None:
        return await super().renew_session(
            session_id, replace(successor, attributes={}), grace=grace
        )


@breaks(Laws.test_renew_unknown)
class AsyncUpserts(AsyncMemoryAdapter):
    """Stores a successor whatever the used id is."""

    async def renew_session(
        self, session_id: str, successor: SessionRow, /, *, grace: int
    ) -> SessionRow | None:
        if session_id not in self._sessions and self._renewals.successor(session_id) is None:
            await self.set_session(successor)
        return await super().renew_session(session_id, successor, grace=grace)


@breaks(Laws.test_renew_revoked)
class AsyncRevivesEnded(AsyncMemoryAdapter):
    """Still renews what was ended with all of a user's sessions."""

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


@breaks(Laws.test_renew_again)
class AsyncStoresLosers(AsyncMemoryAdapter):
    """Answers with the first successor, but stores the second one too."""

    async def renew_session(
        self, session_id: str, successor: SessionRow, /, *, grace: int
    ) -> SessionRow | None:
        found = await super().renew_session(session_id, successor, grace=grace)
        if found is not None and found.id != successor.id:
            self._sessions[successor.id] = successor
        return found


class AsyncRenewsInSteps(AsyncRendezvousAdapter):
    """Looks at the used session, stores the successor later, and ends the used session then."""

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
        """Let the other renewals look too."""
        await self.meeting.wait()


breaks(Laws.test_renew_at_once, Laws.test_renew_at_once_without_grace)(AsyncRenewsInSteps)


class AsyncRenewsWhatIsEnded(AsyncRenewsInSteps):
    """The same, while the session is ended."""

    def __init__(self) -> None:
        super().__init__()
        self.looked: set[str] = set()

    async def come_between(self, used: SessionRow) -> None:
        """Let the end come."""
        self.looked.update((used.id, used.user_id))
        await until(lambda: used.id not in self._sessions)

    async def delete_session(self, /, *session_ids: str) -> None:
        await until(lambda: self.looked.issuperset(session_ids))
        await super().delete_session(*session_ids)

    async def delete_sessions_by_user_id(self, user_id: str, /) -> None:
        await until(lambda: user_id in self.looked)
        await super().delete_sessions_by_user_id(user_id)


breaks(Laws.test_delete_amid_renewals, Laws.test_delete_by_user_amid_renewals)(
    AsyncRenewsWhatIsEnded
)


@breaks(Laws.test_renew_at_once)
class AsyncIgnoresGrace(AsyncMemoryAdapter):
    """Never gives an earlier call's successor."""

    async def renew_session(
        self, session_id: str, successor: SessionRow, /, *, grace: int
    ) -> SessionRow | None:
        return await super().renew_session(session_id, successor, grace=0)


@breaks(Laws.test_renew_at_once_without_grace, Laws.test_no_grace)
class AsyncAlwaysGrace(AsyncMemoryAdapter):
    """Always gives a grace of a minute."""

    async def renew_session(
        self, session_id: str, successor: SessionRow, /, *, grace: int
    ) -> SessionRow | None:
        return await super().renew_session(session_id, successor, grace=60_000)


@breaks(Laws.test_taken_successor_id)
class AsyncEndsUsedFirst(AsyncMemoryAdapter):
    """Ends the used session before it knows whether the successor's id is free."""

    async def renew_session(
        self, session_id: str, successor: SessionRow, /, *, grace: int
    ) -> SessionRow | None:
        if session_id in self._sessions and successor.id in self._sessions:
            del self._sessions[session_id]
            raise DuplicateSessionId
        return await super().renew_session(session_id, successor, grace=grace)


@breaks(Laws.test_taken_successor_id)
class AsyncOverwritesTaken(AsyncMemoryAdapter):
    """Takes another session's id for the successor."""

    async def renew_session(
        self, session_id: str, successor: SessionRow, /, *, grace: int
    ) -> SessionRow | None:
        self._sessions.pop(successor.id, None)
        return await super().renew_session(session_id, successor, grace=grace)


@breaks(Laws.test_successor)
class AsyncLeadsNowhere(AsyncMemoryAdapter):
    """Forgets what a used id was renewed to."""

    async def get_successor(self, session_id: str, /) -> SessionRow | None:
        return None


@breaks(Laws.test_successor_of_chain)
class AsyncOneStep(AsyncMemoryAdapter):
    """Follows a used id one step."""

    async def get_successor(self, session_id: str, /) -> SessionRow | None:
        successor = self._renewals.within_grace(session_id)
        return None if successor is None else await self.get_session(successor)


@breaks(Laws.test_no_successor)
class AsyncLeadsToItself(AsyncMemoryAdapter):
    """Takes a live session for its own successor."""

    async def get_successor(self, session_id: str, /) -> SessionRow | None:
        return await self.get_session(session_id) or await super().get_successor(session_id)


@breaks(Laws.test_end_of_grace)
class AsyncLongerGrace(AsyncMemoryAdapter):
    """Gives a grace of a second at least, where there is one."""

    async def renew_session(
        self, session_id: str, successor: SessionRow, /, *, grace: int
    ) -> SessionRow | None:
        return await super().renew_session(
            session_id, successor, grace=max(grace, 1_000) if grace else 0
        )


@breaks(Laws.test_successor_revoked)
class AsyncRemembersEnded(AsyncMemoryAdapter):
    """Answers a used id with a successor that was ended."""

    async def renew_session(
        self, session_id: str, successor: SessionRow, /, *, grace: int
    ) -> SessionRow | None:
        self.last = successor
        return await super().renew_session(session_id, successor, grace=grace)

    async def get_successor(self, session_id: str, /) -> SessionRow | None:
        return self.last


class AsyncEndsUsedOnly(AsyncMemoryAdapter):
    """Ends a used id and not what it was renewed to."""

    async def delete_session(self, /, *session_ids: str) -> None:
        for session_id in session_ids:
            self._sessions.pop(session_id, None)


breaks(Laws.test_delete_used, Laws.test_delete_used_without_grace)(AsyncEndsUsedOnly)


@breaks(Laws.test_delete_used)
class AsyncEndsOneStep(AsyncMemoryAdapter):
    """Ends the direct successor alone."""

    async def delete_session(self, /, *session_ids: str) -> None:
        for session_id in session_ids:
            self._sessions.pop(session_id, None)
            self._sessions.pop(self._renewals.successor(session_id) or "", None)


@breaks(Laws.test_delete_used_without_grace)
class AsyncEndsWithinGrace(AsyncMemoryAdapter):
    """Ends the successor only while the grace lasts."""

    async def delete_session(self, /, *session_ids: str) -> None:
        for session_id in session_ids:
            end: str | None = session_id
            while end is not None:
                self._sessions.pop(end, None)
                end = self._renewals.within_grace(end)


@breaks(Laws.test_delete_by_user_ends_successors)
class AsyncForgetsSuccessors(AsyncMemoryAdapter):
    """Removes those of a user's sessions that were not renewed from others."""

    async def delete_sessions_by_user_id(self, user_id: str, /) -> None:
        successors = {renewal.successor for renewal in self._renewals._renewals.values()}
        rows = list(self._sessions.values())
        await self.delete_session(
            *(row.id for row in rows if row.user_id == user_id and row.id not in successors)
        )


@breaks(Laws.test_keep)
class AsyncKeepsNone(AsyncMemoryAdapter):
    """Says that it kept one, and ends all."""

    async def delete_other_sessions(self, user_id: str, keep: str, /) -> bool:
        await self.delete_sessions_by_user_id(user_id)
        return True


@breaks(Laws.test_keep)
class AsyncEndsEverybodys(AsyncMemoryAdapter):
    """Ends all users' sessions but one."""

    async def delete_other_sessions(self, user_id: str, keep: str, /) -> bool:
        self._sessions = {id_: row for id_, row in self._sessions.items() if id_ == keep}
        return True


@breaks(Laws.test_keep_the_only_one)
class AsyncCountsEnded(AsyncMemoryAdapter):
    """Says whether it ended some, instead of whether it kept one."""

    async def delete_other_sessions(self, user_id: str, keep: str, /) -> bool:
        before = len(self._sessions)
        await super().delete_other_sessions(user_id, keep)
        return len(self._sessions) < before


@breaks(Laws.test_keep_renewed_without_grace)
class AsyncKeepsWithinGrace(AsyncMemoryAdapter):
    """Follows the used id that is to be kept within its grace alone."""

    def _end_of_chain(self, session_id: str) -> SessionRow | None:
        return self._sessions.get(session_id) or self._successor(session_id)


@breaks(Laws.test_keep_renewed)
class AsyncKeepsById(AsyncMemoryAdapter):
    """Does not follow the used id that is to be kept."""

    async def delete_other_sessions(self, user_id: str, keep: str, /) -> bool:
        kept = await self.get_session(keep)
        self._keep_only(user_id, keep)
        return kept is not None and kept.user_id == user_id


@breaks(Laws.test_keep_unknown)
class AsyncRefusesUnknownKeep(AsyncMemoryAdapter):
    """Ends nothing if the session to keep is not there."""

    async def delete_other_sessions(self, user_id: str, keep: str, /) -> bool:
        return keep in self._sessions and await super().delete_other_sessions(user_id, keep)


@breaks(Laws.test_keep_foreign)
class AsyncKeepsForeign(AsyncMemoryAdapter):
    """Does not look whose the session to keep is."""

    async def delete_other_sessions(self, user_id: str, keep: str, /) -> bool:
        self._keep_only(user_id, keep)
        return keep in self._sessions


@breaks(Laws.test_keep_amid_renewals)
class AsyncResolvesFirst(AsyncMemoryAdapter):
    """Looks what the session to keep was renewed to, and ends the others later, when it was renewed."""

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


@breaks(Laws.test_cap)
class AsyncCapsNobody(AsyncMemoryAdapter):
    """Stores a login whatever the limit is."""

    async def set_session_capped(self, session: SessionRow, /, *, limit: int) -> SessionRow:
        await self.set_session(session)
        return session


@breaks(Laws.test_cap)
class AsyncCapsAll(AsyncMemoryAdapter):
    """Counts everybody's logins."""

    async def set_session_capped(self, session: SessionRow, /, *, limit: int) -> SessionRow:
        others = [replace(row, user_id=session.user_id) for row in self._sessions.values()]
        await self.delete_session(*surplus_sessions(others, session, limit, self._clock()))
        await self.set_session(session)
        return session


@breaks(Laws.test_cap_order)
class AsyncEndsFirstStored(AsyncMemoryAdapter):
    """Ends what was stored first."""

    async def set_session_capped(self, session: SessionRow, /, *, limit: int) -> SessionRow:
        await self.set_session(session)
        rows = await self.get_sessions_by_user_id(session.user_id)
        await self.delete_session(*(row.id for row in rows[:-limit]))
        return session


@breaks(Laws.test_cap_order)
class AsyncEndsOne(AsyncMemoryAdapter):
    """Ends one login for each that comes, also where a lower limit would end several."""

    async def set_session_capped(self, session: SessionRow, /, *, limit: int) -> SessionRow:
        await self.set_session(session)
        await self.delete_session(
            *surplus_sessions(self._sessions.values(), session, limit, self._clock())[:1]
        )
        return session


@breaks(Laws.test_cap_renewed)
class AsyncRejuvenates(AsyncMemoryAdapter):
    """Takes a renewal for a login."""

    async def renew_session(
        self, session_id: str, successor: SessionRow, /, *, grace: int
    ) -> SessionRow | None:
        await super().renew_session(session_id, successor, grace=grace)
        self._sessions[successor.id] = replace(
            successor, attributes={**successor.attributes, "created_at": self._clock()}
        )
        return successor


@breaks(Laws.test_cap_expired)
class AsyncCountsDead(AsyncMemoryAdapter):
    """Counts sessions that are over."""

    async def set_session_capped(self, session: SessionRow, /, *, limit: int) -> SessionRow:
        await self.set_session(session)
        await self.delete_session(*surplus_sessions(self._sessions.values(), session, limit, 0))
        return session


@breaks(Laws.test_cap_keeps_new)
class AsyncEndsTheNew(AsyncMemoryAdapter):
    """Ends the login that comes, if its machine's clock is behind."""

    async def set_session_capped(self, session: SessionRow, /, *, limit: int) -> SessionRow:
        await self.set_session(session)
        await self.delete_session(
            *surplus_sessions(self._sessions.values(), session, limit, self._clock(), spare=False)
        )
        return session


@breaks(Laws.test_cap_taken_id)
class AsyncEndsBeforehand(AsyncMemoryAdapter):
    """Makes room for a login that is refused then."""

    async def set_session_capped(self, session: SessionRow, /, *, limit: int) -> SessionRow:
        await self.delete_session(
            *surplus_sessions(self._sessions.values(), session, limit, self._clock())
        )
        await self.set_session(session)
        return session


@breaks(Laws.test_cap_at_once)
class AsyncCountsFirst(AsyncMemoryAdapter):
    """Looks what is surplus, ends that a moment later, and stores the login."""

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


@breaks(Laws.test_cap_amid_renewals)
class AsyncEndsWhatItSaw(AsyncMemoryAdapter):
    """Ends the ids that it saw, and not what they were renewed to meanwhile."""

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


@breaks(Laws.test_renew_other_spellings)
class AsyncFollowsInAnyCase(AsyncMemoryAdapter):
    """Follows used ids without regard to case."""

    async def get_successor(self, session_id: str, /) -> SessionRow | None:
        return await super().get_successor(session_id.casefold())


@breaks(Laws.test_renew_other_spellings)
class AsyncRenewsPadded(AsyncMemoryAdapter):
    """Compares the ids of sessions that are renewed as if they were filled up with spaces."""

    async def renew_session(
        self, session_id: str, successor: SessionRow, /, *, grace: int
    ) -> SessionRow | None:
        return await super().renew_session(session_id.rstrip(" "), successor, grace=grace)
