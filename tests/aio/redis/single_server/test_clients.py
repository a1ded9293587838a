"""Every kind of client, also one that Sentinel leads to the primary."""

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import redis.exceptions
import valkey.exceptions

from lucia._compat.pause import AsyncPause
from lucia.adapters.redis import AsyncRedisSessionAdapter
from lucia.errors import StoreUnavailable
from tests.aio.redis.single_server.test_errors import use_scripts
from tests.aio.support.redis_calls import add, ids, renew, use_every_method
from tests.support.redis_clients import AsyncClients
from tests.support.redis_inspectors import Inspector
from tests.support.sentinels import sentinel_group
from tools.servers import Server, until


async def test_connections_of_its_own(server: Server, inspector: Inspector) -> None:
    """The adapter opens and closes its own connections, and never uses the client's.

    It opens no more than the client's pool may have, and does not close the client.
    """
    async with AsyncClients.make(
        "redis-py as it is", server, client_name="application", max_connections=1
    ) as client:
        await client.ping()
        connections = connections_named(inspector, "application")
        async with AsyncRedisSessionAdapter(client) as adapter:
            await use_every_method(adapter, inspector)
            assert len(connections_named(inspector, "application")) == 2
        until(lambda: connections_named(inspector, "application") == connections)
        assert await client.ping()
        await adapter.aclose()
        assert await adapter.get_session("unknown") is None
        assert len(connections_named(inspector, "application")) == 2
        await adapter.aclose()


def connections_named(inspector: Inspector, name: str) -> set[str]:
    """Return the ids of the server's connections with this client name."""
    return {each["id"] for each in inspector.client.client_list() if each["name"] == name}


@pytest.mark.parametrize("kind", AsyncClients.kinds)
async def test_every_kind_of_client(kind: str, server: Server, inspector: Inspector) -> None:
    """The adapter works the same over any client, encoding, protocol, pool and transport."""
    async with AsyncClients.make(kind, server) as client:
        await use_every_method(AsyncRedisSessionAdapter(client), inspector)


async def persist(call: Callable[[], Any], expected: object) -> None:
    """Repeat the call until it returns the expected result; connection errors are ignored."""
    for _ in range(200):
        with suppress(
            redis.exceptions.ConnectionError, valkey.exceptions.ConnectionError, StoreUnavailable
        ):
            if await call() == expected:
                return
        await AsyncPause.seconds(0.05)
    raise TimeoutError


@pytest.mark.parametrize("library", ["redis", "valkey"])
async def test_failover(library: str, tmp_path: Path) -> None:
    """Behind Sentinel, the adapter finds the new primary, and every method works there.

    The new primary does not have the scripts yet.
    """
    with sentinel_group(library, tmp_path) as group:
        async with AsyncClients.behind_sentinel(group) as client:
            adapter = AsyncRedisSessionAdapter(client)
            await use_scripts(adapter)
            await add(adapter, "used", "ended", "other")
            group.fail_over()
            await persist(partial(renew, adapter, "used", "new"), "new")
            assert ids(await adapter.get_sessions_by_user_id("u1")) == ["new", "other", "ended"]
            await adapter.delete_session("ended")
            assert await adapter.delete_other_sessions("u1", "used") is True
            with Inspector.looking_at(Server("redis", *group.master(), tmp_path)) as look:
                assert look.live() == {"new"}
                look.check()
                assert look.calls("evalsha") > 0
                assert look.calls("script|load") == 0
