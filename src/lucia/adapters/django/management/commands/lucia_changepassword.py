"""``manage.py lucia_changepassword``: set a user's password, as Django's ``changepassword``."""

from getpass import getpass
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from lucia._rules.accounts import normalize_name
from lucia.errors import InvalidInput, InvalidKeyId
from lucia.middleware.django.accounts import check_password
from lucia.middleware.django.conf import load_configuration

__all__ = ["Command"]


class Command(BaseCommand):
    """Sets the password of a key, and logs its user out everywhere."""

    help = "Set the password that a user logs in with, and log the user out everywhere."

    def add_arguments(self, parser: CommandParser) -> None:
        """Add the arguments of the command."""
        parser.add_argument("name", help="The name that the user logs in with.")
        parser.add_argument(
            "--provider", help="The provider of the key; by default that of the ready routes."
        )

    def handle(self, *_: Any, **options: Any) -> None:
        """Run the command."""
        configuration = load_configuration()
        routes = configuration.routes
        provider = options["provider"] or routes.get("provider_id", "username")
        name = routes.get("normalize", normalize_name)(options["name"])
        try:
            key = configuration.auth.get_key(provider, name)
        except InvalidKeyId:
            raise CommandError(f"nobody logs in as {name!r} with {provider!r}") from None
        password = getpass("Password: ")
        if password != getpass("Password (again): "):
            raise CommandError("the passwords do not match")
        try:
            check_password(password, key.user_id, configuration.has_django_users)
            configuration.auth.update_key_password(provider, name, password)
        except InvalidInput as error:
            raise CommandError(str(error)) from None
        self.stdout.write(f"Changed the password of {name!r}, who is logged out everywhere.")
