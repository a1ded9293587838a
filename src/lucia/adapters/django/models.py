"""The model of keys."""

from typing import Any

from django.conf import settings
from django.db.models import CASCADE, ForeignKey

from lucia.adapters.django.base_key import AbstractKey

__all__ = ["Key"]


class Key(AbstractKey):
    """A key of a user of ``AUTH_USER_MODEL``, in the table ``lucia_key``."""

    user: "ForeignKey[Any, Any]" = ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=CASCADE, related_name="lucia_keys"
    )
