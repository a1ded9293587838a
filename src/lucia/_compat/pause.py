"""Waiting, in either flavour."""

import asyncio
import time

__all__ = ["AsyncPause", "Pause"]


class AsyncPause:
    """Waits."""

    @staticmethod
    async def seconds(count: float) -> None:
        await asyncio.sleep(count)


class Pause:
    """Waits."""

    @staticmethod
    def seconds(count: float) -> None:
        time.sleep(count)
