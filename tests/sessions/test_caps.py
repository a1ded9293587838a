"""The rule, the same for every store, of which logins end when a user has too many."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lucia import SessionRow, surplus_sessions
from lucia._rules.caps import MAX_CAP, MAX_SKEW_MS, check_cap, login_after

NOW = 1_000_000_000
ACTIVE = 1_000


def login(
    name: str,
    created_at: int | None,
    *,
    handle: str | None = None,
    user_id: str = "u",
    **columns: int,
) -> SessionRow:
    """Return a live session. Its handle is its name by default."""
    attributes: dict[str, Any] = {"handle": handle or name}
    if created_at is not None:
        attributes["created_at"] = created_at
    ends = {"active_expires": NOW + ACTIVE, "idle_expires": NOW + 2 * ACTIVE, **columns}
    return SessionRow(id=name, user_id=user_id, attributes=attributes, **ends)


NEW = login("new", NOW)


def surplus(
    *rows: SessionRow, limit: int = 2, new: SessionRow = NEW, spare: bool = True
) -> list[str]:
    """Return the ids of the sessions that end for the new login."""
    return surplus_sessions(rows, new, limit, NOW, spare=spare)


@pytest.mark.parametrize("limit", [1, 5, MAX_CAP, None])
def test_caps(limit: int | None) -> None:
    """A cap is a number from 1 to 1,000, or None."""
    assert check_cap(limit) == limit


@pytest.mark.parametrize(
    ("limit", "error", "message"),
    [
        (0, ValueError, "from 1 to 1,000, got 0; None is no cap"),
        (-1, ValueError, "got -1"),
        (1_001, ValueError, "got 1001"),
        (True, TypeError, "must be an int or None, not bool"),
        (5.0, TypeError, "not float"),
        ("5", TypeError, "not str"),
    ],
)
def test_no_caps(limit: object, error: type[Exception], message: str) -> None:
    """Any other cap is refused with an error that says what was expected."""
    with pytest.raises(error, match=message):
        check_cap(limit)


def test_the_oldest_are_surplus() -> None:
    """The oldest logins end, in whatever order the rows are; the new login counts."""
    rows = [login("b", 20), login("d", 40), login("a", 10), login("c", 30)]
    assert surplus(*rows, limit=5) == []
    assert surplus(*rows, limit=4) == ["a"]
    assert surplus(*rows, NEW, limit=3) == ["a", "b"]
    assert surplus(*rows, limit=1) == ["a", "b", "c", "d"]


def test_one_millisecond() -> None:
    """The handle, which a renewal keeps, decides between logins of the same millisecond."""
    rows = [login("1", 10, handle="b"), login("2", 10, handle="a")]
    assert surplus(*rows) == surplus(*rows[::-1]) == ["2"]
    assert surplus(rows[0], replace(rows[1], id="0")) == ["0"]


def test_dead_and_foreign_rows_are_not_counted() -> None:
    """Expired sessions and those of other users are neither counted nor revoked."""
    dead, last = (
        login("dead", 1, active_expires=1, idle_expires=NOW - 1),
        login("last", 2, idle_expires=NOW),
    )
    rows = [dead, last, login("foreign", 3, user_id="other"), login("a", 10)]
    assert surplus(*rows, limit=3) == []
    assert surplus(*rows) == ["last"]


def test_one_login_counts_once() -> None:
    """Two sessions of one handle are one login and end together, except the new login's."""
    rows = [
        login("a", 10),
        login("b", 5, handle="x"),
        login("b2", 5, handle="x"),
        login("new2", 1, handle="new"),
    ]
    assert surplus(*rows, limit=3) == []
    assert surplus(*rows) == ["b", "b2"]


def test_the_new_one() -> None:
    """The new login is spared even if its time is the oldest, unless `spare` is False."""
    rows, late = [login("a", 10), login("b", 20)], login("new", 5)
    assert surplus(*rows, late, new=late) == ["a"]
    assert surplus(*rows, late, new=late, spare=False) == ["new"]
    assert surplus(*rows, NEW, spare=False) == ["a"]


def test_records_made_elsewhere() -> None:
    """A record without time and handle gets both from its active end and its id."""
    bare = [
        SessionRow(id=name, user_id="u", active_expires=end, idle_expires=NOW)
        for name, end in (("x", 3_000), ("y", 2_000))
    ]
    assert surplus(*bare, login("a", 1_500)) == ["y", "a"]
    assert surplus(*bare, login("a", 1_500), limit=3) == ["y"]
    nameless = SessionRow(
        id="n", user_id="u", active_expires=NOW + ACTIVE, idle_expires=NOW + ACTIVE
    )
    assert surplus(*bare, login("a", 1_500), new=nameless) == ["y", "a"]


def test_times_in_the_future() -> None:
    """A login time in the future counts as at most a minute from now."""
    rows = [login("b", NOW + MAX_SKEW_MS), login("a", NOW + 10 * MAX_SKEW_MS), login("c", NOW + 1)]
    assert surplus(*rows, limit=3) == ["c"]
    assert surplus(*rows) == ["c", "a"]


def test_a_login_after_the_others() -> None:
    """A new login is moved after the user's others, at most a minute and 1 ms into the future."""
    assert login_after([], NEW, NOW) is NEW
    assert login_after([login("a", NOW - 1), login("b", NOW + 9, user_id="other")], NEW, NOW) is NEW
    for time, expected in (
        (NOW, NOW + 1),
        (NOW + 30_000, NOW + 30_001),
        (2 * NOW, NOW + MAX_SKEW_MS + 1),
    ):
        moved = login_after([login("a", time), login("b", 5)], NEW, NOW)
        assert moved == replace(NEW, attributes={"handle": "new", "created_at": expected})
        assert surplus(login("a", time), login("b", 5), moved, limit=1, spare=False) == ["b", "a"]
        assert login_after([login("a", time), moved], moved, NOW) is moved


def test_a_login_after_records_made_elsewhere() -> None:
    """A new login is also moved after records without a login time."""
    bare = SessionRow(
        id="x", user_id="u", active_expires=NOW + ACTIVE + 500, idle_expires=NOW + 2 * ACTIVE
    )
    moved = login_after([bare], NEW, NOW)
    assert moved.attributes["created_at"] == NOW + 501
    assert surplus(bare, moved, limit=1, spare=False) == ["x"]


def test_a_login_without_a_time() -> None:
    """A session without a login time gets none."""
    bare = login("new", None)
    assert login_after([login("a", 2 * NOW)], bare, NOW) is bare


names = st.sampled_from("abcdefgh")
rows = st.builds(login, names, st.integers(0, 5), handle=names)


@given(
    st.lists(rows, unique_by=lambda row: row.id),
    st.integers(1, 5),
    st.randoms(use_true_random=False),
)
def test_logins_at_once_agree(found: list[SessionRow], limit: int, random: Any) -> None:
    """Concurrent logins that see all sessions agree on which ones end, in any order."""
    ended = {
        frozenset(surplus(*random.sample(found, len(found)), new=new, limit=limit, spare=False))
        for new in (*found, NEW)
    }
    assert len(ended) == 1
    left = {row.attributes["handle"] for row in found if row.id not in next(iter(ended))}
    assert len(left) == min(limit, len({row.attributes["handle"] for row in found}))
