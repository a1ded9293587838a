"""A request to a FastAPI application, from the socket to the answer."""

import json
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

from bench.rows import Row, Want
from bench.section import Goal, Plan, Section
from bench.subjects import ROOT, Running, Subject, started
from bench.who import NEAR, OURS, OURS_WITH
from tools.servers import own_server, path_of

__all__ = ["SECTION"]

NAME: Final = "http"
NO_AUTH: Final = "no authentication"
NOTHING: Final = "a dependency that does nothing"
AHEAD: Final = "lucia-auth, validated ahead"
MINE: Final[Mapping[str, Mapping[str, Any]]] = {
    OURS: {},
    AHEAD: {"validate_ahead": True},
    **OURS_WITH,
}
SCRIPT: Final = ROOT / "bench" / "web" / "load.lua"
COOKIES: Final = 100
CALLERS: Final = (64, 256)
RATE: Final = "requests"
TIME: Final = "processor time of the server's process"

UVICORN: Final = "uvicorn"
STANDARD: Final = "uvicorn[standard]"
TUNED: Final = "uvicorn[standard], collector tuned"
SERVERS: Final[Mapping[str, tuple[Literal["asyncio", "uvloop"], Mapping[str, Any]]]] = {
    UVICORN: ("asyncio", {"http": "h11", "tuned": False}),
    STANDARD: ("uvloop", {"http": "httptools", "tuned": False}),
    TUNED: ("uvloop", {"http": "httptools", "tuned": True}),
}
"""What is installed, and the loop and the worker's settings that come of it."""

PATIENCE: Final = 60
"""Seconds after which an answer did not come; wrk's own two are too few on a busy machine."""

SECONDS: Final = 8
"""How many times as long as others' a measurement takes; wrk takes whole seconds."""


class Load(NamedTuple):
    """What a server did: requests a second, and microseconds of its process for each."""

    rate: float
    time: float


def measure(plan: Plan) -> Iterator[Row]:
    """All on the same Redis, one after another, by wrk."""
    everybody = [(server, subject) for server in SERVERS for subject in _of(server)]
    with (
        own_server("redis-server", plan.folder) as redis,
        started(redis.url, *(subject for _, subject in everybody)) as subjects,
    ):
        cookies = {
            subject: _cookies(subject, plan, plan.folder / f"cookies-{number}")
            for number, subject in enumerate(subjects)
        }
        for callers in (each for each in plan.size.callers if each in CALLERS):
            loads: dict[Running, list[Load]] = {subject: [] for subject in subjects}
            for _ in plan.size.warm_ups[
                1:
            ]:  # the quick form has only one, in which others count calls
                for subject in subjects:
                    _load(subject, cookies[subject], callers, 1)
            for _ in range(plan.rounds):
                for subject in subjects:
                    loads[subject].append(
                        _load(
                            subject,
                            cookies[subject],
                            callers,
                            max(1, round(SECONDS * plan.size.seconds)),
                        )
                    )
            for (server, _), subject in zip(everybody, subjects, strict=True):
                for what, unit, values in zip(
                    (RATE, TIME), ("1/s", "µs"), zip(*loads[subject], strict=True), strict=True
                ):
                    setting: dict[str, str | int] = {
                        "server": server,
                        "what": what,
                        "connections": callers,
                    }
                    yield Row(
                        section=NAME,
                        subject=subject.subject.name,
                        setting=setting,
                        unit=unit,
                        values=tuple(values),
                    )


def _of(server: str) -> list[Subject]:
    """The same application with each library, and without any; with a tuned collector, only what the goals speak of."""
    applications: dict[str, tuple[str, dict[str, Any]]] = {
        NO_AUTH: ("bare", {"dependency": False}),
        NOTHING: ("bare", {"dependency": True}),
        **{name: ("ours", dict(settings)) for name, settings in MINE.items()},
        "fastapi-users": ("fastapi_users", {}),
        "starsessions": ("starsessions", {}),
    }
    wanted = {NOTHING, *MINE} if server == TUNED else applications.keys()
    loop, settings = SERVERS[server]
    return [
        Subject(
            name=name,
            library=library,
            loop=loop,
            settings={**settings, **own},
            program="web_worker",
        )
        for name, (library, own) in applications.items()
        if name in wanted
    ]


def _cookies(subject: Running, plan: Plan, path: Path) -> Path:
    """Log some users in, and write what they send as their Cookie header."""
    path.write_text("\n".join(subject.ask("log_in", min(plan.size.pool, COOKIES))))
    return path


def _load(subject: Running, cookies: Path, callers: int, seconds: int) -> Load:
    """Load it.

    Raises:
        AssertionError: an answer was no success, or did not come.
    """
    options = [
        "--threads=1",
        f"--connections={callers}",
        f"--duration={seconds}s",
        f"--timeout={PATIENCE}s",
        f"--script={SCRIPT}",
    ]
    command = [path_of("wrk"), *options, subject.ask("address"), "--", str(cookies)]
    before: float = subject.ask("time")
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    took: float = subject.ask("time") - before
    load: dict[str, int] = json.loads(said.splitlines()[-1])
    assert load["failed"] == 0, f"{subject.subject.name}: {said}"
    return Load(load["requests"] / load["microseconds"] * 1e6, took / load["requests"] * 1e6)


def _row(subject: str, server: str) -> Want:
    return Want(NAME, subject, {"server": server, "what": RATE, "connections": CALLERS[0]})


SECTION: Final = Section(
    name=NAME,
    title="A request over HTTP",
    about=(
        "What one FastAPI application on one process of uvicorn does, loaded by wrk over so many connections, with a hundred cookies in "
        "turn; in brackets, times that of the same endpoint with a dependency that does nothing. It answers with the id of the user who is "
        "logged in. Plain uvicorn runs on asyncio and h11, `uvicorn[standard]` on uvloop and httptools; how the collector "
        "is tuned, [In production](production.md#the-garbage-collector) says."
    ),
    columns="connections",
    base=Want(NAME, NOTHING, {}),
    measure=measure,
    goals=tuple(
        Goal(
            text=f"FastAPI endpoint with {name}, against the same with a dependency that does nothing: {server}",
            row=_row(name, server),
            base=_row(NOTHING, server),
            bound=bound,
        )
        for name, bound in {OURS: 0.82, AHEAD: 0.82, NEAR: 0.95}.items()
        for server in SERVERS
    ),
)
