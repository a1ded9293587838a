"""Calls of the real adapter keep the invariants in every schedule, with cancellations and crashes.

``LUCIA_MODEL=large`` also runs three calls in a cluster, and cancels two of them.
"""

import asyncio
from collections.abc import Callable
from typing import Any, Final

import pytest

from lucia._async.stores.redis.driver import AsyncRedisDriver
from lucia._redis.cluster import ClusterStore, PlainSteps, ScriptedSteps
from lucia._redis.commands import Command, Reply, Transaction
from lucia._redis.single_server import SingleServerStore
from lucia._redis.store import Store
from lucia.adapters.redis import AsyncRedisSessionAdapter
from tests.model.controls import CONTROLS, Control
from tests.model.explore import Violation
from tests.model.gates import (
    ForgetfulClient,
    Gate,
    GatedClient,
    MakeClient,
    ModelServer,
    RedisCluster,
    ScriptlessClient,
)
from tests.model.scenarios import LARGE, SCENARIOS, Tasks
from tests.model.scheduler import Scheduler
from tests.model.world import LAYOUT, Scenario

CLIENTS: Final[dict[str, MakeClient]] = {
    "one server": GatedClient,
    "one server, SCRIPT FLUSH": ForgetfulClient,
    "cluster": RedisCluster,
    "without scripts": ScriptlessClient,
}

FAST: Final = ("one server", "one server, SCRIPT FLUSH", "cluster")
"""Clients whose calls take few commands, so that more schedules can be run."""

TWO_CALLS: Final = (
    "a login, a sign-out, failing",
    "a login, a listing, failing",
    "a login, others signed out",
    "a renewal with a taken id",
    "two renewals",
    "a renewal, an end",
    "a renewal, a listing",
    "a renewal, a sign-out",
    "a renewal, others signed out",
    "renewed before, an end",
    "renewed before, others signed out",
    "a capped login, an end",
)

THREE_CALLS: Final = (
    "two logins, a sign-out",
    "a login, two sign-outs",
    "a login, a listing, a sign-out",
    "a login with a taken id",
    "two renewals, an end",
    "a renewal, two followers",
    "a renewal, a follower, a sign-out",
    "a renewal of a renewed one, an end",
)

CASES: Final = [
    *((place, name) for place in CLIENTS for name in TWO_CALLS),
    *(
        (place, name)
        for place in CLIENTS
        for name in THREE_CALLS
        if place in (FAST if LARGE else FAST[:2])
    ),
]

pytestmark = pytest.mark.slow


def scenario_of(name: str, store: Store) -> Scenario:
    """Return a scenario of the model.

    The calls are made for its tasks by the real adapter. The protocol only decides whether a cap is
    kept at every moment.
    """
    return SCENARIOS[name](Tasks(store))


@pytest.mark.parametrize(("place", "name"), CASES)
def test_invariants_hold(place: str, name: str) -> None:
    """Every invariant holds at every await of every schedule, wherever one call is cancelled."""
    scenario = scenario_of(
        name,
        SingleServerStore(LAYOUT)
        if place.startswith("one server")
        else ClusterStore(LAYOUT, PlainSteps()),
    )
    assert Scheduler(
        scenario, CLIENTS[place], cancellations=2 if LARGE and place in FAST else 1
    ).run() > len(scenario.tasks)


def test_without_scripts() -> None:
    """The adapter uses plain commands if and only if scripts are refused."""

    async def protocol_after(client: GatedClient, gate: Gate) -> Store:
        adapter, server = AsyncRedisSessionAdapter(client), ModelServer(())
        call = asyncio.ensure_future(adapter.delete_session("o"))
        while not call.done():
            await asyncio.sleep(0)
            if gate.waiting is not None:
                gate.open(server)
        return adapter._server_store

    gates = {name: Gate() for name in CLIENTS}
    found = {
        name: asyncio.run(protocol_after(CLIENTS[name](gate), gate)) for name, gate in gates.items()
    }
    assert [type(protocol) for protocol in found.values()] == [
        SingleServerStore,
        SingleServerStore,
        ClusterStore,
        ClusterStore,
    ]
    assert [
        type(protocol.steps) for protocol in found.values() if isinstance(protocol, ClusterStore)
    ] == [ScriptedSteps, PlainSteps]


def of(store: Store) -> Callable[[Any], AsyncRedisSessionAdapter]:
    """Return a function that makes adapters with this protocol."""

    def make(client: Any) -> AsyncRedisSessionAdapter:
        adapter = AsyncRedisSessionAdapter(client)
        adapter._store = store
        return adapter

    return make


@pytest.mark.parametrize(
    "control", CONTROLS, ids=lambda control: f"{type(control.store).__name__}, {control.invariant}"
)
def test_control_is_caught(control: Control) -> None:
    """A wrong protocol breaks its invariant in some schedule."""
    with pytest.raises(Violation, match=rf"\A{control.invariant}:"):
        Scheduler(
            scenario_of(control.scenario, control.store),
            GatedClient,
            adapter=of(control.store),
            invariant=control.invariant,
        ).run()


class PiecemealDriver(AsyncRedisDriver):
    """A wrong driver that sends the commands of a transaction one by one."""

    async def _send(self, command: Command, *arguments: Any, **options: Any) -> Reply:
        if not isinstance(command, Transaction):
            return await super()._send(command, *arguments, **options)
        return [
            await super(PiecemealDriver, self)._send(each, *arguments, **options)
            for each in command.commands
        ]


def piecemeal(client: Any) -> AsyncRedisSessionAdapter:
    """Return an adapter with that driver and without scripts."""
    adapter = of(ClusterStore(LAYOUT, PlainSteps()))(client)
    adapter._driver = PiecemealDriver(client)
    return adapter


@pytest.mark.parametrize(
    ("name", "invariant"), [("a login, a sign-out, failing", "I3"), ("two renewals", "I5")]
)
def test_wrong_driver_is_caught(name: str, invariant: str) -> None:
    """A driver that does not keep a transaction whole breaks an invariant."""
    with pytest.raises(Violation, match=rf"\A{invariant}:"):
        Scheduler(
            scenario_of(name, ClusterStore(LAYOUT, PlainSteps())),
            GatedClient,
            adapter=piecemeal,
            invariant=invariant,
        ).run()
