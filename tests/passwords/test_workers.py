"""The async and the sync password workers."""

import asyncio
import inspect
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from lucia._compat.password_pool import (
    NEW_PASSWORDS,
    AsyncPasswordWorkers,
    PasswordWorkers,
    _Pool,  # only through it can a test make a pool that can't start threads
    owner_of,
)
from lucia._rules.passwords import PasswordPool, ScryptHash, is_acceptable
from lucia.errors import Overloaded

CHEAP = ScryptHash(ln=4, r=1, p=1)
ANYBODY = owner_of(None)
PATIENCE = 30
"""Seconds that a test waits before it fails."""


class Gate:
    """A hasher whose `hash` blocks until it is opened, and records its threads and passwords."""

    def __init__(self, *, is_open: bool = False) -> None:
        self.entered = threading.Semaphore(0)
        self.opened = threading.Event()
        self.lock = threading.Lock()
        self.inside = self.most_inside = 0
        self.passwords: list[str] = []
        self.threads: list[threading.Thread] = []
        if is_open:
            self.opened.set()

    def hash(self, password: str, /) -> str:
        with self.lock:
            self.inside += 1
            self.most_inside = max(self.inside, self.most_inside)
            self.passwords.append(password)
            self.threads.append(threading.current_thread())
        self.entered.release()
        assert self.opened.wait(PATIENCE)
        with self.lock:
            self.inside -= 1
        return CHEAP.hash(password)

    def verify(self, password: str, hashed: str, /) -> bool:
        return CHEAP.verify(password, hashed)

    def needs_rehash(self, hashed: str, /) -> bool:
        return CHEAP.needs_rehash(hashed)


class Counter:
    """A hasher that records its calls and finds every password valid."""

    def __init__(self) -> None:
        self.hashed: list[str] = []
        self.verified: list[tuple[str, str]] = []

    def hash(self, password: str, /) -> str:
        self.hashed.append(password)
        return f"hash {len(self.hashed)}"

    def verify(self, password: str, hashed: str, /) -> bool:
        self.verified.append((password, hashed))
        return True

    def needs_rehash(self, hashed: str, /) -> bool:
        return not hashed


async def entered(gate: Gate, times: int = 1) -> None:
    """Wait until that many jobs have started."""
    for _ in range(times):
        assert await asyncio.to_thread(gate.entered.acquire, timeout=PATIENCE)


async def until_not_overloaded(workers: AsyncPasswordWorkers) -> str:
    """Retry until a job gets a place, and return its result."""
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                return await workers.hash("patient")
            except Overloaded:
                await asyncio.sleep(0.001)


def run_python(program: str) -> "subprocess.CompletedProcess[str]":
    """Run a program in which every warning but the one on threads and forks is an error.

    Development mode is off: with it, asyncio reports slow steps, which a busy machine always
    has.
    """
    flags = ["-W", "error", "-W", "ignore::DeprecationWarning"]
    return subprocess.run(
        [sys.executable, *flags, "-c", program],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


# The two flavours


def test_both_flavours_have_the_same_methods() -> None:
    """Both flavours have the same methods and parameters, except aclose for close."""

    def methods(kind: type[object]) -> dict[str, list[str]]:
        found = inspect.getmembers(kind, inspect.isfunction)
        return {
            name.replace("aclose", "close"): list(inspect.signature(method).parameters)
            for name, method in found
            if name[0] != "_"
        }

    assert methods(AsyncPasswordWorkers) == methods(PasswordWorkers)
    assert set(methods(PasswordWorkers)) == {"hash", "verify", "verify_dummy", "close"}


# The asynchronous workers


async def test_async_workers_hash_and_verify() -> None:
    """A hash is valid for its password and for no other."""
    workers = AsyncPasswordWorkers(CHEAP)
    hashed = await workers.hash("right")
    assert await workers.verify("right", hashed, ANYBODY)
    assert not await workers.verify("wrong", hashed, ANYBODY)
    await workers.aclose()


async def test_async_workers_leave_the_loops_thread_alone() -> None:
    """A job runs in another thread than the event loop."""
    gate = Gate(is_open=True)
    workers = AsyncPasswordWorkers(gate)
    await workers.hash("x")
    assert gate.threads[0] is not threading.current_thread()
    await workers.aclose()


async def test_a_full_queue_is_overloaded_until_there_is_room() -> None:
    """A job beyond workers and queue is refused at once; later there is room again."""
    gate = Gate()
    workers = AsyncPasswordWorkers(gate, PasswordPool(workers=1, queue=1))
    accepted = [asyncio.create_task(workers.hash(name)) for name in ("first", "second")]
    await entered(gate)
    for refused in (
        workers.hash("third"),
        workers.verify("third", "", NEW_PASSWORDS),
        workers.verify_dummy("third", NEW_PASSWORDS),
    ):
        with pytest.raises(Overloaded):
            await refused
    gate.opened.set()
    assert all(
        CHEAP.verify(name, hashed)
        for name, hashed in zip(("first", "second"), await asyncio.gather(*accepted), strict=True)
    )
    assert CHEAP.verify("patient", await until_not_overloaded(workers))
    assert "third" not in gate.passwords
    await workers.aclose()


async def test_no_more_than_workers_run_at_once() -> None:
    """At most as many jobs run at once as there are workers."""
    gate = Gate()
    workers = AsyncPasswordWorkers(gate, PasswordPool(workers=2, queue=8))
    tasks = [asyncio.create_task(workers.hash("x")) for _ in range(10)]
    await entered(gate, 2)
    gate.opened.set()
    await asyncio.gather(*tasks)
    assert gate.most_inside == 2
    await workers.aclose()


async def test_a_cancelled_waiter_gives_up_its_place() -> None:
    """Cancelling a waiting job removes it, and frees its place at once."""
    gate = Gate()
    workers = AsyncPasswordWorkers(gate, PasswordPool(workers=1, queue=1))
    running, waiting = (
        asyncio.create_task(workers.hash(name)) for name in ("running", "cancelled")
    )
    await entered(gate)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    successor = asyncio.create_task(workers.hash("successor"))
    await asyncio.sleep(0)
    gate.opened.set()
    await asyncio.gather(running, successor)
    assert gate.passwords == ["running", "successor"]
    await workers.aclose()


async def test_a_cancelled_job_that_runs_keeps_its_place() -> None:
    """Cancelling a running job returns at once, but its place is taken until it ends."""
    gate = Gate()
    workers = AsyncPasswordWorkers(gate, PasswordPool(workers=1, queue=0))
    running = asyncio.create_task(workers.hash("cancelled"))
    await entered(gate)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    with pytest.raises(Overloaded):
        await workers.hash("early")
    gate.opened.set()
    assert CHEAP.verify("patient", await until_not_overloaded(workers))
    assert gate.passwords == ["cancelled", "patient"]
    await workers.aclose()


async def test_hasher_error_is_raised_and_frees_the_place() -> None:
    """An error of the hasher is raised, and frees the place."""
    workers = AsyncPasswordWorkers(CHEAP, PasswordPool(workers=1, queue=0))
    for _ in range(3):
        with pytest.raises(ValueError, match="empty"):
            await workers.hash("")
        await until_not_overloaded(workers)
    await workers.aclose()


def test_a_pool_that_cannot_start_a_job_keeps_no_place() -> None:
    """If no thread can be started, that error is raised every time, and never Overloaded."""
    pool = _Pool(CHEAP, workers=1, queue=0)
    pool.submit(ANYBODY, pool.jobs.hash, "x").result(PATIENCE)
    executor = pool._executor
    assert executor is not None
    executor.shutdown()
    for _ in range(3):
        with pytest.raises(RuntimeError, match="shutdown"):
            pool.submit(ANYBODY, pool.jobs.hash, "x").result(PATIENCE)


def test_one_event_loop_after_another() -> None:
    """Workers created outside of an event loop serve one loop after another."""
    workers = AsyncPasswordWorkers(CHEAP)
    hashed = asyncio.run(workers.hash("x"))
    assert asyncio.run(workers.verify("x", hashed, ANYBODY))
    asyncio.run(workers.aclose())


def test_several_event_loops_at_once() -> None:
    """Event loops in several threads share the workers and their bounds."""
    gate = Gate()
    workers = AsyncPasswordWorkers(gate, PasswordPool(workers=2, queue=2))
    with ThreadPoolExecutor(4) as threads:
        answers = [threads.submit(asyncio.run, workers.hash(str(number))) for number in range(4)]
        assert all(gate.entered.acquire(timeout=PATIENCE) for _ in range(2))
        gate.opened.set()
        assert all(
            CHEAP.verify(str(number), answer.result(PATIENCE))
            for number, answer in enumerate(answers)
        )
    assert gate.most_inside == 2
    asyncio.run(workers.aclose())


async def test_closing_ends_the_threads_after_what_was_accepted() -> None:
    """Closing waits for accepted jobs, ends the threads, and can be repeated."""
    gate = Gate()
    workers = AsyncPasswordWorkers(gate, PasswordPool(workers=1, queue=1))
    await workers.aclose()
    accepted = [asyncio.create_task(workers.hash(name)) for name in ("first", "second")]
    await entered(gate)
    closing = asyncio.create_task(workers.aclose())
    await asyncio.sleep(0)
    gate.opened.set()
    await closing
    assert not any(thread.is_alive() for thread in gate.threads)
    assert len(await asyncio.gather(*accepted)) == 2
    await workers.aclose()


async def test_closed_workers_start_again() -> None:
    """After closing, the next use starts new threads, as in a second lifespan."""
    gate = Gate(is_open=True)
    workers = AsyncPasswordWorkers(gate)
    await workers.hash("x")
    await workers.aclose()
    await until_not_overloaded(workers)
    assert gate.threads[1] is not gate.threads[0]
    await workers.aclose()


def test_unclosed_workers_let_the_program_end() -> None:
    """A program with unclosed workers and pending jobs ends without a warning."""
    ended = run_python(
        "import asyncio\n"
        "from lucia._compat.password_pool import AsyncPasswordWorkers\n"
        "from lucia._rules.passwords import PasswordPool, ScryptHash\n"
        "workers = AsyncPasswordWorkers(ScryptHash(), PasswordPool(workers=1))\n"
        "async def main():\n"
        "    tasks = [asyncio.create_task(workers.hash(str(n))) for n in range(65)]\n"
        "    await tasks[0]\n"
        "asyncio.run(main())\n"
        "print('end')\n"
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "end\n", "")


def test_a_fork_starts_its_own_threads() -> None:
    """A forked child hashes in its own threads, even if all places of its parent are taken."""
    ended = run_python(
        "import asyncio, os, threading\n"
        "from lucia._compat.password_pool import AsyncPasswordWorkers, PasswordWorkers\n"
        "from lucia._rules.passwords import PasswordPool, ScryptHash\n"
        "begun, go = threading.Semaphore(0), threading.Event()\n"
        "class Hasher(ScryptHash):\n"
        "    def hash(self, password, /):\n"
        "        if password == 'parent':\n"
        "            begun.release()\n"
        "            go.wait()\n"
        "        return super(Hasher, self).hash(password)\n"
        "cheap = Hasher(ln=4, r=1, p=1)\n"
        "workers = AsyncPasswordWorkers(cheap, PasswordPool(workers=1, queue=0))\n"
        "sync = PasswordWorkers(cheap, PasswordPool(workers=1, queue=0))\n"
        "thread = threading.Thread(target=sync.hash, args=['parent'])\n"
        "thread.start()\n"
        "async def main():\n"
        "    task = asyncio.create_task(workers.hash('parent'))\n"
        "    await asyncio.to_thread(begun.acquire)\n"
        "    await asyncio.to_thread(begun.acquire)\n"
        "    child = os.fork()\n"
        "    if child == 0:\n"
        "        pool = workers._pool.get()\n"
        "        hashed = pool.submit('anybody', pool.jobs.hash, 'x').result(20)\n"
        "        print(cheap.verify('x', hashed), cheap.verify('x', sync.hash('x')), flush=True)\n"
        "        os._exit(0)\n"
        "    os.waitpid(child, 0)\n"
        "    go.set()\n"
        "    print(cheap.verify('parent', await task), flush=True)\n"
        "asyncio.run(main())\n"
        "thread.join()\n"
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "True True\nTrue\n", "")


# The synchronous workers


def test_sync_workers_hash_and_verify() -> None:
    """A hash is valid for its password and for no other, also after closing."""
    workers = PasswordWorkers(CHEAP)
    hashed = workers.hash("right")
    workers.close()
    assert workers.verify("right", hashed, ANYBODY)
    assert not workers.verify("wrong", hashed, ANYBODY)


def test_sync_workers_use_the_callers_thread() -> None:
    """A job runs in the caller's thread."""
    gate = Gate(is_open=True)
    PasswordWorkers(gate).hash("x")
    assert gate.threads == [threading.current_thread()]


def test_sync_workers_are_bounded() -> None:
    """One thread hashes, one waits, the third is refused; later there is room again."""
    gate = Gate()
    workers = PasswordWorkers(gate, PasswordPool(workers=1, queue=1))
    refused = threading.Semaphore(0)

    def hash_once() -> bool:
        try:
            return CHEAP.verify("x", workers.hash("x"))
        except Overloaded:
            refused.release()
            return False

    with ThreadPoolExecutor(3) as threads:
        answers = [threads.submit(hash_once) for _ in range(3)]
        assert gate.entered.acquire(timeout=PATIENCE)
        assert refused.acquire(timeout=PATIENCE)
        gate.opened.set()
    assert sorted(answer.result() for answer in answers) == [False, True, True]
    assert gate.most_inside == 1
    assert CHEAP.verify("x", workers.hash("x"))


def test_sync_hasher_error_is_raised_and_frees_the_place() -> None:
    """An error of the hasher is raised, and frees the place."""
    workers = PasswordWorkers(CHEAP, PasswordPool(workers=1, queue=0))
    for _ in range(3):
        with pytest.raises(ValueError, match="empty"):
            workers.hash("")


# The dummy


async def test_a_dummy_is_never_valid_and_costs_one_verification() -> None:
    """A dummy verification costs a real one and returns False; one dummy hash is made."""
    counter = Counter()
    workers = AsyncPasswordWorkers(counter, PasswordPool(workers=1))
    assert [await workers.verify_dummy(password, ANYBODY) for password in ("a", "b")] == [
        False,
        False,
    ]
    assert await workers.verify("c", "real", ANYBODY)
    assert counter.verified == [("a", "hash 1"), ("b", "hash 1"), ("c", "real")]
    assert len(counter.hashed) == 1
    await workers.aclose()


def test_the_first_known_name_costs_what_the_first_unknown_one_does() -> None:
    """The first verification makes the dummy hash, whether the name is known or not."""
    known, unknown = Counter(), Counter()
    PasswordWorkers(known).verify("x", "real", ANYBODY)
    PasswordWorkers(unknown).verify_dummy("x", ANYBODY)
    assert (
        (len(known.hashed), len(known.verified))
        == (len(unknown.hashed), len(unknown.verified))
        == (1, 1)
    )


@pytest.mark.parametrize("password", ["", "x" * 1_001, "\ud800"])
def test_dummy_verification_costs_the_same_for_unacceptable_passwords(password: str) -> None:
    """A password that a hasher would refuse at once is replaced by an acceptable one."""
    counter = Counter()
    assert not PasswordWorkers(counter).verify_dummy(password, ANYBODY)
    assert [is_acceptable(verified) for verified, _ in counter.verified] == [True]


def test_threads_make_one_dummy() -> None:
    """Concurrent threads make one dummy hash, of a random password."""
    gate = Gate()
    workers = PasswordWorkers(gate, PasswordPool(workers=4, queue=0))
    with ThreadPoolExecutor(4) as threads:
        answers = [threads.submit(workers.verify_dummy, "x", ANYBODY) for _ in range(4)]
        assert gate.entered.acquire(timeout=PATIENCE)
        gate.opened.set()
    assert not any(answer.result() for answer in answers)
    assert len(gate.passwords) == 1
    assert len(gate.passwords[0]) == 32
