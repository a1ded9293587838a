"""Passwords as ``Auth`` uses them. ``test_ours_`` marks where this library corrects the original."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any

import pytest

from lucia import (
    AsyncAuth,
    ExpiredKey,
    InvalidCredentials,
    InvalidInput,
    InvalidKeyId,
    InvalidPassword,
    InvalidSessionId,
    KeyRow,
    LuciaHash,
    OutdatedPassword,
    Overloaded,
    PrimaryKey,
    ScryptHash,
    Session,
    SessionsNotRevoked,
    User,
)
from lucia._compat.password_pool import NEW_PASSWORDS, _Turn, _Turns, owner_of
from lucia._testing.racing_calls import AsyncRacingCalls
from tests.aio.support.watched_store import AsyncWatchedStore, StoreDownError, make_auth
from tests.support.clocks import Time
from tests.support.passwords import CHEAP, CountingHash
from tests.support.requests import Exchange

PASSWORD = "correct horse battery staple"
NEW = "Tr0ub4dor&3"
OTHER_COST = ScryptHash(ln=5, r=1, p=1)
UNACCEPTABLE = ["", "x" * 1_001, "\ud800", "lone \udfff surrogate"]
ALICE = ("username", "alice")
BCRYPT = "$2a$10$N9qo8uLOickgx2ZMRZoMyeIjZAgcfl7p92ldGxad68LJZdL17lhWy"


class FullHash(CountingHash):
    """A hasher whose queue is full once it is told so: it refuses as the workers do."""

    full = False

    def hash(self, password: str, /) -> str:
        """As the counting one, unless full."""
        if self.full:
            raise Overloaded
        return super().hash(password)


@pytest.fixture
def hasher() -> FullHash:
    """What ``Auth`` is given as ``hash=``."""
    return FullHash()


@pytest.fixture
def auth(store: AsyncWatchedStore, time: Time, hasher: FullHash) -> AsyncAuth[User]:
    """An ``Auth`` with a hasher that counts."""
    return make_auth(store, time, hash=hasher)


@pytest.fixture
async def user_id(auth: AsyncAuth[User]) -> str:
    """A user with a primary key."""
    user = await auth.create_user(primary_key=PrimaryKey(*ALICE, PASSWORD))
    return user.user_id


async def stored_hash(store: AsyncWatchedStore, name: str = "username:alice") -> str | None:
    """The hash that a key has now."""
    row = await store.get_key(name)
    assert row is not None
    return row.hashed_password


async def sessions_of(store: AsyncWatchedStore, user_id: str) -> list[str]:
    """The ids of a user's sessions."""
    return [row.id for row in await store.get_sessions_by_user_id(user_id)]


# --- what is accepted


async def test_a_key_takes_its_password_alone(auth: AsyncAuth[User], user_id: str) -> None:
    """The right password proves the user; another one, and none at all, is InvalidPassword."""
    assert (await auth.use_key(*ALICE, PASSWORD)).user_id == user_id
    for wrong in (PASSWORD + " ", PASSWORD.upper(), None):
        with pytest.raises(InvalidPassword):
            await auth.use_key(*ALICE, wrong)


async def test_ours_a_key_without_a_password_takes_none(
    auth: AsyncAuth[User], user_id: str
) -> None:
    """It is used with ``password=None`` alone: any text is InvalidPassword."""
    await auth.create_key(user_id, provider_id="github", provider_user_id="1", password=None)
    assert (await auth.use_key("github", "1", None)).user_id == user_id
    for text in (PASSWORD, "None", " ", *UNACCEPTABLE):
        with pytest.raises(InvalidPassword):
            await auth.use_key("github", "1", text)


@pytest.mark.parametrize(
    "password", UNACCEPTABLE, ids=["empty", "long", "surrogate", "surrogate inside"]
)
async def test_ours_an_unacceptable_password_is_refused_before_any_work(
    auth: AsyncAuth[User], store: AsyncWatchedStore, hasher: FullHash, user_id: str, password: str
) -> None:
    """Empty, over 1,000 characters or unencodable: InvalidInput where it would be made, InvalidPassword where it is used, no hashing."""
    hasher.made.clear()
    store.calls.clear()
    makers: list[Callable[[], Any]] = [
        partial(auth.create_user, primary_key=PrimaryKey("username", "bob", password)),
        partial(
            auth.create_key, user_id, provider_id="email", provider_user_id="a", password=password
        ),
        partial(
            auth.create_single_use_key,
            user_id,
            provider_id="r",
            provider_user_id="t",
            password=password,
            expires_in=timedelta(hours=1),
        ),
        partial(auth.update_key_password, *ALICE, password),
    ]
    for make in makers:
        with pytest.raises(InvalidInput, match="a password must not"):
            await make()
    for use in (auth.use_key, auth.create_session_with_key):
        for names in (ALICE, ("no", "key")):
            with pytest.raises(InvalidPassword):
                await use(*names, password)
    assert (store.calls, hasher.made, hasher.verified) == ([], [], [])


async def test_a_password_of_1000_characters_is_accepted(
    auth: AsyncAuth[User], user_id: str
) -> None:
    """The bound is inclusive, and counts characters."""
    await auth.update_key_password(*ALICE, "🦊" * 1_000)
    assert (await auth.use_key(*ALICE, "🦊" * 1_000)).user_id == user_id


@pytest.mark.parametrize("wrong", [b"bytes", 7])
async def test_a_password_is_text(auth: AsyncAuth[User], user_id: str, wrong: Any) -> None:
    """Bytes and numbers can't become a password, and are nobody's."""
    with pytest.raises(TypeError):
        await auth.update_key_password(*ALICE, wrong)
    with pytest.raises(InvalidPassword):
        await auth.use_key(*ALICE, wrong)


async def test_ours_passwords_are_compared_in_their_normal_form(
    auth: AsyncAuth[User], user_id: str
) -> None:
    """A password typed in another composition of the same letters logs in."""
    await auth.update_key_password(*ALICE, "Zoe\u0308 \ufb01sh")
    for typed in ("Zo\u00eb fish", "Zoe\u0308 fish", "Zo\u00eb \ufb01sh"):
        assert (await auth.use_key(*ALICE, typed)).user_id == user_id


# --- known and unknown cost the same


async def test_ours_every_refusal_costs_one_verification(
    auth: AsyncAuth[User], store: AsyncWatchedStore, time: Time, hasher: FullHash, user_id: str
) -> None:
    """Wrong password, unknown and impossible name, key without a password, bcrypt, expired: each makes one verification at one cost."""
    await auth.create_key(user_id, provider_id="github", provider_user_id="1", password=None)
    await store.set_key(
        KeyRow(
            id="username:old",
            user_id=user_id,
            hashed_password=BCRYPT,
            primary_key=False,
            expires=None,
        )
    )
    await auth.create_single_use_key(
        user_id,
        provider_id="reset",
        provider_user_id="t",
        password=PASSWORD,
        expires_in=timedelta(hours=1),
    )
    time.advance(timedelta(hours=2))
    refusals: list[tuple[tuple[str, str], type[InvalidCredentials]]] = [
        (ALICE, InvalidPassword),
        (("username", "nobody"), InvalidKeyId),
        (("username", ""), InvalidKeyId),
        (("username", "x" * 300), InvalidKeyId),
        (("github", "1"), InvalidPassword),
        (("username", "old"), OutdatedPassword),
        (("reset", "t"), ExpiredKey),
    ]
    for names, error in refusals:
        hasher.verified.clear()
        with pytest.raises(error) as caught:
            await auth.use_key(*names, PASSWORD if error is ExpiredKey else "wrong")
        assert type(caught.value) is error
        (verified,) = hasher.verified
        assert verified.startswith("$scrypt$ln=4,r=1,p=1$")


async def test_ours_a_refusal_does_not_verify_against_a_key_that_must_not_match(
    auth: AsyncAuth[User], store: AsyncWatchedStore, hasher: FullHash, user_id: str
) -> None:
    """What is verified for an unknown name is a hash of nothing that anybody knows: no password is right for it."""
    for password in (PASSWORD, NEW, "unacceptable"):
        with pytest.raises(InvalidKeyId):
            await auth.use_key("username", "nobody", password)
    known = await stored_hash(store)
    assert known not in hasher.verified
    assert len(hasher.verified) == 3


async def test_ours_the_pool_learns_the_address(
    auth: AsyncAuth[User], store: AsyncWatchedStore, user_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each password is hashed in the turn of the address that the request came from; new ones have a turn of their own."""
    owners: list[str] = []
    enter = _Turns.enter

    def record(turns: _Turns, turn: _Turn) -> bool:
        owners.append(turn.owner)
        return enter(turns, turn)

    monkeypatch.setattr(_Turns, "enter", record)
    here, nowhere = owner_of("203.0.113.9"), owner_of(None)
    await store.update_key_password("username:alice", OTHER_COST.hash(PASSWORD))
    await auth.use_key(*ALICE, PASSWORD, address="203.0.113.9")
    assert owners == [here, here]  # one verification, and the hash that replaces the old one
    store.before["set_session"] = partial(
        store.update_key_password, "username:alice", CHEAP.hash(PASSWORD)
    )
    await auth.handle_request(Exchange(address="203.0.113.9").context).sign_in_with_key(
        *ALICE, PASSWORD
    )
    assert owners[2:] == [here, here]  # the second looks at a hash that somebody else has replaced
    for address in ("203.0.113.9", None):
        with pytest.raises(InvalidKeyId):
            await auth.use_key("username", "nobody", PASSWORD, address=address)
    await auth.update_key_password(*ALICE, NEW)
    await auth.create_user(primary_key=PrimaryKey("username", "bob", PASSWORD))
    assert owners[4:] == [here, nowhere, NEW_PASSWORDS, NEW_PASSWORDS]


async def test_an_outdated_hash_is_refused(
    auth: AsyncAuth[User], store: AsyncWatchedStore, user_id: str
) -> None:
    """bcrypt's ``$2a`` is OutdatedPassword for any password; a text that is no hash is nobody's password."""
    await store.update_key_password("username:alice", BCRYPT)
    with pytest.raises(OutdatedPassword):
        await auth.use_key(*ALICE, PASSWORD)
    for hashed in ("", "garbage", "s2:x:y", PASSWORD):
        await store.update_key_password("username:alice", hashed)
        with pytest.raises(InvalidPassword):
            await auth.use_key(*ALICE, PASSWORD)


async def test_the_configured_hasher_makes_the_hashes(store: AsyncWatchedStore, time: Time) -> None:
    """``hash=LuciaHash()`` writes what a JavaScript service reads."""
    auth = make_auth(store, time, hash=LuciaHash())
    await auth.create_user(primary_key=PrimaryKey(*ALICE, PASSWORD))
    hashed = await stored_hash(store)
    assert hashed is not None
    assert hashed.startswith("s2:")
    assert (await auth.use_key(*ALICE, PASSWORD)).password_defined


# --- rehash on use


async def test_ours_a_hash_of_another_kind_is_replaced_on_use(
    auth: AsyncAuth[User], store: AsyncWatchedStore, user_id: str
) -> None:
    """After a login the hash is of the configured kind, for the same password, and no session was ended."""
    session = await auth.create_session(user_id)
    await store.update_key_password("username:alice", OTHER_COST.hash(PASSWORD))
    assert (await auth.use_key(*ALICE, PASSWORD)).user_id == user_id
    hashed = await stored_hash(store)
    assert hashed is not None
    assert hashed.startswith("$scrypt$ln=4,")
    assert (await auth.get_session(session.session_id)).handle == session.handle
    assert (await auth.use_key(*ALICE, PASSWORD)).user_id == user_id
    assert await stored_hash(store) == hashed


async def test_a_wrong_password_replaces_no_hash(
    auth: AsyncAuth[User], store: AsyncWatchedStore, user_id: str
) -> None:
    """Only a verified password is hashed anew."""
    old = OTHER_COST.hash(PASSWORD)
    await store.update_key_password("username:alice", old)
    with pytest.raises(InvalidPassword):
        await auth.use_key(*ALICE, "wrong")
    assert await stored_hash(store) == old


@pytest.mark.parametrize("moment", ["after reading", "before writing"])
async def test_ours_a_rehash_never_undoes_a_password_change(
    auth: AsyncAuth[User], store: AsyncWatchedStore, user_id: str, moment: str
) -> None:
    """A password that is changed between the check of the old one and its rehash stays changed."""
    await store.update_key_password("username:alice", OTHER_COST.hash(PASSWORD))
    change = partial(auth.update_key_password, *ALICE, NEW)
    if moment == "after reading":
        store.after["get_key"] = change
    else:
        store.before["update_key_password"] = change
    with pytest.raises(InvalidPassword):
        await auth.create_session_with_key(*ALICE, PASSWORD)
    assert await sessions_of(store, user_id) == []
    assert (await auth.use_key(*ALICE, NEW)).user_id == user_id
    with pytest.raises(InvalidPassword):
        await auth.use_key(*ALICE, PASSWORD)


async def test_ours_a_full_queue_during_a_rehash_leaves_the_login_valid(
    auth: AsyncAuth[User], store: AsyncWatchedStore, hasher: FullHash, user_id: str
) -> None:
    """If there is no room to hash the password anew, the login counts, and the next one replaces the hash."""
    old = OTHER_COST.hash(PASSWORD)
    await store.update_key_password("username:alice", old)
    await auth.use_key("username", "alice", PASSWORD)
    await store.update_key_password("username:alice", old)
    hasher.full = True
    assert (await auth.create_session_with_key(*ALICE, PASSWORD)).user_id == user_id
    assert await stored_hash(store) == old
    hasher.full = False
    await auth.use_key(*ALICE, PASSWORD)
    assert await stored_hash(store) != old


async def test_ours_parallel_logins_survive_each_others_rehash(
    auth: AsyncAuth[User], store: AsyncWatchedStore, user_id: str
) -> None:
    """Logins at once with an old hash all succeed, whoever's rehash wins."""
    await store.update_key_password("username:alice", OTHER_COST.hash(PASSWORD))
    outcomes = await AsyncRacingCalls.gather_results(
        *[partial(auth.create_session_with_key, *ALICE, PASSWORD)] * 5
    )
    assert all(isinstance(outcome, Session) for outcome in outcomes)
    assert len(await sessions_of(store, user_id)) == 5


async def test_ours_a_login_survives_somebody_elses_rehash(
    auth: AsyncAuth[User], store: AsyncWatchedStore, user_id: str
) -> None:
    """A hash of the same password that another process wrote meanwhile does not end the login."""
    again = CHEAP.hash(PASSWORD)
    store.before["set_session"] = partial(store.update_key_password, "username:alice", again)
    session = await auth.create_session_with_key(*ALICE, PASSWORD)
    assert await stored_hash(store) == again
    assert (await auth.get_session(session.session_id)).user_id == user_id


async def test_too_many_passwords_at_once_are_refused(
    auth: AsyncAuth[User], store: AsyncWatchedStore, hasher: FullHash
) -> None:
    """Where nothing can be done without hashing, a full queue is Overloaded, and nothing is stored."""
    hasher.full = True
    with pytest.raises(Overloaded):
        await auth.create_user(primary_key=PrimaryKey(*ALICE, PASSWORD))
    assert store.calls == []


# --- changing a password


async def test_ours_a_password_change_ends_all_sessions(
    auth: AsyncAuth[User], store: AsyncWatchedStore, user_id: str
) -> None:
    """By default nobody stays logged in; other users' sessions do, and the new password alone is right."""
    await auth.create_session(user_id)
    theirs = await auth.create_session("other")
    assert await auth.update_key_password(*ALICE, NEW) is None
    assert await sessions_of(store, user_id) == []
    assert (await auth.get_session(theirs.session_id)).handle == theirs.handle
    assert (await auth.use_key(*ALICE, NEW)).user_id == user_id
    with pytest.raises(InvalidPassword):
        await auth.use_key(*ALICE, PASSWORD)


async def test_ours_the_session_that_changes_the_password_goes_on_under_a_new_id(
    auth: AsyncAuth[User], store: AsyncWatchedStore, user_id: str
) -> None:
    """``keep_session=`` renews that session instead of keeping its id, which is dead at once, and ends the others."""
    await auth.create_session(user_id)
    mine = await auth.create_session(user_id, metadata={"a": 1})
    kept = await auth.update_key_password(*ALICE, NEW, keep_session=mine.session_id)
    assert kept is not None
    assert (kept.fresh, kept.handle, kept.metadata) == (True, mine.handle, {"a": 1})
    assert await sessions_of(store, user_id) == [kept.session_id]
    for method in (auth.get_session, auth.validate_session):
        with pytest.raises(InvalidSessionId):
            await method(mine.session_id)


async def test_ours_a_used_id_keeps_its_successor_at_a_password_change(
    auth: AsyncAuth[User], store: AsyncWatchedStore, user_id: str
) -> None:
    """A request that still carries a used id within its grace keeps its login; both ids are dead then."""
    used = await auth.create_session(user_id)
    current = await auth.renew_session(used.session_id)
    kept = await auth.update_key_password(*ALICE, NEW, keep_session=used.session_id)
    assert kept is not None
    assert await sessions_of(store, user_id) == [kept.session_id]
    for session in (used, current):
        with pytest.raises(InvalidSessionId):
            await auth.get_session(session.session_id)


@pytest.mark.parametrize("keep", ["0" * 40, "malformed", ""])
async def test_what_is_no_live_session_is_not_kept(
    auth: AsyncAuth[User], store: AsyncWatchedStore, user_id: str, keep: str
) -> None:
    """If ``keep_session=`` names nothing, all sessions end and nothing comes back."""
    await auth.create_session(user_id)
    assert await auth.update_key_password(*ALICE, NEW, keep_session=keep) is None
    assert await sessions_of(store, user_id) == []


async def test_another_users_session_is_neither_kept_nor_ended(
    auth: AsyncAuth[User], store: AsyncWatchedStore, user_id: str
) -> None:
    """``keep_session=`` of somebody else changes nothing for them."""
    await auth.create_session(user_id)
    theirs = await auth.create_session("other")
    assert await auth.update_key_password(*ALICE, NEW, keep_session=theirs.session_id) is None
    assert await sessions_of(store, user_id) == []
    assert await sessions_of(store, "other") == [theirs.session_id]


async def test_a_kept_session_that_is_ended_meanwhile_is_not_handed_out(
    auth: AsyncAuth[User], store: AsyncWatchedStore, user_id: str
) -> None:
    """Who signs out while the password is changed is signed out: there is no session whose cookie could be set."""
    mine = await auth.create_session(user_id)
    store.after["renew_session"] = partial(auth.invalidate_session, mine.session_id)
    assert await auth.update_key_password(*ALICE, NEW, keep_session=mine.session_id) is None
    assert await sessions_of(store, user_id) == []


async def test_ours_the_ending_can_be_switched_off(auth: AsyncAuth[User], user_id: str) -> None:
    """With ``invalidate_sessions=False`` every session goes on under its id."""
    session = await auth.create_session(user_id)
    assert await auth.update_key_password(*ALICE, NEW, invalidate_sessions=False) is None
    assert (await auth.get_session(session.session_id)).handle == session.handle


async def test_a_password_can_be_taken_away_and_given(auth: AsyncAuth[User], user_id: str) -> None:
    """``None`` makes a key without a password, and back."""
    await auth.update_key_password(*ALICE, None)
    assert not (await auth.use_key(*ALICE, None)).password_defined
    await auth.update_key_password(*ALICE, NEW)
    assert (await auth.use_key(*ALICE, NEW)).user_id == user_id
    with pytest.raises(InvalidPassword):
        await auth.use_key(*ALICE, None)


async def test_an_unknown_key_has_no_password_to_change(
    auth: AsyncAuth[User], user_id: str
) -> None:
    """It is InvalidKeyId, and no session is ended."""
    session = await auth.create_session(user_id)
    with pytest.raises(InvalidKeyId):
        await auth.update_key_password("username", "nobody", NEW)
    assert (await auth.get_session(session.session_id)).handle == session.handle


@pytest.mark.parametrize(
    "failing",
    ["delete_sessions_by_user_id", "delete_other_sessions", "renew_session", "get_session"],
)
async def test_ours_sessions_that_were_not_ended_are_told(
    auth: AsyncAuth[User], store: AsyncWatchedStore, user_id: str, failing: str
) -> None:
    """If the revocation fails, the password is changed and the error says so, with its cause; the same call again ends the sessions."""
    mine = await auth.create_session(user_id)
    await auth.create_session(user_id)
    keep = None if failing == "delete_sessions_by_user_id" else mine.session_id
    change = partial(auth.update_key_password, *ALICE, NEW, keep_session=keep)
    store.failing = {failing: StoreDownError("down")}
    with pytest.raises(
        SessionsNotRevoked,
        match="the password was changed, but the user's sessions were not revoked",
    ) as caught:
        await change()
    assert isinstance(caught.value.__cause__, StoreDownError)
    assert (await auth.use_key(*ALICE, NEW)).user_id == user_id
    store.failing = {}
    kept = await change()
    assert await sessions_of(store, user_id) == ([] if kept is None else [kept.session_id])
    with pytest.raises(InvalidSessionId):
        await auth.get_session(mine.session_id)


async def test_a_password_that_could_not_be_changed_ends_no_session(
    auth: AsyncAuth[User], store: AsyncWatchedStore, user_id: str
) -> None:
    """The password comes first: if that fails, the store's error goes up and all sessions stay."""
    session = await auth.create_session(user_id)
    store.failing = {"update_key_password": StoreDownError("down")}
    with pytest.raises(StoreDownError):
        await auth.update_key_password(*ALICE, NEW)
    assert (await auth.get_session(session.session_id)).handle == session.handle


# --- logins that race a change


@pytest.mark.parametrize("moment", ["after get_key", "before set_session", "after set_session"])
@pytest.mark.parametrize("change", ["new password", "no password", "key deleted"])
async def test_ours_a_login_does_not_survive_a_change_that_overtook_it(
    auth: AsyncAuth[User], store: AsyncWatchedStore, user_id: str, moment: str, change: str
) -> None:
    """Whenever the key is changed after it was read, the login is InvalidPassword and leaves no session."""
    await auth.create_key(user_id, provider_id="email", provider_user_id="a", password=PASSWORD)
    changes: dict[str, Callable[[], Any]] = {
        "new password": partial(auth.update_key_password, "email", "a", NEW),
        "no password": partial(auth.update_key_password, "email", "a", None),
        "key deleted": partial(auth.delete_key, "email", "a"),
    }
    when, _, method = moment.partition(" ")
    (store.after if when == "after" else store.before)[method] = changes[change]
    with pytest.raises(InvalidPassword):
        await auth.create_session_with_key("email", "a", PASSWORD)
    assert await sessions_of(store, user_id) == []


async def test_ours_a_login_by_a_key_without_a_password_does_not_survive_that_it_gets_one(
    auth: AsyncAuth[User], store: AsyncWatchedStore, user_id: str
) -> None:
    """Also where nothing was typed, a hash that was set meanwhile ends the login."""
    await auth.update_key_password(*ALICE, None)
    store.before["set_session"] = partial(auth.update_key_password, *ALICE, NEW)
    with pytest.raises(InvalidPassword):
        await auth.create_session_with_key(*ALICE, None)
    assert await sessions_of(store, user_id) == []


async def test_ours_a_login_does_not_survive_that_its_key_changed_hands(
    auth: AsyncAuth[User], store: AsyncWatchedStore, user_id: str
) -> None:
    """A name that is another user's by the end of the login logs nobody in, whatever the password."""
    other = await auth.create_user(primary_key=None)

    async def hand_over() -> None:
        row = await store.get_key("username:alice")
        assert row is not None
        await store.delete_keys_by_user_id(user_id)
        await store.set_key(replace(row, user_id=other.user_id))

    store.before["set_session"] = hand_over
    with pytest.raises(InvalidPassword):
        await auth.create_session_with_key(*ALICE, PASSWORD)
    assert await sessions_of(store, user_id) == []


async def test_ours_a_login_that_can_not_be_checked_again_leaves_no_session(
    auth: AsyncAuth[User], store: AsyncWatchedStore, user_id: str
) -> None:
    """If the key can't be read once more, the store's error goes up, and nobody is logged in by it."""

    async def fail() -> None:
        store.failing = {"get_key": StoreDownError("down")}

    store.after["set_session"] = fail
    with pytest.raises(StoreDownError):
        await auth.create_session_with_key(*ALICE, PASSWORD)
    assert await sessions_of(store, user_id) == []


async def test_ours_many_logins_against_one_password_change(
    auth: AsyncAuth[User], store: AsyncWatchedStore, user_id: str
) -> None:
    """However logins with the old password and its change overlap, no session of the old password is left."""
    calls: list[Callable[[], Any]] = [partial(auth.create_session_with_key, *ALICE, PASSWORD)] * 8
    await AsyncRacingCalls.gather_results(
        *calls[:4], partial(auth.update_key_password, *ALICE, NEW), *calls[4:]
    )
    assert await sessions_of(store, user_id) == []


@pytest.mark.parametrize(
    ("name", "password"),
    [
        ("alice", ""),
        ("alice", "x" * 1_001),
        ("", PASSWORD),
        ("x" * 300, PASSWORD),
        ("\ud800", PASSWORD),
    ],
)
async def test_ours_what_a_person_typed_can_be_told_to_them(
    auth: AsyncAuth[User], name: str, password: str
) -> None:
    """A new name or password that can't be one is an InvalidInput, which is a ValueError too and quotes nothing of it."""
    with pytest.raises(InvalidInput) as caught:
        await auth.create_user(primary_key=PrimaryKey("username", name, password))
    assert isinstance(caught.value, ValueError)
    assert not (password and password in str(caught.value))
