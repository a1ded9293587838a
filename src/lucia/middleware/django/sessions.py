"""Django's own session, beside a login by the library."""

from typing import Any

from django.contrib.auth import SESSION_KEY

__all__ = ["DjangoSession"]


class DjangoSession:
    """Does to Django's session what a login and a logout by ``django.contrib.auth`` do.

    The methods may use the database.

    Args:
        store: ``request.session``; None without ``SessionMiddleware``.
    """

    __slots__ = ("_store",)

    def __init__(self, store: Any) -> None:
        self._store = store

    @property
    def exists(self) -> bool:
        """Whether the browser has such a session."""
        return self._store is not None and not self._store.is_empty()

    def log_in(self, before: object, user_id: object) -> None:
        """Give the session a new key: somebody else may have planted the old one.

        Its data are deleted if somebody else was logged in.

        Args:
            before: who was logged in; None for nobody.
            user_id: who is logged in now.
        """
        if before is not None and before != user_id:
            self._store.flush()
        else:
            self._store.cycle_key()

    def log_out(self) -> None:
        """Delete the session, unless somebody is logged in by ``django.contrib.auth``, too."""
        if SESSION_KEY not in self._store:
            self._store.flush()
