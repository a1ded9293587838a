"""Tasks of the library's own, which belong to none of the application's tasks."""

import asyncio
from collections.abc import Coroutine
from contextvars import Context
from typing import Any, TypeVar

__all__ = ["start_task"]

T = TypeVar("T")


def start_task(
    coroutine: Coroutine[Any, Any, T], context: Context | None = None
) -> asyncio.Task[T]:
    """Start a task in the next iteration of the running event loop.

    Args:
        coroutine: what it runs.
        context: its context variables; None for none, so that no request's are used for another.
    """
    # Not by loop.create_task: an eager task factory (Python 3.12) would run the beginning at once,
    # in the middle of its caller, and raise RuntimeError if that is in the same context.
    return asyncio.Task(coroutine, loop=asyncio.get_running_loop(), context=context or Context())
