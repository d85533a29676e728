"""A Chromium for the tests of pages, which logs what is asked for and what goes wrong."""

from __future__ import annotations

import shutil

import pytest

ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]


@pytest.fixture(scope="session")
def chromium():
    sync = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: make browser")
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("Chromium is not installed: make browser")
    with sync.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield browser
        browser.close()


class Visit:
    """A page with what it asked for and what it complained of."""

    def __init__(self, browser, **context):
        self.context = browser.new_context(**context)
        self.page = self.context.new_page()
        self.requests, self.complaints = [], []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("console", lambda m: self.complaints.append(m.text) if m.type in ("error", "warning") else None)

    @property
    def outside(self):
        """What was asked for beyond the machine and the page itself."""
        inside = ("file:", "data:", "blob:", "http://127.0.0.1", "http://localhost", "ws://127.0.0.1")
        return [url for url in self.requests if not url.startswith(inside)]


@pytest.fixture
def visit(chromium):
    made = []

    def open_page(url, **context):
        found = Visit(chromium, **{"viewport": {"width": 1280, "height": 1000}, **context})
        made.append(found)
        found.page.goto(url)
        return found

    yield open_page
    for found in made:
        assert found.outside == []
        assert found.complaints == []
        found.context.close()
