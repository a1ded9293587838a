"""The public suites in an application's tests, and ``login`` for each kind of test client."""

from typing import assert_type

import httpx
import pytest
from starlette.testclient import TestClient

from lucia import AsyncAuth, Auth, Session, User
from lucia.adapters.memory import AsyncMemoryAdapter, MemoryAdapter
from lucia.testing import AsyncRenewingSessionAdapterSuite, UserAdapterSuite, alogin, login


class TestMine(AsyncRenewingSessionAdapterSuite):
    """A suite with its hooks, which name the adapter's own class."""

    longest_user_id = 255

    @pytest.fixture
    async def adapter(self) -> AsyncMemoryAdapter:
        return AsyncMemoryAdapter(clock=self.now)

    async def create_user(self, adapter: AsyncMemoryAdapter, user_id: str) -> None:
        """Create a user."""
        await adapter.set_user(user_id, {}, None)

    def now(self) -> int:
        """Return a fixed time."""
        return 1_800_000_000_000

    async def wait(self, milliseconds: int) -> None:
        """Do nothing: time is fixed."""


class TestUsers(UserAdapterSuite):
    """A sync suite, with other columns."""

    text_columns = ("first_name", "last_name")

    def user_id(self, name: str) -> str:
        """Return a number for a name."""
        return str(len(name))

    @pytest.fixture
    def adapter(self) -> MemoryAdapter:
        return MemoryAdapter()


async def clients(
    auth: AsyncAuth[User],
    sync_auth: Auth[User],
    client: httpx.AsyncClient,
    sync_client: httpx.Client,
    test_client: TestClient,
) -> None:
    """Check the types of logins with clients of both flavours."""
    assert_type(await alogin(client, auth, "anna", user_agent="tests"), Session)
    assert_type(login(sync_client, sync_auth, "anna", base_url="http://testserver"), Session)
    await alogin(test_client, auth, "anna")
    login(test_client, sync_auth, "anna")
    assert_type(login(test_client, auth, "anna"), Session)
    login(test_client, auth, 7)  # type: ignore[misc]  # pyright: ignore[reportArgumentType]
    await alogin(client, sync_auth, "anna")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
