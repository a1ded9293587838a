"""What differs between the two colours in talking to servers: connections, and what is gathered, kept and awaited on them.

Each ``AsyncX`` stands beside its ``X``, with the same methods (``aclose`` is ``close``), so that generated code finds its own by name.
"""

from lucia._connections.first_answer import AsyncFirstAnswer, FirstAnswer
from lucia._connections.given import AsyncGivenClient, GivenClient
from lucia._connections.replayer import AsyncReplayer, Replayer
from lucia._connections.server import AsyncServer, Server
from lucia._connections.settings import AsyncReadOptions, AsyncSettings, ReadOptions, Settings
from lucia._connections.single_flight import AsyncSingleFlight, SingleFlight
from lucia._connections.together import MAX_TOGETHER, AsyncTogether, Together
from lucia._pause import AsyncPause, Pause

__all__ = [
    "MAX_TOGETHER",
    "AsyncFirstAnswer",
    "AsyncGivenClient",
    "AsyncPause",
    "AsyncReadOptions",
    "AsyncReplayer",
    "AsyncServer",
    "AsyncSettings",
    "AsyncSingleFlight",
    "AsyncTogether",
    "FirstAnswer",
    "GivenClient",
    "Pause",
    "ReadOptions",
    "Replayer",
    "Server",
    "Settings",
    "SingleFlight",
    "Together",
]
