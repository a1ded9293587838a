"""The conformance suites on each database with each driver, or on a database that is given."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from lucia.adapters.sqlalchemy import AsyncSQLAlchemyAdapter
from lucia.testing import (
    AsyncRenewingSessionAdapterSuite,
    AsyncSessionUserAdapterSuite,
    AsyncUserAdapterSuite,
)
from tests.support.suite_databases import TABLES, AsyncSuiteDatabase

pytestmark = pytest.mark.no_cover


@pytest.fixture(params=AsyncSuiteDatabase.DRIVERS, ids=str)
async def adapter(request: pytest.FixtureRequest) -> AsyncIterator[AsyncSQLAlchemyAdapter]:
    """Yield an adapter over empty tables, with the system's clock."""
    async with AsyncSuiteDatabase.at(request, request.param) as engine:
        yield AsyncSQLAlchemyAdapter(engine, TABLES)


class TestUsers(AsyncUserAdapterSuite):
    """The adapter as a user adapter."""

    longest_user_id = 255


class TestSessions(AsyncRenewingSessionAdapterSuite):
    """The adapter as a renewing session adapter."""

    longest_user_id = 255

    async def create_user(self, adapter: Any, user_id: str) -> None:
        await adapter.set_user(user_id, {}, None)


class TestSessionUsers(AsyncSessionUserAdapterSuite):
    """The adapter as one that returns a session together with its user."""
