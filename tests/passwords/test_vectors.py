"""Ours and the original's hashes, held against each other: the vectors were made by the original's own code, see vectors/make.mjs."""

import json
import unicodedata
from pathlib import Path
from typing import TypedDict

import pytest

from lucia._rules.passwords import LuciaHash, ScryptHash, verify

VECTORS = Path(__file__).with_name("vectors")
ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


class Hash(TypedDict):
    """A hash that the original made, and what it says of it itself."""

    name: str
    format: str
    password: str
    hash: str
    original_valid: bool


class Verdict(TypedDict):
    """A hash that LuciaHash made, and what the original says of it."""

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
    """What LuciaHash writes when chance gives this salt."""
    return LuciaHash(random_bytes=lambda _: bytes(map(ALPHABET.index, salt))).hash(password)


@pytest.mark.parametrize("row", THEIRS, ids=lambda row: f"{row['name']}, {row['format']}")
def test_the_originals_hashes_are_valid(row: Hash) -> None:
    """Every hash that the original made is valid for its password, also where the original itself says no; and is to be rehashed."""
    assert verify(row["password"], row["hash"])
    assert ScryptHash().needs_rehash(row["hash"])


@pytest.mark.parametrize(
    "row", [row for row in THEIRS if row["format"] == "s2"], ids=lambda row: row["name"]
)
def test_the_originals_hashes_are_valid_for_no_neighbour(row: Hash) -> None:
    """The original's hash is not valid for a password that differs in its last character."""
    assert not verify(row["password"][:-1] + "~", row["hash"])


@pytest.mark.parametrize(
    "row", [row for row in THEIRS if row["format"] == "s2"], ids=lambda row: row["name"]
)
def test_lucia_hash_writes_the_originals_text(row: Hash) -> None:
    """From the same salt and password, LuciaHash writes the original's text, letter for letter."""
    assert lucia_hash(row["password"], row["hash"].split(":")[1]) == row["hash"]
    assert not LuciaHash().needs_rehash(row["hash"])


def test_the_original_locks_out_what_normalising_changes() -> None:
    """The vectors hold what is corrected here: the original refuses exactly the passwords that it normalised and that this changed."""
    refused = {row["name"] for row in THEIRS if row["format"] == "s2" and not row["original_valid"]}
    assert refused == {
        row["name"] for row in THEIRS if normalized(row["password"]) != row["password"]
    }
    assert len(refused) >= 5


@pytest.mark.parametrize("row", OURS, ids=lambda row: row["name"])
def test_the_original_accepts_lucia_hash(row: Verdict) -> None:
    """What LuciaHash writes today is what the original judged, and it judged it valid for the password and for no neighbour."""
    assert lucia_hash(row["password"], row["hash"].split(":")[1]) == row["hash"]
    assert row["original_valid_when_normalized"]
    assert row["original_valid"] == (normalized(row["password"]) == row["password"])
    assert not row["original_valid_for_another"]


def test_every_password_was_judged() -> None:
    """Both directions cover the same passwords."""
    assert {row["name"] for row in OURS} == {row["name"] for row in THEIRS}
