"""The demo's main flow in two real browsers."""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from playwright.async_api import Browser, Page, async_playwright, expect

from tools.servers import Server

pytestmark = pytest.mark.no_cover

ROOT = Path(__file__).parents[2]
FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
OLD, NEW = "correct horse battery", "staple of the correct horse"
expect.set_options(timeout=30_000)  # in milliseconds; the default of 5 s is short on a busy machine
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]


@pytest.fixture
def demo(redis_server: Server) -> Iterator[str]:
    """Run a demo in a process of its own, and yield its URL."""
    redis_server.flush()  # other tests have entered wrong passwords for the same name
    environ = {**os.environ, "REDIS_URL": redis_server.url}
    command = [sys.executable, "-m", "examples.demo", "--port", "0"]
    with subprocess.Popen(
        command, cwd=ROOT, env=environ, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        opened = next((line for line in process.stdout if line.startswith("Open:")), "")
        try:
            yield opened.split()[1]
        finally:
            process.terminate()
            assert process.wait(30) == 128 + signal.SIGTERM


@pytest.fixture
async def chromium() -> AsyncIterator[Browser]:
    """Yield a real Chromium; a missing one is an error."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=shutil.which("chromium") or "chromium", args=FLAGS
        )
        yield browser
        await browser.close()


async def log_in(page: Page, password: str) -> None:
    """Fill in the login form and send it."""
    await page.fill("#login-username", "ada")
    await page.fill("#login-password", password)
    async with page.expect_navigation():
        await page.click("#login button")


async def is_visitor_at_the_next_click(page: Page) -> None:
    """Check that the page is a visitor's when it is opened again."""
    # Wait for the new page: what is typed into the old one would be lost.
    async with page.expect_navigation():
        await page.click(".brand")
    await expect(page.locator("[data-page=visitor]")).to_be_visible()


async def sticks_out(page: Page) -> list[str]:
    """Return the elements that are wider than the page."""
    script = """() => {
        const root = document.documentElement;
        const right = (element) => element.getBoundingClientRect().right;
        const wide = (element) => right(element) > root.clientWidth + 0.5;
        if (root.scrollWidth <= root.clientWidth) return [];
        return [...document.querySelectorAll("*")].filter(wide).map((e) => e.outerHTML);
    }"""
    await page.wait_for_load_state()  # including the style sheet
    found: list[str] = await page.evaluate(script)
    return found


async def test_two_browsers_revoke_each_others_logins(demo: str, chromium: Browser) -> None:
    """Two browsers see and revoke each other's logins, and the pages show the keys in Redis."""
    desktop = await chromium.new_context(viewport={"width": 1280, "height": 800})
    phone = await chromium.new_context(viewport={"width": 360, "height": 740}, user_agent=FIREFOX)
    a, b = await desktop.new_page(), await phone.new_page()
    complaints: list[str] = []
    for page in (a, b):
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on(
            "console",
            lambda message: (
                complaints.append(message.text)
                if "Content Security Policy" in message.text
                else None
            ),
        )

    # Sign up in A: scripts can't read the cookie, and Redis has a record and a list.
    await a.goto(demo)
    await a.fill("#signup-username", "ada")
    await a.fill("#signup-name", "Ada Lovelace")
    await a.fill("#signup-password", OLD)
    await a.click("#signup button")
    await expect(a.locator(".device")).to_have_count(1)
    (cookie,) = [
        cookie for cookie in await desktop.cookies() if cookie.get("name") == "auth_session"
    ]
    assert (cookie.get("httpOnly"), cookie.get("sameSite"), cookie.get("path")) == (
        True,
        "Lax",
        "/",
    )
    assert await a.evaluate("document.cookie") == ""
    await expect(a.locator(".key.list h3")).to_contain_text("userSession:")
    await expect(a.locator(".key.record h3")).to_have_text(re.compile(r"^session:[0-9a-f]{6}…$"))
    hashed = (await a.locator(".key.record h3").inner_text()).removeprefix("session:")
    assert not cookie.get("value", "").startswith(hashed.rstrip("…"))
    await expect(a.locator(".key.record pre")).to_contain_text('"active_expires"')
    await expect(a.locator(".latest")).to_contain_text("the script “create”")

    # The TTL on the page counts down.
    ttl = a.locator(".key.record .ttl > time")
    before = await ttl.inner_text()
    assert re.fullmatch(r"14 d 23:59:\d\d", before)
    await expect(ttl).not_to_have_text(before)

    # Log in with B: A shows two entries without a click, and B's page fits a phone.
    await b.goto(demo)
    assert await sticks_out(b) == []
    await log_in(b, OLD)
    await expect(b.locator(".device")).to_have_count(2)
    assert await sticks_out(b) == []
    await expect(a.locator(".device")).to_have_count(2)
    await expect(a.locator(".device.here")).to_have_count(1)
    await expect(a.locator(".device:not(.here) .name")).to_contain_text("Firefox on Linux")
    await expect(a.locator(".key.record")).to_have_count(2)

    # A logs B out, and B's page shows it.
    await a.click(".device:not(.here) button")
    await expect(a.locator(".device")).to_have_count(1)
    await expect(a.locator(".latest .gone")).to_contain_text("session:")
    await expect(b.locator("#revoked")).to_be_visible()
    await is_visitor_at_the_next_click(b)

    # An idle session is renewed by its next use: it has a new id, the same handle, and a marker.
    handle = await a.locator(".device.here .handle code").inner_text()
    await a.click("text=Let this session go idle")
    await a.click("text=Use it now")
    (renewed,) = [
        cookie for cookie in await desktop.cookies() if cookie.get("name") == "auth_session"
    ]
    assert renewed.get("value") != cookie.get("value")
    await expect(a.locator(".device.here .handle code")).to_have_text(handle)
    await expect(a.locator(".key.marker h3")).to_contain_text(
        f"session:renewed:{{session:{hashed}}}"
    )
    await expect(a.locator(".key.marker .ttl > time")).to_have_text(re.compile(r"0:\d\d"))

    # Log out everywhere: both browsers are visitors.
    await log_in(b, OLD)
    await expect(b.locator(".device")).to_have_count(2)
    await a.click("text=Log out everywhere >> nth=-1")
    await expect(a.locator("[data-page=visitor]")).to_be_visible()
    await is_visitor_at_the_next_click(b)

    # Change the password in A: A stays logged in, B does not, and only the new password works.
    await log_in(a, OLD)
    await log_in(b, OLD)
    await expect(b.locator(".device")).to_have_count(2)
    await expect(a.locator(".device")).to_have_count(2)
    await a.fill("#current", OLD)
    await a.fill("#new", NEW)
    await a.click("#password button")
    await expect(a.locator(".notice[role=status]")).to_contain_text("Changed")
    await is_visitor_at_the_next_click(b)
    await log_in(b, OLD)
    await expect(b.locator("[role=alert]:visible")).to_have_text("Wrong name or password.")
    await expect(b.locator(".latest")).to_contain_text("Before a password is checked")
    await log_in(b, NEW)
    await expect(b.locator(".device")).to_have_count(2)
    assert await sticks_out(b) == []
    assert complaints == []
