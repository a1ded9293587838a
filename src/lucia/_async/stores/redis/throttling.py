"""Count failed logins in Redis, over the session adapter's connections."""

import secrets
from collections.abc import Mapping
from typing import Any

from lucia._async.stores.redis.driver import AsyncRedisDriver
from lucia._redis.commands import with_or_without_scripts
from lucia._redis.throttling import PlainThrottle, ThrottleKeys, choose_throttle, take_back
from lucia._rules.throttling import Attempt, FailureRule

WORD_BYTES = 6


class AsyncRedisThrottleStore:
    """A store of failed logins in Redis or Valkey, shared by all processes.

    Times are by the server's clock. The operations are in :mod:`lucia._redis.throttling`.

    ================ ==============================================================================
    key              ``session:throttle:{32 hex digits}``: a list, newest failure first; it expires
                     when its last failure is too old to count
    ``attempt``      one script for a key and an address: ``TIME``, ``LRANGE``, ``LREM`` of failures
                     that are too old, and if the attempt is allowed ``LPUSH`` and ``PEXPIREAT``; in
                     a cluster one script for each
    without scripts  for each ``TIME``; ``MULTI``, ``LPUSH``, ``PEXPIREAT``, ``EXEC``; ``LRANGE``;
                     and ``LREM``
    ``take_back``    ``LREM``
    ================ ==============================================================================

    Args:
        client: the session adapter's.
        driver: runs operations over it.
        keys: names the lists.
    """

    def __init__(self, client: Any, driver: AsyncRedisDriver, keys: ThrottleKeys) -> None:
        self._driver = driver
        self._keys = keys
        self._protocol = choose_throttle(client, keys)

    async def attempt(self, rules: Mapping[str, FailureRule], /) -> Attempt:
        """Count an attempt as a failure under each name; if it has to wait, under none of them."""
        word = secrets.token_hex(WORD_BYTES)
        return await self._driver.run(
            with_or_without_scripts(
                lambda: self._protocol.attempt(rules, word), self._give_up_scripts
            )
        )

    async def take_back(self, entries: Mapping[str, str], /) -> None:
        """Remove an attempt from the counts."""
        await self._driver.run(take_back(self._keys, entries))

    def _give_up_scripts(self) -> None:
        self._protocol = PlainThrottle(self._keys)
