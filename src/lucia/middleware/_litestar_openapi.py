"""Additions of the plugin for Litestar to the OpenAPI document."""

# Litestar names its generic types without their arguments in many places.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, fields
from typing import Any

from litestar.exceptions import NotAuthorizedException
from litestar.handlers import HTTPRouteHandler
from litestar.openapi import OpenAPIConfig
from litestar.openapi.spec import (
    Components,
    OAuthFlow,
    OAuthFlows,
    OpenAPIMediaType,
    OpenAPIType,
    Operation,
    RequestBody,
    Schema,
    SecurityRequirement,
    SecurityScheme,
)

from lucia._async.auth import AsyncAuth
from lucia._rules.accounts import AccountRoute
from lucia._rules.requests import Transport

__all__ = ["operation_class", "require", "security_schemes", "show_token_url", "with_schemes"]


def security_schemes(
    auth: AsyncAuth[Any, Any, Any], transport: Transport, name: str
) -> Mapping[str, SecurityScheme]:
    """Return the security schemes of the OpenAPI document by their names."""
    schemes: dict[str, SecurityScheme] = {}
    if transport != "bearer":
        schemes[name] = SecurityScheme(
            type="apiKey",
            name=auth.create_session_cookie(None).name,
            security_scheme_in="cookie",
            description="The session cookie.",
        )
    if transport != "cookie":
        schemes[f"{name}_token" if schemes else name] = SecurityScheme(
            type="http", scheme="bearer", description="The session id."
        )
    return schemes


def with_schemes(config: OpenAPIConfig, schemes: Mapping[str, SecurityScheme]) -> OpenAPIConfig:
    """Return a copy of the configuration that has the security schemes."""
    given = config.components
    config = copy(config)
    config.components = [
        *(given if isinstance(given, list) else [given]),
        Components(security_schemes={**schemes}),
    ]
    return config


def show_token_url(schemes: Mapping[str, SecurityScheme], path: str) -> None:
    """Let the button "Authorize" of the document's page ask for name and password."""
    for scheme in schemes.values():
        if scheme.type != "apiKey":
            scheme.type, scheme.scheme = "oauth2", None
            scheme.flows = OAuthFlows(password=OAuthFlow(scopes={}, token_url=path))


def require(handler: HTTPRouteHandler, requirements: Sequence[SecurityRequirement]) -> None:
    """Document that a handler needs a login. Each path of a handler is a route of its own."""
    security, raises = handler.security or (), handler.raises or ()
    added = [each for each in requirements if each not in security]
    handler.security = [*security, *added]
    if NotAuthorizedException not in raises:
        handler.raises = [*raises, NotAuthorizedException]


def operation_class(route: AccountRoute) -> type[Operation]:
    """Return the class of an operation in the OpenAPI document: one with the body of a route.

    Litestar finds out a body by the argument ``data``. A ready route has none: it reads both JSON
    and forms.
    """
    if route.request_body is None:
        return Operation
    names = [field.name for field in fields(route.request_body)]
    text = Schema(type=OpenAPIType.STRING)
    schema = Schema(type=OpenAPIType.OBJECT, properties=dict.fromkeys(names, text), required=names)
    kinds = ("application/json", "application/x-www-form-urlencoded")
    content = {kind: OpenAPIMediaType(schema=schema) for kind in kinds}
    body = RequestBody(content=content, required=True)

    @dataclass
    class OperationWithBody(Operation):
        def __post_init__(self) -> None:
            self.request_body = body

    return OperationWithBody
