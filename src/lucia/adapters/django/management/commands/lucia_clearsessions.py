"""``manage.py lucia_clearsessions``: delete expired sessions, as Django's ``clearsessions``."""

from typing import Any

from django.contrib.auth import get_user_model
from django.core.management.base import BaseCommand, CommandError

from lucia.middleware.django.conf import load_configuration

__all__ = ["Command"]


class Command(BaseCommand):
    """Deletes expired sessions from a store that does not do so by itself."""

    help = (
        "Can be run as a cronjob or directly to delete expired sessions from a store that does "
        "not expire them itself. Redis does."
    )

    def handle(self, *_: Any, **__: Any) -> None:
        """Run the command."""
        configuration = load_configuration()
        auth = configuration.auth
        sessions: Any = auth._sessions  # pyright: ignore[reportPrivateUsage]
        ids = auth._user_ids  # pyright: ignore[reportPrivateUsage]
        if sessions.expires_records:
            self.stdout.write("The session store expires sessions by itself.")
        elif hasattr(sessions, "delete_expired"):
            deleted = sessions.delete_expired()
            self.stdout.write(
                f"Deleted {deleted.sessions} sessions and {deleted.keys} single-use keys."
            )
        elif configuration.has_django_users:
            users: Any = get_user_model()
            for pk in users._base_manager.values_list("pk", flat=True).iterator():
                auth.delete_dead_user_sessions(ids.decode(str(pk)))
        else:
            raise CommandError(
                "the session store can't list expired sessions, and the users are not known to be "
                "those of AUTH_USER_MODEL"
            )
