"""The last requests of one browser, with the Redis commands that they sent."""

from collections import OrderedDict, deque
from dataclasses import dataclass, field
from datetime import UTC, datetime

from lucia import generate_random_string

from .redis_view import Shown

MOST_BROWSERS = 500
MOST_ENTRIES = 6


@dataclass(frozen=True, slots=True)
class Entry:
    """One request.

    Args:
        title: what the person did.
        outcome: what came of it.
        commands: what was sent to Redis for it.
        written: the keys that the commands may have changed, shortened.
        gone: those of them that do not exist any more.
    """

    title: str
    outcome: str
    commands: list[Shown]
    written: frozenset[str] = frozenset()
    gone: tuple[str, ...] = ()
    at: datetime = field(default_factory=lambda: datetime.now(UTC))


@dataclass(slots=True)
class Journal:
    """The last requests of one browser.

    Attributes:
        entries: the newest first.
        reading: the request that opened the current page, if it sent commands.
        notice: a text that the next page shows once.
    """

    browser: str = field(default_factory=lambda: generate_random_string(40), repr=False)
    entries: deque[Entry] = field(default_factory=lambda: deque[Entry](maxlen=MOST_ENTRIES))
    reading: Entry | None = None
    notice: str = ""

    def add(self, entry: Entry) -> None:
        """Add a request."""
        self.entries.appendleft(entry)
        self.reading = None

    def take_notice(self) -> str:
        """Return the notice and clear it."""
        notice, self.notice = self.notice, ""
        return notice


class Journals:
    """The journals of the last browsers, in memory."""

    def __init__(self) -> None:
        self._journals: OrderedDict[str, Journal] = OrderedDict()

    def of(self, browser: str | None) -> Journal:
        """Return the journal of the browser that a cookie names, or a new one."""
        journal = self._journals.pop(browser or "", None) or Journal()
        self._journals[journal.browser] = journal
        if len(self._journals) > MOST_BROWSERS:
            self._journals.popitem(last=False)
        return journal
