"""Hashing passwords: in threads of its own for async code, in the callers' threads for sync code.

Hashing takes long and much memory, so only a few passwords are hashed at once and few more wait.
``_Turns`` decides whose password is next, ``_Jobs`` does the work; the rest is how each flavour
waits: ``_Pool`` and ``AsyncPasswordWorkers`` for tasks, ``_Gate`` and ``PasswordWorkers`` for
threads.
"""

import asyncio
import hashlib
import os
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, ParamSpec, TypeVar

from lucia._compat.greenlets import in_native_thread, threads_are_greenlets
from lucia._compat.per_loop import PerProcess
from lucia._logs import overloaded
from lucia._rules.passwords import PasswordHasher, PasswordPool, is_acceptable
from lucia._rules.throttling import address_block
from lucia.errors import Overloaded

__all__ = ["NEW_PASSWORDS", "AsyncPasswordWorkers", "PasswordWorkers", "owner_of"]

P = ParamSpec("P")
T = TypeVar("T")

_CORES: Final = os.cpu_count() or 1

ASYNC_WORKERS: Final = min(4, _CORES)
"""How many passwords async code hashes at once; each takes the memory of its hash, 32 MiB by
default."""

ASYNC_QUEUE: Final = 64
"""How many more passwords may wait for a worker."""

SYNC_WORKERS: Final = min(2, _CORES)
"""How many passwords sync code hashes at once: each occupies one of the server's threads."""

SYNC_QUEUE: Final = 1
"""How many more passwords wait in sync code. A server with four threads, waitress's default, then
still has one for other requests."""

RECENT_TURNS: Final = 64
"""How many turns are remembered, to tell who had many of them."""

NEW_PASSWORDS: Final = "new passwords"
"""The owner of all jobs that hash a new password, for which no address is known."""


def owner_of(address: str | None) -> str:
    """Return the owner of a job for a request from ``address``.

    It is the address block, or one owner for all requests whose address is not known.
    """
    return f"address {address_block(address)}" if address else "no address"


class _Jobs:
    """The work of a password worker, in whatever thread it runs: creates and verifies hashes.

    Every refusal takes the processor time of one verification of a hash that the hasher writes:

    - For a name without a hash, a dummy hash is verified.
    - A hash of another kind or cost may take less. If the password turns out to be wrong, the
      thread works on until it has used as much processor time as the last verification of a hash
      of the configured kind. Processor time rather than a pause: on a busy machine, it is
      stretched as a verification is.

    The first job that verifies anything creates the dummy hash, so that even the first response
    takes as long for unknown names as for known ones.
    """

    def __init__(
        self, hasher: PasswordHasher, timer: Callable[[], float] = time.thread_time
    ) -> None:
        self._hasher = hasher
        self._timer = timer
        self._lock = threading.Lock()
        self._dummy: str | None = None
        self._cost = 0.0

    def hash(self, password: str) -> str:
        return self._hasher.hash(password)

    def verify(self, password: str, hashed: str) -> bool:
        # First, though it may not be needed: otherwise the first unknown name would take longer.
        self._get_dummy()
        began = self._timer()
        is_right = self._hasher.verify(password, hashed)
        if not self._hasher.needs_rehash(hashed):
            self._cost = self._timer() - began
        elif not is_right:
            self._work_until(began + self._cost)
        return is_right

    def verify_dummy(self, password: str) -> bool:
        self.verify(password if is_acceptable(password) else "unacceptable", self._get_dummy())
        return False

    def _get_dummy(self) -> str:
        with self._lock:
            if self._dummy is None:
                began = self._timer()
                self._dummy = self._hasher.hash(os.urandom(16).hex())
                self._cost = self._timer() - began
            return self._dummy

    def _work_until(self, end: float) -> None:
        """Use processor time until the timer shows ``end``."""
        rounds, now = 1, self._timer()
        while now < end:
            work(rounds)
            before, now = now, self._timer()
            took = max(now - before, 1e-9)
            # Few and long steps, since between them this thread needs the GIL.
            rounds = max(1, min(8 * rounds, int(0.9 * rounds * (end - now) / took)))


def work(rounds: int) -> None:
    """Use the processor without holding the GIL, some tenths of a millisecond for each round."""
    hashlib.scrypt(b"", salt=b"", n=256, r=8, p=rounds, maxmem=2**28)


@dataclass(eq=False, slots=True)
class _Turn:
    """A job of some owner: running, waiting or refused."""

    owner: str
    job: Callable[[], Any] = field(repr=False)
    future: Future[Any] = field(default_factory=Future[Any])

    def run(self) -> Callable[[], None]:
        """Do the job unless its caller was cancelled; return a function that sets the result."""
        # A job whose thread could not be started has failed already, though it is still queued.
        if self.future.done() or not self.future.set_running_or_notify_cancel():
            return lambda: None
        # Also an error that is no Exception: the caller waits for this future alone.
        try:
            return partial(self.future.set_result, self.job())
        except BaseException as error:
            return partial(self.future.set_exception, error)

    def refuse(self) -> None:
        """Raise ``Overloaded`` in the caller, whose place went to somebody else."""
        if self.future.set_running_or_notify_cancel():
            overloaded("passwords to be hashed")
            self.future.set_exception(Overloaded())


class _Turns:
    """Decides whose password is hashed next: ``workers`` jobs run, ``queue`` more wait.

    Each job has an owner, such as an address. The next to run is the oldest job of the owner with
    the fewest of the last turns. A job that finds the queue full takes the place of one whose owner
    has more of the last turns and of the queue; of that owner's jobs, the newest is refused. So
    whoever sends a flood of logins waits behind everybody else, and is refused first.

    While a worker is free, no job waits.
    """

    def __init__(self, workers: int, queue: int) -> None:
        self._workers = workers
        self._queue = queue
        self._lock = threading.Lock()
        self._running: set[_Turn] = set()
        self._waiting: list[_Turn] = []
        self._recent: deque[str] = deque(maxlen=RECENT_TURNS)

    def enter(self, turn: _Turn) -> bool:
        """Take a place, and return whether the job may run at once.

        Raises:
            Overloaded: every place is taken, and no owner has more of them than this one.
        """
        with self._lock:
            if len(self._running) < self._workers:
                self._begin(turn)
                return True
            refused = self._pop_heaviest(turn.owner) if len(self._waiting) == self._queue else None
            self._waiting.append(turn)
        # Not under the lock, which the callbacks of the refused future take.
        if refused is not None:
            refused.refuse()
        return False

    def withdraw(self, turn: _Turn) -> None:
        """Give up the place in the queue, if it has one."""
        with self._lock:
            if turn in self._waiting:
                self._waiting.remove(turn)

    def leave(self, turn: _Turn) -> _Turn | None:
        """Give up the place, if there still is one, and return the job that runs instead."""
        self.withdraw(turn)
        with self._lock:
            if turn not in self._running:
                return None
            self._running.remove(turn)
            return self._pop_next()

    def _begin(self, turn: _Turn) -> None:
        self._running.add(turn)
        self._recent.append(turn.owner)

    def _pop_next(self) -> _Turn | None:
        if not self._waiting:
            return None
        recent = Counter(self._recent)
        # Of equal ones, min() returns the first: the oldest.
        turn = min(self._waiting, key=lambda turn: recent[turn.owner])
        self._waiting.remove(turn)
        self._begin(turn)
        return turn

    def _pop_heaviest(self, newcomer: str) -> _Turn:
        load = Counter([*self._recent, *(turn.owner for turn in self._waiting)])
        # Of equal ones, max() returns the first, here the newest, which has waited least.
        heaviest = max(reversed(self._waiting), key=lambda turn: load[turn.owner], default=None)
        if heaviest is None or load[heaviest.owner] <= load[newcomer] + 1:
            overloaded("passwords to be hashed")
            raise Overloaded
        self._waiting.remove(heaviest)
        return heaviest


class _Pool:
    """The threads of one process, started when there is work."""

    def __init__(self, hasher: PasswordHasher, workers: int, queue: int) -> None:
        self.jobs = _Jobs(hasher)
        self._workers = workers
        self._turns = _Turns(workers, queue)
        self._lock = threading.Lock()
        self._executor: ThreadPoolExecutor | None = None

    def submit(
        self, owner: str, job: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> Future[T]:
        """Start or queue a job; its place is free once it is done, or cancelled while it waits.

        Raises:
            Overloaded: there is no place.
        """
        turn = _Turn(owner, partial(job, *args, **kwargs))
        if self._turns.enter(turn):
            self._start(turn)
        # Out of the queue only. A job that has a worker, even if cancelled before its thread
        # begins, leaves in that thread, which then runs the next one.
        turn.future.add_done_callback(lambda _: self._turns.withdraw(turn))
        return turn.future

    def take_executor(self) -> ThreadPoolExecutor | None:
        """Return and forget the running executor, if any: the next job starts another."""
        with self._lock:
            executor, self._executor = self._executor, None
            return executor

    def _start(self, turn: _Turn | None) -> None:
        """Run a job in a thread. If no thread can be started, the error is the job's result."""
        while turn is not None:
            try:
                with self._lock:
                    if self._executor is None:
                        self._executor = ThreadPoolExecutor(self._workers, "lucia-password")
                    self._executor.submit(self._work, turn)
            except RuntimeError as error:
                upcoming = self._turns.leave(turn)
                # Another thread may have cancelled it, or done it: submit() had queued it before.
                with suppress(InvalidStateError):
                    turn.future.set_exception(error)
                turn = upcoming
            else:
                return

    def _work(self, turn: _Turn | None) -> None:
        """Do this job and then those that wait, in one thread."""
        while turn is not None:
            set_result = turn.run()
            # Free the place first: a caller that gets its result may come again at once.
            upcoming = self._turns.leave(turn)
            set_result()
            turn = upcoming


class AsyncPasswordWorkers:
    """Hashes passwords in a few threads, away from the event loop.

    The threads start on first use, serve any number of event loops, and start again after a fork. A
    caller that is cancelled gives up its place in the queue; a job that has begun runs to its end
    and keeps its place until then. Threads that were not stopped end with the interpreter.

    Args:
        hasher: does the work; called from several threads at once.
        pool: how many run at once and how many more wait.
    """

    def __init__(self, hasher: PasswordHasher, pool: PasswordPool | None = None) -> None:
        workers, queue = (pool or PasswordPool()).bounds(ASYNC_WORKERS, ASYNC_QUEUE)
        self._pool = PerProcess(lambda: _Pool(hasher, workers, queue))

    async def hash(self, password: str, owner: str = NEW_PASSWORDS) -> str:
        """Return the hash to store for ``password``.

        Raises:
            Overloaded: the queue is full.
            TypeError, ValueError: the password is not acceptable.
        """
        pool = self._pool.get()
        return await asyncio.wrap_future(pool.submit(owner, pool.jobs.hash, password))

    async def verify(self, password: str, hashed: str, owner: str) -> bool:
        """Return whether ``hashed`` was made from ``password``.

        Raises:
            Overloaded: the queue is full.
        """
        pool = self._pool.get()
        return await asyncio.wrap_future(pool.submit(owner, pool.jobs.verify, password, hashed))

    async def verify_dummy(self, password: str, owner: str) -> bool:
        """Return False after one verification of the configured cost, for want of a hash.

        It takes that long for every password, also for one that is not acceptable.

        Raises:
            Overloaded: the queue is full.
        """
        pool = self._pool.get()
        return await asyncio.wrap_future(pool.submit(owner, pool.jobs.verify_dummy, password))

    async def aclose(self) -> None:
        """Stop the threads after the jobs that were accepted before.

        Using the workers again starts new threads.
        """
        executor = self._pool.get().take_executor()
        if executor is not None:
            await asyncio.to_thread(executor.shutdown)


class _Gate:
    """Limits how many of the callers' threads hash at once, in one process."""

    def __init__(self, hasher: PasswordHasher, workers: int, queue: int) -> None:
        self.jobs = _Jobs(hasher)
        self._turns = _Turns(workers, queue)

    def run(self, owner: str, job: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Do a job in this thread when its turn comes; under gevent, in a thread of gevent's pool.

        Raises:
            Overloaded: there is no place, or it went to somebody else.
        """
        call = partial(job, *args, **kwargs)
        turn = _Turn(owner, call)
        may_run = self._turns.enter(turn)
        try:
            if not may_run:
                turn.future.result()
            return in_native_thread(call)
        finally:
            upcoming = self._turns.leave(turn)
            if upcoming is not None:
                upcoming.future.set_result(None)


def _sync_bounds(pool: PasswordPool) -> tuple[int, int]:
    # Greenlets are many, as tasks are: one that waits occupies no thread of the server.
    if threads_are_greenlets():
        return pool.bounds(ASYNC_WORKERS, ASYNC_QUEUE)
    return pool.bounds(SYNC_WORKERS, SYNC_QUEUE)


class PasswordWorkers:
    """Hashes passwords in the callers' own threads, a bounded number at once.

    Args:
        hasher: does the work; called from several threads at once.
        pool: how many run at once and how many more wait.
    """

    def __init__(self, hasher: PasswordHasher, pool: PasswordPool | None = None) -> None:
        self._gate = PerProcess(lambda: _Gate(hasher, *_sync_bounds(pool or PasswordPool())))

    def hash(self, password: str, owner: str = NEW_PASSWORDS) -> str:
        """Return the hash to store for ``password``.

        Raises:
            Overloaded: the queue is full.
            TypeError, ValueError: the password is not acceptable.
        """
        gate = self._gate.get()
        return gate.run(owner, gate.jobs.hash, password)

    def verify(self, password: str, hashed: str, owner: str) -> bool:
        """Return whether ``hashed`` was made from ``password``.

        Raises:
            Overloaded: the queue is full.
        """
        gate = self._gate.get()
        return gate.run(owner, gate.jobs.verify, password, hashed)

    def verify_dummy(self, password: str, owner: str) -> bool:
        """Return False after one verification of the configured cost, for want of a hash.

        It takes that long for every password, also for one that is not acceptable.

        Raises:
            Overloaded: the queue is full.
        """
        gate = self._gate.get()
        return gate.run(owner, gate.jobs.verify_dummy, password)

    def close(self) -> None:
        """Do nothing: the threads are the callers'."""
