"""The steps of the ready routes: sign up, log in and out, devices, change of the password."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Generic, TypedDict, Unpack

from lucia._async.auth import AsyncAuth
from lucia._async.request import AsyncAuthRequest, required
from lucia._compat.flavours import check_function, check_names, check_step
from lucia._compat.steps import AsyncRender, AsyncStep
from lucia._rules.accounts import (
    ROUTES,
    AccessToken,
    AccountRoute,
    LoggedInDevice,
    Page,
    Reply,
    SignedInUser,
    StepName,
    Submission,
    normalize_name,
    reply_to,
    reply_to_error,
    shown_device,
    shown_id,
    user_agent_of,
)
from lucia._rules.pages import render_page
from lucia._rules.redirects import check_redirect
from lucia._rules.requests import Transport
from lucia._typing import UserIdT, UserT, with_defaults
from lucia.errors import (
    InvalidInput,
    InvalidRequest,
    InvalidUserId,
    LuciaError,
    NotAuthenticated,
)
from lucia.models import PersistentKey, PrimaryKey, Session

__all__ = ["AsyncAccountRoutes", "AsyncAccountSettings"]


class AsyncAccountSettings(TypedDict, total=False):
    """The settings of the ready routes; :class:`AsyncAccountRoutes` documents them."""

    provider_id: str
    normalize: Callable[[str], str]
    attributes: Callable[[Submission], Mapping[str, Any]]
    metadata: Callable[[Submission], Mapping[str, Any]]
    show_user: Callable[[Any], Any]
    pages: bool
    render: Callable[[Page], Any]
    after_login: str
    after_logout: str
    sign_up: AsyncStep | None
    log_in: AsyncStep
    log_out: AsyncStep
    me: AsyncStep
    devices: AsyncStep
    revoke_device: AsyncStep
    revoke_others: AsyncStep
    change_password: AsyncStep
    token: AsyncStep
    renew_token: AsyncStep


def _no_attributes(submission: Submission) -> Mapping[str, Any]:
    return {}


def _no_metadata(submission: Submission) -> Mapping[str, Any]:
    return {}


@with_defaults
class AsyncAccountRoutes(Generic[UserT, UserIdT]):
    """The ready routes, whatever the framework.

    Integrations make one, add :attr:`routes` to the framework's own, and call :meth:`handle`.

    Args:
        auth: the application's ``AsyncAuth``.
        transport: the transport of the integration. ``/token`` and ``/token/renew`` are routes for
            ``bearer`` and ``both``.
        provider_id: the provider of the keys that people log in with, such as ``email``. The field
            is called ``username`` whatever this is.
        normalize: makes of a name what is stored and looked up. By default names are compared
            without case, outer spaces and differences that Unicode's NFKC removes.
        attributes: returns the attributes of a new user; by default there are none. The name as it
            is stored is ``submission.name``.
        metadata: returns the metadata of a login; by default the user agent, if the session
            adapter keeps metadata.
        show_user: returns what ``/me`` shows of a user; by default their id.
        pages: whether browsers get pages with forms.
        render: returns the HTML of a page, for example from a template of the application's. Where
            templates are awaited, so is this function.
        after_login: where a browser goes after signing up and logging in, unless it came from
            elsewhere.
        after_logout: where a browser goes after logging out.
        sign_up: replaces this step, as do the following ones: called with the
            ``AsyncAuthRequest`` and the :class:`~lucia.middleware.accounts.Submission`, it returns
            what the JSON response has. None leaves this route out.
        log_in: as ``sign_up``.
        log_out: as ``sign_up``.
        me: as ``sign_up``.
        devices: as ``sign_up``; returns a list of
            :class:`~lucia.middleware.accounts.LoggedInDevice`.
        revoke_device: as ``sign_up``; returns whether there was such a login.
        revoke_others: as ``sign_up``.
        change_password: as ``sign_up``.
        token: as ``sign_up``; by default it runs ``log_in`` for a bearer.
        renew_token: as ``sign_up``.

    Raises:
        TypeError: a setting is unknown, or a function is of the other flavour than this class.
        ValueError: ``after_login`` or ``after_logout`` is not a URL.
    """

    def __init__(
        self,
        auth: AsyncAuth[UserT, UserIdT, Any],
        transport: Transport,
        **settings: Unpack[AsyncAccountSettings],
    ) -> None:
        check_names(type(self).__name__, settings, AsyncAccountSettings, AsyncAccountSettings)
        self._auth = auth
        self._transport: Transport = transport
        self._provider_id = settings.get("provider_id", "username")
        self._normalize = settings.get("normalize", normalize_name)
        self._attributes = settings.get("attributes", _no_attributes)
        self._metadata = settings.get(
            "metadata", user_agent_of if auth.keeps_metadata else _no_metadata
        )
        self._show_user = settings.get("show_user")
        self._render = settings.get("render", render_page)
        check_function("normalize", self._normalize)
        check_function("attributes", self._attributes)
        check_function("metadata", self._metadata)
        AsyncRender.check("render", self._render)
        if self._show_user is not None:
            check_function("show_user", self._show_user)
        after_login = check_redirect("after_login", settings.get("after_login", "/"))
        after_logout = check_redirect("after_logout", settings.get("after_logout", "/"))
        self._after: Mapping[StepName, str] = {
            "sign_up": after_login,
            "log_in": after_login,
            "log_out": after_logout,
        }
        self._own_log_in = settings.get("log_in", self._log_in)
        has_tokens = transport != "cookie"
        self._steps: Mapping[StepName, AsyncStep | None] = {
            "sign_up": settings.get("sign_up", self._sign_up),
            "log_in": self._own_log_in,
            "log_out": settings.get("log_out", self._log_out),
            "me": settings.get("me", self._me),
            "devices": settings.get("devices", self._devices),
            "revoke_device": settings.get("revoke_device", self._revoke_device),
            "revoke_others": settings.get("revoke_others", self._revoke_others),
            "change_password": settings.get("change_password", self._change_password),
            "token": settings.get("token", self._token) if has_tokens else None,
            "renew_token": settings.get("renew_token", self._renew_token) if has_tokens else None,
        }
        for name, step in settings.items():
            if name in self._steps and (name, step) != ("sign_up", None):
                check_step(name, step, self._log_in)
        self._has_pages = settings.get("pages", True) and transport != "bearer"
        self.routes: tuple[AccountRoute, ...] = tuple(
            route
            for route in ROUTES
            if self._steps[route.name] is not None and (self._has_pages or not route.is_page)
        )

    async def handle(
        self,
        route: AccountRoute,
        request: AsyncAuthRequest[UserT, UserIdT],
        submission: Submission,
    ) -> Reply:
        """Run the step of a route, and return the response.

        Raises:
            LuciaError: the step raised it, and the client is not a browser that gets a page; the
                integration responds as to an error of any other route.
        """
        # A token is for the client that asked, which would not find it on a page.
        if not self._has_pages or route.name in ("token", "renew_token"):
            submission = replace(submission, wants_page=False)
        try:
            content = await self._content(route, request, submission)
            reply = reply_to(route, submission, content, after=self._after)
        except LuciaError as error:
            found = reply_to_error(route, submission, error, self._transport)
            if found is None:
                raise
            reply = found
        if reply.page is None:
            return reply
        page = reply.page._replace(can_sign_up=self._steps["sign_up"] is not None)
        return reply._replace(page=page, html=await self._html(page))

    async def _html(self, page: Page) -> str:
        """Return the HTML of a page.

        Raises:
            TypeError: the application's function returned something else.
        """
        html = await self._rendered(page)
        if not isinstance(html, str):
            raise TypeError(f"render must return text, not {type(html).__name__}")
        return html

    async def _rendered(self, page: Page) -> Any:
        return await AsyncRender.call(self._render, page)

    async def _content(
        self,
        route: AccountRoute,
        request: AsyncAuthRequest[UserT, UserIdT],
        submission: Submission,
    ) -> Any:
        if route.is_page:
            if route.needs_login:
                await self._session(request)
            return None
        if route.method == "POST":
            # A program has no token before it asks for one.
            is_token = route.name == "token"
            if request.is_cross_site if is_token else request.origin_failure is not None:
                raise InvalidRequest
        step = self._steps[route.name]
        return None if step is None else await step(request, submission)

    async def _sign_up(
        self, request: AsyncAuthRequest[UserT, UserIdT], submission: Submission
    ) -> SignedInUser | AccessToken:
        name = self._normalize(submission.text("username"))
        key = PrimaryKey(self._provider_id, name, submission.text("password"))
        await self._create_user(key, self._attributes(replace(submission, name=name)))
        # Not the id of what create_user() returns: that is of the application's own type.
        user_id = (await self._auth.get_key(self._provider_id, name)).user_id
        return self._shown(request, await request.sign_in(user_id, **self._metadata(submission)))

    async def _create_user(self, key: PrimaryKey, attributes: Mapping[str, Any]) -> None:
        await self._auth.create_user(primary_key=key, attributes=attributes)

    async def _log_in(
        self, request: AsyncAuthRequest[UserT, UserIdT], submission: Submission
    ) -> SignedInUser | AccessToken:
        name = self._normalize(submission.text("username"))
        session = await request.sign_in_with_key(
            self._provider_id, name, submission.text("password"), **self._metadata(submission)
        )
        return self._shown(request, session)

    async def _log_out(
        self, request: AsyncAuthRequest[UserT, UserIdT], submission: Submission
    ) -> None:
        await request.sign_out()

    async def _token(
        self, request: AsyncAuthRequest[UserT, UserIdT], submission: Submission
    ) -> Any:
        # Where the application has a step of its own, its rules hold for tokens, too.
        return await self._own_log_in(request.with_transport("bearer"), submission)

    async def _renew_token(
        self, request: AsyncAuthRequest[UserT, UserIdT], submission: Submission
    ) -> SignedInUser | AccessToken:
        return self._shown(request, required(await request.renew()))

    async def _me(
        self, request: AsyncAuthRequest[UserT, UserIdT], submission: Submission
    ) -> object:
        if self._show_user is None:
            return SignedInUser(shown_id((await self._session(request)).user_id))
        return self._show_user(required(await request.validate_user()).user)

    async def _devices(
        self, request: AsyncAuthRequest[UserT, UserIdT], submission: Submission
    ) -> list[LoggedInDevice]:
        session = await self._session(request)
        try:
            devices = await self._auth.get_all_user_sessions(session.user_id)
        except InvalidUserId:
            raise NotAuthenticated from None
        return [shown_device(device, session.handle) for device in devices]

    async def _revoke_device(
        self, request: AsyncAuthRequest[UserT, UserIdT], submission: Submission
    ) -> bool:
        session = await self._session(request)
        if submission.handle == session.handle:
            await request.sign_out()
            return True
        return await self._auth.invalidate_user_session(session.user_id, submission.handle)

    async def _revoke_others(
        self, request: AsyncAuthRequest[UserT, UserIdT], submission: Submission
    ) -> None:
        session = await self._session(request)
        if not await self._auth.invalidate_all_user_sessions(
            session.user_id, keep=session.session_id
        ):
            # This session was revoked meanwhile, by another device.
            request.set_session(None)
            raise NotAuthenticated

    async def _change_password(
        self, request: AsyncAuthRequest[UserT, UserIdT], submission: Submission
    ) -> SignedInUser | AccessToken:
        session = await self._session(request)
        name = await self._name_of(session)
        current, new = submission.text("current_password"), submission.text("new_password")
        await self._check_new_password(new, session)
        renewed = await self._auth.change_key_password(
            self._provider_id,
            name,
            current,
            new,
            keep_session=session.session_id,
            address=request.client_address,
        )
        # None if this session was revoked meanwhile. The password is changed all the same.
        request.set_session(renewed)
        if renewed is None:
            return SignedInUser(shown_id(session.user_id))
        return self._shown(request, renewed)

    async def _check_new_password(self, password: str, session: Session[UserIdT]) -> None:
        """Refuse a password by rules of the framework. The adapter's own come later."""

    async def _name_of(self, session: Session[UserIdT]) -> str:
        """Return the name that a user logs in with.

        Raises:
            InvalidInput: they log in without a password.
            NotAuthenticated: the user is gone.
        """
        try:
            keys = await self._auth.get_all_user_keys(session.user_id)
        except InvalidUserId:
            raise NotAuthenticated from None
        names = [
            key.provider_user_id
            for key in sorted(keys, key=lambda key: not _is_primary(key))
            if isinstance(key, PersistentKey)
            and key.provider_id == self._provider_id
            and key.password_defined
        ]
        if not names:
            raise InvalidInput("this account has no password to change")
        return names[0]

    async def _session(self, request: AsyncAuthRequest[UserT, UserIdT]) -> Session[UserIdT]:
        return required(await request.validate())

    def _shown(
        self, request: AsyncAuthRequest[UserT, UserIdT], session: Session[UserIdT]
    ) -> SignedInUser | AccessToken:
        """Return the response to a login: the token too, where no cookie carries it."""
        if request.uses_cookies:
            return SignedInUser(shown_id(session.user_id))
        return AccessToken(session.session_id)


def _is_primary(key: object) -> bool:
    return isinstance(key, PersistentKey) and key.primary
