"""A real browser on the console: headless Chromium, as a person uses it; what it complains of fails the test."""

import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.support.http.chromium import CHROMIUM
from tests.support.patience import PATIENCE

playwright = pytest.importorskip("playwright.sync_api", reason="requirements/browsers.txt is not installed")

PATIENCE_MS = PATIENCE * 1000


@contextmanager
def chromium() -> Iterator[Any]:
    """The browser. Skips the test where there is none."""
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed")
    with playwright.sync_playwright() as driver:
        # As root, and in containers, there is no sandbox to be had.
        options = ["--no-sandbox", "--disable-dev-shm-usage"]
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=options, timeout=PATIENCE_MS)
        yield browser
        browser.close()


@dataclass
class Watched:
    """A window of the console, and what its browser complained of."""

    page: Any
    complaints: list[str] = field(default_factory=list)
    expected: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, page: Any) -> "Watched":
        """The window, watched from now on."""
        watched = cls(page)
        page.set_default_timeout(PATIENCE_MS)
        page.on("console", lambda said: watched.complaints.extend([said.text] if said.type == "error" else []))
        page.on("pageerror", lambda error: watched.complaints.append(f"uncaught: {error}"))
        return watched

    def check(self) -> None:
        """Fails when the browser complained of anything but what the test expected, in a pattern."""
        found = [one for one in self.complaints if not any(re.search(known, one) for known in self.expected)]
        assert found == []


class Desk:
    """Somebody at a browser: their windows share a sign-in's storage, as those of one person do."""

    def __init__(self, browser: Any, base_url: str, **context: Any) -> None:
        self.url = base_url.partition("/mini-chat")[0] + "/console"
        self.context = browser.new_context(**{"viewport": {"width": 1360, "height": 860}, **context})
        self.windows: list[Watched] = []

    def window(self, hash_: str = "") -> Any:
        """A new window at the console."""
        page = self.context.new_page()
        self.windows.append(Watched.of(page))
        page.goto(self.url + hash_)
        return page

    def signed_in(self, tenant: str, user: str, role: str = "", hash_: str = "") -> Any:
        """A new window in which somebody has signed in by the picker."""
        page = self.window(hash_)
        sign_in(page, tenant, user, role)
        return page

    def expects(self, pattern: str) -> None:
        """The browser may complain of this in every window."""
        for window in self.windows:
            window.expected.append(pattern)

    def close(self) -> None:
        """Closes the windows, and fails when one of them had something to complain of."""
        self.context.close()
        for window in self.windows:
            window.check()


def sign_in(page: Any, tenant: str, user: str, role: str = "") -> None:
    """Signs in by the picker."""
    page.get_by_role("textbox", name="Tenant").fill(tenant)
    page.get_by_role("textbox", name="User").fill(user)
    page.locator("select[name=role]").select_option(role)
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("button", name="New chat").wait_for()


def send(page: Any, text: str) -> None:
    """Writes a message and sends it."""
    page.get_by_label("Message", exact=True).fill(text)
    page.keyboard.press("Enter")


def answered(page: Any) -> None:
    """Waits until the answer is finished."""
    page.get_by_role("button", name="Send", exact=True).wait_for()
    page.get_by_role("button", name="Answer again").wait_for()


def last_answer(page: Any) -> Any:
    """The answer at the end."""
    return page.get_by_role("article", name="Answer").last


def eventually(is_so: Callable[[], bool]) -> None:
    """Waits until something is so outside of the browser."""
    deadline = time.monotonic() + PATIENCE_MS / 1000
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def serious_findings(page: Any) -> list[str]:
    """What axe-core finds that keeps somebody from using the page."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-core is not installed")
    # The page's own policy lets no script in; the browser's tools may.
    found = axe.Axe().run(page).response["violations"]
    return [
        f"{one['id']}: {one['help']}: {[node['html'][:160] for node in one['nodes']][:3]}"
        for one in found
        if one["impact"] in {"serious", "critical"}
    ]


LONG = os.environ.get("BROWSERS") == "1"
