"""The libraries that are compared, one module each, set up as its documentation says.

Each module has a context manager ``open_peer(url, **options)``, which gives an
:class:`~bench.peer.AsyncPeer` or a :class:`~bench.peer.Peer`. Every client may open a connection
for each of its callers.
"""

from typing import Final

__all__ = ["CONNECTIONS", "KEEPALIVE"]

CONNECTIONS: Final = 2_048
"""More than there are concurrent callers. By default, redis-py raises an error beyond 100."""

KEEPALIVE: Final = False
"""No TCP keepalive probes. By the default of redis-py 8, a connection that is idle for half a
minute while others are measured is probed, and on a busy machine some are reset, which redis-py
does not notice before it writes."""
