"""Requests of one tick of an event loop, sent to a server together.

Where many tasks ask at once, most of what a request costs is its way: a connection of its own, packing, sending, waking up. So what is
asked within one tick goes on one connection, and all reads in one command. While as many batches as may be are under way, requests pile
up, and the next batch is larger.

* Each request has a future of its own, which no one else waits for. One that is cancelled before it is sent is not sent; the answer to one
  that is cancelled later is thrown away. A batch belongs to a task of ours, never to one that waits.
* A request is never joined to one that is already sent: its answer could be older than a revocation that is over.
* Nobody is given an error that somebody else is given too, since raising one changes it.
"""

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from contextvars import Context
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

from lucia._logs import overloaded
from lucia._redis.commands import Reply, Words
from lucia._redis.transport.connection_io import Exchange, Records, found_in
from lucia._redis.transport.retries import BatchRejected, NoReply
from lucia.errors import Overloaded

__all__ = ["RequestBatcher"]

MAX_REQUESTS: Final = 512
"""How many requests are sent together at most."""

MIN_COMMANDS: Final = 32
"""How many commands are sent together at least, where so many wait: fewer would be cheap to answer, and dear to send."""

MAX_IN_FLIGHT: Final = 4
"""How many batches are under way at once to one server, each on a connection of its own."""

MAX_WAITING: Final = 50_000
"""How many requests wait to be sent; beyond that they are refused."""


_Read = tuple[Sequence[bytes], "asyncio.Future[Records]"]
"""Keys of records in one slot, and what tells them: a tuple, since nothing is made more often."""


_Asked = tuple[Sequence[Words], "asyncio.Future[list[Reply]]", float, bool]
"""Commands that belong together, the future of their replies, until when somebody waits for these,
by the clock, and whether they need a fresh connection."""


@dataclass(slots=True, eq=False)
class _Batch:
    """What is sent together.

    Args:
        reads: those that somebody waits for.
        asked: likewise.
        many_slots: whether each read needs a command of its own.
        sent: whether it may have arrived at the server.
    """

    reads: list[_Read]
    asked: list[_Asked]
    many_slots: bool
    sent: bool = False

    def commands(self) -> list[Words]:
        """One ``MGET`` for all the reads, unless keys are in many slots; then what was asked."""
        words: list[Words] = []
        if self.many_slots:
            words += [("MGET", *keys) for keys, _ in self.reads]
        elif self.reads:
            words.append(["MGET", *[key for keys, _ in self.reads for key in keys]])
        for commands, *_ in self.asked:
            words += commands
        return words

    def needs_fresh(self) -> bool:
        """Whether one of the requests is a retry, which needs a connection opened for it."""
        return any(fresh for *_, fresh in self.asked)

    def is_sent(self) -> None:
        """It may arrive at the server from now on."""
        self.sent = True

    def answer(self, replies: list[Reply]) -> None:
        """Give each its replies; the last of them may have none, where the client closed the connection before."""
        taken = len(self.reads) if self.many_slots else min(len(self.reads), 1)
        for (_, records), found in zip(self.reads, self._found(replies[:taken]), strict=False):
            if not records.done():
                if found is None:
                    records.set_exception(BatchRejected())
                else:
                    records.set_result(found)
        for commands, future, *_ in self.asked:
            count = len(commands)
            if not future.done() and len(replies) > taken:
                future.set_result(replies[taken : taken + count])
            taken += count

    def _found(self, replies: list[Reply]) -> list[Records | None]:
        """What each read found, by the replies to all of them; None where that was no answer."""
        counts = [len(keys) for keys, _ in self.reads]
        if self.many_slots:
            return [found_in(reply, count) for reply, count in zip(replies, counts, strict=False)]
        records = found_in(replies[0], sum(counts)) if replies else None
        if records is None:
            return [None] * len(counts)
        if len(records) == len(counts):
            return [[record] for record in records]
        return [
            records[end - count : end]
            for count, end in zip(counts, accumulate(counts), strict=True)
        ]

    def fail(self, error: NoReply | BatchRejected) -> None:
        """Raise it at all that have no answer."""
        for _, records in self.reads:
            if not records.done():
                records.set_exception(error.for_another())
        for _, future, *_ in self.asked:
            if not future.done():
                future.set_exception(error.for_another())

    def expire(self, now: float) -> float:
        """Tell those whose time is over, and return when the first of the others' is."""
        next_end = math.inf
        for _, future, end, _ in self.asked:
            if future.done():
                continue
            if end <= now:
                future.set_exception(NoReply(None, sent=self.sent))
            else:
                next_end = min(next_end, end)
        return next_end


class RequestBatcher:
    """The requests to one server, in one event loop.

    Args:
        exchange: sends commands together, on a connection that nothing else is sent on meanwhile.
        seconds: how long each request has, in all.
        many_slots: whether the server is a node of a cluster, where one command can't name keys of several slots.
        clock: in seconds, from any beginning.
    """

    def __init__(
        self,
        exchange: Exchange,
        seconds: float,
        *,
        many_slots: bool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._exchange = exchange
        self._seconds = seconds
        self._many_slots = many_slots
        self._loop = asyncio.get_running_loop()
        self._context = Context()  # none of those who wait
        self._reads: list[_Read] = []
        self._asked: list[_Asked] = []
        self._waiting_since = self._mark = 0.0
        self._before_mark = (0, 0)
        self._gathering = False
        self._workers: set[asyncio.Task[None]] = set()
        self._in_flight: set[_Batch] = set()
        self._alarm: asyncio.TimerHandle | None = None
        self._alarm_at = math.inf

    def read(self, keys: Sequence[bytes]) -> "asyncio.Future[Records]":
        """What is at these keys, which are in one slot.

        Raises:
            Overloaded: too many requests wait. The future raises :class:`BatchRejected`, if there was another answer, and as ``exchange``.
        """
        is_one_more_of_many = (
            self._gathering and 0 < len(self._reads) + len(self._asked) < MAX_WAITING
        )
        if not is_one_more_of_many:
            self._admit()
        future: asyncio.Future[Records] = self._loop.create_future()
        self._reads.append((keys, future))
        return future

    def ask(
        self, commands: Sequence[Words], seconds: float, *, fresh: bool = False
    ) -> "asyncio.Future[list[Reply]]":
        """Send commands, one right after another; their replies in order.

        Args:
            commands: what to send.
            seconds: for waiting to be sent, and for all that comes then.
            fresh: whether their batch has to go on a connection that is opened for it.

        Raises:
            Overloaded: too many requests wait. The future raises :class:`NoReply` when the time is over, and as ``exchange``.
        """
        self._admit()
        future: asyncio.Future[list[Reply]] = self._loop.create_future()
        end = self._clock() + seconds
        self._asked.append((commands, future, end, fresh))
        if end < self._alarm_at:
            self._set_alarm(end)
        return future

    def _set_alarm(self, end: float) -> None:
        """Look then whose time is over: one alarm for all is cheaper than one for each, and hardly ever has to be set."""
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm = self._loop.call_later(
            end - self._clock(), self._expire, context=self._context
        )
        self._alarm_at = end

    def _expire(self) -> None:
        self._alarm, self._alarm_at = None, math.inf
        now = self._clock()
        waiting = _Batch([], self._asked, self._many_slots)
        next_end = min(batch.expire(now) for batch in (waiting, *self._in_flight))
        if next_end < math.inf:
            self._set_alarm(next_end)

    def _admit(self) -> None:
        waiting = len(self._reads) + len(self._asked)
        if waiting >= MAX_WAITING:
            overloaded("requests to the session store")
            raise Overloaded("too many requests wait for the session store")
        if not waiting:
            self._waiting_since = self._mark = self._clock()
            self._before_mark = (0, 0)
        self._gather()

    def _gather(self) -> None:
        """Let a task send what is asked within this tick, unless as many as may be are busy: then it is done when one of these ends."""
        if not self._gathering and len(self._workers) < MAX_IN_FLIGHT:
            self._gathering = True
            worker = self._loop.create_task(self._work(), context=self._context)
            self._workers.add(worker)
            worker.add_done_callback(self._ended)

    async def _work(self) -> None:
        self._gathering = False
        while self._reads or self._asked:
            end = self._waiting_since + self._seconds
            batch = self._take()
            if batch.reads or batch.asked:
                await self._send(batch, end - self._clock())

    def _take(self) -> _Batch:
        """The oldest requests, but for those that nobody waits for any more."""
        reads, self._reads = self._reads[:MAX_REQUESTS], self._reads[MAX_REQUESTS:]
        share = self._share()
        asked, self._asked = self._asked[:share], self._asked[share:]
        self._move_mark(len(reads), len(asked))
        self._gather_what_waits()
        return _Batch(
            [read for read in reads if not read[1].done()],
            [each for each in asked if not each[1].done()],
            self._many_slots,
        )

    def _move_mark(self, reads: int, asked: int) -> None:
        """So many were taken. Once all are that came before the mark, what waits came after it, and the mark moves to now.

        That costs less than the time of each request, and tells it closely enough: an age is at most what it is and a whole wait more.
        """
        self._before_mark = (self._before_mark[0] - reads, self._before_mark[1] - asked)
        if max(self._before_mark) <= 0:
            self._waiting_since, self._mark = self._mark, self._clock()
            self._before_mark = (len(self._reads), len(self._asked))

    def _share(self) -> int:
        """How many commands to take. The batches that are free share them: a server works at one while we heed its answers to another."""
        free = MAX_IN_FLIGHT - len(self._workers) + 1  # with the one that takes
        return min(max(len(self._asked) // free, MIN_COMMANDS), MAX_REQUESTS)

    async def _send(self, batch: _Batch, seconds: float) -> None:
        if seconds <= 0:
            batch.fail(NoReply(None, sent=False))
            return
        commands = batch.commands()
        self._in_flight.add(batch)
        try:
            replies = await self._exchange(
                commands,
                seconds,
                only_reads=not batch.asked,
                fresh=batch.needs_fresh(),
                sending=batch.is_sent,
            )
        except (NoReply, BatchRejected) as error:
            batch.fail(error)
        except BaseException:
            batch.fail(NoReply(None, sent=True))
            raise
        else:
            batch.answer(replies)
            if len(replies) < len(commands):
                batch.fail(
                    NoReply(
                        ConnectionError("the connection was closed after an earlier reply"),
                        sent=True,
                    )
                )
        finally:
            self._in_flight.discard(batch)

    def _gather_what_waits(self) -> None:
        if self._reads or self._asked:
            self._gather()

    def _ended(self, worker: "asyncio.Task[None]") -> None:
        """A worker found nothing to do any more, but by now there may be something.

        Or it was cancelled, as all tasks are where a loop ends: then what waits, waits in vain.
        """
        self._workers.discard(worker)
        if worker.cancelled():
            waiting = _Batch(self._reads, self._asked, self._many_slots)
            self._reads, self._asked, self._gathering = [], [], False
            waiting.fail(NoReply(None, sent=False))
        self._gather_what_waits()
