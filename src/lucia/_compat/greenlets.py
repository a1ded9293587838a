"""Work that would stop all greenlets of a process.

Where gevent has patched the standard library, a server's threads are greenlets, which share one
thread. A call that computes for long without waiting for anything stops all of them.
"""

import sys
from collections.abc import Callable
from typing import Any, TypeVar

__all__ = ["in_native_thread", "threads_are_greenlets"]

T = TypeVar("T")


def threads_are_greenlets() -> bool:
    """Return whether gevent has patched ``threading``."""
    # Not imported: only an application that uses gevent has loaded this module.
    monkey: Any = sys.modules.get("gevent.monkey")
    return monkey is not None and bool(monkey.is_module_patched("threading"))


def in_native_thread(call: Callable[[], T]) -> T:
    """Make a call, and let other greenlets run meanwhile if threads are greenlets."""
    if not threads_are_greenlets():
        return call()
    result: T = sys.modules["gevent"].get_hub().threadpool.apply(call)
    return result
