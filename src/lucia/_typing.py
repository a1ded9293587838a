"""The type variables of the public classes, and their defaults.

A class that names no type of user ids has text: ``Auth[Member]`` is ``Auth[Member, str]``.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

__all__ = [
    "AttributesT",
    "GivenAttributesT",
    "GivenUserIdT",
    "GivenUserT",
    "UserIdT",
    "UserT",
    "UserT_co",
    "with_defaults",
]

UserT = TypeVar("UserT")
UserT_co = TypeVar("UserT_co", covariant=True)
GivenUserT = TypeVar("GivenUserT")
"""A type that a constructor is given; its ``self`` can't have the class's own variables."""
ClassT = TypeVar("ClassT")

if TYPE_CHECKING:
    # Type checkers know this package without its being installed.
    from typing_extensions import TypeVar as TypeVarWithDefault

    UserIdT = TypeVarWithDefault("UserIdT", default=str)
    AttributesT = TypeVarWithDefault("AttributesT", default=Mapping[str, Any])
    GivenUserIdT = TypeVarWithDefault("GivenUserIdT", default=str)
    GivenAttributesT = TypeVarWithDefault("GivenAttributesT", default=Mapping[str, Any])
else:
    UserIdT = TypeVar("UserIdT")
    AttributesT = TypeVar("AttributesT")
    GivenUserIdT = TypeVar("GivenUserIdT")
    GivenAttributesT = TypeVar("GivenAttributesT")

_DEFAULTS: Final[Mapping[Any, Any]] = {UserIdT: str, AttributesT: Mapping[str, Any]}


def with_defaults(generic: type[ClassT]) -> type[ClassT]:
    """Let the last type arguments of a generic class be left out, where they have a default.

    Python's own defaults of type variables need 3.13.
    """

    def subscript(cls: Any, arguments: Any) -> Any:
        given: list[Any] = [*arguments] if isinstance(arguments, tuple) else [arguments]
        left = cls.__parameters__[len(given) :]
        filled = (*given, *(_DEFAULTS[each] for each in left if each in _DEFAULTS))
        # Bound to the class by hand: what a NamedTuple inherits is the tuple's.
        return vars(Generic)["__class_getitem__"].__get__(None, cls)(filled)

    setattr(generic, "__class_getitem__", classmethod(subscript))  # noqa: B010
    return generic
