"""Users and keys in MongoDB, by PyMongo.

The operations are in :mod:`lucia._mongodb.operations`; here they are run.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Self, TypeVar

from pymongo import ReturnDocument
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.collation import Collation
from pymongo.errors import OperationFailure
from pymongo.read_concern import ReadConcern
from pymongo.read_preferences import ReadPreference
from pymongo.write_concern import WriteConcern

from lucia._mongodb import operations as steps
from lucia._mongodb.documents import Document, UserIds, codec, without_values
from lucia._mongodb.operations import Command, Steps
from lucia._rules.user_ids import UserIdType
from lucia.models import UNSET, KeyRow, Unset, UserRow

T = TypeVar("T")

_SIMPLE: Final = Collation(locale="simple")
"""Compares text byte for byte, whatever the collection's own collation is."""


class AsyncMongoUserAdapter:
    """Users and keys in MongoDB, one document each.

    ============== =================================================================================
    collection     fields
    ============== =================================================================================
    ``auth_users`` ``_id``; every other field is an attribute, but for ``__v`` and ours:
                   ``lucia_registration`` and, while a sign-up is stored, ``lucia_unfinished``
    ``auth_keys``  ``_id``, ``user_id``, ``hashed_password`` (or null), ``primary_key``, ``expires``
                   (milliseconds since the epoch, or null), and the same two
    ============== =================================================================================

    These are the collections and fields of Lucia JS's Mongoose adapter, whose documents are read as
    they are.

    ========================== =====================================================================
    method                     commands
    ========================== =====================================================================
    ``get_user``               ``find`` in users by ``_id``
    ``set_user``               ``insert`` in users; with a key ``find`` and ``insert`` in keys,
                               ``insert`` in users, ``findAndModify`` in keys and in users
    ``delete_user``            ``delete`` of all keys by ``user_id``; ``delete`` in users
    ``update_user_attributes`` ``find`` and ``findAndModify`` (``$set``) in users
    ``get_key``                ``find`` in keys by ``_id``, ``find`` in users
    ``get_keys_by_user_id``    ``find`` in users, ``find`` in keys by ``user_id``
    ``set_key``                ``find`` in users, ``find`` and ``insert`` in keys
    ``update_key_password``    ``findAndModify`` in keys by ``_id`` and, with ``expected``,
                               ``hashed_password``; ``find`` in users
    ``delete_non_primary_key`` for each id ``delete`` in keys by ``_id``, unless ``primary_key``
    ``delete_keys_by_user_id`` ``find`` in users, ``delete`` of all keys by ``user_id``
    ========================== =====================================================================

    A key that is left from a crash is replaced by ``update`` when its id is wanted again. Text is
    compared with the simple collation, byte for byte.

    Writes wait for the majority of the replica set, and reads are of what a majority has, on the
    primary, whatever the database's own settings are; its ``wtimeout`` is kept. In a transaction
    the transaction's settings hold.

    If MongoDB refuses a command, the driver's error is raised with its class, code and labels, but
    without its message, which may quote ids and hashes. For a duplicate ``details["keyPattern"]``
    names the fields of the index.

    Args:
        database: the database with the collections. Its client is never closed here.
        user_id: the type of the users' ids in ``_id`` and ``user_id``: ``ObjectId``, ``str``,
            ``int``, ``UUID`` or a :class:`~lucia.UserIdType` of another type that BSON has.
        user_collection, key_collection: the names of the collections.

    Raises:
        TypeError: ``database`` is no database of this flavour, or ``user_id`` is no such type.
    """

    def __init__(
        self,
        database: AsyncDatabase[Any],
        *,
        user_id: type[Any] | UserIdType[Any] = str,
        user_collection: str = "auth_users",
        key_collection: str = "auth_keys",
    ) -> None:
        if not isinstance(database, AsyncDatabase):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(
                f"{type(self).__name__} takes a database of {AsyncDatabase.__module__}, such as "
                f"client['app'], not {type(database).__module__}.{type(database).__qualname__}"
            )
        self._database = database
        self._user_id = user_id
        self._names = (user_collection, key_collection)
        self._session: AsyncClientSession | None = None
        self._format = steps.Format(UserIds(user_id), codec(database.codec_options))
        self._collections = {
            "users": self._collection(user_collection),
            "keys": self._collection(key_collection),
        }

    @property
    def user_id_type(self) -> UserIdType[Any]:
        """The type of the users' ids; ``generate`` creates them in :meth:`add_user`."""
        return self._format.user_ids.type

    def _collection(self, name: str) -> AsyncCollection[Document]:
        return self._database.get_collection(
            name,
            codec_options=self._format.codec,
            read_preference=ReadPreference.PRIMARY,
            read_concern=ReadConcern("majority"),
            write_concern=WriteConcern(
                "majority", wtimeout=self._database.write_concern.document.get("wtimeout")
            ),
        )

    def in_transaction(self, transaction: AsyncClientSession, /) -> Self:
        """Return an adapter that does everything in this session's transaction.

        After an error, also one of ours, abort the transaction: it may have stored a part.

        Raises:
            TypeError: this is no session of the driver's.
        """
        if not isinstance(transaction, AsyncClientSession):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(
                f"in_transaction() takes an {AsyncClientSession.__name__} of PyMongo, not "
                f"{type(transaction).__module__}.{type(transaction).__qualname__}"
            )
        users, keys = self._names
        adapter = type(self)(
            self._database, user_id=self._user_id, user_collection=users, key_collection=keys
        )
        adapter._session = transaction
        return adapter

    def open_transaction(self) -> object | None:
        """Return the caller's session while its transaction is open; None without one.

        PyMongo has no public name of a transaction: the next one of a session looks the same.
        """
        session = self._session
        return session if session is not None and session.in_transaction else None

    async def create_indexes(self) -> None:
        """Create the index that the keys need, on ``user_id``, unless it exists."""
        await self._collections["keys"].create_index("user_id", collation=_SIMPLE)

    async def get_user(self, user_id: str, /) -> UserRow | None:
        return await self._run(steps.get_user(self._format, user_id))

    async def set_user(
        self, user_id: str, attributes: Mapping[str, Any], key: KeyRow | None, /
    ) -> UserRow:
        return await self._run(steps.set_user(self._format, user_id, attributes, key))

    async def add_user(
        self, attributes: Mapping[str, Any], make_key: Callable[[str], KeyRow] | None, /
    ) -> UserRow:
        """Store a new user with a new id: what ``generate`` of the ``UserIdType`` returns.

        Without it an ``ObjectId``, its text, or a random ``UUID``.

        Raises:
            DuplicateKeyId: as :meth:`set_user`.
            AutoUserIdGenerationNotSupported: ids are of another type, without ``generate``.
        """
        user_id = self._format.user_ids.new()
        return await self.set_user(
            user_id, attributes, None if make_key is None else make_key(user_id)
        )

    async def delete_user(self, user_id: str, /) -> None:
        await self._run(steps.delete_user(self._format, user_id))

    async def update_user_attributes(
        self, user_id: str, attributes: Mapping[str, Any], /
    ) -> UserRow | None:
        return await self._run(steps.update_user_attributes(self._format, user_id, attributes))

    async def get_key(self, key_id: str, /) -> KeyRow | None:
        return await self._run(steps.get_key(self._format, key_id))

    async def get_keys_by_user_id(self, user_id: str, /) -> Sequence[KeyRow]:
        return await self._run(steps.get_keys_by_user_id(self._format, user_id))

    async def set_key(self, key: KeyRow, /) -> None:
        await self._run(steps.set_key(self._format, key))

    async def update_key_password(
        self, key_id: str, hashed_password: str | None, /, *, expected: str | Unset | None = UNSET
    ) -> KeyRow | None:
        return await self._run(
            steps.update_key_password(self._format, key_id, hashed_password, expected)
        )

    async def delete_non_primary_key(self, /, *key_ids: str) -> int:
        return await self._run(steps.delete_non_primary_key(key_ids))

    async def delete_keys_by_user_id(self, user_id: str, /) -> None:
        await self._run(steps.delete_keys_by_user_id(self._format, user_id))

    async def _run(self, operation: Steps[T]) -> T:
        """Run an operation, which may handle the refusal of a command."""
        try:
            command = next(operation)
            while True:
                try:
                    reply = await self._execute(command)
                except OperationFailure as error:
                    # After a refusal a transaction can only be aborted.
                    if self._session is not None:
                        raise
                    command = operation.throw(error)
                else:
                    command = operation.send(reply)
        except StopIteration as end:
            result: T = end.value
            return result

    async def _execute(self, command: Command) -> Any:
        try:
            return await self._send(command)
        except OperationFailure as error:
            failure = without_values(error)
        # Not in the handler: there the driver's error, with all values, would become its context.
        raise failure

    async def _send(self, command: Command) -> Any:
        collection = self._collections[command.collection]
        session = self._session
        match command:
            case steps.Insert(_, document):
                await collection.insert_one(document, session=session)
                return None
            case steps.Replace(_, filter_, document):
                replaced = await collection.replace_one(
                    filter_, document, session=session, collation=_SIMPLE
                )
                return replaced.matched_count
            case steps.Update(_, filter_, update):
                return await collection.find_one_and_update(
                    filter_,
                    update,
                    return_document=ReturnDocument.AFTER,
                    session=session,
                    collation=_SIMPLE,
                )
            case steps.Delete(_, filter_):
                deleted = await collection.delete_one(filter_, session=session, collation=_SIMPLE)
                return deleted.deleted_count
            case steps.DeleteAll(_, filter_):
                await collection.delete_many(filter_, session=session, collation=_SIMPLE)
                return None
            case steps.FindAll(_, filter_):
                found = collection.find(filter_, session=session, collation=_SIMPLE)
                return await found.to_list()
            case _:
                return await collection.find_one(command.filter, session=session, collation=_SIMPLE)
