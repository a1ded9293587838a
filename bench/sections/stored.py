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


def measure(plan: Plan) -> Iterator[Row]:
    """Ours and bare coalesced reads, each on a server of its own, of sessions in a random order, 256 at once."""
    raw = Subject(name=RAW, library="redis_mget", loop="asyncio")
    with (
        own_server("redis-server", plan.folder) as server,
        own_server("redis-server", plan.folder) as other,
        started(server.url, ours()) as mine,
        started(other.url, raw) as bare,
    ):
        subjects = [*mine, *bare]
        first: dict[Running, list[float]] = {}
        for stored in plan.size.stored:
            for subject in subjects:
                subject.ask("grow", stored)
            counts = {subject: max(LEAST, int(plan.size.seconds * subject.rate("again", CALLERS, LEAST))) for subject in subjects}
            costs: dict[Running, list[float]] = {subject: [] for subject in subjects}
            for _ in range(plan.rounds):
                for subject in subjects:
                    costs[subject].append(1e6 / subject.rate("again", CALLERS, counts[subject]))
            first = first or costs
            for subject in subjects:
                growth = [cost / least for cost, least in zip(costs[subject], first[subject], strict=True)]
                yield _row(subject, COST, "µs", stored, costs[subject])
                yield _row(subject, GROWTH, "×", stored, growth)


def _row(subject: Running, what: str, unit: str, stored: int, values: list[float]) -> Row:
    return Row(section=NAME, subject=subject.subject.name, setting={"what": what, "stored": stored}, unit=unit, values=tuple(values))


def _most(subject: str) -> Want:
    return Want(NAME, subject, {"what": GROWTH, "stored": FULL.stored[-1]})


SECTION: Final = Section(
    name=NAME,
    title="By the number of stored sessions",
    about=(
        "Microseconds for each validation, 256 at once, of sessions in a random order. The bare reads are the GETs of one turn of the "
        "event loop in one MGET, over redis-py, of records of the same size that nobody decodes."
    ),
    columns="stored",
    measure=measure,
    goals=(
        Goal(
            text="growth of a validation's cost from 1,000 to 1,000,000 sessions, against that of bare coalesced reads (5 % is noise)",
            row=_most(OURS),
            base=_most(RAW),
            better="lower",
            bound=1.05,
        ),
    ),
    plots=(Plot(name="stored", title="Cost of one validation by the number of stored sessions", y="microseconds", setting={"what": COST}),),
)
