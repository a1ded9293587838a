"""Logins race with a password change and a rehash, with sessions on every kind of server."""

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

# redis-py 7 causes DeprecationWarnings of its own in its cluster clients.
pytestmark = pytest.mark.filterwarnings("ignore:(?s).*lib_:DeprecationWarning")


@pytest.fixture(params=["redis", "cluster", "redis, no scripts"])
def deployment(request: pytest.FixtureRequest) -> Iterator[Deployment]:
    """Yield each deployment, emptied."""
    with open_deployment(request, request.param) as opened:
        yield opened


class PasswordChangeRace:
    """A user whose password changes while it is used; `kind` is the class of the auth."""

    def __init__(self, deployment: Deployment, kind: type[Auth[User]]) -> None:
        self.users = MemoryAdapter()
        self.inspector = deployment.inspector
        settings: dict[str, Any] = {"hash": CHEAP, "password_pool": ROOMY, "throttle": None}
        self.auth: Any = kind(
            users=self.users, sessions=RedisSessionAdapter(deployment.client), env="DEV", **settings
        )
        self.auth.create_user(primary_key=PrimaryKey(*ALICE, "password 0"))

    def play(self, number: int) -> set[str]:
        """Log in with an outdated hash while the password changes; return the sessions left."""
        old, new = f"password {number}", f"password {number + 1}"
        self.users.update_key_password("username:alice", OTHER_COST.hash(old))
        logins = [partial(self.auth.create_session_with_key, *ALICE, old)] * 8
        RacingCalls.gather_results(
            *logins[:4], partial(self.auth.update_key_password, *ALICE, new), *logins[4:]
        )
        assert self.auth.use_key(*ALICE, new).password_defined
        return self.inspector.live()


def test_logins_against_a_password_change(deployment: Deployment) -> None:
    """After a race, the new password is valid, and no session of the old one is left."""
    game = PasswordChangeRace(deployment, Auth)
    for number in range(ROUNDS):
        assert game.play(number) == set()


class AuthWithoutRecheck(Auth[User]):
    """An auth that does not check the key again after creating the session."""

    def _still_proven(self, row: KeyRow, password: str | None, address: str | None) -> bool:
        return True


@pytest.mark.parametrize("deployment", ["redis"], indirect=True)
def test_control_unchecked_login_survives_password_change(deployment: Deployment) -> None:
    """Without the second check of the key, a session of the old password is left."""
    game = PasswordChangeRace(deployment, AuthWithoutRecheck)
    assert any(game.play(number) for number in range(MOST_ROUNDS))
