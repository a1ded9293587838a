"""An event loop that lets another thread run while it is looked at."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

__all__ = ["InterruptedLoop"]


class InterruptedLoop(asyncio.SelectorEventLoop):
    """An event loop; the next caller that asks whether it is closed waits for another thread.

    Attributes:
        meanwhile: what the other thread does, once.
    """

    meanwhile: Callable[[], object] | None = None

    def is_closed(self) -> bool:
        """Return whether the loop is closed, after the other thread has run."""
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile is not None:
            with ThreadPoolExecutor(1) as threads:
                threads.submit(meanwhile).result()
        return super().is_closed()
