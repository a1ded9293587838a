"""A request to a FastAPI application, from the socket to the answer."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, Literal

from bench.rows import Row, Want
from bench.section import Goal, Plan, Section
from bench.subjects import ROOT, Running, Subject, started
from bench.who import NEAR, OURS, OURS_WITH
from tools.servers import own_server, path_of

__all__ = ["SECTION"]

NAME: Final = "http"
NO_AUTH: Final = "no authentication"
NOTHING: Final = "a dependency that does nothing"
LOOPS: Final[tuple[Literal["asyncio", "uvloop"], ...]] = ("asyncio", "uvloop")
SCRIPT: Final = ROOT / "bench" / "web" / "load.lua"
COOKIES: Final = 1_000
CALLERS: Final = (64, 256)
SECONDS: Final = 8
"""How many times as long as others' a measurement takes; wrk takes whole seconds."""


def measure(plan: Plan) -> Iterator[Row]:
    """All on the same server, one after another, by wrk."""
    with own_server("redis-server", plan.folder) as server, started(server.url, *_everybody()) as subjects:
        cookies = {subject: _cookies(subject, plan, plan.folder / f"cookies-{number}") for number, subject in enumerate(subjects)}
        for callers in (each for each in plan.size.callers if each in CALLERS):
            values: dict[Running, list[float]] = {subject: [] for subject in subjects}
            for _ in plan.size.warm_ups[1:]:  # the quick form has only one, in which others count calls
                for subject in subjects:
                    _rate(subject, cookies[subject], callers, 1)
            for _ in range(plan.rounds):
                for subject in subjects:
                    values[subject].append(_rate(subject, cookies[subject], callers, max(1, round(SECONDS * plan.size.seconds))))
            for subject in subjects:
                setting: dict[str, str | int] = {"loop": subject.subject.loop, "connections": callers}
                yield Row(section=NAME, subject=subject.subject.name, setting=setting, unit="1/s", values=tuple(values[subject]))


def _everybody() -> list[Subject]:
    """The same application with each library, and without any."""
    applications: dict[str, tuple[str, dict[str, Any]]] = {
        NO_AUTH: ("bare", {"dependency": False}),
        NOTHING: ("bare", {"dependency": True}),
        **{name: ("ours", dict(settings)) for name, settings in OURS_WITH.items()},
        "fastapi-users": ("fastapi_users", {}),
        "starsessions": ("starsessions", {}),
    }
    return [
        Subject(name=name, library=library, loop=loop, settings=settings, program="web_worker")
        for loop in LOOPS
        for name, (library, settings) in applications.items()
    ]


def _cookies(subject: Running, plan: Plan, path: Path) -> Path:
    """Log some users in, and write what they send as their Cookie header."""
    path.write_text("\n".join(subject.ask("log_in", min(plan.size.pool, COOKIES))))
    return path


def _rate(subject: Running, cookies: Path, callers: int, seconds: int) -> float:
    """How many requests a second it answers.

    Raises:
        AssertionError: an answer was no success, or did not come.
    """
    options = ["--threads=1", f"--connections={callers}", f"--duration={seconds}s", f"--script={SCRIPT}"]
    command = [path_of("wrk"), *options, subject.ask("address"), "--", str(cookies)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    load: dict[str, int] = json.loads(said.splitlines()[-1])
    assert load["failed"] == 0, f"{subject.subject.name}: {said}"
    return load["requests"] / load["microseconds"] * 1e6


def _row(subject: str, loop: str) -> Want:
    return Want(NAME, subject, {"loop": loop, "connections": CALLERS[0]})


SECTION: Final = Section(
    name=NAME,
    title="A request over HTTP",
    about=(
        "Requests a second that one FastAPI application on one process of uvicorn (with httptools) answers, loaded by wrk over so many "
        "connections, with a thousand cookies in turn; in brackets, times those of the same endpoint with a dependency that does nothing. "
        "It answers with the id of the user who is logged in."
    ),
    columns="connections",
    base=Want(NAME, NOTHING, {}),
    measure=measure,
    goals=tuple(
        Goal(
            text=f"FastAPI endpoint with {name}, against the same with a dependency that does nothing: {loop}",
            row=_row(name, loop),
            base=_row(NOTHING, loop),
            bound=bound,
        )
        for name, bound in {OURS: 0.82, NEAR: 0.95}.items()
        for loop in LOOPS
    ),
)
