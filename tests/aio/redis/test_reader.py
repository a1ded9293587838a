"""The shortest way to a session: when the same row is given again, and when another way is taken."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from lucia._redis.kept import MAX_KEPT_BYTES
from redis.asyncio import Redis

from lucia import AsyncAuth
from lucia._redis.at_rest import HashedIds
from lucia.adapters.redis import AsyncRedisSessionAdapter
from lucia.models import SessionRow
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
    """A look into the same server from outside, emptied."""
    with Inspector(server) as found:
        yield found


@pytest.fixture(params=[(), (KEY,)], ids=["raw", "hashed"])
async def adapter(request: pytest.FixtureRequest, redis_client: Redis) -> AsyncRedisSessionAdapter:
    """An adapter over one server, that stores ids as they are or their hashes, and has connections."""
    adapter = AsyncRedisSessionAdapter(redis_client, id_keys=request.param)
    assert await adapter.get_session("nobody") is None
    return adapter


async def read(adapter: AsyncRedisSessionAdapter, session_id: str = "mine") -> SessionRow:
    """A session that is there."""
    found = await adapter.get_session(session_id)
    assert found is not None
    return found


async def test_the_same_row(adapter: AsyncRedisSessionAdapter, inspector: Inspector) -> None:
    """The server is asked each time, and as long as its record is the same, so is the row."""
    await adapter.set_session(row("mine", noted={"agent": ["first"]}))
    before = inspector.calls("mget")
    first = await read(adapter)
    assert await read(adapter) is first
    assert inspector.calls("mget") == before + 2


async def test_another_record(redis_client: Redis, inspector: Inspector) -> None:
    """A record that is another one by now gives what it says by now, whatever was read before."""
    adapter = AsyncRedisSessionAdapter(redis_client)
    await adapter.set_session(row("mine"))
    first = await read(adapter)
    changed = replace(first, idle_expires=first.idle_expires + HOUR)
    inspector.write(changed)
    assert await read(adapter) == changed
    inspector.client.delete("session:mine")
    assert await adapter.get_session("mine") is None
    inspector.write(first)
    assert await read(adapter) == first


async def test_nobody_changes_it(adapter: AsyncRedisSessionAdapter) -> None:
    """What was noted is the same object for all who ask, so it can't be changed; nor can what was noted in it."""
    auth = AsyncAuth(sessions=adapter, env="DEV")
    session = await auth.create_session("u1", metadata={"agent": {"names": ["first"]}})
    found = await auth.validate_session(session.session_id)
    assert await auth.validate_session(session.session_id) is found
    metadata: Any = found.metadata
    with pytest.raises(TypeError, match="shared"):
        metadata["agent"] = "another"
    with pytest.raises(TypeError, match="shared"):
        metadata["agent"]["names"].append("second")
    assert (await auth.validate_session(session.session_id)).metadata == {
        "agent": {"names": ["first"]}
    }


async def test_nobody_changes_a_row(adapter: AsyncRedisSessionAdapter) -> None:
    """A row is the same object for all who ask too, so its attributes can't be changed."""
    await adapter.set_session(row("mine", handle="h", noted={"agent": ["first"]}))
    attributes: Any = (await read(adapter)).attributes
    with pytest.raises(TypeError, match="shared"):
        attributes["handle"] = "another"
    with pytest.raises(TypeError, match="shared"):
        attributes["noted"]["agent"].append("second")
    assert (await read(adapter)).attributes == {"handle": "h", "noted": {"agent": ["first"]}}


async def test_a_damaged_record(redis_client: Redis, inspector: Inspector) -> None:
    """What is damaged under a hash by one key keeps no session from being found under that by another."""
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


async def test_a_long_record(adapter: AsyncRedisSessionAdapter) -> None:
    """Nothing long is kept."""
    await adapter.set_session(row("mine", noted={"agent": "x" * MAX_KEPT_BYTES}))
    first = await read(adapter)
    again = await read(adapter)
    assert again is not first
    assert again == first


async def test_an_idle_session(adapter: AsyncRedisSessionAdapter) -> None:
    """One that is due for renewal is not kept either: its next use gives it another id."""
    await adapter.set_session(replace(row("mine"), active_expires=1))
    first = await read(adapter)
    again = await read(adapter)
    assert again is not first
    assert again == first
