"""Validating sessions, on one server."""

from collections.abc import Iterator
from typing import Final

from bench.rates import Rates
from bench.rows import Row, Want
from bench.section import Goal, Plan, Plot, Section
from bench.subject_lists import BARE, NEAR, OURS, everybody
from bench.subjects import started
from tools.servers import own_server

__all__ = ["AGAIN", "FIRST", "SECTION"]

NAME: Final = "validate"
AGAIN: Final = "validate again"
FIRST: Final = "validate first"


def measure(plan: Plan) -> Iterator[Row]:
    """Measure all async libraries, each with its own sessions on the same server."""
    with (
        own_server("redis-server", plan.folder) as server,
        started(server.url, *everybody()) as subjects,
    ):
        rates = Rates(
            plan=plan,
            section=NAME,
            subjects=subjects,
            callers=plan.size.callers,
            column="concurrency",
            flush=server.flush,
            port=server.port,
        )
        yield from rates.measure("again", AGAIN)
        yield from rates.measure("first", FIRST)


def _row(subject: str, loop: str, concurrency: int = 256, operation: str = AGAIN) -> Want:
    return Want(NAME, subject, {"operation": operation, "loop": loop, "concurrency": concurrency})


SECTION: Final = Section(
    name=NAME,
    title="Validating a session, one server",
    about=(
        "Sessions per second, by the number of concurrent validations; in brackets, the ratio to "
        "bare GETs over redis-py on asyncio. *Again* reads the same sessions again and again; "
        "*first* reads each session once, so that no cache can know it. fastapi-users also creates "
        "the user, from memory; starsessions is measured without its middleware's write and "
        "Set-Cookie."
    ),
    columns="concurrency",
    base=Want(NAME, BARE, {"loop": "asyncio"}),
    plots=(
        Plot(
            name="throughput",
            title="Validating the same sessions again, one server",
            y="sessions per second",
            setting={"operation": AGAIN},
        ),
    ),
    measure=measure,
    goals=(
        Goal(
            text="`validate_session`, 256 at once, against fastapi-users",
            row=_row(OURS, "asyncio"),
            base=_row("fastapi-users", "asyncio"),
            bound=12,
        ),
        Goal(
            text="the same against starsessions",
            row=_row(OURS, "asyncio"),
            base=_row("starsessions", "asyncio"),
            bound=12,
        ),
        Goal(
            text="the same against crudauth",
            row=_row(OURS, "asyncio"),
            base=_row("crudauth", "asyncio"),
            bound=80,
        ),
        Goal(
            text="latency of one caller, against a bare GET of redis-py's async client",
            row=_row(BARE, "asyncio", 1),
            base=_row(OURS, "asyncio", 1),
            better="lower",
            bound=1.05,
        ),
        Goal(
            text="`validate_session` with the near-cache, 256 at once, against without",
            row=_row(NEAR, "asyncio"),
            base=_row(OURS, "asyncio"),
            bound=3.5,
        ),
    ),
)
