"""The stores of the commands for operators: sessions in Redis or in a database, by one URL."""

import random
from collections import Counter
from collections.abc import Generator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import Annotated, Any, Final, Protocol, cast

import typer

from lucia._redis import statistics
from lucia._redis.keys import Layout, LayoutName
from lucia._redis.statistics import Tally
from lucia._redis.transport.settings import WRITE_SECONDS, Settings
from lucia._sync.stores.redis.adapter import RedisSessionAdapter
from lucia._sync.stores.redis.driver import RedisDriver
from lucia.cli.logins import Logins, Statistics
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

__all__ = ["Store", "StoreOptions", "open_store"]

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
