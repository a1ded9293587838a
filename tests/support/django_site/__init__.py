"""A Django project for the tests, with one database of each kind.

Importing it sets up Django in this process: settings are global.
"""

import sys
from importlib import import_module

import django
from django.conf import settings

__all__ = ["ALIASES"]

ALIASES = ("sqlite", "postgresql", "mariadb")
"""The names of the databases. Where they are, the fixtures say."""

# Django's backend imports mysqlclient, which has to be compiled. PyMySQL stands in for it.
sys.modules["MySQLdb"] = import_module("pymysql")

_ENGINES = {"sqlite": "sqlite3", "postgresql": "postgresql", "mariadb": "mysql"}

settings.configure(
    SECRET_KEY="of nobody",
    DATABASES={
        "default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"},
        **{
            alias: {"ENGINE": f"django.db.backends.{engine}", "HOST": "127.0.0.1"}
            for alias, engine in _ENGINES.items()
        },
    },
    INSTALLED_APPS=[
        "django.contrib.admin",
        "django.contrib.auth",
        "django.contrib.contenttypes",
        "django.contrib.messages",
        "lucia.adapters.django",
        "tests.support.django_site",
    ],
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    USE_TZ=True,
    LOGGING_CONFIG=None,
)
django.setup()
