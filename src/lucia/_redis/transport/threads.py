"""A call in a thread of its own, for those that may hang wherever they like."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

__all__ = ["in_thread"]

T = TypeVar("T")


def in_thread(name: str, call: Callable[[], T], outcome: "Future[T]") -> None:
    """Make a call in a thread that does not keep the process alive, and tell its outcome.

    Where no thread can be started, that error is the outcome.
    """

    def run() -> None:
        try:
            result = call()
        except BaseException as error:
            outcome.set_exception(error)
        else:
            outcome.set_result(result)

    try:
        threading.Thread(target=run, name=name, daemon=True).start()
    except RuntimeError as error:
        outcome.set_exception(error)
