"""Methods whose result is tested for truth, and which must be awaited first.

A coroutine is true: ``if request.validate():`` without ``await`` would let every visitor in.
"""

from collections.abc import Callable, Coroutine, Generator
from functools import wraps
from typing import TYPE_CHECKING, Any, Generic, NoReturn, ParamSpec, TypeVar

__all__ = ["AsyncTruth", "Truth"]

P = ParamSpec("P")
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])


class AsyncTruth:
    """Makes a method's coroutine refuse to be tested for truth."""

    @staticmethod
    def needs_await(method: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, "_Call[T]"]:
        """Return the method; ``if object.method():`` is then a ``TypeError``."""

        @wraps(method)
        def call(*args: P.args, **kwargs: P.kwargs) -> "_Call[T]":
            return _Call(method(*args, **kwargs), method.__name__)

        return call


class Truth:
    """Leaves a method as it is: its result is no coroutine."""

    @staticmethod
    def needs_await(method: FunctionT) -> FunctionT:
        """Return the method."""
        return method


class _Call(Coroutine[Any, Any, T_co], Generic[T_co]):
    """A coroutine without a truth value."""

    __slots__ = ("_coroutine", "_name")

    def __init__(self, coroutine: Coroutine[Any, Any, T_co], name: str) -> None:
        self._coroutine = coroutine
        self._name = name

    def __await__(self) -> Generator[Any, Any, T_co]:
        return self._coroutine.__await__()

    def __bool__(self) -> bool:
        self._coroutine.close()  # else Python also warns that it was never awaited
        raise TypeError(
            f"{self._name}() was not awaited, and what it returned is true for everybody: "
            f"write 'await {self._name}()'"
        )

    if not TYPE_CHECKING:  # type checkers know what a coroutine has

        def __getattr__(self, name: str) -> NoReturn:
            if name.startswith(("_", "cr_")):  # Python's own questions
                raise AttributeError(name)
            call = f"{self._name}()"
            raise AttributeError(f"{call} was not awaited: write '(await {call}).{name}'")

    # What tasks call: ``asyncio.create_task`` takes coroutines alone.
    def send(self, value: Any, /) -> Any:
        return self._coroutine.send(value)

    def throw(self, error: Any, /, *details: Any) -> Any:
        return self._coroutine.throw(error, *details)

    def close(self) -> None:
        self._coroutine.close()
