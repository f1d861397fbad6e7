"""The rendered book in a real browser without network: pages open, figures are seen, links work."""

import os
import re
import shutil
import subprocess
import sys
from urllib.parse import urldefrag, urlparse

import pytest
from axe_playwright_python.sync_playwright import Axe
from book_project import ROOT
from catapults.book import runs
from conftest import missing
from playwright.sync_api import Error, sync_playwright

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]


@pytest.fixture(scope="module")
def html():
    """The project's own book, which is built unless it is there as it would be built now."""
    environment = {
        name: value for name, value in os.environ.items() if name not in ("CATAPULTS_RESULTS", "CATAPULTS_RECORD")
    }
    command = [sys.executable, "-m", "catapults.book.cli", "build"]
    built = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert built.returncode == 0, built.stdout + built.stderr
    return ROOT / "_build" / "html"


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


CHAPTERS = {f"chapters/{name}.html": run for name, run in runs.load(ROOT / "chapters").items()}
FIRST = next(iter(CHAPTERS))


def number_of(run: runs.Run) -> int | None:
    """The number of its chapter in the book; ``None`` for a page outside of the chapters."""
    of = {
        "gd_catapults": 1,
        "multiple_catapults": 2,
        "sgd_spikes": 3,
        "match_rates": 3,
        "phases": 5,
        "causes": 6,
        "stability": 7,
    }
    of |= dict.fromkeys(("agop_gd", "agop_sgd", "agop_optimizers"), 4)
    return of.get(run.name)  # run sheets are in no chapter


def test_all_pages_are_there(visits):
    names = [path.stem for path in (ROOT / "book").glob("*.md")]
    assert {"index.html", *(f"book/{name}.html" for name in names), *CHAPTERS} <= visits.keys()


def test_nothing_is_asked_of_another_host_and_nothing_fails(visits):
    for name, (_, elsewhere, errors) in visits.items():
        assert not elsewhere, name
        assert not errors, name


def test_figures_are_seen_numbered_captioned_and_described(visits):
    seen = 0
    for name, run in CHAPTERS.items():
        page, number = visits[name][0], number_of(run)
        figures = page.evaluate("""[...document.querySelectorAll('figure')].map(figure => {
            const image = figure.querySelector('img')
            return {loaded: image.complete && image.naturalWidth > 300, width: image.getBoundingClientRect().width,
                    alt: image.alt, number: figure.querySelector('.caption-number').innerText,
                    caption: figure.querySelector('figcaption').innerText}
        })""")
        assert figures, name
        for figure in figures:
            assert figure["loaded"] and figure["width"] > 300, name
            assert len(figure["alt"]) > 100 and len(figure["caption"]) > 40, name
            assert figure["number"].startswith(f"Fig. {number}." if number else "Fig. "), name
            assert figure["number"].count(".") <= 2 + (number is None), name
        seen += len(figures)
    assert seen > 150


def test_a_page_says_what_made_it_and_what_came_of_it_and_shows_its_parameters_whole(visits):
    for name, run in CHAPTERS.items():
        page = visits[name][0]
        text = page.locator("main").inner_text()
        sizes = ("which departs from", "which here is the same as", "no such run")
        assert "Made with the preset book" in text and any(words in text for words in sizes), name
        verdicts = ("reproduced", "not compared")
        assert "changed since" in text and (
            any(v in text for v in verdicts) or run.name in ("performance", "own_network", "your_training")
        ), name
        table = page.locator(".parameters table")
        assert table.locator("tbody tr").count() == len(run.chapter.parameters), name
        assert table.evaluate("table => table.scrollWidth <= table.parentElement.clientWidth + 1"), name


KINDS = (  # of pages, one each
    *(f"book/{name}.html" for name in ("welcome", "sgd_networks", "gallery", "reproduction", "run_sheets", "rerun")),
    *(f"book/{name}.html" for name in ("notation", "bibliography")),
    *(
        f"chapters/{name}.html"
        for name in ("gd_catapults", "phases", "stability", "match_rates", "agop_sgd", "performance", "own_network")
    ),
    "chapters/your_training.html",
    *(f"chapters/{name}.html" for name in ("sgd_spikes-wrn", "agop_gd-usps")),
    "search.html",
)
SCREENS = [("light", 1300), ("dark", 390)]


@pytest.mark.parametrize(("theme", "width"), SCREENS)
def test_axe_finds_nothing_against_wcag(html, browser, theme, width):
    """WCAG 2.1, levels A and AA."""
    rules = {"runOnly": {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]}}
    found = []
    size = {"width": width, "height": 900}
    context = browser.new_context(viewport=size, offline=True, color_scheme=theme, reduced_motion="reduce")
    for name in KINDS:
        page = context.new_page()
        page.goto((html / name).as_uri(), wait_until="networkidle")
        assert page.evaluate("document.documentElement.dataset.theme") == theme
        for broken in Axe().run(page, options=rules).response["violations"]:
            found.append(f"{name}: {broken['id']} ({broken['impact']}), {broken['nodes'][0]['html'][:200]}")
        page.close()
    assert not found, "\n".join(found)


def test_no_page_is_heavy(html):
    """With its pictures, and without what all pages share."""
    for path in html.rglob("*.html"):
        text = path.read_text()
        pictures = {(path.parent / source).resolve() for source in re.findall(r'<img[^>]* src="([^"#:]+)"', text)}
        weight = len(text.encode()) + sum(picture.stat().st_size for picture in pictures)
        assert weight <= 1.5 * 2**20, (path.name, weight)


def test_the_sidebar_is_short(visits):
    for name, (page, _, _) in visits.items():
        assert page.locator(".bd-docs-nav li").count() <= 24, name


class TestThePictureThatMoves:
    @pytest.fixture
    def page(self, html, browser):
        page = browser.new_page()
        page.goto((html / "book" / "welcome.html").as_uri(), wait_until="networkidle")
        return page

    def test_the_slider_turns_the_rate_by_keyboard_and_says_what_happens(self, page):
        slider, sentence = page.get_by_role("slider"), page.locator(".explorer-sentence")
        assert "At 1.67 times the critical rate the loss rises" in sentence.inner_text()
        assert sentence.get_attribute("aria-live") == "polite"
        before = page.locator(".explorer-picture path.loss").get_attribute("d")
        slider.focus()
        page.keyboard.press("End")
        assert "diverges" in sentence.inner_text()
        assert page.locator(".explorer-picture path.loss").get_attribute("d") != before
        page.keyboard.press("Home")
        assert "At 0.5 times the critical rate the loss never rises" in sentence.inner_text()
        assert slider.get_attribute("aria-valuetext") == "0.5 × the critical one"

    def test_its_numbers_are_a_table_on_demand(self, page):
        rows = page.locator(".explorer tbody tr")
        assert rows.count() > 20 and not rows.first.is_visible()
        page.get_by_text("The numbers").click()
        assert rows.first.is_visible()

    def test_without_scripts_it_is_a_picture_with_its_sentence(self, html, browser):
        page = browser.new_context(java_script_enabled=False).new_page()
        page.goto((html / "book" / "welcome.html").as_uri())
        assert page.locator(".explorer-static svg").is_visible() and not page.locator(".explorer input").is_visible()
        assert "At 1.67 times the critical rate" in page.locator(".explorer-sentence").inner_text()


def test_the_picture_of_batches_turns_its_pages_by_keyboard(html, browser):
    page = browser.new_page()
    page.goto((html / "chapters" / "agop_sgd.html").as_uri(), wait_until="networkidle")
    slider, sentence = page.get_by_role("slider"), page.locator(".explorer-sentence")
    assert "Batches of 5: " in sentence.inner_text() and page.locator(".explorer-picture svg").count() == 1
    slider.focus()
    page.keyboard.press("End")
    assert "All 2,000 samples: 0 " in sentence.inner_text()
    assert slider.get_attribute("aria-valuetext") == "all 2,000 samples"
    assert page.locator(".explorer-picture svg").count() == 1


def test_headings_have_two_numbers_at_most(visits):
    for name in CHAPTERS:
        headings = visits[name][0].locator("main :is(h1, h2, h3) .section-number").all_inner_texts()
        assert all(heading.strip().count(".") <= 2 for heading in headings), name


def test_formulas_are_typeset(visits):
    page = visits[FIRST][0]
    page.wait_for_selector("mjx-container")
    assert page.locator("mjx-container").count() == page.locator("main .math").count() > 20


def test_no_figure_overflows_a_narrow_window_and_dark_figures_are_light(html, browser):
    page = browser.new_page(viewport={"width": 390, "height": 800})
    page.goto((html / FIRST).as_uri(), wait_until="networkidle")
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
    assert "Here:" in details.locator("li").first.inner_text()


def test_the_first_page_leads_to_chapter_1(html, browser):
    page = browser.new_page()
    page.goto((html / "index.html").as_uri())
    try:
        page.get_by_role("link", name="chapter 1").first.click(timeout=5000)
    except Error:
        pytest.fail("no link to chapter 1 on the first page")
    assert page.url.endswith(FIRST)
