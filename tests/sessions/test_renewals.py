"""What used ids were renewed to, as it is remembered in this process."""

from datetime import timedelta

from lucia._memory.renewals import Renewals
from tests.support.clocks import Time


def test_renewals_are_forgotten_after_a_minute() -> None:
    """Memory holds the renewals of the last 60 seconds, however many there were before."""
    time = Time()
    renewals = Renewals(time)
    for number in range(300):
        renewals.add(f"used {number}", f"new {number}", 60_000)
        time.advance(timedelta(seconds=1))
    held = renewals._renewals  # what is forgotten is seen nowhere else
    assert len(held) == 60
    assert renewals.successor("used 0") is None
    assert renewals.successor("used 299") == "new 299"
