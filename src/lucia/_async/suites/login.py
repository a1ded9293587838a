"""Logging an application's test client in."""

from typing import Any

from lucia._async.auth import AsyncAuth
from lucia._testing.cookie_jar import CookieClient, base_url_of, give_cookie, set_origin
from lucia.models import Session


async def alogin(
    client: CookieClient,
    auth: AsyncAuth[Any],
    user_id: str,
    /,
    *,
    base_url: str | None = None,
    **metadata: Any,
) -> Session:
    """Log a test client in: a new session, its cookie in the client's jar, and an Origin header that passes the origin check.

    Args:
        client: httpx's or requests' kind of client, Starlette's ``TestClient`` among them.
        auth: the application's own.
        user_id: who logs in; it is not checked whether the user exists, unless the store does.
        base_url: where the application is, for a client without a base URL.
        noted: JSON values for the device list.

    Raises:
        ValueError: there is no base URL, or the client would not send the cookie there, such as a Secure one (``env="PROD"``) to
            ``http://testserver``.
        DuplicateSessionId, InvalidUserId: as :meth:`~lucia.Auth.create_session`.
    """
    url = base_url_of(client, base_url)
    session = await auth.create_session(user_id, metadata=metadata)
    give_cookie(client, auth.create_session_cookie(session), url)
    set_origin(client, url)
    return session
