"""Real servers that serve the applications, and what the cases need beside them."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, Final

import httpx
import redis
from sqlalchemy import MetaData, create_engine

from lucia import Auth, Session, User
from lucia.adapters.redis import RedisSessionAdapter
from lucia.adapters.sqlalchemy import AuthTables
from tools.servers import Server, own_server, until, unused_port

__all__ = ["NAME", "PASSWORD", "SITES", "Site", "SiteKind", "serving", "set_cookies"]

NAME: Final = "auth_session"
PASSWORD: Final = "correct horse"
HTML: Final = {"Accept": "text/html,application/xhtml+xml;q=0.9,*/*;q=0.8"}

_APPS: Final = "tests.web.behaviour.apps"
_numbers = count()


def _uvicorn(app: str, port: int) -> list[str]:
    return ["-m", "uvicorn", f"{_APPS}.{app}:app", "--port", str(port), "--log-level", "warning"]


def _uvicorn_workers(app: str, port: int) -> list[str]:
    return [*_uvicorn(app, port), "--workers", "2"]


def _two_loops(app: str, port: int) -> list[str]:
    return ["-m", "tests.web.behaviour.two_loops", f"{_APPS}.{app}", str(port)]


def _hypercorn(app: str, port: int) -> list[str]:
    return ["-m", "hypercorn", f"{_APPS}.{app}:app", "--bind", f"127.0.0.1:{port}"]


def _granian(interface: str) -> Callable[[str, int], list[str]]:
    def command(app: str, port: int) -> list[str]:
        target = f"{_APPS}.{app}:app"
        options = ["--interface", interface, "--port", str(port), "--log-level", "warning"]
        return ["-m", "granian", *options, target]

    return command


def _gunicorn(*options: str, workers: int = 2) -> Callable[[str, int], list[str]]:
    def command(app: str, port: int) -> list[str]:
        bind = ["--bind", f"127.0.0.1:{port}", "--log-level", "warning", "--no-control-socket"]
        processes = ["--preload", "--workers", str(workers), *options]
        return ["-m", "gunicorn", *bind, *processes, f"{_APPS}.{app}:app"]

    return command


@dataclass(frozen=True)
class SiteKind:
    """An application and the server that serves it.

    Args:
        app: the module of the application.
        command: returns the arguments of the Python that starts the server.
        workers: how many processes serve requests.
        trusts_proxy: whether the server believes ``X-Forwarded-Proto`` of a proxy on this machine.
        environment: further variables for the application.
    """

    app: str
    command: Callable[[str, int], list[str]]
    workers: int = 1
    trusts_proxy: bool = True
    environment: Mapping[str, str] = field(default_factory=dict[str, str])


SITES: Final = {
    "ASGI, uvicorn": SiteKind("asgi_app", _uvicorn),
    "Starlette, uvicorn": SiteKind("starlette_app", _uvicorn),
    "Starlette, two event loops": SiteKind("starlette_app", _two_loops),
    "Starlette, hypercorn": SiteKind("starlette_app", _hypercorn, trusts_proxy=False),
    "FastAPI, two workers of uvicorn": SiteKind("fastapi_app", _uvicorn_workers, workers=2),
    "FastAPI, granian": SiteKind("fastapi_app", _granian("asgi"), trusts_proxy=False),
    "Litestar, uvicorn": SiteKind("litestar_app", _uvicorn),
    "Quart, hypercorn": SiteKind("quart_app", _hypercorn, trusts_proxy=False),
    "Django, uvicorn": SiteKind("django_asgi", _uvicorn),
    "Django with an Auth alone, uvicorn": SiteKind(
        "django_asgi", _uvicorn, environment={"BEHAVIOUR_SYNC_AUTH": "1"}
    ),
    "Django, threads of gunicorn": SiteKind("django_wsgi", _gunicorn("--threads", "8"), workers=2),
    # Django itself can't run async views in greenlets.
    "Django, gevent in gunicorn": SiteKind(
        "django_wsgi",
        _gunicorn("-k", "gevent"),
        workers=2,
        environment={"BEHAVIOUR_SYNC_AUTH": "1", "BEHAVIOUR_SYNC_VIEWS": "1"},
    ),
    "WSGI, threads of gunicorn": SiteKind("wsgi_app", _gunicorn("--threads", "8"), workers=2),
    "an application with a fault": SiteKind("faulty_app", _gunicorn("--threads", "8"), workers=2),
    "Flask, threads of gunicorn": SiteKind("flask_app", _gunicorn("--threads", "8"), workers=2),
    "Flask, gevent in gunicorn": SiteKind("flask_app", _gunicorn("-k", "gevent"), workers=2),
    "Flask, one process of threads": SiteKind("flask_app", _gunicorn("--threads", "8", workers=1)),
    "Flask, one process of gevent": SiteKind("flask_app", _gunicorn("-k", "gevent", workers=1)),
    "Flask, granian": SiteKind("flask_app", _granian("wsgi"), trusts_proxy=False),
}


@dataclass
class Site:
    """A running site."""

    kind: SiteKind
    port: int
    redis_server: Server
    auth: Auth[User]
    auth_of_yesterday: Auth[User]
    browsers: list[httpx.Client] = field(default_factory=list[httpx.Client])
    """Closed with the site: a case that fails may leave some open."""

    @property
    def url(self) -> str:
        """The URL of the site."""
        return f"http://127.0.0.1:{self.port}"

    def browser(self, cookie: str | None = None, **headers: str) -> httpx.Client:
        """Return a client with a cookie jar that sends the Origin of the site's own pages."""
        client = httpx.Client(
            base_url=self.url, headers={"Origin": self.url, **headers}, trust_env=False, timeout=30
        )
        self.browsers.append(client)
        if cookie is not None:
            client.cookies.set(NAME, cookie, domain="127.0.0.1")
        return client

    def member(self) -> tuple[httpx.Client, str]:
        """Sign somebody up, and return their browser, not entered yet, and their name."""
        name = f"member{next(_numbers)}"
        with self.browser() as client:
            form = {"username": name, "password": PASSWORD}
            client.post("/auth/signup", json=form).raise_for_status()
            return self.browser(client.cookies[NAME]), name

    def idle_session(self, user_id: str = "ann") -> Session:
        """Create a session that has been idle since an hour ago."""
        return self.auth_of_yesterday.create_session(user_id)

    def send_raw(self, *lines: str) -> bytes:
        """Send a request of these lines by hand, and return the whole response."""
        text = "\r\n".join([*lines, f"Host: 127.0.0.1:{self.port}", "Connection: close", "", ""])
        with socket.create_connection(("127.0.0.1", self.port), timeout=30) as raw:
            with suppress(OSError):  # a server may refuse a long header before it has read it
                raw.sendall(text.encode("latin-1"))
            received = b""
            with suppress(OSError):
                while part := raw.recv(65_536):
                    received += part
            return received


def set_cookies(response: httpx.Response) -> list[str]:
    """Return the values of the session cookie that a response sets."""
    values = response.headers.get_list("set-cookie")
    return [value.partition(";")[0].partition("=")[2] for value in values if value.startswith(NAME)]


@contextmanager
def serving(kind: SiteKind, folder: Path, **environment: str) -> Iterator[Site]:
    """Serve an application with a Redis of its own, and yield the site."""
    database = folder / "users.db"
    metadata = MetaData()
    AuthTables(metadata)
    engine = create_engine(f"sqlite:///{database}")
    with engine.begin() as connection:
        connection.exec_driver_sql("PRAGMA journal_mode = WAL")
        metadata.create_all(connection)
    engine.dispose()
    with own_server("redis-server", folder) as server:
        port = unused_port()
        variables = {**kind.environment, **environment}
        with _process(kind.command(kind.app, port), server, database, variables):
            client: Any
            with redis.Redis.from_url(server.url, protocol=2) as client:
                sessions = RedisSessionAdapter(client)
                auth: Auth[User] = Auth(sessions=sessions, env="DEV")
                past: Auth[User] = Auth(sessions=sessions, env="DEV", clock=_yesterday)
                site = Site(kind, port, server, auth, past)
                until(lambda: _responds(site), 30)
                try:
                    yield site
                finally:
                    for browser in site.browsers:
                        browser.close()
                    sessions.close()


@contextmanager
def _process(
    arguments: Sequence[str], server: Server, database: Path, environment: dict[str, str]
) -> Iterator[None]:
    # The coverage of the server's process is not measured, see no_cover.
    inherited = {key: value for key, value in os.environ.items() if "COVERAGE" not in key}
    process = subprocess.Popen(
        [sys.executable, *arguments],
        env={
            **inherited,
            "BEHAVIOUR_REDIS": server.url,
            "BEHAVIOUR_DATABASE": str(database),
            **environment,
        },
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL if "BEHAVIOUR_SHOW" not in os.environ else None,
        start_new_session=True,
    )
    try:
        yield
        assert process.poll() is None, "the server has exited"
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _yesterday() -> int:
    """Return the time of 25 hours ago: a session that was created then is idle now."""
    return int(time.time() * 1_000) - 25 * 3_600_000


def _responds(site: Site) -> bool:
    try:
        return httpx.get(f"{site.url}/unused", trust_env=False).status_code == 200
    except httpx.TransportError:
        return False
