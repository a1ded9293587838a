"""The least rights of a Redis user, by kind of server and settings."""

from collections.abc import Sequence
from typing import Final

__all__ = ["LEAST_RIGHTS", "LEAST_RIGHTS_CLUSTER", "LEAST_RIGHTS_PLAIN", "NEAR_RIGHTS", "for_sets"]

LEAST_RIGHTS: Final = (
    "mget", "set", "del", "exists", "lpush", "lrem", "lrange", "llen", "pttl", "pexpireat", "time",
    "evalsha", "eval",
)  # fmt: skip
"""For a single server, on the keys ``session:*`` and ``userSession:*``."""

LEAST_RIGHTS_PLAIN: Final = (
    "mget", "set", "del", "lpush", "lrem", "lrange", "pttl", "pexpireat", "time", "multi", "exec",
)  # fmt: skip
"""For a single server and a user that may not run scripts."""

LEAST_RIGHTS_CLUSTER: Final = (
    "mget", "set", "del", "lpush", "lrem", "lrange", "pttl", "pexpireat", "time",
    "evalsha", "eval", "cluster|slots", "command", "asking",
)  # fmt: skip
"""For each node of a cluster."""

_FOR_SETS: Final = {"lpush": "sadd", "lrem": "srem", "lrange": "smembers", "llen": "scard"}


def for_sets(rights: Sequence[str]) -> tuple[str, ...]:
    """Return the rights for the layout ``lucia-v2``, which has sets in ``user_sessions:*``."""
    kept = [_FOR_SETS.get(right, right) for right in rights]
    return tuple(dict.fromkeys([*kept, "scard", "srandmember"]))


NEAR_RIGHTS: Final = ("mget", "client|tracking")
"""For the connection of a near-cache, on the keys ``session:*``."""
