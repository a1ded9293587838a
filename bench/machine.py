"""Describe the machine and the versions of a benchmark run."""

import os
import platform
import resource
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Final

from bench.subjects import NODE
from tools.node import installed, node
from tools.servers import path_of

__all__ = ["about", "check_open_files"]

SUBJECTS: Final = 14
"""The largest number of processes that have connections to one server at a time."""

PACKAGES: Final = (
    "lucia-auth", "redis", "hiredis", "uvloop", "fastapi-users", "starsessions", "crudauth",
    "django", "flask", "flask-login", "flask-session", "fastapi", "starlette", "litestar", "quart",
    "quart-session", "uvicorn", "httptools", "waitress",
)  # fmt: skip


def check_open_files(callers: int) -> None:
    """Raise the limit of open files, so that every caller of every process can have a connection.

    Redis accepts no more clients than it may have open files. It closes further connections at
    once, and the client finds them reset.

    Raises:
        SystemExit: the limit can't be raised far enough.
    """
    wanted = SUBJECTS * callers + 100
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted and (hard >= wanted or hard == resource.RLIM_INFINITY):
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    elif soft < wanted:
        raise SystemExit(
            f"The benchmark needs {wanted:,} open files, and a process may have {hard:,} here: "
            "Redis would refuse connections. Raise the limit (ulimit -n) and start again."
        )


def about(date: str) -> dict[str, str]:
    """Return the machine and all versions as text for the report."""
    return {
        "date": date,
        "machine": f"{_processor()}, {os.cpu_count()} cores, {_memory():.0f} GiB",
        "system": f"{_system()}, kernel {platform.release().partition('-')[0]}",
        "Python": f"{platform.python_implementation()} {platform.python_version()}",
        "Node": ", ".join(
            [
                _said(*node(), "--version"),
                *(f"{name} {number}" for name, number in installed(NODE).items()),
            ]
        ),
        "server": _said(path_of("redis-server"), "--version").split(" sha=")[0],
        "packages": ", ".join(f"{package} {version(package)}" for package in PACKAGES),
    }


def _processor() -> str:
    names = [
        line.split(":")[1].strip()
        for line in _lines("/proc/cpuinfo")
        if line.startswith("model name")
    ]
    return names[0] if names else platform.machine()


def _memory() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30


def _system() -> str:
    if sys.platform == "linux":
        return platform.freedesktop_os_release().get("PRETTY_NAME", "Linux")
    return platform.platform()


def _said(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines() if Path(path).exists() else []
