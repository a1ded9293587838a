"""Count failed logins in a database."""

import secrets
from collections.abc import Mapping

from sqlalchemy.exc import IntegrityError

from lucia._async.stores.sql_transactions import AsyncSource, AsyncTransactions
from lucia._compat.pause import AsyncPause
from lucia._rules.database_errors import MAX_ATTEMPTS, retry_pause
from lucia._rules.sessions import Clock
from lucia._rules.throttling import Attempt, FailureRule
from lucia._sqlalchemy.at_rest import StoredIds
from lucia._sqlalchemy.sources import AsyncOwnEngine, AsyncSession
from lucia._sqlalchemy.tables import AuthTables, check_throttle
from lucia._sqlalchemy.throttling import Names, count_attempt, judge_attempt, take_back

WORD_BYTES = 6


class AsyncSQLAlchemyThrottleStore(AsyncTransactions):
    """A store of failed logins in a database, shared by all processes.

    ============= =================================================================================
    method        statements
    ============= =================================================================================
    ``attempt``   ``SELECT … FROM auth_throttle WHERE name IN (…)``: if the attempt has to wait,
                  that is all. Else, in another transaction, a ``DELETE`` that changes nothing; the
                  same ``SELECT`` with ``ORDER BY name FOR UPDATE``; and for each name an ``UPDATE``
                  or an ``INSERT``
    ``take_back`` a ``DELETE`` that changes nothing; the same ``SELECT … FOR UPDATE``; ``UPDATE`` or
                  ``DELETE``
    ============= =================================================================================

    A failure has to outlast a rollback. So with the caller's own session, failures are counted in
    transactions of the session's engine. Only on SQLite, where a second transaction would have to
    wait for the caller's, and where the session is bound to a connection, they are counted in the
    caller's transaction.

    Args:
        source: where the transactions come from.
        tables: the tables, made with ``sessions=True``.
        ids: says how a name is stored.
        clock: returns the time in milliseconds since the epoch.
    """

    def __init__(
        self, source: AsyncSource, tables: AuthTables, ids: StoredIds, clock: Clock
    ) -> None:
        table = check_throttle(tables)
        if isinstance(source, AsyncSession):
            source = AsyncOwnEngine.behind(source, table) or source
        super().__init__(source, tables)
        self._ids = ids
        self._clock = clock

    async def attempt(self, rules: Mapping[str, FailureRule], /) -> Attempt:
        """Count an attempt as a failure under each name; if it has to wait, under none of them."""
        names = Names(self._ids, rules)
        word = secrets.token_hex(WORD_BYTES)
        for number in range(1, MAX_ATTEMPTS):
            try:
                return await self._attempt(names, word)
            except IntegrityError:
                # Another process has stored the first failure under a name meanwhile. Many at once
                # would meet again and again without a pause.
                await AsyncPause.seconds(retry_pause(number))
        return await self._attempt(names, word)

    async def take_back(self, entries: Mapping[str, str], /) -> None:
        """Remove an attempt from the counts."""
        names = Names(self._ids, entries)
        await self._write(lambda: take_back(self._tables, names))

    async def _attempt(self, names: Names[FailureRule], word: str) -> Attempt:
        # An attempt that has to wait locks nothing and writes nothing, however many there are.
        attempt, known = await self._read(lambda: judge_attempt(self._tables, names, self._clock))
        if attempt.wait:
            return attempt
        return await self._write(
            lambda: count_attempt(self._tables, names, known, word, self._clock)
        )
