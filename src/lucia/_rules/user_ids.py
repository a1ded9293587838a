"""User ids: the application's own type outside, text inside.

``Auth`` takes and returns ids of the application's type. Rows, the session stores and the log have
text. This is the one place where one is made of the other.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Generic
from uuid import UUID, uuid4

from lucia._rules.sessions import generate_random_string
from lucia._typing import UserIdT
from lucia.errors import InvalidUserId
from lucia.models import check_user_id

__all__ = ["TEXT_IDS", "UserIdType", "check_stored_ids", "user_id_type"]

_TEXT_LENGTH: Final = 15
"""How many characters the id of a new user has."""


@dataclass(frozen=True, slots=True)
class UserIdType(Generic[UserIdT]):
    """The type of an application's user ids, and its text.

    ``str``, ``int`` and ``uuid.UUID`` need no such object: ``Auth(user_id=UUID)``. For another
    type, such as a ULID's, say how it is written and read:
    ``UserIdType(ULID, from_text=ULID.from_str)``.

    Args:
        python_type: the class of the ids.
        from_text: returns the id with this text; raises ``ValueError`` if it is the text of none.
        to_text: returns the text of an id; by default ``str``.
        generate: creates the id of a new user; None if the database assigns it.
    """

    python_type: type[UserIdT]
    from_text: Callable[[str], UserIdT]
    to_text: Callable[[UserIdT], str] = str
    generate: Callable[[], UserIdT] | None = None

    def encode(self, user_id: object) -> str:
        """Return the text of an id.

        Raises:
            TypeError: it is of another type.
            ValueError: its text can't be a user's id, see ``UserRow``.
        """
        # A bool is an int, and True would be the user 1.
        if not isinstance(user_id, self.python_type) or isinstance(user_id, bool):
            raise TypeError(
                f"user_id must be {_with_article(self.python_type.__name__)}, "
                f"not {type(user_id).__name__}"
            )
        return check_user_id(self.to_text(user_id))

    def encode_sought(self, user_id: object) -> str:
        """Return the text of the id of a user to look up.

        Raises:
            TypeError: it is of another type.
            InvalidUserId: no user can have it.
        """
        try:
            return self.encode(user_id)
        except ValueError:
            raise InvalidUserId from None

    def decode(self, text: str) -> UserIdT:
        """Return the id with this text.

        Raises:
            TypeError: it is no text.
            ValueError: no id has this text. Of several texts that can be read as one id, such as
                ``7`` and ``007``, one is its text.
        """
        user_id = self.from_text(check_user_id(text))
        if self.to_text(user_id) != text:
            raise ValueError(f"not the text of {_with_article(self.python_type.__name__)}")
        return user_id


def _random_text() -> str:
    return generate_random_string(_TEXT_LENGTH)


# Not str(): a subclass, such as an Enum of texts, may write itself in another way.
TEXT_IDS: Final = UserIdType(str, str, to_text=str.__str__, generate=_random_text)
"""User ids that are text already."""


def _uuid_text(user_id: UUID) -> str:
    return str(UUID(int=user_id.int))


_KNOWN: Final[dict[type[Any], UserIdType[Any]]] = {
    str: TEXT_IDS,
    int: UserIdType(int, int, to_text=int.__repr__),
    UUID: UserIdType(UUID, UUID, to_text=_uuid_text, generate=uuid4),
}


def user_id_type(setting: type[UserIdT] | UserIdType[UserIdT]) -> UserIdType[UserIdT]:
    """Return the type of user ids that a setting stands for: itself, or for ``UUID`` that of UUIDs.

    Raises:
        TypeError: it is neither a ``UserIdType`` nor one of ``str``, ``int`` and ``UUID``.
    """
    if isinstance(setting, UserIdType):
        return setting
    known = _KNOWN.get(setting)
    if known is None:
        name = getattr(setting, "__name__", repr(setting))
        raise TypeError(
            f"user_id must be str, int, UUID or a UserIdType, not {name}: write "
            f"UserIdType({name}, from_text=...)"
        )
    return known


def check_stored_ids(
    users: object, ids: UserIdType[Any], generate: Callable[[], Any] | None
) -> None:
    """Refuse a user adapter that can't store the ids of ``Auth``, or creates others.

    Adapters may have the attribute ``user_id_type``: the ``UserIdType`` of their ids, with
    ``generate`` if ``add_user`` creates ids by itself. Only what can be seen before there are users
    is refused: text can hold ids of each type, and an application's own functions are not called.

    Args:
        users: the adapter.
        ids: the type of the ids of ``Auth``.
        generate: how ``Auth`` creates ids; None if the adapter assigns them.

    Raises:
        TypeError: the ids do not fit.
    """
    stored: UserIdType[Any] | None = getattr(users, "user_id_type", None)
    if stored is None or stored.python_type is ids.python_type:
        return
    sample = _sample(ids, generate)
    fits = sample is None or _is_readable(sample, stored)
    if fits and generate is None and stored.generate is not None:
        fits = _is_readable(stored.encode(stored.generate()), ids)
    if not fits:
        name, own = stored.python_type.__name__, ids.python_type.__name__
        advice = f"user_id={name}" if stored.python_type in _KNOWN else f"a UserIdType of {name}"
        raise TypeError(
            f"{type(users).__name__} has user ids of the type {name}, and Auth's user_id is {own}: "
            f"give Auth {advice}, or the adapter ids of the type {own}"
        )


def _sample(ids: UserIdType[Any], generate: Callable[[], Any] | None) -> str | None:
    """Return the text of an id such as ``Auth`` has; None if that is the application's affair."""
    if ids is _KNOWN[int]:
        return "1"
    if ids is _KNOWN[UUID]:
        return str(uuid4())
    return _random_text() if generate is TEXT_IDS.generate else None


def _is_readable(text: str, ids: UserIdType[Any]) -> bool:
    try:
        ids.decode(text)
    except ValueError:
        return False
    return True


def _with_article(name: str) -> str:
    return f"{'an' if name[:1].lower() in 'aeio' else 'a'} {name}"
