"""Validating sessions, compared with Lucia JS on Node alone, in longer measurements."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from bench.rates import Rates
from bench.rows import Row, Want
from bench.section import Goal, Plan, Section
from bench.subject_lists import LUCIA_JS, OURS, ours
from bench.subjects import Subject, started
from tools.servers import own_server

__all__ = ["SECTION"]

NAME: Final = "original"
CALLERS: Final = 256
TIMES: Final = 4
"""The duration of a measurement, as a multiple of other sections'."""

READS: Final = {"again": "sessions read again", "first": "sessions never read before"}
BOUNDS: Final = {"asyncio": 1.15, "uvloop": 1.4}


def measure(plan: Plan) -> Iterator[Row]:
    """Measure this library on both event loops and Lucia JS on Node, on the same server."""
    longer = replace(plan, size=replace(plan.size, seconds=TIMES * plan.size.seconds))
    node = Subject(name=LUCIA_JS, library="lucia", loop="Node")
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
    title="Compared with Lucia on Node",
    about=(
        "Sessions per second; in brackets, the ratio to `lucia` on Node. *Read again*: the same "
        "four thousand sessions again and again. *Never read before*: each session on the server "
        "is read once."
    ),
    columns="concurrency",
    base=Want(NAME, LUCIA_JS, {"loop": "Node"}),
    measure=measure,
    goals=tuple(
        Goal(
            text=f"{operation}, 256 at once, against `lucia` 2.7.7 on Node: {loop}",
            row=_row(OURS, loop, operation),
            base=_row(LUCIA_JS, "Node", operation),
            bound=bound,
        )
        for operation in READS.values()
        for loop, bound in BOUNDS.items()
    ),
)
