"""Values that can't be changed."""

import copy
import json
import pickle
from collections.abc import Callable
from typing import Any, Final

import pytest

from lucia.frozen import EMPTY, FrozenDict, FrozenList, freeze

VALUE: Final[dict[str, Any]] = {"a": 1, "b": {"c": [1, {"d": None}]}, "e": "text"}


def test_is_what_it_was() -> None:
    """It equals what it was made of, is a dict with dicts and lists in it, and becomes the same JSON."""
    frozen: Any = freeze(VALUE)
    assert frozen == VALUE
    assert isinstance(frozen, dict)
    assert isinstance(frozen["b"]["c"], list)
    assert json.dumps(frozen) == json.dumps(VALUE)
    for other in ("text", 1, 1.5, True, None, (1, 2)):
        assert freeze(other) is other
    assert EMPTY == {}


def test_frozen_once() -> None:
    """What can't be changed is not copied, also where it is part of something that can."""
    frozen = freeze(VALUE)
    assert freeze(frozen) is frozen
    around = freeze({"a": frozen, "b": [frozen["b"]["c"]]})
    assert around["a"] is frozen
    assert around["b"][0] is frozen["b"]["c"]


def of_dict(change: Callable[[Any], object], id: str) -> Any:
    return pytest.param(FrozenDict(a=1), change, id=id)


def of_list(change: Callable[[Any], object], id: str) -> Any:
    return pytest.param(FrozenList([2, 1]), change, id=id)


def item(value: Any, key: Any) -> None:
    value[key] = 3


def no_item(value: Any, key: Any) -> None:
    del value[key]


def joined(value: Any, other: Any) -> None:
    value |= other


def longer(value: Any, other: Any) -> None:
    value += other


def repeated(value: Any) -> None:
    value *= 2


@pytest.mark.parametrize(
    ("value", "change"),
    [
        of_dict(lambda value: item(value, "a"), "d[k] ="),
        of_dict(lambda value: no_item(value, "a"), "del d[k]"),
        of_dict(lambda value: joined(value, {"a": 2}), "d |="),
        of_dict(lambda value: value.clear(), "d.clear"),
        of_dict(lambda value: value.pop("a"), "d.pop"),
        of_dict(lambda value: value.popitem(), "d.popitem"),
        of_dict(lambda value: value.setdefault("b", 2), "d.setdefault"),
        of_dict(lambda value: value.update(a=2), "d.update"),
        of_list(lambda value: item(value, 0), "l[i] ="),
        of_list(lambda value: no_item(value, 0), "del l[i]"),
        of_list(lambda value: longer(value, [3]), "l +="),
        of_list(repeated, "l *="),
        of_list(lambda value: value.append(3), "l.append"),
        of_list(lambda value: value.clear(), "l.clear"),
        of_list(lambda value: value.extend([3]), "l.extend"),
        of_list(lambda value: value.insert(0, 3), "l.insert"),
        of_list(lambda value: value.pop(), "l.pop"),
        of_list(lambda value: value.remove(1), "l.remove"),
        of_list(lambda value: value.reverse(), "l.reverse"),
        of_list(lambda value: value.sort(), "l.sort"),
    ],
)
def test_refuses_changes(value: Any, change: Callable[[Any], object]) -> None:
    """Every way to change it is a TypeError that says what to do, and changes nothing."""
    before = copy.deepcopy(value)
    with pytest.raises(TypeError, match=r"this (dict|list) is shared and can't be changed"):
        change(value)
    assert value == before


def test_every_change_is_known() -> None:
    """What a dict or a list can do beyond what a tuple or a mapping can is refused, whatever a version of Python adds."""
    harmless = {
        "copy",
        "fromkeys",
        "get",
        "items",
        "keys",
        "values",
        "count",
        "index",
        "__or__",
        "__ror__",
        "__add__",
        "__mul__",
        "__rmul__",
    }
    same = {
        name
        for kind in (dict, list)
        for name in vars(kind)
        if not name.startswith("__") and name not in harmless
    }
    refused = vars(FrozenDict).keys() | vars(FrozenList).keys()
    assert same <= refused


def pickled(value: Any) -> Any:
    return pickle.loads(pickle.dumps(value))  # noqa: S301 (its own)


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, pickled])
def test_made_again(again: Callable[[Any], Any]) -> None:
    """Copies and pickles hold the same and can't be changed either; a copy of one's own can."""
    made = again(freeze(VALUE))
    assert made == VALUE
    assert (type(made), type(made["b"]["c"])) == (FrozenDict, FrozenList)
    own = made.copy()
    own["a"] = 2
    assert dict(made) | {"a": 2} == own
