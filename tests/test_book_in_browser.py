"""The rendered book in a real browser without network: pages open, figures are seen, links work."""

import shutil
from pathlib import Path
from urllib.parse import urldefrag, urlparse

import pytest
from book_project import ROOT
from catapults.book import runs
from catapults.book.build import build
from conftest import missing
from playwright.sync_api import Error, sync_playwright

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def html(cifar10, tmp_path_factory):
    """The project's own book at the preset smoke."""
    return build(ROOT, tmp_path_factory.mktemp("book"), "smoke", print).parent


@pytest.fixture(scope="module")
def browser():
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if path is None:
        missing("no Chromium here; on Debian: apt-get install chromium")
    with sync_playwright() as playwright:
        options = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        yield playwright.chromium.launch(executable_path=path, args=options)


@pytest.fixture(scope="module")
def visits(html, browser):
    """Every page opened offline once: (page, requests to elsewhere, errors) by its path."""
    context = browser.new_context(offline=True)
    opened = {}
    for path in sorted(path for path in html.rglob("*.html") if "_static" not in path.parts):
        page = context.new_page()
        elsewhere, errors = [], []
        page.on("request", lambda r, to=elsewhere: None if r.url.startswith(("file:", "data:")) else to.append(r.url))
        page.on("requestfailed", lambda r, to=errors: to.append(f"failed: {r.url}"))
        page.on("console", lambda m, to=errors: to.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda e, to=errors: to.append(str(e)))
        page.goto(path.as_uri(), wait_until="networkidle")
        opened[str(path.relative_to(html))] = (page, elsewhere, errors)
    return opened


FIGURES = {  # page -> how many it has
    "gd_catapults": 4, "gd_catapults-cnn": 3, "gd_catapults-cnn-wide": 3, "gd_catapults-rank-2": 4,
    "gd_catapults-wrn": 3, "gd_catapults-wrn-norm": 3, "gd_catapults-ten": 3, "gd_catapults-ten-cnn": 3,
    "multiple_catapults": 5, "multiple_catapults-cnn": 5,
    "sgd_spikes": 5, "sgd_spikes-shallow": 6, "sgd_spikes-sphere": 4, "sgd_spikes-vit": 4, "match_rates": 1,
    "agop_gd": 4, "agop_gd-full-rank": 4, "agop_sgd": 2, "agop_sgd-small-rate": 3, "agop_optimizers": 1,
}  # fmt: skip
NUMBERS = {"gd_catapults": 1, "multiple_catapults": 2, "sgd_spikes": 3, "match_rates": 3, "agop": 4}
CHAPTERS = [f"chapters/{name}.html" for name in FIGURES]


def test_all_pages_are_there(visits):
    names = ("welcome", "notation", "rerun", "bibliography", "reproduction", "open_questions")
    expected = {"index.html", *(f"book/{name}.html" for name in names)}
    assert expected | set(CHAPTERS) <= visits.keys()
    assert {f"chapters/{name}.html" for name in runs.load(ROOT / "chapters")} <= visits.keys()


def test_nothing_is_asked_of_another_host_and_nothing_fails(visits):
    for name, (_, elsewhere, errors) in visits.items():
        assert not elsewhere, name
        assert not errors, name


@pytest.mark.parametrize("name", CHAPTERS)
def test_figures_are_seen_numbered_captioned_and_described(visits, name):
    page = visits[name][0]
    figures = page.locator("figure").all()
    assert len(figures) == FIGURES[Path(name).stem]
    for figure in figures:
        image = figure.locator("img")
        assert image.evaluate("image => image.complete && image.naturalWidth") > 300
        assert image.bounding_box()["width"] > 300
        assert len(image.get_attribute("alt")) > 100
        number = next(n for start, n in NUMBERS.items() if Path(name).stem.startswith(start))
        assert figure.locator(".caption-number").inner_text().startswith(f"Fig. {number}.")
        assert len(figure.locator("figcaption").inner_text()) > 40


@pytest.mark.parametrize("name", CHAPTERS)
def test_a_page_says_what_made_it_and_what_came_of_it(visits, name):
    text = visits[name][0].locator("main").inner_text()
    assert "Made with the preset smoke" in text and ("(there:" in text or "no such run" in text)
    assert "reproduced" in text and "peak memory" in text and "run time" in text


def test_formulas_are_typeset(visits):
    page = visits[CHAPTERS[0]][0]
    page.wait_for_selector("mjx-container")
    assert page.locator("mjx-container").count() == page.locator("main .math").count() > 20


def test_no_figure_overflows_a_narrow_window_and_dark_figures_are_light(html, browser):
    page = browser.new_page(viewport={"width": 390, "height": 800})
    page.goto((html / CHAPTERS[0]).as_uri(), wait_until="networkidle")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.evaluate("document.documentElement.dataset.theme = 'dark'")
    image = page.locator("figure img").first
    style = image.evaluate("image => [getComputedStyle(image).filter, getComputedStyle(image).backgroundColor]")
    assert "invert(1)" in style[0] and style[1] == "rgba(0, 0, 0, 0)"


def test_links_inside_the_book_lead_somewhere(html, visits):
    anchors: dict[str, set[str]] = {}
    for name, (page, _, _) in visits.items():
        anchors[(html / name).as_uri()] = set(page.evaluate("[...document.querySelectorAll('[id]')].map(e => e.id)"))
    for name, (page, _, _) in visits.items():
        for link in page.evaluate("[...document.querySelectorAll('main a[href]')].map(a => a.href)"):
            target, anchor = urldefrag(link)
            if urlparse(link).scheme != "file" or not target.endswith(".html"):
                continue
            assert target in anchors, f"{name}: {link}"
            assert not anchor or anchor in anchors[target], f"{name}: {link}"


def test_a_verdict_of_the_report_opens_what_it_rests_on(html, browser):
    page = browser.new_page(viewport={"width": 390, "height": 800})
    page.goto((html / "book" / "reproduction.html").as_uri(), wait_until="networkidle")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    details = page.locator("details", has=page.locator("#report-gd-catapults"))
    assert not details.locator("li").first.is_visible()
    page.locator("a[href='#report-gd-catapults']").first.click()
    assert details.locator("li").first.is_visible()
    assert "This run:" in details.locator("li").first.inner_text()


def test_the_first_page_leads_to_chapter_1(html, browser):
    page = browser.new_page()
    page.goto((html / "index.html").as_uri())
    try:
        page.get_by_role("link", name="chapter 1").first.click(timeout=5000)
    except Error:
        pytest.fail("no link to chapter 1 on the first page")
    assert page.url.endswith(CHAPTERS[0])
