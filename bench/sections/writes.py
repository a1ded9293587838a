"""Creating, renewing and revoking sessions, on one server."""

from collections.abc import Iterator
from typing import Final

from bench.rates import Rates
from bench.rows import Row, Want
from bench.section import Goal, Plan, Section
from bench.subject_lists import BARE, OURS, everybody
from bench.subjects import started
from tools.servers import own_server

__all__ = ["SECTION"]

NAME: Final = "writes"


def measure(plan: Plan) -> Iterator[Row]:
    """Measure all async libraries on the same server, which is emptied before each measurement."""
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
        )
        for operation in ("create", "renew", "revoke"):
            yield from rates.measure(operation, operation)


def _row(subject: str, operation: str) -> Want:
    return Want(NAME, subject, {"operation": operation, "loop": "asyncio", "concurrency": 256})


SECTION: Final = Section(
    name=NAME,
    title="Creating, renewing and revoking sessions, one server",
    about=(
        "Sessions per second; in brackets, the ratio to bare SETs and DELs over redis-py on "
        "asyncio. *Renew* is the validation of a session that is due for renewal; *create* checks "
        "no password. fastapi-users, starsessions and bare redis-py keep no list of a user's "
        "sessions, and don't renew them."
    ),
    columns="concurrency",
    base=Want(NAME, BARE, {"loop": "asyncio"}),
    measure=measure,
    goals=tuple(
        Goal(
            text=f"{operation}, 256 at once, against starsessions' write",
            row=_row(OURS, operation),
            base=_row("starsessions", "create"),
            bound=bound,
        )
        for operation, bound in {"create": 4, "renew": 2.5}.items()
    ),
)
