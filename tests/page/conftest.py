"""Chromium on the page of a gateway, in front of the demo model or of a server that is told what
to say.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from internvl_modal.client.aio import AsyncClient
from internvl_modal.deployment.served_app import FixedBackend
from internvl_modal.gateway import create_app
from internvl_modal.transport.retry import Retry
from tests.asgi import serving
from tests.loopback import Loopback

ENABLED = "INTERNVL_MODAL_TEST_BROWSER"
KEY = "gateway-test-key"
EXAMPLES = Path(__file__).parents[2] / "examples" / "images"
WAIT = 20_000
"""Milliseconds for anything on the page."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    reason = f"needs Debian's chromium: set {ENABLED}=1"
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.browser)
            item.add_marker(pytest.mark.skipif(os.environ.get(ENABLED) != "1", reason=reason))


@dataclass
class Gateway:
    """One gateway, the page that is open on it, and what the browser complained of."""

    url: str
    app: Any
    page: Page
    complaints: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    def open(self, *, link: bool = True) -> Page:
        """The page, opened by a link that works once."""
        self.page.goto(f"{self.url}/#once={self.app.state.guests.invite()}" if link else self.url)
        if link:
            self.page.wait_for_selector("#model.ready")
        return self.page


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        path = shutil.which("chromium") or shutil.which("google-chrome")
        # Root may not use the sandbox, and CI is root in a container.
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


def opened(browser: Browser, app: Any) -> Iterator[Gateway]:
    with serving(app) as url:
        context = browser.new_context(viewport={"width": 1240, "height": 860})
        context.grant_permissions(["clipboard-read", "clipboard-write"])
        context.set_default_timeout(WAIT)
        gateway = Gateway(url, app, context.new_page())
        gateway.page.on("pageerror", lambda error: gateway.complaints.append(str(error)))
        gateway.page.on("request", lambda request: gateway.asked.append(request.url))
        yield gateway
        context.close()
    assert not gateway.complaints
    hosts = [one for one in gateway.asked if not one.startswith((url, "blob:", "data:"))]
    assert not hosts, "the page works with no other host"


@pytest.fixture
def demo(browser: Browser) -> Iterator[Gateway]:
    yield from opened(browser, create_app(AsyncClient("local", model="demo"), api_key=KEY))


@pytest.fixture
def told(browser: Browser, loopback: Loopback) -> Iterator[Gateway]:
    """In front of ``loopback``, which passes for LMDeploy with the 78B."""
    backend = FixedBackend(loopback.url, "upstream-key", "internvl2_5-78b", "lmdeploy-0.7.3")
    client = AsyncClient(backend, retry=Retry(attempts=1))
    yield from opened(browser, create_app(client, api_key=KEY))
