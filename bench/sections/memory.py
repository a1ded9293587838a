"""What the process holds in memory after so many validations."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Final

from bench.rows import Row, Want
from bench.section import FULL, Goal, Plan, Section
from bench.subjects import started
from bench.who import NEAR, OURS, everybody
from tools.servers import own_server

__all__ = ["SECTION"]

NAME: Final = "memory"
CALLERS: Final = 256
AT_ONCE: Final = 100_000
"""Validations of one request to a worker, which keeps the answers so long."""


def measure(plan: Plan) -> Iterator[Row]:
    """Ours, with the near-cache and without."""
    mine = [
        subject
        for subject in everybody()
        if subject.name in {OURS, NEAR} and subject.loop == "asyncio"
    ]
    with own_server("redis-server", plan.folder) as server, started(server.url, *mine) as subjects:
        for subject in subjects:
            subject.ask("prepare", "again", plan.size.pool)
            for before, validations in pairwise((0, *plan.size.validations)):
                for begin in range(before, validations, AT_ONCE):
                    subject.rate("again", CALLERS, min(AT_ONCE, validations - begin))
                setting: dict[str, str | int] = {"validations": validations}
                yield Row(
                    section=NAME,
                    subject=subject.subject.name,
                    setting=setting,
                    unit="MiB",
                    values=(subject.ask("memory"),),
                )


def _after(validations: int) -> Want:
    return Want(NAME, OURS, {"validations": validations})


SECTION: Final = Section(
    name=NAME,
    title="Memory",
    about="MiB of the whole process after so many validations, 256 at once; measured once.",
    columns="validations",
    measure=measure,
    goals=(
        Goal(
            text="memory of the process after 10 million validations, against that after 100,000 (5 % is noise)",
            row=_after(FULL.validations[-1]),
            base=_after(FULL.validations[0]),
            better="lower",
            bound=1.05,
        ),
    ),
)
