"""The site in a real browser: Debian's Chromium, headless. Without it, or without Playwright, the tests are skipped."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import pytest

from vertex_registry.emulator import SiteServer
from vertex_registry.ui import Site

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from playwright.sync_api import Browser, Page

    from vertex_registry import LocalRegistry

    Open = Callable[..., Page]

sync_api = pytest.importorskip(
    "playwright.sync_api", reason="Playwright isn't installed, so the browser tests can't run"
)
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = [
    pytest.mark.unmeasured,  # measuring coverage costs much, and other tests reach each line
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium isn't installed, so the browser tests can't run"),
]

EVIL = "</script><img src=x onerror=window.pwned=1>'\"{{7*7}}"
#: A name that can't be broken between words, and that a browser would write from right to left.
LONG = "\u05d0" * 128


@pytest.fixture(scope="module")
def address(registry: LocalRegistry) -> Iterator[str]:
    registry.register_version(
        EVIL, "gs://models/evil/1", metadata={EVIL[:60]: EVIL}, description=EVIL, version_name=EVIL
    )
    registry.update_model(EVIL, description=EVIL)
    registry.register_version(LONG, "gs://models/long/1", description=LONG)
    with SiteServer(Site(registry, registry_name=EVIL)) as server:
        yield server.address


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM)
        yield browser
        browser.close()


@pytest.fixture
def open_page(chromium: Browser, address: str) -> Iterator[Open]:
    """Return a function that opens a page. A logged error, a request elsewhere or a hostile script fails the test."""
    problems: list[str] = []
    contexts: list[Any] = []

    def is_own(url: str) -> bool:
        return url.startswith(f"{address}/")

    def open_page(path: str, **settings: Any) -> Page:
        contexts.append(chromium.new_context(**settings))
        contexts[-1].set_default_timeout(30_000)
        page: Page = contexts[-1].new_page()
        page.on("console", lambda message: problems.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: problems.append(f"error: {error}"))
        page.on("dialog", lambda dialog: problems.append(f"dialog: {dialog.message}"))
        page.on("request", lambda request: problems.extend([] if is_own(request.url) else [request.url]))
        page.goto(f"{address}{path}")
        return page

    yield open_page
    for context in contexts:
        for page in context.pages:
            assert page.evaluate("window.pwned") is None
        context.close()
    assert problems == []


def names(page: Page) -> list[str]:
    return page.locator("tbody th a").all_inner_texts()


def test_search_and_go_back(open_page: Open) -> None:
    """A search has its own address, so it survives opening a model, going back and forward, and a bookmark."""
    page = open_page("/")
    page.get_by_label("Search").fill("fraud")
    page.keyboard.press("Enter")
    page.wait_for_url("**/?q=fraud*")
    assert names(page) == ["fraud"]
    page.get_by_role("link", name="fraud").click()
    assert page.get_by_role("heading", level=1).inner_text() == "fraud"
    page.go_back()
    assert (names(page), page.get_by_label("Search").input_value()) == (["fraud"], "fraud")
    page.go_forward()
    assert page.get_by_role("heading", level=1).inner_text() == "fraud"
    page.get_by_role("navigation", name="Site").get_by_role("link", name="Models").click()
    page.get_by_label("In stage").select_option("Production")
    page.get_by_role("button", name="Show").click()
    page.wait_for_url("**stage=Production*")
    assert names(page) == ["churn"]


def test_sort_choose_and_compare(open_page: Open, address: str) -> None:
    """A click on a column sorts versions, and two checked ones can be compared. Each view has its own address."""
    page = open_page("/model?name=churn")
    page.get_by_role("columnheader", name="accuracy").get_by_role("link").click()
    page.wait_for_url("**sort=-metadata.accuracy*")
    assert page.get_by_role("columnheader", name="accuracy").get_attribute("aria-sort") == "descending"
    best = names(page)[0]
    page.get_by_role("columnheader", name="accuracy").get_by_role("link").click()
    page.wait_for_url("**sort=metadata.accuracy*")
    assert names(page)[0] != best

    page.get_by_text("Columns and charts").click()
    page.get_by_role("group", name="Columns").get_by_label("team").uncheck()
    page.get_by_role("button", name="Show these").click()
    page.wait_for_url("**columns=chosen*")
    assert page.get_by_role("columnheader", name="team").count() == 0
    assert page.get_by_role("columnheader", name="accuracy").get_attribute("aria-sort") == "ascending"

    page.goto(f"{address}/model?name=churn")
    page.get_by_label("Compare version 55").check()
    page.get_by_label("Compare version 40").check()
    page.get_by_role("button", name="Compare the two").click()
    assert page.get_by_role("heading", level=1).inner_text() == "Versions 40 and 55"
    assert page.get_by_role("row", name="stage Archived Production", exact=True).count() == 1
    again = open_page(page.url.removeprefix(address))
    assert again.get_by_role("heading", level=1).inner_text() == "Versions 40 and 55"


def test_copy_and_without_a_script(open_page: Open) -> None:
    """A button copies the code. Without scripts there's no button, and everything is still readable."""
    path = "/version?model=churn&version=55"
    page = open_page(path, permissions=["clipboard-read", "clipboard-write"])
    page.get_by_role("button", name="Copy from vertex_registry").click()
    page.get_by_text("Copied").wait_for()
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied.startswith("from vertex_registry import RegistryClient")
    assert 'registry.load_version("churn", 55, trusted=True)' in copied

    static = open_page(path, java_script_enabled=False)
    assert static.get_by_role("button", name="Copy").count() == 0
    assert 'load_version("churn", 55' in static.locator("main").inner_text()
    page.goto(page.url)  # the fixture evaluates a script in each page
    static.context.close()


def test_by_keyboard(open_page: Open) -> None:
    """The first Tab focuses the link to the content, focus is visible, and a wide table can have it."""
    page = open_page("/", viewport={"width": 390, "height": 700})
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    assert page.locator(".skip").bounding_box()["x"] >= 0  # type: ignore[index]  # it's visible
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.name") == "q"
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    order = []
    for _ in range(6):
        page.keyboard.press("Tab")
        order.append(page.evaluate("document.activeElement.name || document.activeElement.textContent.trim()"))
    assert order[:3] == ["stage", "order", "Show"]
    page = open_page("/model?name=churn", viewport={"width": 390, "height": 700})
    region = page.get_by_role("region", name="Versions", exact=True)
    region.focus()
    assert page.evaluate("document.activeElement.getAttribute('aria-label')") == "Versions"
    assert region.evaluate("each => each.scrollWidth > each.clientWidth")  # so a browser scrolls it with arrow keys


#: Each page with few rows, because axe-core checks every cell.
VIEWS = (
    "/?q=churn",
    "/model?name=churn&stage=Production&sort=-metadata.accuracy",
    "/version?model=churn&version=55",
    "/compare?model=churn&a=40&b=55",
    "/changes?name=fraud",
)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_accessible(open_page: Open, address: str, scheme: str) -> None:
    """Every page follows axe-core's rules (labels, contrast, landmarks, order), wide or narrow, light or dark."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    page = open_page("/", color_scheme=scheme)
    for number, view in enumerate(VIEWS):
        page.set_viewport_size({"width": 390 if (number + (scheme == "dark")) % 2 else 1100, "height": 800})
        page.goto(address + view)
        page.evaluate("for (const each of document.querySelectorAll('details')) each.open = true")
        found = axe.run(page, options={} if scheme == "light" else {"runOnly": ["color-contrast"]})
        assert found.violations_count == 0, found.generate_report()
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"{view} scrolls sideways"


def test_a_name_moves_nothing_else(open_page: Open, address: str) -> None:
    """A long name doesn't push the other columns out of sight, and one from right to left doesn't turn code around."""
    page = open_page(f"/?q={LONG}")
    assert names(page) == [LONG]
    assert page.get_by_role("region", name="Models").evaluate("each => each.scrollWidth <= each.clientWidth")
    page.goto(f"{address}/version?model={LONG}")
    assert page.locator("pre").first.evaluate("each => getComputedStyle(each).unicodeBidi") == "bidi-override"


def test_markup_in_fields_is_shown_as_text(open_page: Open) -> None:
    """Markup in names, descriptions, metadata and versions is shown as text and never runs."""
    page = open_page("/?q=onerror")
    assert names(page) == [EVIL]
    page.get_by_role("link", name=EVIL).first.click()
    assert page.get_by_role("heading", level=1).inner_text() == EVIL
    page.get_by_role("region", name="Versions", exact=True).get_by_role("link", name="1", exact=True).click()
    assert page.get_by_role("heading", level=1).inner_text() == f"Version 1 {EVIL}"
    assert page.locator("main img, main script").count() == 0
