"""A database of each kind, for modules that have no fixture of their own."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.databases import AsyncDatabase


@pytest.fixture(params=["sqlite", "mariadb", "postgresql"])
async def database(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[AsyncDatabase]:
    """Yield an empty database of each kind, with the tables of the module's ``METADATA``."""
    server = None if request.param == "sqlite" else request.getfixturevalue(request.param)
    made = AsyncDatabase(request.module.METADATA, tmp_path / "app.db", server=server)
    async with made:
        yield made
