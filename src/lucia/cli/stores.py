"""The stores of the commands for operators: sessions in Redis or in a database, by one URL."""

import random
from collections import Counter
from collections.abc import Generator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import Annotated, Any, Final, NamedTuple, Protocol, cast

import typer

from lucia._redis import statistics
from lucia._redis.keys import Layout, LayoutName
from lucia._redis.statistics import Count, Tally
from lucia._redis.transport.settings import WRITE_SECONDS, Settings
from lucia._rules.sessions import session_state, system_clock
from lucia._sync.auth import Auth
from lucia._sync.protocols import RenewingSessionAdapter, UserAdapter
from lucia._sync.stores.redis.adapter import RedisSessionAdapter
from lucia._sync.stores.redis.driver import RedisDriver
from lucia.cli.shared import (
    CLIENT_ERRORS,
    ClusterOption,
    CommandError,
    LayoutOption,
    ProgressBar,
    SessionNamespaceOption,
    UserSessionNamespaceOption,
    describe,
    layout_of,
    other_databases,
    redis_client,
)
from lucia.models import Device, User, handle_of

__all__ = ["Logins", "Statistics", "Store", "StoreOptions", "open_store"]

REDIS_SCHEMES: Final = ("redis", "rediss", "unix")


@dataclass(frozen=True, kw_only=True)
class StoreOptions:
    """The options that say where a store is, and how its keys or tables are named."""

    store: Annotated[
        str,
        typer.Option(
            "--store",
            metavar="URL",
            envvar=["LUCIA_STORE_URL", "LUCIA_REDIS_URL"],
            show_default=False,
            help="redis://, rediss:// (TLS) or unix://, or a database's URL as SQLAlchemy takes "
            "it. With a password, better in the environment.",
        ),
    ] = field(default="", repr=False)
    layout: LayoutOption = "default"
    session_namespace: SessionNamespaceOption = None
    user_session_namespace: UserSessionNamespaceOption = None
    legacy_writers: Annotated[
        bool,
        typer.Option("--legacy-writers", help="A JavaScript Lucia still writes to these keys."),
    ] = False
    cluster: ClusterOption = None
    session_table: Annotated[
        str, typer.Option(metavar="NAME", help="In a database, the table of sessions.")
    ] = "auth_session"
    user_table: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="In a database, the table of users; by default the one that the sessions refer "
            "to.",
        ),
    ] = None


class Statistics(NamedTuple):
    """The live sessions, the users who have one, and what was read for that.

    Args:
        sessions: how many live sessions there are.
        users: how many users have a live session.
        read: how many keys were read, or rows counted.
        exact: whether all were read.
    """

    sessions: Count
    users: Count
    read: int
    exact: bool


class Logins:
    """Where one user is logged in, in either kind of store.

    Args:
        user_id: the user.
        adapter: stores the sessions.
        users: stores the users; None if the store does not know them.
    """

    def __init__(
        self, user_id: str, adapter: RenewingSessionAdapter, users: UserAdapter | None = None
    ) -> None:
        self._text = user_id
        self._adapter = adapter
        self._ids: UserIdType[Any] = getattr(users, "user_id_type", TEXT_IDS)
        self._auth: Auth[User[Any], Any] = Auth(
            sessions=adapter,
            users=users,
            user_id=self._ids,
            env="PROD",
            auto_database_cleanup=False,
            throttle=None,
        )

    @property
    def _user_id(self) -> Any:
        """The user's id, in the type that the database has."""
        try:
            return self._ids.read(self._text)
        except ValueError:
            raise InvalidUserId from None

    def list(self) -> list[Device]:
        """Return the logins, the newest first.

        Raises:
            InvalidUserId: there is no such user, and the store can tell.
        """
        return self._auth.get_all_user_sessions(self._user_id)

    def revoke(self, handle: str) -> None:
        """Revoke one login, whatever it was renewed to."""
        self._auth.invalidate_user_session(self._user_id, handle)

    def revoke_all(self) -> None:
        """Revoke all logins."""
        self._auth.invalidate_all_user_sessions(self._user_id)

    def revoke_others(self, keep: str) -> None:
        """Revoke all logins but the one with this handle, whatever that is renewed to meanwhile.

        If there is no such login, nothing is revoked. If it is revoked by somebody else at the same
        time, all are.
        """
        now = system_clock()
        rows = [
            row
            for row in self._adapter.get_sessions_by_user_id(self._user_id)
            if row.user_id == self._user_id
            and handle_of(row) == keep
            and session_state(row, now) is not None
        ]
        if rows:
            # Not by Auth's keep=, which takes the id that the user has: this one is as it is
            # stored, which is a hash if the application has id_keys. The adapter follows renewals
            # from it.
            newest = max(rows, key=lambda row: row.idle_expires)
            self._adapter.delete_other_sessions(self._user_id, newest.id)


class Store(Protocol):
    """An open store."""

    def logins_of(self, user_id: str) -> Logins:
        """Return the logins of a user.

        Raises:
            InvalidUserId: no user can have this id.
        """
        ...

    def statistics(self, sample: int | None, show: ProgressBar) -> Statistics:
        """Count the live sessions, and the users who have one.

        Args:
            sample: how many random keys to read; None to read all.
            show: shows the progress.

        Raises:
            CommandError: this store can't be sampled.
        """
        ...

    def hint(self) -> str:
        """Return where else sessions may be if there are none at all here, or an empty text."""
        ...


class RedisStore:
    """Sessions in Redis or Valkey.

    Ids may be stored as hashes. The adapter needs no keys for that: it is given ids as they are
    stored, and takes them for ids.
    """

    def __init__(
        self, client: Any, layout: Layout, driver: RedisDriver, adapter: RedisSessionAdapter
    ) -> None:
        self._adapter = adapter
        self._client = client
        self._layout = layout
        self._driver = driver

    def logins_of(self, user_id: str) -> Logins:
        return Logins(user_id, self._adapter)

    def statistics(self, sample: int | None, show: ProgressBar) -> Statistics:
        nodes = self._driver.run(statistics.nodes())
        sizes = [self._driver.run(statistics.number_of_keys(node)) for node in nodes]
        known = [size for size in sizes if size is not None]
        total = sum(known) if len(known) == len(sizes) else None
        if sample is None or (total is not None and total <= sample):
            return self._count(nodes, total, show)
        if total is None:
            raise CommandError("--sample needs the right to DBSIZE")
        drawn = random.choices(nodes, weights=known, k=sample)  # noqa: S311 # no secret
        return self._sample(Counter(drawn), total, show)

    def _count(self, nodes: list[str], total: int | None, show: ProgressBar) -> Statistics:
        found = Tally()
        for node in nodes:
            cursor: int | None = None
            while cursor != 0:
                cursor, page = self._driver.run(
                    statistics.count_page(self._layout, node, cursor or 0)
                )
                found.add(page)
                show(found.keys, total, "keys")
        sessions, users = statistics.exactly(found.sessions), statistics.exactly(found.users)
        return Statistics(sessions, users, found.keys, exact=True)

    def _sample(self, draws: Counter[str], total: int, show: ProgressBar) -> Statistics:
        found = Tally()
        size = draws.total()
        for node, wanted in draws.items():
            left = wanted
            while left > 0:
                page = self._driver.run(statistics.count_random(self._layout, node, left))
                if not page.keys:
                    raise CommandError("a server was emptied meanwhile: run it again")
                found.add(page)
                left -= page.keys
                show(found.keys, size, "keys")
        return Statistics(
            statistics.estimated(found.sessions, found.keys, total),
            statistics.estimated(found.users, found.keys, total),
            found.keys,
            exact=False,
        )

    def hint(self) -> str:
        return other_databases(self._client, if_empty=True)


@contextmanager
def open_store(options: StoreOptions) -> Generator[Store, None, None]:
    """Yield the store at a URL.

    Raises:
        CommandError: it can't be reached, is none, or stops answering; also from the block.
    """
    if not options.store:
        raise CommandError("name the store, with --store URL or in LUCIA_STORE_URL")
    scheme = options.store.partition(":")[0].lower()
    if scheme in REDIS_SCHEMES:
        with _open_redis(options) as store:
            yield store
        return
    try:
        from lucia.cli.databases import open_database
    except ImportError as error:
        raise CommandError(str(error)) from None
    with open_database(options.store, options.session_table, options.user_table) as store:
        yield store


@contextmanager
def _open_redis(options: StoreOptions) -> Generator[RedisStore, None, None]:
    layout = layout_of(
        options.layout,
        options.session_namespace,
        options.user_session_namespace,
        legacy_writers=options.legacy_writers,
    )
    with (
        redis_client(options.store, options.cluster) as client,
        closing(RedisDriver(client, Settings(seconds=WRITE_SECONDS))) as driver,
        RedisSessionAdapter(
            client,
            {"session": layout.session, "user_session": layout.user_session},
            layout=cast("LayoutName", options.layout),
            legacy_writers=options.legacy_writers,
        ) as adapter,
    ):
        try:
            yield RedisStore(client, layout, driver, adapter)
        except CLIENT_ERRORS as error:
            raise CommandError(describe(error)) from None
