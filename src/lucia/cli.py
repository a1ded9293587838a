"""The command ``lucia``."""

import json
import signal
import sys
from collections.abc import Generator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Annotated, Any, Final, cast

from lucia._redis.doctor.findings import MEANINGS, Kind, RepairOptions
from lucia._redis.doctor.walk import Progress as Report
from lucia._redis.doctor.walk import State, StateError, Walk, report
from lucia._redis.records import Layout, LayoutName
from lucia._redis.transport.settings import WRITE_SECONDS, Settings
from lucia._sync.stores.redis.driver import RedisDriver
from lucia.errors import LuciaError, StoreUnavailable

try:
    import redis
    import typer
    from redis.exceptions import RedisClusterException
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.table import Table
    from rich.text import Text
except ImportError as error:
    raise ImportError(
        'the command "lucia" needs typer, rich and redis-py: pip install "lucia-auth[cli]"'
    ) from error

__all__ = ["main"]

ALL_WELL: Final = 0
FINDINGS: Final = 1
NOT_DONE: Final = 2

STATE_FILE: Final = Path("lucia-doctor.json")

ADVICE: Final = {
    Kind.EVICTION: "Set maxmemory-policy to noeviction, in the server's configuration.",
    Kind.EVICTION_UNKNOWN: "Look yourself whether maxmemory-policy is noeviction, or allow +config|get or +info.",
    Kind.UNDECODABLE_RECORD: "Nobody is logged in by a record that is no session. --fix --delete-damaged deletes it.",
    Kind.DAMAGED_MARKER: "--fix --delete-damaged deletes markers that are none.",
    Kind.WRONG_TYPE: "Another program, or another layout, writes to the same keys: find it. --fix --delete-damaged deletes such keys.",
    Kind.BARE_SESSION: "Stop what uses the old adapter; then --fix --move-bare moves its sessions.",
    Kind.BARE_INDEX: "Indexes of the old adapter are not needed once its sessions are moved.",
    Kind.OTHERS_UNREADABLE: "Keys of old adapters can't be told from others without rights to read them: allow ~*, or say --no-others.",
    Kind.DUPLICATE_ENTRY: "They do no harm. Mending them needs scripts.",
}

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


class _Unreachable(Exception):
    """What could not be done, in words for the person at the terminal."""


@app.callback()
def lucia() -> None:
    """Sessions in Redis and Valkey: see what is stored, and mend it."""


@app.command()
def doctor(
    url: Annotated[
        str,
        typer.Argument(
            metavar="REDIS_URL",
            envvar="LUCIA_REDIS_URL",
            show_default=False,
            help="As redis-py takes it: redis://, rediss:// (TLS) or unix://. With a password, better in the environment.",
        ),
    ],
    *,
    fix: Annotated[
        bool,
        typer.Option(
            "--fix", help="Mend what can be mended safely, also while the application runs."
        ),
    ] = False,
    legacy_writers: Annotated[
        bool,
        typer.Option(
            "--legacy-writers",
            help="A JavaScript Lucia still writes to these keys: look twice, a minute apart.",
        ),
    ] = False,
    delete_damaged: Annotated[
        bool,
        typer.Option(
            "--delete-damaged",
            help="With --fix: delete records and markers that are none, and keys of another type.",
        ),
    ] = False,
    move_bare: Annotated[
        bool,
        typer.Option(
            "--move-bare",
            help="With --fix: move what adapters before 1.1.0 stored. Stop those first.",
        ),
    ] = False,
    layout: Annotated[str, typer.Option(help="default or lucia-v2.")] = "default",
    session_namespace: Annotated[
        str | None, typer.Option(metavar="NAME", help="As the adapter's namespaces['session'].")
    ] = None,
    user_session_namespace: Annotated[
        str | None, typer.Option(metavar="NAME", help="And its namespaces['user_session'].")
    ] = None,
    cluster: Annotated[
        bool | None,
        typer.Option(
            "--cluster/--no-cluster",
            help="Whether it is a cluster; found out if not said.",
            show_default=False,
        ),
    ] = None,
    others: Annotated[
        bool,
        typer.Option("--others/--no-others", help="Look at other keys, for those of old adapters."),
    ] = True,
    resume: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Go on from this file if it is there, and keep it up to date.",
            show_default=False,
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    verbose: Annotated[
        bool,
        typer.Option(
            "--verbose", help="Show users and handles, or how to find a bad key; 20 of each kind."
        ),
    ] = False,
) -> None:
    """Look at every key of a session store, and say what is wrong. Changes nothing without --fix.

    Exit code: 0 nothing is wrong, or all is mended; 1 something is wrong; 2 it could not run, or not to its end.
    """
    treatment = RepairOptions(fix=fix, delete_damaged=delete_damaged, move_bare=move_bare)
    errors = Console(stderr=True, soft_wrap=True)
    try:
        _check(treatment)
        names = {"session": session_namespace, "user_session": user_session_namespace}
        found = _layout(
            layout,
            {name: value for name, value in names.items() if value is not None},
            legacy_writers=legacy_writers,
        )
        settings = {
            "layout": layout,
            "session_namespace": found.session,
            "user_session_namespace": found.user_session,
            "fix": fix,
            "legacy_writers": legacy_writers,
            "delete_damaged": delete_damaged,
            "move_bare": move_bare,
            "others": others,
        }
        usage = Settings(seconds=WRITE_SECONDS)
        state = State(settings) if resume is None else State.read(resume, settings)
        with (
            _client(url, cluster) as client,
            closing(RedisDriver(client, usage)) as driver,
            _progress(errors) as progress,
        ):
            walk = Walk(
                driver, found, treatment, state, others=others, path=resume, progress=progress
            )
            is_complete = _walk(walk, resume, errors)
            others_with_keys = (
                "" if not is_complete or walk.has_sessions() else _other_databases(client)
            )
    except (_Unreachable, StateError, OSError) as error:
        errors.print(Text(f"lucia doctor: {error}"))
        raise typer.Exit(NOT_DONE) from None
    code = NOT_DONE if not is_complete else FINDINGS if walk.state.total().left() else ALL_WELL
    if others_with_keys:
        errors.print(Text(others_with_keys))
    told = report(walk, complete=is_complete, examples=verbose)
    if as_json:
        sys.stdout.write(json.dumps({**told, "exit_code": code}, indent=2) + "\n")
    else:
        _print(told, Console(soft_wrap=True), fix=fix)
    raise typer.Exit(code)


def _check(treatment: RepairOptions) -> None:
    if (treatment.delete_damaged or treatment.move_bare) and not treatment.fix:
        raise _Unreachable("--delete-damaged and --move-bare change keys: they need --fix")


def _layout(name: str, namespaces: dict[str, str], *, legacy_writers: bool) -> Layout:
    try:
        return Layout.from_namespaces(
            namespaces, cast("LayoutName", name), legacy_writers=legacy_writers
        )
    except (TypeError, ValueError) as error:
        raise _Unreachable(str(error)) from None


@contextmanager
def _client(url: str, cluster: bool | None) -> Generator[Any, None, None]:
    """A client for the server or the cluster at a URL.

    Raises:
        _Unreachable: the URL is none, nothing answers there, or the server refuses the user or the database.
    """
    try:
        client: Any = redis.Redis.from_url(url, protocol=2)  # pyright: ignore[reportUnknownMemberType]
    except ValueError as error:
        raise _Unreachable(str(error)) from None
    try:
        client.time()  # connects: a wrong password or database is told here, and as what it is
        if _is_cluster(client) if cluster is None else cluster:
            client.close()
            client = redis.RedisCluster.from_url(url, protocol=2)
    except (redis.RedisError, RedisClusterException) as error:
        raise _Unreachable(_told(error)) from None
    try:
        yield client
    finally:
        client.close()


def _is_cluster(client: Any) -> bool:
    """Whether a server says that it is one of a cluster; not if it does not tell."""
    try:
        return bool(client.info("cluster").get("cluster_enabled"))
    except redis.ResponseError:
        return False


def _other_databases(client: Any) -> str:
    """Return a sentence that names the other databases of this server that have keys; empty if none has, or none is told."""
    if isinstance(client, redis.RedisCluster):
        return ""
    number = client.connection_pool.connection_kwargs.get("db", 0)
    try:
        databases: dict[str, Any] = client.info("keyspace")
    except redis.RedisError:
        return ""
    counts = {
        name.removeprefix("db"): told["keys"]
        for name, told in databases.items()
        if name != f"db{number}"
    }
    found = ", ".join(f"{keys:,} in database {name}" for name, keys in counts.items())
    return found and (
        f"No sessions in database {number}, but others of this server have keys: {found}. Check the number at the end of the address."
    )


def _told(error: BaseException) -> str:
    """Return what happened; for a server that can't be reached, the client's own words, which say where and why."""
    if isinstance(error, StoreUnavailable) and error.__cause__ is not None:
        return _told(error.__cause__)
    return f"{type(error).__name__}: {error}"


def _walk(walk: Walk, resume: Path | None, errors: Console) -> bool:
    """Walk to the end; if it is interrupted, or a connection lost, say how to go on.

    Raises:
        _Unreachable: not a single key was looked at.
    """
    try:
        with _interruptible():
            walk.run()
    except KeyboardInterrupt:
        reason = "interrupted"
    except (redis.RedisError, LuciaError, OSError) as error:
        reason = _told(error)
    else:
        return True
    if not walk.has_looked():
        raise _Unreachable(reason)
    path = resume or STATE_FILE
    walk.save(path)
    errors.print(
        Text(f"lucia doctor: {reason}. To go on, run the same command with --resume {path}")
    )
    return False


@contextmanager
def _interruptible() -> Generator[None, None, None]:
    """Let the signals to end be a KeyboardInterrupt, also where the shell ignores one of them."""
    before = {
        number: signal.signal(number, signal.default_int_handler)
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _progress(console: Console) -> Generator[Report, None, None]:
    """A bar on a terminal; nothing elsewhere."""
    if not console.is_terminal:
        yield lambda looked_at, total, waiting: None
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("keys", total=None)

        def show(looked_at: int, total: int | None, waiting: int) -> None:
            description = f"second look in {waiting} s" if waiting else "keys"
            progress.update(
                task,
                completed=looked_at,
                total=None if total is None else max(total, looked_at),
                description=description,
            )

        yield show


def _print(told: dict[str, Any], console: Console, *, fix: bool) -> None:
    """The report for a person."""
    counts = ", ".join(f"{count:,} {role}" for role, count in told["keys"].items() if count)
    console.print(Text(f"Keys looked at: {counts or 'none'}"))
    found = {kind: count for kind, count in told["findings"].items() if count["found"]}
    if not found:
        console.print("Nothing is wrong." if told["complete"] else "Nothing was wrong so far.")
        return
    table = Table("what", "found", "mended", "left")
    for kind, count in found.items():
        table.add_row(
            MEANINGS[Kind(kind)], *(f"{count[column]:,}" for column in ("found", "mended", "left"))
        )
    console.print(table)
    for example in told.get("examples", ()):
        console.print(Text(f"{example['kind']}: {_whose(example)}"))
    left = [Kind(kind) for kind, count in found.items() if count["left"]]
    for kind in left:
        if kind in ADVICE:
            console.print(Text(f"{MEANINGS[kind]}: {ADVICE[kind]}"))
    if not fix and set(left) - ADVICE.keys():
        console.print("Nothing was changed. Run it again with --fix to mend it.")


def _whose(example: dict[str, Any]) -> str:
    """Return what is known of a finding: the key's pattern, or the user and the session's handle."""
    if example["key"] is not None:
        return f"keys like '{example['key']}'"
    handle = example["handle"]
    return f"user {example['user']!r}" + ("" if handle is None else f", handle {handle}")


def main() -> None:
    """Run the command."""
    app()
