"""Key names: in which namespaces they are, and what kind of index a user has.

======================================== ===============================================
key                                      value
======================================== ===============================================
``session:{session id}``                 string: the session's record, see ``records``
``userSession:{user id}``                list of the user's session ids, newest first;
                                         in the layout ``lucia-v2`` it is a set at
                                         ``user_sessions:{user id}``
``session:renewed:{session:{used id}}``  string: the marker of a renewal, for 60 seconds
``session:throttle:{32 hex digits}``     list of failed logins with a key or from an
                                         address, newest first
======================================== ===============================================

Between the write of a session by ``lucia copy`` and its entry in the state file there is also
``session:renewed:copied:{session:{session id}}``.

``session`` and ``userSession`` are the namespaces. The braces of the third name are literal: they
are a hash tag, so that a cluster keeps a marker in the slot of ``session:{used id}``.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, get_args

from lucia._redis.index import LEGACY_LIST, LEGACY_SET, LIST, SET, Index

__all__ = ["RESERVED", "Layout", "LayoutName"]

LayoutName = Literal["default", "lucia-v2"]
"""The layouts of Lucia's Redis adapters: of version 1.1.0, and of 2.x."""

_NAMESPACES: Final[dict[LayoutName, dict[str, str]]] = {
    "default": {"session": "session", "user_session": "userSession"},
    "lucia-v2": {"session": "session", "user_session": "user_sessions"},
}
_INDEXES: Final[dict[LayoutName, tuple[Index, Index]]] = {
    "default": (LIST, LEGACY_LIST),
    "lucia-v2": (SET, LEGACY_SET),
}
"""Without and with ``legacy_writers``."""

RESERVED: Final = ("renewed:", "throttle:")
"""No session id begins like this: the keys of markers and of failed logins do."""

_BRACES = re.compile(r"[^{}]*(?:\{[^{}]+\}[^{}]*)?")
"""Text without braces, or with one pair that is not empty: a cluster's hash tag."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Key names in two namespaces, and the kind of index that a user has.

    Raises:
        TypeError: a namespace is not a ``str``.
        ValueError: a namespace is empty or has braces that are no hash tag, or keys of one
            namespace could be taken for keys of the other.
    """

    session: str
    user_session: str
    index: Index = LIST

    def __post_init__(self) -> None:
        for name, namespace in (("session", self.session), ("user_session", self.user_session)):
            _check_namespace(name, namespace)
        one, other = f"{self.session}:", f"{self.user_session}:"
        if one.startswith(other) or other.startswith(one):
            raise ValueError(
                f"namespaces {self.session!r} and {self.user_session!r} collide: a key of one "
                "could be a key of the other; choose names of which neither is the other nor "
                "begins with the other and a colon"
            )

    @classmethod
    def from_namespaces(
        cls,
        namespaces: Mapping[str, str] | None,
        layout: LayoutName = "default",
        *,
        legacy_writers: bool = False,
    ) -> "Layout":
        """Return the layout of this name for an adapter's ``namespaces=``.

        Raises:
            TypeError: ``namespaces`` is not a mapping, or a namespace is not a ``str``.
            ValueError: there is no such layout, a name is neither ``session`` nor
                ``user_session``, or a namespace is refused by the class.
        """
        _check_mapping(namespaces)
        if layout not in _NAMESPACES:
            names = " or ".join(map(repr, get_args(LayoutName)))
            raise ValueError(f"unknown layout {layout!r}: expected {names}")
        defaults = _NAMESPACES[layout]
        chosen = {**defaults, **(namespaces or {})}
        if unknown := sorted(chosen.keys() - defaults.keys()):
            raise ValueError(
                f"unknown namespace {unknown[0]!r}: expected 'session' and 'user_session'"
            )
        index = _INDEXES[layout][bool(legacy_writers)]
        return cls(chosen["session"], chosen["user_session"], index)

    def session_key(self, session_id: str) -> str:
        """Return the key of the session's record."""
        return f"{self.session}:{session_id}"

    def index_key(self, user_id: str) -> str:
        """Return the key of the index of the user's session ids."""
        return f"{self.user_session}:{user_id}"

    def marker_key(self, session_id: str) -> str:
        """Return the key of the marker that names a used id's successor.

        It is in the slot of the session's key: its hash tag is that key, or that key's hash tag.
        """
        key = self.session_key(session_id)
        return self._markers + (key if _has_hash_tag(key) else f"{{{key}}}")

    def used_id(self, marker_key: str) -> str | None:
        """Return the used id that a marker's key names; None if it is no marker's key."""
        tag = marker_key.removeprefix(self._markers)
        tag = tag[1:-1] if tag.startswith("{") and tag.endswith("}") else tag
        used_id = tag.removeprefix(self.session_key(""))
        return used_id if self.marker_key(used_id) == marker_key else None

    def receipt_key(self, session_id: str) -> str:
        """Return the key that shows, until that is noted, that ``lucia copy`` wrote a session.

        It is in the slot of the session's key, as the marker's is.
        """
        return f"{self._receipts}{self.marker_key(session_id).removeprefix(self._markers)}"

    def receipt_id(self, key: str) -> str | None:
        """Return the session id that a receipt's key names; None if it is no receipt's key."""
        if not key.startswith(self._receipts):
            return None
        return self.used_id(self._markers + key.removeprefix(self._receipts))

    @property
    def _markers(self) -> str:
        return f"{self.session}:renewed:"

    @property
    def _receipts(self) -> str:
        return f"{self._markers}copied:"

    def is_one_slot(self, session_id: str) -> bool:
        """Return whether the keys of a session and of its marker are in one slot of a cluster.

        They are not if the session's key has braces that are no hash tag.
        """
        key = self.session_key(session_id)
        return _has_hash_tag(key) or "}" not in key

    def throttle_key(self, name: str) -> str:
        """Return the key of the failed logins that are counted under this name."""
        return f"{self.session}:throttle:{name}"

    def is_storable(self, session_id: str) -> bool:
        """Return whether a session's key can't be taken for one of the other keys."""
        return not session_id.startswith(RESERVED)


def _has_hash_tag(key: str) -> bool:
    """Return whether a cluster computes a key's slot from a hash tag.

    That is what is between the first opening brace and the next closing one, if it is not empty.
    """
    opening = key.find("{")
    return opening >= 0 and key.find("}", opening) > opening + 1


def _check_mapping(namespaces: object) -> None:
    if namespaces is not None and not isinstance(namespaces, Mapping):
        raise TypeError(
            f"namespaces must be a mapping, not {type(namespaces).__name__}: write, for the prefix "
            "app, namespaces={'session': 'app:session', 'user_session': 'app:userSession'}"
        )


def _check_namespace(name: str, namespace: object) -> None:
    if not isinstance(namespace, str):
        raise TypeError(f"namespace {name} must be a str, not {type(namespace).__name__}")
    if not namespace.strip():
        raise ValueError(f"namespace {name} is empty: keys would have no name of their own")
    if _BRACES.fullmatch(namespace) is None:
        raise ValueError(
            f"namespace {name} has braces that are no hash tag, so that a cluster would keep its "
            f"keys in different slots: {namespace!r}"
        )
