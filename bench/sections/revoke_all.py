"""Revoking all sessions of a user."""

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any, Final

import redis

from bench.rows import Row, Want
from bench.section import Goal, Plan, Section
from bench.subject_lists import LUCIA_JS, OURS, in_a_cluster, ours
from bench.subjects import Running, Subject, started
from tools.servers import Cluster, Server, own_cluster, own_server

__all__ = ["SECTION"]

NAME: Final = "revoke-all"
ALL_OF_IT: Final = "all of it"
LONGEST: Final = "longest command"
OWN: Final = b"SLOWLOG"
"""The prefix of the commands that the measurement itself sends."""


def measure(plan: Plan) -> Iterator[Row]:
    """Measure the libraries that can revoke all sessions of a user."""
    others = (
        Subject(name=LUCIA_JS, library="lucia", loop="Node"),
        Subject(name="crudauth", library="crudauth", loop="asyncio"),
    )
    clustered = next(subject for subject in in_a_cluster() if subject.name == OURS)
    with ExitStack() as stack:
        server = stack.enter_context(own_server("redis-server", plan.folder))
        cluster = stack.enter_context(own_cluster(plan.folder))
        subjects = (
            stack.enter_context(started(server.url, ours(), *others)),
            stack.enter_context(started(cluster.url, clustered)),
        )
        places = [("one server", server, subject) for subject in subjects[0]] + [
            ("cluster", cluster, subject) for subject in subjects[1]
        ]
        for count in plan.size.of_one_user:
            measured = [
                [_once(subject, where, count) for _, where, subject in places]
                for _ in range(plan.rounds)
            ]
            for (name, _, subject), rounds in zip(places, zip(*measured, strict=True), strict=True):
                for part, values in zip(
                    (ALL_OF_IT, LONGEST), zip(*rounds, strict=True), strict=True
                ):
                    setting: dict[str, str | int] = {"place": name, "what": part, "sessions": count}
                    yield Row(
                        section=NAME,
                        subject=subject.subject.name,
                        setting=setting,
                        unit="ms",
                        values=tuple(values),
                    )


def _once(subject: Running, where: Server | Cluster, count: int) -> tuple[float, float]:
    """Return the milliseconds of the call, and of the longest single command on a server."""
    clients: list[Any] = [redis.Redis(port=port) for port in where.ports]
    where.flush()
    subject.ask("create_all", count)
    for client in clients:
        client.config_set("slowlog-max-len", 1_000_000)
        client.config_set("slowlog-log-slower-than", 0)
        client.slowlog_reset()
    seconds: float = subject.ask("revoke_all")
    for client in clients:
        client.config_set("slowlog-log-slower-than", -1)
    entries = [entry for client in clients for entry in client.slowlog_get(-1)]
    for client in clients:
        client.close()
    return seconds * 1_000, max(
        entry["duration"] for entry in entries if not entry["command"].startswith(OWN)
    ) / 1_000


SECTION: Final = Section(
    name=NAME,
    title="Signing out everywhere",
    about=(
        "Milliseconds by the number of the user's sessions; and the longest time that a single "
        "command blocked a server, from its `SLOWLOG`. The cluster has three nodes."
    ),
    columns="sessions",
    measure=measure,
    goals=tuple(
        Goal(
            text=(
                "signing out everywhere, 10,000 sessions, the longest that one command blocks a "
                f"server: {place}"
            ),
            row=Want(NAME, OURS, {"place": place, "what": LONGEST, "sessions": 10_000}),
            better="lower",
            bound=10,
        )
        for place in ("one server", "cluster")
    ),
)
