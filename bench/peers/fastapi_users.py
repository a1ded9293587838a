"""fastapi-users, with its ``RedisStrategy`` and users in memory."""

import uuid
from collections.abc import AsyncGenerator, Awaitable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import redis.asyncio
from fastapi.security import OAuth2PasswordRequestForm
from fastapi_users import BaseUserManager, UUIDIDMixin
from fastapi_users.authentication import RedisStrategy
from fastapi_users.db import BaseUserDatabase
from fastapi_users.schemas import BaseUserCreate

from bench.peer import HOUR, AsyncPeer, Logins, expect
from bench.peers import CONNECTIONS, KEEPALIVE


@dataclass
class User:
    """A user, as the library requires it."""

    id: uuid.UUID
    email: str = "user@example.com"
    hashed_password: str = ""
    is_active: bool = True
    is_superuser: bool = False
    is_verified: bool = True


class Users(BaseUserDatabase[User, uuid.UUID]):
    """Users in memory. Every id has a user; names have one if it was created."""

    def __init__(self) -> None:
        self._by_email: dict[str, User] = {}

    async def get(self, id: uuid.UUID) -> User | None:
        """Return a user with this id."""
        return User(id)

    async def get_by_email(self, email: str) -> User | None:
        """Return the user with this name."""
        return self._by_email.get(email)

    async def create(self, create_dict: dict[str, Any]) -> User:
        """Store a user."""
        return self._by_email.setdefault(create_dict["email"], User(uuid.uuid4(), **create_dict))


class UserManager(UUIDIDMixin, BaseUserManager[User, uuid.UUID]):
    """The user manager of the documentation."""


@asynccontextmanager
async def open_peer(url: str) -> AsyncGenerator[AsyncPeer]:
    """Open the strategy as the documentation shows, with a decoding client and a lifetime."""
    client: Any = redis.asyncio.from_url(
        url, decode_responses=True, max_connections=CONNECTIONS, socket_keepalive=KEEPALIVE
    )
    async with client:
        strategy: RedisStrategy[User, uuid.UUID] = RedisStrategy(client, lifetime_seconds=HOUR)
        manager = UserManager(Users())
        nobody = User(uuid.UUID(int=0))

        async def create(user_id: str) -> str:
            return await strategy.write_token(User(uuid.UUID(user_id)))

        def validate(token: str) -> Awaitable[User | None]:
            return strategy.read_token(token, manager)

        def revoke(token: str) -> Awaitable[None]:
            return strategy.destroy_token(token, nobody)

        yield AsyncPeer(
            create=create,
            validate=validate,
            user_id=user_id_of,
            known_as=uuid.UUID,
            check=check_user,
            revoke=revoke,
        )


@asynccontextmanager
async def open_logins(url: str) -> AsyncGenerator[Logins]:
    """Sign up and log in as the library's routes do."""
    client: Any = redis.asyncio.from_url(
        url, decode_responses=True, max_connections=CONNECTIONS, socket_keepalive=KEEPALIVE
    )
    async with client:
        strategy: RedisStrategy[User, uuid.UUID] = RedisStrategy(client, lifetime_seconds=HOUR)
        manager = UserManager(Users())

        async def sign_up(name: str, password: str) -> User:
            return await manager.create(
                BaseUserCreate(email=f"{name}@example.com", password=password)
            )

        async def log_in(name: str, password: str) -> str | None:
            form = OAuth2PasswordRequestForm(username=f"{name}@example.com", password=password)
            user = await manager.authenticate(form)
            return None if user is None else await strategy.write_token(user)

        yield Logins(sign_up=sign_up, log_in=log_in)


def user_id_of(user: User | None) -> uuid.UUID | None:
    """Return the user of a token."""
    return None if user is None else user.id


def check_user(user: User | None, _token: str, user_id: str) -> None:
    """Raise AssertionError unless it is the user. A token gives nothing else."""
    assert user
    expect("user", (user.id, user.is_active), (uuid.UUID(user_id), True))
