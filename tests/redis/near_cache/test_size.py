"""The memory of a session in the near-cache is what docs/running-redis.md says."""

import gc
import multiprocessing
import tracemalloc
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import pytest

from lucia._redis.keys import Layout
from lucia._redis.lookup import PlainLookup
from lucia._redis.records import PARSE_ERRORS, decode_row, encode_row, parse_record
from lucia._redis.transport.near_cache import AsyncNearCache
from lucia._redis.transport.near_cache_entries import Lease
from lucia._rules.sessions import SessionExpiry, new_session_row, system_clock
from lucia.models import StoredSession

pytestmark = pytest.mark.no_cover

COUNT: Final = 400
EXPIRY: Final = SessionExpiry()
BROWSER: Final = {
    "user_agent": "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
    "address": "192.0.2.41",
}
DOCUMENT: Final = Path(__file__).parents[3] / "docs" / "running-redis.md"

KINDS: Final[dict[str, tuple[Mapping[str, Any], float]]] = {
    "none": ({}, 0.9),
    "a browser and an address": (BROWSER, 1.4),
    "one text of 8 KiB": ({"text": "x" * 8_150}, 18),
    "8 KiB of lists or dicts with one member each": ({"list": [{"k": 1}] * 800}, 160),
}
"""Metadata, and the kilobytes that the document states for a session with it."""


def bytes_of_an_entry(metadata: Mapping[str, Any]) -> float:
    """Fill a near-cache as requests do, and return the bytes of each session."""
    lookup, near, lease = (
        PlainLookup(Layout.from_namespaces(None)),
        AsyncNearCache(timedelta(seconds=1)),
        Lease(1),
    )
    records = [
        encode_row(new_session_row(f"user{number:011}", system_clock(), EXPIRY, metadata))
        for number in range(COUNT)
    ]
    gc.collect()
    tracemalloc.start()
    try:
        for record in records:
            read = bytes(bytearray(record))  # a new object, as from the server
            session_id = read.partition(b'"id":"')[2][:40].decode()
            keys = lookup.keys(session_id)
            now = near.entries.clock()
            lease.extend(now)
            near.entries.fill(near.entries.begin(keys), [read], now, lease)
            near.keep(keys, [read], parse_or_decode(read, session_id))
        gc.collect()
        assert len(near.entries) == COUNT
        return tracemalloc.get_traced_memory()[0] / COUNT
    finally:
        tracemalloc.stop()


def parse_or_decode(record: bytes, session_id: str) -> StoredSession | None:
    """Return the session in a record, as a read decodes it."""
    try:
        return parse_record(record)
    except PARSE_ERRORS:
        return decode_row(record, session_id)


@pytest.mark.parametrize("kind", KINDS)
def test_a_session_takes_as_much_memory_as_is_said(kind: str) -> None:
    """The measured size is within a quarter of the documented one."""
    metadata, kilobytes = KINDS[kind]
    assert f"| {kind} | {kilobytes:g} KB |" in DOCUMENT.read_text(encoding="utf-8")
    # In a new process, so that no garbage of other tests is collected meanwhile.
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        size = process.submit(bytes_of_an_entry, metadata).result()
    assert 0.75 * kilobytes < size / 1_000 < 1.25 * kilobytes
