"""Users and keys in a database, by Django's ORM, for sessions that are stored elsewhere.

This package is also a Django app with the model of keys: put ``"lucia.adapters.django"`` into
``INSTALLED_APPS``. Its label is ``lucia``.
"""

try:
    from lucia._django.adapters import AsyncDjangoUserAdapter, DjangoUserAdapter
except ImportError as error:
    if (error.name or "").partition(".")[0] not in {"django", "asgiref"}:
        raise
    raise ImportError(
        'the Django adapters need Django 5.2 or newer: pip install "lucia-auth[django]"'
    ) from error

__all__ = ["AsyncDjangoUserAdapter", "DjangoUserAdapter"]
