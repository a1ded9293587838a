"""Django's own session, beside a login by the library."""

from typing import Any, Final

from django.contrib.auth import SESSION_KEY

__all__ = ["DjangoSession"]

_OWNER: Final = "_lucia_user_id"
"""The key in the session for the id of the user whose data it has."""


class DjangoSession:
    """Does to Django's session what a login and a logout by ``django.contrib.auth`` do.

    Its methods may use the database.

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

    @property
    def is_modified(self) -> bool:
        """Whether this request has written to the session."""
        return self.exists and self._store.modified

    def set_owner(self, user_id: object) -> None:
        """Note whose data the session has."""
        self._store[_OWNER] = str(user_id)

    def log_in(self, user_id: object, *, is_django_user: bool) -> None:
        """Give the session a new key: somebody else may have planted the old one.

        If it has data of somebody else, these are deleted.

        Args:
            user_id: who is logged in now.
            is_django_user: whether users of ``django.contrib.auth`` have the same ids.
        """
        owners = {self._store.get(_OWNER), self._store.get(SESSION_KEY) if is_django_user else None}
        if owners - {None, str(user_id)}:
            self._store.flush()
        else:
            self._store.cycle_key()

    def log_out(self) -> None:
        """Delete the session, unless somebody is logged in by ``django.contrib.auth``, too."""
        if SESSION_KEY not in self._store:
            self._store.flush()
