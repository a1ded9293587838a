"""Concurrent logins with passwords."""

from collections.abc import Iterator
from typing import Final

from bench.rows import Row, Want
from bench.section import FULL, Goal, Plan, Section
from bench.subject_lists import LOOPS, OURS
from bench.subjects import Subject, started
from tools.servers import own_server

__all__ = ["SECTION"]

NAME: Final = "passwords"
PARTS: Final = {
    "delay": ("longest delay of another coroutine", "ms", 1_000.0),
    "seconds": ("until all are logged in", "s", 1.0),
    "memory": ("memory for it", "MiB", 1.0),
}


def measure(plan: Plan) -> Iterator[Row]:
    """Measure this library and fastapi-users, each with its default hash."""
    libraries = {OURS: "ours", "fastapi-users": "fastapi_users"}
    wanted = [
        Subject(name=name, library=library, loop=loop, program="login_worker")
        for name, library in libraries.items()
        for loop in LOOPS
    ]
    count = plan.size.logins
    with (
        own_server("redis-server", plan.folder) as server,
        started(server.url, *wanted) as subjects,
    ):
        for subject in subjects:
            subject.ask("sign_up", count)
        measured: list[list[dict[str, float]]] = [
            [subject.ask("log_in") for subject in subjects] for _ in range(plan.rounds)
        ]
    for subject, rounds in zip(subjects, zip(*measured, strict=True), strict=True):
        for part, (name, unit, times) in PARTS.items():
            setting: dict[str, str | int] = {
                "what": name,
                "loop": subject.subject.loop,
                "logins": count,
            }
            values = tuple(each[part] * times for each in rounds)
            yield Row(
                section=NAME,
                subject=subject.subject.name,
                setting=setting,
                unit=unit,
                values=values,
            )


SECTION: Final = Section(
    name=NAME,
    title="Concurrent logins",
    about=(
        "Concurrent logins with the right password, by their number; users are in memory, and each "
        "library uses its default hash: scrypt with 32 MiB, Argon2 with 64 MiB. *Another "
        "coroutine* sleeps a millisecond at a time; its delay is the time it oversleeps."
    ),
    columns="logins",
    measure=measure,
    goals=(
        Goal(
            text="50 logins at once, the longest delay of another coroutine",
            row=Want(
                NAME, OURS, {"what": PARTS["delay"][0], "loop": "asyncio", "logins": FULL.logins}
            ),
            better="lower",
            bound=50,
        ),
    ),
)
