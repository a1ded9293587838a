"""The command ``lucia``."""

import json
import signal
import sys
from collections.abc import Generator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Annotated, Any, Final, cast

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

from lucia._redis.doctor.findings import MEANINGS, Kind, RepairOptions
from lucia._redis.doctor.walk import Progress as ShowProgress
from lucia._redis.doctor.walk import State, StateError, Walk, report
from lucia._redis.keys import Layout, LayoutName
from lucia._redis.transport.settings import WRITE_SECONDS, Settings
from lucia._sync.stores.redis.driver import RedisDriver
from lucia.errors import LuciaError, StoreUnavailable

__all__ = ["main"]

EXIT_OK: Final = 0
EXIT_FINDINGS: Final = 1
EXIT_INCOMPLETE: Final = 2

STATE_FILE: Final = Path("lucia-doctor.json")

ADVICE: Final = {
    Kind.EVICTION: "Set maxmemory-policy to noeviction, in the server's configuration.",
    Kind.EVICTION_UNKNOWN: (
        "Check whether maxmemory-policy is noeviction, or allow +config|get or +info."
    ),
    Kind.UNDECODABLE_RECORD: (
        "Nobody is logged in by such a record. --fix --delete-damaged deletes it."
    ),
    Kind.DAMAGED_MARKER: "--fix --delete-damaged deletes them.",
    Kind.WRONG_TYPE: (
        "Another program, or another layout, writes to the same keys: find it. "
        "--fix --delete-damaged deletes these keys."
    ),
    Kind.BARE_SESSION: (
        "Stop what uses the old adapter, then move its sessions with --fix --move-bare."
    ),
    Kind.BARE_INDEX: "They are not needed once the sessions of the old adapter are moved.",
    Kind.OTHERS_UNREADABLE: (
        "Keys of old adapters can't be recognised without the right to read them: "
        "allow ~*, or use --no-others."
    ),
    Kind.DUPLICATE_ENTRY: "They do no harm. Fixing them needs scripts.",
}

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


class _CommandError(Exception):
    """The command could not run. The message is printed."""


@app.callback()
def lucia() -> None:
    """Check and fix sessions in Redis and Valkey."""


@app.command()
def doctor(
    url: Annotated[
        str,
        typer.Argument(
            metavar="REDIS_URL",
            envvar="LUCIA_REDIS_URL",
            show_default=False,
            help="redis://, rediss:// (TLS) or unix://, as redis-py takes it. "
            "With a password, better in the environment.",
        ),
    ],
    *,
    fix: Annotated[
        bool,
        typer.Option(
            "--fix", help="Fix what can be fixed safely, also while the application runs."
        ),
    ] = False,
    legacy_writers: Annotated[
        bool,
        typer.Option(
            "--legacy-writers",
            help="A JavaScript Lucia still writes to these keys: examine twice, a minute apart.",
        ),
    ] = False,
    delete_damaged: Annotated[
        bool,
        typer.Option(
            "--delete-damaged",
            help="With --fix: delete keys of another type, and what can't be decoded.",
        ),
    ] = False,
    move_bare: Annotated[
        bool,
        typer.Option(
            "--move-bare",
            help="With --fix: move what adapters before 1.1.0 stored. Stop them first.",
        ),
    ] = False,
    layout: Annotated[str, typer.Option(help="default or lucia-v2.")] = "default",
    session_namespace: Annotated[
        str | None, typer.Option(metavar="NAME", help="The adapter's namespaces['session'].")
    ] = None,
    user_session_namespace: Annotated[
        str | None, typer.Option(metavar="NAME", help="The adapter's namespaces['user_session'].")
    ] = None,
    cluster: Annotated[
        bool | None,
        typer.Option(
            "--cluster/--no-cluster",
            help="Whether the server is part of a cluster; detected by default.",
            show_default=False,
        ),
    ] = None,
    others: Annotated[
        bool,
        typer.Option(
            "--others/--no-others",
            help="Examine all other keys too, to find those of old adapters.",
        ),
    ] = True,
    resume: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Resume from this file if it exists, and save the progress to it.",
            show_default=False,
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    verbose: Annotated[
        bool,
        typer.Option(
            "--verbose",
            help="Show users and handles, or how to find a damaged key: 20 of each kind.",
        ),
    ] = False,
) -> None:
    """Check every key of a session store, and report what is wrong. Only --fix changes keys.

    Exit code: 0 if nothing is wrong or all is fixed; 1 if something is wrong; 2 if it could not run
    to its end.
    """
    options = RepairOptions(fix=fix, delete_damaged=delete_damaged, move_bare=move_bare)
    errors = Console(stderr=True, soft_wrap=True)
    try:
        _check(options)
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
                driver, found, options, state, others=others, path=resume, progress=progress
            )
            is_complete = _walk(walk, resume, errors)
            others_with_keys = (
                "" if not is_complete or walk.has_sessions() else _other_databases(client)
            )
    except (_CommandError, StateError, OSError) as error:
        errors.print(Text(f"lucia doctor: {error}"))
        raise typer.Exit(EXIT_INCOMPLETE) from None
    code = (
        EXIT_INCOMPLETE
        if not is_complete
        else EXIT_FINDINGS
        if walk.state.total().not_fixed()
        else EXIT_OK
    )
    if others_with_keys:
        errors.print(Text(others_with_keys))
    result = report(walk, complete=is_complete, examples=verbose)
    if as_json:
        sys.stdout.write(json.dumps({**result, "exit_code": code}, indent=2) + "\n")
    else:
        _print(result, Console(soft_wrap=True), fix=fix)
    raise typer.Exit(code)


def _check(options: RepairOptions) -> None:
    if (options.delete_damaged or options.move_bare) and not options.fix:
        raise _CommandError("--delete-damaged and --move-bare change keys, so they need --fix")


def _layout(name: str, namespaces: dict[str, str], *, legacy_writers: bool) -> Layout:
    try:
        return Layout.from_namespaces(
            namespaces, cast("LayoutName", name), legacy_writers=legacy_writers
        )
    except (TypeError, ValueError) as error:
        raise _CommandError(str(error)) from None


@contextmanager
def _client(url: str, cluster: bool | None) -> Generator[Any, None, None]:
    """Yield a client of the server or the cluster at a URL.

    Raises:
        _CommandError: the URL is invalid, nothing answers, or the server refuses the user or the
            database.
    """
    try:
        client: Any = redis.Redis.from_url(url, protocol=2)  # pyright: ignore[reportUnknownMemberType]
    except ValueError as error:
        raise _CommandError(str(error)) from None
    try:
        client.time()  # connects: reports a wrong password or database before anything is read
        if _is_cluster(client) if cluster is None else cluster:
            client.close()
            client = redis.RedisCluster.from_url(url, protocol=2)
    except (redis.RedisError, RedisClusterException) as error:
        raise _CommandError(_describe(error)) from None
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


def _other_databases(client: Any) -> str:
    """Return a hint that names the other databases of this server that have keys.

    The hint is empty if none has keys, or the server refuses to tell.
    """
    if isinstance(client, redis.RedisCluster):
        return ""
    number = client.connection_pool.connection_kwargs.get("db", 0)
    try:
        databases: dict[str, Any] = client.info("keyspace")
    except redis.RedisError:
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


def _describe(error: BaseException) -> str:
    """Describe an error; of a server that can't be reached, as the client does: where and why."""
    if isinstance(error, StoreUnavailable) and error.__cause__ is not None:
        return _describe(error.__cause__)
    return f"{type(error).__name__}: {error}"


def _walk(walk: Walk, resume: Path | None, errors: Console) -> bool:
    """Walk to the end, and return True. If that fails or is interrupted, print how to resume.

    Raises:
        _CommandError: it failed before a key was examined.
    """
    try:
        with _interruptible():
            walk.run()
    except KeyboardInterrupt:
        reason = "interrupted"
    except (redis.RedisError, LuciaError, OSError) as error:
        reason = _describe(error)
    else:
        return True
    if not walk.has_looked():
        raise _CommandError(reason)
    path = resume or STATE_FILE
    walk.save(path)
    errors.print(
        Text(f"lucia doctor: {reason}. To resume, run the same command with --resume {path}")
    )
    return False


@contextmanager
def _interruptible() -> Generator[None, None, None]:
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


@contextmanager
def _progress(console: Console) -> Generator[ShowProgress, None, None]:
    """Yield what shows the progress: a bar on a terminal, nothing elsewhere."""
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
            description = f"second examination in {waiting} s" if waiting else "keys"
            progress.update(
                task,
                completed=looked_at,
                total=None if total is None else max(total, looked_at),
                description=description,
            )

        yield show


def _print(result: dict[str, Any], console: Console, *, fix: bool) -> None:
    """Print the report as a table."""
    counts = ", ".join(f"{count:,} {role}" for role, count in result["keys"].items() if count)
    console.print(Text(f"Keys examined: {counts or 'none'}"))
    found = {kind: count for kind, count in result["findings"].items() if count["found"]}
    if not found:
        console.print("Nothing is wrong." if result["complete"] else "Nothing was wrong so far.")
        return
    table = Table("what", "found", "fixed", "left")
    for kind, count in found.items():
        table.add_row(
            MEANINGS[Kind(kind)], *(f"{count[column]:,}" for column in ("found", "fixed", "left"))
        )
    console.print(table)
    for example in result.get("examples", ()):
        console.print(Text(f"{example['kind']}: {_subject_of(example)}"))
    left = [Kind(kind) for kind, count in found.items() if count["left"]]
    for kind in left:
        if kind in ADVICE:
            console.print(Text(f"{MEANINGS[kind]}: {ADVICE[kind]}"))
    if not fix and set(left) - ADVICE.keys():
        console.print("Nothing was changed. Run it again with --fix to fix it.")


def _subject_of(example: dict[str, Any]) -> str:
    """Return what a finding is about: the pattern of a key, or a user and a handle."""
    if example["key"] is not None:
        return f"keys like '{example['key']}'"
    handle = example["handle"]
    return f"user {example['user']!r}" + ("" if handle is None else f", handle {handle}")


def main() -> None:
    """Run the command."""
    app()
