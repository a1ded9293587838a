"""The cost of a validation by the number of stored sessions."""

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Final

from bench.rows import Row, Want
from bench.section import FULL, Goal, Plan, Plot, Section
from bench.stock import stock
from bench.subject_lists import OURS, ours
from bench.subjects import Running, Subject, started
from bench.warm import warm_up
from tools.servers import Server, own_server

__all__ = ["SECTION"]

NAME: Final = "stored"
RAW: Final = "bare redis-py, coalesced"
COST: Final = "cost of one"
GROWTH: Final = "times that of the fewest"
CALLERS: Final = 256
LEAST: Final = 1_000
"""The number of sessions that are read again and again, and the batch size of other reads."""

READS: Final = {"again": "read again", "first": "never read before"}
BOUND: Final = 1.1


class Stored:
    """A number of sessions of one subject, in a process and on a server of their own."""

    def __init__(self, subject: Running, server: Server, count: int) -> None:
        self.subject = subject
        self.count = count
        self._server = server
        self._restock()
        subject.ask("take", "again", *self._made, 0, LEAST)

    def rate(self, operation: str, count: int) -> float:
        """Read at least `count` sessions, and return the reads per second.

        Sessions that were never read are read in batches of a thousand, the smallest number of
        stored sessions. When none is left, all are replaced outside of the measured time.
        """
        if operation == "again":
            return self.subject.rate(operation, CALLERS, count)
        batches = -(-count // LEAST)
        return batches * LEAST / sum(self._read_batch() for _ in range(batches))

    def _read_batch(self) -> float:
        if self._next + LEAST > self.count:
            self._restock()
        self.subject.ask("take", "first", *self._made, self._next, LEAST)
        self._next += LEAST
        seconds: float = self.subject.ask("run", "first", CALLERS, LEAST)
        return seconds

    def _restock(self) -> None:
        self._server.flush()
        made = stock(self.subject, self._server.port, self.count)
        assert made
        self._made, self._next = made, 0


def measure(plan: Plan) -> Iterator[Row]:
    """Measure this library and bare coalesced reads, in alternation over the numbers stored."""
    raw = Subject(name=RAW, library="redis_mget", loop="asyncio")
    with ExitStack() as stack:
        stores: list[Stored] = []
        for count in plan.size.stored:
            for subject in (ours(), raw):
                server = stack.enter_context(own_server("redis-server", plan.folder))
                (running,) = stack.enter_context(started(server.url, subject))
                stores.append(Stored(running, server, count))
        for operation in READS:
            counts = {store: _warm_up(store, operation, plan) for store in stores}
            costs: dict[Stored, list[float]] = {store: [] for store in stores}
            for _ in range(plan.rounds):
                for store in stores:
                    costs[store].append(1e6 / store.rate(operation, counts[store]))
            least = {store.subject.subject.name: costs[store] for store in reversed(stores)}
            for store, each in costs.items():
                growth = [
                    cost / before
                    for cost, before in zip(each, least[store.subject.subject.name], strict=True)
                ]
                yield _row(store, operation, COST, "µs", each)
                yield _row(store, operation, GROWTH, "×", growth)


def _warm_up(store: Stored, operation: str, plan: Plan) -> int:
    """Read until the rate stops rising, and return the number of reads in a measurement."""
    size = plan.size
    if operation == "first":
        warm_up(lambda: store.rate(operation, size.never_read_at_once), size.windows)
        return size.never_read_at_once
    rate = store.rate(operation, LEAST)
    best = warm_up(lambda: store.rate(operation, max(LEAST, int(rate * size.window))), size.windows)
    return max(LEAST, int(best * size.seconds))


def _row(store: Stored, operation: str, what: str, unit: str, values: list[float]) -> Row:
    setting: dict[str, str | int] = {"reads": READS[operation], "what": what, "stored": store.count}
    return Row(
        section=NAME,
        subject=store.subject.subject.name,
        setting=setting,
        unit=unit,
        values=tuple(values),
    )


SECTION: Final = Section(
    name=NAME,
    title="By the number of stored sessions",
    about=(
        "Microseconds per validation, 256 at once: of the same thousand sessions again and again, "
        "and of sessions never read before, spread over the server's memory, a thousand in each "
        "measurement. The bare reads gather the GETs of one turn of the event loop in one MGET of "
        "redis-py. Their records have the same size and are not decoded."
    ),
    columns="stored",
    measure=measure,
    goals=tuple(
        Goal(
            text=(
                "cost of a validation with 1,000,000 stored sessions, against that with 1,000: "
                f"{reads}"
            ),
            row=Want(NAME, OURS, {"reads": reads, "what": GROWTH, "stored": FULL.stored[-1]}),
            better="lower",
            bound=BOUND,
        )
        for reads in READS.values()
    ),
    plots=(
        Plot(
            name="stored",
            title="Cost of one validation by the number of stored sessions",
            y="microseconds",
            setting={"what": COST},
        ),
    ),
)
