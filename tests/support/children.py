"""Cases that run in child processes, which may kill themselves."""

import json
import os
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

__all__ = ["answer_lines", "run_in_child"]


def run_in_child(run: Callable[[], object]) -> str:
    """Run a function in a child process, and return how that ended.

    ``killed`` by a signal, ``done``, or ``failed`` with an error.
    """
    child = os.fork()
    if not child:
        try:
            run()
        finally:
            os._exit(0 if sys.exc_info()[0] is None else 1)
    status = os.waitpid(child, 0)[1]
    if os.WIFSIGNALED(status):
        return "killed"
    return "done" if os.waitstatus_to_exitcode(status) == 0 else "failed"


def answer_lines(run: Callable[[Any], object]) -> None:
    """Run a case in a child for each line of JSON on stdin, and answer it with a line."""
    for line in sys.stdin:
        sys.stdout.write(run_in_child(partial(run, json.loads(line))) + "\n")
        sys.stdout.flush()
