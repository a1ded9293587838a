"""The model field for ids and password hashes."""

from typing import TYPE_CHECKING, Any

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import CharField

__all__ = ["ExactCharField"]


if TYPE_CHECKING:
    _CharField = CharField[Any, Any]  # only the stubs' class is generic
else:
    _CharField = CharField


class ExactCharField(_CharField):
    """A ``CharField`` whose column distinguishes every byte and pads nothing.

    MySQL and MariaDB ignore case, accents and trailing spaces by default, so there the column gets
    a collation of its own. ``db_collation=`` can't say that: one migration serves every database,
    and the two know different collations. Other databases compare like this by default.
    """

    def db_parameters(self, connection: BaseDatabaseWrapper) -> Any:
        """Return the column's type and collation for this connection's database."""
        parameters: dict[str, Any] = {**super().db_parameters(connection)}
        if connection.vendor == "mysql":
            is_mariadb: bool = getattr(connection, "mysql_is_mariadb")  # noqa: B009 -- not in the base class
            parameters["collation"] = "utf8mb4_nopad_bin" if is_mariadb else "utf8mb4_0900_bin"
        return parameters
