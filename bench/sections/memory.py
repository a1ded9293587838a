"""The memory of a process after many validations."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Final

from bench.rows import Row, Want
from bench.section import FULL, Goal, Plan, Section
from bench.stock import stock
from bench.subject_lists import NEAR, OURS, everybody
from bench.subjects import Running, started
from tools.servers import Server, own_server

__all__ = ["SECTION"]

NAME: Final = "memory"
CALLERS: Final = 256
AT_ONCE: Final = 100_000
"""The number of validations of the same sessions in one request to a worker."""

BATCH: Final = 10_000
"""The number of session ids that a worker holds at a time, when each is read once."""

AGAIN: Final = "read again"
FIRST: Final = "never read before"
MB: Final = 1e6


def measure(plan: Plan) -> Iterator[Row]:
    """Measure this library, with and without the near-cache; each kind of read has a process."""
    mine = [
        subject
        for subject in everybody()
        if subject.name in {OURS, NEAR} and subject.loop == "asyncio"
    ]
    with (
        own_server("redis-server", plan.folder) as server,
        started(server.url, *mine, *mine) as subjects,
    ):
        for subject in subjects[: len(mine)]:
            yield from _never_read(subject, server, plan.size.never_read)
        for subject in subjects[len(mine) :]:
            subject.ask("prepare", "again", plan.size.pool)
            for before, validations in pairwise((0, *plan.size.validations)):
                for begin in range(before, validations, AT_ONCE):
                    subject.rate("again", CALLERS, min(AT_ONCE, validations - begin))
                yield _row(subject, AGAIN, validations)


def _never_read(subject: Running, server: Server, validations: Sequence[int]) -> Iterator[Row]:
    """Read more and more sessions, each of them once, and yield the memory at each step."""
    server.flush()
    made = stock(subject, server.port, validations[-1])
    assert made
    # The first batch is in memory before the measurement: later ones only replace it.
    subject.ask("take", "first", *made, 0, BATCH)
    done = 0
    for count in validations:
        while done < count:
            if done % BATCH == 0:
                subject.ask("take", "first", *made, done, BATCH)
            part = min(count, done - done % BATCH + BATCH) - done
            subject.rate("first", CALLERS, part)
            done += part
        yield _row(subject, FIRST, count)


def _row(subject: Running, reads: str, validations: int) -> Row:
    setting: dict[str, str | int] = {"sessions": reads, "validations": validations}
    return Row(
        section=NAME,
        subject=subject.subject.name,
        setting=setting,
        unit="MB",
        values=(subject.ask("memory") / MB,),
    )


def _after(reads: str, validations: int) -> Want:
    return Want(NAME, OURS, {"sessions": reads, "validations": validations})


SECTION: Final = Section(
    name=NAME,
    title="Memory",
    about=(
        "Megabytes of the whole process by the number of validations, 256 at once, of the same "
        "sessions again and again, or of sessions that are each read once. Measured once."
    ),
    columns="validations",
    measure=measure,
    goals=(
        Goal(
            text="memory of a process after validating a million sessions, beyond that after 1,000",
            row=_after(FIRST, FULL.never_read[-1]),
            base=_after(FIRST, FULL.never_read[0]),
            by="difference",
            better="lower",
            bound=5,
        ),
        Goal(
            text=(
                "memory of the process after 10 million validations of the same sessions, against "
                "that after 100,000 (5 % is noise)"
            ),
            row=_after(AGAIN, FULL.validations[-1]),
            base=_after(AGAIN, FULL.validations[0]),
            better="lower",
            bound=1.05,
        ),
    ),
)
