"""The configuration of the Django app."""

from django.apps import AppConfig

__all__ = ["LuciaConfig"]


class LuciaConfig(AppConfig):
    """The app ``lucia``, with the model of keys."""

    name = "lucia.adapters.django"
    label = "lucia"
    verbose_name = "Lucia"
