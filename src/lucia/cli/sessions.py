"""The commands ``lucia sessions``: list and revoke a user's sessions, and count all sessions."""

import inspect
import json
import sys
from collections.abc import Callable
from dataclasses import fields
from datetime import datetime
from typing import Annotated, Any, Final

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from lucia._redis.statistics import Count
from lucia.cli.logins import Statistics
from lucia.cli.shared import (
    EXIT_FAILED,
    EXIT_OK,
    EXIT_PARTLY,
    CommandError,
    error_console,
    interruptible,
    print_error,
    printable,
    progress_bar,
)
from lucia.cli.stores import Store, StoreOptions, open_store
from lucia.errors import InvalidUserId
from lucia.models import Device

__all__ = ["app"]

VERSION: Final = 1
"""The version of the JSON of these commands."""

MIN_WIDTH: Final = 100
"""How wide the list is at least, in characters. In a narrower terminal its lines are wrapped."""

Command = Callable[..., int]

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="List, revoke and count sessions, in Redis or in a database.",
)

UserArgument = Annotated[str, typer.Argument(metavar="USER", help="The user's id.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def _command(name: str, **settings: Any) -> Callable[[Command], Command]:
    """Make a command of a function of an open store, which returns the exit code.

    The command has the function's options, and those of :class:`StoreOptions`.
    """

    def register(function: Command) -> Command:
        def run(**arguments: Any) -> None:
            options = {field.name: arguments.pop(field.name) for field in fields(StoreOptions)}
            try:
                with interruptible(), open_store(StoreOptions(**options)) as store:
                    code = function(store, **arguments)
            except CommandError as error:
                reason = str(error)
            except KeyboardInterrupt:
                reason = "interrupted"
            else:
                raise typer.Exit(code)
            print_error(error_console(), f"sessions {name}", reason)
            raise typer.Exit(EXIT_FAILED)

        # Typer makes options of what the signature says.
        own = list(inspect.signature(function).parameters.values())[1:]
        parameters = [*own, *inspect.signature(StoreOptions).parameters.values()]
        vars(run)["__signature__"] = inspect.Signature(parameters)
        run.__doc__ = function.__doc__
        app.command(name, **settings)(run)
        return function

    return register


@_command("list")
def list_sessions(store: Store, *, user: UserArgument, as_json: JsonOption = False) -> int:
    """List where a user is logged in, the newest login first. No session id is shown.

    Exit code: 0; 1 if there is no session or no such user; 2 if it could not run.
    """
    sessions, message = _sessions_of(store, user)
    code = EXIT_OK if sessions else EXIT_PARTLY
    if as_json:
        _print_json({"user": user, "sessions": [_as_json(each) for each in sessions]}, code)
    elif sessions:
        _print_table(sessions)
    _explain(message)
    return code


@_command("revoke", context_settings={"ignore_unknown_options": True})  # some handles begin with -
def revoke_sessions(
    store: Store,
    *,
    user: UserArgument,
    handle: Annotated[
        str | None, typer.Argument(metavar="HANDLE", help="The session to revoke.")
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Revoke all sessions of the user.")
    ] = False,
    keep: Annotated[
        str | None, typer.Option(metavar="HANDLE", help="Revoke all sessions but this one.")
    ] = None,
    as_json: JsonOption = False,
) -> int:
    """Revoke sessions of a user, at once and without a question. The handles are those of list.

    Exit code: 0 if it is done; 1 if there is no such session or no such user, or if not all was
    done; 2 if it could not run.
    """
    if [handle is not None, everything, keep is not None].count(True) != 1:
        raise CommandError("say what to revoke: a HANDLE, --all, or --keep HANDLE")
    before, message = _sessions_of(store, user)
    if everything:
        found = wanted = before
    elif keep is not None:
        found = [each for each in before if each.handle == keep]
        wanted = [each for each in before if each.handle != keep]
    else:
        found = wanted = [each for each in before if each.handle == handle]
    after = before
    if found:
        _revoke(store, user, handle, keep)
        after, _ = _sessions_of(store, user)
    elif before:
        message = f"No session of {_quoted(user)} has this handle: nothing was revoked."
    # A login that came meanwhile is left, and rightly.
    left = {each.handle for each in after}
    revoked = [each for each in before if each.handle not in left]
    kept = [each for each in after if each.handle == keep]
    if found and keep is not None and not kept:
        message = "The session to keep was revoked by another program meanwhile, so all were."
    elif any(each.handle in left for each in wanted) and found:
        message = "Not all of them were revoked: run it again, and then lucia doctor."
    code = EXIT_PARTLY if message else EXIT_OK
    if as_json:
        kept_one = _as_json(kept[0]) if kept else None
        members = {"revoked": [_as_json(each) for each in revoked], "kept": kept_one}
        _print_json({"user": user, **members}, code)
    elif found:
        _print_revoked(user, revoked, kept)
    _explain(message)
    return code


@_command("stats")
def count_sessions(
    store: Store,
    *,
    sample: Annotated[
        int | None,
        typer.Option(
            min=100,
            metavar="KEYS",
            help="Read so many random keys, and estimate: for big stores in Redis.",
            show_default=False,
        ),
    ] = None,
    as_json: JsonOption = False,
) -> int:
    """Count the live sessions, and the users who have one.

    Exit code: 0; 2 if it could not run to its end.
    """
    with progress_bar(error_console()) as show:
        found = store.statistics(sample, show)
    if as_json:
        counts = {"sessions": found.sessions._asdict(), "users": found.users._asdict()}
        _print_json({"exact": found.exact, "read": found.read, **counts}, EXIT_OK)
    else:
        _print_statistics(found)
    if not found.sessions.high:
        _explain(store.hint())
    return EXIT_OK


def _sessions_of(store: Store, user: str) -> tuple[list[Device], str]:
    """Return a user's sessions; if there are none, also what to say about that."""
    try:
        sessions = store.logins_of(user).list()
    except InvalidUserId:
        return [], f"There is no {_quoted(user)}."
    if sessions:
        return sessions, ""
    return [], store.hint() or f"No sessions of {_quoted(user)}."


def _revoke(store: Store, user: str, handle: str | None, keep: str | None) -> None:
    logins = store.logins_of(user)
    if handle is not None:
        logins.revoke(handle)
    elif keep is not None:
        logins.revoke_others(keep)
    else:
        logins.revoke_all()


def _as_json(device: Device) -> dict[str, Any]:
    return {
        "handle": device.handle,
        "state": device.state,
        "created_at": device.created_at.isoformat(),
        "active_period_expires_at": device.active_period_expires_at.isoformat(),
        "idle_period_expires_at": device.idle_period_expires_at.isoformat(),
        "metadata": dict(device.metadata),
    }


def _print_json(members: dict[str, Any], code: int) -> None:
    result = {"version": VERSION, **members, "exit_code": code}
    sys.stdout.write(json.dumps(result, indent=2) + "\n")


def _print_table(sessions: list[Device]) -> None:
    # Handles are copied, so they are not wrapped, and neither is what is easily misread.
    whole = (Column(name, no_wrap=True) for name in ("handle", "signed in", "expires", "state"))
    table = Table(*whole, Column("metadata", overflow="fold"), box=SIMPLE_HEAD, show_edge=False)
    for each in sessions:
        times = (_time(each.created_at), _time(each.idle_period_expires_at))
        metadata = json.dumps(dict(each.metadata), ensure_ascii=False) if each.metadata else ""
        cells = (each.handle, *times, each.state, metadata)
        table.add_row(*(Text(printable(cell)) for cell in cells))
    Console(width=max(Console().width, MIN_WIDTH)).print(table)


def _print_revoked(user: str, revoked: list[Device], kept: list[Device]) -> None:
    console = Console(soft_wrap=True)
    sessions = "1 session" if len(revoked) == 1 else f"{len(revoked):,} sessions"
    console.print(Text(f"Revoked {sessions} of {_quoted(user)}."))
    for word, devices in (("revoked", revoked), ("kept", kept)):
        for each in devices:
            signed_in = f"signed in {_time(each.created_at)}"
            console.print(Text(f"{word} {printable(each.handle)}, {signed_in}"))


def _print_statistics(found: Statistics) -> None:
    console = Console(soft_wrap=True)
    console.print(Text(f"Live sessions: {_shown(found.sessions, exact=found.exact)}"))
    console.print(Text(f"Users with a live session: {_shown(found.users, exact=found.exact)}"))
    if not found.exact:
        console.print(Text(f"Estimated from {found.read:,} random keys."))


def _shown(count: Count, *, exact: bool) -> str:
    if exact:
        return f"{count.estimate:,}"
    return f"about {count.estimate:,} (with 95 % confidence {count.low:,} to {count.high:,})"


def _time(time: datetime) -> str:
    return f"{time:%Y-%m-%d %H:%M} UTC"


def _quoted(user: str) -> str:
    return f"user {user!r}"  # with escapes for control characters


def _explain(message: str) -> None:
    if message:
        error_console().print(Text(message))
