"""The type of users: inferred from ``transform_database_user``, and seen in every result."""

from dataclasses import dataclass
from typing import Any, TypedDict, assert_type

from lucia import (
    AsyncAuth,
    AsyncAuthRequest,
    Auth,
    AuthRequest,
    Device,
    Key,
    PrimaryKey,
    RequestContext,
    Session,
    SessionUser,
    User,
    UserRow,
)
from lucia.adapters.memory import AsyncMemoryAdapter, MemoryAdapter


@dataclass(frozen=True)
class Member:
    """An application's user."""

    id: str
    name: str

    @classmethod
    def from_row(cls, row: UserRow) -> "Member":
        """Create a member from a stored user."""
        return cls(id=row.id, name=row.attributes["name"])


class Columns(TypedDict):
    """An application's columns."""

    name: str


def to_name(row: UserRow) -> str:
    """Return the id: a user may be of any type."""
    return row.id


store = AsyncMemoryAdapter()
sync_store = MemoryAdapter()

members = AsyncAuth(sessions=store, users=store, env="DEV", transform_database_user=Member.from_row)
sync_members = Auth(
    sessions=sync_store, users=sync_store, env="DEV", transform_database_user=Member.from_row
)
assert_type(members, AsyncAuth[Member])
assert_type(sync_members, Auth[Member])

# By default, users are of the library's own type.
assert_type(AsyncAuth(sessions=store, users=store, env="DEV"), AsyncAuth[User])
assert_type(Auth(sessions=sync_store, users=sync_store, env="DEV"), Auth[User])

# Without users=, for sessions only.
assert_type(AsyncAuth(sessions=store, env="PROD"), AsyncAuth[User])
assert_type(Auth(sessions=sync_store, env="PROD"), Auth[User])

# A function or a lambda is accepted too.
assert_type(AsyncAuth(sessions=store, env="DEV", transform_database_user=to_name), AsyncAuth[str])
assert_type(Auth(sessions=sync_store, env="DEV", transform_database_user=to_name), Auth[str])
assert_type(
    Auth(sessions=sync_store, env="DEV", transform_database_user=lambda row: [row.id]),
    Auth[list[str]],
)

# The type can be declared, and must be the right one.
declared: AsyncAuth[Member] = AsyncAuth(
    sessions=store, env="DEV", transform_database_user=Member.from_row
)
wrong: AsyncAuth[Member] = AsyncAuth(sessions=store, env="DEV", transform_database_user=to_name)  # type: ignore[call-overload]  # pyright: ignore[reportAssignmentType]
forgotten: AsyncAuth[Member] = AsyncAuth(sessions=store, env="DEV")  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]


async def asynchronous(auth: AsyncAuth[Member], context: RequestContext) -> None:
    """Check the types of results of ``AsyncAuth``."""
    assert_type(await auth.get_user("id"), Member)
    assert_type(await auth.create_user(primary_key=None), Member)
    assert_type(await auth.update_user_attributes("id", {"name": "Anna"}), Member)
    assert_type(await auth.get_session_user("id"), SessionUser[Member])
    assert_type(await auth.validate_session_user("id"), SessionUser[Member])
    assert_type(await auth.validate_session("id"), Session)
    assert_type(await auth.get_all_user_sessions("id"), list[Device])
    assert_type(await auth.get_all_user_keys("id"), list[Key])
    assert_type(await auth.invalidate_all_user_sessions("id"), bool)
    assert_type(await auth.get_user_session("id", "handle"), Device)
    assert_type(await auth.delete_key("username", "alice"), bool)
    assert_type(auth.transform_database_user(UserRow(id="id")), Member)

    request = auth.handle_request(context)
    assert_type(request, AsyncAuthRequest[Member])
    assert_type(await request.validate(), Session | None)
    both = await request.validate_user()
    assert_type(both, SessionUser[Member] | None)
    if both is not None:
        session, user = both
        assert_type(session, Session)
        assert_type(user, Member)
        assert_type(both.user.name, str)


def synchronous(auth: Auth[Member], context: RequestContext) -> None:
    """Check the types of results of ``Auth``."""
    assert_type(auth.get_user("id"), Member)
    assert_type(auth.create_user(primary_key=None), Member)
    assert_type(auth.update_user_attributes("id", {"name": "Anna"}), Member)
    assert_type(auth.get_session_user("id"), SessionUser[Member])
    assert_type(auth.validate_session_user("id"), SessionUser[Member])
    assert_type(auth.validate_session("id"), Session)
    assert_type(auth.get_all_user_sessions("id"), list[Device])
    assert_type(auth.get_all_user_keys("id"), list[Key])
    assert_type(auth.invalidate_all_user_sessions("id"), bool)
    assert_type(auth.get_user_session("id", "handle"), Device)
    assert_type(auth.delete_key("username", "alice"), bool)
    assert_type(auth.transform_database_user(UserRow(id="id")), Member)

    request = auth.handle_request(context)
    assert_type(request, AuthRequest[Member])
    assert_type(request.validate(), Session | None)
    both = request.validate_user()
    assert_type(both, SessionUser[Member] | None)
    if both is not None:
        session, user = both
        assert_type(session, Session)
        assert_type(user, Member)
        assert_type(both.user.name, str)


async def attributes(auth: AsyncAuth[Member], sync_auth: Auth[Member]) -> None:
    """Check that a TypedDict is accepted for attributes, and checked where it is created."""
    key = PrimaryKey("email", "anna@example.com", "secret-password")
    good: Columns = {"name": "Anna"}
    await auth.create_user(primary_key=key, attributes=good)
    await auth.create_user(primary_key=key, attributes=Columns(name="Anna"))
    await auth.update_user_attributes("id", Columns(name="Anna"))
    sync_auth.create_user(primary_key=key, attributes=Columns(name="Anna"))
    await auth.create_user(primary_key=key, attributes=Columns(name=1))  # type: ignore[typeddict-item]  # pyright: ignore[reportArgumentType]
    await auth.create_user(primary_key=key, attributes=["Anna"])  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]


class OfOthers:
    """A class that has an ``Auth`` with any type of user."""

    def __init__(self, auth: AsyncAuth[Any]) -> None:
        self.auth = auth


OfOthers(members)
