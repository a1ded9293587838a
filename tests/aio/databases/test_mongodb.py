"""The MongoDB user adapter on two servers that speak MongoDB's protocol."""

import traceback
from collections import Counter
from collections.abc import AsyncIterator
from functools import partial
from hashlib import sha256
from typing import Any, Final
from uuid import UUID, uuid4
from zlib import crc32

import pytest
from bson import ObjectId
from bson.errors import InvalidDocument
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import AutoReconnect, DuplicateKeyError, OperationFailure

from lucia import AsyncAuth, PrimaryKey, UserIdType
from lucia._testing.racing_calls import AsyncRacingCalls
from lucia.adapters.memory import AsyncMemoryAdapter
from lucia.adapters.mongodb import AsyncMongoUserAdapter
from lucia.errors import AutoUserIdGenerationNotSupported, DuplicateKeyId, InvalidUserId
from lucia.models import KeyRow
from lucia.testing import AsyncUserAdapterSuite
from tests.support.faulty_proxy import FaultyProxy
from tests.support.lossy_proxy import LossyProxy
from tests.support.mongo_servers import SESSIONS, AsyncMongo, MongoServer
from tests.support.passwords import CHEAP

CALLERS: Final = 50
HASH: Final = "$scrypt$ln=15,r=8,p=3$a-salt-that-nobody-may-see$a-hash-that-nobody-may-see"
SECRET: Final = "password_reset:a-token-that-nobody-may-see"

with_sessions = pytest.mark.parametrize("mongo_server", SESSIONS, indirect=True)
"""Run a test where transactions and repeated writes are as MongoDB documents them."""


@pytest.fixture
async def database(mongo_server: MongoServer) -> AsyncIterator[AsyncDatabase[Any]]:
    """Yield an empty database on each server."""
    async with AsyncMongo(mongo_server) as database:
        yield database


@pytest.fixture
async def adapter(database: AsyncDatabase[Any]) -> AsyncMongoUserAdapter:
    """Return an adapter whose users have ids of text."""
    adapter = AsyncMongoUserAdapter(database)
    await adapter.create_indexes()
    return adapter


def make_key(
    key_id: str,
    user_id: str,
    hashed: str | None = HASH,
    *,
    primary_key: bool = False,
    expires: int | None = None,
) -> KeyRow:
    """Return a key."""
    return KeyRow(
        id=key_id,
        user_id=user_id,
        hashed_password=hashed,
        primary_key=primary_key,
        expires=expires,
    )


@pytest.mark.no_cover
class TestTextIds(AsyncUserAdapterSuite):
    """Ids that are text, with the index."""

    # NX-27017 takes 1, 01 and 1.0 for one text.
    prefix = "id "

    def user_id(self, name: str) -> str:
        return self.prefix + name


@with_sessions
class TestPlainTextIds(TestTextIds):
    """Ids that are text, also such as a number has."""

    prefix = ""


@pytest.mark.no_cover
class TestIntegerIds(AsyncUserAdapterSuite):
    """Ids that are numbers."""

    def user_id(self, name: str) -> str:
        return str(crc32(name.encode()))

    @pytest.fixture
    def adapter(self, database: AsyncDatabase[Any]) -> AsyncMongoUserAdapter:
        return AsyncMongoUserAdapter(database, user_id=int)


@with_sessions
class TestObjectIds(AsyncUserAdapterSuite):
    """Ids that are ObjectIds."""

    def user_id(self, name: str) -> str:
        return sha256(name.encode()).hexdigest()[:24]

    @pytest.fixture
    def adapter(self, database: AsyncDatabase[Any]) -> AsyncMongoUserAdapter:
        return AsyncMongoUserAdapter(database, user_id=ObjectId)


# Concurrent calls


async def test_sign_ups_at_once(
    adapter: AsyncMongoUserAdapter, database: AsyncDatabase[Any]
) -> None:
    """Of 50 sign-ups with one key id one succeeds; the others leave no document, and no mark."""
    outcomes = await AsyncRacingCalls.gather_results(
        *(
            partial(
                adapter.set_user, f"u{n}", {"n": n}, make_key("email:a", f"u{n}", primary_key=True)
            )
            for n in range(CALLERS)
        )
    )
    assert Counter(type(outcome).__name__ for outcome in outcomes) == {
        "UserRow": 1,
        "DuplicateKeyId": CALLERS - 1,
    }
    [user], [key] = [await database[name].find().to_list() for name in ("auth_users", "auth_keys")]
    assert key["user_id"] == user["_id"]
    assert key["lucia_registration"] == user["lucia_registration"]
    assert not {"lucia_unfinished"} & (user.keys() | key.keys())


async def test_uses_at_once(adapter: AsyncMongoUserAdapter) -> None:
    """Of 50 uses of a single-use key one counts it."""
    await adapter.set_user("anna", {}, None)
    await adapter.set_key(make_key("reset:1", "anna", expires=1))
    outcomes = await AsyncRacingCalls.gather_results(
        *[partial(adapter.delete_non_primary_key, "reset:1")] * CALLERS
    )
    assert Counter(outcomes) == {0: CALLERS - 1, 1: 1}


async def test_rehash_against_change(adapter: AsyncMongoUserAdapter) -> None:
    """A rehash of an old password never replaces a new password, whichever comes first."""
    await adapter.set_user("anna", {}, make_key("email:a", "anna", "old", primary_key=True))
    for turn in range(20):
        await adapter.update_key_password("email:a", "old")
        await AsyncRacingCalls.gather_results(
            *[partial(adapter.update_key_password, "email:a", "rehashed", expected="old")] * 3,
            partial(adapter.update_key_password, "email:a", f"new {turn}"),
        )
        found = await adapter.get_key("email:a")
        assert found is not None
        assert found.hashed_password == f"new {turn}"


async def test_set_key_against_delete_user(
    adapter: AsyncMongoUserAdapter, database: AsyncDatabase[Any]
) -> None:
    """After a user is deleted, no key that was stored meanwhile is found, also for a new user."""
    for turn in range(10):
        await adapter.set_user("anna", {}, None)
        names = [f"github:{turn}-{n}" for n in range(4)]
        await AsyncRacingCalls.gather_results(
            *(partial(adapter.set_key, make_key(name, "anna", None)) for name in names),
            partial(adapter.delete_user, "anna"),
        )
        assert [await adapter.get_key(name) for name in names] == [None] * 4
        await adapter.set_user("anna", {}, None)
        assert [await adapter.get_key(name) for name in names] == [None] * 4
        assert await adapter.get_keys_by_user_id("anna") == []
        await adapter.set_key(make_key(names[0], "anna"))
        assert await adapter.get_key(names[0]) == make_key(names[0], "anna")
        await adapter.delete_user("anna")


async def test_reset_mongodb_connections(mongo_server: MongoServer) -> None:
    """While connections are reset, a sign-up is stored whole or not at all, and can be repeated."""
    if mongo_server.port == 0:
        pytest.skip("the proxy is in front of a server on this machine")
    with FaultyProxy(mongo_server.port) as proxy:
        async with AsyncMongo(mongo_server, proxy.port, serverSelectionTimeoutMS=20_000) as found:
            adapter = AsyncMongoUserAdapter(found)

            async def sign_up(number: int) -> str:
                if number % 5 == 0:
                    proxy.reset()
                key = make_key(f"email:{number}", f"u{number}", primary_key=True)
                try:
                    await adapter.set_user(key.user_id, {}, key)
                except (AutoReconnect, DuplicateKeyId, OperationFailure) as error:
                    return type(error).__name__
                return "stored"

            outcomes = await AsyncRacingCalls.gather_results(
                *(partial(sign_up, number) for number in range(CALLERS))
            )
            assert proxy.resets
            for number, outcome in enumerate(outcomes):
                user_id, key_id = f"u{number}", f"email:{number}"
                user, key = await adapter.get_user(user_id), await adapter.get_key(key_id)
                assert (user is None) is (key is None)
                if outcome == "stored":
                    assert user is not None
                if user is None:
                    again = make_key(key_id, user_id, primary_key=True)
                    await adapter.set_user(user_id, {}, again)
                    assert await adapter.get_key(key_id) == again


@with_sessions
@pytest.mark.parametrize(
    ("command", "after"),
    [("insert", 0), ("insert", 1), ("findAndModify", 0), ("findAndModify", 1), ("delete", 0)],
)
async def test_lost_mongodb_reply(mongo_server: MongoServer, command: str, after: int) -> None:
    """A write whose reply is lost is repeated by the driver, and has the outcome of the first."""
    if mongo_server.port == 0:
        pytest.skip("the proxy is in front of a server on this machine")
    key = make_key("email:a", "anna", primary_key=True)
    with LossyProxy(mongo_server.port) as proxy:
        async with AsyncMongo(mongo_server, proxy.port) as found:
            adapter = AsyncMongoUserAdapter(found)
            proxy.lose(command, 1, after=after)
            await adapter.set_user("anna", {}, key)
            await adapter.set_key(make_key("github:1", "anna"))
            assert await adapter.delete_non_primary_key("github:1") == 1
            assert proxy.lost == 1
            assert await adapter.get_keys_by_user_id("anna") == [key]


@with_sessions
async def test_lost_reply_to_mongodb_deletion(mongo_server: MongoServer) -> None:
    """The driver does not repeat a deletion of several documents; the caller can."""
    if mongo_server.port == 0:
        pytest.skip("the proxy is in front of a server on this machine")
    with LossyProxy(mongo_server.port) as proxy:
        async with AsyncMongo(mongo_server, proxy.port) as found:
            adapter = AsyncMongoUserAdapter(found)
            await adapter.set_user("anna", {}, make_key("email:a", "anna", primary_key=True))
            proxy.lose("delete", 1)
            with pytest.raises(AutoReconnect):
                await adapter.delete_user("anna")
            assert await adapter.get_key("email:a") is None
            await adapter.delete_user("anna")
            assert await adapter.get_user("anna") is None


# Documents


async def test_documents(adapter: AsyncMongoUserAdapter, database: AsyncDatabase[Any]) -> None:
    """A user's attributes are top-level fields, and a key has the fields of the original."""
    user = await adapter.set_user(
        "anna", {"name": "Anna", "tags": ["a", {"b": None}]}, make_key("email:a", "anna", expires=5)
    )
    [stored] = await database["auth_users"].find().to_list()
    registration = stored.pop("lucia_registration")
    assert stored == {"_id": "anna", "name": "Anna", "tags": ["a", {"b": None}]}
    [key] = await database["auth_keys"].find().to_list()
    assert key == {
        "_id": "email:a",
        "user_id": "anna",
        "hashed_password": HASH,
        "primary_key": False,
        "expires": 5,
        "lucia_registration": registration,
    }
    assert user == await adapter.get_user("anna")


async def test_documents_of_the_original(
    adapter: AsyncMongoUserAdapter, database: AsyncDatabase[Any]
) -> None:
    """Documents of Mongoose are read as they are: ``__v``, floats, nulls and missing fields."""
    await database["auth_users"].insert_one({"_id": "anna", "username": "anna", "__v": 0})
    await database["auth_keys"].insert_many(
        [
            {
                "_id": "email:a",
                "user_id": "anna",
                "hashed_password": HASH,
                "primary_key": True,
                "expires": None,
                "__v": 0,
            },
            {"_id": "github:1", "user_id": "anna", "primary_key": False},
            {"_id": "reset:1", "user_id": "anna", "primary_key": False, "expires": 1.8e12},
        ]
    )
    user = await adapter.get_user("anna")
    assert user is not None
    assert user.attributes == {"username": "anna"}
    keys = [
        make_key("email:a", "anna", primary_key=True),
        make_key("github:1", "anna", None),
        make_key("reset:1", "anna", None, expires=1_800_000_000_000),
    ]
    assert sorted(await adapter.get_keys_by_user_id("anna"), key=lambda key: key.id) == keys
    assert [await adapter.get_key(key.id) for key in keys] == keys
    with pytest.raises(DuplicateKeyId):
        await adapter.set_key(make_key("github:1", "anna"))
    await adapter.set_key(make_key("github:2", "anna"))
    assert await adapter.update_key_password("github:1", "h", expected=None) is not None
    assert await adapter.delete_non_primary_key("email:a", "github:1", "reset:1", "github:2") == 3
    assert await adapter.update_user_attributes("anna", {"username": "b"}) is not None
    await adapter.delete_user("anna")
    assert await adapter.get_key("email:a") is None


async def test_key_of_nobody(adapter: AsyncMongoUserAdapter, database: AsyncDatabase[Any]) -> None:
    """A key whose user is missing is not found, can't get a password, and its id can be reused."""
    await database["auth_keys"].insert_one(
        {"_id": "email:a", "user_id": "gone", "hashed_password": HASH, "primary_key": True}
    )
    assert await adapter.get_key("email:a") is None
    assert await adapter.get_keys_by_user_id("gone") == []
    assert await adapter.update_key_password("email:a", "hash-2") is None
    key = make_key("email:a", "anna", primary_key=True)
    await adapter.set_user("anna", {}, key)
    assert await adapter.get_key("email:a") == key


async def test_javascript_numbers(database: AsyncDatabase[Any]) -> None:
    """Ids that JavaScript stored as floats are numbers."""
    large = 2**40
    adapter = AsyncMongoUserAdapter(database, user_id=int)
    await database["auth_users"].insert_one({"_id": float(large)})
    await database["auth_keys"].insert_one(
        {"_id": "email:a", "user_id": float(large), "primary_key": True}
    )
    key = make_key("email:a", str(large), None, primary_key=True)
    assert await adapter.get_key("email:a") == key
    assert await adapter.get_keys_by_user_id(str(large)) == [key]


async def test_names_of_collections(database: AsyncDatabase[Any]) -> None:
    """The collections may have other names."""
    adapter = AsyncMongoUserAdapter(
        database, user_collection="members", key_collection="credentials"
    )
    await adapter.set_user("anna", {}, make_key("email:a", "anna"))
    assert sorted(await database.list_collection_names()) == ["credentials", "members"]


async def test_index(adapter: AsyncMongoUserAdapter, database: AsyncDatabase[Any]) -> None:
    """``create_indexes`` makes an index on the keys' users, and may be called again."""
    await adapter.create_indexes()
    indexes = await database["auth_keys"].index_information()
    assert ["user_id"] in [[name for name, _ in index["key"]] for index in indexes.values()]


@pytest.mark.parametrize(
    "name", ["_id", "__v", "lucia_registration", "lucia_unfinished", "$set", "a.b", "", "id"]
)
async def test_refused_names(adapter: AsyncMongoUserAdapter, name: str) -> None:
    """An attribute with a name of MongoDB's or ours is refused before anything is stored."""
    with pytest.raises(ValueError, match="named"):
        await adapter.set_user("anna", {name: 1}, make_key("email:a", "anna"))
    await adapter.set_user("anna", {}, make_key("email:a", "anna"))
    with pytest.raises(ValueError, match="named"):
        await adapter.update_user_attributes("anna", {name: 1})


async def test_refused_values(adapter: AsyncMongoUserAdapter) -> None:
    """A value that BSON does not have is refused before anything is stored."""
    with pytest.raises(InvalidDocument):
        await adapter.set_user("anna", {"name": object()}, make_key("email:a", "anna"))
    await adapter.set_user("anna", {}, make_key("email:a", "anna"))


# Ids


async def test_ids_of_other_types(database: AsyncDatabase[Any]) -> None:
    """Text that is no id of the type is unknown to reads, and refused for a new user."""
    for kind, text in (
        (int, str(2**63)),
        (int, "007"),
        (ObjectId, "anna"),
        (ObjectId, "A" * 24),
        (UUID, "anna"),
    ):
        adapter = AsyncMongoUserAdapter(database, user_id=kind)
        assert await adapter.get_user(text) is None
        assert await adapter.get_keys_by_user_id(text) == []
        assert await adapter.update_user_attributes(text, {"a": 1}) is None
        await adapter.delete_user(text)
        await adapter.delete_keys_by_user_id(text)
        with pytest.raises(InvalidUserId):
            await adapter.set_key(make_key("email:a", text))
        with pytest.raises(ValueError, match=r"text|integer|UUID"):
            await adapter.set_user(text, {}, None)


@with_sessions
@pytest.mark.parametrize(
    ("kind", "stored", "length"), [(str, str, 24), (ObjectId, ObjectId, 24), (UUID, bytes, 36)]
)
async def test_add_user(database: AsyncDatabase[Any], kind: Any, stored: type, length: int) -> None:
    """A new id is made of the type of the users' ids, and the key refers to it."""
    adapter = AsyncMongoUserAdapter(database, user_id=kind)
    user = await adapter.add_user({"name": "Anna"}, lambda user_id: make_key("email:a", user_id))
    assert await adapter.get_user(user.id) == user
    assert await adapter.get_key("email:a") == make_key("email:a", user.id)
    other = await adapter.add_user({}, None)
    assert other.id != user.id
    assert len(user.id) == len(other.id) == length
    with pytest.raises(DuplicateKeyId):
        await adapter.add_user({}, lambda user_id: make_key("email:a", user_id))
    assert await database["auth_users"].count_documents({}) == 2
    [document, *_] = await database["auth_keys"].find().to_list()
    assert isinstance(document["user_id"], stored)


async def test_add_user_with_numbers(database: AsyncDatabase[Any]) -> None:
    """Neither MongoDB nor the adapter makes numbers."""
    with pytest.raises(AutoUserIdGenerationNotSupported):
        await AsyncMongoUserAdapter(database, user_id=int).add_user({}, None)


@pytest.mark.parametrize("kind", [int, str])
async def test_add_user_with_an_own_generator(database: AsyncDatabase[Any], kind: Any) -> None:
    """New ids are those that the application's ``UserIdType`` creates, of any type."""
    ids = UserIdType(kind, kind, generate=lambda: kind(7))
    user = await AsyncMongoUserAdapter(database, user_id=ids).add_user({}, None)
    assert user.id == "7"
    [document] = await database["auth_users"].find().to_list()
    assert document["_id"] == kind(7)


async def test_auth_with_ids_of_another_type(database: AsyncDatabase[Any]) -> None:
    """An ``Auth`` with numbers is refused if the adapter would make ids that are no numbers.

    With numbers that ``Auth`` makes, their text is stored.
    """
    adapter = AsyncMongoUserAdapter(database)
    with pytest.raises(TypeError, match="user ids of the type str, and Auth's user_id is int"):
        AsyncAuth(sessions=AsyncMemoryAdapter(), users=adapter, env="DEV", user_id=int)
    auth = AsyncAuth(
        sessions=AsyncMemoryAdapter(),
        users=adapter,
        env="DEV",
        user_id=int,
        generate_custom_user_id=lambda: 7,
    )
    user = await auth.create_user(primary_key=None)
    assert await auth.get_user(user.user_id) == user
    [document] = await database["auth_users"].find().to_list()
    assert document["_id"] == "7"


async def test_own_type(database: AsyncDatabase[Any]) -> None:
    """Ids may be of another type that BSON has."""
    adapter = AsyncMongoUserAdapter(
        database, user_id=UserIdType(bytes, bytes.fromhex, lambda user_id: user_id.hex())
    )
    await adapter.set_user("00ff", {}, None)
    [document] = await database["auth_users"].find().to_list()
    assert document["_id"] == b"\x00\xff"


# Transactions


@with_sessions
async def test_transaction(adapter: AsyncMongoUserAdapter, database: AsyncDatabase[Any]) -> None:
    """In a transaction all is stored with its commit, and nothing after its end without one."""
    key = make_key("email:a", "anna", primary_key=True)
    for commit in (False, True):
        session = await AsyncMongo.in_session(database)
        inside = adapter.in_transaction(session)
        await inside.set_user("anna", {"name": "Anna"}, key)
        assert await inside.get_key("email:a") == key
        assert await adapter.get_key("email:a") is None
        if commit:
            await session.commit_transaction()
        await session.end_session()
        assert (await adapter.get_key("email:a") == key) is commit
    assert await adapter.get_user("anna") is not None


@with_sessions
async def test_auth_in_a_transaction(
    adapter: AsyncMongoUserAdapter, database: AsyncDatabase[Any]
) -> None:
    """An ``Auth`` changes a password with the caller's transaction, which ends inside the block."""
    auth = AsyncAuth(sessions=AsyncMemoryAdapter(), users=adapter, env="DEV", hash=CHEAP)
    await auth.create_user(primary_key=PrimaryKey("name", "anna", "the old password"))
    session = await AsyncMongo.in_session(database)
    async with auth.in_transaction(session) as inside:
        await inside.update_key_password("name", "anna", "the new password")
        await session.commit_transaction()
    await session.end_session()
    await auth.use_key("name", "anna", "the new password")

    session = await AsyncMongo.in_session(database)
    block = auth.in_transaction(session)
    inside = await block.__aenter__()
    await inside.update_key_password("name", "anna", "another password")
    with pytest.raises(RuntimeError, match="still open"):
        await block.__aexit__(None, None, None)
    await session.end_session()
    await auth.use_key("name", "anna", "the new password")


@with_sessions
async def test_taken_key_in_a_transaction(
    adapter: AsyncMongoUserAdapter, database: AsyncDatabase[Any]
) -> None:
    """A taken key id is found without a refused write, which would end the transaction."""
    await adapter.set_user("anna", {}, make_key("email:a", "anna"))
    session = await AsyncMongo.in_session(database)
    inside = adapter.in_transaction(session)
    with pytest.raises(DuplicateKeyId):
        await inside.set_user("bert", {}, make_key("email:a", "bert"))
    await inside.set_user("bert", {}, make_key("email:b", "bert"))
    await session.commit_transaction()
    await session.end_session()
    assert await adapter.get_key("email:b") is not None


@with_sessions
async def test_refusal_in_a_transaction(
    adapter: AsyncMongoUserAdapter, database: AsyncDatabase[Any]
) -> None:
    """After a refused write nothing more is sent in the transaction; the first error is raised."""
    await adapter.set_user("anna", {}, None)
    session = await AsyncMongo.in_session(database)
    with pytest.raises(DuplicateKeyError):
        await adapter.in_transaction(session).set_user("anna", {}, make_key("email:a", "anna"))
    await session.end_session()
    assert await adapter.get_key("email:a") is None


# Errors


async def test_taken_unique_field(
    adapter: AsyncMongoUserAdapter, database: AsyncDatabase[Any]
) -> None:
    """A duplicate of the application's own index is the driver's error; no key is left."""
    await database["auth_users"].create_index("email", unique=True)
    email = "anna@example.com"
    await adapter.set_user("anna", {"email": email}, make_key("email:a", "anna"))
    with pytest.raises(DuplicateKeyError) as caught:
        await adapter.set_user("bert", {"email": email}, make_key("email:b", "bert"))
    assert email not in full_text(caught.value)
    assert caught.value.code == 11000
    assert await database["auth_keys"].count_documents({}) == 1
    await adapter.set_user("bert", {"email": "bert@example.com"}, make_key("email:b", "bert"))


async def test_own_index_of_keys(
    adapter: AsyncMongoUserAdapter, database: AsyncDatabase[Any]
) -> None:
    """A duplicate of an index that the application made for keys is not a taken id."""
    await database["auth_keys"].create_index("hashed_password", unique=True)
    await adapter.set_user("anna", {}, make_key("email:a", "anna"))
    with pytest.raises((DuplicateKeyError, DuplicateKeyId)) as caught:
        await adapter.set_key(make_key(SECRET, "anna"))
    assert HASH not in full_text(caught.value)
    assert SECRET not in full_text(caught.value)
    assert await adapter.get_key(SECRET) is None


async def test_no_secrets_in_errors(
    adapter: AsyncMongoUserAdapter, database: AsyncDatabase[Any]
) -> None:
    """No error's text, cause or context has a key's id or a hash."""
    await adapter.set_user("anna", {}, make_key(SECRET, "anna"))
    for refused in (
        partial(adapter.set_key, make_key(SECRET, "anna")),
        partial(adapter.set_user, "anna", {}, make_key(SECRET + "2", "anna")),
        partial(adapter.set_user, "bert", {}, make_key(SECRET, "bert")),
    ):
        with pytest.raises((DuplicateKeyId, DuplicateKeyError)) as caught:
            await refused()
        assert SECRET not in full_text(caught.value)
        assert HASH not in full_text(caught.value)


def full_text(error: BaseException) -> str:
    """Return everything that a log or a tracker may show of an error and its context."""
    text = "".join(traceback.format_exception(error)) + repr(vars(error))
    other = error.__cause__ or error.__context__
    return text if other is None else text + full_text(other)


async def test_wrong_arguments(database: AsyncDatabase[Any]) -> None:
    """A database or a session of the other flavour is refused, and so is a wrong type of ids."""
    wrong_database, wrong_session = AsyncMongo.wrong()
    wrong: Any
    for wrong in (wrong_database, database.client, "mongodb://localhost"):
        with pytest.raises(TypeError, match="takes a database of pymongo"):
            AsyncMongoUserAdapter(wrong)
    for wrong in (wrong_session, database, None):
        with pytest.raises(TypeError, match="ClientSession of PyMongo, not"):
            AsyncMongoUserAdapter(database).in_transaction(wrong)
    with pytest.raises(TypeError, match="user_id must be"):
        AsyncMongoUserAdapter(database, user_id=float)


@with_sessions
async def test_settings(mongo_server: MongoServer) -> None:
    """UUIDs are stored in the standard form unless the client says another; ``wtimeout`` stays."""
    options: dict[str, Any] = {"uuidRepresentation": "javaLegacy", "wTimeoutMS": 5_000}
    async with AsyncMongo(mongo_server, **options) as found:
        adapter = AsyncMongoUserAdapter(found, user_id=UUID)
        assert adapter._collections["users"].write_concern.document == {
            "w": "majority",
            "wtimeout": 5_000,
        }
        user_id = str(uuid4())
        await adapter.set_user(user_id, {}, None)
        assert await adapter.get_user(user_id) is not None
