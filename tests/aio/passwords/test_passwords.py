"""Passwords as ``Auth`` uses them."""

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
    """A hasher that can pretend that the queue of the workers is full."""

    full = False

    def hash(self, password: str, /) -> str:
        """Hash the password, unless full."""
        if self.full:
            raise Overloaded
        return super().hash(password)


@pytest.fixture
def hasher() -> FullHash:
    """Return the hasher that ``Auth`` gets as ``hash=``."""
    return FullHash()


@pytest.fixture
def auth(store: AsyncWatchedStore, time: Time, hasher: FullHash) -> AsyncAuth[User]:
    """Return an ``Auth`` with a hasher that counts."""
    return make_auth(store, time, hash=hasher)


@pytest.fixture
async def user_id(auth: AsyncAuth[User]) -> str:
    """Return the id of a user with a primary key."""
    user = await auth.create_user(primary_key=PrimaryKey(*ALICE, PASSWORD))
    return user.user_id


async def stored_hash(store: AsyncWatchedStore, name: str = "username:alice") -> str | None:
    """Return the current hash of a key."""
    row = await store.get_key(name)
    assert row is not None
    return row.hashed_password


async def sessions_of(store: AsyncWatchedStore, user_id: str) -> list[str]:
    """Return the ids of a user's sessions."""
    return [row.id for row in await store.get_sessions_by_user_id(user_id)]


# --- Accepted passwords


async def test_a_key_takes_its_password_alone(auth: AsyncAuth[User], user_id: str) -> None:
    """Only the right password logs in; another one, or none, is InvalidPassword."""
    assert (await auth.use_key(*ALICE, PASSWORD)).user_id == user_id
    for wrong in (PASSWORD + " ", PASSWORD.upper(), None):
        with pytest.raises(InvalidPassword):
            await auth.use_key(*ALICE, wrong)


async def test_a_key_without_a_password_takes_none(auth: AsyncAuth[User], user_id: str) -> None:
    """A key without a password is used with ``password=None``; any text is InvalidPassword."""
    await auth.create_key(user_id, provider_id="github", provider_user_id="1", password=None)
    assert (await auth.use_key("github", "1", None)).user_id == user_id
    for text in (PASSWORD, "None", " ", *UNACCEPTABLE):
        with pytest.raises(InvalidPassword):
            await auth.use_key("github", "1", text)


@pytest.mark.parametrize(
    "password", UNACCEPTABLE, ids=["empty", "long", "surrogate", "surrogate inside"]
)
async def test_an_unacceptable_password_is_refused_before_any_work(
    auth: AsyncAuth[User], store: AsyncWatchedStore, hasher: FullHash, user_id: str, password: str
) -> None:
    """An empty, overlong or unencodable password is refused without hashing or store calls.

    It is InvalidInput as a new password, and InvalidPassword at a login.
    """
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
    """The limit is inclusive, and counts characters."""
    await auth.update_key_password(*ALICE, "🦊" * 1_000)
    assert (await auth.use_key(*ALICE, "🦊" * 1_000)).user_id == user_id


@pytest.mark.parametrize("wrong", [b"bytes", 7])
async def test_a_password_is_text(auth: AsyncAuth[User], user_id: str, wrong: Any) -> None:
    """Bytes and numbers are a TypeError as a new password, and InvalidPassword at a login."""
    with pytest.raises(TypeError):
        await auth.update_key_password(*ALICE, wrong)
    with pytest.raises(InvalidPassword):
        await auth.use_key(*ALICE, wrong)


async def test_passwords_are_compared_in_their_normal_form(
    auth: AsyncAuth[User], user_id: str
) -> None:
    """A password is the same in any Unicode composition of its letters."""
    await auth.update_key_password(*ALICE, "Zoe\u0308 \ufb01sh")
    for typed in ("Zo\u00eb fish", "Zoe\u0308 fish", "Zo\u00eb \ufb01sh"):
        assert (await auth.use_key(*ALICE, typed)).user_id == user_id


# --- Known and unknown names cost the same


async def test_every_refusal_costs_one_verification(
    auth: AsyncAuth[User], store: AsyncWatchedStore, time: Time, hasher: FullHash, user_id: str
) -> None:
    """Every refusal makes one verification, at the same cost.

    It may be a wrong password, an unknown or impossible name, a key without a password, a bcrypt
    hash or an expired key.
    """
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


async def test_a_refusal_does_not_verify_against_a_key_that_must_not_match(
    auth: AsyncAuth[User], store: AsyncWatchedStore, hasher: FullHash, user_id: str
) -> None:
    """An unknown name is verified against a hash that no password matches."""
    for password in (PASSWORD, NEW, "unacceptable"):
        with pytest.raises(InvalidKeyId):
            await auth.use_key("username", "nobody", password)
    known = await stored_hash(store)
    assert known not in hasher.verified
    assert len(hasher.verified) == 3


async def test_passwords_queue_by_client_address(
    auth: AsyncAuth[User], store: AsyncWatchedStore, user_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Passwords are hashed in the queue of the request's address; new ones have their own queue."""
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
    # The second one verifies the hash that was replaced meanwhile.
    assert owners[2:] == [here, here]
    for address in ("203.0.113.9", None):
        with pytest.raises(InvalidKeyId):
            await auth.use_key("username", "nobody", PASSWORD, address=address)
    await auth.update_key_password(*ALICE, NEW)
    await auth.create_user(primary_key=PrimaryKey("username", "bob", PASSWORD))
    assert owners[4:] == [here, nowhere, NEW_PASSWORDS, NEW_PASSWORDS]


async def test_an_outdated_hash_is_refused(
    auth: AsyncAuth[User], store: AsyncWatchedStore, user_id: str
) -> None:
    """A bcrypt ``$2a`` hash is OutdatedPassword; text that is no hash matches no password."""
    await store.update_key_password("username:alice", BCRYPT)
    with pytest.raises(OutdatedPassword):
        await auth.use_key(*ALICE, PASSWORD)
    for hashed in ("", "garbage", "s2:x:y", PASSWORD):
        await store.update_key_password("username:alice", hashed)
        with pytest.raises(InvalidPassword):
            await auth.use_key(*ALICE, PASSWORD)


async def test_the_configured_hasher_makes_the_hashes(store: AsyncWatchedStore, time: Time) -> None:
    """``hash=LuciaHash()`` writes hashes that a JavaScript service can read."""
    auth = make_auth(store, time, hash=LuciaHash())
    await auth.create_user(primary_key=PrimaryKey(*ALICE, PASSWORD))
    hashed = await stored_hash(store)
    assert hashed is not None
    assert hashed.startswith("s2:")
    assert (await auth.use_key(*ALICE, PASSWORD)).password_defined


# --- Rehashing


async def test_a_hash_of_another_kind_is_replaced_on_use(
    auth: AsyncAuth[User], store: AsyncWatchedStore, user_id: str
) -> None:
    """A login replaces a hash of another kind by a configured one, and revokes nothing."""
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
    """Only a verified password is hashed again."""
    old = OTHER_COST.hash(PASSWORD)
    await store.update_key_password("username:alice", old)
    with pytest.raises(InvalidPassword):
        await auth.use_key(*ALICE, "wrong")
    assert await stored_hash(store) == old


@pytest.mark.parametrize("moment", ["after reading", "before writing"])
async def test_a_rehash_never_undoes_a_password_change(
    auth: AsyncAuth[User], store: AsyncWatchedStore, user_id: str, moment: str
) -> None:
    """A password that is changed between its check and the rehash stays changed."""
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


async def test_changing_a_password(
    auth: AsyncAuth[User], store: AsyncWatchedStore, user_id: str
) -> None:
    """The present password is checked, and all sessions but the one to keep are revoked."""
    kept, other = await auth.create_session(user_id), await auth.create_session(user_id)
    for password, error in (("wrong", InvalidPassword), ("", InvalidPassword)):
        with pytest.raises(error):
            await auth.change_key_password(*ALICE, password, NEW)
    with pytest.raises(InvalidKeyId):
        await auth.change_key_password("username", "nobody", PASSWORD, NEW)
    with pytest.raises(InvalidInput):
        await auth.change_key_password(*ALICE, PASSWORD, "")
    assert len(await sessions_of(store, user_id)) == 2
    await auth.create_single_use_key(
        user_id,
        provider_id="reset",
        provider_user_id="token",
        password=PASSWORD,
        expires_in=timedelta(hours=1),
    )
    with pytest.raises(InvalidKeyId):
        await auth.change_key_password("reset", "token", PASSWORD, NEW)
    assert (await auth.use_key("reset", "token", PASSWORD)).user_id == user_id
    renewed = await auth.change_key_password(*ALICE, PASSWORD, NEW, keep_session=kept.session_id)
    assert renewed is not None
    assert await sessions_of(store, user_id) == [renewed.session_id]
    assert other.session_id != renewed.session_id != kept.session_id
    assert (await auth.use_key(*ALICE, NEW)).user_id == user_id


@pytest.mark.parametrize("moment", ["get_key", "update_key_password"])
async def test_two_changes_of_one_password(
    auth: AsyncAuth[User], store: AsyncWatchedStore, user_id: str, moment: str
) -> None:
    """Of two changes at once that start from one password, the second is refused."""
    first = partial(auth.change_key_password, *ALICE, PASSWORD, "the first horse")
    hooks = store.after if moment == "get_key" else store.before
    hooks[moment] = first
    with pytest.raises(InvalidPassword):
        await auth.change_key_password(*ALICE, PASSWORD, "the second horse")
    assert (await auth.use_key(*ALICE, "the first horse")).user_id == user_id


async def test_a_change_beside_a_rehash_or_a_removal(
    auth: AsyncAuth[User], store: AsyncWatchedStore, user_id: str
) -> None:
    """A new hash of the same password does not stop a change; if the key is gone, it fails."""
    store.before["update_key_password"] = partial(
        store.update_key_password, "username:alice", CHEAP.hash(PASSWORD)
    )
    await auth.change_key_password(*ALICE, PASSWORD, NEW)
    assert (await auth.use_key(*ALICE, NEW)).user_id == user_id
    store.before["update_key_password"] = partial(auth.delete_user, user_id)
    with pytest.raises(InvalidPassword):
        await auth.change_key_password(*ALICE, NEW, PASSWORD)


async def test_changes_that_never_find_the_same_hash(
    auth: AsyncAuth[User], store: AsyncWatchedStore, user_id: str
) -> None:
    """A change is tried twice, and then fails without having changed anything."""

    async def rehash() -> None:
        await store.update_key_password("username:alice", CHEAP.hash(PASSWORD))

    async def rehash_again() -> None:
        await rehash()
        store.before["update_key_password"] = rehash

    store.before["update_key_password"] = rehash_again
    with pytest.raises(InvalidPassword):
        await auth.change_key_password(*ALICE, PASSWORD, NEW)
    assert (await auth.use_key(*ALICE, PASSWORD)).user_id == user_id


async def test_a_full_queue_during_a_rehash_leaves_the_login_valid(
    auth: AsyncAuth[User], store: AsyncWatchedStore, hasher: FullHash, user_id: str
) -> None:
    """If the queue is full at a rehash, the login is valid, and the next login rehashes."""
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


async def test_parallel_logins_survive_each_others_rehash(
    auth: AsyncAuth[User], store: AsyncWatchedStore, user_id: str
) -> None:
    """Concurrent logins with an old hash all succeed."""
    await store.update_key_password("username:alice", OTHER_COST.hash(PASSWORD))
    outcomes = await AsyncRacingCalls.gather_results(
        *[partial(auth.create_session_with_key, *ALICE, PASSWORD)] * 5
    )
    assert all(isinstance(outcome, Session) for outcome in outcomes)
    assert len(await sessions_of(store, user_id)) == 5


async def test_a_login_survives_somebody_elses_rehash(
    auth: AsyncAuth[User], store: AsyncWatchedStore, user_id: str
) -> None:
    """A hash of the same password from another process does not revoke the login."""
    again = CHEAP.hash(PASSWORD)
    store.before["set_session"] = partial(store.update_key_password, "username:alice", again)
    session = await auth.create_session_with_key(*ALICE, PASSWORD)
    assert await stored_hash(store) == again
    assert (await auth.get_session(session.session_id)).user_id == user_id


async def test_too_many_passwords_at_once_are_refused(
    auth: AsyncAuth[User], store: AsyncWatchedStore, hasher: FullHash
) -> None:
    """If a call needs a hash and the queue is full, it is Overloaded, and nothing is stored."""
    hasher.full = True
    with pytest.raises(Overloaded):
        await auth.create_user(primary_key=PrimaryKey(*ALICE, PASSWORD))
    assert store.calls == []


# --- Password changes


async def test_password_change_revokes_all_sessions(
    auth: AsyncAuth[User], store: AsyncWatchedStore, user_id: str
) -> None:
    """By default all sessions of the user are revoked, and only the new password is right."""
    await auth.create_session(user_id)
    theirs = await auth.create_session("other")
    assert await auth.update_key_password(*ALICE, NEW) is None
    assert await sessions_of(store, user_id) == []
    assert (await auth.get_session(theirs.session_id)).handle == theirs.handle
    assert (await auth.use_key(*ALICE, NEW)).user_id == user_id
    with pytest.raises(InvalidPassword):
        await auth.use_key(*ALICE, PASSWORD)


async def test_the_session_that_changes_the_password_goes_on_under_a_new_id(
    auth: AsyncAuth[User], store: AsyncWatchedStore, user_id: str
) -> None:
    """``keep_session=`` replaces this session's id at once, and revokes the other sessions."""
    await auth.create_session(user_id)
    mine = await auth.create_session(user_id, metadata={"a": 1})
    kept = await auth.update_key_password(*ALICE, NEW, keep_session=mine.session_id)
    assert kept is not None
    assert (kept.fresh, kept.handle, kept.metadata) == (True, mine.handle, {"a": 1})
    assert await sessions_of(store, user_id) == [kept.session_id]
    for method in (auth.get_session, auth.validate_session):
        with pytest.raises(InvalidSessionId):
            await method(mine.session_id)


async def test_a_used_id_keeps_its_successor_at_a_password_change(
    auth: AsyncAuth[User], store: AsyncWatchedStore, user_id: str
) -> None:
    """A request with a used id within its grace keeps its login under a new id."""
    used = await auth.create_session(user_id)
    current = await auth.renew_session(used.session_id)
    kept = await auth.update_key_password(*ALICE, NEW, keep_session=used.session_id)
    assert kept is not None
    assert await sessions_of(store, user_id) == [kept.session_id]
    for session in (used, current):
        with pytest.raises(InvalidSessionId):
            await auth.get_session(session.session_id)


@pytest.mark.parametrize("keep", ["0" * 40, "malformed", ""])
async def test_dead_session_is_not_kept(
    auth: AsyncAuth[User], store: AsyncWatchedStore, user_id: str, keep: str
) -> None:
    """If ``keep_session=`` is no live session, all are revoked, and None is returned."""
    await auth.create_session(user_id)
    assert await auth.update_key_password(*ALICE, NEW, keep_session=keep) is None
    assert await sessions_of(store, user_id) == []


async def test_other_users_session_is_neither_kept_nor_revoked(
    auth: AsyncAuth[User], store: AsyncWatchedStore, user_id: str
) -> None:
    """``keep_session=`` with another user's session leaves that session unchanged."""
    await auth.create_session(user_id)
    theirs = await auth.create_session("other")
    assert await auth.update_key_password(*ALICE, NEW, keep_session=theirs.session_id) is None
    assert await sessions_of(store, user_id) == []
    assert await sessions_of(store, "other") == [theirs.session_id]


async def test_kept_session_revoked_meanwhile_is_not_returned(
    auth: AsyncAuth[User], store: AsyncWatchedStore, user_id: str
) -> None:
    """If the kept session is revoked during the change, it stays revoked, and None is returned."""
    mine = await auth.create_session(user_id)
    store.after["renew_session"] = partial(auth.invalidate_session, mine.session_id)
    assert await auth.update_key_password(*ALICE, NEW, keep_session=mine.session_id) is None
    assert await sessions_of(store, user_id) == []


async def test_invalidate_sessions_false_keeps_sessions(
    auth: AsyncAuth[User], user_id: str
) -> None:
    """With ``invalidate_sessions=False``, every session keeps its id."""
    session = await auth.create_session(user_id)
    assert await auth.update_key_password(*ALICE, NEW, invalidate_sessions=False) is None
    assert (await auth.get_session(session.session_id)).handle == session.handle


async def test_a_password_can_be_taken_away_and_given(auth: AsyncAuth[User], user_id: str) -> None:
    await auth.update_key_password(*ALICE, None)
    assert not (await auth.use_key(*ALICE, None)).password_defined
    await auth.update_key_password(*ALICE, NEW)
    assert (await auth.use_key(*ALICE, NEW)).user_id == user_id
    with pytest.raises(InvalidPassword):
        await auth.use_key(*ALICE, None)


async def test_an_unknown_key_has_no_password_to_change(
    auth: AsyncAuth[User], user_id: str
) -> None:
    """An unknown key is InvalidKeyId, and no session is revoked."""
    session = await auth.create_session(user_id)
    with pytest.raises(InvalidKeyId):
        await auth.update_key_password("username", "nobody", NEW)
    assert (await auth.get_session(session.session_id)).handle == session.handle


@pytest.mark.parametrize(
    "failing",
    ["delete_sessions_by_user_id", "delete_other_sessions", "renew_session", "get_session"],
)
async def test_failed_revocation_raises_sessions_not_revoked(
    auth: AsyncAuth[User], store: AsyncWatchedStore, user_id: str, failing: str
) -> None:
    """If the revocation fails, the error says that the password was changed; a retry revokes.

    It has the store's error as its cause.
    """
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
    """If the password can't be changed, the store's error is raised, and all sessions stay."""
    session = await auth.create_session(user_id)
    store.failing = {"update_key_password": StoreDownError("down")}
    with pytest.raises(StoreDownError):
        await auth.update_key_password(*ALICE, NEW)
    assert (await auth.get_session(session.session_id)).handle == session.handle


# --- Logins concurrent with a change


@pytest.mark.parametrize("moment", ["after get_key", "before set_session", "after set_session"])
@pytest.mark.parametrize("change", ["new password", "no password", "key deleted"])
async def test_a_login_does_not_survive_a_change_that_overtook_it(
    auth: AsyncAuth[User], store: AsyncWatchedStore, user_id: str, moment: str, change: str
) -> None:
    """If the key is changed after it was read, the login is InvalidPassword, without a session."""
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


async def test_login_is_refused_if_key_gets_password_meanwhile(
    auth: AsyncAuth[User], store: AsyncWatchedStore, user_id: str
) -> None:
    """A password set meanwhile refuses the login with a key that had none."""
    await auth.update_key_password(*ALICE, None)
    store.before["set_session"] = partial(auth.update_key_password, *ALICE, NEW)
    with pytest.raises(InvalidPassword):
        await auth.create_session_with_key(*ALICE, None)
    assert await sessions_of(store, user_id) == []


async def test_a_login_does_not_survive_that_its_key_changed_hands(
    auth: AsyncAuth[User], store: AsyncWatchedStore, user_id: str
) -> None:
    """If the key belongs to another user by the end of the login, nobody is logged in."""
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


async def test_a_login_that_can_not_be_checked_again_leaves_no_session(
    auth: AsyncAuth[User], store: AsyncWatchedStore, user_id: str
) -> None:
    """If the key can't be read again, the store's error is raised, and no session is left."""

    async def fail() -> None:
        store.failing = {"get_key": StoreDownError("down")}

    store.after["set_session"] = fail
    with pytest.raises(StoreDownError):
        await auth.create_session_with_key(*ALICE, PASSWORD)
    assert await sessions_of(store, user_id) == []


async def test_many_logins_against_one_password_change(
    auth: AsyncAuth[User], store: AsyncWatchedStore, user_id: str
) -> None:
    """However logins and a change overlap, no session of the old password is left."""
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
async def test_what_a_person_typed_can_be_told_to_them(
    auth: AsyncAuth[User], name: str, password: str
) -> None:
    """An impossible new name or password is InvalidInput, a ValueError that does not quote it."""
    with pytest.raises(InvalidInput) as caught:
        await auth.create_user(primary_key=PrimaryKey("username", name, password))
    assert isinstance(caught.value, ValueError)
    assert not (password and password in str(caught.value))
