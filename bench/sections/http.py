"""The cost of a request to a FastAPI application, from the socket to the response."""

import os
import signal
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from itertools import cycle
from socket import create_connection, socket
from typing import Any, Final, Literal
from urllib.parse import urlsplit

from redis import Redis

from bench.http_load import TIME, load_rows, measure_loads, write_cookies
from bench.rows import Row, Want
from bench.section import Goal, Plan, Section
from bench.subject_lists import AHEAD, NEAR, NO_AUTH, OURS, OURS_WITH
from bench.subjects import Running, Subject, started
from tools.servers import Server, own_server

__all__ = ["SECTION"]

NAME: Final = "http"
NOTHING: Final = "a dependency that does nothing"
WAITS: Final = "a dependency that waits"
GETS: Final = "a dependency with one GET of redis-py"
MINE: Final[Mapping[str, Mapping[str, Any]]] = {
    OURS: {},
    AHEAD: {"validate_ahead": True},
    **OURS_WITH,
}
CALLERS: Final = (64, 256)
WAITING: Final = 256
BOUNDS: Final[Mapping[str, Mapping[int, float]]] = {OURS: {64: 12, 256: 20}, NEAR: {64: 8, 256: 12}}
"""The goals in microseconds, by the number of connections."""

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

SETTLED: Final = 0.3
"""Seconds after which every request waits for Redis."""

PIECE: Final = 65_536


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
            subject: write_cookies(subject, plan, plan.folder / f"cookies-{number}")
            for number, subject in enumerate(subjects)
        }
        for callers in (each for each in plan.size.callers if each in CALLERS):
            loads = measure_loads(cookies, callers, plan)
            for (server, _), subject in zip(everybody, subjects, strict=True):
                setting: dict[str, str | int] = {"server": server, "connections": callers}
                yield from load_rows(NAME, subject.subject.name, setting, loads[subject])
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
            path = plan.folder / f"waiting-{number}"
            cookies = write_cookies(subject, plan, path).read_text().splitlines()
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
