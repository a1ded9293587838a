"""Renewal over five methods, where another process works on the same store."""

from lucia import SessionRow
from lucia._async.fallback import AsyncFiveMethods
from lucia.rules import system_clock
from tests.aio.five_methods import AsyncDictionaryAdapter

GRACE = 60_000


def row(session_id: str) -> SessionRow:
    """A session of anna's."""
    now = system_clock()
    return SessionRow(id=session_id, user_id="anna", active_expires=now + 1_000_000, idle_expires=now + 2_000_000)


class AsyncEndedMeanwhile(AsyncDictionaryAdapter):
    """A store in which somebody else ends the session ``used`` while its successor is stored."""

    async def set_session(self, session: SessionRow, /) -> None:
        await super().set_session(session)
        if session.id == "successor":
            await self.delete_session("used")


async def test_ended_while_renewed() -> None:
    """A session that another process ends during its renewal is not brought back: the successor is taken away again."""
    store = AsyncEndedMeanwhile()
    await store.set_session(row("used"))
    fallback = AsyncFiveMethods(store, system_clock)
    assert await fallback.renew_session("used", row("successor"), grace=GRACE) is None
    assert await store.get_sessions_by_user_id("anna") == []
    assert await fallback.get_successor("used") is None


async def test_renewed_elsewhere() -> None:
    """What one process renewed leads nowhere in another, and is not renewed there again."""
    store = AsyncDictionaryAdapter()
    here, there = AsyncFiveMethods(store, system_clock), AsyncFiveMethods(store, system_clock)
    await store.set_session(row("used"))
    successor = row("successor")
    assert await here.renew_session("used", successor, grace=GRACE) == successor
    assert await there.get_successor("used") is None
    assert await there.renew_session("used", row("second"), grace=GRACE) is None
    assert await store.get_sessions_by_user_id("anna") == [successor]


async def test_ended_elsewhere() -> None:
    """A successor that another process ended is gone here too."""
    store = AsyncDictionaryAdapter()
    here, there = AsyncFiveMethods(store, system_clock), AsyncFiveMethods(store, system_clock)
    await store.set_session(row("used"))
    await here.renew_session("used", row("successor"), grace=GRACE)
    await there.delete_session("successor")
    assert await here.get_successor("used") is None
    assert await here.renew_session("used", row("second"), grace=GRACE) is None
