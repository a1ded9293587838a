"""Real MariaDB and PostgreSQL servers: a pytest plugin.

Each test process has its own servers, on free ports. They keep their defaults, such as collations,
because applications have these; only durability is switched off. A server that is not installed is
an error, never a skip.
"""

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, Final, Literal

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.exc import OperationalError

from tools.servers import PATIENCE, path_of, until, unused_port

__all__ = ["SqlServer", "mariadb", "postgresql", "sql_server"]

Kind = Literal["mariadb", "postgresql"]

_ASYNC_DRIVERS: Final[Mapping[Kind, str]] = {
    "mariadb": "mariadb+aiomysql",
    "postgresql": "postgresql+asyncpg",
}
_SYNC_DRIVERS: Final[Mapping[Kind, str]] = {
    "mariadb": "mariadb+pymysql",
    "postgresql": "postgresql+psycopg",
}
_ADMINS: Final[Mapping[Kind, str]] = {"mariadb": "root", "postgresql": "postgres"}
_POSTGRES_FOLDERS: Final = "/usr/lib/postgresql"
"""The folder of PostgreSQL's programs on Debian, by major version. It is not on PATH."""
_MEMORY: Final = Path("/dev/shm")  # noqa: S108 # the folder below it has a random name
_ROOM: Final = 2 * 1024**3
"""The free memory required, in bytes. Three test processes use less than half of it."""


@dataclass(frozen=True)
class SqlServer:
    """A running server without a password that belongs to this test process."""

    kind: Kind
    port: int
    _numbers: Iterator[int] = field(default_factory=count, repr=False, compare=False)

    def url(self, database: str = "") -> str:
        """Return a URL for ``create_engine``."""
        return f"{_SYNC_DRIVERS[self.kind]}://{_ADMINS[self.kind]}@127.0.0.1:{self.port}/{database}"

    def async_url(self, database: str) -> str:
        """Return a URL for ``create_async_engine``."""
        return (
            f"{_ASYNC_DRIVERS[self.kind]}://{_ADMINS[self.kind]}@127.0.0.1:{self.port}/{database}"
        )

    @contextmanager
    def database(self) -> Generator[str]:
        """Create an empty database with the default collation, yield its name, and drop it."""
        name = f"test_{next(self._numbers)}"
        self._execute(f"CREATE DATABASE {name}")
        try:
            yield name
        finally:
            self._execute(f"DROP DATABASE {name}")

    @contextmanager
    def document_database(self) -> Generator[str]:
        """Create an empty database for a document, and yield its URL."""
        with self.database() as name:
            yield self.async_url(name)

    def answers(self) -> bool:
        """Return whether the server accepts connections."""
        try:
            self._execute("SELECT 1")
        except OperationalError:
            return False
        return True

    def _execute(self, statement: str) -> None:
        engine = create_engine(self.url(), isolation_level="AUTOCOMMIT")
        try:
            with engine.connect() as connection:
                connection.execute(text(statement))
        finally:
            engine.dispose()


@pytest.fixture(scope="session")
def mariadb() -> Iterator[SqlServer]:
    """Yield a running MariaDB."""
    server = SqlServer("mariadb", unused_port())
    with _folder() as folder:
        command = [
            shutil.which("mariadbd", path=f"{os.defpath}:/usr/sbin") or "mariadbd",
            "--no-defaults",
            f"--datadir={folder}",
            f"--socket={folder}/sock",
            f"--port={server.port}",
            "--bind-address=127.0.0.1",
            "--skip-grant-tables",  # without accounts, an empty folder suffices
            "--innodb-flush-log-at-trx-commit=0",
            "--innodb-flush-method=nosync",
            "--skip-sync-frm",
            *(["--user=root"] if os.geteuid() == 0 else []),
        ]
        with _running(command, server, signal.SIGTERM, folder):
            yield server


@pytest.fixture(scope="session")
def postgresql() -> Iterator[SqlServer]:
    """Yield a running PostgreSQL. Under root it runs as the user ``postgres``."""
    server = SqlServer("postgresql", unused_port())
    account: dict[str, Any] = (
        {"user": "postgres", "group": "postgres", "extra_groups": []} if os.geteuid() == 0 else {}
    )
    with _folder(account.get("user")) as folder:
        data = folder / "data"
        initialize = [
            _postgres("initdb"),
            "-D",
            str(data),
            "-U",
            "postgres",
            "-A",
            "trust",
            "-E",
            "UTF8",
            "--no-locale",
            "--no-sync",
        ]
        subprocess.run(initialize, check=True, stdout=subprocess.DEVNULL, cwd=folder, **account)
        command = [
            _postgres("postgres"),
            "-D",
            str(data),
            "-k",
            str(folder),
            "-h",
            "127.0.0.1",
            "-p",
            str(server.port),
            "-F",
        ]
        # SIGINT disconnects clients; SIGTERM would wait for them.
        with _running(command, server, signal.SIGINT, folder, **account):
            yield server


@pytest.fixture(scope="session", params=["mariadb", "postgresql"])
def sql_server(request: pytest.FixtureRequest) -> SqlServer:
    """Return each kind of server in turn."""
    found: SqlServer = request.getfixturevalue(request.param)
    return found


def _postgres(program: str) -> str:
    """Return the path of a program of the newest PostgreSQL installed."""
    versions = sorted(
        Path(_POSTGRES_FOLDERS).glob(f"*/bin/{program}"), key=lambda path: float(path.parts[-3])
    )
    return str(versions[-1]) if versions else path_of(program)


@contextmanager
def _folder(owner: str | None = None) -> Generator[Path]:
    """Yield a temporary folder, in memory if there is room, for this user and their group.

    It is outside of pytest's folder, which other users can't enter. On a disk, creating and
    dropping tables takes most of a test's time in MariaDB.
    """
    is_in_memory = _MEMORY.is_dir() and shutil.disk_usage(_MEMORY).free >= _ROOM
    folder = tempfile.mkdtemp(prefix="lucia-sql-", dir=_MEMORY if is_in_memory else None)
    try:
        if owner is not None:
            shutil.chown(folder, owner, owner)
        yield Path(folder)
    finally:
        shutil.rmtree(folder)


@contextmanager
def _running(
    command: list[str], server: SqlServer, end: signal.Signals, folder: Path, **account: Any
) -> Generator[None]:
    log = folder / "log"
    with log.open("w") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, **account)
    try:
        until(partial(_answers_or_died, process, server, log), PATIENCE)
        yield
    finally:
        process.send_signal(end)
        process.wait()


def _answers_or_died(process: "subprocess.Popen[Any]", server: SqlServer, log: Path) -> bool:
    if process.poll() is not None:
        raise RuntimeError(
            f"{server.kind} ended with status {process.returncode} instead of starting:\n"
            f"{log.read_text()}"
        )
    return server.answers()
