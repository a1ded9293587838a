"""The machine and the versions that the benchmark ran on."""

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
"""How many processes at most keep connections to one server at a time."""

PACKAGES: Final = (
    "lucia-auth", "redis", "hiredis", "uvloop", "fastapi-users", "starsessions", "crudauth", "django", "flask-session", "fastapi",
    "starlette", "uvicorn", "httptools",
)  # fmt: skip


def check_open_files(callers: int) -> None:
    """Make sure that so many callers in each process can have a connection.

    A server takes no more clients than it may have open files: it closes the connections of later
    ones at once, and whoever writes to such a connection finds it reset.

    Raises:
        SystemExit: processes may not have as many open files here.
    """
    wanted = SUBJECTS * callers + 100
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted and (hard >= wanted or hard == resource.RLIM_INFINITY):
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    elif soft < wanted:
        raise SystemExit(
            f"The benchmark needs {wanted:,} open files, and a process may have {hard:,} here: "
            "the server would refuse connections. Raise the limit (ulimit -n) and start it again."
        )


def about(date: str) -> dict[str, str]:
    """The machine and all versions, for people."""
    return {
        "date": date,
        "machine": f"{_processor()}, {os.cpu_count()} cores, {_memory():.0f} GiB",
        "system": f"{_system()}, kernel {platform.release().partition('-')[0]}",
        "Python": f"{platform.python_implementation()} {platform.python_version()}",
        "Node": f"{_said(*node(), '--version')}, {', '.join(f'{name} {number}' for name, number in installed(NODE).items())}",
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
