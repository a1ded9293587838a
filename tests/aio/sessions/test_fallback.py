"""``Auth`` over an adapter with only the five methods of Lucia JS."""

from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import partial
from typing import Any

import pytest

from lucia import AsyncAuth, InvalidSessionId, Session, SessionExpiry, SessionRow, User
from lucia._compat.pause import AsyncPause
from lucia._testing.racing_calls import AsyncRacingCalls
from tests.aio.support.minimal_adapters import AsyncColumnsAdapter, AsyncDictionaryAdapter
from tests.support.clocks import NOW, Time
from tests.support.requests import Exchange

DAY = timedelta(days=1)
MS = timedelta(milliseconds=1)
GRACE = timedelta(seconds=60)
IDLE = timedelta(hours=25)


class AsyncSlowAdapter(AsyncDictionaryAdapter):
    """A slow adapter, with hooks that run once before or after a session is stored."""

    def __init__(self) -> None:
        super().__init__()
        self.before: list[Callable[[], Any]] = []
        self.after: list[Callable[[], Any]] = []
        self.deleted: list[tuple[str, ...]] = []

    async def set_session(self, session: SessionRow, /) -> None:
        while self.before:
            await self.before.pop()()
        await AsyncPause.seconds(0.001)
        await super().set_session(session)
        while self.after:
            await self.after.pop()()

    async def delete_session(self, /, *session_ids: str) -> None:
        """Record the ids, and remove the sessions."""
        self.deleted.append(session_ids)
        await super().delete_session(*session_ids)

    async def delete_sessions_by_user_id(self, user_id: str, /) -> None:
        """Read the sessions, and remove them only after a pause."""
        rows = await self.get_sessions_by_user_id(user_id)
        await AsyncPause.seconds(0.02)
        await super().delete_session(*(row.id for row in rows))


@pytest.fixture
def adapter() -> AsyncSlowAdapter:
    """Return an application's adapter."""
    return AsyncSlowAdapter()


def make(
    adapter: AsyncDictionaryAdapter, time: Time, cap: int | None = None, **durations: timedelta
) -> AsyncAuth[User]:
    """Return an ``Auth`` of one process."""
    expiry = SessionExpiry(**durations)
    return AsyncAuth(
        sessions=adapter,
        env="DEV",
        clock=time,
        session_expires_in=expiry,
        max_sessions_per_user=cap,
    )


@pytest.fixture
def auth(adapter: AsyncSlowAdapter, time: Time) -> AsyncAuth[User]:
    """Return an ``Auth`` with the default settings."""
    return make(adapter, time)


async def alive(auth: AsyncAuth[User], *sessions: Session) -> list[bool]:
    """Return for each session whether it is valid."""
    found = []
    for session in sessions:
        try:
            await auth.get_session(session.session_id)
            found.append(True)
        except InvalidSessionId:
            found.append(False)
    return found


async def ids(adapter: AsyncDictionaryAdapter) -> list[str]:
    """Return the ids of the user's sessions."""
    return [row.id for row in await adapter.get_sessions_by_user_id("u")]


async def test_sessions_work_over_five_methods(auth: AsyncAuth[User], time: Time) -> None:
    """Login, validation, renewal, device list and logout need only five methods."""
    session = await auth.create_session("u", metadata={"a": 1})
    assert await auth.validate_session(session.session_id) == await auth.get_session(
        session.session_id
    )
    time.advance(IDLE)
    renewed = await auth.validate_session(session.session_id)
    assert (renewed.state, renewed.metadata, renewed.handle) == ("active", {"a": 1}, session.handle)
    assert [device.handle for device in await auth.get_all_user_sessions("u")] == [session.handle]
    await auth.invalidate_session(renewed.session_id)
    assert await auth.get_all_user_sessions("u") == []


@pytest.mark.parametrize(("grace", "served"), [(GRACE, 8), (timedelta(0), 1)])
async def test_parallel_requests_make_one_successor(
    adapter: AsyncSlowAdapter, time: Time, grace: timedelta, served: int
) -> None:
    """In one process, concurrent renewals store one successor.

    All requests get it within the grace; without a grace, one does.
    """
    auth = make(adapter, time, grace=grace)
    session = await auth.create_session("u")
    time.advance(IDLE)
    outcomes = await AsyncRacingCalls.gather_results(
        *[partial(auth.validate_session, session.session_id)] * 8
    )
    found = [outcome for outcome in outcomes if isinstance(outcome, Session)]
    assert len(found) == served
    assert len({one.session_id for one in found}) == 1
    assert all(isinstance(outcome, Session | InvalidSessionId) for outcome in outcomes)
    assert await ids(adapter) == [found[0].session_id]


async def test_a_used_id_leads_to_its_successor_and_ends_it(
    auth: AsyncAuth[User], time: Time
) -> None:
    """A used id has its successor within the grace, over several renewals.

    Revoking the used id revokes the successor for 60 seconds.
    """
    session = await auth.create_session("u")
    first = await auth.renew_session(session.session_id)
    second = await auth.renew_session(first.session_id)
    assert await auth.get_session(session.session_id) == second
    time.advance(GRACE - MS)
    assert await auth.validate_session(session.session_id) == second
    await auth.invalidate_session(session.session_id)
    assert await alive(auth, session, first, second) == [False] * 3

    other = await auth.create_session("u")
    successor = await auth.renew_session(other.session_id)
    time.advance(GRACE)
    await auth.invalidate_session(other.session_id)
    assert await alive(auth, other, successor) == [False, True]


@pytest.mark.parametrize("ender", ["the session", "all sessions", "by the handle"])
@pytest.mark.parametrize("when", ["before", "after"])
async def test_another_process_ends_a_session_during_its_renewal(
    adapter: AsyncSlowAdapter, auth: AsyncAuth[User], time: Time, ender: str, when: str
) -> None:
    """A session that another process revokes during its renewal stays revoked."""
    there = make(adapter, time)
    session = await auth.create_session("u")
    time.advance(IDLE)
    ways: dict[str, Callable[[], Any]] = {
        "the session": partial(there.invalidate_session, session.session_id),
        "all sessions": partial(there.invalidate_all_user_sessions, "u"),
        "by the handle": partial(there.invalidate_user_session, "u", session.handle),
    }
    (adapter.before if when == "before" else adapter.after).append(ways[ender])
    with pytest.raises(InvalidSessionId):
        await auth.validate_session(session.session_id)
    assert await ids(adapter) == []


@pytest.mark.parametrize("first", ["renewals", "revocation"])
async def test_renewals_and_revocation_at_once_leave_no_session(
    auth: AsyncAuth[User], adapter: AsyncSlowAdapter, time: Time, first: str
) -> None:
    """In one process, revoking all sessions includes successors from concurrent renewals."""
    sessions = [await auth.create_session("u") for _ in range(4)]
    time.advance(IDLE)
    calls: list[Callable[[], Any]] = [
        partial(auth.validate_session, session.session_id) for session in sessions
    ]
    calls.insert(
        0 if first == "revocation" else len(calls), partial(auth.invalidate_all_user_sessions, "u")
    )
    await AsyncRacingCalls.gather_results(*calls)
    assert await ids(adapter) == []


async def test_one_session_is_kept(auth: AsyncAuth[User], adapter: AsyncSlowAdapter) -> None:
    """``keep=`` keeps one session or its successor, and revokes the others.

    The adapter is never called to delete nothing.
    """
    session = await auth.create_session("u")
    other = await auth.create_session("u")
    theirs = await auth.create_session("other")
    assert await auth.invalidate_all_user_sessions("u", keep=session.session_id) is True
    assert await alive(auth, session, other, theirs) == [True, False, True]
    renewed = await auth.renew_session(session.session_id)
    adapter.deleted.clear()
    assert await auth.invalidate_all_user_sessions("u", keep=session.session_id) is True
    assert adapter.deleted == []
    assert await alive(auth, renewed) == [True]
    for keep in ("0" * 40, theirs.session_id):
        await auth.create_session("u")
        assert await auth.invalidate_all_user_sessions("u", keep=keep) is False
        assert await ids(adapter) == []
    assert await alive(auth, theirs) == [True]


async def test_an_adapter_is_never_asked_to_delete_nothing(
    auth: AsyncAuth[User], adapter: AsyncSlowAdapter
) -> None:
    """``delete_session`` is never called without ids.

    In some databases, ``DELETE … WHERE id IN ()`` is an error.
    """
    session = await auth.create_session("u")
    await auth.get_all_user_sessions("u")
    await auth.delete_dead_user_sessions("u")
    await auth.invalidate_user_session("u", "no such handle")
    await auth.invalidate_session("malformed")
    assert adapter.deleted == []
    await auth.invalidate_session(session.session_id)
    assert adapter.deleted == [(session.session_id,)]


async def test_dead_sessions_are_swept(
    auth: AsyncAuth[User], adapter: AsyncSlowAdapter, time: Time
) -> None:
    """Expired sessions are deleted: the store is assumed not to expire its records."""
    await auth.create_session("u")
    time.advance(400 * DAY)
    session = await auth.create_session("u")
    assert await ids(adapter) == [session.session_id]


# --- Adapters without attributes


@pytest.fixture
def columns(time: Time) -> AsyncAuth[User]:
    """Return an ``Auth`` over an adapter with four columns, like those of Lucia JS."""
    return make(AsyncColumnsAdapter(), time)


async def test_a_store_without_attributes_has_handles_all_the_same(
    columns: AsyncAuth[User], time: Time
) -> None:
    """Without attributes, the handle is derived from the id, and the login time from the expiry."""
    session = await columns.create_session("u")
    (device,) = await columns.get_all_user_sessions("u")
    assert (device.handle, device.created_at) == (session.handle, session.created_at)
    assert session.created_at.timestamp() * 1000 == NOW
    time.advance(IDLE)
    renewed = await columns.validate_session(session.session_id)
    (device,) = await columns.get_all_user_sessions("u")
    assert (device.handle, device.created_at) == (renewed.handle, renewed.created_at)
    assert await columns.invalidate_user_session("u", renewed.handle) is True


async def test_what_a_store_can_not_keep_is_refused(columns: AsyncAuth[User], time: Time) -> None:
    """Settings and metadata that need attributes are refused before anything is stored.

    These are an absolute lifetime and a limit of sessions, when ``Auth`` is created, and metadata,
    at a login.
    """
    with pytest.raises(
        ValueError, match="max_sessions_per_user needs a session adapter that keeps attributes"
    ):
        make(AsyncColumnsAdapter(), time, cap=5)
    with pytest.raises(ValueError, match="absolute lifetime"):
        make(AsyncColumnsAdapter(), time, absolute=90 * DAY)
    with pytest.raises(ValueError, match="a session can't have metadata"):
        await columns.create_session("u", metadata={"a": 1})
    with pytest.raises(ValueError, match="a session can't have metadata"):
        await columns.handle_request(Exchange().context).sign_in("u", user_agent="Firefox")
    assert await columns.get_all_user_sessions("u") == []
    assert (await columns.create_session("u", metadata={})).metadata == {}


async def test_an_adapter_that_says_nothing_keeps_nothing(time: Time) -> None:
    """An adapter without ``keeps_attributes`` is never given attributes."""

    class Silent:
        """An adapter whose ``set_session`` records the rows."""

        def __init__(self) -> None:
            self.inner = AsyncColumnsAdapter()
            self.given: list[SessionRow] = []

        async def get_session(self, session_id: str, /) -> SessionRow | None:
            return await self.inner.get_session(session_id)

        async def get_sessions_by_user_id(self, user_id: str, /) -> Sequence[SessionRow]:
            return await self.inner.get_sessions_by_user_id(user_id)

        async def set_session(self, session: SessionRow, /) -> None:
            self.given.append(session)
            await self.inner.set_session(session)

        async def delete_session(self, /, *session_ids: str) -> None:
            await self.inner.delete_session(*session_ids)

        async def delete_sessions_by_user_id(self, user_id: str, /) -> None:
            await self.inner.delete_sessions_by_user_id(user_id)

    silent = Silent()
    auth: AsyncAuth[User] = AsyncAuth(sessions=silent, env="DEV", clock=time)
    session = await auth.create_session("u")
    renewed = await auth.renew_session(session.session_id)
    assert [row.attributes for row in silent.given] == [{}, {}]
    await auth.invalidate_all_user_sessions("u")
    assert await alive(auth, session, renewed) == [False, False]


async def test_a_cap_over_five_methods(adapter: AsyncSlowAdapter, time: Time) -> None:
    """50 concurrent logins with a limit of 5 leave exactly 5.

    Of logins one after another in the same millisecond, the last five are left, in order.
    """
    auth = make(adapter, time, cap=5)
    outcomes = await AsyncRacingCalls.gather_results(*[partial(auth.create_session, "u")] * 50)
    sessions = [outcome for outcome in outcomes if isinstance(outcome, Session)]
    assert len(sessions) == 50
    assert sum(await alive(auth, *sessions)) == 5
    last = [await auth.create_session("u") for _ in range(5)]
    assert await alive(auth, *last) == [True] * 5
    assert [device.handle for device in await auth.get_all_user_sessions("u")] == [
        session.handle for session in last[::-1]
    ]


async def test_caps_of_two_processes(adapter: AsyncSlowAdapter, time: Time) -> None:
    """Once the logins of two processes have returned, the limit holds."""
    processes = [make(adapter, time, cap=3), make(adapter, time, cap=3)]
    sessions = await AsyncRacingCalls.gather_results(
        *(partial(auth.create_session, "u") for auth in processes * 8)
    )
    assert [type(session) for session in sessions] == [Session] * 16
    assert len(await ids(adapter)) == 3


async def test_a_cap_over_five_methods_ends_what_is_renewed(
    auth: AsyncAuth[User], adapter: AsyncSlowAdapter, time: Time
) -> None:
    """The limit revokes the oldest login under its newest id, and the used id has no successor."""
    capped = make(adapter, time, cap=1)
    first = await capped.create_session("u")
    renewed = await capped.renew_session(first.session_id)
    time.advance(MS)
    second = await capped.create_session("u")
    assert await alive(capped, first, renewed, second) == [False, False, True]


async def test_absolute_lifetime_over_five_methods(adapter: AsyncSlowAdapter, time: Time) -> None:
    """An adapter with ``keeps_attributes`` supports an absolute lifetime."""
    auth = make(adapter, time, absolute=2 * DAY)
    session = await auth.create_session("u")
    time.advance(IDLE)
    renewed = await auth.validate_session(session.session_id)
    assert renewed.idle_period_expires_at == session.created_at + 2 * DAY
