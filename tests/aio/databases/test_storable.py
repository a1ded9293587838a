"""Text with NUL or a lone surrogate is refused before the database is called."""

from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from sqlalchemy import Column, MetaData, Text

from lucia import AsyncAuth, InvalidInput, InvalidKeyId, InvalidUserId, PrimaryKey, User
from lucia.adapters.sqlalchemy import AsyncSQLAlchemyAdapter, AuthTables
from tests.aio.support.watched_store import AsyncWatchedStore
from tests.support.clocks import Time
from tests.support.databases import AsyncDatabase
from tests.support.passwords import CHEAP, CountingHash
from tests.support.sql_servers import SqlServer

PASSWORD = "correct horse battery staple"
METADATA = MetaData()
TABLES = AuthTables(METADATA, user_columns=[Column("name", Text)], sessions=True)


@pytest.fixture(
    params=["\0", "alice\0", "\ud800", "ali\udfffce"],
    ids=["NUL", "a NUL at the end", "surrogate", "surrogate amid"],
)
def bad(request: pytest.FixtureRequest) -> str:
    """Return a text that some database refuses."""
    return str(request.param)


@pytest.fixture
async def database_auth(sql_server: SqlServer) -> AsyncIterator[AsyncAuth[User]]:
    """Yield an ``Auth`` with users and sessions on a real server."""
    async with AsyncDatabase(METADATA, server=sql_server) as engine:
        adapter = AsyncSQLAlchemyAdapter(engine, TABLES)
        yield AsyncAuth(sessions=adapter, users=adapter, env="DEV", hash=CHEAP)


async def test_text_that_a_database_refuses(database_auth: AsyncAuth[User], bad: str) -> None:
    """On a real server, such an id is unknown when looked up, and InvalidInput when stored."""
    auth = database_auth
    user = await auth.create_user(
        primary_key=PrimaryKey("username", "alice", PASSWORD), attributes={"name": "Alice"}
    )
    single_use = partial(
        auth.create_single_use_key,
        user.user_id,
        provider_id="reset",
        password=None,
        expires_in=timedelta(hours=1),
    )
    outcomes: dict[type[Exception], list[Callable[[], Any]]] = {
        InvalidKeyId: [
            partial(auth.get_key, "username", bad),
            partial(auth.use_key, "username", bad, PASSWORD),
            partial(auth.use_key, "username", bad, None),
            partial(auth.create_session_with_key, "username", bad, PASSWORD),
            partial(auth.update_key_password, "username", bad, PASSWORD),
        ],
        InvalidUserId: [
            partial(auth.get_user, bad),
            partial(auth.update_user_attributes, bad, {}),
            partial(auth.get_all_user_keys, bad),
            partial(auth.get_all_user_sessions, bad),
            partial(auth.create_key, bad, provider_id="p", provider_user_id="name", password=None),
        ],
        InvalidInput: [
            partial(auth.create_user, primary_key=PrimaryKey("username", bad, PASSWORD)),
            partial(auth.create_user, primary_key=None, attributes={"name": bad}),
            partial(auth.update_user_attributes, user.user_id, {"name": bad}),
            partial(
                auth.create_key, user.user_id, provider_id="p", provider_user_id=bad, password=None
            ),
            partial(single_use, provider_user_id=bad),
            partial(auth.create_session, user.user_id, metadata={"agent": bad}),
            partial(auth.create_session, user.user_id, metadata={"agents": [{bad: 1}]}),
        ],
        ValueError: [
            partial(auth.create_session, bad),
            partial(auth.delete_user, bad),
            partial(auth.invalidate_all_user_sessions, bad),
        ],
    }
    for kind, calls in outcomes.items():
        for call in calls:
            with pytest.raises(kind):
                await call()
    await auth.delete_key("username", bad)
    assert (await auth.use_key("username", "alice", PASSWORD)).user_id == user.user_id


async def test_a_refused_name_costs_a_verification(
    store: AsyncWatchedStore, time: Time, bad: str
) -> None:
    """A login with such a name costs one verification, as any unknown name, and no lookup."""
    hasher = CountingHash()
    auth = AsyncAuth(sessions=store, users=store, env="DEV", hash=hasher, clock=time)
    with pytest.raises(InvalidKeyId):
        await auth.use_key("username", bad, PASSWORD)
    assert len(hasher.verified) == 1
    assert store.calls == []


async def test_nothing_is_stored(auth: AsyncAuth[User], store: AsyncWatchedStore, bad: str) -> None:
    """Such text is refused anywhere in attributes and metadata, before the store is called."""
    user = await auth.create_user(
        primary_key=None,
        attributes={"name": "ünïcode", "photo": b"\0", "tags": ["a", ("b", 1)], "none": None},
    )
    store.calls.clear()
    for hidden in (bad, [bad], (1, bad), {"a": {"b": [bad]}}, {bad: 1}):
        for call in (
            partial(auth.create_user, primary_key=None),
            partial(auth.update_user_attributes, user.user_id),
        ):
            with pytest.raises(
                InvalidInput, match=r"the attribute 'name' holds a (NUL character|lone surrogate)"
            ):
                await call(attributes={"age": 1, "name": hidden})
    with pytest.raises(
        InvalidInput, match=r"the name of an attribute holds a (NUL character|lone surrogate)"
    ):
        await auth.create_user(primary_key=None, attributes={bad: 1})
    with pytest.raises(InvalidInput, match=r"holds a (NUL character|lone surrogate)"):
        await auth.create_session(user.user_id, metadata={"agent": [bad]})
    assert store.calls == []
