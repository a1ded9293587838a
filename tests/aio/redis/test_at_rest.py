"""Hashed session ids in Redis: stored data, migration, key rotation, and a stolen dump."""

import re
from collections.abc import AsyncIterator, Generator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final

import pytest

from lucia import AsyncAuth, InvalidSessionId, User
from lucia._redis.records import encode_row
from lucia._rules.id_hashes import HashedIds, RawIds
from lucia._rules.sessions import new_session_id, system_clock
from lucia._testing.racing_calls import AsyncRacingCalls
from lucia.adapters.redis import AsyncRedisSessionAdapter
from lucia.models import SessionRow
from tests.aio.support.hashed_ids import (
    KEY,
    OLD,
    RING,
    AsyncHashedIdTests,
    add,
    leads_to,
    renew,
)
from tests.support.acl_rights import LEAST_RIGHTS, LEAST_RIGHTS_CLUSTER, LEAST_RIGHTS_PLAIN
from tests.support.clocks import Time
from tests.support.redis_clients import AsyncClients
from tests.support.redis_inspectors import DEFAULT, ClusterInspector, Inspector
from tests.support.sessions import row

# redis-py 7's cluster clients cause deprecation warnings themselves.
pytestmark = pytest.mark.filterwarnings("ignore:(?s).*lib_:DeprecationWarning")


@pytest.fixture(params=["redis", "cluster", "no scripts"])
def kind(request: pytest.FixtureRequest) -> str:
    """Return the kind of deployment: one server, a cluster, or a server that refuses scripts."""
    return str(request.param)


@pytest.fixture
def inspector(kind: str, request: pytest.FixtureRequest) -> Generator[Inspector, None, None]:
    """Yield an inspector of an emptied deployment."""
    if kind == "cluster":
        with ClusterInspector(request.getfixturevalue("cluster")) as found:
            yield found
    else:
        with Inspector(request.getfixturevalue("redis_server")) as found:
            yield found


@pytest.fixture
async def client(kind: str, inspector: Inspector) -> AsyncIterator[Any]:
    """Yield a client of the deployment."""
    inspector.on_each(
        "ACL",
        "SETUSER",
        "app",
        "reset",
        "on",
        ">pass",
        "~*",
        "+@all",
        *(["-@scripting"] if kind == "no scripts" else []),
    )
    options: dict[str, Any] = {"username": "app", "password": "pass"}
    if isinstance(inspector, ClusterInspector):
        found = AsyncClients.of_cluster("redis", inspector.cluster, **options)
    else:
        found = AsyncClients.make("redis-py as it is", inspector.server, **options)
    async with found:
        yield found
    inspector.on_each("ACL", "DELUSER", "app")


@pytest.fixture
def hashed(client: Any) -> AsyncRedisSessionAdapter:
    """Return an adapter with a key for hashes."""
    return AsyncRedisSessionAdapter(client, id_keys=[KEY])


@pytest.fixture
def raw(client: Any) -> AsyncRedisSessionAdapter:
    """Return an adapter without keys, on the same data."""
    return AsyncRedisSessionAdapter(client)


class AsyncRedisStore:
    """A deployment over which several adapters work."""

    def __init__(self, client: Any, inspector: Inspector) -> None:
        self.time = Time(system_clock())
        self._client = client
        self._inspector = inspector

    def adapter(self, id_keys: Sequence[bytes] = (), raw_ids: RawIds = "read") -> Any:
        """Return an adapter over the deployment."""
        return AsyncRedisSessionAdapter(self._client, id_keys=id_keys, raw_ids=raw_ids)

    def auth(self, adapter: Any) -> AsyncAuth[User]:
        """Return an ``Auth`` over an adapter."""
        return to_auth(adapter, clock=self.time)

    async def stored(self) -> set[str]:
        """Return the stored ids of live sessions."""
        return self._inspector.live()

    async def dump(self) -> str:
        """Return all keys and values as text."""
        return dump(self._inspector)

    async def age(self, used_id: str, milliseconds: int) -> None:
        """Let so much time pass for the marker of a used id."""
        self._inspector.age(RING.stored(used_id), milliseconds)


@pytest.fixture
def store(client: Any, inspector: Inspector) -> AsyncRedisStore:
    """Return the store."""
    return AsyncRedisStore(client, inspector)


class TestHashedIds(AsyncHashedIdTests):
    """Hashed ids in each deployment."""


def dump(inspector: Inspector) -> str:
    """Return all keys and values as text."""
    census = inspector.census()
    values = [
        each
        for entry in census.values()
        for each in (entry.value if isinstance(entry.value, list) else [entry.value])
    ]
    return "\n".join([*census, *(value.decode(errors="replace") for value in values)])


of_one_server = pytest.mark.parametrize("kind", ["redis"])


def to_auth(adapter: AsyncRedisSessionAdapter, **config: Any) -> AsyncAuth[User]:
    """Return an ``Auth`` for sessions only, over this adapter."""
    return AsyncAuth(sessions=adapter, env="DEV", **config)


# Stored data


async def test_no_id_in_redis(hashed: AsyncRedisSessionAdapter, inspector: Inspector) -> None:
    """No key and no value ever contains a session id.

    This holds after logins, renewals, chains of renewals, lists and revocations.
    """
    used = [await add(hashed) for _ in range(4)]
    chain = [used[0]]
    for _ in range(3):
        chain.append(await renew(hashed, chain[-1]) or "")
    outcomes = await AsyncRacingCalls.gather_results(
        *(partial(renew, hashed, used[1]) for _ in range(4))
    )
    assert await leads_to(hashed, chain[0]) == chain[-1]
    listed = [each.id for each in await hashed.get_sessions_by_user_id("u1")]
    ids = {*used, *chain, *map(str, outcomes)}
    assert len(ids) == 8
    assert not [id_ for id_ in ids if id_ in dump(inspector)]
    assert len(re.findall(r"(?m)^session:[0-9a-f]{64}$", dump(inspector))) == len(listed) == 4
    assert await hashed.delete_other_sessions("u1", chain[0]) is True
    assert not [id_ for id_ in ids if id_ in dump(inspector)]
    assert await leads_to(hashed, chain[0]) == chain[-1]
    await hashed.delete_session(chain[0], used[2], "unknown" * 6)
    await hashed.delete_sessions_by_user_id("u1")
    assert not [id_ for id_ in (*ids, "unknown" * 6) if id_ in dump(inspector)]
    assert inspector.live() == set()


async def test_form_of_keys(hashed: AsyncRedisSessionAdapter, inspector: Inspector) -> None:
    """Keys, records, index and markers are as without hashes, with a hash in place of each id.

    A marker also has the sealed id of the successor.
    """
    used = await add(hashed)
    new = await renew(hashed, used) or ""
    inspector.client.delete(DEFAULT.session_key(RING.stored(used)))
    census = inspector.census()
    marker = DEFAULT.marker_key(RING.stored(used))
    assert {DEFAULT.session_key(RING.stored(new)), DEFAULT.index_key("u1"), marker} == census.keys()
    members = f'"id":"{RING.stored(used)}","successor":"{RING.stored(new)}","grace":60000'
    assert f'{{{members},"sealed":"'.encode() in census[marker].value
    assert RING.stored(new).encode() in census[DEFAULT.index_key("u1")].value
    assert (
        f'{{"id":"{RING.stored(new)}","user_id":"u1",'.encode()
        in census[DEFAULT.session_key(RING.stored(new))].value
    )


async def test_other_layout(client: Any, inspector: Inspector) -> None:
    """In the layout ``lucia-v2``, the set contains hashes."""
    adapter = AsyncRedisSessionAdapter(client, layout="lucia-v2", id_keys=[KEY])
    used, other = await add(adapter), await add(adapter)
    new = await renew(adapter, used)
    assert await leads_to(adapter, used) == new
    await adapter.get_sessions_by_user_id("u1")
    found = {id_.decode() for id_ in inspector.client.smembers("user_sessions:u1")}
    assert found == {RING.stored(new or ""), RING.stored(other)} == inspector.live()
    assert await adapter.delete_other_sessions("u1", used) is True
    assert inspector.live() == {RING.stored(new or "")}


async def test_markers_without_keys(
    client: Any, raw: AsyncRedisSessionAdapter, inspector: Inspector
) -> None:
    """Without keys, and with ``write``, records and markers are byte for byte as before."""
    used = await add(raw)
    new = await renew(raw, used)
    writing = AsyncRedisSessionAdapter(client, id_keys=[KEY], raw_ids="write")
    used2 = await add(writing)
    new2 = await renew(writing, used2)
    for before, after in ((used, new), (used2, new2)):
        marker = inspector.client.get(DEFAULT.marker_key(before))
        assert marker == f'{{"id":"{before}","successor":"{after}","grace":60000}}'.encode()
        record = inspector.client.get(DEFAULT.session_key(after or "")).decode()
        assert re.fullmatch(
            rf'{{"id":"{after}","user_id":"u1","active_expires":\d+,"idle_expires":\d+}}', record
        )


@of_one_server
async def test_commands(client: Any, inspector: Inspector) -> None:
    """A read is one command with all candidates; with ``refuse``, no command has a raw id."""
    ring = HashedIds([KEY, OLD])
    adapter = AsyncRedisSessionAdapter(client, id_keys=[KEY, OLD])
    session_id = await add(adapter)
    with inspector.watched() as commands:
        await adapter.get_session(session_id)
    assert commands == [f"MGET {' '.join(map(DEFAULT.session_key, ring.candidates(session_id)))}"]
    strict = AsyncRedisSessionAdapter(client, id_keys=[KEY], raw_ids="refuse")
    with inspector.watched() as commands:
        used = await add(strict)
        new = await renew(strict, used) or ""
        assert await leads_to(strict, used) == new
        assert await strict.delete_other_sessions("u1", used) is True
        await strict.delete_session(used)
    assert len(commands) > 8
    assert not [command for command in commands if used in command or new in command]


@of_one_server
async def test_handles(hashed: AsyncRedisSessionAdapter, raw: AsyncRedisSessionAdapter) -> None:
    """A session without a handle gets the same one by its id, in a list, and after a renewal.

    It can be revoked by this handle.
    """
    auth = to_auth(hashed)
    for adapter in (hashed, raw):
        used = await add(adapter)
        handle = (await auth.get_session(used)).handle
        assert [device.handle for device in await auth.get_all_user_sessions("u1")] == [handle]
        renewed = await auth.renew_session(used)
        assert renewed.handle == handle
        assert [device.handle for device in await auth.get_all_user_sessions("u1")] == [handle]
        assert await auth.invalidate_user_session("u1", handle) is True
        with pytest.raises(InvalidSessionId):
            await auth.get_session(renewed.session_id)


# Enabling hashes, and rotating keys


RIGHTS: Final = {
    "redis": LEAST_RIGHTS,
    "cluster": LEAST_RIGHTS_CLUSTER,
    "no scripts": LEAST_RIGHTS_PLAIN,
}


@pytest.mark.parametrize("raw_ids", ["write", "read", "refuse"])
async def test_least_rights(kind: str, client: Any, inspector: Inspector, raw_ids: RawIds) -> None:
    """Hashed ids need no further rights."""
    inspector.on_each(
        "ACL",
        "SETUSER",
        "app",
        "resetkeys",
        "-@all",
        "~session:*",
        "~userSession:*",
        *(f"+{each}" for each in RIGHTS[kind]),
    )
    adapter = AsyncRedisSessionAdapter(client, id_keys=[KEY, OLD], raw_ids=raw_ids)
    used, other = await add(adapter), await add(adapter)
    new = await renew(adapter, used)
    assert await leads_to(adapter, used) == new
    assert len(await adapter.get_sessions_by_user_id("u1")) == 2
    assert await adapter.delete_other_sessions("u1", used) is True
    assert [await leads_to(adapter, id_) for id_ in (new, other)] == [new, None]
    await adapter.delete_session(used)
    await adapter.delete_sessions_by_user_id("u1")
    assert inspector.live() == set()


# A stolen dump


@of_one_server
async def test_hash_as_a_cookie(
    hashed: AsyncRedisSessionAdapter, raw: AsyncRedisSessionAdapter, inspector: Inspector
) -> None:
    """An adapter without keys would accept a hash as an id; ``Auth`` refuses it first.

    No command is sent.
    """
    session_id = await add(hashed)
    stored = RING.stored(session_id)
    found = await raw.get_session(stored)
    assert found is not None
    assert found.id == stored
    with inspector.watched() as commands:
        for auth in (to_auth(hashed), to_auth(raw)):
            for use in (auth.get_session, auth.validate_session, auth.renew_session):
                with pytest.raises(InvalidSessionId):
                    await use(stored)
            await auth.invalidate_session(stored)
    assert commands == []
    assert await leads_to(hashed, session_id) == session_id


def change_marker(inspector: Inspector, used_id: str, **changes: Any) -> None:
    """Change members of a used id's marker, and keep its TTL."""
    key = DEFAULT.marker_key(RING.stored(used_id))
    value = inspector.client.get(key).decode()
    for name, text in changes.items():
        value = re.sub(rf'"{name}":"[^"]*"', f'"{name}":"{text}"', value)
    inspector.client.set(key, value, keepttl=True)


async def test_tampered_markers(
    hashed: AsyncRedisSessionAdapter, inspector: Inspector, caplog: pytest.LogCaptureFixture
) -> None:
    """A marker with a forged or foreign seal, or another successor, has no successor.

    That is logged without ids. Revoking still follows the marker.
    """
    victim, mine = await add(hashed), await add(hashed)
    new, mine_new = await renew(hashed, victim) or "", await renew(hashed, mine) or ""
    sealed = re.findall(r'"sealed":"([^"]+)"', dump(inspector))
    for text in ("garbage", *sealed):
        change_marker(inspector, mine, successor=RING.stored(new), sealed=text)
        assert await leads_to(hashed, mine) is None
        assert await renew(hashed, mine) is None
    assert {record[2] for record in caplog.record_tuples if record[0] == "lucia"} == {
        "a used session id leads nowhere: none of id_keys opens the id that it was renewed to"
    }
    change_marker(inspector, mine, successor=RING.stored(mine_new), sealed=sealed[0])
    change_marker(inspector, mine, successor=RING.stored(mine_new), sealed=sealed[1])
    assert await leads_to(hashed, victim) == new
    change_marker(inspector, victim, sealed="")
    assert await leads_to(hashed, victim) is None
    await hashed.delete_session(victim)
    assert [await leads_to(hashed, id_) for id_ in (victim, new, mine_new)] == [
        None,
        None,
        mine_new,
    ]


@of_one_server
async def test_longest_chain(hashed: AsyncRedisSessionAdapter) -> None:
    """A used id has its successor over sixteen renewals; revoking it follows any number."""
    chain = [await add(hashed)]
    for _ in range(17):
        chain.append(await renew(hashed, chain[-1]) or "")
    assert [await leads_to(hashed, id_) for id_ in chain[:2]] == [None, chain[-1]]
    await hashed.delete_session(chain[0])
    assert await leads_to(hashed, chain[-1]) is None


# Foreign values


@of_one_server
async def test_record_of_another_session(
    hashed: AsyncRedisSessionAdapter, inspector: Inspector, caplog: pytest.LogCaptureFixture
) -> None:
    """Another session's record under an id's hash is never returned.

    A damaged record does not hide one under another key.
    """
    mine, others = await add(hashed), await add(hashed, "u2")
    inspector.client.copy(
        DEFAULT.session_key(RING.stored(others)),
        DEFAULT.session_key(RING.stored(mine)),
        replace=True,
    )
    before = inspector.calls("mget")
    assert await hashed.get_session(mine) is None
    assert inspector.calls("mget") == before + 2
    inspector.client.set(DEFAULT.session_key(RING.stored(mine)), "garbage")
    inspector.write(row(mine))
    assert await leads_to(hashed, mine) == mine
    assert not [
        line for line in caplog.records if mine in line.getMessage() or others in line.getMessage()
    ]


@of_one_server
@pytest.mark.parametrize("method", ["get_session", "get_successor", "renew", "delete"])
async def test_mismatched_reply_is_retried(inspector: Inspector, method: str) -> None:
    """A reply left on the connection by another command is detected, and the command is retried.

    The connection is closed.
    """
    async with AsyncClients.make("redis-py, one connection", inspector.server) as client:
        adapter, raw = (
            AsyncRedisSessionAdapter(client, id_keys=[KEY]),
            AsyncRedisSessionAdapter(client),
        )
        session_id, used = await add(raw), await add(adapter)
        new = await renew(adapter, used)
        await client.connection.send_command("PING")
        if method == "get_session":
            found = await adapter.get_session(session_id)
            assert found is not None
            assert found.id == session_id
        elif method == "get_successor":
            found = await adapter.get_successor(used)
            assert found is not None
            assert found.id == new
        elif method == "renew":
            assert await renew(adapter, session_id) is not None
        else:
            await adapter.delete_session(session_id)
            assert await leads_to(adapter, session_id) is None


@of_one_server
async def test_same_call_twice(hashed: AsyncRedisSessionAdapter, inspector: Inspector) -> None:
    """Repeating the same call is no error; the record is that of the row with its hash as id."""
    one = row(new_session_id(), handle="h")
    await hashed.set_session(one)
    await hashed.set_session(one)
    stored: SessionRow = replace(one, id=RING.stored(one.id))
    assert inspector.client.get(DEFAULT.session_key(stored.id)) == encode_row(stored)
    assert inspector.index() == [stored.id]
