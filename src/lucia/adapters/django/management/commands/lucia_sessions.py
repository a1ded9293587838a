"""``manage.py lucia_sessions``: list a user's logins and revoke them."""

import json
from typing import Any

from django.contrib.auth import get_user_model
from django.core.management.base import BaseCommand, CommandError, CommandParser

from lucia._sync.auth import Auth
from lucia.errors import InvalidUserId
from lucia.middleware.django.conf import Configuration, load_configuration

__all__ = ["Command"]


class Command(BaseCommand):
    """Lists where a user is logged in, or revokes logins."""

    help = "List where a user is logged in, or revoke logins. No session id is shown."

    def add_arguments(self, parser: CommandParser) -> None:
        """Add the arguments of the command."""
        parser.add_argument("user", help="The username, or with --id the user's id.")
        parser.add_argument(
            "--id", action="store_true", help="The user is given by the id, not by the username."
        )
        what = parser.add_mutually_exclusive_group()
        what.add_argument(
            "--revoke",
            metavar="HANDLE",
            help="Revoke the login with this handle. Write --revoke=HANDLE: some begin with -.",
        )
        what.add_argument("--revoke-all", action="store_true", help="Revoke all logins.")

    def handle(self, *_: Any, **options: Any) -> None:
        """Run the command."""
        configuration = load_configuration()
        auth, user = configuration.auth, options["user"]
        user_id = _id_of(auth, user if options["id"] else _pk_of(configuration, user))
        try:
            devices = auth.get_all_user_sessions(user_id)
        except InvalidUserId:
            raise CommandError(f"there is no user {user!r}") from None
        if options["revoke_all"]:
            auth.invalidate_all_user_sessions(user_id)
            self.stdout.write(f"Revoked all logins of {user!r}: {len(devices)}.")
        elif options["revoke"] is not None:
            if options["revoke"] not in {device.handle for device in devices}:
                raise CommandError(f"{user!r} has no login with this handle")
            auth.invalidate_user_session(user_id, options["revoke"])
            self.stdout.write("Revoked 1 login.")
        else:
            for device in devices:
                since = f"{device.created_at:%Y-%m-%d %H:%M}"
                until = f"{device.idle_period_expires_at:%Y-%m-%d %H:%M}"
                # As JSON in ASCII: what a client sent can't move the cursor of the terminal.
                metadata = json.dumps(dict(device.metadata))
                self.stdout.write(f"{device.handle}  {since} to {until} UTC  {metadata}")


def _pk_of(configuration: Configuration, username: str) -> str:
    """Return the id of a user of ``AUTH_USER_MODEL`` as text."""
    if not configuration.has_django_users:
        raise CommandError(
            "the users are not known to be those of AUTH_USER_MODEL: give the user's id, with --id"
        )
    users: Any = get_user_model()
    try:
        return str(users._default_manager.get_by_natural_key(username).pk)
    except users.DoesNotExist:
        raise CommandError(f"there is no user {username!r}") from None


def _id_of(auth: Auth[Any, Any, Any], text: str) -> Any:
    """Return the id with this text."""
    try:
        return auth._user_ids.decode(text)  # pyright: ignore[reportPrivateUsage]
    except ValueError:
        raise CommandError(f"{text!r} is not the id of a user") from None
