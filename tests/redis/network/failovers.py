"""Failovers that lose the last writes, in each topology, and load on an adapter meanwhile."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from typing import Any, Final

from lucia._redis.records import SessionRecord
from lucia.models import SessionRow
from tests.support.callers import Call, Caller, foreign, read
from tests.support.redis_clusters import replicated_cluster
from tests.support.redis_inspectors import ClusterInspector, Inspector
from tests.support.replication import pair
from tests.support.sentinels import sentinel_pair
from tools.servers import Server

__all__ = ["SCENARIOS", "Load", "Scenario", "open_scenario"]

SCENARIOS: Final = ("one server", "four connections", "near-cache", "Sentinel", "cluster")

REVOKED: Final = 600
LIVE: Final = 20
VALIDATIONS: Final = 3_000


@dataclass(frozen=True)
class Scenario:
    """Servers, and how to lose their last writes.

    Args:
        connect: makes a client of ``Clients`` or ``AsyncClients`` for these servers.
        inspector: writes to the primaries.
        settle: waits until the replicas have all writes.
        isolate: cuts the replica off.
        fail_over: replaces the primary by the replica.
        is_lost: returns whether writes to the session with this id are lost.
        settings: options of the adapter.
    """

    connect: Callable[[Any], Any]
    inspector: Inspector
    settle: Callable[[], object]
    isolate: Callable[[], object]
    fail_over: Callable[[], object]
    is_lost: Callable[[str], bool] = lambda _: True
    settings: dict[str, Any] = field(default_factory=dict[str, Any])

    def prepare(self) -> "Load":
        """Store sessions, and wait until the replicas have them."""
        live = self.inspector.fill("live", LIVE)
        revoked = self.inspector.fill("revoked", REVOKED)
        self.settle()
        return Load(live, list(filter(self.is_lost, revoked)))


@contextmanager
def open_scenario(name: str, folder: Path) -> Iterator[Scenario]:
    """Start the servers of a scenario."""
    if name == "Sentinel":
        with _sentinel(folder) as found:
            yield found
    elif name == "cluster":
        with _cluster(folder) as found:
            yield found
    else:
        options = {"max_connections": 4} if name == "four connections" else {}
        settings = {"near_cache": timedelta(seconds=1)} if name == "near-cache" else {}
        with _one_server(folder, options, settings) as found:
            yield found


@contextmanager
def _one_server(
    folder: Path,
    options: dict[str, Any],
    settings: dict[str, Any],
) -> Iterator[Scenario]:
    with pair("redis-server", folder) as servers, Inspector(servers.primary.server()) as inspector:
        yield Scenario(
            partial(_client, server=servers.server(), options=options),
            inspector,
            servers.settle,
            servers.link.hold,
            servers.fail_over,
            settings=settings,
        )


def _client(clients: Any, server: Server, options: dict[str, Any]) -> Any:
    return clients.make("redis-py as it is", server, **options)


@contextmanager
def _sentinel(folder: Path) -> Iterator[Scenario]:
    with (
        sentinel_pair("redis", folder) as group,
        Inspector(group.pair.primary.server()) as inspector,
    ):
        yield Scenario(
            lambda clients: clients.behind_sentinel(group),
            inspector,
            group.pair.settle,
            group.pair.link.hold,
            group.fail_over,
        )


@contextmanager
def _cluster(folder: Path) -> Iterator[Scenario]:
    with replicated_cluster(folder) as group:
        inspector = ClusterInspector(group.cluster)
        try:
            yield Scenario(
                lambda clients: clients.of_cluster("redis", group.cluster),
                inspector,
                group.settle,
                group.primaries[0].refuse_replicas,
                partial(group.fail_over, 0),
                is_lost=lambda id_: group.number_of(f"session:{id_}") == 0,
            )
        finally:
            inspector.__exit__()


@dataclass(frozen=True)
class Load:
    """Sessions that stay alive, and others that are revoked."""

    live: Sequence[str]
    revoked: Sequence[str]

    def revoke(self, caller: Caller) -> None:
        """Revoke the sessions in ``revoked`` with this adapter."""

        def delete(adapter: Any) -> Any:
            return adapter.delete_session(*self.revoked)

        assert caller.all([delete]) == [None]
        self.assert_all_revoked(caller.all(map(read, self.revoked)))

    def reads(self, number: int = VALIDATIONS) -> list[Call]:
        """Return this many reads, of live and of revoked ids in turn."""
        pairs = islice(zip(cycle(self.live), cycle(self.revoked), strict=False), number // 2)
        return [read(id_) for each in pairs for id_ in each]

    def wrong(self, outcomes: Sequence[Any]) -> int:
        """Count the outcomes in which a revoked session is alive."""
        revoked = frozenset(self.revoked)
        return sum(
            isinstance(each, SessionRow | SessionRecord) and each.id in revoked for each in outcomes
        )

    def assert_all_revoked(self, outcomes: Sequence[Any]) -> None:
        """Check that no revoked session is alive, and that all errors are the expected ones."""
        wrong = self.wrong(outcomes)
        assert not wrong, f"{wrong} of {len(outcomes)} calls returned a revoked session"
        strange = foreign(outcomes)
        assert not strange, strange
