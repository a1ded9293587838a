"""For tests: conformance suites for adapters, and a login for an application's test client.

A suite is a class with a test method for each requirement. Subclass it in a test module, with a
fixture ``adapter`` that returns an adapter over an empty store::

    from lucia.testing import AsyncRenewingSessionAdapterSuite

    class TestMyAdapter(AsyncRenewingSessionAdapterSuite):
        @pytest.fixture
        async def adapter(self):
            async with empty_store() as store:
                yield MyAdapter(store)

The async suites need a runner for async tests, such as pytest-asyncio in auto mode. pytest itself
is not needed: each test can be called as ``Suite().test_…(adapter)``.

``alogin`` and ``login`` put a session of the application's ``AsyncAuth`` or ``Auth`` into a test
client. Starlette's ``TestClient`` runs the application in an event loop of its own, and the
``AsyncAuth`` has to be used in the same loop::

    with TestClient(app) as client:
        client.portal.call(alogin, client, auth, user_id)
"""

from lucia._async.suites.login import alogin
from lucia._async.suites.renewals import AsyncRenewingSessionAdapterSuite
from lucia._async.suites.sessions import AsyncSessionAdapterSuite
from lucia._async.suites.users import AsyncSessionUserAdapterSuite, AsyncUserAdapterSuite
from lucia._sync.suites.login import login
from lucia._sync.suites.renewals import RenewingSessionAdapterSuite
from lucia._sync.suites.sessions import SessionAdapterSuite
from lucia._sync.suites.users import SessionUserAdapterSuite, UserAdapterSuite
from lucia._testing.cookie_jar import CookieClient

__all__ = [
    "AsyncRenewingSessionAdapterSuite",
    "AsyncSessionAdapterSuite",
    "AsyncSessionUserAdapterSuite",
    "AsyncUserAdapterSuite",
    "CookieClient",
    "RenewingSessionAdapterSuite",
    "SessionAdapterSuite",
    "SessionUserAdapterSuite",
    "UserAdapterSuite",
    "alogin",
    "login",
]
