"""``AuthRequest``: what one request may ask and do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Generic, Literal

from lucia._compat.concurrency import AsyncRequestLock
from lucia._logs import signing_out
from lucia._rules.origins import OriginFailure
from lucia._rules.requests import RequestLike
from lucia._rules.sessions import check_session
from lucia.errors import InvalidRequest, InvalidSessionId, InvalidUserId
from lucia.models import UNSET, Session, SessionUser, Unset, UserT

if TYPE_CHECKING:
    from lucia._async.auth import AsyncAuth

Transport = Literal["cookie", "bearer"]


class AsyncAuthRequest(Generic[UserT]):
    """One request, made by ``Auth.handle_request``.

    ``validate`` and ``validate_user`` ask the store at most once, share one result, and may be called concurrently.
    A cookie is set when the session is new or renewed, and cleared by ``sign_out`` and ``set_session(None)`` alone: a store that fails
    logs nobody out, its error goes up and the same cookie works once it is back.

    ``origin_failure`` says why the request failed the origin check, or is None. If it failed, ``validate`` answers None, and whatever
    would change the login raises :class:`~lucia.InvalidRequest`. The request is looked at when something is asked for the first time.

    By the ``bearer`` transport the id comes in the Authorization header: no cookie is read or set, the origin is not checked, and
    ``validate`` does not renew, since the client would not learn the new id: ``renew`` does.
    """

    def __init__(self, auth: AsyncAuth[UserT], context: RequestLike, transport: Transport) -> None:
        self._auth = auth
        self._context = context
        self._cookies = transport == "cookie"
        self._lock = AsyncRequestLock()
        self._session: Session | Unset | None = UNSET
        self._user: SessionUser[UserT] | Unset | None = UNSET
        self._origin_failure: OriginFailure | Unset | None = UNSET
        self._known_id: str | Unset | None = UNSET

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._context.method} {'cookie' if self._cookies else 'bearer'}>"

    @property
    def origin_failure(self) -> OriginFailure | None:
        """Why the request failed the origin check; None if it passed, and for the ``bearer`` transport."""
        if self._origin_failure is UNSET:
            self._origin_failure = (
                self._auth.check_request(self._context) if self._cookies else None
            )
        return self._origin_failure

    async def validate(self) -> Session | None:
        """The request's session, renewed if it was idle; None for a visitor, and for a request from another site."""
        if self._session is not UNSET:
            return self._session
        await self._lock.acquire()
        try:
            session_id = self._session_id
            if self._session is not UNSET:
                return self._session
            if session_id is None:
                found = None
            elif self._can_renew():
                found = self._taken(await self._auth.validate_session(session_id))
            else:
                found = self._taken(await self._auth.get_session(session_id))
            self._session = found
        except InvalidSessionId:
            self._session = found = None
        finally:
            self._lock.release()
        return found

    async def validate_user(self) -> SessionUser[UserT] | None:
        """The request's session and its user, likewise; None also if the user is gone.

        Raises:
            UsersNotConfigured: there is no user adapter.
        """
        if self._user is not UNSET:
            return self._user
        async with self._lock:
            return await self._load_user()

    async def sign_in(self, user_id: str, /, **metadata: Any) -> Session:
        """Log a user in: a new session under a new id, in the place of the one that the request came with, and its cookie.

        Args:
            user_id: who logs in.
            noted: JSON values for the device list, such as ``user_agent=``.

        Raises:
            InvalidRequest: the request failed the origin check.
            RuntimeError: the response has started, so that no cookie can be set.
        """
        self._require_own_site()
        self._require_cookie()
        return await self._replace(await self._auth.create_session(user_id, metadata=metadata))

    async def sign_in_with_key(
        self, provider_id: str, provider_user_id: str, password: str | None, /, **metadata: Any
    ) -> Session:
        """Check a key and its password, and log its user in as :meth:`sign_in` does.

        Raises:
            InvalidCredentials: the key or the password is wrong; the subclass says which, and the client should not be told.
            InvalidRequest, RuntimeError: as :meth:`sign_in`.
            TooManyAttempts: too many wrong passwords at this key or from the request's address; the password was not looked at.
            Overloaded: too many passwords wait to be checked.
        """
        self._require_own_site()
        self._require_cookie()
        address = self._context.client_address
        session = await self._auth.create_session_with_key(
            provider_id, provider_user_id, password, metadata=metadata, address=address
        )
        return await self._replace(session)

    async def renew(self) -> Session | None:
        """Put a new session in the place of the request's and set its cookie; None for a visitor.

        ``validate`` does this by itself for an idle session that came in a cookie; a client that sends a bearer token has to ask for it.

        Raises:
            InvalidRequest, RuntimeError: as :meth:`sign_in`.
        """
        self._require_own_site()
        self._require_cookie()
        async with self._lock:
            session = None if self._session_id is None else await self._renewed(self._session_id)
            if session is not None:
                self._send(session)
                self._remember(session)
            return session

    async def sign_out(self) -> None:
        """End the request's session and clear its cookie. No session is no error.

        Raises:
            InvalidRequest: the request failed the origin check.
        """
        self._require_own_site()
        async with self._lock:
            if self._session_id is not None:
                with signing_out(
                    self._session.user_id if isinstance(self._session, Session) else None
                ):
                    await self._auth.invalidate_session(self._session_id)
                if self._context.can_set_cookie():
                    self._send(None)
            self._remember(None)

    def set_session(self, session: Session | None) -> None:
        """Set the cookie of a session made elsewhere, or clear it, and forget what was validated before.

        Raises:
            InvalidRequest: the request failed the origin check.
            RuntimeError: the response has started, so that no cookie can be set.
            TypeError: it is neither a ``Session`` nor None.
        """
        check_session(session)
        self._require_own_site()
        self._require_cookie()
        self._send(session)
        self._remember(session)
        if session is not None:
            self._session = self._user = UNSET

    async def _load_user(self) -> SessionUser[UserT] | None:
        if self._user is UNSET:
            self._user = await self._found_user()
        return self._user

    async def _found_user(self) -> SessionUser[UserT] | None:
        session, session_id = self._session, self._session_id
        if session is UNSET:
            # A visitor's request asks as well, so that a missing users= is said to everybody.
            return await self._validated_user(session_id or "")
        if session is None:
            return None
        try:
            return SessionUser(session, await self._auth.get_user_of(session))
        except InvalidUserId:
            return None

    async def _renewed(self, session_id: str) -> Session | None:
        try:
            return await self._auth.renew_session(session_id)
        except InvalidSessionId:
            return None

    async def _validated_user(self, session_id: str) -> SessionUser[UserT] | None:
        validate = (
            self._auth.validate_session_user if self._can_renew() else self._auth.get_session_user
        )
        try:
            both = await validate(session_id)
        except InvalidSessionId:
            self._session = None
            return None
        self._session = self._taken(both.session)
        return both

    def _taken(self, session: Session) -> Session:
        """The validated session, its cookie set if it is another one than the request came with."""
        if session.fresh and self._can_renew():
            self._send(session)
        self._known_id = session.session_id
        return session

    async def _replace(self, session: Session) -> Session:
        async with self._lock:
            if self._session_id is not None:
                await self._auth.invalidate_session(self._session_id)
            self._send(session)
            self._remember(session)
            return session

    def _remember(self, session: Session | None) -> None:
        self._session = session
        self._user = None if session is None else UNSET
        self._known_id = None if session is None else session.session_id

    def _send(self, session: Session | None) -> None:
        if self._cookies:
            self._context.set_cookie(self._auth.create_session_cookie(session))
            self._context.set_header("cache-control", "no-store")
            self._context.set_header("vary", "Cookie")

    def _can_renew(self) -> bool:
        return self._cookies and self._context.can_set_cookie()

    def _require_own_site(self) -> None:
        if self.origin_failure is not None:
            raise InvalidRequest(str(self.origin_failure))

    def _require_cookie(self) -> None:
        if self._cookies and not self._context.can_set_cookie():
            raise RuntimeError(
                "the response has started, so that no cookie can be set: sign in before sending it"
            )

    @property
    def _session_id(self) -> str | None:
        """What the request came with, whether it can be an id or not; then the id of what was validated or set since."""
        if self._known_id is UNSET:
            self._known_id = self._find_id()
        return self._known_id

    def _find_id(self) -> str | None:
        if self.origin_failure is not None:
            return None
        if self._cookies:
            return self._auth.find_session_id(self._context)
        return _bearer_token(self._context.headers.get("authorization", ()))


def _bearer_token(values: Sequence[str]) -> str | None:
    """The token of a single ``Authorization: Bearer`` header (RFC 6750, section 2.1)."""
    scheme, _, token = values[0].partition(" ") if len(values) == 1 else ("", "", "")
    return token.strip(" ") or None if scheme.lower() == "bearer" else None
