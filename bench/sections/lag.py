"""How long an ended session is still taken for one by another process that keeps sessions in memory."""

import random
import statistics
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from typing import Final

from bench.link import Link, link
from bench.rows import Row, Want
from bench.section import Goal, Histogram, Plan, Section
from bench.subjects import Running, Subject, started
from bench.who import LEASE, NEAR, OURS, OURS_WITH
from tools.servers import own_server

__all__ = ["SECTION"]

NAME: Final = "lag"
IDLE: Final = "idle"
LOADED: Final = "under load"
CUT: Final = "link cut unnoticed"
P99: Final = "p99"
LONGEST: Final = "longest"
EACH: Final = "each"
CALLERS: Final = 256
DEADLINE: Final = 0.3
"""In seconds, after which a read over the cut link is given up: not the default, to be done sooner."""


def measure(plan: Plan) -> Iterator[Row]:
    """One process ends sessions, another one validates them all the time, until they are refused there."""
    near = dict(OURS_WITH[NEAR])
    subjects = {name: _subject(NEAR, near) for name in (IDLE, LOADED)}
    with ExitStack() as stack:
        server = stack.enter_context(own_server("redis-server", plan.folder))
        way = stack.enter_context(link(server.port))
        (ending,) = stack.enter_context(started(server.url, _subject(OURS, {})))
        watching = dict(
            zip(subjects, stack.enter_context(started(server.url, *subjects.values())), strict=True)
        )
        (cut,) = stack.enter_context(
            started(way.url, _subject(NEAR, near | {"deadline": DEADLINE}))
        )
        sessions = [ending.ask("create") for _ in range(plan.size.pool)]
        lags: dict[str, list[list[float]]] = {IDLE: [], LOADED: [], CUT: []}
        for _ in range(plan.rounds):
            lags[IDLE].append([_lag(ending, watching[IDLE]) for _ in range(plan.size.revocations)])
            lags[CUT].append([_lag_when_cut(ending, cut, way) for _ in range(plan.size.cuts)])
        watching[LOADED].ask("load", CALLERS, sessions)
        for _ in range(plan.rounds):
            lags[LOADED].append(
                [_lag(ending, watching[LOADED]) for _ in range(plan.size.revocations)]
            )
    for name, rounds in lags.items():
        yield _row(name, "p50", [statistics.median(each) for each in rounds])
        yield _row(name, P99, [sorted(each)[int(0.99 * len(each))] for each in rounds])
        yield _row(name, LONGEST, [max(each) for each in rounds])
        yield _row(name, EACH, [lag for each in rounds for lag in each])


def _lag(ending: Running, watching: Running) -> float:
    """The milliseconds after a session's end in which another process still took it for one."""
    session_id = ending.ask("create")
    watching.ask("watch", session_id)
    end: float = ending.ask("revoke", session_id)
    seen: float = watching.ask("last_seen")
    return max(0.0, seen - end) * 1_000


def _lag_when_cut(ending: Running, watching: Running, way: Link) -> float:
    """Measure the time where the invalidation can't arrive."""
    session_id = ending.ask("create")
    watching.ask("watch", session_id)
    time.sleep(random.random() * LEASE)  # noqa: S311 # any moment between two signs of life
    way.cut()
    end: float = ending.ask("revoke", session_id)
    seen: float = watching.ask("last_seen")
    way.mend()
    return max(0.0, seen - end) * 1_000


def _subject(name: str, settings: Mapping[str, object]) -> Subject:
    return Subject(
        name=name, library="ours", loop="asyncio", settings=settings, program="lag_worker"
    )


def _row(state: str, what: str, values: list[float]) -> Row:
    return Row(
        section=NAME,
        subject=NEAR,
        setting={"other process": state, "lag": what},
        unit="ms",
        values=tuple(values),
    )


def _want(state: str, what: str) -> Want:
    return Want(NAME, NEAR, {"other process": state, "lag": what})


SECTION: Final = Section(
    name=NAME,
    title="Ended elsewhere, with the near-cache",
    about=(
        "Milliseconds from when a call that ended a session returned in one process until the last validation began that still took it "
        "for one in another process, which does nothing else; which validates with 256 callers all the time; or whose connection to the "
        "server was cut before so that neither side was told. It is 0 where no validation did."
    ),
    columns="lag",
    left_out={"lag": EACH},
    measure=measure,
    goals=(
        Goal(
            text="near-cache: lag of a session's end in another process, p99, idle",
            row=_want(IDLE, P99),
            better="lower",
            bound=1,
        ),
        Goal(text="the same under load", row=_want(LOADED, P99), better="lower", bound=10),
        Goal(
            text="the same over a cut link, never more than the lease",
            row=_want(CUT, LONGEST),
            better="lower",
            bound=LEASE * 1_000,
            every_round=True,
        ),
    ),
    plots=(
        Histogram(
            name="lag",
            title="Until a session's end is known in another process, with the near-cache",
            x="milliseconds",
            setting={"lag": EACH},
            by="other process",
            least=0.01,
        ),
    ),
)
