"""How often passwords may be tried: the settings, and the rules that every store of failures follows.

A failure is counted before its password is verified, and taken back if the password was right; so guesses that run at once can't pass
together where one may. It is counted under two names, the key's and the address's, and forgotten some time after it happened. The first
failures are free; after them each attempt has to wait, from the last failure on, twice as long as the one before, up to a bound. An
attempt that is refused for coming too early is not counted, and makes nobody wait longer.
"""

import hashlib
import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, NamedTuple

from lucia._rules.sessions import milliseconds
from lucia.models import KeyRow

__all__ = ["Attempt", "FailureLimit", "FailureRule", "Throttle"]

MOST_FREE: Final = 1_000
"""The largest number of free failures: a store keeps as many entries."""

FOREVER_MS: Final = 10 * 366 * 24 * 3_600_000
"""Longer than any single-use key should live, in milliseconds."""

SLACK_MS: Final = 60_000
"""How much longer than its key the count of a single-use key lives, for two machines' clocks."""

_IPV6_PREFIX: Final = 64
_NAME_BYTES: Final = 16


class FailureRule(NamedTuple):
    """A limit as a store of failures needs it; durations are in milliseconds.

    ``free`` failures pass without a wait; from then on the wait is ``first`` after the last failure, doubled with each further one, up
    to ``longest``. A failure counts until it is ``forget`` old. What is stored lives for ``life`` after the last failure.
    """

    free: int
    first: int
    longest: int
    forget: int
    life: int

    @property
    def kept(self) -> int:
        """How many failures, the newest ones, are enough to know: with so many the wait is the longest."""
        return self.free + (self.longest // self.first).bit_length() + 1

    def counts(self, failed_at: int, now: int) -> bool:
        """Whether a failure is not forgotten; one from a future further away than any wait is, since the clock was set back."""
        return now - failed_at < self.forget and failed_at - now <= self.longest

    def judge(self, failures: Iterable[int], now: int) -> tuple[int, int]:
        """How long an attempt still has to wait, 0 if it may be made now, and how many failures count.

        Args:
            failures: when they happened, in any order.
            now: the time, all in milliseconds since the epoch.
        """
        counted = [failed_at for failed_at in failures if self.counts(failed_at, now)]
        if len(counted) < self.free:
            return 0, len(counted)
        wait = min(self.first << min(len(counted), self.kept) - self.free, self.longest)
        return max(0, min(max(counted) + wait - now, wait)), len(counted)


class Attempt(NamedTuple):
    """What a store of failures answers to an attempt.

    Args:
        wait: 0 if the attempt may be made: then it is counted as a failure under each of its names; else the milliseconds to wait, and
            nothing was changed.
        failures: for each name how many failures count, this attempt included.
        entries: for each name what :meth:`~lucia.ThrottleStore.take_back` takes to find this attempt; empty if it has to wait.
    """

    wait: int
    failures: Mapping[str, int]
    entries: Mapping[str, str]


def _check_count(name: str, count: object) -> None:
    if not isinstance(count, int) or isinstance(count, bool):
        raise TypeError(f"{name} must be an int, not {type(count).__name__}")
    if not 1 <= count <= MOST_FREE:
        raise ValueError(f"{name} must be 1 to {MOST_FREE:,}, got {count}")


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureLimit:
    """How many failed attempts are free, and how long those after them have to wait.

    Args:
        free: so many failures cost no wait, 1 to 1,000.
        first_wait: how long the next attempt has to wait after the last failure; doubled with each further failure.
        longest_wait: the wait grows to this and no further.
        forget: a failure is forgotten so long after it happened.

    Raises:
        TypeError: ``free`` is no ``int``, or a duration no ``timedelta``.
        ValueError: ``free`` is out of its range, or the durations are not in the order first, longest, forget, or longer than ten years.
    """

    free: int
    first_wait: timedelta = timedelta(seconds=1)
    longest_wait: timedelta = timedelta(minutes=15)
    forget: timedelta = timedelta(hours=24)

    def __post_init__(self) -> None:
        _check_count("free", self.free)
        rule = self.rule
        if not 1 <= rule.first <= rule.longest <= rule.forget <= FOREVER_MS:
            raise ValueError(
                "first_wait must be at least a millisecond, longest_wait at least first_wait, forget at least longest_wait and at most "
                f"ten years; got {self.first_wait}, {self.longest_wait} and {self.forget}"
            )

    @property
    def rule(self) -> FailureRule:
        """The same in milliseconds."""
        first, longest, forget = (
            milliseconds(name, getattr(self, name))
            for name in ("first_wait", "longest_wait", "forget")
        )
        return FailureRule(self.free, first, longest, forget, forget)


_BY_KEY: Final = FailureLimit(free=5)
_BY_ADDRESS: Final = FailureLimit(
    free=50, longest_wait=timedelta(minutes=1), forget=timedelta(hours=1)
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Throttle:
    """Limits on sign-ins with a wrong password, whether the key exists or not.

    Args:
        by_key: the failures at one key, from wherever; by default 5 are free, then 1 s, 2 s, 4 s up to 15 minutes, forgotten after 24
            hours. None for no limit.
        by_address: the failures from one address, at whichever keys; by default 50 are free, then 1 s, 2 s, 4 s up to one minute,
            forgotten after an hour. None for no limit.
        single_use_failures: so many wrong passwords consume a single-use key that has one, 1 to 1,000; None for no limit.

    Raises:
        TypeError, ValueError: ``single_use_failures`` is no ``int``, or out of its range.
    """

    by_key: FailureLimit | None = _BY_KEY
    by_address: FailureLimit | None = _BY_ADDRESS
    single_use_failures: int | None = 5

    def __post_init__(self) -> None:
        if self.single_use_failures is not None:
            _check_count("single_use_failures", self.single_use_failures)

    def rules(self, key_id: str | None, address: str | None) -> dict[str, FailureRule]:
        """The rules of an attempt by the names it is counted under; what is not known, or has no limit, is left out."""
        limits = (
            ("key", key_id, self.by_key),
            ("address", address and address_block(address), self.by_address),
        )
        return {
            failure_name(kind, text): limit.rule
            for kind, text, limit in limits
            if text and limit is not None
        }

    def single_use_rule(self, row: KeyRow, now: int) -> dict[str, FailureRule]:
        """The rule of an attempt at this single-use key, which lives as long as the key; empty if there is no limit, or nothing to guess.

        It is this very key's: another one that is made later under the same id has a count of its own.
        """
        if (
            self.single_use_failures is None
            or row.expires is None
            or row.hashed_password is None
            or now > row.expires
        ):
            return {}
        name = failure_name("single-use", f"{row.id}\0{row.hashed_password}")
        return {
            name: FailureRule(
                self.single_use_failures,
                FOREVER_MS,
                FOREVER_MS,
                FOREVER_MS,
                row.expires - now + SLACK_MS,
            )
        }


def failure_name(kind: str, text: str) -> str:
    """A name to count failures under: 32 hex digits of a hash, which hold neither the key nor the address."""
    return hashlib.sha256(f"lucia {kind}\0{text}".encode(errors="surrogatepass")).hexdigest()[
        : 2 * _NAME_BYTES
    ]


def address_block(address: str) -> str:
    """What an address is counted as: itself for IPv4, its /64 for IPv6, which is what one subscriber has; other text is taken as it is."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.ip_network((parsed.packed, _IPV6_PREFIX), strict=False))


def seconds_to_wait(wait: int) -> int:
    """Milliseconds as whole seconds, rounded up."""
    return -(-wait // 1000)
