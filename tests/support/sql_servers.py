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
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import pytest
from sqlalchemy import Engine, MetaData, create_engine, text
from sqlalchemy.exc import OperationalError

from tools.servers import PATIENCE, path_of, until, unused_port

__all__ = [
    "Kind",
    "SqlServer",
    "data_folder",
    "mariadb",
    "own_sql_server",
    "postgresql",
    "sql_server",
]

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


class _KeptDatabase(NamedTuple):
    """A database with tables. Closing the stack drops it."""

    metadata: MetaData
    name: str
    engine: Engine
    stack: ExitStack


@dataclass
class SqlServer:
    """A running server without a password that belongs to this test process.

    Args:
        kind: the program.
        port: its port on the loopback interface.
        folder: holds everything that it writes.
        run_as: the arguments of ``Popen`` that name the account under which it runs.
    """

    kind: Kind
    port: int
    folder: Path = field(repr=False)
    run_as: Mapping[str, Any] = field(repr=False)
    _process: "subprocess.Popen[Any]" = field(init=False, repr=False)
    _kept: "_KeptDatabase | None" = field(default=None, init=False, repr=False)
    _numbers: Iterator[int] = field(default_factory=count, init=False, repr=False)

    def start(self) -> None:
        """Start the server, and wait until it answers."""
        with self._log.open("a") as log:
            self._process = subprocess.Popen(
                _COMMANDS[self.kind](self.folder, self.port), stdout=log, stderr=log, **self.run_as
            )
        try:
            until(self._answers_or_died, PATIENCE)
        except BaseException:
            self.crash()
            raise

    def stop(self) -> None:
        """Disconnect all clients, and shut the server down."""
        self._end(signal.SIGINT if self.kind == "postgresql" else signal.SIGTERM)

    def crash(self) -> None:
        """End the server without a shutdown. It recovers when it is started again."""
        # PostgreSQL's processes must not outlive the first one: SIGQUIT ends all, without a
        # checkpoint.
        self._end(signal.SIGQUIT if self.kind == "postgresql" else signal.SIGKILL)

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
    def database_with(self, metadata: MetaData) -> Generator[str]:
        """Yield the name of a database with a metadata's tables, which are empty.

        It is kept for the next test with the same metadata, as most tests of a module have.
        """
        if self._kept is None or self._kept.metadata is not metadata:
            self.drop_kept()
            self._kept = self._create_with(metadata)
        kept, self._kept = self._kept, None
        with kept.engine.begin() as connection:
            for table in reversed(metadata.sorted_tables):
                connection.execute(table.delete())
        try:
            yield kept.name
        finally:
            kept.engine.dispose()
            self.drop_kept()
            self._kept = kept

    def drop_kept(self) -> None:
        """Drop the database that is kept, if any."""
        if self._kept is not None:
            self._kept.stack.close()
            self._kept = None

    def _create_with(self, metadata: MetaData) -> "_KeptDatabase":
        with ExitStack() as stack:
            name = stack.enter_context(self.database())
            engine = create_engine(self.url(name))
            stack.callback(engine.dispose)
            metadata.create_all(engine)
            return _KeptDatabase(metadata, name, engine, stack.pop_all())

    @contextmanager
    def document_database(self) -> Generator[str]:
        """Create an empty database for a document, and yield its URL."""
        with self.database() as name:
            yield self.async_url(name)

    @property
    def _log(self) -> Path:
        return self.folder / "log"

    def _end(self, how: signal.Signals) -> None:
        self._process.send_signal(how)
        self._process.wait()

    def _answers_or_died(self) -> bool:
        if self._process.poll() is not None:
            raise RuntimeError(
                f"{self.kind} ended with status {self._process.returncode} instead of starting:\n"
                f"{self._log.read_text()}"
            )
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
    with own_sql_server("mariadb") as server:
        yield server


@pytest.fixture(scope="session")
def postgresql() -> Iterator[SqlServer]:
    """Yield a running PostgreSQL. Under root it runs as the user ``postgres``."""
    with own_sql_server("postgresql") as server:
        yield server


@pytest.fixture(scope="session", params=["mariadb", "postgresql"])
def sql_server(request: pytest.FixtureRequest) -> SqlServer:
    """Return each kind of server in turn."""
    found: SqlServer = request.getfixturevalue(request.param)
    return found


@contextmanager
def own_sql_server(kind: Kind) -> Generator[SqlServer]:
    """Start a server, yield it, and stop it if it still runs."""
    is_root = os.geteuid() == 0 and kind == "postgresql"  # which refuses to run as root
    run_as: dict[str, Any] = (
        {"user": "postgres", "group": "postgres", "extra_groups": []} if is_root else {}
    )
    with data_folder(run_as.get("user")) as folder:
        if kind == "postgresql":
            _initialize_postgresql(folder, run_as)
        server = SqlServer(kind, unused_port(), folder, run_as)
        server.start()
        try:
            yield server
        finally:
            server.drop_kept()
            server.stop()


def _initialize_postgresql(folder: Path, run_as: Mapping[str, Any]) -> None:
    command = [_postgres("initdb"), "-D", str(folder / "data"), "-U", "postgres", "-A", "trust"]
    command += ["-E", "UTF8", "--no-locale", "--no-sync"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=folder, **run_as)


def _postgresql_command(folder: Path, port: int) -> list[str]:
    data = str(folder / "data")
    command = [_postgres("postgres"), "-D", data, "-k", str(folder), "-h", "127.0.0.1"]
    return [*command, "-p", str(port), "-F"]


def _mariadb_command(folder: Path, port: int) -> list[str]:
    return [
        shutil.which("mariadbd", path=f"{os.defpath}:/usr/sbin") or "mariadbd",
        "--no-defaults",
        f"--datadir={folder}",
        f"--socket={folder}/sock",
        f"--port={port}",
        "--bind-address=127.0.0.1",
        "--skip-grant-tables",  # without accounts, an empty folder suffices
        "--innodb-flush-log-at-trx-commit=2",  # a commit survives a crash of the server alone
        "--innodb-flush-method=nosync",
        "--skip-sync-frm",
        *(["--user=root"] if os.geteuid() == 0 else []),
    ]


_COMMANDS: Final[Mapping[Kind, Callable[[Path, int], list[str]]]] = {
    "mariadb": _mariadb_command,
    "postgresql": _postgresql_command,
}


def _postgres(program: str) -> str:
    """Return the path of a program of the newest PostgreSQL installed."""
    versions = sorted(
        Path(_POSTGRES_FOLDERS).glob(f"*/bin/{program}"), key=lambda path: float(path.parts[-3])
    )
    return str(versions[-1]) if versions else path_of(program)


@contextmanager
def data_folder(owner: str | None = None) -> Generator[Path]:
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
