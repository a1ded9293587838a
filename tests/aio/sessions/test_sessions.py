"""Sessions: their states, renewal, revocation and the device list."""

import base64
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest

from lucia import (
    AsyncAuth,
    ConcurrentlyRevoked,
    DuplicateSessionId,
    InvalidInput,
    InvalidSessionId,
    InvalidUserId,
    Session,
    SessionCookie,
    SessionExpiry,
    SessionRow,
    User,
    UserRow,
)
from lucia._testing.racing_calls import AsyncRacingCalls
from lucia.adapters.memory import AsyncMemoryAdapter
from lucia.models import SessionState
from tests.aio.support.watched_store import AsyncWatchedStore, StoreDownError, make_auth
from tests.support.clocks import NOW, Time
from tests.support.sessions import as_read
from tests.support.sessions import session as make_session

DAY = timedelta(days=1)
MS = timedelta(milliseconds=1)
ACTIVE_END = NOW + 24 * 3_600_000
IDLE_END = ACTIVE_END + 14 * 24 * 3_600_000
GRACE = timedelta(seconds=60)

MALFORMED: Sequence[str] = [
    "",
    "a" * 39,
    "a" * 41,
    "a" * 39 + "-",
    "a" * 39 + "\n",
    "é" * 40,
    "٣" * 40,
]


@pytest.fixture
async def user_id(auth: AsyncAuth[User]) -> str:
    """Return the id of an existing user."""
    user = await auth.create_user(primary_key=None)
    return user.user_id


@pytest.fixture
async def session(auth: AsyncAuth[User], store: AsyncWatchedStore, user_id: str) -> Session:
    """Return a new session; the list of calls is empty."""
    made = await auth.create_session(user_id)
    store.calls.clear()
    return made


def utc(epoch_ms: int) -> datetime:
    """Convert milliseconds to a time, without the library's code."""
    return datetime.fromtimestamp(epoch_ms // 1000, UTC) + epoch_ms % 1000 * MS


def foreign(**attributes: Any) -> SessionRow:
    """Return a session that another program stored."""
    return SessionRow(
        id="f" * 40,
        user_id="their",
        active_expires=ACTIVE_END,
        idle_expires=IDLE_END,
        attributes=attributes,
    )


def others_than(losers: type[Exception], outcomes: Sequence[object]) -> list[Session]:
    """Return the sessions among the outcomes; all others must be such errors."""
    assert all(isinstance(outcome, Session | losers) for outcome in outcomes)
    return [outcome for outcome in outcomes if isinstance(outcome, Session)]


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


# --- A session's members


async def test_a_new_session_is_active_and_fresh(auth: AsyncAuth[User], user_id: str) -> None:
    """A new session is active for 24 hours, then idle for 14 days, in aware UTC times.

    Its id has 40 characters.
    """
    session = await auth.create_session(user_id)
    assert session == make_session(
        session_id=session.session_id,
        user_id=user_id,
        active_period_expires_at=utc(ACTIVE_END),
        idle_period_expires_at=utc(IDLE_END),
        state="active",
        fresh=True,
        handle=session.handle,
        created_at=utc(NOW),
        metadata={},
    )
    assert len(session.session_id) == 40
    assert session.session_id.isalnum()
    assert session.session_id.isascii()
    assert session.created_at.tzinfo is UTC


async def test_every_session_carries_created_at_and_a_handle(
    auth: AsyncAuth[User], store: AsyncWatchedStore, session: Session
) -> None:
    """A record has four columns, ``created_at`` in milliseconds, a handle, and nothing else.

    The handle has 16 bytes in base64url.
    """
    row = await store.get_session(session.session_id)
    assert row is not None
    assert (row.id, row.user_id, row.active_expires, row.idle_expires) == (
        session.session_id,
        session.user_id,
        ACTIVE_END,
        IDLE_END,
    )
    assert row.attributes == {"created_at": NOW, "handle": session.handle}
    assert len(base64.urlsafe_b64decode(session.handle + "==")) == 16
    assert (await auth.create_session(session.user_id)).handle != session.handle


@pytest.mark.parametrize(
    ("now", "state"),
    [
        (NOW, "active"),
        (ACTIVE_END, "active"),
        (ACTIVE_END + 1, "idle"),
        (IDLE_END, "idle"),
        (IDLE_END + 1, None),
    ],
)
async def test_period_includes_its_last_millisecond(
    auth: AsyncAuth[User], time: Time, session: Session, now: int, state: SessionState | None
) -> None:
    """A session is active, idle and alive up to and including the last millisecond."""
    time.now = now
    if state is None:
        with pytest.raises(InvalidSessionId):
            await auth.get_session(session.session_id)
    else:
        assert await auth.get_session(session.session_id) == as_read(session, state=state)


async def test_record_whose_idle_period_ends_first(
    auth: AsyncAuth[User], store: AsyncWatchedStore, user_id: str
) -> None:
    """A record that ends before its active period does, as others may write, is dead for all."""
    made = replace(foreign(), user_id=user_id, active_expires=NOW + 1, idle_expires=NOW - 1)
    await store.set_session(made)
    for read in (auth.validate_session, auth.get_session):
        with pytest.raises(InvalidSessionId):
            await read(made.id)


async def test_a_clock_that_jumps_changes_states_and_loses_nothing(
    auth: AsyncAuth[User], time: Time, session: Session
) -> None:
    """A clock that jumps back and forth changes only the state."""
    for jump, state in (
        (-400 * DAY, "active"),
        (401 * DAY + 12 * 60 * GRACE, "idle"),
        (-1 * DAY, "active"),
    ):
        time.advance(jump)
        assert (await auth.get_session(session.session_id)).state == state


async def test_get_session_never_writes(
    auth: AsyncAuth[User], store: AsyncWatchedStore, time: Time, session: Session
) -> None:
    """``get_session`` never writes: an idle session keeps its id and its expiry."""
    time.now = IDLE_END
    found = await auth.get_session(session.session_id)
    assert (found.state, found.fresh, found.session_id) == ("idle", False, session.session_id)
    assert store.calls == ["get_session"]


async def test_validating_an_active_session_does_not_write(
    auth: AsyncAuth[User], store: AsyncWatchedStore, time: Time, session: Session
) -> None:
    """An active session is returned unchanged, with one read."""
    time.now = ACTIVE_END
    assert await auth.validate_session(session.session_id) == as_read(session)
    assert store.calls == ["get_session"]


async def test_validating_an_idle_session_renews_it(
    auth: AsyncAuth[User], time: Time, session: Session
) -> None:
    """An idle session is replaced by an active one with another id and new expiries."""
    time.now = ACTIVE_END + 1
    renewed = await auth.validate_session(session.session_id)
    assert renewed.session_id != session.session_id
    assert (renewed.state, renewed.fresh, renewed.user_id) == ("active", True, session.user_id)
    assert renewed.active_period_expires_at == session.active_period_expires_at + DAY + MS
    assert renewed.idle_period_expires_at == session.idle_period_expires_at + DAY + MS


async def test_validating_a_dead_session_fails(
    auth: AsyncAuth[User], time: Time, session: Session
) -> None:
    """After the idle period, a session can't be read, validated or renewed."""
    time.now = IDLE_END + 1
    for method in (auth.get_session, auth.validate_session, auth.renew_session):
        with pytest.raises(InvalidSessionId):
            await method(session.session_id)


@pytest.mark.parametrize("session_id", MALFORMED, ids=ascii)
async def test_malformed_id_is_not_sent_to_the_store(
    auth: AsyncAuth[User], store: AsyncWatchedStore, session_id: str
) -> None:
    """A malformed id is InvalidSessionId, and no error to invalidate, without any store call."""
    for method in (
        auth.get_session,
        auth.get_session_user,
        auth.validate_session,
        auth.validate_session_user,
        auth.renew_session,
    ):
        with pytest.raises(InvalidSessionId):
            await method(session_id)
    await auth.invalidate_session(session_id)
    assert store.calls == []


async def test_non_str_id_is_type_error(
    auth: AsyncAuth[User],
    store: AsyncWatchedStore,
    session: Session,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A session or bytes instead of an id is a TypeError, before any store call.

    Its message says what to pass.
    """
    await auth.create_key(
        session.user_id, provider_id="username", provider_user_id="alice", password="before"
    )
    store.calls.clear()
    caplog.clear()
    methods: dict[str, Callable[[Any], Any]] = {
        "get_session": auth.get_session,
        "get_session_user": auth.get_session_user,
        "validate_session": auth.validate_session,
        "validate_session_user": auth.validate_session_user,
        "renew_session": auth.renew_session,
        "invalidate_session": auth.invalidate_session,
        "invalidate_all_user_sessions": lambda given: auth.invalidate_all_user_sessions(
            session.user_id, keep=given
        ),
        "update_key_password": lambda given: auth.update_key_password(
            "username", "alice", "after", keep_session=given
        ),
    }
    refused: list[tuple[object, str]] = [
        (session, r"session_id must be a str, not Session: give session\.session_id"),
        (session.session_id.encode(), "session_id must be a str, not bytes"),
        (40, "session_id must be a str, not int"),
    ]
    for method in methods.values():
        for given, message in refused:
            with pytest.raises(TypeError, match=rf"\A{message}\Z"):
                await method(given)
    for name in ("get_session", "validate_session_user", "invalidate_session"):
        with pytest.raises(TypeError, match="session_id must be a str, not NoneType"):
            await methods[name](None)
    assert store.calls == []
    assert caplog.records == []


async def test_non_str_handle_is_type_error(
    auth: AsyncAuth[User], store: AsyncWatchedStore, session: Session
) -> None:
    """A device or a session instead of a handle is a TypeError, before any store call.

    Its message says what to pass.
    """
    (device,) = await auth.get_all_user_sessions(session.user_id)
    store.calls.clear()
    methods: list[Callable[[str, Any], Any]] = [auth.invalidate_user_session, auth.get_user_session]
    for method in methods:
        for given, message in (
            (device, r"not Device: give device\.handle"),
            (session, r"not Session: give session\.handle"),
            (None, "not NoneType"),
        ):
            with pytest.raises(TypeError, match=rf"\Ahandle must be a str, {message}\Z"):
                await method(session.user_id, given)
    assert store.calls == []


async def test_unknown_ids_are_invalid_and_no_error_to_invalidate(
    auth: AsyncAuth[User], user_id: str
) -> None:
    """An unknown id is InvalidSessionId, except for methods that revoke."""
    for method in (
        auth.get_session,
        auth.get_session_user,
        auth.validate_session,
        auth.validate_session_user,
        auth.renew_session,
    ):
        with pytest.raises(InvalidSessionId):
            await method("0" * 40)
    await auth.invalidate_session("0" * 40)
    assert await auth.invalidate_all_user_sessions("nobody")
    await auth.delete_dead_user_sessions("nobody")
    assert await auth.get_all_user_sessions(user_id) == []


async def test_store_errors_are_raised_unchanged(
    auth: AsyncAuth[User], store: AsyncWatchedStore, user_id: str
) -> None:
    """The store's errors are raised unchanged: a taken id, an unknown user, a database's own."""
    for error in (DuplicateSessionId(), InvalidUserId(), StoreDownError("down")):
        store.failing = {"set_session": error}
        with pytest.raises(type(error)) as caught:
            await auth.create_session(user_id)
        assert caught.value is error


async def test_a_store_that_fails_is_no_invalid_session(
    auth: AsyncAuth[User], store: AsyncWatchedStore, time: Time, session: Session
) -> None:
    """A store's error during a read or renewal is raised unchanged, and the session stays."""
    time.now = ACTIVE_END + 1
    for name in ("get_session", "renew_session"):
        store.failing = {name: StoreDownError(name)}
        with pytest.raises(StoreDownError, match=name):
            await auth.validate_session(session.session_id)
    store.failing = {}
    assert (await auth.validate_session(session.session_id)).fresh


@pytest.mark.parametrize("bad", ["", "\ud800", "\0", "x" * 12_289])
async def test_nobody_can_be_logged_in_under_an_impossible_id(
    auth: AsyncAuth[User], store: AsyncWatchedStore, bad: str
) -> None:
    """A user id that no store can keep is a ValueError before any store call."""
    methods: list[Callable[[str], Any]] = [
        auth.create_session,
        auth.invalidate_all_user_sessions,
        partial(auth.invalidate_user_session, handle="h"),
        auth.delete_dead_user_sessions,
    ]
    for method in methods:
        with pytest.raises(ValueError, match="user_id"):
            await method(bad)
    assert store.calls == []


@pytest.mark.parametrize(
    "user_id", ["a:b::", "{a}b{}", " ", "100%_*?", "漢字 🦊", "0", "x" * 10_240]
)
async def test_any_text_is_a_user_id(auth: AsyncAuth[User], user_id: str) -> None:
    """Any text is a user id: sessions are found and revoked by exactly this id."""
    session = await auth.create_session(user_id)
    other = await auth.create_session(user_id + "1")
    assert (await auth.get_session(session.session_id)).user_id == user_id
    await auth.invalidate_all_user_sessions(user_id)
    assert await alive(auth, session, other) == [False, True]


def test_generate_session_id(auth: AsyncAuth[User]) -> None:
    """``generate_session_id`` returns an id and the ends of both periods in milliseconds."""
    session_id, active_end, idle_end = auth.generate_session_id()
    assert (len(session_id), active_end, idle_end) == (40, ACTIVE_END, IDLE_END)
    assert auth.generate_session_id()[0] != session_id


# --- With the user


async def test_a_session_with_its_user_takes_one_query_of_a_store_that_has_both(
    auth: AsyncAuth[User], store: AsyncWatchedStore, session: Session
) -> None:
    """If one object stores both, the session and its user are read with one call."""
    for method in (auth.get_session_user, auth.validate_session_user):
        store.calls.clear()
        assert await method(session.session_id) == (as_read(session), User(session.user_id))
        assert store.calls == ["get_session_and_user_by_session_id"]


async def test_a_session_with_its_user_from_two_stores(
    store: AsyncWatchedStore, time: Time, user_id: str
) -> None:
    """With two stores, each is asked for its part."""
    sessions = AsyncWatchedStore(time)
    auth = make_auth(store, time, sessions=sessions)
    session = await auth.create_session(user_id)
    sessions.calls.clear()
    store.calls.clear()
    for method in (auth.get_session_user, auth.validate_session_user):
        assert await method(session.session_id) == (as_read(session), User(user_id))
    assert (sessions.calls, store.calls) == (["get_session"] * 2, ["get_user"] * 2)


async def test_an_idle_session_is_renewed_with_its_user(
    auth: AsyncAuth[User], time: Time, session: Session
) -> None:
    """``validate_session_user`` renews, ``get_session_user`` does not; both accept a used id."""
    time.now = ACTIVE_END + 1
    found = await auth.get_session_user(session.session_id)
    assert (found.session.session_id, found.session.state, found.session.fresh) == (
        session.session_id,
        "idle",
        False,
    )
    renewed = await auth.validate_session_user(session.session_id)
    assert renewed.session.session_id != session.session_id
    assert renewed.session.fresh
    assert await auth.validate_session_user(session.session_id) == renewed
    assert await auth.get_session_user(session.session_id) == renewed


async def test_the_session_of_a_user_who_is_gone_is_invalid_and_not_renewed(
    auth: AsyncAuth[User], store: AsyncWatchedStore, time: Time, session: Session
) -> None:
    """A session of a deleted user is invalid, with one store or two, and is not renewed."""
    await store.delete_user(session.user_id)
    time.now = ACTIVE_END + 1
    two = make_auth(AsyncWatchedStore(time), time, sessions=store)
    for owner in (auth, two):
        for method in (owner.get_session_user, owner.validate_session_user):
            with pytest.raises(InvalidSessionId):
                await method(session.session_id)
    assert "renew_session" not in store.calls


async def test_another_sessions_record_is_no_session(
    store: AsyncWatchedStore, time: Time, session: Session
) -> None:
    """A record with another id is no session, for example from a database that ignores case."""

    class Careless(AsyncWatchedStore):
        async def get_session(self, session_id: str, /) -> SessionRow | None:
            return await store.get_session(session.session_id)

        async def get_session_and_user_by_session_id(
            self, session_id: str, /
        ) -> tuple[SessionRow, UserRow] | None:
            return await store.get_session_and_user_by_session_id(session.session_id)

    auth = make_auth(Careless(time), time)
    assert (await auth.get_session_user(session.session_id)).session == as_read(session)
    for method in (
        auth.get_session,
        auth.validate_session,
        auth.get_session_user,
        auth.validate_session_user,
        auth.renew_session,
    ):
        with pytest.raises(InvalidSessionId):
            await method(session.session_id.swapcase())


async def test_a_mistaken_record_does_not_lend_its_user(
    store: AsyncWatchedStore, time: Time, session: Session
) -> None:
    """If the store returns another session for a used id, the successor has its own user."""
    successor = await make_auth(store, time).renew_session(session.session_id)
    other = SessionRow(
        id="o" * 40, user_id="other", active_expires=ACTIVE_END, idle_expires=IDLE_END
    )

    async def mistaken(session_id: str, /) -> tuple[SessionRow, UserRow]:
        return other, UserRow(id="other")

    auth = make_auth(store, time)
    store.__dict__["get_session_and_user_by_session_id"] = mistaken
    for method in (auth.get_session_user, auth.validate_session_user):
        assert await method(session.session_id) == (successor, User(session.user_id))


# --- Renewal


@pytest.mark.parametrize("now", [NOW, ACTIVE_END + 1])
async def test_renew_session(auth: AsyncAuth[User], time: Time, session: Session, now: int) -> None:
    """An active or idle session is renewed on demand."""
    time.now = now
    renewed = await auth.renew_session(session.session_id)
    assert renewed.session_id != session.session_id
    assert (renewed.user_id, renewed.state, renewed.fresh) == (session.user_id, "active", True)
    assert await auth.get_session(renewed.session_id) == as_read(renewed)


async def test_the_used_session_ends_with_its_renewal(
    auth: AsyncAuth[User], time: Time, session: Session
) -> None:
    """The used session is removed at once, and its id is invalid after the grace."""
    renewed = await auth.renew_session(session.session_id)
    assert [device.handle for device in await auth.get_all_user_sessions(session.user_id)] == [
        session.handle
    ]
    time.advance(GRACE)
    for method in (auth.get_session, auth.validate_session, auth.renew_session):
        with pytest.raises(InvalidSessionId):
            await method(session.session_id)
    assert await alive(auth, renewed) == [True]


async def test_used_id_returns_successor_within_grace(
    auth: AsyncAuth[User], time: Time, session: Session
) -> None:
    """Within the grace, a used id returns the successor, with ``fresh`` set."""
    renewed = await auth.renew_session(session.session_id)
    time.advance(GRACE - MS)
    for method in (auth.get_session, auth.validate_session, auth.renew_session):
        assert await method(session.session_id) == renewed


async def test_parallel_requests_on_an_idle_session_make_one_successor(
    auth: AsyncAuth[User], store: AsyncWatchedStore, time: Time, session: Session
) -> None:
    """Concurrent validations of an idle session create one successor, which all get."""
    time.now = ACTIVE_END + 1
    outcomes = await AsyncRacingCalls.gather_results(
        *[partial(auth.validate_session, session.session_id)] * 12
    )
    winners = others_than(InvalidSessionId, outcomes)
    assert len(winners) == 12
    assert len({winner.session_id for winner in winners}) == 1
    assert all(winner.fresh for winner in winners)
    assert len(await store.get_sessions_by_user_id(session.user_id)) == 1


async def test_without_a_grace_one_request_gets_the_successor(
    store: AsyncWatchedStore, time: Time, session: Session
) -> None:
    """With a grace of 0, one of the concurrent requests gets the successor."""
    auth = make_auth(store, time, session_expires_in=SessionExpiry(grace=timedelta(0)))
    time.now = ACTIVE_END + 1
    outcomes = await AsyncRacingCalls.gather_results(
        *[partial(auth.validate_session, session.session_id)] * 12
    )
    assert len(others_than(InvalidSessionId, outcomes)) == 1
    assert len(await store.get_sessions_by_user_id(session.user_id)) == 1


@pytest.mark.parametrize("grace", [timedelta(0), timedelta(seconds=10), GRACE])
async def test_revoking_a_used_id_revokes_its_successor_for_60_seconds(
    store: AsyncWatchedStore, time: Time, session: Session, grace: timedelta
) -> None:
    """For 60 seconds, whatever the grace, revoking a used id revokes its successors."""
    auth = make_auth(store, time, session_expires_in=SessionExpiry(grace=grace))
    first = await auth.renew_session(session.session_id)
    second = await auth.renew_session(first.session_id)
    time.advance(GRACE - MS)
    await auth.invalidate_session(session.session_id)
    assert await alive(auth, session, first, second) == [False] * 3

    other = await auth.create_session(session.user_id)
    successor = await auth.renew_session(other.session_id)
    time.advance(GRACE)
    await auth.invalidate_session(other.session_id)
    assert await alive(auth, other, successor) == [False, True]


async def test_a_used_id_leads_over_several_renewals_while_each_is_within_its_grace(
    auth: AsyncAuth[User], time: Time, session: Session
) -> None:
    """A chain of renewals is followed while each is within its grace."""
    first = await auth.renew_session(session.session_id)
    time.advance(GRACE / 2)
    second = await auth.renew_session(first.session_id)
    assert await auth.get_session(session.session_id) == second
    time.advance(GRACE / 2)
    assert await alive(auth, session, first, second) == [False, True, True]


async def test_an_idle_successor_is_renewed_through_the_used_id(
    store: AsyncWatchedStore, time: Time, user_id: str
) -> None:
    """A used id with an idle successor renews it.

    This happens if the active period is shorter than the grace.
    """
    auth = make_auth(store, time, session_expires_in=SessionExpiry(active=timedelta(seconds=1)))
    session = await auth.create_session(user_id)
    first = await auth.renew_session(session.session_id)
    time.advance(timedelta(seconds=2))
    second = await auth.validate_session(session.session_id)
    assert second.session_id not in (session.session_id, first.session_id)
    assert (second.state, second.fresh) == ("active", True)


async def test_renewal_revives_no_revoked_session(
    auth: AsyncAuth[User], store: AsyncWatchedStore, time: Time, session: Session
) -> None:
    """A session that is revoked between its read and its renewal stays revoked."""
    time.now = ACTIVE_END + 1
    enders: list[Callable[[], Any]] = [
        partial(auth.invalidate_session, session.session_id),
        partial(auth.invalidate_all_user_sessions, session.user_id),
        partial(auth.invalidate_user_session, session.user_id, session.handle),
    ]
    for ender in enders:
        await store.delete_session(session.session_id)
        await store.set_session(
            SessionRow(
                id=session.session_id,
                user_id=session.user_id,
                active_expires=ACTIVE_END,
                idle_expires=IDLE_END,
                attributes={"handle": session.handle},
            )
        )
        store.before["renew_session"] = ender
        with pytest.raises(InvalidSessionId):
            await auth.validate_session(session.session_id)
        assert await store.get_sessions_by_user_id(session.user_id) == []


async def test_session_revoked_right_after_renewal_stays_revoked(
    auth: AsyncAuth[User], store: AsyncWatchedStore, time: Time, session: Session
) -> None:
    """Revoking a used id before the renewal has returned revokes the returned session."""
    time.now = ACTIVE_END + 1
    store.after["renew_session"] = partial(auth.invalidate_session, session.session_id)
    renewed = await auth.validate_session(session.session_id)
    assert await alive(auth, session, renewed) == [False, False]


async def test_expired_successor_is_invalid(
    store: AsyncWatchedStore, time: Time, session: Session
) -> None:
    """A successor that has expired by the time it is returned is InvalidSessionId."""
    auth = make_auth(store, time)

    class Late(AsyncWatchedStore):
        async def get_session(self, session_id: str, /) -> SessionRow | None:
            return await store.get_session(session_id)

        async def renew_session(
            self, session_id: str, successor: SessionRow, /, *, grace: int
        ) -> SessionRow | None:
            return replace(successor, active_expires=NOW, idle_expires=NOW)

    time.now = ACTIVE_END + 1
    with pytest.raises(InvalidSessionId):
        await make_auth(Late(time), time).validate_session(session.session_id)
    assert await alive(auth, session) == [True]


CIRCLE: list[Any] = []
CIRCLE.append(CIRCLE)

# --- Metadata, handles and the absolute lifetime


async def test_renewals_keep_metadata_handle_and_created_at(
    auth: AsyncAuth[User], time: Time, user_id: str
) -> None:
    """Renewals keep the metadata, the handle and the time of the login."""
    metadata = {"user_agent": "Firefox — ‮", "nested": {"list": [1, None, "🦊"]}}
    session = await auth.create_session(user_id, metadata=metadata)
    found = session
    for _ in range(3):
        time.advance(2 * DAY)
        found = await auth.validate_session(found.session_id)
        assert (found.metadata, found.handle, found.created_at) == (
            metadata,
            session.handle,
            session.created_at,
        )
    assert [device.metadata for device in await auth.get_all_user_sessions(user_id)] == [metadata]


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"secret", "Object of type bytes is not JSON serializable"),
        ({"deep": [{1, 2}]}, "Object of type set is not JSON serializable"),
        (datetime(2026, 1, 1, tzinfo=UTC), "Object of type datetime is not JSON serializable"),
        (object(), "Object of type object is not JSON serializable"),
        ({("a", 1): 2}, "keys must be str, int, float, bool or None, not tuple"),
        (float("nan"), "it holds NaN or an infinity, or contains itself"),
        (float("inf"), "it holds NaN or an infinity, or contains itself"),
        (CIRCLE, "it holds NaN or an infinity, or contains itself"),
    ],
    ids=["bytes", "set", "datetime", "object", "tuple as key", "nan", "infinite", "circle"],
)
async def test_metadata_must_be_json(
    auth: AsyncAuth[User], store: AsyncWatchedStore, value: Any, reason: str
) -> None:
    """A value that is not JSON is a ValueError before any store call.

    Its message names the member and says what to use.
    """
    with pytest.raises(
        ValueError, match=re.escape(f"the metadata 'value' is no JSON value: {reason}. Use text")
    ) as caught:
        await auth.create_session("u", metadata={"fine": 1, "value": value, "other": value})
    assert not isinstance(caught.value, InvalidInput)
    assert "secret" not in str(caught.value)
    assert store.calls == []


async def test_metadata_is_kept_as_json(
    auth: AsyncAuth[User], store: AsyncWatchedStore, user_id: str
) -> None:
    """Metadata is returned as JSON from the start: keys are strings, and tuples are lists."""
    given: Any = {1: 2, None: {True: 3}, "t": (1, (2, 3)), "f": 1.5}
    kept = {"1": 2, "null": {"true": 3}, "t": [1, [2, 3]], "f": 1.5}
    session = await auth.create_session(user_id, metadata=given)
    row = await store.get_session(session.session_id)
    assert row is not None
    assert row.attributes["noted"] == kept
    later = [
        (await auth.get_session(session.session_id)).metadata,
        (await auth.renew_session(session.session_id)).metadata,
    ]
    assert [session.metadata, *later] == [kept] * 3


@pytest.mark.parametrize("metadata", [["a"], "text", 1, {1}])
async def test_metadata_is_a_mapping(
    auth: AsyncAuth[User], store: AsyncWatchedStore, metadata: Any
) -> None:
    """Metadata that is not a mapping is a TypeError before any store call."""
    with pytest.raises(
        TypeError,
        match=(
            "the metadata of a session must be a dict of JSON values,"
            f" not {type(metadata).__name__}"
        ),
    ):
        await auth.create_session("u", metadata=metadata)
    assert store.calls == []


async def test_metadata_is_limited_to_8_kib(
    auth: AsyncAuth[User], store: AsyncWatchedStore
) -> None:
    """Metadata of more than 8 KiB of JSON is InvalidInput before any store call."""
    longest = "x" * (8_192 - len('{"a": ""}'))
    assert (await auth.create_session("u", metadata={"a": longest})).metadata == {"a": longest}
    store.calls.clear()
    with pytest.raises(InvalidInput, match="more than 8192"):
        await auth.create_session("u", metadata={"a": longest + "x"})
    nested: list[Any] = []
    for _ in range(100_000):
        nested = [nested]
    with pytest.raises(
        ValueError, match="the metadata 'a' is no JSON value: it is nested too deep"
    ):
        await auth.create_session("u", metadata={"a": nested})
    assert store.calls == []


async def test_other_attributes_are_kept_through_renewals(
    auth: AsyncAuth[User], store: AsyncWatchedStore
) -> None:
    """A renewal keeps the members of a record that another program added."""
    await store.set_session(foreign(theirs={"a": [1]}, handle="theirs"))
    renewed = await auth.renew_session("f" * 40)
    row = await store.get_session(renewed.session_id)
    assert row is not None
    assert row.attributes == {"theirs": {"a": [1]}, "handle": "theirs", "created_at": NOW}


async def test_the_absolute_lifetime_clamps_what_is_written(
    store: AsyncWatchedStore, time: Time, user_id: str
) -> None:
    """The absolute lifetime limits both expiries in the record, through all renewals."""
    auth = make_auth(store, time, session_expires_in=SessionExpiry(absolute=20 * DAY))
    end = NOW + 20 * 86_400_000
    session = await auth.create_session(user_id)
    for _ in range(12):
        row = await store.get_session(session.session_id)
        assert row is not None
        assert row.active_expires <= row.idle_expires <= end
        time.advance(1.5 * DAY)
        session = await auth.validate_session(session.session_id)
    assert session.idle_period_expires_at == utc(end)
    time.now = end + 1
    with pytest.raises(InvalidSessionId):
        await auth.validate_session(session.session_id)


async def test_a_lifetime_shorter_than_the_periods_clamps_both(
    store: AsyncWatchedStore, time: Time, user_id: str
) -> None:
    """A session is not active beyond its absolute lifetime."""
    auth = make_auth(store, time, session_expires_in=SessionExpiry(absolute=timedelta(hours=1)))
    session = await auth.create_session(user_id)
    assert (
        session.active_period_expires_at == session.idle_period_expires_at == utc(NOW + 3_600_000)
    )


async def test_an_absolute_lifetime_shortened_later_ends_at_the_next_renewal(
    store: AsyncWatchedStore, time: Time, session: Session
) -> None:
    """A session older than a newly configured lifetime is removed instead of renewed."""
    stricter = make_auth(store, time, session_expires_in=SessionExpiry(absolute=DAY))
    time.now = ACTIVE_END
    assert (await stricter.validate_session(session.session_id)).state == "active"
    time.now += 1
    with pytest.raises(InvalidSessionId):
        await stricter.validate_session(session.session_id)
    assert await store.get_sessions_by_user_id(session.user_id) == []
    assert "renew_session" not in store.calls


async def test_absolute_lifetime_is_off_by_default(
    auth: AsyncAuth[User], time: Time, session: Session
) -> None:
    """Without an absolute lifetime, a session that is used lives on for years."""
    for _ in range(100):
        time.advance(14 * DAY)
        session = await auth.validate_session(session.session_id)
    assert session.created_at == utc(NOW)


async def test_cap_revokes_the_oldest_logins(
    store: AsyncWatchedStore, time: Time, user_id: str
) -> None:
    """With a limit of 2, a third login revokes the first one, even if it was renewed last.

    Other users' logins do not count.
    """
    auth = make_auth(store, time, max_sessions_per_user=2)
    other = await auth.create_session((await auth.create_user(primary_key=None)).user_id)
    first = await auth.create_session(user_id)
    time.advance(timedelta(hours=25))
    second = await auth.create_session(user_id, metadata={"a": 1})
    first = await auth.validate_session(first.session_id)
    assert await alive(auth, first, second, other) == [True, True, True]
    time.advance(timedelta(seconds=1))
    third = await auth.create_session(user_id)
    assert await alive(auth, first, second, third, other) == [False, True, True, True]
    assert [device.handle for device in await auth.get_all_user_sessions(user_id)] == [
        third.handle,
        second.handle,
    ]


async def test_dead_sessions_are_not_counted_for_a_cap(
    store: AsyncWatchedStore, time: Time, user_id: str
) -> None:
    """Expired sessions do not count for the limit."""
    auth = make_auth(store, time, max_sessions_per_user=2, auto_database_cleanup=False)
    await auth.create_session(user_id)
    time.advance(14 * DAY)
    second = await auth.create_session(user_id)
    time.advance(2 * DAY)
    third = await auth.create_session(user_id)
    assert await alive(auth, second, third) == [True, True]


async def test_a_cap_is_off_by_default(
    auth: AsyncAuth[User], store: AsyncWatchedStore, user_id: str
) -> None:
    """Without a limit, a user may have any number of logins, each with one store call."""
    sessions = [await auth.create_session(user_id) for _ in range(30)]
    assert await alive(auth, *sessions) == [True] * 30
    assert "set_session_capped" not in store.calls


@pytest.mark.parametrize(
    ("cap", "error"),
    [(0, ValueError), (-1, ValueError), (1_001, ValueError), (True, TypeError), ("5", TypeError)],
)
def test_a_cap_is_a_number_of_logins(
    store: AsyncWatchedStore, time: Time, cap: Any, error: type[Exception]
) -> None:
    """A limit must be an integer from 1 to 1,000."""
    with pytest.raises(error, match="max_sessions_per_user must be"):
        make_auth(store, time, max_sessions_per_user=cap)


@pytest.mark.parametrize(
    "odd",
    [
        {},
        {"created_at": None, "handle": None, "noted": None},
        {"created_at": "1", "handle": 7, "noted": []},
        {"created_at": True, "handle": "", "noted": "x"},
        {"created_at": -1, "handle": {}, "noted": 1},
        {"created_at": 10**30, "handle": ["h"]},
        {"created_at": 1.5, "handle": b"h"},
    ],
)
async def test_records_made_elsewhere(
    auth: AsyncAuth[User], store: AsyncWatchedStore, time: Time, odd: dict[str, Any]
) -> None:
    """A missing or odd handle is derived from the id, and a missing login time from the expiry.

    The renewed record has both.
    """
    await store.set_session(foreign(**odd))
    found = await auth.get_session("f" * 40)
    assert (found.created_at, found.metadata) == (utc(NOW), {})
    assert len(base64.urlsafe_b64decode(found.handle + "==")) == 16
    assert found.handle not in "f" * 40
    time.now = ACTIVE_END + 1
    renewed = await auth.validate_session("f" * 40)
    assert (renewed.created_at, renewed.handle) == (found.created_at, found.handle)
    row = await store.get_session(renewed.session_id)
    assert row is not None
    assert (row.attributes["created_at"], row.attributes["handle"]) == (NOW, found.handle)


# --- Revocation


async def test_invalidate_session(auth: AsyncAuth[User], session: Session) -> None:
    """Revoking a session leaves the user's others, and repeating it is no error."""
    other = await auth.create_session(session.user_id)
    await auth.invalidate_session(session.session_id)
    await auth.invalidate_session(session.session_id)
    assert await alive(auth, session, other) == [False, True]


async def test_invalidate_all_user_sessions(auth: AsyncAuth[User], session: Session) -> None:
    """Revoking all sessions includes successors, and leaves those of other users."""
    more = [await auth.create_session(session.user_id) for _ in range(3)]
    renewed = await auth.renew_session(session.session_id)
    other = await auth.create_session("other")
    assert await auth.invalidate_all_user_sessions(session.user_id) is True
    assert await alive(auth, session, renewed, *more, other) == [False] * 5 + [True]
    assert await auth.invalidate_all_user_sessions(session.user_id) is True


async def test_one_session_is_kept(auth: AsyncAuth[User], session: Session) -> None:
    """``keep=`` keeps one session, and True is returned."""
    more = [await auth.create_session(session.user_id) for _ in range(3)]
    assert await auth.invalidate_all_user_sessions(session.user_id, keep=session.session_id) is True
    assert await alive(auth, session, *more) == [True, False, False, False]


async def test_a_kept_session_may_have_been_renewed(
    auth: AsyncAuth[User], store: AsyncWatchedStore, session: Session
) -> None:
    """``keep=`` with a used id keeps its successor, even if it is renewed meanwhile."""
    other = await auth.create_session(session.user_id)
    first = await auth.renew_session(session.session_id)
    assert await auth.invalidate_all_user_sessions(session.user_id, keep=session.session_id) is True
    assert await alive(auth, first, other) == [True, False]
    store.before["delete_other_sessions"] = partial(auth.renew_session, first.session_id)
    assert await auth.invalidate_all_user_sessions(session.user_id, keep=first.session_id) is True
    assert len(await auth.get_all_user_sessions(session.user_id)) == 1
    assert (await auth.get_session(first.session_id)).handle == session.handle


@pytest.mark.parametrize("keep", ["unknown", "malformed", "somebody else's"])
async def test_keep_of_a_foreign_or_dead_session_revokes_all(
    auth: AsyncAuth[User], session: Session, keep: str
) -> None:
    """If ``keep=`` is no live session of the user, all are revoked, and False is returned."""
    theirs = await auth.create_session("other")
    ids = {"unknown": "0" * 40, "malformed": "no id", "somebody else's": theirs.session_id}
    assert await auth.invalidate_all_user_sessions(session.user_id, keep=ids[keep]) is False
    assert await alive(auth, session, theirs) == [False, True]


async def test_revocation_misses_nothing_that_had_returned(
    auth: AsyncAuth[User], store: AsyncWatchedStore, user_id: str
) -> None:
    """Revoking all sessions revokes those from before, despite concurrent logins and renewals."""
    before = [await auth.create_session(user_id) for _ in range(4)]
    before += [await auth.renew_session(session.session_id) for session in before]
    calls: list[Callable[[], Any]] = [
        *(partial(auth.renew_session, session.session_id) for session in before),
        partial(auth.invalidate_all_user_sessions, user_id),
        *[partial(auth.create_session, user_id)] * 4,
    ]
    await AsyncRacingCalls.gather_results(*calls)
    assert not any(await alive(auth, *before))


# --- The device list


async def test_the_device_list(auth: AsyncAuth[User], time: Time, user_id: str) -> None:
    """The list has active and idle sessions, newest login first, without session ids."""
    sessions = []
    for number in range(3):
        sessions.append(await auth.create_session(user_id, metadata={"number": number}))
        time.advance(0.5 * DAY)
    await auth.create_session("other")
    renewed = await auth.renew_session(sessions[0].session_id)
    devices = await auth.get_all_user_sessions(user_id)
    assert [device.metadata["number"] for device in devices] == [2, 1, 0]
    assert [device.handle for device in devices] == [
        session.handle for session in reversed(sessions)
    ]
    assert [device.state for device in devices] == ["active", "active", "active"]
    members = {
        name: value
        for name, value in asdict(renewed).items()
        if name not in ("session_id", "fresh")
    }
    assert asdict(devices[2]) == members
    ids = [session.session_id for session in (*sessions, renewed)]
    assert not any(id_ in f"{device!r} {asdict(device)}" for id_ in ids for device in devices)


async def test_a_login_is_found_by_its_handle(
    auth: AsyncAuth[User], time: Time, session: Session
) -> None:
    """A login is found by its handle through renewals, even after its first id is invalid."""
    await auth.create_session(session.user_id)
    assert (await auth.get_user_session(session.user_id, session.handle)).state == "active"
    time.now = ACTIVE_END + 1
    assert (await auth.get_user_session(session.user_id, session.handle)).state == "idle"
    renewed = await auth.renew_session(session.session_id)
    time.advance(timedelta(minutes=2))
    with pytest.raises(InvalidSessionId):
        await auth.get_session(session.session_id)
    found = await auth.get_user_session(session.user_id, session.handle)
    assert (found.state, found.handle) == ("active", session.handle)
    assert found.idle_period_expires_at == renewed.idle_period_expires_at
    assert found in await auth.get_all_user_sessions(session.user_id)


@pytest.mark.parametrize("newer_first", [True, False])
async def test_a_login_that_is_being_renewed_is_one_device(
    auth: AsyncAuth[User], store: AsyncWatchedStore, user_id: str, newer_first: bool
) -> None:
    """If a renewal leaves two sessions with one handle for a moment, the newer one is listed."""
    older = SessionRow(
        id="a" * 40,
        user_id=user_id,
        active_expires=NOW + 1,
        idle_expires=NOW + 2,
        attributes={"handle": "h"},
    )
    newer = replace(older, id="b" * 40, idle_expires=NOW + 3)
    for row in (newer, older) if newer_first else (older, newer):
        await store.set_session(row)
    (device,) = await auth.get_all_user_sessions(user_id)
    assert device.idle_period_expires_at == utc(NOW + 3)
    assert await auth.get_user_session(user_id, "h") == device


async def test_revoked_login_is_not_found(
    auth: AsyncAuth[User], time: Time, session: Session
) -> None:
    """A revoked, expired, unknown or foreign login is InvalidSessionId."""
    other = await auth.create_session(session.user_id)
    theirs = await auth.create_session("somebody else")
    await auth.invalidate_session(other.session_id)
    for handle in (other.handle, theirs.handle, "unknown", ""):
        with pytest.raises(InvalidSessionId):
            await auth.get_user_session(session.user_id, handle)
    with pytest.raises(InvalidSessionId):
        await auth.get_user_session("nobody", session.handle)
    for no_user in ("", "\ud800"):
        with pytest.raises(InvalidUserId):
            await auth.get_user_session(no_user, session.handle)
    time.now = IDLE_END
    assert (await auth.get_user_session(session.user_id, session.handle)).state == "idle"
    time.now = IDLE_END + 1
    with pytest.raises(InvalidSessionId):
        await auth.get_user_session(session.user_id, session.handle)


async def test_a_store_that_fails_ends_no_login(
    auth: AsyncAuth[User], store: AsyncWatchedStore, session: Session
) -> None:
    """A store's error is raised unchanged, and not taken for a revoked login."""
    store.failing = {"get_sessions_by_user_id": StoreDownError("down")}
    with pytest.raises(StoreDownError):
        await auth.get_user_session(session.user_id, session.handle)


async def test_the_device_list_leaves_dead_sessions_out(
    auth: AsyncAuth[User], time: Time, session: Session
) -> None:
    """An idle session is listed up to its last millisecond."""
    time.now = IDLE_END
    assert [device.state for device in await auth.get_all_user_sessions(session.user_id)] == [
        "idle"
    ]
    time.now += 1
    assert await auth.get_all_user_sessions(session.user_id) == []


async def test_the_device_list_of_an_unknown_user(
    auth: AsyncAuth[User], store: AsyncWatchedStore
) -> None:
    """An unknown user is InvalidUserId; an impossible id is not looked up."""
    with pytest.raises(InvalidUserId):
        await auth.get_all_user_sessions("nobody")
    store.calls.clear()
    for impossible in ("", "\ud800", "\0", "x" * 12_289):
        with pytest.raises(InvalidUserId):
            await auth.get_all_user_sessions(impossible)
    assert store.calls == []


async def test_login_is_revoked_by_its_handle(auth: AsyncAuth[User], session: Session) -> None:
    """Revoking a login by its handle returns whether there was one, and leaves the others."""
    other = await auth.create_session(session.user_id)
    assert await auth.invalidate_user_session(session.user_id, session.handle) is True
    assert await auth.invalidate_user_session(session.user_id, session.handle) is False
    assert await auth.invalidate_user_session(session.user_id, "") is False
    assert await alive(auth, session, other) == [False, True]


async def test_a_handle_works_for_its_owner_alone(auth: AsyncAuth[User], session: Session) -> None:
    """Another user's handle revokes nothing, and the result does not reveal it."""
    assert await auth.invalidate_user_session("other", session.handle) is False
    assert await alive(auth, session) == [True]


async def test_revoking_a_login_follows_its_renewal(
    auth: AsyncAuth[User], store: AsyncWatchedStore, session: Session
) -> None:
    """A login that is renewed while it is revoked by its handle is revoked."""
    renewed: list[Session] = []

    async def renew() -> None:
        renewed.append(await auth.renew_session(session.session_id))

    store.before["delete_session"] = renew
    assert await auth.invalidate_user_session(session.user_id, session.handle) is True
    assert await alive(auth, session, *renewed) == [False, False]


async def test_record_without_a_handle_is_revoked_by_the_derived_one(
    auth: AsyncAuth[User], store: AsyncWatchedStore
) -> None:
    """A record without a handle is revoked by a derived one, which reveals nothing of the id."""
    await store.set_user("their", {}, None)
    await store.set_session(foreign())
    (device,) = await auth.get_all_user_sessions("their")
    assert device.handle not in "f" * 40
    assert await auth.invalidate_user_session("their", device.handle) is True
    assert await auth.get_all_user_sessions("their") == []


async def test_other_users_record_is_neither_listed_nor_revoked(
    store: AsyncWatchedStore, time: Time, session: Session
) -> None:
    """If a store's index returns another user's sessions, they are neither listed nor revoked."""

    class Mixed(AsyncWatchedStore):
        async def get_sessions_by_user_id(self, user_id: str, /) -> list[SessionRow]:
            return await store.get_sessions_by_user_id(session.user_id)

        async def get_user(self, user_id: str, /) -> UserRow | None:
            return UserRow(id=user_id)

    auth = make_auth(Mixed(time), time)
    assert await auth.get_all_user_sessions("other") == []
    assert await auth.invalidate_user_session("other", session.handle) is False
    assert len(await auth.get_all_user_sessions(session.user_id)) == 1


# --- Expired sessions


async def test_delete_dead_user_sessions(
    auth: AsyncAuth[User], store: AsyncWatchedStore, time: Time, session: Session
) -> None:
    """Expired sessions of the user are removed; without any, nothing is deleted."""
    time.now = IDLE_END
    live = await auth.create_session(session.user_id)
    theirs = SessionRow(id="t" * 40, user_id="other", active_expires=1, idle_expires=2)
    await store.set_session(theirs)
    time.now = IDLE_END + 1
    store.calls.clear()
    await auth.delete_dead_user_sessions(session.user_id)
    await auth.delete_dead_user_sessions(session.user_id)
    assert store.calls == ["get_sessions_by_user_id", "delete_session", "get_sessions_by_user_id"]
    assert [row.id for row in await store.get_sessions_by_user_id(session.user_id)] == [
        live.session_id
    ]
    assert await store.get_sessions_by_user_id("other") == [theirs]


async def sweep_by_login(auth: AsyncAuth[User], session: Session) -> None:
    """Log in again."""
    await auth.create_session(session.user_id)


async def sweep_by_list(auth: AsyncAuth[User], session: Session) -> None:
    """List the devices."""
    assert await auth.get_all_user_sessions(session.user_id) == []


async def sweep_by_use(auth: AsyncAuth[User], session: Session) -> None:
    """Validate the expired session."""
    with pytest.raises(InvalidSessionId):
        await auth.validate_session(session.session_id)


async def sweep_by_change(auth: AsyncAuth[User], session: Session) -> None:
    """Update the user."""
    await auth.update_user_attributes(session.user_id, {})


SWEEPS = [sweep_by_login, sweep_by_list, sweep_by_use, sweep_by_change]


@pytest.mark.parametrize("sweep", SWEEPS)
@pytest.mark.parametrize("cleanup", [True, False])
async def test_auto_database_cleanup(
    store: AsyncWatchedStore,
    time: Time,
    session: Session,
    sweep: Callable[..., Any],
    *,
    cleanup: bool,
) -> None:
    """Expired sessions are removed on use, unless this is switched off."""
    auth = make_auth(store, time, auto_database_cleanup=cleanup)
    time.now = IDLE_END + 1
    await sweep(auth, session)
    assert (await store.get_session(session.session_id) is None) is cleanup


async def test_failed_cleanup_of_a_login_stores_nothing(
    auth: AsyncAuth[User], store: AsyncWatchedStore, time: Time, session: Session
) -> None:
    """If expired sessions can't be removed at a login, no session is left that nobody has."""
    time.now = IDLE_END + 1
    store.failing = {"delete_session": StoreDownError("down")}
    with pytest.raises(StoreDownError):
        await auth.create_session(session.user_id)
    store.failing = {}
    assert await auth.get_all_user_sessions(session.user_id) == []


@pytest.mark.parametrize("sweep", SWEEPS)
async def test_a_store_that_expires_records_is_not_swept(
    store: AsyncWatchedStore, time: Time, session: Session, sweep: Callable[..., Any]
) -> None:
    """Expired sessions are not removed from a store that expires its records itself."""
    store.expires_records = True
    auth = make_auth(store, time)
    time.now = IDLE_END + 1
    await sweep(auth, session)
    assert "delete_session" not in store.calls


# --- Settings


@pytest.mark.parametrize("bare", [60, 60.0, "60", True, (1,)])
@pytest.mark.parametrize("name", ["active", "idle", "absolute", "grace"])
def test_a_bare_number_is_no_duration(name: str, bare: Any) -> None:
    """A duration must be a ``timedelta``; the error names the setting."""
    durations: dict[str, Any] = {name: bare}
    with pytest.raises(TypeError, match=f"{name} must be a datetime.timedelta"):
        SessionExpiry(**durations)


async def test_session_expires_in(store: AsyncWatchedStore, time: Time, user_id: str) -> None:
    auth = make_auth(
        store,
        time,
        session_expires_in=SessionExpiry(active=timedelta(minutes=5), idle=timedelta(0)),
    )
    session = await auth.create_session(user_id)
    assert session.active_period_expires_at == session.idle_period_expires_at == utc(NOW + 300_000)


def test_create_session_cookie(store: AsyncWatchedStore, time: Time, session: Session) -> None:
    """The cookie has the id until the idle expiry, or clears it; it is Secure in production."""
    cookie = make_auth(store, time, session_cookie=SessionCookie(name="sid")).create_session_cookie(
        session
    )
    assert (cookie.name, cookie.value, cookie.expires, cookie.secure) == (
        "sid",
        session.session_id,
        utc(IDLE_END),
        False,
    )
    cleared = make_auth(store, time, env="PROD").create_session_cookie(None)
    assert (cleared.name, cleared.value, cleared.expires, cleared.secure) == (
        "auth_session",
        "",
        utc(0),
        True,
    )
    with pytest.raises(ValueError, match="must be Secure"):
        make_auth(store, time, session_cookie=SessionCookie(name="__Host-sid"))


@pytest.mark.parametrize("env", ["", "dev", "PRODUCTION", None])
def test_env_is_one_of_two(env: Any) -> None:
    """``env`` must be one of the two names."""
    with pytest.raises(ValueError, match="env must be"):
        AsyncAuth(sessions=AsyncMemoryAdapter(), env=env)


async def test_an_auth_can_be_closed_and_used_again(store: AsyncWatchedStore, time: Time) -> None:
    """Closing an ``Auth`` stops its workers but closes no store, and it can be used again."""
    async with make_auth(store, time) as auth:
        user_id = (await auth.create_user(primary_key=None)).user_id
    session = await auth.create_session(user_id)
    await auth.aclose()
    await auth.aclose()
    assert await alive(auth, session) == [True]


class AsyncInterruptedStore(AsyncMemoryAdapter):
    """A store where writes are overtaken several times by a revocation of all sessions."""

    times = 1

    async def set_session(self, session: SessionRow, /) -> None:
        self.interrupt()
        await super().set_session(session)

    async def renew_session(
        self, session_id: str, successor: SessionRow, /, *, grace: int
    ) -> SessionRow | None:
        self.interrupt()
        return await super().renew_session(session_id, successor, grace=grace)

    def interrupt(self) -> None:
        """Raise ConcurrentlyRevoked if times are left."""
        if self.times:
            self.times -= 1
            raise ConcurrentlyRevoked


async def test_a_login_is_tried_once_more(time: Time) -> None:
    """A login that a revocation overtakes is retried once, with a new id."""
    store = AsyncInterruptedStore()
    auth = AsyncAuth(sessions=store, env="DEV", clock=time)
    session = await auth.create_session("u")
    assert (await auth.get_session(session.session_id)).user_id == "u"
    store.times = 2
    with pytest.raises(ConcurrentlyRevoked):
        await auth.create_session("u")


async def test_a_renewal_is_tried_once_more(time: Time) -> None:
    """A renewal that a revocation overtakes is retried once, if the used session still exists."""
    store = AsyncInterruptedStore()
    auth = AsyncAuth(sessions=store, env="DEV", clock=time)
    session = await auth.create_session("u")
    store.times = 1
    renewed = await auth.renew_session(session.session_id)
    assert renewed.handle == session.handle
    store.times = 2
    with pytest.raises(ConcurrentlyRevoked):
        await auth.renew_session(renewed.session_id)


async def test_a_login_is_listed_once(
    auth: AsyncAuth[User], store: AsyncWatchedStore, time: Time
) -> None:
    """A login that is being renewed, with both sessions stored, is listed once, as renewed."""
    user = await auth.create_user(primary_key=None)
    session = await auth.create_session(user.user_id)
    time.advance(timedelta(hours=25))
    row = await store.get_session(session.session_id)
    assert row is not None
    await store.set_session(
        replace(row, id="0" * 40, active_expires=time.now + 1, idle_expires=row.idle_expires + 1)
    )
    (device,) = await auth.get_all_user_sessions(user.user_id)
    assert (device.handle, device.state) == (session.handle, "active")
    assert await auth.invalidate_user_session(user.user_id, device.handle)
    assert await store.get_sessions_by_user_id(user.user_id) == []
