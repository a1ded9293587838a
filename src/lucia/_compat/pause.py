"""Wait for a time, async and sync."""

import asyncio
import time

__all__ = ["AsyncPause", "Pause"]


class AsyncPause:
    """Waits in the running task."""

    @staticmethod
    async def seconds(count: float) -> None:
        """Wait for so many seconds."""
        await asyncio.sleep(count)


class Pause:
    """Waits in the calling thread."""

    @staticmethod
    def seconds(count: float) -> None:
        """Wait for so many seconds."""
        time.sleep(count)
