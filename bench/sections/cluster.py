"""The operations in a cluster of three nodes."""

from collections.abc import Iterator
from typing import Final

from bench.rates import Rates
from bench.rows import Row, Want
from bench.section import Goal, Plan, Section
from bench.subject_lists import BARE, OURS, in_a_cluster
from bench.subjects import started
from tools.servers import own_cluster

__all__ = ["SECTION"]

NAME: Final = "cluster"
OPERATIONS: Final = {
    "again": "validate again",
    "first": "validate first",
    "create": "create",
    "renew": "renew",
    "revoke": "revoke",
}


def measure(plan: Plan) -> Iterator[Row]:
    """Measure the libraries that support clusters."""
    with own_cluster(plan.folder) as cluster, started(cluster.url, *in_a_cluster()) as subjects:
        rates = Rates(
            plan=plan,
            section=NAME,
            subjects=subjects,
            callers=plan.size.callers,
            column="concurrency",
            flush=cluster.flush,
        )
        for operation, name in OPERATIONS.items():
            yield from rates.measure(operation, name)


def _row(subject: str) -> Want:
    return Want(
        NAME, subject, {"operation": "validate again", "loop": "asyncio", "concurrency": 256}
    )


SECTION: Final = Section(
    name=NAME,
    title="A cluster of three nodes",
    about=(
        "Sessions per second, all nodes on this machine; in brackets, the ratio to bare calls of "
        "redis-py's `RedisCluster` on asyncio."
    ),
    columns="concurrency",
    base=Want(NAME, BARE, {"loop": "asyncio"}),
    measure=measure,
    goals=(
        Goal(
            text="cluster: `validate_session`, 256 at once, against `RedisCluster.get`",
            row=_row(OURS),
            base=_row(BARE),
            bound=8,
        ),
    ),
)
