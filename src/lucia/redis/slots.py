"""A cluster's slots: which one a key has, which node has it, and what a node that does not have it says."""

import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from lucia.redis.commands import Argument, Reply
from lucia.redis.topology import Address

SLOTS: Final = 16_384


@dataclass(frozen=True, slots=True)
class Redirection:
    """Where to go instead: another node, for this once or for good (``slot`` is there by now); without an address the same again."""

    address: Address | None
    asking: bool = False
    slot: int = 0


def slot_of(key: Argument) -> int:
    """The slot of a key."""
    name = key if isinstance(key, bytes) else str(key).encode()
    return binascii.crc_hqx(_hashed(name), 0) % SLOTS


def _hashed(name: bytes) -> bytes:
    """The part of a key's name that makes its slot: what is between its first braces, if that is not empty."""
    _, opened, rest = name.partition(b"{")
    tag, closed, _ = rest.partition(b"}")
    return tag if opened and closed and tag else name


def addresses_of_slots(reply: Sequence[Any], asked: Address) -> dict[int, Address]:
    """The primary of each slot, from the reply to ``CLUSTER SLOTS``; a node that knows no name for itself is the one that was asked."""
    found: dict[int, Address] = {}
    for first, last, (host, port, *_), *_ in reply:
        address = (_text(host) or asked[0], int(port))
        found.update(dict.fromkeys(range(int(first), int(last) + 1), address))
    return found


def keys_everywhere(prefix: str, slots: Mapping[int, Address]) -> list[str]:
    """For each node that can have keys with this prefix the name of one that it has; one name where there is no map."""
    found: dict[Address | None, str] = {}
    nodes = len(set(slots.values())) if slot_of(f"{prefix}{{0}}") != slot_of(f"{prefix}{{1}}") else 1
    number = 0
    while len(found) < max(nodes, 1):
        key = f"{prefix}{{{number}}}"
        found.setdefault(slots.get(slot_of(key)), key)
        number += 1
    return list(found.values())


def redirection_of(replies: Sequence[Reply], asked: Address) -> Redirection | None:
    """Where the first refusal among the replies points to, if it does."""
    error = next((reply for reply in replies if isinstance(reply, Exception)), None)
    kind = type(error).__name__
    if kind == "TryAgainError":
        return Redirection(None)
    if kind not in {"MovedError", "AskError"}:
        return None
    slot, _, target = str(error).rpartition(" ")
    host, _, port = target.rpartition(":")
    return Redirection((host or asked[0], int(port)), kind == "AskError", int(slot.rpartition(" ")[2]))


def _text(host: bytes | str | None) -> str:
    return host.decode() if isinstance(host, bytes) else host or ""
