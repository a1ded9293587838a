"""Telling functions that wait from functions that don't, so that a mix-up is refused when it is made and not at the first call."""

import inspect
from collections.abc import Callable
from typing import Any


def is_async(function: Callable[..., Any]) -> bool:
    """Whether calling it gives something to await; sees through ``functools.wraps``."""
    return inspect.iscoroutinefunction(inspect.unwrap(function))


def check_flavour(name: str, given: Callable[..., Any], like: Callable[..., Any]) -> None:
    """Refuse an adapter of the other colour than ``Auth`` or ``AsyncAuth``.

    Args:
        name: the argument's name.
        given: a method of the adapter.
        like: a method of the object that will call it.

    Raises:
        TypeError: one of them waits and the other does not.
    """
    if is_async(given) == is_async(like):
        return
    auth, adapter = ("AsyncAuth", "AsyncX…Adapter") if is_async(like) else ("Auth", "X…Adapter")
    raise TypeError(
        f"{name}= has an adapter of the other colour: {auth} takes an {adapter}, whose methods {_verb(like)}"
    )


def check_methods(name: str, given: object, protocol: type) -> None:
    """Refuse a setting that does not have a protocol's methods.

    Raises:
        TypeError: it is a class in the place of its instance, or lacks a method.
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
    """Refuse a setting whose result ``Auth`` would use without awaiting it.

    Raises:
        TypeError: it can't be called, or it is async.
    """
    if not callable(function):
        raise TypeError(f"{name} must be a function, not {type(function).__name__}")
    if is_async(function) or inspect.iscoroutinefunction(type(function).__call__):
        raise TypeError(
            f"{name} must be a plain function, not an async one: it is called without await, so do what has to be awaited elsewhere"
        )


def _verb(like: Callable[..., Any]) -> str:
    return "are async" if is_async(like) else "are not async"
