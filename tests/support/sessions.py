"""Session rows to store, and sessions as a later read returns them."""

from dataclasses import replace
from typing import Any, Final

from lucia import Session
from lucia._rules.sessions import system_clock
from lucia.models import SessionRow

__all__ = ["HOUR", "as_read", "row"]

HOUR: Final = 3_600_000
"""In milliseconds."""


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


def as_read(session: Session, **members: Any) -> Session:
    """Return the session of a login or a renewal as a later read returns it: not fresh."""
    return replace(session, session_id=session.session_id, fresh=False, **members)
