"""A site of the Django project of the tests: its views, settings, stores and clients."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from types import ModuleType
from typing import Any, Final

import pytest
from django.test import AsyncClient, Client, override_settings
from django.urls import URLPattern, URLResolver, path

from lucia import AsyncAuth, Auth, ScryptHash, Session
from lucia._rules.sessions import system_clock
from lucia.adapters.django import AsyncDjangoUserAdapter, DjangoUserAdapter
from lucia.adapters.memory import AsyncMemoryAdapter, MemoryAdapter

__all__ = ["LUCIA", "MIDDLEWARE", "NAME", "ORIGIN", "PASSWORD", "Site", "site"]

NAME: Final = "auth_session"
ORIGIN: Final = "http://testserver"
PASSWORD: Final = "correct horse"

MIDDLEWARE: Final = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "lucia.middleware.django.LuciaMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
LUCIA: Final = {"AUTH": f"{__name__}.auth", "ASYNC_AUTH": f"{__name__}.async_auth"}

auth: Any = None
"""The ``Auth`` of the running test, which the setting names by its path."""

async_auth: Any = None
"""The ``AsyncAuth`` of the running test."""


class ToSqlite:
    """Sends every query to the SQLite database of the tests: a router."""

    def db_for_read(self, model: object, **_: object) -> str:
        """Return the name of the database."""
        return "sqlite"

    db_for_write = db_for_read


class Sessions(MemoryAdapter):
    """Sessions in memory, which notes each read, and is down if a test says so."""

    def __init__(self, site: "Site") -> None:
        super().__init__(clock=site.clock)
        self._site = site

    def get_session(self, session_id: str, /) -> Any:
        """Return the session with this id."""
        self._site.note("sync")
        return super().get_session(session_id)


class AsyncSessions(AsyncMemoryAdapter):
    """The same sessions for async code."""

    def __init__(self, site: "Site") -> None:
        super().__init__(clock=site.clock)
        self._site = site
        self._sessions = site.sessions._sessions
        self._renewals = site.sessions._renewals

    async def get_session(self, session_id: str, /) -> Any:
        """Return the session with this id."""
        self._site.note("async")
        return await super().get_session(session_id)


class Site:
    """A site whose users are in SQLite, and whose sessions are in memory.

    Its ``reads`` are those of the session store, by the flavour that read.
    """

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self.now = system_clock()
        self.reads: list[str] = []
        self.failure: Exception | None = None
        self.sessions = Sessions(self)
        settings: Any = {
            "env": "DEV",
            "clock": self.clock,
            "hash": ScryptHash(ln=4, r=1, p=1),
            "user_id": int,
        }
        self.auth: Auth[Any, Any] = Auth(
            users=DjangoUserAdapter(), sessions=self.sessions, **settings
        )
        self.async_auth: AsyncAuth[Any, Any] = AsyncAuth(
            users=AsyncDjangoUserAdapter(), sessions=AsyncSessions(self), **settings
        )

    def clock(self) -> int:
        """Return the time."""
        return self.now

    def note(self, flavour: str) -> None:
        """Note that the session store is read, or raise its error."""
        self.reads.append(flavour)
        if self.failure is not None:
            raise self.failure

    def use_auths(self) -> None:
        """Let the paths in the setting lead to the site's own ``Auth`` and ``AsyncAuth``."""
        global auth, async_auth
        auth, async_auth = self.auth, self.async_auth

    def serve(
        self,
        view: Callable[..., Any] | None = None,
        *urls: URLPattern | URLResolver,
        middleware: list[str] = MIDDLEWARE,
        settings: dict[str, Any] | None = None,
        **lucia: Any,
    ) -> None:
        """Serve this view at ``/``, and further URLs."""
        self.use_auths()
        urlconf: Any = ModuleType("urls_of_a_test")
        urlconf.urlpatterns = [*urls, *([] if view is None else [path("", view)])]
        members = {name: value for name, value in {**LUCIA, **lucia}.items() if value is not None}
        self._stack.enter_context(
            override_settings(
                ROOT_URLCONF=urlconf, MIDDLEWARE=middleware, LUCIA=members, **(settings or {})
            )
        )

    def client(self, session: Session[Any] | None = None, /, **options: Any) -> Any:
        """Return a client of the site's own pages."""
        settings: Any = {"raise_request_exception": False, "HTTP_ORIGIN": ORIGIN, **options}
        return self._with_cookie(Client(**settings), session)

    def async_client(self, session: Session[Any] | None = None, /, **headers: str) -> Any:
        """Return a client that uses the site by ASGI."""
        # By keyword: Django gives what AsyncClient(headers=...) takes another name.
        settings: Any = {"raise_request_exception": False, "origin": ORIGIN, **headers}
        return self._with_cookie(AsyncClient(**settings), session)

    def _with_cookie(self, client: Any, session: Session[Any] | None) -> Any:
        if session is not None:
            client.cookies[NAME] = session.session_id
        return client

    def log_in(self, user_id: int = 1) -> Session[int]:
        """Create a session of the user with this id, whom the session store does not know."""
        return self.auth.create_session(user_id)

    def idle_session(self, user_id: int = 1) -> Session[int]:
        """Create a session that is idle now."""
        session = self.log_in(user_id)
        self.now += 25 * 3_600_000
        return session

    def is_live(self, session_id: str) -> bool:
        """Return whether there is such a session."""
        return session_id in self.sessions._sessions


@pytest.fixture
def site(django_sqlite: str) -> Iterator[Site]:
    """Yield a site over empty stores."""
    with ExitStack() as stack:
        stack.enter_context(
            override_settings(
                ALLOWED_HOSTS=["testserver"],
                DATABASE_ROUTERS=[ToSqlite()],
                PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"],
                SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies",
                TEMPLATES=[
                    {
                        "BACKEND": "django.template.backends.django.DjangoTemplates",
                        "APP_DIRS": True,
                        "OPTIONS": {
                            "context_processors": [
                                "django.template.context_processors.request",
                                "django.contrib.auth.context_processors.auth",
                                "django.contrib.messages.context_processors.messages",
                            ]
                        },
                    }
                ],
            )
        )
        yield Site(stack)
