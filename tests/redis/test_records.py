"""The names of keys and the JSON of records and markers."""

import json
import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lucia._redis.index import LIST, SET
from lucia._redis.keys import Layout
from lucia._redis.records import (
    MAX_RECORD_BYTES,
    Marker,
    MismatchedReply,
    decode_marker,
    decode_row,
    encode_marker,
    encode_row,
)
from lucia.models import MAX_EPOCH_MS, SESSION_COLUMNS, SessionRow

ROW = SessionRow(id="abc", user_id="u1", active_expires=1_000, idle_expires=2_000)

texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=40)
epochs = st.integers(0, MAX_EPOCH_MS)
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda children: (
        st.lists(children, max_size=3) | st.dictionaries(st.text(), children, max_size=3)
    ),
    max_leaves=8,
)
rows = st.builds(
    SessionRow,
    id=texts,
    user_id=texts,
    active_expires=epochs,
    idle_expires=epochs,
    attributes=st.dictionaries(
        st.text().filter(lambda name: name not in SESSION_COLUMNS), json_values, max_size=4
    ),
)


def record(**changes: Any) -> bytes:
    """Return a valid record of the session ``abc`` with these changes."""
    members = {
        "id": "abc",
        "user_id": "u1",
        "active_expires": 1_000,
        "idle_expires": 2_000,
        **changes,
    }
    return json.dumps({name: value for name, value in members.items() if value is not ...}).encode()


def replaced(member: str, text: str) -> bytes:
    """Return a valid record in which a member's value is this text, JSON or not."""
    return record(**{member: "@"}).replace(b'"@"', text.encode())


# Keys


def test_layout_of_the_newer_adapter() -> None:
    """``lucia-v2`` keeps indexes as sets under ``user_sessions``.

    Keys of sessions and markers are named as in the default layout. Namespaces can be chosen too.
    """
    layout = Layout.from_namespaces(None, "lucia-v2")
    assert (layout.session_key("abc"), layout.index_key("u1"), layout.index) == (
        "session:abc",
        "user_sessions:u1",
        SET,
    )
    assert layout.marker_key("abc") == Layout.from_namespaces(None).marker_key("abc")
    assert Layout.from_namespaces({"user_session": "mine"}, "lucia-v2") == Layout(
        "session", "mine", SET
    )
    assert Layout.from_namespaces(None).index is LIST


def test_layout_must_be_known() -> None:
    """An unknown layout is refused, and the error names the known ones."""
    with pytest.raises(
        ValueError, match=r"\Aunknown layout 'v3': expected 'default' or 'lucia-v2'\Z"
    ):
        Layout.from_namespaces(None, cast("Any", "v3"))


@pytest.mark.parametrize("namespaces", ["app", b"app", ["session", "user_session"], 1])
def test_namespaces_are_a_mapping(namespaces: Any) -> None:
    """A single prefix for both namespaces is a TypeError that shows what to write."""
    with pytest.raises(TypeError) as caught:
        Layout.from_namespaces(namespaces)
    assert str(caught.value) == (
        f"namespaces must be a mapping, not {type(namespaces).__name__}: "
        "write, for the prefix app, "
        "namespaces={'session': 'app:session', 'user_session': 'app:userSession'}"
    )


@pytest.mark.parametrize(
    "namespaces",
    [None, {}, {"session": "session"}, {"session": "session", "user_session": "userSession"}],
)
def test_default_keys(namespaces: Mapping[str, str] | None) -> None:
    """By default keys are ``session:{id}`` and ``userSession:{user id}``, as documented."""
    layout = Layout.from_namespaces(namespaces)
    assert layout.session_key("abc") == "session:abc"
    assert layout.index_key("u1") == "userSession:u1"
    assert layout.marker_key("abc") == "session:renewed:{session:abc}"


@pytest.mark.parametrize(
    ("namespaces", "session", "index", "marker"),
    [
        ({"session": "app1"}, "app1:abc", "userSession:u1", "app1:renewed:{app1:abc}"),
        ({"user_session": "app1"}, "session:abc", "app1:u1", "session:renewed:{session:abc}"),
        ({"session": "a:b", "user_session": "a:c"}, "a:b:abc", "a:c:u1", "a:b:renewed:{a:b:abc}"),
        (
            {"session": "{x}s", "user_session": "{x}u"},
            "{x}s:abc",
            "{x}u:u1",
            "{x}s:renewed:{x}s:abc",
        ),
    ],
)
def test_own_namespaces(
    namespaces: Mapping[str, str], session: str, index: str, marker: str
) -> None:
    """Each namespace can be chosen on its own."""
    layout = Layout.from_namespaces(namespaces)
    assert (layout.session_key("abc"), layout.index_key("u1"), layout.marker_key("abc")) == (
        session,
        index,
        marker,
    )


@pytest.mark.parametrize(
    "namespaces",
    [
        {"session": ""},
        {"user_session": ""},
        {"session": " "},
        {"session": "\t\n\u2003"},
        {"session": "{"},
        {"session": "}"},
        {"session": "}{"},
        {"session": "a}b{c"},
        {"session": "{}"},
        {"session": "{a}{b}"},
        {"session": "{{a}}"},
        {"user_session": "{a"},
        {"session": "userSession"},
        {"user_session": "session"},
        {"session": "x", "user_session": "x"},
        {"user_session": "session:renewed"},
        {"user_session": "session:users"},
        {"session": "userSession:sessions"},
        {"userSession": "x"},
        {"user": "x"},
        {"Session": "x", "session": "y"},
    ],
)
def test_refused_namespaces(namespaces: Mapping[str, str]) -> None:
    """Empty, blank, unknown and ambiguous namespaces, and unbalanced braces, are refused."""
    with pytest.raises(ValueError, match="namespace"):
        Layout.from_namespaces(namespaces)


@pytest.mark.parametrize("namespace", [None, b"session", 1])
def test_namespaces_are_text(namespace: Any) -> None:
    """A namespace that is not a str is refused."""
    with pytest.raises(TypeError, match="namespace session must be a str"):
        Layout.from_namespaces({"session": namespace})


def test_similar_namespaces() -> None:
    """The colon tells apart two namespaces of which one begins with the other."""
    layout = Layout.from_namespaces({"session": "session", "user_session": "sessions"})
    assert not layout.index_key("u1").startswith(layout.session_key(""))


@given(session=texts, other=texts, namespace=st.sampled_from(["session", "a:b", "{x}s"]))
def test_kinds_of_keys_never_collide(session: str, other: str, namespace: str) -> None:
    """No storable session id makes a key that is a user's index or another id's marker."""
    layout = Layout.from_namespaces({"session": namespace})
    assert layout.session_key(session) != layout.index_key(other)
    if layout.is_storable(session):
        assert layout.session_key(session) != layout.marker_key(other)
    assert not layout.is_storable(layout.marker_key(other).removeprefix(f"{namespace}:"))


# Records


def test_record_word_for_word() -> None:
    """A record is the JSON that ``JSON.stringify`` makes, with exactly the given members."""
    assert (
        encode_row(ROW) == b'{"id":"abc","user_id":"u1","active_expires":1000,"idle_expires":2000}'
    )
    metadata = SessionRow(
        id="abc",
        user_id="ü",
        active_expires=1,
        idle_expires=2,
        attributes={"handle": "h", "n": [1, None]},
    )
    assert encode_row(metadata).decode() == (
        '{"id":"abc","user_id":"ü","active_expires":1,"idle_expires":2,"handle":"h","n":[1,null]}'
    )


def test_lone_surrogate_in_an_attribute() -> None:
    """A lone surrogate, which UTF-8 can't hold, is stored as an escape and decoded again."""
    row = SessionRow(
        id="abc", user_id="u1", active_expires=1, idle_expires=2, attributes={"agent": "\ud800ü"}
    )
    assert decode_row(encode_row(row), "abc") == row


@given(rows)
def test_records_come_back(row: SessionRow) -> None:
    """Every encoded row is decoded to an equal one, with its attributes."""
    assert decode_row(encode_row(row), row.id) == row


scalars = st.text() | st.integers() | st.booleans() | st.none()


@given(
    st.dictionaries(
        st.text() | st.integers() | st.booleans(), scalars | st.dictionaries(st.text(), scalars)
    )
)
def test_the_fast_encoder_writes_the_same_bytes(metadata: dict[Any, Any]) -> None:
    """msgspec encodes most records, and ``json`` the others; a reader sees no difference."""
    row = SessionRow(
        id="abc", user_id="u", active_expires=1, idle_expires=2, attributes={"noted": metadata}
    )
    columns = {"id": "abc", "user_id": "u", "active_expires": 1, "idle_expires": 2}
    text = json.dumps({**columns, "noted": metadata}, ensure_ascii=False, separators=(",", ":"))
    assert encode_row(row) == text.encode()


def nested(depth: int) -> Any:
    """Return an empty list inside this many others."""
    value: Any = []
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    "value",
    [
        object(),
        b"bytes",
        {1, 2},
        float("nan"),
        float("inf"),
        nested(100_000),
        {"k": object()},
        "x" * MAX_RECORD_BYTES,
        "ü" * 8_200,
    ],
)
def test_what_no_record_can_hold(value: Any) -> None:
    """An attribute that is not JSON, and a record over 16 KiB, raise ValueError.

    The error does not show the value.
    """
    row = SessionRow(
        id="a-secret-session-id",
        user_id="u1",
        active_expires=1,
        idle_expires=2,
        attributes={"noted": value},
    )
    with pytest.raises(ValueError, match=r"can't be stored as JSON|more than 16384") as raised:
        encode_row(row)
    assert "a-secret-session-id" not in str(raised.value)
    assert "xxx" not in str(raised.value)


def test_longest_record() -> None:
    """A record of 16 KiB is written and read. One byte more is not."""
    empty = len(
        encode_row(
            SessionRow(
                id="abc", user_id="u1", active_expires=1, idle_expires=2, attributes={"x": ""}
            )
        )
    )
    row = SessionRow(
        id="abc",
        user_id="u1",
        active_expires=1,
        idle_expires=2,
        attributes={"x": "x" * (MAX_RECORD_BYTES - empty)},
    )
    assert decode_row(encode_row(row), "abc") == row
    assert decode_row(encode_row(row) + b" ", "abc") is None


CORRUPT = {
    "nothing": b"",
    "no JSON": b"garbage",
    "half a record": record()[:-3],
    "more than a record": record() + b"}",
    "no UTF-8": b'{"id":"\xff\xfe"}',
    "a compressed blob": bytes(range(256)),
    "a list": b"[]",
    "a string": b'"abc"',
    "null": b"null",
    "a number": b"1",
    "no members": b"{}",
    "no id": record(id=...),
    "no user": record(user_id=...),
    "no expiry": record(idle_expires=...),
    "an id that is a number": record(id=1),
    "an id that is null": record(id=None),
    "an id that is a list": record(id=["abc"]),
    "an empty id": record(id=""),
    "a user that is a number": record(user_id=1),
    "an empty user": record(user_id=""),
    "a user with a lone surrogate": replaced("user_id", r'"\ud800"'),
    "a user of 20 kB": record(user_id="u" * 12_289),
    "a boolean expiry": record(idle_expires=True),
    "an expiry that is text": record(idle_expires="2000"),
    "an expiry with a fraction": record(idle_expires=2000.5),
    "an expiry before 1970": record(idle_expires=-1),
    "an expiry beyond the year 9999": record(idle_expires=MAX_EPOCH_MS + 1),
    "an expiry of 5,000 digits": replaced("idle_expires", "9" * 5_000),
    "NaN": replaced("idle_expires", "NaN"),
    "Infinity": replaced("idle_expires", "Infinity"),
    "minus Infinity in an attribute": replaced("noted", "-Infinity"),
    "a number that is too large": replaced("idle_expires", "1e999"),
    "a number that is too large in an attribute": replaced("noted", "-1e999"),
    "deep nesting": replaced("noted", "[" * 8_000 + "]" * 8_000),
    "deep nesting that never ends": b"[" * 16_000,
    "deep objects": replaced("noted", '{"a":' * 3_000 + "1" + "}" * 3_000),
    "more than 16 KiB": record(noted="x" * MAX_RECORD_BYTES),
}


@pytest.mark.parametrize("value", CORRUPT.values(), ids=CORRUPT)
def test_invalid_record_is_no_session(value: bytes, caplog: pytest.LogCaptureFixture) -> None:
    """An invalid record is no session, and is logged without its content or an id."""
    assert decode_row(value, "abc") is None
    (line,) = caplog.records
    assert (line.name, line.levelno, line.exc_info) == ("lucia.redis", logging.WARNING, None)
    assert line.getMessage().startswith("a session record was ignored: ")
    assert len(line.getMessage()) < 200
    assert "abc" not in line.getMessage()


@given(
    st.binary(max_size=200)
    | st.text(max_size=100).map(str.encode)
    | json_values.map(lambda value: json.dumps(value).encode())
)
def test_any_bytes(value: bytes) -> None:
    """Arbitrary bytes decode to no session and raise nothing."""
    assert decode_row(value, "abc") is None


@given(st.data())
def test_damaged_records(data: st.DataObject) -> None:
    """A record with one changed byte is this id's session, a mismatch, or no session."""
    value = bytearray(record())
    value[data.draw(st.integers(0, len(value) - 1))] = data.draw(st.integers(0, 255))
    try:
        row = decode_row(bytes(value), "abc")
    except MismatchedReply:
        assert b'"abc"' not in value
    else:
        assert row is None or row.id == "abc"


@given(members=st.dictionaries(st.sampled_from([*sorted(SESSION_COLUMNS), "other"]), json_values))
def test_wrong_members(members: dict[str, Any]) -> None:
    """Members of any JSON type raise nothing but `MismatchedReply`."""
    value = json.dumps({**json.loads(record()), **members}).encode()
    try:
        row = decode_row(value, "abc")
    except MismatchedReply:
        assert members["id"] != "abc"
    else:
        assert row is None or (row.id == "abc" and type(row.idle_expires) is int)


def test_unknown_members() -> None:
    """Unknown members are kept as attributes."""
    row = decode_row(record(handle="h", extra={"deep": [1]}), "abc")
    assert row is not None
    assert row.attributes == {"handle": "h", "extra": {"deep": [1]}}


@pytest.mark.parametrize(
    "encoding",
    ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"],
)
@pytest.mark.parametrize("layout", ["{}", " {}", "{}\n", "\t{}\r\n "])
def test_other_json_encodings_are_accepted(encoding: str, layout: str) -> None:
    """A record may have white space around it, and any encoding that ``json.loads`` accepts."""
    assert decode_row(
        layout.replace("{}", record(noted="ü").decode()).encode(encoding), "abc"
    ) == replace(ROW, attributes={"noted": "ü"})


def test_last_duplicate_member_counts() -> None:
    """If a member occurs twice, the last one counts, as in JavaScript."""
    assert decode_row(record()[:-1] + b',"user_id":"u2"}', "abc") == replace(ROW, user_id="u2")


@pytest.mark.parametrize("metadata", [{}, [], {"a": [{"b": []}]}, [[{}]], "{", "[{"])
def test_attributes_are_the_callers_own(metadata: Any) -> None:
    """Changing the attributes that one caller got does not change another's."""
    value = record(noted=metadata)
    row, other = decode_row(value, "abc"), decode_row(value, "abc")
    assert row is not None
    assert other is not None
    changed: Any = row.attributes
    changed["noted"] = changed["more"] = "changed"
    assert other.attributes == {"noted": metadata}


def test_record_of_another(caplog: pytest.LogCaptureFixture) -> None:
    """Another id's record is a mismatch, not a corrupt record; the log line has neither id."""
    with pytest.raises(MismatchedReply):
        decode_row(record(), "abd")
    assert [line.getMessage() for line in caplog.records] == [
        "a session record was ignored: it is another session's"
    ]


# Markers


def test_marker_word_for_word() -> None:
    """A marker is JSON with the used id, its successor and the grace period in milliseconds."""
    assert (
        encode_marker(Marker("old", "new", 60_000))
        == b'{"id":"old","successor":"new","grace":60000}'
    )


@given(st.builds(Marker, texts, texts, st.integers(0, 60_000)))
def test_markers_come_back(marker: Marker) -> None:
    """Every encoded marker is decoded to an equal one."""
    assert decode_marker(encode_marker(marker), marker.id) == marker


@pytest.mark.parametrize(
    "value",
    [
        None,
        b"",
        b"garbage",
        b"\xff",
        b"[]",
        b"{}",
        b'{"id":"old","successor":"new"}',
        b'{"id":"old","successor":"","grace":1}',
        b'{"id":"old","successor":1,"grace":1}',
        b'{"id":"old","successor":"new","grace":"1"}',
        b'{"id":"old","successor":"new","grace":true}',
        b'{"id":"old","successor":"new","grace":-1}',
        b'{"id":"old","successor":"new","grace":60001}',
        b'{"id":"old","successor":"new","grace":1.0}',
        b'{"id":"old","successor":"new","grace":1e999}',
        b"[" * 16_000,
        b'{"id":"old","successor":"new","grace":1,"x":"' + b"x" * MAX_RECORD_BYTES + b'"}',
    ],
)
def test_invalid_marker_is_none(value: bytes | None) -> None:
    """An invalid marker decodes to None."""
    assert decode_marker(value, "old") is None


@given(st.binary(max_size=100) | json_values.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_as_marker(value: bytes) -> None:
    """Arbitrary bytes decode to no marker and raise nothing."""
    assert decode_marker(value, "old") is None


@pytest.mark.parametrize("value", [1, [], [b"{}"], "{}"])
def test_what_is_no_string_is_no_marker(value: Any) -> None:
    """A reply that is no string is a mismatch: it belongs to another command."""
    with pytest.raises(MismatchedReply):
        decode_marker(value, "old")


@pytest.mark.parametrize("id_", ['"other"', "null", "1"])
def test_marker_of_another(id_: str) -> None:
    """Another id's marker is a mismatch, so it never leads to another user's session."""
    with pytest.raises(MismatchedReply):
        decode_marker(f'{{"id":{id_},"successor":"new","grace":1}}'.encode(), "old")


def test_nesting_is_bounded_both_ways() -> None:
    """Records nested a hundred deep are written and read, in every version of Python.

    One level more is neither.
    """
    deepest: object = 1
    for _ in range(99):
        deepest = [deepest]
    session = SessionRow(
        id="a", user_id="{" * 300, active_expires=1, idle_expires=2, attributes={"noted": deepest}
    )
    assert decode_row(encode_row(session), "a") == session
    with pytest.raises(ValueError, match="can't be stored as JSON"):
        encode_row(replace(session, attributes={"noted": [deepest]}))
    assert decode_row(encode_row(session).replace(b"[1]", b"[[1]]"), "a") is None


@pytest.mark.parametrize(
    "metadata", [[[]] * 150, [{}] * 150, {"a": [{"b": []}] * 60}, "[" * 150, "{" * 150], ids=str
)
def test_wide_record_is_accepted(metadata: Any) -> None:
    """Only nesting counts, neither the number of lists and objects nor brackets in text."""
    session = replace(ROW, attributes={"noted": metadata})
    assert decode_row(encode_row(session), "abc") == session
