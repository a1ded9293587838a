"""``Auth`` inside a transaction of the application's.

Other transactions do not see what happens in one before it is committed. So a password that is
changed in it still logs people in elsewhere until then, and a login of that time would survive the
revocation that goes with the change. Therefore revocations happen twice: at once, so that a crash
after the commit leaves no session alive, and again when the block ends, after the commit.
"""

from lucia._async.protocols import AsyncTransactionalAdapter
from lucia.models import KeyRow

__all__ = ["AsyncUncommittedChanges"]


class AsyncUncommittedChanges:
    """The changes of a transaction whose revocations are repeated after its commit.

    Args:
        adapter: an adapter that takes part in the transaction.
    """

    def __init__(self, adapter: AsyncTransactionalAdapter) -> None:
        self._adapter = adapter
        self._transactions: list[object] = []
        self._is_closed = False
        self.sessions: dict[str, set[str]] = {}
        """The ids of the sessions to keep, by the users whose other sessions are revoked."""
        self.keys: list[KeyRow] = []
        """The keys whose change revokes single-use keys."""
        self.users: set[str] = set()
        """The users to remove from the cache."""

    def note_revocation(self, user_id: str, keep: str | None) -> None:
        """Note that a user's sessions were revoked but for ``keep``."""
        self.note_transaction()
        self.sessions[user_id] = set() if keep is None else {keep}

    def note_session(self, user_id: str, session_id: str) -> None:
        """Note that a session was created in this block: it is not revoked at its end."""
        if user_id in self.sessions:
            self.sessions[user_id].add(session_id)

    def note_key(self, changed: KeyRow) -> None:
        """Note that a key was changed."""
        self.note_transaction()
        self.keys.append(changed)

    def note_user(self, user_id: str) -> None:
        """Note that a user was changed."""
        self.note_transaction()
        self.users.add(user_id)

    def note_transaction(self) -> None:
        """Note the transaction that is open now: call it after a change too, which may begin one.

        Raises:
            RuntimeError: the block has ended.
        """
        if self._is_closed:
            raise RuntimeError("this block of in_transaction() has ended")
        found = self._adapter.open_transaction()
        if found is not None and not self._is_noted(found):
            self._transactions.append(found)

    def is_open(self) -> bool:
        """Return whether a transaction in which something was noted has not ended."""
        found = self._adapter.open_transaction()
        return found is not None and self._is_noted(found)

    def close(self) -> None:
        """End the block: nothing can be noted any more."""
        self._is_closed = True

    def _is_noted(self, transaction: object) -> bool:
        return any(transaction is each for each in self._transactions)
