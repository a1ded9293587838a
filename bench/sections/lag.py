"""How long another process with a near-cache still accepts a revoked session."""

import random
import statistics
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from typing import Final

from bench.cuttable_proxy import CuttableProxy, link
from bench.rows import Row, Want
from bench.section import Goal, Histogram, Plan, Section
from bench.subject_lists import LEASE, NEAR, OURS, OURS_WITH
from bench.subjects import Running, Subject, started
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
"""The deadline of reads over the cut link, in seconds; shorter than the default to save time."""


def measure(plan: Plan) -> Iterator[Row]:
    """Revoke sessions in one process while another validates them until it refuses them."""
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
    """Return for how many milliseconds the other process accepted a revoked session."""
    session_id = ending.ask("create")
    watching.ask("watch", session_id)
    end: float = ending.ask("revoke", session_id)
    seen: float = watching.ask("last_seen")
    return max(0.0, seen - end) * 1_000


def _lag_when_cut(ending: Running, watching: Running, way: CuttableProxy) -> float:
    """Measure the lag when the invalidation message can't arrive."""
    session_id = ending.ask("create")
    watching.ask("watch", session_id)
    time.sleep(random.random() * LEASE)  # noqa: S311 # a random moment of the lease
    way.cut()
    end: float = ending.ask("revoke", session_id)
    seen: float = watching.ask("last_seen")
    way.restore()
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
    title="Revoked by another process, with the near-cache",
    about=(
        "Milliseconds from the return of a revocation in one process to the start of the last "
        "validation in another process that still accepted the session; 0 if there was none. The "
        "other process is idle, or validates with 256 callers all the time, or its link to the "
        "server was cut before the revocation without either side noticing."
    ),
    columns="lag",
    left_out={"lag": EACH},
    measure=measure,
    goals=(
        Goal(
            text="near-cache: lag of a revocation in another process, p99, idle",
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
            title="Lag of a revocation in another process, with the near-cache",
            x="milliseconds",
            setting={"lag": EACH},
            by="other process",
            least=0.01,
        ),
    ),
)
