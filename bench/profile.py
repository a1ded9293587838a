"""Show where the time of a request goes, from the Cookie header to the session.

A FastAPI application is called as a server calls it, with 64 concurrent requests and a real Redis.
No HTTP is parsed, so the time is the framework's and ours. The output has the processor time per
request, the number of objects per request that the garbage collector tracks while the request waits
for Redis, and the result of Python's profiler, which slows everything down.
"""

import argparse
import asyncio
import cProfile
import gc
import pstats
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import Annotated, Any, Final

from fastapi import Depends, FastAPI
from redis import Redis

from bench.drive import user_ids
from bench.peer import expect
from bench.report import table
from bench.web import Web, bare, ours
from bench.worker import loop_factory
from tools.servers import Server, own_server

App = Callable[..., Any]
Scope = dict[str, Any]

CALLERS: Final = 64
WAITING: Final = 256
"""The number of waiting requests whose objects are counted."""

COOKIES: Final = 1_000
REQUESTS: Final = 20_000
ROUNDS: Final = 10
LINES: Final = 25
SETTLED: Final = 0.2
"""Seconds after which every request waits for Redis."""

PAUSE: Final = 2_000
"""Milliseconds during which Redis does not reply."""

PACKAGES: Final = ("lucia", "redis", "fastapi", "starlette", "asyncio")
"""The packages whose time is summed up."""

REST: Final = "the rest"

BARE: Final = "a dependency that does nothing"
OURS: Final = "a session"
AHEAD: Final = "a session, validated ahead"


def main() -> None:
    """Measure and profile, and print the tables."""
    arguments = _arguments()
    with (
        tempfile.TemporaryDirectory(prefix="lucia-profile-") as folder,
        own_server("redis-server", Path(folder)) as server,
        asyncio.Runner(loop_factory=loop_factory(arguments.loop)) as runner,
    ):
        for part in runner.run(_profile(server, arguments.requests)):
            print(part, end="\n\n")


async def _profile(server: Server, requests: int) -> list[str]:
    webs = {
        BARE: bare.make_web("", dependency="nothing"),
        OURS: ours.make_web(server.url),
        AHEAD: ours.make_web(server.url, validate_ahead=True),
    }
    scopes = {name: await _scopes(web) for name, web in webs.items()}
    times = [
        [name, collector, f"{await _time(web.app, scopes[name], requests, collects=collects):.0f}"]
        for collector, collects in {"as Python sets it": True, "off": False}.items()
        for name, web in webs.items()
    ]
    counts = [["a dependency that waits", f"{await _objects(_waiting().app, scopes[OURS]):.0f}"]]
    with Redis(port=server.port) as redis:
        redis.execute_command("CLIENT", "PAUSE", PAUSE)
        counts += [
            [name, f"{await _objects(webs[name].app, scopes[name]):.0f}"] for name in (OURS, AHEAD)
        ]
        redis.ping()
    profile = cProfile.Profile()
    gc.disable()  # its time would count as that of the function it interrupts
    profile.enable()
    await _load(webs[OURS].app, scopes[OURS], requests)
    profile.disable()
    gc.enable()
    functions = list(_functions(profile, requests))
    return [
        table(["endpoint with", "garbage collector", "processor time of a request, µs"], times),
        table(["endpoint with", "objects of a request while it waits"], counts),
        table(["", "profiled µs of a request"], _packages(functions)),
        table(
            ["function of ours", "calls and resumptions", "profiled µs of a request"],
            _ours(functions),
        ),
    ]


async def _time(app: App, scopes: Sequence[Scope], requests: int, *, collects: bool) -> float:
    """Return the processor time per request in microseconds, as the median of some rounds."""
    each = requests // ROUNDS
    values: list[float] = []
    for _ in range(ROUNDS):
        gc.collect()
        if not collects:
            gc.disable()
        begin = time.process_time()
        await _load(app, scopes, each)
        values.append((time.process_time() - begin) / each * 1e6)
        gc.enable()
    return statistics.median(values)


async def _objects(app: App, scopes: Iterable[Scope]) -> float:
    """Return the number of tracked objects per request while requests wait."""
    gc.collect()
    before = len(gc.get_objects())
    waiting = [asyncio.create_task(_ask(app, scope)) for scope in islice(scopes, WAITING)]
    await asyncio.sleep(SETTLED)
    gc.collect()
    found = (len(gc.get_objects()) - before) / WAITING
    for task in waiting:
        task.cancel()
    await asyncio.wait(waiting)
    return found


async def _load(app: App, scopes: Sequence[Scope], requests: int) -> None:
    """Make requests concurrently. Each starts in a new turn of the event loop, as from a socket."""
    asked = islice(cycle(scopes), requests)

    async def calls() -> None:
        for scope in asked:
            status, _ = await _ask(app, scope)
            expect("the answer", status, 200)
            await asyncio.sleep(0)

    async with asyncio.TaskGroup() as group:
        for _ in range(CALLERS):
            group.create_task(calls())


async def _ask(app: App, scope: Scope) -> tuple[int, list[tuple[bytes, bytes]]]:
    """Call the application, and return the status and the headers of its response."""
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    await app({**scope}, receive, send)
    return sent[0]["status"], sent[0]["headers"]


async def _scopes(web: Web) -> list[Scope]:
    """Log users in, and return the scopes of their requests."""
    host = (b"host", b"localhost")
    scopes: list[Scope] = []
    for user_id in user_ids(COOKIES):
        status, headers = await _ask(
            web.app, _scope("POST", f"/login/{user_id}", [host, (b"origin", b"http://localhost")])
        )
        expect("the answer to a login", status, 200)
        cookie = dict(headers)[b"set-cookie"].partition(b";")[0]
        scopes.append(
            _scope(
                "GET",
                "/me",
                [host, (b"user-agent", b"wrk"), (b"accept", b"*/*"), (b"cookie", cookie)],
            )
        )
    return scopes


def _scope(method: str, path: str, headers: Sequence[tuple[bytes, bytes]]) -> Scope:
    return {
        "type": "http", "asgi": {"version": "3.0", "spec_version": "2.3"}, "http_version": "1.1",
        "method": method, "scheme": "http", "path": path, "raw_path": path.encode(),
        "query_string": b"", "root_path": "", "headers": headers,
        "client": ("127.0.0.1", 50_000), "server": ("127.0.0.1", 8_000), "state": {},
    }  # fmt: skip


def _waiting() -> Web:
    """Make an application whose endpoint waits with as few objects as possible."""
    app = FastAPI()

    async def forever() -> str:
        answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        return await answer

    @app.get("/me")
    async def me(user_id: Annotated[str, Depends(forever)]) -> dict[str, str]:
        return {"user_id": user_id}

    return Web(app=app, guarded=False)


_Function = tuple[str, str, float, float]
"""The package and name of a function, and its calls and own microseconds per request."""


def _functions(profile: cProfile.Profile, requests: int) -> Iterator[_Function]:
    stats: dict[tuple[str, int, str], tuple[Any, ...]] = vars(pstats.Stats(profile))["stats"]
    for (file, _, name), (_, calls, own, *_) in sorted(stats.items(), key=lambda item: -item[1][2]):
        package = next((package for package in PACKAGES if f"/{package}/" in file), REST)
        yield (
            package,
            f"{file.rpartition('/lucia/')[2]} {name}",
            calls / requests,
            own / requests * 1e6,
        )


def _packages(functions: Sequence[_Function]) -> list[list[str]]:
    took = {
        name: sum(own for package, _, _, own in functions if package == name)
        for name in (*PACKAGES, REST)
    }
    return [
        [package, f"{own:.1f}"] for package, own in sorted(took.items(), key=lambda item: -item[1])
    ]


def _ours(functions: Sequence[_Function]) -> list[list[str]]:
    return [
        [name, f"{calls:.2f}", f"{own:.1f}"]
        for package, name, calls, own in functions
        if package == "lucia"
    ][:LINES]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/profile", description=__doc__, allow_abbrev=False
    )
    parser.add_argument("--loop", default="asyncio", choices=["asyncio", "uvloop"])
    parser.add_argument(
        "--requests",
        type=int,
        default=REQUESTS,
        help="the number of requests in each part (%(default)s)",
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
