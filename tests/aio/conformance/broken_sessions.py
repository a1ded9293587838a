"""Session adapters with one fault each, named in the docstring."""

from dataclasses import replace

from lucia._rules.sessions import system_clock
from lucia._testing.checks import CONCURRENT_CALLS
from lucia.adapters.memory import AsyncMemoryAdapter
from lucia.errors import DuplicateSessionId, InvalidSessionId, InvalidUserId
from lucia.models import SessionRow
from lucia.testing import AsyncSessionAdapterSuite as Suite
from tests.aio.conformance.broken import breaks
from tests.aio.support.minimal_adapters import AsyncDictionaryAdapter
from tests.aio.support.rendezvous import AsyncRendezvousAdapter, until


@breaks(Suite.test_get_unknown)
class AsyncRaisesForUnknown(AsyncMemoryAdapter):
    """Raises an error for an unknown session."""

    async def get_session(self, session_id: str, /) -> SessionRow | None:
        found = await super().get_session(session_id)
        if found is None:
            raise InvalidSessionId
        return found


class Row(SessionRow):
    """A subclass of the row, as an ORM might have."""


@breaks(Suite.test_get)
class AsyncOwnRows(AsyncMemoryAdapter):
    """Returns instances of its own row class."""

    async def get_session(self, session_id: str, /) -> SessionRow | None:
        found = await super().get_session(session_id)
        return found and Row(
            id=found.id,
            user_id=found.user_id,
            active_expires=found.active_expires,
            idle_expires=found.idle_expires,
            attributes={},
        )


@breaks(Suite.test_times)
class AsyncSeconds(AsyncMemoryAdapter):
    """Stores times in whole seconds."""

    async def set_session(self, session: SessionRow, /) -> None:
        active, idle = session.active_expires // 1000, session.idle_expires // 1000
        await super().set_session(
            replace(session, active_expires=active * 1000, idle_expires=idle * 1000)
        )


@breaks(Suite.test_attributes)
class AsyncTextAttributes(AsyncMemoryAdapter):
    """Converts the values of attributes to strings."""

    async def set_session(self, session: SessionRow, /) -> None:
        await super().set_session(
            replace(
                session, attributes={name: str(value) for name, value in session.attributes.items()}
            )
        )


@breaks(Suite.test_attributes)
class AsyncAttributesAsColumns(AsyncDictionaryAdapter):
    """Stores no attributes, and loses sessions that have some."""

    keeps_attributes = False

    async def set_session(self, session: SessionRow, /) -> None:
        if not session.attributes:
            await super().set_session(session)


@breaks(Suite.test_attributes_are_copied)
class AsyncSharedIn(AsyncMemoryAdapter):
    """Stores the caller's own objects."""

    async def set_session(self, session: SessionRow, /) -> None:
        self._sessions[session.id] = session


@breaks(Suite.test_attributes_are_copied)
class AsyncSharedOut(AsyncMemoryAdapter):
    """Returns the stored objects themselves."""

    async def get_session(self, session_id: str, /) -> SessionRow | None:
        return self._sessions.get(session_id)


@breaks(Suite.test_duplicate)
class AsyncOverwritesOthers(AsyncMemoryAdapter):
    """Overwrites the session of another user."""

    async def set_session(self, session: SessionRow, /) -> None:
        found = self._sessions.get(session.id)
        if found is not None and found.user_id == session.user_id:
            raise DuplicateSessionId
        self._sessions[session.id] = session


@breaks(Suite.test_duplicate)
class AsyncIndexesFirst(AsyncMemoryAdapter):
    """Adds a session to the index before it knows whether its id is free."""

    def __init__(self) -> None:
        super().__init__()
        self.index: list[tuple[str, str]] = []

    async def set_session(self, session: SessionRow, /) -> None:
        self.index.append((session.user_id, session.id))
        await super().set_session(session)

    async def get_sessions_by_user_id(self, user_id: str, /) -> list[SessionRow]:
        return [self._sessions[session_id] for owner, session_id in self.index if owner == user_id]


@breaks(Suite.test_duplicate)
class AsyncRaisesItsOwn(AsyncMemoryAdapter):
    """Raises the database's own error for a taken id."""

    async def set_session(self, session: SessionRow, /) -> None:
        if session.id in self._sessions:
            raise KeyError("UNIQUE constraint failed")
        await super().set_session(session)


@breaks(Suite.test_duplicate_of_same_user)
class AsyncExtends(AsyncMemoryAdapter):
    """Overwrites a session of the same user."""

    async def set_session(self, session: SessionRow, /) -> None:
        found = self._sessions.get(session.id)
        if found is not None and found.user_id == session.user_id:
            self._sessions[session.id] = session
        else:
            await super().set_session(session)


@breaks(Suite.test_set_at_once)
class AsyncLooksFirst(AsyncRendezvousAdapter):
    """Checks whether an id is free, and stores the session later."""

    async def set_session(self, session: SessionRow, /) -> None:
        if session.id in self._sessions:
            raise DuplicateSessionId
        await self.meeting.wait()
        self._sessions[session.id] = session


@breaks(Suite.test_unknown_user)
class AsyncStoresThenRefuses(AsyncMemoryAdapter):
    """Detects an unknown user only after the session is stored."""

    async def set_session(self, session: SessionRow, /) -> None:
        await super().set_session(session)
        raise InvalidUserId


@breaks(Suite.test_unknown_user)
class AsyncIgnoresUnknownUsers(AsyncMemoryAdapter):
    """Silently stores nothing for an unknown user."""

    async def set_session(self, session: SessionRow, /) -> None:
        if session.user_id in self._users:
            await super().set_session(session)


@breaks(Suite.test_expired)
class AsyncRevives(AsyncMemoryAdapter):
    """Extends every session to at least an hour from now."""

    async def set_session(self, session: SessionRow, /) -> None:
        soon = system_clock() + 3_600_000
        await super().set_session(replace(session, idle_expires=max(session.idle_expires, soon)))


@breaks(Suite.test_list_unknown_user)
class AsyncRaisesForUnknownUser(AsyncMemoryAdapter):
    """Raises an error when the sessions of an unknown user are listed."""

    async def get_sessions_by_user_id(self, user_id: str, /) -> list[SessionRow]:
        found = await super().get_sessions_by_user_id(user_id)
        if not found:
            raise InvalidUserId
        return found


@breaks(Suite.test_list)
class AsyncListsTwice(AsyncMemoryAdapter):
    """Lists each session twice."""

    async def get_sessions_by_user_id(self, user_id: str, /) -> list[SessionRow]:
        return await super().get_sessions_by_user_id(user_id) * 2


@breaks(Suite.test_list)
class AsyncListsAll(AsyncMemoryAdapter):
    """Lists the sessions of all users."""

    async def get_sessions_by_user_id(self, user_id: str, /) -> list[SessionRow]:
        return list(self._sessions.values())


@breaks(Suite.test_many)
class AsyncFirstPage(AsyncMemoryAdapter):
    """Lists only the first hundred sessions."""

    async def get_sessions_by_user_id(self, user_id: str, /) -> list[SessionRow]:
        return (await super().get_sessions_by_user_id(user_id))[:100]


@breaks(Suite.test_many)
class AsyncRemovesFirstPage(AsyncMemoryAdapter):
    """Removes only the first hundred sessions."""

    async def delete_sessions_by_user_id(self, user_id: str, /) -> None:
        await self.delete_session(
            *(row.id for row in (await self.get_sessions_by_user_id(user_id))[:100])
        )


@breaks(Suite.test_delete)
class AsyncStaysListed(AsyncMemoryAdapter):
    """Leaves removed sessions in the list."""

    def __init__(self) -> None:
        super().__init__()
        self.listed: list[SessionRow] = []

    async def set_session(self, session: SessionRow, /) -> None:
        await super().set_session(session)
        self.listed.append(session)

    async def get_sessions_by_user_id(self, user_id: str, /) -> list[SessionRow]:
        return [row for row in self.listed if row.user_id == user_id]


@breaks(Suite.test_delete)
class AsyncRemovesAllOfUser(AsyncMemoryAdapter):
    """Removes the user's other sessions too."""

    async def delete_session(self, /, *session_ids: str) -> None:
        for session_id in session_ids:
            found = await self.get_session(session_id)
            if found is not None:
                await self.delete_sessions_by_user_id(found.user_id)


@breaks(Suite.test_delete_many)
class AsyncRemovesOne(AsyncMemoryAdapter):
    """Stops at the first unknown id."""

    async def delete_session(self, /, *session_ids: str) -> None:
        for session_id in session_ids:
            if session_id not in self._sessions:
                return
            del self._sessions[session_id]


@breaks(Suite.test_delete_nothing)
class AsyncNeedsAnId(AsyncMemoryAdapter):
    """Writes ``DELETE … WHERE id IN ()``, which its database refuses."""

    async def delete_session(self, /, *session_ids: str) -> None:
        if not session_ids:
            raise SyntaxError("near ')'")
        await super().delete_session(*session_ids)


@breaks(Suite.test_delete_nothing)
class AsyncNoConditionIsAll(AsyncMemoryAdapter):
    """Removes all sessions when it gets no ids."""

    async def delete_session(self, /, *session_ids: str) -> None:
        await super().delete_session(*(session_ids or list(self._sessions)))


@breaks(Suite.test_delete_unknown)
class AsyncRaisesOnDelete(AsyncMemoryAdapter):
    """Raises an error for an unknown id."""

    async def delete_session(self, /, *session_ids: str) -> None:
        for session_id in session_ids:
            del self._sessions[session_id]


@breaks(Suite.test_delete_by_user)
class AsyncLeavesTheNewest(AsyncMemoryAdapter):
    """Leaves a user's newest session."""

    async def delete_sessions_by_user_id(self, user_id: str, /) -> None:
        await self.delete_session(
            *(row.id for row in (await self.get_sessions_by_user_id(user_id))[:-1])
        )


@breaks(Suite.test_delete_by_user)
class AsyncHidesOnly(AsyncMemoryAdapter):
    """Empties the list but leaves the sessions."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden: set[str] = set()

    async def get_sessions_by_user_id(self, user_id: str, /) -> list[SessionRow]:
        return [] if user_id in self.hidden else await super().get_sessions_by_user_id(user_id)

    async def delete_sessions_by_user_id(self, user_id: str, /) -> None:
        self.hidden.add(user_id)


@breaks(Suite.test_delete_by_unknown_user)
class AsyncRaisesOnDeleteByUser(AsyncMemoryAdapter):
    """Raises an error when the sessions of an unknown user are removed."""

    async def delete_sessions_by_user_id(self, user_id: str, /) -> None:
        if not await self.get_sessions_by_user_id(user_id):
            raise InvalidUserId
        await super().delete_sessions_by_user_id(user_id)


@breaks(Suite.test_login_after_delete_by_user)
class AsyncLocksOut(AsyncMemoryAdapter):
    """Drops the new sessions of a user whose sessions were once all revoked."""

    def __init__(self) -> None:
        super().__init__()
        self.out: set[str] = set()

    async def set_session(self, session: SessionRow, /) -> None:
        if session.user_id not in self.out:
            await super().set_session(session)

    async def delete_sessions_by_user_id(self, user_id: str, /) -> None:
        self.out.add(user_id)
        await super().delete_sessions_by_user_id(user_id)


@breaks(Suite.test_delete_by_user_amid_logins)
class AsyncForgetsTheIndex(AsyncMemoryAdapter):
    """Removes the whole index, with the entries of concurrent logins, as Lucia JS does."""

    def __init__(self) -> None:
        super().__init__()
        self.index: dict[str, list[str]] = {}
        self.read: set[str] = set()

    async def set_session(self, session: SessionRow, /) -> None:
        if len(self.index.get(session.user_id, [])) == CONCURRENT_CALLS:
            await until(lambda: session.user_id in self.read)
        await super().set_session(session)
        self.index.setdefault(session.user_id, []).append(session.id)

    async def get_sessions_by_user_id(self, user_id: str, /) -> list[SessionRow]:
        return [self._sessions[id_] for id_ in self.index.get(user_id, []) if id_ in self._sessions]

    async def delete_sessions_by_user_id(self, user_id: str, /) -> None:
        found = list(self.index.get(user_id, []))
        self.read.add(user_id)
        await until(lambda: len(self.index[user_id]) > len(found))
        await self.delete_session(*found)
        self.index.pop(user_id, None)


@breaks(Suite.test_odd_session_ids)
class AsyncTrimsIds(AsyncMemoryAdapter):
    """Strips white space from ids before a lookup."""

    async def get_session(self, session_id: str, /) -> SessionRow | None:
        return await super().get_session(session_id.strip())


@breaks(Suite.test_odd_session_ids)
class AsyncSplitsIds(AsyncDictionaryAdapter):
    """Removes the session named by the part of an id before the colon."""

    async def delete_session(self, /, *session_ids: str) -> None:
        await super().delete_session(*(id_.partition(":")[0] for id_ in session_ids))


@breaks(Suite.test_odd_user_ids)
class AsyncLatin1(AsyncMemoryAdapter):
    """Replaces characters beyond Latin-1 in user ids."""

    async def get_sessions_by_user_id(self, user_id: str, /) -> list[SessionRow]:
        return await super().get_sessions_by_user_id(
            user_id.encode("latin-1", "replace").decode("latin-1")
        )


@breaks(Suite.test_similar_session_ids)
class AsyncIgnoresCase(AsyncMemoryAdapter):
    """Ignores case in session ids."""

    async def get_session(self, session_id: str, /) -> SessionRow | None:
        return next(
            (row for row in self._sessions.values() if row.id.casefold() == session_id.casefold()),
            None,
        )


@breaks(Suite.test_similar_session_ids)
class AsyncRemovesByPrefix(AsyncMemoryAdapter):
    """Removes all ids with the same prefix."""

    async def delete_session(self, /, *session_ids: str) -> None:
        await super().delete_session(
            *(id_ for id_ in list(self._sessions) if id_.startswith(session_ids))
        )


@breaks(Suite.test_similar_user_ids)
class AsyncListsByPrefix(AsyncMemoryAdapter):
    """Lists the sessions of all users whose ids have the same prefix."""

    async def get_sessions_by_user_id(self, user_id: str, /) -> list[SessionRow]:
        return [row for row in self._sessions.values() if row.user_id.startswith(user_id)]


@breaks(Suite.test_similar_user_ids)
class AsyncRemovesTrimmed(AsyncMemoryAdapter):
    """Ignores white space in user ids when it removes sessions."""

    async def delete_sessions_by_user_id(self, user_id: str, /) -> None:
        await self.delete_session(
            *(
                row.id
                for row in list(self._sessions.values())
                if row.user_id.strip() == user_id.strip()
            )
        )


@breaks(Suite.test_longest_session_id)
class AsyncCutsSessionIds(AsyncMemoryAdapter):
    """Compares only the first 191 characters of a session id."""

    async def get_session(self, session_id: str, /) -> SessionRow | None:
        return next(
            (row for row in self._sessions.values() if row.id[:191] == session_id[:191]), None
        )


@breaks(Suite.test_longest_user_id)
class AsyncCutsUserIds(AsyncMemoryAdapter):
    """Compares only the first 255 characters of a user id."""

    async def get_sessions_by_user_id(self, user_id: str, /) -> list[SessionRow]:
        return [row for row in self._sessions.values() if row.user_id[:255] == user_id[:255]]


@breaks(Suite.test_other_spellings)
class AsyncReadsInAnyCase(AsyncMemoryAdapter):
    """Ignores case when it looks up a session."""

    async def get_session(self, session_id: str, /) -> SessionRow | None:
        return next(
            (row for row in self._sessions.values() if row.id.casefold() == session_id.casefold()),
            None,
        )


@breaks(Suite.test_other_spellings)
class AsyncListsPadded(AsyncMemoryAdapter):
    """Ignores trailing spaces in user ids when it lists sessions."""

    async def get_sessions_by_user_id(self, user_id: str, /) -> list[SessionRow]:
        return await super().get_sessions_by_user_id(user_id.rstrip(" "))


@breaks(Suite.test_other_spellings)
class AsyncRevokesWithoutAccents(AsyncMemoryAdapter):
    """Ignores accents in user ids when it removes sessions."""

    async def delete_sessions_by_user_id(self, user_id: str, /) -> None:
        plain = user_id.replace("é", "e")
        self._sessions = {
            id_: row
            for id_, row in self._sessions.items()
            if row.user_id.replace("é", "e") != plain
        }
