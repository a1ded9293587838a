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

``login`` logs an application's test client in: those of Starlette, FastAPI, Litestar, Flask, Quart
and Django, and the clients of httpx and requests. It takes a sync ``Auth`` and an ``AsyncAuth``; in
async tests, await ``alogin``.
"""

import asyncio
from functools import partial
from typing import Any, cast

from lucia._async.auth import AsyncAuth
from lucia._async.suites.login import alogin
from lucia._async.suites.renewals import AsyncRenewingSessionAdapterSuite
from lucia._async.suites.sessions import AsyncSessionAdapterSuite
from lucia._async.suites.users import AsyncSessionUserAdapterSuite, AsyncUserAdapterSuite
from lucia._compat.loops import loop_is_running
from lucia._sync.auth import Auth
from lucia._sync.suites import login as sync_login
from lucia._sync.suites.renewals import RenewingSessionAdapterSuite
from lucia._sync.suites.sessions import SessionAdapterSuite
from lucia._sync.suites.users import SessionUserAdapterSuite, UserAdapterSuite
from lucia._testing.users import DjangoModel, HasUserId
from lucia._typing import UserIdT
from lucia.models import Session

__all__ = [
    "AsyncRenewingSessionAdapterSuite",
    "AsyncSessionAdapterSuite",
    "AsyncSessionUserAdapterSuite",
    "AsyncUserAdapterSuite",
    "RenewingSessionAdapterSuite",
    "SessionAdapterSuite",
    "SessionUserAdapterSuite",
    "UserAdapterSuite",
    "alogin",
    "login",
]


def login(
    client: Any,
    auth: Auth[Any, UserIdT, Any] | AsyncAuth[Any, UserIdT, Any],
    user: UserIdT | HasUserId[UserIdT] | DjangoModel,
    /,
    *,
    base_url: str | None = None,
    **metadata: Any,
) -> Session[UserIdT]:
    """Log a test client in.

    Creates a session, puts its cookie into the client, and lets it send an ``Origin`` header that
    passes the origin check. An ``Origin`` that the client has already stays.

    Args:
        client: the test client of Starlette, FastAPI, Litestar, Flask, Quart or Django, or a client
            of httpx or requests.
        auth: the application's ``Auth`` or ``AsyncAuth``. The latter is used in the event loop of
            the client, if it has one that runs: that of Starlette, FastAPI and Litestar has one
            within its ``with`` block.
        user: the user to log in: an id, or an object with the attribute ``user_id``, such as
            :class:`~lucia.User`, or an instance of Django's model of users. Only a store that knows
            the users checks that it exists.
        base_url: the URL of the application, for a client without a base URL.
        metadata: JSON values for the device list.

    Raises:
        TypeError: the client is of another kind, the user's id of another type, or ``auth`` is no
            ``Auth``.
        ValueError: there is no base URL, or the client would not send the cookie there: for
            example a ``Secure`` cookie (``env="PROD"``) to ``http://testserver``.
        RuntimeError: ``auth`` is an ``AsyncAuth``, and an event loop runs already: await
            :func:`alogin`.
        DuplicateSessionId: the new session id is taken.
        InvalidUserId: the store does not know the user.
    """
    _check_auth(auth)
    if isinstance(auth, Auth):
        return sync_login.login(client, auth, user, base_url=base_url, **metadata)
    call = partial(alogin, client, auth, user, base_url=base_url, **metadata)
    # Starlette's and Litestar's names for the thread with the application's event loop.
    portal: Any = getattr(client, "blocking_portal", None) or getattr(client, "portal", None)
    if hasattr(portal, "call"):
        return cast("Session[UserIdT]", portal.call(call))
    if loop_is_running():
        raise RuntimeError("an event loop is running: write 'await alogin(client, auth, user)'")
    return asyncio.run(call())


def _check_auth(auth: object) -> None:
    if not isinstance(auth, Auth | AsyncAuth):
        raise TypeError(f"auth must be an Auth or an AsyncAuth, not {type(auth).__name__}")
