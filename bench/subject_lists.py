"""The subjects of the sections."""

from collections.abc import Mapping
from typing import Any, Final, Literal

from bench.subjects import Subject

__all__ = [
    "AHEAD",
    "BARE",
    "LEASE",
    "LOOPS",
    "LUCIA_JS",
    "NEAR",
    "NO_AUTH",
    "OURS",
    "OURS_WITH",
    "everybody",
    "in_a_cluster",
    "ours",
    "sync",
]

OURS: Final = "lucia-auth"
AHEAD: Final = "lucia-auth, validated ahead"
NO_AUTH: Final = "no authentication"
BARE: Final = "bare redis-py"
LUCIA_JS: Final = "lucia 2.7.7 on Node"

NEAR: Final = "lucia-auth, near-cache"
PLAIN: Final = "lucia-auth, not coalesced"
LEASE: Final = 1.0
"""The lease of the near-cache, in seconds."""

OURS_WITH: Final[Mapping[str, Mapping[str, Any]]] = {OURS: {}, NEAR: {"near_cache": LEASE}}
"""The adapter's settings of this library, by its name in the report."""

OTHERS: Final = {
    BARE: "redis_py",
    "fastapi-users": "fastapi_users",
    "starsessions": "starsessions",
    "crudauth": "crudauth",
}
SYNC: Final = {
    OURS: "ours_sync",
    BARE: "redis_py_sync",
    "Django cache sessions": "django_sync",
    "Flask-Session": "flask_sync",
}
LOOPS: Final[tuple[Literal["asyncio", "uvloop"], ...]] = ("asyncio", "uvloop")


def ours(loop: Literal["asyncio", "uvloop"] = "asyncio") -> Subject:
    """Return this library with its default settings."""
    return Subject(name=OURS, library="ours", loop=loop)


def everybody() -> list[Subject]:
    """Return all async libraries on both event loops, and Lucia JS on Node.

    This library is also measured without coalescing.
    """
    return [
        *(
            Subject(name=name, library="ours", loop=loop, settings=settings)
            for loop in LOOPS
            for name, settings in OURS_WITH.items()
        ),
        Subject(name=PLAIN, library="ours", loop="asyncio", settings={"coalesce": False}),
        Subject(name=LUCIA_JS, library="lucia", loop="Node"),
        *(
            Subject(name=name, library=library, loop=loop)
            for loop in LOOPS
            for name, library in OTHERS.items()
        ),
    ]


def in_a_cluster() -> list[Subject]:
    """Return the libraries that support clusters."""
    return [
        *(
            Subject(name=name, library="ours", loop=loop, settings={"cluster": True, **settings})
            for loop in LOOPS
            for name, settings in OURS_WITH.items()
        ),
        *(
            Subject(name=BARE, library="redis_py", loop=loop, settings={"cluster": True})
            for loop in LOOPS
        ),
    ]


def sync() -> list[Subject]:
    """Return all sync libraries."""
    return [
        Subject(name=name, library=library, loop="threads", program="sync_worker")
        for name, library in SYNC.items()
    ]
