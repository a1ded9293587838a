"""Each process remembers what used ids were renewed to."""

from datetime import timedelta

from lucia._memory.renewals import Renewals
from tests.support.clocks import Time


def test_renewals_are_forgotten_after_a_minute() -> None:
    """Renewals are forgotten after 60 seconds, so that memory is bounded."""
    time = Time()
    renewals = Renewals(time)
    for number in range(300):
        renewals.add(f"used {number}", f"new {number}", 60_000)
        time.advance(timedelta(seconds=1))
    held = renewals._renewals  # the public methods don't show what is forgotten
    assert len(held) == 60
    assert renewals.successor("used 0") is None
    assert renewals.successor("used 299") == "new 299"
