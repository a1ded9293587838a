"""The users that ``login`` takes: an id, or an object that has one."""

from typing import Any, Protocol, TypeVar

__all__ = ["DjangoModel", "HasUserId", "user_id_of"]

UserIdT_co = TypeVar("UserIdT_co", covariant=True)


class HasUserId(Protocol[UserIdT_co]):
    """An object with the id of a user, such as ``lucia.User``."""

    @property
    def user_id(self) -> UserIdT_co:
        """The id."""
        ...


class DjangoModel(Protocol):
    """An instance of a model of Django, such as its ``User``."""

    @property
    def pk(self) -> Any:
        """Its primary key, whose type Django does not tell."""
        ...


def user_id_of(user: Any) -> Any:
    """Return the id of a user; what is not such an object is an id itself."""
    if hasattr(user, "user_id"):
        return user.user_id
    return getattr(user, "pk", user)
