"""``revoke_ack`` in a cluster while nodes are down, cut off or replaced, and slots move."""

import asyncio
from collections.abc import Iterator
from contextlib import closing, suppress
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest
import redis.exceptions
from redis.crc import key_slot

from lucia._async.stores.redis import router as async_router
from lucia._redis.commands import Call, Operation, ReplicationBarrier
from lucia._sync.stores.redis import router as sync_router
from lucia.errors import RevocationNotReplicated, StoreUnavailable
from lucia.models import SessionRow
from tests.support.cluster_changes import FLAVOURS, EitherAdapter, Member, either_adapter
from tests.support.redis_clusters import ReplicatedCluster, replicated_cluster
from tests.support.sessions import row
from tools.servers import until, unused_port

COUNT: Final = 120

NOT_CONFIRMED: Final = (
    RevocationNotReplicated,
    StoreUnavailable,
    redis.exceptions.RedisError,
)

pytestmark = pytest.mark.filterwarnings("ignore:(?s).*lib_:DeprecationWarning")

each_flavour = pytest.mark.parametrize("flavour", FLAVOURS)


@pytest.fixture
def group(tmp_path: Path) -> Iterator[ReplicatedCluster]:
    """Yield three primaries, each with a replica."""
    with replicated_cluster(tmp_path) as found:
        yield found


def rows_at(group: ReplicatedCluster, number: int, count: int = COUNT) -> list[SessionRow]:
    """Return sessions that are, with their users' indexes, at one primary."""
    ids = (f"s{each}" for each in range(10_000))
    users = (f"u{each}" for each in range(10_000))
    here = (each for each in ids if group.number_of(f"session:{each}") == number)
    theirs = (each for each in users if group.number_of(f"userSession:{each}") == number)
    return [row(id_, user) for id_, user, _ in zip(here, theirs, range(count), strict=False)]


def acknowledging(
    flavour: str, group: ReplicatedCluster, milliseconds: int = 300, **settings: Any
) -> Any:
    """Return an adapter that waits this long for one replica of each primary."""
    timeout = timedelta(milliseconds=milliseconds)
    return either_adapter(
        flavour, group.cluster, revoke_ack=1, revoke_ack_timeout=timeout, **settings
    )


async def confirmed(adapter: EitherAdapter, rows: list[SessionRow]) -> list[str]:
    """Revoke sessions one by one, and return those whose revocation was confirmed."""
    found: list[str] = []
    for each in rows:
        with suppress(*NOT_CONFIRMED):
            await adapter.delete(each.id)
            found.append(each.id)
    return found


async def read_on(adapter: EitherAdapter, rows: list[SessionRow]) -> None:
    """Read sessions until cancelled, ignoring errors."""
    while True:
        for each in rows:
            with suppress(*NOT_CONFIRMED):
                await adapter.get(each.id)
            await asyncio.sleep(0)


@each_flavour
@pytest.mark.parametrize("fault", [True, False], ids=["fault", "control"])
async def test_another_primary_is_down(flavour: str, fault: bool, group: ReplicatedCluster) -> None:
    """A primary whose replica is cut off confirms nothing while another primary is down.

    Other tasks read at the primary that is down, so that replies are lost. Control: without the
    faults everything is confirmed.
    """
    rows, others = rows_at(group, 0), rows_at(group, 1, 16)
    milliseconds, deadline = 20 if fault else 1_500, timedelta(seconds=2)
    async with acknowledging(flavour, group, milliseconds, deadline=deadline) as adapter:
        await adapter.add(*rows, *others)
        group.settle()
        if fault:
            group.primaries[0].refuse_replicas()
            group.primaries[1].kill()
        readers = [asyncio.create_task(read_on(adapter, others)) for _ in range(4)]
        found = await confirmed(adapter, rows)
        for each in readers:
            each.cancel()
        await asyncio.gather(*readers, return_exceptions=True)
    assert len(found) == (0 if fault else COUNT)
    if fault:  # the replica did not get the revocations
        assert group.replicas[0].sets() >= {f"session:{each.id}" for each in rows}


@each_flavour
async def test_a_primary_that_is_replaced_meanwhile(flavour: str, group: ReplicatedCluster) -> None:
    """A revocation that the new primary lacks is not confirmed by its replicas.

    The write went to the old primary, and the WAIT goes to the new one.
    """
    (ended,) = rows_at(group, 0, 1)
    old, new = group.primaries[0], group.replicas[0]
    async with acknowledging(flavour, group) as adapter:
        await adapter.add(ended)
        group.settle()
        old.refuse_replicas()
        driver = adapter.adapter._driver
        take_over = TakeOver(driver, lambda: _promote(group, new, group.replicas[1]))
        driver._wait_for_replicas = take_over.either(flavour)
        with pytest.raises(NOT_CONFIRMED):
            await adapter.delete(ended.id)
        assert take_over.done
        assert await adapter.get(ended.id) is None


class TakeOver:
    """A change that is made between a write and the WAIT for replicas."""

    def __init__(self, driver: Any, change: Any) -> None:
        self.done = False
        self._wait_for_replicas = driver._wait_for_replicas
        self._change = change

    def either(self, flavour: str) -> Any:
        """Return a replacement for the method that waits, in this flavour."""
        return self._later if flavour == "async" else self._now

    async def _later(self, *arguments: Any) -> Any:
        await asyncio.to_thread(self._do)
        return await self._wait_for_replicas(*arguments)

    def _now(self, *arguments: Any) -> Any:
        self._do()
        return self._wait_for_replicas(*arguments)

    def _do(self) -> None:
        self._change()
        self.done = True


def _promote(group: ReplicatedCluster, new: Any, helper: Any) -> None:
    """Kill the first primary, and let a replica without its last writes take over.

    The new primary gets a replica.
    """
    group.fail_over(0)
    helper.client.execute_command(
        "CLUSTER REPLICATE", new.client.execute_command("CLUSTER MYID").decode()
    )


@each_flavour
@pytest.mark.parametrize("slow", [False, True], ids=["", "slow"])
async def test_a_slot_that_moves_to_an_empty_node(
    flavour: str,
    slow: bool,
    group: ReplicatedCluster,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A revocation at a node that imports its first slot is not confirmed without replicas.

    Neither is one at the beginning of a sign-out everywhere that takes longer than any command.
    """
    if slow:
        for router in (async_router, sync_router):
            monkeypatch.setattr(router, "WRITE_SECONDS", 0.0)
    source = group.primaries[0]
    folder = tmp_path / "joins"
    folder.mkdir()
    with closing(Member(folder)) as target:
        target.client.execute_command("CLUSTER MEET", "127.0.0.1", source.port)
        nodes: list[Any] = [*group.primaries, *group.replicas, target]
        for node in nodes:
            until(partial(_knows, node, len(nodes)), 30)
        (key,) = (f"session:{each.id}" for each in rows_at(group, 0, 1))
        slot = key_slot(key.encode())
        source_id = source.client.execute_command("CLUSTER MYID").decode()
        target.client.execute_command("CLUSTER SETSLOT", slot, "IMPORTING", source_id)
        source.client.execute_command("CLUSTER SETSLOT", slot, "MIGRATING", target.id)
        async with acknowledging(
            flavour, group, milliseconds=100, deadline=timedelta(seconds=4)
        ) as adapter:
            driver = adapter.adapter._driver
            with pytest.raises((redis.exceptions.MovedError, StoreUnavailable)):
                await adapter.call(driver.run, _ended_and_asked(key))
            for node in (target, source):
                node.client.execute_command("CLUSTER SETSLOT", slot, "NODE", target.id)
            assert await adapter.call(driver.run, _ended_and_asked(key)) == 0
            route = await adapter.route()
            route._importing[("127.0.0.1", unused_port())] = 0.0  # a time long ago
            assert await adapter.call(driver.run, _ended_and_asked(key)) == 0


def _knows(node: Any, count: int) -> bool:
    info: dict[str, str] = node.client.execute_command("CLUSTER INFO")
    return (info["cluster_known_nodes"], info["cluster_state"]) == (str(count), "ok")


def _ended_and_asked(key: str) -> Operation[int]:
    """Delete a key, and return how many replicas confirmed it."""
    yield Call("DEL", (key,))
    found: int = yield ReplicationBarrier("session:renewed:", b"", 1, 100)
    return found
