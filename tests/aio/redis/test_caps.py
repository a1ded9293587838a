"""Concurrent logins with a limit, on servers where one script sees all keys."""

from collections.abc import Iterator
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from redis.asyncio import Redis

from lucia import AsyncAuth, InvalidSessionId, Session
from lucia._redis.keys import Layout
from lucia._testing.racing_calls import AsyncRacingCalls
from lucia.adapters.redis import AsyncRedisSessionAdapter
from tests.aio.support.rendezvous import AsyncRendezvousDriver
from tests.model.controls import RevokesThenCreates
from tests.support.redis_inspectors import DEFAULT, Inspector, counting_sessions
from tools.servers import Server

pytestmark = pytest.mark.parametrize("decode_responses", [False], ids=["bytes"])


@pytest.fixture
def inspector(server: Server) -> Iterator[Inspector]:
    """Yield an inspector of the emptied server."""
    with Inspector(server) as found:
        yield found


@pytest.fixture
def adapter(inspector: Inspector, redis_client: Redis) -> AsyncRedisSessionAdapter:
    """Return an adapter with a long deadline, for many concurrent calls on a busy machine."""
    return AsyncRedisSessionAdapter(redis_client, deadline=timedelta(seconds=30))


async def log_in(auth: AsyncAuth[Any], count: int) -> list[Session]:
    """Run concurrent logins of one user, and return their sessions."""
    found = [
        each
        for each in await AsyncRacingCalls.gather_results(
            *[partial(auth.create_session, "u1")] * count
        )
        if isinstance(each, Session)
    ]
    assert len(found) == count
    return found


async def alive(auth: AsyncAuth[Any], session: Session) -> bool:
    """Return whether a session is valid."""
    try:
        await auth.get_session(session.session_id)
    except InvalidSessionId:
        return False
    return True


async def test_fifty_logins_at_once(
    adapter: AsyncRedisSessionAdapter, inspector: Inspector, server: Server
) -> None:
    """50 concurrent logins with a limit of 5 leave exactly 5, and never more exist."""
    auth = AsyncAuth(sessions=adapter, env="DEV", max_sessions_per_user=5)
    before = [await auth.create_session("u1") for _ in range(5)]
    with counting_sessions(server) as seen:
        sessions = await log_in(auth, 50)
    assert (min(seen), max(seen)) == (5, 5)
    assert len(seen) > 5
    assert sum([await alive(auth, each) for each in sessions]) == 5
    assert not any([await alive(auth, each) for each in before])
    assert len(inspector.index()) == 5
    inspector.check()


async def test_control_unchecked_script_exceeds_cap(
    redis_client: Redis, adapter: AsyncRedisSessionAdapter, inspector: Inspector
) -> None:
    """Control: without the comparison in the script, the same logins leave more than the limit."""
    adapter._store, adapter._driver = (
        RevokesThenCreates(DEFAULT),
        AsyncRendezvousDriver(redis_client, 50),
    )
    auth = AsyncAuth(sessions=adapter, env="DEV", max_sessions_per_user=5)
    await log_in(auth, 50)
    assert len(inspector.live()) > 5


async def test_fifty_logins_over_a_set(redis_client: Redis, server: Server) -> None:
    """The limit holds if the index is a set too."""
    layout = Layout.from_namespaces(None, "lucia-v2")
    auth = AsyncAuth(
        sessions=AsyncRedisSessionAdapter(redis_client, layout="lucia-v2"),
        env="DEV",
        max_sessions_per_user=5,
    )
    with counting_sessions(server, layout) as seen:
        sessions = await log_in(auth, 50)
    assert max(seen) <= 5
    assert sum([await alive(auth, each) for each in sessions]) == 5
    assert await redis_client.scard("user_sessions:u1") == 5


async def test_renewals_during_capped_logins(
    adapter: AsyncRedisSessionAdapter, inspector: Inspector, server: Server
) -> None:
    """Concurrent renewals and logins never exceed the limit; each login has one session."""
    auth = AsyncAuth(sessions=adapter, env="DEV", max_sessions_per_user=5)
    sessions = await log_in(auth, 5)
    with counting_sessions(server) as seen:
        for _ in range(5):
            renewals = [
                partial(auth.renew_session, each.session_id) for each in sessions for _ in range(2)
            ]
            logins = [partial(auth.create_session, "u1")] * 3
            outcomes = await AsyncRacingCalls.gather_results(*renewals, *logins, *renewals)
            assert all(isinstance(outcome, Session | InvalidSessionId) for outcome in outcomes)
            found = {each.session_id: each for each in outcomes if isinstance(each, Session)}
            sessions = [each for each in found.values() if await alive(auth, each)]
            assert (
                len(sessions)
                == len({each.handle for each in sessions})
                == len(inspector.live())
                == 5
            )
    assert max(seen) == 5
    inspector.check()
