"""Read a session that could not be read in a batch, and decide what follows from a failure."""

import time
from collections.abc import Callable
from functools import partial

from lucia._async.stores.redis.driver import AsyncRedisDriver
from lucia._async.stores.redis.router import AsyncRoute
from lucia._redis.lookup import Lookup
from lucia._redis.operations import retry_on_new_connection
from lucia._redis.records import MismatchedReply
from lucia._redis.store import Store
from lucia._redis.transport.connection_io import Records
from lucia._redis.transport.retries import BatchRejected, NoReply, error_to_raise
from lucia._redis.transport.session_reads import AsyncSessionReads, ReadError
from lucia._redis.transport.settings import AsyncSettings
from lucia.models import StoredSession


class AsyncSessionReader:
    """Does what the store's ``get`` does: in fewer steps while nothing is in the way, else by it.

    Args:
        driver: runs operations.
        lookup: at which keys a session may be.
        settings: how long a read may take, in all, and the near-cache.
        store: returns the store, which is another one once the server has refused scripts.
    """

    def __init__(
        self,
        driver: AsyncRedisDriver,
        lookup: Lookup,
        settings: AsyncSettings,
        store: Callable[[], Store],
    ) -> None:
        self._driver = driver
        self._lookup = lookup
        self._outage = driver.outage
        self._near = settings.near
        self._seconds = settings.seconds
        self._store = store
        self.reads = AsyncSessionReads(
            lookup, settings, driver.revocations, driver.outage, self.recover
        )

    async def read(self, session_id: str) -> StoredSession | None:
        """Return the session with this id; None if there is none."""
        route = self._driver.ready_route()
        if route is None:
            return await self._driver.run(self._store().get(session_id))
        self.reads.begin(route.only_server)
        return await (self.reads.find(session_id) or self._read_alone(route, session_id))

    async def _read_alone(self, route: AsyncRoute, session_id: str) -> StoredSession | None:
        end = time.monotonic() + self._seconds
        keys = self._lookup.keys(session_id)
        try:
            records = await route.read(keys, self._seconds)
            row = self._row(session_id, records)
        except (BatchRejected, MismatchedReply, NoReply) as error:
            failure = error
        else:
            if self._outage.is_on:
                self._outage.answered()
            self._near.keep(keys, records, row)
            return row
        return await self.recover(session_id, failure, end - time.monotonic())

    async def recover(
        self, session_id: str, error: ReadError, seconds: float
    ) -> StoredSession | None:
        """Read a session after an error, in so many seconds."""
        if isinstance(error, MismatchedReply):
            # The batched read was the first attempt, so this one is the last (I0).
            operation = retry_on_new_connection(partial(self._store().get_once, session_id))
        else:
            operation = self._store().get(session_id)
        if not isinstance(error, NoReply):
            return await self._driver.run(operation, seconds)
        if error.error is None:  # the time is over
            unavailable = error_to_raise(error, wrote=False)
            self._outage.failed(unavailable)
            raise unavailable
        # The batched read was the first attempt: once more, on a fresh connection (T1).
        return await self._driver.run(operation, seconds, is_retry=True)

    def _row(self, session_id: str, records: Records) -> StoredSession | None:
        row = self._lookup.row(session_id, records)
        if row is None and any(records[:-1]):  # damaged: it may have kept another from being read
            raise BatchRejected
        return row
