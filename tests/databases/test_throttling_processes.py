"""Failed logins in a database, counted by several processes."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import pytest
from sqlalchemy import MetaData, create_engine

from lucia import Auth, InvalidKeyId
from lucia.adapters.sqlalchemy import AuthTables, SQLAlchemyAdapter
from tests.support.guessing_process import CODE, THROTTLE
from tests.support.passwords import CHEAP
from tests.support.sql_servers import SqlServer

pytestmark = pytest.mark.no_cover

PROCESSES: Final = 4
GUESSES: Final = 12
"""How many guesses each process makes."""


@pytest.fixture(params=["sqlite", "mariadb", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Yield the URL of an empty database of each kind."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'app.db'}"
    else:
        server: SqlServer = request.getfixturevalue(request.param)
        with server.database() as name:
            yield server.url(name)


def verified(url: str) -> list[int]:
    """Guess in several processes at once, and return how many guesses each of them verified."""
    command = [sys.executable, "-m", "tests.support.guessing_process", url, str(GUESSES)]
    with ExitStack() as stack:
        processes: list[subprocess.Popen[str]] = [
            stack.enter_context(
                subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            )
            for _ in range(PROCESSES)
        ]
        pipes: list[tuple[Any, Any]] = [(each.stdin, each.stdout) for each in processes]
        assert [output.readline() for _, output in pipes] == ["ready\n"] * PROCESSES
        for given, _ in pipes:
            given.write("\n")
            given.flush()
        return [int(output.readline()) for _, output in pipes]


def test_five_wrong_codes(url: str) -> None:
    """Of many concurrent wrong codes from four processes, five are verified, and consume the key.

    So however many processes there are, a code of six digits can be guessed five times.
    """
    metadata = MetaData()
    tables = AuthTables(metadata, sessions=True)
    engine = create_engine(url)
    metadata.create_all(engine)
    adapter = SQLAlchemyAdapter(engine, tables)
    auth = Auth(users=adapter, sessions=adapter, env="DEV", hash=CHEAP, throttle=THROTTLE)
    user = auth.create_user(primary_key=None)
    auth.create_single_use_key(
        user.user_id,
        provider_id=CODE[0],
        provider_user_id=CODE[1],
        password="123456",
        expires_in=timedelta(hours=1),
    )
    assert sum(verified(url)) == 5
    with pytest.raises(InvalidKeyId):
        auth.use_key(*CODE, "123456")
    auth.close()
    engine.dispose()
