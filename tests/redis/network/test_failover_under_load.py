"""A process never sees a session that it revoked, even through failovers under load."""

import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest

from tests.redis.network.failovers import SCENARIOS, Scenario, open_scenario
from tests.support.callers import open_caller, read, when_available
from tests.support.redis_clusters import ReplicatedCluster, replicated_cluster
from tests.support.redis_inspectors import ClusterInspector
from tools.servers import until

pytestmark = pytest.mark.no_cover

slow = pytest.mark.slow

FLAVOURS_OF: Final = {
    "one server": ("threads", "asyncio", "asyncio, coalesce=False", "uvloop"),
    "four connections": ("threads", "asyncio, coalesce=False"),
    "near-cache": ("asyncio", "uvloop"),
    "Sentinel": ("threads", "asyncio"),
    "cluster": ("threads", "asyncio"),
}

QUICK: Final = {("one server", "threads"), ("one server", "asyncio"), ("near-cache", "asyncio")}


def mark(name: str, flavour: str) -> Any:
    return pytest.param(name, flavour, marks=[] if (name, flavour) in QUICK else slow)


CASES: Final = [mark(name, flavour) for name in SCENARIOS for flavour in FLAVOURS_OF[name]]


@pytest.fixture
def scenario(name: str, tmp_path: Path) -> Iterator[Scenario]:
    with open_scenario(name, tmp_path) as found:
        yield found


@pytest.mark.parametrize(("name", "flavour"), CASES)
def test_revoked_before_a_failover(flavour: str, scenario: Scenario) -> None:
    """After a failover that lost revocations, the process that made them validates none.

    Control: in another process the same sessions are alive again.
    """
    load = scenario.prepare()
    with (
        open_caller(flavour, scenario.connect, **scenario.settings) as caller,
        open_caller("threads", scenario.connect) as control,
    ):
        scenario.isolate()
        load.revoke(caller)
        scenario.fail_over()
        outcomes = when_available(control, [read(load.revoked[0])])
        assert load.wrong(outcomes) == 1
        load.assert_all_revoked(caller.all(load.reads()))
        outcomes = when_available(caller, load.reads())
        load.assert_all_revoked(outcomes)
        assert None not in outcomes[::2]  # the live sessions
        # The replay has revoked them for all processes.
        assert load.wrong(control.all(map(read, load.revoked))) == 0


@pytest.mark.parametrize(("name", "flavour"), CASES)
def test_revoked_during_a_failover(flavour: str, scenario: Scenario) -> None:
    """No revoked session validates in requests that run throughout a failover."""
    load = scenario.prepare()
    with open_caller(flavour, scenario.connect, **scenario.settings) as caller:
        scenario.isolate()
        load.revoke(caller)

        def act() -> None:
            scenario.fail_over()
            time.sleep(0.5)

        for outcomes in caller.all_until(load.reads(400), act):
            load.assert_all_revoked(outcomes)
        outcomes = when_available(caller, load.reads())
        load.assert_all_revoked(outcomes)


# Failover and failback


@pytest.fixture
def group(tmp_path: Path) -> Iterator[ReplicatedCluster]:
    with replicated_cluster(tmp_path) as found:
        yield found


def take_over(group: ReplicatedCluster, there: bool) -> None:
    """Promote the first replica, or its former primary, without agreement of the others."""
    first, second = group.primaries[0], group.replicas[0]
    newcomer = second if there else first
    newcomer.refuse_replicas()  # so that the other one keeps its data
    newcomer.client.execute_command("CLUSTER", "FAILOVER", "TAKEOVER")
    for node in (*group.primaries, *group.replicas):
        until(partial(knows, node, newcomer.port), 30)


def knows(node: Any, port: int) -> bool:
    """Return whether a node says that the node at this port has the first slots."""
    slots = node.client.execute_command("CLUSTER SLOTS")
    return any(int(entry[2][1]) == port for entry in slots if entry[0] == 0)


@slow
@pytest.mark.parametrize(
    ("flavour", "revokes"),
    [
        ("threads", True),
        ("asyncio", True),
        ("asyncio, coalesce=False", True),
        ("threads", False),
    ],
)
def test_failover_and_failback(flavour: str, revokes: bool, group: ReplicatedCluster) -> None:
    """A session revoked at B stays revoked if A, which missed that, takes over again.

    The connections to A stay open all the time. Control: a process that did not revoke finds it.
    """
    inspector = ClusterInspector(group.cluster)
    ids = inspector.fill("user", 300)
    there = [id_ for id_ in ids if group.number_of(f"session:{id_}") == 0]
    group.settle()

    def connect(clients: Any) -> Any:
        return clients.of_cluster("redis", group.cluster)

    def delete(adapter: Any) -> Any:
        return adapter.delete_session(*there)

    with open_caller(flavour, connect) as caller, open_caller("threads", connect) as other:
        for each in (caller, other):
            assert None not in when_available(each, list(map(read, there)))
        take_over(group, there=True)
        assert when_available(caller if revokes else other, [delete]) == [None]
        when_available(caller, list(map(read, there)))
        take_over(group, there=False)
        outcomes = when_available(caller, list(map(read, there)))
    inspector.__exit__()
    wrong = sum(each is not None for each in outcomes)
    assert wrong == (0 if revokes else len(there))
