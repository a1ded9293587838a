"""The command ``lucia``: one module for each of its commands, and :mod:`lucia.cli.shared`."""

try:
    import typer

    from lucia.cli import copy, doctor
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
    """Check, fix and move sessions."""


app.command()(doctor.doctor)
app.command()(copy.copy)


def main() -> None:
    """Run the command."""
    app()
