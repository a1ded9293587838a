"""Calls of a Redis session adapter, for tests on every kind of server."""

import traceback
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from lucia._async.stores.redis.driver import AsyncRedisDriver
from lucia._redis.commands import Command
from lucia._redis.records import encode_row
from lucia._rules.sessions import system_clock
from lucia.adapters.redis import AsyncRedisSessionAdapter
from lucia.errors import DuplicateSessionId
from lucia.models import SessionRow
from tests.support.redis_inspectors import Inspector
from tests.support.sessions import row

__all__ = [
    "MINUTE",
    "OTHER_SECRET",
    "REVOCATIONS",
    "SECRET",
    "WRITES",
    "add",
    "assert_hides_ids",
    "every_call",
    "forgetting_driver",
    "ids",
    "one_reply_type",
    "renew",
    "use_every_method",
]

MINUTE = 60_000

SECRET = "SecretSecretSecretSecretSecretSecretABCD"

OTHER_SECRET = "AnotherAnotherAnotherAnotherAnotherABCDE"


one_reply_type = pytest.mark.parametrize("decode_responses", [False], ids=["bytes"])


def ids(rows: list[SessionRow]) -> list[str]:
    """Return the ids of the sessions."""
    return [each.id for each in rows]


async def add(adapter: AsyncRedisSessionAdapter, *session_ids: str, user_id: str = "u1") -> None:
    """Store sessions of a user."""
    for session_id in session_ids:
        await adapter.set_session(row(session_id, user_id))


async def renew(
    adapter: AsyncRedisSessionAdapter, used_id: str, successor_id: str, grace: int = MINUTE
) -> str | None:
    """Renew a session of the user u1, and return the id of its successor."""
    found = await adapter.renew_session(used_id, row(successor_id), grace=grace)
    return None if found is None else found.id


async def use_every_method(adapter: AsyncRedisSessionAdapter, inspector: Inspector) -> None:
    """Call every method, with each kind of result that it may have."""
    first = row("sessión-1", "üser:{1}", handle="ü", metadata=[1, None])
    await adapter.set_session(first)
    await adapter.set_session(first)
    assert await adapter.get_session("sessión-1") == first
    assert await adapter.get_session("unknown") is None
    with pytest.raises(DuplicateSessionId):
        await adapter.set_session(row("sessión-1", "other"))
    for number in range(2, 18):
        await adapter.set_session(row(f"s{number}", "üser:{1}"))
    assert len(await adapter.get_sessions_by_user_id("üser:{1}")) == 17
    second = row("sessión-2", "üser:{1}")
    assert await adapter.renew_session("sessión-1", second, grace=MINUTE) == second
    assert await adapter.renew_session("sessión-1", row("late", "üser:{1}"), grace=MINUTE) == second
    assert await adapter.get_successor("sessión-1") == second
    assert await adapter.delete_other_sessions("üser:{1}", "sessión-1") is True
    assert await adapter.get_sessions_by_user_id("üser:{1}") == [second]
    inspector.client.set("session:original", encode_row(row("copy", "üser:{1}")), ex=60)
    assert await adapter.get_session("original") is None
    inspector.client.delete("session:original", "session:sessión-2")
    assert await adapter.get_sessions_by_user_id("üser:{1}") == []
    assert inspector.index("üser:{1}") == []
    await add(adapter, "a", "b", "c")
    await adapter.delete_session("a", "unknown")
    assert sorted(ids(await adapter.get_sessions_by_user_id("u1"))) == ["b", "c"]
    await adapter.delete_sessions_by_user_id("u1")
    await add(adapter, "d", "e")
    newest = await adapter.set_session_capped(row("f", created_at=system_clock()), limit=1)
    assert await adapter.get_sessions_by_user_id("u1") == [newest]
    await adapter.delete_session("f")
    assert inspector.live() == set()
    inspector.check()


def forgetting_driver(client: Any, inspector: Inspector) -> AsyncRedisDriver:
    """Return a driver that flushes the server's scripts before each command."""

    class ForgettingDriver(AsyncRedisDriver):
        async def _send(self, command: Command, *arguments: Any, **options: Any) -> Any:
            inspector.on_each("SCRIPT", "FLUSH")
            return await super()._send(command, *arguments, **options)

    return ForgettingDriver(client)


def assert_hides_ids(*shown: BaseException | str) -> None:
    """Assert that neither secret id, nor half of one, appears in these texts and tracebacks."""
    for each in shown:
        chain = (
            "".join(traceback.format_exception(each)) + repr(each)
            if isinstance(each, BaseException)
            else each
        )
        for secret in (SECRET, OTHER_SECRET):
            assert secret[:12] not in chain
            assert secret[-12:] not in chain


def every_call(adapter: AsyncRedisSessionAdapter) -> dict[str, Callable[[], Any]]:
    """Return a call of each method with secret ids."""
    return {
        "get_session": partial(adapter.get_session, SECRET),
        "get_sessions_by_user_id": partial(adapter.get_sessions_by_user_id, "u1"),
        "set_session": partial(adapter.set_session, row(OTHER_SECRET)),
        "set_session_capped": partial(adapter.set_session_capped, row(OTHER_SECRET), limit=9),
        "renew_session": partial(adapter.renew_session, SECRET, row(OTHER_SECRET), grace=MINUTE),
        "get_successor": partial(adapter.get_successor, SECRET),
        "delete_session": partial(adapter.delete_session, SECRET, OTHER_SECRET),
        "delete_sessions_by_user_id": partial(adapter.delete_sessions_by_user_id, "u1"),
        "delete_other_sessions": partial(adapter.delete_other_sessions, "u1", SECRET),
    }


WRITES = ("set_session", "set_session_capped", "renew_session")

REVOCATIONS = ("delete_session", "delete_sessions_by_user_id", "delete_other_sessions")
