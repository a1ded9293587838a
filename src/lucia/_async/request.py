"""``AuthRequest``: the session of one HTTP request or WebSocket, and the methods that change it.

``AsyncRequestMethods`` is the part of ``Auth`` that reads requests and creates cookies.
"""

from typing import Any, Generic, TypeVar

from lucia._async.users import AsyncUserMethods
from lucia._compat.awaited import AsyncTruth
from lucia._compat.locks import AsyncSelfLocking
from lucia._logs import cross_site_request, secure_cookie_dropped, signing_out
from lucia._rules.cookies import Cookie, Env, SessionCookie, create_session_cookie, find_cookie
from lucia._rules.origins import (
    Origin,
    OriginFailure,
    check_origin,
    is_plain_http,
    may_be_browser,
)
from lucia._rules.requests import (
    TRANSPORTS,
    VARIES,
    RequestLike,
    Transport,
    bearer_token,
    check_transport,
)
from lucia._rules.sessions import check_session
from lucia._typing import AttributesT, UserIdT, UserT, with_defaults
from lucia.errors import InvalidRequest, InvalidSessionId, InvalidUserId, NotAuthenticated
from lucia.models import UNSET, Session, SessionUser, Unset, user_id_text

T = TypeVar("T")


class AsyncRequestMethods(AsyncUserMethods[UserT, UserIdT, AttributesT]):
    """The methods of ``Auth`` for requests and cookies."""

    _env: Env
    _cookie: SessionCookie
    _csrf_protection: bool
    _origins: frozenset[Origin]

    def handle_request(
        self, context: RequestLike, transport: Transport = "cookie"
    ) -> "AsyncAuthRequest[UserT, UserIdT]":
        """Return the ``AuthRequest`` for a request.

        Args:
            context: the request, as a :class:`~lucia.RequestContext`.
            transport: ``cookie``, ``bearer`` for clients that are not browsers, or ``both``.

        Raises:
            ValueError: ``transport`` is none of these.
        """
        if transport not in TRANSPORTS:  # as check_transport() does, without a call per request
            check_transport(transport)
        return AsyncAuthRequest(self, context, transport)

    def create_session_cookie(self, session: Session[Any] | None) -> Cookie:
        """Return the cookie that carries ``session``, or for None the one that clears it.

        It expires at the end of the idle period.
        """
        return create_session_cookie(session, self._cookie, self._env)

    def check_request(self, context: RequestLike) -> OriginFailure | None:
        """Return and log why the request fails the origin check; None if it passes."""
        failure = check_origin(context, self._origins) if self._csrf_protection else None
        if failure is not None:
            cross_site_request(failure)
        return failure

    def find_session_id(self, context: RequestLike) -> str | None:
        """Return the value of the request's session cookie; None if it is missing or empty.

        It may be malformed: whether it can be a session id is not checked here.
        """
        return find_cookie(context.headers.get("cookie", ()), self._cookie.name)

    def parse_request_headers(self, context: RequestLike) -> str | None:
        """Check the request's origin, and return the value of its session cookie.

        Raises:
            InvalidRequest: the request failed the origin check.
        """
        failure = self.check_request(context)
        if failure is not None:
            raise InvalidRequest(str(failure))
        return self.find_session_id(context)


@with_defaults
class AsyncAuthRequest(AsyncSelfLocking, Generic[UserT, UserIdT]):
    """One request, returned by ``Auth.handle_request``.

    ``validate`` and ``validate_user`` read the store at most once, share one result and may be
    called concurrently. A cookie is set when the session is new or renewed. Only ``sign_out`` and
    ``set_session(None)`` clear it: a store error logs nobody out, it is raised, and the same cookie
    works once the store is back.

    ``origin_failure`` says why the request failed the origin check; it is None if it passed. After
    a failure ``validate`` returns None, and every method that would change the login raises
    :class:`~lucia.InvalidRequest`. Headers are not read before the first call that needs them.

    With the ``bearer`` transport the id comes in the Authorization header: no cookie is read or
    set, and the origin is not checked. ``validate`` does not renew the session, since the client
    would not learn the new id; ``renew`` does. With ``both``, each request is one of the two, which
    ``uses_cookies`` tells.
    """

    __slots__ = (
        "_auth",
        "_context",
        "_known_id",
        "_origin_failure",
        "_session",
        "_transport",
        "_user",
        "_uses_cookies",
    )

    def __init__(
        self,
        auth: AsyncRequestMethods[UserT, UserIdT, Any],
        context: RequestLike,
        transport: Transport,
    ) -> None:
        super().__init__()
        self._auth = auth
        self._context = context
        self._transport: Transport = transport
        self._uses_cookies = transport == "cookie" or (
            transport == "both" and bearer_token(context) is None
        )
        self._session: Session[UserIdT] | Unset | None = UNSET
        self._user: SessionUser[UserT, UserIdT] | Unset | None = UNSET
        self._origin_failure: OriginFailure | Unset | None = UNSET
        # The id that the request sent, which may be malformed, or that of the session since.
        self._known_id: str | Unset | None = UNSET

    def __repr__(self) -> str:
        transport = "cookie" if self._uses_cookies else "bearer"
        return f"<AsyncAuthRequest {self._context.method} {transport}>"

    @property
    def uses_cookies(self) -> bool:
        """Whether the session id comes and goes in a cookie, and not as a bearer token."""
        return self._uses_cookies

    @property
    def client_address(self) -> str | None:
        """The address that the request came from, as the server says; None if it is not known."""
        return self._context.client_address

    def with_transport(self, transport: Transport) -> "AsyncAuthRequest[UserT, UserIdT]":
        """Return another ``AuthRequest`` for this request, such as one that issues a token."""
        return self._auth.handle_request(self._context, transport)

    def adopt(self, other: Any, /) -> None:
        """Take over what another ``AuthRequest`` for this request has found and done.

        It may be of the other flavour, in frameworks that handle one request by code of both.
        """
        is_same = self._known_id == other._known_id
        # What only this one knows of the same session stays, also while a method of it runs.
        if not is_same or other._session is not UNSET:
            self._session = other._session
        if not is_same or other._user is not UNSET:
            self._user = other._user
        self._known_id = other._known_id
        self._origin_failure = other._origin_failure

    @property
    def origin_failure(self) -> OriginFailure | None:
        """Why the request failed the origin check.

        None if it passed, and for the ``bearer`` transport.
        """
        if self._origin_failure is UNSET:
            self._origin_failure = (
                self._auth.check_request(self._context) if self._uses_cookies else None
            )
        return self._origin_failure

    @property
    def is_cross_site(self) -> bool:
        """Whether the request is refused where requests from other sites are forbidden.

        True after a failed origin check, except with ``both`` for a request without Origin,
        Sec-Fetch-Site and Cookie: it comes from a program that has no token yet.
        """
        if self.origin_failure is None:
            return False
        return self._transport != "both" or may_be_browser(self._context)

    @AsyncTruth.needs_await
    async def validate(self) -> Session[UserIdT] | None:
        """Return the request's session, renewed if it was idle.

        None for a visitor and for a request from another site.
        """
        if self._session is not UNSET:
            return self._session
        await self._acquire()
        try:
            while self._session is UNSET:  # else another task was first
                session_id = self._session_id()
                try:
                    if session_id is None:
                        found = None
                    elif self._can_renew():
                        found = await self._auth.validate_session(session_id)
                    else:
                        found = await self._auth.get_session(session_id)
                except InvalidSessionId:
                    # No other error is remembered: after a store error the next call asks again.
                    found = None
                if self._known_id == session_id:  # else set_session() was called meanwhile
                    self._session = None if found is None else self._accept(found)
            return self._session
        finally:
            self._release()

    @AsyncTruth.needs_await
    async def validate_user(self) -> SessionUser[UserT, UserIdT] | None:
        """Return the request's session and its user, as :meth:`validate` returns the session.

        None also if the user was deleted.

        Raises:
            UsersNotConfigured: there is no user adapter.
        """
        if self._user is not UNSET:
            return self._user
        await self._acquire()
        try:
            while self._user is UNSET:  # else another task was first
                session_id = self._session_id()
                both = await self._find_user(session_id)
                if self._known_id == session_id:  # else set_session() was called meanwhile
                    if self._session is UNSET:
                        self._session = None if both is None else self._accept(both.session)
                    self._user = both
            return self._user
        finally:
            self._release()

    async def sign_in(self, user_id: UserIdT, /, **metadata: Any) -> Session[UserIdT]:
        """Log a user in: create a session, revoke the one that the request sent, set the cookie.

        Args:
            user_id: the user who logs in.
            metadata: JSON values for the device list, such as ``user_agent=``.

        Raises:
            InvalidRequest: the request failed the origin check.
            RuntimeError: the response has started, so no cookie can be set.
        """
        # Before anything is stored: a session without a cookie would stay in the device list.
        self._require_own_site()
        self._require_cookie()
        return await self._replace(await self._auth.create_session(user_id, metadata=metadata))

    async def sign_in_with_key(
        self, provider_id: str, provider_user_id: str, password: str | None, /, **metadata: Any
    ) -> Session[UserIdT]:
        """Check a key and its password, and log its user in as :meth:`sign_in` does.

        Raises:
            InvalidCredentials: the key or the password is wrong. The subclass says which; do not
                tell the client.
            InvalidRequest, RuntimeError: as :meth:`sign_in`.
            TooManyAttempts: too many wrong passwords for this key or from this address; the
                password was not checked.
            Overloaded: too many passwords wait to be checked.
        """
        self._require_own_site()
        self._require_cookie()
        address = self._context.client_address
        session = await self._auth.create_session_with_key(
            provider_id, provider_user_id, password, metadata=metadata, address=address
        )
        return await self._replace(session)

    @AsyncTruth.needs_await
    async def renew(self) -> Session[UserIdT] | None:
        """Replace the request's session by a new one and set its cookie; None for a visitor.

        ``validate`` does so by itself for an idle session that came in a cookie. A client that
        sends a bearer token has to ask for it.

        Raises:
            InvalidRequest, RuntimeError: as :meth:`sign_in`.
        """
        self._require_own_site()
        self._require_cookie()
        await self._acquire()
        try:
            session_id = self._session_id()
            if session_id is None:
                return None
            session = await self._auth.renew_session(session_id)
            self._send(session)
            self._remember(session)
        except InvalidSessionId:
            return None
        finally:
            self._release()
        return session

    async def sign_out(self) -> None:
        """Revoke the request's session, if there is one, and clear its cookie.

        Raises:
            InvalidRequest: the request failed the origin check.
        """
        self._require_own_site()
        await self._acquire()
        try:
            session_id = self._session_id()
            if session_id is not None:
                session = self._session
                user_id = user_id_text(session) if isinstance(session, Session) else None
                # Before the cookie is cleared: if this fails, the client still has the id and can
                # try again.
                with signing_out(user_id):
                    await self._auth.invalidate_session(session_id)
                # Once the response has started the cookie stays; the revoked id in it is no use.
                if self._context.can_set_cookie():
                    self._send(None)
            self._remember(None)
        finally:
            self._release()

    def set_session(self, session: Session[UserIdT] | None) -> None:
        """Set the cookie of a session created elsewhere, or clear it, and forget the validation.

        Raises:
            InvalidRequest: the request failed the origin check.
            RuntimeError: the response has started, so no cookie can be set.
            TypeError: it is neither a ``Session`` nor None.
        """
        check_session(session)
        self._require_own_site()
        self._require_cookie()
        self._send(session)
        self._remember(session)
        if session is not None:
            self._session = UNSET  # the store may know that it was revoked meanwhile

    async def _find_user(self, session_id: str | None) -> SessionUser[UserT, UserIdT] | None:
        session = self._session
        if session is None:
            return None
        try:
            if session is not UNSET:
                return SessionUser(session, await self._auth.get_user_of(session))
            # Ask for a visitor too: a missing users= is then raised for everybody, so that a
            # developer sees it before logging in.
            if self._can_renew():
                return await self._auth.validate_session_user(session_id or "")
            return await self._auth.get_session_user(session_id or "")
        except (InvalidSessionId, InvalidUserId):
            return None

    def _accept(self, session: Session[UserIdT]) -> Session[UserIdT]:
        """Remember a validated session's id, and set its cookie if the request sent another id."""
        if session.fresh and self._can_renew():
            self._send(session)
        self._known_id = session.session_id
        return session

    async def _replace(self, session: Session[UserIdT]) -> Session[UserIdT]:
        await self._acquire()
        try:
            # Asked again, since the response may have started meanwhile.
            self._require_cookie()
            # Before the cookie: if this fails, the client keeps its session, and nobody has
            # the new one.
            session_id = self._session_id()
            if session_id is not None:
                await self._auth.invalidate_session(session_id)
            self._send(session)
            self._remember(session)
            return session
        finally:
            self._release()

    def _remember(self, session: Session[UserIdT] | None) -> None:
        self._session = session
        self._user = None if session is None else UNSET
        self._known_id = None if session is None else session.session_id

    def _send(self, session: Session[UserIdT] | None) -> None:
        if self._uses_cookies:
            cookie = self._auth.create_session_cookie(session)
            if cookie.secure and is_plain_http(self._context):
                secure_cookie_dropped()
            self._context.set_cookie(cookie)
            # A shared cache must neither store this cookie nor give it to somebody else.
            self._context.set_header("cache-control", "no-store")
            self._context.set_header("vary", VARIES[self._transport])

    def _can_renew(self) -> bool:
        return self._uses_cookies and self._context.can_set_cookie()

    def _require_own_site(self) -> None:
        if self.origin_failure is not None:
            raise InvalidRequest(str(self.origin_failure))

    def _require_cookie(self) -> None:
        if self._uses_cookies and not self._context.can_set_cookie():
            raise RuntimeError(
                "the response has started, so no cookie can be set: sign in before sending it"
            )

    def _session_id(self) -> str | None:
        """Return the id that the request sent, or that of the session validated or set since."""
        if self._known_id is UNSET:
            # From here on the response depends on who asks: a cache must not give it to others.
            if not self._context.is_websocket and self._context.can_set_cookie():
                self._context.set_header("vary", VARIES[self._transport])
            if self.origin_failure is not None:
                self._known_id = None
            elif self._uses_cookies:
                self._known_id = self._auth.find_session_id(self._context)
            else:
                self._known_id = bearer_token(self._context)
        return self._known_id


def required(found: T | None) -> T:
    """Return the session or the user of a request.

    Raises:
        NotAuthenticated: there is none, the request is a visitor's.
    """
    if found is None:
        raise NotAuthenticated
    return found
