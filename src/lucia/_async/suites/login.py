"""Log an application's test client in."""

from typing import Any

from lucia._async.auth import AsyncAuth
from lucia._testing.clients import known_client
from lucia._testing.users import DjangoModel, HasUserId, user_id_of
from lucia._typing import UserIdT
from lucia.models import Session


async def alogin(
    client: Any,
    auth: AsyncAuth[Any, UserIdT, Any],
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
        auth: the application's ``Auth``.
        user: the user to log in: an id, or an object with the attribute ``user_id``, such as
            :class:`~lucia.User`, or an instance of Django's model of users. Only a store that knows
            the users checks that it exists.
        base_url: the URL of the application, for a client without a base URL.
        metadata: JSON values for the device list.

    Raises:
        TypeError: the client is of another kind, or the user's id of another type.
        ValueError: there is no base URL, or the client would not send the cookie there: for
            example a ``Secure`` cookie (``env="PROD"``) to ``http://testserver``.
        DuplicateSessionId: the new session id is taken.
        InvalidUserId: the store does not know the user.
    """
    known = known_client(client, base_url)
    session = await auth.create_session(user_id_of(user), metadata=metadata)
    known.log_in(auth.create_session_cookie(session))
    return session
