"""``Auth`` inside a transaction of the application's, with sessions there and elsewhere."""

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import String
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from lucia import (
    AsyncAuth,
    DuplicateKeyId,
    FailureLimit,
    InvalidCredentials,
    InvalidKeyId,
    InvalidPassword,
    InvalidSessionId,
    InvalidUserId,
    PrimaryKey,
    SessionsNotRevoked,
    Throttle,
    TooManyAttempts,
    UserCache,
)
from lucia.adapters.memory import AsyncMemoryAdapter
from lucia.adapters.sqlalchemy import AsyncSQLAlchemyAdapter, AuthTables
from tests.support.databases import AsyncDatabase
from tests.support.passwords import CHEAP

OLD = "correct horse battery staple"
NEW = "another horse battery staple"


class Base(DeclarativeBase):
    """The base class of an application's models."""


class Member(Base):
    """An application's own users."""

    __tablename__ = "member"
    id: Mapped[int] = mapped_column(primary_key=True)
    email: Mapped[str] = mapped_column(String(100), unique=True)


class Order(Base):
    """Something else of the application's."""

    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    what: Mapped[str] = mapped_column(String(100))


METADATA = Base.metadata
TABLES = AuthTables(METADATA, user=Member, sessions=True)


class AsyncFailingAdapter(AsyncMemoryAdapter):
    """A session store whose revocations fail from the second on."""

    revocations = 0

    async def delete_sessions_by_user_id(self, user_id: str, /) -> None:
        self.revocations += 1
        if self.revocations > 1:
            raise ConnectionError("the store is down")
        await super().delete_sessions_by_user_id(user_id)


def make_auth(
    database: AsyncDatabase, sessions: Any = None, **settings: Any
) -> AsyncAuth[Any, int]:
    """Return an ``Auth`` whose users are in the database; sessions are too, if not elsewhere."""
    users = AsyncSQLAlchemyAdapter(database.engine, TABLES)
    return AsyncAuth(
        sessions=users if sessions is None else sessions,
        users=users,
        env="DEV",
        hash=CHEAP,
        user_id=int,
        **settings,
    )


async def sign_up(auth: AsyncAuth[Any, int], name: str = "alice") -> int:
    """Store a user with a key, and return the id."""
    user = await auth.create_user(
        primary_key=PrimaryKey("email", name, OLD), attributes={"email": name}
    )
    user_id: int = user.user_id
    return user_id


async def test_commit(database: AsyncDatabase) -> None:
    """What the block did is stored with the application's own objects, at their commit."""
    auth = make_auth(database)
    async with database.session(database.engine) as mine, auth.in_transaction(mine) as inside:
        mine.add(Order(what="a chair"))
        user_id = await sign_up(inside)
        session = await inside.create_session(user_id)
        await inside.create_key(user_id, provider_id="name", provider_user_id="al", password=None)
        with pytest.raises(DuplicateKeyId):
            await inside.create_key(
                user_id, provider_id="name", provider_user_id="al", password=None
            )
        await mine.commit()
    assert (await auth.validate_session(session.session_id)).user_id == user_id
    assert len(await auth.get_all_user_keys(user_id)) == 2
    async with database.session(database.engine) as mine:
        assert await mine.get(Order, 1) is not None


async def test_rollback(database: AsyncDatabase) -> None:
    """After a rollback nothing of the block is stored, and everything is as before."""
    auth = make_auth(database)
    alice = await sign_up(auth)
    async with database.session(database.engine) as mine, auth.in_transaction(mine) as inside:
        bob = await sign_up(inside, "bob")
        await inside.update_key_password("email", "alice", NEW)
        await mine.rollback()
    with pytest.raises(InvalidUserId):
        await auth.get_user(bob)
    assert (await auth.use_key("email", "alice", OLD)).user_id == alice
    with pytest.raises(InvalidKeyId):
        await auth.get_key("email", "bob")


async def test_exception(database: AsyncDatabase) -> None:
    """An exception of the application's leaves the block, and its transaction is rolled back."""
    auth = make_auth(database)
    alice = await sign_up(auth)
    session = await auth.create_session(alice)

    async def fail(mine: Any) -> None:
        async with mine.begin(), auth.in_transaction(mine) as inside:
            await inside.update_key_password("email", "alice", NEW)
            raise ZeroDivisionError

    async with database.session(database.engine) as mine:
        with pytest.raises(ZeroDivisionError):
            await fail(mine)
    assert (await auth.use_key("email", "alice", OLD)).user_id == alice
    await auth.validate_session(session.session_id)


async def test_commit_after_the_block(database: AsyncDatabase) -> None:
    """A block that ends before the commit is an error: its revocations could not be repeated."""
    auth = make_auth(database)
    await sign_up(auth)

    async def change(mine: Any) -> None:
        async with mine.begin(), auth.in_transaction(mine) as inside:
            await inside.update_key_password("email", "alice", NEW)

    async with database.session(database.engine) as mine:
        with pytest.raises(RuntimeError, match="commit or roll back before the end of the block"):
            await change(mine)
    with pytest.raises(InvalidCredentials):
        await auth.use_key("email", "alice", NEW)


async def test_second_transaction_of_a_block(database: AsyncDatabase) -> None:
    """Of several transactions in a block, the last one has to end in it too."""
    auth = make_auth(database, AsyncMemoryAdapter())
    for name in ("alice", "bob"):
        await sign_up(auth, name)

    async def change(mine: Any) -> None:
        async with auth.in_transaction(mine) as inside:
            for name in ("alice", "bob"):
                await mine.commit()
                await inside.update_key_password("email", name, NEW)

    async with database.session(database.engine) as mine:
        with pytest.raises(RuntimeError, match="still open"):
            await change(mine)


async def test_revocation_begins_a_transaction(database: AsyncDatabase) -> None:
    """A revocation that is the first call of a block has to be committed in it too."""
    auth = make_auth(database)
    alice = await sign_up(auth)
    session = await auth.create_session(alice)

    async def revoke(mine: Any) -> None:
        async with auth.in_transaction(mine) as inside:
            await inside.invalidate_all_user_sessions(alice)

    async with database.session(database.engine) as mine:
        with pytest.raises(RuntimeError, match="still open"):
            await revoke(mine)
    await auth.validate_session(session.session_id)


async def test_a_new_transaction_after_the_commit(database: AsyncDatabase) -> None:
    """A transaction that begins after the commit, such as by a read, may outlast the block."""
    auth = make_auth(database)
    await sign_up(auth)
    async with database.session(database.engine) as mine, auth.in_transaction(mine) as inside:
        await inside.update_key_password("email", "alice", NEW)
        await mine.commit()
        assert await mine.get(Order, 1) is None
    await auth.use_key("email", "alice", NEW)


async def test_use_of_a_block_that_has_ended(database: AsyncDatabase) -> None:
    """A block can't be used after its end, nor have another one inside."""
    auth = make_auth(database)
    await sign_up(auth)
    async with database.session(database.engine) as mine:
        async with auth.in_transaction(mine) as inside:
            with pytest.raises(RuntimeError, match="can't be nested"):
                inside.in_transaction(mine)
        with pytest.raises(RuntimeError, match="has ended"):
            await inside.update_key_password("email", "alice", NEW)
        await mine.rollback()
    await auth.use_key("email", "alice", OLD)


async def test_block_that_changes_nothing(database: AsyncDatabase) -> None:
    """A block that revokes nothing may end before the commit."""
    auth = make_auth(database)
    session = database.session(database.engine)
    async with session as mine, mine.begin(), auth.in_transaction(mine) as inside:
        user_id = await sign_up(inside)
    assert (await auth.get_user(user_id)).user_id == user_id


@pytest.mark.parametrize("elsewhere", [False, True])
async def test_login_before_the_commit(database: AsyncDatabase, *, elsewhere: bool) -> None:
    """A login with the old password, before the commit of a new one, does not survive it."""
    auth = make_auth(database, AsyncMemoryAdapter() if elsewhere else None)
    await sign_up(auth)
    if database.engine.dialect.name != "postgresql" and not elsewhere:
        pytest.skip("the login waits for the commit: the block has locked the user's sessions")
    async with database.session(database.engine) as mine, auth.in_transaction(mine) as inside:
        await inside.update_key_password("email", "alice", NEW)
        session = await auth.create_session_with_key("email", "alice", OLD)
        await auth.validate_session(session.session_id)
        await mine.commit()
        # The same without the repetition at the end of the block:
        await auth.validate_session(session.session_id)
    with pytest.raises(InvalidSessionId):
        await auth.validate_session(session.session_id)


async def test_sessions_of_the_block_are_kept(database: AsyncDatabase) -> None:
    """A session that the block creates after its revocation survives the end of the block."""
    auth = make_auth(database, AsyncMemoryAdapter())
    alice = await sign_up(auth)
    before = await auth.create_session(alice)
    async with database.session(database.engine) as mine, auth.in_transaction(mine) as inside:
        kept = await inside.update_key_password(
            "email", "alice", NEW, keep_session=before.session_id
        )
        await mine.commit()
    assert kept is not None
    await auth.validate_session(kept.session_id)
    async with database.session(database.engine) as mine, auth.in_transaction(mine) as inside:
        await inside.update_key_password("email", "alice", OLD)
        session = await inside.create_session(alice)
        await mine.commit()
    await auth.validate_session(session.session_id)
    with pytest.raises(InvalidSessionId):
        await auth.validate_session(kept.session_id)


@pytest.mark.parametrize("elsewhere", [False, True])
async def test_several_sessions_of_the_block_are_kept(
    database: AsyncDatabase, *, elsewhere: bool
) -> None:
    """All sessions that a block creates after its revocation, or keeps, survive its end."""
    auth = make_auth(database, AsyncMemoryAdapter() if elsewhere else None)
    alice = await sign_up(auth)
    before, other = await auth.create_session(alice), await auth.create_session(alice)
    async with database.session(database.engine) as mine, auth.in_transaction(mine) as inside:
        kept = await inside.update_key_password(
            "email", "alice", NEW, keep_session=before.session_id
        )
        assert kept is not None
        sessions = [kept, await inside.create_session(alice), await inside.create_session(alice)]
        await mine.commit()
        revoked = [before, other]
        if elsewhere:
            revoked.append(await auth.create_session(alice))
    for session in sessions:
        await auth.validate_session(session.session_id)
    assert len(await auth.get_all_user_sessions(alice)) == 3
    for session in revoked:
        with pytest.raises(InvalidSessionId):
            await auth.validate_session(session.session_id)


async def test_single_use_key_before_the_commit(database: AsyncDatabase) -> None:
    """A token for a password reset, made before the commit of a new password, does not work."""
    if database.engine.dialect.name == "sqlite":
        pytest.skip("SQLite lets one connection write at a time: there is no such token")
    auth = make_auth(database, AsyncMemoryAdapter())
    alice = await sign_up(auth)
    async with database.session(database.engine) as mine, auth.in_transaction(mine) as inside:
        await inside.update_key_password("email", "alice", NEW)
        await auth.create_single_use_key(
            alice,
            provider_id="password_reset",
            provider_user_id="token",
            password=None,
            expires_in=timedelta(hours=1),
        )
        await mine.commit()
    with pytest.raises(InvalidKeyId):
        await auth.use_key("password_reset", "token", None)


async def test_wrong_password_in_a_block(database: AsyncDatabase) -> None:
    """A wrong password is counted in the block without waiting for the block's own locks."""
    hour = timedelta(hours=1)
    limit = FailureLimit(free=2, first_wait=hour, longest_wait=hour, forget=hour)
    auth = make_auth(database, throttle=Throttle(by_key=limit))
    alice = await sign_up(auth)
    async with database.session(database.engine) as mine, auth.in_transaction(mine) as inside:
        await inside.create_key(alice, provider_id="name", provider_user_id="al", password=None)
        for refusal in (InvalidPassword, InvalidPassword, TooManyAttempts):
            with pytest.raises(refusal):
                await inside.use_key("email", "alice", NEW)
        await mine.commit()
    with pytest.raises(TooManyAttempts):
        await auth.use_key("email", "alice", OLD)


async def test_user_cache(database: AsyncDatabase) -> None:
    """What a block reads is not cached, and what it changes leaves the cache at its end."""
    cache = UserCache(max_age=timedelta(hours=1))
    auth = make_auth(
        database,
        AsyncMemoryAdapter(),
        user_cache=cache,
        transform_database_user=lambda row: row.attributes["email"],
    )
    key = PrimaryKey("email", "alice", None)
    assert await auth.create_user(primary_key=key, attributes={"email": "alice"}) == "alice"
    user_id = (await auth.get_key("email", "alice")).user_id
    session = await auth.create_session(user_id)
    assert await auth.get_user_of(session) == "alice"
    async with database.session(database.engine) as mine, auth.in_transaction(mine) as inside:
        await inside.update_user_attributes(user_id, {"email": "bob"})
        assert await inside.get_user_of(session) == "bob"
        assert await auth.get_user_of(session) == "alice"
        await mine.commit()
        assert await auth.get_user_of(session) == "alice"
    assert await auth.get_user_of(session) == "bob"


async def test_delete_user(database: AsyncDatabase) -> None:
    """A deleted user is gone at the commit, with all sessions."""
    auth = make_auth(database)
    alice = await sign_up(auth)
    session = await auth.create_session(alice)
    async with database.session(database.engine) as mine, auth.in_transaction(mine) as inside:
        await inside.delete_user(alice)
        await mine.commit()
    with pytest.raises(InvalidUserId):
        await auth.get_user(alice)
    with pytest.raises(InvalidSessionId):
        await auth.validate_session(session.session_id)


async def test_store_down_after_the_commit(database: AsyncDatabase) -> None:
    """If the revocation after the commit fails, SessionsNotRevoked says so."""
    auth = make_auth(database, AsyncFailingAdapter())
    await sign_up(auth)

    async def change() -> None:
        async with database.session(database.engine) as mine, auth.in_transaction(mine) as inside:
            await inside.update_key_password("email", "alice", NEW)
            await mine.commit()

    with pytest.raises(SessionsNotRevoked):
        await change()
    await auth.use_key("email", "alice", NEW)


async def test_not_a_transaction(database: AsyncDatabase) -> None:
    """An object that is no transaction, or an adapter without any, is refused at once."""
    auth = make_auth(database)
    with pytest.raises(TypeError, match="SQLAlchemyAdapter takes one of"):
        auth.in_transaction(object())
    store = AsyncMemoryAdapter()
    with pytest.raises(TypeError, match="MemoryAdapter can't take part in a transaction"):
        AsyncAuth(sessions=store, users=store, env="DEV").in_transaction(object())
