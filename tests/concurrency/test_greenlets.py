"""Where threads are greenlets, passwords are hashed in native threads."""

import subprocess
import sys
import threading

from lucia._compat.greenlets import in_native_thread

GREENLETS = """
from gevent import monkey
if {patched}:
    monkey.patch_all()
import gevent
from lucia import Auth, PrimaryKey, ScryptHash
from lucia.adapters.memory import MemoryAdapter

memory = MemoryAdapter()
auth = Auth(users=memory, sessions=memory, env="DEV", hash=ScryptHash(ln=13, r=8, p=1))
order = []

def sign_up():
    auth.create_user(primary_key=PrimaryKey("username", "anna", "correct horse"))
    order.append("sign-up")

def other():
    gevent.sleep(0)
    order.append("page")

gevent.joinall([gevent.spawn(sign_up), gevent.spawn(other)], raise_error=True)
print(*order)
"""


def run(patched: bool) -> str:
    """Sign somebody up in a greenlet beside another one; return what ended first, and last."""
    program = GREENLETS.format(patched=patched)
    command = [sys.executable, "-c", program]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_other_greenlets_run_while_a_password_is_hashed() -> None:
    """While a password is hashed, another greenlet runs."""
    assert run(patched=True) == "page sign-up"


def test_control_without_patched_threads() -> None:
    """Without gevent's patch, threads are threads: the calling thread hashes."""
    assert run(patched=False) == "sign-up page"


def test_without_gevent() -> None:
    """In a process without greenlets, the calling thread does the work."""
    assert in_native_thread(threading.get_ident) == threading.get_ident()
