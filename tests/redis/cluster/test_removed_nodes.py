"""Nodes that leave a cluster, join it or move to other addresses while sessions are used."""

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import Final

import pytest
from redis.crc import key_slot
from redis.exceptions import MovedError

from lucia.errors import StoreUnavailable
from tests.support.acl_rights import LEAST_RIGHTS_CLUSTER
from tests.support.cluster_changes import (
    FLAVOURS,
    ChangingCluster,
    changing_cluster,
    either_adapter,
    swallow_port,
)
from tests.support.near_cache import wait_until
from tests.support.redis_clusters import replicated_cluster
from tests.support.replication import Node
from tests.support.sessions import row

LOADS_SLOWLY: Final = {
    "key-load-delay": 20_000,  # microseconds
    "loading-process-events-interval-bytes": 1_024,
    "rdbcompression": "no",
}

IDS: Final = [f"s{number}" for number in range(40)]

pytestmark = [
    pytest.mark.no_cover,
    pytest.mark.filterwarnings("ignore:(?s).*lib_:DeprecationWarning"),
]

each_flavour = pytest.mark.parametrize("flavour", FLAVOURS)


@pytest.fixture
def group(tmp_path: Path) -> Iterator[ChangingCluster]:
    """Yield a cluster of three primaries."""
    with changing_cluster(tmp_path) as found:
        yield found


@each_flavour
@pytest.mark.parametrize("reset", [True, False], ids=["del-node", "forgotten"])
async def test_a_node_that_left_and_runs_on(
    flavour: str, reset: bool, group: ChangingCluster
) -> None:
    """After the first configured node was emptied and removed, every session is found.

    This also holds after connections to other nodes broke, so that the slot map is read again.
    """
    first = group.members[0]
    async with either_adapter(flavour, group.cluster) as adapter:
        others = connections(first)  # of the application's own client
        await adapter.add(*map(row, IDS))
        group.empty(first)
        group.remove(first, reset=reset)
        assert await adapter.live(*IDS) == set(IDS)
        for member in group.members:
            member.client.client_kill_filter(_type="normal", skipme=True)
            assert await adapter.live(*IDS) == set(IDS)
        await adapter.add(row("new"))
        route = await adapter.route()
        await wait_until(lambda: {port for _, port in route._servers} <= set(group.cluster.ports))
        assert first.port not in {port for _, port in route._nodes}
        await wait_until(lambda: connections(first) <= others)


def connections(member: Node) -> int:
    """Return how many clients a node has, including the test's own."""
    return len(member.client.client_list(_type="normal"))


@each_flavour
@pytest.mark.slow
async def test_reshard_during_requests(flavour: str, group: ChangingCluster) -> None:
    """While a node is emptied and removed, no read fails or misses a session."""
    last = group.members[-1]
    failed: list[object] = []
    reads = 0
    done = asyncio.Event()
    async with either_adapter(flavour, group.cluster) as adapter:
        await adapter.add(*map(row, IDS))

        async def read(session_id: str) -> None:
            nonlocal reads
            while not done.is_set():
                try:
                    if await adapter.get(session_id) is None:
                        failed.append(session_id)
                except Exception as error:
                    failed.append(error)
                reads += 1

        readers = [asyncio.create_task(read(session_id)) for session_id in IDS[:8] * 4]
        await asyncio.to_thread(group.empty, last)
        await asyncio.to_thread(group.remove, last)
        await asyncio.sleep(0.2)
        done.set()
        await asyncio.gather(*readers)
        assert (failed, reads > len(readers)) == ([], True)


@each_flavour
async def test_a_node_that_joins(flavour: str, group: ChangingCluster) -> None:
    """A node that joins and takes slots serves its sessions, which can be revoked."""
    async with either_adapter(flavour, group.cluster) as adapter:
        await adapter.add(*map(row, IDS))
        member = group.add()
        source = group.members[0]
        group.move_slots(source, member, sorted(source.slots)[:2_000])
        group.settle()
        assert await adapter.live(*IDS) == set(IDS)
        theirs = [id_ for id_ in IDS if group.serving(f"session:{id_}") is member]
        await adapter.delete(theirs[0])
        assert await adapter.live(*IDS) == set(IDS) - {theirs[0]}


@each_flavour
async def test_a_node_that_imports_a_slot_and_is_loading(
    flavour: str, group: ChangingCluster
) -> None:
    """While the node that imports a slot is loading its data, the session store is unavailable.

    The node refuses ASKING, and the client closes the connection before the next reply.
    """
    source, target = group.members[0], group.members[1]
    for option, value in LOADS_SLOWLY.items():
        target.client.config_set(option, value)
    full = next(slot for slot in target.slots)
    tag = next(f"{{{number}}}" for number in range(10**6) if key_slot(b"%d" % number) == full)
    target.client.mset({f"{tag}{number}": "x" * 1_000 for number in range(50)})
    absent = next(id_ for id_ in IDS if group.serving(f"session:{id_}") is source)
    group.begin_move(source, target, [key_slot(f"session:{absent}".encode())])
    async with either_adapter(flavour, group.cluster) as adapter:
        assert await adapter.get(absent) is None
        errors: list[StoreUnavailable] = []
        loading = asyncio.create_task(
            asyncio.to_thread(target.client.execute_command, "DEBUG", "RELOAD")
        )
        while not loading.done():
            try:
                assert await adapter.get(absent) is None
            except StoreUnavailable as error:
                errors.append(error)
        await loading
        assert "BusyLoadingError" in {type(error.__cause__).__name__ for error in errors}
        assert await adapter.get(absent) is None


@each_flavour
@pytest.mark.parametrize("right", ["+asking", "-asking"])
async def test_right_to_ask_an_importing_node(
    flavour: str, right: str, group: ChangingCluster
) -> None:
    """An unknown id whose slot is being moved is read with the documented rights, ASKING included.

    Without it, the importing node only redirects back.
    """
    rights = [f"+{command}" for command in LEAST_RIGHTS_CLUSTER]
    for member in group.members:
        member.client.execute_command(
            *("ACL", "SETUSER", "app", "reset", "on", ">pass", "~session:*", "~userSession:*"),
            *(*rights, right),
        )
    absent = next(id_ for id_ in IDS if group.serving(f"session:{id_}") is group.members[0])
    slot = key_slot(f"session:{absent}".encode())
    group.begin_move(group.members[0], group.members[1], [slot])
    login = {"username": "app", "password": "pass"}
    deadline = timedelta(seconds=1)
    async with either_adapter(flavour, group.cluster, login, deadline=deadline) as adapter:
        if right == "+asking":
            assert await adapter.get(absent) is None
        else:
            with pytest.raises(MovedError):
                await adapter.get(absent)


@each_flavour
@pytest.mark.slow
async def test_a_node_that_moves_again_and_again(flavour: str, group: ChangingCluster) -> None:
    """However often a node moves, leaving addresses that drop packets, sessions are found."""
    deadline = timedelta(seconds=2)
    moving = group.members[0]
    with ExitStack() as swallowed:
        async with either_adapter(flavour, group.cluster, deadline=deadline) as adapter:
            await adapter.add(*map(row, IDS))
            for _ in range(12):
                before = moving.move_to_other_port()
                swallow_port(swallowed, before)
                group.settle()
                assert await adapter.live(*IDS) == set(IDS)
            route = await adapter.route()
            await wait_until(
                lambda: {port for _, port in route._servers} <= set(group.cluster.ports)
            )


@each_flavour
async def test_a_primary_that_became_a_replica(flavour: str, tmp_path: Path) -> None:
    """After a replica took over, the connections to the former primary are closed."""
    with replicated_cluster(tmp_path) as group:
        former, promoted = group.primaries[0], group.replicas[0]
        theirs = [id_ for id_ in IDS if group.number_of(f"session:{id_}") == 0]
        async with either_adapter(flavour, group.cluster) as adapter:
            others = connections(former)  # of the application's own client
            await adapter.add(*map(row, IDS))
            group.settle()
            promoted.client.execute_command("CLUSTER FAILOVER")
            await wait_until(lambda: promoted.client.info("replication")["role"] == "master")
            await wait_until(lambda: former.client.info("replication")["role"] == "slave")
            assert await adapter.live(*theirs) == set(theirs)
            route = await adapter.route()
            await wait_until(lambda: former.port not in {port for _, port in route._servers})
            await wait_until(lambda: connections(former) <= others)
            await adapter.delete(theirs[0])
            assert await adapter.live(*theirs) == set(theirs[1:])
