"""A semaphore for threads that is first come, first served."""

import threading
from collections import deque

__all__ = ["FairSemaphore"]


class FairSemaphore:
    """A bounded number of permits, handed to the waiting threads in the order in which they came.

    With :class:`threading.Semaphore` a thread that releases a permit and asks again at once gets
    it back before a waiting thread wakes up. Under gevent, where nothing interrupts a greenlet,
    that starves the others until they time out.

    Args:
        permits: how many.
    """

    def __init__(self, permits: int) -> None:
        self._free = permits
        self._lock = threading.Lock()
        self._waiting: deque[threading.Lock] = deque()

    def acquire(self, seconds: float) -> bool:
        """Take a permit; return whether there was one within so many seconds."""
        with self._lock:
            if self._free:  # then nobody waits, since a released permit goes to a waiting thread
                self._free -= 1
                return True
            turn = threading.Lock()
            turn.acquire()
            self._waiting.append(turn)
        try:
            # Never negative: a lock takes -1 for "wait forever".
            turn.acquire(timeout=max(seconds, 0))
        except BaseException:  # interrupted, as by gevent's timeouts
            if self._has_permit(turn):
                self.release()
            raise
        return self._has_permit(turn)

    def release(self) -> None:
        """Give a permit back: to the thread that has waited longest, if any waits."""
        with self._lock:
            if self._waiting:
                self._waiting.popleft().release()
            else:
                self._free += 1

    def _has_permit(self, turn: threading.Lock) -> bool:
        """Stop waiting; return whether a permit was handed over, maybe at the last moment."""
        with self._lock:
            if turn not in self._waiting:
                return True
            self._waiting.remove(turn)
            return False
