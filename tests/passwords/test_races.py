"""Logins with a password while it is changed and its hash made anew, over sessions on real servers of every kind."""

from collections.abc import Iterator
from functools import partial
from typing import Any, Final

import pytest

from lucia import Auth, KeyRow, PrimaryKey, ScryptHash, User
from lucia._testing.racing_calls import RacingCalls
from lucia.adapters.memory import MemoryAdapter
from lucia.adapters.redis import RedisSessionAdapter
from tests.support.deployments import Deployment, open_deployment
from tests.support.passwords import CHEAP, ROOMY

ROUNDS: Final = 12
MOST_ROUNDS: Final = 500
ALICE: Final = ("username", "alice")
OTHER_COST: Final = ScryptHash(ln=5, r=1, p=1)

pytestmark = pytest.mark.filterwarnings(
    "ignore:(?s).*lib_:DeprecationWarning"
)  # redis-py 7's cluster clients warn of themselves


@pytest.fixture(params=["redis", "cluster", "redis, no scripts"])
def place(request: pytest.FixtureRequest) -> Iterator[Deployment]:
    """Each place, emptied."""
    with open_deployment(request, request.param) as opened:
        yield opened


class Game:
    """One user, whose password changes while it is used; ``kind`` is of ``Auth``."""

    def __init__(self, place: Deployment, kind: type[Auth[User]]) -> None:
        self.users = MemoryAdapter()
        self.inspector = place.inspector
        settings: dict[str, Any] = {"hash": CHEAP, "password_pool": ROOMY, "throttle": None}
        self.auth: Any = kind(
            users=self.users, sessions=RedisSessionAdapter(place.client), env="DEV", **settings
        )
        self.auth.create_user(primary_key=PrimaryKey(*ALICE, "password 0"))

    def play(self, number: int) -> set[str]:
        """Logins with a password whose hash has to be made anew, and a change of it, at the same time; the sessions that are left."""
        old, new = f"password {number}", f"password {number + 1}"
        self.users.update_key_password("username:alice", OTHER_COST.hash(old))
        logins = [partial(self.auth.create_session_with_key, *ALICE, old)] * 8
        RacingCalls.gather_results(
            *logins[:4], partial(self.auth.update_key_password, *ALICE, new), *logins[4:]
        )
        assert self.auth.use_key(*ALICE, new).password_defined
        return self.inspector.live()


def test_logins_against_a_password_change(place: Deployment) -> None:
    """However logins with a password, its rehash and its change overlap, the new one is valid, and no session of the old one is left."""
    game = Game(place, Auth)
    for number in range(ROUNDS):
        assert game.play(number) == set()


class Trusting(Auth[User]):
    """Does not look at the key again once the session is made."""

    def _still_proven(self, row: KeyRow, password: str | None, address: str | None) -> bool:
        return True


@pytest.mark.parametrize("place", ["redis"], indirect=True)
def test_logins_against_a_password_change_have_power(place: Deployment) -> None:
    """An ``Auth`` that does not look at the key again leaves a session of the old password."""
    game = Game(place, Trusting)
    assert any(game.play(number) for number in range(MOST_ROUNDS))
