"""Odd records: batched reads accept exactly the records that the careful decoder accepts.

The records are real ones, changed at random. The seed is fixed, so that a failure can be reproduced
by its number.
"""

import json
import logging
from collections import Counter
from collections.abc import Callable, Iterator
from functools import lru_cache
from random import Random
from typing import Annotated, Any, Final, NamedTuple

import msgspec
import pytest

from lucia._logs import Outage
from lucia._redis.keys import Layout
from lucia._redis.lookup import PlainLookup
from lucia._redis.records import (
    MAX_RECORD_BYTES,
    PARSE_ERRORS,
    MismatchedReply,
    SessionRecord,
    encode_row,
    parse_record,
    read_odd_record,
)
from lucia._redis.replay import Revocations
from lucia._redis.transport import session_reads as session_reads_module
from lucia._redis.transport.session_reads import AsyncSessionReads
from lucia._redis.transport.settings import AsyncSettings
from lucia._rules.sessions import SessionExpiry, new_session_row
from lucia.models import MAX_EPOCH_MS, MAX_ID_LENGTH, MAX_USER_ID_BYTES, SessionRow, StoredSession
from tests.support.clocks import NOW

SEED: Final = 20_261
FEW: Final = 5_000
MANY: Final = 200_000
BATCH: Final = 500

Decision = str
"""The session in a record, as text, or why there is none."""

NO_SESSION: Final = "no session"
ANOTHER: Final = "another session"


class Case(NamedTuple):
    """A record, and the id of the session that is read."""

    record: bytes
    session_id: str


# Records

NUMBERS: Final = (
    *("0", "1", "-1", "-0", "00", "01", "+1", "1.0", "1.5", "1e3", "1E3", "1e-3", "-0.0", "1."),
    *(".5", "1e999", "-1e999", "NaN", "Infinity", "-Infinity", "0x10", "1_000", "1e", "-", "١"),
    *(str(MAX_EPOCH_MS + n) for n in (-1, 0, 1)),
    *(
        str(sign * 2**bits + n)
        for bits in (31, 32, 53, 63, 64, 70)
        for sign in (1, -1)
        for n in (-1, 0, 1)
    ),
    *("9" * digits for digits in (19, 20, 40, 4_300, 4_301)),
    f"{MAX_EPOCH_MS}.0",
    f"{MAX_EPOCH_MS}e0",
)  # fmt: skip
TEXTS: Final = (
    *('""', '"a"', '"漢"', '"\\ud800"', '"a\\udfffb"', '"\\ud83d\\ude00"', '"\U0001f600"'),
    *('"\\u0000"', '"a\\u0000b"', '"\\u0061"', '"\\/\\b\\f\\n\\r\\t\\"\\\\"', '"\\x41"', '"\\u12"'),
    *('"\t"', '"\n"', '"\0"', '"\x7f"', '"\x80"', '"\ufeff"', "'a'", '"a', "a"),
    *(f'"{"x" * (MAX_ID_LENGTH + n)}"' for n in (-1, 0, 1)),
    *(f'"{"漢" * (MAX_ID_LENGTH + n)}"' for n in (-1, 0, 1)),
    *(f'"{"😀" * (MAX_ID_LENGTH + n)}"' for n in (-1, 0, 1)),
    *(f'"{"x" * (MAX_USER_ID_BYTES + n)}"' for n in (-1, 0, 1)),
    *(f'"{"漢" * (MAX_USER_ID_BYTES // 3 + n)}"' for n in (0, 1)),
)
OTHER_VALUES: Final = (
    *("null", "true", "false", "True", "None", "undefined", "", "[]", "{}", "[1]", '{"a":1}'),
    *('{"a":null}', '{"a":1.5}', '{"a":[1]}', '{"a":{"b":1}}', '{"a":"\\ud800"}', '{"a":1,"a":2}'),
    *('{"":1}', '{"\\u0061":1,"a":2}', '{"a":1,}', "{1:2}", "[1,]", '{"a":1e999}', '{"a":NaN}'),
    *(f'{{"a":{number}}}' for number in NUMBERS),
    *(f'{{"a":{text}}}' for text in TEXTS[:20]),
    *("[" * depth + "]" * depth for depth in (98, 99, 100, 101)),
    *('{"a":' * depth + "1" + "}" * depth for depth in (98, 99, 100, 101)),
)
DEEP: Final = tuple('{"a":' * depth + "1" + "}" * depth for depth in (100, 101, 101, 101))
VALUES: Final = (*NUMBERS, *TEXTS, *OTHER_VALUES, *(3 * DEEP))
NAMES: Final = (
    *('"id"', '"user_id"', '"active_expires"', '"idle_expires"', '"created_at"', '"handle"'),
    *('"noted"', '"own"', '"ID"', '"id "', '""', '"\\u0069d"', '"user\\u005fid"', '"\\ud800"'),
    *('"id\\u0000"', '"__class__"', '"metadata"', '"attributes"', "id", "'id'", "1", "null"),
)  # fmt: skip
METADATA: Final[tuple[dict[str, Any], ...]] = (
    {},
    {"agent": "Mozilla/5.0", "address": "192.0.2.1"},
    {"agent": "漢字 😀", "count": 3, "trusted": True, "parent": None},
    {"big": 2**70, "negative": -1, "empty": ""},
    {"list": [1, 2.5, {"a": None}]},
    {"lone": "\ud800"},
)

Members = list[tuple[str, str]]


def _drop(members: Members, random: Random) -> None:
    if members:
        del members[random.randrange(len(members))]


def _repeat(members: Members, random: Random) -> None:
    if members:
        members.insert(random.randrange(len(members) + 1), random.choice(members))


def _shuffle(members: Members, random: Random) -> None:
    random.shuffle(members)


def _other_value(members: Members, random: Random) -> None:
    if members:
        index = random.randrange(len(members))
        members[index] = (members[index][0], random.choice(VALUES))


def _swap_values(members: Members, random: Random) -> None:
    if len(members) > 1:
        one, other = random.sample(range(len(members)), 2)
        (name, value), (other_name, other_value) = members[one], members[other]
        members[one], members[other] = (name, other_value), (other_name, value)


def _other_name(members: Members, random: Random) -> None:
    if members:
        index = random.randrange(len(members))
        members[index] = (random.choice(NAMES), members[index][1])


def _new_member(members: Members, random: Random) -> None:
    members.insert(
        random.randrange(len(members) + 1), (random.choice(NAMES), random.choice(VALUES))
    )


def _escape(members: Members, random: Random) -> None:
    """Replace a character of a text by its escape, which means the same."""
    if members:
        index = random.randrange(len(members))
        name, value = members[index]
        if random.random() < 0.3:
            members[index] = (_escaped(name, random), value)
        else:
            members[index] = (name, _escaped(value, random))


def _escaped(text: str, random: Random) -> str:
    if len(text) < 3 or text[0] != '"' or "\\" in text:
        return text
    index = random.randrange(1, len(text) - 1)
    if ord(text[index]) > 0xFFFF:
        return text
    return f"{text[:index]}\\u{ord(text[index]):04x}{text[index + 1 :]}"


CHANGES: Final[tuple[Callable[[Members, Random], None], ...]] = (
    *(_drop, _repeat, _shuffle, _swap_values, _other_name, _escape),
    *(_other_value, _other_value, _other_value, _new_member),
)  # fmt: skip


def _flip(record: bytes, random: Random) -> bytes:
    changed = bytearray(record)
    for _ in range(random.choice((1, 1, 2, 5))):
        changed[random.randrange(len(changed))] ^= 1 << random.randrange(8)
    return bytes(changed)


def _insert(record: bytes, random: Random) -> bytes:
    index = random.randrange(len(record) + 1)
    odd = (
        b"\xff",
        b"\x00",
        b"\xed\xa0\x80",
        b"\xc0\x80",
        b"\xf4\x90\x80\x80",
        b"\x80",
        b"\xe6\xbc",
    )
    return record[:index] + random.choice(odd) + record[index:]


BEFORE: Final = (b"\0", b"[", b" \r\n\t", b"\x0b", b"\x0c", b"1 ")
AFTER: Final = (b"\0", b"}", b"null", b" \r\n\t", b",", b"\xa0")
ON_BYTES: Final[tuple[Callable[[bytes, Random], bytes], ...]] = (
    lambda record, random: record[: random.randrange(len(record))],
    lambda record, random: record[random.randrange(len(record)) :],
    _flip,
    _insert,
    lambda record, random: record.ljust(MAX_RECORD_BYTES + random.choice((0, 1))),
    lambda record, random: record.rjust(MAX_RECORD_BYTES + random.choice((0, 1))),
    lambda record, random: b"\xef\xbb\xbf" + record,
    lambda record, random: record.decode("utf-8", "surrogatepass").encode(
        random.choice(("utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-8-sig")),
        "surrogatepass",
    ),
    lambda record, random: record + random.choice(AFTER),
    lambda record, random: random.choice(BEFORE) + record,
    lambda record, random: b"[" + record + b"]",
)
SPACES: Final = ("", "", "", " ", "\n", "\t \r\n", "\x0b", "\xa0", "/**/")


def make_cases(count: int) -> Iterator[Case]:
    """Yield odd and unchanged records, always the same ones."""
    random = Random(SEED)  # noqa: S311 -- no secret
    for _ in range(count):
        row = new_session_row(
            random.choice(("u1", "漢" * 5, "user-" + "x" * 60)),
            NOW + random.randrange(10**9),
            SessionExpiry(),
            random.choice(METADATA),
            random.randbytes,
        )
        members = [
            (json.dumps(name), json.dumps(value, ensure_ascii=random.random() < 0.5))
            for name, value in json.loads(encode_row(row)).items()
        ]
        if random.random() < 0.1:  # as Lucia JS writes it
            del members[4:]
        for _ in range(random.choice((0, 1, 1, 1, 2, 2, 3, 6))):
            random.choice(CHANGES)(members, random)
        yield Case(_joined(members, random), _sought(members, row.id, random))


def _joined(members: Members, random: Random) -> bytes:
    space = random.choice(SPACES) if random.random() < 0.1 else ""
    text = f",{space}".join(f"{name}{space}:{space}{value}" for name, value in members)
    record = f"{space}{{{text}{space}}}{space}".encode("utf-8", "surrogatepass")
    return random.choice(ON_BYTES)(record, random) if random.random() < 0.2 else record


def _sought(members: Members, session_id: str, random: Random) -> str:
    """Return the id in the record, or rarely another one.

    If ids often differed, mismatches would hide other decisions.
    """
    if random.random() < 0.02:
        return "another-id"
    for name, value in members:
        if name == '"id"' and value[:1] == '"':
            try:
                found = json.loads(value)
                found.encode()
            except PARSE_ERRORS:
                continue
            if found:
                session_id = found
    return session_id


# Decisions


def decision_of(row: StoredSession) -> Decision:
    """Return a session as text in which 1, 1.0 and True differ."""
    attributes = sorted(row.attributes.items())
    return repr((row.id, row.user_id, row.active_expires, row.idle_expires, attributes))


@lru_cache(maxsize=FEW)
def decide_carefully(case: Case) -> Decision:
    """Decide with the careful decoder alone."""
    if len(case.record) > MAX_RECORD_BYTES:
        return NO_SESSION
    try:
        row = read_odd_record(case.record)
    except (*PARSE_ERRORS, RecursionError):
        return NO_SESSION
    return decision_of(row) if row.id == case.session_id else ANOTHER


class Server:
    """A server that answers reads with these records, one after another."""

    def __init__(self) -> None:
        self.records: list[bytes] = []

    async def read_exchange(self, commands: Any, seconds: float, **_: Any) -> Any:
        """Answer a batch of reads."""
        ((_, *keys),) = commands
        found, self.records = self.records[: len(keys)], self.records[len(keys) :]
        return [found]


async def decide_in_batches(cases: list[Case]) -> list[Decision]:
    """Decide by batched reads, as requests do."""

    async def recover(session_id: str, error: Exception, seconds: float) -> StoredSession | None:
        raise error

    server = Server()
    reads = AsyncSessionReads(
        PlainLookup(Layout.from_namespaces(None)),
        AsyncSettings(seconds=60.0),
        Revocations(),
        Outage(),
        recover,
    )
    reads.begin(server)
    decisions: list[Decision] = []
    for start in range(0, len(cases), BATCH):
        batch = cases[start : start + BATCH]
        server.records = [case.record for case in batch]
        for future in [reads.find(case.session_id) for case in batch]:
            assert future is not None
            try:
                row = await future
            except MismatchedReply:
                decisions.append(ANOTHER)
            else:
                decisions.append(NO_SESSION if row is None else decision_of(row))
        assert server.records == []
    return decisions


async def differences(cases: list[Case]) -> list[tuple[Case, Decision, Decision]]:
    """Return the cases in which batched reads and the careful decoder differ.

    NUL in a session id is left out. No row with such an id can be made, so the record is found only
    by a request for that very id.
    """
    found = []
    for case, fast in zip(cases, await decide_in_batches(cases), strict=True):
        careful = decide_carefully(case)
        if fast != careful and not _is_nul_in_the_id(case, fast, careful):
            found.append((case, fast, careful))
    return found


def _is_nul_in_the_id(case: Case, fast: Decision, careful: Decision) -> bool:
    if careful != NO_SESSION or rb"\u0000" not in case.record:
        return False
    without = Case(case.record.replace(rb"\u0000", rb"\u0001"), case.session_id.replace("\0", "\1"))
    try:
        row = parse_record(case.record)
    except PARSE_ERRORS:
        return False
    return "\0" in row.id and fast.replace(r"\x00", r"\x01") == decide_carefully(without)


@pytest.fixture(autouse=True)
def _no_lines(caplog: pytest.LogCaptureFixture) -> None:
    """Suppress the log line for each ignored record."""
    caplog.set_level(logging.CRITICAL, "lucia")


@pytest.fixture(scope="module")
def few() -> list[Case]:
    """Return as many cases as a normal run has."""
    return list(make_cases(FEW))


@pytest.mark.parametrize("count", [FEW, pytest.param(MANY, marks=pytest.mark.slow)])
async def test_decisions_about_odd_records(count: int) -> None:
    """The fast and the careful decoder find the same session in each record, or none."""
    assert await differences(list(make_cases(count))) == []


def test_odd_records_are_of_all_kinds(few: list[Case]) -> None:
    """Many cases are decided by the fast decoder, many by the careful one, many are invalid."""
    kinds = Counter[str]()
    for case in few:
        careful = decide_carefully(case)
        try:
            is_fast = parse_record(case.record).id == case.session_id
        except PARSE_ERRORS:
            is_fast = False
        is_session = careful not in (NO_SESSION, ANOTHER)
        kinds["fast" if is_fast else "careful" if is_session else careful] += 1
    assert kinds.keys() == {"fast", "careful", NO_SESSION, ANOTHER}
    assert min(kinds.values()) > FEW / 200, kinds


@pytest.mark.parametrize("metadata", METADATA[:4])
def test_records_of_logins_take_the_fast_path(metadata: dict[str, Any]) -> None:
    """Records that ``Auth`` writes with flat metadata are read by the fast decoder."""
    row = new_session_row("u1", NOW, SessionExpiry(), metadata)
    assert parse_record(encode_row(row)) == row


# Controls: decoders that are not strict enough


class _NoBounds(msgspec.Struct):
    id: str
    user_id: str
    active_expires: int
    idle_expires: int
    created_at: int | msgspec.UnsetType = msgspec.UNSET
    handle: str | msgspec.UnsetType = msgspec.UNSET
    noted: dict[str, str | int | bool | None] | msgspec.UnsetType = msgspec.UNSET
    attributes = SessionRecord.attributes


class _UnknownMembers(SessionRecord, frozen=True, forbid_unknown_fields=False):
    """A record whose unknown members are lost."""


class _NestedMetadata(SessionRecord, frozen=True):
    """A record whose metadata may be nested without a limit."""

    noted: dict[str, Any] | msgspec.UnsetType = msgspec.UNSET


class _NoLongestId(SessionRecord, frozen=True):
    id: Annotated[str, msgspec.Meta(min_length=1)]


class _NoShortestId(SessionRecord, frozen=True):
    id: str
    user_id: str


class _NoLastTime(SessionRecord, frozen=True):
    idle_expires: Annotated[int, msgspec.Meta(ge=0)]


class _NoFirstTime(SessionRecord, frozen=True):
    active_expires: Annotated[int, msgspec.Meta(le=MAX_EPOCH_MS)]


@pytest.mark.parametrize(
    "decode",
    [
        pytest.param(msgspec.json.Decoder(kind, strict=strict).decode, id=name)
        for name, kind, strict in (
            ("no bounds", _NoBounds, True),
            ("unknown members", _UnknownMembers, True),
            ("nested metadata", _NestedMetadata, True),
            ("no longest id", _NoLongestId, True),
            ("no shortest id", _NoShortestId, True),
            ("no last time", _NoLastTime, True),
            ("no first time", _NoFirstTime, True),
            ("not strict", SessionRecord, False),
        )
    ],
)
async def test_decoder_that_is_not_strict_is_caught(
    few: list[Case], monkeypatch: pytest.MonkeyPatch, decode: Any
) -> None:
    """Control: without any one bound of the fast decoder, some decisions differ."""
    monkeypatch.setattr(session_reads_module, "parse_record", decode)
    assert await differences(few) != []


async def test_record_that_is_too_long_is_caught(
    few: list[Case], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Control: without the bound on a record's length, some decisions differ."""
    monkeypatch.setattr(session_reads_module, "MAX_RECORD_BYTES", MAX_RECORD_BYTES + 1)
    assert await differences(few) != []


def test_row_of_the_careful_decoder() -> None:
    """The careful decoder returns a row with all members of the record."""
    record = b'{"id":"a","user_id":"u","active_expires":1,"idle_expires":2,"own":[1.5]}'
    assert read_odd_record(record) == SessionRow(
        id="a", user_id="u", active_expires=1, idle_expires=2, attributes={"own": [1.5]}
    )
