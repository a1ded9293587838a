"""Errors of one server: which error is raised, and that it shows no id."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import redis.exceptions
import valkey.exceptions

from lucia.adapters.redis import AsyncRedisSessionAdapter
from lucia.errors import StoreUnavailable
from tests.aio.support.redis_calls import SECRET, WRITES, add, assert_hides_ids, every_call
from tests.support.redis_clients import AsyncClients
from tests.support.redis_inspectors import Inspector
from tests.support.redis_servers import silent_server
from tests.support.sessions import row
from tools.servers import Server, own_server, unused_port


async def assert_fails(call: Callable[[], Any], expected: str) -> None:
    """Assert that the call raises the client's own error, and that it shows no id."""
    with pytest.raises((redis.exceptions.RedisError, valkey.exceptions.ValkeyError)) as raised:
        await call()
    assert type(raised.value).__name__ == expected
    assert type(raised.value).__module__.partition(".")[0] in {"redis", "valkey"}
    assert_hides_ids(raised.value)


@pytest.mark.parametrize("kind", ["redis-py as it is", "valkey-py as it is"])
async def test_server_without_memory(kind: str, server: Server, inspector: Inspector) -> None:
    """A server without memory refuses logins with the client's own error.

    Nothing is changed, and reads and revocations still work.
    """
    async with AsyncClients.make(kind, server) as client:
        adapter = AsyncRedisSessionAdapter(client)
        await add(adapter, SECRET)
        await use_scripts(adapter)
        before = inspector.census()
        inspector.client.config_set("maxmemory", 1)
        try:
            calls = every_call(adapter)
            for method in WRITES:
                await assert_fails(calls[method], "OutOfMemoryError")
            assert inspector.census() == before
            assert await adapter.get_session(SECRET) is not None
            await adapter.delete_session(SECRET)
            await adapter.delete_sessions_by_user_id("u1")
            assert inspector.live() == set()
        finally:
            inspector.client.config_set("maxmemory", 0)


async def use_scripts(adapter: AsyncRedisSessionAdapter) -> None:
    """Run every script, so that the server knows them all."""
    await add(adapter, "1", "2", user_id="u9")
    await adapter.set_session_capped(row("4", "u9"), limit=9)
    await adapter.renew_session("1", row("3", "u9"), grace=0)
    await adapter.delete_session("3")
    await adapter.delete_sessions_by_user_id("u9")


@pytest.mark.parametrize("kind", ["redis-py as it is", "valkey-py as it is"])
async def test_server_that_is_a_replica(kind: str, server: Server, inspector: Inspector) -> None:
    """A replica is not used, even for reads: its data may be older than a revocation."""
    async with (
        AsyncClients.make(kind, server) as client,
        AsyncRedisSessionAdapter(client) as adapter,
    ):
        await add(adapter, SECRET)
        inspector.client.replicaof("127.0.0.1", str(unused_port()))
        try:
            calls = every_call(adapter)
            # First on the connection that was opened before the server became a replica.
            for call in (calls["set_session"], *calls.values()):
                with pytest.raises(StoreUnavailable) as raised:
                    await call()
                assert not raised.value.ambiguous
        finally:
            inspector.client.replicaof("NO", "ONE")
        await adapter.delete_sessions_by_user_id("u1")
        assert inspector.live() == set()


@pytest.mark.parametrize("kind", ["redis-py as it is", "valkey-py as it is"])
async def test_user_without_rights(kind: str, server: Server, inspector: Inspector) -> None:
    """Without rights, every method raises the client's own error."""
    inspector.client.acl_setuser(
        "nobody", enabled=True, nopass=True, reset=True, commands=["+ping"]
    )
    try:
        async with AsyncClients.make(kind, server, username="nobody", password="x") as client:
            for call in every_call(AsyncRedisSessionAdapter(client)).values():
                await assert_fails(call, "NoPermissionError")
    finally:
        inspector.client.acl_deluser("nobody")


async def test_server_without_scripts(tmp_path: Path) -> None:
    """The server's error for an unknown command is raised without the arguments that it quotes.

    They may be ids.
    """
    renamed = [
        word for name in ("EVALSHA", "MGET", "LRANGE") for word in ("--rename-command", name, "")
    ]
    with own_server("redis-server", tmp_path, *renamed) as server:
        async with AsyncClients.make("redis-py as it is", server) as client:
            for call in every_call(AsyncRedisSessionAdapter(client)).values():
                await assert_fails(call, "ResponseError")


async def test_no_server(tmp_path: Path) -> None:
    """Without a server, every method raises StoreUnavailable, with the client's error as cause.

    It says that nothing was changed.
    """
    nowhere = Server("redis", "127.0.0.1", unused_port(), tmp_path / "none")
    async with AsyncClients.make_hasty(nowhere) as client:
        for call in every_call(AsyncRedisSessionAdapter(client)).values():
            with pytest.raises(
                StoreUnavailable,
                match="can't be reached or did not reply in time; nothing was changed",
            ) as raised:
                await call()
            assert not raised.value.ambiguous
            assert isinstance(
                raised.value.__cause__,
                (redis.exceptions.ConnectionError, valkey.exceptions.ConnectionError),
            )
            assert_hides_ids(raised.value)


async def test_server_that_does_not_answer() -> None:
    """If a connection gets no answer in time, every method says that nothing was changed."""
    with silent_server() as server:
        async with AsyncClients.make_hasty(server) as client:
            for call in every_call(
                AsyncRedisSessionAdapter(client, deadline=timedelta(seconds=0.05))
            ).values():
                with pytest.raises(StoreUnavailable) as raised:
                    await call()
                assert not raised.value.ambiguous
                assert_hides_ids(raised.value)
