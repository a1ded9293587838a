"""One request of one browser: its login, and its journal of what happened in Redis."""

from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, Request
from fastapi.responses import RedirectResponse, Response

from lucia import AsyncAuth, AsyncAuthRequest, InvalidRequest, NotAuthenticated, Session
from lucia.middleware.starlette import StarletteAuth

from .accounts import Accounts, Member
from .journal import Entry, Journal, Journals
from .pages import render
from .redis_view import Recorded, RedisView, shorten, show

BROWSER_COOKIE = "demo_browser"


@dataclass(frozen=True, slots=True)
class Demo:
    """The objects that all requests share.

    ``looking`` reads over connections that are not recorded. Without a Redis server, ``redis`` is
    None.
    """

    auth: AsyncAuth[Member]
    looking: AsyncAuth[Member]
    web: StarletteAuth[Member]
    accounts: Accounts
    redis: RedisView | None
    journals: Journals


@dataclass(frozen=True, slots=True)
class Visit:
    """A request; ``began`` is the number of commands recorded before it."""

    demo: Demo
    http: Request
    auth: AsyncAuth[Member]
    request: AsyncAuthRequest[Member]
    journal: Journal
    began: int
    metadata: dict[str, str]
    """The metadata of a login, for the list of logins."""

    @property
    def commands(self) -> list[Recorded]:
        """The commands sent since the request began, by it or by a concurrent one."""
        return self.demo.redis.log.since(self.began) if self.demo.redis else []

    async def done(self, title: str, outcome: str, path: str = "/") -> Response:
        """Record the action and redirect, so that a reload does not repeat it."""
        await self.note(title, outcome)
        self.journal.notice = outcome
        return self._marked(RedirectResponse(path, status_code=303))

    async def page(self, template: str, status: int = 200, **values: Any) -> Response:
        """Render a page with the journal."""
        about = self.demo.redis.about if self.demo.redis else None
        notice = self.journal.take_notice()
        return self._marked(
            render(
                template,
                status,
                **{"notice": notice, "about": about, "journal": self.journal, **values},
            )
        )

    async def note(self, title: str, outcome: str) -> None:
        """Record an action, and the commands that it sent."""
        self.journal.add(await self._entry(title, outcome))

    async def note_reading(self, outcome: str) -> None:
        """Record the commands that opening a page sent, if any."""
        self.journal.reading = await self._entry("", outcome) if self.commands else None

    async def _entry(self, title: str, outcome: str) -> Entry:
        commands = self.commands
        written = {key for command in commands for key in command.written}
        gone = await self.demo.redis.missing(written) if self.demo.redis else []
        return Entry(
            title, outcome, list(map(show, commands)), frozenset(map(shorten, written)), tuple(gone)
        )

    def _marked(self, response: Response) -> Response:
        response.set_cookie(BROWSER_COOKIE, self.journal.browser, httponly=True, samesite="lax")
        return response


async def visit(http: Request) -> Visit:
    """Return the current request; a FastAPI dependency.

    Raises:
        InvalidRequest: another site's page sent it.
    """
    demo: Demo = http.app.state.demo
    request = demo.web.request(http)
    if request.origin_failure is not None:
        raise InvalidRequest(str(request.origin_failure))
    metadata = {
        "user_agent": http.headers.get("user-agent", "")[:300],
        "address": http.client.host if http.client else "",
    }
    began = demo.redis.log.count if demo.redis else 0
    return Visit(
        demo,
        http,
        demo.auth,
        request,
        demo.journals.of(http.cookies.get(BROWSER_COOKIE)),
        began,
        metadata,
    )


@dataclass(frozen=True, slots=True)
class Login:
    """The session and the user of a request."""

    session: Session
    user: Member


async def login(visit: Annotated[Visit, Depends(visit)]) -> Login:
    """Return the login of the current request; a FastAPI dependency.

    Raises:
        NotAuthenticated: a visitor's request.
    """
    found = await visit.request.validate_user()
    if found is None:
        raise NotAuthenticated
    return Login(found.session, found.user)
