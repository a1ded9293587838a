"""Slots that no node serves for a while, and nodes that know only a part of the slot map."""

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Final

import pytest
import redis.exceptions

from lucia._redis.transport.slots import SLOTS
from lucia.errors import StoreUnavailable
from tests.support.cluster_changes import (
    FLAVOURS,
    ChangingCluster,
    Member,
    changing_cluster,
    either_adapter,
)
from tests.support.sessions import row
from tools.servers import Cluster, until

IDS: Final = [f"s{number}" for number in range(200)]

SLOT: Final = 16_000
"""A slot without a session of this module."""

pytestmark = pytest.mark.filterwarnings("ignore:(?s).*lib_:DeprecationWarning")

each_flavour = pytest.mark.parametrize("flavour", FLAVOURS)


@pytest.fixture
def group(tmp_path: Path) -> Iterator[ChangingCluster]:
    """Yield a cluster of three primaries."""
    with changing_cluster(tmp_path) as found:
        yield found


def abandon(group: ChangingCluster) -> None:
    """Remove a slot from all nodes, and wait until they report the cluster as down."""
    abandon_quietly(group)
    for member in group.members:
        until(partial(is_down, member))


def abandon_quietly(group: ChangingCluster) -> None:
    """Remove a slot from all nodes."""
    # First from the node that serves the slot, or it tells the others again.
    for member in reversed(group.members):
        until(partial(forgets_slot, member))


def forgets_slot(member: Member) -> bool:
    """Remove the slot from a node, and return whether it is removed."""
    with suppress(redis.exceptions.ResponseError):  # already removed
        member.client.execute_command("CLUSTER DELSLOTS", SLOT)
    info: dict[str, str] = member.client.execute_command("CLUSTER INFO")
    return info["cluster_slots_assigned"] == str(SLOTS - 1)


def is_down(member: Member) -> bool:
    """Return whether a node reports the cluster as down."""
    info: dict[str, str] = member.client.execute_command("CLUSTER INFO")
    return info["cluster_state"] == "fail"


def adopt(group: ChangingCluster) -> None:
    """Assign the slot to the last node again."""
    group.members[-1].client.execute_command("CLUSTER ADDSLOTS", SLOT)


@each_flavour
async def test_a_cluster_that_is_down_for_a_while(flavour: str, group: ChangingCluster) -> None:
    """Hundreds of requests wait while the cluster is down, and then succeed."""
    patient = timedelta(seconds=20)
    async with either_adapter(flavour, group.cluster, deadline=patient) as adapter:
        await adapter.add(*map(row, IDS[:20]))
        abandon(group)
        reading = asyncio.gather(*map(adapter.get, IDS))
        await asyncio.sleep(1)
        assert not reading.done()
        adopt(group)
        assert sum(found is not None for found in await reading) == 20


@each_flavour
async def test_a_cluster_that_stays_down(flavour: str, group: ChangingCluster) -> None:
    """At the deadline the client's error or `StoreUnavailable` is raised."""
    soon = timedelta(seconds=1)
    async with either_adapter(flavour, group.cluster, deadline=soon) as adapter:
        await adapter.add(row("one"))
        abandon(group)
        with pytest.raises((redis.exceptions.ClusterDownError, StoreUnavailable)):
            await adapter.get("one")


@each_flavour
async def test_the_last_good_map_is_kept(flavour: str, group: ChangingCluster) -> None:
    """While no node knows all slots, the last complete map is used.

    Revocations are not confirmed.
    """
    async with either_adapter(
        flavour,
        group.cluster,
        deadline=timedelta(seconds=1.5),
        revoke_ack=1,
        revoke_ack_timeout=timedelta(milliseconds=50),
    ) as adapter:
        await adapter.add(*map(row, IDS[:20]))
        route = await adapter.route()
        before = route._slots
        assert len(before) == SLOTS
        for member in group.members:
            member.client.config_set("cluster-require-full-coverage", "no")
        abandon_quietly(group)
        for member in group.members:
            member.client.client_kill_filter(_type="normal", skipme=True)
        assert await adapter.live(*IDS[:20]) == set(IDS[:20])
        route._is_outdated = True  # as after a redirection
        with pytest.raises(StoreUnavailable) as raised:
            await adapter.delete("s0")
        assert raised.value.ambiguous
        assert route._slots is before
        assert await adapter.live("s0") == set()
        adopt(group)


@each_flavour
async def test_a_node_that_knows_a_part(flavour: str, group: ChangingCluster) -> None:
    """If the first configured node belongs to no cluster, another node's map is used."""
    stranger = group.start()
    ports = (stranger.port, *group.cluster.ports)
    async with either_adapter(flavour, group.cluster) as adapter:
        route = await adapter.route()
        nodes = tuple(("127.0.0.1", port) for port in ports)
        object.__setattr__(route._topology, "nodes", nodes)
        await adapter.add(*map(row, IDS[:20]))
        assert await adapter.live(*IDS[:20]) == set(IDS[:20])
        assert stranger.port not in {port for _, port in route._nodes}


@each_flavour
async def test_a_node_without_a_cluster(flavour: str, group: ChangingCluster) -> None:
    """If no node knows all slots, the error of one that replies is raised."""
    async with either_adapter(flavour, group.cluster, deadline=timedelta(seconds=0.5)) as adapter:
        route = await adapter.route()
        lone = Cluster((group.start().port,))
        object.__setattr__(route._topology, "nodes", (("127.0.0.1", lone.ports[0]),))
        with pytest.raises((redis.exceptions.ClusterDownError, StoreUnavailable)):
            await adapter.get("one")
