"""The operations of the session store, and which store serves a client."""

from collections.abc import Callable, Iterable
from typing import Any, Protocol

from lucia._redis.cluster import ClusterStore, ScriptedSteps
from lucia._redis.commands import Operation
from lucia._redis.keys import Layout
from lucia._redis.lookup import Lookup
from lucia._redis.revocations import RevocationTracking
from lucia._redis.single_server import SingleServerStore
from lucia._redis.transport.clients import is_cluster
from lucia.models import SessionRow, StoredSession


class Store(Protocol):
    """The operations of the session store, the same for every kind of server."""

    @property
    def lookup(self) -> Lookup:
        """The keys at which a session can be, for a read that needs no operation."""
        ...

    def get(self, session_id: str) -> Operation[StoredSession | None]:
        """Read one session."""
        ...

    def get_once(self, session_id: str) -> Operation[StoredSession | None]:
        """Read one session without a retry.

        Raises:
            MismatchedReply: the reply belongs to another command.
        """
        ...

    def get_successor(self, used_id: str) -> Operation[SessionRow | None]:
        """Follow a used id along its renewals to a live session, each within its grace."""
        ...

    def create(self, row: SessionRow, random_below: Callable[[int], int]) -> Operation[None]:
        """Store a new session.

        Args:
            row: the session.
            random_below: returns a random number from 0 up to its argument, exclusive.
        """
        ...

    def create_capped(
        self, row: SessionRow, limit: int, now: int, random_below: Callable[[int], int]
    ) -> Operation[SessionRow]:
        """Store the session of a new login, and revoke the user's oldest logins beyond the limit.

        Returns:
            The session as it was stored.
        """
        ...

    def renew(
        self, used_id: str, successor: SessionRow, grace: int
    ) -> Operation[SessionRow | None]:
        """Replace a session by its successor, once."""
        ...

    def delete(self, session_ids: Iterable[str]) -> Operation[None]:
        """Revoke sessions and what they were renewed to."""
        ...

    def get_by_user(self, user_id: str, now: int) -> Operation[list[SessionRow]]:
        """Read a user's sessions, in the order of the index.

        Args:
            user_id: the user.
            now: in milliseconds since the epoch, to tell which sessions have expired.
        """
        ...

    def delete_by_user(self, user_id: str, keep: str | None = None) -> Operation[bool]:
        """Revoke a user's sessions but for ``keep``, or what that was renewed to.

        Returns:
            Whether a session was kept.
        """
        ...


ServerStore = SingleServerStore | ClusterStore
"""A store for one kind of server, which works on ids as they are stored."""


def choose_store(
    client: Any, layout: Layout, tracking: RevocationTracking | None = None
) -> ServerStore:
    """Return the store for a client: by scripts on one server, session-first in a cluster."""
    if is_cluster(client):
        return ClusterStore(layout, ScriptedSteps(), tracking)
    return SingleServerStore(layout, tracking)
