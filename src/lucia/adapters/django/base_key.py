"""The base of key models.

It can be imported without ``"lucia.adapters.django"`` in ``INSTALLED_APPS``, by an application with
a key model of its own.
"""

from django.db.models import BigIntegerField, BooleanField, Model

from lucia.adapters.django.fields import ExactCharField
from lucia.models import MAX_ID_LENGTH

__all__ = ["AbstractKey"]


class AbstractKey(Model):
    """A key that a user logs in with. A model of keys adds ``user``, a ``ForeignKey`` to the users.

    The ``id`` of a single-use key may be the secret itself, so ``str()`` and ``repr()`` show only
    the provider.
    """

    id = ExactCharField(primary_key=True, max_length=MAX_ID_LENGTH)
    hashed_password = ExactCharField(max_length=MAX_ID_LENGTH, null=True, blank=True)
    primary_key: "BooleanField[bool, bool]" = BooleanField()
    expires: "BigIntegerField[int | None, int | None]" = BigIntegerField(null=True, blank=True)
    """Milliseconds since the epoch, for a single-use key."""

    class Meta:
        abstract = True

    def __str__(self) -> str:
        key_id: str = self.pk
        return f"{key_id.partition(':')[0]} key"
