"""The memory adapter, in both colours."""

from lucia._async.memory import AsyncMemoryAdapter
from lucia._sync.memory import MemoryAdapter

__all__ = ["AsyncMemoryAdapter", "MemoryAdapter"]
