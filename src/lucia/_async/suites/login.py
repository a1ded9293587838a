"""Log an application's test client in."""

from typing import Any

from lucia._async.auth import AsyncAuth
from lucia._testing.clients import base_url_of, give_cookie, set_origin
from lucia._typing import UserIdT
from lucia.models import Session


async def alogin(
    client: Any,
    auth: AsyncAuth[Any, UserIdT, Any],
    user_id: UserIdT,
    /,
    *,
    base_url: str | None = None,
    **metadata: Any,
) -> Session[UserIdT]:
    """Log a test client in.

    Creates a session, puts its cookie into the client's cookie jar, and sets an ``Origin`` header
    that passes the origin check.

    Args:
        client: the test client of Starlette, FastAPI, Litestar, Flask, Quart or Django, or a client
            of httpx or requests.
        auth: the application's ``Auth``.
        user_id: the user to log in. Only a store that knows the users checks that it exists.
        base_url: the URL of the application, for a client without a base URL.
        metadata: JSON values for the device list.

    Raises:
        TypeError: the client is of another kind.
        ValueError: there is no base URL, or the client would not send the cookie there: for
            example a ``Secure`` cookie (``env="PROD"``) to ``http://testserver``.
        DuplicateSessionId: the new session id is taken.
        InvalidUserId: the store does not know the user.
    """
    url = base_url_of(client, base_url)
    session = await auth.create_session(user_id, metadata=metadata)
    give_cookie(client, auth.create_session_cookie(session), url)
    set_origin(client, url)
    return session
