"""Validating and creating sessions in sync code."""

from collections.abc import Iterator
from typing import Final

from bench.rates import Rates
from bench.rows import Row, Want
from bench.section import Goal, Plan, Section
from bench.subject_lists import BARE, OURS, sync
from bench.subjects import started
from tools.servers import own_server

__all__ = ["SECTION"]

NAME: Final = "sync"
THREADS: Final = (1, 16)


def measure(plan: Plan) -> Iterator[Row]:
    """Measure all sync libraries, each with its own sessions on the same server."""
    with (
        own_server("redis-server", plan.folder) as server,
        started(server.url, *sync()) as subjects,
    ):
        rates = Rates(
            plan=plan,
            section=NAME,
            subjects=subjects,
            callers=THREADS,
            column="threads",
            flush=server.flush,
        )
        yield from rates.measure("again", "validate again")
        yield from rates.measure("create", "create")


def _row(subject: str) -> Want:
    return Want(NAME, subject, {"operation": "validate again", "threads": 1})


SECTION: Final = Section(
    name=NAME,
    title="Sync",
    about=(
        "Sessions per second, in one thread and in 16; in brackets, the ratio to bare calls of "
        "redis-py."
    ),
    columns="threads",
    base=Want(NAME, BARE, {}),
    measure=measure,
    goals=(
        Goal(
            text="`Auth` (sync), `validate_session` against a bare redis-py GET",
            row=_row(OURS),
            base=_row(BARE),
            bound=0.9,
        ),
    ),
)
