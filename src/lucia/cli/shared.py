"""Parts that several commands use: options, Redis clients, progress, interrupts, exit codes."""

import signal
from collections.abc import Generator
from contextlib import contextmanager
from enum import StrEnum
from typing import Annotated, Any, Final, Protocol, cast

import redis
import typer
from redis.backoff import NoBackoff
from redis.exceptions import RedisClusterException
from redis.retry import Retry
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from lucia._redis.keys import Layout, LayoutName
from lucia.errors import LuciaError, StoreUnavailable

__all__ = [
    "CLIENT_ERRORS",
    "EXIT_FAILED",
    "EXIT_OK",
    "EXIT_PARTLY",
    "ClusterOption",
    "CommandError",
    "LayoutOption",
    "ProgressBar",
    "SessionNamespaceOption",
    "UserIdKind",
    "UserSessionNamespaceOption",
    "describe",
    "error_console",
    "interruptible",
    "layout_of",
    "other_databases",
    "print_error",
    "printable",
    "progress_bar",
    "redis_client",
]

EXIT_OK: Final = 0
"""All is done, or nothing is wrong."""

EXIT_PARTLY: Final = 1
"""Something is wrong, was not found, or was not done."""

EXIT_FAILED: Final = 2
"""The command could not run, or not to its end."""

CLIENT_ERRORS: Final = (redis.RedisError, RedisClusterException, LuciaError, OSError)
"""The errors that clients raise if a server can't be reached, or refuses a command."""

LayoutOption = Annotated[str, typer.Option(help="default or lucia-v2.")]
SessionNamespaceOption = Annotated[
    str | None, typer.Option(metavar="NAME", help="The adapter's namespaces['session'].")
]
UserSessionNamespaceOption = Annotated[
    str | None, typer.Option(metavar="NAME", help="The adapter's namespaces['user_session'].")
]
ClusterOption = Annotated[
    bool | None,
    typer.Option(
        "--cluster/--no-cluster",
        help="Whether the server is part of a cluster; detected by default.",
        show_default=False,
    ),
]


TIMEOUTS: Final[dict[str, Any]] = {"socket_connect_timeout": 5, "socket_timeout": 5}
"""In seconds, for a server that does not answer."""


class CommandError(Exception):
    """The command could not run. The message is printed."""


class UserIdKind(StrEnum):
    """The type of the users' ids in a database."""

    INT = "int"
    TEXT = "text"
    UUID = "uuid"


def error_console() -> Console:
    """Return the console for errors and progress, which is standard error."""
    return Console(stderr=True, soft_wrap=True)


def print_error(console: Console, command: str, error: object) -> None:
    """Print in one line why a command failed."""
    console.print(Text(f"lucia {command}: {error}"))


def describe(error: BaseException) -> str:
    """Describe an error in one line, as the client or the driver does: where and why."""
    if isinstance(error, StoreUnavailable) and error.__cause__ is not None:
        return describe(error.__cause__)
    # SQLAlchemy's own text has the statement too, and takes several lines.
    driver_error = getattr(error, "orig", None)
    if isinstance(driver_error, BaseException):
        return describe(driver_error)
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def printable(text: str) -> str:
    """Return a text in which escapes stand for what could change the terminal or its reading."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def layout_of(
    name: str,
    session_namespace: str | None,
    user_session_namespace: str | None,
    *,
    legacy_writers: bool = False,
) -> Layout:
    """Return the layout that the options name.

    Raises:
        CommandError: there is no such layout, or the namespaces collide.
    """
    names = {"session": session_namespace, "user_session": user_session_namespace}
    try:
        return Layout.from_namespaces(
            {name: value for name, value in names.items() if value is not None},
            cast("LayoutName", name),
            legacy_writers=legacy_writers,
        )
    except (TypeError, ValueError) as error:
        raise CommandError(str(error)) from None


@contextmanager
def redis_client(url: str, cluster: bool | None) -> Generator[Any, None, None]:
    """Yield a client of the server or the cluster at a URL.

    Args:
        url: the URL, as redis-py takes it.
        cluster: whether the server is part of a cluster; None to ask the server.

    Raises:
        CommandError: the URL is invalid, nothing answers, or the server refuses the user or the
            database.
    """
    try:
        # The URL's own options win. Without retries, since an operator sees the error and decides.
        client: Any = redis.Redis.from_url(  # pyright: ignore[reportUnknownMemberType]
            url, protocol=2, retry=Retry(NoBackoff(), 0), **TIMEOUTS
        )
    except ValueError:
        # redis-py's own text may quote a part of the password.
        raise CommandError(
            "this is no URL of a Redis server: expected redis://user:password@host:port/number, "
            "rediss://… for TLS, or unix://path?db=number. In a password, write %40 for @, %23 for "
            "#, %2F for / and %25 for %"
        ) from None
    try:
        client.time()  # connects: reports a wrong password or database before anything is read
        if _is_cluster(client) if cluster is None else cluster:
            client.close()
            client = redis.RedisCluster.from_url(url, protocol=2, **TIMEOUTS)
    except redis.InvalidResponse:
        raise CommandError(
            "the server at this address is not Redis: it answers in another protocol"
        ) from None
    except (redis.RedisError, RedisClusterException) as error:
        raise CommandError(describe(error)) from None
    try:
        yield client
    finally:
        client.close()


def _is_cluster(client: Any) -> bool:
    """Return whether a server is part of a cluster; False if it refuses to tell."""
    try:
        return bool(client.info("cluster").get("cluster_enabled"))
    except redis.ResponseError:
        return False


def other_databases(client: Any, *, if_empty: bool = False) -> str:
    """Return a hint that names the other databases of this server that have keys.

    The hint is empty if none has keys, or the server refuses to tell; with ``if_empty`` also if
    this database has any key.
    """
    if isinstance(client, redis.RedisCluster):
        return ""
    number = client.connection_pool.connection_kwargs.get("db", 0)
    try:
        databases: dict[str, Any] = client.info("keyspace")
    except redis.RedisError:
        return ""
    if if_empty and f"db{number}" in databases:
        return ""
    counts = {
        name.removeprefix("db"): statistics["keys"]
        for name, statistics in databases.items()
        if name != f"db{number}"
    }
    found = ", ".join(f"{keys:,} in database {name}" for name, keys in counts.items())
    return found and (
        f"No sessions in database {number}, but other databases of this server have keys: {found}. "
        "Check the number at the end of the URL."
    )


@contextmanager
def interruptible() -> Generator[None, None, None]:
    """Raise ``KeyboardInterrupt`` on SIGINT and SIGTERM."""
    # A shell may have started the command with one of them ignored: background jobs ignore SIGINT.
    before = {
        number: signal.signal(number, signal.default_int_handler)
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class ProgressBar(Protocol):
    """Shows how far a command is."""

    def __call__(self, done: int, total: int | None, description: str) -> None:
        """Show that ``done`` of about ``total`` are done; None for an unknown total."""
        ...


@contextmanager
def progress_bar(console: Console) -> Generator[ProgressBar, None, None]:
    """Yield what shows the progress: a bar on a terminal, nothing elsewhere."""
    if not console.is_terminal:
        yield lambda done, total, description: None
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=None)

        def show(done: int, total: int | None, description: str) -> None:
            progress.update(
                task,
                completed=done,
                total=None if total is None else max(total, done),
                description=description,
            )

        yield show
