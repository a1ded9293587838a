"""Counting failed sign-ins: the store in this process's memory, and what ``Auth`` asks of a store."""

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
    """Failures in this process's memory: each process has its own. At most 100,000 names; the oldest ones are forgotten first.

    Args:
        clock: gives the time in milliseconds since the epoch.
    """

    def __init__(self, clock: Clock) -> None:
        self._log = PerProcess(lambda: FailureLog(clock))

    async def attempt(self, rules: Mapping[str, FailureRule], /) -> Attempt:
        """Count an attempt as a failure under each name, or under none of them if it has to wait."""
        return self._log.get().attempt(rules)

    async def take_back(self, entries: Mapping[str, str], /) -> None:
        """Make an attempt uncounted."""
        self._log.get().take_back(entries)


def choose_throttle_store(sessions: object, clock: Clock) -> AsyncThrottleStore:
    """The store that the session adapter offers, where all processes count together; else one in memory."""
    if isinstance(sessions, AsyncThrottlingSessionAdapter):
        return sessions.throttle_store()
    return AsyncMemoryThrottleStore(clock)


class AsyncGuard:
    """Lets attempts with a password pass, or refuses them.

    Args:
        throttle: the limits; None for none.
        store: where failures are counted.
    """

    def __init__(self, throttle: Throttle | None, store: AsyncThrottleStore) -> None:
        self._throttle = throttle
        self._store = store

    async def begin(self, key_id: str | None, address: str | None) -> Attempt:
        """Count an attempt at a key from an address as a failure, as long as nobody knows better.

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
        """Count an attempt at a single-use key with a password likewise; one that has to wait comes after the last that was allowed."""
        return await self._attempt(
            {} if self._throttle is None else self._throttle.single_use_rule(row, now)
        )

    def is_last(self, attempt: Attempt) -> bool:
        """Whether an attempt at a single-use key, if it fails, consumes it."""
        return (
            self._throttle is not None
            and self._throttle.single_use_failures in attempt.failures.values()
        )

    async def prove(self, attempt: Attempt) -> None:
        """Take back an attempt whose password was right.

        The failures of others stay, at the key too: if a success forgot them, somebody who keeps
        failing would see that the owner logged in, and so that the key exists.
        """
        await self._take_back(attempt.entries)

    async def drop(self, attempt: Attempt) -> None:
        """Nothing was learnt of the password: take the attempt back, as far as the store can be reached."""
        with suppress(Exception):
            await self._take_back(attempt.entries)

    async def _attempt(self, rules: Mapping[str, FailureRule]) -> Attempt:
        return await self._store.attempt(rules) if rules else Attempt(0, {}, {})

    async def _take_back(self, entries: Mapping[str, str]) -> None:
        if entries:
            await self._store.take_back(entries)
