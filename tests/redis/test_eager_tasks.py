"""Event loops whose task factory starts tasks at once (Python 3.12)."""

import asyncio
import sys
from collections.abc import Coroutine
from datetime import timedelta
from typing import Any

import pytest
from redis.asyncio import Redis

from lucia import AsyncAuth, InvalidSessionId, Session
from lucia.adapters.redis import AsyncRedisSessionAdapter
from tools.servers import Server

pytestmark = pytest.mark.skipif(
    sys.version_info < (3, 12), reason="eager tasks came with Python 3.12"
)

MANY = 600
"""More requests than fit into one batch."""


def run_eagerly(main: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine in an event loop that starts tasks at once."""

    async def run() -> None:
        factory: Any = vars(asyncio)["eager_task_factory"]
        asyncio.get_running_loop().set_task_factory(factory)
        async with asyncio.timeout(60):
            await main

    asyncio.run(run())


@pytest.mark.parametrize("near_cache", [None, timedelta(seconds=1)])
def test_many_requests_at_once(redis_server: Server, near_cache: timedelta | None) -> None:
    """Logins, reads, renewals and revocations are all answered."""

    async def use() -> None:
        async with (
            Redis(port=redis_server.port) as client,
            AsyncRedisSessionAdapter(client, near_cache=near_cache) as sessions,
        ):
            auth = AsyncAuth(sessions=sessions, env="DEV")
            users = [f"eager-{number}" for number in range(MANY)]
            made = await asyncio.gather(*(auth.create_session(user) for user in users))
            found = await asyncio.gather(*(auth.validate_session(each.session_id) for each in made))
            assert [session.user_id for session in found] == users
            renewed = await asyncio.gather(*(auth.renew_session(each.session_id) for each in made))
            assert all(session.fresh for session in renewed)
            await asyncio.gather(*(auth.invalidate_all_user_sessions(user) for user in users))
            gone = await asyncio.gather(
                *(auth.validate_session(each.session_id) for each in renewed),
                return_exceptions=True,
            )
            assert {type(error).__name__ for error in gone} == {"InvalidSessionId"}

    run_eagerly(use())


def test_reads_that_are_repeated(redis_server: Server) -> None:
    """A read whose key has another session's record is repeated, in a task of its own."""

    async def use() -> None:
        async with (
            Redis(port=redis_server.port) as client,
            AsyncRedisSessionAdapter(client) as sessions,
        ):
            auth = AsyncAuth(sessions=sessions, env="DEV")
            one, other = [await auth.create_session("eager") for _ in range(2)]
            await auth.validate_session(one.session_id)
            await client.copy(
                f"session:{one.session_id}", f"session:{other.session_id}", replace=True
            )
            found, error = await asyncio.gather(
                auth.validate_session(one.session_id),
                auth.validate_session(other.session_id),
                return_exceptions=True,
            )
            assert isinstance(found, Session)
            assert isinstance(error, InvalidSessionId), error

    run_eagerly(use())
