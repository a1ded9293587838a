"""Hashed session ids, over every store that has them."""

import re
from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import Any, Final, Protocol

import pytest

from lucia import AsyncAuth, InvalidSessionId, SessionExpiry, User
from lucia._rules.id_hashes import HashedIds, RawIds
from lucia._rules.sessions import new_session_id
from lucia._testing.racing_calls import AsyncRacingCalls
from lucia.models import SessionRow
from tests.support.clocks import Time

__all__ = [
    "KEY",
    "OLD",
    "RING",
    "AsyncHashedIdStore",
    "AsyncHashedIdTests",
    "add",
    "leads_to",
    "live",
    "renew",
]

MINUTE: Final = 60_000
HOUR: Final = 60 * MINUTE
KEY, OLD = (bytes([number]) * 32 for number in (1, 2))
RING: Final = HashedIds([KEY])


class AsyncHashedIdStore(Protocol):
    """A store with the users u1 and u2, over which several adapters work."""

    @property
    def time(self) -> Time:
        """The clock of ``Auth``."""
        ...

    def adapter(self, id_keys: Sequence[bytes] = (), raw_ids: RawIds = "read") -> Any:
        """Return an adapter over the store."""
        ...

    def auth(self, adapter: Any) -> AsyncAuth[User]:
        """Return an ``Auth`` over an adapter, with the store's clock."""
        ...

    async def stored(self) -> set[str]:
        """Return the stored ids of the live sessions."""
        ...

    async def dump(self) -> str:
        """Return everything that is stored, as text."""
        ...

    async def age(self, used_id: str, milliseconds: int) -> None:
        """Let so much time pass since the renewal of a used id."""
        ...


class AsyncHashedIdTests:
    """Test hashed session ids over a store. A subclass has the fixture ``store``."""

    @pytest.fixture
    def hashed(self, store: AsyncHashedIdStore) -> Any:
        """Return an adapter with a key for hashes."""
        return store.adapter([KEY])

    @pytest.fixture
    def raw(self, store: AsyncHashedIdStore) -> Any:
        """Return an adapter without keys, on the same data."""
        return store.adapter()

    async def test_rows_of_a_list_can_be_revoked(self, hashed: Any) -> None:
        """A row of a list revokes its session and the successor, but does not log in."""
        ids = [await add(hashed) for _ in range(2)]
        listed = [each.id for each in await hashed.get_sessions_by_user_id("u1")]
        assert {*listed} == {RING.stored(id_) for id_ in ids}
        assert [await leads_to(hashed, id_) for id_ in listed] == [None, None]
        assert await renew(hashed, listed[0]) is None
        new = await renew(hashed, ids[0])
        await hashed.delete_session(*listed)
        assert [await leads_to(hashed, id_) for id_ in (*ids, new)] == [None] * 3

    async def test_id_that_looks_like_a_hash(self, hashed: Any, raw: Any) -> None:
        """An id of 64 hex digits is an id like any other, and is never found as a hash.

        Revoking it revokes both the raw and the hashed session.
        """
        await raw.set_session(live("a" * 64, "u1"))
        assert await leads_to(hashed, "a" * 64) is None
        await hashed.set_session(live("a" * 64, "u2"))
        found = await hashed.get_session("a" * 64)
        assert found is not None
        assert found.user_id == "u2"
        await hashed.delete_session("a" * 64)
        assert await leads_to(hashed, "a" * 64) is None
        assert await raw.get_session("a" * 64) is None

    async def test_attributes_come_back(self, hashed: Any) -> None:
        """A row is returned as it was stored, with or without a handle."""
        attributes: list[dict[str, Any]] = [
            {},
            {"handle": "h"},
            {"handle": None},
            {"handle": "", "noted": {}},
            {"sealed": "x"},
        ]
        for number, each in enumerate(attributes):
            session = live(f"s{number}", **each)
            await hashed.set_session(session)
            assert await hashed.get_session(f"s{number}") == session

    # Enabling hashes, and rotating keys

    async def test_turning_on(self, hashed: Any, raw: Any, store: AsyncHashedIdStore) -> None:
        """Enabling hashes logs nobody out, even within a grace.

        Sessions with raw ids are read, renewed, kept and revoked as before.
        """
        used, kept, ended, idle = [await add(raw) for _ in range(4)]
        new = await renew(raw, used)
        assert [await leads_to(hashed, id_) for id_ in (used, kept)] == [new, kept]
        newer = await renew(hashed, new or "")
        assert newer is not None
        assert await renew(hashed, used) == newer
        assert [await leads_to(hashed, id_) for id_ in (used, new, newer)] == [newer] * 3
        assert RING.stored(newer) in await store.stored()
        await hashed.delete_session(ended)
        assert await leads_to(raw, ended) is None
        outcomes: list[Any] = await AsyncRacingCalls.gather_results(
            *(partial(renew, hashed, idle) for _ in range(8))
        )
        assert len(set(outcomes)) == 1
        assert await leads_to(hashed, idle) == outcomes[0]
        await hashed.delete_session(idle)
        assert await leads_to(hashed, outcomes[0]) is None
        assert await hashed.delete_other_sessions("u1", kept) is True
        assert await store.stored() == {kept}
        await hashed.delete_sessions_by_user_id("u1")
        assert await store.stored() == set()

    async def test_chain_of_raw_and_hashed_ids_is_revoked(self, hashed: Any, raw: Any) -> None:
        """Revoking a used id revokes its successors, both raw and hashed, even without the key."""
        for adapter in (hashed, raw):
            used = await add(raw)
            new = await renew(hashed, await renew(raw, used) or "")
            assert await leads_to(hashed, new) == new
            await adapter.delete_session(used)
            assert await leads_to(hashed, new) is None

    async def test_process_without_keys(self, hashed: Any, raw: Any) -> None:
        """A process without the key finds and revokes no hashed session by its id.

        It never takes a hash for an id, and can still revoke all sessions of a user.
        """
        used, other = await add(raw), await add(hashed)
        new = await renew(hashed, used)
        assert [await leads_to(raw, id_) for id_ in (used, new, other)] == [None] * 3
        assert await renew(raw, used) is None
        await raw.delete_session(other)
        assert [await leads_to(hashed, id_) for id_ in (used, new, other)] == [new, new, other]
        assert len(await raw.get_sessions_by_user_id("u1")) == 2
        await raw.delete_sessions_by_user_id("u1")
        assert [await leads_to(hashed, id_) for id_ in (used, new, other)] == [None] * 3

    async def test_rotation(self, store: AsyncHashedIdStore) -> None:
        """A new key is first added last, then moved to the front: nobody is logged out."""
        rings = ([OLD], [OLD, KEY], [KEY, OLD])
        processes = [store.adapter(ring, "refuse") for ring in rings]
        for before, after in pairwise(processes):
            one, used = await add(before), await add(before)
            new = await renew(before, used)
            newer = await renew(after, new or "")
            assert newer is not None
            for process in (before, after):  # both run during a deployment
                found = [await leads_to(process, id_) for id_ in (one, used, new, newer)]
                assert found == [one, newer, newer, newer]
            assert await after.delete_other_sessions("u1", used) is True
            assert [await leads_to(before, id_) for id_ in (one, newer)] == [None, newer]
            await before.delete_session(used)
            assert await leads_to(after, newer) is None

    async def test_key_that_is_dropped(self, store: AsyncHashedIdStore) -> None:
        """Ids hashed with a removed key are unknown; revoking all sessions still revokes theirs."""
        old, current = store.adapter([OLD]), store.adapter([KEY])
        used, other = await add(old), await add(old)
        new = await renew(old, used)
        assert [await leads_to(current, id_) for id_ in (used, new, other)] == [None] * 3
        assert await renew(current, other) is None
        assert await current.delete_other_sessions("u1", other) is False
        assert [await leads_to(old, id_) for id_ in (used, new, other)] == [None] * 3

    async def test_moving_in_three_steps(self, raw: Any, store: AsyncHashedIdStore) -> None:
        """``write``, ``read`` and ``refuse`` follow each other; each works beside the one before.

        In the end, no raw id is accepted.
        """
        modes: tuple[RawIds, ...] = ("write", "read", "refuse")
        writing, reading, refusing = (store.adapter([KEY], mode) for mode in modes)
        first = await add(writing)
        assert [await leads_to(each, first) for each in (raw, writing, reading)] == [first] * 3
        second = await renew(reading, first)
        assert [await leads_to(each, first) for each in (writing, reading)] == [second] * 2
        third = await renew(writing, second or "")  # an older process, a session of a newer one
        assert third in await store.stored()
        assert [
            await leads_to(each, id_) for each in (writing, reading) for id_ in (first, second)
        ] == [third] * 4
        assert await leads_to(refusing, third) is None
        assert await renew(refusing, third or "") is None
        await refusing.delete_session(third or "")
        assert await leads_to(reading, third) == third
        await reading.delete_session(first)
        assert await leads_to(writing, third) is None

    async def test_settings(self, store: AsyncHashedIdStore) -> None:
        """Wrong settings are refused when the adapter is created, with advice."""
        refused: list[tuple[Any, Any, type[Exception], str]] = [
            ([], "refuse", ValueError, "raw_ids='refuse' needs id_keys"),
            ([], "never", ValueError, "raw_ids must be 'write', 'read' or 'refuse'"),
            ([KEY], "never", ValueError, "raw_ids must be 'write', 'read' or 'refuse'"),
            ([b"short"], "read", ValueError, "make one with secrets.token_bytes"),
            (KEY, "read", TypeError, "a list of keys, the current one first, not bytes"),
        ]
        for keys, raw_ids, error, message in refused:
            with pytest.raises(error, match=message):
                store.adapter(keys, raw_ids)
        shown = repr(vars(store.adapter([KEY])))
        assert KEY.hex() not in shown
        assert repr(KEY) not in shown

    # A stolen dump

    async def test_stolen_dump(self, hashed: Any, raw: Any, store: AsyncHashedIdStore) -> None:
        """Nothing stored logs anybody in, with or without the key, even within a grace."""
        auth, without_key = store.auth(hashed), store.auth(raw)
        used = await auth.create_session("u1", metadata={"agent": "x"})
        session = await auth.renew_session((await auth.renew_session(used.session_id)).session_id)
        shown = await store.dump()
        assert '"sealed"' in shown
        tokens = tokens_in(shown)
        assert len([token for token in tokens if re.fullmatch("[0-9a-f]{64}", token)]) >= 3
        for token in tokens:
            assert await leads_to(hashed, token) is None
            assert await renew(hashed, token) is None
            assert await hashed.delete_other_sessions("nobody", token) is False
            for each in (auth, without_key):
                with pytest.raises(InvalidSessionId):
                    await each.validate_session(token)
        assert (await auth.validate_session(used.session_id)).session_id == session.session_id
        assert (await auth.validate_session(session.session_id)).user_id == "u1"

    async def test_control_dump_without_id_keys_contains_ids(
        self, raw: Any, store: AsyncHashedIdStore
    ) -> None:
        """Control: without keys, the same search finds the session's id and the used id."""
        auth = store.auth(raw)
        used = await auth.create_session("u1")
        session = await auth.renew_session(used.session_id)
        assert {used.session_id, session.session_id} == {
            token for token in tokens_in(await store.dump()) if await leads_to(raw, token)
        }

    # Renewals

    async def test_grace(self, hashed: Any, store: AsyncHashedIdStore) -> None:
        """A used id has its successor only within the grace; revoking still follows it."""
        used, other = await add(hashed), await add(hashed)
        new, unseen = await renew(hashed, used, 10_000), await renew(hashed, other, 0)
        assert [await leads_to(hashed, id_) for id_ in (used, other)] == [new, None]
        await store.age(used, 10_000)
        assert await leads_to(hashed, used) is None
        assert await renew(hashed, used) is None
        await hashed.delete_session(used, other)
        assert [await leads_to(hashed, id_) for id_ in (new, unseen)] == [None, None]

    async def test_auth_over_hashed_ids(self, hashed: Any, store: AsyncHashedIdStore) -> None:
        """``Auth`` renews idle sessions, accepts used ids and revokes devices as without hashes."""
        auth = store.auth(hashed)
        session = await auth.create_session("u1", metadata={"agent": "x"})
        store.time.advance(SessionExpiry().active * 1.5)
        renewed = await auth.validate_session(session.session_id)
        assert renewed.fresh
        assert (await auth.validate_session(session.session_id)).session_id == renewed.session_id
        assert (await auth.get_session(renewed.session_id)).metadata == {"agent": "x"}
        other = await auth.create_session("u1")
        assert [device.handle for device in await auth.get_all_user_sessions("u1")] == [
            other.handle,
            session.handle,
        ]
        assert await auth.invalidate_user_session("u1", other.handle) is True
        assert await auth.invalidate_all_user_sessions("u1", keep=session.session_id) is True
        assert await store.stored() == {RING.stored(renewed.session_id)}
        await auth.invalidate_session(session.session_id)
        assert await store.stored() == set()


def live(session_id: str, user_id: str = "u1", **attributes: Any) -> SessionRow:
    """Return a session that is live for every clock of the tests."""
    far = 2_000_000_000_000
    return SessionRow(
        id=session_id,
        user_id=user_id,
        active_expires=far,
        idle_expires=far + HOUR,
        attributes=attributes,
    )


async def add(adapter: Any, user_id: str = "u1") -> str:
    """Store a session, and return its id."""
    session_id = new_session_id()
    await adapter.set_session(live(session_id, user_id))
    return session_id


async def renew(adapter: Any, used_id: str, grace: int = MINUTE) -> str | None:
    """Renew a session of the user u1, and return the id of its successor."""
    found: SessionRow | None = await adapter.renew_session(
        used_id, live(new_session_id()), grace=grace
    )
    return None if found is None else found.id


async def leads_to(adapter: Any, session_id: str | None) -> str | None:
    """Return the id of the session that a request with this id gets."""
    if session_id is None:
        return None
    found = await adapter.get_session(session_id) or await adapter.get_successor(session_id)
    return None if found is None else str(found.id)


def tokens_in(shown: str) -> set[str]:
    """Return everything in a dump that a thief could try as an id."""
    tokens = {
        *re.split(r'[\s{}\[\]":,()\']+', shown),
        *re.findall(r"[0-9A-Za-z]{40}", shown),
        *re.findall(r"\w+", shown),
        *shown.splitlines(),
    }
    cut = {token[start : start + 40] for token in tokens for start in range(0, len(token), 8)}
    return (tokens | cut) - {""}
