"""User ids: text in rows, and in the database whatever the user table's primary key holds.

`UserIdText` is the one place where one is made of the other.
"""

from typing import Any, Final
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    Column,
    Dialect,
    Integer,
    SmallInteger,
    String,
    TypeDecorator,
    Uuid,
    type_coerce,
)
from sqlalchemy.sql.elements import TypeCoerce
from sqlalchemy.types import TypeEngine

from lucia._rules.user_ids import UserIdType, user_id_type

__all__ = ["UserIdText", "column_as_text", "ids_of", "unwrapped"]

_UUID_TEXTS: Final = UserIdType(str, lambda text: str(UUID(text)))
"""The ids of ``Uuid(as_uuid=False)``: text of UUIDs, as databases write them."""

_BITS: Final[tuple[tuple[type[TypeEngine[Any]], int], ...]] = (
    (SmallInteger, 16),
    (BigInteger, 64),
    (Integer, 32),
)
"""The sizes of the integer types. The first that fits counts: the others extend `Integer`."""


class UserIdText(TypeDecorator[str]):
    """A column of user ids that takes and returns their text.

    Text that is no id of the column's type becomes NULL, which equals nothing. So it finds no user,
    where the database itself would raise an error.
    """

    impl: Any = String  # in place of which each object has the type of its column
    cache_ok = True

    def __init__(self, column_type: TypeEngine[Any], ids: UserIdType[Any]) -> None:
        super().__init__()
        self.impl = column_type
        self.column_type = column_type
        self.ids = ids

    def accepts(self, text: str) -> bool:
        """Return whether this is the text of an id that the column can hold."""
        return self._value_of(text, unwrapped(self.column_type), "") is not None

    def process_bind_param(self, value: str | None, dialect: Dialect) -> Any:
        return None if value is None else self._value_of(value, unwrapped(self), dialect.name)

    def process_result_value(self, value: Any, dialect: Dialect) -> str | None:
        return None if value is None else self.text_of(value)

    def text_of(self, value: object) -> str:
        """Return the text of an id from the database.

        Raises:
            TypeError: it is of another type than the column's type says.
        """
        if not isinstance(value, self.ids.python_type):
            found, expected = type(value).__name__, self.ids.python_type.__name__
            raise TypeError(
                f"a user's id in the database is of the type {found}, not {expected}: say "
                f"AuthTables(..., user_id={found})"
            )
        return self.ids.encode(value)

    def _value_of(self, text: str, column_type: TypeEngine[Any], dialect: str) -> Any:
        """Return the id with this text; None if there is none, or if it does not fit."""
        try:
            value = self.ids.decode(text)
        except ValueError:
            return None
        if isinstance(value, int) and not _fits(value, column_type, dialect):
            return None
        return value


def column_as_text(column: Column[Any], user_ids: UserIdText) -> TypeCoerce[str]:
    """Return a column of user ids as an expression that takes and returns their text."""
    return type_coerce(column, user_ids)


def ids_of(column: Column[Any], setting: type[Any] | UserIdType[Any] | None) -> UserIdType[Any]:
    """Return the type of the ids in a user table's primary key.

    Args:
        column: the primary key.
        setting: what the application says that it holds; None to look at the column's type.

    Raises:
        TypeError: that is unknown, or the column's type holds something else.
    """
    held = _held_type(column.type)
    if setting is None:
        if isinstance(column.type, Uuid) and held is str:
            return _UUID_TEXTS
        try:
            return user_id_type(held)
        except TypeError:
            name = "values of an unknown type" if held is object else held.__name__
            raise TypeError(
                f"the primary key of user table {column.table.name!r} holds {name}: say by "
                "AuthTables(..., user_id=...) what it holds, which is str, int, UUID or a "
                "UserIdType"
            ) from None
    ids = user_id_type(setting)
    # What a decorator returns may be something else than what its type says.
    is_sure = held is not object and not isinstance(column.type, TypeDecorator)
    if is_sure and not issubclass(held, ids.python_type):
        raise TypeError(
            f"the primary key of user table {column.table.name!r} holds {held.__name__}, not "
            f"{ids.python_type.__name__} as user_id says"
        )
    return ids


def _held_type(column_type: TypeEngine[Any]) -> type[Any]:
    """Return the class of a column's values; ``object`` if that is unknown."""
    try:
        held = column_type.python_type
    except NotImplementedError:  # SQLAlchemy 2.0, for a type that does not say what it holds
        held = object
    if held is not object or not isinstance(column_type, TypeDecorator):
        return held
    # A decorator that converts nothing, such as SQLModel's text, holds what the type below holds.
    converts = any(
        getattr(type(column_type), name) is not getattr(TypeDecorator, name)
        for name in ("process_bind_param", "process_result_value")
    )
    return object if converts else _held_type(column_type.impl_instance)


def unwrapped(column_type: TypeEngine[Any]) -> TypeEngine[Any]:
    """Return the type below all decorators."""
    while isinstance(column_type, TypeDecorator):
        column_type = column_type.impl_instance
    return column_type


def _fits(number: int, column_type: TypeEngine[Any], dialect: str) -> bool:
    """Return whether a column of integers has room for a number."""
    bits = next((bits for kind, bits in _BITS if isinstance(column_type, kind)), None)
    if bits is None:  # such as NUMERIC
        return True
    if dialect == "sqlite":  # where each INTEGER has 64 bits
        bits = 64
    size = 1 << bits
    lowest = 0 if getattr(column_type, "unsigned", False) else -size // 2
    return lowest <= number < lowest + size
