"""The commands of ``manage.py``: logins, expired sessions and passwords."""

from io import StringIO
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from sqlalchemy import MetaData, create_engine
from sqlalchemy.pool import StaticPool

from lucia import Auth, InvalidPassword, PrimaryKey
from lucia.adapters.django import DjangoUserAdapter
from lucia.adapters.django.management.commands import lucia_changepassword
from lucia.adapters.memory import MemoryAdapter
from lucia.adapters.sqlalchemy import AuthTables, SQLAlchemyAdapter
from tests.support.django_site_web import PASSWORD, Site, site

__all__ = ["site"]

KEY = ("username", "anna")


def run(command: str, *arguments: str) -> str:
    """Return what a command printed."""
    output = StringIO()
    call_command(command, *arguments, stdout=output)
    return output.getvalue()


@pytest.fixture
def anna(site: Site) -> Any:
    """Return a user who logs in with a key."""
    site.serve()
    key = PrimaryKey(*KEY, PASSWORD)
    return site.auth.create_user(primary_key=key, attributes={"username": "anna"}).user_id


# lucia_sessions


def test_listing_logins(site: Site, anna: int) -> None:
    """A user's logins are listed with their handles and metadata, without ids of sessions."""
    sessions = [
        site.auth.create_session(anna, metadata={"user_agent": agent}) for agent in ("a", "\x1b[2J")
    ]
    for arguments in (["anna"], [str(anna), "--id"]):
        output = run("lucia_sessions", *arguments)
        lines = {line.split("  ")[0]: line for line in output.splitlines()}
        assert lines.keys() == {session.handle for session in sessions}
        assert lines[sessions[0].handle].endswith(' UTC  {"user_agent": "a"}')
        assert f"  {sessions[0].created_at:%Y-%m-%d %H:%M} to " in lines[sessions[0].handle]
        assert not any(session.session_id in output for session in sessions)
        assert "\x1b" not in output


def test_revoking_logins(site: Site, anna: int) -> None:
    """One login is revoked by its handle, or all of them."""
    one, other = site.log_in(anna), site.log_in(anna)
    assert run("lucia_sessions", "anna", f"--revoke={one.handle}") == "Revoked 1 login.\n"
    assert (site.is_live(one.session_id), site.is_live(other.session_id)) == (False, True)
    with pytest.raises(CommandError, match="'anna' has no login with this handle"):
        run("lucia_sessions", "anna", f"--revoke={one.handle}")
    assert run("lucia_sessions", "anna", "--revoke-all") == "Revoked all logins of 'anna': 1.\n"
    assert not site.is_live(other.session_id)


def test_users_who_are_not_there(site: Site, anna: int) -> None:
    """An unknown user is an error, and so is a text that is no id."""
    for arguments, message in (
        (["berta"], "there is no user 'berta'"),
        (["77", "--id"], "there is no user '77'"),
        (["anna", "--id"], "'anna' is not the id of a user"),
    ):
        with pytest.raises(CommandError, match=message):
            run("lucia_sessions", *arguments)


def test_users_without_names(site: Site) -> None:
    """Users of another model are given by their ids."""
    site.auth = Auth(
        users=DjangoUserAdapter("django_site.PersonKey"), sessions=site.sessions, env="DEV"
    )
    site.serve()
    user = site.auth.create_user(primary_key=None)
    session = site.auth.create_session(user.user_id)
    with pytest.raises(CommandError, match="give the user's id, with --id"):
        run("lucia_sessions", "anna")
    assert run("lucia_sessions", user.user_id, "--id").startswith(session.handle)


# lucia_clearsessions


def test_clearing_sessions_user_by_user(site: Site, anna: int) -> None:
    """Expired sessions of every user are deleted, and live ones stay."""
    dead = site.log_in(anna)
    site.now += 100 * 24 * 3_600_000
    live = site.log_in(User.objects.create_user("berta").pk)
    assert run("lucia_clearsessions") == ""
    assert (site.is_live(dead.session_id), site.is_live(live.session_id)) == (False, True)


def test_clearing_sessions_in_sql(site: Site) -> None:
    """A store that can delete expired sessions by itself does so."""
    metadata = MetaData()
    tables = AuthTables(metadata, sessions=True)
    engine = create_engine("sqlite://", poolclass=StaticPool)
    metadata.create_all(engine)
    adapter = SQLAlchemyAdapter(engine, tables)
    site.auth = Auth(users=adapter, sessions=adapter, env="DEV", clock=lambda: 1_000)
    site.auth.create_session(site.auth.create_user(primary_key=None).user_id)
    site.serve()
    deleted = "Deleted 1 sessions and 0 single-use keys.\n"
    assert run("lucia_clearsessions") == deleted
    engine.dispose()


def test_nothing_to_clear(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that expires sessions is left alone; without Django's users others can't be asked."""
    site.serve()
    monkeypatch.setattr(site.sessions, "expires_records", True)
    assert run("lucia_clearsessions") == "The session store expires sessions by itself.\n"
    site.auth = Auth(sessions=MemoryAdapter(), env="DEV")
    site.serve()
    with pytest.raises(CommandError, match="can't list expired sessions"):
        run("lucia_clearsessions")


# lucia_changepassword


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the list of what is typed when the command asks for a password."""
    texts: list[str] = []
    monkeypatch.setattr(lucia_changepassword, "getpass", lambda prompt: texts.pop(0))
    return texts


def test_changing_a_password(site: Site, anna: int, typed: list[str]) -> None:
    """The new password is the user's, the old one is not, and the user is logged out."""
    session = site.log_in(anna)
    typed += ["battery staple"] * 2
    assert "Changed the password of 'anna'" in run("lucia_changepassword", "Anna")
    assert not site.is_live(session.session_id)
    assert site.auth.use_key(*KEY, "battery staple").user_id == anna
    with pytest.raises(InvalidPassword):
        site.auth.use_key(*KEY, PASSWORD)


def test_changing_the_password_of_another_provider(site: Site, anna: int, typed: list[str]) -> None:
    """The provider is that of the ready routes, or is given."""
    for provider, arguments in (("email", ["--provider", "email"]), ("pin", [])):
        site.auth.create_key(
            anna, provider_id=provider, provider_user_id="A@B.C", password=PASSWORD
        )
        site.serve(ROUTES={"provider_id": "pin", "normalize": str.upper})
        typed += ["battery staple"] * 2
        run("lucia_changepassword", "a@b.c", *arguments)
        assert site.auth.use_key(provider, "A@B.C", "battery staple").user_id == anna


@pytest.mark.parametrize(
    ("name", "passwords", "message"),
    [
        ("berta", [], "nobody logs in as 'berta' with 'username'"),
        ("anna", ["one", "other"], "the passwords do not match"),
        ("anna", ["", ""], "password"),
        ("anna", ["password123"] * 2, "This password is too common."),
    ],
)
def test_a_password_that_is_not_changed(
    site: Site, anna: int, typed: list[str], name: str, passwords: list[str], message: str
) -> None:
    """An unknown name, two passwords that differ and one that is refused are errors."""
    validators = [{"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"}]
    site.serve(settings={"AUTH_PASSWORD_VALIDATORS": validators})
    typed += passwords
    with pytest.raises(CommandError, match=message):
        run("lucia_changepassword", name)
    assert site.auth.use_key(*KEY, PASSWORD).user_id == anna
