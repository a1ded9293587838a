"""The command ``lucia doctor``."""

import json
import sys
from collections.abc import Generator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lucia._redis.doctor.findings import MEANINGS, Kind, RepairOptions
from lucia._redis.doctor.walk import Progress as ShowProgress
from lucia._redis.doctor.walk import State, StateError, Walk, report
from lucia._redis.transport.settings import WRITE_SECONDS, Settings
from lucia._sync.stores.redis.driver import RedisDriver
from lucia.cli.shared import (
    CLIENT_ERRORS,
    EXIT_FAILED,
    EXIT_OK,
    EXIT_PARTLY,
    ClusterOption,
    CommandError,
    LayoutOption,
    SessionNamespaceOption,
    UserSessionNamespaceOption,
    describe,
    error_console,
    interruptible,
    layout_of,
    other_databases,
    print_error,
    progress_bar,
    redis_client,
)

__all__ = ["doctor"]

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
    layout: LayoutOption = "default",
    session_namespace: SessionNamespaceOption = None,
    user_session_namespace: UserSessionNamespaceOption = None,
    cluster: ClusterOption = None,
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
    errors = error_console()
    try:
        _check(options)
        found = layout_of(
            layout, session_namespace, user_session_namespace, legacy_writers=legacy_writers
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
            redis_client(url, cluster) as client,
            closing(RedisDriver(client, usage)) as driver,
            _progress(errors) as progress,
        ):
            walk = Walk(
                driver, found, options, state, others=others, path=resume, progress=progress
            )
            is_complete = _walk(walk, resume, errors)
            others_with_keys = (
                "" if not is_complete or walk.has_sessions() else other_databases(client)
            )
    except (CommandError, StateError, OSError) as error:
        print_error(errors, "doctor", error)
        raise typer.Exit(EXIT_FAILED) from None
    code = (
        EXIT_FAILED
        if not is_complete
        else EXIT_PARTLY
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
        raise CommandError("--delete-damaged and --move-bare change keys, so they need --fix")


def _walk(walk: Walk, resume: Path | None, errors: Console) -> bool:
    """Walk to the end, and return True. If that fails or is interrupted, print how to resume.

    Raises:
        CommandError: it failed before a key was examined.
    """
    try:
        with interruptible():
            walk.run()
    except KeyboardInterrupt:
        reason = "interrupted"
    except CLIENT_ERRORS as error:
        reason = describe(error)
    else:
        return True
    if not walk.has_looked():
        raise CommandError(reason)
    path = resume or STATE_FILE
    walk.save(path)
    print_error(errors, "doctor", f"{reason}. To resume, run the same command with --resume {path}")
    return False


@contextmanager
def _progress(console: Console) -> Generator[ShowProgress, None, None]:
    """Yield what shows the progress of a walk, on a terminal."""
    with progress_bar(console) as show:
        yield lambda looked_at, total, waiting: show(
            looked_at, total, f"second examination in {waiting} s" if waiting else "keys"
        )


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
