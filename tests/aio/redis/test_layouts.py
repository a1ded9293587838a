"""Both layouts of the Redis session adapter: stored data, rights, and other writers."""

from collections.abc import AsyncIterator, Callable, Generator
from typing import Any, Final

import pytest
import redis.exceptions
import valkey.exceptions

from lucia import AsyncAuth, InvalidSessionId
from lucia._redis.keys import Layout, LayoutName
from lucia._redis.records import encode_row
from lucia._rules.sessions import system_clock
from lucia.adapters.redis import AsyncRedisSessionAdapter, Reindexed
from lucia.errors import StoreCorrupt
from lucia.models import SessionRow, to_datetime
from tests.aio.redis.test_cluster import allow, make_client
from tests.aio.support.redis_calls import add, ids, renew, use_every_method
from tests.support.acl_rights import (
    LEAST_RIGHTS,
    LEAST_RIGHTS_CLUSTER,
    LEAST_RIGHTS_PLAIN,
    for_sets,
)
from tests.support.redis_inspectors import ClusterInspector, Inspector
from tests.support.sessions import HOUR, row

# redis-py 7's cluster clients cause deprecation warnings themselves.
pytestmark = pytest.mark.filterwarnings("ignore:(?s).*lib_:DeprecationWarning")

DEPLOYMENTS: Final[dict[str, tuple[str, tuple[str, ...], tuple[str, ...]]]] = {
    "one server": ("redis", ("+@all",), LEAST_RIGHTS),
    "cluster": ("cluster of redis, text", ("+@all",), LEAST_RIGHTS_CLUSTER),
    "without scripts": ("valkey", ("+@all", "-@scripting"), LEAST_RIGHTS_PLAIN),
}
"""The kind of client, its rights, and the minimal rights in the default layout."""

LAYOUTS: Final[tuple[LayoutName, ...]] = ("default", "lucia-v2")
CENTURY: Final = 57 * 365 * 24 * HOUR
KEYS: Final = ("~session:*", "~user_sessions:*")
OLD, OTHER = "O" * 40, "P" * 40
REFUSALS: Final = (redis.exceptions.ResponseError, valkey.exceptions.ResponseError)


@pytest.fixture(params=DEPLOYMENTS)
def deployment(request: pytest.FixtureRequest) -> str:
    """Return each kind of deployment."""
    return str(request.param)


@pytest.fixture(params=LAYOUTS)
def layout(request: pytest.FixtureRequest) -> LayoutName:
    """Return each layout."""
    found: LayoutName = request.param
    return found


@pytest.fixture
def legacy_writers() -> bool:
    """Return whether other programs write too; a test overrides it by ``parametrize``."""
    return False


@pytest.fixture
def inspector(
    deployment: str, layout: LayoutName, legacy_writers: bool, request: pytest.FixtureRequest
) -> Generator[Inspector, None, None]:
    """Yield an inspector of the emptied deployment."""
    names = Layout.from_namespaces(None, layout, legacy_writers=legacy_writers)
    if deployment == "cluster":
        with ClusterInspector(request.getfixturevalue("cluster"), names) as found:
            yield found
    else:
        with Inspector(
            request.getfixturevalue(f"{DEPLOYMENTS[deployment][0]}_server"), names
        ) as found:
            yield found


@pytest.fixture
async def client(deployment: str, inspector: Inspector) -> AsyncIterator[Any]:
    """Yield a client of the deployment."""
    kind, rights, _ = DEPLOYMENTS[deployment]
    allow(inspector, "~*", *rights)
    async with make_client(kind, inspector) as found:
        yield found
    inspector.on_each("ACL", "DELUSER", "app")


@pytest.fixture
def adapter(client: Any, layout: LayoutName, legacy_writers: bool) -> AsyncRedisSessionAdapter:
    """Return an adapter with this layout."""
    return AsyncRedisSessionAdapter(client, layout=layout, legacy_writers=legacy_writers)


@pytest.fixture
def auth(adapter: AsyncRedisSessionAdapter) -> AsyncAuth[Any]:
    """Return an ``Auth`` for sessions only, over the adapter."""
    return AsyncAuth(sessions=adapter, env="DEV")


of_sets = pytest.mark.parametrize("layout", ["lucia-v2"])
beside_others = pytest.mark.parametrize("legacy_writers", [True])


# The layout ``lucia-v2``


@of_sets
async def test_sets(adapter: AsyncRedisSessionAdapter, inspector: Inspector) -> None:
    """Every method works with sets, leaves no key without a TTL, and each session in its index."""
    await use_every_method(adapter, inspector)


@of_sets
@pytest.mark.parametrize("deployment", ["one server"])
async def test_sets_word_for_word(adapter: AsyncRedisSessionAdapter, inspector: Inspector) -> None:
    """A session is a JSON record, and its user's index a set of ids with the last one's expiry."""
    end = system_clock() + HOUR
    await adapter.set_session(
        SessionRow(id="two", user_id="u1", active_expires=end - 5, idle_expires=end)
    )
    await adapter.set_session(
        SessionRow(id="one", user_id="u1", active_expires=end - 5, idle_expires=end - 2)
    )
    active = f'"active_expires":{end - 5}'
    assert inspector.census() == {
        "session:two": (
            "string",
            f'{{"id":"two","user_id":"u1",{active},"idle_expires":{end}}}'.encode(),
            end,
        ),
        "session:one": (
            "string",
            f'{{"id":"one","user_id":"u1",{active},"idle_expires":{end - 2}}}'.encode(),
            end - 2,
        ),
        "user_sessions:u1": ("set", [b"one", b"two"], end),
    }


@of_sets
async def test_sets_are_listed_newest_first(adapter: AsyncRedisSessionAdapter) -> None:
    """Devices are listed by login time, newest first, although sets have no order.

    A session without a login time is placed by its active period.
    """
    now, day = system_clock(), 24 * HOUR
    for session_id, ago in (("b", 5), ("c", 9), ("a", 7)):
        await adapter.set_session(row(session_id, created_at=now - ago))
    await adapter.set_session(
        SessionRow(
            id="original", user_id="u1", active_expires=now - 6 + day, idle_expires=now + 2 * day
        )
    )
    listed = await AsyncAuth(sessions=adapter, env="DEV").get_all_user_sessions("u1")
    made = [device.created_at for device in listed]
    assert made == [to_datetime(now - ago) for ago in (5, 6, 7, 9)]


@of_sets
async def test_least_rights_over_sets(
    deployment: str, inspector: Inspector, layout: LayoutName
) -> None:
    """With the documented rights, every method works with sets."""
    kind, _, rights = DEPLOYMENTS[deployment]
    allow(inspector, *KEYS, *(f"+{right}" for right in for_sets(rights)))
    inspector.on_each("SCRIPT", "FLUSH")
    async with make_client(kind, inspector) as client:
        await use_every_method(AsyncRedisSessionAdapter(client, layout=layout), inspector)
    inspector.on_each("ACL", "DELUSER", "app")


@of_sets
@pytest.mark.parametrize(
    ("deployment", "missing"),
    [
        (deployment, right)
        for deployment, (_, _, rights) in DEPLOYMENTS.items()
        for right in for_sets(rights)
        if right not in rights
    ],
)
async def test_each_right_is_needed_over_sets(
    deployment: str, missing: str, inspector: Inspector, layout: LayoutName
) -> None:
    """Without any one of the rights for sets, some method raises the client's own error."""
    kind, _, rights = DEPLOYMENTS[deployment]
    allow(inspector, *KEYS, *(f"+{right}" for right in for_sets(rights) if right != missing))
    inspector.on_each("SCRIPT", "FLUSH")
    async with make_client(kind, inspector) as client:
        with pytest.raises(REFUSALS, match=r"(?i)no.* permissions|NOPERM|can't run this command"):
            await use_every_method(AsyncRedisSessionAdapter(client, layout=layout), inspector)
    inspector.on_each("ACL", "DELUSER", "app")


SEARCHING: Final[dict[LayoutName, tuple[str, ...]]] = {
    "default": ("scan", "type", "llen", "lpos"),
    "lucia-v2": ("scan", "type", "sismember"),
}
"""The rights for a reindex, beyond the minimal rights."""


async def test_rights_for_reindexing(
    deployment: str, layout: LayoutName, inspector: Inspector
) -> None:
    """The documented rights are enough for a reindex, and each of them is needed.

    An exhaustive revocation needs one of them.
    """
    kind, _, rights = DEPLOYMENTS[deployment]
    least, patterns = (
        rights if layout == "default" else for_sets(rights),
        ("~session:*", f"~{inspector.layout.user_session}:*"),
    )
    for missing in ("", *SEARCHING[layout]):
        inspector.on_each("FLUSHALL")
        inspector.fill("u1", 1)
        inspector.write(row(OLD))
        allow(
            inspector,
            *patterns,
            *(f"+{right}" for right in (*least, *SEARCHING[layout]) if right != missing),
        )
        async with (
            make_client(kind, inspector) as client,
            AsyncRedisSessionAdapter(client, layout=layout) as adapter,
        ):
            if missing:
                with pytest.raises(REFUSALS, match=r"(?i)no.* permissions|NOPERM"):
                    await adapter.reindex()
            else:
                assert await adapter.reindex() == Reindexed(sessions=2, indexed=1)
    allow(inspector, *patterns, *(f"+{right}" for right in (*least, "scan")))
    async with (
        make_client(kind, inspector) as client,
        AsyncRedisSessionAdapter(client, layout=layout) as adapter,
    ):
        await adapter.delete_sessions_by_user_id("u1", exhaustive=True)
        assert inspector.live() == set()
    inspector.on_each("ACL", "DELUSER", "app")


async def test_index_of_the_other_layout(
    adapter: AsyncRedisSessionAdapter, inspector: Inspector, layout: LayoutName
) -> None:
    """An index of the other layout is an error at a login, and nothing of the login is left."""
    index = inspector.layout.index_key("u1")
    other = "sadd" if layout == "default" else "lpush"
    getattr(inspector.client, other)(index, "foreign")
    with pytest.raises(StoreCorrupt, match="of another type: another program, or another layout"):
        await add(adapter, "one")
    assert inspector.live() == set()
    assert inspector.census()[index].type == ("set" if layout == "default" else "list")


# Data of Lucia JS


def left_by_original(
    inspector: Inspector, session_id: str, *, life: int = HOUR, indexed: bool = True
) -> SessionRow:
    """Write a session as the adapter of Lucia JS up to 2.1.1 did.

    Its key lives for 57 years, its index has no TTL, and its record has four members.
    """
    session = row(session_id, life=life)
    inspector.client.set(inspector.layout.session_key(session_id), encode_row(session), px=CENTURY)
    if indexed:
        inspector.enter(session_id)
    return session


async def test_dead_session_with_a_long_life(auth: AsyncAuth[Any], inspector: Inspector) -> None:
    """An expired session is invalid, even if its key lives on.

    Listing the devices removes the session, and the next time its index entry.
    """
    left_by_original(inspector, OLD, life=-1_000)
    left_by_original(inspector, OTHER)
    with pytest.raises(InvalidSessionId):
        await auth.validate_session(OLD)
    with pytest.raises(InvalidSessionId):
        await auth.renew_session(OLD)
    assert inspector.live() == {OLD, OTHER}
    assert len(await auth.get_all_user_sessions("u1")) == 1
    assert inspector.live() == {OTHER}
    assert len(await auth.get_all_user_sessions("u1")) == 1
    assert inspector.index() == [OTHER]


async def test_live_session_with_a_long_life(auth: AsyncAuth[Any], inspector: Inspector) -> None:
    """A live session works with any TTL: it is validated, listed, renewed and revoked."""
    left_by_original(inspector, OLD)
    left_by_original(inspector, OTHER)
    assert (await auth.validate_session(OLD)).session_id == OLD
    assert len(await auth.get_all_user_sessions("u1")) == 2
    renewed = await auth.renew_session(OLD)
    assert inspector.live() == {OTHER, renewed.session_id}
    await auth.invalidate_all_user_sessions("u1")
    assert inspector.live() == set()


async def test_entries_of_dead_sessions(auth: AsyncAuth[Any], inspector: Inspector) -> None:
    """Index entries of dead sessions, which Lucia JS never removes, are pruned by a list."""
    left_by_original(inspector, OLD)
    inspector.enter(*(f"dead{number}" for number in range(100)))
    assert len(await auth.get_all_user_sessions("u1")) == 1
    assert inspector.index() == [OLD]
    inspector.enter("dead")
    await auth.invalidate_all_user_sessions("u1")
    # Without scripts, tombstones are left.
    assert inspector.keys() <= {inspector.layout.marker_key(id_) for id_ in (OLD, "dead")}


@pytest.mark.parametrize("then", ["end", "renew"])
async def test_session_missing_from_its_index(
    then: str, auth: AsyncAuth[Any], inspector: Inspector
) -> None:
    """A session in no index is valid and can be revoked, and a renewal indexes its successor."""
    left_by_original(inspector, OLD, indexed=False)
    assert (await auth.validate_session(OLD)).session_id == OLD
    if then == "end":
        await auth.invalidate_session(OLD)
        assert inspector.live() == set()
    else:
        renewed = await auth.renew_session(OLD)
        assert inspector.index() == [renewed.session_id]
        inspector.check()


async def test_index_without_ttl_keeps_none(auth: AsyncAuth[Any], inspector: Inspector) -> None:
    """An index without a TTL keeps having none: its entries may outlive our sessions.

    It is removed with its last entry.
    """
    index = inspector.layout.index_key("u1")
    left_by_original(inspector, OLD, life=100 * HOUR)
    session = await auth.create_session("u1")
    assert inspector.client.pttl(index) == -1
    session = await auth.renew_session(session.session_id)
    assert inspector.client.pttl(index) == -1
    assert await auth.invalidate_all_user_sessions("u1", keep=OLD)
    assert inspector.index() == [OLD]
    await auth.invalidate_session(OLD)
    assert not inspector.client.exists(index)


async def test_records_without_our_members(auth: AsyncAuth[Any], inspector: Inspector) -> None:
    """A record of Lucia JS is listed with a handle, and its active period as its start.

    It is revoked by this handle, even after a renewal.
    """
    end = system_clock() + HOUR
    for session_id in (OLD, OTHER):
        inspector.write(
            SessionRow(id=session_id, user_id="u1", active_expires=end, idle_expires=end + HOUR)
        )
        inspector.enter(session_id)
    first, second = await auth.get_all_user_sessions("u1")
    assert first.handle != second.handle
    assert int(first.created_at.timestamp() * 1000) == end - 24 * HOUR
    renewed = await auth.renew_session(OLD)
    assert {device.handle for device in await auth.get_all_user_sessions("u1")} == {
        first.handle,
        second.handle,
    }
    assert await auth.invalidate_user_session("u1", renewed.handle)
    assert inspector.live() == {OTHER}


# Other writers


@beside_others
async def test_index_has_no_ttl_with_legacy_writers(
    adapter: AsyncRedisSessionAdapter, inspector: Inspector
) -> None:
    """With ``legacy_writers`` an index gets no TTL, and loses one that it has."""
    index = inspector.layout.index_key("u1")
    inspector.fill("u1", 2)
    assert inspector.client.pttl(index) > 0
    await add(adapter, "one")
    assert inspector.client.pttl(index) == -1
    inspector.client.pexpire(index, HOUR)
    assert await renew(adapter, "one", "two") == "two"
    assert inspector.client.pttl(index) == -1
    assert set(inspector.index()) == {"u1-0", "u1-1", "two"}
    inspector.check()


@beside_others
@pytest.mark.parametrize("act", ["all", "others", "listing", "end", "logins"])
async def test_pending_js_login_stays_indexed(
    act: str, adapter: AsyncRedisSessionAdapter, inspector: Inspector
) -> None:
    """With ``legacy_writers``, an id that is indexed before its session exists stays indexed.

    So the next revocation of all sessions revokes it.
    """
    for number in range(15):
        await add(adapter, f"s{number}")
    inspector.enter("on its way")
    acts: dict[str, Callable[[], Any]] = {
        "all": lambda: adapter.delete_sessions_by_user_id("u1"),
        "others": lambda: adapter.delete_other_sessions("u1", "s1"),
        "listing": lambda: adapter.get_sessions_by_user_id("u1"),
        "end": lambda: adapter.delete_session("on its way", "s2"),
        "logins": lambda: add(adapter, *(f"more{number}" for number in range(33))),
    }
    await acts[act]()
    inspector.write(row("on its way"))
    assert "on its way" in inspector.index()
    assert len(inspector.index()) == len(inspector.live())
    await adapter.delete_sessions_by_user_id("u1")
    assert inspector.live() == set()
    assert inspector.index() == []


@beside_others
@of_sets
async def test_revoked_ids_leave_index_with_legacy_writers(
    adapter: AsyncRedisSessionAdapter, inspector: Inspector
) -> None:
    """With ``legacy_writers``, revoked and renewed ids leave the index; expired ones stay."""
    await add(adapter, "a", "b", "c", "d")
    await adapter.delete_session("a")
    assert await renew(adapter, "b", "b1") == "b1"
    inspector.client.delete(inspector.layout.session_key("d"))
    assert sorted(ids(await adapter.get_sessions_by_user_id("u1"))) == ["b1", "c"]
    assert inspector.index() == ["b1", "c", "d"]


@beside_others
@pytest.mark.parametrize("deployment", ["one server", "without scripts"])
async def test_rights_with_legacy_writers(
    deployment: str, layout: LayoutName, inspector: Inspector
) -> None:
    """With ``legacy_writers``, the right to PERSIST is needed too."""
    kind, _, rights = DEPLOYMENTS[deployment]
    rights = rights if layout == "default" else for_sets(rights)
    allow(
        inspector,
        "~session:*",
        f"~{inspector.layout.user_session}:*",
        *(f"+{right}" for right in rights),
    )
    async with make_client(kind, inspector) as client:
        adapter = AsyncRedisSessionAdapter(client, layout=layout, legacy_writers=True)
        with pytest.raises(REFUSALS, match=r"(?i)no.* permissions|NOPERM|can't run this command"):
            await add(adapter, "one")
        inspector.on_each("ACL", "SETUSER", "app", "+persist")
        await add(adapter, "two")
    inspector.on_each("ACL", "DELUSER", "app")
