"""Session rows to store, and sessions with the members that a test wants."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from lucia import Session
from lucia._rules.sessions import system_clock
from lucia.models import SessionRow

__all__ = ["HOUR", "SESSION_MEMBERS", "as_read", "changed", "row", "session"]

HOUR: Final = 3_600_000
"""In milliseconds."""

SESSION_MEMBERS = (
    "user_id",
    "active_period_expires_at",
    "idle_period_expires_at",
    "state",
    "fresh",
    "handle",
    "created_at",
    "metadata",
)
"""The members of a session that are shown, in the order in which they are."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def row(session_id: str, user_id: str = "u1", *, life: int = HOUR, **attributes: Any) -> SessionRow:
    """Return a session that expires ``life`` milliseconds from now."""
    end = system_clock() + life
    return SessionRow(
        id=session_id,
        user_id=user_id,
        active_expires=end - life // 2,
        idle_expires=end,
        attributes=attributes,
    )


@dataclass(frozen=True)
class _Record:
    """A stored session, also with ids that no store would keep."""

    id: str
    user_id: str
    active_expires: int
    idle_expires: int
    attributes: Mapping[str, Any]


def session(**members: Any) -> Session:
    """Return a session of which all members are given."""
    record = _Record(
        id=members.pop("session_id"),
        user_id=members.pop("user_id"),
        active_expires=_milliseconds(members.pop("active_period_expires_at")),
        idle_expires=_milliseconds(members.pop("idle_period_expires_at")),
        attributes={
            "created_at": _milliseconds(members.pop("created_at")),
            "handle": members.pop("handle"),
            "noted": members.pop("metadata"),
        },
    )
    return Session(record, members.pop("state"), active_ms=0, **members)


def changed(original: Session, **members: Any) -> Session:
    """Return a session that differs from another one in these members."""
    names = ("session_id", *SESSION_MEMBERS)
    return session(**{name: getattr(original, name) for name in names} | members)


def as_read(session: Session, **members: Any) -> Session:
    """Return the session of a login or a renewal as a later read returns it: not fresh."""
    return changed(session, fresh=False, **members)


def _milliseconds(time: datetime) -> int:
    return (time - _EPOCH) // timedelta(milliseconds=1)
