"""Session rows to store, and sessions with given members."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from lucia import Session
from lucia._rules.sessions import system_clock
from lucia.models import SessionRow

__all__ = ["HOUR", "SESSION_MEMBERS", "as_read", "changed", "row", "session"]

HOUR: Final = 3_600_000
"""An hour in milliseconds."""

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
"""The members of a session in its repr, in order."""

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
    """A stored session, which may have an id that no store would accept."""

    id: str
    user_id: str
    active_expires: int
    idle_expires: int
    attributes: Mapping[str, Any]


def session(**members: Any) -> Session:
    """Return a session with these members. All are required."""
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
    """Return a copy of a session with these members changed."""
    names = ("session_id", *SESSION_MEMBERS)
    return session(**{name: getattr(original, name) for name in names} | members)


def as_read(session: Session, **members: Any) -> Session:
    """Return the session of a login or a renewal as a later read returns it: not fresh."""
    return changed(session, fresh=False, **members)


def _milliseconds(time: datetime) -> int:
    return (time - _EPOCH) // timedelta(milliseconds=1)
