"""The Redis session adapter: runs the operations of the store over the application's client."""

import math
import random
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from types import TracebackType
from typing import Final, Self, TypeVar, Unpack

from lucia._async.stores.redis.driver import AsyncRedisDriver
from lucia._async.stores.redis.reader import AsyncSessionReader
from lucia._async.stores.redis.throttling import AsyncRedisThrottleStore
from lucia._redis.at_rest import at_rest
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
from lucia._rules.id_hashes import RawIds
from lucia._rules.sessions import system_clock
from lucia.models import AsyncFoundSession, SessionRow

T = TypeVar("T")

DEFAULT_DEADLINE: Final = timedelta(seconds=5)
DEFAULT_ACK_TIMEOUT: Final = timedelta(seconds=1)


class AsyncRedisSessionAdapter:
    """Sessions in Redis or Valkey, on a single server, behind Sentinel, or in a cluster.

    Users and keys belong to another adapter; a session is stored even if its user does not exist.

    ======================================= ========================================================
    key                                     value
    ======================================= ========================================================
    ``session:{session id}``                JSON of the session; expires with the session
    ``userSession:{user id}``               list of session ids, newest first; expires with the last
    ``session:renewed:{session:{used id}}`` for 60 s after a renewal: the successor of the used id
    ``session:throttle:{32 hex digits}``    failed logins, see :class:`AsyncRedisThrottleStore`
    ======================================= ========================================================

    ================================ ===============================================================
    method                           commands
    ================================ ===============================================================
    ``get_session``                  ``MGET session:ID``
    ``set_session``                  script: ``TIME``, ``LLEN userSession:USER``,
                                     ``SET session:ID … NX PXAT``, ``LPUSH``, ``PTTL``,
                                     ``PEXPIREAT``; at every eighth login from the 16th session on
                                     also ``LRANGE``, ``MGET`` and a script with ``EXISTS`` and
                                     ``LREM``
    ``set_session_capped``           ``LRANGE userSession:USER 0 -1``, ``MGET``; script: ``TIME``,
                                     ``LRANGE``, ``EXISTS`` for each counted session,
                                     ``SET session:ID … NX PXAT``, ``DEL`` and ``LREM`` for the
                                     oldest, ``LPUSH``, ``PTTL``, ``PEXPIREAT``; all of it again if
                                     something changed in between; above 1,000 sessions the oldest
                                     are revoked before that, in blocks
    ``renew_session``                script: ``TIME``, ``MGET session:OLD``, ``LLEN``,
                                     ``SET session:NEW … NX PXAT``,
                                     ``SET session:renewed:{session:OLD} … PX 60000``,
                                     ``DEL session:OLD``, ``LPUSH``, ``PTTL``, ``PEXPIREAT``,
                                     ``LREM``
    ``get_successor``                ``MGET`` and ``PTTL`` of ``session:renewed:{session:OLD}``,
                                     ``MGET session:NEW``
    ``get_sessions_by_user_id``      ``LRANGE userSession:USER 0 -1``, ``MGET``; for ids without a
                                     session ``MGET`` of their markers, and a script: ``EXISTS``,
                                     ``LREM``; for expired sessions that are there ``PEXPIREAT``
    ``delete_session``               script: ``MGET`` of session and marker, ``DEL``; then
                                     ``LREM userSession:USER 0 ID``
    ``delete_sessions_by_user_id``   ``LRANGE userSession:USER 0 -1``; script: ``LRANGE``, ``DEL``
                                     and ``LREM`` for each; above 1,000 sessions in blocks, each
                                     with ``MGET`` of the markers, whose successors are revoked too
    ``delete_other_sessions``        the same, and ``MGET`` of the kept session and of its marker;
                                     ``EXISTS`` in the script
    ================================ ===============================================================

    Scripts run by ``EVALSHA``, and by ``EVAL`` where the server does not know them yet; every key
    that they touch is declared. In a cluster, and on a server that refuses scripts, the steps of
    :mod:`lucia._redis.cluster` replace the commands that write.

    The adapter has connections of its own, made as the client makes its own: as many at most, with
    the same address, password, TLS and Sentinel or cluster. They are opened when they are needed,
    belong to the running event loop and to this process, and are closed with it, or when the
    adapter is closed. The client itself is sent nothing, and is never closed.

    Args:
        client: created by the application, which also closes it; ``decode_responses``, timeouts and
            retries may have any value.
        namespaces: ``session`` and ``user_session``, each of which may be left out.
        layout: ``lucia-v2`` for the format of Lucia's Redis adapter 2.x: the index is a set,
            ``user_sessions:{user id}``, and the commands for it are ``SADD``, ``SREM``,
            ``SMEMBERS``, ``SCARD``, ``SRANDMEMBER`` instead of those for lists.
        legacy_writers: whether a JavaScript Lucia writes to the same keys. Then indexes never
            expire (``PERSIST``), and only who revokes a session removes its id from the index.
        id_keys: with these, hashes of ids under the first key are stored, 64 hex digits; those
            under the other keys are read too. Lists then contain hashes. The keys of failed logins
            are named with the first one.
        raw_ids: with ``id_keys``, whether sessions that are stored under their ids as they are can
            still be used: ``read`` yes, ``refuse`` no; ``write`` also stores new ones so.
        deadline: for each operation, with everything that it waits for: a free connection, the
            handshake, the replies. 30 s at most, as for a login and a renewal in all.
        revoke_ack: how many replicas have to confirm a revocation; 0 asks none. In a cluster the
            replicas of each primary are asked.
        revoke_ack_timeout: how long each primary waits for them; shorter than the deadline.

    Raises:
        TypeError: the adapter can't use this client, ``id_keys`` is not a sequence of ``bytes``,
            the deadline is not a ``timedelta``, or ``revoke_ack`` is not an ``int``, or the client
            can't be copied and ``revoke_ack`` needs that.
        ValueError: a namespace is empty or unknown, or they collide; there is no such layout; a key
            has fewer than 32 bytes; the deadline is not more than 0 or is more than 30 s;
            ``revoke_ack`` is negative, or its timeout is not within the deadline.
        ImportError: there are ``id_keys``, and cryptography is not installed.

    The adapter remembers what it revoked recently, and revokes it again when a server has another
    history, as after a failover: see :mod:`lucia._redis.replay`. For that, a new connection sends
    ``INFO replication``. With ``revoke_ack`` a revocation is followed by
    ``SET session:renewed:{0} … PX 1000`` and ``WAIT``, and raises
    :class:`~lucia.RevocationNotReplicated` if too few replicas confirm.

    Each method raises :class:`~lucia.StoreUnavailable` if the server can't be reached, does not
    reply in time, can't serve now (it loads its data, has become a replica, is busy, or its cluster
    is down), or if the reply to a write is lost; :class:`~lucia.StoreCorrupt` if an index holds a
    value of another type; and every other error of the client unchanged, but for arguments such as
    ids, which are removed from its text.
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
        settings = AsyncSettings(seconds=deadline_seconds(deadline), **options)
        self._acknowledgement = Acknowledgement(revoke_ack, revoke_ack_timeout)
        self._acknowledgement.check_within(deadline)
        # Waiting for replicas has a time of its own, so each command has the deadline then.
        self._seconds_of_deletes = math.inf if revoke_ack else None
        self._revocations = Revocations()
        self._driver = AsyncRedisDriver(
            client, settings, Replay(self._revocations, self._revoke_again)
        )
        if revoke_ack and not self._driver.has_own_connections:
            raise TypeError(
                "revoke_ack needs connections of the adapter's own, and it can't tell from the "
                f"{type(client).__name__} how to open them"
            )
        self._at_rest = at_rest(self._layout, id_keys, raw_ids, one_server=not is_cluster(client))
        self._tracking = RevocationTracking(self._layout, self._revocations, self._acknowledgement)
        self._use(choose_store(client, self._layout, self._tracking))
        # This lookup stays when scripts are given up: where a session is does not depend on them.
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
        """Close the adapter's own connections, not the client's.

        Using the adapter again opens new ones.
        """
        # Batches belong to the server that they were begun with, which is closed here. Twice, since
        # a read that comes meanwhile may begin others with it.
        self._reads.close()
        await self._driver.aclose()
        self._reads.close()

    def get_session(self, session_id: str, /) -> AsyncFoundSession:
        """Return the session with this id; None if there is none, or no session in the record."""
        # A plain function: one more frame that waits with each request costs a tenth of its time.
        return self._reads.find(session_id) or self._reader.read(session_id)

    async def get_sessions_by_user_id(self, user_id: str, /) -> list[SessionRow]:
        """Return the user's sessions, newest first; in the layout ``lucia-v2`` in any order.

        The list of an unknown user is empty.
        """
        return await self._run(lambda store: store.get_by_user(user_id, system_clock()), math.inf)

    async def set_session(self, session: SessionRow, /) -> None:
        """Store a new session and its index entry, in one step.

        Repeating the same call is not an error.

        Raises:
            DuplicateSessionId: another session has this id; nothing was changed.
            ValueError: the session has expired by the server's clock, or its record is longer than
                16 KiB.
        """
        await self._run(lambda store: store.create(session, random.randrange))

    async def set_session_capped(self, session: SessionRow, /, *, limit: int) -> SessionRow:
        """Store the session of a new login, and revoke the user's oldest logins beyond ``limit``.

        On one server that is one step: there are never more. In a cluster and without scripts they
        are revoked afterwards, and ``created_at`` may be set up to a minute later, so that the new
        login is the newest whatever the machines' clocks say.

        Raises:
            DuplicateSessionId, ValueError: as :meth:`set_session`.
        """
        return await self._run(
            lambda store: store.create_capped(session, limit, system_clock(), random.randrange)
        )

    async def delete_session(self, /, *session_ids: str) -> None:
        """Revoke these sessions, and what they were renewed to within the last 60 seconds.

        Unknown ids are not an error.
        """
        await self._run(lambda store: store.delete(session_ids), self._seconds_of_deletes)

    async def delete_sessions_by_user_id(
        self, user_id: str, /, *, exhaustive: bool = False
    ) -> None:
        """Revoke all sessions of this user that were created or renewed before this call.

        Args:
            user_id: whose sessions.
            exhaustive: whether to look at every session in the store too, for those that are in no
                index: the last resort after an index was lost.
        """
        # The index first: what it names is dead at once, not only after the scan.
        await self._run(lambda store: store.delete_by_user(user_id), math.inf)
        if exhaustive:
            await self._run(
                lambda _: self._repair().delete_by_scan(user_id, self._server_store.delete),
                math.inf,
            )

    async def reindex(self) -> Reindexed:
        """Add every live session that is in no index to its user's index, and count them.

        It looks at every key of the store, page by page, and may run while the application does.
        What is revoked meanwhile stays revoked. A session whose user's index is of another type is
        left as it is.
        """
        return await self._run(lambda _: self._repair().reindex(), math.inf)

    async def delete_other_sessions(self, user_id: str, keep: str, /) -> bool:
        """Revoke all sessions of this user but ``keep``, or what that was renewed to.

        Returns:
            Whether a session was kept.
        """
        return await self._run(lambda store: store.delete_by_user(user_id, keep), math.inf)

    async def renew_session(
        self, session_id: str, successor: SessionRow, /, *, grace: int
    ) -> SessionRow | None:
        """Replace a session by its successor, once, in one step.

        The grace is in milliseconds, by the server's clock.

        Raises:
            DuplicateSessionId, ValueError: as :meth:`set_session`.
        """
        return await self._run(lambda store: store.renew(session_id, successor, grace))

    async def get_successor(self, session_id: str, /) -> SessionRow | None:
        """Return the live session at the end of the chain of renewals from this used id.

        None if a renewal of the chain is past its grace, or there is no such session.
        """
        return await self._driver.run(self._store.get_successor(session_id))

    def throttle_store(self) -> AsyncRedisThrottleStore:
        """Return where ``Auth`` counts failed logins: beside the sessions, over this client."""
        return self._throttle_store

    def _use(self, server_store: ServerStore) -> None:
        self._server_store = server_store
        self._store = self._at_rest(server_store)

    def _revoke_again(self, session_ids: Sequence[str]) -> Operation[None]:
        """Revoke a block again in a replay, also on a server that refuses scripts."""
        return with_or_without_scripts(
            lambda: self._server_store.delete_records(session_ids), self._give_up_scripts
        )

    def _repair(self) -> Repair:
        """Return what repairs the store, which works on ids as they are stored."""
        return Repair(self._layout, self._server_store.steps)

    async def _run(self, start: Callable[[Store], Operation[T]], seconds: float | None = None) -> T:
        return await self._driver.run(
            with_or_without_scripts(lambda: start(self._store), self._give_up_scripts), seconds
        )

    def _give_up_scripts(self) -> None:
        self._use(ClusterStore(self._layout, PlainSteps(), self._tracking))
