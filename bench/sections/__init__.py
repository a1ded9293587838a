"""The sections, in the order of the report. Each has a module with a ``SECTION``."""

from collections.abc import Sequence
from typing import Final

from bench.section import Section
from bench.sections import (
    cluster,
    device_list,
    frameworks,
    http,
    lag,
    memory,
    original,
    passwords,
    profile,
    revoke_all,
    sql,
    stored,
    sync,
    validate,
    writes,
)

__all__ = ["SECTIONS"]

SECTIONS: Final[Sequence[Section]] = (
    original.SECTION,
    validate.SECTION,
    cluster.SECTION,
    sync.SECTION,
    http.SECTION,
    frameworks.SECTION,
    writes.SECTION,
    revoke_all.SECTION,
    device_list.SECTION,
    lag.SECTION,
    stored.SECTION,
    sql.SECTION,
    memory.SECTION,
    passwords.SECTION,
    profile.SECTION,
)
