"""Provoke conflicts of transactions on a real database server."""

from collections.abc import Callable, Container, Generator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from itertools import count
from typing import Any, Final

from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.ext.asyncio import AsyncEngine

from tests.support.sql_servers import SqlServer
from tools.servers import until

__all__ = ["Rivals"]

_BALLAST: Final = ", ".join(f"('ballast-{number}')" for number in range(100))

_MAKE_STRONG: Final = {
    "mariadb": f"INSERT INTO auth_user (id) VALUES {_BALLAST}",
    "postgresql": "SET LOCAL deadlock_timeout = '1h'",
}
"""Statements that make a rival survive a deadlock.

MariaDB aborts the transaction that changed less, PostgreSQL the first one that looks for a
deadlock.
"""

_COUNT_WAITING: Final = {
    "mariadb": """
        SELECT CAST(variable_value AS INT) FROM information_schema.global_status
        WHERE variable_name = 'INNODB_ROW_LOCK_CURRENT_WAITS'
    """,  # not innodb_trx: it is a cache, which polling keeps from being refreshed
    "postgresql": "SELECT count(*) FROM pg_locks WHERE NOT granted",
}


class Rivals:
    """Rival transactions that conflict with an engine's at a given statement, and win."""

    def __init__(self, server: SqlServer, engine: Engine | AsyncEngine) -> None:
        self._server = server
        self._engine = engine.sync_engine if isinstance(engine, AsyncEngine) else engine
        self._rivals = create_engine(server.url(engine.url.database or ""))
        self._watcher = create_engine(server.url(), isolation_level="AUTOCOMMIT")

    def close(self) -> None:
        """Close the rivals' connections."""
        self._rivals.dispose()
        self._watcher.dispose()

    @contextmanager
    def lock(self, before: str, first: str, then: str, times: int) -> Generator[list[Future[None]]]:
        """Abort the engine's transactions by deadlocks, and yield a list with an item for each.

        Whenever the engine is about to execute the given statement, a rival locks a row that the
        statement needs, and then waits for a row that the engine's transaction has locked already.
        The rival's transaction is rolled back as soon as it has both locks.

        Args:
            before: the prefix of the engine's statement.
            first: the rival's statement that locks a row which the engine's statement needs.
            then: the rival's statement for a row that the engine's transaction has locked.
            times: the number of these statements that meet a rival, counted from the first.

        Raises:
            DBAPIError: the server aborted a rival's transaction.
        """
        met: list[Future[None]] = []

        def meet_a_rival(connection: Connection) -> None:
            if self._server.kind == "postgresql":
                connection.exec_driver_sql("SET LOCAL deadlock_timeout = '10ms'")
            rival = self._rivals.connect()
            rival.execute(text(_MAKE_STRONG[self._server.kind]))
            rival.execute(text(first))
            met.append(threads.submit(_lock_and_leave, rival, then))
            until(self._is_waiting)

        def wait_for_rivals(_: Connection) -> None:
            # The next attempt could lock the row for which the rival still waits, and the next
            # rival would then wait for this one: without end, as no server sees the whole circle.
            wait(met)

        with (
            ThreadPoolExecutor() as threads,
            self._hook(before, meet_a_rival, range(times)),
            _listening(self._engine, "begin", wait_for_rivals),
        ):
            yield met
        for rival in met:
            rival.result()

    @contextmanager
    def change(self, before: str, *statements: str, place: int) -> Generator[list[str]]:
        """Commit a rival's change when the engine is about to execute the given statement.

        Args:
            before: the prefix of the engine's statement.
            statements: the rival's statements.
            place: the number of the engine's statement among those with the prefix, from 0.

        Yields:
            A list that gets the rival's statements when they are committed.
        """
        made: list[str] = []

        def make_change(_: Connection) -> None:
            with self._rivals.begin() as rival:
                for statement in statements:
                    rival.execute(text(statement))
            made.extend(statements)

        with self._hook(before, make_change, [place]):
            yield made

    def _is_waiting(self) -> bool:
        with self._watcher.connect() as connection:
            return bool(connection.execute(text(_COUNT_WAITING[self._server.kind])).scalar_one())

    @contextmanager
    def _hook(
        self,
        before: str,
        act: Callable[[Connection], None],
        places: Container[int],
    ) -> Generator[None]:
        numbers = count()

        def act_before(connection: Connection, _: Any, statement: str, *_rest: object) -> None:
            if statement.startswith(before) and next(numbers) in places:
                act(connection)

        with _listening(self._engine, "before_cursor_execute", act_before):
            yield


@contextmanager
def _listening(engine: Engine, name: str, listener: Callable[..., None]) -> Generator[None]:
    event.listen(engine, name, listener)
    try:
        yield
    finally:
        event.remove(engine, name, listener)


def _lock_and_leave(rival: Connection, statement: str) -> None:
    with rival:
        rival.execute(text(statement))
