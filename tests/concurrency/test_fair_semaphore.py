"""The semaphore for threads that serves them in the order of arrival."""

import threading
from functools import partial

import pytest

from lucia._redis.transport.fair_semaphore import FairSemaphore
from tools.servers import until


def is_waiting(semaphore: FairSemaphore, count: int) -> bool:
    """Return whether exactly so many threads are waiting."""
    return len(semaphore._waiting) == count


def test_first_come_first_served() -> None:
    """A released permit goes to the thread that has waited longest, not to a new one."""
    semaphore, order = FairSemaphore(1), list[int]()
    assert semaphore.acquire(0)

    def wait(number: int) -> None:
        assert semaphore.acquire(10)
        order.append(number)
        semaphore.release()

    threads = [threading.Thread(target=wait, args=(number,)) for number in range(5)]
    for number, thread in enumerate(threads):
        thread.start()
        until(partial(is_waiting, semaphore, number + 1))
    semaphore.release()
    assert semaphore.acquire(10)
    for thread in threads:
        thread.join()
    assert order == [0, 1, 2, 3, 4]


def test_no_permit_in_time() -> None:
    """``acquire`` returns False after its timeout, and no permit is lost."""
    semaphore = FairSemaphore(1)
    assert semaphore.acquire(0)
    assert not semaphore.acquire(0.01)
    semaphore.release()
    assert semaphore.acquire(0)


@pytest.mark.parametrize("handed_over", [False, True], ids=["waiting", "handed over"])
def test_interrupted(handed_over: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """No permit is lost if a waiting thread is interrupted, even after it was given one."""
    semaphore = FairSemaphore(1)
    assert semaphore.acquire(0)

    class Turn:
        def __init__(self) -> None:
            self._is_held = False

        def acquire(self, timeout: float = -1) -> None:
            if self._is_held:
                if handed_over:
                    semaphore.release()
                raise KeyboardInterrupt
            self._is_held = True

        def release(self) -> None:
            """Do nothing: the lock is handed over."""

    with monkeypatch.context() as patch:
        patch.setattr("lucia._redis.transport.fair_semaphore.threading.Lock", Turn)
        with pytest.raises(KeyboardInterrupt):
            semaphore.acquire(1)
    if not handed_over:
        semaphore.release()
    assert semaphore.acquire(0)
    assert not semaphore.acquire(0)
