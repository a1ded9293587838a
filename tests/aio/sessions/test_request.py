"""``AuthRequest``: validation, sign-in and sign-out of one request, and the origin check."""

import logging
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any

import pytest

from lucia import (
    AsyncAuth,
    InvalidPassword,
    InvalidRequest,
    InvalidSessionId,
    PrimaryKey,
    Session,
    SessionUser,
    User,
)
from lucia._compat.pause import AsyncPause
from lucia._testing.racing_calls import AsyncRacingCalls
from tests.aio.support.watched_store import AsyncWatchedStore, StoreDownError, make_auth
from tests.support.clocks import Time
from tests.support.requests import OWN_ORIGIN, Exchange
from tests.support.sessions import as_read

PASSWORD = "correct horse battery staple"
IDLE = timedelta(hours=25)
EVIL = "https://evil.example"


@pytest.fixture
async def user_id(auth: AsyncAuth[User]) -> str:
    """Return the id of a user with a primary key."""
    user = await auth.create_user(primary_key=PrimaryKey("username", "alice", PASSWORD))
    return user.user_id


@pytest.fixture
async def session(auth: AsyncAuth[User], store: AsyncWatchedStore, user_id: str) -> Session:
    """Return the session of the requests; the list of calls is empty."""
    made = await auth.create_session(user_id)
    store.calls.clear()
    return made


async def is_alive(auth: AsyncAuth[User], session: Session) -> bool:
    """Return whether the session is valid."""
    try:
        await auth.get_session(session.session_id)
    except InvalidSessionId:
        return False
    return True


# --- Validation


async def test_an_active_session_is_validated_by_one_read(
    auth: AsyncAuth[User], store: AsyncWatchedStore, session: Session
) -> None:
    """``validate`` returns the session with one read for any number of calls, and no cookie."""
    exchange = Exchange(session.session_id)
    request = auth.handle_request(exchange.context)
    for _ in range(3):
        assert await request.validate() == as_read(session)
    assert store.calls == ["get_session"]
    assert (exchange.cookies, exchange.headers) == ([], {"vary": "Cookie"})


async def test_the_user_is_validated_by_one_read(
    auth: AsyncAuth[User], store: AsyncWatchedStore, session: Session
) -> None:
    """``validate_user`` returns both, with one read; ``validate`` then shares the session."""
    request = auth.handle_request(Exchange(session.session_id).context)
    expected = SessionUser(as_read(session), User(session.user_id))
    for _ in range(3):
        assert await request.validate_user() == expected
        assert await request.validate() == expected.session
    assert store.calls == ["get_session_and_user_by_session_id"]


async def test_the_user_is_looked_up_for_a_session_that_is_known(
    auth: AsyncAuth[User], store: AsyncWatchedStore, session: Session
) -> None:
    """``validate_user`` after ``validate`` reads only the user."""
    request = auth.handle_request(Exchange(session.session_id).context)
    await request.validate()
    for _ in range(2):
        assert await request.validate_user() == SessionUser(as_read(session), User(session.user_id))
    assert store.calls == ["get_session", "get_user"]


async def test_concurrent_validations_share_one_result(
    auth: AsyncAuth[User], store: AsyncWatchedStore, time: Time, session: Session
) -> None:
    """Concurrent calls of both methods renew once, set one cookie and return the same session."""
    time.advance(IDLE)
    exchange = Exchange(session.session_id)
    request = auth.handle_request(exchange.context)
    store.after["renew_session"] = partial(AsyncPause.seconds, 0.05)
    calls: list[Callable[[], Any]] = [request.validate_user, request.validate] * 5
    answers = await AsyncRacingCalls.gather_results(*calls)
    found = {answer.session if isinstance(answer, SessionUser) else answer for answer in answers}
    assert len(found) == 1
    assert all(isinstance(session, Session) for session in found)
    assert store.calls.count("renew_session") == 1
    assert len(exchange.cookies) == 1


async def test_a_renewed_session_sets_its_cookie(
    auth: AsyncAuth[User], time: Time, session: Session
) -> None:
    """An idle session is renewed; the response sets its new id and may not be cached."""
    time.advance(IDLE)
    for method in ("validate", "validate_user"):
        exchange = Exchange(session.session_id, method="GET")
        request = auth.handle_request(exchange.context)
        await getattr(request, method)()
        validated = await request.validate()
        assert validated is not None
        assert validated.session_id != session.session_id
        (cookie,) = exchange.cookies
        assert (cookie.value, cookie.expires) == (
            validated.session_id,
            validated.idle_period_expires_at,
        )
        assert exchange.headers == {"cache-control": "no-store", "vary": "Cookie"}


async def test_a_request_in_flight_gets_the_successors_cookie(
    auth: AsyncAuth[User], session: Session
) -> None:
    """A concurrent request with the used id gets the successor, and its cookie."""
    successor = await auth.renew_session(session.session_id)
    exchange = Exchange(session.session_id)
    assert await auth.handle_request(exchange.context).validate() == successor
    assert exchange.values == [successor.session_id]


@pytest.mark.parametrize("method", ["validate", "validate_user"])
async def test_where_no_cookie_can_be_sent_nothing_is_renewed(
    auth: AsyncAuth[User], store: AsyncWatchedStore, time: Time, session: Session, method: str
) -> None:
    """Once the response has started, an idle session is returned without a renewal."""
    time.advance(IDLE)
    exchange = Exchange(session.session_id)
    exchange.started = True
    request = auth.handle_request(exchange.context)
    await getattr(request, method)()
    validated = await request.validate()
    assert validated is not None
    assert (validated.session_id, validated.state) == (session.session_id, "idle")
    assert "renew_session" not in store.calls
    assert exchange.cookies == []


async def test_a_response_that_starts_meanwhile_gets_no_cookie(
    auth: AsyncAuth[User], store: AsyncWatchedStore, time: Time, session: Session
) -> None:
    """If the response starts during a renewal, no cookie is set.

    The used id is still accepted within the grace.
    """
    time.advance(IDLE)
    exchange = Exchange(session.session_id)

    async def start() -> None:
        exchange.started = True

    store.after["renew_session"] = start
    assert await auth.handle_request(exchange.context).validate() is not None
    assert exchange.cookies == []
    assert await is_alive(auth, session)


@pytest.mark.parametrize(
    "value", [None, "", "short", "a" * 41, "ä" * 40, "a" * 39 + "%", '"' + "a" * 40 + '"']
)
async def test_without_a_possible_id_not_one_command_is_sent(
    auth: AsyncAuth[User], store: AsyncWatchedStore, value: str | None
) -> None:
    """Without a cookie, or with an empty or malformed one, the store is not called.

    The cookie is not changed.
    """
    exchange = Exchange(value)
    request = auth.handle_request(exchange.context)
    assert await request.validate() is None
    assert await request.validate_user() is None
    assert (store.calls, exchange.cookies, exchange.headers) == ([], [], {"vary": "Cookie"})


async def test_an_unknown_id_is_a_visitor_and_its_cookie_stays(
    auth: AsyncAuth[User], store: AsyncWatchedStore
) -> None:
    """An unknown id does not clear the cookie, and the store is asked once.

    Otherwise a late request with a used id would clear the successor's cookie.
    """
    for method, other in (("validate", "validate_user"), ("validate_user", "validate")):
        exchange = Exchange("0" * 40)
        store.calls.clear()
        request = auth.handle_request(exchange.context)
        assert await getattr(request, method)() is None
        reads = len(store.calls)
        assert await getattr(request, other)() is None
        assert len(store.calls) == reads
        assert (exchange.cookies, exchange.headers) == ([], {"vary": "Cookie"})


async def test_a_session_whose_user_is_gone_has_no_user(
    auth: AsyncAuth[User], store: AsyncWatchedStore, session: Session
) -> None:
    """If the user is deleted, ``validate_user`` returns None and clears no cookie."""
    await store.delete_user(session.user_id)
    exchange = Exchange(session.session_id)
    assert await auth.handle_request(exchange.context).validate_user() is None
    request = auth.handle_request(exchange.context)
    assert await request.validate() == as_read(session)
    assert await request.validate_user() is None
    assert exchange.cookies == []


@pytest.mark.parametrize("method", ["validate", "validate_user"])
@pytest.mark.parametrize("failing", ["get_session", "renew_session"])
async def test_a_store_that_fails_logs_nobody_out(
    auth: AsyncAuth[User],
    store: AsyncWatchedStore,
    time: Time,
    session: Session,
    method: str,
    failing: str,
) -> None:
    """A store's error is raised unchanged, without a Set-Cookie, and is not cached.

    The same cookie works once the store is back.
    """
    time.advance(IDLE)
    exchange = Exchange(session.session_id)
    request = auth.handle_request(exchange.context)
    error = StoreDownError("down")
    store.failing = {failing: error, "get_session_and_user_by_session_id": error}
    with pytest.raises(StoreDownError) as caught:
        await getattr(request, method)()
    assert caught.value is error
    assert (exchange.cookies, exchange.headers) == ([], {"vary": "Cookie"})
    store.failing = {}
    assert await getattr(request, method)() is not None
    assert len(exchange.cookies) == 1


async def test_a_failing_user_store_keeps_the_validated_session(
    auth: AsyncAuth[User], store: AsyncWatchedStore, session: Session
) -> None:
    """An error from the user store is not cached as "no user"."""
    request = auth.handle_request(Exchange(session.session_id).context)
    await request.validate()
    store.failing = {"get_user": StoreDownError("down")}
    with pytest.raises(StoreDownError):
        await request.validate_user()
    store.failing = {}
    assert await request.validate_user() is not None


# --- Sign-in and sign-out


@pytest.mark.parametrize("by_key", [False, True])
async def test_signing_in_sets_the_cookie_of_a_new_session(
    auth: AsyncAuth[User], store: AsyncWatchedStore, user_id: str, *, by_key: bool
) -> None:
    """A sign-in creates a session with metadata and sets its cookie; ``validate`` returns it."""
    exchange = Exchange()
    request = auth.handle_request(exchange.context)
    if by_key:
        session = await request.sign_in_with_key(
            "username", "alice", PASSWORD, user_agent="Firefox", auth=1, self=2, session=3
        )
    else:
        session = await request.sign_in(user_id, user_agent="Firefox", auth=1, self=2, session=3)
    assert (session.user_id, session.fresh, session.state) == (user_id, True, "active")
    assert session.metadata == {"user_agent": "Firefox", "auth": 1, "self": 2, "session": 3}
    (cookie,) = exchange.cookies
    assert (cookie.value, cookie.expires) == (session.session_id, session.idle_period_expires_at)
    assert exchange.headers == {"cache-control": "no-store", "vary": "Cookie"}
    store.calls.clear()
    assert await request.validate() == session
    assert await request.validate_user() == SessionUser(session, User(user_id))
    assert store.calls == ["get_user"]


@pytest.mark.parametrize("validated", [False, True])
@pytest.mark.parametrize("idle", [False, True])
async def test_sign_in_revokes_the_requests_session(
    auth: AsyncAuth[User],
    store: AsyncWatchedStore,
    time: Time,
    session: Session,
    *,
    validated: bool,
    idle: bool,
) -> None:
    """A sign-in creates a new id and revokes the request's session, validated or not."""
    if idle:
        time.advance(IDLE)
    request = auth.handle_request(Exchange(session.session_id).context)
    if validated:
        await request.validate_user()
    new = await request.sign_in(session.user_id)
    assert new.session_id != session.session_id
    assert new.handle != session.handle
    assert [row.id for row in await store.get_sessions_by_user_id(session.user_id)] == [
        new.session_id
    ]


async def test_signing_in_as_somebody_else_ends_the_session_before(
    auth: AsyncAuth[User], session: Session
) -> None:
    """A sign-in as another user revokes the request's session."""
    request = auth.handle_request(Exchange(session.session_id).context)
    await request.validate_user()
    new = await request.sign_in("other")
    assert not await is_alive(auth, session)
    assert await request.validate() == new


async def test_an_id_is_never_adopted_from_a_request(
    auth: AsyncAuth[User], store: AsyncWatchedStore, user_id: str
) -> None:
    """A planted id is never used for a new session."""
    planted = "A" * 40
    exchange = Exchange(planted)
    request = auth.handle_request(exchange.context)
    assert await request.validate() is None
    session = await request.sign_in_with_key("username", "alice", PASSWORD)
    assert session.session_id != planted
    assert exchange.values == [session.session_id]
    assert await store.get_session(planted) is None


async def test_a_failed_login_changes_nothing(auth: AsyncAuth[User], session: Session) -> None:
    """A wrong password leaves the request's session and its cookie unchanged."""
    exchange = Exchange(session.session_id)
    request = auth.handle_request(exchange.context)
    with pytest.raises(InvalidPassword):
        await request.sign_in_with_key("username", "alice", "wrong")
    assert exchange.cookies == []
    assert await request.validate() == as_read(session)


@pytest.mark.parametrize("failing", ["set_session", "delete_session"])
async def test_a_login_that_the_store_fails_sets_no_cookie(
    auth: AsyncAuth[User], store: AsyncWatchedStore, session: Session, failing: str
) -> None:
    """If the store fails during a sign-in, no cookie is set, and the old session stays."""
    exchange = Exchange(session.session_id)
    request = auth.handle_request(exchange.context)
    store.failing = {failing: StoreDownError("down")}
    with pytest.raises(StoreDownError):
        await request.sign_in(session.user_id)
    store.failing = {}
    assert exchange.cookies == []
    assert await request.validate() == as_read(session)


async def test_signing_out(
    auth: AsyncAuth[User], store: AsyncWatchedStore, session: Session
) -> None:
    """A sign-out revokes the session and clears the cookie; later calls do not ask the store."""
    exchange = Exchange(session.session_id)
    request = auth.handle_request(exchange.context)
    await request.sign_out()
    (cookie,) = exchange.cookies
    assert (cookie.value, cookie.expires.timestamp()) == ("", 0)
    assert exchange.headers == {"cache-control": "no-store", "vary": "Cookie"}
    assert not await is_alive(auth, session)
    store.calls.clear()
    assert await request.validate() is None
    assert await request.validate_user() is None
    assert store.calls == []


async def test_signing_out_with_a_used_id_ends_the_successor(
    auth: AsyncAuth[User], time: Time, session: Session
) -> None:
    """A sign-out with a used id revokes the successor, validated before or not."""
    time.advance(IDLE)
    successor = await auth.validate_session(session.session_id)
    await auth.handle_request(Exchange(session.session_id).context).sign_out()
    assert not await is_alive(auth, successor)
    other = await auth.create_session(session.user_id)
    time.advance(IDLE)
    request = auth.handle_request(Exchange(other.session_id).context)
    renewed = await request.validate()
    assert renewed is not None
    time.advance(timedelta(minutes=2))
    await request.sign_out()
    assert not await is_alive(auth, renewed)


async def test_signing_out_during_a_validation_ends_what_it_renews(
    auth: AsyncAuth[User], store: AsyncWatchedStore, time: Time, session: Session
) -> None:
    """Concurrent with a validation, a sign-out leaves no session, and its cookie comes last."""
    for _ in range(5):
        current = await auth.create_session(session.user_id)
        time.advance(IDLE)
        exchange = Exchange(current.session_id)
        request = auth.handle_request(exchange.context)
        store.after["renew_session"] = partial(AsyncPause.seconds, 0.02)
        await AsyncRacingCalls.gather_results(
            request.validate, request.sign_out, request.validate_user
        )
        assert exchange.values[-1] == ""
        assert await request.validate() is None
        assert current.handle not in [
            device.handle for device in await auth.get_all_user_sessions(session.user_id)
        ]


async def test_signing_in_during_a_validation_leaves_one_session(
    auth: AsyncAuth[User], store: AsyncWatchedStore, time: Time, session: Session
) -> None:
    """Concurrent with a validation, a sign-in leaves one session and sets the last cookie."""
    time.advance(IDLE)
    exchange = Exchange(session.session_id)
    request = auth.handle_request(exchange.context)
    store.after["renew_session"] = partial(AsyncPause.seconds, 0.05)
    await AsyncRacingCalls.gather_results(
        request.validate, partial(request.sign_in, session.user_id)
    )
    found = await request.validate()
    assert found is not None
    assert found.handle != session.handle
    assert exchange.values[-1] == found.session_id
    assert [row.id for row in await store.get_sessions_by_user_id(session.user_id)] == [
        found.session_id
    ]


async def test_a_visitors_sign_out_is_no_error(
    auth: AsyncAuth[User], store: AsyncWatchedStore
) -> None:
    """A sign-out without a cookie sets none; a malformed or unknown one is cleared."""
    for value, values in ((None, []), ("malformed", [""]), ("0" * 40, [""])):
        exchange = Exchange(value)
        request = auth.handle_request(exchange.context)
        await request.sign_out()
        assert exchange.values == values
    assert store.calls == ["delete_session"]


async def test_signing_out_after_the_response_has_started_ends_the_session(
    auth: AsyncAuth[User], session: Session
) -> None:
    """After the response has started, a sign-out still revokes the session."""
    exchange = Exchange(session.session_id)
    exchange.started = True
    await auth.handle_request(exchange.context).sign_out()
    assert exchange.cookies == []
    assert not await is_alive(auth, session)


async def test_a_sign_out_that_the_store_fails_clears_nothing(
    auth: AsyncAuth[User], store: AsyncWatchedStore, session: Session
) -> None:
    """If the session can't be revoked, the cookie stays, so that the user can retry."""
    exchange = Exchange(session.session_id)
    request = auth.handle_request(exchange.context)
    store.failing = {"delete_session": StoreDownError("down")}
    with pytest.raises(StoreDownError):
        await request.sign_out()
    assert exchange.cookies == []
    store.failing = {}
    await request.sign_out()
    assert exchange.values == [""]


@pytest.mark.parametrize("validated", [False, True])
@pytest.mark.parametrize("idle", [False, True])
async def test_a_request_renews_its_session(
    auth: AsyncAuth[User],
    store: AsyncWatchedStore,
    time: Time,
    session: Session,
    *,
    validated: bool,
    idle: bool,
) -> None:
    """``renew`` replaces an active or idle session and sets its cookie; ``validate`` returns it."""
    if idle:
        time.advance(IDLE)
    exchange = Exchange(session.session_id)
    request = auth.handle_request(exchange.context)
    if validated:
        await request.validate_user()
    renewed = await request.renew()
    assert renewed is not None
    assert (renewed.handle, renewed.state, renewed.fresh) == (session.handle, "active", True)
    assert renewed.session_id != session.session_id
    assert exchange.values[-1] == renewed.session_id
    assert await request.validate() == renewed
    assert await request.validate_user() == SessionUser(renewed, User(session.user_id))
    assert [row.id for row in await store.get_sessions_by_user_id(session.user_id)] == [
        renewed.session_id
    ]


@pytest.mark.parametrize("value", [None, "malformed", "0" * 40])
async def test_a_visitor_has_nothing_to_renew(auth: AsyncAuth[User], value: str | None) -> None:
    """Without a live session, ``renew`` returns None and does not change the cookie."""
    exchange = Exchange(value)
    assert await auth.handle_request(exchange.context).renew() is None
    assert (exchange.cookies, exchange.headers) == ([], {"vary": "Cookie"})


async def test_a_bearer_renews_by_asking_for_it(
    auth: AsyncAuth[User], time: Time, session: Session
) -> None:
    """With a bearer token, ``renew`` returns the new session and sets no cookie."""
    time.advance(IDLE)
    request, exchange = bearer(auth, f"Bearer {session.session_id}")
    renewed = await request.renew()
    assert (renewed.state, renewed.handle) == ("active", session.handle)
    assert await request.validate() == renewed
    assert exchange.cookies == []


async def test_signing_in_and_out_in_one_request(auth: AsyncAuth[User], session: Session) -> None:
    """The last call decides: a sign-out after a sign-in clears the cookie."""
    exchange = Exchange()
    request = auth.handle_request(exchange.context)
    new = await request.sign_in(session.user_id)
    await request.sign_out()
    assert exchange.values == [new.session_id, ""]
    assert not await is_alive(auth, new)
    again = await request.sign_in(session.user_id)
    assert exchange.values[-1] == again.session_id
    assert await request.validate() == again


async def test_set_session(
    auth: AsyncAuth[User], store: AsyncWatchedStore, session: Session
) -> None:
    """``set_session`` sets or clears the cookie, and resets what was validated.

    It does not change any session.
    """
    other = await auth.create_session(session.user_id)
    exchange = Exchange(session.session_id)
    request = auth.handle_request(exchange.context)
    await request.validate_user()
    request.set_session(other)
    assert exchange.values == [other.session_id]
    validated = await request.validate_user()
    assert validated is not None
    assert validated.session == as_read(other)
    request.set_session(None)
    assert exchange.values == [other.session_id, ""]
    store.calls.clear()
    assert await request.validate() is None
    assert await request.validate_user() is None
    assert store.calls == []
    assert await is_alive(auth, session)
    assert await is_alive(auth, other)


@pytest.mark.parametrize("is_idle", [False, True], ids=["active", "idle"])
@pytest.mark.parametrize("kind", ["session", "none"])
@pytest.mark.parametrize("method", ["validate", "validate_user"])
async def test_set_session_during_validation(
    auth: AsyncAuth[User],
    store: AsyncWatchedStore,
    time: Time,
    session: Session,
    method: str,
    kind: str,
    *,
    is_idle: bool,
) -> None:
    """``validate`` returns the session that ``set_session`` set while its own one was read."""
    if is_idle:
        time.advance(IDLE)
    other = await auth.create_session(session.user_id) if kind == "session" else None
    exchange = Exchange(session.session_id)
    request = auth.handle_request(exchange.context)

    async def set_other() -> None:
        request.set_session(other)

    reads = "get_session" if method == "validate" else "get_session_and_user_by_session_id"
    store.after["renew_session" if is_idle else reads] = set_other
    found = await getattr(request, method)()
    expected = None if other is None else as_read(other)
    assert (found.session if isinstance(found, SessionUser) else found) == expected
    assert exchange.values == ["" if other is None else other.session_id]
    assert await request.validate() == expected


async def test_set_session_while_the_user_is_read(
    auth: AsyncAuth[User], store: AsyncWatchedStore, session: Session
) -> None:
    """``validate_user`` returns the session that ``set_session`` set while the user was read."""
    other = await auth.create_session(session.user_id)
    request = auth.handle_request(Exchange(session.session_id).context)
    await request.validate()

    async def set_other() -> None:
        request.set_session(other)

    store.after["get_user"] = set_other
    assert await request.validate_user() == SessionUser(as_read(other), User(session.user_id))


async def test_set_session_takes_a_session(auth: AsyncAuth[User], session: Session) -> None:
    """An id instead of a session is a TypeError, and nothing is changed."""
    exchange = Exchange(session.session_id)
    request = auth.handle_request(exchange.context)
    wrong: Any = session.session_id
    with pytest.raises(TypeError, match=r"\Asession must be a Session or None, not str\Z"):
        request.set_session(wrong)
    assert (exchange.cookies, exchange.headers) == ([], {})
    assert await request.validate() == as_read(session)


@pytest.mark.parametrize("by_key", [False, True])
async def test_no_login_where_no_cookie_can_be_set(
    auth: AsyncAuth[User], store: AsyncWatchedStore, session: Session, *, by_key: bool
) -> None:
    """After the response has started, a sign-in and ``set_session`` raise before any store call."""
    exchange = Exchange()
    exchange.started = True
    request = auth.handle_request(exchange.context)
    with_key: Callable[[], Any] = partial(request.sign_in_with_key, "username", "alice", PASSWORD)
    call = with_key if by_key else partial(request.sign_in, session.user_id)
    for refused in (call, request.renew):
        with pytest.raises(RuntimeError, match="response has started"):
            await refused()
    with pytest.raises(RuntimeError, match="response has started"):
        request.set_session(session)
    assert (store.calls, exchange.cookies) == ([], [])


async def test_response_that_starts_during_a_sign_in(
    auth: AsyncAuth[User], store: AsyncWatchedStore, session: Session
) -> None:
    """If the response starts while the new session is stored, the request keeps its session."""
    exchange = Exchange(session.session_id)
    request = auth.handle_request(exchange.context)

    async def start() -> None:
        exchange.started = True

    store.after["set_session"] = start
    with pytest.raises(RuntimeError, match="response has started"):
        await request.sign_in(session.user_id)
    assert await is_alive(auth, session)
    assert exchange.cookies == []


# --- The origin check


@pytest.mark.parametrize("origin", [EVIL, "null", None, ""])
async def test_a_request_from_another_site_is_a_visitors_and_changes_nothing(
    auth: AsyncAuth[User],
    store: AsyncWatchedStore,
    session: Session,
    caplog: pytest.LogCaptureFixture,
    origin: str | None,
) -> None:
    """A cross-site request is not logged in, and its sign-in and sign-out are InvalidRequest.

    The reason is in the log and in ``origin_failure``.
    """
    exchange = Exchange(session.session_id, origin=origin)
    with caplog.at_level(logging.WARNING, "lucia"):
        request = auth.handle_request(exchange.context)
    assert await request.validate() is None
    assert await request.validate_user() is None
    calls: list[Callable[[], Any]] = [
        partial(request.sign_in, session.user_id),
        partial(request.sign_in_with_key, "username", "alice", PASSWORD),
        request.renew,
        request.sign_out,
    ]
    for call in calls:
        with pytest.raises(InvalidRequest, match=OWN_ORIGIN):
            await call()
    for value in (session, None):
        with pytest.raises(InvalidRequest, match=OWN_ORIGIN):
            request.set_session(value)
    assert (store.calls, exchange.cookies) == ([], [])
    assert request.origin_failure is not None
    assert request.origin_failure.expected == OWN_ORIGIN
    assert str(request.origin_failure) in caplog.text


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
async def test_reading_needs_no_origin(
    auth: AsyncAuth[User], session: Session, method: str
) -> None:
    """Safe methods are allowed from any origin."""
    request = auth.handle_request(Exchange(session.session_id, method=method, origin=EVIL).context)
    assert request.origin_failure is None
    assert await request.validate() is not None


async def test_a_websockets_handshake_is_checked(auth: AsyncAuth[User], session: Session) -> None:
    """A WebSocket handshake is checked, although it is a GET: it would use the user's cookie."""
    for origin, passes in ((OWN_ORIGIN, True), (EVIL, False)):
        exchange = Exchange(session.session_id, method="GET", origin=origin, is_websocket=True)
        assert (await auth.handle_request(exchange.context).validate() is not None) is passes


async def test_configured_origins_and_no_check(
    store: AsyncWatchedStore, time: Time, session: Session
) -> None:
    """``origin=`` allows other origins, and ``csrf_protection=False`` all of them."""
    exchange = Exchange(session.session_id, origin=EVIL)
    for config in ({"origin": [EVIL]}, {"csrf_protection": False}):
        auth = make_auth(store, time, **config)
        assert auth.parse_request_headers(exchange.context) == session.session_id
        assert await auth.handle_request(exchange.context).validate() is not None
    with pytest.raises(TypeError, match="origin must be a list"):
        make_auth(store, time, origin=EVIL)


async def test_parse_request_headers(auth: AsyncAuth[User], session: Session) -> None:
    """``parse_request_headers`` returns the cookie's value.

    A cross-site request is InvalidRequest.
    """
    assert auth.parse_request_headers(Exchange(session.session_id).context) == session.session_id
    assert auth.parse_request_headers(Exchange("malformed").context) == "malformed"
    assert auth.parse_request_headers(Exchange().context) is None
    with pytest.raises(InvalidRequest, match=EVIL):
        auth.parse_request_headers(Exchange(session.session_id, origin=EVIL).context)


# --- Bearer tokens


def bearer(auth: AsyncAuth[User], *headers: str, cookie: str | None = None) -> tuple[Any, Exchange]:
    """Return a request from another origin with these Authorization headers."""
    exchange = Exchange(cookie, origin=EVIL, authorization=headers)
    return auth.handle_request(exchange.context, "bearer"), exchange


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
async def test_the_id_from_the_authorization_header(
    auth: AsyncAuth[User], session: Session, scheme: str
) -> None:
    """A bearer token is accepted from any origin, and sets no cookie."""
    request, exchange = bearer(auth, f"{scheme}  {session.session_id} ")
    assert request.origin_failure is None
    assert await request.validate() == as_read(session)
    assert await request.validate_user() == SessionUser(as_read(session), User(session.user_id))
    assert (exchange.cookies, exchange.headers) == ([], {"vary": "Authorization"})


async def test_a_bearers_session_is_not_renewed(
    auth: AsyncAuth[User], store: AsyncWatchedStore, time: Time, session: Session
) -> None:
    """A bearer's idle session is not renewed: the client would not learn the new id."""
    time.advance(IDLE)
    request, exchange = bearer(auth, f"Bearer {session.session_id}")
    assert (await request.validate()).state == "idle"
    assert (await request.validate_user()).session.session_id == session.session_id
    assert "renew_session" not in store.calls
    assert exchange.cookies == []


async def test_transports_are_not_mixed(
    auth: AsyncAuth[User], store: AsyncWatchedStore, session: Session
) -> None:
    """By default no bearer token is read, and with ``bearer`` no cookie."""
    by_default = auth.handle_request(
        Exchange(authorization=[f"Bearer {session.session_id}"]).context
    )
    by_bearer, _ = bearer(auth, cookie=session.session_id)
    for request in (by_default, by_bearer):
        assert await request.validate() is None
    assert store.calls == []


@pytest.mark.parametrize(
    "header",
    ["", "Bearer", "Bearer ", "Basic {}", "{}", "Bearer {} {}", "Bearer\t{}", "Bearer: {}"],
)
async def test_malformed_authorization_header_is_no_token(
    auth: AsyncAuth[User], store: AsyncWatchedStore, session: Session, header: str
) -> None:
    """Other schemes and malformed headers are ignored, and the store is not asked."""
    request, _ = bearer(auth, header.replace("{}", session.session_id))
    assert await request.validate() is None
    assert store.calls == []


async def test_two_authorization_headers_are_none(auth: AsyncAuth[User], session: Session) -> None:
    """With two Authorization headers, neither is used."""
    request, _ = bearer(auth, *[f"Bearer {session.session_id}"] * 2)
    assert await request.validate() is None


async def test_signing_in_and_out_by_bearer(auth: AsyncAuth[User], session: Session) -> None:
    """A sign-in with a bearer token revokes its session; no cookie is ever set."""
    request, exchange = bearer(auth, f"Bearer {session.session_id}")
    exchange.started = True
    new = await request.sign_in_with_key("username", "alice", PASSWORD)
    assert not await is_alive(auth, session)
    assert await request.validate() == new
    request.set_session(new)
    await request.sign_out()
    assert not await is_alive(auth, new)
    assert (exchange.cookies, exchange.headers) == ([], {})


async def test_both_transports(auth: AsyncAuth[User], session: Session) -> None:
    """With both, a bearer token decides over the cookie, and other schemes are ignored."""
    for header, cookie, user_id, uses_cookies in (
        (f"Bearer {session.session_id}", None, session.user_id, False),
        (None, session.session_id, session.user_id, True),
        ("Basic abc", session.session_id, session.user_id, True),
        ("Bearer wrong", session.session_id, None, False),
    ):
        authorization = [] if header is None else [header]
        exchange = Exchange(cookie, origin=None, method="GET", authorization=authorization)
        request = auth.handle_request(exchange.context, "both")
        found = await request.validate()
        assert (found and found.user_id, request.uses_cookies) == (user_id, uses_cookies)


async def test_another_transport_for_the_same_request(
    auth: AsyncAuth[User], session: Session
) -> None:
    """A request can issue a token although it came with a cookie, and sets no cookie then."""
    exchange = Exchange(session.session_id, address="203.0.113.9")
    request = auth.handle_request(exchange.context)
    assert request.client_address == "203.0.113.9"
    token = await request.with_transport("bearer").sign_in("alice")
    assert exchange.cookies == []
    assert await is_alive(auth, session)
    assert await is_alive(auth, token)


async def test_a_secure_cookie_by_plain_http(
    store: AsyncWatchedStore, caplog: pytest.LogCaptureFixture
) -> None:
    """A Secure cookie that the browser will drop is logged once, with what to do."""
    production: AsyncAuth[User] = AsyncAuth(sessions=store, env="PROD")
    for _ in range(2):
        await production.handle_request(Exchange().context).sign_in("alice")
    (record,) = [each for each in caplog.records if "Secure" in each.getMessage()]
    assert record.levelname == "WARNING"
    assert "env='DEV'" in record.getMessage()
    assert "X-Forwarded-Proto" in record.getMessage()


def test_an_unknown_transport_is_refused(auth: AsyncAuth[User]) -> None:
    """An unknown transport is a ValueError with the names of all."""
    transport: Any = "header"
    with pytest.raises(ValueError, match="'cookie', 'bearer' or 'both'"):
        auth.handle_request(Exchange().context, transport)


def test_a_requests_repr(auth: AsyncAuth[User], session: Session) -> None:
    """The repr of a request has its method and transport, and nothing else."""
    name = type(auth.handle_request(Exchange().context)).__name__
    assert (
        repr(auth.handle_request(Exchange(session.session_id).context)) == f"<{name} POST cookie>"
    )
    assert repr(bearer(auth, f"Bearer {session.session_id}")[0]) == f"<{name} POST bearer>"


async def test_renew_by_bearer(auth: AsyncAuth[User], session: Session) -> None:
    """A bearer renews its session on demand and keeps its login; no cookie is set."""
    request, exchange = bearer(auth, f"Bearer {session.session_id}")
    renewed = await request.renew()
    assert renewed is not None
    assert (renewed.handle, renewed.session_id != session.session_id) == (session.handle, True)
    assert await request.validate() == renewed
    assert (exchange.cookies, exchange.headers) == ([], {"vary": "Authorization"})


async def test_renew_by_cookie(auth: AsyncAuth[User], session: Session) -> None:
    """An active session is renewed on demand, and its cookie is set."""
    exchange = Exchange(session.session_id)
    renewed = await auth.handle_request(exchange.context).renew()
    assert renewed is not None
    assert [cookie.value for cookie in exchange.cookies] == [renewed.session_id]


async def test_renew_for_a_visitor(auth: AsyncAuth[User]) -> None:
    """Without a session, or with an unknown one, nothing is renewed and no cookie is set."""
    for exchange in (Exchange(), Exchange("0" * 40)):
        assert await auth.handle_request(exchange.context).renew() is None
        assert exchange.cookies == []


async def test_renew_checks_the_origin_and_the_response(
    auth: AsyncAuth[User], session: Session
) -> None:
    """A cross-site request, or one whose response has started, renews nothing."""
    with pytest.raises(InvalidRequest):
        await auth.handle_request(Exchange(session.session_id, origin=EVIL).context).renew()
    late = Exchange(session.session_id)
    late.started = True
    with pytest.raises(RuntimeError, match="has started"):
        await auth.handle_request(late.context).renew()
    assert (await auth.get_session(session.session_id)).session_id == session.session_id
