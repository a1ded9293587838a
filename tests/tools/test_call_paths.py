"""The number of files that a call enters on its way to Redis and back."""

from tools.call_paths import walks
from tools.servers import Server


async def test_reading_a_session_enters_few_files(redis_server: Server) -> None:
    """Reading a session passes through few files."""
    found = await walks(redis_server.url)
    assert len(found["adapter.get_session"].files) <= 5
    assert len(found["a FastAPI request with a session"].files) <= 15
