"""The Redis adapter compared with the memory adapter over random sequences of calls."""

import os
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from lucia._rules.sessions import MARKER_MS
from lucia.adapters.memory import MemoryAdapter
from lucia.adapters.redis import RedisSessionAdapter
from lucia.errors import DuplicateSessionId
from lucia.models import SessionRow
from tests.support.clocks import Time
from tests.support.deployments import open_deployment
from tests.support.redis_inspectors import Inspector
from tests.support.sessions import row

DAY = 86_400_000

users = st.sampled_from(["u1", "u2", "ü:{2}"])
lives = st.integers(DAY, 30 * DAY)
graces = st.sampled_from([0, 20_000, MARKER_MS])
metadata = st.dictionaries(
    st.sampled_from(["handle", "created_at", "noted"]),
    st.none() | st.integers() | st.text(max_size=5),
    max_size=2,
)


class Machine(RuleBasedStateMachine):
    """A state machine that calls both adapters and compares their results.

    As with ``Auth``, ids are never reused. Time passes for both adapters.
    """

    session_ids = Bundle("session_ids")

    def __init__(self, inspector: Inspector, client: Any) -> None:
        super().__init__()
        self.inspector = inspector
        self.redis = RedisSessionAdapter(client)
        self.time = Time()
        self.memory = MemoryAdapter(clock=self.time)
        self.users: dict[str, str] = {}
        self.used: set[str] = set()

    @initialize(target=session_ids)
    def begin(self) -> str:
        """Empty the server, and begin with an unknown id."""
        self.inspector.on_each("FLUSHALL")
        return "unknown"

    def new(self, user_id: str, life: int, attributes: dict[str, Any]) -> SessionRow:
        """Return a session with a new id."""
        session = row(f"s{len(self.users)}", user_id, life=life, **attributes)
        self.users[session.id] = user_id
        return session

    def both(self, call: Callable[[Any], Any]) -> Any:
        """Call both adapters, compare their results and return the result."""
        expected, found = call(self.memory), call(self.redis)
        assert found == expected
        return found

    @rule(target=session_ids, user_id=users, life=lives, attributes=metadata)
    def create(self, user_id: str, life: int, attributes: dict[str, Any]) -> str:
        """Create a session."""
        session = self.new(user_id, life, attributes)
        self.both(lambda adapter: adapter.set_session(session))
        return session.id

    @rule(session_id=session_ids, user_id=users)
    def create_again(self, session_id: str, user_id: str) -> None:
        """Store a session under the id of a live one: it is refused."""
        if self.both(lambda adapter: adapter.get_session(session_id)) is not None:
            for adapter in (self.memory, self.redis):
                with pytest.raises(DuplicateSessionId):
                    adapter.set_session(row(session_id, user_id, life=DAY, other=True))

    @rule(session_id=session_ids)
    def get(self, session_id: str) -> None:
        """Read a session."""
        self.both(lambda adapter: adapter.get_session(session_id))

    @rule(user_id=users)
    def read_all(self, user_id: str) -> None:
        """Read a user's list."""
        self.both(
            lambda adapter: sorted(
                adapter.get_sessions_by_user_id(user_id), key=lambda session: session.id
            )
        )

    @rule(session_ids=st.lists(session_ids, max_size=3))
    def delete(self, session_ids: list[str]) -> None:
        """Revoke sessions."""
        self.both(lambda adapter: adapter.delete_session(*session_ids))

    @rule(user_id=users)
    def delete_all(self, user_id: str) -> None:
        """Revoke all sessions of a user."""
        self.both(lambda adapter: adapter.delete_sessions_by_user_id(user_id))

    @rule(user_id=users, session_id=session_ids)
    def delete_others(self, user_id: str, session_id: str) -> None:
        """Revoke all other sessions of a user.

        The session to keep may be used, revoked, unknown or another user's.
        """
        self.both(lambda adapter: adapter.delete_other_sessions(user_id, session_id))

    @rule(session_id=session_ids)
    def delete_own_others(self, session_id: str) -> None:
        """Revoke all other sessions of the user of this session."""
        self.both(
            lambda adapter: adapter.delete_other_sessions(
                self.users.get(session_id, "u1"), session_id
            )
        )

    @rule(target=session_ids, session_id=session_ids, life=lives, grace=graces)
    def renew(self, session_id: str, life: int, grace: int) -> Any:
        """Renew a session, or a used id."""
        successor = self.new(self.users.get(session_id, "u1"), life, {})
        renewed = self.both(
            lambda adapter: adapter.renew_session(session_id, successor, grace=grace)
        )
        if renewed != successor:
            return multiple()
        self.used.add(session_id)
        return successor.id

    @rule(session_id=session_ids, grace=graces)
    def renew_to_a_taken_id(self, session_id: str, grace: int) -> None:
        """Renew a session to the id of a live one: it is refused."""
        if self.both(lambda adapter: adapter.get_session(session_id)) is not None:
            for adapter in (self.memory, self.redis):
                with pytest.raises(DuplicateSessionId):
                    adapter.renew_session(
                        session_id, row(session_id, self.users[session_id], life=DAY), grace=grace
                    )

    @rule(session_id=session_ids)
    def get_successor(self, session_id: str) -> None:
        """Follow a used id."""
        self.both(lambda adapter: adapter.get_successor(session_id))

    @rule(milliseconds=st.sampled_from([5_000, 25_000, MARKER_MS]))
    def let_time_pass(self, milliseconds: int) -> None:
        """Make all used ids older in both stores."""
        self.time.now += milliseconds
        for used_id in self.used:
            self.inspector.age(used_id, milliseconds)

    @invariant()
    def keys_match_the_layout(self) -> None:
        """Every key has a TTL, none is foreign, and each live session is in its index."""
        self.inspector.check()
        expected = {id_ for id_ in self.users if self.memory.get_session(id_) is not None}
        assert self.inspector.live() == expected


EXAMPLES = {
    "redis": 100,
    "valkey": 100,
    "old_redis": 100,
    "cluster": 50,
    "redis, no scripts": 50,
    "valkey, no scripts": 50,
}
"""Number of sequences of calls for each deployment, by its speed."""


@pytest.mark.slow
# redis-py 7's cluster clients cause this warning themselves.
@pytest.mark.filterwarnings("ignore:(?s).*lib_:DeprecationWarning")
@pytest.mark.parametrize(("place", "examples"), EXAMPLES.items(), ids=EXAMPLES)
def test_redis_matches_memory_adapter(
    request: pytest.FixtureRequest, place: str, examples: int
) -> None:
    """The Redis adapter returns what the memory adapter returns, and its keys obey the layout."""
    profile = settings(
        max_examples=examples,
        stateful_step_count=30,
        deadline=None,
        derandomize="CI" in os.environ,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    with open_deployment(request, place) as opened:

        class HereMachine(Machine):
            def __init__(self) -> None:
                super().__init__(opened.inspector, opened.client)

        run_state_machine_as_test(HereMachine, settings=profile)
