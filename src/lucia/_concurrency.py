"""What differs between the two colours beyond ``await``: locks, and the workers that hash passwords.

Each ``AsyncX`` stands beside its ``X``, with the same methods (``aclose`` is ``close``), so that generated code finds its own by name.
"""

import asyncio
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Final, Generic, ParamSpec, TypeVar

from lucia._logs import overloaded
from lucia.errors import Overloaded
from lucia.passwords import PasswordHasher, is_acceptable

__all__ = [
    "DEFAULT_QUEUE",
    "DEFAULT_WORKERS",
    "AsyncLock",
    "AsyncPasswordWorkers",
    "AsyncRequestLock",
    "Lock",
    "PasswordWorkers",
    "PerProcess",
    "RequestLock",
]

P = ParamSpec("P")
T = TypeVar("T")

DEFAULT_WORKERS: Final = min(4, os.cpu_count() or 1)
"""How many passwords are hashed at once; each takes the memory of its hash, 32 MiB by default."""

DEFAULT_QUEUE: Final = 64
"""How many more passwords may wait for a worker."""


class AsyncLock:
    """Mutual exclusion among the tasks of one event loop. Made anywhere; used in one loop after another, never in two at a time."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lock = asyncio.Lock()

    async def __aenter__(self) -> None:
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._enter_loop(loop)
        await self._lock.acquire()

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None, /) -> None:
        self._lock.release()

    def _enter_loop(self, loop: asyncio.AbstractEventLoop) -> None:
        """Take a fresh lock in a new loop, since an asyncio lock stays with the loop that first waited for it."""
        if self._loop is not None:
            if self._lock.locked() and not self._loop.is_closed():
                raise RuntimeError("this lock is held in another event loop")
            self._lock = asyncio.Lock()
        self._loop = loop


class Lock:
    """Mutual exclusion among threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None, /) -> None:
        self._lock.release()


AsyncRequestLock: Final = asyncio.Lock
"""Mutual exclusion within a request, which lives in one event loop."""

RequestLock: Final = threading.Lock
"""The same among the threads that a request may have."""


class PerProcess(Generic[T]):
    """One ``T`` for each process, made on first use: after a fork, threads are gone and locks may be held by nobody.

    No lock guards it, since that lock would be inherited too: when threads race, one value wins and the others were never used.
    """

    def __init__(self, make: Callable[[], T], getpid: Callable[[], int] = os.getpid) -> None:
        self._make = make
        self._getpid = getpid
        self._values: dict[int, T] = {}

    def get(self) -> T:
        """This process's value."""
        pid = self._getpid()
        value = self._values.get(pid)
        return self._first(pid) if value is None else value

    def _first(self, pid: int) -> T:
        value = self._values.setdefault(pid, self._make())
        for other in self._values.keys() - {pid}:
            self._values.pop(other, None)
        return value


class _Jobs:
    """What a worker does, in whatever thread: a hasher, and a dummy hash that stands in for those that are not there.

    The dummy is made by the first job that verifies anything, real or not: also that one takes as long for unknown names as for known.
    """

    def __init__(self, hasher: PasswordHasher) -> None:
        self._hasher = hasher
        self._lock = threading.Lock()
        self._dummy: str | None = None

    def hash(self, password: str) -> str:
        return self._hasher.hash(password)

    def verify(self, password: str, hashed: str) -> bool:
        self._get_dummy()
        return self._hasher.verify(password, hashed)

    def verify_dummy(self, password: str) -> bool:
        dummy = self._get_dummy()
        self._hasher.verify(password if is_acceptable(password) else "unacceptable", dummy)
        return False

    def _get_dummy(self) -> str:
        with self._lock:
            if self._dummy is None:
                self._dummy = self._hasher.hash(os.urandom(16).hex())
            return self._dummy


def _check_bounds(workers: int, queue: int) -> None:
    if workers < 1:
        raise ValueError("workers must be at least 1")
    if queue < 0:
        raise ValueError("queue must not be negative")


class _Pool:
    """A bounded thread pool of one process: ``workers`` jobs run, ``queue`` more wait, all beyond that are refused."""

    def __init__(self, hasher: PasswordHasher, workers: int, queue: int) -> None:
        self.jobs = _Jobs(hasher)
        self._workers = workers
        self._places = threading.BoundedSemaphore(workers + queue)
        self._lock = threading.Lock()
        self._executor: ThreadPoolExecutor | None = None

    def submit(self, job: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Start or queue a job. Its place is free again once it is done, or cancelled before it began.

        Raises:
            Overloaded: every place is taken.
        """
        if not self._places.acquire(blocking=False):
            overloaded("passwords to be hashed")
            raise Overloaded
        try:
            future = self._start(job, *args, **kwargs)
        except BaseException:
            self._places.release()
            raise
        future.add_done_callback(lambda _: self._places.release())
        return future

    def take_executor(self) -> ThreadPoolExecutor | None:
        """The executor, if one runs; the next job starts another."""
        with self._lock:
            executor, self._executor = self._executor, None
            return executor

    def _start(self, job: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        with self._lock:
            if self._executor is None:
                self._executor = ThreadPoolExecutor(self._workers, thread_name_prefix="lucia-password")
            return self._executor.submit(job, *args, **kwargs)


class AsyncPasswordWorkers:
    """Hashes passwords in a few threads, away from the event loop.

    At most ``workers`` run at once and ``queue`` more wait; one beyond that is :class:`~lucia.errors.Overloaded`. The threads start on
    first use, serve any number of event loops, and are started anew after a fork. Who stops waiting gives up the place in the queue;
    a job that has begun runs to its end and keeps its place so long. Threads that nobody ended are ended with the interpreter.

    Args:
        hasher: does the work; called from several threads at once.
        workers: how many run at once, each with the memory that its hash takes.
        queue: how many more may wait.
    """

    def __init__(self, hasher: PasswordHasher, *, workers: int = DEFAULT_WORKERS, queue: int = DEFAULT_QUEUE) -> None:
        _check_bounds(workers, queue)
        self._pool = PerProcess(lambda: _Pool(hasher, workers, queue))

    async def hash(self, password: str) -> str:
        """The hash to store for ``password``.

        Raises:
            Overloaded: the queue is full.
            TypeError, ValueError: the password is not acceptable.
        """
        pool = self._pool.get()
        return await asyncio.wrap_future(pool.submit(pool.jobs.hash, password))

    async def verify(self, password: str, hashed: str) -> bool:
        """Whether ``hashed`` was made from ``password``.

        Raises:
            Overloaded: the queue is full.
        """
        pool = self._pool.get()
        return await asyncio.wrap_future(pool.submit(pool.jobs.verify, password, hashed))

    async def verify_dummy(self, password: str) -> bool:
        """False, after one verification at the configured cost: what a refusal takes that has no hash to verify.

        It takes that long for every password, also for one that is not acceptable.

        Raises:
            Overloaded: the queue is full.
        """
        pool = self._pool.get()
        return await asyncio.wrap_future(pool.submit(pool.jobs.verify_dummy, password))

    async def aclose(self) -> None:
        """End the threads, once they have done what was accepted before. Using the workers again starts new ones."""
        executor = self._pool.get().take_executor()
        if executor is not None:
            await asyncio.to_thread(executor.shutdown)


class _Gate:
    """The places of one process's threads: ``workers`` of them work, ``queue`` more wait, all beyond that are refused."""

    def __init__(self, hasher: PasswordHasher, workers: int, queue: int) -> None:
        self.jobs = _Jobs(hasher)
        self._places = threading.BoundedSemaphore(workers + queue)
        self._running = threading.BoundedSemaphore(workers)

    def run(self, job: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Do a job in this thread, when its turn comes.

        Raises:
            Overloaded: every place is taken.
        """
        if not self._places.acquire(blocking=False):
            overloaded("passwords to be hashed")
            raise Overloaded
        try:
            with self._running:
                return job(*args, **kwargs)
        finally:
            self._places.release()


class PasswordWorkers:
    """Hashes passwords in the callers' own threads, a bounded number at once.

    At most ``workers`` run at once and ``queue`` more wait; one beyond that is :class:`~lucia.errors.Overloaded`.

    Args:
        hasher: does the work; called from several threads at once.
        workers: how many run at once, each with the memory that its hash takes.
        queue: how many more may wait.
    """

    def __init__(self, hasher: PasswordHasher, *, workers: int = DEFAULT_WORKERS, queue: int = DEFAULT_QUEUE) -> None:
        _check_bounds(workers, queue)
        self._gate = PerProcess(lambda: _Gate(hasher, workers, queue))

    def hash(self, password: str) -> str:
        """The hash to store for ``password``.

        Raises:
            Overloaded: the queue is full.
            TypeError, ValueError: the password is not acceptable.
        """
        gate = self._gate.get()
        return gate.run(gate.jobs.hash, password)

    def verify(self, password: str, hashed: str) -> bool:
        """Whether ``hashed`` was made from ``password``.

        Raises:
            Overloaded: the queue is full.
        """
        gate = self._gate.get()
        return gate.run(gate.jobs.verify, password, hashed)

    def verify_dummy(self, password: str) -> bool:
        """False, after one verification at the configured cost: what a refusal takes that has no hash to verify.

        It takes that long for every password, also for one that is not acceptable.

        Raises:
            Overloaded: the queue is full.
        """
        gate = self._gate.get()
        return gate.run(gate.jobs.verify_dummy, password)

    def close(self) -> None:
        """Nothing to end: the threads are the callers'."""
