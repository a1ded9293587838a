"""The command ``lucia copy``: copy live sessions from one store to another."""

import hashlib
import json
import os
import sys
from collections.abc import Generator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import urlsplit, urlunsplit

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lucia._copy.copier import VERSION, Copier, DryRun, Pacer, RunCounts
from lucia._copy.ids import IdConversion
from lucia._copy.ledger import Ledger
from lucia._copy.redis import RedisStore
from lucia._copy.stores import CopyError, Skipped, Store
from lucia._redis.transport.settings import WRITE_SECONDS, Settings
from lucia._rules.id_hashes import HashedIds
from lucia._sync.stores.redis.driver import RedisDriver
from lucia.cli.shared import (
    CLIENT_ERRORS,
    EXIT_FAILED,
    EXIT_OK,
    EXIT_PARTLY,
    CommandError,
    UserIdKind,
    describe,
    error_console,
    interruptible,
    layout_of,
    print_error,
    progress_bar,
    redis_client,
)
from lucia.cli.stores import REDIS_SCHEMES

__all__ = ["copy"]

KEYS_VARIABLE: Final = "LUCIA_ID_KEYS"

MEANINGS: Final = {
    Skipped.EXPIRED: "expired",
    Skipped.INCOMPLETE: "just being made: the next run copies them",
    Skipped.REVOKED_THERE: "their login was revoked in the destination",
    Skipped.CHANGED_THERE: "changed in the source, and changed or revoked in the destination too",
    Skipped.UNDECODABLE: "can't be decoded: nobody is logged in by them",
    Skipped.WRONG_TYPE: "keys of another type: another program uses the same names",
    Skipped.USER_MISSING: "the destination's table of users does not have their user",
    Skipped.TAKEN: "another session in the destination has their id",
    Skipped.INDEX_TYPE: "their user's index in the destination is of another type",
    Skipped.REFUSED: "the destination can't store them",
}


@dataclass(frozen=True, kw_only=True)
class _Place:
    """Where a store is, and how its keys or tables are named."""

    url: str
    layout: str
    session_namespace: str | None
    user_session_namespace: str | None
    cluster: bool | None
    session_table: str
    user_table: str | None
    user_id: UserIdKind | None

    @property
    def is_redis(self) -> bool:
        return self.url.partition(":")[0].lower() in REDIS_SCHEMES

    def settings(self, name: str) -> dict[str, Any]:
        """Return what must be the same at every run. It has no password."""
        parts = urlsplit(self.url)
        _, _, host = parts.netloc.rpartition("@")
        names = (
            {
                "layout": self.layout,
                "session_namespace": self.session_namespace,
                "user_session_namespace": self.user_session_namespace,
            }
            if self.is_redis
            else {
                "session_table": self.session_table,
                "user_table": self.user_table,
                "user_id": self.user_id,
            }
        )
        address = urlunsplit((parts.scheme, host, parts.path, "", ""))
        # The query may name the database, and may have a password.
        query = hashlib.sha256(parts.query.encode()).hexdigest()[:16] if parts.query else None
        values = {"url": address, "query": query, **names}
        return {f"{name}_{key}": value for key, value in values.items()}


def copy(
    from_url: Annotated[
        str,
        typer.Argument(
            metavar="FROM_URL",
            envvar="LUCIA_COPY_FROM",
            show_default=False,
            help="redis://, rediss:// (TLS) or unix://, as redis-py takes it, or the URL of a "
            "database, as SQLAlchemy takes it. With a password, better in the environment.",
        ),
    ],
    to_url: Annotated[
        str,
        typer.Argument(
            metavar="TO_URL", envvar="LUCIA_COPY_TO", show_default=False, help="Likewise."
        ),
    ],
    *,
    state: Annotated[
        Path,
        typer.Option(
            "--state",
            metavar="FILE",
            help="What was copied. Keep it until the last run, or that revives what was revoked.",
        ),
    ] = Path("lucia-copy.sqlite"),
    from_layout: Annotated[str, typer.Option(help="default or lucia-v2.")] = "default",
    to_layout: Annotated[str, typer.Option(help="default or lucia-v2.")] = "default",
    from_session_namespace: Annotated[str | None, typer.Option(metavar="NAME")] = None,
    from_user_session_namespace: Annotated[str | None, typer.Option(metavar="NAME")] = None,
    to_session_namespace: Annotated[str | None, typer.Option(metavar="NAME")] = None,
    to_user_session_namespace: Annotated[str | None, typer.Option(metavar="NAME")] = None,
    from_cluster: Annotated[
        bool | None,
        typer.Option("--from-cluster/--no-from-cluster", help="Detected by default."),
    ] = None,
    to_cluster: Annotated[
        bool | None, typer.Option("--to-cluster/--no-to-cluster", help="Detected by default.")
    ] = None,
    session_table: Annotated[
        str, typer.Option(metavar="NAME", help="In a database, the table of sessions.")
    ] = "auth_session",
    user_table: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="In a database, the table of users; by default the one that the sessions refer "
            "to.",
        ),
    ] = None,
    user_id: Annotated[
        UserIdKind | None,
        typer.Option(
            help="In a database, what the users' ids are; by default as the column's type says. "
            "32 characters may be either: they are UUIDs if all of them can be.",
            show_default=False,
        ),
    ] = None,
    id_keys_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            show_default=False,
            help="The destination's id_keys, one a line, as hex digits, the current one first; or "
            f"in {KEYS_VARIABLE}, separated by commas.",
        ),
    ] = None,
    rate: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Copy at most so many sessions a second."),
    ] = None,
    merge: Annotated[
        bool,
        typer.Option("--merge", help="The destination has other sessions before the first run."),
    ] = False,
    all_revoked: Annotated[
        bool,
        typer.Option("--all-revoked", help="Every session that was copied before is revoked."),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Write nothing, and report what would be done.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Copy live sessions to another store, while the application runs.

    Run it before the application is switched to the other store, as often as you like, and once
    after that. A later run copies what has changed in the source since: new, renewed and revoked
    sessions. What the destination has changed since then stays as it is.

    Exit code: 0 if all is done; 1 if sessions were skipped for a reason that you must look at; 2 if
    it could not run to its end.
    """
    tables: dict[str, Any] = {
        "session_table": session_table,
        "user_table": user_table,
        "user_id": user_id,
    }
    places = {
        "from": _Place(
            url=from_url,
            layout=from_layout,
            session_namespace=from_session_namespace,
            user_session_namespace=from_user_session_namespace,
            cluster=from_cluster,
            **tables,
        ),
        "to": _Place(
            url=to_url,
            layout=to_layout,
            session_namespace=to_session_namespace,
            user_session_namespace=to_user_session_namespace,
            cluster=to_cluster,
            **tables,
        ),
    }
    errors = error_console()
    try:
        keys = _id_keys(id_keys_file)
        settings = {"id_keys": _fingerprint(keys)}
        for name, place in places.items():
            settings.update(place.settings(name))
        _check(settings)
        with (
            _open(places["from"]) as source,
            _open(places["to"]) as destination,
            closing(Ledger.open(state, settings, dry_run=dry_run)) as ledger,
            progress_bar(errors) as show,
        ):
            copier = Copier(
                source,
                DryRun(destination) if dry_run else destination,
                IdConversion(HashedIds(keys) if keys else None),
                ledger,
                pacer=Pacer(rate),
                progress=show,
            )
            reason = _run(copier, merge=merge, all_revoked=all_revoked)
    except (CommandError, CopyError, OSError) as error:
        print_error(errors, "copy", error)
        raise typer.Exit(EXIT_FAILED) from None
    if reason is not None:
        print_error(errors, "copy", reason)
        if ledger.unused is not None:  # it would refuse the right options
            ledger.unused.unlink()
    code = (
        EXIT_FAILED
        if reason is not None
        else EXIT_PARTLY
        if copier.counts.to_look_at()
        else EXIT_OK
    )
    result = {
        "version": VERSION,
        "complete": reason is None,
        "dry_run": dry_run,
        **copier.counts.as_json(),
        "exit_code": code,
    }
    if as_json:
        sys.stdout.write(json.dumps(result, indent=2) + "\n")
    else:
        _print(copier.counts, Console(soft_wrap=True), dry_run=dry_run)
    raise typer.Exit(code)


def _run(copier: Copier, *, merge: bool, all_revoked: bool) -> str | None:
    """Copy, and return why it did not come to its end; None if it did."""
    resume = "Nothing is lost: run the same command again"
    try:
        with interruptible():
            copier.run(merge=merge, all_revoked=all_revoked)
    except KeyboardInterrupt:
        return f"interrupted. {resume}"
    except CopyError as error:
        return str(error)
    except _client_errors() as error:
        return f"{describe(error)}. {resume}"
    return None


def _client_errors() -> tuple[type[Exception], ...]:
    """Return the errors of Redis and, if SQLAlchemy is installed, of databases."""
    try:
        from sqlalchemy.exc import SQLAlchemyError
    except ImportError:
        return CLIENT_ERRORS
    return (*CLIENT_ERRORS, SQLAlchemyError)


def _check(settings: dict[str, Any]) -> None:
    names = [name.removeprefix("to_") for name in settings if name.startswith("to_")]
    if all(settings.get(f"from_{name}") == settings[f"to_{name}"] for name in names):
        raise CommandError("both URLs name the same store")


def _id_keys(path: Path | None) -> list[bytes]:
    """Return the keys in a file or in the environment; none if there is neither.

    Raises:
        CommandError: they are no text, no hex digits, or can't be used.
    """
    try:
        text = os.environ.get(KEYS_VARIABLE, "") if path is None else path.read_text("utf-8")
    except UnicodeDecodeError:
        # Not the error's own text, which has a byte of the file.
        raise CommandError(f"{path} is no text: write each key's hex digits into a line") from None
    try:
        keys = [bytes.fromhex(word) for word in text.replace(",", " ").split()]
        if keys:
            HashedIds(keys)
    except (ValueError, ImportError) as error:
        # The text of bytes.fromhex names a position and no digits.
        raise CommandError(f"the keys for ids are not usable: {error}") from None
    if path is not None and not keys:
        raise CommandError(f"{path} has no key: write each key's hex digits into a line")
    return keys


def _fingerprint(keys: list[bytes]) -> str | None:
    """Return what tells the current key from another one, and is no secret."""
    return hashlib.sha256(b"lucia copy\0" + keys[0]).hexdigest()[:16] if keys else None


@contextmanager
def _open(place: _Place) -> Generator[Store, None, None]:
    """Yield the store at a place.

    Raises:
        CommandError: it can't be reached, or is none.
    """
    if not place.is_redis:
        with _open_database(place) as store:
            yield store
        return
    layout = layout_of(place.layout, place.session_namespace, place.user_session_namespace)
    with (
        redis_client(place.url, place.cluster) as client,
        closing(RedisDriver(client, Settings(seconds=WRITE_SECONDS))) as driver,
    ):
        yield RedisStore(client, driver, layout)


@contextmanager
def _open_database(place: _Place) -> Generator[Store, None, None]:
    try:
        from lucia.cli.databases import StoredTables, open_engine
    except ImportError as error:
        raise CommandError(str(error)) from None
    from lucia._copy.sql import SqlStore

    with open_engine(place.url) as engine:
        tables = StoredTables(engine, place.session_table, place.user_table)
        yield SqlStore(engine, tables.with_users(place.user_id))


def _print(counts: RunCounts, console: Console, *, dry_run: bool) -> None:
    """Print the report as a table."""
    table = Table("sessions", "count")
    rows = {
        "copied": counts.copied,
        "copied before, unchanged": counts.unchanged,
        "copied before, updated": counts.updated,
        "renewed: the used id leads to its successor": counts.used,
        "renewed: the used id was removed": counts.removed,
        "revoked in the source: logins revoked": counts.revoked,
    }
    for name, count in rows.items():
        table.add_row(name, f"{count:,}")
    for reason in Skipped:
        if count := counts.skipped[reason]:
            table.add_row(Text(f"skipped: {MEANINGS[reason]}"), f"{count:,}")
    console.print(table)
    if dry_run:
        console.print("Nothing was written.")
