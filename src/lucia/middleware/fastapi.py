"""FastAPI: the same as for Starlette, as dependencies that the OpenAPI document knows."""

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
from lucia._async.request import AsyncAuthRequest, Transport
from lucia.errors import NotAuthenticated
from lucia.middleware.asgi import LuciaMiddleware
from lucia.middleware.starlette import StarletteAuth
from lucia.models import Session, SessionUser, UserT

__all__ = ["FastAPIAuth", "LuciaMiddleware"]

T = TypeVar("T")
DependencyT = TypeVar("DependencyT", bound=Callable[..., Any])

_METHODS: Final = frozenset({"get", "put", "post", "delete", "options", "head", "patch", "trace"})


def _named_without_parentheses(dependency: DependencyT) -> DependencyT:
    """Make Python's own error for ``Depends(web.user())`` say what to do.

    A check in the function would come too late: an async function is run when it is awaited, which
    a route that is only being written never does.
    """
    name = f"name the dependency without calling it, as in Depends(web.user): {dependency.__qualname__}"
    dependency.__qualname__ = name
    return dependency


class Required(SecurityBase, Generic[T]):
    """A dependency that a visitor's request does not pass: 401, and a security requirement in the OpenAPI document."""

    def __init__(
        self,
        find: Callable[[HTTPConnection], Awaitable[T | None]],
        model: APIKey | HTTPBearer,
        scheme_name: str,
    ) -> None:
        self._find = find
        self.model = model
        self.scheme_name = scheme_name

    @_named_without_parentheses
    async def __call__(self, connection: HTTPConnection) -> T:
        """What was asked for.

        Raises:
            NotAuthenticated: a visitor's request; answered with 401.
        """
        found = await self._find(connection)
        if found is None:
            raise NotAuthenticated
        return found


class FastAPIAuth(Generic[UserT]):
    """A FastAPI application's view of ``auth``: install it once, then name its members as dependencies, in routes and WebSockets.

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

    ``install`` adds the middleware, the answers of :class:`~lucia.middleware.starlette.StarletteAuth`, and the 401 of each route that
    needs a login to the OpenAPI document.

    Args:
        auth: the application's ``AsyncAuth``.
        transport: ``cookie``, or ``bearer`` for clients that are no browsers.
        forbid_cross_site: answer 403 to a request that fails the origin check, instead of treating it as a visitor's.
        validate_ahead: ask for the session of each request that carries a possible id before the application sees it, in place of when it
            asks: where nearly every route asks, a request then waits while it is small, which saves much of its time. A store that fails
            fails for who asks, and not before.
        scheme_name: names the security scheme in the OpenAPI document; two auths of one application need two names.

    Raises:
        TypeError: ``auth`` is no ``AsyncAuth``.
    """

    session: Required[Session]
    user: Required[UserT]
    session_user: Required[SessionUser[UserT]]

    def __init__(
        self,
        auth: AsyncAuth[UserT],
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
        self.session = Required(
            lambda connection: self._web.request(connection).validate(), model, scheme_name
        )
        self.user = Required(self._web.optional_user, model, scheme_name)
        self.session_user = Required(
            lambda connection: self._web.request(connection).validate_user(), model, scheme_name
        )

    def install(self, app: FastAPI) -> None:
        """Add the middleware, the answers and the documentation to an application, as ``StarletteAuth.install`` does.

        Raises:
            RuntimeError: the application has started.
        """
        self._web.install(app)
        make = app.openapi

        def openapi() -> dict[str, Any]:
            return document_401(make(), self._scheme_name)

        app.openapi = openapi  # type: ignore[method-assign] # the way FastAPI documents for extending the OpenAPI document

    @_named_without_parentheses
    async def request(self, connection: HTTPConnection) -> AsyncAuthRequest[UserT]:
        """What this request may ask and do, such as ``sign_in_with_key`` and ``sign_out``."""
        return self._web.request(connection)

    @_named_without_parentheses
    async def optional_session(self, connection: HTTPConnection) -> Session | None:
        """The request's session, or None for a visitor."""
        return await self._web.optional_session(connection)

    @_named_without_parentheses
    async def optional_user(self, connection: HTTPConnection) -> UserT | None:
        """The request's user, or None for a visitor."""
        return await self._web.optional_user(connection)


def document_401(document: dict[str, Any], scheme_name: str) -> dict[str, Any]:
    """Add the answer 401 to each operation of an OpenAPI document that needs this security scheme and names no such answer."""
    for path in document.get("paths", {}).values():
        for method in _METHODS & path.keys():
            operation = path[method]
            if any(scheme_name in requirement for requirement in operation.get("security", ())):
                operation.setdefault("responses", {}).setdefault(
                    "401", {"description": "Not logged in."}
                )
    return document


def _security_model(auth: AsyncAuth[Any], transport: Transport) -> APIKey | HTTPBearer:
    if transport == "bearer":
        return HTTPBearer(description="The session id.")
    name = auth.create_session_cookie(None).name
    return APIKey.model_validate(
        {"in": APIKeyIn.cookie, "name": name, "description": "The session cookie."}
    )
