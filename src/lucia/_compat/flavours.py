"""Checks of the settings of ``Auth``, so that a mistake is raised there and not by a request.

Most of them tell sync from async functions.
"""

import inspect
from collections.abc import Callable, Collection
from difflib import get_close_matches
from typing import Any


def is_async(function: Callable[..., Any]) -> bool:
    """Return whether a call has to be awaited; ``functools.wraps`` is seen through."""
    return inspect.iscoroutinefunction(inspect.unwrap(function))


def check_names(owner: str, given: Collection[str], declared: Any, all_names: Any) -> None:
    """Check the names of keyword arguments that a ``TypedDict`` declares, as Python checks others.

    Args:
        owner: the name of the class that takes them.
        given: the names of the arguments.
        declared: the ``TypedDict`` of these arguments.
        all_names: one with all names that the class takes, to find the one that was meant.

    Raises:
        TypeError: an argument is unknown or missing.
    """
    known = _names(declared)
    for name in given:
        if name not in known:
            close = get_close_matches(name, _names(all_names), 1)
            hint = f": did you mean {close[0]!r}?" if close else ""
            raise TypeError(f"{owner}() got an unexpected keyword argument {name!r}{hint}")
    missing = sorted(declared.__required_keys__.difference(given))
    if missing:
        raise TypeError(f"{owner}() is missing the keyword argument {missing[0]!r}")


def _names(declared: Any) -> frozenset[str]:
    names: frozenset[str] = declared.__required_keys__ | declared.__optional_keys__
    return names


def check_flavour(name: str, given: Callable[..., Any], like: Callable[..., Any]) -> None:
    """Refuse a sync adapter for ``AsyncAuth``, and an async adapter for ``Auth``.

    Args:
        name: the argument's name.
        given: a method of the adapter.
        like: a method of the object that will call it.

    Raises:
        TypeError: one of the methods is async and the other is not.
    """
    if is_async(given) == is_async(like):
        return
    found, auth, needed = (
        ("a sync", "AsyncAuth", "an async") if is_async(like) else ("an async", "Auth", "a sync")
    )
    prefix = auth.removesuffix("Auth")
    raise TypeError(
        f"{name}= is {found} adapter; {auth} needs {needed} one, such as {prefix}MemoryAdapter"
    )


def check_step(name: str, step: object, like: Callable[..., Any]) -> None:
    """Refuse a function for the ready routes that is of the other flavour than they are.

    Args:
        name: the setting's name.
        step: the function.
        like: a step of the object that will call it.

    Raises:
        TypeError: it can't be called, or one is async and the other is not.
    """
    if not callable(step):
        raise TypeError(f"{name} must be a function, not {type(step).__name__}")
    if is_async(step) != is_async(like):
        needed, found = ("an async", "a plain") if is_async(like) else ("a plain", "an async")
        raise TypeError(f"{name} must be {needed} function here, not {found} one")


def check_methods(name: str, given: object, protocol: type) -> None:
    """Refuse a setting that lacks one of a protocol's methods.

    Raises:
        TypeError: it lacks a method, or is a class instead of an instance.
    """
    if isinstance(given, type):
        kind = given.__name__
        raise TypeError(
            f"{name} must be an instance of {kind}, not the class: call it, as in {kind}(…)"
        )
    methods = [method for method in vars(protocol) if not method.startswith("_")]
    missing = [method for method in methods if not callable(getattr(given, method, None))]
    if missing:
        lack = f"{type(given).__name__} has no {', '.join(missing)}"
        raise TypeError(f"{name} must have the methods of {protocol.__name__}: {lack}")


def check_function(name: str, function: object) -> None:
    """Refuse a setting that is not a plain function: ``Auth`` would not await its result.

    Raises:
        TypeError: it can't be called, or it is async.
    """
    if not callable(function):
        raise TypeError(f"{name} must be a function, not {type(function).__name__}")
    if is_async(function) or inspect.iscoroutinefunction(type(function).__call__):
        raise TypeError(
            f"{name} must be a plain function, not an async one: it is called without await, "
            "so do the async work elsewhere"
        )
