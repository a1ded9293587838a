"""The limits on wrong passwords of ``Auth``, in memory and in Redis."""

from collections.abc import AsyncIterator, Callable, Generator, Mapping
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest

from lucia import (
    AsyncAuth,
    AsyncThrottleStore,
    AsyncThrottlingSessionAdapter,
    Attempt,
    ExpiredKey,
    FailureLimit,
    FailureRule,
    InvalidCredentials,
    InvalidKeyId,
    InvalidPassword,
    OutdatedPassword,
    Overloaded,
    PrimaryKey,
    StoreCorrupt,
    StoreUnavailable,
    Throttle,
    TooManyAttempts,
    User,
)
from lucia._async.throttling import AsyncGuard, AsyncMemoryThrottleStore
from lucia._rules.throttling import failure_name
from lucia._testing.racing_calls import AsyncRacingCalls
from lucia.adapters.redis import AsyncRedisSessionAdapter
from tests.aio.support.watched_store import AsyncWatchedStore, StoreDownError, make_auth
from tests.support.acl_rights import LEAST_RIGHTS, LEAST_RIGHTS_CLUSTER, LEAST_RIGHTS_PLAIN
from tests.support.clocks import Time
from tests.support.passwords import CHEAP, ROOMY, CountingHash
from tests.support.redis_clients import AsyncClients
from tests.support.redis_inspectors import ClusterInspector, Inspector
from tests.support.requests import Exchange
from tools.servers import Cluster, Server, unused_port

# redis-py 7's cluster clients cause deprecation warnings themselves.
pytestmark = pytest.mark.filterwarnings("ignore:(?s).*lib_:DeprecationWarning")

PASSWORD = "correct horse battery staple"
ALICE = ("username", "alice")
NOBODY = ("username", "nobody")
CODE = ("code", "alice")
HOME, OFFICE = "203.0.113.9", "2001:db8:1:2::7"
SECOND: Final = timedelta(seconds=1)
LONG: Final = Throttle(by_key=FailureLimit(free=5, first_wait=timedelta(minutes=10)))
KEYS: Final = ("~session:*", "~userSession:*")
EVERYTHING: Final = ("~*", "+@all")
DEPLOYMENTS: Final[Mapping[str, tuple[str, ...]]] = {
    "redis": EVERYTHING,
    "valkey": EVERYTHING,
    "redis, no scripts": (*EVERYTHING, "-@scripting"),
    "valkey, no scripts": (*EVERYTHING, "-@scripting"),
    "cluster": EVERYTHING,
    "cluster, no scripts": (*EVERYTHING, "-@scripting"),
    "redis, least rights": (*KEYS, *(f"+{right}" for right in LEAST_RIGHTS)),
    "redis, least rights, no scripts": (*KEYS, *(f"+{right}" for right in LEAST_RIGHTS_PLAIN)),
    "cluster, least rights": (*KEYS, *(f"+{right}" for right in LEAST_RIGHTS_CLUSTER)),
}
"""Servers, and the client's rights there."""


@pytest.fixture
def hasher() -> CountingHash:
    """Return the hasher that ``Auth`` gets as ``hash=``."""
    return CountingHash()


@pytest.fixture
def auth(store: AsyncWatchedStore, time: Time, hasher: CountingHash) -> AsyncAuth[User]:
    """Return an ``Auth`` in memory with the default limits."""
    return make_auth(store, time, hash=hasher)


@pytest.fixture(autouse=True)
async def user_id(auth: AsyncAuth[User]) -> str:
    """Return the id of a user with a primary key."""
    user = await auth.create_user(primary_key=PrimaryKey(*ALICE, PASSWORD))
    return user.user_id


async def fail(
    auth: AsyncAuth[User],
    times: int = 1,
    *,
    at: tuple[str, str] = ALICE,
    address: str | None = None,
) -> None:
    """Try several wrong passwords, none of which is throttled."""
    for number in range(times):
        with pytest.raises(InvalidCredentials):
            await auth.use_key(*at, f"wrong {number}", address=address)


async def seconds_to_wait(
    auth: AsyncAuth[User], *, at: tuple[str, str] = ALICE, address: str | None = None
) -> int:
    """Return how long a throttled attempt still has to wait, in seconds."""
    with pytest.raises(TooManyAttempts) as caught:
        await auth.use_key(*at, PASSWORD, address=address)
    assert not isinstance(caught.value, InvalidCredentials)
    return caught.value.retry_after


async def make_code(
    auth: AsyncAuth[User], user_id: str, *, life: timedelta = timedelta(hours=1)
) -> None:
    """Create a code for the user to type."""
    await auth.create_single_use_key(
        user_id, provider_id=CODE[0], provider_user_id=CODE[1], password="123456", expires_in=life
    )


async def check_fifty_guesses(
    auth: AsyncAuth[User], store: AsyncWatchedStore, hasher: CountingHash, user_id: str
) -> None:
    """Assert that of fifty concurrent guesses at a code five are verified, and consume it."""
    await make_code(auth, user_id)
    row = await store.get_key("code:alice")
    assert row is not None
    hasher.verified.clear()
    await AsyncRacingCalls.gather_results(*[partial(auth.use_key, *CODE, "wrong")] * 50)
    assert hasher.verified.count(str(row.hashed_password)) == 5
    with pytest.raises(InvalidKeyId):
        await auth.get_key(*CODE)


# --- By key


@pytest.mark.parametrize("key", [ALICE, NOBODY], ids=["known", "unknown"])
async def test_it_slows_down_and_then_refuses_for_a_while(
    auth: AsyncAuth[User], time: Time, hasher: CountingHash, key: tuple[str, str]
) -> None:
    """Five wrong passwords are free, then the wait doubles, for known and unknown keys alike.

    A throttled attempt is not verified, right or wrong, and does not prolong the wait.
    """
    await fail(auth, 5, at=key)
    for wait in (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 900, 900):
        hasher.verified.clear()
        assert await seconds_to_wait(auth, at=key) == wait
        time.advance(wait * SECOND / 2)
        assert await seconds_to_wait(auth, at=key) == max(1, wait // 2)
        assert hasher.verified == []
        time.advance(wait * SECOND / 2)
        await fail(auth, at=key)
        assert len(hasher.verified) == 1


async def test_nobody_is_locked_out_for_good(
    auth: AsyncAuth[User], time: Time, user_id: str
) -> None:
    """After the wait, the right password logs in; a day after the last failure, none is counted."""
    for _ in range(20):
        time.advance(timedelta(minutes=15))
        await fail(auth)
    time.advance(timedelta(minutes=15))
    for _ in range(3):
        assert (await auth.use_key(*ALICE, PASSWORD)).user_id == user_id
    time.advance(timedelta(hours=24))
    await fail(auth, 5)


async def waits_of_a_stranger(
    auth: AsyncAuth[User], time: Time, key: tuple[str, str], owner: bool
) -> list[int]:
    """Return the waits of a stranger who guesses at a key, whose owner may log in meanwhile."""
    waits: list[int] = []
    for _ in range(10):
        await fail(auth, at=key, address=OFFICE)
        try:
            await auth.use_key(*key, "wrong", address=OFFICE)
        except TooManyAttempts as error:
            waits.append(error.retry_after)
        except InvalidCredentials:
            waits.append(0)
        time.advance(timedelta(minutes=15))
        if owner:
            await auth.create_session_with_key(*key, PASSWORD, address=HOME)
    return waits


async def test_a_stranger_does_not_see_that_the_owner_logs_in(
    auth: AsyncAuth[User], time: Time
) -> None:
    """A success resets no failures of others, so the waits are those of an unknown key."""
    at_known = await waits_of_a_stranger(auth, time, ALICE, owner=True)
    assert max(at_known) > 100
    assert at_known == await waits_of_a_stranger(auth, time, NOBODY, owner=False)


class AsyncForgettingGuard(AsyncGuard):
    """A control, where a success resets all failures at the key."""

    def __init__(self, time: Time) -> None:
        super().__init__(Throttle(by_address=None), AsyncMemoryThrottleStore(time))
        self._time = time

    async def prove(self, attempt: Attempt) -> None:
        """Reset the store, which contains only the failures at one key here."""
        self._store = AsyncMemoryThrottleStore(self._time)


async def test_control_reset_on_success_reveals_login(auth: AsyncAuth[User], time: Time) -> None:
    """Control: if a success resets the failures of others, the waits reveal that the key exists."""
    auth._guard = AsyncForgettingGuard(time)
    at_known = await waits_of_a_stranger(auth, time, ALICE, owner=True)
    assert at_known != await waits_of_a_stranger(auth, time, NOBODY, owner=False)


async def test_a_success_counts_nothing(auth: AsyncAuth[User]) -> None:
    """Any number of successful logins, one after another, is not throttled."""
    for _ in range(60):
        await auth.use_key(*ALICE, PASSWORD, address=HOME)
        await auth.create_session_with_key(*ALICE, PASSWORD, address=HOME)
    await fail(auth, 5, address=HOME)


async def test_keys_are_counted_apart(auth: AsyncAuth[User], user_id: str) -> None:
    """Failures at one key do not throttle another."""
    await auth.create_key(user_id, provider_id="email", provider_user_id="alice", password=PASSWORD)
    await fail(auth, 5)
    assert await seconds_to_wait(auth) == 1
    assert (await auth.use_key("email", "alice", PASSWORD)).user_id == user_id


@pytest.mark.parametrize("key", [NOBODY, ("username", "x" * 300), ALICE])
async def test_a_password_that_can_be_nobodys_is_not_counted(
    auth: AsyncAuth[User], key: tuple[str, str]
) -> None:
    """An impossible password is refused without any work, and is not counted."""
    for password in ("", "x" * 1_001, "\ud800") * 3:
        with pytest.raises(InvalidPassword):
            await auth.use_key(*key, password)
    await fail(auth, 5, at=key)


async def test_a_name_that_can_be_no_keys_is_counted_by_address_alone(
    auth: AsyncAuth[User],
) -> None:
    """A name that no key can have counts for the address only."""
    await fail(auth, 49, at=("username", "x" * 300), address=HOME)
    await fail(auth, at=("username", ""), address=HOME)
    assert await seconds_to_wait(auth, address=HOME) == 1


async def test_every_wrong_credential_counts(
    auth: AsyncAuth[User], store: AsyncWatchedStore, user_id: str
) -> None:
    """A password for a key without one, or with an outdated hash, counts as a failure."""
    await auth.create_key(user_id, provider_id="github", provider_user_id="1", password=None)
    await store.update_key_password(
        "username:alice", "$2a$10$N9qo8uLOickgx2ZMRZoMyeIjZAgcfl7p92ldGxad68LJZdL17lhWy"
    )
    with pytest.raises(OutdatedPassword):
        await auth.use_key(*ALICE, PASSWORD)
    for key in (("github", "1"), ALICE):
        await fail(auth, 5 if key[0] == "github" else 4, at=key)
        assert await seconds_to_wait(auth, at=key) == 1


async def test_without_a_password_nothing_is_counted(auth: AsyncAuth[User], user_id: str) -> None:
    """``None`` is not counted: somebody else has checked the name, or it is a long secret."""
    await auth.create_key(user_id, provider_id="github", provider_user_id="1", password=None)
    for number in range(60):
        for error, key in (
            (InvalidKeyId, ("github", f"unknown {number}")),
            (InvalidPassword, ALICE),
        ):
            with pytest.raises(error):
                await auth.use_key(*key, None, address=HOME)
    assert (await auth.use_key("github", "1", None, address=HOME)).user_id == user_id
    await fail(auth, 5, address=HOME)


# --- By address


async def test_one_address_at_many_keys(
    auth: AsyncAuth[User], time: Time, hasher: CountingHash, user_id: str
) -> None:
    """Fifty failures from one address are free, at any keys; then the address has to wait."""
    for number in range(50):
        await fail(auth, at=("username", f"name {number}"), address=HOME)
    hasher.verified.clear()
    assert await seconds_to_wait(auth, address=HOME) == 1
    assert hasher.verified == []
    assert (await auth.use_key(*ALICE, PASSWORD, address=OFFICE)).user_id == user_id
    assert (await auth.use_key(*ALICE, PASSWORD)).user_id == user_id
    time.advance(SECOND)
    assert (await auth.use_key(*ALICE, PASSWORD, address=HOME)).user_id == user_id
    await fail(auth, address=HOME)
    assert await seconds_to_wait(auth, at=NOBODY, address=HOME) == 2
    time.advance(timedelta(hours=1))
    await fail(auth, 3, address=HOME)


async def test_a_success_forgets_no_failure_of_the_address(auth: AsyncAuth[User]) -> None:
    """A success resets no failures of the address: an account would buy guesses at others."""
    for number in range(50):
        await auth.use_key(*ALICE, PASSWORD, address=HOME)
        await fail(auth, at=("username", f"name {number}"), address=HOME)
    assert await seconds_to_wait(auth, address=HOME) == 1


async def test_the_longer_wait_counts(auth: AsyncAuth[User]) -> None:
    """If key and address are throttled, the error has the longer wait, and neither is counted."""
    for number in range(50):
        await fail(auth, at=("username", f"name {number}"), address=HOME)
    await fail(auth, 5)
    for _ in range(10):
        assert await seconds_to_wait(auth, address=HOME) == 1


async def test_the_address_of_a_request(auth: AsyncAuth[User], user_id: str) -> None:
    """``sign_in_with_key`` counts by the request's address, for IPv6 by its /64."""
    for number in range(50):
        request = auth.handle_request(Exchange(address=f"2001:db8:1:2::{number:x}").context)
        with pytest.raises(InvalidKeyId):
            await request.sign_in_with_key("username", f"name {number}", PASSWORD)
    with pytest.raises(TooManyAttempts):
        await auth.handle_request(Exchange(address=OFFICE).context).sign_in_with_key(
            *ALICE, PASSWORD
        )
    for elsewhere in ("2001:db8:1:3::", None, ""):
        session = await auth.handle_request(Exchange(address=elsewhere).context).sign_in_with_key(
            *ALICE, PASSWORD
        )
        assert session.user_id == user_id


# --- Single-use keys


async def test_five_wrong_passwords_consume_a_single_use_key(
    auth: AsyncAuth[User], time: Time, user_id: str
) -> None:
    """Five wrong passwords consume a single-use key; a new key with this id has its own five.

    The wait for the id stays.
    """
    await make_code(auth, user_id)
    await fail(auth, 4, at=CODE)
    assert (await auth.get_key(*CODE)).user_id == user_id
    await fail(auth, at=CODE)
    with pytest.raises(InvalidKeyId):
        await auth.get_key(*CODE)
    await make_code(auth, user_id)
    assert await seconds_to_wait(auth, at=CODE) == 1
    for wait in (1, 2, 4, 8):
        time.advance(wait * SECOND)
        await fail(auth, at=CODE)
    time.advance(16 * SECOND)
    assert (await auth.use_key(*CODE, "123456")).user_id == user_id


async def test_a_single_use_keys_failures_are_not_forgotten(
    auth: AsyncAuth[User], time: Time, user_id: str
) -> None:
    """Failures at a single-use key are never forgotten."""
    await make_code(auth, user_id, life=timedelta(days=30))
    for _ in range(4):
        await fail(auth, at=CODE)
        time.advance(timedelta(days=2))
    await fail(auth, at=CODE)
    with pytest.raises(InvalidKeyId):
        await auth.use_key(*CODE, "123456")


async def test_an_expired_key_is_consumed_by_the_right_password_alone(
    auth: AsyncAuth[User], time: Time, user_id: str
) -> None:
    """An expired key is consumed only by the right password, which is no failure."""
    await make_code(auth, user_id)
    time.advance(timedelta(hours=2))
    await fail(auth, 4, at=CODE)
    with pytest.raises(ExpiredKey):
        await auth.use_key(*CODE, "123456")
    await fail(auth, at=CODE)
    assert await seconds_to_wait(auth, at=CODE) == 1


async def test_exhausted_key_is_invalid_even_if_not_removed(
    auth: AsyncAuth[User], store: AsyncWatchedStore, user_id: str
) -> None:
    """If a key can't be removed after the last wrong password, it is invalid nevertheless."""
    unlimited = make_auth(store, Time(), throttle=Throttle(by_key=None))
    await make_code(unlimited, user_id)
    await fail(unlimited, 4, at=CODE)
    store.failing = {"delete_non_primary_key": StoreDownError("down")}
    with pytest.raises(StoreDownError):
        await unlimited.use_key(*CODE, "wrong")
    store.failing = {}
    await auth.get_key(*CODE)
    with pytest.raises(InvalidKeyId):
        await unlimited.use_key(*CODE, "123456")


@pytest.mark.parametrize("limit", [1, 3, None])
async def test_how_many_consume_a_single_use_key(
    store: AsyncWatchedStore, time: Time, user_id: str, limit: int | None
) -> None:
    """``single_use_failures`` sets the number of wrong passwords; None means no limit."""
    auth = make_auth(store, time, throttle=Throttle(by_key=None, single_use_failures=limit))
    await make_code(auth, user_id)
    await fail(auth, (limit or 20) - 1, at=CODE)
    assert (await auth.get_key(*CODE)).user_id == user_id
    await fail(auth, at=CODE)
    if limit is None:
        assert (await auth.use_key(*CODE, "123456")).user_id == user_id
    else:
        with pytest.raises(InvalidKeyId):
            await auth.get_key(*CODE)


# --- Settings


async def test_the_limits_can_be_set(store: AsyncWatchedStore, time: Time) -> None:
    limit = FailureLimit(
        free=1, first_wait=10 * SECOND, longest_wait=15 * SECOND, forget=timedelta(minutes=1)
    )
    auth = make_auth(store, time, throttle=Throttle(by_key=limit, by_address=None))
    await fail(auth, address=HOME)
    for wait in (10, 15, 15):
        assert await seconds_to_wait(auth, address=HOME) == wait
        time.advance(wait * SECOND)
        await fail(auth, address=HOME)
    time.advance(timedelta(minutes=1))
    await fail(auth)


async def test_the_limits_can_be_switched_off(
    store: AsyncWatchedStore, time: Time, user_id: str
) -> None:
    """``throttle=None`` switches all limits off."""
    auth = make_auth(store, time, throttle=None)
    await make_code(auth, user_id)
    for key in (ALICE, CODE):
        await fail(auth, 60, at=key, address=HOME)
    assert (await auth.use_key(*CODE, "123456", address=HOME)).user_id == user_id


# --- Errors


@pytest.mark.parametrize(
    "error",
    [StoreDownError("down"), Overloaded(), KeyboardInterrupt()],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("key", [ALICE, CODE], ids=["persistent", "single-use"])
async def test_an_error_is_no_failure(
    auth: AsyncAuth[User],
    hasher: CountingHash,
    user_id: str,
    key: tuple[str, str],
    error: BaseException,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An attempt that ends before its password is verified does not count.

    It may end by a store's error, a full queue, or an interrupt.
    """
    await make_code(auth, user_id)
    with monkeypatch.context() as patch:
        patch.setattr(auth, "_matches", raising(error))
        for _ in range(60):
            with pytest.raises(type(error)):
                await auth.use_key(*key, PASSWORD, address=HOME)
    await fail(auth, 4, at=key, address=HOME)
    assert (await auth.get_key(*key)).user_id == user_id
    await fail(auth, at=key, address=HOME)


def raising(error: BaseException) -> Callable[..., Any]:
    """Return a method that raises the error."""

    async def method(*_: object) -> bool:
        raise error

    return method


class AsyncFailingStore(AsyncMemoryThrottleStore):
    """A store of failures whose methods can be made to raise."""

    def __init__(self, time: Time, *failing: str) -> None:
        super().__init__(time)
        self.failing = set(failing)

    async def attempt(self, rules: Mapping[str, FailureRule], /) -> Attempt:
        self._check("attempt")
        return await super().attempt(rules)

    async def take_back(self, entries: Mapping[str, str], /) -> None:
        """Remove the attempts."""
        self._check("take_back")
        await super().take_back(entries)

    def _check(self, name: str) -> None:
        if name in self.failing:
            raise StoreDownError(name)


class AsyncOwnStore(AsyncWatchedStore):
    """An adapter with its own store of failures."""

    def __init__(self, time: Time, *failing: str) -> None:
        super().__init__(time)
        self.failures = AsyncFailingStore(time, *failing)

    def throttle_store(self) -> AsyncThrottleStore:
        return self.failures


async def own_auth(
    time: Time, *failing: str
) -> tuple[AsyncAuth[User], AsyncOwnStore, CountingHash]:
    """Return an ``Auth`` over such an adapter, with a user and a code, and its store and hasher."""
    store, hasher = AsyncOwnStore(time), CountingHash()
    auth = make_auth(store, time, hash=hasher)
    user = await auth.create_user(primary_key=PrimaryKey(*ALICE, PASSWORD))
    await make_code(auth, user.user_id)
    store.failures.failing |= set(failing)
    return auth, store, hasher


async def test_an_adapter_may_offer_a_store(time: Time) -> None:
    """The adapter's store of failures is used, so that all processes share it."""
    auth, store, _ = await own_auth(time)
    assert isinstance(store, AsyncThrottlingSessionAdapter)
    assert isinstance(store.failures, AsyncThrottleStore)
    await fail(auth, 5)
    assert (await store.failures.attempt(Throttle().rules("username:alice", None))).wait == 1_000
    another = make_auth(store, time)
    assert await seconds_to_wait(another) == 1


async def test_a_store_that_can_not_count_lets_nobody_in(time: Time) -> None:
    """If the store of failures raises, nobody gets in, and no password is verified."""
    auth, _, hasher = await own_auth(time, "attempt")
    with pytest.raises(StoreDownError):
        await auth.use_key(*ALICE, PASSWORD)
    assert hasher.verified == []


async def test_key_is_not_consumed_if_success_cannot_be_recorded(time: Time) -> None:
    """If a success can't be recorded, the error comes before a key is consumed.

    No session is created, and the user can retry.
    """
    auth, store, _ = await own_auth(time, "take_back")
    for use in (auth.use_key, auth.create_session_with_key):
        with pytest.raises(StoreDownError):
            await use(*CODE, "123456", address=HOME)
    assert "set_session" not in store.calls
    store.failures.failing.clear()
    assert (await auth.use_key(*CODE, "123456", address=HOME)).provider_id == "code"


async def test_an_attempt_that_can_not_be_taken_back_is_a_failure(
    time: Time, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If an attempt can't be taken back, the original error is raised."""
    auth, _, _ = await own_auth(time, "take_back")
    with monkeypatch.context() as patch:
        patch.setattr(auth, "_matches", raising(Overloaded()))
        for _ in range(5):
            with pytest.raises(Overloaded):
                await auth.use_key(*ALICE, PASSWORD)
    assert await seconds_to_wait(auth) == 1


# --- Concurrent guesses


async def test_guesses_at_once(auth: AsyncAuth[User], hasher: CountingHash) -> None:
    """Of fifty concurrent guesses at one key, five are verified."""
    await at_once(auth, hasher)


async def test_guesses_at_once_from_one_address(
    auth: AsyncAuth[User], hasher: CountingHash
) -> None:
    """Of sixty concurrent guesses at sixty keys from one address, fifty are verified."""
    hasher.verified.clear()
    await AsyncRacingCalls.gather_results(
        *(
            partial(auth.use_key, "username", f"name {number}", "wrong", address=HOME)
            for number in range(60)
        )
    )
    assert len(hasher.verified) == 50


@pytest.mark.parametrize("throttle", [Throttle(), Throttle(by_key=None)], ids=["waits", "no waits"])
async def test_guesses_at_once_at_a_single_use_key(
    store: AsyncWatchedStore, time: Time, hasher: CountingHash, user_id: str, throttle: Throttle
) -> None:
    """Of fifty concurrent guesses at a code, at most five are verified, and consume it."""
    auth = make_auth(store, time, hash=hasher, throttle=throttle)
    await check_fifty_guesses(auth, store, hasher, user_id)


async def at_once(auth: AsyncAuth[User], hasher: CountingHash) -> None:
    """Assert that of fifty concurrent wrong passwords at one key five are verified."""
    hasher.verified.clear()
    outcomes = await AsyncRacingCalls.gather_results(
        *[partial(auth.use_key, *ALICE, "wrong", address=HOME)] * 50
    )
    assert (
        len(hasher.verified)
        == sum(isinstance(outcome, InvalidPassword) for outcome in outcomes)
        == 5
    )
    assert sum(isinstance(outcome, TooManyAttempts) for outcome in outcomes) == 45


# --- In Redis


@pytest.fixture(params=DEPLOYMENTS)
def deployment(request: pytest.FixtureRequest) -> str:
    """Return each server with the client's rights; a test selects some by ``parametrize``."""
    return str(request.param)


@pytest.fixture
def inspector(deployment: str, request: pytest.FixtureRequest) -> Generator[Inspector, None, None]:
    """Yield an inspector of the emptied server."""
    name = deployment.partition(",")[0]
    if name == "cluster":
        cluster: Cluster = request.getfixturevalue("cluster")
        with ClusterInspector(cluster) as found:
            yield found
    else:
        server: Server = request.getfixturevalue(f"{name}_server")
        with Inspector(server) as found:
            yield found


@pytest.fixture
async def client(deployment: str, inspector: Inspector) -> AsyncIterator[Any]:
    """Yield a client of a user with these rights."""
    inspector.on_each("ACL", "SETUSER", "app", "reset", "on", ">pass", *DEPLOYMENTS[deployment])
    options: dict[str, Any] = {"username": "app", "password": "pass"}
    if isinstance(inspector, ClusterInspector):
        client = AsyncClients.of_cluster("redis", inspector.cluster, **options)
    else:
        client = AsyncClients.make(f"{inspector.server.kind}-py, text", inspector.server, **options)
    yield client
    await client.aclose()
    inspector.on_each("ACL", "DELUSER", "app")


@pytest.fixture
async def sessions(client: Any) -> AsyncRedisSessionAdapter:
    """Return the session adapter."""
    adapter = AsyncRedisSessionAdapter(client)
    # redis-py's cluster client must find its nodes before it is used concurrently.
    await adapter.get_session("none")
    return adapter


@pytest.fixture
def shared(
    store: AsyncWatchedStore, sessions: AsyncRedisSessionAdapter, hasher: CountingHash
) -> AsyncAuth[User]:
    """Return an ``Auth`` with failures in Redis; the first wait is longer than any test."""
    return AsyncAuth(
        users=store, sessions=sessions, env="DEV", hash=hasher, password_pool=ROOMY, throttle=LONG
    )


def lists(inspector: Inspector) -> list[str]:
    """Return the keys of failures."""
    return [key for key in inspector.census() if key.startswith("session:throttle:")]


async def test_guesses_at_once_in_redis(
    shared: AsyncAuth[User], inspector: Inspector, hasher: CountingHash
) -> None:
    """Of fifty concurrent guesses, five are verified, and every key has a TTL."""
    await at_once(shared, hasher)
    inspector.check()
    assert 0 < await seconds_to_wait(shared) <= 600
    failures = lists(inspector)
    assert len(failures) == 2
    assert [inspector.client.llen(key) for key in failures] == [5, 5]


async def test_a_success_in_redis(
    shared: AsyncAuth[User], inspector: Inspector, user_id: str
) -> None:
    """A success removes only its own attempt; keys in Redis contain only hashes."""
    await fail(shared, 2, address=HOME)
    assert (await shared.create_session_with_key(*ALICE, PASSWORD, address=HOME)).user_id == user_id
    assert [inspector.client.llen(key) for key in lists(inspector)] == [2, 2]
    for text in (str(inspector.census()), *inspector.keys()):
        assert HOME not in text
        assert "alice" not in text


async def test_a_single_use_key_in_redis(
    shared: AsyncAuth[User], store: AsyncWatchedStore, hasher: CountingHash, user_id: str
) -> None:
    """Of fifty concurrent guesses at a code, five are verified, in every deployment."""
    await check_fifty_guesses(shared, store, hasher, user_id)


@pytest.mark.parametrize("deployment", ["redis", "redis, no scripts", "cluster"], indirect=True)
async def test_all_processes_count_together(
    shared: AsyncAuth[User], store: AsyncWatchedStore, client: Any
) -> None:
    """Each ``Auth`` over the same Redis sees the failures of all."""
    await fail(shared, 3)
    another = AsyncAuth(
        users=store, sessions=AsyncRedisSessionAdapter(client), env="DEV", hash=CHEAP, throttle=LONG
    )
    await fail(another, 2)
    assert 0 < await seconds_to_wait(shared) <= 600


@pytest.mark.parametrize("deployment", ["redis", "cluster"], indirect=True)
async def test_names_with_a_secret(
    store: AsyncWatchedStore, inspector: Inspector, client: Any
) -> None:
    """With ``id_keys``, names of failures are keyed hashes; processes share the current key."""
    name = failure_name("key", "username:alice")
    for keys, wait in (
        ((), 0),
        ([b"a" * 32], 0),
        ([b"a" * 32, b"b" * 32], 1),
        ([b"b" * 32, b"a" * 32], 0),
    ):
        sessions = AsyncRedisSessionAdapter(client, id_keys=keys)
        auth = AsyncAuth(users=store, sessions=sessions, env="DEV", hash=CHEAP, throttle=LONG)
        if wait:
            assert await seconds_to_wait(auth) > 0
        else:
            before = set(lists(inspector))
            await fail(auth, 5)
            (key,) = set(lists(inspector)) - before
            assert (name in key) == (not keys)


@pytest.mark.parametrize("deployment", ["redis"], indirect=True)
async def test_attempt_is_one_script(shared: AsyncAuth[User], inspector: Inspector) -> None:
    """Key and address are counted by one script; a throttled attempt writes nothing."""
    await fail(shared, address=HOME)
    with inspector.watched() as sent:
        await fail(shared, address=HOME)
    assert [command.split()[0] for command in sent if not command.startswith("lua ")] == ["EVALSHA"]
    await fail(shared, 3, address=HOME)
    with inspector.watched() as sent:
        await seconds_to_wait(shared, address=HOME)
    assert [command.split()[1] for command in sent if command.startswith("lua ")] == [
        "TIME",
        "LRANGE",
        "LRANGE",
    ]


@pytest.mark.parametrize("deployment", ["redis", "redis, no scripts"], indirect=True)
async def test_a_key_that_is_not_ours(shared: AsyncAuth[User], inspector: Inspector) -> None:
    """A value of another type in place of failures is StoreCorrupt, and nobody gets in."""
    await fail(shared)
    (key,) = inspector.keys()
    inspector.client.delete(key)
    inspector.client.set(key, "x")
    with pytest.raises(StoreCorrupt):
        await shared.use_key(*ALICE, PASSWORD)


async def test_no_redis_no_sign_in(store: AsyncWatchedStore, hasher: CountingHash) -> None:
    """If Redis is down, it is StoreUnavailable, and no password is verified."""
    client = AsyncClients.make_hasty(Server("redis", "127.0.0.1", unused_port(), Path("/nowhere")))
    auth = AsyncAuth(users=store, sessions=AsyncRedisSessionAdapter(client), env="DEV", hash=hasher)
    with pytest.raises(StoreUnavailable):
        await auth.create_session_with_key(*ALICE, PASSWORD)
    assert hasher.verified == []
    await client.aclose()
