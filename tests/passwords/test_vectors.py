"""Hashes of this library and of Lucia JS are valid for each other.

The vectors were made by the code of Lucia JS; see vectors/make.mjs.
"""

import json
import unicodedata
from pathlib import Path
from typing import TypedDict

import pytest

from lucia._rules.passwords import LuciaHash, ScryptHash, verify

pytestmark = pytest.mark.no_cover

VECTORS = Path(__file__).with_name("vectors")
ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


class Hash(TypedDict):
    """A hash made by Lucia JS, and its own verdict on it."""

    name: str
    format: str
    password: str
    hash: str
    original_valid: bool


class Verdict(TypedDict):
    """A hash made by LuciaHash, and the verdict of Lucia JS on it."""

    name: str
    password: str
    hash: str
    original_valid: bool
    original_valid_when_normalized: bool
    original_valid_for_another: bool


THEIRS: list[Hash] = json.loads((VECTORS / "passwords.json").read_text(encoding="utf-8"))
OURS: list[Verdict] = json.loads((VECTORS / "ours.json").read_text(encoding="utf-8"))


def normalized(password: str) -> str:
    return unicodedata.normalize("NFKC", password)


def lucia_hash(password: str, salt: str) -> str:
    """Return the hash of LuciaHash for this salt."""
    return LuciaHash(random_bytes=lambda _: bytes(map(ALPHABET.index, salt))).hash(password)


@pytest.mark.parametrize("row", THEIRS, ids=lambda row: f"{row['name']}, {row['format']}")
def test_lucia_js_hashes_are_valid(row: Hash) -> None:
    """Every hash of Lucia JS is valid, even if Lucia JS itself refuses it, and is outdated."""
    assert verify(row["password"], row["hash"])
    assert ScryptHash().needs_rehash(row["hash"])


@pytest.mark.parametrize(
    "row", [row for row in THEIRS if row["format"] == "s2"], ids=lambda row: row["name"]
)
def test_lucia_js_hashes_are_valid_for_no_neighbour(row: Hash) -> None:
    """A hash of Lucia JS is not valid if the password's last character differs."""
    assert not verify(row["password"][:-1] + "~", row["hash"])


@pytest.mark.parametrize(
    "row", [row for row in THEIRS if row["format"] == "s2"], ids=lambda row: row["name"]
)
def test_lucia_hash_writes_the_originals_text(row: Hash) -> None:
    """LuciaHash writes the same text as Lucia JS for the same salt and password."""
    assert lucia_hash(row["password"], row["hash"].split(":")[1]) == row["hash"]
    assert not LuciaHash().needs_rehash(row["hash"])


def test_the_original_locks_out_what_normalising_changes() -> None:
    """Lucia JS refuses exactly the passwords that its normalization changed.

    The vectors contain the bug that is fixed here.
    """
    refused = {row["name"] for row in THEIRS if row["format"] == "s2" and not row["original_valid"]}
    assert refused == {
        row["name"] for row in THEIRS if normalized(row["password"]) != row["password"]
    }
    assert len(refused) >= 5


@pytest.mark.parametrize("row", OURS, ids=lambda row: row["name"])
def test_lucia_js_accepts_lucia_hash(row: Verdict) -> None:
    """Lucia JS accepts what LuciaHash writes for the password, and for no other."""
    assert lucia_hash(row["password"], row["hash"].split(":")[1]) == row["hash"]
    assert row["original_valid_when_normalized"]
    assert row["original_valid"] == (normalized(row["password"]) == row["password"])
    assert not row["original_valid_for_another"]


def test_every_password_was_judged() -> None:
    """Both directions cover the same passwords."""
    assert {row["name"] for row in OURS} == {row["name"] for row in THEIRS}
