"""Failed sign-ins in Redis: runs the operations of :mod:`lucia._redis.throttling` over the session adapter's client."""

import secrets
from collections.abc import Mapping
from typing import Any

from lucia._async.stores.redis.driver import AsyncRedisDriver
from lucia._redis.commands import with_or_without_scripts
from lucia._redis.throttling import PlainThrottle, ThrottleKeys, choose_throttle, take_back
from lucia._rules.throttling import Attempt, FailureRule

WORD_BYTES = 6


class AsyncRedisThrottleStore:
    """Failures in Redis or Valkey, where all processes count together, by the server's clock.

    ================ ===================================================================================================
    key              ``session:throttle:{32 hex digits}``: a list, newest failure first; expires when the last is forgotten
    ``attempt``      script, for a key and an address together: ``TIME``, ``LRANGE``, and if the attempt may be made ``LPUSH``
                     and ``PEXPIREAT``, and ``LREM`` of what is too old; in a cluster a script for each
    without scripts  for each ``TIME``; ``MULTI``, ``LPUSH``, ``PEXPIREAT``, ``EXEC``; ``LRANGE``; and ``LREM``
    ``take_back``    ``LREM``
    ================ ===================================================================================================

    Args:
        client: the session adapter's.
        driver: runs operations over it.
        keys: where the lists are.
    """

    def __init__(self, client: Any, driver: AsyncRedisDriver, keys: ThrottleKeys) -> None:
        self._driver = driver
        self._keys = keys
        self._protocol = choose_throttle(client, keys)

    async def attempt(self, rules: Mapping[str, FailureRule], /) -> Attempt:
        """Count an attempt as a failure under each name, or under none of them if it has to wait."""
        word = secrets.token_hex(WORD_BYTES)
        return await self._driver.run(
            with_or_without_scripts(
                lambda: self._protocol.attempt(rules, word), self._give_up_scripts
            )
        )

    async def take_back(self, entries: Mapping[str, str], /) -> None:
        """Make an attempt uncounted."""
        await self._driver.run(take_back(self._keys, entries))

    def _give_up_scripts(self) -> None:
        self._protocol = PlainThrottle(self._keys)
