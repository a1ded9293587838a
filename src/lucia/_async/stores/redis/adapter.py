"""The Redis session adapter: runs the operations of :mod:`lucia._redis.store` over a client that the application made."""

import math
import random
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from types import TracebackType
from typing import Final, Self, TypeVar, Unpack

from lucia._async.stores.redis.driver import AsyncRedisDriver
from lucia._async.stores.redis.reader import AsyncSessionReader
from lucia._async.stores.redis.throttling import AsyncRedisThrottleStore
from lucia._redis.at_rest import RawIds, at_rest
from lucia._redis.cluster import ClusterStore, PlainSteps
from lucia._redis.commands import Operation, with_or_without_scripts
from lucia._redis.keys import Layout, LayoutName
from lucia._redis.repair import Reindexed, Repair
from lucia._redis.replay import Replay, Revocations
from lucia._redis.revocations import Acknowledgement, RevocationTracking
from lucia._redis.store import ServerStore, Store, choose_store
from lucia._redis.throttling import KeyedNames
from lucia._redis.transport.clients import AsyncRedisClient, check_client, is_cluster
from lucia._redis.transport.settings import AsyncReadOptions, AsyncSettings, deadline_seconds
from lucia._rules.sessions import system_clock
from lucia.models import AsyncFoundSession, SessionRow

T = TypeVar("T")

DEFAULT_DEADLINE: Final = timedelta(seconds=5)
DEFAULT_ACK_TIMEOUT: Final = timedelta(seconds=1)


class AsyncRedisSessionAdapter:
    """Sessions in Redis or Valkey, on a single server, behind Sentinel, or in a cluster.

    Users and keys are another adapter's; a session is stored also when its user does not exist.

    ============================================ ====================================================================
    key                                          value
    ============================================ ====================================================================
    ``session:{session id}``                     JSON of the session's row; expires with the session
    ``userSession:{user id}``                    list of session ids, newest first; expires with the last of them
    ``session:renewed:{session:{used id}}``      after a renewal for 60 s: what the used id leads to
    ``session:throttle:{32 hex digits}``         failed sign-ins, see :class:`AsyncRedisThrottleStore`
    ============================================ ====================================================================

    ================================ =================================================================================
    method                           commands
    ================================ =================================================================================
    ``get_session``                  ``MGET session:ID``
    ``set_session``                  script: ``TIME``, ``LLEN userSession:USER``, ``SET session:ID … NX PXAT``, ``LPUSH``,
                                     ``PTTL``, ``PEXPIREAT``; at every eighth login from the 16th session on also
                                     ``LRANGE``, ``MGET`` and a script with ``EXISTS`` and ``LREM``
    ``set_session_capped``           ``LRANGE userSession:USER 0 -1``, ``MGET``; script: ``TIME``, ``LRANGE``, ``EXISTS`` for each
                                     that was counted, ``SET session:ID … NX PXAT``, ``DEL`` and ``LREM`` for the oldest,
                                     ``LPUSH``, ``PTTL``, ``PEXPIREAT``; all of it anew if something changed in between; above
                                     1,000 sessions the oldest end before that, by blocks
    ``renew_session``                script: ``TIME``, ``MGET session:OLD``, ``LLEN``, ``SET session:NEW … NX PXAT``,
                                     ``SET session:renewed:{session:OLD} … PX 60000``, ``DEL session:OLD``, ``LPUSH``,
                                     ``PTTL``, ``PEXPIREAT``, ``LREM``
    ``get_successor``                ``MGET`` and ``PTTL`` of ``session:renewed:{session:OLD}``, ``MGET session:NEW``
    ``get_sessions_by_user_id``      ``LRANGE userSession:USER 0 -1``, ``MGET``; for dead ids ``MGET`` of their markers, and
                                     a script: ``EXISTS``, ``LREM``; for dead sessions that are there ``PEXPIREAT``
    ``delete_session``               script: ``MGET`` of session and marker, ``DEL``; then ``LREM userSession:USER 0 ID``
    ``delete_sessions_by_user_id``   ``LRANGE userSession:USER 0 -1``; script: ``LRANGE``, ``DEL`` and ``LREM`` for each; above
                                     1,000 sessions by blocks, each with ``MGET`` of the markers, whose successors end too
    ``delete_other_sessions``        the same, and ``MGET`` of the kept session and of its marker; ``EXISTS`` in the script
    ================================ =================================================================================

    Scripts run by ``EVALSHA``, and by ``EVAL`` where the server does not know them yet; every key they touch is declared. In a cluster,
    and on a server that refuses scripts, the steps of :mod:`lucia._redis.cluster` take the place of the commands that write.

    The adapter makes connections of its own, in the way that the client makes its: as many at most, with the same address, password, TLS
    and Sentinel or cluster. They are made when needed, belong to the running event loop and to this process, and are closed with it, or
    before, when the adapter is closed. The client itself is sent nothing, and is never closed.

    Args:
        client: made by the application, which also closes it; ``decode_responses``, timeouts and retries may be any.
        namespaces: ``session`` and ``user_session``, each of which may be left out.
        layout: ``lucia-v2`` for the format of the original's adapter 2.x: the index is a set, ``user_sessions:{user id}``, and the
            commands for it are ``SADD``, ``SREM``, ``SMEMBERS``, ``SCARD``, ``SRANDMEMBER`` in the place of those for lists.
        legacy_writers: whether a JavaScript Lucia writes to the same keys meanwhile. Then indexes get no expiry (``PERSIST``), and an id
            is taken out of an index only by who ends its session.
        id_keys: with these, in the place of ids stand their hashes under the first key, 64 hex digits; those under the other keys are
            read too. Lists then have hashes in the place of ids. The keys of failed sign-ins are named with the first one.
        raw_ids: with ``id_keys``, whether sessions that are stored under their ids as they are can still be used: ``read`` yes,
            ``refuse`` no; ``write`` also stores new ones so.
        deadline: for each command, whatever it waits for: a free connection, the handshake, the answer. 30 s at most; a login and a
            renewal also have 30 s in all.
        revoke_ack: how many replicas have to confirm that sessions were ended; 0 asks none. In a cluster each primary's are asked.
        revoke_ack_timeout: how long each primary waits for them; shorter than the deadline.

    Raises:
        TypeError: the client is none that this adapter can use, or ``id_keys`` are no sequence of ``bytes``, or the
            deadline is no ``timedelta``; or ``revoke_ack`` is no number, or the client is one that can't be copied.
        ValueError: a namespace is empty or unknown, the two collide, there is no such layout, a key has fewer than 32 bytes, or
            the deadline is not more than 0 or more than 30 s; or ``revoke_ack`` is negative, or its timeout is no time within the deadline.
        ImportError: there are ``id_keys``, and cryptography is not installed.

    The adapter remembers what it ended of late, and ends it again once a server's history is another one, as after a failover: see
    :mod:`lucia._redis.replay`. For that a new connection asks ``INFO replication``. With ``revoke_ack`` an ending is followed by
    ``SET session:renewed:{0} … PX 1000`` and ``WAIT``, and raises :class:`~lucia.RevocationNotReplicated` where too few confirm.

    Each method raises :class:`~lucia.StoreUnavailable` where the server can't be reached, did not answer in time, is loading its data or
    says that its cluster is down, or where the answer to a write was lost; :class:`~lucia.StoreCorrupt` where an index holds a value of
    another type; and every other error of the client unchanged but for arguments, ids among them, that are taken out of their text.
    """

    keeps_attributes: bool = True
    expires_records: bool = True

    def __init__(
        self,
        client: AsyncRedisClient,
        namespaces: Mapping[str, str] | None = None,
        *,
        layout: LayoutName = "default",
        legacy_writers: bool = False,
        id_keys: Sequence[bytes] = (),
        raw_ids: RawIds = "read",
        deadline: timedelta = DEFAULT_DEADLINE,
        revoke_ack: int = 0,
        revoke_ack_timeout: timedelta = DEFAULT_ACK_TIMEOUT,
        **options: Unpack[AsyncReadOptions],
    ) -> None:
        check_client(client, like=self.set_session)
        self._layout = Layout.from_namespaces(namespaces, layout, legacy_writers=legacy_writers)
        self._acknowledgement = Acknowledgement(revoke_ack, revoke_ack_timeout)
        self._acknowledgement.check_within(deadline)
        self._seconds_of_deletes = (
            math.inf if revoke_ack else None
        )  # replicas have time of their own
        self._revocations = Revocations()
        settings = AsyncSettings(seconds=deadline_seconds(deadline), **options)
        self._driver = AsyncRedisDriver(
            client, settings, Replay(self._revocations, self._revoke_again)
        )
        if revoke_ack and not self._driver.has_own_connections:
            raise TypeError(
                f"revoke_ack needs connections of our own, and how to make them can't be told from the {type(client).__name__}"
            )
        self._at_rest = at_rest(self._layout, id_keys, raw_ids, one_server=not is_cluster(client))
        self._tracking = RevocationTracking(self._layout, self._revocations, self._acknowledgement)
        self._use(choose_store(client, self._layout, self._tracking))
        self._reader = AsyncSessionReader(
            self._driver, self._store.lookup, settings, lambda: self._store
        )
        self._reads = self._reader.reads
        names = KeyedNames(self._layout, id_keys[0]) if id_keys else self._layout
        self._throttle_store = AsyncRedisThrottleStore(client, self._driver, names)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the adapter's own connections, not the client's. Using the adapter again opens new ones."""
        self._reads.close()
        await self._driver.aclose()

    def get_session(self, session_id: str, /) -> AsyncFoundSession:
        """Return the session with this id; None if there is none, or no session in the record."""
        # A plain function: one more frame that waits with each request costs a tenth of its time.
        return self._reads.find(session_id) or self._reader.read(session_id)

    async def get_sessions_by_user_id(self, user_id: str, /) -> list[SessionRow]:
        """The user's sessions, newest first; in the layout ``lucia-v2`` in any order.

        Empty for an unknown user.
        """
        return await self._run(lambda store: store.get_by_user(user_id, system_clock()), math.inf)

    async def set_session(self, session: SessionRow, /) -> None:
        """Store a new session and its index entry, in one step. Repeating the very same call is no error.

        Raises:
            DuplicateSessionId: another session has this id; nothing was changed.
            ValueError: the session's end is past by the server's clock, or its record is longer than 16 KiB.
        """
        await self._run(lambda store: store.create(session, random.randrange))

    async def set_session_capped(self, session: SessionRow, /, *, limit: int) -> SessionRow:
        """Store the session of a new login and end the user's oldest logins beyond ``limit``.

        On one server that is one step: at no moment are there more. In a cluster and without scripts they are ended afterwards, and
        ``created_at`` may be up to a minute later than it was, so that the new login is the newest whatever the machines' clocks say.

        Raises:
            DuplicateSessionId, ValueError: as :meth:`set_session`.
        """
        return await self._run(
            lambda store: store.create_capped(session, limit, system_clock(), random.randrange)
        )

    async def delete_session(self, /, *session_ids: str) -> None:
        """End these sessions, and what they were renewed to within the last 60 seconds; unknown ids are no error."""
        await self._run(lambda store: store.delete(session_ids), self._seconds_of_deletes)

    async def delete_sessions_by_user_id(
        self, user_id: str, /, *, exhaustive: bool = False
    ) -> None:
        """End all sessions of this user: when it returns, none that was made or renewed before is left.

        Args:
            user_id: whose sessions.
            exhaustive: then look at every session in the store, for those that are in no index: the last resort after an index was lost.
        """
        await self._run(lambda store: store.delete_by_user(user_id), math.inf)
        if exhaustive:
            await self._run(
                lambda _: self._repair().delete_by_scan(user_id, self._server_store.delete),
                math.inf,
            )

    async def reindex(self) -> Reindexed:
        """Put every live session that is in no index into its user's, which lives as long at least, and count them.

        Looks at every key of the store, page by page, and may run while the application does. What is ended meanwhile stays ended. A
        session whose user's index is of another type is left as it is.
        """
        return await self._run(lambda _: self._repair().reindex(), math.inf)

    async def delete_other_sessions(self, user_id: str, keep: str, /) -> bool:
        """End all sessions of this user but ``keep``, or what that was renewed to; says whether one was kept."""
        return await self._run(lambda store: store.delete_by_user(user_id, keep), math.inf)

    async def renew_session(
        self, session_id: str, successor: SessionRow, /, *, grace: int
    ) -> SessionRow | None:
        """Replace a session by its successor, once, in one step; the grace is in milliseconds, by the server's clock.

        Raises:
            DuplicateSessionId, ValueError: as :meth:`set_session`.
        """
        return await self._run(lambda store: store.renew(session_id, successor, grace))

    async def get_successor(self, session_id: str, /) -> SessionRow | None:
        """The live end of the chain of renewals that starts at this used id, while each step is within its grace; else None."""
        return await self._driver.run(self._store.get_successor(session_id))

    def throttle_store(self) -> AsyncRedisThrottleStore:
        """Where ``Auth`` counts failed sign-ins: beside the sessions, over the same client."""
        return self._throttle_store

    def _use(self, server_store: ServerStore) -> None:
        self._server_store = server_store
        self._store = self._at_rest(server_store)

    def _revoke_again(self, session_ids: Sequence[str]) -> Operation[None]:
        """The replay of a block; also after a failover to a server that refuses scripts."""
        return with_or_without_scripts(
            lambda: self._server_store.delete_records(session_ids), self._give_up_scripts
        )

    def _repair(self) -> Repair:
        """Works on ids as they are stored."""
        return Repair(self._layout, self._server_store.steps)

    async def _run(self, start: Callable[[Store], Operation[T]], seconds: float | None = None) -> T:
        return await self._driver.run(
            with_or_without_scripts(lambda: start(self._store), self._give_up_scripts), seconds
        )

    def _give_up_scripts(self) -> None:
        self._use(ClusterStore(self._layout, PlainSteps(), self._tracking))
