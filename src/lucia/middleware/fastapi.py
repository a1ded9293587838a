"""FastAPI: dependencies for routes and WebSockets, and the ready routes, all in OpenAPI."""

from collections.abc import Awaitable, Callable
from typing import Any, Final, Generic, NoReturn, TypeVar, Unpack, get_type_hints

try:
    from fastapi import APIRouter, FastAPI, Request
    from fastapi.encoders import jsonable_encoder
    from fastapi.openapi.models import APIKey, APIKeyIn, HTTPBearer
    from fastapi.security.base import SecurityBase
    from pydantic import TypeAdapter
    from starlette.requests import HTTPConnection
    from starlette.responses import JSONResponse, Response
except ImportError as error:
    raise ImportError(
        'lucia.middleware.fastapi needs FastAPI: pip install "lucia-auth[fastapi]"'
    ) from error

from lucia._async.accounts import AsyncAccountRoutes, AsyncAccountSettings
from lucia._async.auth import AsyncAuth
from lucia._async.request import AsyncAuthRequest, required
from lucia._rules.accounts import AccountRoute, ErrorDetail
from lucia._rules.requests import Transport
from lucia._rules.responses import response_for
from lucia._typing import UserIdT, UserT, with_defaults
from lucia.errors import NotAuthenticated
from lucia.middleware.asgi import LuciaMiddleware, auth_request, find_session, find_session_user
from lucia.middleware.starlette import StarletteAuth, ThreadAuthRequest, reply_to, response_of
from lucia.models import Session, SessionUser

__all__ = ["FastAPIAuth", "LuciaMiddleware", "ThreadAuthRequest"]

T = TypeVar("T")

_METHODS: Final = frozenset({"get", "put", "post", "delete", "options", "head", "patch", "trace"})
_TOKEN_ROUTE: Final = "x-lucia-token-route"  # noqa: S105 -- the name of a member
"""Marks the operation that issues tokens until the document is made: only then is its path known,
since the application may include the router below another prefix."""


_WITHOUT_PARENTHESES: Final = (
    "name the dependency without calling it, as in Depends(web.user): __call__"
)
"""Lets Python's own error for ``Depends(web.user())`` say what to do. A check in the function would
come too late: the body of an async function does not run before it is awaited, and nobody awaits it
where a route is defined."""


class Dependency(Generic[T]):
    """A dependency, which an application names in ``Depends(…)``.

    Args:
        find: returns its value for a connection.
    """

    def __init__(self, find: Callable[[HTTPConnection], Awaitable[T]]) -> None:
        self._find = find

    async def __call__(self, connection: HTTPConnection) -> T:
        """Return the value for this connection."""
        return await self._find(connection)

    __call__.__qualname__ = _WITHOUT_PARENTHESES

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> NoReturn:
        """Refuse ``Annotated[User, web.user]``: the value would be read from the request.

        Raises:
            TypeError: always.
        """
        raise TypeError(
            "a dependency needs Depends, as in Annotated[User, Depends(web.user)]: without it the "
            "client would say who the user is"
        )


class Required(Dependency[T], SecurityBase):
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
        self._find_in = find
        self.model = model
        self.scheme_name = scheme_name

    async def __call__(self, connection: HTTPConnection) -> T:
        """Return what the dependency is for.

        Raises:
            NotAuthenticated: the request is a visitor's; the response is 401.
        """
        return required(await self._find_in(auth_request(self._auth, connection.scope)))

    __call__.__qualname__ = _WITHOUT_PARENTHESES


@with_defaults
class FastAPIAuth(Generic[UserT, UserIdT]):
    """Sessions for a FastAPI application: install it once, then use its members as dependencies.

    ========================= =================================================================
    ``Depends(…)``            gives
    ========================= =================================================================
    ``web.request``           the ``AsyncAuthRequest``, for signing in and out
    ``web.sync_request``      the same for a route that is a plain ``def``
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
        transport: ``cookie``, ``bearer`` for clients that are not browsers, or ``both``.
        forbid_cross_site: respond 403 to a request that fails the origin check, instead of treating
            it as a visitor's.
        validate_ahead: validate before the application runs, see
            :class:`~lucia.middleware.asgi.LuciaMiddleware`.
        login_url: where a visitor's browser is sent from a page that needs a login, see
            :class:`~lucia.middleware.starlette.StarletteAuth`.
        scheme_name: the name of the security scheme in the OpenAPI document; two auths of one
            application need two names. With ``both`` there is a second scheme, with ``_token``
            after this name.

    Raises:
        TypeError: ``auth`` is not an ``AsyncAuth``.
        ValueError: ``login_url`` is not a URL.
    """

    request: Dependency[AsyncAuthRequest[UserT, UserIdT]]
    sync_request: Dependency[ThreadAuthRequest[UserT, UserIdT]]
    session: Required[Session[UserIdT]]
    user: Required[UserT]
    session_user: Required[SessionUser[UserT, UserIdT]]
    optional_session: Dependency[Session[UserIdT] | None]
    optional_user: Dependency[UserT | None]

    def __init__(
        self,
        auth: AsyncAuth[UserT, UserIdT, Any],
        *,
        transport: Transport = "cookie",
        forbid_cross_site: bool = False,
        validate_ahead: bool = False,
        login_url: str | None = None,
        scheme_name: str = "session",
    ) -> None:
        self._web = web = StarletteAuth(
            auth,
            transport=transport,
            forbid_cross_site=forbid_cross_site,
            validate_ahead=validate_ahead,
            login_url=login_url,
        )
        self._scheme_name = scheme_name
        self._model = model = _security_model(auth, transport)
        # Not methods of self._web: while the store is read, each coroutine on the way is an object
        # that the garbage collector has to look at.
        self.request = Dependency(self._request)
        self.sync_request = Dependency(self._sync_request)
        self.optional_session = Dependency(web.optional_session)
        self.optional_user = Dependency(web.optional_user)
        self.session = Required(auth, find_session, model, scheme_name)
        self.user = Required(auth, _find_user, model, scheme_name)
        self.session_user = Required(auth, find_session_user, model, scheme_name)

    def install(self, app: FastAPI) -> None:
        """Add the middleware, the exception handlers and the documentation to an application.

        Raises:
            RuntimeError: the application has started.
        """
        self._web.install(app)
        make = app.openapi
        completed: dict[str, Any] | None = None

        def openapi() -> dict[str, Any]:
            nonlocal completed
            document = make()
            if document is not completed:  # FastAPI makes it once
                completed = self._documented(document)
            return document

        # FastAPI's documented way of extending the OpenAPI document.
        app.openapi = openapi  # type: ignore[method-assign]

    def router(self, prefix: str = "", **settings: Unpack[AsyncAccountSettings]) -> APIRouter:
        """Return the ready routes: sign up, log in and out, devices, change of the password.

        Args:
            prefix: the path before them, such as ``/auth``.
            settings: see :class:`~lucia.middleware.accounts.AsyncAccountRoutes`. The return
                annotation of ``show_user`` is the response model of ``/me``.
        """
        accounts = AsyncAccountRoutes(self._web.auth, self._web.transport, **settings)
        router = APIRouter(prefix=prefix, tags=["auth"])
        for route in accounts.routes:
            response_body = route.response_body
            if route.name == "me" and "show_user" in settings:
                response_body = _returned(settings["show_user"])
            router.add_api_route(
                route.path,
                self._endpoint(accounts, route),
                methods=[route.method],
                name=route.endpoint,
                summary=route.summary,
                status_code=route.status,
                response_class=Response if route.is_page else JSONResponse,
                response_model=None,
                responses=_responses(route, response_body),
                include_in_schema=not route.is_page,
                openapi_extra=self._described(route),
            )
        return router

    async def _request(self, connection: HTTPConnection) -> AsyncAuthRequest[UserT, UserIdT]:
        return self._web.request(connection)

    async def _sync_request(self, connection: HTTPConnection) -> ThreadAuthRequest[UserT, UserIdT]:
        return self._web.sync_request(connection)

    def _endpoint(
        self, accounts: AsyncAccountRoutes[UserT, UserIdT], route: AccountRoute
    ) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            reply = await reply_to(self._web, accounts, route, request)
            # The application's own steps may return models of Pydantic.
            return response_of(reply._replace(content=jsonable_encoder(reply.content)))

        return endpoint

    def _described(self, route: AccountRoute) -> dict[str, Any]:
        """Return what FastAPI can't see of a ready route, for its operation in the document."""
        described: dict[str, Any] = {}
        if route.request_body is not None:
            schema = TypeAdapter(route.request_body).json_schema()
            kinds = ("application/json", "application/x-www-form-urlencoded")
            described["requestBody"] = {
                "required": True,
                "content": {kind: {"schema": schema} for kind in kinds},
            }
        if "{handle}" in route.path:
            described["parameters"] = [
                {"name": "handle", "in": "path", "required": True, "schema": {"type": "string"}}
            ]
        if route.needs_login:
            described["security"] = [{self._scheme_name: []}]
        if route.name == "token":
            described[_TOKEN_ROUTE] = self._scheme_name
        return described

    def _documented(self, document: dict[str, Any]) -> dict[str, Any]:
        """Complete an OpenAPI document: the schemes, and the response 401 of each protected route.

        An operation that documents such a response itself keeps its own.
        """
        operations = [
            (path, item[method])
            for path, item in document.get("paths", {}).items()
            for method in _METHODS & item.keys()
        ]
        token_url = None
        for path, operation in operations:
            if operation.get(_TOKEN_ROUTE) == self._scheme_name:
                token_url = path
                del operation[_TOKEN_ROUTE]
        schemes = self._schemes(token_url)
        is_used = False
        for _, operation in operations:
            security = operation.get("security", [])
            if any(self._scheme_name in requirement for requirement in security):
                is_used = True
                if {self._scheme_name: []} in security:
                    alternatives: list[dict[str, Any]] = [{name: []} for name in schemes]
                    security += [each for each in alternatives if each not in security]
                description = response_for(NotAuthenticated(), "cookie").detail
                operation.setdefault("responses", {}).setdefault(
                    "401", {"description": description}
                )
        if is_used:
            components = document.setdefault("components", {})
            components.setdefault("securitySchemes", {}).update(schemes)
        return document

    def _schemes(self, token_url: str | None) -> dict[str, Any]:
        """Return the security schemes by name: each of them lets a request in."""
        own = self._model.model_dump(mode="json", by_alias=True, exclude_none=True)
        bearer: dict[str, Any] = {
            "type": "http",
            "scheme": "bearer",
            "description": "The session id.",
        }
        if token_url is not None:
            # By this the button "Authorize" of the documentation asks for name and password.
            flow: dict[str, Any] = {"scopes": {}, "tokenUrl": token_url.removeprefix("/")}
            bearer = {"type": "oauth2", "flows": {"password": flow}}
        if self._web.transport == "cookie":
            return {self._scheme_name: own}
        if self._web.transport == "both":
            return {self._scheme_name: own, f"{self._scheme_name}_token": bearer}
        return {self._scheme_name: own if token_url is None else bearer}


async def _find_user(request: AsyncAuthRequest[UserT, UserIdT]) -> UserT | None:
    both = await find_session_user(request)
    return None if both is None else both.user


def _responses(route: AccountRoute, response_body: Any) -> dict[int | str, dict[str, Any]]:
    """Return the responses of a ready route, for its operation in the document."""
    responses: dict[int | str, dict[str, Any]] = {
        status: {"model": ErrorDetail} for status in (*route.errors, 403, 503)
    }
    if response_body is not None:
        responses[route.status] = {"model": response_body}
    return responses


def _returned(function: Callable[..., Any]) -> Any:
    """Return the type that a function's annotation says it returns; None without one."""
    return get_type_hints(function).get("return")


def _security_model(auth: AsyncAuth[Any, Any, Any], transport: Transport) -> APIKey | HTTPBearer:
    if transport == "bearer":
        return HTTPBearer(description="The session id.")
    name = auth.create_session_cookie(None).name
    return APIKey.model_validate(
        {"in": APIKeyIn.cookie, "name": name, "description": "The session cookie."}
    )
