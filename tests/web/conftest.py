"""A browser, and a `Room` for it to look into."""

from __future__ import annotations

import logging
import re
import shutil
from collections.abc import Iterator
from typing import Any

import pytest

from app.flash_guard import FlashGuard
from tests.web.room import OpenGuard, Room

CHROMIUM_ARGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    # Tests run in parallel to others: a page that is covered must not be slowed down.
    "--disable-backgrounding-occluded-windows",
    "--disable-renderer-backgrounding",
]


@pytest.fixture
def room() -> Iterator[Room]:
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
    room = Room(FlashGuard()).start()
    yield room
    room.close()


@pytest.fixture(scope="module")
def lasting_room() -> Iterator[Room]:
    """For tests that only read from it."""
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
    room = Room(FlashGuard()).start()
    yield room
    room.close()


@pytest.fixture(scope="module")
def modules(browser: Any, lasting_room: Room) -> Iterator[Any]:
    """A page that waits for its warning to be acknowledged, for its modules alone."""
    page = browser.new_page()
    page.goto(lasting_room.address)
    yield page
    page.close()


@pytest.fixture
def open_room() -> Iterator[Room]:
    """Without the server's guard."""
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
    room = Room(OpenGuard()).start()
    yield room
    room.close()


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("Chromium is not installed (Debian: apt install chromium)")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=chromium, args=CHROMIUM_ARGS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    """A page that must not complain on its console."""
    with _Checked(browser) as page:
        yield page


class _Checked:
    """Of a size, with complaints collected."""

    def __init__(self, browser: Any, **options: Any) -> None:
        self._context = browser.new_context(viewport={"width": 1280, "height": 720}, **options)
        self._complaints: list[str] = []

    def __enter__(self) -> Any:
        page = self._context.new_page()
        page.set_default_timeout(20_000)
        page.on("pageerror", lambda error: self._complaints.append(str(error)))
        page.on("console", self._note)
        return page

    def _note(self, message: Any) -> None:
        # That a server is away or refuses is said by the browser, and is no fault of the page.
        is_of_server = re.search("ERR_CONN|WebSocket|401|503", message.text) or (
            "/api/" in message.location["url"]
        )
        if message.type in ("error", "warning") and not is_of_server:
            self._complaints.append(message.text)

    def __exit__(self, kind: object, *_: object) -> None:
        self._context.close()
        if kind is None:
            assert self._complaints == []


@pytest.fixture
def still_page(browser: Any) -> Iterator[Any]:
    """Of someone who prefers reduced motion."""
    with _Checked(browser, reduced_motion="reduce") as page:
        yield page
