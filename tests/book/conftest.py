"""The built book, a server for it, and a browser that notes everything it should not do."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from bs4 import BeautifulSoup
from playwright.sync_api import Browser, Page, Route

from tests.book.built import BUILT, PAGES, Visitor


@pytest.fixture(scope="session")
def book() -> Path:
    """Return the folder of built pages."""
    missing = [page for page in PAGES if not (BUILT / f"{page}.html").is_file()]
    if missing:
        pytest.fail(f"the book is not built: {', '.join(missing)} missing; run `make book` first")
    return BUILT


@pytest.fixture(scope="session")
def soup(book: Path) -> Callable[[str], BeautifulSoup]:
    """Return a reader of built pages."""

    @cache
    def read(page: str) -> BeautifulSoup:
        return BeautifulSoup((book / f"{page}.html").read_text("utf-8"), "html.parser")

    return read


class QuietHandler(SimpleHTTPRequestHandler):
    """Serves files and writes no log."""

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture(scope="session")
def address(book: Path) -> Iterator[str]:
    """Serve the book on this machine."""
    with ThreadingHTTPServer(
        ("127.0.0.1", 0), partial(QuietHandler, directory=str(book))
    ) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@dataclass
class Visit:
    """A page in the browser, and what went wrong on it."""

    page: Page
    complaints: list[str] = field(default_factory=list)


@pytest.fixture
def visit(browser: Browser, address: str) -> Visitor:
    """Open pages, and note console errors, failed requests and requests to another host."""

    @contextmanager
    def open_page(
        name: str, *, width: int = 1280, theme: str = "light", script: bool = True
    ) -> Any:
        context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=theme, java_script_enabled=script
        )
        page = context.new_page()
        visit = Visit(page)

        def admit(route: Route) -> None:
            if route.request.url.startswith((f"{address}/", "data:")):
                route.continue_()
            else:
                visit.complaints.append(f"request to another host: {route.request.url}")
                route.abort()

        page.route("**/*", admit)
        page.on("pageerror", lambda error: visit.complaints.append(f"script error: {error}"))
        page.on("requestfailed", lambda request: visit.complaints.append(f"failed: {request.url}"))
        page.on("response", lambda response: _note_status(visit, response))
        page.on("console", lambda message: _note_message(visit, message))
        page.goto(f"{address}/{name}.html", wait_until="networkidle")
        if script:
            page.wait_for_function("!window.MathJax || window.MathJax.startup?.promise")
            page.evaluate("window.MathJax ? MathJax.startup.promise.then(() => true) : true")
        yield visit
        context.close()

    return open_page


def _note_status(visit: Visit, response: Any) -> None:
    if response.status >= 400:
        visit.complaints.append(f"status {response.status}: {response.url}")


def _note_message(visit: Visit, message: Any) -> None:
    if message.type in ("error", "warning"):
        visit.complaints.append(f"console {message.type}: {message.text}")
