"""JSON values that can't be changed, so that everybody may be given the same ones."""

from typing import Any, Final, NoReturn, cast

__all__ = ["EMPTY", "FrozenDict", "FrozenList", "freeze"]


def _refuse(self: object, *_args: object, **_options: object) -> NoReturn:
    raise TypeError(
        f"this {type(self).__bases__[0].__name__} is shared and can't be changed: make one of your own from it"
    )


class FrozenDict(dict[str, Any]):
    """A ``dict`` that refuses changes. Copies of it, by ``dict()``, ``copy()`` and ``|``, are ordinary ones."""

    __slots__ = ()

    __setitem__ = __delitem__ = __ior__ = clear = pop = popitem = setdefault = update = _refuse

    def __reduce__(self) -> tuple[type["FrozenDict"], tuple[dict[str, Any]]]:
        return FrozenDict, (dict(self),)


class FrozenList(list[Any]):
    """A ``list`` that refuses changes. Copies of it, by ``list()``, ``copy()``, slices and ``+``, are ordinary ones."""

    __slots__ = ()

    __setitem__ = __delitem__ = __iadd__ = __imul__ = append = clear = extend = insert = pop = (
        remove
    ) = reverse = sort = _refuse

    def __reduce__(self) -> tuple[type["FrozenList"], tuple[list[Any]]]:
        return FrozenList, (list(self),)


EMPTY: Final = FrozenDict()

_FROZEN: Final = frozenset({FrozenDict, FrozenList, str, int, float, bool, type(None)})


def freeze(value: Any) -> Any:
    """The value, with every dict and list in it, and itself, as one that can't be changed: what was frozen before is the same object."""
    if value.__class__ in _FROZEN:
        return value
    if isinstance(value, dict):
        return FrozenDict(
            {name: freeze(each) for name, each in cast("dict[str, Any]", value).items()}
        )
    if isinstance(value, list):
        members = cast("list[Any]", value)  # type: ignore[redundant-cast]
        return FrozenList([freeze(each) for each in members])
    return value
