"""Creating, renewing and revoking sessions on one server, also concurrently."""

from functools import partial

import pytest

from lucia._redis.records import MAX_RECORD_BYTES
from lucia._testing.racing_calls import AsyncRacingCalls
from lucia.adapters.redis import AsyncRedisSessionAdapter
from lucia.errors import DuplicateSessionId
from tests.aio.support.redis_calls import MINUTE, add, one_reply_type, renew
from tests.support.redis_inspectors import Inspector
from tests.support.sessions import HOUR, row
from tools.servers import until

pytestmark = pytest.mark.no_cover


async def test_same_id_twice(adapter: AsyncRedisSessionAdapter, inspector: Inspector) -> None:
    """A taken id is refused without any change; storing the very same session again is no error."""
    session = row("one", handle="h")
    await adapter.set_session(session)
    await add(adapter, "two")
    before = inspector.census()
    for other in (row("one"), row("one", "u2"), row("one", life=2 * HOUR, handle="h")):
        with pytest.raises(DuplicateSessionId):
            await adapter.set_session(other)
    with pytest.raises(DuplicateSessionId):
        await adapter.renew_session("two", session, grace=MINUTE)
    with pytest.raises(DuplicateSessionId):
        await adapter.renew_session("two", row("two"), grace=MINUTE)
    assert inspector.census() == before
    await adapter.set_session(session)
    assert inspector.index() == ["one", "two"]
    inspector.check()


async def test_same_call_at_once(adapter: AsyncRedisSessionAdapter, inspector: Inspector) -> None:
    """Concurrent calls that store the same session store it once.

    Of different sessions with one id, one is stored.
    """
    session = row("same")
    assert (
        await AsyncRacingCalls.gather_results(*[partial(adapter.set_session, session)] * 10)
        == [None] * 10
    )
    outcomes = await AsyncRacingCalls.gather_results(
        *(partial(adapter.set_session, row("one", handle=number)) for number in range(10))
    )
    assert outcomes.count(None) == 1
    assert sum(isinstance(outcome, DuplicateSessionId) for outcome in outcomes) == 9
    inspector.check()


async def test_too_long(adapter: AsyncRedisSessionAdapter, inspector: Inspector) -> None:
    """A record of more than 16 KiB is refused, also of a successor, and nothing is stored."""
    await add(adapter, "used")
    before = inspector.census()
    with pytest.raises(ValueError, match="16384"):
        await adapter.set_session(row("long", metadata="x" * MAX_RECORD_BYTES))
    with pytest.raises(ValueError, match="16384"):
        await adapter.renew_session("used", row("long", metadata="x" * MAX_RECORD_BYTES), grace=0)
    assert inspector.census() == before


@pytest.mark.parametrize("grace", [0, MINUTE])
async def test_renewals_at_once(
    adapter: AsyncRedisSessionAdapter, inspector: Inspector, grace: int
) -> None:
    """Concurrent renewals store one successor: all calls get it within the grace, else one does."""
    await add(adapter, "used", "other")
    outcomes = await AsyncRacingCalls.gather_results(
        *(partial(renew, adapter, "used", f"new{number}", grace) for number in range(16))
    )
    (winner,) = inspector.live() - {"other"}
    assert outcomes.count(winner) == (16 if grace else 1)
    assert set(outcomes) == ({winner} if grace else {winner, None})
    assert await adapter.get_session("used") is None
    inspector.check()


async def test_lost_reply(adapter: AsyncRedisSessionAdapter, inspector: Inspector) -> None:
    """A renewal retried after a lost reply returns the same successor, even after the grace."""
    await add(adapter, "used")
    successor = row("new")
    for _ in range(3):
        assert await adapter.renew_session("used", successor, grace=1_000) == successor
        inspector.age("used", 2_000)
    assert await renew(adapter, "used", "later") is None
    assert inspector.live() == {"new"}
    inspector.check()


async def test_grace(adapter: AsyncRedisSessionAdapter, inspector: Inspector) -> None:
    """A used id has its successor until the grace ends by the server's clock.

    Revoking the used id later still revokes the successor.
    """
    await add(adapter, "used")
    await renew(adapter, "used", "new", 30_000)
    inspector.age("used", 25_000)
    assert await renew(adapter, "used", "other") == "new"
    assert await adapter.get_successor("used") == await adapter.get_session("new")
    inspector.age("used", 10_000)
    assert await renew(adapter, "used", "other") is None
    assert await adapter.get_successor("used") is None
    assert await adapter.delete_other_sessions("u2", "used") is False
    assert inspector.live() == {"new"}
    await adapter.delete_session("used")
    assert inspector.live() == set()
    inspector.check()


async def test_used_id_is_unknown_after_60_seconds(
    adapter: AsyncRedisSessionAdapter, inspector: Inspector
) -> None:
    """60 seconds after a renewal, the used id is unknown, and revoking it revokes nothing."""
    await add(adapter, "used")
    await renew(adapter, "used", "new")
    inspector.age("used", MINUTE)
    assert inspector.keys() == {"session:new", "userSession:u1"}
    assert await renew(adapter, "used", "other") is None
    await adapter.delete_session("used")
    assert inspector.live() == {"new"}


async def test_chain(adapter: AsyncRedisSessionAdapter, inspector: Inspector) -> None:
    """A used id has the live session as its successor while each renewal is within its grace.

    One renewal beyond its grace breaks the chain.
    """
    await add(adapter, "s0")
    for number in range(4):
        assert await renew(adapter, f"s{number}", f"s{number + 1}", 30_000) == f"s{number + 1}"
    for number in range(4):
        assert await renew(adapter, f"s{number}", "other") == "s4"
    inspector.age("s2", 31_000)
    assert [await adapter.get_successor(f"s{number}") is None for number in range(5)] == [
        True,
        True,
        True,
        False,
        True,
    ]
    await adapter.delete_session("s0")
    assert inspector.live() == set()
    inspector.check()


async def test_dead_session_is_not_renewed(
    adapter: AsyncRedisSessionAdapter, inspector: Inspector
) -> None:
    """An unknown, revoked or expired session can't be renewed, and nothing is stored."""
    await add(adapter, "ended")
    await adapter.delete_session("ended")
    await add(adapter, "dead", user_id="u2")
    inspector.client.pexpire("session:dead", 1)
    until(lambda: not inspector.live())
    before = inspector.census()
    for used_id in ("unknown", "ended", "dead"):
        assert await renew(adapter, used_id, "new") is None
        assert await adapter.get_successor(used_id) is None
    assert inspector.census() == before


async def test_delete_session_revokes_sessions_of_several_users(
    adapter: AsyncRedisSessionAdapter, inspector: Inspector
) -> None:
    """One call revokes sessions of several users.

    Unknown, repeated and used ids may be among them; it also may get no ids at all.
    """
    await add(adapter, "a1", "a2", "a3")
    await add(adapter, "b1", "b2", user_id="u2")
    await renew(adapter, "a2", "a4")
    await adapter.delete_session()
    await adapter.delete_session("a1", "unknown", "b1", "a2", "a2")
    assert inspector.live() == {"a3", "b2"}
    assert (inspector.index("u1"), inspector.index("u2")) == (["a3"], ["b2"])
    inspector.check()


async def test_last_session(adapter: AsyncRedisSessionAdapter, inspector: Inspector) -> None:
    """The index disappears with the user's last session."""
    await add(adapter, "one")
    await adapter.delete_session("one")
    assert inspector.keys() == set()


@one_reply_type
@pytest.mark.parametrize("keep", ["", "live", "renewed", "foreign", "unknown"])
@pytest.mark.parametrize("count", [0, 1, 1_000, 1_001, 5_500])
async def test_sign_out_everywhere(
    adapter: AsyncRedisSessionAdapter, inspector: Inspector, count: int, keep: str
) -> None:
    """Any number of sessions is revoked, except a live one of this user to keep.

    The sessions of other users stay.
    """
    inspector.fill("u1", count)
    await add(adapter, "live", "used")
    await renew(adapter, "used", "successor")
    await add(adapter, "foreign", user_id="u2")
    if keep:
        kept = await adapter.delete_other_sessions("u1", "used" if keep == "renewed" else keep)
        assert kept is (keep in {"live", "renewed"})
    else:
        await adapter.delete_sessions_by_user_id("u1")
    expected = {"live": {"live"}, "renewed": {"successor"}}.get(keep, set())
    assert inspector.live() == {"foreign"} | expected
    assert set(inspector.index()) == expected
    inspector.check()


async def test_sign_out_during_logins(
    adapter: AsyncRedisSessionAdapter, inspector: Inspector
) -> None:
    """Revoking all sessions during logins and renewals revokes every session from before.

    Each session that is left is in the index.
    """
    for turn in range(5):
        old = {f"{turn}-old{number}" for number in range(6)}
        await add(adapter, *sorted(old))
        await AsyncRacingCalls.gather_results(
            *(partial(adapter.set_session, row(f"{turn}-login{number}")) for number in range(10)),
            partial(adapter.delete_sessions_by_user_id, "u1"),
            *(
                partial(renew, adapter, f"{turn}-old{number}", f"{turn}-new{number}")
                for number in range(6)
            ),
        )
        assert {each for each in inspector.live() if "-login" not in each} == set()
        inspector.check()


async def test_keeping_during_renewals(
    adapter: AsyncRedisSessionAdapter, inspector: Inspector
) -> None:
    """If a session is renewed while it is kept, its one successor is kept."""
    for turn in range(5):
        await add(adapter, f"{turn}-kept", f"{turn}-other")
        await AsyncRacingCalls.gather_results(
            *(
                partial(renew, adapter, f"{turn}-kept", f"{turn}-new{number}")
                for number in range(4)
            ),
            partial(adapter.delete_other_sessions, "u1", f"{turn}-kept"),
        )
        (kept,) = inspector.live()
        assert kept.startswith(f"{turn}-new")
        assert inspector.index() == [kept]
        inspector.check()
