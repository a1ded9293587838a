"""The models that a Django adapter works with, and the rows that are made of their values."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final
from uuid import UUID

from django.apps import apps
from django.core.exceptions import ImproperlyConfigured, ValidationError
from django.db import connections
from django.db.models import (
    AutoField,
    BinaryField,
    CharField,
    Field,
    ForeignKey,
    Func,
    IntegerField,
    Model,
    QuerySet,
    TextField,
    UUIDField,
    Value,
)
from django.db.models.lookups import Exact

from lucia._rules.user_ids import UserIdType, user_id_type
from lucia.errors import AutoUserIdGenerationNotSupported
from lucia.models import KeyRow, UserRow

__all__ = ["KEY_COLUMNS", "AuthModels", "exactly", "key_row"]

KEY_COLUMNS: Final = ("id", "user_id", "hashed_password", "primary_key", "expires")


class AuthModels:
    """A model of keys, and the model of users that its ``user`` refers to.

    Args:
        key_model: the model, or its label.

    Raises:
        ImproperlyConfigured: these are no such models.
    """

    def __init__(self, key_model: type[Model] | str) -> None:
        self.key: Final[Any] = _find(key_model)
        self.user: Final[Any] = _user_model(self.key)
        # Django's own password: a hash, which nobody needs to see, and which Django's own login
        # would accept.
        self.has_django_password: Final = hasattr(self.user, "set_unusable_password")
        self.attributes: Final[tuple[str, ...]] = tuple(
            field.attname
            for field in self.user._meta.concrete_fields
            if not field.primary_key and not (self.has_django_password and field.name == "password")
        )
        if "id" in self.attributes:
            raise ImproperlyConfigured(
                f"{self.user._meta.label} has a field 'id' that is not its primary key: Lucia "
                "calls the primary key id"
            )

    def user_id_type(self) -> UserIdType[Any] | None:
        """Return the type of the users' primary key; None if that is another field than usual."""
        field = _referenced(self.user._meta.pk)
        kinds = ((IntegerField, int), (UUIDField, UUID), ((CharField, TextField), str))
        kind = next((kind for fields, kind in kinds if isinstance(field, fields)), None)
        # The database assigns the ids, and not `generate`.
        return None if kind is None else replace(user_id_type(kind), generate=None)

    def check_attributes(self, attributes: Mapping[str, Any]) -> None:
        """Refuse attributes that are no fields.

        Raises:
            ValueError: an attribute has no field, is the user's id or Django's own password.
        """
        if unknown := sorted(attributes.keys() - set(self.attributes)):
            known = ", ".join(sorted(self.attributes)) or "none"
            raise ValueError(
                f"{self.user._meta.label} has no attribute {', '.join(unknown)}; its attributes "
                f"are: {known}"
            )

    def user_pk(self, user_id: str, using: str) -> Any:
        """Return the value of the users' primary key with this text; None if there is none.

        Of several texts that can be read as one value, such as ``7`` and ``007``, one is its text.
        """
        field = self.user._meta.pk
        try:
            value = field.to_python(user_id)
        except ValidationError:
            return None
        if str(value) != user_id:
            return None
        column = _referenced(field)
        if isinstance(column, IntegerField):
            low, high = connections[using].ops.integer_field_range(column.get_internal_type())
            return value if low <= value <= high else None
        return value

    def new_user_pk(self, user_id: str, using: str) -> Any:
        """Return the value of the primary key for a new user.

        Raises:
            AutoUserIdGenerationNotSupported: the column can't hold this id.
        """
        value = self.user_pk(user_id, using)
        if value is None:
            raise AutoUserIdGenerationNotSupported(
                f"{self.user._meta.label} can't have this id: its primary key is "
                f"{_with_article(_referenced(self.user._meta.pk))}; say so to Auth, with user_id= "
                "or generate_custom_user_id="
            )
        return value

    def check_assigned_ids(self) -> None:
        """Refuse users whose ids nobody assigns.

        Raises:
            ImproperlyConfigured: the primary key has no default.
        """
        field = _referenced(self.user._meta.pk)
        if not (isinstance(field, AutoField) or field.has_default() or field.has_db_default()):
            raise ImproperlyConfigured(
                f"{self.user._meta.label} assigns no ids: its primary key is "
                f"{_with_article(field)} without a default; give it one, or Auth a "
                "generate_custom_user_id="
            )

    def pk_values(self, pk: Any) -> dict[str, Any]:
        """Return the values of a new user's primary key, in each table that the model inherits."""
        fields = self.user._meta.concrete_fields
        return {field.attname: pk for field in fields if field.primary_key}

    def user_row(self, values: Sequence[Any]) -> UserRow:
        """Return the user with this primary key and these attributes."""
        return UserRow(
            id=str(values[0]), attributes=dict(zip(self.attributes, values[1:], strict=True))
        )


def key_row(values: Sequence[Any]) -> KeyRow:
    """Return the key with these values of :data:`KEY_COLUMNS`."""
    key_id, user_id, hashed_password, primary_key, expires = values
    return KeyRow(
        id=key_id,
        user_id=str(user_id),
        hashed_password=hashed_password,
        primary_key=primary_key,
        expires=expires,
    )


def exactly(rows: "QuerySet[Any]", column: str, value: Any) -> "QuerySet[Any]":
    """Return the rows whose column holds exactly this value, by any collation.

    On MySQL and MariaDB a column of text may ignore case, accents and trailing spaces: the
    comparison by its collation can use an index, and that of the bytes is added.
    """
    rows = rows.filter(**{column: value})
    if isinstance(value, str) and connections[rows.db].vendor == "mysql":
        rows = rows.filter(Exact(_bytes(column), _bytes(Value(value))))
    return rows


def _bytes(expression: Any) -> Func:
    # First to one character set: the column's may differ from the connection's, and then the same
    # text has other bytes.
    template = "CAST(CONVERT(%(expressions)s USING utf8mb4) AS BINARY)"
    output_field: BinaryField[Any, Any] = BinaryField()
    return Func(expression, template=template, output_field=output_field)


def _find(key_model: type[Model] | str) -> type[Model]:
    if not isinstance(key_model, str):
        return key_model
    try:
        return apps.get_model(key_model)
    except LookupError:
        raise ImproperlyConfigured(
            f"no installed app has the model of keys {key_model!r}: put 'lucia.adapters.django' "
            "into INSTALLED_APPS, or pass key_model="
        ) from None


def _user_model(key_model: Any) -> Any:
    field = next((field for field in key_model._meta.concrete_fields if field.name == "user"), None)
    if not isinstance(field, ForeignKey) or not field.target_field.primary_key:
        raise ImproperlyConfigured(
            f"{key_model._meta.label} needs a field user, a ForeignKey to the primary key of the "
            "model of users"
        )
    return field.related_model


def _referenced(field: Any) -> "Field[Any, Any]":
    """Return the field that says what a column holds: of a foreign key, the one it refers to."""
    while field.remote_field is not None:
        field = field.target_field
    found: Field[Any, Any] = field
    return found


def _with_article(field: object) -> str:
    name = type(field).__name__
    return f"{'an' if name[:1].lower() in 'aeio' else 'a'} {name}"
