"""Sleeping: without holding up the event loop, or in a thread."""

import asyncio
import time

__all__ = ["AsyncPause", "Pause"]


class AsyncPause:
    """Sleeps in a task."""

    @staticmethod
    async def seconds(count: float) -> None:
        await asyncio.sleep(count)


class Pause:
    """Sleeps in a thread."""

    @staticmethod
    def seconds(count: float) -> None:
        time.sleep(count)
