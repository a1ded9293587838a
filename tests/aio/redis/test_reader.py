"""Reads of sessions by the Redis adapter: each asks the server, and shares no objects."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from redis.asyncio import Redis

from lucia import AsyncAuth
from lucia._redis.records import MAX_RECORD_BYTES, encode_row
from lucia._rules.id_hashes import HashedIds
from lucia.adapters.redis import AsyncRedisSessionAdapter
from lucia.models import SessionRow, StoredSession
from tests.support.redis_inspectors import Inspector
from tests.support.sessions import HOUR, row
from tools.servers import Server

KEY = b"current key".ljust(32)
OLDER = b"older key".ljust(32)

pytestmark = [
    pytest.mark.parametrize("server", ["redis"], indirect=True),
    pytest.mark.parametrize("decode_responses", [False]),
]


@pytest.fixture
def inspector(server: Server) -> Iterator[Inspector]:
    """Yield an inspector of the emptied server."""
    with Inspector(server) as found:
        yield found


@pytest.fixture(params=[(), (KEY,)], ids=["raw", "hashed"])
async def adapter(request: pytest.FixtureRequest, redis_client: Redis) -> AsyncRedisSessionAdapter:
    """Return an adapter with open connections, once for raw and once for hashed ids."""
    adapter = AsyncRedisSessionAdapter(redis_client, id_keys=request.param)
    assert await adapter.get_session("nobody") is None
    return adapter


async def read(adapter: AsyncRedisSessionAdapter, session_id: str = "mine") -> StoredSession:
    """Return a session, which must exist."""
    found = await adapter.get_session(session_id)
    assert found is not None
    return found


async def test_server_is_asked_each_time(
    adapter: AsyncRedisSessionAdapter, inspector: Inspector
) -> None:
    """Each read is a command to the server, even if the session was just read."""
    mine = row("mine", noted={"agent": ["first"]})
    await adapter.set_session(mine)
    before = inspector.calls("mget")
    assert await read(adapter) == mine
    assert await read(adapter) == mine
    assert inspector.calls("mget") == before + 2


async def test_changed_record(redis_client: Redis, inspector: Inspector) -> None:
    """A changed, deleted or restored record is seen by the next read."""
    adapter = AsyncRedisSessionAdapter(redis_client)
    mine = row("mine")
    await adapter.set_session(mine)
    assert await read(adapter) == mine
    changed = replace(mine, idle_expires=mine.idle_expires + HOUR)
    inspector.write(changed)
    assert await read(adapter) == changed
    inspector.client.delete("session:mine")
    assert await adapter.get_session("mine") is None
    inspector.write(mine)
    assert await read(adapter) == mine


async def test_metadata_is_not_shared(adapter: AsyncRedisSessionAdapter) -> None:
    """A caller's changes to a session's metadata are not seen by others."""
    auth = AsyncAuth(sessions=adapter, env="DEV")
    metadata: dict[str, Any] = {"agent": {"names": ["first"]}}
    session = await auth.create_session("u1", metadata=metadata)
    metadata["agent"]["names"].append("of the one who logged in")
    found = await auth.validate_session(session.session_id)
    assert await auth.validate_session(session.session_id) == found
    mine: Any = found.metadata
    mine["agent"]["names"].append("second")
    mine["more"] = 1
    for each in (found, session, await auth.validate_session(session.session_id)):
        assert each.metadata == {"agent": {"names": ["first"]}}


@pytest.mark.parametrize("noted", [{"agent": "first"}, {"agent": ["first"]}])
async def test_attributes_are_not_shared(adapter: AsyncRedisSessionAdapter, noted: Any) -> None:
    """A caller's changes to a stored session's attributes are not seen by others."""
    await adapter.set_session(row("mine", handle="h", noted=noted))
    found: Any = await read(adapter)
    attributes = found.attributes
    attributes["handle"] = "another"
    attributes["noted"]["agent"] = "second"
    attributes["noted"]["more"] = 1
    assert (await read(adapter)).attributes == {"handle": "h", "noted": noted}


async def test_damaged_record(redis_client: Redis, inspector: Inspector) -> None:
    """A damaged record under one key's hash does not hide the session under another key's hash."""
    older, both = (
        AsyncRedisSessionAdapter(redis_client, id_keys=keys) for keys in ((OLDER,), (KEY, OLDER))
    )
    await older.set_session(row("mine"))
    assert (await read(both)).id == "mine"
    newest = HashedIds([KEY, OLDER]).candidates("mine")[0]
    inspector.client.set(f"session:{newest}", "garbage", px=HOUR)
    assert (await read(both)).id == "mine"
    await older.delete_session("mine")
    assert await both.get_session("mine") is None


async def test_damaged_record_of_another_session(redis_client: Redis, inspector: Inspector) -> None:
    """A damaged record is no session, and does not hide others."""
    adapter = AsyncRedisSessionAdapter(redis_client)
    await adapter.set_session(row("mine"))
    inspector.client.set("session:damaged", "garbage", px=HOUR)
    inspector.client.set("session:long", "x" * (MAX_RECORD_BYTES + 1), px=HOUR)
    for _ in range(2):
        assert await adapter.get_session("damaged") is None
        assert await adapter.get_session("long") is None
        assert (await read(adapter)).id == "mine"


async def test_longest_record(adapter: AsyncRedisSessionAdapter) -> None:
    """A record of the maximal length is read like any other."""
    mine: SessionRow = row("mine", handle="h", noted={"agent": ""})
    # With hashed ids, the stored id has 64 characters, instead of the 4 of this one.
    room = MAX_RECORD_BYTES - len(encode_row(replace(mine, id="0" * 64)))
    mine = replace(mine, attributes={"handle": "h", "noted": {"agent": "x" * room}})
    await adapter.set_session(mine)
    assert await read(adapter) == mine
    assert await read(adapter) == mine


async def test_idle_session(adapter: AsyncRedisSessionAdapter) -> None:
    """A session that is due for renewal is read like any other."""
    mine = replace(row("mine"), active_expires=1)
    await adapter.set_session(mine)
    assert await read(adapter) == mine
    assert await read(adapter) == mine
