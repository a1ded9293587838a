"""``ThreadAuthRequest``: the ``AuthRequest`` for routes that are plain functions."""

from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

from lucia._async.request import AsyncAuthRequest
from lucia._compat.loops import loop_is_running
from lucia._rules.origins import OriginFailure
from lucia._typing import UserIdT, UserT, with_defaults
from lucia.models import Session, SessionUser

__all__ = ["ThreadAuthRequest"]

T = TypeVar("T")


class Run(Protocol):
    """Calls a function in the event loop, awaits its result, and returns it to the thread."""

    def __call__(self, function: Callable[[], Coroutine[Any, Any, T]], /) -> T: ...


@with_defaults
class ThreadAuthRequest(Generic[UserT, UserIdT]):
    """An :class:`~lucia.AsyncAuthRequest` for routes that are plain functions.

    Frameworks run those in threads. Each method does its work in the event loop, and waits for it.

    Args:
        request: the request.
        run: how the framework's threads reach the event loop.
    """

    def __init__(self, request: AsyncAuthRequest[UserT, UserIdT], run: Run) -> None:
        self._request = request
        self._run_in_loop = run

    @property
    def uses_cookies(self) -> bool:
        """Whether the session id comes and goes in a cookie, and not as a bearer token."""
        return self._request.uses_cookies

    @property
    def origin_failure(self) -> OriginFailure | None:
        """Why the request failed the origin check; see :class:`lucia.AsyncAuthRequest`."""
        return self._request.origin_failure

    @property
    def is_cross_site(self) -> bool:
        """Whether ``forbid_cross_site`` refuses it; see :class:`lucia.AsyncAuthRequest`."""
        return self._request.is_cross_site

    def validate(self) -> Session[UserIdT] | None:
        """Return the request's session; see :meth:`lucia.AsyncAuthRequest.validate`."""
        return self._run(self._request.validate)

    def validate_user(self) -> SessionUser[UserT, UserIdT] | None:
        """Return the session and its user; see :meth:`lucia.AsyncAuthRequest.validate_user`."""
        return self._run(self._request.validate_user)

    def sign_in(self, user_id: UserIdT, /, **metadata: Any) -> Session[UserIdT]:
        """Log a user in; see :meth:`lucia.AsyncAuthRequest.sign_in`."""
        return self._run(partial(self._request.sign_in, user_id, **metadata))

    def sign_in_with_key(
        self, provider_id: str, provider_user_id: str, password: str | None, /, **metadata: Any
    ) -> Session[UserIdT]:
        """Check a key and log its user in; see :meth:`lucia.AsyncAuthRequest.sign_in_with_key`."""
        return self._run(
            partial(
                self._request.sign_in_with_key, provider_id, provider_user_id, password, **metadata
            )
        )

    def renew(self) -> Session[UserIdT] | None:
        """Replace the session by a new one; see :meth:`lucia.AsyncAuthRequest.renew`."""
        return self._run(self._request.renew)

    def sign_out(self) -> None:
        """Revoke the session and clear its cookie; see :meth:`lucia.AsyncAuthRequest.sign_out`."""
        self._run(self._request.sign_out)

    def set_session(self, session: Session[UserIdT] | None) -> None:
        """Set or clear the cookie; see :meth:`lucia.AsyncAuthRequest.set_session`."""
        self._request.set_session(session)

    def _run(self, function: Callable[[], Coroutine[Any, Any, T]]) -> T:
        if loop_is_running():
            raise RuntimeError(
                "this route runs in the event loop and would wait for itself: make it a plain "
                "function in a thread (def; in Litestar also sync_to_thread=True), or use the "
                "AsyncAuthRequest and await its methods"
            )
        return self._run_in_loop(function)
