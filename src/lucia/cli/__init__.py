"""The command ``lucia``: one module for each of its commands, and :mod:`lucia.cli.shared`."""

import logging

try:
    import typer

    from lucia.cli import copy, doctor, sessions
except ImportError as error:
    if (error.name or "").partition(".")[0] not in {"typer", "rich", "redis", "msgspec"}:
        raise
    raise ImportError(
        'the command "lucia" needs typer, rich and redis-py: pip install "lucia-auth[cli]"'
    ) from error

__all__ = ["main"]

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback()
def lucia() -> None:
    """List, revoke, count, check, fix and move sessions."""


app.command()(copy.copy)
app.command()(doctor.doctor)
app.add_typer(sessions.app, name="sessions")


def main() -> None:
    """Run the command."""
    # A command prints why it failed. Without a handler, Python would print the library's log lines.
    logging.getLogger("lucia").addHandler(logging.NullHandler())
    app()
