"""FastAPI: dependencies for routes and WebSockets, which the OpenAPI document describes."""

from collections.abc import Awaitable, Callable
from typing import Any, Final, Generic, TypeVar

try:
    from fastapi import FastAPI
    from fastapi.openapi.models import APIKey, APIKeyIn, HTTPBearer
    from fastapi.security.base import SecurityBase
    from starlette.requests import HTTPConnection
except ImportError as error:
    raise ImportError(
        'lucia.middleware.fastapi needs FastAPI: pip install "lucia-auth[fastapi]"'
    ) from error

from lucia._async.auth import AsyncAuth
from lucia._async.request import AsyncAuthRequest
from lucia._rules.requests import Transport
from lucia._typing import UserIdT, UserT, with_defaults
from lucia.errors import NotAuthenticated
from lucia.middleware._responses import response_for
from lucia.middleware.asgi import LuciaMiddleware, auth_request
from lucia.middleware.starlette import StarletteAuth
from lucia.models import Session, SessionUser

__all__ = ["FastAPIAuth", "LuciaMiddleware"]

T = TypeVar("T")
DependencyT = TypeVar("DependencyT", bound=Callable[..., Any])

_METHODS: Final = frozenset({"get", "put", "post", "delete", "options", "head", "patch", "trace"})


def _named_without_parentheses(dependency: DependencyT) -> DependencyT:
    """Make Python's own error for ``Depends(web.user())`` say what to do.

    A check in the function would come too late: the body of an async function does not run before
    it is awaited, and nobody awaits it where a route is defined.
    """
    hint = "name the dependency without calling it, as in Depends(web.user)"
    dependency.__qualname__ = f"{hint}: {dependency.__qualname__}"
    return dependency


class Required(SecurityBase, Generic[T]):
    """A dependency that needs a login.

    A visitor's request gets 401, and the OpenAPI document names the security scheme.
    """

    def __init__(
        self,
        auth: AsyncAuth[Any, Any, Any],
        find: Callable[[AsyncAuthRequest[Any, Any]], Awaitable[T | None]],
        model: APIKey | HTTPBearer,
        scheme_name: str,
    ) -> None:
        self._auth = auth
        self._find = find
        self.model = model
        self.scheme_name = scheme_name

    @_named_without_parentheses
    async def __call__(self, connection: HTTPConnection) -> T:
        """Return what the dependency is for.

        Raises:
            NotAuthenticated: the request is a visitor's; the response is 401.
        """
        found = await self._find(auth_request(self._auth, connection.scope))
        if found is None:
            raise NotAuthenticated
        return found


@with_defaults
class FastAPIAuth(Generic[UserT, UserIdT]):
    """Sessions for a FastAPI application: install it once, then use its members as dependencies.

    ========================= =================================================================
    ``Depends(…)``            gives
    ========================= =================================================================
    ``web.request``           the ``AsyncAuthRequest``, for signing in and out
    ``web.session``           the ``Session``; 401 for a visitor
    ``web.user``              the user; 401 for a visitor
    ``web.session_user``      both, as ``SessionUser``; 401 for a visitor
    ``web.optional_session``  the ``Session``, or None
    ``web.optional_user``     the user, or None
    ========================= =================================================================

    They work in WebSockets too. ``install`` adds the middleware, the exception handlers of
    :class:`~lucia.middleware.starlette.StarletteAuth`, and to the OpenAPI document the response 401
    of each route that needs a login.

    Args:
        auth: the application's ``AsyncAuth``.
        transport: ``cookie``, or ``bearer`` for clients that are not browsers.
        forbid_cross_site: respond 403 to a request that fails the origin check, instead of treating
            it as a visitor's.
        validate_ahead: validate before the application runs, see
            :class:`~lucia.middleware.asgi.LuciaMiddleware`.
        scheme_name: the name of the security scheme in the OpenAPI document; two auths of one
            application need two names.

    Raises:
        TypeError: ``auth`` is not an ``AsyncAuth``.
    """

    session: Required[Session[UserIdT]]
    user: Required[UserT]
    session_user: Required[SessionUser[UserT, UserIdT]]

    def __init__(
        self,
        auth: AsyncAuth[UserT, UserIdT, Any],
        *,
        transport: Transport = "cookie",
        forbid_cross_site: bool = False,
        validate_ahead: bool = False,
        scheme_name: str = "session",
    ) -> None:
        self._web = StarletteAuth(
            auth,
            transport=transport,
            forbid_cross_site=forbid_cross_site,
            validate_ahead=validate_ahead,
        )
        self._scheme_name = scheme_name
        model = _security_model(auth, transport)
        # Methods of AsyncAuthRequest rather than of self._web: while the store is read, each
        # coroutine on the way is an object that the garbage collector has to look at.
        self.session = Required(auth, AsyncAuthRequest[UserT, UserIdT].validate, model, scheme_name)
        self.user = Required(auth, _find_user, model, scheme_name)
        self.session_user = Required(
            auth, AsyncAuthRequest[UserT, UserIdT].validate_user, model, scheme_name
        )

    def install(self, app: FastAPI) -> None:
        """Add the middleware, the exception handlers and the documentation to an application.

        Raises:
            RuntimeError: the application has started.
        """
        self._web.install(app)
        make = app.openapi

        def openapi() -> dict[str, Any]:
            return document_401(make(), self._scheme_name)

        # FastAPI's documented way of extending the OpenAPI document.
        app.openapi = openapi  # type: ignore[method-assign]

    @_named_without_parentheses
    async def request(self, connection: HTTPConnection) -> AsyncAuthRequest[UserT, UserIdT]:
        """Return the ``AuthRequest``, for example to sign in and out."""
        return self._web.request(connection)

    @_named_without_parentheses
    async def optional_session(self, connection: HTTPConnection) -> Session[UserIdT] | None:
        """Return the request's session, or None for a visitor."""
        return await self._web.request(connection).validate()

    @_named_without_parentheses
    async def optional_user(self, connection: HTTPConnection) -> UserT | None:
        """Return the request's user, or None for a visitor."""
        return await self._web.optional_user(connection)


async def _find_user(request: AsyncAuthRequest[UserT, UserIdT]) -> UserT | None:
    both = await request.validate_user()
    return None if both is None else both.user


def document_401(document: dict[str, Any], scheme_name: str) -> dict[str, Any]:
    """Add a response 401 to each operation of an OpenAPI document that needs this security scheme.

    An operation that documents such a response itself keeps its own.
    """
    description = response_for(NotAuthenticated(), "cookie").detail
    for path in document.get("paths", {}).values():
        for method in _METHODS & path.keys():
            operation = path[method]
            if any(scheme_name in requirement for requirement in operation.get("security", ())):
                operation.setdefault("responses", {}).setdefault(
                    "401", {"description": description}
                )
    return document


def _security_model(auth: AsyncAuth[Any, Any, Any], transport: Transport) -> APIKey | HTTPBearer:
    if transport == "bearer":
        return HTTPBearer(description="The session id.")
    name = auth.create_session_cookie(None).name
    return APIKey.model_validate(
        {"in": APIKeyIn.cookie, "name": name, "description": "The session cookie."}
    )
