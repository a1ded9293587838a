"""Batched reads of sessions, over an exchange that the test delays and answers."""

import asyncio
import logging
from datetime import timedelta
from typing import Any, Final

import pytest

from lucia import Overloaded
from lucia._logs import Outage
from lucia._redis import records as records_module
from lucia._redis.at_rest import HashedLookup
from lucia._redis.commands import Reply
from lucia._redis.keys import Layout
from lucia._redis.lookup import Lookup, PlainLookup
from lucia._redis.records import MAX_RECORD_BYTES, PARSE_ERRORS, MismatchedReply, encode_row
from lucia._redis.replay import Revocations
from lucia._redis.transport import batching as batches_module
from lucia._redis.transport import session_reads
from lucia._redis.transport.retries import BatchRejected, NoReply
from lucia._redis.transport.session_reads import AsyncSessionReads, SessionReads
from lucia._redis.transport.settings import AsyncSettings, Settings
from lucia._rules.id_hashes import HashedIds
from lucia.errors import StoreUnavailable
from lucia.models import SessionRow, StoredSession
from tests.support.event_loops import InterruptedLoop
from tests.support.held_exchange import HeldExchange, outcome, ticks

SECONDS: Final = 5.0
LAYOUT: Final = Layout.from_namespaces(None)
PLAIN: Final = PlainLookup(LAYOUT)
IDS: Final = HashedIds([b"current key".ljust(32), b"older key".ljust(32)])
HASHED: Final = HashedLookup(LAYOUT, IDS)


def row(session_id: str, **attributes: Any) -> SessionRow:
    """Return a session."""
    return SessionRow(
        id=session_id, user_id="u", active_expires=1, idle_expires=2, attributes=attributes
    )


def record(session_id: str, **attributes: Any) -> bytes:
    """Return the record of a session."""
    return encode_row(row(session_id, **attributes))


class Recovery:
    """Reads that are retried another way: each waits until the test finishes it."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Exception, float]] = []
        self.results: list[asyncio.Future[StoredSession | None]] = []
        self.cancelled = 0

    async def recover(
        self, session_id: str, error: Exception, seconds: float
    ) -> StoredSession | None:
        """Read a session after an error."""
        self.calls.append((session_id, error, seconds))
        self.results.append(asyncio.get_running_loop().create_future())
        try:
            return await self.results[-1]
        except asyncio.CancelledError:
            self.cancelled += 1
            raise

    @property
    def failures(self) -> list[tuple[str, type[Exception]]]:
        """Return which sessions could not be read in their batch, and the errors."""
        return [(session_id, type(error)) for session_id, error, _ in self.calls]

    def succeed(self) -> None:
        """Find every session."""
        for (session_id, *_), result in zip(self.calls, self.results, strict=True):
            result.set_result(row(session_id))


@pytest.fixture
def server() -> HeldExchange:
    return HeldExchange()


@pytest.fixture
def recovery() -> Recovery:
    return Recovery()


@pytest.fixture
def outage() -> Outage:
    return Outage()


def make_reads(
    recovery: Recovery,
    lookup: Lookup = PLAIN,
    revocations: Revocations | None = None,
    outage: Outage | None = None,
    **settings: Any,
) -> AsyncSessionReads:
    """Make batched reads that have not begun."""
    return AsyncSessionReads(
        lookup,
        AsyncSettings(seconds=SECONDS, **settings),
        revocations or Revocations(),
        outage or Outage(),
        recovery.recover,
    )


@pytest.fixture
async def reads(server: HeldExchange, recovery: Recovery, outage: Outage) -> AsyncSessionReads:
    """Return batched reads that have begun."""
    found = make_reads(recovery, outage=outage)
    found.begin(server)
    return found


@pytest.fixture
async def hashed(server: HeldExchange, recovery: Recovery) -> AsyncSessionReads:
    """Return batched reads of hashed ids, each of which has several keys."""
    found = make_reads(recovery, HASHED)
    found.begin(server)
    return found


async def find(reads: AsyncSessionReads, *session_ids: str) -> list["asyncio.Future[Any]"]:
    """Read these sessions in one batch."""
    waiting = []
    for session_id in session_ids:
        future = reads.find(session_id)
        assert future is not None
        waiting.append(future)
    await ticks()
    return waiting


# What is found


async def test_one_command(reads: AsyncSessionReads, server: HeldExchange) -> None:
    """Reads in one tick are one MGET, and each gets the session of its own key or None."""
    waiting = await find(reads, "a", "b", "nobody", "a")
    assert [each.commands for each in server.sent] == [
        [("MGET", b"session:a", b"session:b", b"session:nobody", b"session:a")]
    ]
    assert server.sent[0].only_reads
    assert not server.sent[0].fresh
    assert 0 < server.sent[0].seconds <= SECONDS
    server.sent[0].replies.set_result(
        [[record("a"), record("b", handle="h"), None, record("a", created_at=1)]]
    )
    assert await asyncio.gather(*waiting) == [
        row("a"),
        row("b", handle="h"),
        None,
        row("a", created_at=1),
    ]


async def test_each_gets_an_object_of_its_own(
    reads: AsyncSessionReads, server: HeldExchange
) -> None:
    """Two requests for one session share nothing mutable, whichever decoder read it."""
    for noted in ({"a": 1}, {"a": [1]}):
        waiting = await find(reads, "a", "a")
        server.sent[-1].replies.set_result([[record("a", noted=noted)] * 2])
        first, second = await asyncio.gather(*waiting)
        first.attributes["noted"]["a"] = "changed"
        assert second.attributes == {"noted": noted}


@pytest.mark.parametrize(
    ("value", "attributes"),
    [
        (record("a", own=[1.5, {"b": None}]), {"own": [1.5, {"b": None}]}),
        (record("a", noted={"a": ["\ud800"]}), {"noted": {"a": ["\ud800"]}}),
        (b" \n" + record("a"), {}),
        (b"\xef\xbb\xbf" + record("a"), {}),
        (record("a").decode().encode("utf-16"), {}),
    ],
    ids=["members of somebody else", "surrogate", "spaces", "byte order mark", "utf-16"],
)
async def test_odd_record(
    reads: AsyncSessionReads,
    server: HeldExchange,
    recovery: Recovery,
    value: bytes,
    attributes: dict[str, Any],
) -> None:
    """A record that the fast decoder refuses is read by the careful one."""
    waiting = await find(reads, "a", "b")
    server.sent[0].replies.set_result([[value, record("b")]])
    assert await asyncio.gather(*waiting) == [row("a", **attributes), row("b")]
    assert not recovery.calls


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"garbage", "JSONDecodeError"),
        (b"", "JSONDecodeError"),
        (b"{}", "it has no active_expires"),
        (record("a") + b" " * MAX_RECORD_BYTES, "bytes, more than 16384"),
    ],
    ids=["garbage", "empty", "no members", "too long"],
)
async def test_damaged_record(
    reads: AsyncSessionReads,
    server: HeldExchange,
    recovery: Recovery,
    caplog: pytest.LogCaptureFixture,
    value: bytes,
    reason: str,
) -> None:
    """A damaged record is no session and is logged; others of the batch are read."""
    waiting = await find(reads, "a", "b")
    with caplog.at_level(logging.WARNING, "lucia"):
        server.sent[0].replies.set_result([[value, record("b")]])
        assert await asyncio.gather(*waiting) == [None, row("b")]
    assert reason in caplog.text
    assert not recovery.calls


async def test_longest_record(reads: AsyncSessionReads, server: HeldExchange) -> None:
    """A record of the maximum length is read, and one that is a byte longer is not."""
    waiting = await find(reads, "a", "b")
    values = [record(name).ljust(MAX_RECORD_BYTES + (name == "b")) for name in "ab"]
    server.sent[0].replies.set_result([values])
    assert await asyncio.gather(*waiting) == [row("a"), None]


async def test_another_sessions_record(
    reads: AsyncSessionReads, server: HeldExchange, recovery: Recovery
) -> None:
    """A record of another id is never returned: only that session is read again (I0)."""
    waiting = await find(reads, "a", "b", "c")
    odd = record("a", own=[1])
    server.sent[0].replies.set_result([[record("b"), record("b"), odd]])
    assert await waiting[1] == row("b")
    await ticks()
    assert recovery.failures == [("a", MismatchedReply), ("c", MismatchedReply)]
    recovery.succeed()
    assert await asyncio.gather(*waiting) == [row("a"), row("b"), row("c")]


@pytest.mark.parametrize("element", [5, [record("a"), None], [], {}, True, ValueError("refused")])
@pytest.mark.parametrize("lookup", [PLAIN, HASHED], ids=["raw", "hashed"])
async def test_reply_with_other_elements(
    server: HeldExchange, recovery: Recovery, lookup: Lookup, element: Any
) -> None:
    """An element that is no string is another command's: only that session is read again (I0)."""
    reads = make_reads(recovery, lookup)
    reads.begin(server)
    waiting = await find(reads, "a", "b", "c")
    (sent,) = server.sent
    missing = [None] * (len(lookup.keys("b")) - 1)
    last = record("c" if lookup is PLAIN else IDS.stored("c"))
    sent.replies.set_result([[element, *missing, None, *missing, last, *missing]])
    assert [await waiting[1], await waiting[2]] == [None, row("c")]
    await ticks()
    assert recovery.failures == [("a", MismatchedReply)]
    recovery.succeed()
    assert await waiting[0] == row("a")


# Several keys


async def test_several_keys(
    hashed: AsyncSessionReads, server: HeldExchange, recovery: Recovery
) -> None:
    """All candidate keys are one MGET, and a session is found at any of its own."""
    names = ("a", "b", "c", "nobody")
    waiting = await find(hashed, *names)
    candidates = {name: list(IDS.candidates(name)) for name in names}
    assert len(candidates["a"]) == 3
    assert [each.commands for each in server.sent] == [
        [("MGET", *(f"session:{each}".encode() for name in names for each in candidates[name]))]
    ]
    assert server.sent[0].only_reads
    first, second, third = (record(candidates[name][index]) for index, name in enumerate("abc"))
    found = [first, None, None, None, second, None, None, None, third, None, None, None]
    server.sent[0].replies.set_result([found])
    assert await asyncio.gather(*waiting) == [row("a"), row("b"), row("c"), None]
    assert not recovery.calls


async def test_damaged_record_at_one_of_several_keys(
    hashed: AsyncSessionReads, server: HeldExchange, recovery: Recovery
) -> None:
    """A damaged record at one key does not hide the session at another."""
    waiting = await find(hashed, "a", "b")
    older = IDS.candidates("a")[1]
    server.sent[0].replies.set_result(
        [[b"garbage", record(older), None, b"garbage", None, b"garbage"]]
    )
    assert await asyncio.gather(*waiting) == [row("a"), None]
    assert not recovery.calls


async def test_another_sessions_record_at_one_of_several_keys(
    hashed: AsyncSessionReads, server: HeldExchange, recovery: Recovery
) -> None:
    """Only the session whose keys hold a record of another id is read again (I0)."""
    waiting = await find(hashed, "a", "b")
    server.sent[0].replies.set_result([[record("x"), None, None, None, None, record("b")]])
    assert await waiting[1] == row("b")
    await ticks()
    assert recovery.failures == [("a", MismatchedReply)]
    recovery.succeed()
    assert await waiting[0] == row("a")


async def test_cancelled_among_several_keys(
    hashed: AsyncSessionReads, server: HeldExchange, recovery: Recovery
) -> None:
    """The records of a cancelled request are skipped."""
    waiting = await find(hashed, "a", "b")
    waiting[0].cancel()
    server.sent[0].replies.set_result([[record("x"), None, None, None, None, record("b")]])
    assert await waiting[1] == row("b")
    assert not recovery.calls


# Errors


@pytest.mark.parametrize(
    "reply", [ValueError("refused"), b"PONG", [], [b"one of two"], [None, None, None], None, 1]
)
@pytest.mark.parametrize("lookup", [PLAIN, HASHED], ids=["raw", "hashed"])
async def test_reply_of_another_shape(
    server: HeldExchange, recovery: Recovery, lookup: Lookup, reply: Reply
) -> None:
    """If the reply is no list of the right length, each session is read on its own."""
    reads = make_reads(recovery, lookup)
    reads.begin(server)
    waiting = await find(reads, "a", "b")
    server.sent[0].replies.set_result([reply])
    await ticks()
    assert recovery.failures == [("a", BatchRejected), ("b", BatchRejected)]
    assert all(0 < seconds <= SECONDS for *_, seconds in recovery.calls)
    recovery.succeed()
    assert await asyncio.gather(*waiting) == [row("a"), row("b")]


async def test_no_reply_at_all(
    reads: AsyncSessionReads, server: HeldExchange, recovery: Recovery
) -> None:
    """A batch without any reply is treated in the same way."""
    (waiting,) = await find(reads, "a")
    server.sent[0].replies.set_result([])
    await ticks()
    assert recovery.failures == [("a", BatchRejected)]
    recovery.succeed()
    assert await waiting == row("a")


@pytest.mark.parametrize(
    "error",
    [NoReply(OSError("broken"), sent=True), NoReply(None, sent=True), BatchRejected()],
)
async def test_failed_batch(
    reads: AsyncSessionReads, server: HeldExchange, recovery: Recovery, error: Exception
) -> None:
    """Each session of a failed batch is read another way within the time left."""
    waiting = await find(reads, "a", "b")
    batcher: Any = reads._batchers[asyncio.get_running_loop()]
    now = batcher._clock()
    batcher._clock = lambda: now + 3
    server.sent[0].replies.set_exception(error)
    await ticks()
    assert [(session_id, found) for session_id, found, _ in recovery.calls] == [
        ("a", error),
        ("b", error),
    ]
    assert all(1 < seconds <= 2 for *_, seconds in recovery.calls)
    recovery.succeed()
    assert await asyncio.gather(*waiting) == [row("a"), row("b")]


async def test_failed_recovery(
    reads: AsyncSessionReads, server: HeldExchange, recovery: Recovery
) -> None:
    """An error of the other way is raised to the caller that waits for it."""
    waiting = await find(reads, "a", "b")
    server.sent[0].replies.set_exception(NoReply(None, sent=True))
    await ticks()
    error = StoreUnavailable(ambiguous=False)
    recovery.results[0].set_exception(error)
    recovery.results[1].set_result(None)
    assert await outcome(waiting[0]) is error
    assert await waiting[1] is None


async def test_cancelled_while_it_is_recovered(
    reads: AsyncSessionReads, server: HeldExchange, recovery: Recovery
) -> None:
    """A retry whose caller is cancelled is cancelled; other callers are unaffected."""
    waiting = await find(reads, "a", "b")
    server.sent[0].replies.set_exception(NoReply(None, sent=True))
    await ticks()
    waiting[0].cancel()
    await ticks()
    assert recovery.cancelled == 1
    recovery.results[1].set_result(row("b"))
    assert await waiting[1] == row("b")
    assert recovery.cancelled == 1


@pytest.mark.parametrize("error", [None, OSError("broken")])
async def test_cancelled_as_it_is_recovered(
    reads: AsyncSessionReads, server: HeldExchange, recovery: Recovery, error: Exception | None
) -> None:
    """A result or an error in the same tick as the cancellation is dropped."""
    (waiting,) = await find(reads, "a")
    server.sent[0].replies.set_exception(NoReply(None, sent=True))
    await ticks()
    if error is None:
        recovery.results[0].set_result(None)
    else:
        recovery.results[0].set_exception(error)
    waiting.cancel()
    await ticks()
    assert waiting.cancelled()
    assert recovery.cancelled == 0


async def test_cancelled_before_it_is_recovered(
    reads: AsyncSessionReads, server: HeldExchange, recovery: Recovery
) -> None:
    """A read that was cancelled before its batch failed is not retried."""
    waiting = await find(reads, "a", "b")
    waiting[0].cancel()
    server.sent[0].replies.set_exception(NoReply(None, sent=True))
    await ticks()
    assert recovery.failures == [("b", NoReply)]
    recovery.succeed()
    assert await waiting[1] == row("b")


async def test_loop_ends_while_it_is_recovered(
    reads: AsyncSessionReads, server: HeldExchange, recovery: Recovery
) -> None:
    """If the retry is cancelled, as when the loop ends, so is the caller."""
    (waiting,) = await find(reads, "a")
    server.sent[0].replies.set_exception(NoReply(None, sent=True))
    await ticks()
    batcher: Any = reads._batchers[asyncio.get_running_loop()]
    for task in list(batcher._recoveries):
        task.cancel()
    assert isinstance(await outcome(waiting), asyncio.CancelledError)


async def test_error_while_records_are_parsed(
    reads: AsyncSessionReads,
    server: HeldExchange,
    recovery: Recovery,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """If the batch's task fails after the replies arrived, callers get an error."""

    def fail(_: bytes) -> None:
        raise KeyError

    monkeypatch.setattr(session_reads, "parse_record", fail)
    asyncio.get_running_loop().set_exception_handler(lambda _loop, _context: None)
    cancelled, waiting = await find(reads, "a", "b")
    (worker,) = reads._batchers[asyncio.get_running_loop()]._workers
    cancelled.cancel()
    server.sent[0].replies.set_result([[record("a"), record("b")]])
    assert isinstance(await outcome(waiting), StoreUnavailable)
    assert isinstance(worker.exception(), KeyError)
    assert not recovery.calls


@pytest.mark.parametrize("error", PARSE_ERRORS)
async def test_errors_of_the_parser(
    reads: AsyncSessionReads,
    server: HeldExchange,
    monkeypatch: pytest.MonkeyPatch,
    error: type[Exception],
) -> None:
    """The slow decoder decides after any error that a version of the parser raises."""

    def refuse(_: bytes) -> None:
        raise error

    for module in (session_reads, records_module):
        monkeypatch.setattr(module, "parse_record", refuse)
    (waiting,) = await find(reads, "a")
    server.sent[0].replies.set_result([[record("a")]])
    assert await waiting == row("a")


async def test_error_that_is_not_foreseen(
    reads: AsyncSessionReads, server: HeldExchange, recovery: Recovery
) -> None:
    """If the exchange raises an unexpected error, callers get an error of their own."""
    raised: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: raised.append(context))
    waiting = await find(reads, "a", "b")
    (worker,) = reads._batchers[asyncio.get_running_loop()]._workers
    server.sent[0].replies.set_exception(RuntimeError("a bug"))
    errors = [await outcome(each) for each in waiting]
    assert [type(each) for each in errors] == [StoreUnavailable] * 2
    assert errors[0] is not errors[1]
    assert isinstance(worker.exception(), RuntimeError)
    assert not recovery.calls
    (again,) = await find(reads, "c")
    server.sent[1].replies.set_result([[record("c")]])
    assert await again == row("c")


@pytest.mark.parametrize("lookup", [PLAIN, HASHED], ids=["raw", "hashed"])
async def test_id_that_has_no_key(server: HeldExchange, recovery: Recovery, lookup: Lookup) -> None:
    """An id that can't be encoded fails alone: others of its tick are read."""
    reads = make_reads(recovery, lookup)
    reads.begin(server)
    before = reads.find("a")
    with pytest.raises(UnicodeEncodeError):
        reads.find("\ud800")
    unchecked: Any = reads
    for no_text in (None, 7, b"bytes"):
        with pytest.raises((TypeError, AttributeError)):
            unchecked.find(no_text)
    after = reads.find("b")
    assert before is not None
    assert after is not None
    await ticks()
    (sent,) = server.sent
    sent.replies.set_result([[None] * (len(sent.commands[0]) - 1)])
    assert await asyncio.wait_for(before, 1) is None
    assert await asyncio.wait_for(after, 1) is None


# When reads are batched


async def test_not_before_it_has_begun(server: HeldExchange, recovery: Recovery) -> None:
    """Reads are batched only after ``begin`` and until ``close``."""
    reads = make_reads(recovery)
    assert reads.find("a") is None
    reads.begin(server)
    found = reads.find("a")
    assert found is not None
    found.cancel()
    reads.close()
    assert reads.find("a") is None
    reads.close()


@pytest.mark.parametrize("coalesce", [True, False])
async def test_not_where_it_is_not_possible(
    server: HeldExchange, recovery: Recovery, coalesce: bool
) -> None:
    """Reads are not batched without one server for all keys, or with ``coalesce=False``."""
    reads = make_reads(recovery, coalesce=coalesce)
    reads.begin(None if coalesce else server)
    assert reads.find("a") is None


async def test_not_before_a_replay_is_complete(server: HeldExchange, recovery: Recovery) -> None:
    """Reads are not batched while revocations have to be replayed (I2)."""
    revocations = Revocations()
    reads = make_reads(recovery, revocations=revocations)
    reads.begin(server)
    revocations.met("server", b"history")
    revocations.revoked(["x"], revocations.newest_demand)
    revocations.met("server", b"another history")
    assert revocations.due
    assert reads.find("a") is None


def test_each_loop_has_its_own(server: HeldExchange, recovery: Recovery) -> None:
    """Each event loop has its own batches; those of closed loops are dropped."""
    reads = make_reads(recovery)

    async def begin() -> None:
        assert reads.find("a") is None
        reads.begin(server)
        found = reads.find("a")
        assert found is not None
        found.cancel()
        await ticks()

    for _ in range(3):
        asyncio.run(begin())
        assert len(reads._batchers) == 1


def test_loops_of_two_threads_that_drop_the_same_closed_loop(
    server: HeldExchange, recovery: Recovery
) -> None:
    """Two threads may begin to batch reads at once, each in its own loop."""
    reads = make_reads(recovery)

    async def begin() -> None:
        reads.begin(server)

    closed = InterruptedLoop()
    with asyncio.Runner(loop_factory=lambda: closed) as runner:
        runner.run(begin())
    closed.meanwhile = lambda: asyncio.run(begin())
    asyncio.run(begin())
    assert len(reads._batchers) == 2
    assert closed not in reads._batchers


async def test_from_the_near_cache(server: HeldExchange, recovery: Recovery) -> None:
    """A session in the near-cache is returned at once, without a request."""
    reads = make_reads(recovery, near_cache=timedelta(seconds=1))
    reads.begin(server)
    kept = row("a")
    reads.near.session = lambda lookup, session_id: (  # type: ignore[method-assign]
        kept if session_id == "a" else None
    )
    found, other = reads.find("a"), reads.find("b")
    assert found is not None
    assert found.done()
    assert await found is kept
    assert other is not None
    await ticks()
    assert [each.commands for each in server.sent] == [[("MGET", b"session:b")]]
    server.sent[0].replies.set_result([[record("b")]])
    assert await other == row("b")


async def test_overloaded(
    reads: AsyncSessionReads, server: HeldExchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One request too many is refused at once."""
    monkeypatch.setattr(batches_module, "MAX_WAITING", 1)
    found = reads.find("a")
    with pytest.raises(Overloaded):
        reads.find("b")
    assert found is not None
    found.cancel()


async def test_end_of_an_outage(
    reads: AsyncSessionReads, server: HeldExchange, outage: Outage
) -> None:
    """The first reply after an outage is reported."""
    answers = []
    outage.answered = lambda: answers.append(1)  # type: ignore[method-assign]
    for is_on in (False, True):
        outage.is_on = is_on
        (waiting,) = await find(reads, "a")
        server.sent[-1].replies.set_result([[None]])
        assert await waiting is None
        assert len(answers) == is_on


async def test_nothing_is_received_after_deadline(
    reads: AsyncSessionReads, server: HeldExchange, recovery: Recovery, outage: Outage
) -> None:
    """A read whose deadline passes before it is sent fails, and begins an outage."""
    batcher: Any = reads._batchers[asyncio.get_running_loop()]
    now = 0.0
    batcher._clock = lambda: now
    waiting = [reads.find("a"), reads.find("b")]
    now += SECONDS
    errors = [await outcome(each) for each in waiting if each is not None]
    assert [type(each) for each in errors] == [StoreUnavailable] * 2
    assert not any(each.ambiguous for each in errors)
    assert errors[0] is not errors[1]
    assert outage.is_on
    assert not server.sent
    assert not recovery.calls


def test_sync_code_batches_nothing() -> None:
    """Sync code never batches reads."""
    reads = SessionReads(PLAIN, Settings(), Revocations(), Outage(), None)
    reads.begin(None)
    assert reads.find("a") is None
    reads.close()
