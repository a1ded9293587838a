"""One user's logins, and the counts of all: what the commands need of a store of either kind."""

from typing import Any, NamedTuple

from lucia._redis.statistics import Count
from lucia._rules.sessions import session_state, system_clock
from lucia._rules.user_ids import TEXT_IDS, UserIdType
from lucia._sync.auth import Auth
from lucia._sync.protocols import RenewingSessionAdapter, UserAdapter
from lucia.errors import InvalidUserId
from lucia.models import Device, User, handle_of

__all__ = ["Logins", "Statistics"]


class Statistics(NamedTuple):
    """The live sessions, the users who have one, and what was read for that.

    Args:
        sessions: how many live sessions there are.
        users: how many users have a live session.
        read: how many keys were read, or rows counted.
        exact: whether all were read.
    """

    sessions: Count
    users: Count
    read: int
    exact: bool


class Logins:
    """Where one user is logged in, in either kind of store.

    Args:
        user_id: the user.
        adapter: stores the sessions.
        users: stores the users; None if the store does not know them.
    """

    def __init__(
        self, user_id: str, adapter: RenewingSessionAdapter, users: UserAdapter | None = None
    ) -> None:
        self._text = user_id
        self._adapter = adapter
        self._ids: UserIdType[Any] = getattr(users, "user_id_type", TEXT_IDS)
        self._auth: Auth[User[Any], Any] = Auth(
            sessions=adapter,
            users=users,
            user_id=self._ids,
            env="PROD",
            auto_database_cleanup=False,
            throttle=None,
        )

    @property
    def _user_id(self) -> Any:
        """The user's id, in the type that the database has."""
        try:
            return self._ids.decode(self._text)
        except ValueError:
            raise InvalidUserId from None

    def list(self) -> list[Device]:
        """Return the logins, the newest first.

        Raises:
            InvalidUserId: there is no such user, and the store can tell.
        """
        return self._auth.get_all_user_sessions(self._user_id)

    def revoke(self, handle: str) -> None:
        """Revoke one login, whatever it was renewed to."""
        self._auth.invalidate_user_session(self._user_id, handle)

    def revoke_all(self) -> None:
        """Revoke all logins."""
        self._auth.invalidate_all_user_sessions(self._user_id)

    def revoke_others(self, keep: str) -> None:
        """Revoke all logins but the one with this handle, whatever that is renewed to meanwhile.

        If there is no such login, nothing is revoked. If it is revoked by somebody else at the same
        time, all are.
        """
        now = system_clock()
        rows = [
            row
            for row in self._adapter.get_sessions_by_user_id(self._text)
            if row.user_id == self._text
            and handle_of(row) == keep
            and session_state(row, now) is not None
        ]
        if rows:
            # Not by Auth's keep=, which takes the id that the user has: this one is as it is
            # stored, which is a hash if the application has id_keys. The adapter follows renewals
            # from it.
            newest = max(rows, key=lambda row: row.idle_expires)
            self._adapter.delete_other_sessions(self._text, newest.id)
