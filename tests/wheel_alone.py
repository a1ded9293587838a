"""Run by scripts/wheel-test where nothing but the wheel is installed."""

import importlib
import importlib.metadata
import pkgutil
import sys

import lucia

NEEDS_AN_EXTRA = {"lucia.adapters.redis": "redis", "lucia.adapters.sqlalchemy": "sqlalchemy"}
"""The doors that need something optional, and the extra that their ImportError has to name."""


def tells_the_extra(module: str, extra: str) -> bool:
    try:
        importlib.import_module(module)
    except ImportError as error:
        return f"lucia-auth[{extra}]" in str(error)
    return False


installed = {distribution.name for distribution in importlib.metadata.distributions()} - {"pip", "setuptools"}
assert installed == {"lucia-auth"}, installed
assert not any(name.split(".")[0] in {"redis", "sqlalchemy", "starlette", "fastapi", "argon2"} for name in sys.modules)
assert {"errors", "models"} <= {module.name for module in pkgutil.iter_modules(lucia.__path__)}
for name in lucia.__all__:
    getattr(lucia, name)
for module, extra in NEEDS_AN_EXTRA.items():
    assert tells_the_extra(module, extra), f"import {module} does not say: pip install 'lucia-auth[{extra}]'"
print(f"lucia-auth {importlib.metadata.version('lucia-auth')}: {len(lucia.__all__)} names")
