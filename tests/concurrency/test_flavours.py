"""Tests of both flavours together: mixed adapters, wrong settings, event loops and forks."""

import asyncio
import subprocess
import sys
from functools import partial, wraps
from textwrap import dedent
from typing import Any

import pytest
import redis
import redis.asyncio

from lucia import AsyncAuth, Auth, PrimaryKey, ScryptHash, Session, User
from lucia.adapters.memory import AsyncMemoryAdapter, MemoryAdapter
from lucia.adapters.redis import AsyncRedisSessionAdapter, RedisSessionAdapter
from tests.support.passwords import CHEAP

PASSWORD = "correct horse battery staple"

AUTHS: dict[str, tuple[Any, Any, Any]] = {
    "Auth": (Auth, MemoryAdapter, AsyncMemoryAdapter),
    "AsyncAuth": (AsyncAuth, AsyncMemoryAdapter, MemoryAdapter),
}


@pytest.mark.parametrize("name", AUTHS)
def test_an_adapter_of_the_other_flavour_is_refused(name: str) -> None:
    """An adapter of the other flavour is a TypeError when ``Auth`` is created."""
    auth, right, wrong = AUTHS[name]
    message = {
        "Auth": "is an async adapter; Auth needs a sync one, such as MemoryAdapter",
        "AsyncAuth": "is a sync adapter; AsyncAuth needs an async one, such as AsyncMemoryAdapter",
    }[name]
    with pytest.raises(TypeError, match=f"sessions= {message}"):
        auth(sessions=wrong(), env="DEV")
    with pytest.raises(TypeError, match=f"users= {message}"):
        auth(sessions=right(), users=wrong(), env="DEV")
    auth(sessions=right(), users=right(), env="DEV")


def test_a_wrapped_method_keeps_its_flavour() -> None:
    """A method decorated with ``functools.wraps`` still counts as async."""

    method = AsyncMemoryAdapter.get_session

    @wraps(method)
    def wrapper(*args: Any) -> Any:
        return method(*args)

    traced: Any = type("Traced", (AsyncMemoryAdapter,), {"get_session": wrapper})()
    auth = AsyncAuth(sessions=traced, env="DEV")
    with pytest.raises(TypeError, match="Auth needs a sync one"):
        Auth(sessions=traced, env="DEV")
    session = asyncio.run(auth.create_session("u"))
    assert asyncio.run(auth.get_session(session.session_id)).user_id == "u"


@pytest.mark.parametrize("name", AUTHS)
def test_a_misspelt_or_missing_setting_is_refused(name: str) -> None:
    """A misspelt setting is a TypeError that suggests the right name; a missing one is named."""
    auth, adapter, _ = AUTHS[name]
    cases: list[tuple[dict[str, Any], str]] = [
        ({"env": "DEV", "orgin": []}, "unexpected keyword argument 'orgin': did you mean 'origin'"),
        ({"env": "DEV", "x": 1}, "unexpected keyword argument 'x'$"),
        ({}, "is missing the keyword argument 'env'"),
    ]
    for settings, message in cases:
        with pytest.raises(TypeError, match=rf"\A{name}\(\) .*{message}"):
            auth(sessions=adapter(), **settings)
    with pytest.raises(TypeError, match="is missing the keyword argument 'sessions'"):
        auth(env="DEV")
    with pytest.raises(TypeError, match="positional"):
        auth(adapter(), env="DEV")


class AsyncCallable:
    """An object with an async ``__call__``."""

    async def __call__(self, *args: Any) -> Any:
        """Return nothing."""


async def wait(*_args: Any) -> Any:
    """Return nothing."""


@pytest.mark.parametrize("name", AUTHS)
@pytest.mark.parametrize("setting", ["transform_database_user", "generate_custom_user_id", "clock"])
@pytest.mark.parametrize(
    "function", [wait, partial(wait, 1), AsyncCallable(), AsyncCallable().__call__]
)
def test_a_setting_that_has_to_be_awaited_is_refused(
    name: str, setting: str, function: Any
) -> None:
    """An async function as a setting is a TypeError when ``Auth`` is created."""
    auth, adapter, _ = AUTHS[name]
    store = adapter()
    with pytest.raises(
        TypeError,
        match=(
            rf"\A{setting} must be a plain function, not an async one:"
            r" .* is called without await"
        ),
    ):
        auth(sessions=store, users=store, env="DEV", **{setting: function})


@pytest.mark.parametrize("name", AUTHS)
@pytest.mark.parametrize("setting", ["transform_database_user", "generate_custom_user_id", "clock"])
def test_a_setting_that_can_not_be_called_is_refused(name: str, setting: str) -> None:
    """A setting that can't be called is a TypeError when ``Auth`` is created."""
    auth, adapter, _ = AUTHS[name]
    with pytest.raises(TypeError, match=f"{setting} must be a function, not str"):
        auth(sessions=adapter(), env="DEV", **{setting: "users"})


@pytest.mark.parametrize("name", AUTHS)
def test_a_setting_without_the_methods_it_needs_is_refused(name: str) -> None:
    """A class instead of an instance, a client, or a wrong adapter is a TypeError."""
    auth, adapter, _ = AUTHS[name]
    is_async = auth is AsyncAuth
    redis_adapter: Any = AsyncRedisSessionAdapter if is_async else RedisSessionAdapter
    client = redis.asyncio.Redis() if is_async else redis.Redis()
    prefix = "Async" if is_async else ""
    cases: list[tuple[dict[str, Any], str]] = [
        (
            {"hash": ScryptHash},
            (
                r"hash must be an instance of ScryptHash, not the class:"
                r" call it, as in ScryptHash\(…\)"
            ),
        ),
        (
            {"hash": "scrypt"},
            r"hash must have the methods of PasswordHasher: str has no hash, verify, needs_rehash",
        ),
        (
            {"sessions": redis_adapter},
            (
                rf"sessions must be an instance of {prefix}RedisSessionAdapter, not the class:"
                r" call it, as in .*\(…\)"
            ),
        ),
        (
            {"sessions": client},
            (
                rf"sessions must have the methods of {prefix}SessionAdapter:"
                r" Redis has no get_session, .*"
            ),
        ),
        (
            {"sessions": None},
            (
                rf"sessions must have the methods of {prefix}SessionAdapter:"
                r" NoneType has no get_session, .*"
            ),
        ),
        (
            {"users": adapter},
            (
                rf"users must be an instance of {prefix}MemoryAdapter, not the class:"
                r" call it, as in .*\(…\)"
            ),
        ),
        (
            {"users": redis_adapter(client)},
            (
                rf"users must have the methods of {prefix}UserAdapter:"
                rf" {prefix}RedisSessionAdapter has no get_user, set_user, .*"
            ),
        ),
    ]
    for wrong, message in cases:
        settings = {"sessions": adapter(), "users": adapter(), "hash": CHEAP, **wrong}
        with pytest.raises(TypeError, match=rf"\A{message}\Z"):
            auth(env="DEV", **settings)


async def whole_life(auth: AsyncAuth[User], name: str) -> Session:
    """Sign up, run concurrent logins, and renew a session concurrently."""
    await auth.create_user(primary_key=PrimaryKey("username", name, PASSWORD))
    logins = await asyncio.gather(
        *(auth.create_session_with_key("username", name, PASSWORD) for _ in range(4))
    )
    renewed = await asyncio.gather(*(auth.renew_session(logins[0].session_id) for _ in range(4)))
    assert len({session.session_id for session in renewed}) == 1
    return renewed[0]


@pytest.mark.parametrize("five_methods", [False, True])
def test_one_auth_in_several_event_loops(*, five_methods: bool) -> None:
    """An ``AsyncAuth`` works in one event loop after another without being closed."""
    store = AsyncMemoryAdapter()

    class Five:
        get_session = staticmethod(store.get_session)
        get_sessions_by_user_id = staticmethod(store.get_sessions_by_user_id)
        set_session = staticmethod(store.set_session)
        delete_session = staticmethod(store.delete_session)
        delete_sessions_by_user_id = staticmethod(store.delete_sessions_by_user_id)

    auth = AsyncAuth(users=store, sessions=Five() if five_methods else store, env="DEV", hash=CHEAP)
    before = asyncio.run(whole_life(auth, "one"))
    for name in ("two", "three"):
        session = asyncio.run(whole_life(auth, name))
        assert asyncio.run(auth.get_session(before.session_id)).user_id == before.user_id
        before = session
    asyncio.run(auth.aclose())


def run(script: str) -> str:
    """Run a program, check its exit status, and return its output."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", dedent(script)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_passwords_verify_after_a_fork() -> None:
    """After a fork, children verify passwords although the parent has started workers."""
    output = run("""
        import asyncio, os, sys
        from lucia import AsyncAuth, Auth, PrimaryKey, ScryptHash
        from lucia.adapters.memory import AsyncMemoryAdapter, MemoryAdapter

        key = ("username", "alice", "secret")
        store, astore = MemoryAdapter(), AsyncMemoryAdapter()
        auth = Auth(users=store, sessions=store, env="DEV", hash=ScryptHash(ln=4))
        aauth = AsyncAuth(users=astore, sessions=astore, env="DEV", hash=ScryptHash(ln=4))
        auth.create_user(primary_key=PrimaryKey(*key))
        asyncio.run(aauth.create_user(primary_key=PrimaryKey(*key)))

        def check(who):
            assert auth.use_key(*key).user_id == auth.create_session_with_key(*key).user_id
            assert asyncio.run(aauth.use_key(*key)).user_id
            print(who, flush=True)

        check("parent")
        for _ in range(2):
            child = os.fork()
            if child == 0:
                check("child")
                os._exit(0)
            assert os.waitpid(child, 0)[1] == 0
        check("parent")
    """)
    assert output.split() == ["parent", "child", "child", "parent"]


def test_a_program_ends_without_closing_its_auth() -> None:
    """Running workers do not keep a program from exiting."""
    assert (
        run("""
        import asyncio
        from lucia import AsyncAuth, PrimaryKey, ScryptHash
        from lucia.adapters.memory import AsyncMemoryAdapter

        store = AsyncMemoryAdapter()
        auth = AsyncAuth(users=store, sessions=store, env="DEV", hash=ScryptHash(ln=4))
        asyncio.run(auth.create_user(primary_key=PrimaryKey("username", "alice", "secret")))
        print("done")
    """)
        == "done\n"
    )
