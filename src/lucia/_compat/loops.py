"""Event loops."""

import asyncio

__all__ = ["loop_is_running"]


def loop_is_running() -> bool:
    """Return whether the calling code runs in an event loop, which it must not block."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
