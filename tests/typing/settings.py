"""Settings: an application's own hasher, durations, and misspelt names."""

from datetime import timedelta

from lucia import (
    Argon2Hash,
    AsyncAuth,
    Auth,
    LuciaHash,
    PasswordHasher,
    PasswordPool,
    ScryptHash,
    SessionCookie,
    SessionExpiry,
)
from lucia.adapters.memory import AsyncMemoryAdapter, MemoryAdapter

store = AsyncMemoryAdapter()


class MyHash:
    """A hasher with three methods and no base class."""

    def hash(self, password: str, /) -> str:
        return password

    def verify(self, password: str, hashed: str, /) -> bool:
        return password == hashed

    def needs_rehash(self, hashed: str, /) -> bool:
        return False


class NoHash:
    """A hasher with one method."""

    def hash(self, password: str, /) -> str:
        return password


hashers: list[PasswordHasher] = [MyHash(), ScryptHash(), LuciaHash(), Argon2Hash()]
AsyncAuth(sessions=store, env="DEV", hash=MyHash())
Auth(sessions=MemoryAdapter(), env="DEV", hash=MyHash())
AsyncAuth(sessions=store, env="DEV", hash=NoHash())  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]

AsyncAuth(
    sessions=store,
    env="PROD",
    session_cookie=SessionCookie(name="__Host-auth_session", same_site="strict"),
    session_expires_in=SessionExpiry(
        active=timedelta(hours=1),
        idle=timedelta(days=1),
        absolute=timedelta(days=90),
        grace=timedelta(0),
    ),
    origin=["https://app.example.com"],
    generate_custom_user_id=lambda: "id",
    clock=lambda: 0,
)

# The password pool has two numbers in both flavours.
AsyncAuth(sessions=store, env="DEV", password_pool=PasswordPool(workers=2, queue=16))
Auth(sessions=MemoryAdapter(), env="DEV", password_pool=PasswordPool(queue=0))
AsyncAuth(sessions=store, env="DEV", password_pool=2)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
PasswordPool(workers="2")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
PasswordPool(2, 16)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]

# A bare number has no unit.
SessionExpiry(active=60)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

# There are two environments, and all settings are keyword arguments.
AsyncAuth(sessions=store, env="TEST")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
AsyncAuth(sessions=store)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
AsyncAuth(sessions=store, env="DEV", orgin=[])  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
AsyncAuth(store, env="DEV")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
SessionCookie(same_site="Lax")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
