"""Session ids on their way from one store to another: hashed, or as they are."""

from lucia._copy.stores import CopyError, UsedSession
from lucia._rules.id_hashes import HashedIds, is_hash
from lucia.models import SessionRow


class IdConversion:
    """Turns ids as the source stores them into ids as the destination stores them.

    A hash stays as it is: only the id that nobody has could be hashed anew.

    Args:
        ids: hashes ids, with the keys of the destination; None if that stores ids as they are.
    """

    def __init__(self, ids: HashedIds | None) -> None:
        self._ids = ids

    def stored(self, session_id: str) -> str:
        """Return what the destination stores for an id of the source.

        Raises:
            CopyError: it is a hash, and the destination stores ids as they are.
        """
        if is_hash(session_id):
            if self._ids is None:
                raise CopyError(
                    "the source stores hashes of session ids, which can't be turned back into ids: "
                    "copy to a store with the same id_keys, and give these keys with "
                    "--id-keys-file or in LUCIA_ID_KEYS"
                )
            return session_id
        return session_id if self._ids is None else self._ids.stored(session_id)

    def row(self, row: SessionRow) -> SessionRow:
        """Return a session as the destination stores it.

        Raises:
            CopyError: as :meth:`stored`.
        """
        if self.stored(row.id) == row.id or self._ids is None:
            return row
        return self._ids.to_stored(row)

    def used(self, used: UsedSession) -> UsedSession | None:
        """Return a used session as the destination stores it.

        None if its successor is sealed, and the keys do not open it.

        Raises:
            CopyError: as :meth:`stored`.
        """
        stored = self.stored(used.id)
        # The seal is bound to the stored id: if that does not change, neither does the seal.
        if self._ids is None or stored == used.id:
            return used._replace(id=stored, successor=self.stored(used.successor))
        successor = self._ids.successor(used.id, used)
        if successor is None:
            return None
        return used._replace(
            id=stored,
            successor=self.stored(used.successor),
            sealed=self._ids.seal(used.id, stored, successor),
        )
