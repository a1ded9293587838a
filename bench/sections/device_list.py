"""How long listing very many sessions blocks the event loop."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from typing import Final

from bench.rows import Row
from bench.section import Plan, Section
from bench.subject_lists import OURS
from bench.subjects import Subject, started
from tools.servers import own_cluster, own_server

__all__ = ["SECTION"]

NAME: Final = "device-list"
PROGRAM: Final = "list_worker"
PARTS: Final = ("all of it", "longest gap", "longest gap, without full collections")


def measure(plan: Plan) -> Iterator[Row]:
    """Measure both key layouts on one server, and a cluster."""
    with ExitStack() as stack:
        server = stack.enter_context(own_server("redis-server", plan.folder))
        cluster = stack.enter_context(own_cluster(plan.folder))
        places: dict[str, tuple[str, dict[str, object]]] = {
            "one server": (server.url, {}),
            "one server, lucia-v2": (server.url, {"layout": "lucia-v2"}),
            "cluster": (cluster.url, {"cluster": True}),
        }
        for place, (url, settings) in places.items():
            with started(url, _subject(settings)) as (worker,):
                for count in plan.size.listed:
                    worker.ask("grow", count)
                    rounds = [worker.ask("gaps") for _ in range(plan.rounds)]
                    for part, values in zip(PARTS, zip(*rounds, strict=True), strict=True):
                        yield _row(place, part, count, values)


def _subject(settings: Mapping[str, object]) -> Subject:
    return Subject(name=OURS, library="ours", loop="asyncio", settings=settings, program=PROGRAM)


def _row(place: str, part: str, count: int, values: tuple[float, ...]) -> Row:
    setting: dict[str, str | int] = {"place": place, "what": part, "sessions": count}
    return Row(section=NAME, subject=OURS, setting=setting, unit="ms", values=values)


SECTION: Final = Section(
    name=NAME,
    title="Long device lists",
    about=(
        "Milliseconds to list a user's sessions, each with a user agent as its metadata, by their "
        "number; and the longest time meanwhile between two turns of the event loop, in processor "
        "time, with and without Python's full garbage collections. "
        "The cluster has three nodes."
    ),
    columns="sessions",
    measure=measure,
)
