"""The configuration of the Django app."""

from django.apps import AppConfig
from django.core.checks import register

from lucia.middleware.django.conf import check_setting

__all__ = ["LuciaConfig"]


class LuciaConfig(AppConfig):
    """The app ``lucia``, with the model of keys, the commands and the check of the setting."""

    name = "lucia.adapters.django"
    label = "lucia"
    verbose_name = "Lucia"

    def ready(self) -> None:
        """Register the system check."""
        register(check_setting, "lucia")
