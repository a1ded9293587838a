"""Reads sessions on the shortest way there is: what most requests to an application are made of."""

import time
from functools import partial

from lucia._async.stores.redis.driver import AsyncRedisDriver
from lucia._redis.kept import KeptRows
from lucia._redis.lookup import Lookup
from lucia._redis.operations import once_more
from lucia._redis.records import MismatchedReply
from lucia._redis.store import Store
from lucia._redis.transport.connection_io import Records
from lucia._redis.transport.retries import BatchRejected, NoReply, error_to_raise
from lucia._redis.transport.settings import AsyncSettings
from lucia._rules.sessions import system_clock
from lucia.models import SessionRow


class AsyncSessionReader:
    """Does what the store's ``get`` does, in fewer steps while nothing is in the way, and by ``get`` itself otherwise.

    The server is asked each time. If its record is, byte by byte, what it was, the same row is given again: no row can be changed.

    Args:
        driver: runs operations.
        settings: how long a read may take, in all, and where what was read is kept.
    """

    def __init__(self, driver: AsyncRedisDriver, settings: AsyncSettings) -> None:
        self._driver = driver
        self._outage = driver.outage
        self._near = settings.near
        self._seconds = settings.seconds
        self._kept = KeptRows()

    async def get(self, store: Store, session_id: str) -> SessionRow | None:
        """The session with this id; None if there is none, or if what is stored there is no session."""
        way = self._driver.ready_route()
        if way is None:
            return await self._driver.run(store.get(session_id))
        end = time.monotonic() + self._seconds
        try:
            keys = store.lookup.keys(session_id)
            records = await way.read(keys)
            row = self._kept.find(session_id, records) or self._row(
                store.lookup, session_id, records
            )
        except BatchRejected:
            is_retry, operation = False, store.get(session_id)
        except MismatchedReply:
            is_retry, operation = False, once_more(partial(store.get_once, session_id))
        except NoReply as lost:
            if lost.error is None:
                error = error_to_raise(lost, wrote=False)
                self._outage.failed(error)
                raise error from None
            is_retry, operation = True, store.get(session_id)
        else:
            if self._outage.is_on:
                self._outage.answered()
            self._near.keep(keys, records, row)
            return row
        return await self._driver.run(operation, end - time.monotonic(), is_retry=is_retry)

    def _row(self, lookup: Lookup, session_id: str, records: Records) -> SessionRow | None:
        row = lookup.row(session_id, records)
        if row is None and any(
            records[:-1]
        ):  # damaged, which may have kept another one from being read
            raise BatchRejected
        if (
            row is not None and system_clock() <= row.active_expires
        ):  # others are renewed, and their ids not used again
            self._kept.keep(records, row)
        return row
