"""Users with thousands of sessions: listing or revoking them does not block the event loop."""

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Final

import pytest
import redis

import lucia._async.sessions as sessions_module
import lucia._compat.blocks as blocks_module
import lucia._redis.operations as common_module
import lucia._rules.sessions as rules_module
from lucia import AsyncAuth, SessionRow, User
from lucia._compat.blocks import AsyncBlocks, Blocks, drain
from lucia._redis.commands import Call
from lucia._redis.index import SET
from lucia._redis.keys import Layout, LayoutName
from lucia._redis.records import encode_row
from lucia._rules.sessions import SessionExpiry, new_session_row, system_clock
from lucia.adapters.redis import AsyncRedisSessionAdapter
from lucia.models import handle_of
from tests.support.redis_clients import AsyncClients
from tools.servers import Cluster, Server

COUNT: Final = 2_300
AT_ONCE: Final = 500


def fill(client: Any, layout: Layout) -> list[str]:
    """Store many sessions of one user, oldest first, and return their ids."""
    now = system_clock()
    rows = [
        new_session_row("ann", now - 1_000 + number, SessionExpiry(), {"number": number})
        for number in range(COUNT)
    ]
    with client.pipeline(transaction=False) as pipeline:
        for row in rows:
            pipeline.set(layout.session_key(row.id), encode_row(row))
            for command in layout.index.add(layout.index_key("ann"), row.id):
                pipeline.execute_command(command.name, *command.arguments)
        pipeline.execute()
    return [row.id for row in rows]


@pytest.fixture(params=["one server", "one server, lucia-v2", "cluster"])
async def auth(
    request: pytest.FixtureRequest, redis_server: Server, cluster: Cluster
) -> AsyncIterator[AsyncAuth[User]]:
    """Yield an ``AsyncAuth`` whose user ann has many sessions."""
    layout: LayoutName = "lucia-v2" if "v2" in request.param else "default"
    if request.param == "cluster":
        nodes = redis.RedisCluster(host="127.0.0.1", port=cluster.ports[0])
        with nodes:
            nodes.flushall(target_nodes=redis.RedisCluster.PRIMARIES)
            fill(nodes, Layout.from_namespaces(None, layout))
        client = AsyncClients.of_cluster("redis", cluster)
    else:
        with redis.Redis.from_url(redis_server.url) as one:
            one.flushall()
            fill(one, Layout.from_namespaces(None, layout))
        client = AsyncClients.make("redis-py as it is", redis_server)
    async with client, AsyncRedisSessionAdapter(client, layout=layout) as adapter:
        yield AsyncAuth(sessions=adapter, env="DEV")


class LoopProbe:
    """A task that runs on every turn of the event loop, and counts calls between its turns."""

    def __init__(self) -> None:
        self.most = 0
        self.total = 0
        self._since = 0

    def counting(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap a function so that its calls are counted."""

        def counted(*args: Any, **options: Any) -> Any:
            self._since += 1
            return function(*args, **options)

        return counted

    async def beat(self) -> None:
        """Take turns until cancelled."""
        while True:
            self.most = max(self.most, self._since)
            self.total += self._since
            self._since = 0
            await asyncio.sleep(0)


@contextmanager
def probing(monkeypatch: pytest.MonkeyPatch, module: Any, name: str) -> Iterator[LoopProbe]:
    """Count the calls of this function, while a heart runs in the same event loop."""
    heart = LoopProbe()
    monkeypatch.setattr(module, name, heart.counting(getattr(module, name)))
    task = asyncio.get_running_loop().create_task(heart.beat())
    try:
        yield heart
    finally:
        task.cancel()


WORK: Final = {
    "decoding": (common_module, "decode_row", AT_ONCE),
    "dating": (rules_module, "login_time", AT_ONCE),
    # The last block of the sort is followed by the first one of the merge.
    "sorting": (sessions_module, "_created_at", 2 * AT_ONCE),
}
"""A function that is called for each session, and the most calls allowed between two turns."""


@pytest.mark.parametrize("work", WORK)
async def test_the_device_list_leaves_the_loop_to_others(
    work: str, auth: AsyncAuth[User], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The list has every session, newest first, and other tasks run between blocks of the work."""
    module, name, most = WORK[work]
    with probing(monkeypatch, module, name) as heart:
        devices = await auth.get_all_user_sessions("ann")
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    assert [device.metadata["number"] for device in devices] == list(range(COUNT))[::-1]
    assert heart.total >= COUNT
    assert 0 < heart.most <= most


@pytest.mark.parametrize("work", WORK)
async def test_control_probe_detects_blocked_loop(
    work: str, auth: AsyncAuth[User], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Control: if all the work is one block, the heart sees that the loop was blocked."""
    monkeypatch.setattr(blocks_module, "BLOCK_SIZE", COUNT)
    module, name, most = WORK[work]
    with probing(monkeypatch, module, name) as heart:
        await auth.get_all_user_sessions("ann")
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    assert heart.most >= COUNT > most


@pytest.mark.no_cover
@pytest.mark.parametrize("drains", [True, False])
async def test_rows_are_freed_while_listed(
    drains: bool, auth: AsyncAuth[User], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows are freed block by block while they are listed.

    When the last device is made, at most one block is left. Without ``drain`` all are left.
    """
    if not drains:
        monkeypatch.setattr(sessions_module, "drain", list[SessionRow])
    left: list[int] = []

    def counted(*args: Any) -> Any:
        left.append(rows_alive() if len(left) == COUNT - 1 else COUNT)
        return rules_module.to_device(*args)

    before = rows_alive()
    monkeypatch.setattr(sessions_module, "to_device", counted)
    await auth.get_all_user_sessions("ann")
    assert len(left) == COUNT
    assert left[-1] - before <= AT_ONCE if drains else left[-1] - before >= COUNT


def rows_alive() -> int:
    """Return how many session rows are in memory."""
    gc.collect()
    # By type(): isinstance() would evaluate lazy objects of other libraries, such as Django's.
    return sum(type(each) is SessionRow for each in gc.get_objects())


class Item:
    """An object that a weak set can count."""


async def test_drained_items_are_freed_block_by_block() -> None:
    """Each block of drained items is freed while the next one is used."""
    items = [Item() for _ in range(3 * AT_ONCE)]
    alive = weakref.WeakSet(items)
    left = drain(items)
    del items
    counts = [len(alive) async for block in AsyncBlocks(left) if len(block) == AT_ONCE]
    assert len(counts) == 3
    assert counts[-1] <= 2 * AT_ONCE


def test_blocks_of_any_iterable() -> None:
    """All blocks but the last are full, and an empty iterable has none."""
    assert [len(block) for block in Blocks(iter(range(AT_ONCE + 1)))] == [AT_ONCE, 1]
    assert list(Blocks(())) == []


class Unsortable(bytes):
    """An id that can't be compared."""

    def __lt__(self, other: object) -> bool:
        raise AssertionError("the ids are sorted")


def test_the_ids_of_a_set_are_not_sorted() -> None:
    """The ids of a set are read unsorted: sorting very many would block the event loop."""
    ids = [Unsortable(b"2"), Unsortable(b"1")]
    operation = SET.read("user_sessions:ann")
    assert next(operation) == Call("SMEMBERS", ("user_sessions:ann",))
    with pytest.raises(StopIteration) as stop:
        operation.send(ids)
    assert stop.value.value == ids
    with pytest.raises(AssertionError, match="sorted"):
        sorted(ids)


async def test_revoking_one_of_many_devices_does_not_block_the_loop(
    auth: AsyncAuth[User], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Finding or revoking one of many sessions by its handle does not block the loop."""
    newest, *_, oldest = await auth.get_all_user_sessions("ann")
    with probing(monkeypatch, sessions_module, "handle_of") as heart:
        assert await auth.invalidate_user_session("ann", oldest.handle)
        assert (await auth.get_user_session("ann", newest.handle)).handle == newest.handle
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    assert heart.total >= 2 * COUNT - 1
    assert heart.most <= AT_ONCE
    assert len(await auth.get_all_user_sessions("ann")) == COUNT - 1


async def test_one_of_many_is_kept(auth: AsyncAuth[User], monkeypatch: pytest.MonkeyPatch) -> None:
    """Revoking all sessions but one does not block the loop."""
    mine = await auth.create_session("ann")
    with probing(monkeypatch, common_module, "decode_row") as heart:
        assert await auth.invalidate_all_user_sessions("ann", keep=mine.session_id)
    assert heart.most <= AT_ONCE
    assert [device.handle for device in await auth.get_all_user_sessions("ann")] == [mine.handle]


async def test_sessions_that_are_listed_twice_are_listed_once(
    auth: AsyncAuth[User], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A session that is in two blocks of an index is listed once.

    Expired sessions whose records are still there are deleted block by block.
    """
    monkeypatch.setattr(blocks_module, "BLOCK_SIZE", 2)
    adapter: Any = auth._sessions
    now = system_clock()
    rows = [new_session_row("bob", now, SessionExpiry(), {}) for _ in range(5)]
    for row in rows:
        await adapter.set_session(row)
    dead = [replace(row, active_expires=1, idle_expires=2) for row in rows[1:]]
    layout: Layout = adapter._layout
    for row in dead:
        await adapter._run(
            lambda _: one_command("SET", layout.session_key(row.id), encode_row(row))  # noqa: B023
        )
    for row in rows:
        for call in layout.index.add(layout.index_key("bob"), row.id):
            await adapter._run(lambda _: one_command(call.name, *call.arguments))  # noqa: B023
    listed = await adapter.get_sessions_by_user_id("bob")
    assert sorted(row.id for row in listed) == sorted(row.id for row in rows)
    assert [device.handle for device in await auth.get_all_user_sessions("bob")] == [
        handle_of(rows[0])
    ]
    assert [row.id for row in await adapter.get_sessions_by_user_id("bob")] == [rows[0].id]


async def test_an_index_of_dead_ids(auth: AsyncAuth[User], monkeypatch: pytest.MonkeyPatch) -> None:
    """Markers of thousands of ids without a session are read in blocks too."""
    adapter: Any = auth._sessions
    layout: Layout = adapter._layout
    gone = [f"{number:040}" for number in range(COUNT)]
    for start in range(0, COUNT, 100):
        for id_ in gone[start : start + 100]:
            for call in layout.index.add(layout.index_key("cleo"), id_)[:1]:
                await adapter._run(lambda _: one_command(call.name, *call.arguments))  # noqa: B023
    mine = await auth.create_session("cleo")
    with probing(monkeypatch, common_module, "decode_marker") as heart:
        assert [device.handle for device in await auth.get_all_user_sessions("cleo")] == [
            mine.handle
        ]
    assert heart.most <= AT_ONCE


def one_command(name: str, *arguments: Any) -> Any:
    """Run one command as an operation."""
    return (yield Call(name, arguments))
