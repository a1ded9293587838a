"""The protocols that the Django adapters have."""

from lucia import AsyncAuth, Auth, User
from lucia._async.protocols import AsyncIdAssigningUserAdapter, AsyncUserAdapter
from lucia._sync.protocols import IdAssigningUserAdapter, UserAdapter
from lucia.adapters.django import AsyncDjangoUserAdapter, DjangoUserAdapter
from lucia.adapters.memory import AsyncMemoryAdapter, MemoryAdapter


def asynchronous() -> AsyncAuth[User[int], int]:
    users: AsyncUserAdapter = AsyncDjangoUserAdapter()
    assigning: AsyncIdAssigningUserAdapter = AsyncDjangoUserAdapter("app.Key", using="other")
    AsyncDjangoUserAdapter(key_model=7)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    del users, assigning
    return AsyncAuth(
        users=AsyncDjangoUserAdapter(), sessions=AsyncMemoryAdapter(), user_id=int, env="DEV"
    )


def synchronous() -> Auth[User[int], int]:
    users: UserAdapter = DjangoUserAdapter()
    assigning: IdAssigningUserAdapter = DjangoUserAdapter("app.Key", using="other")
    DjangoUserAdapter(key_model=7)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    del users, assigning
    return Auth(users=DjangoUserAdapter(), sessions=MemoryAdapter(), user_id=int, env="DEV")
