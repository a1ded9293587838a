"""The benchmark's ratios, verdicts, stored results and written documents."""

import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench import results
from bench.documents import BEGIN, END, write_into
from bench.machine import check_open_files
from bench.report import goals, markdown
from bench.rows import Compared, Row, Want, difference, find, ratio
from bench.section import QUICK, Goal, Plan, Section
from bench.stock import Stock, session_ids, users_of
from bench.warm import warm_up


def row(subject: str, *values: float, section: str = "speed", concurrency: int = 1) -> Row:
    """Return a row of a subject, with a value per round."""
    return Row(
        section=section,
        subject=subject,
        setting={"concurrency": concurrency},
        unit="1/s",
        values=values,
    )


def nothing(_: Plan) -> Iterator[Row]:
    """Measure nothing."""
    return iter(())


def section(*goals: Goal, name: str = "speed") -> Section:
    """Return a section with these goals."""
    return Section(
        name=name,
        title="Speed",
        about="How fast.",
        columns="concurrency",
        measure=nothing,
        goals=goals,
    )


OURS = Want("speed", "ours", {"concurrency": 1})
THEIRS = Want("speed", "theirs", {"concurrency": 1})
TWICE = Goal(text="ours against theirs", row=OURS, base=THEIRS, bound=2)


def test_ratios_are_taken_within_a_round() -> None:
    """A ratio is taken within each round, so that a slow round for both does not matter."""
    assert ratio(row("ours", 200, 20, 220), row("theirs", 100, 10, 100)) == Compared(2, 2, 2.2)


def test_differences_are_taken_within_a_round() -> None:
    """A difference is taken within each round."""
    assert difference(row("ours", 15, 110, 30), row("theirs", 10, 100, 12)) == Compared(10, 5, 18)


def test_rounds_that_were_not_measured_together_make_no_ratio() -> None:
    """Rows with different numbers of rounds can't be compared."""
    with pytest.raises(ValueError, match="zip"):
        ratio(row("ours", 1, 2), row("theirs", 1))


def test_a_want_that_fits_several_rows() -> None:
    """A query that matches several rows is an error."""
    both = [row("ours", 1), row("ours", 1, concurrency=256)]
    assert find(both, OURS) == both[0]
    with pytest.raises(LookupError):
        find(both, Want("speed", "ours", {}))


@pytest.mark.parametrize(
    ("better", "every_round", "measured", "met"),
    [
        ("higher", False, Compared(2, 1, 3), True),
        ("higher", False, Compared(1.9, 1, 3), False),
        ("higher", True, Compared(2.5, 1.9, 3), False),
        ("lower", False, Compared(2, 1, 3), True),
        ("lower", False, Compared(2.1, 1, 3), False),
        ("lower", True, Compared(1.5, 1, 2.1), False),
    ],
)
def test_verdict(better: str, every_round: bool, measured: Compared, met: bool) -> None:
    """The median must be within the bound, or the worst round if every round counts."""
    goal = Goal(
        text="",
        row=OURS,
        better="higher" if better == "higher" else "lower",
        bound=2,
        every_round=every_round,
    )
    assert goal.is_met(measured) is met


def test_missed_goal_is_reported() -> None:
    """The table of goals shows a missed goal with its lowest and highest round."""
    missed = goals([section(TWICE)], [row("ours", 150, 180, 210), row("theirs", 100, 100, 100)])
    assert (
        missed.splitlines()[-1] == "| ours against theirs | ≥ 2 | 1.8 | 1.5 to 2.1 | **missed** |"
    )


def test_a_goal_of_a_difference() -> None:
    """A goal can bound a difference, which is shown in the rows' unit."""
    goal = Goal(
        text="ours beyond theirs", row=OURS, base=THEIRS, by="difference", better="lower", bound=20
    )
    told = goals([section(goal)], [row("ours", 115, 120, 118), row("theirs", 100, 100, 100)])
    assert told.splitlines()[-1] == "| ours beyond theirs | ≤ 20 1/s | 18 1/s | 15 to 20 | met |"


@pytest.mark.parametrize(
    ("rates", "best", "measured"),
    [
        ([100, 101], 101, 2),  # risen by less than 2 %
        ([100, 90], 100, 2),
        ([100, 110, 120, 121], 121, 4),
        ([100, 110, 120, 130, 140, 150], 140, 5),  # still rising after the last window
    ],
)
def test_a_subject_is_warmed_up_until_its_rate_stops_rising(
    rates: list[float], best: float, measured: int
) -> None:
    """The warm-up ends when a window is less than 2 % better than the best, or at its limit."""
    windows = iter(rates)
    assert warm_up(lambda: next(windows), 5) == best
    assert len(list(windows)) == len(rates) - measured


def test_ids_of_a_stock() -> None:
    """Ids have their length and differ by the number; four sessions have the same user."""
    ids, users = session_ids(Stock("abcd1234", 40), range(1_000)), users_of(range(1_000))
    assert len({*ids}) == 1_000
    assert {len(session_id) for session_id in ids} == {40}
    assert {len(user_id) for user_id in users} == {32}
    assert len({*users}) == 250


def test_a_goal_of_what_was_not_measured() -> None:
    """A goal without its rows is left out."""
    assert goals([section(TWICE)], [row("ours", 150)]) == ""
    assert "ours against theirs" not in markdown({}, [section(TWICE)], [row("ours", 150)])


def test_sections_are_kept_one_by_one(tmp_path: Path) -> None:
    """Measuring a section again replaces only its own rows, and all facts are shown."""
    one, other = section(), section(name="size")
    results.write(tmp_path, one, {"date": "1 May", "machine": "m"}, [row("ours", 1)])
    results.write(
        tmp_path, other, {"date": "2 May", "machine": "m"}, [row("ours", 5, section="size")]
    )
    results.write(tmp_path, one, {"date": "3 May", "machine": "m"}, [row("ours", 2)])
    facts, rows = results.read(tmp_path, [one, other, section(name="never measured")])
    assert facts == {"date": "3 May; 2 May", "machine": "m"}
    assert [(each.section, each.values) for each in rows] == [("speed", (2,)), ("size", (5,))]


def test_a_document_is_written_between_its_marks(tmp_path: Path) -> None:
    """Only the text between the markers is replaced, and writing twice changes nothing more."""
    page = tmp_path / "page.md"
    page.write_text(f"before\n\n{BEGIN}\n\nold\n\n{END}\nafter\n")
    for _ in range(2):
        write_into(page, "new\n")
    assert page.read_text() == f"before\n\n{BEGIN}\n\nnew\n\n{END}\nafter\n"


def test_a_document_without_marks(tmp_path: Path) -> None:
    """A document without markers is an error and stays unchanged."""
    page = tmp_path / "page.md"
    page.write_text("text")
    with pytest.raises(ValueError, match=r"page\.md"):
        write_into(page, "new")
    assert page.read_text() == "text"


def test_too_few_open_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """The benchmark fails early if a process can't have enough open files."""
    limits = [(256, 1_024)]
    monkeypatch.setattr(resource, "getrlimit", lambda _: limits[-1])
    monkeypatch.setattr(resource, "setrlimit", lambda _, found: limits.append(found))
    check_open_files(max(QUICK.callers))
    assert limits[-1] == (996, 1_024)
    with pytest.raises(SystemExit, match="needs 14,436 open files, and a process may have 1,024"):
        check_open_files(1_024)
