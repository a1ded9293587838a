"""Databases of the benchmark, and very many sessions in them."""

import asyncio
import json
import os
import secrets
import shutil
import sqlite3
import subprocess
import tempfile
import time
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing, contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, Final

from bench.peer import HOUR
from bench.stock import PREFIX_BYTES, Stock, session_ids, users_of
from lucia._rules.id_hashes import HashedIds
from lucia._rules.sessions import SESSION_ID_LENGTH
from tools.servers import unused_port

__all__ = ["fill", "own_postgresql"]

FOLDERS: Final = "/usr/lib/postgresql"
"""The folder of PostgreSQL's programs on Debian, by major version. It is not on PATH."""

SETTINGS: Final = {
    "shared_buffers": "2GB",
    "max_wal_size": "8GB",  # fewer checkpoints while it is filled
    "fsync": "off",  # what is measured only reads
    "listen_addresses": "127.0.0.1",
}
PIECE: Final = 100_000
"""How many sessions are written at once."""

HOUR_MS: Final = 1_000 * HOUR
"""The active period of the sessions, and the idle one: in it they are stored and read."""

COLUMNS: Final = ("id", "user_id", "active_expires", "idle_expires", "attributes")


@contextmanager
def own_postgresql() -> Generator[str]:
    """Start a PostgreSQL with a folder of its own, and yield the URL of its database."""
    # It refuses to run as root. The user it runs as then can't enter the benchmark's own folder.
    account: dict[str, Any] = (
        {"user": "postgres", "group": "postgres", "extra_groups": []} if os.geteuid() == 0 else {}
    )
    folder = Path(tempfile.mkdtemp(prefix="lucia-bench-sql-"))
    try:
        if account:
            shutil.chown(folder, "postgres", "postgres")
        port = unused_port()
        options = "".join(f" -c {name}={value}" for name, value in SETTINGS.items())
        where = ["-D", str(folder / "data")]
        _run("initdb", *where, "-U", "postgres", "-A", "trust", "--no-locale", **account)
        log = ["-l", str(folder / "log"), "-o", f"-p {port} -k {folder}{options}"]
        _run("pg_ctl", *where, "-w", *log, "start", **account)
        try:
            yield f"postgresql+asyncpg://postgres@127.0.0.1:{port}/postgres"
        finally:
            _run("pg_ctl", *where, "-w", "-m", "immediate", "stop", **account)
    finally:
        shutil.rmtree(folder)


def _run(program: str, *arguments: str, **options: Any) -> None:
    newest = max(Path(FOLDERS).glob(f"*/bin/{program}"), key=lambda path: float(path.parts[-3]))
    subprocess.run([newest, *arguments], check=True, stdout=subprocess.DEVNULL, cwd="/", **options)


def fill(url: str, id_key: bytes, count: int) -> Stock:
    """Store `count` sessions and their users, whose ids are hashed with a key, and return them."""
    made = Stock(secrets.token_hex(PREFIX_BYTES), SESSION_ID_LENGTH)
    users = ((user_id,) for user_id in dict.fromkeys(users_of(range(count))))
    rows = _sessions(made, id_key, count)
    driver, _, place = url.partition("://")
    if driver.startswith("sqlite"):
        _fill_sqlite(place.removeprefix("/"), users, rows)
    else:
        asyncio.run(_fill_postgresql(f"postgresql://{place}", users, rows))
    return made


def _sessions(made: Stock, id_key: bytes, count: int) -> Iterator[tuple[object, ...]]:
    ids, now = HashedIds([id_key], "refuse"), time.time_ns() // 1_000_000
    for number in range(count):
        (session_id,), (user_id,) = session_ids(made, [number]), users_of([number])
        attributes = json.dumps({"handle": secrets.token_urlsafe(16), "created_at": now})
        yield ids.stored(session_id), user_id, now + HOUR_MS, now + 2 * HOUR_MS, attributes


def _pieces(rows: Iterable[Any]) -> Iterator[list[Any]]:
    rest = iter(rows)
    while piece := list(islice(rest, PIECE)):
        yield piece


def _fill_sqlite(path: str, users: Iterable[Any], sessions: Iterable[Any]) -> None:
    with closing(sqlite3.connect(path)) as connection:
        for piece in _pieces(users):
            connection.executemany("INSERT OR IGNORE INTO auth_user (id) VALUES (?)", piece)
        statement = f"INSERT INTO auth_session ({', '.join(COLUMNS)}) VALUES (?, ?, ?, ?, ?)"  # noqa: S608
        for piece in _pieces(sessions):
            connection.executemany(statement, piece)
        connection.commit()


async def _fill_postgresql(url: str, users: Iterable[Any], sessions: Iterable[Any]) -> None:
    import asyncpg  # type: ignore[import-untyped]

    driver: Any = asyncpg  # it has no types
    connection = await driver.connect(url)
    await connection.execute("TRUNCATE auth_session, auth_key, auth_user")
    await connection.execute("SET session_replication_role = replica")  # no foreign keys to check
    for piece in _pieces(users):
        await connection.copy_records_to_table("auth_user", records=piece, columns=["id"])
    for piece in _pieces(sessions):
        await connection.copy_records_to_table("auth_session", records=piece, columns=COLUMNS)
    await connection.execute("VACUUM ANALYZE")
    await connection.close()
