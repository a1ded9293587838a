"""The password pool: its settings, its scheduling, and the cost of a refusal."""

import base64
import hashlib
import statistics
import threading
import time
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lucia import Argon2Hash, LuciaHash, Overloaded, PasswordPool, ScryptHash
from lucia._compat import password_pool
from lucia._compat.password_pool import (
    PasswordWorkers,
    _Gate,
    _Jobs,
    _Pool,
    _Turn,
    _Turns,
    owner_of,
)
from lucia._rules import passwords as hashes

PATIENCE: Final = 30
CHEAP: Final = ScryptHash(ln=4, r=1, p=1)
ANYBODY: Final = owner_of(None)


def turn_of(owner: str) -> _Turn:
    """Return a job that does nothing."""
    return _Turn(owner, lambda: None)


# --- settings


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"workers": 0}, ValueError, "workers must be at least 1, got 0"),
        ({"queue": -1}, ValueError, "queue must be at least 0, got -1"),
        ({"workers": True}, TypeError, "workers must be an int, not bool"),
        ({"queue": "64"}, TypeError, "queue must be an int, not str"),
    ],
)
def test_invalid_pool_settings_are_refused(
    settings: dict[str, Any], error: type[Exception], words: str
) -> None:
    """An invalid setting is refused with an error that says what was expected."""
    with pytest.raises(error, match=words):
        PasswordPool(**settings)


def test_unset_settings_have_defaults() -> None:
    """Each of the two settings can be set alone, down to its minimum."""
    assert PasswordPool().bounds(2, 64) == (2, 64)
    assert PasswordPool(workers=1).bounds(2, 64) == (1, 64)
    assert PasswordPool(queue=0).bounds(2, 64) == (2, 0)


def test_sync_waits_for_fewer() -> None:
    """At most three sync logins hold a thread; a server has at least four."""
    assert password_pool.SYNC_WORKERS + password_pool.SYNC_QUEUE < 4
    assert password_pool.ASYNC_QUEUE == 64


def test_owners() -> None:
    """Owners are addresses, IPv6 networks (/64), requests without an address, and new passwords."""
    assert owner_of("2001:db8:1:2::7") == owner_of("2001:db8:1:2::8") != owner_of("2001:db8:1:3::7")
    assert owner_of(None) == owner_of("")
    assert (
        len(
            {
                owner_of(None),
                owner_of("203.0.113.9"),
                owner_of("no address"),
                password_pool.NEW_PASSWORDS,
            }
        )
        == 4
    )


# --- scheduling


def enter_all(turns: _Turns, owners: Sequence[str]) -> list[_Turn]:
    """Enter a job for each of these owners."""
    entered = [turn_of(owner) for owner in owners]
    for turn in entered:
        turns.enter(turn)
    return entered


def run_all(turns: _Turns, running: _Turn | None) -> list[str]:
    """Run all jobs one by one, starting with this one, and return their owners."""
    order: list[str] = []
    while running is not None:
        order.append(running.owner)
        running = turns.leave(running)
    return order


def test_owners_take_turns() -> None:
    """Owners take turns, and jobs of one owner run in order."""
    turns = _Turns(1, 10)
    first, *waiting = enter_all(turns, "aaaabbc")
    assert run_all(turns, first) == list("abcabaa")
    assert [turn.future.done() for turn in waiting] == [False] * 6


def test_an_owner_who_had_many_turns_waits_for_those_who_had_none() -> None:
    """An owner who had many turns goes after others, even if it arrives first."""
    turns = _Turns(1, 2)
    running: _Turn | None = None
    for _ in range(10):
        (running,) = enter_all(turns, "a")
        assert turns.leave(running) is None
    (running, _, _) = enter_all(turns, "aab")
    assert run_all(turns, running) == list("aba")


def test_old_turns_are_forgotten() -> None:
    """Turns are forgotten after 64 other turns."""
    turns = _Turns(1, 2)
    for owner in "a" * 10 + "b" * password_pool.RECENT_TURNS:
        turns.leave(*enter_all(turns, owner))
    (running, _, _) = enter_all(turns, "cba")
    assert run_all(turns, running) == list("cab")


def test_a_full_queue_makes_room_for_who_has_less() -> None:
    """In a full queue, the newest job of the owner with most jobs is refused for a newcomer."""
    turns = _Turns(1, 3)
    running, *waiting = enter_all(turns, "aaaa")
    (newcomer,) = enter_all(turns, "b")
    with pytest.raises(Overloaded):
        waiting[2].future.result(0)
    assert not any(turn.future.done() for turn in (*waiting[:2], newcomer))
    with pytest.raises(Overloaded):
        enter_all(turns, "a")
    assert run_all(turns, running) == list("abaa")


@pytest.mark.parametrize(("workers", "queue"), [(1, 1), (2, 1), (4, 64)])
def test_twenty_flooders_keep_nobody_out(workers: int, queue: int) -> None:
    """During a flood, a job of another owner always gets a place, and runs next."""
    turns, running = _Turns(workers, queue), list[_Turn]()
    for number in range(300):
        for flooder in range(20):
            with suppress(Overloaded):
                turn = turn_of(f"flooder {(number + flooder) % 20}")
                if turns.enter(turn):
                    running.append(turn)
        started = turns.leave(running.pop(0))
        assert started is not None
        running.append(started)
        if number > password_pool.RECENT_TURNS and number % 10 == 0:
            newcomer = turn_of(f"newcomer {number}")
            assert not turns.enter(newcomer)
            running.append(newcomer)
            assert turns.leave(running.pop(0)) is newcomer


def test_newcomer_is_refused_among_equal_owners() -> None:
    """If all owners have the same load, a full queue refuses the newcomer, who has not waited."""
    turns = _Turns(1, 2)
    enter_all(turns, "abc")
    with pytest.raises(Overloaded):
        enter_all(turns, "d")
    with pytest.raises(Overloaded):
        enter_all(_Turns(1, 0), "ab")


def test_a_cancelled_job_is_neither_done_nor_refused() -> None:
    """A cancelled job is neither run nor refused, and frees its place."""
    turns = _Turns(1, 2)
    running, *waiting = enter_all(turns, "aaa")
    for turn in waiting:
        turn.future.cancel()
    waiting[0].refuse()
    waiting[1].run()()
    for turn in waiting:
        assert turn.future.cancelled()
        assert turns.leave(turn) is None
    enter_all(turns, "aa")
    assert run_all(turns, running) == ["a", "a", "a"]


def test_a_job_cancelled_before_its_thread_began_passes_its_place_on() -> None:
    """The job that waits behind it runs, and the worker is free afterwards."""
    pool, opened = _Pool(CHEAP, 1, 1), threading.Event()
    pool._executor = ThreadPoolExecutor(1)
    with pool._executor as threads:
        threads.submit(opened.wait, PATIENCE)  # the only thread is busy
        first, second = pool.submit(ANYBODY, lambda: 1), pool.submit(ANYBODY, lambda: 2)
        assert first.cancel()
        opened.set()
        assert second.result(PATIENCE) == 2
        assert pool.submit(ANYBODY, lambda: 3).result(PATIENCE) == 3


@given(
    workers=st.integers(1, 3),
    queue=st.integers(0, 4),
    steps=st.lists(st.tuples(st.sampled_from("abc+"), st.integers(0, 99)), max_size=60),
)
def test_no_job_waits_while_a_worker_is_free(
    workers: int, queue: int, steps: list[tuple[str, int]]
) -> None:
    """For any sequence of steps, the bounds hold, and jobs wait only if all workers are busy."""
    turns, present = _Turns(workers, queue), list[_Turn]()
    for owner, number in steps:
        if owner == "+":
            if present:
                turns.leave(present.pop(number % len(present)))
        else:
            turn = turn_of(owner)
            try:
                turns.enter(turn)
                present.append(turn)
            except Overloaded:
                assert len(present) == workers + queue
        present = [turn for turn in present if not turn.future.done()]
        assert len(turns._running) <= workers
        assert len(turns._waiting) <= queue
        assert {*turns._running, *turns._waiting} == set(present)
        assert not turns._waiting or len(turns._running) == workers


def test_a_thread_that_stops_waiting_gives_up_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """An exception that interrupts the wait, such as a gevent timeout, frees the place."""
    gate, entered, opened = _Gate(CHEAP, 1, 1), threading.Event(), threading.Event()

    def hold() -> bool:
        entered.set()
        return opened.wait(PATIENCE)

    class Interrupted(BaseException):
        """An exception from outside."""

    class Impatient(Future[Any]):
        """A future whose wait is interrupted."""

        def result(self, timeout: float | None = None) -> Any:
            raise Interrupted

    def impatient(owner: str, job: Callable[[], Any]) -> _Turn:
        return _Turn(owner, job, Impatient())

    with ThreadPoolExecutor(1) as threads:
        running = threads.submit(gate.run, ANYBODY, hold)
        assert entered.wait(PATIENCE)
        with monkeypatch.context() as patch:
            patch.setattr(password_pool, "_Turn", impatient)
            for _ in range(3):
                with pytest.raises(Interrupted):
                    gate.run(ANYBODY, hold)
        opened.set()
        assert running.result(PATIENCE)
    assert gate.run(ANYBODY, lambda: True)


# --- the cost of a refusal


class Clock:
    """A processor clock that advances with the work done."""

    def __init__(self) -> None:
        self.now = 5.0

    def __call__(self) -> float:
        return self.now

    def work(self, rounds: int) -> None:
        """Advance by the time of this much work."""
        self.now += 0.0005 * rounds


class TimedHash:
    """A hasher whose stored hash is its time in milliseconds; ``100`` is the configured kind."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def hash(self, _: str, /) -> str:
        """Return a hash of the configured kind."""
        self._clock.now += 0.1
        return "100"

    def verify(self, password: str, hashed: str, /) -> bool:
        """Return whether the password is ``right``."""
        self._clock.now += float(hashed) / 1000
        return password == "right"

    def needs_rehash(self, hashed: str, /) -> bool:
        """Return whether the hash is of another kind."""
        return hashed != "100"


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Return a processor clock that the pool's work advances."""
    clock = Clock()
    monkeypatch.setattr(password_pool, "work", clock.work)
    return clock


def cost_of(clock: Clock, job: Callable[[], bool]) -> float:
    """Return the milliseconds that a job takes."""
    before = clock.now
    job()
    return (clock.now - before) * 1000


@pytest.mark.parametrize("stored", ["0", "1", "19", "27", "67", "99", "100"])
def test_every_refusal_costs_the_configured_verification(clock: Clock, stored: str) -> None:
    """A wrong password costs the same for any kind of hash as for an unknown name."""
    jobs = _Jobs(TimedHash(clock), clock)
    first = cost_of(clock, lambda: jobs.verify("wrong", stored))
    assert first == pytest.approx(200, abs=1)  # including the dummy hash, which is made once
    for _ in range(3):
        assert cost_of(clock, lambda: jobs.verify_dummy("wrong")) == pytest.approx(100)
        assert cost_of(clock, lambda: jobs.verify("wrong", stored)) == pytest.approx(100, abs=1)


def test_a_success_costs_nothing_more(clock: Clock) -> None:
    """A successful verification does no extra work: the user knows that the account exists."""
    jobs = _Jobs(TimedHash(clock), clock)
    jobs.verify_dummy("x")
    assert cost_of(clock, lambda: jobs.verify("right", "27")) == pytest.approx(27)
    assert cost_of(clock, lambda: jobs.verify("right", "100")) == pytest.approx(100)


def test_expensive_hash_needs_no_padding(clock: Clock) -> None:
    """A hash more expensive than the configured kind needs no extra work."""
    jobs = _Jobs(TimedHash(clock), clock)
    jobs.verify_dummy("x")
    assert cost_of(clock, lambda: jobs.verify("wrong", "300")) == pytest.approx(300)
    assert cost_of(clock, lambda: jobs.verify_dummy("wrong")) == pytest.approx(100)


def test_a_refusal_costs_what_a_verification_costs_now(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If verifications become slower, refusals of both kinds do too."""
    jobs = _Jobs(TimedHash(clock), clock)
    jobs.verify_dummy("x")
    monkeypatch.setattr(
        TimedHash,
        "verify",
        lambda self, _, hashed: setattr(clock, "now", clock.now + float(hashed) / 500),
    )
    assert cost_of(clock, lambda: jobs.verify_dummy("wrong")) == pytest.approx(200)
    assert cost_of(clock, lambda: jobs.verify("wrong", "27")) == pytest.approx(200, abs=1)


def test_the_work_is_done_in_few_steps(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """The extra work has few steps, since the thread may wait for the GIL after each."""
    steps: list[int] = []

    def work(rounds: int) -> None:
        steps.append(rounds)
        clock.work(rounds)

    monkeypatch.setattr(password_pool, "work", work)
    jobs = _Jobs(TimedHash(clock), clock)
    jobs.verify("wrong", "1")
    assert len(steps) < 10


def test_a_timer_that_stands_still_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a coarse processor clock, the work grows slowly and ends."""
    clock, steps = Clock(), list[int]()

    def work(rounds: int) -> None:
        steps.append(rounds)
        clock.work(rounds)

    monkeypatch.setattr(password_pool, "work", work)
    jobs = _Jobs(TimedHash(clock), lambda: clock() // 0.015 * 0.015)
    before = clock.now
    jobs.verify("wrong", "1")
    assert steps[:3] == [1, 8, 64]
    assert clock.now - before < 0.4


# --- passwords that are not in normal form

LIGATURE: Final = "\ufb01sh"
"""A password whose NFKC form differs, so that there are two texts to try."""


def passlib_hash(password: str, *, ln: int = 4) -> str:
    """Return a hash of the unnormalized password, as other programs write it."""
    key = hashlib.scrypt(password.encode(), salt=b"salt", n=1 << ln, r=1, p=1, dklen=32)
    return f"$scrypt$ln={ln},r=1,p=1$c2FsdA${base64.b64encode(key).decode().rstrip('=')}"


@pytest.fixture
def derived(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Count the secrets that are derived."""
    counted = Counter[str]()
    derive = hashes._Stored.derive

    def count(stored: Any, secret: bytes) -> bytes:
        counted[secret.decode()] += 1
        return derive(stored, secret)

    monkeypatch.setattr(hashes._Stored, "derive", count)
    return counted


@pytest.mark.parametrize(
    "hasher", [CHEAP, LuciaHash(), Argon2Hash(1, 8, 1)], ids=["scrypt", "lucia", "argon2"]
)
def test_a_hash_of_the_configured_kind_costs_one_derivation(
    hasher: Any, derived: Counter[str]
) -> None:
    """With a hash of the configured kind, any password costs one derivation.

    So nobody can double the work by the choice of a password, and unknown names cost the same.
    """
    workers = PasswordWorkers(hasher)
    hashed = workers.hash("another")
    for password in (LIGATURE, "fish"):
        assert not workers.verify(password, hashed, ANYBODY)
        assert not workers.verify_dummy(password, ANYBODY)
    assert derived == {"fish": 4}


def test_a_hash_of_another_kind_is_tried_twice(derived: Counter[str]) -> None:
    """With a hash of another kind, both the normalized and the raw password are tried."""
    older = passlib_hash(LIGATURE, ln=3)
    assert CHEAP.verify(LIGATURE, older)
    assert derived == {"fish": 1, LIGATURE: 1}
    assert not CHEAP.verify("fish", older)
    assert CHEAP.verify(LIGATURE, passlib_hash(unicodedata.normalize("NFKC", LIGATURE), ln=3))
    assert not CHEAP.verify(LIGATURE, passlib_hash(LIGATURE))


@pytest.mark.slow
@pytest.mark.parametrize("fills", [True, False], ids=["as it is", "control"])
def test_refusals_take_the_same_time(fills: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refusals take about the same time for any kind of hash; without extra work they don't."""
    if not fills:
        monkeypatch.setattr(_Jobs, "_work_until", lambda *_: None)
    workers = PasswordWorkers(ScryptHash())
    stored = {
        "lucia": LuciaHash().hash("right"),
        "argon2": Argon2Hash().hash("right"),
        "cheaper": ScryptHash(ln=14, r=8, p=1).hash("right"),
        "unreadable": "nonsense",
    }
    took: dict[str, list[float]] = {name: [] for name in ("unknown", *stored)}
    for _ in range(10):
        for name, times in took.items():
            began = time.perf_counter()
            if name == "unknown":
                workers.verify_dummy("wrong", ANYBODY)
            else:
                workers.verify("wrong", stored[name], ANYBODY)
            times.append(time.perf_counter() - began)
    medians = {name: statistics.median(times[1:]) for name, times in took.items()}
    ratios = [medians[name] / medians["unknown"] for name in stored]
    assert all(0.6 < ratio < 1.7 for ratio in ratios) == fills, medians
