"""The cost of a request to a FastAPI application, from the socket to the response."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from itertools import cycle
from pathlib import Path
from socket import create_connection, socket
from typing import Any, Final, Literal, NamedTuple
from urllib.parse import urlsplit

from redis import Redis

from bench.rows import Row, Want
from bench.section import Goal, Plan, Section
from bench.subject_lists import NEAR, OURS, OURS_WITH
from bench.subjects import ROOT, Running, Subject, started
from bench.warm import warm_up
from tools.servers import Server, own_server, path_of

__all__ = ["SECTION"]

NAME: Final = "http"
NO_AUTH: Final = "no authentication"
NOTHING: Final = "a dependency that does nothing"
WAITS: Final = "a dependency that waits"
GETS: Final = "a dependency with one GET of redis-py"
AHEAD: Final = "lucia-auth, validated ahead"
MINE: Final[Mapping[str, Mapping[str, Any]]] = {
    OURS: {},
    AHEAD: {"validate_ahead": True},
    **OURS_WITH,
}
SCRIPT: Final = ROOT / "bench" / "web" / "load.lua"
COOKIES: Final = 100
CALLERS: Final = (64, 256)
WAITING: Final = 256
BOUNDS: Final[Mapping[str, Mapping[int, float]]] = {OURS: {64: 12, 256: 20}, NEAR: {64: 8, 256: 12}}
"""The goals in microseconds, by the number of connections."""

RATE: Final = "requests"
TIME: Final = "processor time of the server's process"
OBJECTS: Final = "objects of a request that waits"

UVICORN: Final = "uvicorn"
STANDARD: Final = "uvicorn[standard]"
TUNED: Final = "uvicorn[standard], collector tuned"
SERVERS: Final[Mapping[str, tuple[Literal["asyncio", "uvloop"], Mapping[str, Any]]]] = {
    UVICORN: ("asyncio", {"http": "h11", "tuned": False}),
    STANDARD: ("uvloop", {"http": "httptools", "tuned": False}),
    TUNED: ("uvloop", {"http": "httptools", "tuned": True}),
}
"""The event loop and the worker's settings of each server."""

PATIENCE: Final = 60
"""The timeout of a request, in seconds. wrk's default of 2 is too short on a busy machine."""

SETTLED: Final = 0.3
"""Seconds after which every request waits for Redis."""

PIECE: Final = 65_536

WINDOW: Final = 1
"""The duration of a window in seconds; wrk needs whole ones."""


class Load(NamedTuple):
    """The requests per second, and the server's processor time per request in microseconds."""

    rate: float
    time: float


def _least_disturbed(windows: Iterable[Load]) -> Load:
    """Return the highest rate and the lowest processor time of some windows.

    Whatever else the machine does can only slow a window down, and often does so by more than a
    session costs.
    """
    rates, times = zip(*windows, strict=True)
    return Load(max(rates), min(times))


def measure(plan: Plan) -> Iterator[Row]:
    """Load all applications with wrk in alternation, on the same Redis."""
    # With --quick, one server shows that all applications run.
    servers = SERVERS if plan.size.windows > 1 else (STANDARD,)
    everybody = [(server, subject) for server in servers for subject in _of(server)]
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
            # With --quick, warming up takes too long, and the figures mean nothing anyway.
            if plan.size.windows > 1:
                for subject in subjects:
                    _warm_up(subject, cookies[subject], callers, plan)
            for _ in range(plan.rounds):
                windows: dict[Running, list[Load]] = {subject: [] for subject in subjects}
                for _ in range(plan.size.tries):
                    for subject in subjects:
                        load = _load(subject, cookies[subject], callers, WINDOW)
                        windows[subject].append(load)
                for subject in subjects:
                    loads[subject].append(_least_disturbed(windows[subject]))
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
    with own_server("redis-server", plan.folder) as redis:
        yield from _count_objects(redis, plan)


def _count_objects(redis: Server, plan: Plan) -> Iterator[Row]:
    """Count the objects of a waiting request that the garbage collector tracks, by library."""
    waiting = min(WAITING, max(plan.size.callers))
    loop, settings = SERVERS[STANDARD]
    with started(
        redis.url,
        *(
            Subject(
                name=name,
                library=library,
                loop=loop,
                settings={**settings, **own},
                program="web_worker",
            )
            for name, (library, own) in {
                WAITS: ("bare", {"dependency": "waiting"}),
                **_applications(),
            }.items()
            if name not in {NO_AUTH, NOTHING, GETS, NEAR}
        ),
    ) as subjects:
        for number, subject in enumerate(subjects):
            cookies = (
                _cookies(subject, plan, plan.folder / f"waiting-{number}").read_text().splitlines()
            )
            values = tuple(_objects(redis, subject, cookies, waiting) for _ in range(plan.rounds))
            setting: dict[str, str | int] = {
                "server": STANDARD,
                "what": OBJECTS,
                "connections": waiting,
            }
            yield Row(
                section=NAME,
                subject=subject.subject.name,
                setting=setting,
                unit="objects",
                values=values,
            )


def _objects(redis: Server, subject: Running, cookies: Sequence[str], count: int) -> float:
    """Return the number of additional objects per request while `count` requests wait for Redis.

    All connections, to the server and to Redis, are opened before.
    """
    url: str = subject.ask("address")
    address = urlsplit(url)
    with ExitStack() as stack:
        connections = [
            stack.enter_context(create_connection((address.hostname, address.port)))
            for _ in range(count)
        ]

        def ask() -> None:
            for connection, cookie in zip(connections, cycle(cookies)):
                head = f"GET {address.path} HTTP/1.1\r\nHost: {address.netloc}\r\n"
                connection.sendall(f"{head}Cookie: {cookie}\r\n\r\n".encode())

        ask()
        _read_all(connections)
        before: int = subject.ask("objects")
        with _stopped(redis):
            ask()
            time.sleep(SETTLED)
            during: int = subject.ask("objects")
        _read_all(connections)
    return (during - before) / count


@contextmanager
def _stopped(redis: Server) -> Generator[None]:
    """Stop the server's process, so that it does not reply."""
    with Redis(port=redis.port) as client:
        process: int = client.info("server")["process_id"]
    os.kill(process, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(process, signal.SIGCONT)


def _read_all(connections: Sequence[socket]) -> None:
    """Read one response from each connection.

    Raises:
        AssertionError: the status of a response is not 200.
    """
    for connection in connections:
        answer = connection.recv(PIECE)
        while not answer.endswith(b"}"):
            piece = connection.recv(PIECE)
            assert piece, answer
            answer += piece
        assert answer.startswith(b"HTTP/1.1 200 "), answer


def _of(server: str) -> list[Subject]:
    """Return the applications on a server; with a tuned collector only ours and the baselines."""
    applications = _applications()
    wanted = {NOTHING, GETS, *MINE} if server == TUNED else applications.keys()
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


def _applications() -> dict[str, tuple[str, dict[str, Any]]]:
    """Return each application's module in `bench.web`, and its settings."""
    return {
        NO_AUTH: ("bare", {"dependency": None}),
        NOTHING: ("bare", {"dependency": "nothing"}),
        GETS: ("bare", {"dependency": "getting"}),
        **{name: ("ours", dict(settings)) for name, settings in MINE.items()},
        "fastapi-users": ("fastapi_users", {}),
        "starsessions": ("starsessions", {}),
    }


def _cookies(subject: Running, plan: Plan, path: Path) -> Path:
    """Log some users in, and write their Cookie headers to a file."""
    path.write_text("\n".join(subject.ask("log_in", min(plan.size.pool, COOKIES))))
    return path


def _warm_up(subject: Running, cookies: Path, callers: int, plan: Plan) -> None:
    """Load the application until the rate stops rising."""
    warm_up(
        lambda: _load(subject, cookies, callers, WINDOW).rate,
        plan.size.windows,
    )


def _load(subject: Running, cookies: Path, callers: int, seconds: int) -> Load:
    """Load the application with wrk.

    Raises:
        AssertionError: a response was an error or did not arrive.
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


def _row(subject: str, callers: int) -> Want:
    return Want(NAME, subject, {"server": STANDARD, "what": TIME, "connections": callers})


SECTION: Final = Section(
    name=NAME,
    title="A request over HTTP",
    about=(
        "One FastAPI application on one process of uvicorn, loaded by wrk with a hundred cookies "
        "in turn, by the number of connections; in brackets, the ratio to the same endpoint with "
        "an async dependency that does nothing. The GET of redis-py reads a key that does not "
        "exist. The endpoint returns the id of the logged-in user. "
        "Plain uvicorn runs on asyncio and h11, `uvicorn[standard]` on uvloop and httptools. See "
        "[In production](production.md#the-garbage-collector) for the tuned collector. *Objects* "
        "are those that Python's garbage collector tracks, for each of 256 requests that wait for "
        "a store which does not reply."
    ),
    columns="connections",
    base=Want(NAME, NOTHING, {}),
    measure=measure,
    goals=tuple(
        Goal(
            text=(
                f"processor time of a FastAPI request with {name}, beyond that with a dependency "
                f"that does nothing: {callers} connections"
            ),
            row=_row(name, callers),
            base=_row(NOTHING, callers),
            by="difference",
            better="lower",
            bound=bound,
        )
        for name, bounds in BOUNDS.items()
        for callers, bound in bounds.items()
    ),
)
