"""Which rows are kept, and when they are given again."""

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lucia._redis.kept import MAX_KEPT_BYTES, KeptRows
from lucia._redis.transport.connection_io import Records
from lucia.models import SessionRow

MOST = 3


def row(session_id: str) -> SessionRow:
    """A row that equals others of this id, and is another object."""
    return SessionRow(id=session_id, user_id="u", active_expires=1, idle_expires=2)


def found(kept: KeptRows, *session_ids: str) -> str:
    """Those of the ids whose rows are kept, by the records that were read."""
    return "".join(id_ for id_ in session_ids if kept.find(id_, [id_.encode()]) is not None)


def keeping(*session_ids: str) -> KeptRows:
    """So many of them as may be, read in this order."""
    kept = KeptRows(MOST)
    for id_ in session_ids:
        kept.keep([id_.encode()], row(id_))
    return kept


@pytest.mark.parametrize("records", [[b"x"], [b"x", None], [None, b"x"], [b"y", b"x", None]])
def test_the_same_records(records: Records) -> None:
    """The row is given again for the same records at the same keys, and for no others."""
    kept, mine = KeptRows(), row("a")
    kept.keep(records, mine)
    assert kept.find("a", list(records)) is mine
    assert kept.find("b", records) is None
    all_others: list[Records] = [
        [b"x"],
        [b"x", None],
        [None, b"x"],
        [b"y", b"x", None],
        [b"y", b"x", b"x"],
        [None],
        [None, None],
        [],
    ]
    for others in all_others:
        assert (kept.find("a", others) is mine) is (others == records)


def test_another_record() -> None:
    """What was read last of an id is what counts, and takes no second place."""
    kept = keeping("a", "b", "c")
    newer = row("b")
    kept.keep([b"newer"], newer)
    assert kept.find("b", [b"newer"]) is newer
    assert found(kept, "a", "b", "c") == "ac"


def test_how_long_records_may_be() -> None:
    """Up to a kibibyte, together."""
    kept = KeptRows()
    longest: list[Records] = [[b"x" * MAX_KEPT_BYTES], [None, b"x", b"x" * (MAX_KEPT_BYTES - 1)]]
    for records in longest:
        kept.keep(records, row("a"))
        assert kept.find("a", records) is not None
        longer = [*records[:-1], b"x" * MAX_KEPT_BYTES, b"x"]
        kept.keep(longer, row("b"))
        assert kept.find("b", longer) is None


def test_who_goes() -> None:
    """The one that was read or found the longest time ago, of those that have not been found since all grew old; one at a time."""
    kept = keeping("a", "b", "c", "d")
    assert found(kept, "a") == ""
    assert found(kept, "b") == "b"
    kept.keep([b"e"], row("e"))
    assert found(kept, "a", "b", "c", "d", "e") == "bde"
    kept.keep([b"f"], row("f"))
    assert found(kept, "b", "d", "e", "f") == "bef"


@given(st.lists(st.sampled_from("abcde")), st.integers(1, 4))
def test_any_reads(reads: list[str], most: int) -> None:
    """However sessions are read, no more rows are kept than may be, the newest is, and as long as they are no more, all are."""
    kept = KeptRows(most)
    rows: dict[str, SessionRow] = {}
    for id_ in reads:
        same = kept.find(id_, [id_.encode()])
        assert same is None or same is rows[id_]
        if same is None:
            rows[id_] = row(id_)
            kept.keep([id_.encode()], rows[id_])
        assert kept.find(id_, [id_.encode()]) is rows[id_]
        assert len(kept) == min(len(rows), most)


def test_from_many_threads() -> None:
    """Threads that read the same sessions at once, and more than may be kept, always find theirs or none, and no more are kept."""
    kept = KeptRows(MOST)
    wrong: list[SessionRow] = []

    def read(ids: str) -> None:
        for id_ in ids * 2_000:
            same = kept.find(id_, [id_.encode()])
            if same is None:
                kept.keep([id_.encode()], row(id_))
            elif same.id != id_:
                wrong.append(same)

    threads = [
        threading.Thread(target=read, args=(ids,)) for ids in ("abcd", "dcba", "bdac", "acde")
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert 1 <= len(kept) <= MOST


def test_nobody_waits() -> None:
    """What another thread is at is not waited for, nor what it was at when the process forked: nothing is kept, and old rows stay old."""
    kept = keeping("a", "b", "c", "d")
    with kept._lock:
        kept.keep([b"e"], row("e"))
        assert found(kept, "a", "b", "c", "d", "e") == "d"
    assert found(kept, "b", "c", "d", "e") == "bcd"
