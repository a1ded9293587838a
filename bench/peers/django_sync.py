"""Django, with its cache sessions over its own Redis cache, loaded as its middleware does."""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import django  # type: ignore[import-untyped] # it has no types
from django.conf import settings  # type: ignore[import-untyped]

from bench.peer import RECORD, Peer
from bench.peers import CONNECTIONS, KEEPALIVE


@contextmanager
def open_peer(url: str) -> Generator[Peer]:
    """Configure Django as the documentation shows."""
    cache = {
        "BACKEND": "django.core.cache.backends.redis.RedisCache",
        "LOCATION": url,
        "OPTIONS": {"max_connections": CONNECTIONS, "socket_keepalive": KEEPALIVE},
    }
    settings.configure(
        CACHES={"default": cache}, SESSION_ENGINE="django.contrib.sessions.backends.cache"
    )
    django.setup()
    # The import reads the settings.
    from django.contrib.sessions.backends.cache import SessionStore  # type: ignore[import-untyped]

    def create(user_id: str) -> str:
        session: Any = SessionStore()
        session.update(RECORD | {"user_id": user_id})
        session.create()
        return str(session.session_key)

    def validate(session_key: str) -> str | None:
        session: Any = SessionStore(session_key)
        user_id: str | None = session.get("user_id")
        return user_id

    yield Peer(create=create, validate=validate, user_id=lambda user_id: user_id)
