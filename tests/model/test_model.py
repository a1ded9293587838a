"""The shipped operations keep the store's invariants in every interleaving, with every fault.

``LUCIA_MODEL=large`` adds the scenarios that take minutes. The invariants are in
``invariants.py``, and the faults in ``world.py``.

=================== ========= ========= ========== =========
protocol            scenarios    worlds with large    worlds
=================== ========= ========= ========== =========
one server                 33     1,727         45     3,800
cluster                    33    28,742         45 1,530,000
without scripts            33   286,095         42 1,890,000
=================== ========= ========= ========== =========

Measured on one core with Python 3.11: 22 seconds, and three minutes with the large scenarios. With
sets as indexes there are as many worlds, of which only a few scenarios are run by default. With
those, the scenarios with Lucia JS's logins, and ``test_server_model.py`` it is 32 seconds, and
about six minutes with the large scenarios.
"""

from collections.abc import Callable
from dataclasses import replace
from itertools import product
from typing import Final

import pytest

from lucia._redis import cluster, operations, single_server
from lucia._redis.cluster import ClusterStore, PlainSteps, ScriptedSteps
from lucia._redis.index import LEGACY_LIST, LEGACY_SET, SET, Index
from lucia._redis.keys import Layout
from lucia._redis.single_server import SingleServerStore
from lucia._redis.store import Store
from tests.model.controls import CONTROLS, Control
from tests.model.explore import Explorer, Violation
from tests.model.scenarios import (
    LARGE,
    LARGE_SCENARIOS,
    LEGACY_SCENARIOS,
    SCENARIOS,
    SINGLE_USE,
    Tasks,
    with_sets,
)
from tests.model.world import LAYOUT, Scenario

MAKE: Final[dict[str, Callable[[Layout], Store]]] = {
    "one server": SingleServerStore,
    "cluster": lambda layout: ClusterStore(layout, ScriptedSteps()),
    "without scripts": lambda layout: ClusterStore(layout, PlainSteps()),
}

STORES: Final = {name: store(LAYOUT) for name, store in MAKE.items()}

SET_STORES: Final = {name: store(replace(LAYOUT, index=SET)) for name, store in MAKE.items()}

LEGACY_STORES: Final[dict[str, tuple[Store, Index]]] = {
    name + kind: (store(replace(LAYOUT, index=index)), index)
    for kind, index in (("", LEGACY_LIST), (", sets", LEGACY_SET))
    for name, store in MAKE.items()
}

pytestmark = pytest.mark.slow

CHOSEN: Final = {**SCENARIOS, **SINGLE_USE, **(LARGE_SCENARIOS if LARGE else {})}


BESIDE: Final = [
    (protocol, name)
    for protocol in LEGACY_STORES
    for name in LEGACY_SCENARIOS
    if LARGE
    or name in ("a JS login, a sign-out", "a JS login, a listing")
    or not protocol.endswith(", sets")
]
"""With sets, only the scenarios that cover each kind of command."""

OVER_SETS: Final = (
    "two listings, a login",
    "a capped login, an end",
    "a login with a taken id",
    "a renewal, a sign-out",
    "a renewal, others signed out",
)
"""Scenarios that cover each kind of command that is sent to an index."""

TOO_LARGE: Final = {
    ("without scripts", name)
    for name in ("two logins, two sign-outs", "two capped logins, a renewal", "three capped logins")
}
"""Scenarios of more than a million worlds: each login and sign-out takes eight commands there."""

CASES: Final = [
    (protocol, name) for protocol in STORES for name in CHOSEN if (protocol, name) not in TOO_LARGE
]


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest) -> Store:
    """Return each protocol."""
    return STORES[request.param]


@pytest.mark.parametrize(("protocol", "name"), CASES)
def test_invariants_hold(protocol: str, name: str) -> None:
    """Every invariant holds in every world of every scenario."""
    scenario = CHOSEN[name](Tasks(STORES[protocol]))
    assert Explorer(scenario).run() > len(scenario.tasks)


@pytest.mark.parametrize(
    ("protocol", "name"), CASES if LARGE else [*product(SET_STORES, OVER_SETS)]
)
def test_invariants_hold_with_set_index(protocol: str, name: str) -> None:
    """Every invariant holds with a set as the index."""
    scenario = with_sets(CHOSEN[name](Tasks(SET_STORES[protocol])))
    assert Explorer(scenario).run() > len(scenario.tasks)


@pytest.mark.parametrize(("protocol", "name"), BESIDE)
def test_invariants_hold_with_legacy_writers(protocol: str, name: str) -> None:
    """With ``legacy_writers`` no session that Lucia JS creates is lost.

    Once its id was handed out, a sign-out everywhere finds it.
    """
    store, index = LEGACY_STORES[protocol]
    scenario = LEGACY_SCENARIOS[name](Tasks(store, index))
    assert Explorer(with_sets(scenario) if index.type == "set" else scenario).run() > len(
        scenario.tasks
    )


@pytest.mark.parametrize("name", ["a JS login, a sign-out", "a JS login, a listing"])
def test_js_login_is_lost_without_legacy_writers(store: Store, name: str) -> None:
    """Without ``legacy_writers`` the index entry of a session that is not written yet is lost."""
    with pytest.raises(
        Violation, match=r"\AI1: j was handed out and validates, and is not in the index"
    ):
        Explorer(LEGACY_SCENARIOS[name](Tasks(store)), invariant="I1").run()


@pytest.mark.parametrize(
    "name", ["a renewal, a sign-out", "a login, others signed out", "a renewal, others signed out"]
)
def test_invariants_hold_when_revoking_in_blocks(
    store: Store, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sign-out of more sessions than one command may revoke keeps the invariants."""
    monkeypatch.setattr(single_server, "MAX_SESSIONS_PER_COMMAND", 1)
    monkeypatch.setattr(cluster, "MAX_COMMANDS_PER_BATCH", 1)
    scenario = replace(SCENARIOS[name](Tasks(store)), resends=0, failures=0)
    assert Explorer(scenario).run() > len(scenario.tasks)


@pytest.mark.parametrize("name", ["two logins, a sign-out", "two listings, a login"])
def test_invariants_hold_while_logins_prune(
    store: Store, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Logins that prune dead ids never remove a live one."""
    monkeypatch.setattr(operations, "PRUNE_SAMPLE_SIZE", 1)
    scenario = SCENARIOS[name](Tasks(store))
    assert Explorer(scenario).run() > len(scenario.tasks)


def test_late_resent_create_revives_revoked_session(store: Store) -> None:
    """Creates are not sent again: one that executes late would revive a revoked session."""
    do = Tasks(store)
    with pytest.raises(Violation, match=r"\AI2: a was revoked, and a validates"):
        Explorer(
            Scenario((do.create("a"), do.revoke()), zombies=1, zombie_creates=True), invariant="I2"
        ).run()


@pytest.mark.parametrize(
    "control",
    CONTROLS,
    ids=lambda control: f"{type(control.store).__name__} breaks {control.invariant}",
)
def test_control_is_caught(control: Control) -> None:
    """The explorer finds the invariant that each wrong protocol breaks."""
    with pytest.raises(Violation, match=rf"\A{control.invariant}:"):
        Explorer(
            SCENARIOS[control.scenario](Tasks(control.store)), invariant=control.invariant
        ).run()
