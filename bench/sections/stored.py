"""What a validation costs by the number of sessions that are stored."""

from collections.abc import Iterator
from typing import Final

from bench.rows import Row, Want
from bench.section import FULL, Goal, Plan, Plot, Section
from bench.subjects import Running, Subject, started
from bench.who import OURS, ours
from tools.servers import own_server

__all__ = ["SECTION"]

NAME: Final = "stored"
RAW: Final = "bare redis-py, coalesced"
COST: Final = "cost of one"
GROWTH: Final = "times that of the fewest"
CALLERS: Final = 256
LEAST: Final = 1_000
READS: Final = {"same": "the same thousand", "again": "all of them"}
NOISE: Final = 1.05
"""What two measurements of the same may differ by."""


def measure(plan: Plan) -> Iterator[Row]:
    """Ours and bare coalesced reads, each on a server of its own."""
    raw = Subject(name=RAW, library="redis_mget", loop="asyncio")
    with (
        own_server("redis-server", plan.folder) as server,
        own_server("redis-server", plan.folder) as other,
        started(server.url, ours()) as mine,
        started(other.url, raw) as bare,
    ):
        subjects = [*mine, *bare]
        first: dict[tuple[Running, str], list[float]] = {}
        for stored in plan.size.stored:
            for subject in subjects:
                subject.ask("grow", stored)
            keys = [(subject, operation) for operation in READS for subject in subjects]
            counts = {
                key: max(LEAST, int(plan.size.seconds * key[0].rate(key[1], CALLERS, LEAST)))
                for key in keys
            }
            costs: dict[tuple[Running, str], list[float]] = {key: [] for key in keys}
            for _ in range(plan.rounds):
                for key in keys:
                    costs[key].append(1e6 / key[0].rate(key[1], CALLERS, counts[key]))
            first = first or costs
            for subject, operation in keys:
                each, least = costs[subject, operation], first[subject, operation]
                growth = [cost / before for cost, before in zip(each, least, strict=True)]
                yield _row(subject, operation, COST, "µs", stored, each)
                yield _row(subject, operation, GROWTH, "×", stored, growth)


def _row(
    subject: Running, operation: str, what: str, unit: str, stored: int, values: list[float]
) -> Row:
    setting: dict[str, str | int] = {"reads": READS[operation], "what": what, "stored": stored}
    return Row(
        section=NAME, subject=subject.subject.name, setting=setting, unit=unit, values=tuple(values)
    )


def _most(subject: str, operation: str) -> Want:
    return Want(
        NAME, subject, {"reads": READS[operation], "what": GROWTH, "stored": FULL.stored[-1]}
    )


SECTION: Final = Section(
    name=NAME,
    title="By the number of stored sessions",
    about=(
        "Microseconds for each validation, 256 at once: of the same thousand sessions over and over, and of all sessions in a random "
        "order. The bare reads are the GETs of one turn of the event loop in one MGET, over redis-py, of records of the same size that "
        "nobody decodes."
    ),
    columns="stored",
    measure=measure,
    goals=tuple(
        Goal(
            text=f"growth of a validation's cost from 1,000 to 1,000,000 sessions, against that of bare coalesced reads: {reads}",
            row=_most(OURS, operation),
            base=_most(RAW, operation),
            better="lower",
            bound=NOISE,
        )
        for operation, reads in READS.items()
    ),
    plots=(
        Plot(
            name="stored",
            title="Cost of one validation by the number of stored sessions",
            y="microseconds",
            setting={"what": COST},
        ),
    ),
)
