"""The entries of a near-cache, without a server: what is kept, and for how long."""

from contextlib import suppress

from lucia._redis.transport.near_cache_entries import ENTRY_SECONDS, Entries, Lease
from tests.support.clocks import ManualClock

LEASE = 1.0


def read(entries: Entries, lease: Lease, **records: bytes | None) -> None:
    """Read records at once."""
    sent = entries.clock()
    reading = entries.begin([name.encode() for name in records])
    lease.extend(sent)
    entries.fill(reading, list(records.values()), sent, lease)


def held(entries: Entries, key: bytes) -> bytes | None:
    """Return the cached record at this key, if it may be used."""
    entry = entries.get(key)
    return None if entry is None else entry.record


def test_a_record_that_was_read() -> None:
    """A record that was read is cached. A missing one is not."""
    entries = Entries(clock=ManualClock())
    read(entries, Lease(LEASE), a=b"A", b=None)
    assert [held(entries, key) for key in (b"a", b"b", b"c")] == [b"A", None, None]
    assert len(entries) == 1


def test_the_lease() -> None:
    """A record is used until the lease ends.

    The lease begins when the newest command that was answered was sent.
    """
    clock = ManualClock()
    entries, lease = Entries(clock=clock), Lease(LEASE)
    read(entries, lease, a=b"A")
    clock.now += LEASE / 2
    sent = clock.now
    clock.now += LEASE / 4
    lease.extend(sent)
    clock.now = sent + LEASE - 0.001
    assert held(entries, b"a") == b"A"
    clock.now = sent + LEASE
    assert held(entries, b"a") is None


def test_a_lease_that_begins_again() -> None:
    """When the lease is extended again, a record is usable again.

    The server has announced all changes before.
    """
    clock = ManualClock()
    entries, lease = Entries(clock=clock), Lease(LEASE)
    read(entries, lease, a=b"A")
    clock.now += LEASE
    assert held(entries, b"a") is None
    lease.extend(clock.now)
    assert held(entries, b"a") == b"A"


def test_leases_of_two_connections() -> None:
    """A reply on one connection does not extend the lease of another."""
    clock = ManualClock()
    entries, lease, other = Entries(clock=clock), Lease(LEASE), Lease(LEASE)
    read(entries, lease, a=b"A")
    clock.now += LEASE
    read(entries, other, b=b"B")
    assert [held(entries, key) for key in (b"a", b"b")] == [None, b"B"]


def test_the_age_of_an_entry() -> None:
    """However long the lease, a record is used for five seconds from its request."""
    clock = ManualClock()
    entries, lease = Entries(clock=clock), Lease(LEASE)
    reading, sent = entries.begin([b"a"]), clock.now
    clock.now += 2
    lease.extend(clock.now)
    entries.fill(reading, [b"A"], sent, lease)
    clock.now = sent + ENTRY_SECONDS - 0.001
    lease.extend(clock.now)
    assert held(entries, b"a") == b"A"
    clock.now = sent + ENTRY_SECONDS
    lease.extend(clock.now)
    assert held(entries, b"a") is None


def test_what_is_too_old_goes() -> None:
    """``sweep`` removes exactly the entries that are too old."""
    clock = ManualClock()
    entries, lease = Entries(clock=clock), Lease(LEASE)
    read(entries, lease, a=b"A", b=b"B")
    clock.now += 1
    read(entries, lease, b=b"B", c=b"C")
    entries.sweep()
    assert len(entries) == 3
    clock.now += ENTRY_SECONDS - 1
    entries.sweep()
    assert len(entries) == 2
    clock.now += 1
    entries.sweep()
    assert len(entries) == 0


def test_the_number_of_entries() -> None:
    """Beyond the maximum size, the entries that were read longest ago are evicted."""
    entries, lease = Entries(3, ManualClock()), Lease(LEASE)
    read(entries, lease, a=b"A", b=b"B", c=b"C")
    read(entries, lease, a=b"A")
    read(entries, lease, d=b"D", e=b"E")
    assert [held(entries, key) for key in (b"a", b"b", b"c", b"d", b"e")] == [
        b"A",
        None,
        None,
        b"D",
        b"E",
    ]


def test_the_place_for_a_row() -> None:
    """The row kept with an entry stays if an equal record is read, and goes with it."""
    entries, lease = Entries(clock=ManualClock()), Lease(LEASE)
    read(entries, lease, a=b"A", b=b"B")
    for key in (b"a", b"b"):
        entry = entries.get(key)
        assert entry is not None
        assert entry.row is None
        entry.row = "made of it"
    read(entries, lease, a=b"A", b=b"other")
    assert [getattr(entries.get(key), "row", 0) for key in (b"a", b"b")] == ["made of it", None]


def test_what_the_server_says_is_gone() -> None:
    """A dropped key is gone until it is read again."""
    entries, lease = Entries(clock=ManualClock()), Lease(LEASE)
    read(entries, lease, a=b"A", b=b"B")
    entries.drop([b"a", b"unknown"])
    assert [held(entries, key) for key in (b"a", b"b")] == [None, b"B"]
    read(entries, lease, a=b"new")
    assert held(entries, b"a") == b"new"


def test_a_flush() -> None:
    """A flush removes all entries, and pending reads add none."""
    entries, lease = Entries(clock=ManualClock()), Lease(LEASE)
    read(entries, lease, a=b"A")
    reading = entries.begin([b"b"])
    entries.flush()
    entries.fill(reading, [b"B"], entries.clock(), lease)
    assert len(entries) == 0
    read(entries, lease, b=b"B")
    assert held(entries, b"b") == b"B"


# Changes by this process


def test_an_own_change() -> None:
    """While this process changes a key, no record of it is cached.

    Nor is one whose read began before the change was over.
    """
    entries, lease = Entries(clock=ManualClock()), Lease(LEASE)
    read(entries, lease, a=b"A", b=b"B")
    before = entries.begin([b"a", b"b"])
    with entries.dropping([b"a"]):
        assert [held(entries, key) for key in (b"a", b"b")] == [None, b"B"]
        meanwhile = entries.begin([b"a", b"c"])
        read(entries, lease, a=b"A")
        assert held(entries, b"a") is None
    entries.fill(before, [b"A", b"other"], entries.clock(), lease)
    entries.fill(meanwhile, [b"A", b"C"], entries.clock(), lease)
    assert [held(entries, key) for key in (b"a", b"b", b"c")] == [None, b"other", b"C"]
    read(entries, lease, a=b"new")
    assert held(entries, b"a") == b"new"


def test_two_own_changes() -> None:
    """A key with two overlapping changes is cached again when both are over."""
    entries, lease = Entries(clock=ManualClock()), Lease(LEASE)
    first, second = entries.dropping([b"a"]), entries.dropping([b"a", b"b"])
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    read(entries, lease, a=b"A")
    assert held(entries, b"a") is None
    second.__exit__(None, None, None)
    read(entries, lease, a=b"A", b=b"B")
    assert [held(entries, key) for key in (b"a", b"b")] == [b"A", b"B"]


def test_a_change_that_fails() -> None:
    """After a failed change the key can be cached again, since a later read shows the outcome."""
    entries, lease = Entries(clock=ManualClock()), Lease(LEASE)
    with suppress(ZeroDivisionError), entries.dropping([b"a", b"a"]):
        _ = 1 / 0
    read(entries, lease, a=b"A")
    assert held(entries, b"a") == b"A"


def test_a_reading_that_is_given_up() -> None:
    """A read that is given up is forgotten."""
    entries = Entries(clock=ManualClock())
    reading = entries.begin([b"a"])
    assert entries._readings == {reading}
    entries.give_up(reading)
    assert entries._readings == set()
