"""Slots of a cluster: the slot of a key, the node that serves it, and what other nodes answer."""

import binascii
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from lucia._redis.commands import Argument, Reply
from lucia._redis.transport.topology import Address

SLOTS: Final = 16_384


@dataclass(frozen=True, slots=True)
class Redirection:
    """Where a node sends a request that it does not serve.

    Args:
        address: the node to ask instead; None if no node is named, so wait and try again.
        asking: whether the other node serves it for this once (``ASK``); else it has the slot.
        slot: the slot that moved.
        whole: whether the same node can be asked again (``TRYAGAIN``) without a new slot map.
    """

    address: Address | None
    asking: bool = False
    slot: int = 0
    whole: bool = False


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
        """Whether every slot has a primary: a node that left the cluster knows few slots or none."""
        return len(self.primaries) == SLOTS


def slot_of(key: Argument) -> int:
    """The slot of a key."""
    name = key if isinstance(key, bytes) else str(key).encode()
    return binascii.crc_hqx(_hashed(name), 0) % SLOTS


def _hashed(name: bytes) -> bytes:
    """The part of a key's name that makes its slot: what is between its first braces, if that is not empty."""
    _, opened, rest = name.partition(b"{")
    tag, closed, _ = rest.partition(b"}")
    return tag if opened and closed and tag else name


def slot_map_of(
    reply: Sequence[Any], asked: Address, where: Callable[[Address], Address]
) -> SlotMap:
    """Return the slot map in the reply to ``CLUSTER SLOTS``.

    Args:
        reply: for each range its first and last slot, its primary and its replicas.
        asked: the address of the node that was asked, which may know no name for itself.
        where: tells at which address a node can be reached that names itself so.
    """
    primaries: dict[int, Address] = {}
    nodes: list[Address] = []
    replicas: list[Address] = []
    for first, last, *named in reply:
        primary, *others = [where((_text(host) or asked[0], int(port))) for host, port, *_ in named]
        primaries.update(dict.fromkeys(range(int(first), int(last) + 1), primary))
        nodes.append(primary)
        replicas += others
    return SlotMap(primaries, tuple(dict.fromkeys([*nodes, *replicas])))


def keys_everywhere(prefix: str, primaries: Mapping[int, Address]) -> dict[Address, str]:
    """Return for each primary the name of a key with this prefix that it serves.

    Args:
        prefix: what the names begin with. If it has a hash tag, one primary has all such keys.
        primaries: the primary of each slot.
    """
    has_tag = slot_of(f"{prefix}{{0}}") == slot_of(f"{prefix}{{1}}")
    count = 1 if has_tag else len(set(primaries.values()))
    found: dict[Address, str] = {}
    number = 0
    while len(found) < count:
        key = f"{prefix}{{{number}}}"
        found.setdefault(primaries[slot_of(key)], key)
        number += 1
    return found


def redirection_of(replies: Sequence[Reply], asked: Address) -> Redirection | None:
    """Return where the first refusal among the replies points to; None if none of them does.

    Nothing was executed where a node answers so. ``CLUSTERDOWN`` is among these answers: this node
    knows nobody who has the slot, as after it left the cluster or before a replica took over.
    """
    error = next((reply for reply in replies if isinstance(reply, Exception)), None)
    kind = type(error).__name__
    if kind in {"TryAgainError", "ClusterDownError"}:
        return Redirection(None, whole=kind == "TryAgainError")
    if kind not in {"MovedError", "AskError"}:
        return None
    slot, _, target = str(error).rpartition(" ")
    host, _, port = target.rpartition(":")
    number = int(slot.rpartition(" ")[2])
    if host == "?" or port == "0":  # it does not know where that node is
        return Redirection(None)
    return Redirection((host or asked[0], int(port)), kind == "AskError", number)


def is_redirected(replies: Sequence[Reply]) -> bool:
    """Whether the node that was asked does not serve the slot, or not now, so nothing was done."""
    return redirection_of(replies, ("", 0)) is not None


def _text(host: bytes | str | None) -> str:
    return host.decode() if isinstance(host, bytes) else host or ""
