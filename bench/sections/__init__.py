"""What is measured: one module a section, each with a ``SECTION``, in the order of the report."""

from collections.abc import Sequence
from typing import Final

from bench.section import Section

__all__ = ["SECTIONS"]

SECTIONS: Final[Sequence[Section]] = ()
