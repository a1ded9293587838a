"""Sign-ups in processes that kill themselves at one of their statements.

``python -m tests.support.killed_sql_clients`` reads lines of JSON, ``[URL, flavour, name, number
of the moment, whether the adapter is unsafe]``, and answers each with a line: ``killed``, or
``done`` if there were fewer moments. These are before and after each statement, and before and
after the COMMIT.
"""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from subprocess import PIPE, Popen
from typing import Any, Final

from sqlalchemy import Engine, create_engine, event, make_url
from sqlalchemy.ext.asyncio import create_async_engine

from lucia import AsyncAuth, Auth, PrimaryKey
from lucia.adapters.sqlalchemy import AsyncSQLAlchemyAdapter, SQLAlchemyAdapter
from tests.aio.support.unsafe_adapters import AsyncUserBeforeKey
from tests.support.children import answer_lines
from tests.support.passwords import CHEAP
from tests.support.suite_databases import TABLES, options
from tests.sync.support.unsafe_adapters import UserBeforeKey

__all__ = ["MOMENTS", "PASSWORD", "killed_clients"]

MOMENTS: Final = 8
"""Before and after two INSERTs and a SELECT, and before and after the COMMIT."""

PASSWORD: Final = "correct horse battery staple"


class KillSwitch:
    """Counts the moments of an engine's statements, and kills this process at one of them."""

    def __init__(self, engine: Engine, moment: int) -> None:
        self._left = moment
        for name in ("before_cursor_execute", "after_cursor_execute", "commit"):
            event.listen(engine, name, self.pass_moment)

    def pass_moment(self, *_: object) -> None:
        """Kill this process if it is the moment."""
        if not self._left:
            os.kill(os.getpid(), signal.SIGKILL)
        self._left -= 1


def sign_up(url: str, flavour: str, name: str, moment: int, unsafe: bool) -> None:
    """Create a user with a key of this name, over a new connection with a kill switch."""
    parsed = make_url(url)
    key = PrimaryKey("email", name, PASSWORD)
    settings: dict[str, Any] = {"env": "DEV", "hash": CHEAP}
    if flavour == "async":
        engine = create_async_engine(parsed, **options(parsed, None))
        switch = KillSwitch(engine.sync_engine, moment)
        adapter = (AsyncUserBeforeKey if unsafe else AsyncSQLAlchemyAdapter)(engine, TABLES)
        auth = AsyncAuth(users=adapter, sessions=adapter, **settings)
        asyncio.run(auth.create_user(primary_key=key))
    else:
        sync_engine = create_engine(parsed, **options(parsed, None))
        switch = KillSwitch(sync_engine, moment)
        sync_adapter = (UserBeforeKey if unsafe else SQLAlchemyAdapter)(sync_engine, TABLES)
        Auth(users=sync_adapter, sessions=sync_adapter, **settings).create_user(primary_key=key)
    switch.pass_moment()


class Clients:
    """Sign-ups that are killed, in children of another process."""

    def __init__(self, process: "Popen[str]") -> None:
        self._process = process

    def sign_up(self, *case: object) -> str:
        """Run ``sign_up`` with these arguments in a child, and return how that ended."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(case) + "\n")
        self._process.stdin.flush()
        return self._process.stdout.readline().strip()


@contextmanager
def killed_clients() -> Iterator[Clients]:
    """Start the process whose children sign up, and end it."""
    command = [sys.executable, "-m", __name__]
    with Popen(command, stdin=PIPE, stdout=PIPE, text=True) as process:
        yield Clients(process)
        assert process.stdin is not None
        process.stdin.close()


if __name__ == "__main__":
    answer_lines(lambda case: sign_up(*case))
