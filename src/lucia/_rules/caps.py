"""The cap on a user's sessions: which logins are the oldest, and which sessions to revoke."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Final, NamedTuple

from lucia._rules.sessions import session_state
from lucia.models import SessionRow, handle_of, login_time

MAX_SKEW_MS: Final = 60_000
"""How far, in milliseconds, the clocks of two machines may differ for logins to be in order."""

MAX_CAP: Final = 1_000
"""The largest cap on a user's sessions."""


def check_cap(limit: object) -> int | None:
    """Return the cap on a user's sessions, None for no cap, if it is valid.

    Raises:
        TypeError: it is not an ``int``.
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
    """Return the ids of the oldest logins' sessions: without them, ``limit`` logins are left.

    Logins are ordered by ``created_at``, which renewals keep, then by handle. For a row without
    ``created_at`` it is computed from the end of its active period and the length of that of
    ``session``. A time further than a minute in the future counts as one minute. Sessions with the
    same handle are one login. Dead sessions and those of other users are not counted.

    Args:
        rows: the user's sessions, in any order.
        session: the session of the new login; it may be among ``rows``.
        limit: how many logins may be left, at least 1.
        now: the time in milliseconds since the epoch.
        spare: whether the new login counts as the newest whatever its time is.
    """
    logins = _logins(rows, session, now)
    if spare:
        logins.pop(handle_of(session), None)
    ranked = sorted(logins, key=lambda handle: (logins[handle].time, handle))
    surplus = len(ranked) - (limit - 1 if spare else limit)
    return [id_ for handle in ranked[: max(0, surplus)] for id_ in logins[handle].ids]


def login_after(rows: Iterable[SessionRow], session: SessionRow, now: int) -> SessionRow:
    """Return the session of a new login with a ``created_at`` after that of all other logins.

    This is so also if another machine's clock is ahead; the time is at most a minute and a
    millisecond in the future. A session without ``created_at`` is returned as it is. Call
    :func:`surplus_sessions` with the original session: the length of the active period is computed
    from its times.
    """
    logins = _logins(rows, session, now)
    logins.pop(handle_of(session), None)
    latest = max((login.time for login in logins.values()), default=-1)
    if "created_at" not in session.attributes or login_time(session, 0) > latest:
        return session
    return replace(session, attributes={**session.attributes, "created_at": latest + 1})


class _Login(NamedTuple):
    """The time of a login, and its sessions: during a renewal there may be two."""

    time: int
    ids: list[str]


def _logins(rows: Iterable[SessionRow], session: SessionRow, now: int) -> dict[str, _Login]:
    """Return the user's live logins by their handles."""
    # The length of an active period: from the login to its end; without created_at, from now.
    active_ms = session.active_expires - login_time(session, session.active_expires - now)
    logins: dict[str, _Login] = {}
    for row in rows:
        if row.user_id == session.user_id and session_state(row, now) is not None:
            time = min(login_time(row, active_ms), now + MAX_SKEW_MS)
            first, ids = logins.get(handle_of(row), _Login(time, []))
            logins[handle_of(row)] = _Login(min(first, time), [*ids, row.id])
    return logins
