"""The ready routes: their table, what they take, and the responses that they give.

The routes sign up, log in and out, show the user and the devices, revoke logins, and change the
password. Each takes JSON or a form. A browser that sends a form gets pages and redirects, all other
clients get JSON.
"""

import json
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, is_dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Any, Final, Literal, NamedTuple, cast

from lucia._rules.redirects import below_root, login_location, own_path, quoted_path
from lucia._rules.requests import Transport
from lucia._rules.responses import response_for
from lucia.errors import InvalidInput, NotAuthenticated
from lucia.models import Device

__all__ = [
    "ROUTES",
    "AccessToken",
    "AccountRoute",
    "Credentials",
    "ErrorDetail",
    "LoggedInDevice",
    "Page",
    "PageName",
    "PasswordChange",
    "Reply",
    "SignedInUser",
    "StepName",
    "Submission",
]

StepName = Literal[
    "sign_up",
    "log_in",
    "log_out",
    "me",
    "devices",
    "revoke_device",
    "revoke_others",
    "change_password",
    "token",
    "renew_token",
]

PageName = Literal["sign_up", "log_in", "change_password", "devices"]

_MAX_TEXT: Final = 1_024
"""The longest field, in characters. No name and no password is longer."""

_MAX_USER_AGENT: Final = 300


@dataclass(frozen=True, slots=True)
class Credentials:
    """The body of a sign-up, a login, and a request for a token."""

    username: str
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class PasswordChange:
    """The body of a change of the password."""

    current_password: str = field(repr=False)
    new_password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class SignedInUser:
    """Who is logged in: the response of signing up, logging in and ``/me``."""

    user_id: str | int


@dataclass(frozen=True, slots=True)
class LoggedInDevice:
    """One entry of the device list. ``handle`` names it to ``/devices/{handle}/revoke``."""

    handle: str
    current: bool
    created_at: datetime
    expires_at: datetime
    metadata: dict[str, Any]


@dataclass(frozen=True, slots=True)
class AccessToken:
    """A session id for clients that send it as a bearer token (RFC 6749, section 5.1)."""

    access_token: str = field(repr=False)
    token_type: str = "bearer"  # noqa: S105 -- a kind of token


@dataclass(frozen=True, slots=True)
class ErrorDetail:
    """The body of the response to an error."""

    detail: str


class AccountRoute(NamedTuple):
    """A ready route.

    Args:
        name: the step that it runs, or for ``GET`` the page that it shows.
        method: the HTTP method.
        path: below the prefix; ``{handle}`` is a parameter.
        summary: for the OpenAPI document.
        status: the status of a JSON response.
        request_body: the fields of the body.
        response_body: the body of the response.
        errors: the statuses of the errors that it responds with, besides 403 and 503.
        needs_login: whether a visitor gets 401.
        is_page: whether it only shows a form.
    """

    name: StepName
    method: Literal["GET", "POST"]
    path: str
    summary: str
    status: int = 200
    request_body: type[Credentials | PasswordChange] | None = None
    response_body: Any = None
    errors: tuple[int, ...] = ()
    needs_login: bool = False
    is_page: bool = False

    @property
    def endpoint(self) -> str:
        """The name for the framework: that of the step, and ``log_in_page`` for a form."""
        return f"{self.name}_page" if self.is_page else self.name


ROUTES: Final = (
    AccountRoute(
        "sign_up", "POST", "/signup", "Sign up", 201, Credentials, SignedInUser, (409, 422)
    ),
    AccountRoute(
        "log_in", "POST", "/login", "Log in", 200, Credentials, SignedInUser, (401, 422, 429)
    ),
    AccountRoute("log_out", "POST", "/logout", "Log out", 204),
    AccountRoute("me", "GET", "/me", "Who am I", 200, None, SignedInUser, (401,), True),
    AccountRoute(
        "devices", "GET", "/devices", "Devices", 200, None, list[LoggedInDevice], (401,), True
    ),
    AccountRoute(
        "revoke_others",
        "POST",
        "/devices/revoke-others",
        "Log out on all other devices",
        204,
        errors=(401,),
        needs_login=True,
    ),
    AccountRoute(
        "revoke_device",
        "POST",
        "/devices/{handle}/revoke",
        "Log out on one device",
        204,
        errors=(401, 404),
        needs_login=True,
    ),
    AccountRoute(
        "change_password",
        "POST",
        "/password",
        "Change the password",
        200,
        PasswordChange,
        SignedInUser,
        (401, 422, 429),
        True,
    ),
    AccountRoute(
        "token", "POST", "/token", "Get a bearer token", 200, Credentials, AccessToken, (401, 429)
    ),
    AccountRoute(
        "renew_token",
        "POST",
        "/token/renew",
        "Renew a bearer token",
        200,
        None,
        AccessToken,
        (401,),
        True,
    ),
    AccountRoute("sign_up", "GET", "/signup", "The form to sign up", is_page=True),
    AccountRoute("log_in", "GET", "/login", "The form to log in", is_page=True),
    AccountRoute(
        "change_password",
        "GET",
        "/password",
        "The form to change the password",
        needs_login=True,
        is_page=True,
    ),
)
"""Every ready route. Those for clients with bearer tokens and those with pages can be left out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """The request of a client to a ready route. Its ``repr`` does not have the fields.

    Args:
        fields: the members of the JSON body, or the fields of the form.
        name: the name to log in with as it is stored, for the function ``attributes``; else empty.
        is_form: whether the body is a form.
        wants_page: whether the client is a browser that loads a page, see
            :func:`~lucia._rules.redirects.prefers_page`.
        path: the path of the request, with the prefix.
        root: the path below which the application is mounted; empty at the root of the site.
        host: the host of the request, with the port.
        query_next: the ``next`` in the query of the URL.
        handle: the handle in the path.
        user_agent: the User-Agent header.
        hidden: fields that each form on a page must have, such as the framework's CSRF token.
        request: the framework's own request.
    """

    fields: Mapping[str, Any] = field(repr=False)
    name: str = ""
    is_form: bool = False
    wants_page: bool = False
    path: str = "/"
    root: str = ""
    host: str = ""
    query_next: str | None = None
    handle: str = ""
    user_agent: str = ""
    hidden: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    request: Any = field(default=None, repr=False)

    @property
    def next(self) -> str | None:
        """The path that the person wanted before logging in: by a field of the form, or the URL.

        None if there is none, or it is no path on this site.
        """
        in_form = self.fields.get("next") if self.is_form else None
        given = in_form if isinstance(in_form, str) and in_form else self.query_next
        return own_path(given, self.host)

    def text(self, name: str) -> str:
        """Return a field that has to be text.

        Raises:
            InvalidInput: it is missing, is not text, or is too long.
        """
        value = self.fields.get(name)
        if value is None:
            raise InvalidInput(f"{name} is missing")
        if not isinstance(value, str):
            raise InvalidInput(f"{name} must be text")
        if len(value) > _MAX_TEXT:
            raise InvalidInput(f"{name} is longer than {_MAX_TEXT:,} characters")
        return value


class Page(NamedTuple):
    """A page of the ready routes, for the function ``render``.

    Args:
        name: which one.
        prefix: the path before ``/login`` and the others.
        detail: why the form was refused; empty if it was not.
        username: what the person typed before the form was refused.
        hidden: fields that each form must have.
        devices: the logins, for the page of devices.
        can_sign_up: whether there is a page to sign up.
        next: the path to go to after logging in, for the link from one page to the other; None if
            there is none.
        request: the framework's own request.
    """

    name: PageName
    prefix: str
    detail: str = ""
    username: str = ""
    hidden: Mapping[str, str] = {}
    devices: Sequence[LoggedInDevice] = ()
    can_sign_up: bool = True
    next: str | None = None
    request: Any = None


_NOT_STORED: Final[Mapping[str, str]] = MappingProxyType({"Cache-Control": "no-store"})
"""The headers of each response: it is the user's own, or a token (RFC 6749, section 5.1)."""


class Reply(NamedTuple):
    """The response of a ready route: JSON, a page or a redirect.

    Args:
        status: the HTTP status.
        content: the JSON value, a dataclass or a list of them; None for no body.
        page: the page to show.
        html: the page, rendered.
        location: where a redirect leads to.
        headers: further headers.
    """

    status: int
    content: Any = None
    page: Page | None = None
    html: str | None = None
    location: str | None = None
    headers: Mapping[str, str] = _NOT_STORED


_NO_SUCH_DEVICE: Final = ErrorDetail("No login on such a device.")


def normalize_name(name: str) -> str:
    """Return a user name or address as it is stored: without case and outer spaces, in NFKC."""
    return unicodedata.normalize("NFKC", name).strip().lower()


def user_agent_of(submission: Submission) -> Mapping[str, Any]:
    """Return the metadata of a login: the user agent."""
    agent = submission.user_agent[:_MAX_USER_AGENT]
    return {"user_agent": agent} if agent else {}


def shown_id(user_id: object) -> str | int:
    """Return a user's id as JSON has it."""
    return user_id if isinstance(user_id, int) else str(user_id)


def shown_device(device: Device[Any], current: str) -> LoggedInDevice:
    """Return the entry of the device list for a login; ``current`` is the handle of this one."""
    return LoggedInDevice(
        handle=device.handle,
        current=device.handle == current,
        created_at=device.created_at,
        expires_at=device.idle_period_expires_at,
        metadata=dict(device.metadata),
    )


def to_json(content: object) -> bytes:
    """Return the body of a JSON response."""
    return json.dumps(content, default=_json_value, ensure_ascii=False).encode()


def _json_value(value: object) -> object:
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if isinstance(value, datetime):
        return value.isoformat()
    return str(value)


def prefix_of(route: AccountRoute, submission: Submission) -> str:
    """Return the part of the request's path before the route's own, quoted.

    Where it has a parameter, it may begin with two slashes, which would name a host.
    """
    prefix = submission.path.removesuffix(route.path.format(handle=submission.handle))
    return quoted_path("/" + prefix.lstrip("/\\")) if prefix else ""


def reply_to(
    route: AccountRoute, submission: Submission, content: Any, *, after: Mapping[StepName, str]
) -> Reply:
    """Return the response of a route whose step has run.

    Args:
        route: the route.
        submission: what the client sent.
        content: what the step returned.
        after: where a form leads to, for signing up, logging in and logging out.
    """
    prefix = prefix_of(route, submission)
    if route.method == "GET":
        if route.is_page:
            return Reply(200, page=_page(route.name, submission, prefix))
        if route.name == "devices" and submission.wants_page:
            return Reply(200, page=_page("devices", submission, prefix)._replace(devices=content))
        return Reply(route.status, content)
    if submission.is_form and submission.wants_page:
        if route.name not in after:
            return Reply(303, location=f"{prefix}/devices")
        location = below_root(after[route.name], submission.root)
        wanted = submission.next if route.name in ("sign_up", "log_in") else None
        return Reply(303, location=wanted or location)
    if route.name == "revoke_device" and content is False:
        return Reply(404, _NO_SUCH_DEVICE)
    return Reply(route.status, None if route.status == 204 else content)


def reply_to_error(
    route: AccountRoute, submission: Submission, error: Exception, transport: Transport
) -> Reply | None:
    """Return the page that a browser gets for an error of a step; None to raise the error.

    A visitor is sent to log in; a form that was refused is shown again, and says why.
    """
    if not submission.wants_page or not (submission.is_form or route.method == "GET"):
        return None
    prefix = prefix_of(route, submission)
    if isinstance(error, NotAuthenticated):
        location = login_location(f"{prefix}/login", method=route.method, path=submission.path)
        if location is not None:
            return Reply(303, location=location)
    response = response_for(error, transport)
    if response.status == 500 or route.name not in ("sign_up", "log_in", "change_password"):
        return None
    page = _page(route.name, submission, prefix)._replace(detail=response.detail)
    return Reply(response.status, page=page, headers={**_NOT_STORED, **response.headers})


def _page(name: StepName, submission: Submission, prefix: str) -> Page:
    username = submission.fields.get("username")
    return Page(
        name=cast("PageName", name),
        prefix=prefix,
        username=username if isinstance(username, str) else "",
        hidden=submission.hidden,
        next=submission.next,
        request=submission.request,
    )
