"""Requests of one tick of an event loop, sent to a server together.

Where many tasks ask at once, most of a request's cost is a connection of its own, packing, sending
and waking up. So what is asked within one tick goes out together, in two halves if there are many.
While as many batches are in flight as may be, requests collect, and the next batch is larger.

* Each request has a future that nobody else waits for. A request that is cancelled before it is
  sent is not sent; the reply to one that is cancelled later is thrown away. A batch belongs to a
  task of the batcher's, never to one that waits.
* A request never joins a batch that was sent already: its reply could be older than a revocation
  that is complete (I2).
* No two requests are given the same error object, since raising an error changes it.
"""

import asyncio
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextvars import Context
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from lucia._logs import overloaded
from lucia._redis.commands import Reply, Words
from lucia._redis.transport.connection_io import Exchange
from lucia._redis.transport.retries import BatchRejected, NoReply
from lucia.errors import Overloaded

__all__ = ["Batcher", "RequestBatcher"]

RequestT = TypeVar("RequestT", bound=tuple[Any, ...])
"""A request; its second member is the future of its result."""

MAX_REQUESTS: Final = 512
"""How many requests are sent together at most."""

MIN_REQUESTS: Final = 16
"""How many requests a half has at least: fewer would be cheap to answer and expensive to send."""

MAX_IN_FLIGHT: Final = 4
"""How many batches are in flight at once to one server."""

MAX_WAITING: Final = 50_000
"""How many requests wait to be sent; more are refused."""


class Batcher(ABC, Generic[RequestT]):
    """Collects the requests to one server in one event loop, and sends them in batches.

    Args:
        seconds: how long each request has, in all.
        clock: in seconds, from any beginning.
    """

    def __init__(self, seconds: float, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._seconds = seconds
        self._loop = asyncio.get_running_loop()
        self._context = Context()  # of no request: what one of them logs must not be another's
        self._requests: list[RequestT] = []
        self._waiting_since = self._mark = 0.0
        self._before_mark = 0
        self._collecting = False
        self._workers: set[asyncio.Task[None]] = set()

    @abstractmethod
    async def send(self, requests: list[RequestT], seconds: float) -> None:
        """Send these requests together, and set the results of their futures."""

    @abstractmethod
    def fail(self, requests: Sequence[RequestT], error: NoReply | BatchRejected) -> None:
        """Set this error for all these requests that have no result."""

    def admit(self) -> None:
        """Make room for a request, which the caller then appends.

        It is sent at the end of this tick, or when another batch is done.

        Raises:
            Overloaded: too many requests wait.
        """
        if len(self._requests) >= MAX_WAITING:
            overloaded("requests to the session store")
            raise Overloaded("too many requests wait for the session store")
        if not self._requests:
            self._waiting_since = self._mark = self._clock()
            self._before_mark = 0
        self._collect()

    def _collect(self) -> None:
        """Let a task send what is asked within this tick.

        If as many as may be are busy, one of them sends it when its batch is done.
        """
        if not self._collecting and len(self._workers) < MAX_IN_FLIGHT:
            self._collecting = True
            # Not by create_task: an eager task factory (Python 3.12) would send this request alone,
            # or raise RuntimeError where a worker calls, which is in this context already.
            worker = asyncio.Task(self._work(), loop=self._loop, context=self._context)
            self._workers.add(worker)
            worker.add_done_callback(self._ended)

    async def _work(self) -> None:
        self._collecting = False
        while self._requests:
            end = self._waiting_since + self._seconds
            taken = self._take()
            batch = [request for request in taken if not request[1].done()]  # else it is cancelled
            if not batch:
                continue
            seconds = end - self._clock()
            if seconds <= 0:
                self.fail(batch, NoReply(None, sent=False))
                continue
            try:
                await self.send(batch, seconds)
            except BaseException:  # cancelled, or a defect: nobody may wait for ever
                self.fail(batch, NoReply(None, sent=True))
                raise

    def _take(self) -> list[RequestT]:
        """Return the oldest requests, and let another task send those that remain."""
        size = self._batch_size()
        taken, self._requests = self._requests[:size], self._requests[size:]
        self._move_mark(len(taken))
        if self._requests:
            self._collect()
        return taken

    def _batch_size(self) -> int:
        """Return how many requests to send now: half of many, if no other batch is in flight.

        The next worker sends the rest. So the server works on one batch while the replies to the
        other are parsed.
        """
        waiting = len(self._requests)
        # One worker is the one that asks.
        is_split = len(self._workers) == 1 and waiting >= 2 * MIN_REQUESTS
        return min((waiting + 1) // 2 if is_split else waiting, MAX_REQUESTS)

    def _move_mark(self, taken: int) -> None:
        """Keep track of how long the oldest request has waited, in one number for all of them.

        Once all that came before the mark are taken, those that wait came after it, and the mark
        moves to now. So an age is at most what it really is and one whole wait more, at less cost
        than a time for each request.
        """
        self._before_mark -= taken
        if self._before_mark <= 0:
            self._waiting_since, self._mark = self._mark, self._clock()
            self._before_mark = len(self._requests)

    def _ended(self, worker: "asyncio.Task[None]") -> None:
        """Start another worker if requests came since this one found none.

        If it was cancelled, as when an event loop ends, the pending requests fail.
        """
        self._workers.discard(worker)
        if worker.cancelled():
            # A worker that is cancelled before its first step has not reset _collecting.
            pending, self._requests, self._collecting = self._requests, [], False
            self.fail(pending, NoReply(None, sent=False))
        if self._requests:
            self._collect()


_Request = tuple[Sequence[Words], "asyncio.Future[list[Reply]]", float, bool]
"""Commands that belong together, the future of their replies, by when they are wanted by the clock,
and whether they need a fresh connection."""


@dataclass(slots=True, eq=False)
class _Batch:
    """Requests that are in flight, and whether they may have arrived at the server."""

    requests: Sequence[_Request]
    sent: bool = False

    def mark_sent(self) -> None:
        """Take note that they may arrive from now on."""
        self.sent = True

    def answer(self, replies: list[Reply]) -> None:
        """Give each request its replies.

        The last ones may have none, where the client closed the connection before.
        """
        taken = 0
        for commands, future, *_ in self.requests:
            count = len(commands)
            if not future.done() and len(replies) > taken:
                future.set_result(replies[taken : taken + count])
            taken += count

    def expire(self, now: float) -> float:
        """Fail the requests whose time is over, and return when the next one's is."""
        next_end = math.inf
        for _, future, end, _ in self.requests:
            if future.done():
                continue
            if end <= now:
                future.set_exception(NoReply(None, sent=self.sent))
            else:
                next_end = min(next_end, end)
        return next_end


class RequestBatcher(Batcher[_Request]):
    """The commands that are sent to one server, in one event loop.

    Args:
        exchange: sends commands together, on a connection that nothing else is sent on meanwhile.
        seconds: how long each request has, in all.
        only_reads: whether none of the commands changes anything.
        clock: in seconds, from any beginning.
    """

    def __init__(
        self,
        exchange: Exchange,
        seconds: float,
        *,
        only_reads: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(seconds, clock)
        self._exchange = exchange
        self._only_reads = only_reads
        self._in_flight: set[_Batch] = set()
        self._alarm: asyncio.TimerHandle | None = None
        self._alarm_at = math.inf

    def ask(
        self, commands: Sequence[Words], seconds: float, *, fresh: bool = False
    ) -> "asyncio.Future[list[Reply]]":
        """Send commands, one right after another, and return the future of their replies in order.

        Args:
            commands: what to send.
            seconds: for waiting to be sent, and for everything after that.
            fresh: whether the batch has to go on a connection that is opened for it.

        Raises:
            Overloaded: too many requests wait. The future raises :class:`NoReply` when the time is
                over, and what ``exchange`` raises.
        """
        self.admit()
        future: asyncio.Future[list[Reply]] = self._loop.create_future()
        end = self._clock() + seconds
        self._requests.append((commands, future, end, fresh))
        if end < self._alarm_at:
            self._set_alarm(end)
        return future

    async def send(self, requests: list[_Request], seconds: float) -> None:
        batch = _Batch(requests)
        commands = [words for commands, *_ in requests for words in commands]
        fresh = any(fresh for *_, fresh in requests)
        self._in_flight.add(batch)
        try:
            replies = await self._exchange(
                commands,
                seconds,
                only_reads=self._only_reads,
                fresh=fresh,
                sending=batch.mark_sent,
            )
        except (NoReply, BatchRejected) as error:
            self.fail(requests, error)
        else:
            batch.answer(replies)
            # The client closed the connection after an error. Those behind it may have been
            # executed (I8).
            if len(replies) < len(commands):
                closed = ConnectionError("the connection was closed after an earlier reply")
                self.fail(requests, NoReply(closed, sent=True))
        finally:
            self._in_flight.discard(batch)

    def fail(self, requests: Sequence[_Request], error: NoReply | BatchRejected) -> None:
        for _, future, *_ in requests:
            if not future.done():
                future.set_exception(error.for_another())

    def _set_alarm(self, end: float) -> None:
        """Arm the timer that all pending requests share: it hardly ever has to be set again."""
        if self._alarm is not None:
            self._alarm.cancel()
        seconds = end - self._clock()
        self._alarm = self._loop.call_later(seconds, self._expire, context=self._context)
        self._alarm_at = end

    def _expire(self) -> None:
        self._alarm, self._alarm_at = None, math.inf
        now = self._clock()
        next_end = min(batch.expire(now) for batch in (_Batch(self._requests), *self._in_flight))
        if next_end < math.inf:
            self._set_alarm(next_end)
