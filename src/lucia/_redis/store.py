"""Which protocol the store follows: by what the client is."""

from collections.abc import Callable, Iterable
from typing import Any, Protocol

from lucia._redis.cluster import ClusterStore, ScriptedSteps, SlotSteps
from lucia._redis.commands import Operation
from lucia._redis.lookup import Lookup
from lucia._redis.records import Layout
from lucia._redis.single_server import SingleServerStore
from lucia._redis.transport.clients import is_cluster
from lucia.models import SessionRow


class Store(Protocol):
    """The operations of the store: the same for every kind of server."""

    @property
    def lookup(self) -> Lookup:
        """Where a session is looked for: all that ``get`` does, where nothing is in its way."""
        ...

    def get(self, session_id: str) -> Operation[SessionRow | None]:
        """Read one session."""
        ...

    def get_once(self, session_id: str) -> Operation[SessionRow | None]:
        """Read one session.

        Raises:
            MismatchedReply: the reply was another's.
        """
        ...

    def get_successor(self, used_id: str) -> Operation[SessionRow | None]:
        """Follow a used id to the live end of its chain of renewals."""
        ...

    def create(self, row: SessionRow, random_below: Callable[[int], int]) -> Operation[None]:
        """Store a new session."""
        ...

    def create_capped(
        self, row: SessionRow, limit: int, now: int, random_below: Callable[[int], int]
    ) -> Operation[SessionRow]:
        """Store the session of a new login, end the user's oldest logins beyond the limit, and return the session as stored."""
        ...

    def renew(
        self, used_id: str, successor: SessionRow, grace: int
    ) -> Operation[SessionRow | None]:
        """Put ``successor`` in the place of a session, once."""
        ...

    def delete(self, session_ids: Iterable[str]) -> Operation[None]:
        """End sessions and what they were renewed to."""
        ...

    def get_by_user(self, user_id: str, now: int) -> Operation[list[SessionRow]]:
        """Read a user's sessions, in the order of the index.

        ``now``, in milliseconds since the epoch, tells which of them are dead.
        """
        ...

    def delete_by_user(self, user_id: str, keep: str | None = None) -> Operation[bool]:
        """End a user's sessions, but for ``keep`` or what that was renewed to; says whether one was kept."""
        ...


class StoreProtocol(Store, Protocol):
    """The same on ids as they are stored, by one protocol."""

    @property
    def steps(self) -> SlotSteps:
        """What is done at one key, for repairs."""
        ...

    def delete_records(self, session_ids: Iterable[str]) -> Operation[None]:
        """Revoke sessions and what they were renewed to, and leave their ids in the indexes.

        What is dead there is removed when the index is read.
        """
        ...

    def renew(
        self, used_id: str, successor: SessionRow, grace: int, sealed: str | None = None
    ) -> Operation[SessionRow | None]:
        """Put ``successor`` in the place of a session, once; the marker has what is ``sealed``, which only who sealed it follows."""
        ...


def choose_store(client: Any, layout: Layout) -> StoreProtocol:
    """One script for each change where one server has all keys; sessions first in a cluster."""
    return (
        ClusterStore(layout, ScriptedSteps()) if is_cluster(client) else SingleServerStore(layout)
    )
