"""The public names, and what importing them does not import."""

import re
import subprocess
import sys
from importlib import import_module
from types import ModuleType

import pytest

import lucia
import lucia.testing

OPTIONAL = (
    "aiosqlite",
    "argon2",
    "asgiref",
    "bson",
    "django",
    "fastapi",
    "flask",
    "hypothesis",
    "litestar",
    "msgspec",
    "pymongo",
    "pytest",
    "quart",
    "redis",
    "sqlalchemy",
    "starlette",
    "valkey",
    "werkzeug",
)
"""Packages that a fresh installation does not have."""

IMPORTS = """
import sys, importlib

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {optional}:
            raise ImportError(f"not installed: {{name}}", name=name)

sys.meta_path.insert(0, Refuse())
importlib.import_module({module!r})
"""


def import_alone(module: str, *installed: str) -> subprocess.CompletedProcess[str]:
    """Import a module in a process where only these optional packages are installed."""
    missing = tuple(name for name in OPTIONAL if name not in installed)
    code = IMPORTS.format(optional=missing, module=module)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_names() -> None:
    """These names of ``lucia`` are public."""
    assert lucia.__all__ == [
        "UNSET",
        "Argon2Hash",
        "AsyncAuth",
        "AsyncAuthRequest",
        "AsyncIdAssigningUserAdapter",
        "AsyncRenewingSessionAdapter",
        "AsyncSessionAdapter",
        "AsyncSessionUserAdapter",
        "AsyncThrottleStore",
        "AsyncThrottlingSessionAdapter",
        "AsyncTransactionalAdapter",
        "AsyncUserAdapter",
        "Attempt",
        "Auth",
        "AuthRequest",
        "AutoUserIdGenerationNotSupported",
        "ConcurrentlyRevoked",
        "Cookie",
        "Device",
        "DuplicateKeyId",
        "DuplicateSessionId",
        "ExpiredKey",
        "FailureLimit",
        "FailureRule",
        "IdAssigningUserAdapter",
        "InvalidCredentials",
        "InvalidInput",
        "InvalidKeyId",
        "InvalidPassword",
        "InvalidRequest",
        "InvalidSessionId",
        "InvalidUserId",
        "Key",
        "KeyRow",
        "LuciaError",
        "LuciaHash",
        "NotAuthenticated",
        "OriginFailure",
        "OutdatedPassword",
        "Overloaded",
        "PasswordHasher",
        "PasswordPool",
        "PersistentKey",
        "PrimaryKey",
        "RenewingSessionAdapter",
        "RequestContext",
        "RequestUnauthorized",
        "RevocationNotReplicated",
        "ScryptHash",
        "Session",
        "SessionAdapter",
        "SessionCookie",
        "SessionExpiry",
        "SessionRow",
        "SessionUser",
        "SessionUserAdapter",
        "SessionsNotRevoked",
        "SingleUseKey",
        "StoreCorrupt",
        "StoreUnavailable",
        "StoredSession",
        "Throttle",
        "ThrottleStore",
        "ThrottlingSessionAdapter",
        "TooManyAttempts",
        "TransactionalAdapter",
        "UnknownError",
        "Unset",
        "User",
        "UserAdapter",
        "UserCache",
        "UserIdType",
        "UserRow",
        "UsersNotConfigured",
        "check_new_password",
        "generate_random_string",
        "surplus_sessions",
    ]


def test_testing_names() -> None:
    """These names of ``lucia.testing`` are public."""
    assert lucia.testing.__all__ == [
        "AsyncRenewingSessionAdapterSuite",
        "AsyncSessionAdapterSuite",
        "AsyncSessionUserAdapterSuite",
        "AsyncUserAdapterSuite",
        "RenewingSessionAdapterSuite",
        "SessionAdapterSuite",
        "SessionUserAdapterSuite",
        "UserAdapterSuite",
        "alogin",
        "login",
    ]


@pytest.mark.parametrize("module", [lucia, lucia.testing])
def test_all_is_there(module: ModuleType) -> None:
    """Each public name exists and is listed once, in order."""
    names: list[str] = module.__all__
    assert [name for name in names if not hasattr(module, name)] == []
    assert names == sorted(
        set(names), key=lambda name: (not name.isupper(), not name[0].isupper(), name)
    )


def test_both_flavours() -> None:
    """Each public async name has a sync counterpart."""
    names = {*lucia.__all__, *lucia.testing.__all__}
    assert {name.removeprefix("Async") for name in names if name.startswith("Async")} <= names


@pytest.mark.parametrize(
    "module",
    [
        "lucia",
        "lucia.testing",
        "lucia.adapters.memory",
        "lucia.middleware.accounts",
        "lucia.middleware.asgi",
        "lucia.middleware.responses",
        "lucia.middleware.wsgi",
    ],
)
def test_imports_nothing_optional(module: str) -> None:
    """These modules need nothing but the standard library."""
    done = import_alone(module)
    assert done.returncode == 0, done.stderr


def test_redis_adapter_imports_no_client() -> None:
    """The Redis adapter works with a client of either library, and imports none."""
    done = import_alone("lucia.adapters.redis", "msgspec")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("module", "broken"),
    [
        ("lucia.adapters.mongodb", "lucia._async.stores.mongodb"),
        ("lucia.adapters.redis", "lucia._async.stores.redis.adapter"),
        ("lucia.cli", "lucia.cli.doctor"),
    ],
)
def test_import_that_fails_for_another_reason(
    module: str, broken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An import that fails for another reason raises the original error."""
    monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.setitem(sys.modules, broken, None)
    with pytest.raises(ImportError, match=re.escape(broken)):
        import_module(module)


@pytest.mark.parametrize(
    ("module", "extra"),
    [
        ("lucia.adapters.mongodb", "mongodb"),
        ("lucia.adapters.redis", "redis"),
        ("lucia.adapters.sqlalchemy", "sqlalchemy"),
        ("lucia.adapters.django", "django"),
        ("lucia.middleware.django", "django"),
        ("lucia.middleware.fastapi", "fastapi"),
        ("lucia.middleware.flask", "flask"),
        ("lucia.middleware.litestar", "litestar"),
        ("lucia.middleware.quart", "quart"),
        ("lucia.middleware.starlette", "starlette"),
        ("lucia.cli", "cli"),
    ],
)
def test_missing_extra(module: str, extra: str) -> None:
    """A module that needs a library names the command that installs it."""
    done = import_alone(module)
    assert done.returncode == 1
    assert f'pip install "lucia-auth[{extra}]"' in done.stderr.splitlines()[-1]
