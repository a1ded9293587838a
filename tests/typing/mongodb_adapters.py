"""The databases that the MongoDB adapters accept, and the protocols that they have."""

from typing import Any
from uuid import UUID

from bson import ObjectId
from pymongo import AsyncMongoClient, MongoClient
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.client_session import ClientSession

from lucia._async.protocols import (
    AsyncIdAssigningUserAdapter,
    AsyncTransactionalAdapter,
    AsyncUserAdapter,
)
from lucia._sync.protocols import IdAssigningUserAdapter, TransactionalAdapter, UserAdapter
from lucia.adapters.mongodb import AsyncMongoUserAdapter, MongoUserAdapter


def asynchronous(
    client: AsyncMongoClient[dict[str, Any]], wrong: MongoClient[Any], session: AsyncClientSession
) -> None:
    adapter = AsyncMongoUserAdapter(client["app"], user_id=ObjectId)
    users: AsyncUserAdapter = adapter
    assigning: AsyncIdAssigningUserAdapter = adapter
    transactional: AsyncTransactionalAdapter = adapter
    inside: AsyncMongoUserAdapter = adapter.in_transaction(session)
    AsyncMongoUserAdapter(wrong["app"])  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    del users, assigning, transactional, inside


def synchronous(
    client: MongoClient[Any], wrong: AsyncMongoClient[Any], session: ClientSession
) -> None:
    adapter = MongoUserAdapter(client["app"], user_id=UUID)
    users: UserAdapter = adapter
    assigning: IdAssigningUserAdapter = adapter
    transactional: TransactionalAdapter = adapter
    inside: MongoUserAdapter = adapter.in_transaction(session)
    MongoUserAdapter(wrong["app"])  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    MongoUserAdapter(client["app"], user_id="str")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    del users, assigning, transactional, inside
