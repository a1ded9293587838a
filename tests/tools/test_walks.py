"""How many files a call enters on its way to Redis and back."""

from tools.servers import Server
from tools.walks import walks


async def test_short_paths(redis_server: Server) -> None:
    """Reading a session passes through few files, each of which has one part in it."""
    found = await walks(redis_server.url)
    assert len(found["adapter.get_session"].files) <= 5
    assert len(found["a FastAPI request with a session"].files) <= 14
