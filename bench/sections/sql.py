"""Validating sessions in SQL databases, beside Redis."""

import sys
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Final

from bench.databases import fill, own_postgresql
from bench.peers.ours_sql import ID_KEY
from bench.rows import Row
from bench.section import Plan, Section
from bench.stock import Stock, stock
from bench.subject_lists import ours
from bench.subjects import Running, Subject, started
from tools.servers import own_server

__all__ = ["SECTION"]

NAME: Final = "sql"
POSTGRESQL: Final = "lucia-auth, PostgreSQL"
SQLITE: Final = "lucia-auth, SQLite"
CALLERS: Final = (1, 64)
POOL: Final = 1_000
"""How many sessions are read again and again."""

READS: Final = {"again": "validate again", "first": "validate first"}


class Stored:
    """The sessions of one subject, read from the first to the last and again."""

    def __init__(self, subject: Running, made: Stock, count: int) -> None:
        self.subject = subject
        self.count = count
        self._made = made
        self._next = 0
        subject.ask("take", "again", *made, 0, min(POOL, count))

    def rate(self, operation: str, callers: int, count: int) -> float:
        """Return the validations per second."""
        if operation == "first":
            count = min(count, self.count)
            if self._next + count > self.count:
                self._next = 0
            self.subject.ask("take", "first", *self._made, self._next, count)
            self._next += count
        return self.subject.rate(operation, callers, count)


def measure(plan: Plan) -> Iterator[Row]:
    """Measure PostgreSQL, SQLite and Redis in alternation."""
    size = plan.size
    with ExitStack() as stack:
        stores: list[Stored] = []
        sqlite = f"sqlite+aiosqlite:///{plan.folder / 'app.db'}"
        for name, url, count in (
            (POSTGRESQL, stack.enter_context(own_postgresql()), size.in_postgresql),
            (SQLITE, sqlite, size.in_sqlite),
        ):
            subject = Subject(name=name, library="ours_sql", loop="asyncio")
            (running,) = stack.enter_context(started(url, subject))
            print(f"{NAME}: storing {count:,} sessions", file=sys.stderr, flush=True)
            stores.append(Stored(running, fill(url, ID_KEY, count), count))
        server = stack.enter_context(own_server("redis-server", plan.folder))
        (running,) = stack.enter_context(started(server.url, ours()))
        made = stock(running, server.port, size.in_sqlite)
        assert made
        stores.append(Stored(running, made, size.in_sqlite))
        keys = [
            (operation, callers, store)
            for operation in READS
            for callers in CALLERS
            for store in stores
        ]
        # The first measurement of each also warms it up; it only tells how many calls are enough.
        counts = [
            max(size.least, int(store.rate(operation, callers, 2 * size.least) * size.seconds))
            for operation, callers, store in keys
        ]
        values: list[list[float]] = [[] for _ in keys]
        for _ in range(plan.rounds):
            for each, count, (operation, callers, store) in zip(values, counts, keys, strict=True):
                each.append(store.rate(operation, callers, count))
    for each, (operation, callers, store) in zip(values, keys, strict=True):
        yield Row(
            section=NAME,
            subject=store.subject.subject.name,
            setting={
                "operation": READS[operation],
                "stored": store.count,
                "concurrency": callers,
            },
            unit="1/s",
            values=tuple(each),
        )


SECTION: Final = Section(
    name=NAME,
    title="Validating in SQL",
    about=(
        "Sessions per second, by the number of concurrent validations, over "
        "`AsyncSQLAlchemyAdapter` with hashed ids: PostgreSQL by asyncpg with a pool of 16 "
        "connections, and SQLite by aiosqlite. *Again* reads the same thousand sessions again and "
        "again; *first* reads each session once, in the order in which they were stored, which is "
        "not that of their hashes in the index."
    ),
    columns="concurrency",
    measure=measure,
)
