"""Servers that speak MongoDB's protocol: a pytest plugin.

SecantusDB stores in WiredTiger, as MongoDB does, and says that it is a replica set of one server.
NX-27017 stores in SQLite, and says that it is a single server. Each test process has its own, on
free ports. If the environment variable LUCIA_TEST_DATABASE has a URL that begins with ``mongodb``,
that server is used instead.

They differ from MongoDB: neither has collations. NX-27017 does not repeat writes, shows a
transaction's changes before its commit, finds no ``ObjectId`` outside of ``_id`` and no UUID,
takes texts that a number may have (``1`` and ``01``) for one, and does not say which index a
duplicate violates.
"""

import os
import subprocess
import sys
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest
from pymongo import AsyncMongoClient, MongoClient
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.client_session import ClientSession
from pymongo.database import Database
from pymongo.errors import PyMongoError

from tools.servers import PATIENCE, until, unused_port

__all__ = [
    "SERVERS",
    "SESSIONS",
    "AsyncMongo",
    "Mongo",
    "MongoServer",
    "given_mongodb",
    "mongo_server",
    "nx_27017",
    "secantusdb",
]

_GIVEN: Final = os.environ.get("LUCIA_TEST_DATABASE", "")
_IS_GIVEN: Final = _GIVEN.startswith("mongodb")

SERVERS: Final = ("given_mongodb",) if _IS_GIVEN else ("secantusdb", "nx_27017")
"""All servers, by the names of their fixtures."""

SESSIONS: Final = ("given_mongodb",) if _IS_GIVEN else ("secantusdb",)
"""Those that isolate transactions, repeat writes, and find every type in every field."""


@dataclass(frozen=True)
class MongoServer:
    """A running server.

    Args:
        url: its URL; not in the ``repr``, since that of a given server has a password.
        port: its port on this machine; 0 for a given server.
    """

    kind: str
    url: str
    port: int
    database: str = f"lucia_test_{os.getpid()}"

    def __repr__(self) -> str:
        return self.kind

    def drop(self, database: str) -> None:
        """Drop a database."""
        with MongoClient[Any](self.url) as client:
            client.drop_database(database)

    @contextmanager
    def document_database(self) -> Generator[str]:
        """Empty the database that the documents use, and yield the server's URL."""
        self.drop("app")
        yield self.url

    def answers(self) -> bool:
        """Return whether the server accepts connections."""
        try:
            with MongoClient[Any](self.url, serverSelectionTimeoutMS=500) as client:
                client.admin.command("ping")
        except PyMongoError:
            return False
        return True


@pytest.fixture(scope="session")
def given_mongodb() -> Iterator[MongoServer]:
    """Yield the caller's server. Its database for the tests is dropped at the end."""
    server = MongoServer("given", _GIVEN, 0)
    yield server
    server.drop(server.database)


@pytest.fixture(scope="session")
def secantusdb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MongoServer]:
    """Yield a running SecantusDB."""
    port, folder = unused_port(), tmp_path_factory.mktemp("secantusdb")
    options = [f"--port={port}", f"--storage-path={folder / 'data'}", "--cache-size=64M"]
    with _running("secantusd-py", options, port, folder) as server:
        yield server


@pytest.fixture(scope="session")
def nx_27017(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MongoServer]:
    """Yield a running NX-27017."""
    port, folder = unused_port(), tmp_path_factory.mktemp("nx-27017")
    options = [
        f"--port={port}",
        "--db=memory",
        f"--log-file={folder / 'own.log'}",
        f"--pid-file={folder / 'pid'}",
    ]
    with _running("nx-27017", options, port, folder) as server:
        yield server


@pytest.fixture(scope="session", params=SERVERS)
def mongo_server(request: pytest.FixtureRequest) -> MongoServer:
    """Return each server in turn."""
    found: MongoServer = request.getfixturevalue(request.param)
    return found


@contextmanager
def _running(program: str, options: list[str], port: int, folder: Path) -> Iterator[MongoServer]:
    server = MongoServer(program, f"mongodb://127.0.0.1:{port}/", port)
    log = folder / "log"
    command = [str(Path(sys.prefix, "bin", program)), *options]
    with log.open("w") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, cwd=folder)
    try:
        until(partial(_answers_or_died, process, server, log), PATIENCE)
        yield server
    finally:
        process.terminate()
        process.wait()


def _answers_or_died(process: "subprocess.Popen[Any]", server: MongoServer, log: Path) -> bool:
    if process.poll() is not None:
        raise RuntimeError(
            f"{server.kind} ended with status {process.returncode} instead of starting:\n"
            f"{log.read_text()}"
        )
    return server.answers()


class AsyncMongo:
    """A client of a server. Entering the context returns the server's database, emptied.

    Args:
        server: the server.
        port: another port to connect to, such as a proxy's.
        options: options of the client.
    """

    def __init__(self, server: MongoServer, port: int = 0, **options: Any) -> None:
        url = f"mongodb://127.0.0.1:{port}/?directConnection=true" if port else server.url
        self.client: AsyncMongoClient[Any] = AsyncMongoClient(url, **options)
        self._name = server.database

    async def __aenter__(self) -> AsyncDatabase[Any]:
        await self.client.drop_database(self._name)
        return self.client[self._name]

    async def __aexit__(self, *_: object) -> None:
        await self.client.close()

    @classmethod
    async def in_session(cls, database: AsyncDatabase[Any]) -> AsyncClientSession:
        """Return a session of the database's client with a transaction that has begun."""
        session = database.client.start_session()
        await session.start_transaction()
        return session

    @classmethod
    def wrong(cls) -> tuple[Any, Any]:
        """Return a database and a session that an async adapter refuses."""
        client = MongoClient[Any](connect=False)
        return client["app"], client.start_session


class Mongo:
    """The sync counterpart of :class:`AsyncMongo`."""

    def __init__(self, server: MongoServer, port: int = 0, **options: Any) -> None:
        url = f"mongodb://127.0.0.1:{port}/?directConnection=true" if port else server.url
        self.client: MongoClient[Any] = MongoClient(url, **options)
        self._name = server.database

    def __enter__(self) -> Database[Any]:
        self.client.drop_database(self._name)
        return self.client[self._name]

    def __exit__(self, *_: object) -> None:
        self.client.close()

    @classmethod
    def in_session(cls, database: Database[Any]) -> ClientSession:
        session = database.client.start_session()
        session.start_transaction()
        return session

    @classmethod
    def wrong(cls) -> tuple[Any, Any]:
        client = AsyncMongoClient[Any](connect=False)
        return client["app"], client.start_session
