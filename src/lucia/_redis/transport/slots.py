"""Hash slots of a cluster: which node serves a slot, and where other nodes redirect to."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from lucia._redis.commands import Argument, Reply
from lucia._redis.transport.topology import Address

SLOTS: Final = 16_384


@dataclass(frozen=True, slots=True)
class Redirection:
    """Where a node redirects a request that it does not serve.

    Args:
        address: the node to ask instead; None if no node is named, so wait and try again.
        asking: whether the other node serves it only this once (``ASK``); else it has the slot.
        slot: the slot that moved.
        can_repeat: whether the same node can be asked again (``TRYAGAIN``) without a new slot map.
    """

    address: Address | None
    asking: bool = False
    slot: int = 0
    can_repeat: bool = False


@dataclass(frozen=True, slots=True)
class SlotMap:
    """Which primary serves each slot, as one node of the cluster says.

    Args:
        primaries: the primary of each slot.
        nodes: all nodes that are named: primaries first, then replicas, which know the map too.
    """

    primaries: dict[int, Address]
    nodes: tuple[Address, ...]

    @property
    def is_complete(self) -> bool:
        """Whether every slot has a primary: a node that left the cluster knows few or none."""
        return len(self.primaries) == SLOTS


def parse_slot_map(
    reply: Sequence[Any], asked: Address, remap: Callable[[Address], Address]
) -> SlotMap:
    """Return the slot map in the reply to ``CLUSTER SLOTS``.

    Args:
        reply: for each range its first and last slot, its primary and its replicas.
        asked: the address of the node that was asked, which may know no name for itself.
        remap: returns the address at which a node that names itself so can be reached.
    """
    primaries: dict[int, Address] = {}
    nodes: list[Address] = []
    replicas: list[Address] = []
    for first, last, *named in reply:
        primary, *others = [remap((_text(host) or asked[0], int(port))) for host, port, *_ in named]
        primaries.update(dict.fromkeys(range(int(first), int(last) + 1), primary))
        nodes.append(primary)
        replicas += others
    return SlotMap(primaries, tuple(dict.fromkeys([*nodes, *replicas])))


def key_per_primary(
    prefix: str, primaries: Mapping[int, Address], slot_of: Callable[[Argument], int]
) -> dict[Address, str]:
    """Return for each primary the name of a key with this prefix that it serves.

    Args:
        prefix: what the names begin with. If it has a hash tag, one primary has all such keys.
        primaries: the primary of each slot.
        slot_of: returns the slot of a key.
    """
    # With a hash tag in the prefix, all these keys are in one slot: the loop would never find a key
    # of another primary.
    has_tag = slot_of(f"{prefix}{{0}}") == slot_of(f"{prefix}{{1}}")
    count = 1 if has_tag else len(set(primaries.values()))
    found: dict[Address, str] = {}
    number = 0
    # It ends, since a map counts only if it covers all slots (T6).
    while len(found) < count:
        key = f"{prefix}{{{number}}}"
        found.setdefault(primaries[slot_of(key)], key)
        number += 1
    return found


def redirection_in(replies: Sequence[Reply], asked: Address) -> Redirection | None:
    """Return where the first error among the replies redirects to; None if there is no redirection.

    A node that answers so has executed nothing.
    """
    error: Any = next((reply for reply in replies if isinstance(reply, Exception)), None)
    kind = type(error).__name__
    # CLUSTERDOWN too: this node knows no node that has the slot, as after it left the cluster or
    # before a replica took over.
    if kind in {"TryAgainError", "ClusterDownError"}:
        return Redirection(None, can_repeat=kind == "TryAgainError")
    if kind not in {"MovedError", "AskError"}:
        return None
    if error.host == "?" or error.port == 0:  # the node does not know where that node is
        return Redirection(None)
    # A node without a configured name leaves the host empty: it means the one that was asked.
    return Redirection((error.host or asked[0], error.port), kind == "AskError", error.slot_id)


def is_redirected(replies: Sequence[Reply]) -> bool:
    """Return whether the node did nothing, since it does not serve the slot, or not now."""
    return redirection_in(replies, ("", 0)) is not None


def _text(host: bytes | str | None) -> str:
    return host.decode() if isinstance(host, bytes) else host or ""
