"""Validating sessions beside the original on Node, in longer measurements and nobody else's company."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from bench.rates import Rates
from bench.rows import Row, Want
from bench.section import Goal, Plan, Section
from bench.subjects import Subject, started
from bench.who import OURS, THE_ORIGINAL, ours
from tools.servers import own_server

__all__ = ["SECTION"]

NAME: Final = "original"
CALLERS: Final = 256
TIMES: Final = 4
"""How many times as long as others' a measurement takes."""

READS: Final = {"again": "sessions read again", "first": "sessions never read before"}
BOUNDS: Final = {"asyncio": 1.15, "uvloop": 1.4}


def measure(plan: Plan) -> Iterator[Row]:
    """Measure the three of them in alternation, on the same server."""
    longer = replace(plan, size=replace(plan.size, seconds=TIMES * plan.size.seconds))
    node = Subject(name=THE_ORIGINAL, library="lucia", loop="Node")
    wanted = ours("asyncio"), ours("uvloop"), node
    with (
        own_server("redis-server", plan.folder) as server,
        started(server.url, *wanted) as subjects,
    ):
        rates = Rates(
            plan=longer,
            section=NAME,
            subjects=subjects,
            callers=(CALLERS,),
            column="concurrency",
            flush=server.flush,
            port=server.port,
        )
        for operation, name in READS.items():
            yield from rates.measure(operation, name)


def _row(subject: str, loop: str, operation: str) -> Want:
    return Want(NAME, subject, {"operation": operation, "loop": loop})


SECTION: Final = Section(
    name=NAME,
    title="Beside the original on Node",
    about=(
        "Sessions a second; in brackets, times those of `lucia` on Node. *Read again* are the same four thousand "
        "sessions over and over; of those *never read before* each is read once, and there are as many as are read."
    ),
    columns="concurrency",
    base=Want(NAME, THE_ORIGINAL, {"loop": "Node"}),
    measure=measure,
    goals=tuple(
        Goal(
            text=f"{operation}, 256 at once, against `lucia` 2.7.7 on Node: {loop}",
            row=_row(OURS, loop, operation),
            base=_row(THE_ORIGINAL, "Node", operation),
            bound=bound,
        )
        for operation in READS.values()
        for loop, bound in BOUNDS.items()
    ),
)
