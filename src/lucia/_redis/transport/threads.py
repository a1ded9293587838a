"""Make a call in a thread of its own, where it may hang without holding up its caller."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

__all__ = ["in_thread"]

T = TypeVar("T")


def in_thread(name: str, call: Callable[[], T], outcome: "Future[T]") -> None:
    """Make a call in a daemon thread, and set the future to its result or its error.

    If no thread can be started, that is the error.
    """

    def run() -> None:
        try:
            result = call()
        except BaseException as error:
            outcome.set_exception(error)
        else:
            outcome.set_result(result)

    # Not by an executor, whose threads would keep the process alive until the call returns.
    try:
        threading.Thread(target=run, name=name, daemon=True).start()
    except RuntimeError as error:
        outcome.set_exception(error)
