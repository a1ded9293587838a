"""Which requests are batched, and what each gets, over an exchange that the test controls."""

import asyncio
from collections.abc import Awaitable, Sequence
from typing import Any, Final, cast

import pytest
import redis.asyncio

from lucia import Overloaded
from lucia._logs import Outage
from lucia._redis.commands import Reply
from lucia._redis.keys import Layout
from lucia._redis.lookup import PlainLookup
from lucia._redis.records import encode_row
from lucia._redis.replay import ConnectionMonitor, Revocations
from lucia._redis.transport import batching as batches_module
from lucia._redis.transport.batching import MAX_IN_FLIGHT, Batcher, RequestBatcher
from lucia._redis.transport.connections import AsyncServer
from lucia._redis.transport.retries import BatchRejected, NoReply
from lucia._redis.transport.session_reads import AsyncSessionReads
from lucia._redis.transport.settings import AsyncSettings
from lucia._redis.transport.topology import OneServer, topology_of
from lucia.errors import StoreUnavailable
from lucia.models import SessionRow, StoredSession
from tests.support.held_exchange import WHO, HeldExchange, Sent, outcome, ticks

SECONDS: Final = 5.0


class Commands:
    """Requests of one command, each with a key."""

    expired: type[Exception] = NoReply
    """Error of a request that was not sent in time, or whose batch was cancelled."""

    def __init__(self, server: HeldExchange) -> None:
        self._batcher = RequestBatcher(server.exchange, SECONDS)

    @property
    def batcher(self) -> Batcher[Any]:
        """Return the batcher of these requests."""
        return self._batcher

    def ask(self, name: str) -> "asyncio.Future[Any]":
        """Make a request."""
        return self._batcher.ask([("GET", name)], 60.0)

    def names(self, sent: Sent) -> list[Any]:
        """Return the names in a batch, in order."""
        assert {words[0] for words in sent.commands} == {"GET"}
        return [words[1] for words in sent.commands]

    def answer(self, sent: Sent) -> None:
        """Answer all requests of a batch."""
        sent.echo()

    def result(self, name: str) -> Any:
        """Return the result of a request."""
        return [["GET", name]]


class Sessions:
    """Reads of sessions that exist."""

    expired: type[Exception] = StoreUnavailable

    def __init__(self, server: HeldExchange) -> None:
        reads = AsyncSessionReads(
            PlainLookup(Layout.from_namespaces(None)),
            AsyncSettings(seconds=SECONDS),
            Revocations(),
            Outage(),
            self._recover,
        )
        reads.begin(server)
        self._batcher = reads._batchers[asyncio.get_running_loop()]

    @property
    def batcher(self) -> Batcher[Any]:
        return self._batcher

    async def _recover(
        self, session_id: str, error: Exception, seconds: float
    ) -> StoredSession | None:
        raise error

    def ask(self, name: str) -> "asyncio.Future[Any]":
        return self._batcher.read(name)

    def names(self, sent: Sent) -> list[Any]:
        ((command, *keys),) = sent.commands
        assert command == "MGET"
        assert sent.only_reads
        return [str(key, "utf-8").removeprefix("session:") for key in cast("list[bytes]", keys)]

    def answer(self, sent: Sent) -> None:
        sent.replies.set_result([[encode_row(self.result(name)) for name in self.names(sent)]])

    def result(self, name: str) -> Any:
        return SessionRow(id=name, user_id="u", active_expires=1, idle_expires=2)


Kind = Commands | Sessions


@pytest.fixture
def server() -> HeldExchange:
    return HeldExchange()


@pytest.fixture(params=[Commands, Sessions], ids=["commands", "sessions"])
async def kind(request: pytest.FixtureRequest, server: HeldExchange) -> Kind:
    """Return the kind of requests, for tests of both."""
    made: Kind = request.param(server)
    return made


@pytest.fixture
async def batches(server: HeldExchange) -> RequestBatcher:
    """Return batches of commands."""
    return RequestBatcher(server.exchange, 60.0)


async def asked(batches: RequestBatcher, *names: bytes) -> list["asyncio.Future[Any]"]:
    """Send commands in one batch."""
    waiting: list[asyncio.Future[Any]] = [batches.ask([("DEL", name)], 10) for name in names]
    await ticks()
    return waiting


# Batches


async def test_requests_of_one_tick(kind: Kind, server: HeldExchange) -> None:
    """Requests of one tick are one batch, and each gets its own result."""
    waiting = [kind.ask(name) for name in ("a", "b", "a")]
    await ticks()
    assert [kind.names(each) for each in server.sent] == [["a", "b", "a"]]
    kind.answer(server.sent[0])
    assert await asyncio.gather(*waiting) == [kind.result(name) for name in ("a", "b", "a")]


async def test_commands_that_belong_together(batches: RequestBatcher, server: HeldExchange) -> None:
    """The commands of one request stay together, in order."""
    waiting = [
        batches.ask([("ASKING",), ("SET", b"x", b"1")], 10),
        batches.ask([("DEL", b"y")], 10),
    ]
    await ticks()
    assert [each.commands for each in server.sent] == [
        [("ASKING",), ("SET", b"x", b"1"), ("DEL", b"y")]
    ]
    assert not server.sent[0].only_reads
    assert not server.sent[0].fresh
    server.sent[0].echo()
    assert await asyncio.gather(*waiting) == [
        [["ASKING"], ["SET", b"x", b"1"]],
        [["DEL", b"y"]],
    ]


async def test_fresh_connection(batches: RequestBatcher, server: HeldExchange) -> None:
    """A batch uses a fresh connection if one of its requests needs one."""
    waiting = [batches.ask([("DEL", b"%d" % fresh)], 10, fresh=fresh) for fresh in (False, True)]
    await ticks()
    assert server.sent[0].fresh
    server.sent[0].echo()
    await asyncio.gather(*waiting)


@pytest.mark.parametrize("only_reads", [True, False])
async def test_only_reads(server: HeldExchange, only_reads: bool) -> None:
    """Each batch says whether it only reads."""
    batches = RequestBatcher(server.exchange, SECONDS, only_reads=only_reads)
    waiting = batches.ask([("MGET", b"a")], 10)
    await ticks()
    assert server.sent[0].only_reads is only_reads
    server.sent[0].echo()
    assert await waiting == [[b"a"]]


async def test_read_does_not_join_one_in_flight(kind: Kind, server: HeldExchange) -> None:
    """A request does not share the reply of an equal one in flight.

    That reply may be older than a revocation (I2).
    """
    before = kind.ask("a")
    await ticks()
    after = kind.ask("a")
    await ticks()
    assert len(server.sent) == 2
    kind.answer(server.sent[0])
    server.sent[1].replies.set_result([[None]])
    assert await before == kind.result("a")
    assert await after == ([[None]] if isinstance(kind, Commands) else None)


async def test_requests_made_while_batches_finish(kind: Kind, server: HeldExchange) -> None:
    """A request made while all batches in flight end in one tick gets a reply."""

    async def ask_twice() -> None:
        await kind.ask("a")
        await kind.ask("a")

    asking = asyncio.ensure_future(ask_twice())
    await ticks()
    for _ in range(MAX_IN_FLIGHT - 1):
        kind.ask("b")
        await ticks()
    for each in tuple(server.sent):
        kind.answer(each)
    await ticks(5)
    assert len(server.sent) == MAX_IN_FLIGHT + 1
    kind.answer(server.sent[-1])
    await asking


async def test_few_in_flight(kind: Kind, server: HeldExchange) -> None:
    """At most ``MAX_IN_FLIGHT`` batches are in flight; more requests wait and go together."""
    early = []
    for number in range(MAX_IN_FLIGHT):
        early.append(kind.ask(f"early {number}"))
        await ticks()
    late = [kind.ask("late 1")]
    await ticks()
    late.append(kind.ask("late 2"))
    await ticks()
    assert len(server.sent) == MAX_IN_FLIGHT
    kind.answer(server.sent[1])
    await ticks()
    assert [kind.names(each) for each in server.sent[MAX_IN_FLIGHT:]] == [["late 1", "late 2"]]
    for each in (*server.sent[:1], *server.sent[2:]):
        kind.answer(each)
    assert await asyncio.gather(*early, *late) == [
        kind.result(name)
        for name in (*(f"early {number}" for number in range(MAX_IN_FLIGHT)), "late 1", "late 2")
    ]


async def test_many_requests(
    kind: Kind, server: HeldExchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Requests beyond the size of a batch go in several; cancelled ones take no place."""
    monkeypatch.setattr(batches_module, "MAX_REQUESTS", 2)
    waiting = [kind.ask(str(number)) for number in range(5)]
    for each in waiting[:2]:
        each.cancel()
    await ticks()
    assert [kind.names(each) for each in server.sent] == [["2", "3"], ["4"]]
    for sent in server.sent:
        kind.answer(sent)
    assert await asyncio.gather(*waiting[2:]) == [kind.result(name) for name in ("2", "3", "4")]


async def test_two_halves(
    kind: Kind, server: HeldExchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The requests of one tick go in two halves, unless these are too small.

    While two batches are in flight, later ones go together.
    """
    monkeypatch.setattr(batches_module, "MIN_REQUESTS", 4)
    for count, sizes in ((9, [5, 4]), (8, [4, 4]), (7, [7]), (3, [3])):
        server.sent.clear()
        waiting = [kind.ask(str(number)) for number in range(count)]
        await ticks()
        assert [len(kind.names(each)) for each in server.sent] == sizes
        late = [kind.ask(f"late {number}") for number in range(9)] if len(sizes) == 2 else []
        await ticks()
        assert [len(kind.names(each)) for each in server.sent[len(sizes) :]] == [9][: len(late)]
        for each in server.sent:
            kind.answer(each)
        await asyncio.gather(*waiting, *late)


async def test_too_many_wait(
    kind: Kind, server: HeldExchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Requests beyond ``MAX_WAITING`` are refused; those that already wait are served."""
    monkeypatch.setattr(batches_module, "MAX_WAITING", 2)
    waiting = [kind.ask("a"), kind.ask("b")]
    for _ in range(2):
        with pytest.raises(Overloaded):
            kind.ask("c")
    await ticks()
    kind.answer(server.sent[0])
    assert await asyncio.gather(*waiting) == [kind.result("a"), kind.result("b")]


async def test_exchange_has_no_callers_context(kind: Kind, server: HeldExchange) -> None:
    """The exchange sees no context variables of its callers."""
    WHO.set("the first who asked")
    waiting = kind.ask("a")
    await ticks()
    assert server.sent[0].who == "nobody"
    kind.answer(server.sent[0])
    await waiting


# Cancelled


async def test_cancelled_before_it_is_sent(kind: Kind, server: HeldExchange) -> None:
    """A request that is cancelled in time is not sent, and an empty batch is not either."""
    kind.ask("b").cancel()
    kind.ask("a").cancel()
    await ticks(5)
    assert not server.sent
    kept = kind.ask("c")
    kind.ask("d").cancel()
    await ticks()
    assert [kind.names(each) for each in server.sent] == [["c"]]
    kind.answer(server.sent[0])
    assert await kept == kind.result("c")


async def test_cancelled_after_it_was_sent(kind: Kind, server: HeldExchange) -> None:
    """The reply to a cancelled request is dropped, and the others get their own."""
    first, second, third = (kind.ask(name) for name in "abc")
    await ticks()
    first.cancel()
    third.cancel()
    await ticks()
    kind.answer(server.sent[0])
    assert await second == kind.result("b")


async def test_cancelled_before_it_fails(kind: Kind, server: HeldExchange) -> None:
    """A cancelled request gets no error, and the others get theirs."""
    first, second, third = (kind.ask(name) for name in "abc")
    await ticks()
    first.cancel()
    await ticks()
    server.sent[0].replies.set_exception(NoReply(None, sent=True))
    assert isinstance(await outcome(second), NoReply)
    assert isinstance(await outcome(third), NoReply)


async def test_cancelled_batch_task_fails_its_requests(kind: Kind, server: HeldExchange) -> None:
    """If the tasks of the batches are cancelled, as when a loop ends, callers get errors."""
    sent = kind.ask("a")
    await ticks()
    for _ in range(MAX_IN_FLIGHT - 1):
        kind.ask("b")
        await ticks()
    collected = [kind.ask("c"), kind.ask("d")]
    await ticks()
    for worker in list(kind.batcher._workers):
        worker.cancel()
    errors = []
    for waiting, was_sent in ((sent, True), (collected[0], False), (collected[1], False)):
        errors.append(await outcome(waiting))
        assert isinstance(errors[-1], kind.expired)
        if isinstance(errors[-1], NoReply):
            assert (errors[-1].error, errors[-1].sent) == (None, was_sent)
    assert len(set(map(id, errors))) == 3
    after = kind.ask("e")
    await ticks()
    kind.answer(server.sent[-1])
    assert await after == kind.result("e")


# Errors


class Odd(Exception):
    """An error that can't be copied: its arguments are not those of its ``__init__``."""

    def __init__(self, *, code: int) -> None:
        super().__init__(f"code {code}")


@pytest.mark.parametrize(
    ("error", "kind_of_error"), [(OSError("broken"), OSError), (Odd(code=7), ConnectionError)]
)
async def test_an_error_for_each(
    batches: RequestBatcher,
    server: HeldExchange,
    error: Exception,
    kind_of_error: type[Exception],
) -> None:
    """Each caller of a failed batch gets an error of its own with the same cause."""
    waiting = await asked(batches, b"a", b"b", b"c")
    server.sent[0].replies.set_exception(NoReply(error, sent=True))
    losses = await asyncio.gather(*waiting, return_exceptions=True)
    errors = [lost.error for lost in losses if isinstance(lost, NoReply) and lost.sent]
    assert len({id(each) for each in (*errors, error)}) == 4
    assert all(isinstance(each, kind_of_error) and each.__cause__ is error for each in errors)


async def test_rejected_batch_raises_batch_rejected(
    batches: RequestBatcher, server: HeldExchange
) -> None:
    """If the batch is rejected, each caller gets a `BatchRejected` of its own."""
    waiting = await asked(batches, b"a", b"b")
    server.sent[0].replies.set_exception(BatchRejected())
    found = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(each) for each in found] == [BatchRejected, BatchRejected]
    assert found[0] is not found[1]


async def test_fewer_replies(batches: RequestBatcher, server: HeldExchange) -> None:
    """If the connection closes after some replies, the other commands are ambiguous."""
    waiting = await asked(batches, b"0", b"1", b"2")
    refused = ValueError("not the master")
    server.sent[0].replies.set_result([1, refused])
    assert await asyncio.gather(*waiting[:2]) == [[1], [refused]]
    lost = await outcome(waiting[2])
    assert isinstance(lost, NoReply)
    assert isinstance(lost.error, ConnectionError)
    assert lost.sent


@pytest.mark.parametrize("sent", [True, False])
async def test_request_times_out_before_its_batch(
    batches: RequestBatcher, server: HeldExchange, sent: bool
) -> None:
    """A request times out before its batch, and the error says whether it was sent."""
    server.holds_up = not sent
    short, long = batches.ask([("DEL", b"a")], 0.01), batches.ask([("DEL", b"b")], 10)
    lost = await outcome(short)
    assert isinstance(lost, NoReply)
    assert (lost.error, lost.sent) == (None, sent)
    server.sent[0].echo()
    assert await long == [["DEL", b"b"]]


async def test_each_request_has_its_own_timeout(
    batches: RequestBatcher, server: HeldExchange
) -> None:
    """Each request times out at its own time, in whatever order they came."""
    given_up, waiting, last, first = [
        batches.ask([("DEL", b"a")], seconds) for seconds in (0.01, 60, 0.03, 0.02)
    ]
    await ticks()
    given_up.cancel()
    assert [type(await outcome(each)) for each in (first, last)] == [NoReply, NoReply]
    server.sent[0].echo()
    assert await waiting == [["DEL", b"a"]]


async def test_time_that_is_over_when_nobody_waits(
    batches: RequestBatcher, server: HeldExchange
) -> None:
    """A timeout that passes when nothing is pending does not affect later requests."""
    answered = batches.ask([("DEL", b"a")], 0.01)
    await ticks()
    server.sent[0].echo()
    assert await answered == [["DEL", b"a"]]
    await asyncio.sleep(0.02)
    assert isinstance(await outcome(batches.ask([("DEL", b"b")], 0.01)), NoReply)
    server.sent[1].echo()


async def test_new_request_keeps_its_time_in_an_old_batch(
    kind: Kind, server: HeldExchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under constant load, recent requests have the time left to them."""
    monkeypatch.setattr(batches_module, "MAX_REQUESTS", 2)
    now = 1_000.0
    kind.batcher._clock = lambda: now
    waiting: list[Awaitable[Any]] = []
    for number in range(MAX_IN_FLIGHT):
        waiting.append(kind.ask(f"early {number}"))
        await ticks()
    waiting += [kind.ask("first"), kind.ask("first")]
    for number in range(20):
        waiting += [kind.ask(str(number)), kind.ask(str(number))]
        now += 1
        kind.answer(server.sent[number])
        await ticks()
    assert min(each.seconds for each in server.sent) >= 2
    for each in server.sent[20:]:
        kind.answer(each)
    await ticks()
    kind.answer(server.sent[-1])
    await asyncio.gather(*waiting)


async def test_batch_has_time_left_to_oldest_request(kind: Kind, server: HeldExchange) -> None:
    """A batch has the time left to its oldest request; if none is left, it is not sent."""
    now = 1_000.0
    kind.batcher._clock = lambda: now
    early = []
    for number in range(MAX_IN_FLIGHT):
        early.append(kind.ask(f"early {number}"))
        await ticks()
    oldest = kind.ask("oldest")
    now += 3
    newer = kind.ask("newer")
    kind.answer(server.sent[0])
    await ticks()
    assert kind.names(server.sent[-1]) == ["oldest", "newer"]
    assert server.sent[-1].seconds == 2
    too_late = [kind.ask("too late"), kind.ask("too late")]
    now += 5
    kind.answer(server.sent[1])
    errors = [await outcome(each) for each in too_late]
    assert [type(each) for each in errors] == [kind.expired] * 2
    assert errors[0] is not errors[1]
    for lost in errors:
        if isinstance(lost, NoReply):
            assert (lost.error, lost.sent) == (None, False)
        else:
            assert not lost.ambiguous
    assert len(server.sent) == MAX_IN_FLIGHT + 1
    for each in server.sent[2:]:
        kind.answer(each)
    await asyncio.gather(*early, oldest, newer)


# Reads of a cluster's node


@pytest.fixture
async def node(server: HeldExchange) -> AsyncServer:
    """Return a cluster's node over the test's exchange."""
    topology = topology_of(redis.asyncio.Redis())
    assert isinstance(topology, OneServer)
    found = AsyncServer(
        topology.factory, ConnectionMonitor(Revocations()), AsyncSettings(), many_slots=True
    )
    found._reads = RequestBatcher(server.exchange, SECONDS)
    return found


async def in_one_tick(node: AsyncServer, *reads: Sequence[bytes]) -> list["asyncio.Task[Any]"]:
    """Read these groups of keys in one tick, each group in one slot."""
    waiting = [asyncio.ensure_future(node.read(keys, SECONDS)) for keys in reads]
    await ticks()
    return waiting


async def test_reads_of_a_node(node: AsyncServer, server: HeldExchange) -> None:
    """In a cluster each read is a command of its own, all in one batch."""
    reads = await in_one_tick(node, [b"a"], [b"b", b"{b}c"])
    assert [each.commands for each in server.sent] == [[("MGET", b"a"), ("MGET", b"b", b"{b}c")]]
    server.sent[0].echo()
    assert await asyncio.gather(*reads) == [[b"a"], [b"b", b"{b}c"]]


@pytest.mark.parametrize(
    "reply", [ValueError("MOVED"), b"PONG", [], [b"one of two"], [None, None, None]]
)
async def test_a_read_of_a_node_that_is_refused(
    node: AsyncServer, server: HeldExchange, reply: Reply
) -> None:
    """In a cluster an invalid reply affects only its own read."""
    reads = await in_one_tick(node, [b"a", b"{a}"], [b"b", b"{b}"], [b"c", b"{c}"])
    server.sent[0].replies.set_result([reply, [b"b", None], [b"c", None, b"too much"]])
    assert [type(each) for each in await asyncio.gather(*reads, return_exceptions=True)] == [
        BatchRejected,
        list,
        BatchRejected,
    ]


async def test_fewer_replies_of_a_node(node: AsyncServer, server: HeldExchange) -> None:
    """A read without a reply raises `NoReply`."""
    reads = await in_one_tick(node, [b"a"], [b"b"])
    server.sent[0].replies.set_result([ValueError("loading")])
    assert [type(each) for each in await asyncio.gather(*reads, return_exceptions=True)] == [
        BatchRejected,
        NoReply,
    ]
