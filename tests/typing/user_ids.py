"""The type of user ids and of a new user's attributes: inferred, and seen in every result."""

from typing import Any, TypedDict, assert_type
from uuid import UUID, uuid4

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
    SingleUseKey,
    User,
    UserIdType,
    UserRow,
)
from lucia.adapters.memory import AsyncMemoryAdapter, MemoryAdapter
from lucia.middleware.fastapi import FastAPIAuth


class NewMember(TypedDict):
    """The attributes of a new user."""

    email: str


class Ulid:
    """A type of ids of an application's own."""


def to_number(row: UserRow[UUID]) -> int:
    """Return an application's user."""
    return row.id.int


def parse(text: str) -> Ulid:
    """Return the ULID with this text."""
    return Ulid()


store = AsyncMemoryAdapter()
sync_store = MemoryAdapter()

uuids = AsyncAuth(sessions=store, users=store, env="DEV", user_id=UUID)
assert_type(uuids, AsyncAuth[User[UUID], UUID])
assert_type(Auth(sessions=sync_store, env="DEV", user_id=UUID), Auth[User[UUID], UUID])
assert_type(Auth(sessions=sync_store, env="DEV", user_id=int), Auth[User[int], int])
assert_type(
    Auth(sessions=sync_store, env="DEV", user_id=UserIdType(Ulid, from_text=parse)),
    Auth[User[Ulid], Ulid],
)

# The type of users is inferred as before, from a function or a lambda.
numbers = AsyncAuth(sessions=store, env="DEV", user_id=UUID, transform_database_user=to_number)
assert_type(numbers, AsyncAuth[int, UUID])
assert_type(
    Auth(sessions=sync_store, env="DEV", user_id=int, transform_database_user=lambda row: row.id),
    Auth[int, int],
)

# A function that creates ids creates them of that type; the database may do it.
Auth(sessions=sync_store, env="DEV", user_id=UUID, generate_custom_user_id=uuid4)
Auth(sessions=sync_store, env="DEV", user_id=int, generate_custom_user_id=None)
Auth(sessions=sync_store, env="DEV", generate_custom_user_id=uuid4)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
Auth(sessions=sync_store, env="DEV", user_id="UUID")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]

# An Auth for ids of one type is none for ids of another.
of_text: AsyncAuth[int] = numbers  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
declared: AsyncAuth[int, UUID] = AsyncAuth(
    sessions=store, env="DEV", user_id=UUID, transform_database_user=to_number
)


async def methods(user_id: UUID, context: RequestContext) -> None:
    """Check the types of parameters and results."""
    session = await uuids.create_session(user_id)
    assert_type(session, Session[UUID])
    assert_type(session.user_id, UUID)
    assert_type(await uuids.get_user(user_id), User[UUID])
    assert_type((await uuids.get_user(user_id)).user_id, UUID)
    assert_type(await uuids.validate_session("id"), Session[UUID])
    assert_type(await uuids.validate_session_user("id"), SessionUser[User[UUID], UUID])
    assert_type(await uuids.get_all_user_sessions(user_id), list[Device[UUID]])
    assert_type(await uuids.get_all_user_keys(user_id), list[Key[UUID]])
    assert_type((await uuids.use_key("a", "b", None)).user_id, UUID)
    request = uuids.handle_request(context)
    assert_type(request, AsyncAuthRequest[User[UUID], UUID])
    assert_type(await request.validate(), Session[UUID] | None)
    await request.sign_in(user_id)
    async with uuids.in_transaction(object()) as inside:
        assert_type(inside, AsyncAuth[User[UUID], UUID])

    await uuids.create_session("id")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await uuids.get_user(7)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await request.sign_in("id")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def web() -> None:
    """Check the types of what a framework's routes get."""
    fastapi = FastAPIAuth(numbers)
    assert_type(fastapi, FastAPIAuth[int, UUID])
    request: AsyncAuthRequest[int, UUID] = await fastapi.request(object())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    assert_type(await request.validate_user(), SessionUser[int, UUID] | None)


typed = AsyncAuth(sessions=store, users=store, env="DEV", user_id=UUID, user_attributes=NewMember)
sync_typed = Auth(sessions=sync_store, users=sync_store, env="DEV", user_attributes=NewMember)
assert_type(typed, AsyncAuth[User[UUID], UUID, NewMember])
assert_type(sync_typed, Auth[User, str, NewMember])


async def attributes() -> None:
    """Check that a new user's attributes are those of the TypedDict."""
    await typed.create_user(primary_key=None, attributes={"email": "anna@example.com"})
    sync_typed.create_user(primary_key=None, attributes={"email": "anna@example.com"})
    await typed.create_user(primary_key=None, attributes={"email": 1})  # type: ignore[typeddict-item]  # pyright: ignore[reportArgumentType]
    await typed.create_user(primary_key=None, attributes={"mail": "a"})  # type: ignore[typeddict-item]  # pyright: ignore[reportArgumentType]
    await typed.create_user(primary_key=None, attributes={})  # type: ignore[typeddict-item]  # pyright: ignore[reportArgumentType]
    await typed.create_user(primary_key=None)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    # Without a TypedDict, any attributes or none.
    await uuids.create_user(primary_key=PrimaryKey("email", "a", None))
    await uuids.create_user(primary_key=None, attributes={"anything": 1})


def sync_methods(auth: Auth[int, UUID, Any], user_id: UUID, context: RequestContext) -> None:
    """Check the types of the sync class."""
    assert_type(auth.create_session(user_id), Session[UUID])
    assert_type(auth.handle_request(context), AuthRequest[int, UUID])
    single = auth.get_key("a", "b")
    if isinstance(single, SingleUseKey):
        assert_type(single.user_id, UUID)
    with auth.in_transaction(object()) as inside:
        assert_type(inside, Auth[int, UUID, Any])
