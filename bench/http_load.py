"""Load web applications with wrk, in alternation."""

import json
import math
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

from bench.rows import Row
from bench.section import QUICK, Plan
from bench.subjects import ROOT, Running
from bench.warm import warm_up
from tools.servers import path_of

__all__ = ["RATE", "TIME", "Load", "load_rows", "measure_loads", "write_cookies"]

RATE: Final = "requests"
TIME: Final = "processor time of the server's process"

SCRIPT: Final = ROOT / "bench" / "web" / "load.lua"
COOKIES: Final = 100
FEW: Final = 10
"""The number of cookies with ``--quick``."""

PATIENCE: Final = 60
"""The timeout of a request, in seconds. wrk's default of 2 is too short on a busy machine."""

WINDOW: Final = 1
"""The duration of a window in seconds; wrk needs whole ones."""


class Load(NamedTuple):
    """The requests per second, and the server's processor time per request in microseconds."""

    rate: float
    time: float


NONE: Final = Load(0, math.inf)
"""The load of a window in which no response arrived: the application still opened connections."""


def write_cookies(subject: Running, plan: Plan, path: Path) -> Path:
    """Log some users in, and write their Cookie headers to a file."""
    count = FEW if plan.size is QUICK else COOKIES
    path.write_text("\n".join(subject.ask("log_in", count)))
    return path


def measure_loads(
    applications: Mapping[Running, Path], callers: int, plan: Plan, *, at_once: int = 1
) -> dict[Running, list[Load]]:
    """Load applications in alternation, and return a load for each round.

    Args:
        applications: the files of their Cookie headers.
        callers: the number of connections.
        plan: how much to measure.
        at_once: the number of applications to load at the same time; more than one saves time if
            the figures mean nothing.
    """
    # With --quick, warming up takes too long, and the figures mean nothing anyway.
    if plan.size is not QUICK:
        for subject, cookies in applications.items():
            _warm_up(subject, cookies, callers, plan)
    load = partial(_load, callers=callers)
    loads: dict[Running, list[Load]] = {subject: [] for subject in applications}
    with ThreadPoolExecutor(at_once) as pool:
        for _ in range(plan.rounds):
            tries = [
                [*pool.map(load, applications, applications.values())]
                for _ in range(plan.size.tries)
            ]
            for subject, windows in zip(applications, zip(*tries, strict=True), strict=True):
                loads[subject].append(_least_disturbed(windows))
    return loads


def load_rows(
    section: str, subject: str, setting: Mapping[str, str | int], loads: Iterable[Load]
) -> Iterator[Row]:
    """Yield the row of the rates and that of the processor times."""
    for what, unit, values in zip(
        (RATE, TIME), ("1/s", "µs"), zip(*loads, strict=True), strict=True
    ):
        yield Row(
            section=section,
            subject=subject,
            setting={**setting, "what": what},
            unit=unit,
            values=values,
        )


def _least_disturbed(windows: Iterable[Load]) -> Load:
    """Return the highest rate and the lowest processor time of some windows.

    Whatever else the machine does can only slow a window down, and often does so by more than a
    session costs.

    Raises:
        AssertionError: no response arrived in any of them.
    """
    rates, times = zip(*windows, strict=True)
    assert any(rates), "no response arrived within a window"
    return Load(max(rates), min(times))


def _warm_up(subject: Running, cookies: Path, callers: int, plan: Plan) -> None:
    """Load the application until the rate stops rising."""
    warm_up(lambda: _load(subject, cookies, callers).rate, plan.size.windows)


def _load(subject: Running, cookies: Path, callers: int) -> Load:
    """Load the application with wrk for the time of a window.

    Raises:
        AssertionError: a response was an error.
    """
    options = [
        "--threads=1",
        f"--connections={callers}",
        f"--duration={WINDOW}s",
        f"--timeout={PATIENCE}s",
        f"--script={SCRIPT}",
    ]
    command = [path_of("wrk"), *options, subject.ask("address"), "--", str(cookies)]
    before: float = subject.ask("time")
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    took: float = subject.ask("time") - before
    load: dict[str, int] = json.loads(said.splitlines()[-1])
    assert load["failed"] == 0, f"{subject.subject.name}: {said}"
    if load["requests"] == 0:
        return NONE
    return Load(load["requests"] / load["microseconds"] * 1e6, took / load["requests"] * 1e6)
