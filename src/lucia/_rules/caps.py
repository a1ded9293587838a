"""What a cap on a user's sessions decides: which logins are the oldest, and which sessions have to end."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Final, NamedTuple

from lucia._rules.sessions import session_state
from lucia.models import SessionRow, handle_of, login_time

MAX_SKEW_MS: Final = 60_000
"""By how many milliseconds the clocks of two machines may differ where their logins are put in order."""

MAX_CAP: Final = 1_000
"""The largest cap on a user's sessions."""


def check_cap(limit: object) -> int | None:
    """Return a cap on a user's sessions, None for no cap.

    Raises:
        TypeError: it is no ``int``.
        ValueError: it is less than 1 or more than 1,000.
    """
    if limit is None:
        return None
    if not isinstance(limit, int) or isinstance(limit, bool):
        raise TypeError(f"max_sessions_per_user must be an int or None, not {type(limit).__name__}")
    if not 1 <= limit <= MAX_CAP:
        raise ValueError(
            f"max_sessions_per_user must be from 1 to {MAX_CAP:,}, got {limit}; None is no cap"
        )
    return limit


def surplus_sessions(
    rows: Iterable[SessionRow], session: SessionRow, limit: int, now: int, *, spare: bool = True
) -> list[str]:
    """The ids of a user's sessions that have to end, so that ``limit`` logins are left: those of the oldest logins.

    The order is that of the logins: by ``created_at``, which a renewal carries over, and by handle among those of one millisecond. For a
    row without ``created_at`` it is its active end less the active period of ``session``. A time that is over a minute in the future
    counts as one minute. Sessions of one handle are one login; dead ones, and other users', are not counted.

    Args:
        rows: the user's sessions, in any order.
        session: the session of the new login, whether it is among ``rows`` or not.
        limit: how many logins may be left, at least 1.
        now: the time in milliseconds since the epoch.
        spare: whether the new login counts as the newest, whatever its time is.
    """
    places = _places(rows, session, now)
    if spare:
        places.pop(handle_of(session), None)
    ranked = sorted(places, key=lambda handle: (places[handle].time, handle))
    surplus = len(ranked) - (limit - 1 if spare else limit)
    return [id_ for handle in ranked[: max(0, surplus)] for id_ in places[handle].ids]


def login_after(rows: Iterable[SessionRow], session: SessionRow, now: int) -> SessionRow:
    """The session of a new login, with a ``created_at`` after those of all other logins, also if another machine's clock is ahead.

    That is at most a minute and a millisecond in the future. A session without ``created_at`` stays as it is. What is surplus then is
    asked by the session as it was: its time and its active end together tell the active period.
    """
    places = _places(rows, session, now)
    places.pop(handle_of(session), None)
    latest = max((place.time for place in places.values()), default=-1)
    if "created_at" not in session.attributes or login_time(session, 0) > latest:
        return session
    return replace(session, attributes={**session.attributes, "created_at": latest + 1})


class _Place(NamedTuple):
    """When a login happened, and its sessions: during a renewal there may be two."""

    time: int
    ids: list[str]


def _places(rows: Iterable[SessionRow], session: SessionRow, now: int) -> dict[str, _Place]:
    """The user's live logins by their handles."""
    active_ms = session.active_expires - login_time(session, session.active_expires - now)
    places: dict[str, _Place] = {}
    for row in rows:
        if row.user_id == session.user_id and session_state(row, now) is not None:
            time = min(login_time(row, active_ms), now + MAX_SKEW_MS)
            first, ids = places.get(handle_of(row), _Place(time, []))
            places[handle_of(row)] = _Place(min(first, time), [*ids, row.id])
    return places
