"""Values of other programs, corrupt values and crossed replies are never taken for a session."""

import logging
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import redis.exceptions

from lucia.adapters.redis import AsyncRedisSessionAdapter
from lucia.errors import DuplicateSessionId, StoreCorrupt
from tests.aio.redis.single_server.test_clients import connections_named
from tests.aio.support.redis_calls import (
    MINUTE,
    OTHER_SECRET,
    SECRET,
    add,
    assert_hides_ids,
    ids,
    one_reply_type,
    renew,
)
from tests.support.redis_clients import AsyncClients
from tests.support.redis_inspectors import Inspector
from tests.support.sessions import row
from tools.servers import Server


def put_hash(client: Any, key: str) -> None:
    client.hset(key, "field", "value")


def put_list(client: Any, key: str) -> None:
    client.rpush(key, "element")


def put_set(client: Any, key: str) -> None:
    client.sadd(key, "member")


def put_sorted_set(client: Any, key: str) -> None:
    client.zadd(key, {"member": 1})


def put_stream(client: Any, key: str) -> None:
    client.xadd(key, {"field": "value"})


def put_string(client: Any, key: str) -> None:
    client.set(key, "garbage")


Put = Callable[[Any, str], None]


no_string = pytest.mark.parametrize(
    "put", [put_hash, put_list, put_set, put_sorted_set, put_stream]
)


no_list = pytest.mark.parametrize(
    "put", [put_hash, put_string, put_set, put_sorted_set, put_stream]
)


@one_reply_type
@no_string
async def test_session_key_of_another_type(
    adapter: AsyncRedisSessionAdapter, inspector: Inspector, put: Put
) -> None:
    """A value of another type under a session's key is no session, and is removed on revocation.

    Its id can be neither renewed nor taken.
    """
    put(inspector.client, "session:x")
    before = inspector.census()
    assert await adapter.get_session("x") is None
    assert await renew(adapter, "x", "new") is None
    assert await adapter.delete_other_sessions("u1", "x") is False
    with pytest.raises(DuplicateSessionId):
        await adapter.set_session(row("x"))
    assert inspector.census() == before
    await adapter.delete_session("x")
    assert inspector.keys() == set()


@one_reply_type
@no_string
async def test_indexed_session_of_another_type(
    adapter: AsyncRedisSessionAdapter, inspector: Inspector, put: Put
) -> None:
    """A value of another type under an indexed session's key is not listed, and not pruned.

    Revoking all the user's sessions removes it.
    """
    await add(adapter, "one", "x")
    inspector.client.delete("session:x")
    put(inspector.client, "session:x")
    assert ids(await adapter.get_sessions_by_user_id("u1")) == ["one"]
    assert inspector.index() == ["x", "one"]
    await adapter.delete_sessions_by_user_id("u1")
    assert inspector.keys() == set()


@one_reply_type
@no_list
async def test_index_of_another_type(
    adapter: AsyncRedisSessionAdapter, inspector: Inspector, put: Put
) -> None:
    """An index of another type is StoreCorrupt, without an id, and nothing is half written.

    The session can still be read and revoked.
    """
    await add(adapter, SECRET)
    inspector.client.delete("userSession:u1")
    put(inspector.client, "userSession:u1")
    before = inspector.census()
    for call in (
        partial(adapter.set_session, row(OTHER_SECRET)),
        partial(adapter.renew_session, SECRET, row(OTHER_SECRET), grace=MINUTE),
        partial(adapter.get_sessions_by_user_id, "u1"),
        partial(adapter.delete_sessions_by_user_id, "u1"),
        partial(adapter.delete_other_sessions, "u1", SECRET),
    ):
        with pytest.raises(StoreCorrupt) as raised:
            await call()
        assert_hides_ids(raised.value)
        assert isinstance(raised.value.__cause__, redis.exceptions.ResponseError)
        assert inspector.census() == before
    assert await adapter.get_session(SECRET) is not None
    with pytest.raises(StoreCorrupt):
        await adapter.delete_session(SECRET)
    assert inspector.live() == set()


@one_reply_type
async def test_revocation_despite_unwritable_index(
    adapter: AsyncRedisSessionAdapter, inspector: Inspector
) -> None:
    """If the index can't be written, sessions and successors are revoked before the error."""
    await add(adapter, "a", "used")
    await renew(adapter, "used", "new")
    await add(adapter, "b", user_id="u2")
    inspector.client.set("userSession:u1", "garbage")
    with pytest.raises(StoreCorrupt):
        await adapter.delete_session("a", "used", "b")
    assert inspector.live() == set()


@one_reply_type
@no_string
async def test_marker_of_another_type(
    adapter: AsyncRedisSessionAdapter, inspector: Inspector, put: Put
) -> None:
    """A marker of another type has no successor, and is replaced by a renewal."""
    await add(adapter, "used")
    put(inspector.client, "session:renewed:{session:used}")
    assert await adapter.get_successor("used") is None
    assert await renew(adapter, "used", "new") == "new"
    assert await adapter.get_successor("used") is not None
    inspector.check()
    put_hash(inspector.client, "session:renewed:{session:new}")
    await adapter.delete_session("new")
    assert await renew(adapter, "new", "newer") is None
    assert inspector.client.exists("session:new", "session:newer") == 0


@pytest.mark.parametrize(
    "garbage",
    [
        "garbage",
        b"\xff\x00",
        "",
        "[]",
        "{}",
        '{"id":"x"}',
        '{"successor":1}',
        '{"id":"used","successor":"used","grace":60000}',
    ],
)
@one_reply_type
async def test_corrupt_values(
    adapter: AsyncRedisSessionAdapter,
    inspector: Inspector,
    garbage: Any,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A value that is no record or no marker is ignored and logged, and can be deleted."""
    await add(adapter, "x", "live")
    inspector.client.set("session:x", garbage)
    inspector.client.set("session:renewed:{session:used}", garbage, px=MINUTE)
    assert await adapter.get_session("x") is None
    assert ids(await adapter.get_sessions_by_user_id("u1")) == ["live"]
    assert await adapter.get_successor("used") is None
    assert await renew(adapter, "used", "new") is None
    assert [line.levelno for line in caplog.records] == [logging.WARNING] * 2
    assert all("garbage" not in line.getMessage() for line in caplog.records)
    await adapter.delete_session("x", "used")
    assert inspector.live() == {"live"}


async def test_record_of_another_session(
    adapter: AsyncRedisSessionAdapter, inspector: Inspector, caplog: pytest.LogCaptureFixture
) -> None:
    """Another session's record under an id's key is never returned.

    The connection is closed and the record read again.
    """
    await add(adapter, "mine", user_id="u1")
    await add(adapter, SECRET, user_id="u2")
    inspector.client.copy(f"session:{SECRET}", "session:mine", replace=True)
    before, connections = inspector.calls("mget"), connections_named(inspector, "")
    assert await adapter.get_session("mine") is None
    assert inspector.calls("mget") == before + 2
    assert not connections <= connections_named(inspector, "")
    assert await adapter.get_sessions_by_user_id("u1") == []
    assert await adapter.delete_other_sessions("u2", "mine") is False
    assert len(caplog.records) >= 2
    assert_hides_ids(*(line.getMessage() for line in caplog.records))


@pytest.mark.parametrize("kind", ["redis-py, one connection", "valkey-py, one connection"])
@pytest.mark.parametrize(
    "crossed",
    ["another's record", "nothing like it", "another's marker", "list of numbers", "list of lists"],
)
async def test_mismatched_reply_is_retried(
    kind: str, crossed: str, server: Server, inspector: Inspector
) -> None:
    """A reply left on the connection by another command is detected, and the command is retried.

    The connection is closed.
    """
    async with AsyncClients.make(kind, server) as client:
        adapter = AsyncRedisSessionAdapter(client)
        await add(adapter, "mine", "used")
        await renew(adapter, "used", "new")
        await add(adapter, "others", "used2", user_id="u2")
        await adapter.renew_session("used2", row("new2", "u2"), grace=MINUTE)
        connection = await idle_connection(adapter)
        if crossed == "another's record":
            await connection.send_command("MGET", "session:others")
        elif crossed == "another's marker":
            await connection.send_command("MGET", "session:renewed:{session:used2}")
        elif crossed == "list of numbers":
            await connection.send_command("EVAL", "return {5}", 0)
        elif crossed == "list of lists":  # as the script that revokes one session replies
            script = "return {redis.call('MGET', KEYS[1], KEYS[1])}"
            await connection.send_command("EVAL", script, 1, "session:others")
        else:
            await connection.send_command("PING")
        if crossed == "another's marker":
            successor = await adapter.get_successor("used")
            assert successor is not None
            assert (successor.id, successor.user_id) == ("new", "u1")
        else:
            found = await adapter.get_session("mine")
            assert found is not None
            assert (found.id, found.user_id) == ("mine", "u1")
        assert await adapter.get_session("others") is not None


async def idle_connection(adapter: AsyncRedisSessionAdapter) -> Any:
    """Return the connection that the adapter uses for its next command."""
    route: Any = await adapter._driver._route.get()
    return route._server._idle[-1].connection


async def test_entries_of_others(adapter: AsyncRedisSessionAdapter, inspector: Inspector) -> None:
    """Index entries of another user's sessions are not listed; repeated ones are listed once."""
    await add(adapter, "mine")
    await add(adapter, "others", user_id="u2")
    inspector.client.rpush("userSession:u1", "others", "mine", "others", "mine")
    assert ids(await adapter.get_sessions_by_user_id("u1")) == ["mine"]
    assert ids(await adapter.get_sessions_by_user_id("u2")) == ["others"]
    assert await adapter.delete_other_sessions("u2", "mine") is False
    await adapter.delete_session("mine")
    assert inspector.index() == ["others", "others"]
    await adapter.delete_sessions_by_user_id("u1")
    assert inspector.index() == []


@one_reply_type
async def test_thousands_of_dead_entries(
    adapter: AsyncRedisSessionAdapter, inspector: Inspector
) -> None:
    """Listing a user's sessions prunes thousands of dead index entries and keeps the order."""
    inspector.client.rpush("userSession:u1", *(f"dead{number}" for number in range(2_000)))
    await add(adapter, "one")
    inspector.client.lpush("userSession:u1", *(f"dead{number}" for number in range(1_000)))
    await add(adapter, "two")
    assert ids(await adapter.get_sessions_by_user_id("u1")) == ["two", "one"]
    assert inspector.index() == ["two", "one"]
