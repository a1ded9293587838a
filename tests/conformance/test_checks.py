"""Helpers of the public suites: checks, concurrent calls, and a login for Starlette's client."""

import threading
from functools import partial

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from lucia import AsyncAuth, InvalidSessionId, SessionRow, User
from lucia._compat.pause import AsyncPause
from lucia._testing.checks import equal, no_error, one_of, one_winner, refused, show
from lucia._testing.racing_calls import AsyncRacingCalls, RacingCalls
from lucia.adapters.memory import AsyncMemoryAdapter
from lucia.testing import alogin

ROW = SessionRow(id="the-id", user_id="anna", active_expires=1, idle_expires=2)


def test_messages() -> None:
    """A failed check says what was expected and found, ids included, and is cut if too long."""
    with pytest.raises(
        AssertionError, match=r"the row: expected None, got SessionRow\(\{'id': 'the-id'"
    ):
        equal(ROW, None, "the row")
    with pytest.raises(AssertionError, match=r"expected 1 or \[2\], got 3"):
        one_of(3, [1, [2]], "a number")
    with pytest.raises(
        AssertionError, match="exactly one of 3 concurrent calls must succeed, but 2 did"
    ):
        one_winner([1, None, 2], lambda outcome: outcome is None, "a race")
    assert len(show("x" * 10_000)) < 500


def test_no_error() -> None:
    """An unexpected error fails the check, and is the cause of the AssertionError."""
    with (
        pytest.raises(
            AssertionError, match="a call must raise no error, but it raised KeyError"
        ) as caught,
        no_error("a call"),
    ):
        raise KeyError
    assert isinstance(caught.value.__cause__, KeyError)


def test_refused() -> None:
    """A missing error, or another one, fails the check."""
    with refused(KeyError, "a call"):
        raise KeyError
    with (
        pytest.raises(AssertionError, match="must raise KeyError, but it raised nothing"),
        refused(KeyError, "a call"),
    ):
        pass
    with (
        pytest.raises(AssertionError, match="must raise KeyError, but it raised ValueError"),
        refused(KeyError, "a call"),
    ):
        raise ValueError


def test_calls_in_threads() -> None:
    """Each call runs in its own thread, and the results are in the order of the calls."""
    meeting = threading.Barrier(3)

    def meet(name: str) -> str:
        meeting.wait(timeout=10)
        return name

    assert RacingCalls.gather_results(*(partial(meet, name) for name in "abc")) == ["a", "b", "c"]


async def test_calls_as_tasks() -> None:
    """Each call runs as its own task, and the results are in the order of the calls."""
    seen: list[str] = []

    async def meet(name: str) -> str:
        seen.append(name)
        while len(seen) < 3:
            await AsyncPause.seconds(0.001)
        return name

    assert await AsyncRacingCalls.gather_results(*(partial(meet, name) for name in "abc")) == [
        "a",
        "b",
        "c",
    ]


async def test_errors_of_calls() -> None:
    """The library's errors are returned as results, others are raised."""

    def fail(error: Exception) -> None:
        raise error

    async def afail(error: Exception) -> None:
        raise error

    ours = InvalidSessionId()
    assert RacingCalls.gather_results(partial(fail, ours)) == [ours]
    assert await AsyncRacingCalls.gather_results(partial(afail, ours)) == [ours]
    with pytest.raises(OSError):
        RacingCalls.gather_results(partial(fail, ours), partial(fail, OSError()))
    with pytest.raises(OSError):
        await AsyncRacingCalls.gather_results(partial(afail, ours), partial(afail, OSError()))


def test_starlette_client() -> None:
    """Starlette's client is logged in through its portal, in the application's event loop."""
    auth: AsyncAuth[User] = AsyncAuth(sessions=AsyncMemoryAdapter(), env="DEV")

    async def who(request: Request) -> JSONResponse:
        session = await auth.get_session(request.cookies["auth_session"])
        return JSONResponse([session.user_id, request.headers["origin"]])

    with TestClient(Starlette(routes=[Route("/", who, methods=["POST"])])) as client:
        assert client.portal is not None
        client.portal.call(alogin, client, auth, "anna")
        assert client.post("/").json() == ["anna", "http://testserver"]
