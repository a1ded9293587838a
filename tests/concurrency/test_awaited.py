"""A coroutine whose result is tested for truth must be awaited first."""

import asyncio
from typing import Any

import pytest

from lucia import AsyncAuth, User
from lucia._compat.awaited import AsyncTruth, Truth
from lucia.adapters.memory import AsyncMemoryAdapter
from tests.support.requests import Exchange


class Request:
    """An object with an async method."""

    @AsyncTruth.needs_await
    async def validate(self, answer: str) -> str:
        """Return the answer later."""
        await asyncio.sleep(0)
        return answer


async def test_awaiting() -> None:
    """The call can be awaited, gathered, and made a task, as any coroutine."""
    request = Request()
    assert await request.validate("a") == "a"
    assert [*await asyncio.gather(request.validate("a"), request.validate("b"))] == ["a", "b"]
    assert await asyncio.create_task(request.validate("c")) == "c"
    assert await asyncio.wait_for(request.validate("d"), 5) == "d"


async def test_cancelling() -> None:
    """A cancellation reaches the method."""
    ended: list[str] = []

    class Waiting:
        @AsyncTruth.needs_await
        async def wait(self) -> None:
            try:
                await asyncio.Event().wait()
            finally:
                ended.append("wait")

    task = asyncio.create_task(Waiting().wait())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended == ["wait"]


def test_reading_from_what_is_not_awaited() -> None:
    """Reading a member of the result is an error that says what to write; Python's own are not."""
    call: Any = Request().validate("a")
    with pytest.raises(AttributeError, match=r"write '\(await validate\(\)\)\.user_id'"):
        _ = call.user_id
    assert not hasattr(call, "__fspath__")
    assert not hasattr(call, "cr_frame")
    call.close()


def test_closing() -> None:
    """A call that is closed was never begun."""
    Request().validate("a").close()


async def test_a_forgotten_await() -> None:
    """``if request.validate():`` without await raises an error that names the remedy."""
    memory = AsyncMemoryAdapter()
    auth: AsyncAuth[User] = AsyncAuth(users=memory, sessions=memory, env="DEV")
    request = auth.handle_request(Exchange().context)
    for call in (request.validate, request.validate_user, request.renew):
        with pytest.raises(TypeError, match=f"write 'await {call.__name__}\\(\\)'"):
            bool(call())


def test_sync() -> None:
    """A sync method is left as it is."""

    def validate() -> None:
        return None

    assert Truth.needs_await(validate) is validate
