"""The memory adapter, in both flavours."""

from lucia._async.stores.memory import AsyncMemoryAdapter
from lucia._sync.stores.memory import MemoryAdapter

__all__ = ["AsyncMemoryAdapter", "MemoryAdapter"]
