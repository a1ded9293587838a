"""A sampling profiler: it records the running module each millisecond of processor time."""

import signal
import sys
import time
from collections import Counter
from pathlib import Path
from types import FrameType, TracebackType
from typing import Final, Self

__all__ = ["WAITING", "Sampler"]

WAITING: Final = "nothing: waiting for the server"
EVERY: Final = 0.001
ROOTS: Final = sorted(
    (str(Path(root).resolve()) for root in sys.path if root), key=len, reverse=True
)
"""The prefixes of modules' paths, the longest first: one may contain another."""


class Sampler:
    """A context manager that samples the main thread. C code counts as its caller's."""

    def __init__(self) -> None:
        self._seen: Counter[str] = Counter()
        self._begin = self._begin_busy = self._idle = 0.0

    def __enter__(self) -> Self:
        signal.signal(signal.SIGPROF, self._look)
        self._begin, self._begin_busy = time.perf_counter(), time.process_time()
        signal.setitimer(signal.ITIMER_PROF, EVERY, EVERY)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        signal.setitimer(signal.ITIMER_PROF, 0)
        busy = (time.process_time() - self._begin_busy) / (time.perf_counter() - self._begin)
        self._idle = max(0.0, 1 - busy)

    def shares(self) -> dict[str, float]:
        """Return the share of each module, and of waiting, in per cent of the elapsed time."""
        each = 100 * (1 - self._idle) / self._seen.total()
        return {WAITING: 100 * self._idle} | {
            where: each * seen for where, seen in self._seen.most_common()
        }

    def _look(self, number: int, frame: FrameType | None) -> None:
        if frame:
            self._seen[_name(frame)] += 1


def _name(frame: FrameType) -> str:
    """Return the module's path if it is ours, otherwise the package that it belongs to."""
    path = frame.f_code.co_filename
    root = next((root for root in ROOTS if path.startswith(f"{root}/")), "")
    path = path.removeprefix(f"{root}/")
    if path == "<string>":
        return "dataclasses, namedtuple"
    if path.startswith("<frozen "):
        return path.removeprefix("<frozen ").removesuffix(">")
    return (
        path
        if path.startswith(("lucia/", "bench/"))
        else path.partition("/")[0].removesuffix(".py")
    )
