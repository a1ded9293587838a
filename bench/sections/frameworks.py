"""The cost of a session in each framework, beside that of what its users have today."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple

from bench.http_load import RATE, load_rows, measure_loads, write_cookies
from bench.rows import Row, Want
from bench.section import QUICK, Goal, Plan, Section
from bench.subject_lists import AHEAD, LEASE, NEAR, NO_AUTH, OURS
from bench.subjects import Subject, started
from tools.servers import own_server

__all__ = ["SECTION"]

NAME: Final = "frameworks"
USER: Final = "lucia-auth, with the user's row"
DJANGO: Final = "Django's sessions"
DJANGO_USER: Final = "django.contrib.auth, with the user's row"

CALLERS: Final = 64
MANY: Final = 256
QUICK_CALLERS: Final = (4,)
"""With ``--quick`` all applications of a framework are loaded at once, for a second. With more
connections the slowest of them might not answer a single request by then."""

REMAINS: Final = 0.85
"""The goal of async frameworks: the part of the requests without authentication that remains."""


class Application(NamedTuple):
    """An application: the module in ``bench.web``, and its settings."""

    module: str
    settings: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Framework:
    """A framework and its applications.

    Args:
        applications: the applications by the names in the report.
        against: for an application of ours, the one it is compared with, which reads the same.
        is_async: whether it is served by uvicorn, and not by waitress.
        callers: the numbers of connections.
        has_database: whether the applications use a database.
    """

    applications: Mapping[str, Application]
    against: Mapping[str, str]
    is_async: bool = True
    callers: tuple[int, ...] = (CALLERS, MANY)
    has_database: bool = False


def _by_library(module: str, **libraries: str) -> dict[str, Application]:
    """Return the applications of a module by their names."""
    return {
        name: Application(f"frameworks.{module}", {"library": library})
        for library, name in {"none": NO_AUTH, "lucia": OURS, **libraries}.items()
    }


def _django(server: Literal["wsgi", "asgi"]) -> Framework:
    libraries = {"sessions": DJANGO, "lucia_user": USER, "sessions_user": DJANGO_USER}
    return Framework(
        applications={
            name: Application(module, {**settings, "server": server})
            for name, (module, settings) in _by_library("django", **libraries).items()
        },
        against={OURS: DJANGO, USER: DJANGO_USER},
        is_async=server == "asgi",
        # Under ASGI each request with Django's own sessions waits for threads several times. With
        # more connections no request is answered in time.
        callers=(CALLERS,),
        has_database=True,
    )


FRAMEWORKS: Final[Mapping[str, Framework]] = {
    "Starlette": Framework(
        applications={
            **_by_library("starlette", starsessions="starsessions"),
            AHEAD: Application(
                "frameworks.starlette", {"library": "lucia", "validate_ahead": True}
            ),
            NEAR: Application("frameworks.starlette", {"library": "lucia", "near_cache": LEASE}),
        },
        against={OURS: "starsessions"},
    ),
    "FastAPI": Framework(
        applications={
            NO_AUTH: Application("bare", {"dependency": None}),
            OURS: Application("ours", {}),
            "fastapi-users": Application("fastapi_users", {}),
            AHEAD: Application("ours", {"validate_ahead": True}),
            NEAR: Application("ours", {"near_cache": LEASE}),
        },
        against={OURS: "fastapi-users"},
    ),
    "Litestar": Framework(
        applications={
            **_by_library("litestar", own="Litestar's SessionAuth"),
            NEAR: Application("frameworks.litestar", {"library": "lucia", "near_cache": LEASE}),
        },
        against={OURS: "Litestar's SessionAuth"},
    ),
    "Quart": Framework(
        applications=_by_library("quart", quart_session="Quart-Session"),
        against={OURS: "Quart-Session"},
    ),
    "Django, ASGI": _django("asgi"),
    "Django, WSGI": _django("wsgi"),
    "Flask": Framework(
        applications=_by_library("flask", flask_login="Flask-Login, Flask-Session"),
        against={OURS: "Flask-Login, Flask-Session"},
        is_async=False,
        callers=(CALLERS,),
    ),
}


def measure(plan: Plan) -> Iterator[Row]:
    """Load the applications of one framework after another, each time on a Redis of their own."""
    is_quick = plan.size is QUICK
    for name, framework in FRAMEWORKS.items():
        with (
            own_server("redis-server", plan.folder) as redis,
            started(redis.url, *_subjects(name, framework, plan)) as subjects,
        ):
            cookies = {
                subject: write_cookies(subject, plan, plan.folder / f"cookies-{number}")
                for number, subject in enumerate(subjects)
            }
            for callers in QUICK_CALLERS if is_quick else framework.callers:
                at_once = len(subjects) if is_quick else 1
                found = measure_loads(cookies, callers, plan, at_once=at_once)
                for subject, loads in found.items():
                    setting: dict[str, str | int] = {"framework": name, "connections": callers}
                    yield from load_rows(NAME, subject.subject.name, setting, loads)


def _subjects(name: str, framework: Framework, plan: Plan) -> Iterator[Subject]:
    for number, (application, (module, settings)) in enumerate(framework.applications.items()):
        own = dict(settings)
        if framework.is_async:
            own |= {"http": "httptools", "tuned": False}
        if framework.has_database:
            own["database"] = str(plan.folder / f"{name}-{number}.sqlite3")
        yield Subject(
            name=application,
            library=module,
            loop="uvloop" if framework.is_async else "threads",
            settings=own,
            program="web_worker",
        )


def _goals() -> Iterator[Goal]:
    for name, framework in FRAMEWORKS.items():
        if framework.is_async:
            for callers in framework.callers:
                yield _goal(name, OURS, NO_AUTH, callers, REMAINS)
        for ours, other in framework.against.items():
            yield _goal(name, ours, other, CALLERS, 1)


def _goal(framework: str, ours: str, other: str, callers: int, bound: float) -> Goal:
    setting: dict[str, str | int] = {
        "framework": framework,
        "what": RATE,
        "connections": callers,
    }
    return Goal(
        text=f"requests to {framework} with {ours}, against {other}: {callers} connections",
        row=Want(NAME, ours, setting),
        base=Want(NAME, other, setting),
        bound=bound,
    )


SECTION: Final = Section(
    name=NAME,
    title="A request in each framework",
    about=(
        "One small application of each framework, by the number of connections of wrk, with a "
        "hundred cookies in turn. The endpoint returns the id of the logged-in user as JSON; in "
        "brackets, the ratio to the same endpoint without authentication. One process serves it: "
        "`uvicorn[standard]`, for Flask and Django under WSGI waitress with eight threads. Each "
        "library is set up as its documentation says, with sessions in the same Redis and users in "
        "memory. A request reads the session alone; *with the user's row* it also reads the user "
        "from SQLite, by `request.user`. starsessions, Litestar's `SessionAuth` and Flask-Session "
        "also write the session after each request, as is their default. Django's sessions are "
        "those of `cache`; with `cached_db` reading one is the same. Under ASGI Django's cache "
        "opens a connection to Redis for each request."
    ),
    columns="connections",
    base=Want(NAME, NO_AUTH, {}),
    measure=measure,
    goals=tuple(_goals()),
)
