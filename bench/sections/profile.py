"""A profile of the operations by module."""

from collections.abc import Iterator
from typing import Final

from bench.rates import OF_THE_SAME
from bench.rows import Row
from bench.sampler import WAITING
from bench.section import Plan, Section
from bench.subject_lists import OURS, ours
from bench.subjects import Running, Subject, started
from tools.servers import own_server

__all__ = ["SECTION"]

NAME: Final = "profile"
ASYNC: Final = (("again", 1), ("again", 256), ("first", 256), ("create", 256), ("renew", 256))
WARM: Final = 1_000
TIMES: Final = 4
"""The duration of a profile, as a multiple of a measurement of a rate."""

LEAST: Final = 1.5
"""The per cent of the time below which modules are summed up."""

THE_REST: Final = "everything else"


def measure(plan: Plan) -> Iterator[Row]:
    """Profile this library, async and sync."""
    sync = Subject(name=OURS, library="ours_sync", loop="threads", program="sync_worker")
    with (
        own_server("redis-server", plan.folder) as server,
        started(server.url, ours(), sync) as (mine, mine_sync),
    ):
        profiles = {
            f"{operation}, {callers} at once": _profile(mine, operation, callers, plan)
            for operation, callers in ASYNC
        }
        profiles["again, sync"] = _profile(mine_sync, "again", 1, plan)
    shown = [
        where
        for where in _most_first(profiles)
        if max(profile.get(where, 0) for profile in profiles.values()) >= LEAST
    ]
    for what, profile in profiles.items():
        shares = {where: profile.get(where, 0.0) for where in shown}
        rest = sum(share for where, share in profile.items() if where not in shares)
        for where, share in {**shares, THE_REST: rest}.items():
            yield Row(
                section=NAME,
                subject=OURS,
                setting={"module": where, "profile": what},
                unit="%",
                values=(share,),
            )


def _profile(subject: Running, operation: str, callers: int, plan: Plan) -> dict[str, float]:
    sessions = count = WARM
    for seconds in (plan.size.seconds, TIMES * plan.size.seconds):
        subject.ask("prepare", operation, sessions)
        count = max(WARM, int(seconds * subject.rate(operation, callers, count)))
        sessions = plan.size.pool if operation == OF_THE_SAME else count
    subject.ask("prepare", operation, sessions)
    profile: dict[str, float] = subject.ask("profile", operation, callers, count)
    return profile


def _most_first(profiles: dict[str, dict[str, float]]) -> list[str]:
    """Return all modules, the most expensive first, and the waiting time last."""
    modules = {where for profile in profiles.values() for where in profile} - {WAITING}
    return [
        *sorted(
            modules, key=lambda where: -sum(profile.get(where, 0) for profile in profiles.values())
        ),
        WAITING,
    ]


SECTION: Final = Section(
    name=NAME,
    title="Where the time goes",
    about=(
        "Per cent of the time by module, on asyncio, sampled each millisecond of processor time. "
        "C code counts as its caller's: asyncio's part is the event loop, sending and receiving. "
        f"`bench` is the load itself. Modules below {LEAST:g} % everywhere are summed up. "
        "Measured once."
    ),
    columns="profile",
    measure=measure,
)
