"""The libraries that are compared: one module each, set up as its documentation says.

Each has ``open_peer(url, **options)``, a context manager that gives an :class:`~bench.peer.AsyncPeer` (or :class:`~bench.peer.Peer`).
Every client may open a connection for each of its callers.
"""

from typing import Final

__all__ = ["CONNECTIONS"]

CONNECTIONS: Final = 2_048
"""More than there are callers at once. By default redis-py raises an error beyond 100."""
