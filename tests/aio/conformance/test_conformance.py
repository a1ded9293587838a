"""The library's adapters, and a minimal one over a dictionary, pass the public suites."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any
from zlib import crc32

import pytest

from lucia._async.fallback import AsyncFiveMethods
from lucia._rules.sessions import system_clock
from lucia.adapters.memory import AsyncMemoryAdapter
from lucia.errors import InvalidUserId
from lucia.models import KeyRow, SessionRow, UserRow
from lucia.testing import (
    AsyncRenewingSessionAdapterSuite,
    AsyncSessionAdapterSuite,
    AsyncSessionUserAdapterSuite,
    AsyncUserAdapterSuite,
)
from tests.aio.support.minimal_adapters import AsyncColumnsAdapter, AsyncDictionaryAdapter
from tests.support.clocks import Time


class TestMemorySessions(AsyncRenewingSessionAdapterSuite):
    """Sessions in memory."""

    @pytest.fixture
    def adapter(self) -> AsyncMemoryAdapter:
        return AsyncMemoryAdapter()


class TestMemoryUsers(AsyncUserAdapterSuite):
    """Users and keys in memory."""

    @pytest.fixture
    def adapter(self) -> AsyncMemoryAdapter:
        return AsyncMemoryAdapter()


class TestMemoryBoth(AsyncSessionUserAdapterSuite):
    """Sessions joined with their users in memory."""

    @pytest.fixture
    def adapter(self) -> AsyncMemoryAdapter:
        return AsyncMemoryAdapter()


class AsyncNumberedUsers(AsyncMemoryAdapter):
    """An adapter whose user ids are numbers, as those of many databases are."""

    async def set_user(
        self, user_id: str, attributes: Mapping[str, Any], key: KeyRow | None, /
    ) -> UserRow:
        return await super().set_user(check_number(user_id), attributes, key)

    async def set_session(self, session: SessionRow, /) -> None:
        check_number(session.user_id)
        await super().set_session(session)


def check_number(user_id: str) -> str:
    """Return the user id if it is a number."""
    if not user_id.isdecimal():
        raise InvalidUserId
    return user_id


class NumberedNames:
    """The hook of a suite for such an adapter."""

    def user_id(self, name: str) -> str:
        return str(crc32(name.encode()))


class TestNumberedUsers(NumberedNames, AsyncUserAdapterSuite):
    """Users whose ids are numbers."""

    @pytest.fixture
    def adapter(self) -> AsyncNumberedUsers:
        return AsyncNumberedUsers()


class TestNumberedSessions(NumberedNames, AsyncRenewingSessionAdapterSuite):
    """Sessions of users whose ids are numbers."""

    @pytest.fixture
    def adapter(self) -> AsyncNumberedUsers:
        return AsyncNumberedUsers()


class TestNumberedBoth(NumberedNames, AsyncSessionUserAdapterSuite):
    """Sessions joined with users whose ids are numbers."""

    @pytest.fixture
    def adapter(self) -> AsyncNumberedUsers:
        return AsyncNumberedUsers()


class AsyncLateAdapter(AsyncMemoryAdapter):
    """An adapter that refuses expired sessions.

    The first session with less than a minute to live arrives a minute late, and has expired.
    """

    def __init__(self, time: Time) -> None:
        super().__init__(clock=time)
        self.time = time
        self.is_late = True

    async def set_session(self, session: SessionRow, /) -> None:
        if self.is_late and session.idle_expires < self.time.now + 60_000:
            self.is_late = False
            self.time.advance(timedelta(minutes=1))
        if session.idle_expires < self.time.now:
            raise ValueError
        await super().set_session(session)


class AsyncTimedSuite(AsyncRenewingSessionAdapterSuite):
    """The suite with a clock that the test moves."""

    def __init__(self, time: Time) -> None:
        self.time = time

    def now(self) -> int:
        """Return the time of the test's clock."""
        return self.time.now

    async def wait(self, milliseconds: int) -> None:
        """Move the clock."""
        self.time.advance(timedelta(milliseconds=milliseconds))


async def test_short_lives_on_a_busy_machine() -> None:
    """A session that expired before a busy machine could store it is stored once more."""
    adapter = AsyncLateAdapter(time := Time())
    await AsyncTimedSuite(time).test_cap_expired(adapter)
    assert not adapter.is_late


class AsyncRefusingAdapter(AsyncMemoryAdapter):
    """An adapter that refuses sessions with less than an hour to live."""

    async def set_session(self, session: SessionRow, /) -> None:
        if session.idle_expires < self._clock() + 3_600_000:
            raise ValueError("too short")
        await super().set_session(session)


async def test_expired_refused() -> None:
    """A store may refuse a session that has expired."""
    await AsyncSessionAdapterSuite().test_expired(AsyncRefusingAdapter())


async def test_short_lives_refused() -> None:
    """If a store refuses all short sessions, the suite raises its error instead of looping."""
    with pytest.raises(ValueError, match="too short"):
        await AsyncRenewingSessionAdapterSuite().test_cap_expired(AsyncRefusingAdapter())


class TestFiveMethods(AsyncSessionAdapterSuite):
    """An adapter with five methods, alone."""

    @pytest.fixture
    def adapter(self) -> AsyncDictionaryAdapter:
        return AsyncDictionaryAdapter()


class TestFiveMethodsRenewing(AsyncRenewingSessionAdapterSuite):
    """An adapter with five methods, with the library's fallback."""

    @pytest.fixture
    def adapter(self) -> AsyncFiveMethods:
        return AsyncFiveMethods(AsyncDictionaryAdapter(), system_clock)


class TestColumnsRenewing(AsyncRenewingSessionAdapterSuite):
    """An adapter with five methods that stores no attributes, with the library's fallback."""

    @pytest.fixture
    def adapter(self) -> AsyncFiveMethods:
        return AsyncFiveMethods(AsyncColumnsAdapter(), system_clock)
