"""Check the wheel where nothing else is installed; run by scripts/wheel-test."""

import importlib
import importlib.metadata
import pkgutil
import sys
from collections.abc import Iterator

import lucia

OPTIONAL = {
    "argon2",
    "cryptography",
    "django",
    "fastapi",
    "flask",
    "litestar",
    "pymongo",
    "quart",
    "redis",
    "rich",
    "sqlalchemy",
    "starlette",
    "typer",
    "valkey",
}


def refusals(package: str) -> Iterator[tuple[str, str]]:
    """Yield the public modules that can't be imported here, with the text of the error."""
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
assert {
    "lucia.adapters.django",
    "lucia.adapters.mongodb",
    "lucia.adapters.sqlalchemy",
    "lucia.cli",
} <= found.keys()
for module, message in found.items():
    assert "lucia-auth[" in message, (
        f"the error of import {module} must name the extra it needs: {message!r}"
    )
version = importlib.metadata.version("lucia-auth")
print(f"lucia-auth {version}: {len(lucia.__all__)} names; extras are needed by {', '.join(found)}")
