"""A store in memory that records calls, raises errors, and runs hooks before or after calls."""

from collections.abc import Callable
from functools import wraps
from typing import Any

from lucia import AsyncAuth, User
from lucia.adapters.memory import AsyncMemoryAdapter
from tests.support.clocks import Time
from tests.support.passwords import CHEAP, ROOMY

METHODS = (
    "get_user",
    "set_user",
    "delete_user",
    "update_user_attributes",
    "get_key",
    "get_keys_by_user_id",
    "set_key",
    "update_key_password",
    "delete_non_primary_key",
    "delete_keys_by_user_id",
    "get_session",
    "get_session_and_user_by_session_id",
    "get_sessions_by_user_id",
    "set_session",
    "set_session_capped",
    "delete_session",
    "delete_sessions_by_user_id",
    "delete_other_sessions",
    "renew_session",
    "get_successor",
)


class StoreDownError(Exception):
    """An error of a database that the library does not know."""


class AsyncWatchedStore(AsyncMemoryAdapter):
    """A store in memory that a test controls.

    Attributes:
        calls: the names of all methods that were called.
        before: a hook for each method, run once before the next call.
        after: a hook for each method, run once after the next call.
        failing: the error that each method raises.
    """

    def __init__(self, time: Time) -> None:
        super().__init__(clock=time)
        self.calls: list[str] = []
        self.before: dict[str, Callable[[], Any]] = {}
        self.after: dict[str, Callable[[], Any]] = {}
        self.failing: dict[str, Exception] = {}

    async def step_in(self, hooks: dict[str, Callable[[], Any]], name: str) -> None:
        """Run the hook once if there is one. It may call the store."""
        hook = hooks.pop(name, None)
        if hook is not None:
            await hook()


def _watched(name: str) -> Callable[..., Any]:
    method: Callable[..., Any] = getattr(AsyncMemoryAdapter, name)

    @wraps(method)
    async def call(self: AsyncWatchedStore, /, *args: Any, **kwargs: Any) -> Any:
        self.calls.append(name)
        await self.step_in(self.before, name)
        if name in self.failing:
            raise self.failing[name]
        result = await method(self, *args, **kwargs)
        await self.step_in(self.after, name)
        return result

    return call


for _name in METHODS:
    setattr(AsyncWatchedStore, _name, _watched(_name))


def make_auth(store: AsyncWatchedStore, time: Time, **config: Any) -> AsyncAuth[User]:
    """Return an ``Auth`` over one store, with a cheap hasher and the test's clock."""
    defaults: dict[str, Any] = {
        "users": store,
        "sessions": store,
        "env": "DEV",
        "hash": CHEAP,
        "password_pool": ROOMY,
        "clock": time,
    }
    return AsyncAuth(**{**defaults, **config})
