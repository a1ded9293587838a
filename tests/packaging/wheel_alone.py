"""Run by scripts/wheel-test where nothing but the wheel is installed."""

import importlib
import importlib.metadata
import pkgutil
import sys
from collections.abc import Iterator

import lucia

OPTIONAL = {
    "argon2",
    "cryptography",
    "fastapi",
    "redis",
    "rich",
    "sqlalchemy",
    "starlette",
    "typer",
    "valkey",
}


def refusals(package: str) -> Iterator[tuple[str, str]]:
    """The public modules under this one that can't be imported here, and what they say of it."""
    for module in pkgutil.iter_modules(importlib.import_module(package).__path__, f"{package}."):
        if module.name.rpartition(".")[2].startswith("_"):
            continue
        try:
            importlib.import_module(module.name)
        except ImportError as error:
            yield module.name, str(error)
        else:
            if module.ispkg:
                yield from refusals(module.name)


installed = {distribution.name for distribution in importlib.metadata.distributions()} - {
    "pip",
    "setuptools",
}
assert installed == {"lucia-auth"}, installed
for name in lucia.__all__:
    getattr(lucia, name)
found = dict(refusals("lucia"))
assert not OPTIONAL & {name.split(".")[0] for name in sys.modules}
assert {"lucia.adapters.sqlalchemy", "lucia.cli"} <= found.keys()
for module, message in found.items():
    assert "lucia-auth[" in message, (
        f"import {module} says {message!r}, and not which extra it needs"
    )
print(
    f"lucia-auth {importlib.metadata.version('lucia-auth')}: {len(lucia.__all__)} names; an extra is needed by {', '.join(found)}"
)
