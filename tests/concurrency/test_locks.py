"""Locks, and values per process."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from lucia._compat.locks import AsyncLock, AsyncSelfLocking, Lock, SelfLocking
from lucia._compat.per_loop import PerProcess

PATIENCE = 30
"""Seconds after which a test fails that waits for something."""


# One value per process


def test_each_process_has_its_own() -> None:
    """A process keeps its value; a child creates its own, even if it has an earlier process id."""
    pids = iter([1, 1, 2, 2, 1])
    values = PerProcess(object, getpid=lambda: next(pids))
    first, second, third, fourth, fifth = (values.get() for _ in range(5))
    assert first is second
    assert third is fourth
    assert len({first, third, fifth}) == 3


def test_threads_agree_on_one() -> None:
    """If two threads create the first value at once, both get the same one."""
    both = threading.Barrier(2, timeout=PATIENCE)

    def make() -> object:
        both.wait()
        return object()

    values = PerProcess(make)
    with ThreadPoolExecutor(2) as threads:
        first, second = (threads.submit(values.get) for _ in range(2))
    assert first.result() is second.result()


# Locks


async def take(lock: AsyncLock, log: list[str], name: str) -> None:
    """Hold the lock across several iterations of the loop."""
    async with lock:
        log.append(name)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        log.append(name)


async def contend(lock: AsyncLock) -> list[str]:
    """Let three tasks acquire the lock at once, and return who was inside, in order."""
    log: list[str] = []
    await asyncio.gather(*(take(lock, log, name) for name in "abc"))
    return log


def test_an_async_lock_excludes_in_one_loop_after_another() -> None:
    """A lock created outside of any loop works in the first loop and in the next one."""
    lock = AsyncLock()
    assert asyncio.run(contend(lock)) == list("aabbcc")
    assert asyncio.run(contend(lock)) == list("aabbcc")


async def test_an_async_lock_is_free_after_an_error() -> None:
    """An error inside the lock is raised, and releases it."""
    lock = AsyncLock()
    with pytest.raises(ValueError, match="inside"):
        async with lock:
            raise ValueError("inside")
    assert await contend(lock) == list("aabbcc")


def test_an_async_lock_that_a_dead_loop_held_is_free() -> None:
    """A lock held when its loop was closed is free in the next loop."""
    lock = AsyncLock()
    loop = asyncio.new_event_loop()
    loop.run_until_complete(lock.__aenter__())
    loop.close()
    assert asyncio.run(contend(lock)) == list("aabbcc")


def test_an_async_lock_refuses_two_loops_at_once() -> None:
    """Two loops at once are a RuntimeError: the lock can't exclude tasks of different loops."""
    lock = AsyncLock()
    with asyncio.Runner() as runner:
        runner.run(lock.__aenter__())
        with pytest.raises(RuntimeError, match="another event loop"):
            asyncio.run(contend(lock))
        runner.run(lock.__aexit__(None, None, None))
    assert asyncio.run(contend(lock)) == list("aabbcc")


def test_a_lock_excludes_threads() -> None:
    """While one thread holds the lock, another one waits."""
    lock = Lock()
    log: list[str] = []
    asked = threading.Event()

    def second() -> None:
        asked.set()
        with lock:
            log.append("second")

    with ThreadPoolExecutor(1) as threads:
        with lock:
            answer = threads.submit(second)
            assert asked.wait(PATIENCE)
            log.append("first")
        answer.result(PATIENCE)
    assert log == ["first", "second"]


def test_a_lock_is_free_after_an_error() -> None:
    """An error inside the lock is raised, and releases it."""
    lock = Lock()
    with pytest.raises(ValueError, match="inside"), lock:
        raise ValueError("inside")
    with lock:
        pass


# Objects with a lock of their own


async def ask(shared: AsyncSelfLocking, log: list[str], name: str) -> None:
    """Hold the object across several iterations of the loop."""
    await shared._acquire()
    try:
        log.append(name)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        log.append(name)
    finally:
        shared._release()


async def test_an_object_excludes_tasks() -> None:
    """Tasks acquire the object one at a time, in the order of their arrival."""
    shared = AsyncSelfLocking()
    for _ in range(2):
        log: list[str] = []
        await ask(shared, log, "x")
        await asyncio.gather(*(ask(shared, log, name) for name in "abc"))
        assert log == list("xxaabbcc")


async def test_a_cancelled_task_does_not_keep_an_object() -> None:
    """A cancelled task frees the object, and one that waits leaves the queue."""
    shared = AsyncSelfLocking()
    log: list[str] = []
    holding, waiting, last = (asyncio.create_task(ask(shared, log, name)) for name in "abc")
    await asyncio.sleep(0)
    waiting.cancel()
    holding.cancel()
    await asyncio.gather(holding, waiting, last, return_exceptions=True)
    assert log == list("acc")


def test_an_object_excludes_threads() -> None:
    """While one thread holds the object, another one waits."""
    shared = SelfLocking()
    log: list[str] = []
    asked = threading.Event()

    def second() -> None:
        asked.set()
        shared._acquire()
        log.append("second")
        shared._release()

    with ThreadPoolExecutor(1) as threads:
        shared._acquire()
        answer = threads.submit(second)
        assert asked.wait(PATIENCE)
        log.append("first")
        shared._release()
        answer.result(PATIENCE)
    assert log == ["first", "second"]
