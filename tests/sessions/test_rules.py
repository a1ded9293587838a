"""The pure rules of sessions and keys."""

import base64
import copy
import itertools
import pickle
import re
import string
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lucia import (
    InvalidInput,
    InvalidKeyId,
    InvalidPassword,
    KeyRow,
    OutdatedPassword,
    Session,
    SessionExpiry,
    SessionRow,
    SingleUseKey,
    StoredSession,
    generate_random_string,
)
from lucia._rules.keys import key_id, refusal, sought_key_id, to_key
from lucia._rules.sessions import (
    ALPHANUMERIC,
    created_at_of,
    is_session_id,
    milliseconds,
    new_session_id,
    new_session_row,
    session_state,
    successor_row,
    system_clock,
)
from lucia.models import MAX_EPOCH_MS, SessionState, handle_of, to_datetime
from tests.support.sessions import SESSION_MEMBERS, changed
from tests.support.sessions import session as make_session

MS = timedelta(milliseconds=1)
EXPIRY = SessionExpiry()

times = st.integers(0, MAX_EPOCH_MS)
nows = st.integers(0, MAX_EPOCH_MS // 2)
durations = st.timedeltas(timedelta(0), timedelta(days=365 * 1_000))
texts = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=60
)
names = texts.filter(lambda text: ":" not in text)


@st.composite
def expiries(draw: st.DrawFn) -> SessionExpiry:
    """Return any accepted setting."""
    longer = durations.filter(lambda duration: duration >= MS)
    absolute = draw(st.none() | longer)
    return SessionExpiry(
        active=draw(longer),
        idle=draw(durations),
        absolute=absolute,
        grace=draw(st.timedeltas(0 * MS, 60_000 * MS)),
    )


def row(active_expires: int = 1, idle_expires: int = 2, **attributes: Any) -> SessionRow:
    """Return a session's row."""
    return SessionRow(
        id="i" * 40,
        user_id="u",
        active_expires=active_expires,
        idle_expires=idle_expires,
        attributes=attributes,
    )


# --- random strings


def every_byte() -> Callable[[int], bytes]:
    """Return a source of random bytes that yields all bytes in turn."""
    source = itertools.cycle(range(256))
    return lambda count: bytes(itertools.islice(source, count))


@given(
    st.text(st.characters(max_codepoint=255), min_size=1, max_size=256).map(
        lambda text: "".join(dict.fromkeys(text))
    )
)
def test_every_character_is_equally_likely(alphabet: str) -> None:
    """For any alphabet, each character is equally likely: surplus bytes are rejected."""
    times_each = 256 // len(alphabet)
    drawn = generate_random_string(times_each * len(alphabet), alphabet, random_bytes=every_byte())
    assert Counter(drawn) == dict.fromkeys(alphabet, times_each)


def test_the_default_alphabet_is_uniform() -> None:
    """The default alphabet has 62 characters with four bytes each; 8 bytes are rejected."""
    assert sorted(ALPHANUMERIC) == sorted(string.digits + string.ascii_letters)
    assert Counter(generate_random_string(4 * 62, random_bytes=every_byte())) == dict.fromkeys(
        ALPHANUMERIC, 4
    )


@given(st.integers(0, 300))
def test_a_random_string_has_its_length(length: int) -> None:
    """A random string has the given length, and only characters of the alphabet."""
    drawn = generate_random_string(length)
    assert len(drawn) == length
    assert set(drawn) <= set(ALPHANUMERIC)


def test_a_source_that_gives_little_is_asked_again() -> None:
    """Bytes are drawn until there are enough."""
    asked: list[int] = []

    def one_good_byte(count: int) -> bytes:
        asked.append(count)
        return bytes([255] * (count - 1) + [0])

    assert generate_random_string(3, random_bytes=one_good_byte) == "000"
    assert len(asked) == 3


@pytest.mark.parametrize("alphabet", ["", "aa", "abca", "aé€", "\ud800"])
def test_an_alphabet_that_would_not_be_uniform_is_refused(alphabet: str) -> None:
    """An alphabet must not be empty, repeat a character, or go beyond Latin-1."""
    with pytest.raises(ValueError, match="alphabet must hold"):
        generate_random_string(8, alphabet)


def test_a_negative_length_is_refused() -> None:
    """A negative length is a ValueError."""
    with pytest.raises(ValueError, match="length must not be negative"):
        generate_random_string(-1)


def test_session_ids_are_what_auth_accepts() -> None:
    """A new session id has 40 characters of the alphabet, and is different each time."""
    made = {new_session_id() for _ in range(50)}
    assert len(made) == 50
    assert all(is_session_id(id_) for id_ in made)


@given(st.from_regex(r"[0-9A-Za-z]{38,42}\n?", fullmatch=True) | st.text(min_size=40, max_size=40))
def test_what_is_a_session_id(value: str) -> None:
    """A session id is exactly 40 characters of ``0-9A-Za-z``, without a line feed at the end."""
    assert is_session_id(value) is (
        len(value) == 40 and all(character in ALPHANUMERIC for character in value)
    )


@given(st.binary() | st.none() | st.integers())
def test_non_str_session_id_is_type_error(value: object) -> None:
    """A session id that is not a str is a TypeError that does not quote it."""
    with pytest.raises(
        TypeError, match=rf"\Asession_id must be a str, not {type(value).__name__}\Z"
    ):
        is_session_id(value)


# --- durations and times


@given(durations)
def test_durations_are_rounded_down_to_milliseconds(duration: timedelta) -> None:
    """A duration is rounded down to milliseconds."""
    count = milliseconds("name", duration)
    assert count * MS <= duration < (count + 1) * MS


@given(st.integers() | st.floats() | st.text() | st.none() | st.booleans())
def test_a_bare_number_is_no_duration(value: object) -> None:
    """A bare number as a duration is a TypeError: its unit would be a guess."""
    with pytest.raises(TypeError, match=r"name must be a datetime\.timedelta, not"):
        milliseconds("name", value)


@given(st.timedeltas(max_value=-timedelta.resolution))
def test_a_negative_duration_is_refused(duration: timedelta) -> None:
    """A negative duration is refused, even one that would be rounded to zero."""
    with pytest.raises(ValueError, match="name must not be negative"):
        milliseconds("name", duration)


@given(times)
def test_times_are_exact(epoch_ms: int) -> None:
    """A time is exact to the millisecond, up to the end of the year 9999, and in UTC."""
    time = to_datetime(epoch_ms)
    assert (time - to_datetime(0)) // MS == epoch_ms
    assert time.utcoffset() == timedelta(0)
    assert time.microsecond % 1_000 == 0


def test_the_system_clock_counts_milliseconds_since_the_epoch() -> None:
    """The system clock returns milliseconds since the epoch as an int."""
    now = system_clock()
    assert isinstance(now, int)
    assert 2025 < to_datetime(now).year < 2100


@pytest.mark.parametrize(
    ("durations", "message"),
    [
        ({"active": timedelta(0)}, "longer than zero"),
        ({"active": timedelta(microseconds=999)}, "longer than zero"),
        ({"absolute": timedelta(0)}, "longer than zero"),
        ({"absolute": -MS}, "absolute must not be negative"),
        ({"active": -MS}, "active must not be negative"),
        ({"idle": -MS}, "idle must not be negative"),
        ({"grace": -MS}, "grace must not be negative"),
        ({"grace": timedelta(seconds=60) + MS}, "at most 60 seconds"),
        ({"active": timedelta(days=365 * 4_100)}, "longer than 4,000 years"),
        ({"idle": timedelta.max}, "longer than 4,000 years"),
    ],
)
def test_settings_that_make_no_sense_are_refused(
    durations: dict[str, timedelta], message: str
) -> None:
    """An invalid setting is a ValueError that says what is wrong."""
    with pytest.raises(ValueError, match=message):
        SessionExpiry(**durations)


def test_the_defaults() -> None:
    """The defaults are 24 h active, 14 days idle, no absolute lifetime, and 60 s grace."""
    assert (EXPIRY.active_ms, EXPIRY.idle_ms, EXPIRY.absolute_ms, EXPIRY.grace_ms) == (
        86_400_000,
        1_209_600_000,
        None,
        60_000,
    )
    assert EXPIRY.ends(1_000, 1_000) == (86_401_000, 1_296_001_000)


# --- expiry of a session


@given(expiries(), times, times)
@example(SessionExpiry(absolute=timedelta(days=90)), MAX_EPOCH_MS, MAX_EPOCH_MS)
def test_ends_obey_the_absolute_lifetime(expiry: SessionExpiry, now: int, created_at: int) -> None:
    """Both ends are limited by the absolute lifetime and the year 9999; active is never later."""
    active, idle = expiry.ends(now, created_at)
    assert active <= idle <= MAX_EPOCH_MS
    if expiry.absolute_ms is not None:
        assert idle <= created_at + expiry.absolute_ms
    if idle < min(
        MAX_EPOCH_MS,
        MAX_EPOCH_MS if expiry.absolute_ms is None else created_at + expiry.absolute_ms,
    ):
        assert (active, idle) == (now + expiry.active_ms, now + expiry.active_ms + expiry.idle_ms)


@given(expiries(), nows, st.lists(st.integers(0, 10**9), max_size=5))
def test_renewals_never_pass_the_absolute_lifetime(
    expiry: SessionExpiry, now: int, steps: list[int]
) -> None:
    """Over any chain of renewals, the absolute end, the handle and the creation are kept."""
    first = found = new_session_row("u", now, expiry, {"a": 1})
    for step in steps:
        now += step
        found = successor_row(found, now, expiry)
        assert found.attributes == first.attributes
        assert found.user_id == first.user_id
    assert created_at_of(found, expiry) == first.attributes["created_at"]
    if expiry.absolute_ms is not None:
        assert found.idle_expires <= first.attributes["created_at"] + expiry.absolute_ms
    assert (found.id == first.id) is (not steps)


@given(nows, expiries())
def test_a_new_session_begins_active(now: int, expiry: SessionExpiry) -> None:
    """A new session is active with any settings."""
    assert session_state(new_session_row("u", now, expiry, {}), now) == "active"


@given(times, times, times)
def test_the_state_by_the_times(active_expires: int, idle_expires: int, now: int) -> None:
    """A session is active until its active end, inclusive, then idle until its idle end."""
    state = session_state(row(active_expires, idle_expires), now)
    assert (state is None) is (now > idle_expires)
    if state is not None:
        assert (state == "idle") is (now > active_expires)


@given(times, times, st.integers(0, MAX_EPOCH_MS))
def test_a_state_never_goes_back(active_expires: int, idle_expires: int, now: int) -> None:
    """A session goes from active to idle to expired, and never back."""
    order = {"active": 0, "idle": 1, None: 2}
    states = [
        order[session_state(row(active_expires, idle_expires), moment)]
        for moment in range(now, now + 3)
    ]
    assert states == sorted(states)


# --- records of other programs

anything = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.lists(st.integers())
    | st.dictionaries(st.text(), st.none())
)


@given(anything, anything, anything, times)
def test_odd_attributes_never_raise(
    created_at: Any, handle: Any, metadata: Any, active_expires: int
) -> None:
    """Any values that another program wrote under our names are valid, and a renewal keeps them."""
    odd = row(active_expires, MAX_EPOCH_MS, created_at=created_at, handle=handle, noted=metadata)
    assert 0 <= created_at_of(odd, EXPIRY) <= MAX_EPOCH_MS
    assert handle_of(odd)
    successor = successor_row(odd, 1_000, EXPIRY)
    assert (created_at_of(successor, EXPIRY), handle_of(successor)) == (
        created_at_of(odd, EXPIRY),
        handle_of(odd),
    )


def test_a_derived_handle_is_stable_and_tells_nothing() -> None:
    """A derived handle is 16 bytes of a hash of the id, stable, and does not reveal the id."""
    handle = handle_of(row())
    assert handle == handle_of(row(7, 8)) == handle_of(row(handle=None))
    assert re.fullmatch(r"[0-9A-Za-z_-]{22}", handle)
    assert len(base64.urlsafe_b64decode(handle + "==")) == 16
    other = SessionRow(id="i" * 39 + "j", user_id="u", active_expires=1, idle_expires=2)
    assert handle_of(other) != handle


# --- sessions as the application gets them


def to_session(
    found: StoredSession, state: SessionState, expiry: SessionExpiry, *, fresh: bool
) -> Session:
    """Return the session of a record."""
    return Session(found, state, fresh, expiry.active_ms)


@given(
    times, times, st.none() | times, st.sampled_from([None, {}, {"agent": ["a"]}]), st.booleans()
)
def test_a_session_is_one_like_any_other(
    active: int, idle: int, created_at: int | None, metadata: Any, fresh: bool
) -> None:
    """A session has the members of its record, is read-only, and equals its copies."""
    found = row(active, idle, created_at=created_at, handle="h", noted=metadata)
    session = to_session(found, "idle", EXPIRY, fresh=fresh)
    assert type(session) is Session
    same = make_session(
        session_id=found.id,
        user_id="u",
        active_period_expires_at=to_datetime(active),
        idle_period_expires_at=to_datetime(idle),
        state="idle",
        fresh=fresh,
        handle="h",
        created_at=to_datetime(created_at_of(found, EXPIRY)),
        metadata=metadata or {},
    )
    copies: list[Session] = [
        same,
        changed(session),
        copy.copy(session),
        copy.deepcopy(session),
        pickle.loads(pickle.dumps(session)),  # noqa: S301 -- pickled here
    ]
    for each in copies:
        assert type(each) is Session
        assert each == session
        assert hash(each) == hash(session)
        assert repr(each) == repr(session)
        assert each.session_id == found.id
    unchecked: Any = session
    for name in (*SESSION_MEMBERS, "session_id"):
        with pytest.raises(AttributeError):
            setattr(unchecked, name, "other")
        with pytest.raises(AttributeError):
            delattr(unchecked, name)
    with pytest.raises(AttributeError):
        unchecked.name_of_no_member = 1


def test_two_sessions_of_one_row() -> None:
    """Sessions of one row are equal if settings, state and freshness are the same."""
    found, other = row(), SessionExpiry(active=timedelta(hours=1))
    session = to_session(found, "active", EXPIRY, fresh=False)
    assert to_session(found, "active", EXPIRY, fresh=False) == session
    assert to_session(found, "active", EXPIRY, fresh=True).fresh
    assert not to_session(found, "active", EXPIRY, fresh=False).fresh
    assert to_session(found, "active", EXPIRY, fresh=True) != session
    assert to_session(found, "idle", EXPIRY, fresh=False).state == "idle"
    assert to_session(found, "idle", EXPIRY, fresh=False) != session
    long_ago = row(active_expires=MAX_EPOCH_MS)
    assert [
        to_session(long_ago, "active", expiry, fresh=False).created_at
        for expiry in (EXPIRY, other, EXPIRY)
    ] == [to_datetime(created_at_of(long_ago, expiry)) for expiry in (EXPIRY, other, EXPIRY)]
    assert to_session(long_ago, "active", EXPIRY, fresh=False) != to_session(
        long_ago, "active", other, fresh=False
    )


# --- keys


@given(names, texts)
def test_key_ids_round_trip(provider_id: str, provider_user_id: str) -> None:
    """A key id is split at its first colon; the second part may have colons."""
    stored = KeyRow(
        id=key_id(provider_id, provider_user_id),
        user_id="u",
        hashed_password=None,
        primary_key=False,
        expires=None,
    )
    key = to_key(stored, 0, "u")
    assert (key.provider_id, key.provider_user_id) == (provider_id, provider_user_id)
    assert sought_key_id(provider_id, provider_user_id) == stored.id


@given(names, texts, names, texts)
def test_no_two_keys_share_an_id(one: str, one_user: str, other: str, other_user: str) -> None:
    """Different names make different key ids, since ``provider_id`` has no colon."""
    assert (key_id(one, one_user) == key_id(other, other_user)) is (
        (one, one_user) == (other, other_user)
    )


@given(st.tuples(texts, texts).map(":".join), texts)
def test_a_provider_id_holds_no_colon(provider_id: str, provider_user_id: str) -> None:
    """A ``provider_id`` with a colon is refused, both to create a key and to find one."""
    for function in (key_id, sought_key_id):
        with pytest.raises(ValueError, match="provider_id may hold no colon"):
            function(provider_id, provider_user_id)


@pytest.mark.parametrize("name", ["", "\ud800", "\0", "a\0", "x" * 254])
def test_an_impossible_name_is_refused_to_make_and_unknown_to_look_up(name: str) -> None:
    """An impossible name is an error when creating a key, and not found otherwise."""
    with pytest.raises(InvalidInput, match=r"\Aa name "):
        key_id("p", name)
    assert sought_key_id("p", name) is None


def test_the_longest_name_of_a_key() -> None:
    """A name can use what the provider and a colon leave of 255 characters."""
    assert len(key_id("p", "x" * 253)) == 255


@given(st.binary() | st.none() | st.integers())
def test_non_str_key_name_is_type_error(name: Any) -> None:
    """A name that is not a str is a TypeError that names the argument."""
    for function in (key_id, sought_key_id):
        with pytest.raises(
            TypeError, match=rf"\Aprovider_user_id must be a str, not {type(name).__name__}\Z"
        ):
            function("p", name)


def test_longest_provider_id() -> None:
    """A ``provider_id`` leaves room for a colon and a name of one character."""
    assert len(key_id("p" * 253, "x")) == 255
    for function in (key_id, sought_key_id):
        with pytest.raises(ValueError, match=r"\Aprovider_id has 254 characters, more than 253"):
            function("p" * 254, "x")


@pytest.mark.parametrize("provider_id", ["", "\ud800", "a\0"])
def test_an_impossible_provider_is_a_programming_error(provider_id: str) -> None:
    """An impossible ``provider_id``, which comes from code, is always a ValueError."""
    for function in (key_id, sought_key_id):
        with pytest.raises(ValueError, match="provider_id"):
            function(provider_id, "name")


@pytest.mark.parametrize("expires", [None, 5])
@pytest.mark.parametrize(
    ("hashed", "given", "refused"),
    [
        (None, False, None),
        (None, True, InvalidPassword),
        ("$scrypt$…", True, None),
        ("$scrypt$…", False, InvalidPassword),
        ("", True, None),
        ("$2a$10$…", True, OutdatedPassword),
        ("$2a$10$…", False, InvalidPassword),
    ],
)
def test_what_refuses_a_key(
    hashed: str | None, refused: type[Exception] | None, expires: int | None, *, given: bool
) -> None:
    """A key without a password refuses one, a key with one requires it, and bcrypt is outdated."""
    key = KeyRow(id="p:u", user_id="u", hashed_password=hashed, primary_key=False, expires=expires)
    assert refusal(key, password_given=given) is refused


@pytest.mark.parametrize("given", [False, True])
def test_an_unknown_key_is_refused(*, given: bool) -> None:
    """An unknown key is InvalidKeyId, with and without a password."""
    assert refusal(None, password_given=given) is InvalidKeyId


@given(times, times)
def test_single_use_key_expires_after_its_last_millisecond(expires: int, now: int) -> None:
    """A single-use key expires after its end; at its end it is still valid."""
    key = to_key(
        KeyRow(id="p:u", user_id="u", hashed_password=None, primary_key=False, expires=expires),
        now,
        "u",
    )
    assert isinstance(key, SingleUseKey)
    assert key.expired is (now > expires)
