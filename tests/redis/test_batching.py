"""What is sent together, and what becomes of each request: with an exchange that the test holds up and answers as it likes."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextvars import ContextVar
from typing import Any, Final

import pytest

from lucia import Overloaded
from lucia._redis.commands import Reply, Words
from lucia._redis.transport import batching as batches_module
from lucia._redis.transport.batching import MAX_IN_FLIGHT, RequestBatcher
from lucia._redis.transport.retries import BatchRejected, NoReply

SECONDS: Final = 60.0

WHO: ContextVar[str] = ContextVar("WHO", default="nobody")


class Sent:
    """Commands on their way, until the test answers them."""

    def __init__(
        self, commands: Sequence[Words], seconds: float, only_reads: bool, fresh: bool
    ) -> None:
        self.commands = [tuple(each) for each in commands]
        self.seconds = seconds
        self.only_reads = only_reads
        self.fresh = fresh
        self.who = WHO.get()
        self.replies: asyncio.Future[list[Reply]] = asyncio.get_running_loop().create_future()

    def echo(self) -> None:
        """Answer reads with their keys, and everything else with its words."""
        self.replies.set_result(
            [list(words[1:]) if words[0] == "MGET" else list(words) for words in self.commands]
        )


class Line:
    """An exchange: what is under way on it, the oldest first, and how much ever was."""

    def __init__(self) -> None:
        self.sent: list[Sent] = []
        self.holds_up = False
        """Whether commands wait for a connection, and are not sent."""

    async def exchange(
        self,
        commands: Sequence[Words],
        seconds: float,
        *,
        only_reads: bool = False,
        fresh: bool = False,
        sending: Callable[[], None] | None = None,
    ) -> list[Reply]:
        if sending is not None and not self.holds_up:
            sending()
        self.sent.append(Sent(commands, seconds, only_reads, fresh))
        return await self.sent[-1].replies


@pytest.fixture
def line() -> Line:
    return Line()


@pytest.fixture
async def batches(line: Line) -> RequestBatcher:
    return RequestBatcher(line.exchange, SECONDS, many_slots=False)


@pytest.fixture
async def of_node(line: Line) -> RequestBatcher:
    return RequestBatcher(line.exchange, SECONDS, many_slots=True)


async def ticks(count: int = 3) -> None:
    """Let the loop run what is ready."""
    for _ in range(count):
        await asyncio.sleep(0)


async def in_one_tick(
    batches: RequestBatcher, reads: Sequence[bytes], asked: Sequence[Words]
) -> list["asyncio.Future[Any]"]:
    """Reads of these keys, and commands; on their way by now."""
    waiting = [
        *(batches.read([key]) for key in reads),
        *(batches.ask([words], 10) for words in asked),
    ]
    await ticks()
    return waiting


async def outcome(waiting: Awaitable[Any]) -> Any:
    """What it returns or raises."""
    return (await asyncio.gather(waiting, return_exceptions=True))[0]


# What goes together


async def test_reads_of_one_tick(batches: RequestBatcher, line: Line) -> None:
    """They are one command, and each gets what is at its own keys."""
    reads = [batches.read([b"a"]), batches.read([b"b", b"c"]), batches.read([b"a"])]
    await ticks()
    assert [each.commands for each in line.sent] == [[("MGET", b"a", b"b", b"c", b"a")]]
    line.sent[0].echo()
    assert await asyncio.gather(*reads) == [[b"a"], [b"b", b"c"], [b"a"]]
    assert line.sent[0].only_reads


async def test_what_is_asked_in_one_tick(batches: RequestBatcher, line: Line) -> None:
    """Commands that belong together stay together, behind the reads."""
    asked = [batches.ask([("ASKING",), ("SET", b"x", b"1")], 10), batches.ask([("DEL", b"y")], 10)]
    read = batches.read([b"a"])
    await ticks()
    assert [each.commands for each in line.sent] == [
        [("MGET", b"a"), ("ASKING",), ("SET", b"x", b"1"), ("DEL", b"y")]
    ]
    assert not line.sent[0].only_reads
    line.sent[0].echo()
    assert await asyncio.gather(read, *asked) == [
        [b"a"],
        [["ASKING"], ["SET", b"x", b"1"]],
        [["DEL", b"y"]],
    ]


async def test_reads_of_a_node(of_node: RequestBatcher, line: Line) -> None:
    """In a cluster each is a command of its own, on one connection."""
    reads = [of_node.read([b"a"]), of_node.read([b"b"])]
    await ticks()
    assert [each.commands for each in line.sent] == [[("MGET", b"a"), ("MGET", b"b")]]
    line.sent[0].echo()
    assert await asyncio.gather(*reads) == [[b"a"], [b"b"]]


async def test_not_joined_to_what_is_sent(batches: RequestBatcher, line: Line) -> None:
    """A read that comes while the same key is being read asks anew: the answer under way may be older than a revocation."""
    before = batches.read([b"a"])
    await ticks()
    after = batches.read([b"a"])
    await ticks()
    assert len(line.sent) == 2
    line.sent[0].replies.set_result([[b"live"]])
    line.sent[1].replies.set_result([[None]])
    assert (await before, await after) == ([b"live"], [None])


@pytest.mark.parametrize(
    "ask",
    [lambda batches: batches.read([b"a"]), lambda batches: batches.ask([("GET", b"a")], 10)],
    ids=["read", "ask"],
)
async def test_asked_while_all_batches_end(
    batches: RequestBatcher, line: Line, ask: Callable[[RequestBatcher], Awaitable[Any]]
) -> None:
    """Who asks again when as many as may be under way end in one tick gets an answer, though nobody asks after that."""

    async def ask_twice() -> None:
        await ask(batches)
        await ask(batches)

    asking = asyncio.ensure_future(ask_twice())
    await ticks()
    for _ in range(MAX_IN_FLIGHT - 1):
        batches.read([b"b"])
        await ticks()
    for each in tuple(line.sent):
        each.echo()
    await ticks(5)
    assert len(line.sent) == MAX_IN_FLIGHT + 1
    line.sent[-1].echo()
    await asking


async def test_few_under_way(batches: RequestBatcher, line: Line) -> None:
    """While as many as may be are under way, requests pile up, and go together once one of these is over."""
    early = []
    for number in range(MAX_IN_FLIGHT):
        early.append(batches.read([b"early %d" % number]))
        await ticks()
    late = [batches.read([b"late 1"])]
    await ticks()
    late.append(batches.read([b"late 2"]))
    await ticks()
    assert len(line.sent) == MAX_IN_FLIGHT
    line.sent[1].echo()
    await ticks()
    assert [each.commands for each in line.sent[MAX_IN_FLIGHT:]] == [
        [("MGET", b"late 1", b"late 2")]
    ]
    for each in (*line.sent[:1], *line.sent[2:]):
        each.echo()
    await asyncio.gather(*early, *late)


async def test_many_requests(
    batches: RequestBatcher, line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More than may be in one batch go in several, at once; so do those of which the first are not wanted any more."""
    monkeypatch.setattr(batches_module, "MAX_REQUESTS", 2)
    reads = [batches.read([b"%d" % number]) for number in range(5)]
    for read in reads[:2]:
        read.cancel()
    await ticks()
    assert [each.commands for each in line.sent] == [[("MGET", b"2", b"3")], [("MGET", b"4")]]
    for each in line.sent:
        each.echo()
    assert await asyncio.gather(*reads[2:]) == [[b"2"], [b"3"], [b"4"]]


async def test_many_commands(
    batches: RequestBatcher, line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are shared by the batches that are free, unless a share is too small to be worth it; what is one too many waits for its turn."""
    monkeypatch.setattr(batches_module, "MIN_COMMANDS", 2)
    monkeypatch.setattr(batches_module, "MAX_REQUESTS", 3)
    early = batches.read([b"a"])
    await ticks()
    asked = [batches.ask([("DEL", b"%d" % number)], 10) for number in range(9)]
    await ticks()
    assert [len(each.commands) for each in line.sent[1:]] == [3, 3, 3]
    more = [batches.ask([("DEL", b"%d" % number)], 10) for number in range(5)]
    line.sent[0].echo()
    await ticks()
    assert [len(each.commands) for each in line.sent[4:]] == [3]
    for each in line.sent[1:4]:
        each.echo()
    await ticks()
    assert [len(each.commands) for each in line.sent[5:]] == [2]
    for each in line.sent[4:]:
        each.echo()
    assert await asyncio.gather(early, *asked, *more) == [
        [b"a"],
        *([["DEL", b"%d" % number]] for number in [*range(9), *range(5)]),
    ]


async def test_too_many_wait(
    batches: RequestBatcher, line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond a bound, requests are refused; those that wait already are not harmed."""
    monkeypatch.setattr(batches_module, "MAX_WAITING", 2)
    asked = batches.ask([("DEL", b"b")], 10)
    read = batches.read([b"a"])
    with pytest.raises(Overloaded):
        batches.read([b"c"])
    with pytest.raises(Overloaded):
        batches.ask([("DEL", b"c")], 10)
    await ticks()
    line.sent[0].echo()
    assert (await read, await asked) == ([b"a"], [["DEL", b"b"]])


async def test_nobodys_context(batches: RequestBatcher, line: Line) -> None:
    """What carries the requests sees no context of those who wait."""
    WHO.set("the first who asked")
    read = batches.read([b"a"])
    await ticks()
    assert line.sent[0].who == "nobody"
    line.sent[0].echo()
    await read


# Cancelled


async def test_cancelled_before_it_is_sent(batches: RequestBatcher, line: Line) -> None:
    """It is not sent; and nothing is, if nobody is left who waits."""
    batches.ask([("DEL", b"b")], 10).cancel()
    batches.read([b"a"]).cancel()
    await ticks(5)
    assert not line.sent
    kept = batches.read([b"c"])
    batches.read([b"d"]).cancel()
    await ticks()
    assert [each.commands for each in line.sent] == [[("MGET", b"c")]]
    line.sent[0].echo()
    assert await kept == [b"c"]


async def test_cancelled_after_it_was_sent(batches: RequestBatcher, line: Line) -> None:
    """Its reply is thrown away, and everybody else gets their own."""
    *reads, first, second = await in_one_tick(batches, [b"a", b"b"], [("DEL", b"c"), ("DEL", b"d")])
    reads[0].cancel()
    first.cancel()
    await ticks()
    line.sent[0].echo()
    assert (await reads[1], await second) == ([b"b"], [["DEL", b"d"]])


async def test_cancelled_before_it_fails(batches: RequestBatcher, line: Line) -> None:
    """Nor does anybody get an error that was not waited for."""
    *reads, first, second = await in_one_tick(batches, [b"a", b"b"], [("DEL", b"c"), ("DEL", b"d")])
    reads[0].cancel()
    first.cancel()
    await ticks()
    line.sent[0].replies.set_exception(NoReply(None, sent=True))
    assert [
        type(each) for each in await asyncio.gather(reads[1], second, return_exceptions=True)
    ] == [NoReply, NoReply]


async def test_what_carries_them_is_cancelled(batches: RequestBatcher, line: Line) -> None:
    """As all tasks are where a loop ends: then nobody waits in vain, neither for what was sent nor for what was not."""
    sent = batches.read([b"a"])
    await ticks()
    for _ in range(MAX_IN_FLIGHT - 1):
        batches.read([b"b"])
        await ticks()
    piled = [batches.read([b"c"]), batches.ask([("DEL", b"d")], 10)]
    await ticks()
    for worker in list(batches._workers):
        worker.cancel()
    for waiting, was_sent in ((sent, True), (piled[0], False), (piled[1], False)):
        lost = await outcome(waiting)
        assert isinstance(lost, NoReply)
        assert (lost.error, lost.sent) == (None, was_sent)
    after = batches.read([b"e"])
    await ticks()
    line.sent[-1].echo()
    assert await after == [b"e"]


# Not answered


class Odd(Exception):
    """An error that can't be copied: it is made of other arguments than it keeps."""

    def __init__(self, *, code: int) -> None:
        super().__init__(f"code {code}")


@pytest.mark.parametrize(
    ("error", "kind"), [(OSError("broken"), OSError), (Odd(code=7), ConnectionError)]
)
async def test_an_error_for_each(
    batches: RequestBatcher, line: Line, error: Exception, kind: type[Exception]
) -> None:
    """Nobody is given an error that somebody else is given; what is behind it is told to all."""
    waiting = await in_one_tick(batches, [b"a", b"b"], [("DEL", b"c")])
    line.sent[0].replies.set_exception(NoReply(error, sent=True))
    losses = await asyncio.gather(*waiting, return_exceptions=True)
    errors = [lost.error for lost in losses if isinstance(lost, NoReply) and lost.sent]
    assert len({id(each) for each in (*errors, error)}) == 4
    assert all(isinstance(each, kind) and each.__cause__ is error for each in errors)


async def test_another_history(batches: RequestBatcher, line: Line) -> None:
    """That something has to be ended again is told to each."""
    waiting = await in_one_tick(batches, [b"a"], [("DEL", b"c")])
    line.sent[0].replies.set_exception(BatchRejected())
    found = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(each) for each in found] == [BatchRejected, BatchRejected]
    assert found[0] is not found[1]


@pytest.mark.parametrize(
    "reply", [ValueError("refused"), b"PONG", [], [b"one of two"], [None, None, None]]
)
async def test_reads_that_are_refused_together(
    batches: RequestBatcher, line: Line, reply: Reply
) -> None:
    """Each has to be asked alone; what was asked with them is not concerned."""
    *reads, asked = await in_one_tick(batches, [b"a", b"b"], [("DEL", b"c")])
    line.sent[0].replies.set_result([reply, 1])
    assert [type(each) for each in await asyncio.gather(*reads, return_exceptions=True)] == [
        BatchRejected,
        BatchRejected,
    ]
    assert await asked == [1]


async def test_a_read_of_a_node_that_is_refused(of_node: RequestBatcher, line: Line) -> None:
    """In a cluster the others are not concerned."""
    reads = [of_node.read([b"a"]), of_node.read([b"b"]), of_node.read([b"c"])]
    await ticks()
    line.sent[0].replies.set_result([ValueError("MOVED"), [b"b"], [b"c", b"too much"]])
    assert [type(each) for each in await asyncio.gather(*reads, return_exceptions=True)] == [
        BatchRejected,
        list,
        BatchRejected,
    ]


async def test_fewer_replies(batches: RequestBatcher, line: Line) -> None:
    """Where the connection was closed after a reply, what came behind may have been done or not."""
    asked = [batches.ask([("DEL", b"%d" % number)], 10) for number in range(3)]
    await ticks()
    refused = ValueError("not the master")
    line.sent[0].replies.set_result([1, refused])
    assert await asyncio.gather(*asked[:2]) == [[1], [refused]]
    lost = await outcome(asked[2])
    assert isinstance(lost, NoReply)
    assert isinstance(lost.error, ConnectionError)
    assert lost.sent


async def test_fewer_replies_of_a_node(of_node: RequestBatcher, line: Line) -> None:
    """Reads that have none are not answered."""
    reads = [of_node.read([b"a"]), of_node.read([b"b"])]
    await ticks()
    line.sent[0].replies.set_result([ValueError("loading")])
    assert [type(each) for each in await asyncio.gather(*reads, return_exceptions=True)] == [
        BatchRejected,
        NoReply,
    ]


@pytest.mark.parametrize("sent", [True, False])
async def test_ones_own_time(batches: RequestBatcher, line: Line, sent: bool) -> None:
    """Who has less time than a batch gets an error that says whether the commands may have arrived."""
    line.holds_up = not sent
    short, long = batches.ask([("DEL", b"a")], 0.01), batches.ask([("DEL", b"b")], 10)
    lost = await outcome(short)
    assert isinstance(lost, NoReply)
    assert (lost.error, lost.sent) == (None, sent)
    line.sent[0].echo()
    assert await long == [["DEL", b"b"]]


async def test_times_of_their_own(batches: RequestBatcher, line: Line) -> None:
    """Whose time is over is told so, in whatever order they came; who has given up is told nothing more."""
    given_up, waiting, last, first = [
        batches.ask([("DEL", b"a")], seconds) for seconds in (0.01, 60, 0.03, 0.02)
    ]
    await ticks()
    given_up.cancel()
    assert [type(await outcome(each)) for each in (first, last)] == [NoReply, NoReply]
    line.sent[0].echo()
    assert await waiting == [["DEL", b"a"]]


async def test_time_that_is_over_when_nobody_waits(batches: RequestBatcher, line: Line) -> None:
    """Then nothing is told; who comes later has their own time."""
    answered = batches.ask([("DEL", b"a")], 0.01)
    await ticks()
    line.sent[0].echo()
    assert await answered == [["DEL", b"a"]]
    await asyncio.sleep(0.02)
    assert isinstance(await outcome(batches.ask([("DEL", b"b")], 0.01)), NoReply)
    line.sent[1].echo()


async def test_time_beside_older_ones(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long requests wait without a pause, those that have come of late have the time that is left to them."""
    monkeypatch.setattr(batches_module, "MAX_REQUESTS", 2)
    now = 1_000.0
    batches = RequestBatcher(line.exchange, 5.0, many_slots=False, clock=lambda: now)
    waiting: list[Awaitable[Any]] = []
    for number in range(MAX_IN_FLIGHT):
        waiting.append(batches.read([b"early %d" % number]))
        await ticks()
    waiting += [batches.read([b"first"]), batches.read([b"first"])]
    for number in range(20):
        waiting += [batches.read([b"%d" % number]), batches.read([b"%d" % number])]
        now += 1
        line.sent[number].echo()
        await ticks()
    assert min(each.seconds for each in line.sent) >= 2
    for each in line.sent[20:]:
        each.echo()
    await ticks()
    line.sent[-1].echo()
    await asyncio.gather(*waiting)


async def test_time_that_was_spent_waiting(line: Line) -> None:
    """A batch has what is left to the oldest of it; if that is nothing, it is not sent."""
    now = 1_000.0
    batches = RequestBatcher(line.exchange, 5.0, many_slots=False, clock=lambda: now)
    early = []
    for number in range(MAX_IN_FLIGHT):
        early.append(batches.read([b"early %d" % number]))
        await ticks()
    oldest = batches.read([b"oldest"])
    now += 3
    newer = batches.read([b"newer"])
    line.sent[0].echo()
    await ticks()
    assert line.sent[-1].commands == [("MGET", b"oldest", b"newer")]
    assert line.sent[-1].seconds == 2
    too_late = batches.read([b"too late"])
    now += 5
    line.sent[1].echo()
    lost = await outcome(too_late)
    assert isinstance(lost, NoReply)
    assert (lost.error, lost.sent) == (None, False)
    assert len(line.sent) == MAX_IN_FLIGHT + 1
    for each in line.sent[2:]:
        each.echo()
    await asyncio.gather(*early, oldest, newer)
