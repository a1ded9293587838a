"""`lucia doctor` on stores with every kind of damage."""

import pytest

from lucia._redis.doctor.findings import Kind
from tests.doctor.damaged_stores import (
    BARE,
    DAMAGE,
    LAYOUTS,
    DamagedStore,
    assert_tells_no_secret,
    doctor,
    dump,
)
from tests.support.redis_inspectors import ClusterInspector, Inspector
from tools.servers import Cluster, Server


@pytest.mark.parametrize("layout", LAYOUTS)
def test_all_damage_is_found_and_nothing_changed(server: Server, layout: str) -> None:
    """Every kind of damage is counted; no key is changed, and no session id printed."""
    with Inspector(server, LAYOUTS[layout]) as inspector:
        patient = DamagedStore(inspector)
        patient.in_every_way()
        before = dump(inspector)
        outcome = doctor(server.url, "--layout", layout, "--json", "--verbose")
        assert outcome.counts() == patient.damage
        assert outcome.code == outcome.report["exit_code"] == 1
        assert outcome.counts("fixed") == {}
        assert dump(inspector) == before
        assert_tells_no_secret(outcome, patient.secrets)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_fix(server: Server, layout: str) -> None:
    """--fix fixes everything that needs no other option; with these, nothing is left."""
    with Inspector(server, LAYOUTS[layout]) as inspector:
        patient = DamagedStore(inspector)
        patient.in_every_way()
        outcome = doctor(server.url, "--layout", layout, "--json", "--fix")
        assert outcome.counts() == patient.damage
        left = {
            kind: count for kind, count in patient.damage.items() if Kind(kind) in {*DAMAGE, *BARE}
        }
        left[Kind.UNINDEXED_SESSION] = 1  # its index key has another type
        assert outcome.counts("left") == left
        assert outcome.code == 1
        again = doctor(server.url, "--layout", layout, "--json")
        assert again.counts() == left
        everything = doctor(
            server.url, "--layout", layout, "--json", "--fix", "--delete-damaged", "--move-bare"
        )
        assert everything.counts("left") == {}
        assert everything.code == 0
        assert doctor(server.url, "--layout", layout, "--json").counts() == {}
        assert inspector.client.exists(*patient.foreign) == len(patient.foreign)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_cluster(cluster: Cluster, layout: str) -> None:
    """A cluster is detected, and every node is fixed; bare keys are not moved there."""
    with ClusterInspector(cluster, LAYOUTS[layout]) as inspector:
        patient = DamagedStore(inspector)
        patient.in_every_way()
        before = dump(inspector)
        outcome = doctor(cluster.url, "--layout", layout, "--json")
        assert outcome.counts() == patient.damage
        assert dump(inspector) == before
        assert len(outcome.report["servers"]) == 3
        fixed = doctor(
            cluster.url, "--layout", layout, "--json", "--fix", "--delete-damaged", "--move-bare"
        )
        left: dict[str, int] = {Kind.BARE_SESSION: 3, Kind.BARE_INDEX: 1}
        assert {**left, **fixed.counts("left")} in (left, {**left, Kind.UNINDEXED_SESSION: 1})
        doctor(cluster.url, "--layout", layout, "--fix")
        last = doctor(cluster.url, "--layout", layout, "--json")
        assert last.counts() == left
        assert last.code == 1
