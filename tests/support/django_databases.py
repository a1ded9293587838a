"""The databases of the Django project of the tests: a pytest plugin."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from tests.support.sql_servers import SqlServer

__all__ = ["django_database", "django_mariadb", "django_postgresql", "django_sqlite"]

_ADMINS: Final = {"mariadb": "root", "postgresql": "postgres"}


def _migrate(alias: str, **settings: Any) -> None:
    # Not at the top: importing it sets up Django, which few test processes need.
    from django.core.management import call_command
    from django.db import connections

    import tests.support.django_site  # noqa: F401

    connections.settings[alias].update(settings)
    call_command("migrate", database=alias, run_syncdb=True, verbosity=0)
    connections[alias].close()


def _on_server(server: SqlServer) -> Iterator[None]:
    with server.database() as name:
        _migrate(server.kind, NAME=name, PORT=str(server.port), USER=_ADMINS[server.kind])
        yield


def _emptied(alias: str) -> Iterator[str]:
    """Yield the name of a database, then empty it and close every thread's connection."""
    from django.apps import apps
    from django.db import connections, transaction
    from django.db.backends.signals import connection_created

    opened: list[Any] = []

    def remember(connection: Any, **_: Any) -> None:
        connection.inc_thread_sharing()
        opened.append(connection)

    connection_created.connect(remember)
    try:
        yield alias
        with connections[alias].constraint_checks_disabled(), transaction.atomic(alias):
            for label in ("lucia", "auth", "django_site"):
                for model in apps.get_app_config(label).get_models():
                    rows: Any = model._base_manager.using(alias)
                    rows.all()._raw_delete(alias)
    finally:
        connection_created.disconnect(remember)
        for connection in opened:
            connection.close()


@pytest.fixture(scope="session")
def _sqlite_site(tmp_path_factory: pytest.TempPathFactory) -> None:
    file: Path = tmp_path_factory.mktemp("django") / "site.db"
    options = {"timeout": 30, "init_command": "PRAGMA synchronous=OFF"}
    _migrate("sqlite", NAME=str(file), OPTIONS=options)


@pytest.fixture(scope="session")
def _postgresql_site(postgresql: SqlServer) -> Iterator[None]:
    yield from _on_server(postgresql)


@pytest.fixture(scope="session")
def _mariadb_site(mariadb: SqlServer) -> Iterator[None]:
    yield from _on_server(mariadb)


@pytest.fixture
def django_sqlite(_sqlite_site: None) -> Iterator[str]:
    """Yield the name of an empty SQLite database."""
    yield from _emptied("sqlite")


@pytest.fixture
def django_postgresql(_postgresql_site: None) -> Iterator[str]:
    """Yield the name of an empty database of PostgreSQL."""
    yield from _emptied("postgresql")


@pytest.fixture
def django_mariadb(_mariadb_site: None) -> Iterator[str]:
    """Yield the name of an empty database of MariaDB."""
    yield from _emptied("mariadb")


@pytest.fixture(params=["sqlite", "postgresql", "mariadb"])
def django_database(request: pytest.FixtureRequest) -> str:
    """Return the name of an empty database of each kind in turn."""
    alias: str = request.getfixturevalue(f"django_{request.param}")
    return alias
