"""Throttling of logins: the store in this process's memory, and how ``Auth`` uses a store."""

from collections.abc import Mapping
from contextlib import suppress

from lucia._async.protocols import AsyncThrottleStore, AsyncThrottlingSessionAdapter
from lucia._compat.per_loop import PerProcess
from lucia._memory.throttling import FailureLog
from lucia._rules.sessions import Clock
from lucia._rules.throttling import Attempt, FailureRule, Throttle, seconds_to_wait
from lucia.errors import TooManyAttempts
from lucia.models import KeyRow


class AsyncMemoryThrottleStore:
    """Failures in the memory of this process; other processes count their own.

    It holds at most 100,000 names, and then evicts the oldest.

    Args:
        clock: returns the time in milliseconds since the epoch.
    """

    def __init__(self, clock: Clock) -> None:
        self._log = PerProcess(lambda: FailureLog(clock))

    async def attempt(self, rules: Mapping[str, FailureRule], /) -> Attempt:
        """Count an attempt as a failure under each name, or under none if it has to wait."""
        return self._log.get().attempt(rules)

    async def take_back(self, entries: Mapping[str, str], /) -> None:
        """Undo the counting of an attempt."""
        self._log.get().take_back(entries)


def choose_throttle_store(sessions: object, clock: Clock) -> AsyncThrottleStore:
    """Return the session adapter's throttle store, which all processes share, or one in memory."""
    if isinstance(sessions, AsyncThrottlingSessionAdapter):
        return sessions.throttle_store()
    return AsyncMemoryThrottleStore(clock)


class AsyncGuard:
    """Allows or refuses attempts with a password.

    Args:
        throttle: the limits; None for no limits.
        store: counts the failures.
    """

    def __init__(self, throttle: Throttle | None, store: AsyncThrottleStore) -> None:
        self._throttle = throttle
        self._store = store

    async def begin(self, key_id: str | None, address: str | None) -> Attempt:
        """Count an attempt with a key from an address as a failure, until :meth:`prove`.

        Raises:
            TooManyAttempts: it came too early; nothing was counted.
        """
        attempt = await self._attempt(
            {} if self._throttle is None else self._throttle.rules(key_id, address)
        )
        if attempt.wait:
            raise TooManyAttempts(retry_after=seconds_to_wait(attempt.wait))
        return attempt

    async def begin_single_use(self, row: KeyRow, now: int) -> Attempt:
        """Count an attempt with a single-use key that has a password.

        One that has to wait comes after the last that was allowed: nothing is raised for it, since
        the caller refuses it like a wrong password.
        """
        return await self._attempt(
            {} if self._throttle is None else self._throttle.single_use_rule(row, now)
        )

    def is_last(self, attempt: Attempt) -> bool:
        """Return whether an attempt with a single-use key consumes the key if it fails."""
        return (
            self._throttle is not None
            and self._throttle.single_use_failures in attempt.failures.values()
        )

    async def prove(self, attempt: Attempt) -> None:
        """Take back an attempt whose password was right.

        Other failures still count, those for the key too: if a success reset them, an attacker
        would see by the wait that the owner logged in, and so that the key exists.
        """
        await self._take_back(attempt.entries)

    async def drop(self, attempt: Attempt) -> None:
        """Take back an attempt whose password was not checked."""
        with suppress(Exception):  # the error that ended the attempt is raised, not this one
            await self._take_back(attempt.entries)

    async def _attempt(self, rules: Mapping[str, FailureRule]) -> Attempt:
        return await self._store.attempt(rules) if rules else Attempt(0, {}, {})

    async def _take_back(self, entries: Mapping[str, str]) -> None:
        if entries:
            await self._store.take_back(entries)
